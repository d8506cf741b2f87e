"""Methods side by side: which networks they make, that they are trained alike, what they cost."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call

import energysim as es
from energysim.cache import Cache
from energysim.errors import InputError
from energysim.methods import (
    AXES,
    Comparison,
    Failed,
    Family,
    Method,
    Panel,
    Setting,
    Trained,
    compare_trained,
    methods_named,
    narrowed,
    network_of,
    train_all,
)
from energysim.methods.compared import passes_of
from energysim.network import Network, Scale
from energysim.plot.methods import methods_figure
from energysim.prune import prune
from energysim.sparsity import PATTERNS
from energysim.train.attacks import Attack
from energysim.train.data import digits
from energysim.train.job import Job
from energysim.train.recipe import Adversarial, Recipe, Rewire
from energysim.train.rewire import Mode
from energysim.train.shrunk import shrunk_with
from energysim.train.weights import Weights

QUICK = Recipe(epochs=1, batch=64, lr=0.05)


def load(name: str | None, width: float) -> Network:
    return es.load_network(name or "digits_cnn", scale=Scale(width, 8, 10))


def setting(out: Path, seeds: tuple[int, ...] = (0,)) -> Setting:
    return Setting.of("digits_cnn", digits().subset(per_class=12), QUICK, seeds=seeds, out=out)


def named(*words: str, densities: tuple[float, ...] = (0.2,)) -> tuple[Method, ...]:
    return methods_named(words, densities)


# -- names -----------------------------------------------------------------------------------------


def test_names_and_groups() -> None:
    found = named("all", densities=(0.1, 0.3))
    names = [each.name for each in found]
    assert set(PATTERNS) <= set(names)
    assert names.count("synflow") == names.count("tucker2") == 2
    assert names.count("dense") == names.count("PS4_P4") == 1
    assert {each.family for each in found} == set(Family)
    assert named("ps4_p4", "PS4_P4", "dense") == named("PS4_P4", "dense")
    assert named("synflow@0.05")[0].label == "synflow 5 %"
    assert named("resnet20")[0].family is Family.DENSE


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("synflw", "Did you mean 'synflow'"),
        ("synflow@x", "is no density"),
        ("synflow@2", "above 0 and at most 1"),
        ("dense@0.1", "a density of its own"),
        ("mobilenet_v2@x", "is no width"),
        ("mobilenet_v2@0", "a width is above 0"),
        ("PS4_P5", "PS4_P4"),
    ],
)
def test_wrong_names(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        named(word)
    with pytest.raises(InputError, match="no method is named"):
        named()


# -- networks --------------------------------------------------------------------------------------


def test_networks_are_those_of_the_methods(tmp_path: Path) -> None:
    own = setting(tmp_path)
    for method in named("dense", "PS2_P6", "pSC2", "2:4", "resnet20"):
        network = network_of(method, 0, own)
        assert network.pattern == (method.name if method.name in PATTERNS or ":" in method.name
                                   else "dense")  # fmt: skip
    for method in named("synflow", "magnitude", "uniform", "snip"):
        network = network_of(method, 3, own)
        live = sum(each.mask.nonzeros for each in network.layers if each.stores_weights)
        total = sum(each.mask.total for each in network.layers if each.stores_weights)
        assert live == pytest.approx(0.2 * total, rel=0.01)
    synflow = prune(own.network, "synflow", 0.2, seed=3).network
    assert network_of(Method("synflow", Family.PRUNING, 0.2), 3, own) == synflow


def test_random_supports_follow_the_seed(tmp_path: Path) -> None:
    own = setting(tmp_path)
    for name in ("pSC2", "2:4"):
        (method,) = named(name)
        first = network_of(method, 0, own)
        assert first == own.network.with_pattern(name)
        other = network_of(method, 1, own)
        for one, two in zip(first.layers, other.layers, strict=True):
            if one.pattern != "dense":
                assert one.mask.nonzeros == two.mask.nonzeros
                assert (one.mask.array() != two.mask.array()).any()
    (periodic,) = named("PS2_P6")
    assert network_of(periodic, 0, own) == network_of(periodic, 1, own)


def test_rewiring_of_a_recipe_is_of_dnr_alone(tmp_path: Path) -> None:
    how = Rewire(share=0.3, density=0.9)
    own = replace(setting(tmp_path), recipe=QUICK.model_copy(update={"rewire": how}), shrink=True)
    dense, dnr, channels = train_all(named("dense", "dnr@0.5", "dnr_channels@0.5"), own)
    assert isinstance(dense, Trained)
    assert isinstance(dnr, Trained)
    assert isinstance(channels, Trained)
    assert channels.network.pattern == "channels"
    assert channels.used.macs < 0.9 * dense.used.macs
    by_channel = {"density": 0.5, "mode": Mode.CHANNEL}
    assert channels.jobs[-1].recipe.rewire == how.model_copy(update=by_channel)
    assert dense.jobs[-1].recipe.rewire is None
    assert dnr.jobs[-1].recipe.rewire == how.model_copy(update={"density": 0.5})


def test_runs_that_stop_early_count_what_they_took(cache: Cache, tmp_path: Path) -> None:
    recipe = QUICK.model_copy(update={"epochs": 9, "validation": 0.5, "stop_after": 1, "lr": 5.0})
    (run,) = train_all(named("dense"), replace(setting(tmp_path), recipe=recipe))
    assert isinstance(run, Trained)
    assert run.epochs[0] < 9
    found = compare_trained([run], load(None, 1.0), [es.load_hardware("edge_tpu")], (1,),
                            training=True, cache=cache)  # fmt: skip
    step = es.simulate(load(None, 1.0), es.load_hardware("edge_tpu"), batch=64, phase="training",
                       cache=cache)  # fmt: skip
    steps = 60 / 64 * run.epochs[0]
    assert found.points[0].training["edge_tpu"] == pytest.approx(step.total_energy_mj * steps)


def test_a_run_without_its_weights_is_told(tmp_path: Path) -> None:
    own = setting(tmp_path)
    (run,) = train_all(named("dense"), own)
    assert isinstance(run, Trained)
    (tmp_path / run.jobs[-1].name / "weights.npz").unlink()
    (found,) = train_all(named("dense"), replace(own, attack=Attack.named("fgsm:0.1")))
    assert isinstance(found, Failed)
    assert "weights.npz" in found.why


def test_the_widest_network_within_the_parameters() -> None:
    found = narrowed(lambda width: load(None, width), 0.4 * load(None, 1.0).parameters)
    widths = [step / 64 for step in range(1, 65)]
    allowed = [load(None, each).parameters for each in widths]
    limit = 0.4 * load(None, 1.0).parameters
    assert found.parameters == max(each for each in allowed if each <= limit)
    with pytest.raises(InputError, match="no width has as few"):
        narrowed(lambda width: load(None, width), 10)


# -- training and costs ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Trained | Failed]:
    methods = named("dense", "PS2_P6", "synflow", "tucker2", "dnr", "narrow@0.01")
    own = setting(tmp_path_factory.mktemp("runs"), (0, 1))
    return list(train_all(methods, own))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("mappings"))


@pytest.fixture(scope="module")
def comparison(trained: list[Trained | Failed], cache: Cache) -> Comparison:
    return compare_trained(
        trained, load(None, 1.0), [es.load_hardware("edge_tpu")], (1, 8), cache=cache
    )


def test_each_method_is_trained_with_each_seed(trained: list[Trained | Failed]) -> None:
    whole = [each for each in trained if isinstance(each, Trained)]
    failed = [each for each in trained if isinstance(each, Failed)]
    assert [(each.method.name, each.seed) for each in whole] == [
        (name, seed) for name in ("dense", "PS2_P6", "synflow", "tucker2", "dnr") for seed in (0, 1)
    ]
    assert {each.method.name for each in failed} == {"narrow"}
    dense, tucker = whole[0], whole[6]
    assert tucker.jobs[0].identity == dense.jobs[0].identity, "the dense run is that of 'dense'"
    assert tucker.jobs[1].begin is not None
    rewired = whole[8].network
    assert rewired.pattern == "irregular"
    assert rewired.effective_macs < dense.network.effective_macs


def test_costs_are_those_of_runs(comparison: Comparison, cache: Cache) -> None:
    machine = es.load_hardware("edge_tpu")
    for point in comparison.points:
        for batch in (1, 8):
            each = [
                es.simulate(run.network, machine, batch=batch, cache=cache).total_energy_mj / batch
                for run in point.runs
            ]
            assert point.inference["edge_tpu", batch].energy_mj == pytest.approx(np.mean(each))
    assert [each.method.name for each in comparison.failed] == ["narrow"] * 2


def test_rows_say_how_networks_were_mapped(trained: list[Trained | Failed], cache: Cache) -> None:
    machine, network = es.load_hardware("edge_tpu"), load(None, 1.0)
    asked: dict[str, Any] = {
        "objective": "latency",
        "dataflow": "output_stationary",
        "residency": False,
    }
    own: dict[str, Any]
    for own in ({}, asked):
        found = compare_trained(trained[:1], network, [machine], (1,), cache=cache, **own)
        result = es.simulate(network, machine, cache=cache, **own)
        (row,) = found.rows()
        assert {word: row[word] for word in asked} == {
            word: getattr(result, word) for word in asked
        }
        assert row["energy_mj"] == pytest.approx(result.total_energy_mj)
    assert {word: row[word] for word in asked} == asked


def test_dead_channels_are_left_out_where_asked_for(
    trained: list[Trained | Failed], cache: Cache, tmp_path: Path
) -> None:
    """Of a mask by chance at 3 %: costs are of the small network, training is of the masked one."""
    machine = [es.load_hardware("edge_tpu")]
    methods = named("dense", "random@0.03")
    own = replace(setting(tmp_path), shrink=True)
    dense, small = train_all(methods, own)
    assert isinstance(dense, Trained)
    assert isinstance(small, Trained)
    assert dense.small is None
    assert small.used is small.small
    weights = Weights.load(tmp_path / small.jobs[-1].name / "weights.npz")
    assert small.used == shrunk_with(small.network, weights)[0].network
    found = compare_trained([dense, small], own.network, machine, (1,), training=True, cache=cache)
    whole = [replace(each, small=None) for each in (dense, small)]
    other = compare_trained(whole, own.network, machine, (1,), training=True, cache=cache)
    assert found.points[0] == other.points[0]
    small_row, whole_row = found.rows()[1], other.rows()[1]
    assert small_row["training_energy_mj"] == whole_row["training_energy_mj"]
    for word in ("energy_mj", "parameters", "macs"):
        assert small_row[word] < whole_row[word]
    assert small_row["accuracy_percent"] == whole_row["accuracy_percent"]


def test_training_counts_all_runs_that_a_method_took(
    trained: list[Trained | Failed], cache: Cache
) -> None:
    machine, dense = es.load_hardware("edge_tpu"), load(None, 1.0)
    some = [each for each in trained if each.method.name in ("dense", "tucker2") and not each.seed]
    found = compare_trained(some, dense, [machine], (1,), training=True, cache=cache)
    energies = []
    for network in (dense, some[1].network):
        settings = {"batch": 64, "phase": "training", "epoch_images": 120, "cache": cache}
        energies.append(es.simulate(network, machine, **settings).total_energy_mj * 120 / 64)  # type: ignore[arg-type]
    spent = [each.training["edge_tpu"] for each in found.points]
    assert spent == pytest.approx([energies[0], sum(energies)])
    figure = methods_figure(found, ("parameters", "training-energy"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["", "edge_tpu"]


def test_the_front_is_that_of_all_pairs(comparison: Comparison) -> None:
    for panel in comparison.panels(
        [AXES[name] for name in ("energy", "latency", "parameters", "macs")]
    ):
        costs, front = comparison.costs(panel), comparison.front(panel)
        tops = [each.percent for each in comparison.points]
        for i, kept in enumerate(front):
            beaten = any(
                costs[j] <= costs[i] and tops[j] >= tops[i]
                and (costs[j] < costs[i] or tops[j] > tops[i])
                for j in range(len(costs))
            )  # fmt: skip
            assert kept is not beaten


def test_attacked_images_cost_passes() -> None:
    recipe = QUICK.model_copy(update={"adversarial": Adversarial(radius=0.1, steps=7)})
    job = Job(load(None, 1.0), digits(), recipe, 0)
    assert passes_of(job) == {"forward": 9, "recompute": 9, "input_grad": 9, "weight_grad": 2,
                             "update": 1}  # fmt: skip
    only = QUICK.model_copy(update={"adversarial": Adversarial(radius=0.1, steps=7, clean_share=0)})
    assert passes_of(Job(load(None, 1.0), digits(), only, 0)) == {
        "forward": 8, "recompute": 8, "input_grad": 8, "weight_grad": 1, "update": 1,
    }  # fmt: skip
    assert set(passes_of(Job(load(None, 1.0), digits(), QUICK, 0)).values()) == {1}


def test_nothing_comes_to_nothing() -> None:
    failed = Failed(Method("narrow", Family.DENSE, 0.01), 0, "too small")
    with pytest.raises(InputError, match=r"no method came to anything\. The first: too small"):
        compare_trained([failed], load(None, 1.0), [], (1,))


def test_the_picture_has_a_panel_each(comparison: Comparison) -> None:
    figure = methods_figure(comparison, ("energy", "parameters"))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["edge_tpu · batch 1", "edge_tpu · batch 8", ""]
    costs = comparison.costs(Panel(AXES["parameters"]))
    drawn = {round(float(x), 6) for line in figure.axes[2].lines for x in line.get_xdata()}  # type: ignore[union-attr]
    assert {round(each / 1e3, 6) for each in costs} <= drawn
    assert methods_figure(comparison, width_in=3.5).get_figwidth() == 3.5


def test_accuracy_under_attack(tmp_path: Path, cache: Cache) -> None:
    attack = Attack.named("fgsm:0.1")
    own = replace(setting(tmp_path), attack=attack, attacked=50)
    some = list(train_all(named("dense", "PS2_P6"), own))
    found = compare_trained(some, own.network, [es.load_hardware("edge_tpu")], (1,), attack=attack,
                            cache=cache)  # fmt: skip
    for point, run in zip(found.points, some, strict=True):
        assert isinstance(run, Trained)
        record = json.loads((tmp_path / run.jobs[-1].name / "result.json").read_text())
        (struck,) = record["robust"]
        assert point.robust_percent == pytest.approx(100 * struck["robust_top1"])
        assert struck["images"] == 50
    assert {row["attack"] for row in found.rows()} == {"FGSM, radius 0.1"}
    labels = [axes.get_ylabel() for axes in methods_figure(found).axes]
    assert labels == ["top-1 [%]", "top-1 under attack [%]"]


# -- the command -----------------------------------------------------------------------------------

SMALL = ("compare-methods", "--net", "digits_cnn", "--hw", "edge_tpu", "--epochs", "1",
         "--per-class", "10", "--seed", "0")  # fmt: skip


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = (*SMALL, "--methods", "dense,synflow@0.2,narrow@0.01")
    done = call(*words, "-o", "t.csv", "-o", "p.svg", "--format", "json")
    assert done.status == 3, done.err
    assert "left out: narrow 1 %, seed 0: digits_cnn: no width has as few" in done.err
    told = json.loads(done.out)
    assert [row["method"] for row in told["methods"]] == ["dense", "synflow"]
    assert told["comparison"]["failed"]
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["energy_mj"]) for row in rows] == [
        row["energy_mj"] for row in told["methods"]
    ]
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    again = call(*SMALL, "--methods", "dense,synflow@0.2", "-o", "t2.csv", "-o", "p2.svg")
    assert again.status == 0, again.err
    assert "epoch" not in again.err, "all was done before"
    for one, other in (("t.csv", "t2.csv"), ("p.svg", "p2.svg")):
        assert (tmp_path / one).read_bytes() == (tmp_path / other).read_bytes()
    table = call(*SMALL, "--methods", "dense,synflow@0.2", "-q")
    assert "* on the front" in table.out
    assert "one seed: differences may be chance" in table.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--methods", "synflw"), "Did you mean 'synflow'"),
        (("--attack", "fgsn:0.1"), "fgsm"),
        (("--attack-images", "5"), "belongs to --attack"),
        (("--densities", "0.1,x"), "gives no densities"),
        (("--densities", "2"), "above 0 and at most 1"),
        (("--batches", "0"), "gives no batches"),
        (("--x", "energi"), "Did you mean 'energy'"),
        (("-o", "t.parquet"), "gives no parquet"),
        (("-o", "t.xyz"), "names no format"),
        (("-o", "nowhere/t.csv"), "nowhere"),
        (("--hw", "edge_tpu"), "two machines are named edge_tpu"),
        (("--net", "resnet18_ps", "--data", "shapes"), "begin with a dense network"),
        (("--dataflow", "all"), "one dataflow"),
        (("--methods", "resnet18", "--data", "digits"), "resnet18"),
    ],
)
def test_refused_before_any_work(
    args: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*SMALL, *args)
    assert done.status == 2
    assert message in done.err
    assert not list(tmp_path.iterdir())
