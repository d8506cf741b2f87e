"""``energysim run``: the numbers of the library, in every form, and nothing else on stdout."""

from __future__ import annotations

import csv
import io
import json
import signal
import sys
import time
from pathlib import Path

import click
import pytest
from command_line import ROOT, call, call_process, start

from energysim import Result, load_hardware, load_network, simulate
from energysim.cli import render
from energysim.cli.options import Target
from energysim.errors import DoesNotFitError

ARGS = ("run", "--net", "tiny_ps", "--hw", "edge_tpu")

TINY = """\
name: tiny
source: a test
input: [3, 8, 8]
layers:
  - {name: first, kind: conv, out: 8, kernel: 3, pad: 1}
  - {name: second, kind: conv, out: 16, kernel: 3, pad: 1}
  - {name: pool, kind: pool, kernel: 2}
  - {name: fc, kind: linear, out: 10}
"""
VARIANT = "name: tiny_ps\nsource: a test\nbase: tiny\npattern: PSD4_P8\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENERGYSIM_PATH", raising=False)
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "tiny_ps.yaml").write_text(VARIANT)
    return tmp_path


@pytest.fixture
def result() -> Result:
    return simulate(load_network("tiny_ps"), load_hardware("edge_tpu"))


def table(*args: str) -> list[str]:
    done = call(*ARGS, *args)
    assert done.status == 0, done.err
    return done.out.splitlines()


# -- the table -------------------------------------------------------------------------------------


def test_table(result: Result) -> None:
    lines = table()
    assert lines[0] == (
        "tiny_ps on edge_tpu · weight_stationary · batch 1 · int8 · "
        "3x3 kernels, PSD4_P8: 4 of 9 taps, 1 of 8 dense"
    )
    heads = lines[2].split("  ")
    assert [head.split("[")[0].strip() for head in heads if head] == [
        "layer", "MACs", "effective", "cycles", "util.", "DRAM", "SRAM", "energy", "share",
    ]  # fmt: skip
    rows = [line.split() for line in lines[3:8]]
    assert [row[0] for row in rows] == ["first", "second", "pool", "fc", "total"]
    assert rows[4][7] == render.number(result.total_energy_pj, 1e3)
    ends = {len(line.rsplit("  ", 1)[0].rstrip()) for line in lines[3:7]}
    assert len(ends) <= 2, "the shares stand in one column"


def test_footer(result: Result) -> None:
    energy, totals, searched, ratios = table()[-4:]
    assert searched.startswith(" mapping: optimal among ")
    shares = energy.removeprefix(" energy: ").split("  ")
    assert [share.split()[0] for share in shares] == list(result.energy_by_level())
    nanojoules = render.number(result.total_energy_pj, 1e3)
    assert totals.startswith(f" per image: {nanojoules} nJ, {result.total_time_ms:.5f}"[:28])
    assert totals.endswith("DRAM is 1.00x its lower bound")
    dense = simulate(load_network("tiny"), load_hardware("edge_tpu"))
    assert ratios == (
        f" vs tiny (dense): {result.total_energy_pj / dense.total_energy_pj:.2f}x energy, "
        f"{result.total_dram_bytes / dense.total_dram_bytes:.2f}x DRAM, "
        f"{result.total_cycles / dense.total_cycles:.2f}x cycles"
    )


def test_a_dense_network_is_compared_with_nothing() -> None:
    out = call("run", "--net", "tiny", "--hw", "edge_tpu").out
    assert "int8 · dense\n" in out
    assert "effective" not in out
    assert " vs " not in out


def test_pattern_option_is_a_variant() -> None:
    with_option = call("run", "--net", "tiny", "--pattern", "PSD4_P8", "--hw", "edge_tpu").out
    assert with_option.replace("tiny+PSD4_P8", "tiny_ps") == call(*ARGS).out


def test_layers_with_patterns_of_their_own(folder: Path) -> None:
    text = TINY.replace("out: 8, kernel: 3", "out: 8, pattern: PS4_P4, kernel: 3")
    text = text.replace("out: 16, kernel: 3", "out: 16, pattern: PS2_P6, kernel: 3")
    (folder / "tiny.yaml").write_text(text)
    out = call("run", "--net", "tiny", "--hw", "edge_tpu").out
    assert "int8 · mixed patterns\n" in out
    assert "effective" in out


def test_dense_base_that_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_for_dense(network: object, *args: object, **options: object) -> Result:
        if network.name == "tiny":  # type: ignore[attr-defined]
            raise DoesNotFitError("layer first: too large")
        return simulate(network, *args, **options)  # type: ignore[arg-type]

    # The package's name of the module is that of the function in it.
    monkeypatch.setattr(sys.modules["energysim.simulate"], "simulate", fails_for_dense)
    assert table()[-1] == " vs tiny (dense): no comparison, layer first: too large"


def test_levels_add_up(result: Result) -> None:
    lines = table("--levels")
    rows = [line.split() for line in lines[3:-2]]
    assert rows[-1][0] == "total"
    assert rows[-1][-1] == render.number(result.total_energy_pj, 1e3)
    levels = [line.split()[0] for line in lines[3:-3] if line.startswith(" ") and line[1] != " "]
    assert levels == ["DRAM", "SRAM", "ACC", "RF", "NoC", "vector", "MAC"]


@pytest.mark.parametrize("levels", [False, True])
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_tables_fit_their_terminal(result: Result, width: int, *, levels: bool) -> None:
    grid = render.level_grid(result) if levels else render.layer_grid(result)
    text = render.as_text(grid, width=width)
    assert max(map(len, text.splitlines())) <= width
    for cell in (cell for column in grid.columns[1:] for cell in column.cells):
        assert cell in text, "no number is cut"
    coloured = render.as_text(grid, width=width, colour=True)
    assert click.unstyle(coloured).split() == text.split()


def test_names_are_cut_before_numbers() -> None:
    cells = render.Column("layer", ["a" * 70], right=False, narrow="cut")
    text = render.as_text(render.Grid((cells, render.Column("MACs [M]", ["12.3"]))), width=30)
    assert "…" in text
    assert "12.3" in text


def test_bars_are_drawn_to_scale(result: Result) -> None:
    bars = [line.split()[-1] for line in table()[3:7]]
    largest = max(range(4), key=lambda i: result.layer_rows[i].energy_pj)
    assert bars[largest] == "█" * 10


def test_markdown() -> None:
    lines = table("--format", "md")
    assert lines[0].startswith("**tiny_ps on edge_tpu")
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 7
    assert len({row.count("|") for row in rows}) == 1
    assert lines[-1].startswith("- vs tiny (dense): ")


# -- data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [False, True])
def test_csv_is_that_of_the_result(result: Result, *, levels: bool) -> None:
    done = call(*ARGS, "--format", "csv", *(["--levels"] if levels else []))
    assert done.out == result.to_csv(levels=levels)
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert sum(float(row["energy_pj"]) for row in rows) == pytest.approx(result.total_energy_pj)


def test_json_is_that_of_the_result(result: Result) -> None:
    assert json.loads(call(*ARGS, "--format", "json").out) == json.loads(result.to_json())


@pytest.mark.parametrize("options", [
    ["--objective", "latency"],
    ["--dataflow", "output_stationary"],
    ["--residency", "off"],
    ["--batch", "4"],
    ["--weight-format", "csr"],
])  # fmt: skip
def test_options_reach_the_simulation(options: list[str]) -> None:
    name, value = options[0].removeprefix("--").replace("-", "_"), options[1]
    given = {"residency": False, "batch": 4}.get(name, value)
    expected = simulate(load_network("tiny_ps"), load_hardware("edge_tpu"), **{name: given})  # type: ignore[arg-type]
    assert call(*ARGS, *options, "--format", "csv").out == expected.to_csv()


def test_mapping_of_a_run_repeats_it(folder: Path, result: Result) -> None:
    data = json.loads(result.to_json())
    (folder / "mapping.yaml").write_text(json.dumps(data["mapping"]))
    again = call(*ARGS, "--mapping", "mapping.yaml", "--format", "json")
    assert again.status == 0, again.err
    assert json.loads(again.out)["totals"] == data["totals"]


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "json", "md", "html", "parquet"])
@pytest.mark.parametrize("levels", [[], ["--levels"]], ids=["layers", "levels"])
def test_files(folder: Path, suffix: str, levels: list[str]) -> None:
    before = set(folder.iterdir())
    done = call(*ARGS, *levels, "-o", f"out.{suffix}")
    assert (done.status, done.out) == (0, "")
    assert done.err.splitlines()[0].startswith(f"wrote out.{suffix} ({suffix}, ")
    assert set(folder.iterdir()) - before == {folder / f"out.{suffix}"}
    data = (folder / f"out.{suffix}").read_bytes()
    if suffix in ("csv", "json", "md"):
        assert data.decode() == call(*ARGS, *levels, "--format", suffix).out
    elif suffix == "parquet":
        import pandas as pd

        frame = pd.read_parquet(folder / "out.parquet")
        rows = csv.DictReader(io.StringIO(call(*ARGS, *levels, "--format", "csv").out))
        assert list(frame.columns) == rows.fieldnames
        assert len(frame) == len(list(rows))
    else:
        assert data.startswith(b"<!doctype html>")
        assert b"second" in data


def test_format_for_a_suffix_that_says_nothing(folder: Path) -> None:
    assert call(*ARGS, "--format", "table", "-o", "out.txt").status == 0
    assert (folder / "out.txt").read_text(encoding="utf-8") == call(*ARGS).out


def test_an_old_file_is_replaced(folder: Path) -> None:
    (folder / "out.csv").write_text("old\n" * 1000)
    assert call(*ARGS, "-o", "out.csv").status == 0
    assert "old" not in (folder / "out.csv").read_text()


# -- talk ------------------------------------------------------------------------------------------


def test_notes_go_to_stderr() -> None:
    done = call(*ARGS)
    assert "note: " not in done.out
    assert all(line.startswith("note: ") for line in done.err.splitlines())
    quiet = call(*ARGS, "-q")
    assert (quiet.out, quiet.err) == (done.out, "")
    assert call(*ARGS, "-q", "-o", "out.csv").err == ""


def test_verbose_says_which_files_won() -> None:
    lines = call(*ARGS, "-v", "-q").err.splitlines()
    assert lines == [
        "network tiny_ps: tiny_ps.yaml (current folder)",
        f"hardware edge_tpu: {ROOT / 'hw_configs' / 'edge_tpu.yaml'} (bundled)",
    ]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def progress_shown(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, patience: float) -> str:
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr(render, "PATIENCE_S", patience)
    monkeypatch.setenv("TERM", "xterm-256color")
    with render.progress(visible=True) as tell:
        for done in range(3):
            if tell:
                tell(done, 2, "conv1[bold]")
    return stderr.getvalue()


def test_progress_is_shown_on_a_terminal_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "conv1[bold]" in progress_shown(monkeypatch, Terminal(), -1)
    assert progress_shown(monkeypatch, Terminal(), 60).strip() == ""
    assert progress_shown(monkeypatch, io.StringIO(), -1) == ""


def test_colour_on_a_terminal_only(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    grid = render.layer_grid(result)
    plain = render.grid_text(grid, Target("table", None))
    monkeypatch.setattr("sys.stdout", Terminal())
    shown = render.grid_text(grid, Target("table", None))
    assert "\x1b[" not in plain
    assert "\x1b[" in shown
    assert max(map(len, click.unstyle(shown).splitlines())) <= 80


# -- a process of its own --------------------------------------------------------------------------


def test_a_process_writes_what_the_tests_see() -> None:
    done = call_process(*ARGS)
    assert done.status == 0
    assert (done.out, done.err) == (call(*ARGS).out, call(*ARGS).err)


def test_a_reader_that_goes_away() -> None:
    process = start("run", "--net", "vgg16_ps", "--hw", "edge_tpu", "--format", "json")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert "Error" not in process.stderr.read()
    process.stderr.close()


def test_interrupt(folder: Path) -> None:
    process = start("run", "--net", "vgg16_imagenet", "--hw", "eyeriss", "-v", "-o", "out.csv")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("network vgg16_imagenet: ")
    # Past the imports: Python ends by the signal if it comes while a dataclass is being made.
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1].startswith("Interrupted: ")
    assert "othing was written" in err
    assert "Traceback" not in err
    assert not (folder / "out.csv").exists()
