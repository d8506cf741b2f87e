"""The search: what a design is, what is proposed, what is kept; and the command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import Done, call
from machines import network
from trainable import network_of

import energysim as es
from energysim.cache import Cache
from energysim.errors import InputError, MissingExtraError
from energysim.network import Scale
from energysim.pareto import hypervolume, non_dominated
from energysim.studies import GOALS, SAMPLERS, Space, study, with_patterns
from energysim.sweeps.axes import Axis
from energysim.sweeps.plan import overridden

PATTERNS = ("dense", "PS4_P4", "PS1_P9")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("mappings"))


def space(*scans: tuple[str, str], patterns: Sequence[str] = (), **settings: Any) -> Space:
    axes = tuple(Axis.read(*scan) for scan in scans)
    network, hardware = es.load_network("digits_cnn"), es.load_hardware("edge_tpu")
    return Space(network, hardware, axes, tuple(patterns), settings)


SMALL = (("levels.SRAM.capacity_kib", "4:64:x4"),)


# -- designs ---------------------------------------------------------------------------------------


def test_layers_get_patterns_of_their_own() -> None:
    dense = es.load_network("digits_cnn")
    mixed = with_patterns(dense, {"conv2": "PS4_P4", "conv4": "PS1_P9"})
    assert [layer.pattern for layer in mixed.layers if layer.name.startswith("conv")] == [
        *("dense", "PS4_P4", "dense", "PS1_P9")
    ]
    assert (mixed.base, mixed.pattern) == ("digits_cnn", "mixed")
    every = with_patterns(dense, dict.fromkeys(("conv2", "conv3", "conv4"), "PS4_P4"))
    assert every.layers == dense.with_pattern("PS4_P4").layers
    assert with_patterns(dense, {"conv2": "dense"}) is dense
    with pytest.raises(InputError, match="no layer named 'conv9'"):
        with_patterns(dense, {"conv9": "PS4_P4"})


def test_a_design_costs_what_a_run_costs(cache: Cache) -> None:
    own = space(*SMALL, ("batch", "1,4"), patterns=PATTERNS)
    assert own.layers == ("conv2", "conv3", "conv4")
    assert own.size == 3 * 2 * 3**3
    chosen = {
        "levels.SRAM.capacity_kib": 16,
        "batch": 4,
        "pattern.conv2": "PS4_P4",
        "pattern.conv3": "dense",
        "pattern.conv4": "PS1_P9",
    }
    found = own.run(chosen, cache)
    machine = overridden(es.load_hardware("edge_tpu"), {"levels.SRAM.capacity_kib": 16})
    network = with_patterns(es.load_network("digits_cnn"), {"conv2": "PS4_P4", "conv4": "PS1_P9"})
    run = es.simulate(network, machine, batch=4)
    assert found.total_energy_mj == run.total_energy_mj
    measured = {name: goal.measure(found) for name, goal in GOALS.items()}
    assert measured["energy"] == run.total_energy_mj / 4
    assert measured["latency"] == run.total_time_ms / 4
    assert measured["dram"] == run.total_dram_bytes / 4
    assert measured["edp"] == pytest.approx(measured["energy"] * measured["latency"])
    assert measured["elements"] == 64 * 64
    assert (
        measured["on_chip"]
        == 16 + 64 * 64 * 1 / 1024 + 64 * machine.levels[2].capacity_bits() / 8192
    )  # type: ignore[operator]
    weights = [layer for layer in network.layers if layer.stores_weights]
    nonzeros = sum(int(np.count_nonzero(layer.mask.array())) for layer in weights)
    assert measured["live_weights"] == nonzeros / sum(layer.mask.total for layer in weights)


@pytest.mark.parametrize(
    ("scans", "patterns", "message"),
    [
        ((), (), "nothing is varied"),
        ((("levels.SRAM.capcity_kib", "1,2"),), (), "Did you mean 'capacity_kib'"),
        ((("levels.SRAM.capacity_kib", "0,2"),), (), "must be > 0"),
        ((("network", "vgg16,resnet18"),), (), "can't be varied here"),
        ((), ("dense", "PS4_P5"), "PS4_P5"),
        ((), ("dense",), "has no layer that a pattern covers"),
        ((("pattern", "dense,PS4_P5"),), (), "pattern: no pattern named 'PS4_P5'"),
        ((("pattern", "dense,PS4_P4"),), ("dense", "PS4_P4"), "leave one out"),
        ((("dataflow", "weight_stationary,wait_stationary"),), (), "Did you mean"),
        ((("batch", "0,8"),), (), "batch: must be a whole number of at least 1, got 0"),
        ((("residency", "maybe,on"),), (), "residency: must be on or off, got maybe"),
        ((("objective", "energy,speed"),), (), "objective: no objective named 'speed'"),
    ],
)
def test_what_is_no_space(scans: Any, patterns: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        space(*scans, patterns=patterns)


def test_the_dataflow_of_all_designs_is_checked() -> None:
    with pytest.raises(InputError, match="no dataflow named 'all'"):
        space(*SMALL, dataflow="all")


def test_layers_choose_from_the_patterns_that_cover_them(cache: Cache) -> None:
    network = es.load_network("resnet18", scale=Scale(0.25))
    own = Space(network, es.load_hardware("edge_tpu"), (), ("dense", "2:4", "ps4_p4", "PS4_P4"))
    point = [layer.name for layer in network.layers if layer.shape.dims[6:] == (1, 1)]
    covered = {name for name in own.layers if name in point}
    assert covered
    assert len(covered) < len(own.layers)
    for name, patterns in own.layer_patterns.items():
        assert patterns == (("dense", "2:4") if name in covered else ("dense", "2:4", "PS4_P4"))
    chosen = {name: values[-1] for name, values in own.choices.items()}
    assert {layer.pattern for layer in own.run(chosen, cache).inputs[0].layers} == {
        *("dense", "2:4", "PS4_P4")
    }


def test_layers_of_a_variant_choose_in_place_of_its_own(cache: Cache) -> None:
    dense, hardware = es.load_network("digits_cnn"), es.load_hardware("edge_tpu")
    own = Space(dense.with_pattern("PS1_P9"), hardware, (), PATTERNS)
    assert own.choices == Space(dense, hardware, (), PATTERNS).choices
    found = own.run(dict.fromkeys(own.choices, "PS4_P4"), cache).inputs[0]
    assert (found.base, found.pattern) == ("digits_cnn", "PS4_P4")


def test_a_network_without_weights_has_none_that_are_dead(cache: Cache) -> None:
    pools = network({"name": "pool", "kind": "pool", "kernel": 2}, size=(3, 6, 6))
    own = Space(pools, es.load_hardware("edge_tpu"), (Axis.read("batch", "1,2"),))
    found = study(own, ("energy", "live_weights"), trials=2, cache=cache)
    assert [each.values and each.values[1] for each in found.trials] == [1.0, 1.0]


# -- studies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_proposes_the_same(sampler: str, cache: Cache, tmp_path: Path) -> None:
    """Also in steps, from a file."""
    own = space(*SMALL, patterns=PATTERNS)
    settings: dict[str, Any] = {"sampler": sampler, "cache": cache}
    goals = ("energy", "live_weights")
    whole = study(own, goals, trials=30, **settings)
    kept, other = tmp_path / "study", study(own, goals, trials=30, seed=1, **settings)
    assert other.rows() != whole.rows()
    for trials in (1, 12, 13, 25, 27, 30):  # generations are of 12
        found = study(own, goals, trials=trials, path=kept, **settings)
        assert found.trials == whole.trials[:trials]
    assert study(own, goals, trials=30, path=kept, **settings).rows() == whole.rows()


def test_the_front_is_that_of_all_pairs(cache: Cache) -> None:
    found = study(space(*SMALL, patterns=PATTERNS), ("energy", "on_chip", "live_weights"),
                  trials=25, cache=cache)  # fmt: skip
    table = found.table.dropna(subset=["energy_mj"])
    costs = np.column_stack([table["energy_mj"], table["on_chip_kib"], -table["live_weights"]])
    for row, cost in zip(table.itertuples(), costs, strict=True):
        beaten = ((costs <= cost).all(1) & (costs < cost).any(1)).any()
        assert not (row.on_front and beaten)
        if not beaten:
            assert any((costs[table["on_front"].to_numpy()] == cost).all(1))


def test_a_small_space_is_found_whole(cache: Cache) -> None:
    """All of the true front, by trying more designs than there are."""
    own = space(*SMALL, patterns=("dense", "PS1_P9"))
    every = [
        dict(zip(own.choices, values, strict=True)) for values in product(*own.choices.values())
    ]
    runs = [own.run(each, cache) for each in every]
    goals = [GOALS["energy"], GOALS["live_weights"]]
    costs = np.array([[goals[0].measure(run), -goals[1].measure(run)] for run in runs])
    best = {tuple(cost) for cost in costs[non_dominated(costs)]}
    found = study(own, ("energy", "live_weights"), trials=150, cache=cache)
    assert {found.costs(each) for each in found.front} == best


def test_what_does_not_fit_is_kept_with_a_note(cache: Cache) -> None:
    own = space(("levels.SRAM.capacity_kib", "0.1,64"))
    found = study(own, trials=12, cache=cache)
    failed = [each for each in found.trials if each.values is None]
    assert failed
    assert len(failed) < 12
    assert all("SRAM is too small" in each.note for each in failed)
    assert all(each.chosen["levels.SRAM.capacity_kib"] == 0.1 for each in failed)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_process_killed_while_it_proposes_loses_nothing(
    sampler: str, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, goals = space(*SMALL, patterns=PATTERNS), ("energy", "live_weights")
    whole = study(own, goals, trials=16, sampler=sampler, cache=cache).trials
    path = tmp_path / "study"

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    for trials in (3, 9):
        study(own, goals, trials=trials, sampler=sampler, path=path, cache=cache)
        with monkeypatch.context() as patch:
            patch.setattr(Space, "run", killed)
            with pytest.raises(Killed):
                study(own, goals, trials=16, sampler=sampler, path=path, cache=cache)
    resumed = study(own, goals, trials=16, sampler=sampler, path=path, cache=cache)
    assert resumed.trials == whole
    assert all(row["note"] == "" for row in resumed.rows())


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_the_ends_of_the_front_are_tried_first(sampler: str, cache: Cache) -> None:
    own = space(*SMALL, patterns=PATTERNS)
    tried = study(own, ("energy", "live_weights"), trials=5, sampler=sampler, cache=cache).trials
    assert [dict(each.chosen) for each in tried[:3]] == list(own.starts)
    layers = [
        {value for name, value in each.chosen.items() if name.startswith("pattern.")}
        for each in tried
    ]
    assert layers[:3] == [{"dense"}, {"PS4_P4"}, {"PS1_P9"}]
    assert tried[0].values is not None
    assert tried[0].values[1] == 1  # nothing is left out
    assert space(*SMALL).starts == ()
    chance = study(own, ("energy",), trials=3, sampler="random", cache=cache).trials
    assert [dict(each.chosen) for each in chance] != list(own.starts)


def test_it_beats_chance(cache: Cache) -> None:
    """At the same number of designs, for each seed; see benchmarks/search.py for more."""
    layers = [
        {"name": f"conv{i}", "kind": "conv", "out": 8, "kernel": 3, "pad": 1} for i in range(8)
    ]
    spec = {"name": "net", "source": "a test", "input": [8, 4, 4], "layers": layers}
    own = Space(network_of(json.dumps(spec)), es.load_hardware("edge_tpu"), (), PATTERNS)
    volumes = {}
    for sampler in ("nsga2", "random"):
        found = [
            study(
                own, ("energy", "live_weights"), trials=30, seed=seed, sampler=sampler, cache=cache
            )
            for seed in range(2)
        ]
        fronts = [[each.costs(trial) for trial in each.front] for each in found]
        volumes[sampler] = [hypervolume(front, (0.0002, 0.0)) for front in fronts]
    assert min(volumes["nsga2"]) > max(volumes["random"])


def test_a_file_of_another_study_is_refused(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "study"
    own = space(*SMALL)
    study(own, trials=2, path=path, cache=cache)
    for settings in ({"seed": 1}, {"sampler": "tpe"}, {"goals": ("energy",)}):
        with pytest.raises(InputError, match=r"another study|can't be used"):
            study(own, **{"trials": 2, "path": path, "cache": cache} | settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="holds another study"):
        study(space(*SMALL, batch=2), trials=2, path=path, cache=cache)


def test_a_file_that_is_no_study(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n")
    with pytest.raises(InputError, match="is no study"):
        study(space(*SMALL), trials=2, path=path)
    assert path.read_text() == "my notes\n"


def test_one_process_at_a_time_works_on_a_study(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "study"
    own = space(*SMALL)

    def other(done: int) -> None:
        if done == 2:
            with pytest.raises(InputError, match="another process works on this study"):
                study(own, trials=9, path=path, cache=cache)

    found = study(own, trials=3, path=path, cache=cache, tell=other)
    assert len(found.trials) == 3
    assert len(study(own, trials=4, path=path, cache=cache).trials) == 4
    with pytest.raises(InputError, match="does not exist"):
        study(own, trials=1, path=tmp_path / "no" / "study")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"goals": ("enrgy",)}, "Did you mean 'energy'"),
        ({"goals": ("energy", "energy")}, "named twice"),
        ({"goals": ()}, "at least one goal"),
        ({"sampler": "nsga"}, "Did you mean 'nsga2'"),
    ],
)
def test_what_is_no_study(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        study(space(*SMALL), **settings)


def test_without_optuna_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'energysim\[search\]'"):
        study(space(*SMALL))


# -- the command -----------------------------------------------------------------------------------

COMMAND = ("search", "--net", "digits_cnn", "--hw", "edge_tpu", "--vary",
           "levels.SRAM.capacity_kib=4:64:x2", "--layer-patterns", "dense,PS4_P4,PS1_P9",
           "--goals", "energy,live_weights")  # fmt: skip


def searched(*more: str) -> Done:
    return call(*COMMAND, *more)


def test_table_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = searched("--trials", "15")
    assert done.status == 0
    first, _, head, *rows = done.out.splitlines()
    assert first.startswith("digits_cnn on edge_tpu · energy, live_weights · front")
    assert head.split()[:2] == ["trial", "SRAM.capacity_kib"]
    assert f"{len(rows)} designs on the front, of 15 tried among 135" in done.err
    assert searched("--trials", "15", "-o", "t.csv", "-q").out == ""
    table = pd.read_csv("t.csv")
    assert len(table) == 15
    assert table["on_front"].sum() >= len(rows)
    plain = json.loads(searched("--trials", "15", "--format", "json", "-q").out)
    assert len(plain["trials"]) == 15
    assert plain["search"]["goals"] == ["energy", "live_weights"]


def test_killed_it_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole = tmp_path / "whole.csv"
    command = [sys.executable, "-m", "energysim", *COMMAND, "--trials", "30", "-q"]
    subprocess.run([*command, "-o", whole], check=True)
    kept, table = tmp_path / "study", tmp_path / "t.csv"
    for trials in (2, 27):
        with subprocess.Popen([*command, "--study", kept, "-o", table]) as process:
            while not kept.exists() or kept.read_bytes().count(b"\n") < trials:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not table.exists()
    subprocess.run([*command, "--study", kept, "-o", table], check=True)
    assert table.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--vary", "levels.SRAM.capcity_kib=1"), "Did you mean 'capacity_kib'"),
        (("--vary", "x"), "is no scan"),
        (("--goals", "speed"), "no goal named 'speed'"),
        (("--layer-patterns", "PS4_P5"), "PS4_P5"),
        (("--trials", "0"), "--trials"),
        (("-o", "t.parquet"), "search gives no parquet"),
        (("--objective", "energy,latency"), "--goals takes several"),
        (("--dataflow", "all"), "--vary dataflow=... takes several"),
    ],
)
def test_refused(
    args: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = searched(*args)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_nothing_to_vary() -> None:
    done = call("search", "--net", "digits_cnn", "--hw", "edge_tpu")
    assert done.status == 2
    assert "nothing is varied" in done.err


def test_why_nothing_can_be_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("search", "--net", "digits_cnn", "--hw", "edge_tpu", "--trials", "2")
    done = call(*words, "--vary", "levels.SRAM.capacity_kib=0.01", "-o", "t.csv")
    assert done.status == 3
    assert "none of 2 designs can be; the first: layer conv1: level SRAM is too small" in done.err
    assert pd.read_csv("t.csv")["on_front"].sum() == 0
