"""Options of the search: what they change, what they say, and what stops it."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import Done, call, call_process, environment, start

from energysim import load_hardware, load_network, simulate
from energysim.cli import options
from energysim.errors import DoesNotFitError, InputError
from energysim.mapper.dataflows import CUSTOM, DATAFLOWS

TINY = """\
name: tiny
source: a test
input: [3, 7, 7]
layers:
  - {name: first, kind: conv, out: 7, kernel: 3}
  - {name: pool, kind: pool, kernel: 2}
  - {name: fc, kind: linear, out: 5}
"""
ARGS = ("run", "--net", "tiny.yaml", "--hw", "edge_tpu", "-q")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENERGYSIM_PATH", raising=False)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def run(*more: str) -> Done:
    done = call(*ARGS, *more)
    assert done.status == 0, done.err
    return done


# -- every option's value mistyped -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--objective", "latancy"], "'latancy' is not one of energy, dram, latency, edp. Did you"),
        (["--dataflow", "weight_stationery"], "Did you mean 'weight_stationary'?"),
        (["--dataflow", "al"], "no dataflow named 'al'"),
        (["--pattern", "PS4P4"], "Did you mean 'PS4_P4'?"),
        (["--residency", "yes"], "'yes' is not one of 'on', 'off'"),
        (["--weight-format", "crs"], "'crs' is not one of"),
        (["--format", "yaml"], "'yaml' is not one of"),
        (["--batch", "1.5"], "'1.5' is not a valid integer"),
        (["--explain", "frist"], "Did you mean 'first'?"),
        (["--mapping", "nowhere.yaml"], "nowhere.yaml"),
        (["-o", "out.xlsx"], "the suffix of 'out.xlsx' names no format"),
        (["--budget", "soon"], "'soon' is no time. Allowed: 10s, 2m, 1.5h"),
        (["--budget", "-3s"], "'-3s' is no time"),
        (["--budget", "nan"], "'nan' is no time"),
        (["--budget", "inf"], "'inf' is no time"),
        (["--budget", "1e999h"], "'1e999h' is no time"),
        (["--budget", "10 d"], "'10 d' is no time"),
        (["--budget", "s"], "'s' is no time"),
        (["--budget", ""], "'' is no time"),
        (["--bugdet", "3s"], "No such option"),
        (["--dataflow", "all", "--levels"], "ask for different answers: give one of them"),
        (["--dataflow", "all", "--explain", "first"], "ask for different answers"),
        (["--levels", "--explain", "first"], "ask for different answers"),
        (["--dataflow", "all", "-o", "x.html"], "--dataflow all gives no html"),
    ],
)
def test_what_is_mistyped(args: list[str], message: str) -> None:
    done = call(*ARGS, *args)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("2m", 120), ("1.5h", 5400), ("7", 7), ("0s", 0)]
)
def test_times(text: str, seconds: float) -> None:
    assert options.seconds(text) == seconds


@pytest.mark.parametrize("budget", [-1.0, float("nan"), float("inf")])
def test_the_library_refuses_such_times_too(budget: float) -> None:
    with pytest.raises(InputError, match="budget_s must be a time of at least 0 seconds"):
        simulate(load_network("tiny.yaml"), load_hardware("edge_tpu"), budget_s=budget)


# -- a budget --------------------------------------------------------------------------------------

LONG = ("run", "--net", "alexnet", "--hw", "eyeriss", "--dataflow", "free", "-q", "--no-cache")


def test_a_budget_stops_early_and_says_so() -> None:
    args = ("run", "--net", "tiny.yaml", "--hw", "eyeriss", "-q", "--no-cache", "--budget", "0s")
    table, data = call(*args).out, json.loads(call(*args, "--format", "json").out)
    (line,) = [line for line in table.splitlines() if line.startswith(" mapping: ")]
    assert line.startswith(" mapping: stopped early among ")
    assert line.endswith(" % better")
    assert data["search"]["optimal"] is False
    assert 0 < data["search"]["gap"] < 1
    explained = call(*args, "--explain", "first").out.splitlines()[-1]
    assert explained.startswith("Stopped early among ")


def test_a_budget_that_is_not_needed_changes_nothing() -> None:
    assert run("--budget", "10m").out == run().out


# -- other searches --------------------------------------------------------------------------------


def test_perfect_trip_counts_divide() -> None:
    data = json.loads(run("--perfect", "--format", "json").out)
    dims = {"first": {"K": 7, "C": 3, "P": 5, "Q": 5, "R": 3, "S": 3}, "fc": {"K": 5, "C": 28}}
    for layer, whole in dims.items():
        trips = dict.fromkeys(whole, 1)
        for row in data["mapping"]["layers"][layer]:
            for dim, trip, *_ in (*row["temporal"], *row["spatial"]):
                trips[dim] *= trip
        assert trips == whole
    assert (
        data["totals"]["energy_mj"]
        >= json.loads(run("--format", "json").out)["totals"]["energy_mj"]
    )


def test_all_dataflows_in_one_table() -> None:
    lines = run("--dataflow", "all").out.splitlines()
    assert lines[0] == "tiny on edge_tpu, by dataflow"
    names = [name for name in DATAFLOWS if name != CUSTOM]
    assert [line.split()[0] for line in lines[3 : 3 + len(names)]] == names
    (own,) = [line for line in lines[3:-1] if " * " in line]
    assert own.split()[0] == "weight_stationary"
    rows = list(csv.DictReader(io.StringIO(run("--dataflow", "all", "--format", "csv").out)))
    data = json.loads(run("--dataflow", "all", "--format", "json").out)
    assert [row["dataflow"] for row in rows] == names
    assert (data["network"], data["hardware"], data["do_not_fit"]) == ("tiny", "edge_tpu", {})
    for row, record in zip(rows, data["dataflows"], strict=True):
        alone = simulate(
            load_network("tiny.yaml"), load_hardware("edge_tpu"), dataflow=row["dataflow"]
        )
        assert float(row["energy_mj"]) == record["energy_mj"] == alone.total_energy_mj
        assert int(row["cycles"]) == record["cycles"] == alone.total_cycles
        assert record["optimal"] is True
    free = min(data["dataflows"], key=lambda record: record["energy_mj"])
    assert free["energy_mj"] == pytest.approx(data["dataflows"][-1]["energy_mj"])
    assert run("--dataflow", "all", "-o", "flows.csv").out == ""
    assert list(csv.DictReader(io.StringIO(Path("flows.csv").read_text()))) == rows


def test_a_dataflow_that_fits_no_mapping_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(network: object, hardware: object, **given: object) -> object:
        if given["dataflow"] in failing:
            raise DoesNotFitError(f"layer first: too large for {given['dataflow']}")
        return simulate(network, hardware, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(sys.modules["energysim.simulate"], "simulate", fails)
    failing = {"free"}
    out = run("--dataflow", "all").out
    assert out.splitlines()[-1] == " free: layer first: too large for free"
    data = json.loads(run("--dataflow", "all", "--format", "json").out)
    assert data["do_not_fit"] == {"free": "layer first: too large for free"}
    failing = set(DATAFLOWS)
    done = call(*ARGS, "--dataflow", "all")
    assert (done.status, done.out) == (3, "")
    assert "layer first: too large for weight_stationary" in done.err


# -- where it is printed ---------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--levels"], ["--dataflow", "all"]], ids=" ".join)
def test_a_file_and_a_pipe_get_the_same(folder: Path, more: list[str]) -> None:
    piped = call_process(*ARGS, *more)
    with (folder / "out.txt").open("w") as file:
        command = [sys.executable, "-m", "energysim", *ARGS, *more]
        subprocess.run(command, stdout=file, env=environment(COLUMNS="60"), check=True)
    assert (folder / "out.txt").read_text(encoding="utf-8") == piped.out
    assert "\x1b" not in piped.out


def on_terminal(*args: str, **variables: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of a command, both of them terminals."""
    (out, child_out), (err, child_err) = pty.openpty(), pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "energysim", *args],
        stdout=child_out,
        stderr=child_err,
        env=environment(TERM="xterm-256color", **variables),
    )
    os.close(child_out)
    os.close(child_err)
    texts = []
    status = process.wait(timeout=120)
    for end in (out, err):
        text = b""
        try:
            while chunk := os.read(end, 65536):
                text += chunk
        except OSError:  # the other end is closed
            pass
        os.close(end)
        texts.append(text.decode())
    return status, texts[0], texts[1]


def test_a_narrow_terminal() -> None:
    import click

    status, out, err = on_terminal(*ARGS[:-1], COLUMNS="60", LINES="40")
    assert status == 0, err
    table = click.unstyle(out.replace("\r", "")).split("\n\n")[1]
    assert max(map(len, table.splitlines())) <= 60
    assert "─" not in err, "no bar before a second is over"
    assert "━" not in err


# -- Ctrl-C ----------------------------------------------------------------------------------------


def test_interrupt_in_the_middle_of_a_search(folder: Path) -> None:
    """What was done is named and kept, nothing is half written, and the next run goes on."""
    (folder / "tiny.yaml").write_text(
        TINY + "  - {name: deep, kind: linear, out: 7}\n  - {name: wide, kind: linear, out: 9}\n"
    )
    cache = folder / "cache"
    slow = (
        "import energysim.solve as s, time\n"
        "found = s.search\n"
        "def search(problem):\n"
        "    if problem.shape.dims[2] == 7 and problem.shape.dims[3] == 5:\n"
        "        print('searching', flush=True)\n"
        "        time.sleep(60)\n"
        "    return found(problem)\n"
        "s.search = search\n"
        "from energysim.cli import main\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *ARGS, "-o", "out.csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(ENERGYSIM_CACHE=str(cache)),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "searching\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    lines = err.splitlines()
    assert [line.split(":")[0].strip() for line in lines[:-1]] == ["first", "pool", "fc"]
    assert lines[-1].startswith("Interrupted: 3 of 5 layers were done (first to fc, ")
    assert "the same command goes on from there" in lines[-1]
    assert not list(folder.glob("out*"))
    assert not list(folder.rglob("*.tmp"))
    kept = {path.name for path in cache.rglob("*.json")}
    assert len(kept) == 3
    done = call_process(*ARGS, ENERGYSIM_CACHE=str(cache))
    assert done.status == 0
    assert kept < {path.name for path in cache.rglob("*.json")}


def test_interrupt_of_a_real_search(folder: Path) -> None:
    process = start(*LONG[:-2], "--no-cache", "-v", "-o", "out.csv")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("network alexnet: ")
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("Interrupted: ")
    assert "Traceback" not in err
    assert not list(folder.glob("out*"))
