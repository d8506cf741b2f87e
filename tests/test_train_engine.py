"""Steps of the engine: shards, threads, running statistics, states, hits."""

from __future__ import annotations

import numpy as np
import pytest
from trainable import (
    ATTENTION,
    CONVOLUTIONS,
    EVERY_KIND,
    JOINED,
    PATTERNED,
    PLAIN,
    cut,
    images_for,
    network_of,
    own_masks,
)

from energysim.catalog import load_network
from energysim.errors import InputError
from energysim.network import Network
from energysim.train import ops
from energysim.train.engine import Engine, Score, check_zeros, cores, one_blas_thread, score
from energysim.train.model import Watch
from energysim.train.ops import MOMENTUM, Statistics
from energysim.train.optimiser import Method
from energysim.train.parameters import live_weights, running_start
from energysim.train.recipe import Recipe, Schedule

PLAIN_STEP = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
"""A step then is the gradient itself, times the learning rate."""


def engine_of(
    network: Network, *, seed: int = 0, dtype: type = np.float64, **fields: object
) -> Engine:
    threads = fields.pop("threads", None)
    recipe = Recipe(batch=16, shards=2).model_copy(update=fields)
    return Engine(network, recipe, np.random.default_rng(seed), threads=threads, dtype=dtype)


# -- shards ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [PLAIN, ATTENTION], ids=lambda text: text.split()[1])
@pytest.mark.parametrize("ends", [(3,), (1, 2, 6)])
def test_shards_add_up_to_the_batch_without_norms(text: str, ends: tuple[int, ...]) -> None:
    network = network_of(text)
    batch = images_for(network, 7, dtype=np.float64)
    whole, parted = (engine_of(network, **PLAIN_STEP, smoothing=0.1) for _ in range(2))
    one, many = whole.step([batch], 1.0), parted.step(cut(batch, *ends), 1.0)
    begun = engine_of(network).weights
    np.testing.assert_allclose(parted.weights - begun, whole.weights - begun, rtol=0, atol=1e-12)
    assert not np.array_equal(whole.weights, begun)
    assert (one.images, one.first, one.among) == (many.images, many.first, many.among)
    assert one.loss == pytest.approx(many.loss, rel=1e-12)


def test_each_shard_is_normalised_by_itself() -> None:
    """The same images twice are the same twice, however they are cut, and different ones differ."""
    network = network_of(PATTERNED)
    batch = images_for(network, 6, dtype=np.float64)
    twice = [batch, batch]
    whole, parted, other = (engine_of(network, **PLAIN_STEP) for _ in range(3))
    whole.step([batch], 1.0)
    parted.step(twice, 1.0)
    np.testing.assert_allclose(parted.weights, whole.weights, rtol=0, atol=1e-12)
    other.step(cut(batch, 2), 1.0)
    assert abs(other.weights - whole.weights).max() > 1e-4


def test_gradients_of_shards_are_weighted_by_their_images() -> None:
    network = network_of(JOINED)
    batch = images_for(network, 7, dtype=np.float64)
    shards = cut(batch, 2)
    begun = engine_of(network).weights
    steps = []
    for shard in shards:
        alone = engine_of(network, **PLAIN_STEP)
        alone.step([shard], 1.0)
        steps.append(alone.weights - begun)
    together = engine_of(network, **PLAIN_STEP)
    together.step(shards, 1.0)
    wanted = begun + (2 * steps[0] + 5 * steps[1]) / 7
    np.testing.assert_allclose(together.weights, wanted, rtol=0, atol=1e-12)


def test_running_statistics_follow_shards_in_order() -> None:
    network = network_of(JOINED)
    batch = images_for(network, 9, dtype=np.float64)
    shards = cut(batch, 2, 5)
    engine = engine_of(network)
    model = engine.model
    views = model.layout.views(engine.weights.copy())
    traces = [model.forward(views, shard.x)[1] for shard in shards]
    engine.step(shards, 0.1)
    for name in ("stem", "grown"):
        found = [engine.running[f"{name}.{word}"] for word in ("mean", "variance")]
        for order, same in ((traces, True), (traces[::-1], False)):
            mean, variance = np.zeros(len(found[0])), np.ones(len(found[0]))
            for trace in order:
                seen, many = trace.statistics[name], trace.before[name][0].size
                unbiased = seen.variance * many / (many - 1)
                mean = (1 - MOMENTUM) * mean + MOMENTUM * seen.mean
                variance = (1 - MOMENTUM) * variance + MOMENTUM * unbiased
            for one, other in zip(found, (mean, variance), strict=True):
                assert np.allclose(one, other, rtol=1e-12, atol=1e-14) == same


def test_a_shard_of_one_image() -> None:
    """With one element a channel there is no variance; nothing becomes infinite of it."""
    text = PATTERNED.replace("first, kind: conv, out: 8, kernel: 3, pad: 1", FLAT)
    network = network_of(text)
    engine = engine_of(network)
    shards = cut(images_for(network, 3, dtype=np.float64), 2)
    engine.step(shards, 0.1)
    for array in (engine.weights, *engine.running.values()):
        assert np.isfinite(array).all()
    before = Statistics(np.full(1, 2.0), np.full(1, 4.0))
    after = before.moved(Statistics(np.ones(1), np.zeros(1)), 1)
    assert (after.mean.item(), after.variance.item()) == pytest.approx((1.9, 3.6))


FLAT = "first, kind: conv, out: 8, kernel: 6"
"""Makes one pixel of an image of 6 x 6."""


# -- threads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [PATTERNED, JOINED], ids=lambda text: text.split()[1])
def test_threads_change_no_bit(text: str) -> None:
    network = network_of(text)
    if text is PATTERNED:
        network = network.with_pattern("PS4_P4")
    found = []
    with one_blas_thread():
        for threads in (1, 2, 3):
            engine = engine_of(network, dtype=np.float32, threads=threads, shards=4)
            scores = []
            for seed in range(4):
                shards = cut(images_for(network, 16, seed=seed), 4, 8, 12)
                scores.append(engine.step(shards, 0.05))
            scores.append(engine.evaluate(cut(images_for(network, 23, seed=9), 5, 10, 15, 20)))
            found.append((engine.state(), scores))
    (first, scores), *others = found
    for state, again in others:
        assert again == scores
        np.testing.assert_array_equal(state.weights, first.weights)
        np.testing.assert_array_equal(state.memory["velocity"], first.memory["velocity"])
        for name, each in first.running.items():
            np.testing.assert_array_equal(state.running[name], each)


def test_usual_number_of_threads() -> None:
    network = network_of(PLAIN)
    assert engine_of(network, shards=1).threads == 1
    assert engine_of(network, shards=999, batch=999).threads == cores()
    assert engine_of(network, threads=3).threads == 3


def test_an_error_in_a_thread_comes_out() -> None:
    network = network_of(PLAIN)
    engine = engine_of(network, threads=2)
    wrong = images_for(network_of(JOINED), 4, dtype=np.float64)
    with pytest.raises(InputError, match=r"plain reads images of \[2, 5, 5\].*got \[4, 6, 6\]"):
        engine.step(cut(wrong, 2), 0.1)


# -- zeros, states ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("masks", ["PS4_P4", "PSD4_P8", "PS1_P9", "pSC2", "own"])
def test_fixed_zeros_stay(masks: str, method: Method) -> None:
    network = network_of(PATTERNED)
    network = own_masks(network) if masks == "own" else network.with_pattern(masks)
    engine = engine_of(
        network, dtype=np.float32, optimiser=method, weight_decay=0.01, decay_all=True
    )
    begun = engine.weights.copy()
    for seed in range(5):
        engine.step(cut(images_for(network, 8, seed=seed), 4), 0.05)
    live = live_weights(network)
    assert not engine.weights[~live].any()
    assert not any(engine.memory[name][~live].any() for name in engine.memory if name != "steps")
    weights = slice(0, engine.model.layout.weights)
    moved = (engine.weights != begun)[weights]
    assert moved[live[weights]].all()
    check_zeros(network, engine.weights)
    engine.weights[np.flatnonzero(~live)[0]] = 1e-30
    with pytest.raises(RuntimeError, match=r"patterned.*: a weight that the mask leaves out"):
        check_zeros(network, engine.weights)


@pytest.mark.parametrize("method", Method)
def test_a_state_goes_on_as_if_nothing_had_been(method: Method) -> None:
    network = network_of(JOINED)
    batches = [images_for(network, 8, seed=seed) for seed in range(6)]
    engine = engine_of(network, dtype=np.float32, optimiser=method)
    for batch in batches[:3]:
        engine.step(cut(batch, 4), 0.02)
    state = engine.state()
    kept = state.weights.copy()
    for batch in batches[3:]:
        engine.step(cut(batch, 4), 0.02)
    np.testing.assert_array_equal(state.weights, kept)
    again = engine_of(network, seed=5, dtype=np.float32, optimiser=method)
    again.load(state)
    for batch in batches[3:]:
        again.step(cut(batch, 4), 0.02)
    np.testing.assert_array_equal(state.weights, kept)
    one, other = engine.state(), again.state()
    np.testing.assert_array_equal(one.weights, other.weights)
    for first, second in ((one.memory, other.memory), (one.running, other.running)):
        assert first.keys() == second.keys()
        for name, each in first.items():
            np.testing.assert_array_equal(each, second[name])


def test_the_seed_decides_where_weights_begin() -> None:
    network = network_of(CONVOLUTIONS)
    one, same, other = (engine_of(network, seed=seed).weights for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_any_number_of_shards() -> None:
    """More or fewer than the recipe says: the last batch has few images."""
    network = network_of(PLAIN)
    batch = images_for(network, 6, dtype=np.float64)
    begun = engine_of(network).weights
    steps = []
    for ends in ((), (2, 3, 4, 5)):
        engine = engine_of(network, **PLAIN_STEP)
        assert engine.step(cut(batch, *ends), 1.0).images == 6
        steps.append(engine.weights - begun)
    np.testing.assert_allclose(steps[0], steps[1], rtol=0, atol=1e-12)


# -- scores ----------------------------------------------------------------------------------------


def test_hits() -> None:
    scores = np.array([[0, 9], [1, 8], [2, 7], [3, 6], [4, 5], [5, 4], [6, 3]], dtype=np.float32)
    assert score(scores, np.array([6, 0]), 0.5) == Score(2, 1.0, 2, 2)
    assert score(scores, np.array([2, 4]), 0.5) == Score(2, 1.0, 0, 2)
    assert score(scores, np.array([1, 5]), 0.5) == Score(2, 1.0, 0, 0)


def test_of_equal_scores_the_first_class_is_on_top() -> None:
    equal = np.zeros((7, 1), np.float32)
    for label in range(7):
        wanted = Score(1, 1.0, int(label == 0), int(label < 5))
        assert score(equal, np.array([label]), 1.0) == wanted


@pytest.mark.parametrize("wrong", [0, 1])
def test_what_is_no_number_is_no_hit(wrong: int) -> None:
    scores = np.array([[0.0], [1.0], [-1.0]])
    assert score(scores, np.array([1]), 1.0).first == 1
    scores[wrong] = np.nan
    assert score(scores, np.array([1]), 1.0).first == 0
    assert score(np.full((10, 4), np.nan), np.arange(4), 1.0).among == 0


def test_evaluation_is_of_running_statistics_and_changes_nothing() -> None:
    network = network_of(PATTERNED)
    engine = engine_of(network)
    batch = images_for(network, 12, dtype=np.float64)
    engine.step(cut(batch, 6), 0.1)
    before = engine.state()
    found = engine.evaluate(cut(batch, 5, 10))
    views = engine.model.layout.views(engine.weights)
    scores = engine.model.infer(views, engine.running, batch.x)
    loss, _ = ops.cross_entropy(scores, batch.y)
    assert found.loss == pytest.approx(loss * 12, rel=1e-12)
    hits = int((scores.argmax(axis=0) == batch.y).sum())
    assert (found.images, found.first, found.among) == (12, hits, 12)
    np.testing.assert_array_equal(engine.weights, before.weights)
    for name, each in before.running.items():
        np.testing.assert_array_equal(engine.running[name], each)


def test_evaluation_can_be_watched() -> None:
    network = network_of(PATTERNED)
    engine = engine_of(network, threads=2)
    batches = cut(images_for(network, 7, dtype=np.float64), 3)
    watch = Watch()
    assert engine.evaluate(batches, watch=watch) == engine.evaluate(batches)
    assert watch.read["first"] == (7 * 3 * 6 * 6, 7 * 3 * 6 * 6)


def test_the_loss_is_that_of_before_the_step() -> None:
    network = network_of(CONVOLUTIONS)
    engine = engine_of(network)
    batch = images_for(network, 8, dtype=np.float64)
    views = engine.model.layout.views(engine.weights.copy())
    scores, _ = engine.model.forward(views, batch.x)
    loss, _ = ops.cross_entropy(scores, batch.y)
    assert engine.step([batch], 0.1).loss == pytest.approx(8 * loss, rel=1e-12)


def test_what_overflows_is_told_by_the_loss_alone() -> None:
    network = network_of(PLAIN)
    engine = engine_of(network, dtype=np.float32)
    batch = images_for(network, 8)
    losses = [engine.step([batch], 1e30).loss for _ in range(4)]
    assert not np.isfinite(losses[-1])
    assert engine.step([batch], 1e30).first == 0


# -- learning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["dense", "PS4_P4"])
def test_digits_cnn_learns_a_batch(pattern: str) -> None:
    network = load_network("digits_cnn").with_pattern(pattern)
    engine = engine_of(network, dtype=np.float32, schedule=Schedule.CONSTANT)
    batch = images_for(network, 32)
    losses = [engine.step(cut(batch, 16), 0.05).loss / 32 for _ in range(80)]
    assert losses[0] > 2
    assert losses[-1] < 0.1
    assert engine.evaluate([batch]).first == 32


def test_norms_begin_with_running_statistics_of_their_own() -> None:
    for text in EVERY_KIND:
        network = network_of(text)
        running = running_start(network)
        normed = [
            layer for layer in network.layers if layer.batch_norm or layer.kind == "batch_norm"
        ]
        assert len(running) == 2 * len(normed)
        for layer in normed:
            assert running[f"{layer.name}.mean"].tolist() == [0] * layer.output[0]
            assert running[f"{layer.name}.variance"].tolist() == [1] * layer.output[0]
