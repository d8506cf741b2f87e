"""Rewiring: how many weights live and which, what they learn from, what a run leaves of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from command_line import call
from hypothesis import given
from hypothesis import strategies as some
from test_train_run import Stopped, contents, stop_at
from trainable import CONVOLUTIONS, JOINED, PLAIN, cut, images_for, network_of

from energysim.catalog import load_network
from energysim.errors import InputError, InputErrors
from energysim.network import Network
from energysim.prune import alike, prune
from energysim.train import ops
from energysim.train.attacks import Adversary, Attack
from energysim.train.checkpoint import Checkpoint
from energysim.train.data import Batch, digits
from energysim.train.engine import ANCHOR, LIVE, Engine
from energysim.train.job import Job, digest
from energysim.train.model import Model
from energysim.train.optimiser import Method
from energysim.train.parameters import Layout, running_start, start
from energysim.train.recipe import RECIPES, Adversarial, Recipe, Rewire
from energysim.train.record import CHECKPOINT, MASKS
from energysim.train.rewire import (
    Decline,
    Mode,
    Wiring,
    declined,
    largest,
    quotas,
    shares_of,
    smallest,
    to_prune,
)
from energysim.train.run import train
from energysim.train.weights import Weights
from energysim.yamlio import load_model

Floats = npt.NDArray[np.float64]
RNG = np.random.default_rng
BOTH = Recipe(
    epochs=3,
    batch=64,
    lr=0.05,
    rewire=Rewire(density=0.2),
    adversarial=Adversarial(radius=0.1, steps=2),
)


# -- how many and which ----------------------------------------------------------------------------


@given(some.data())
def test_quotas_use_the_budget_up(data: some.DataObject) -> None:
    layers = data.draw(some.integers(1, 6))

    def numbers(least: int, most: int) -> npt.NDArray[np.int64]:
        drawn = some.lists(some.integers(least, most), min_size=layers, max_size=layers)
        return np.array(data.draw(drawn), np.int64)

    sizes, room, shares = numbers(1, 9), numbers(0, 40), shares_of(numbers(0, 5).tolist())
    budget = data.draw(some.integers(0, 200))
    found = quotas(budget, shares, sizes, room)
    assert (found >= 0).all()
    assert (found <= room).all()
    left = budget - int((found * sizes).sum())
    assert left >= 0
    assert all(size > left for size, more in zip(sizes, room - found, strict=True) if more)


def test_quotas_follow_the_shares_as_far_as_there_is_room() -> None:
    one, wide = np.ones(3, np.int64), np.full(3, 1000)
    assert quotas(7, np.array([0.5, 0.3, 0.2]), one, wide).tolist() == [4, 2, 1]
    shares = shares_of(RNG(0).random(3).tolist())
    assert (np.abs(quotas(500, shares, one, wide) - 500 * shares) < 1).all()
    # 99 of 100 dead ones at most, the rest of 400 * 0.9 spread evenly
    full = quotas(400, np.array([0.9, 0.05, 0.05]), one, np.array([100, 1000, 1000]))
    assert full.tolist() == [99, 151, 150]
    # no room elsewhere: then all of them
    assert quotas(150, np.array([1.0, 0, 0]), one, np.array([100, 25, 25])).tolist() == [
        100,
        25,
        25,
    ]


def test_shares_are_of_mean_momentum() -> None:
    assert shares_of([1, 3]).tolist() == [0.25, 0.75]
    assert shares_of([0, 0]).tolist() == [0.5, 0.5]


def test_no_layer_is_emptied_and_nearly_full_ones_lose_little() -> None:
    for live in range(1, 30):
        for share in (0.01, 0.5, 0.99):
            many = to_prune(live, 100, share, 0.1, 3)
            assert many == min(ceil(share * live), live - 1)
    assert to_prune(95, 100, 0.5, 0.9, 3) == ceil((1 - 95 / 100) * 95)
    assert to_prune(95, 100, 0.5, 0.2, 3) == 48, "a layer that does not grow is pruned as others"
    assert to_prune(100, 100, 0.5, 0.9, 3) == 0


def test_of_equal_scores_the_first_ones() -> None:
    scores = np.array([1.0, 0, 1, 0, 2])
    every = np.ones(5, np.bool_)
    assert smallest(scores, every, 3).tolist() == [1, 3, 0]
    assert largest(scores, every, 2).tolist() == [4, 0]
    assert largest(scores, np.array([True, False, True, True, False]), 1).tolist() == [0]


def test_the_share_goes_to_nothing() -> None:
    for how in Decline:
        shares = [declined(0.4, done, 20, how) for done in range(21)]
        assert (shares[0], shares[-1]) == (0.4, 0)
        assert shares == sorted(shares, reverse=True)


def by_hand(
    network: Network,
    live: Floats,
    weights: Floats,
    momentum: Floats,
    share: float,
) -> dict[str, Floats]:
    """Single weights, layer by layer, in plain loops, where there is room everywhere."""
    layout = Layout.of(network)
    names = [layer.name for layer in network.layers if layer.stores_weights]
    parts = {name: slice(slot.start, slot.stop) for name, slot in zip(names, layout.slots,
                                                                      strict=False)}  # fmt: skip
    means = {
        name: sum(abs(m) for m, one in zip(momentum[own], live[own], strict=True) if one)
        / live[own].sum()
        for name, own in parts.items()
    }
    after, removed = {}, 0
    for name, own in parts.items():
        now = live[own].copy()
        places = sorted((abs(w), i) for i, w in enumerate(weights[own]) if now[i])
        for _, place in places[: ceil(share * len(places))]:
            now[place] = 0
            removed += 1
        after[name] = now
    wanted = {name: removed * mean / sum(means.values()) for name, mean in means.items()}
    whole = {name: int(each) for name, each in wanted.items()}
    for name in sorted(names, key=lambda name: whole[name] - wanted[name]):
        whole[name] += sum(whole.values()) < removed
    for name, own in parts.items():
        dead = sorted((-abs(m), i) for i, m in enumerate(momentum[own]) if not after[name][i])
        for _, place in dead[: whole[name]]:
            after[name][place] = 1
    return after


@pytest.mark.parametrize("seed", range(3))
def test_rewiring_by_hand(seed: int) -> None:
    network, rng = network_of(PLAIN), RNG(seed)
    wiring = Wiring.of(network, Mode.IRREGULAR)
    many = Layout.of(network).weights
    live = wiring.start(0.3, rng).astype(np.float64)
    weights, momentum = rng.standard_normal(many) * live, rng.standard_normal(many)
    moved = wiring.rewired(live, weights, momentum, 0.2, int(live.sum()))
    expected = np.concatenate(list(by_hand(network, live, weights, momentum, 0.2).values()))
    np.testing.assert_array_equal(moved.live, expected)
    assert moved.pruned == int(((live == 1) & (expected == 0)).sum()) > 0


def test_channels_go_by_the_norm_of_their_columns() -> None:
    """A chain whose linear layer reads maps: what belongs to a channel is pruned together."""
    network = network_of(
        "{name: n, source: a test, input: [3, 4, 4], layers: ["
        "{name: a, kind: conv, out: 6, kernel: 3, pad: 1, groups: 3},"
        "{name: b, kind: conv, out: 5, kernel: 3, pad: 1}, {name: c, kind: linear, out: 4}]}"
    )
    wiring, rng = Wiring.of(network, Mode.CHANNEL), RNG(0)
    b, c = wiring.parts
    assert [(each.units, each.size) for each in wiring.parts] == [(6, 45), (5, 64)]
    vector = rng.standard_normal(Layout.of(network).weights)
    views = Layout.of(network).views(vector)
    norms = np.linalg.norm(b.of(vector), axis=1)
    expected = np.sqrt((views["b.weight"][0] ** 2).sum(axis=(0, 2, 3)))
    np.testing.assert_allclose(norms, expected)
    columns = views["c.weight"].reshape(4, 5, 16)
    np.testing.assert_allclose(
        np.linalg.norm(c.of(vector), axis=1), np.sqrt((columns**2).sum(axis=(0, 2)))
    )
    live = wiring.start(0.5, rng)
    masks = wiring.masks(live)
    assert {name: mask.shape for name, mask in masks.items()} == {"b": (6,), "c": (80,)}
    assert Layout.of(network).slots[0].view(live).all(), "an image keeps its channels"
    assert (masks["c"].reshape(5, 16).all(axis=1) == masks["c"].reshape(5, 16).any(axis=1)).all()
    found = network.with_masks(masks)
    assert sum(layer.weights for layer in found.layers) == live.sum() == wiring.target(0.5)
    assert found.pattern == "channels"


def test_it_begins_with_what_pruning_by_chance_leaves() -> None:
    network = load_network("digits_cnn")
    job = Job(network, digits(), BOTH, 7)
    wiring = Wiring.of(network, Mode.IRREGULAR)
    masks = wiring.masks(wiring.start(0.1, job.generators()["wiring"]))
    for name, mask in prune(network, "uniform", 0.1, seed=7).masks.items():
        np.testing.assert_array_equal(masks[name], mask)


# -- steps -----------------------------------------------------------------------------------------


def engine_of(network: Network, recipe: Recipe, *, seed: int = 0) -> Engine:
    return Engine(network, recipe, RNG(seed), dtype=np.float64, wiring=RNG(seed + 1))


@pytest.mark.parametrize("method", [Method.SGD, Method.ADAM])
@pytest.mark.parametrize(
    ("text", "mode"),
    [(CONVOLUTIONS, Mode.IRREGULAR), (JOINED, Mode.IRREGULAR), (JOINED, Mode.CHANNEL)],
)
def test_live_weights_stay_as_many(text: str, mode: Mode, method: Method) -> None:
    """N5: after every step and every rewiring."""
    network = network_of(text)
    rewire = Rewire(mode=mode, density=0.3, rho=0.1)
    engine = engine_of(network, Recipe(optimiser=method, lr=0.01, rewire=rewire))
    many, target = Layout.of(network).weights, engine.wiring.target(0.3)
    before = engine.memory[LIVE].copy()
    assert before.sum() == target
    for step in range(8):
        engine.step(cut(images_for(network, 8, seed=step, dtype=np.float64), 4), 0.01)
        if step % 2:
            engine.rewire(0.5)
        live, weights = engine.memory[LIVE], engine.weights[:many]
        assert set(np.unique(live)) == {0, 1}
        assert not weights[live == 0].any()
        open_ = [part.size for part in engine.wiring.parts if not part.of(live).all()]
        assert target - min(open_) < live.sum() <= target
        if mode is Mode.IRREGULAR:
            assert live.sum() == target
        assert all(part.of(live).any() for part in engine.wiring.parts), "no layer is empty"
    assert (engine.memory[LIVE] != before).any()


def test_it_stays_within_a_pattern() -> None:
    network = load_network("digits_cnn", pattern="PS4_P4")
    engine = engine_of(network, Recipe(rewire=Rewire(density=0.2)))
    batch = images_for(network, 8, dtype=np.float64)
    for _ in range(3):
        engine.step([batch], 0.1)
        engine.rewire(0.5)
    live = engine.memory[LIVE] > 0
    assert not (live & ~engine.wiring.allowed).any()
    assert live.sum() == sum(
        round(0.2 * layer.weights) for layer in network.layers if layer.stores_weights
    )


def gradient_of(engine: Engine, batch: Batch) -> Floats:
    """Of the mean cross-entropy, by all that is learnt, as the engine stands."""
    model = Model.of(engine.model.network, dtype=np.float64)
    views, found = model.layout.views(engine.weights), np.zeros_like(engine.weights)
    scores, trace = model.forward(views, batch.x)
    model.backward(views, trace, ops.cross_entropy(scores, batch.y)[1], found)
    return found


def test_dead_weights_keep_a_momentum_and_live_ones_are_pulled_back() -> None:
    """What the momentum takes up: the whole gradient, and rho (w - Z) of the dynamic L2 penalty."""
    network = network_of(PLAIN)
    recipe = Recipe(weight_decay=0.0, momentum=0.5, rewire=Rewire(density=0.4, rho=0.25))
    engine = engine_of(network, recipe)
    many = Layout.of(network).weights
    first, second = (images_for(network, 8, seed=seed, dtype=np.float64) for seed in (1, 2))
    expected = gradient_of(engine, first)
    engine.step([first], 0.1)
    np.testing.assert_allclose(engine.memory["velocity"], expected, rtol=1e-9, atol=1e-15)
    assert expected[:many][engine.memory[LIVE] == 0].any()
    away = engine.weights[:many] - engine.memory[ANCHOR]
    assert (away[engine.memory[LIVE] == 1] != 0).mean() > 0.5
    assert not away[engine.memory[LIVE] == 0].any()
    expected = 0.5 * expected + gradient_of(engine, second)
    expected[:many] += 0.25 * away
    engine.step([second], 0.1)
    np.testing.assert_allclose(engine.memory["velocity"], expected, rtol=1e-9, atol=1e-15)
    engine.rewire(0.5)
    np.testing.assert_array_equal(engine.memory[ANCHOR], engine.weights[:many])


@dataclass(frozen=True)
class Shift:
    """Moves all images by the same."""

    by: float

    def against(self, *_: object) -> Callable[..., Floats]:
        return lambda x, *_: x + self.by


@pytest.mark.parametrize("share", [0.5, 0.2, 0.0])
def test_the_hybrid_loss(share: float) -> None:
    network = network_of(PLAIN)
    recipe = Recipe(weight_decay=0.0, adversarial=Adversarial(radius=0.1, clean_share=share))
    engine = engine_of(network, recipe)
    engine.adversary = Shift(0.3)
    batch = images_for(network, 9, dtype=np.float64)
    moved = Batch(batch.x + 0.3, batch.y)
    expected = share * gradient_of(engine, batch) + (1 - share) * gradient_of(engine, moved)
    model, views = engine.model, engine.model.layout.views(engine.weights)
    losses = [ops.cross_entropy(model.forward(views, x)[0], batch.y)[0] for x in (batch.x, moved.x)]
    got = engine.step(cut(batch, 4), 0.1)
    np.testing.assert_allclose(engine.memory["velocity"], expected, rtol=1e-9, atol=1e-15)
    assert got.loss / 9 == pytest.approx(share * losses[0] + (1 - share) * losses[1], rel=1e-12)


def test_images_are_changed_against_the_network_as_it_stands() -> None:
    data = digits().subset(per_class=5)
    network = load_network("digits_cnn")
    views = Layout.of(network).views(start(network, RNG(0)))
    running = running_start(network)
    adversary = Adversary.of(network, views, running, data, Attack(0.1, steps=3))
    x = np.asarray(images_for(network, 6).x)
    labels = np.arange(6)
    one = adversary.against(views, running)(x, labels, RNG(1))
    again = adversary.against(views, running)(x, labels, RNG(1))
    np.testing.assert_array_equal(one, again)
    later = {name: -each for name, each in views.items()}
    assert (adversary.against(later, running)(x, labels, RNG(1)) != one).any()


# -- runs ------------------------------------------------------------------------------------------


def job(recipe: Recipe = BOTH, *, pattern: str = "dense", backend: str = "numpy") -> Job:
    data = digits().subset(per_class=7)
    return Job(load_network("digits_cnn", pattern=pattern), data, recipe, 0, backend)


def changed(recipe: Recipe, **settings: object) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | settings)


@pytest.mark.parametrize("mode", list(Mode))
def test_interrupted_or_not_and_whatever_the_threads(mode: Mode, tmp_path: Path) -> None:
    recipe = changed(BOTH, rewire={"mode": mode, "density": 0.2, "decline": "cosine"})
    train(job(recipe), tmp_path / "whole", threads=1)
    for epoch in (2, 3):
        with pytest.raises(Stopped):
            train(job(recipe), tmp_path / "parts", tell=stop_at(epoch), threads=2)
        assert (tmp_path / "parts" / CHECKPOINT).exists()
    train(job(recipe), tmp_path / "parts", threads=2)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize("mode", list(Mode))
def test_what_a_run_leaves_is_the_network_that_was_measured(mode: Mode, tmp_path: Path) -> None:
    recipe = changed(BOTH, rewire={"mode": mode, "density": 0.2}, adversarial=None)
    outcome = train(job(recipe), tmp_path)
    network = load_network("digits_cnn", masks=tmp_path / MASKS)
    row = json.loads((tmp_path / "result.json").read_text())
    for word in ("parameters", "macs", "effective_macs", "pattern"):
        assert row[word] == getattr(network, word)
    assert row["network"] == network.name == "digits_cnn+masks"
    layers = {each["layer"]: each for each in row["layers"]}
    for layer in network.layers:
        if layer.stores_weights:
            weight = outcome.weights[f"{layer.name}.weight"]
            assert not weight[~layer.mask.array().reshape(weight.shape)].any()
            assert layers[layer.name]["live"] == layer.weights
            assert layers[layer.name]["density"] == layer.weights / layer.weights_dense
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["pruned_share"] for line in log] == [0, pytest.approx(1 / 3), pytest.approx(1 / 6)]
    assert [line["moved_weights"] > 0 for line in log] == [False, True, True]
    assert log[-1]["live_weights"] == sum(each["live"] for each in row["layers"])
    # and trains on, as a static mask
    static = Job(network, digits().subset(per_class=7), Recipe(epochs=1), 0,
                 begin=Weights.load(tmp_path / "weights.npz"))  # fmt: skip
    assert train(static).row["parameters"] == row["parameters"]


def test_it_can_begin_with_weights_of_another_run() -> None:
    begin = Weights(train(job(Recipe(epochs=1))).weights)
    recipe = changed(BOTH, epochs=1, lr=1e-9, adversarial=None)
    made = job(recipe)
    outcome = train(Job(made.network, made.data, recipe, 0, begin=begin))
    live = sum(each["live"] for each in outcome.layers)
    assert live == Wiring.of(made.network, Mode.IRREGULAR).target(0.2)
    for name, mask in outcome.masks.items():
        given = begin.arrays[f"{name}.weight"]
        np.testing.assert_allclose(
            outcome.weights[f"{name}.weight"], given * mask.reshape(given.shape), atol=1e-6
        )


def test_what_is_not_used_leaves_the_names_of_runs_as_they_were() -> None:
    """Runs that were recorded before there was any rewiring carry the hash of their recipe."""
    folder = Path(__file__).parent.parent / "experiments" / "cifar10_narrow"
    with (folder / "accuracy.csv").open(newline="") as file:
        recorded = {row["recipe_sha256"] for row in csv.DictReader(file)}
    assert "rewire" not in RECIPES["default"].described()
    read, _ = load_model(folder / "recipe.yaml", Recipe)
    assert digest(read.described()) in recorded


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "PS4_P4", "recipe": changed(BOTH, rewire={"mode": Mode.CHANNEL})},
         "digits_cnn.PS4_P4 is sparse in itself"),
    ],
)  # fmt: skip
def test_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        job(**settings)  # type: ignore[arg-type]


def test_channels_of_the_image_alone_are_not_rewired() -> None:
    network = network_of(
        "{name: one, source: a test, input: [3, 4, 4], layers: [{name: a, kind: linear, out: 5}]}"
    )
    assert len(Wiring.of(network, Mode.IRREGULAR).parts) == 1
    with pytest.raises(InputError, match="no layer of one with weights reads channels of another"):
        Wiring.of(network, Mode.CHANNEL)


def test_a_checkpoint_has_what_is_live(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(job(), tmp_path, tell=stop_at(2))
    found = Checkpoint.load(tmp_path / CHECKPOINT, job().identity)
    assert {LIVE, ANCHOR, "velocity"} == set(found.state.memory)
    assert set(found.generators) == {"order", "changes", "attacks"}


# -- smaller networks and controls -----------------------------------------------------------------

CHAIN = (
    "{{name: chain, source: a test, input: [2, 6, 6], layers: ["
    "{{name: a, kind: conv, out: {a}, kernel: 3, pad: 1, batch_norm: true, bias: false}},"
    "{{name: b, kind: conv, out: {b}, kernel: 3, pad: 1}}, {{name: p, kind: pool, kernel: 2}},"
    "{{name: c, kind: linear, out: 5}}]}}"
)


def test_a_chain_without_its_dead_channels_gives_the_same_scores() -> None:
    """N8: masks of input channels, and the filters that make these channels."""
    network, rng = network_of(CHAIN.format(a=8, b=6)), RNG(0)
    wiring = Wiring.of(network, Mode.CHANNEL)
    vector = start(network, rng, dtype=np.float64)
    live = wiring.start(0.5, rng)
    vector[: len(live)] *= live
    views, running = Layout.of(network).views(vector), running_start(network, np.float64)
    for name in ("a.beta", "b.bias", "c.bias"):
        views[name][...] = rng.standard_normal(views[name].shape)
    running["a.mean"][...] = rng.standard_normal(8)
    masks = wiring.masks(live)
    read, fed = np.flatnonzero(masks["b"]), np.flatnonzero(masks["c"].reshape(6, 9).any(axis=1))
    small = network_of(CHAIN.format(a=len(read), b=len(fed)))
    features = (9 * fed[:, None] + np.arange(9)).ravel()
    less = {
        "a.weight": views["a.weight"][:, read],
        "a.gamma": views["a.gamma"][read],
        "a.beta": views["a.beta"][read],
        "b.weight": views["b.weight"][:, fed][:, :, read],
        "b.bias": views["b.bias"][fed],
        "c.weight": views["c.weight"][:, :, features],
        "c.bias": views["c.bias"],
    }
    less = {name: np.ascontiguousarray(each) for name, each in less.items()}
    statistics = {name: each[read] for name, each in running.items()}
    x = images_for(network, 4, dtype=np.float64).x
    whole = Model.of(network, dtype=np.float64).infer(views, running, x)
    shrunk = Model.of(small, dtype=np.float64).infer(less, statistics, x)
    np.testing.assert_allclose(shrunk, whole, rtol=1e-12, atol=1e-12)
    assert small.macs < network.with_masks(masks).effective_macs < network.macs


def counts(masks: Sequence[npt.NDArray[np.bool_]]) -> list[int]:
    return [int(mask.sum()) for mask in masks]


def test_masks_by_chance_have_the_densities_of_others() -> None:
    """N7"""
    network = load_network("digits_cnn")
    given = prune(network, "synflow", 0.05).masks
    one, two = (alike(network, given, seed=seed) for seed in (0, 1))
    assert counts(one.masks.values()) == counts(two.masks.values()) == counts(given.values())
    assert (one.masks["conv4"] != two.masks["conv4"]).any()
    assert (one.masks["conv4"] != given["conv4"]).any()
    channels = alike(network, {"conv2": RNG(0).random(16) < 0.4}, seed=0).masks["conv2"]
    by_channel = channels.any(axis=(0, 1, 3, 4))
    assert (channels == by_channel[None, None, :, None, None]).all()
    assert by_channel.sum() == (RNG(0).random(16) < 0.4).sum()
    patterned = load_network("digits_cnn", pattern="PS4_P4")
    within = alike(patterned, {"conv2": given["conv2"]}, seed=0).masks["conv2"]
    assert not (within & ~patterned.layer("conv2").mask.array()).any()
    with pytest.raises(InputErrors, match="no layer named 'conv9'"):
        alike(network, {"conv9": given["conv2"]})


def test_prune_like(tmp_path: Path) -> None:
    file = tmp_path / "mask.npz"
    words = ("prune", "--net", "digits_cnn")
    assert call(*words, "--density", "0.1", "-o", str(file)).status == 0
    one, two = (call(*words, "--like", str(file), "--format", "csv") for _ in range(2))
    assert one.status == 0, one.err
    assert one.out == two.out
    first = call(*words, "--density", "0.1", "--format", "csv").out

    def live(text: str) -> list[str]:
        return [row["live"] for row in csv.DictReader(text.splitlines())]

    assert live(one.out) == live(first)
    refused = call(*words, "--like", str(file), "--method", "snip")
    assert (refused.status, "leave out --method" in refused.err) == (2, True)
    before = file.read_bytes()
    refused = call(*words, "--like", str(file), "-o", str(file))
    assert (refused.status, "is read by the same command" in refused.err) == (2, True)
    assert file.read_bytes() == before
