"""Sweeps: every point is what a run of it is, whatever interrupts, shares or splits the work."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import energysim as es
from energysim.errors import InputError, InputErrors
from energysim.hardware import Hardware
from energysim.solve import program
from energysim.sweeps import Store, SweepSpec, identity, load_plan, plan_of, sweep, swept
from energysim.sweeps import plan as plans
from energysim.sweeps.axes import Axis, values_of
from energysim.sweeps.evaluate import METRICS, Block
from energysim.sweeps.plan import overridden
from energysim.sweeps.run import DEATHS, Worker, WorkersError, _remote, _tasks, compute
from energysim.sweeps.store import StoreError

NUMBERS = {
    "levels.DRAM.read_pj_per_bit+levels.DRAM.write_pj_per_bit": "4:40:#3",
    "levels.SRAM.read_pj_per_bit": "0.05,0.5",
    "levels.DRAM.bandwidth_bits_per_cycle": "8:128:x4",
    "mac.energy_pj": "0.1,1",
    "static_mw": "0,50",
    "clock_mhz": "200,480",
}


def plain(value: Any) -> Any:
    """A number as a file has it."""
    return value.item() if hasattr(value, "item") else value


def result_of(
    row: pd.Series, hardware: str, scan: dict[str, str], pattern: str = "dense"
) -> es.Result:
    """A run of one point by itself, through the public door."""
    values = {field: plain(row[name]) for name in scan for field in name.split("+")}
    machine = overridden(es.load_hardware(hardware), values)
    return es.simulate(es.load_network("digits_cnn", pattern=pattern), machine)


# -- what is varied --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("64:1024:x2", (64, 128, 256, 512, 1024)),
        ("64:1000:x2", (64, 128, 256, 512)),
        ("4:12:+4", (4, 8, 12)),
        ("0.1:0.5:+0.1", (0.1, 0.2, 0.3, 0.4, 0.5)),
        ("1:2:#3", (1, 1.5, 2)),
        ("1:16:#4", (1, 6, 11, 16)),
        ("True,off", (True, False)),
        ("5:5:#1", (5,)),
        ("dense, PS4_P4", ("dense", "PS4_P4")),
        ("2:4", ("2:4",)),
        ("on,off", (True, False)),
        ([1, "2:8:x2"], (1, 2, 4, 8)),
        (3.5, (3.5,)),
    ],
)
def test_values(text: object, values: tuple[object, ...]) -> None:
    found = values_of(text, "field")
    assert found == values
    assert [type(each) for each in found] == [type(each) for each in values]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1:2:3", "is no range"),
        ("5:1:+1", "has 0 values"),
        ("1:2:x1", "has no end"),
        ("0:2:x2", "has no end"),
        ("1:2:+0", "has no end"),
        ("a:b:+1", "is no range"),
        ("1,,2", "a value is missing"),
        ("1,1", "stands there twice"),
        ("1,1.0", "stands there twice"),
        ([], "has no values"),
        ("1e999", "no finite number"),
        ("1:1e30:+1", "values"),
        (None, "needs values"),
    ],
)
def test_what_is_no_values(given: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Axis.read("field", given)


def test_points_stand_by_design_and_then_by_numbers() -> None:
    plan = plan_of(
        SweepSpec(
            network="digits_cnn",
            hardware="edge_tpu",
            scan={"clock_mhz": "100,200", "batch": "1,2", "static_mw": "0,1,2"},
        )
    )
    assert (plan.designs, plan.numbers, plan.points, plan.blocks) == (2, 6, 12, 2)
    columns = plan.columns(1)
    assert list(columns) == ["clock_mhz", "batch", "static_mw"]
    assert columns["batch"] == [2] * 6
    assert columns["clock_mhz"] == [100] * 3 + [200] * 3
    assert columns["static_mw"] == [0, 1, 2] * 2
    design = plan.design(1, 5)
    assert (design.batch, design.hardware.clock_mhz, design.hardware.static_mw) == (2, 200, 2)


@pytest.mark.parametrize("name", ["edge_tpu", "eyeriss", "simba", "nvdla_small"])
def test_hardware_with_nothing_changed_is_the_same(name: str) -> None:
    hardware = es.load_hardware(name)
    assert overridden(hardware, {}) == hardware
    assert overridden(hardware, {"clock_mhz": hardware.clock_mhz}) == hardware


def test_energies_that_are_looked_up_follow_the_size() -> None:
    small = hardware_looked_up()
    large = overridden(small, {"levels.SRAM.capacity_kib": 512})
    assert large.levels[1].read_pj_per_bit > small.levels[1].read_pj_per_bit
    assert large.levels[0] == small.levels[0]


def hardware_looked_up() -> Hardware:
    """A machine whose SRAM has no energies in its file."""
    data = es.load_hardware("edge_tpu").model_dump(mode="json")
    data["technology"] = {"node_nm": 45, "mac": None, "sram": None, "regfile": None,
                          "source": "", "assumed": []}  # fmt: skip
    level = data["levels"][1]
    for name in ("read_pj_per_bit", "write_pj_per_bit"):
        del level[name]
    level |= {"capacity_kib": 32, "ranges": {}, "assumed": []}
    return Hardware.model_validate_json(__import__("json").dumps(data))


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        ({"levels.SRAM.capcity_kib": "64"}, r"unknown field. Did you mean 'capacity_kib'"),
        ({"levels.SARM.capacity_kib": "64"}, r"no part 'SARM' in levels.*Did you mean 'SRAM'"),
        ({"levels.SRAM": "64"}, "is a level, not a field"),
        ({"clok_mhz": "64"}, r"no field named 'clok_mhz'.*Did you mean 'clock_mhz'"),
        ({"clock_mhz": "-5,100"}, "must be > 0, got -5"),
        ({"clock_mhz": "fast"}, "fast"),
        ({"levels.SRAM.capacity_kib": "0,64"}, "must be > 0"),
        ({"pattern": "PS4_P5"}, "PS4_P5"),
        ({"batch": "0"}, "at least 1"),
        ({"batch": "1.5"}, "whole number"),
        ({"objective": "enrgy"}, "Did you mean 'energy'"),
        ({"residency": "maybe"}, "on or off"),
        ({"phase": "trainin"}, "inference or training"),
        ({"width": "0"}, "positive"),
        ({"network": "vgg61"}, "vgg61"),
        ({"hardware": "edge_tup"}, "Did you mean 'edge_tpu'"),
        ({"clock_mhz": "1", "clock_mhz+static_mw": "2"}, "scanned twice"),
        ({"levels.SRAM.capacity_kib": "1", "levels.SRAM.capacity_bytes": "2"}, "scanned twice"),
        ({"note": "a,b"}, "is a text about values"),
        ({"dataflow": "weight_stationery"}, "weight_stationary"),
        ({"network": "digits_cnn"}, "and scanned too"),
        ({"clock_mhz": "1:1e308:+1e-300"}, "values; allowed"),
        ({"clock_mhz": f"1:1{'0' * 400}:x2"}, "values; allowed|no end|no range"),
        ({"batch": f"1{'0' * 40}"}, "whole numbers go up to"),
        ({"vector.lanes.x": "1"}, "no part 'lanes'"),
    ],
)
def test_what_can_not_be_scanned(scan: dict[str, str], message: str) -> None:
    own = {"network": "digits_cnn", "hardware": "edge_tpu"}
    if "scanned too" not in message:
        own = {name: value for name, value in own.items() if name not in scan}
    with pytest.raises(InputError, match=message):
        plan_of(SweepSpec(**own, scan=scan))  # type: ignore[arg-type]


def test_a_value_may_be_possible_with_some_values_of_another_field_only() -> None:
    """16 KiB can't have banks of 32 KiB, as the file says, but they can of 8 KiB."""
    banks, size = "levels.SRAM.bank_kib", "levels.SRAM.capacity_kib"
    with pytest.raises(InputError, match="bank_kib: is larger than the level"):
        sweep("digits_cnn", "generic_embedded", {size: [16], banks: [32]})
    table = sweep("digits_cnn", "generic_embedded", {size: [64, 16], banks: [32, 8]}).table
    failed = table[table["note"] != ""]
    assert failed[[size, banks]].to_numpy().tolist() == [[16, 32]]
    assert "larger than the level" in failed["note"].item()


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "network: digits_cnn\nscan:\n  batch: [1, 0]\n  clock_mhz: 1:2:3\n  pattern: nope\n"
    )
    with pytest.raises(InputErrors) as caught:
        load_plan(path)
    problems = caught.value.problems
    assert len(problems) == 4
    assert any("s.yaml:4" in each and "no range" in each for each in problems)
    assert any("s.yaml:3" in each and "batch" in each for each in problems)
    assert any("hardware is needed" in each for each in problems)


# -- the figures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hardware", ["edge_tpu", "generic_embedded"])
@pytest.mark.parametrize("pattern", ["dense", "PSD2_P8"])
def test_searched_points_are_those_of_runs(hardware: str, pattern: str) -> None:
    """At the middle and the ends of every field, to rounding; elsewhere never better than a run.

    Where zero weights are skipped, a search seeks what is best with them multiplied: then another
    mapping that was found may be better by chance.
    """
    level = es.load_hardware(hardware).levels[1].name
    scan = {name.replace("SRAM", level): values for name, values in NUMBERS.items()}
    found = sweep("digits_cnn", hardware, scan, pattern=pattern)
    table = found.table
    assert 1 <= table["searched"].sum() <= 2 * len(scan) + 1
    rng = random.Random(0)
    chosen = [*table.index[table["searched"]], *rng.sample(range(len(table)), 5)]
    for place in chosen:
        row = table.loc[place]
        run = result_of(row, hardware, scan, pattern)
        ratio = row["energy_mj"] / run.total_energy_mj
        assert ratio >= 1 - (1e-9 if pattern == "dense" else 0.01)
        if row["searched"]:
            assert ratio == pytest.approx(1, rel=1e-12)
            assert row["cycles"] == run.total_cycles
            assert row["dram_bytes"] == pytest.approx(run.total_dram_bytes)


@pytest.mark.parametrize("objective", ["energy", "latency", "dram", "edp"])
def test_a_point_is_a_run(objective: str) -> None:
    """All columns, of a sweep without other points."""
    scan = {"levels.DRAM.bandwidth_bits_per_cycle": [24], "batch": [2], "pattern": ["PS4_P4"]}
    row = sweep("digits_cnn", "edge_tpu", scan, objective=objective).table.loc[0]
    machine = overridden(es.load_hardware("edge_tpu"), {"levels.DRAM.bandwidth_bits_per_cycle": 24})
    network = es.load_network("digits_cnn", pattern="PS4_P4")
    run = es.simulate(network, machine, batch=2, objective=objective)
    layers = run.layers
    assert row["energy_mj"] == pytest.approx(run.total_energy_mj, rel=1e-12)
    assert row["cycles"] == run.total_cycles
    assert row["time_ms"] == pytest.approx(run.total_time_ms, rel=1e-12)
    assert row["dram_bytes"] == pytest.approx(run.total_dram_bytes)
    assert row["sram_bytes"] == pytest.approx(layers["sram_bytes"].sum())
    assert row["macs"] == run.total_macs
    assert row["effective_macs"] == run.total_effective_macs
    assert row["parameters"] == network.parameters
    busy = (layers["utilization"] * layers["cycles"]).sum() / run.total_cycles
    assert row["utilization"] == pytest.approx(busy)
    assert row["searched"]
    assert row["note"] == ""


def test_cycles_follow_the_bandwidth_exactly() -> None:
    """On the mappings kept: cycles are those of a given mapping evaluated at that bandwidth."""
    from energysim.mapping import MappingFile

    scan = {"levels.DRAM.bandwidth_bits_per_cycle": "1:512:x2"}
    found = sweep("digits_cnn", "eyeriss", scan, mappings="kept")
    table = found.table
    assert table["searched"].sum() == len(table)  # energy does not depend on it
    middle = result_of(table.loc[(len(table) - 1) // 2], "eyeriss", scan)
    loops = MappingFile(layers=dict(middle.mappings))
    for _, row in table.iterrows():
        width = row["levels.DRAM.bandwidth_bits_per_cycle"]
        machine = overridden(
            es.load_hardware("eyeriss"), {"levels.DRAM.bandwidth_bits_per_cycle": plain(width)}
        )
        run = es.simulate(es.load_network("digits_cnn"), machine, mapping=loops)
        assert row["cycles"] == run.total_cycles
        assert row["energy_mj"] == pytest.approx(run.total_energy_mj, rel=1e-12)
    assert table["cycles"].is_monotonic_decreasing
    assert table["cycles"].iloc[0] > table["cycles"].iloc[-1]


def test_ends_are_never_worse_than_kept() -> None:
    scan = {"levels.GLB.read_pj_per_bit+levels.GLB.write_pj_per_bit": "0.01,5"}
    ends, kept = (
        sweep("digits_cnn", "eyeriss", scan, mappings=each, residency=False).table
        for each in ("ends", "kept")
    )
    share = ends["energy_mj"] / kept["energy_mj"]
    assert share.max() <= 1 + 1e-12
    assert share.min() < 1 - 1e-3


def test_what_does_not_fit_is_a_row_with_a_note() -> None:
    table = sweep("digits_cnn", "edge_tpu", {"levels.SRAM.capacity_kib": [0.1, 64]}).table
    assert "SRAM is too small" in table["note"][0]
    assert table["note"][1] == ""
    assert np.isnan(table["energy_mj"][0])
    assert table["cycles"].isna().tolist() == [True, False]


def test_fields_that_change_together_may_have_spaces_between() -> None:
    tables = [
        sweep("digits_cnn", "edge_tpu", {name: [100, 200], "batch": [1]}).table
        for name in ("clock_mhz+static_mw", " clock_mhz + static_mw ")
    ]
    assert not tables[0]["energy_mj"].isna().any()
    pd.testing.assert_frame_equal(*tables)


def test_without_a_store_an_interruption_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(_self: Worker, _number: int) -> Block:
        raise KeyboardInterrupt

    monkeypatch.setattr(Worker, "block", stops)
    with pytest.raises(KeyboardInterrupt, match="0 of 1 points are lost: no store was named"):
        sweep("digits_cnn", "edge_tpu", {"batch": [1]})


def test_networks_and_hardware_can_be_scanned_and_be_objects() -> None:
    table = sweep(
        None, None, {"network": "digits_cnn", "hardware": "edge_tpu,eyeriss", "batch": [1]}
    ).table
    assert table["hardware"].tolist() == ["edge_tpu", "eyeriss"]
    network, machine = es.load_network("digits_cnn"), es.load_hardware("eyeriss")
    own = sweep(network, machine, {"batch": (1,)}).table
    assert own["energy_mj"][0] == table["energy_mj"][1]


def test_xarray() -> None:
    xr = pytest.importorskip("xarray")
    found = sweep("digits_cnn", "edge_tpu", {"clock_mhz": "100,200,300", "batch": "1,2"})
    grid = found.to_xarray()
    assert isinstance(grid, xr.Dataset)
    assert dict(grid.sizes) == {"batch": 2, "clock_mhz": 3}
    assert grid["energy_mj"].attrs == {"units": "mJ"}
    table = found.table.set_index(["batch", "clock_mhz"])
    for batch in (1, 2):
        for clock in (100, 200, 300):
            point = grid.sel(batch=batch, clock_mhz=clock)
            assert float(point["time_ms"]) == table.loc[(batch, clock), "time_ms"]


# -- the store -------------------------------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "BLOCK", 4)


SCAN = {"clock_mhz": "100:1000:+100", "batch": "1,2,3"}


def test_the_same_again_computes_nothing(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sweep("digits_cnn", "edge_tpu", SCAN, store=tmp_path / "s").table
    monkeypatch.setattr(Worker, "block", None)
    told: list[int] = []
    again = sweep("digits_cnn", "edge_tpu", SCAN, store=tmp_path / "s", tell=told.append).table
    pd.testing.assert_frame_equal(first, again)
    assert sum(told) == len(first)


def test_interrupted_anywhere_it_goes_on(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sweep("digits_cnn", "edge_tpu", SCAN).table
    real, left = Worker.block, [2]

    def stops(self: Worker, number: int) -> Block:
        left[0] -= 1
        if not left[0]:
            left[0] = 2
            raise KeyboardInterrupt
        return real(self, number)

    monkeypatch.setattr(Worker, "block", stops)
    stopped = 0
    for _ in range(100):
        try:
            found = sweep("digits_cnn", "edge_tpu", SCAN, store=tmp_path / "s")
            break
        except KeyboardInterrupt as stop:
            stopped += "are kept in" in str(stop)
    assert stopped > 5
    pd.testing.assert_frame_equal(found.table, whole)


def test_another_sweep_is_refused(tmp_path: Path) -> None:
    sweep("digits_cnn", "edge_tpu", {"batch": [1]}, store=tmp_path / "s")
    for other in ({"batch": [2]}, {"clock_mhz": [480]}):
        with pytest.raises(InputError, match="holds another sweep"):
            sweep("digits_cnn", "edge_tpu", other, store=tmp_path / "s")
    with pytest.raises(InputError, match="holds another sweep"):
        sweep("digits_cnn", "eyeriss", {"batch": [1]}, store=tmp_path / "s")


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes, no store of anything, and long enough to be looked at\n" * 40)
    before = path.read_bytes()
    with pytest.raises(InputError, match="is no store"):
        sweep("digits_cnn", "edge_tpu", {"batch": [1]}, store=path)
    assert path.read_bytes() == before


def test_a_store_that_is_removed_while_it_is_used(tmp_path: Path, small_blocks: None) -> None:
    path = tmp_path / "store"

    def remove(_: int) -> None:
        path.unlink(missing_ok=True)

    plan = plan_of(SweepSpec(network="digits_cnn", hardware="edge_tpu", scan=SCAN))
    with pytest.raises(StoreError, match="was removed while it was in use"):
        swept(plan, path, tell=remove)


def test_a_full_disk_leaves_the_store_whole(tmp_path: Path, small_blocks: None) -> None:
    plan = plan_of(SweepSpec(network="digits_cnn", hardware="edge_tpu", scan=SCAN))
    store = Store(tmp_path / "s", identity(plan))
    worker = Worker(plan, None)
    store.put(0, worker.block(0))
    real = sqlite3.connect

    def full(*arguments: object, **settings: object) -> sqlite3.Connection:
        database = real(*arguments, **settings)
        pages = database.execute("pragma page_count").fetchone()[0]
        database.execute(f"pragma max_page_count = {pages}")
        return database

    large = Block(np.ones((4000, len(METRICS))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("energysim.sweeps.store.sqlite3.connect", full)
        with pytest.raises(StoreError, match=r"disk is full.*What was computed before is kept"):
            store.put(1, large)
    assert store.done() == {0}
    np.testing.assert_array_equal(store.get(0).values, worker.block(0).values)
    compute(plan, store)
    assert store.done() == set(range(plan.blocks))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="may the file and its folder be written"):
        sweep("digits_cnn", "edge_tpu", {"batch": [1]}, store=tmp_path / "s")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none does not exist"):
        sweep("digits_cnn", "edge_tpu", {"batch": [1]}, store=tmp_path / "none" / "s")


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    with sqlite3.connect(path) as database:
        database.execute("create table mine (a integer)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match="is no store"):
        sweep("digits_cnn", "edge_tpu", {"batch": [1]}, store=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("values", ["4:64:#4", "16,32.5"])
def test_files_of_mixed_numbers(values: str, tmp_path: Path) -> None:
    found = sweep("digits_cnn", "edge_tpu", {"levels.SRAM.capacity_kib": values})
    found.to_parquet(tmp_path / "t.parquet")
    found.to_csv(str(tmp_path / "t.csv"))
    read, again = pd.read_parquet(tmp_path / "t.parquet"), pd.read_csv(tmp_path / "t.csv")
    assert read["levels.SRAM.capacity_kib"].tolist() == list(found.plan.axes[0].values)
    assert again["energy_mj"].tolist() == read["energy_mj"].tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "enrgy"}, "Did you mean 'energy'"),
        ({"dataflow": "nope"}, "nope"),
        ({"phase": "trainin"}, "inference or training"),
        ({"batch": 0}, "batch"),
        ({"bathc": 1}, "Did you mean 'batch'"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sweep("digits_cnn", "edge_tpu", {"clock_mhz": [100]}, **settings)


def test_ties_in_energy_are_the_run_at_the_ends() -> None:
    """Mappings that cost the same energy differ in cycles: each end has its own."""
    scan = {"levels.DRAM.read_pj_per_bit": "4:40:#3"}
    table = sweep("digits_cnn", "simba", scan).table
    for _, row in table.iterrows():
        run = result_of(row, "simba", scan)
        assert row["searched"]
        assert (row["cycles"], row["sram_bytes"]) == (
            run.total_cycles,
            run.layers["sram_bytes"].sum(),
        )


# -- many processes --------------------------------------------------------------------------------

COMMAND = (
    "sweep", "--net", "digits_cnn", "--hw", "edge_tpu", "--scan", "clock_mhz=100:400:+100",
    "--scan", "batch=1:12:+1", "--check", "0", "--no-cache",
)  # fmt: skip


def command(*more: str | Path) -> list[str]:
    return [sys.executable, "-m", "energysim", *COMMAND, *map(str, more)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(command("--store", folder / "s", "-o", folder / "t.csv"), check=True)
    return (folder / "t.csv").read_bytes()


def test_killed_at_any_moment_nothing_is_lost_or_doubled(tmp_path: Path, expected: bytes) -> None:
    """After the first, third ... of 12 blocks, and a little later."""
    rng = random.Random(0)
    store, table = tmp_path / "s", tmp_path / "t.csv"
    for blocks in (0, 1, 3, 6):
        with subprocess.Popen(command("--store", store, "-o", table)) as process:
            while kept_blocks(store) < blocks:
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(rng.random() * 0.02)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    subprocess.run(command("--store", store, "-o", table), check=True)
    assert table.read_bytes() == expected


def kept_blocks(store: Path) -> int:
    if not store.exists():
        return 0
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as database:
        try:
            return int(database.execute("select count(*) from blocks").fetchone()[0])
        except sqlite3.OperationalError:  # not made yet
            return 0


def test_two_processes_on_one_store(tmp_path: Path, expected: bytes) -> None:
    tables = [tmp_path / "one.csv", tmp_path / "two.csv"]
    both = [subprocess.Popen(command("--store", tmp_path / "s", "-o", each)) for each in tables]
    assert [process.wait() for process in both] == [0, 0]
    assert [each.read_bytes() for each in tables] == [expected, expected]
    with sqlite3.connect(tmp_path / "s") as database:
        rows = database.execute("select count(*), count(distinct number) from blocks").fetchone()
    database.close()
    assert rows == (12, 12)


def test_workers_change_nothing(tmp_path: Path, expected: bytes) -> None:
    table = tmp_path / "t.csv"
    subprocess.run(command("--store", tmp_path / "s", "-o", table, "--workers", "3"), check=True)
    assert table.read_bytes() == expected


def test_a_worker_that_is_killed_changes_nothing(tmp_path: Path, expected: bytes) -> None:
    script = tmp_path / "kill.py"
    script.write_text(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from energysim.sweeps.run import Worker\n"
        "real = Worker.block\n"
        "mark = Path(sys.argv[1])\n"
        "def block(self, number):\n"
        "    if number == 5 and not mark.exists():\n"
        "        mark.touch()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(self, number)\n"
        "Worker.block = block\n"
        "if __name__ == '__main__':\n"
        "    from energysim.cli import main\n"
        "    main(sys.argv[2:])\n"
    )
    mark, table = tmp_path / "mark", tmp_path / "t.csv"
    arguments = [*COMMAND, "--store", tmp_path / "s", "-o", table, "--workers", "2"]
    subprocess.run([sys.executable, script, mark, *map(str, arguments)], check=True)
    assert mark.exists()
    assert table.read_bytes() == expected


def test_workers_that_keep_dying_are_given_up(tmp_path: Path) -> None:
    script = tmp_path / "kill.py"
    script.write_text(
        "import os, signal, sys\n"
        "from energysim.sweeps.run import Worker\n"
        "Worker.block = lambda self, number: os.kill(os.getpid(), signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        "    from energysim.cli import main\n"
        "    main(sys.argv[1:])\n"
    )
    arguments = [*COMMAND, "--store", tmp_path / "s", "--workers", "2"]
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == WorkersError.exit_code
    assert f"died {DEATHS + 1} times in a row" in done.stderr
    assert "Traceback" not in done.stderr


def test_workers_end_with_the_process_that_began_them(tmp_path: Path) -> None:
    def alive(pids: Sequence[int]) -> list[int]:
        return [pid for pid in pids if Path(f"/proc/{pid}/stat").exists()
                and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"]  # fmt: skip

    if not Path("/proc/self/task").exists():
        pytest.skip("children are found in /proc")
    words = ["--scan", "levels.SRAM.capacity_kib=4:64:+1"]
    with subprocess.Popen(command("--store", tmp_path / "s", "--workers", "2", *words)) as process:
        children: list[int] = []
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for _ in range(300):
            children = [int(pid) for pid in listed.read_text().split()]
            if len(children) > 2:
                break
            time.sleep(0.1)
        time.sleep(3)
        process.kill()
    assert len(children) > 2
    for _ in range(200):
        if not alive(children):
            break
        time.sleep(0.1)
    assert not alive(children)


def test_tasks_keep_designs_together(small_blocks: None) -> None:
    plan = plan_of(SweepSpec(network="digits_cnn", hardware="edge_tpu", scan=SCAN))
    assert plan.parts == 3
    assert _tasks(plan, {1, 8}) == [[0, 2], [3, 4, 5], [6, 7]]
    blocks = _remote(plan, [3, 4], program())
    with pytest.raises(WorkersError, match="another version"):
        _remote(plan, [3, 4], "other")
    assert [len(each.values) for each in blocks] == [4, 4]


def test_a_cluster_gives_the_same_bytes(tmp_path: Path, expected: bytes) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
    ) as cluster:
        address = cluster.scheduler_address
        table = tmp_path / "t.csv"
        subprocess.run(
            command("--store", tmp_path / "s", "-o", table, "--scheduler", address), check=True
        )
    assert table.read_bytes() == expected


def test_no_cluster_is_told() -> None:
    pytest.importorskip("distributed")
    began = time.monotonic()
    done = subprocess.run(
        command("--scheduler", "tcp://127.0.0.1:1"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no Dask scheduler answers" in done.stderr
    assert time.monotonic() - began < 60


def test_swept_checks_points_anew(tmp_path: Path) -> None:
    scan = {"levels.DRAM.read_pj_per_bit": "4:40:#10", "levels.SRAM.capacity_kib": [4]}
    plan = plan_of(SweepSpec(network="digits_cnn", hardware="edge_tpu", scan=scan))
    found = swept(plan, tmp_path / "s", checked=2)
    assert found.check is not None
    assert found.check.points == 2
    assert found.check.worst >= -1e-12
