"""``energysim check``: every problem of every file, with its place; or ok."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import ROOT, call

MAPPING = """\
note: fc only
layers:
  fc:
    - {level: SRAM, temporal: [[K, 10]]}
    - {level: ACC, temporal: [[C, 8]], spatial: [[C, 64, rows]]}
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENERGYSIM_PATH", raising=False)
    return tmp_path


def refused(*args: str) -> list[str]:
    done = call("check", *args)
    assert (done.status, done.err) == (2, "")
    return done.out.splitlines()


def test_bundled_files_are_in_order() -> None:
    nets = [str(path) for path in sorted((ROOT / "networks").glob("*.yaml"))]
    chips = [str(path) for path in sorted((ROOT / "hw_configs").glob("*.yaml"))]
    done = call("check", *nets, *chips)
    assert (done.status, done.err) == (0, "")
    lines = [line for line in done.out.splitlines() if not line.startswith("  pattern ")]
    assert len(lines) == len(nets) + len(chips)
    assert all(": ok (" in line for line in lines)


@pytest.mark.parametrize("kind", [[], ["mapping"]])
def test_mapping(kind: list[str]) -> None:
    Path("m.yaml").write_text(MAPPING)
    assert call("check", *kind, "m.yaml").out == "m.yaml: ok (mapping, 1 layers)\n"


@pytest.mark.parametrize("head", ["layers:\n", "layers:   # from the paper\n\n  # first\n"])
def test_kind_is_told_by_the_fields(head: str) -> None:
    text = f"name: n\nsource: s\ninput: [1, 1, 1]\n{head}- {{name: a, kind: linear, out: 1}}\n"
    Path("n.yaml").write_text(text)
    assert call("check", "n.yaml").out == "n.yaml: ok (network, 1 layers)\n"


def test_names_without_a_path() -> None:
    assert call("check", "nets", "vgg16").out == "vgg16: ok (network, 19 layers)\n"
    assert call("check", "edge_tpu").out == "edge_tpu: ok (hardware, 4 levels)\n"


def test_a_file_called_like_a_kind() -> None:
    shutil.copy(ROOT / "hw_configs" / "edge_tpu.yaml", "nets")
    assert call("check", "nets").out == "nets: ok (hardware, 4 levels)\n"


def test_every_problem_with_its_place() -> None:
    text = (ROOT / "hw_configs" / "edge_tpu.yaml").read_text()
    text = text.replace("clock_mhz: 480", "clock_mhz: -480")
    text = text.replace("    capacity_kib: 8192", "    capcity_kib: 8192")
    text = text.replace("dataflow: weight_stationary", "dataflow: weight_stationery")
    Path("chip.yaml").write_text(text)
    lines = refused("hw", "chip.yaml")
    numbers = {field: 1 + text[: text.index(field)].count("\n")
               for field in ("clock_mhz", "capcity_kib")}  # fmt: skip
    assert lines[0] == f"chip.yaml:{numbers['clock_mhz']}:12 clock_mhz: must be > 0, got -480"
    assert lines[1] == (
        f"chip.yaml:{numbers['capcity_kib']}:5 levels.1.capcity_kib: unknown field. "
        "Did you mean 'capacity_kib'?"
    )
    assert lines[-1] == "2 errors"


def test_unknown_dataflow() -> None:
    text = (ROOT / "hw_configs" / "edge_tpu.yaml").read_text()
    text = text.replace("dataflow: weight_stationary", "dataflow: weight_stationery")
    Path("chip.yaml").write_text(text)
    line = 1 + text[: text.index("dataflow: ")].count("\n")
    first, *_, last = refused("chip.yaml")
    assert first == (
        f"chip.yaml:{line}:11 dataflow: no dataflow named 'weight_stationery'. "
        "Did you mean 'weight_stationary'?"
    )
    assert last == "1 error"


def test_problems_of_all_files_are_counted() -> None:
    Path("m.yaml").write_text("layers:\n  fc:\n    - {levl: SRAM}\n")
    lines = refused("m.yaml", "vgg16", "gone.yaml")
    assert lines[0] == "m.yaml:3:7 layers.fc.0: missing field 'level'"
    assert lines[1].startswith("m.yaml:3:8 layers.fc.0.levl: unknown field. Did you mean 'level'?")
    assert lines[2] == "vgg16: ok (network, 19 layers)"
    assert lines[3].startswith("gone.yaml: no such file")
    assert lines[4] == "3 errors"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["hw", "n.yaml"], "n.yaml:1:1: missing field 'name'"),
        (["nets", str(ROOT / "hw_configs" / "edge_tpu.yaml")], "describes hardware, and a network"),
        (["other.yaml"], "other.yaml: has neither 'levels:'"),
        (["nowhere"], "no network or hardware named 'nowhere'"),
        (["mapping", "nowhere"], "nowhere: no such file"),
        (["."], "is a folder, not a file"),
    ],
)
def test_what_cannot_be_checked(args: list[str], words: str) -> None:
    Path("n.yaml").write_text("bits: {weight: 8}\n")
    Path("other.yaml").write_text("a: 1\n")
    assert words in "\n".join(refused(*args))


def test_a_network_says_what_its_patterns_cover() -> None:
    own = "{supports: [[0, 1], [3, 4], [0, 1]], period: 6}"
    Path("own.yaml").write_text(
        "name: own\nsource: a test\ninput: [4, 8, 8]\nlayers:\n"
        f"  - {{name: a, kind: conv, out: 8, kernel: 3, pattern: {own}}}\n"
        "  - {name: b, kind: conv, out: 8, kernel: 3, pattern: PSD4_P8}\n"
    )
    done = call("check", "own.yaml")
    assert done.status == 0, done.err
    first, own_line, named_line = done.out.splitlines()
    assert first == "own.yaml: ok (network, 2 layers)"
    assert "4 of 9 taps live in a period of 6 kernels; mean KSS 2; 2 variants" in own_line
    assert "repeats after 3; never live: 2, 5, 6, 7, 8" in own_line
    assert named_line.strip() == (
        "pattern PSD4_P8: 9 of 9 taps live in a period of 8 kernels; mean KSS 4.62; 4 variants; "
        "1 dense kernel in it"
    )
