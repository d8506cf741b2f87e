"""Adversarial images: norms folded away, gradients of images, what an attack may and can do."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from trainable import CONVOLUTIONS, JOINED, PATTERNED, PLAIN, images_for, network_of

from energysim.catalog import load_network
from energysim.errors import InputError
from energysim.train import ops
from energysim.train.attacks import Attack, Target, changed, robust
from energysim.train.data import Dataset, batches, digits, in_order
from energysim.train.engine import Engine, Score
from energysim.train.fold import folded
from energysim.train.model import Model
from energysim.train.parameters import Arrays, Layout, running_start, start
from energysim.train.recipe import Recipe

RADIUS = 0.1
EPOCHS = 6


def trained_numbers(text: str, *, seed: int = 0) -> tuple[Model, Arrays, Arrays]:
    """A network whose norms have gone through something."""
    network = network_of(text)
    rng = np.random.default_rng(seed)
    views = Layout.of(network).views(start(network, rng, dtype=np.float64))
    running = running_start(network, np.float64)
    for name, values in (*views.items(), *running.items()):
        if not name.endswith("weight"):
            values[...] += rng.uniform(0, 0.5, values.shape)
    return Model.of(network, dtype=np.float64), views, running


@pytest.mark.parametrize("text", [CONVOLUTIONS, JOINED, PATTERNED, PLAIN])
def test_a_network_without_norms_gives_the_same_scores(text: str) -> None:
    model, weights, running = trained_numbers(text)
    x = images_for(model.network, 4, dtype=np.float64).x
    plain, found = folded(model.network, weights, running)
    assert not any(layer.batch_norm for layer in plain.layers)
    assert found.keys() == {slot.name for slot in Layout.of(plain).slots}
    scores, _ = Model.of(plain, dtype=np.float64).forward(found, x)
    np.testing.assert_allclose(scores, model.infer(weights, running, x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("text", [CONVOLUTIONS, JOINED, PATTERNED, PLAIN])
def test_gradient_of_images_against_differences(text: str) -> None:
    """N1"""
    model, weights, running = trained_numbers(text)
    network = model.network
    batch = images_for(network, 3, dtype=np.float64)
    plain, found = folded(network, weights, running)
    smooth = Model.of(plain, dtype=np.float64)

    def loss(x: npt.NDArray[np.float64]) -> float:
        scores, _ = smooth.forward(found, x)
        return float(ops.cross_entropy(scores, batch.y)[0])

    channels = network.input_size[0]
    target = Target(smooth, found, *(np.full((channels, 1, 1, 1), side) for side in (-3.0, 3.0)))
    scores, _ = smooth.forward(found, batch.x)
    powers = np.exp(scores - scores.max(axis=0))
    right = powers[batch.y, np.arange(len(batch.y))] / powers.sum(axis=0)
    # the factor that is left out, and the mean over images
    gradient = target.gradient(batch.x, batch.y) * (1 - right) / len(batch.y)
    rng = np.random.default_rng(1)
    for _ in range(6):
        along = rng.standard_normal(batch.x.shape)
        step = 1e-6
        slope = (loss(batch.x + step * along) - loss(batch.x - step * along)) / (2 * step)
        assert slope == pytest.approx(float((gradient * along).sum()), rel=1e-5, abs=1e-8)


def few(per_class: int) -> Dataset:
    return digits().subset(per_class=per_class)


@cache
def learnt() -> tuple[Target, Dataset]:
    """A network that knows the digits, and them."""
    data, network = few(120), load_network("digits_cnn", pattern="PS4_P4")
    engine = Engine(network, Recipe(epochs=EPOCHS, batch=64, lr=0.1), np.random.default_rng(0))
    order = np.random.default_rng(1)
    for epoch in range(EPOCHS):
        for shards in batches(data, order, 64):
            engine.step(shards, 0.1 * (1 - epoch / EPOCHS))
    views = engine.model.layout.views(engine.weights)
    return Target.of(network, views, engine.running, data), data


def share(found: Score) -> float:
    return found.first / found.images


def test_changed_images_stay_in_the_ball_and_in_the_box() -> None:
    """N2"""
    target, data = learnt()
    batch = next(in_order(data, data.test, 40))
    for attack in (Attack.fgsm(RADIUS), Attack(RADIUS, steps=5, restarts=2), Attack(0.9, steps=2)):
        x = changed(target, batch, attack, np.random.default_rng(0))
        moved = np.abs(x - batch.x) / target.unit
        assert moved.max() <= attack.radius * (1 + 1e-6)
        assert (x >= target.low - 1e-6).all()
        assert (x <= target.high + 1e-6).all()
        assert moved.max() > 0
    still = changed(target, batch, Attack(0.0), np.random.default_rng(0))
    assert (still == batch.x).all()


def test_stronger_attacks_fool_more() -> None:
    """N3, N4: a wrong image stays wrong; far enough away everything does."""
    target, data = learnt()

    def accuracy(attack: Attack | None) -> float:
        return share(robust(target, in_order(data, data.test, 120), attack or Attack(0.0)))

    clean = accuracy(None)
    assert clean > 0.9
    fgsm, weak = accuracy(Attack.fgsm(RADIUS)), accuracy(Attack(RADIUS, steps=3))
    strong = accuracy(Attack(RADIUS, steps=15, restarts=2))
    assert strong <= weak + 0.02
    assert strong <= fgsm <= clean
    assert strong < clean - 0.1
    radii = [accuracy(Attack(radius, steps=7)) for radius in (0.02, 0.1, 0.3)]
    assert radii == sorted(radii, reverse=True)
    assert accuracy(Attack(0.6, steps=15)) <= 0.05


def test_more_starts_never_help_the_network() -> None:
    target, data = learnt()
    batch = next(in_order(data, data.test, 100))
    one, two = (
        changed(target, batch, Attack(RADIUS, restarts=many), np.random.default_rng(0))
        for many in (1, 3)
    )
    assert (target.margins(two, batch.y) >= target.margins(one, batch.y) - 1e-6).all()


def test_a_sure_network_is_no_more_robust() -> None:
    """N4: scores thirty times as far apart are the same network, with as much to follow."""
    target, data = learnt()
    sure = {name: each * 30 if name.startswith("fc.") else each
            for name, each in target.weights.items()}  # fmt: skip
    assert target.margins(next(in_order(data, data.test, 9)).x, data.test.labels[:9]).min() < -3

    def accuracy(weights: Arrays, attack: Attack) -> float:
        some = in_order(data, data.test, 120)
        return share(robust(replace(target, weights=weights), some, attack))

    for attack in (Attack.fgsm(RADIUS), Attack(RADIUS, steps=7)):
        assert abs(accuracy(sure, attack) - accuracy(target.weights, attack)) < 0.06


def test_names_tell_attacks_apart() -> None:
    usual = Attack(0.1, steps=5)
    assert Attack(0.1, steps=5, length=usual.step).name == usual.name == "PGD-5, radius 0.1"
    assert (
        Attack(0.1, steps=5, length=0.01, restarts=2).name
        == "PGD-5, radius 0.1, steps of 0.01, 2 restarts"
    )
    assert Attack(0.0, steps=5).name == "PGD-5, radius 0"


def test_the_same_seed_the_same_images() -> None:
    target, data = learnt()
    some = [robust(target, in_order(data, data.test, 90), Attack(RADIUS), seed=3) for _ in range(2)]
    assert some[0] == some[1]
    other = robust(target, in_order(data, data.test, 90), Attack(RADIUS), seed=4)
    assert other.loss != some[0].loss


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": -0.1}, "0 to 1, got -0.1"),
        ({"radius": 8.0}, "0 to 1, got 8"),
        ({"radius": 0.1, "steps": 0}, "at least one step"),
        ({"radius": 0.1, "restarts": 0}, "one start"),
        ({"radius": 0.1, "length": 0.0}, "length above 0"),
        ({"radius": 0.1, "length": float("inf")}, "at most 1, as a share of .*, got inf"),
    ],
)
def test_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Attack(**settings)  # type: ignore[arg-type]
