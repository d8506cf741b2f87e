"""``energysim plot``: every kind writes its picture, every example runs, mistakes are told."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click
import pytest
from command_line import Done, call

from energysim.cli import main

NET = """\
name: net
source: a test
input: [3, 8, 8]
layers:
  - {name: first, kind: conv, out: 8, kernel: 3, pad: 1}
  - {name: second, kind: conv, out: 8, kernel: 3, pad: 1}
  - {name: fc, kind: linear, out: 4}
"""

RUNS = ("energy", "tensors", "traffic", "roofline", "tornado", "mapping")
"""Kinds that show a run of a network."""


def kinds() -> list[str]:
    group = main.get_command(click.Context(main), "plot")
    assert isinstance(group, click.Group)
    return group.list_commands(click.Context(group))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text(NET)
    return tmp_path


def trained() -> None:
    """A folder ``runs`` as the trainer leaves it."""
    from energysim.train.record import COLUMNS, log_text

    run = Path("runs/net_digits_s0")
    run.mkdir(parents=True)
    row = dict.fromkeys([*COLUMNS, "job"], "") | {"network": "net", "epochs": 2}
    (run / "result.json").write_text(json.dumps(row))
    records = [
        {"epoch": epoch, "train_loss": 2 / epoch, "train_top1": 0.4, "test_loss": 2.5 / epoch,
         "test_top1": 0.3 * epoch}
        for epoch in (1, 2)
    ]  # fmt: skip
    (run / "log.jsonl").write_text(log_text(records))


def refused(*words: str, status: int = 2) -> str:
    before = sorted(Path().rglob("*"))
    done = call("plot", *words)
    assert done.status == status, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert sorted(Path().rglob("*")) == before
    return done.err


def drawn(kind: str, *more: str, net: str = "./net.yaml") -> Done:
    layer = ("--layer", "second") if kind == "mapping" else ()
    return call("plot", kind, "--net", net, "--hw", "edge_tpu", *layer, *more)


def test_kinds() -> None:
    assert kinds() == [*RUNS[:-1], "patterns", "mapping", "training"]


def examples() -> list[str]:
    lines = []
    for kind in kinds():
        text = call("plot", kind, "--help").out
        found = [line.strip() for line in text.splitlines()]
        own = [line for line in found if line.startswith("energysim plot ")]
        assert own, kind
        lines += own
    return lines


@pytest.mark.parametrize("line", examples())
def test_examples_run(line: str) -> None:
    trained()
    words = shlex.split(line)[1:]
    done = call(*words)
    assert done.status == 0, done.err
    assert done.out == ""
    path = Path(words[words.index("-o") + 1])
    assert done.err == f"wrote {path}\n"
    assert path.stat().st_size > 2000


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_pictures_are_the_same_bytes_again(kind: str, suffix: str) -> None:
    for name in ("a", "b"):
        done = drawn(kind, "-q", "-o", f"{name}.{suffix}")
        assert (done.status, done.out, done.err) == (0, "", "")
    assert Path(f"a.{suffix}").read_bytes() == Path(f"b.{suffix}").read_bytes()


@pytest.mark.parametrize("kind", RUNS)
def test_without_a_file(kind: str) -> None:
    words = ("--layer", "second") if kind == "mapping" else ()
    message = refused(kind, "--net", "./net.yaml", "--hw", "edge_tpu", *words)
    assert "Missing option '-o' / '--output'" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("energi -o x.png", "no kind of picture named 'energi'. Did you mean 'energy'?"),
        ("xyzzy -o x.png", "no kind of picture named 'xyzzy'. Kinds: energy, tensors"),
        ("energy -o x.png", "Missing option '--net' or '--result'"),
        ("energy --net ./net.yaml -o x.png", "Missing option '--hw'"),
        ("energy --net ./net.yaml --hw edge_tpu -o x.gif", "written as .png, .svg, .pdf, not as"),
        ("energy --net ./net.yaml --hw edge_tpu -o no/x.png", "the folder no does not exist"),
        ("energy --net ./net.yaml --hw edge_tpu --width 1 -o x.png", "is not in the range"),
        ("energy --net ./net.yaml --hw edge_tpu --rows 0 -o x.png", "is not in the range"),
        ("energy --net ./net.yaml --hw edge_tpu --patterns PS4P4 -o x.png", "Did you mean 'PS4_P4"),
        ("energy --net ./net.yaml --hw edge_tpu --patterns , -o x.png", "gives no name"),
        ("energy --net ./net.yaml --hw edge_tpu --dataflow all -o x.png", "one dataflow"),
        ("energy --net ./net.yaml --hw edge_tpu --objective energy,dram -o x.png", "one objective"),
        ("energy --result net.yaml -o x.png", "net.yaml: is no JSON"),
        ("energy --result a.json --net vgg16 -o x.png", "--result stands for a run"),
        ("energy --result a.json --patterns PS4_P4 -o x.png", "--result stands for a run"),
        ("energy --result nowhere.json -o x.png", "nowhere.json"),
        ("traffic --net ./net.yaml --hw edge_tpu --width 3.5 -o x.png --patterns PS4_P4,PS2_P6,2:4",
         "3 results are too many for 3.5 inches"),
        ("mapping --net ./net.yaml --hw edge_tpu --layer secnd -o x.png", "Did you mean 'second'?"),
        ("mapping --net ./net.yaml --hw edge_tpu -o x.png", "Missing option '--layer'"),
        ("mapping --net ./net.yaml --layer fc -o x.png", "Missing option '--hw'"),
        ("patterns --patterns 4:2 -o x.png", "N must be at least 1 and less than M"),
        ("training . -o x.png", "holds no finished run"),
        ("training nowhere -o x.png", "nowhere"),
    ],
)  # fmt: skip
def test_mistakes(words: str, message: str) -> None:
    assert message in refused(*shlex.split(words))


def test_what_fits_no_mapping() -> None:
    from command_line import ROOT

    chip = (ROOT / "hw_configs" / "edge_tpu.yaml").read_text()
    chip = chip.replace("capacity_kib: 8192", "capacity_bytes: 8")
    Path("chip.yaml").write_text(chip.replace("residency: true", "residency: false"))
    words = ("energy", "--net", "./net.yaml", "--hw", "chip.yaml", "-o", "x.png")
    assert "level SRAM is too small" in refused(*words, status=3)


@pytest.mark.parametrize("kind", ["energy", "tensors", "traffic", "roofline", "tornado"])
def test_a_saved_result_gives_the_same_bytes(kind: str) -> None:
    args = ("--net", "./net.yaml", "--hw", "edge_tpu", "-q")
    assert call("run", *args, "-o", "run.json").status == 0
    assert call("plot", kind, *args, "-o", "a.svg").status == 0
    done = call("plot", kind, "--result", "run.json", "-o", "b.svg")
    assert done.status == 0, done.err
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()


def test_options_change_the_run() -> None:
    """Each of them gives another picture than the run without it."""
    assert drawn("energy", "-o", "plain.svg").status == 0
    Path("densities.csv").write_text("layer,input_density\nsecond,0.5\n")
    for words in (
        ("--batch", "2"),
        ("--dataflow", "output_stationary"),
        ("--residency", "off"),
        ("--phase", "training"),
        ("--patterns", "PS4_P4"),
        ("--patterns", "dense,PS4_P4"),
        ("--totals",),
        ("--width", "3.5"),
        ("--rows", "2"),
    ):
        done = drawn("energy", *words, "-o", "other.svg")
        assert done.status == 0, done.err
        assert Path("other.svg").read_bytes() != Path("plain.svg").read_bytes(), words
    assert drawn("energy", "--activations", "densities.csv", "-o", "gated.svg").status == 0


def test_dense_is_the_network_itself() -> None:
    for words, path in ((("--patterns", "dense"), "a.svg"), ((), "b.svg")):
        assert drawn("energy", *words, "-o", path).status == 0
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()


def test_an_older_picture_stays_where_drawing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("x.png").write_bytes(b"old")

    def fail(*_args: object, **_options: object) -> None:
        raise ValueError("a made-up mistake")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    assert drawn("energy", "-o", "x.png").status == 1
    assert Path("x.png").read_bytes() == b"old"
