"""Comparisons: the figures of separate runs, relative to dense, the same in every form."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from command_line import Done, call
from machines import conv, looked_up, machine, memory, network

from energysim import simulate
from energysim.cache import Cache, folder
from energysim.catalog import load_network
from energysim.cli import compare as cli
from energysim.cli import render
from energysim.cli.options import Target
from energysim.compare import Comparison, compare
from energysim.errors import DoesNotFitError, InputError, InputErrors
from energysim.hardware import Hardware
from energysim.network import Network
from energysim.sparsity import PATTERNS

FORMATS = ["dense", "periodic", "csr", "bitmap"]
NAMES = ("PS4_P4", "pSC2", "2:4", "3x3_0.4.8_2.4.6")


def chip(name: str = "chip", kib: float = 4, **fields: Any) -> Hardware:
    return machine(
        memory("BUF", capacity_kib=kib),
        name=name,
        mac={"energy_pj": 5.0, "source": "a test"},
        sparsity={"weights": "gate", "formats": FORMATS},
        **fields,
    )


def small(**fields: Any) -> Network:
    return network(
        conv("first", 4),
        conv("second", 8, **fields),
        {"name": "fc", "kind": "linear", "out": 3},
        size=(2, 4, 4),
    )


def pointwise() -> Network:
    return network(conv("first", 4), conv("second", 8, kernel=1), size=(2, 4, 4))


def compared(
    networks: list[Network], machines: list[Hardware] | None = None, *patterns: str, **options: Any
) -> Comparison:
    cache = Cache(folder())
    return compare(networks, machines or [chip()], patterns=patterns, cache=cache, **options)


# -- figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"batch": 3, "objective": "latency"}, {"residency": True}],
    ids=str,
)
def test_figures_are_those_of_separate_runs(options: dict[str, Any]) -> None:
    found = compared([small()], None, *NAMES, **options)
    assert [row.pattern for row in found.rows] == ["dense", *NAMES]
    dense = looked_up(small(), chip(), **options)
    for row in found.rows:
        net = small().with_pattern(row.pattern)
        own = looked_up(net, chip(), **options)
        assert (row.network, row.base, row.hardware) == (net.name, "net", "chip")
        figures = row.figures
        assert figures.parameters == net.parameters
        assert figures.stored_bits == sum(layer.weight_bits for layer in own.layer_rows)
        assert (figures.macs, figures.effective_macs) == (own.total_macs, own.total_effective_macs)
        assert (figures.cycles, figures.dram_bytes) == (own.total_cycles, own.total_dram_bytes)
        assert figures.energy_pj == own.total_energy_pj
        assert row.result.layer_rows == own.layer_rows
        ratios = row.ratios
        assert ratios.parameters == net.parameters / small().parameters
        assert ratios.energy_pj == own.total_energy_pj / dense.total_energy_pj
        assert ratios.dram_bytes == own.total_dram_bytes / dense.total_dram_bytes
        assert ratios.cycles == own.total_cycles / dense.total_cycles
        assert ratios.effective_macs == own.total_effective_macs / dense.total_macs
        assert ratios.macs == 1
    assert set(asdict(found.rows[0].ratios).values()) == {1.0}
    assert all(row.ratios.energy_pj != 1 for row in found.rows[1:])


def test_formats_are_those_of_runs_in_one_format() -> None:
    dense, periodic, blocks = compared([small()], None, "PS4_P4", "2:4").rows
    assert [each.format for each in periodic.formats] == FORMATS
    assert [each.format for each in blocks.formats] == ["dense", "csr", "bitmap"]
    for row in (dense, periodic, blocks):
        net = small().with_pattern(row.pattern)
        for size in row.formats:
            own = looked_up(net, chip(), weight_format=size.format)
            assert size.total_bits == sum(layer.weight_bits for layer in own.layer_rows)
        assert row.figures.stored_bits <= min(each.total_bits for each in row.formats)
    assert (dense.weight_format, periodic.weight_format) == ("dense", "periodic")
    (kept,) = [each for each in periodic.formats if each.format == "periodic"]
    # 4 x 8 kernels of 4 taps; the first layer and the last are dense
    assert kept.values_bits == 8 * (4 * 8 * 4 + 4 * 2 * 9 + 8 * 16 * 3)
    assert kept.values_bits == periodic.figures.values_bits
    assert kept.metadata_bits == periodic.figures.metadata_bits > 0


def test_nothing_over_zero() -> None:
    pool = network({"name": "pool", "kind": "pool", "kernel": 2}, size=(2, 4, 4))
    (row,) = compared(
        [pool], [chip(vector={"lanes": 2, "energy_pj": 1.0, "source": "a test"})]
    ).rows
    assert (row.ratios.parameters, row.ratios.stored_bits, row.ratios.energy_pj) == (None, None, 1)


# -- which rows ------------------------------------------------------------------------------------


def test_all_patterns_of_the_papers() -> None:
    rows = compared([small()], None, "all").rows
    assert [row.pattern for row in rows] == list(PATTERNS)
    assert len(rows) == 13


def test_by_network_then_machine_dense_first() -> None:
    other = chip("other", kib=2)
    rows = compared([small(), pointwise()], [chip(), other], "2:4", "dense").rows
    assert [(row.hardware, row.pattern) for row in rows] == [
        ("chip", "dense"), ("chip", "2:4"), ("other", "dense"), ("other", "2:4"),
    ] * 2  # fmt: skip
    assert [len(row.result.layer_rows) for row in rows] == [3] * 4 + [2] * 4
    for base, row in zip(rows[::2], rows[1::2], strict=True):
        assert row.dense == base.figures


def test_what_occurs_twice_is_compared_once() -> None:
    twins = [small(), small().with_pattern("PS4_P4"), small()]
    rows = compared(twins, [chip(), chip()], "ps4_p4", "PS4_P4", "pSC9", "2:4").rows
    assert [row.pattern for row in rows] == ["dense", "PS4_P4", "2:4"]


def test_a_variant_is_compared_with_its_base() -> None:
    dense, sparse = compared([load_network("vgg16_ps")], [_tpu()]).rows
    assert (dense.network, dense.pattern) == ("vgg16", "dense")
    assert (sparse.network, sparse.base, sparse.pattern) == ("vgg16_ps", "vgg16", "PSD4_P8")
    assert dense.figures.parameters == load_network("vgg16").parameters
    assert sparse.ratios.parameters == sparse.figures.parameters / dense.figures.parameters < 1


def _tpu() -> Hardware:
    from energysim.catalog import load_hardware

    return load_hardware("edge_tpu")


def test_layers_with_patterns_and_masks_of_their_own() -> None:
    """The same layers dense are the base, and patterns go on that."""
    masked = small().with_masks({"second": np.eye(8, 4, dtype=bool)[:, :, None, None].repeat(
        3, 2).repeat(3, 3)})  # fmt: skip
    for own in (small(pattern="PS2_P6"), masked):
        dense, sparse, other = compared([own], None, "PS4_P4").rows
        assert dense.figures == compared([small()]).rows[0].figures
        assert sparse.figures.parameters == own.parameters < dense.figures.parameters
        assert other.figures == compared([small()], None, "PS4_P4").rows[1].figures


# -- what is left out ------------------------------------------------------------------------------


def test_a_pattern_that_covers_nothing_is_left_out() -> None:
    found = compared([pointwise()], None, "PS4_P4", "2:4")
    assert [row.pattern for row in found.rows] == ["dense", "2:4"]
    (left,) = found.left_out
    assert (left.network, left.hardware, left.pattern) == ("net", None, "PS4_P4")
    assert left.reason.startswith("pattern PS4_P4 covers no layer of 'net': ")


def test_no_pattern_left() -> None:
    with pytest.raises(InputErrors, match="net: pattern PS4_P4 covers no layer"):
        compared([pointwise()], None, "PS4_P4", "dense")
    found = compared([pointwise()], None, "all")
    assert [row.pattern for row in found.rows] == ["dense"]
    assert [each.pattern for each in found.left_out] == list(PATTERNS)[1:]
    both = compared([small(), pointwise()], None, "PS4_P4")
    assert [row.pattern for row in both.rows] == ["dense", "PS4_P4", "dense"]


def test_what_does_not_fit_is_left_out() -> None:
    tiny = chip("tiny", kib=1 / 1024)
    found = compared([small()], [tiny, chip()], "PS4_P4")
    assert [(row.hardware, row.pattern) for row in found.rows] == [
        ("chip", "dense"), ("chip", "PS4_P4"),
    ]  # fmt: skip
    (left,) = found.left_out
    assert (left.network, left.hardware, left.pattern) == ("net", "tiny", "dense")
    assert "layer first" in left.reason
    with pytest.raises(DoesNotFitError, match="layer first"):
        compared([small()], [tiny], "PS4_P4")


def test_wrong_input() -> None:
    with pytest.raises(InputError, match=r"no pattern named 'PS4P4'\. Did you mean 'PS4_P4'"):
        compared([small()], None, "PS4P4")
    with pytest.raises(InputErrors, match=r"(?s)'PS4P4'.*N:M, N must be at least 1.*2 errors"):
        compared([small()], None, "PS4P4", "PS2_P6", "4:2")
    for networks, machines in (([], [chip()]), ([small()], [])):
        with pytest.raises(InputError, match="at least one network and one hardware"):
            compare(networks, machines)


# -- progress and Ctrl-C ---------------------------------------------------------------------------


def test_progress_counts_the_layers_of_all() -> None:
    told: list[tuple[int, int, str]] = []
    compared([small(), pointwise()], None, "2:4", progress=lambda *args: told.append(args))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert {total for _, total, _ in told} == {2 * 3 + 2 * 2}
    assert told[0] == (0, 10, "net on chip first")
    assert told[-1] == (10, 10, "net+2:4 on chip")


def test_interrupt(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupted(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return simulate(*args, **options)

    # by module: the package has a function of this name
    monkeypatch.setattr(sys.modules[compare.__module__], "simulate", interrupted)
    done = call(*ARGS, "--patterns", "PS4_P4,2:4,pSC2", "-o", "out.csv")
    assert (done.status, done.out) == (130, "")
    (line,) = done.err.splitlines()
    assert line.startswith("Interrupted: 2 of 4 networks were done. Nothing was written; ")
    assert not (files / "out.csv").exists()


# -- the command -----------------------------------------------------------------------------------

TINY = """\
name: tiny
source: a test
input: [3, 8, 8]
layers:
  - {name: first, kind: conv, out: 8, kernel: 3, pad: 1}
  - {name: second, kind: conv, out: 16, kernel: 3, pad: 1}
  - {name: fc, kind: linear, out: 10}
"""
FLAT = TINY.replace("tiny", "flat").replace("out: 16, kernel: 3, pad: 1", "out: 16, kernel: 1")
VARIANT = "name: tiny_ps\nsource: a test\nbase: tiny\npattern: PSD4_P8\n"
ARGS = ("compare", "--net", "tiny", "--hw", "edge_tpu")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENERGYSIM_PATH", raising=False)
    for name, text in (("tiny", TINY), ("flat", FLAT), ("tiny_ps", VARIANT)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def run(*more: str) -> Done:
    done = call(*ARGS, *more)
    assert done.status == 0, done.err
    return done


def test_json_and_csv_hold_the_rows_of_the_library() -> None:
    words = ("--patterns", "PS4_P4,2:4", "--batch", "2")
    data = json.loads(run(*words, "--format", "json").out)
    expected = compared([load_network("tiny")], [_tpu()], "PS4_P4", "2:4", batch=2)
    assert len(data["rows"]) == 3
    for record, row in zip(data["rows"], expected.rows, strict=True):
        assert {key: record[key] for key in row.record()} == row.record()
        assert record["stored_bits"] == record["values_bits"] + record["metadata_bits"]
        assert record["energy_pj_ratio"] == row.ratios.energy_pj
        own = row.result.settings()
        for name in ("network_sha256", "hardware_sha256", "dataflow", "residency"):
            assert record.pop(name) == own[name]
        for size in row.formats:
            assert record[f"{size.format}_values_bits"] == size.values_bits
            assert record[f"{size.format}_metadata_bits"] == size.metadata_bits
    assert data["settings"]["batch"] == 2
    assert data["settings"]["patterns"] == ["PS4_P4", "2:4"]
    assert data["rows"][2]["periodic_values_bits"] is None
    rows = list(csv.DictReader(io.StringIO(run(*words, "--format", "csv").out)))
    assert rows == [
        {key: "" if value is None else str(value) for key, value in record.items()}
        for record in data["rows"]
    ]


@pytest.mark.parametrize("form", ["csv", "json", "md"])
def test_a_file_holds_what_would_be_printed(form: str, files: Path) -> None:
    words = ("--patterns", "PS4_P4", "--no-cache")
    done = run(*words, "-o", f"out.{form}")
    assert (done.out, done.err) == ("", f"wrote out.{form} ({form}, 2 rows)\n")
    assert (files / f"out.{form}").read_text() == run(*words, "--format", form).out
    assert run(*words, "-q", "-o", f"out.{form}").err == ""


def test_what_is_left_out_is_told_in_one_line() -> None:
    done = call("compare", "--nets", "tiny_ps, flat", "--hw", "edge_tpu", "--patterns", "all")
    assert done.status == 0
    (line,) = done.err.splitlines()
    others = ", ".join(list(PATTERNS)[1:])
    assert line.startswith(f"left out: flat with {others}: the pattern covers no layer of 'flat'")
    data = json.loads(call("compare", "--net", "flat", "--hw", "edge_tpu", "--patterns", "all",
                           "--format", "json", "-q").out)  # fmt: skip
    assert [each["pattern"] for each in data["left_out"]] == list(PATTERNS)[1:]


def test_table() -> None:
    lines = run("--patterns", "PS4_P4").out.splitlines()
    assert lines[0] == "tiny on edge_tpu · weight_stationary · batch 1"
    heading = lines[2].split()
    assert heading.count("rel.") == 7
    first, second = lines[3].split(), lines[4].split()
    assert (first[0], second[0]) == ("dense", "PS4_P4")
    assert {cell for cell in first if cell.endswith("x")} == {"1.00x"}
    row = compared([load_network("tiny")], [_tpu()], "PS4_P4").rows[1]
    assert second[2] == f"{row.ratios.parameters:.2f}x"
    assert second[-1] == f"{row.ratios.energy_pj:.2f}x"
    (last,) = [line.split() for line in lines[5:] if line.startswith(" PS4_P4")]
    assert last[1] == "periodic"


def test_markdown_has_whole_rows() -> None:
    done = run("--patterns", "all", "--format", "md")
    tables = done.out.split("\n\n")
    counts = [{row.count("|") for row in text.splitlines()} for text in tables if "|---" in
              text.replace(" ", "")]  # fmt: skip
    assert len(counts) == 2
    assert all(len(each) == 1 for each in counts)


def test_one_format_needs_no_table_of_formats() -> None:
    only = chip().model_copy(update={"sparsity": chip().sparsity.model_copy(
        update={"formats": ("dense",)})})  # fmt: skip
    (grid,) = cli.grids(compared([small()], [only], "PS4_P4"), render.UNBOUNDED)
    (stored,) = [column for column in grid.columns if column.heading.startswith("stored")]
    assert len(set(stored.cells)) == 1, "zeros are stored as well"
    assert grid.footer


@pytest.mark.parametrize("width", [72, 80, 120, 200])
@pytest.mark.parametrize("many", [False, True])
def test_no_line_breaks_in_a_narrow_terminal(width: int, many: bool) -> None:
    tpu = _tpu()
    machines = [tpu, tpu.model_copy(update={"name": "another_machine"})] if many else [tpu]
    networks = [load_network(name) for name in (("tiny_ps", "flat") if many else ("tiny",))]
    found = compared(networks, machines, "PS4_P4", "2:4")
    grids = cli.grids(found, width)
    text = "\n".join(render.as_text(grid, width=width) for grid in grids)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    for grid in grids:
        (shown,) = {len(column.cells) for column in grid.columns}
        assert shown == len(found.rows)
    wide = cli.grids(found, render.UNBOUNDED)
    assert len(wide) == 2
    assert len(grids) > 2 or width >= 120
    for column in wide[0].columns:  # nothing gets lost between the pieces
        assert any(column in grid.columns for grid in grids)


def test_the_width_of_the_terminal_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    found = compared([load_network("tiny")], [_tpu()], "PS4_P4")
    target = Target("table", None)
    piped = cli.text(found, target, {})
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout", Terminal())
    shown = click.unstyle(cli.text(found, target, {}))
    assert max(map(len, shown.splitlines())) <= 80 < max(map(len, piped.splitlines()))


def test_masks_that_go_by_the_same_word_are_told_apart() -> None:
    half = np.arange(4) < 2
    one, other = (small().with_masks({"second": live}) for live in (half, ~half))
    found = compared([one, other])
    names = cli.grids(found, 80)[0].columns[0]
    assert list(names.cells) == ["dense", "net+masks", "net+masks"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--net", "tyny", "--hw", "edge_tpu"], ["no network named 'tyny'. Did you mean 'tiny'?"]),
        (["--nets", "tiny,vgg61", "--hw", "edge_tpu"], ["no network named 'vgg61'. Did you mean"]),
        ([*ARGS[1:], "--hw", "edge_tup"], ["no hardware named 'edge_tup'. Did you mean 'edge_tpu"]),
        ([*ARGS[1:], "--patterns", "PS4P4"], ["no pattern named 'PS4P4'. Did you mean 'PS4_P4'?"]),
        ([*ARGS[1:], "--patterns", "al"], ["no pattern named 'al'."]),
        ([*ARGS[1:], "--patterns", " ,"], ["' ,' gives no name"]),
        (["--net", "flat", "--hw", "edge_tpu", "--patterns", "PS4_P4"], ["covers no layer"]),
        (["--net", "tyny", "--hw", "tpu", "--patterns", "4:2"], ["'tyny'", "'tpu'", "3 errors"]),
        (["--hw", "edge_tpu"], ["Missing option '--net'"]),
        (["--net", "tiny"], ["Missing option '--hw'"]),
        ([*ARGS[1:], "--objective", "energy,latency"], ["compare takes one objective"]),
        ([*ARGS[1:], "--dataflow", "all"], ["compare takes one dataflow"]),
        ([*ARGS[1:], "-o", "out.html"], ["compare gives no html; choose one of table, csv"]),
    ],
)  # fmt: skip
def test_mistakes(args: list[str], words: list[str]) -> None:
    done = call("compare", *args)
    assert (done.status, done.out) == (2, "")
    assert done.err.count("Error: ") == 1
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


def test_it_says_whose_weights_stay_on_chip() -> None:
    found = compare(
        [load_network("vgg16")],
        [_tpu()],
        patterns=["PS4_P4", "PSD1_P16", "2:4"],
        cache=Cache(folder()),
    )
    (line,) = [each for grid in cli.grids(found, 200) for each in grid.footer if "stay" in each]
    assert line.endswith("to the next: PS4_P4, PSD1_P16; else loaded again")
    alike = Comparison(found.rows[1:3], ())
    assert not any("stay" in each for grid in cli.grids(alike, 200) for each in grid.footer)
