"""The Pareto set of a network: that of all products of what its layers can trade."""

from __future__ import annotations

import csv
import io
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from machines import conv, machine, memory, network

import energysim as es
from energysim.cache import Cache
from energysim.cli import render
from energysim.cli.options import Target
from energysim.errors import DoesNotFitError, InputError
from energysim.simulate import simulate
from energysim.tradeoff import Front, nondominated, trade

NET = network(
    conv("a", 5), conv("b", 4, 1), {"name": "fc", "kind": "linear", "out": 5}, size=(3, 4, 4)
)
CHIP = machine(
    memory("BUF", capacity_bytes=150, bandwidth_bits_per_cycle=24.0, double_buffered=True),
    memory("RF", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=2,
           read_pj_per_bit=0.05),
    dram={"bandwidth_bits_per_cycle": 6.0},
    mac={"energy_pj": 1.0, "source": "a test"},
)  # fmt: skip
PAIRS = [("energy", "latency"), ("latency", "dram")]
FIGURES = {"energy": "energy_mj", "latency": "cycles", "dram": "dram_bytes"}


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Front:
    cache = Cache(tmp_path_factory.mktemp("cache"))
    return trade(NET, CHIP, request.param, cache=cache)


def costs(front: Front) -> list[tuple[float, float]]:
    one, other = (FIGURES[name] for name in front.objectives)
    return [(float(getattr(each, one)), float(getattr(each, other))) for each in front.points]


def test_points_by_rising_first_and_falling_second(front: Front) -> None:
    first, second = zip(*costs(front), strict=True)
    assert list(first) == sorted(first)
    assert list(second) == sorted(second, reverse=True)
    assert len(set(first)) == len(set(second)) == len(front.points)


def test_equal_to_brute_force_over_the_layers(front: Front) -> None:
    names = {"energy": "energy_pj", "latency": "cycles", "dram": "dram_bytes"}
    rows = [[cost.layer for cost in own] for own in front.layers]
    every = [
        tuple(sum(getattr(row, names[name]) for row in choice) for name in front.objectives)
        for choice in product(*rows)
    ]
    best = {
        one
        for one in every
        if not any(
            other[0] <= one[0] and other[1] <= one[1] and other != one
            and (other[0] < one[0] * (1 - 1e-12) or other[1] < one[1] * (1 - 1e-12))
            for other in every
        )
    }  # fmt: skip
    expected = sorted(best)
    scale = [1e-9 if name == "energy" else 1.0 for name in front.objectives]
    found = costs(front)
    assert len(every) > 1 or front.objectives != PAIRS[0]
    assert len(found) == len({tuple(round(x, 6) for x in each) for each in expected})
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx([x * s for x, s in zip(theirs, scale, strict=True)])


def test_the_ends_are_the_single_optima(front: Front) -> None:
    one, other = front.objectives
    first, last = costs(front)[0], costs(front)[-1]
    for objective, found in ((one, first[0]), (other, last[1])):
        result = simulate(NET, CHIP, objective=objective)
        figures = {"energy": result.total_energy_mj, "latency": result.total_cycles,
                   "dram": result.total_dram_bytes}  # fmt: skip
        assert found == pytest.approx(figures[objective])
    assert front.search.optimal


def test_a_point_is_a_result(front: Front) -> None:
    for at in {0, len(front.points) // 2, len(front.points) - 1}:
        point, result = front.points[at], front.result(at)
        assert result.total_energy_mj == pytest.approx(point.energy_mj)
        assert result.total_time_ms == pytest.approx(point.time_ms)
        assert (result.total_cycles, result.total_dram_bytes) == (point.cycles, point.dram_bytes)
        assert [row.layer for row in result.layer_rows] == [layer.name for layer in NET.layers]


def test_equal_layers_trade_the_same() -> None:
    net = network(conv("a", 3), conv("b", 3), size=(3, 3, 3))
    found = trade(net, CHIP)
    assert [cost.layer.energy_pj for cost in found.layers[0]] == [
        cost.layer.energy_pj for cost in found.layers[1]
    ]
    assert {cost.layer.layer for cost in found.layers[1]} == {"b"}


def test_nondominated_equals_brute_force() -> None:
    rng = np.random.default_rng(3)
    for size in (1, 2, 7, 60):
        points = rng.integers(0, 8, (size, 2)).astype(np.float64)
        kept = points[nondominated(points)]
        expected = {
            tuple(one)
            for one in points.tolist()
            if not any(
                other[0] <= one[0] and other[1] <= one[1] and other != one
                for other in points.tolist()
            )
        }
        assert sorted(expected) == [tuple(row) for row in kept.tolist()]


def test_what_cannot_be_traded() -> None:
    with pytest.raises(InputError, match="energy can't be traded for itself"):
        trade(NET, CHIP, ("energy", "energy"))
    with pytest.raises(InputError, match="edp does not add up over layers"):
        trade(NET, CHIP, ("energy", "edp"))
    with pytest.raises(InputError, match=r"no objective named 'time'"):
        trade(NET, CHIP, ("energy", "time"))
    small = machine(memory("BUF", capacity_bytes=1))
    with pytest.raises(DoesNotFitError, match="layer a: level BUF is too small"):
        trade(NET, small)


def test_progress_is_told_to_the_end() -> None:
    told: list[tuple[int, int, str]] = []
    net = network(conv("a", 2), conv("b", 2, 1), size=(2, 3, 3))
    trade(net, CHIP, progress=lambda *news: told.append(news))
    assert told == [(0, 2, "a"), (1, 2, "b"), (2, 2, "")]


# -- as text and files -----------------------------------------------------------------------------


def test_json_repeats_every_point(front: Front, tmp_path: Path) -> None:
    data = json.loads(front.to_json(tmp_path / "front.json"))
    assert json.loads((tmp_path / "front.json").read_text()) == data
    assert data["settings"]["objective"] == ",".join(front.objectives)
    assert data["search"]["optimal"] is True
    last = data["points"][-1]
    chosen = {
        name: own[pick]["loops"]
        for (name, own), pick in zip(data["layers"].items(), last["picks"], strict=True)
    }
    mapping = es.mapping.MappingFile.model_validate_json(json.dumps({"layers": chosen}))
    again = simulate(NET, CHIP, mapping=mapping)
    assert again.total_energy_mj == pytest.approx(last["energy_mj"])
    assert again.total_cycles == last["cycles"]


def test_a_table_of_many_points_shows_some(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = render.front_grid(front)
    assert len(whole.rows) == len(front.points)
    assert whole.footer[0].startswith(
        "one point;" if len(front.points) == 1 else f"{len(front.points)} points;"
    )
    if len(front.points) > 3:
        monkeypatch.setattr(render, "MOST_POINTS", 3)
        short = render.front_grid(front)
        assert short.rows[0] == whole.rows[0]
        assert short.rows[-1] == whole.rows[-1]
        assert len(short.rows) == 3
        assert f"{len(front.points)} points, 3 of them shown" in short.footer[0]
    text = render.as_text(whole, width=60)
    assert max(map(len, text.splitlines()[2:-1])) <= 60


def test_a_front_is_printed_in_every_form(front: Front, capsys: pytest.CaptureFixture[str]) -> None:
    render.print_front(front, Target("csv", None))
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [float(row["energy_mj"]) for row in rows] == [each.energy_mj for each in front.points]
    assert list(rows[0]) == list(front.table.columns)
    render.print_front(front, Target("json", None))
    assert capsys.readouterr().out == front.to_json()
    render.print_front(front, Target("md", None))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"{front.objectives[0]} against {front.objectives[1]}**")


ARGS = ("run", "--net", "tiny.yaml", "--hw", "edge_tpu", "-q")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\nsource: a test\ninput: [3, 8, 8]\n"
        "layers: [{name: a, kind: conv, out: 8, kernel: 3}, {name: fc, kind: linear, out: 4}]\n"
    )
    return tmp_path


@pytest.mark.parametrize("word", ["energy,latency", "dram, energy"])
@pytest.mark.usefixtures("folder")
def test_command(word: str) -> None:
    one, other = word.replace(" ", "").split(",")
    done = call(*ARGS, "--objective", word)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[0] == (
        f"tiny on edge_tpu · weight_stationary · batch 1 · int8 · dense · {one} against {other}"
    )
    data = json.loads(call(*ARGS, "--objective", word, "--format", "json").out)
    net, chip = es.load_network("tiny.yaml"), es.load_hardware("edge_tpu")
    assert data == json.loads(trade(net, chip, (one, other)).to_json())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--objective", "energy,enrgy"], "'enrgy' is not one of energy, dram, latency, edp. Did"),
        (["--objective", "energy,"], "'' is not one of"),
        (["--objective", "energy,dram,latency"], "3 objectives given; at most two can be traded"),
        (["--objective", "energy,energy"], "energy can't be traded for itself"),
        (["--objective", "energy,edp"], "edp does not add up over layers"),
        (["--objective", "energy,dram", "--dataflow", "all"], "ask for different answers"),
        (["--objective", "energy,dram", "--levels"], "ask for different answers"),
        (["--objective", "energy,dram", "--explain", "a"], "ask for different answers"),
        (["--objective", "energy,dram", "-o", "x.parquet"], "two objectives gives no parquet"),
        (["--objective", "energy,dram", "--mapping", "m.yaml"], "leave --mapping out"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_wrong_usage(args: list[str], message: str) -> None:
    done = call(*ARGS, *args)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
