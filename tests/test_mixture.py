"""Mixture norms: one component is batch norm, gradients are those of differences, fits get better.

M1 to M5 are the checks of the method that need no model of cost.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import call

from energysim.catalog import load_network
from energysim.errors import InputError
from energysim.network import Activation, LayerKind, Mixture, MixtureLayer, Network, Of
from energysim.pareto.join import network_named
from energysim.train import mixture, ops
from energysim.train.data import Dataset, digits
from energysim.train.fold import folded
from energysim.train.job import Job
from energysim.train.mixture import (
    LEAST,
    Fit,
    Seen,
    fitted,
    mixture_norm,
    mixture_norm_backward,
    mixture_norm_inference,
    moments,
    posteriors,
    seeded,
    sweep,
)
from energysim.train.model import Model
from energysim.train.ops import EPSILON, MOMENTUM
from energysim.train.parameters import Layout, start
from energysim.train.recipe import Adversarial, Recipe
from energysim.train.run import train
from energysim.train.scratch import Floats

BOTH = pytest.mark.parametrize("of", list(Of))


def drawn(seed: int = 0, *, channels: int = 5, elements: int = 240, apart: float = 6.0) -> Floats:
    """Points of three clusters, of other shares and places in each channel; float64, (C, M)."""
    rng = np.random.default_rng(seed)
    which = rng.choice(3, size=elements, p=[0.5, 0.3, 0.2])
    places = rng.standard_normal((3, channels)) + apart * np.arange(3)[:, None]
    points: Floats = (places[which] + rng.standard_normal((elements, channels)) * 0.7).T.copy()
    return points


def vectors(channels: int, seed: int = 1) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 2, channels), rng.standard_normal(channels)


def forward(x: Floats, how: Mixture, *, relu: bool = False) -> tuple[Floats, Seen]:
    gamma, beta = vectors(len(x))
    return mixture_norm(x, gamma, beta, how, np.random.default_rng(7), relu=relu)


# -- M1, M2: one component is batch norm ---------------------------------------------------------


def test_fisher_score_of_one_gaussian_is_batch_norm() -> None:
    # The score by the mean is d log p / d mu, here by differences; its Fisher information 1 / s^2.
    x = drawn()[0]
    mean, variance = x.mean(), x.var() + EPSILON

    def log_p(mu: float) -> Floats:
        return np.asarray(-((x - mu) ** 2) / (2 * variance) - np.log(2 * np.pi * variance) / 2)

    step = 1e-4
    score = (log_p(mean + step) - log_p(mean - step)) / (2 * step)
    normalised, _ = forward(x[None], Mixture(1))
    gamma, beta = vectors(1)
    given = (normalised[0] - beta[0]) / gamma[0]
    assert np.abs(score / np.sqrt(1 / variance) - given).max() < 1e-9


@BOTH
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_component_is_batch_norm_to_the_bit(of: Of, relu: bool, dtype: type) -> None:
    rng = np.random.default_rng(3)
    x: Floats = (rng.standard_normal((6, 5, 4, 7)) * 3 + 2).astype(dtype)
    dy: Floats = rng.standard_normal(x.shape).astype(dtype)
    gamma: Floats
    beta: Floats
    gamma, beta = (each.astype(dtype) for each in vectors(6))
    how = Mixture(1, of, sweeps=2)
    y, seen = mixture_norm(x, gamma, beta, how, rng, relu=relu)
    wanted, statistics = ops.batch_norm(x, gamma, beta, relu=relu)
    assert y.dtype == dtype
    assert np.array_equal(y, wanted)
    back = mixture_norm_backward(dy, x, y, gamma, how, seen, relu=relu)
    plain = ops.batch_norm_backward(dy, x, wanted, gamma, statistics, relu=relu)
    for own, other in zip(back, plain, strict=True):
        assert np.array_equal(own, other)
    running = Fit.start(how, 6, dtype).moved(seen.fit, x[0].size)
    kept = ops.Statistics.start(6, dtype).moved(statistics, x[0].size)
    assert np.array_equal(running.mean[0], kept.mean)
    assert np.array_equal(running.variance[0], kept.variance)
    inferred = mixture_norm_inference(x, gamma, beta, how, running, relu=relu)
    scaled = ops.batch_norm_inference(x, gamma, beta, kept, relu=relu)
    assert np.allclose(inferred, scaled, rtol=1e-4, atol=1e-5)


def test_a_run_with_one_component_is_that_of_batch_norm_to_the_bit() -> None:
    recipe, data = Recipe(epochs=1, lr=0.05), digits().subset(per_class=30)
    plain = train(Job(load_network("digits_cnn"), data, recipe, 0))
    mixed = train(Job(load_network("digits_cnn", norm="mixture:1"), data, recipe, 0))
    for name, own in plain.weights.items():
        layer, _, word = name.partition(".")
        other = name if word in ("weight", "bias") else f"{layer}.norm.{word}"
        assert np.array_equal(own, mixed.weights[other].reshape(own.shape)), name
    first, second = (dict(each.records[0]) for each in (plain, mixed))
    assert first["train_loss"] == second["train_loss"]
    assert first["test_loss"] == pytest.approx(second["test_loss"], rel=1e-5)


# -- M3: expectation and maximisation --------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("components", [1, 2, 3, 5])
def test_no_sweep_makes_the_points_less_likely(of: Of, components: int) -> None:
    x, rng = drawn(components), np.random.default_rng(0)
    fit = Fit(
        np.full((components, 5 if of is Of.CHANNEL else 1), 1 / components),
        x[:, rng.integers(x.shape[1], size=components)].T.copy(),
        np.tile(x.var(axis=1), (components, 1)),
    )
    found = []
    for _ in range(12):
        found.append(posteriors(x, fit)[1].sum(axis=1))
        _, fit = sweep(x, fit)
    # What is added to variances is no part of the maximisation: it can cost that much.
    assert (np.diff(found, axis=0) > -x.shape[1] * EPSILON).all()
    assert components == 1 or (found[-1] > found[0] + 1).all()


@BOTH
def test_the_seed_decides_the_fit(of: Of) -> None:
    x, how = drawn(apart=0.3), Mixture(5, of)
    first, again, other = (seeded(x, how, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.mean, again.mean)
    assert np.array_equal(first.proportion, again.proportion)
    assert not np.array_equal(first.mean, other.mean)


@BOTH
def test_clusters_far_apart_are_found(of: Of) -> None:
    x = drawn(apart=30.0, elements=600)
    fit = seeded(x, Mixture(3, of), np.random.default_rng(5))
    shares = np.sort(np.unique((x[0] + 15) // 30, return_counts=True)[1] / 600)
    assert np.allclose(np.sort(fit.proportion, axis=0), shares[:, None], atol=1e-9)
    keys = fit.mean if of is Of.CHANNEL else fit.mean.sum(axis=1, keepdims=True)
    assert (np.diff(keys, axis=0) > 0).all()


@BOTH
def test_posteriors_survive_any_distance(of: Of) -> None:
    x = np.array([[0.0, 1e4, -1e4, 3.0]] * 2, np.float32)
    fit = Fit(
        np.full((2, 2 if of is Of.CHANNEL else 1), 0.5, np.float32),
        np.array([[0, 0], [5, 5]], np.float32),
        np.full((2, 2), 1e-6, np.float32),
    )
    with np.errstate(all="raise", under="ignore"):
        found, likelihoods = posteriors(x, fit)
    assert np.allclose(found.sum(axis=0), 1)
    assert np.isfinite(likelihoods).all()
    assert (found[:, 0].argmax(axis=0) == [0, 1, 0, 1]).all()


def test_posteriors_are_those_of_bayes() -> None:
    x = drawn(elements=20, apart=1.0)
    fit = seeded(x, Mixture(3, Of.VECTOR), np.random.default_rng(0))
    variance = fit.variance + EPSILON
    densities = np.array(
        [
            share[0]
            * np.exp(-((x.T - mean) ** 2) / (2 * spread)).prod(axis=1)
            / np.sqrt(2 * np.pi * spread).prod()
            for share, mean, spread in zip(fit.proportion, fit.mean, variance, strict=True)
        ]
    )
    found, likelihoods = posteriors(x, fit)
    assert np.allclose(found[:, 0], densities / densities.sum(axis=0), rtol=1e-9)
    assert np.allclose(likelihoods[0], np.log(densities.sum(axis=0)), rtol=1e-9)


@BOTH
def test_a_dead_component_begins_anew(of: Of) -> None:
    x = drawn(apart=0.0)
    begin = replace(
        seeded(x, Mixture(3, of), np.random.default_rng(0)), variance=np.full((3, 5), 0.5)
    )
    begin.mean[2] = 1e3  # nobody is near
    assert (posteriors(x, begin)[0][2].sum(axis=-1) < LEAST).all()
    _, fit = sweep(x, begin)
    assert (fit.proportion[2] > 0.02).all()
    assert np.abs(fit.mean[2]).max() < 10


@BOTH
def test_fewer_values_than_components(of: Of) -> None:
    x = np.tile(np.array([[0.0, 0.0, 1.0, 1.0]]), (2, 1))
    for seed in range(5):
        weights, fit = fitted(x, how := Mixture(4, of), seeded(x, how, np.random.default_rng(seed)))
        assert np.isfinite(weights).all()
        assert np.allclose(fit.proportion.sum(axis=0), 1)
        y, _ = mixture_norm(x, np.ones(2), np.zeros(2), how, np.random.default_rng(seed))
        assert np.abs(y.sum(axis=1)).max() < 1e-9
    one = np.full((3, 1), 2.0)
    y, _ = mixture_norm(one, np.ones(3), np.zeros(3), Mixture(3, of), np.random.default_rng(0))
    assert np.array_equal(y, np.zeros_like(one))


# -- M4: mean and variance of what comes out -------------------------------------------------------


@BOTH
@pytest.mark.parametrize("components", [2, 3])
def test_variance_is_the_number_of_components_with_the_root(of: Of, components: int) -> None:
    x = drawn(2, apart=200.0, elements=900)
    x = x[:, x[0] < 200 * components - 100]  # as many clusters as components
    gamma, beta = np.ones(5), np.zeros(5)
    for root, wanted in ((True, components), (False, 1)):
        how = Mixture(components, of, root=root)
        y, seen = mixture_norm(x, gamma, beta, how, np.random.default_rng(1))
        assert np.abs(y.mean(axis=1)).max() < 1e-9
        assert np.allclose(y.var(axis=1), wanted, rtol=1e-3)
        assert seen.fit.alive.all()


@BOTH
def test_mean_is_zero_and_variance_at_most_one_without_the_root(of: Of) -> None:
    for seed in range(4):
        x = drawn(seed, apart=1.5)
        how = Mixture(3, of, root=False)
        y, _ = mixture_norm(x, np.ones(5), np.zeros(5), how, np.random.default_rng(seed))
        assert np.abs(y.mean(axis=1)).max() < 1e-9
        assert (y.var(axis=1) < 1 + 1e-9).all()
        assert (y.var(axis=1) > 0.05).all()


# -- M5: gradients ---------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("relu", [False, True])
def test_gradients_are_those_of_differences(of: Of, root: bool, relu: bool) -> None:
    x = drawn(elements=40, apart=1.0, channels=3)
    how = Mixture(3, of, root=root)
    gamma, beta = vectors(3)
    y, seen = mixture_norm(x, gamma, beta, how, np.random.default_rng(0), relu=relu)
    dy = np.random.default_rng(9).standard_normal(x.shape)

    def loss(x: Floats, gamma: Floats, beta: Floats) -> float:
        """With the posteriors as they were: moments under them, written out."""
        total = np.zeros_like(x)
        for own in np.broadcast_to(seen.posteriors, (3, *x.shape)):
            share = own.mean(axis=1, keepdims=True)
            mean = (own * x).sum(axis=1, keepdims=True) / own.sum(axis=1, keepdims=True)
            spread = (own * (x - mean) ** 2).sum(axis=1, keepdims=True)
            variance = spread / own.sum(axis=1, keepdims=True)
            gain = 1 / np.sqrt(share) if root else 1
            total += own * gain * (x - mean) / np.sqrt(variance + EPSILON)
        found = gamma[:, None] * total + beta[:, None]
        return float((np.maximum(found, 0) * dy if relu else found * dy).sum())

    given = (x, gamma, beta)
    for place, own in enumerate(mixture_norm_backward(dy, x, y, gamma, how, seen, relu=relu)):
        wanted = differences(loss, given, place)
        assert np.abs(own - wanted).max() < 1e-6 * max(1, np.abs(wanted).max())


def differences(
    loss: Callable[..., float], given: tuple[Floats, ...], place: int, step: float = 1e-5
) -> Floats:
    found = np.empty_like(given[place])
    for index in np.ndindex(found.shape):
        ends = []
        for sign in (1, -1):
            moved = [each.copy() for each in given]
            moved[place][index] += sign * step
            ends.append(loss(*moved))
        found[index] = (ends[0] - ends[1]) / (2 * step)
    return found


def test_what_is_left_of_the_moments_is_what_was_there() -> None:
    x = drawn(channels=2, elements=10)
    before = Fit(np.array([[0.5], [0.5]]), np.array([[1.0, 2], [3, 4]]), np.ones((2, 2)))
    weights = np.stack([np.ones((1, 10)), np.zeros((1, 10))])
    fit = moments(x, weights, before)
    assert np.allclose(fit.mean, [x.mean(axis=1), [3, 4]])
    assert fit.alive[:, 0].tolist() == [True, False]
    running = before.moved(fit, 10)
    assert np.array_equal(running.mean[1], before.mean[1])
    assert running.proportion[1, 0] == pytest.approx(0.5 * (1 - MOMENTUM))


# -- networks --------------------------------------------------------------------------------------


def test_a_mixture_norm_is_a_layer_of_its_own() -> None:
    network = load_network("digits_cnn", norm="mixture:3:vector", pattern="PS4_P4")
    assert network.name == "digits_cnn+mixture:3:vector+PS4_P4"
    assert network.base == "digits_cnn+mixture:3:vector"
    norm = network.layer("conv2.norm")
    assert isinstance(norm, MixtureLayer)
    assert (norm.kind, norm.inputs, norm.output) == (LayerKind.MIXTURE_NORM, ("conv2",), (16, 8, 8))
    assert norm.activation is Activation.RELU
    assert network.layer("conv2").activation is Activation.NONE
    assert network.layer("pool1").inputs == ("conv2.norm",)
    plain = load_network("digits_cnn", pattern="PS4_P4")
    assert network.parameters == plain.parameters
    assert network.effective_macs == plain.effective_macs


def test_branches_and_shuffles_read_the_norms() -> None:
    for name in ("resnet18", "densenet121", "shufflenet_v2"):
        network = load_network(name, norm="mixture:2")
        norms = {layer.name for layer in network.layers if isinstance(layer, MixtureLayer)}
        seen = set[str]()
        for layer in network.layers:
            raw = {each for each in layer.inputs if f"{each}.norm" in norms}
            assert not raw or layer.name in norms, layer.name
            assert set(layer.inputs) <= seen | {"input"}
            seen.add(layer.name)
        assert not any(layer.batch_norm for layer in network.layers)
        assert network.parameters == load_network(name).parameters


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mixtur:3", "Did you mean 'mixture'"),
        ("mixture", "Allowed: mixture:3"),
        ("mixture:three", "no number of components"),
        ("mixture:0", "1 to 64 components, got 0"),
        ("mixture:3:sweeps=0", "1 to 100 sweeps"),
        ("mixture:3:vektor", "nothing is named 'vektor'"),
    ],
)
def test_what_is_no_norm_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_network("digits_cnn", norm=text)


def test_a_network_without_batch_norm_has_none_to_replace() -> None:
    with pytest.raises(InputError, match="has no batch norm"):
        load_network("alexnet", norm="mixture:3")


def test_what_cannot_be_computed_is_refused() -> None:
    network, data = load_network("digits_cnn", norm="mixture:3"), few()
    with pytest.raises(InputError, match="only --backend numpy"):
        Job(network, data, Recipe(), 0, backend="torch")
    with pytest.raises(InputError, match="adversarial training needs batch norms"):
        Job(network, data, Recipe(adversarial=Adversarial(radius=0.1)), 0)
    outcome = train(Job(network, data, Recipe(epochs=1, lr=0.05), 0))
    with pytest.raises(InputError, match="can't be folded"):
        folded(network, dict(outcome.weights), dict(outcome.weights))


# -- training --------------------------------------------------------------------------------------


def few() -> Dataset:
    return digits().subset(per_class=10)


def mixed(norm: str = "mixture:3", *, epochs: int = 3) -> Job:
    recipe = Recipe(epochs=epochs, lr=0.05, batch=96, shards=3)
    return Job(load_network("digits_cnn", norm=norm), few(), recipe, 0)


@pytest.mark.parametrize("norm", ["mixture:3", "mixture:2:vector:sweeps=2"])
def test_runs_repeat_whatever_the_threads_and_wherever_they_stopped(
    norm: str, tmp_path: Path
) -> None:
    whole = train(mixed(norm), threads=1)
    folder = tmp_path / "run"

    class Stopped(Exception):
        """Thrown after an epoch."""

    def stop(tick: object) -> None:
        if (getattr(tick, "epoch", 0), getattr(tick, "step", 0)) == (2, 1):
            raise Stopped

    with pytest.raises(Stopped):
        train(mixed(norm), folder, threads=2, tell=stop)
    again = train(mixed(norm), folder, threads=3)
    assert whole.weights.keys() == again.weights.keys()
    for name, own in whole.weights.items():
        assert np.array_equal(own, again.weights[name]), name


def test_gradients_of_a_network_are_those_of_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """With posteriors held as they were in the first pass, layer by layer."""
    kept: list[Floats] = []
    calls = iter(range(10**6))

    def held(x: Floats, how: Mixture, begin: Fit) -> tuple[Floats, Fit]:
        layer = next(calls) % 4
        if layer == len(kept):
            kept.append(fitted(x, how, begin)[0])
        return kept[layer], moments(x, kept[layer], begin)

    monkeypatch.setattr(mixture, "fitted", held)
    network: Network = load_network("digits_cnn", norm="mixture:3")
    model, rng = Model.of(network, dtype=np.float64), np.random.default_rng(0)
    vector = start(network, rng, dtype=np.float64)
    x, labels = rng.standard_normal((1, 8, 8, 24)), rng.integers(10, size=24)

    def loss(vector: Floats) -> tuple[float, Floats]:
        views = Layout.of(network).views(vector)
        scores, trace = model.forward(views, x)
        value, dscores = ops.cross_entropy(scores, labels)
        gradient = np.empty_like(vector)
        model.backward(views, trace, dscores, gradient)
        return value, gradient

    before, gradient = loss(vector)
    assert before > 1
    for _ in range(3):
        way = rng.standard_normal(len(vector)) / np.sqrt(len(vector))
        ends = [loss(vector + sign * 1e-6 * way)[0] for sign in (1, -1)]
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(gradient @ way, rel=1e-3, abs=1e-6)


def test_the_first_scale_of_norms() -> None:
    for name, norm in (("conv1", None), ("conv1.norm", "mixture:3")):
        network = load_network("digits_cnn", norm=norm)
        for gamma, wanted in ((None, 1.0), (1.75, 1.75)):
            vector = start(network, np.random.default_rng(0), gamma=gamma)
            views = Layout.of(network).views(vector)
            assert (views[f"{name}.gamma"] == wanted).all()
    plain, scaled = Recipe(), Recipe(gamma=1.75)
    assert "gamma" not in plain.described()  # runs from before there was one stay what they are
    assert scaled.described()["gamma"] == 1.75


# -- the command -----------------------------------------------------------------------------------


def test_a_control_runs_beside_mixture_norms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("train", "--net", "digits_cnn", "--per-class", "8", "--epochs", "1", "--norm")
    done = call(*words, "mixture:3", "--format", "json")
    assert done.status == 0, done.err
    assert "control beside the mixture norms: digits_cnn with batch norms that scale by 1.732" in (
        done.err
    )
    mixed, control = json.loads(done.out)
    assert (mixed["network"], control["network"]) == ("digits_cnn+mixture:3", "digits_cnn")
    own = call("train", "--net", "digits_cnn", "--per-class", "8", "--epochs", "1", "--gamma",
               str(3**0.5), "--format", "json", "-q")  # fmt: skip
    (row,) = json.loads(own.out)
    assert row == control, "the control is what the same gamma gives by itself"
    table = call(*words, "mixture:3").out
    assert "1.732" in table
    assert "gamma: what norms scale by at first" in table
    assert call(*words, "mixture:3:root=no", "-q").status == 0
    assert "gamma" not in call(*words, "mixture:3:root=no", "-q").out


@pytest.mark.parametrize(
    ("option", "words"), [("--begin", "--begin is for"), ("--attack", "--attack is for")]
)
def test_what_does_not_go_with_mixture_norms_is_refused(option: str, words: str) -> None:
    value = {"--begin": "weights.npz", "--attack": "fgsm:0.1"}[option]
    done = call("train", "--net", "digits_cnn", "--norm", "mixture:3", option, value)
    assert done.status == 2
    assert words in done.err


def test_the_control_of_a_file_with_mixture_norms(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "name: own\nsource: a test\ninput: [1, 8, 8]\nlayers:\n"
        "  - {name: conv, kind: conv, out: 8, kernel: 3, bias: false}\n"
        "  - {name: norm, kind: mixture_norm, components: 2, of: vector, sweeps: 3, root: false}\n"
        "  - {name: pool, kind: pool, kernel: global, mode: average}\n"
        "  - {name: fc, kind: linear, out: 10}\n"
    )
    network = load_network(str(path))
    norm = network.layer("norm")
    assert isinstance(norm, MixtureLayer)
    assert norm.mixture == Mixture(2, Of.VECTOR, sweeps=3, root=False)
    again = tmp_path / "again.yaml"
    again.write_text(call("show", str(path)).out)
    assert load_network(str(again)).layers == network.layers
    plain = network.with_batch_norm()
    assert (plain.name, plain.layer("norm").kind) == ("own+batch", LayerKind.BATCH_NORM)
    assert plain.parameters == network.parameters
    assert Recipe(gamma=0.5).control(2.0).gamma == 1.0
    assert Recipe().control(Mixture(4).gain).gamma == 2.0
    assert Recipe(gamma=0.5).control(norm.mixture.gain).gamma == 0.5


def test_a_run_of_a_mixture_norm_is_joined_with_its_own_network() -> None:
    network = network_named("digits_cnn-x0.5+mixture:3:vector")
    assert network.name == "digits_cnn-x0.5+mixture:3:vector"
    assert network.layer("conv1.norm").output[0] == 8
