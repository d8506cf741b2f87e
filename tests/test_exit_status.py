"""What goes wrong: the exit status, and a message that says where, what and what to try."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import ROOT, Done, call, call_process, environment

from energysim import Result
from energysim.cli import DEBUG_VARIABLE

CHIP = (ROOT / "hw_configs" / "edge_tpu.yaml").read_text()
NET = """\
name: net
source: a test
input: [3, 8, 8]
layers:
  - {name: first, kind: conv, out: 8, kernel: 3, pad: 1}
  - {name: second, kind: conv, out: 8, kernel: 5, pad: 2}
  - {name: third, kind: conv, out: 8, kernel: 3, pad: 1}
  - {name: fc, kind: linear, out: 4}
"""
MAPPING = """\
layers:
  fc:
    - {level: SRAM, temporal: [[K, 4]]}
    - {level: ACC, temporal: [[C, 8]], spatial: [[C, 64, rows]]}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENERGYSIM_PATH", raising=False)
    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)
    (tmp_path / "net.yaml").write_text(NET)
    (tmp_path / "chip.yaml").write_text(CHIP)
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    return tmp_path


def run(*more: str, net: str = "net.yaml", hw: str = "chip.yaml") -> Done:
    return call("run", "--net", net, "--hw", hw, *more)


def refused(done: Done, *, status: int = 2) -> str:
    """Check that a command failed as it should; what it said."""
    assert done.status == status, done.err
    assert done.out == ""
    assert done.err.startswith(("Error: ", "Usage: "))
    assert "Traceback" not in done.err
    assert "bug" not in done.err
    return done.err


def place(text: str, word: str) -> str:
    """``line:column`` of the first time a word stands in a text."""
    at = text.index(word)
    return f"{text.count(chr(10), 0, at) + 1}:{at - text.rfind(chr(10), 0, at)}"


def test_the_files_are_in_order() -> None:
    assert run("--mapping", "mapping.yaml").status == 0


# -- one change to a file, and what is said about it -----------------------------------------------

Change = tuple[str, str, str, str]
"""Old text, new text, word of the new file that the message points to, message."""

IN_CHIP: dict[str, Change] = {
    "unknown key": (
        "clock_mhz: 480", "clock_mzh: 480", "clock_mzh",
        "clock_mzh: unknown field. Did you mean 'clock_mhz'?",
    ),
    "unknown key inside": (
        "  multicast: true", "  multcast: true", "multcast",
        "array.multcast: unknown field. Did you mean 'multicast'?",
    ),
    "missing key": ("  lanes: 64\n", "", "energy_pj: 0.03", "vector: missing field 'lanes'"),
    "duplicate key": (
        "static_mw: 0.0", "static_mw: 0.0\nresidency: false", "residency: false",
        "residency: given twice, first at line",
    ),
    "wrong type": (
        "psum: 32", "psum: wide", "wide", "bits.psum: must be an integer, got 'wide'",
    ),
    "number for text": ("name: edge_tpu", "name: 12", "12", "name: must be text, got 12"),
    "negative": (
        "psum: 32", "psum: -32", "-32", "bits.psum: must be >= 1, got -32",
    ),
    "zero": (
        "axes: {rows: 64", "axes: {rows: 0", "0, cols", "array.axes.rows: must be >= 1, got 0",
    ),
    "negative size": (
        "capacity_kib: 8192", "capacity_kib: -1", "-1",
        "levels.1.capacity_kib: must be > 0, got -1",
    ),
    "negative energy": (
        "read_pj_per_bit: 0.5045", "read_pj_per_bit: -2e-1", "-2e-1",
        "levels.1.read_pj_per_bit: must be >= 0, got -0.2",
    ),
    "not a number": (
        "clock_mhz: 480", "clock_mhz: .nan", ".nan", "clock_mhz: must be a finite number, got .nan",
    ),
    "infinite": (
        "clock_mhz: 480", "clock_mhz: .inf", ".inf", "clock_mhz: must be a finite number, got .inf",
    ),
    "too large for a number": (
        "clock_mhz: 480", "clock_mhz: 1e999", "1e999", "clock_mhz: '1e999' is too large a number",
    ),
    "unknown dim": (
        "rows: [C]", "rows: [X]", "X]", "array.unroll.rows.0: must be one of 'N', 'G', 'K', 'C'",
    ),
    "unknown axis of a level": (
        "per: [cols]", "per: [columns]", "columns]",
        "levels.2.per.0: no array axis named 'columns'.",
    ),
}  # fmt: skip

IN_NET: dict[str, Change] = {
    "unknown kind": (
        "kind: linear", "kind: liner", "liner",
        ("must be one of 'conv', 'depthwise', 'transposed', 'linear', 'matmul', 'pool', 'add', "
        "'multiply', 'batch_norm', 'layer_norm', 'mixture_norm', 'softmax', 'shuffle', got "
        "'liner'. Did you mean 'linear'?"),
    ),
    "dangling input": (
        "{name: third, kind: conv,", "{name: third, input: secnd, kind: conv,", "secnd",
        "layer 'third': reads 'secnd', but there is no such layer. Did you mean 'second'?",
    ),
    "cycle": (
        "{name: third, kind: conv,", "{name: third, input: third, kind: conv,", "third, kind",
        "layer 'third': reads itself (cycle or forward reference)",
    ),
    "reads a later layer": (
        "{name: second, kind: conv,", "{name: second, input: third, kind: conv,", "third, kind",
        "layer 'second': reads the later layer 'third' (cycle or forward reference)",
    ),
    "kernel larger than the padded input": (
        "kernel: 5, pad: 2", "kernel: 13, pad: 2", "13",
        "layer 'second': a 13x13 kernel is larger than the padded input 12x12",
    ),
    "groups that do not divide": (
        "kernel: 5, pad: 2", "kernel: 5, pad: 2, groups: 3", "3}",
        "layer 'second': groups: 3 must divide the input channels (8) and the output channels (8)",
    ),
    "operands of different size": (
        "  - {name: fc", "  - {name: sum, kind: add, input: [third, input]}\n  - {name: fc",
        "[third, input]", ("channels, height and width of the operands must be equal, got "
        "'third' [8, 8, 8], 'input' [3, 8, 8]"),
    ),
    "pattern on another kernel size": (
        "kernel: 5, pad: 2", "kernel: 5, pad: 2, pattern: PS4_P4", "PS4_P4",
        "layer 'second': pattern PS4_P4 is defined for 3x3 kernels, not 5x5",
    ),
    "unknown pattern": (
        "kernel: 5, pad: 2", "kernel: 5, pad: 2, pattern: PS4P4", "PS4P4",
        "no pattern named 'PS4P4'. Did you mean 'PS4_P4'?",
    ),
    "zero layers": (NET[NET.index("layers:"):], "layers: []\n", "[]", "at least one layer"),
    "zero size": ("out: 4", "out: 0", "0}", "layers.3.out: must be >= 1, got 0"),
    "fraction for a count": (
        "out: 4", "out: 1e-12", "1e-12", "layers.3.out: must be an integer, got 1e-12",
    ),
    "layer twice": (
        "name: third", "name: second", "second, kind: conv, out: 8, kernel: 3",
        "there is an earlier layer of the same name",
    ),
}  # fmt: skip

IN_MAPPING: dict[str, Change] = {
    "unknown level": (
        "level: SRAM", "level: SRM", "SRM", ("no level named 'SRM'. Did you mean 'SRAM'? "
        "Levels of edge_tpu: DRAM, SRAM, ACC, RF"),
    ),
    "unknown layer": (
        "  fc:", "  fcc:", "- {level: SRAM", "net has no layer named 'fcc'. Did you mean 'fc'?",
    ),
    "does not cover the dims": (
        "[[C, 8]]", "[[C, 4]]", "- {level: SRAM",
        ("the loops over C do not cover its extent 512: pieces of 2 are left, multiply the trip "
        "counts by 2"),
    ),
    "array too short": (
        "[[C, 8]], spatial: [[C, 64, rows]]", "[[C, 4]], spatial: [[C, 128, rows]]", "[C, 128",
        "128 instances along 'rows', which has 64",
    ),
    "unknown axis": (
        "rows]]", "row]]", "[C, 64", "no array axis named 'row'. Did you mean 'rows'?",
    ),
    "unknown dim": ("[[K, 4]]", "[[X, 4]]", "X, 4", "must be one of 'N', 'G', 'K', 'C'"),
}  # fmt: skip


def changed(name: str, text: str, change: Change) -> tuple[Path, str]:
    old, new, _, _ = change
    assert old in text
    path = Path(name)
    path.write_text(text.replace(old, new, 1))
    return path, path.read_text()


@pytest.mark.parametrize("change", IN_CHIP.values(), ids=IN_CHIP)
def test_hardware(change: Change) -> None:
    _, text = changed("chip.yaml", CHIP, change)
    message = refused(run())
    assert f"chip.yaml:{place(text, change[2])}" in message
    assert change[3] in message
    checked = call("check", "hw", "chip.yaml")
    assert (checked.status, checked.err) == (2, "")
    assert change[3] in checked.out


@pytest.mark.parametrize("change", IN_NET.values(), ids=IN_NET)
def test_network(change: Change) -> None:
    _, text = changed("net.yaml", NET, change)
    message = refused(run())
    assert f"net.yaml:{place(text, change[2])}" in message
    assert change[3] in message


@pytest.mark.parametrize("change", IN_MAPPING.values(), ids=IN_MAPPING)
def test_mapping(change: Change) -> None:
    _, text = changed("mapping.yaml", MAPPING, change)
    message = refused(run("--mapping", "mapping.yaml"))
    assert f"mapping.yaml:{place(text, change[2])}" in message
    assert change[3] in message


def test_mapping_that_overflows_a_buffer() -> None:
    chip = CHIP.replace("capacity_kib: 8192", "capacity_kib: 1")
    Path("chip.yaml").write_text(chip)
    message = refused(run("--mapping", "mapping.yaml", "--residency", "off"))
    where = f"mapping.yaml:{place(MAPPING, '- {level: SRAM')}"
    assert where in message
    assert "level SRAM is too small by " in message
    assert " bytes: the tiles need " in message
    assert "weight 2,048" in message


def test_several_mistakes_are_counted() -> None:
    text = NET.replace("out: 4", "out: 0").replace("pad: 2", "pda: 2")
    Path("net.yaml").write_text(text)
    lines = refused(run()).splitlines()
    assert len(lines) == 3
    assert lines[-1] == "2 errors"


def test_small_numbers_are_numbers() -> None:
    text = CHIP.replace("read_pj_per_bit: 0.5045", "read_pj_per_bit: 1e-12")
    text = text.replace("read_pj_per_bit: [0.1622,", "read_pj_per_bit: [0.0,")
    Path("chip.yaml").write_text(text.replace("static_mw: 0.0", "static_mw: 1E-9"))
    assert run().status == 0


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--net", "vgg16ps"], "no network named 'vgg16ps'. Did you mean 'vgg16_ps'?\n  known: "),
        (["--hw", "edgetpu"], "no hardware named 'edgetpu'. Did you mean 'edge_tpu'?\n  known: "),
        (["--hw", "net.yaml"], "net.yaml: describes a network, and hardware is asked for here"),
        (["--net", "./nte.yaml"], "nte.yaml: no such file. Did you mean 'net.yaml'?"),
        (["--net", "nowhere/net.yaml"], "There is no folder nowhere either"),
        (["--pattern", "PSD4P8"], "no pattern named 'PSD4P8'. Did you mean 'PSD4_P8'?"),
        (["--pattern", "PSD4_P8"], "layer 'second' has a 5x5 kernel"),
        (["--dataflow", "row_stat"], "no dataflow named 'row_stat'. Did you mean 'row_stationary'"),
        (["--mapping", "maping.yaml"], "maping.yaml: no such file. Did you mean 'mapping.yaml'?"),
        (["--weight-format", "cst"], "'cst' is not one of 'auto', 'dense', 'csr'"),
    ],
)
def test_names(args: list[str], words: str) -> None:
    assert words in refused(call("run", "--net", "net.yaml", "--hw", "chip.yaml", *args))


# -- files that are no YAML ------------------------------------------------------------------------


def sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100_000_000)


def alias_bomb(path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    path.write_text("\n".join(lines) + "\n")


def unreadable(path: Path) -> None:
    path.write_text(NET)
    path.chmod(0)


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_text(""), "the file is empty"),
    "comments": (lambda path: path.write_text("# later\n"), "the file has no fields"),
    "binary": (lambda path: path.write_bytes(bytes(range(256))), "is not a text file"),
    "latin-1": (lambda path: path.write_bytes(b"name: caf\xe9\n"), "is not UTF-8 text"),
    "a folder": (lambda path: path.mkdir(), "is a folder, not a file"),
    "100 MB": (sparse_file, "larger than 10 MB"),
    "alias bomb": (alias_bomb, "aliases are not supported"),
    "a list": (lambda path: path.write_text("- 1\n"), "must be a mapping"),
    "tabs": (lambda path: path.write_text("name:\tx\n\tsource: y\n"), "bad.yaml:2:1"),
    "unclosed": (lambda path: path.write_text("a: [\n"), "bad.yaml:2:1"),
    "deep": (lambda path: path.write_text("a: " + "[" * 5000), "nest"),
}


@pytest.mark.parametrize("option", ["--net", "--hw", "--mapping"])
@pytest.mark.parametrize(("make", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files(option: str, make: Callable[[Path], object], words: str) -> None:
    make(Path("bad.yaml"))
    given = {"--net": "net.yaml", "--hw": "chip.yaml", option: "./bad.yaml"}
    message = refused(call("run", *(word for pair in given.items() for word in pair)))
    assert words in message
    assert "bad.yaml" in message


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file() -> None:
    unreadable(Path("bad.yaml"))
    assert "no permission to read it" in refused(run(net="./bad.yaml"))


def test_unreadable_file_for_anyone(monkeypatch: pytest.MonkeyPatch) -> None:
    unreadable(Path("bad.yaml"))
    real = Path.open

    def guarded(path: Path, *args: object, **options: object) -> object:
        if path.name == "bad.yaml":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", guarded)
    assert "bad.yaml: no permission to read it" in refused(run(net="./bad.yaml"))


# -- output ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere/out.csv", "the folder nowhere does not exist"),
        ("out.xlsx", "the suffix of 'out.xlsx' names no format. Known: .csv, .json"),
        ("out", "the suffix of 'out' names no format"),
        ("taken.csv", "is a folder, not a file to write"),
        ("net.yaml/out.csv", "the folder net.yaml does not exist"),
    ],
)
def test_output_that_cannot_be_written(folder: Path, path: str, words: str) -> None:
    (folder / "taken.csv").mkdir()
    before = sorted(folder.rglob("*"))
    assert words in refused(run("-o", path))
    assert sorted(folder.rglob("*")) == before


def test_output_without_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_args: False)
    assert "no permission to write it" in refused(run("-o", "out.csv"))
    assert not (folder / "out.csv").exists()


def test_two_formats() -> None:
    message = refused(run("-o", "out.csv", "--format", "json"))
    assert "'out.csv' is written as csv, but --format says json" in message


def fail(*_args: object, **_options: object) -> Result:
    raise ValueError("a made-up mistake")


def test_simulation_fails_midway(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "out.csv").write_text("old")
    before = sorted(folder.iterdir())
    monkeypatch.setattr("energysim.price.price_layer", fail)
    assert run("-o", "out.csv").status == 1
    assert (folder / "out.csv").read_text() == "old"
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.md", "out.html", "out.parquet"])
def test_writing_fails_midway(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    (folder / name).write_text("old")
    before = sorted(folder.iterdir())
    monkeypatch.setattr(os, "fsync", full)
    assert f"{name}: can't be written: No space left on device" in refused(run("-o", name))
    assert (folder / name).read_text() == "old"
    assert sorted(folder.iterdir()) == before


def test_parquet_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_args: object, **_options: object) -> None:
        raise ImportError("pyarrow")

    monkeypatch.setattr(Result, "to_parquet", missing)
    assert "pip install 'energysim[parquet]'" in refused(run("-o", "out.parquet"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_behind_stdout() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "energysim", "list"]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False
        )
    assert done.returncode == 2
    assert done.stderr == "Error: No space left on device\n"


# -- 3: nothing fits -------------------------------------------------------------------------------


@pytest.mark.parametrize("by_process", [False, True])
def test_a_layer_that_fits_no_mapping(*, by_process: bool) -> None:
    text = CHIP.replace("capacity_kib: 8192", "capacity_bytes: 8")
    Path("chip.yaml").write_text(text.replace("residency: true", "residency: false"))
    args = ("run", "--net", "net.yaml", "--hw", "chip.yaml", "-o", "out.csv")
    message = refused(call_process(*args) if by_process else call(*args), status=3)
    assert "layer first: " in message
    assert "SRAM" in message
    assert " bytes" in message
    assert not Path("out.csv").exists()


# -- 1: bugs ---------------------------------------------------------------------------------------


def test_a_bug_asks_for_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energysim.price.price_layer", fail)
    done = run()
    assert (done.status, done.out) == (1, "")
    assert "unexpected ValueError: a made-up mistake" in done.err
    assert "please report it" in done.err
    assert "Traceback" not in done.err
    assert DEBUG_VARIABLE in done.err


def test_a_bug_shows_its_traceback_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energysim.price.price_layer", fail)
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    done = run()
    assert done.status == 1
    assert "Traceback" in done.err
    assert "test_exit_status.py" in done.err


def test_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_args: object, **_options: object) -> Result:
        raise KeyboardInterrupt

    monkeypatch.setattr("energysim.price.price_layer", interrupted)
    done = run()
    assert (done.status, done.out) == (130, "")
    assert done.err.startswith("Interrupted: 0 of 4 layers were done. Nothing was written; ")


def test_the_machine_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_options: object) -> Result:
        raise OSError(5, "Input/output error", "chip.yaml")

    monkeypatch.setattr("energysim.price.price_layer", broken)
    assert refused(run()) == "Error: chip.yaml: Input/output error\n"


# -- through a process of its own ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["list", "dataflows"], 0, ""),
        (["run", "--net", "vgg16ps", "--hw", "edge_tpu"], 2, "Did you mean 'vgg16_ps'?"),
        (["run", "--net", "./net.yaml"], 2, "Missing option '--hw'"),
        (["check", "hw", "net.yaml"], 2, ""),
    ],
)
def test_status_of_the_process(args: list[str], status: int, words: str) -> None:
    done = call_process(*args)
    assert done.status == status
    assert words in done.err
    assert "Traceback" not in done.err
