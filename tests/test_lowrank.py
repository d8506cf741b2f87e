"""Ranks within a budget: what they cost, which are best, and how they are learnt."""

from __future__ import annotations

import json
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from command_line import call
from hypothesis import given
from hypothesis import strategies as st

import energysim as es
from energysim.cache import Cache
from energysim.errors import InputError
from energysim.lowrank import (
    Chain,
    Learning,
    Menu,
    Settings,
    by_singular_values,
    cheapest,
    drawn,
    factored,
    least_error,
    lower,
    menu_of,
    search,
    tucker2,
    uniform,
    with_ranks,
)
from energysim.lowrank.lower import drawn_weights
from energysim.lowrank.search import Corners, excess, gates, gates_backward
from energysim.network import Network, Scale
from energysim.train.data import digits
from energysim.train.model import Model
from energysim.train.parameters import Layout
from energysim.train.recipe import Recipe
from energysim.train.weights import Weights

DIGITS = es.load_network("digits_cnn")
QUICK = Recipe(epochs=3, batch=64, lr=0.02)


def kernels(network: Network, weights: Weights | None = None) -> dict[str, npt.NDArray[np.float32]]:
    found = weights or drawn_weights(network, 0, Recipe())
    return {
        layer.name: found.arrays[f"{layer.name}.weight"]
        for layer in network.layers
        if layer.stores_weights
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("mappings"))


# -- what ranks cost -------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", ["macs", "parameters"])
def test_costs_are_those_of_the_networks(cost: str) -> None:
    menu = menu_of(DIGITS, kernels(DIGITS), cost=cost, options=3)
    for places in product(range(4), repeat=3):
        choice = dict(zip(menu.costs, places, strict=True))
        low = with_ranks(DIGITS, menu.chosen(choice))
        assert menu.cost(choice) == getattr(low, cost)


def test_energies_are_those_of_runs(cache: Cache) -> None:
    """Exact where no map stays on the chip from one layer to the next."""
    hardware = es.load_hardware("edge_tpu")
    menu = menu_of(DIGITS, kernels(DIGITS), cost="energy", options=2, hardware=hardware,
                   cache=cache, residency=False)  # fmt: skip
    for choice in ({"conv2": 0, "conv3": 2, "conv4": 1}, {"conv2": 1, "conv3": 0, "conv4": 2}):
        low = with_ranks(DIGITS, menu.chosen(choice))
        run = es.simulate(low, hardware, cache=cache, residency=False)
        assert menu.cost(choice) == pytest.approx(run.total_energy_mj, rel=1e-12)


def test_what_keeps_most_depends_on_where_maps_stay(cache: Cache) -> None:
    """H9: unfused, each map between two of three goes to DRAM and back; fused, none does."""
    network = es.load_network("resnet20", scale=Scale(1.0, 8, None))
    hardware = es.load_hardware("edge_tpu")
    choices = {}
    for word, settings in {
        "macs": {"cost": "macs"},
        "unfused": {"cost": "energy", "hardware": hardware, "cache": cache, "residency": False},
        "fused": {"cost": "energy", "hardware": hardware, "cache": cache, "residency": True},
    }.items():
        menu = menu_of(network, kernels(network), options=3, **settings)  # type: ignore[arg-type]
        choices[word] = tuple(least_error(menu, menu.budget(0.75)).values())
    assert len(set(choices.values())) == 3


def test_ranks_are_rounded_up() -> None:
    menu = menu_of(DIGITS, kernels(DIGITS), options=3, multiple=8)
    assert menu.ranks["conv2"] == ((8, 8), (8, 8), (16, 16), None)
    assert menu.ranks["conv4"] == ((8, 8), (16, 16), (24, 24), None)
    assert "conv1" not in menu.ranks


# -- how a budget is spread ------------------------------------------------------------------------


def of_figures(costs: list[list[float]], losses: list[list[float]]) -> Menu:
    names = [f"layer{i}" for i in range(len(costs))]
    none = {name: (None,) * len(costs[0]) for name in names}
    kept = {name: 1 - np.array(each) for name, each in zip(names, losses, strict=True)}
    own = {name: np.array(each) for name, each in zip(names, costs, strict=True)}
    return Menu(DIGITS, none, own, 1.0, kept, {})


@given(st.data())
def test_the_cheapest_is_that_of_all(data: st.DataObject) -> None:
    """Whole costs that the parts of the budget divide: then nothing is lost by rounding."""
    layers, ranks = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    table = st.lists(
        st.lists(st.integers(1, 9).map(float), min_size=ranks, max_size=ranks),
        min_size=layers,
        max_size=layers,
    )
    costs, losses = data.draw(table), data.draw(table)
    menu = of_figures(costs, losses)
    budget = 1.0 + data.draw(st.sampled_from([4, 8, 10, 16, 20]))
    every = [
        (sum(losses[i][j] for i, j in enumerate(places)), places)
        for places in product(range(ranks), repeat=layers)
        if 1 + sum(costs[i][j] for i, j in enumerate(places)) <= budget
    ]
    own = {name: 1 - each for name, each in menu.kept.items()}
    if not every:
        with pytest.raises(InputError, match="no ranks within"):
            cheapest(menu, own, budget)
        return
    found = cheapest(menu, own, budget)
    assert menu.cost(found) <= budget
    assert menu.error(found) == pytest.approx(min(every)[0])
    assert least_error(menu, budget) == found


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 1.0])
def test_the_least_error_is_below_all_others(share: float) -> None:
    menu = menu_of(DIGITS, kernels(DIGITS), options=8)
    budget = menu.budget(share)
    best = least_error(menu, budget)
    every = [
        menu.error(choice)
        for places in product(range(9), repeat=3)
        if menu.cost(choice := dict(zip(menu.costs, places, strict=True))) <= budget
    ]
    assert menu.error(best) == pytest.approx(min(every), abs=1e-9)
    rng = np.random.default_rng(0)
    for other in (
        uniform(menu, budget),
        by_singular_values(menu, budget),
        drawn(menu, budget, rng),
    ):
        assert menu.cost(other) <= budget * (1 + 1e-12)
        assert menu.error(other) >= menu.error(best) - 1e-9
    if share == 1:
        assert best == uniform(menu, budget) == dict.fromkeys(menu.costs, 8)


def test_more_budget_keeps_more_singular_values() -> None:
    menu = menu_of(DIGITS, kernels(DIGITS), options=8)
    found = [by_singular_values(menu, menu.budget(share)) for share in (0.2, 0.4, 0.6, 0.8, 1.0)]
    for one, other in pairwise(found):
        assert all(one[name] <= other[name] for name in one)


def test_kept_is_that_of_the_kernels() -> None:
    menu = menu_of(DIGITS, kernels(DIGITS), options=4)
    for name, kernel in kernels(DIGITS).items():
        for place, ranks in enumerate(menu.ranks.get(name, ())):
            if ranks is not None:
                whole = kernel.astype(np.float64)
                off = ((tucker2(whole, ranks, sweeps=0).kernel - whole) ** 2).sum()
                assert menu.kept[name][place] == pytest.approx(1 - off / (whole**2).sum())


# -- gates -----------------------------------------------------------------------------------------


def test_gates_harden_as_they_cool() -> None:
    """H5: at temperature 0 one rank is left."""
    a = np.array([0.3, 0.5, 0.1])
    assert gates(a, 1e-3).round(9).tolist() == [0, 1, 0]
    np.testing.assert_allclose(gates(a, 1e9), 1 / 3, rtol=1e-8)
    assert gates(1e6 * a, 5.0).tolist() == [0, 1, 0]


@pytest.mark.parametrize("budget", [0.5, 100.0])
def test_gradient_of_the_cost_is_that_of_differences(budget: float) -> None:
    """H5: of the whole loss, with the cost's factor, by what the gates are made of."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((6, 5, 3, 3))
    corners = Corners.of(kernel, ((2, 2), (4, 4), None))
    core, pull = corners.inward(kernel), rng.standard_normal(kernel.shape)
    costs, temperature = np.array([1.0, 3.0, 4.0]), 0.7
    a = rng.standard_normal(3)

    def loss(a: npt.NDArray[np.float64]) -> float:
        g = gates(a, temperature)
        mixed = corners.outward(core * corners.weighted(g))
        own = float((mixed * pull).sum()) ** 2 + 1
        return own * excess(float(costs @ g), budget, 1.5)[0]

    g = gates(a, temperature)
    inner = float((corners.outward(core * corners.weighted(g)) * pull).sum())
    factor, slope = excess(float(costs @ g), budget, 1.5)
    dg = factor * corners.gradients(2 * inner * pull, core) + (inner**2 + 1) * slope * costs
    found = gates_backward(g, dg, temperature)
    for place in range(3):
        step = np.zeros(3)
        step[place] = 1e-6
        slope_there = (loss(a + step) - loss(a - step)) / 2e-6
        assert found[place] == pytest.approx(slope_there, rel=1e-6, abs=1e-7)


def test_a_corner_is_the_kernel_of_that_rank() -> None:
    kernel = np.random.default_rng(0).standard_normal((7, 5, 3, 2))
    corners = Corners.of(kernel, ((2, 2), (5, 5), None))
    core = corners.inward(kernel)
    low = corners.outward(core * corners.weighted(np.array([1.0, 0, 0])))
    np.testing.assert_allclose(low, tucker2(kernel, (2, 2), sweeps=0).kernel, atol=1e-12)
    whole = corners.outward(core * corners.weighted(np.array([0, 0, 1.0])))
    np.testing.assert_allclose(whole, kernel, atol=1e-12)


# -- the search ------------------------------------------------------------------------------------


def searched(path: Path | None = None, *, seed: int = 0, epochs: int = 3) -> object:
    data = digits().subset(per_class=20)
    menu = menu_of(DIGITS, kernels(DIGITS))
    found = search(
        menu, menu.budget(0.4), drawn_weights(DIGITS, 0, Recipe()), data,
        QUICK.model_copy(update={"epochs": epochs}), Settings(), seed=seed, path=path,
    )  # fmt: skip
    assert menu.cost(found.choice) <= menu.budget(0.4)
    return found.choice, found.losses, {n: a.tobytes() for n, a in found.weights.arrays.items()}


def test_a_search_learns_within_the_budget_and_repeats() -> None:
    first = searched()
    assert searched() == first
    assert searched(seed=1) != first
    _, losses, _ = first  # type: ignore[misc]
    assert losses[-1] < losses[0]


def test_an_interrupted_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, path = searched(), tmp_path / "kept"
    real, seen = Model.forward, [0]

    def interrupted(*args: object, **settings: object) -> object:
        seen[0] += 1
        if seen[0] == 15:  # in the second epoch
            raise KeyboardInterrupt
        return real(*args, **settings)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Model, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"1 of 3 epochs are kept"):
            searched(path)
    assert searched(path) == whole
    assert searched(path) == whole
    with pytest.raises(InputError, match="of another run"):
        searched(path, seed=1)


def test_gates_follow_the_cost() -> None:
    """With nothing to be learnt from images, all layers go to ranks within the budget."""
    data = digits().subset(per_class=20)
    menu = menu_of(DIGITS, kernels(DIGITS))
    strict = search(
        menu, menu.budget(0.3), drawn_weights(DIGITS, 0, Recipe()), data,
        QUICK.model_copy(update={"epochs": 6}), Settings(gate_lr=0.3),
    )  # fmt: skip
    free = search(
        menu, menu.dense, drawn_weights(DIGITS, 0, Recipe()), data,
        QUICK.model_copy(update={"epochs": 6}), Settings(gate_lr=0.3),
    )  # fmt: skip
    expected = [
        sum(menu.costs[name] @ found.probabilities[name] for name in menu.costs)
        for found in (strict, free)
    ]
    assert expected[0] < 0.8 * expected[1]


def test_the_three_layers_give_what_the_search_had() -> None:
    """H1, of a whole network with running statistics."""
    data = digits().subset(per_class=20)
    learning = Learning(data, QUICK)
    low = lower(DIGITS, 0.4, "search", learning=learning)
    assert low.ranks
    menu = low.menu
    found = search(menu, menu.budget(0.4), drawn_weights(DIGITS, 0, Recipe()), data, QUICK)
    x = np.random.default_rng(0).standard_normal((*DIGITS.input_size, 4))
    scores = []
    for network, weights in ((DIGITS, found.weights), (low.network, low.weights)):
        vector, running = weights.fitted(network, np.float64)
        model = Model.of(network, dtype=np.float64)
        scores.append(model.infer(Layout.of(network).views(vector), running, x))
    np.testing.assert_allclose(*scores, atol=2e-5)  # weights are kept in single precision


def test_weights_go_with_their_network() -> None:
    weights = drawn_weights(DIGITS, 0, Recipe())
    low, arrays = factored(DIGITS, weights, {"conv3": (5, 7)})
    arrays.fitted(low)
    assert arrays.arrays["conv3.core.weight"].shape == (7, 5, 3, 3)
    np.testing.assert_array_equal(arrays.arrays["conv2.weight"], weights.arrays["conv2.weight"])


# -- what is refused, and the command --------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"way": "eror"}, "Did you mean 'error'"),
        ({"cost": "mac"}, "Did you mean 'macs'"),
        ({"cost": "energy"}, "needs hardware"),
        ({"way": "search"}, "needs images"),
        ({"way": "search", "learning": Learning(digits(), Recipe(epochs=1))}, "2 epochs or more"),
        ({"way": "search", "learning": Learning(digits(), Recipe(validation=0.1))}, "validation"),
        ({"share": 0.01}, "the cheapest ranks keep"),
        ({"share": 1.5}, "above 0 and at most 1"),
        ({"weights": Weights({})}, "missing"),
    ],
)
def test_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises((InputError, es.errors.InputErrors), match=message):
        lower(DIGITS, **settings)  # type: ignore[arg-type]


def test_a_network_without_such_layers_is_refused() -> None:
    with pytest.raises(InputError, match="no layer that can have ranks"):
        lower(es.load_network("digits_cnn", pattern="PS1_P9"))


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("lowrank", "--net", "digits_cnn", "--share", "0.5", "-o", "low.yaml")
    assert done.status == 0, done.err
    assert "Tucker-2 · by error" in done.out
    assert "kernels as before training" in done.out
    assert (tmp_path / "low.yaml").exists()
    assert not (tmp_path / "low.weights.npz").exists()
    low = es.load_network("low.yaml")
    assert low.macs <= 0.5 * DIGITS.macs
    call("train", "--net", "digits_cnn", "--epochs", "1", "--per-class", "10", "-q")
    (weights,) = (tmp_path / "runs").glob("*/weights.npz")
    done = call("lowrank", "--net", "digits_cnn", "--weights", str(weights), "--by", "singular",
                "--format", "json", "-o", "t.yaml")  # fmt: skip
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert told["lowrank"]["kept"] <= 0.5
    for row in told["layers"]:
        layer = DIGITS.layer(row["layer"])
        chain = layer if row["r1"] is None else Chain(layer, (row["r1"], row["r2"]))
        assert (row["macs"], row["weights"]) == (chain.macs, chain.weights)
    done = call("train", "--net", "t.yaml", "--begin", "t.weights.npz", "--epochs", "1",
                "--per-class", "10", "-q")  # fmt: skip
    assert done.status == 0, done.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--cost", "energy"), "needs --hw"),
        (("--cost", "macs", "--hw", "edge_tpu"), "needs no --hw"),
        (("--epochs", "3"), "--epochs belongs to --by search"),
        (("-o", "low.npz"), "is no .yaml file"),
        (("-o", "nowhere/low.yaml"), "nowhere"),
        (("--share", "0.01"), "the cheapest ranks keep 6.46 %"),
        (("--weights", "none.npz"), "No such file"),
        (("--hw", "edge_tpu", "--dataflow", "all"), "one dataflow"),
        (("--batch", "8"), "--batch needs --hw"),
        (("--residency", "off"), "--residency needs --hw"),
        (("--by", "search", "--epochs", "1"), "2 epochs or more"),
        (("--by", "search", "--data", "shapes", "--epochs", "1"), "channels"),
    ],
)
def test_the_command_refuses(
    args: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("lowrank", "--net", "digits_cnn", *args)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def test_what_is_read_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call("prune", "--net", "digits_cnn", "-o", "small.npz", "-q")
    before = (tmp_path / "small.npz").read_bytes()
    done = call("shrink", "--net", "digits_cnn", "--mask", "small.npz", "-o", "small.yaml")
    assert done.status == 2
    assert "small.npz is read by the same command" in done.err
    assert (tmp_path / "small.npz").read_bytes() == before
    (tmp_path / "m.weights.npz").touch()
    done = call("lowrank", "--net", "digits_cnn", "--weights", "./m.weights.npz", "-o", "m.yaml")
    assert done.status == 2
    assert "is read by the same command" in done.err
