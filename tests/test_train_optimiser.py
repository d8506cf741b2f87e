"""Steps of the optimisers beside plain loops, and learning rates at the corners of schedules."""

from __future__ import annotations

from math import cos, pi, sqrt

import numpy as np
import pytest
from pydantic import ValidationError

from energysim.train import optimiser
from energysim.train.optimiser import Method, Optimiser
from energysim.train.recipe import RECIPES, Recipe, Schedule, plateaus
from energysim.train.scratch import Floats

STEPS = 20
NUMBERS, DECAYED = 23, 13
"""Learnt numbers, and how many of them, from the first, are weights."""

RULES = [
    Optimiser(Method.SGD, momentum=0.0, nesterov=False, weight_decay=0.0),
    Optimiser(Method.SGD, momentum=0.9, nesterov=False, weight_decay=1e-2),
    Optimiser(Method.SGD, momentum=0.9, nesterov=True, weight_decay=0.0),
    Optimiser(Method.SGD, momentum=0.8, nesterov=True, weight_decay=1e-2, decay_all=True),
    Optimiser(Method.ADAM, weight_decay=0.0),
    Optimiser(Method.ADAM, weight_decay=1e-2),
    Optimiser(Method.ADAM, weight_decay=1e-2, decay_all=True),
]


def gradients(dtype: type = np.float64) -> list[Floats]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(NUMBERS).astype(dtype) for _ in range(STEPS)]


def rates() -> list[float]:
    return [0.1 * (1 + step % 3) for step in range(STEPS)]


def trained(rule: Optimiser, dtype: type = np.float64) -> Floats:
    weights = np.random.default_rng(0).standard_normal(NUMBERS).astype(dtype)
    memory = rule.start(weights)
    for gradient, lr in zip(gradients(dtype), rates(), strict=True):
        rule.step(weights, gradient, memory, lr, decayed=DECAYED)
    return weights


def one_by_one(rule: Optimiser) -> list[float]:
    """The same steps for each number by itself, as the papers write them."""
    found = np.random.default_rng(0).standard_normal(NUMBERS).tolist()
    for index, weight in enumerate(found):
        decay = rule.weight_decay if rule.decay_all or index < DECAYED else 0.0
        velocity, first, second, w = 0.0, 0.0, 0.0, weight
        for step, (gradient, lr) in enumerate(zip(gradients(), rates(), strict=True), start=1):
            g = float(gradient[index]) + decay * w
            if rule.method is Method.SGD:
                velocity = rule.momentum * velocity + g
                w -= lr * (g + rule.momentum * velocity if rule.nesterov else velocity)
            else:
                first = 0.9 * first + 0.1 * g
                second = 0.999 * second + 0.001 * g * g
                unbiased = first / (1 - 0.9**step), second / (1 - 0.999**step)
                w -= lr * unbiased[0] / (sqrt(unbiased[1]) + 1e-8)
        found[index] = w
    return found


@pytest.mark.parametrize("block", [5, optimiser.BLOCK])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_steps(rule: Optimiser, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimiser, "BLOCK", block)
    np.testing.assert_allclose(trained(rule), one_by_one(rule), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_steps_in_single_precision(rule: Optimiser) -> None:
    found = trained(rule, np.float32)
    assert found.dtype == np.float32
    assert {each.dtype for name, each in rule.start(found).items() if name != "steps"} == {
        found.dtype
    }
    np.testing.assert_allclose(found, one_by_one(rule), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_what_has_no_gradient_and_is_zero_stays_zero(rule: Optimiser) -> None:
    weights = np.zeros(NUMBERS, np.float32)
    memory = rule.start(weights)
    for _ in range(3):
        rule.step(weights, np.zeros_like(weights), memory, 0.1, decayed=DECAYED)
    assert not weights.any()


def test_weights_decay_and_the_rest_only_if_asked() -> None:
    for decay_all in (False, True):
        rule = Optimiser(momentum=0.0, nesterov=False, weight_decay=0.5, decay_all=decay_all)
        weights = np.ones(4)
        rule.step(weights, np.zeros(4), rule.start(weights), 0.1, decayed=2)
        assert weights.tolist() == pytest.approx([0.95, 0.95, *[0.95 if decay_all else 1.0] * 2])


def test_adam_counts_its_steps() -> None:
    rule = Optimiser(Method.ADAM)
    weights = np.ones(3)
    memory = rule.start(weights)
    for _ in range(3):
        rule.step(weights, np.ones(3), memory, 0.1, decayed=3)
    assert memory["steps"].tolist() == [3]


# -- learning rates --------------------------------------------------------------------------------


def curve(recipe: Recipe, steps: int, losses: tuple[float, ...] = ()) -> list[list[float]]:
    """Learning rate of each step of each epoch."""
    return [
        [recipe.learning_rate(epoch, step, steps, losses[:epoch]) for step in range(steps)]
        for epoch in range(recipe.epochs)
    ]


def test_constant() -> None:
    assert curve(Recipe(epochs=3, lr=0.3, schedule=Schedule.CONSTANT), 2) == [[0.3, 0.3]] * 3


def test_multistep_falls_when_the_milestones_are_over() -> None:
    recipe = Recipe(epochs=5, lr=1.0, schedule=Schedule.MULTISTEP, milestones=(2, 4), factor=0.5)
    assert curve(recipe, 2) == [[1.0, 1.0], [1.0, 1.0], [0.5, 0.5], [0.5, 0.5], [0.25, 0.25]]


def test_the_paper() -> None:
    recipe = RECIPES["paper"]
    firsts = [row[0] for row in curve(recipe, 3)]
    falls = [epoch for epoch in range(1, 150) if firsts[epoch] < firsts[epoch - 1]]
    assert falls == [40, 80, 100, 115, 130, 140]
    assert firsts[0] == 0.1
    assert firsts[-1] == pytest.approx(0.1 * 0.2**6)
    assert (recipe.momentum, recipe.weight_decay, recipe.batch) == (0.9, 5e-4, 128)


def test_cosine() -> None:
    recipe = Recipe(epochs=4, lr=0.2, schedule=Schedule.COSINE)
    flat = np.ravel(curve(recipe, 5))
    np.testing.assert_allclose(flat, [0.1 * (1 + cos(pi * step / 20)) for step in range(20)])
    assert flat[0] == 0.2
    assert flat[10] == pytest.approx(0.1)
    assert flat[-1] > 0


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 2), (1, 7), (3, 5), (4, 13), (20, 10)])
def test_triangle_rises_to_the_rate_and_falls_to_nothing(epochs: int, steps: int) -> None:
    flat = np.ravel(curve(Recipe(epochs=epochs, lr=0.4), steps))
    peak = int(flat.argmax())
    assert flat[peak] == pytest.approx(0.4)
    assert peak == max(0, round(epochs * steps / 5) - 1)
    assert (flat > 0).all()
    falls = len(flat) - peak
    # Straight lines, with 0 a step before the first and a step behind the last.
    np.testing.assert_allclose(flat[: peak + 1], 0.4 * np.arange(1, peak + 2) / (peak + 1))
    np.testing.assert_allclose(flat[peak:], 0.4 * np.arange(falls, 0, -1) / falls)


def test_plateau_falls_after_epochs_without_a_better_loss() -> None:
    recipe = Recipe(epochs=8, lr=1.0, schedule=Schedule.PLATEAU, patience=2, factor=0.1)
    losses = (1.0, 0.5, 0.6, 0.6, 0.6, 0.4, 0.4, 0.4)
    firsts = [row[0] for row in curve(recipe, 2, losses)]
    np.testing.assert_allclose(firsts, [1, 1, 1, 1, 1, 0.1, 0.1, 0.1])


def test_plateaus() -> None:
    assert plateaus((), 2) == 0
    assert plateaus((1.0, 1.0, 1.0), 2) == 0
    assert plateaus((1.0, 1.0, 1.0, 1.0), 2) == 1
    assert plateaus((1.0,) * 7, 2) == 2
    assert plateaus((1.0, 0.99995, 0.9999, 0.99985), 2) == 0, "the last is better by the threshold"
    assert plateaus((1.0, 0.99999, 0.99998, 0.99997), 2) == 1
    assert plateaus((float("nan"),) * 4, 2) == 1


@pytest.mark.parametrize("schedule", [Schedule.CONSTANT, Schedule.COSINE, Schedule.TRIANGLE])
def test_warm_up_times_what_the_schedule_says(schedule: Schedule) -> None:
    plain = Recipe(epochs=5, lr=0.5, schedule=schedule)
    warm = plain.model_copy(update={"warmup": 2})
    ratio = np.ravel(curve(warm, 4)) / np.ravel(curve(plain, 4))
    np.testing.assert_allclose(ratio, [each / 8 for each in range(1, 9)] + [1] * 12)


# -- recipes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stop_after": 3}, "needs images held out"),
        ({"schedule": "multistep", "milestones": (4, 2)}, "milestones must rise"),
        ({"schedule": "multistep", "milestones": (2, 2)}, "milestones must rise"),
        ({"schedule": "multistep"}, "multistep needs milestones"),
        ({"milestones": (2,)}, "milestones belong to schedule: multistep, got triangle"),
        ({"batch": 2, "shards": 3}, "a batch of 2 can't be cut into 3 shards"),
        ({"lr": 0.0}, "greater than 0"),
        ({"lr": float("inf")}, "finite"),
        ({"momentum": 1.0}, "less than 1"),
        ({"optimiser": "adamw"}, "'sgd' or 'adam'"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"learning_rate": 0.1}, "Extra inputs"),
    ],
)
def test_recipes_that_can_not_be(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(fields)


def test_the_rule_of_a_recipe() -> None:
    recipe = Recipe(
        optimiser=Method.ADAM, momentum=0.5, nesterov=False, weight_decay=0.1, decay_all=True
    )
    wanted = Optimiser(Method.ADAM, momentum=0.5, nesterov=False, weight_decay=0.1, decay_all=True)
    assert recipe.rule == wanted
