"""Weights of one run to begin another one with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import call
from trainable import network_of

from energysim.catalog import load_network
from energysim.errors import InputError, InputErrors
from energysim.train.data import digits
from energysim.train.job import Job
from energysim.train.parameters import Layout, live_weights
from energysim.train.recipe import Recipe
from energysim.train.run import train
from energysim.train.weights import Weights

STILL = Recipe(epochs=1, batch=128, lr=1e-30, weight_decay=0.0)


def of_digits(pattern: str = "dense", *, seed: int = 0, begin: Weights | None = None) -> Job:
    network = load_network("digits_cnn", pattern=pattern)
    return Job(network, digits().subset(per_class=10), STILL, seed, begin=begin)


def test_a_run_goes_on_from_the_weights_of_another(tmp_path: Path) -> None:
    first = train(of_digits(), tmp_path / "one")
    begin = Weights.load(tmp_path / "one" / "weights.npz")
    again = train(of_digits(seed=1, begin=begin))
    for name, each in first.weights.items():
        if not name.endswith((".mean", ".variance")):  # those follow the images
            np.testing.assert_allclose(again.weights[name], each, rtol=0, atol=1e-20)
    assert of_digits(begin=begin).name != of_digits().name
    assert of_digits(begin=begin).name == of_digits(begin=Weights(first.weights)).name


def test_what_masks_leave_out_becomes_zero() -> None:
    dense = train(of_digits()).weights
    network = load_network("digits_cnn", pattern="PS1_P9")
    vector, _ = Weights(dense).fitted(network)
    live = live_weights(network)
    assert not vector[~live].any()
    whole, running = Weights(dense).fitted(load_network("digits_cnn"))
    np.testing.assert_array_equal(vector[live], whole[live])
    np.testing.assert_array_equal(running["conv1.mean"], dense["conv1.mean"])


def test_there_and_back() -> None:
    """Also of a transposed, a grouped and a linear layer."""
    text = (
        "{name: n, source: a test, input: [4, 6, 6], layers: ["
        "{name: a, kind: conv, out: 6, kernel: 3, groups: 2, batch_norm: true},"
        "{name: b, kind: transposed, out: 3, kernel: 2, stride: 2},"
        "{name: c, kind: linear, out: 4}]}"
    )
    network = network_of(text)
    layout = Layout.of(network)
    vector = np.random.default_rng(0).standard_normal(layout.total)
    running = {"a.mean": np.arange(6.0), "a.variance": np.ones(6)}
    found = Weights.of(network, layout.views(vector), running)
    assert found.arrays["a.weight"].shape == (6, 2, 3, 3)
    back, followed = found.fitted(network, np.float64)
    np.testing.assert_array_equal(back, vector)
    assert followed.keys() == running.keys()


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    weights = dict(train(of_digits()).weights)
    network = load_network("digits_cnn")

    def problem(**changes: np.ndarray | None) -> str:
        given = weights | {name.replace("__", "."): each for name, each in changes.items()}
        arrays = {name: each for name, each in given.items() if each is not None}
        with pytest.raises(InputErrors) as caught:
            Weights(arrays, "w.npz").fitted(network)
        return str(caught.value)

    assert "'conv2.weight' of digits_cnn is missing" in problem(conv2__weight=None)
    assert "Did you mean 'conv2.weight'" in problem(conv2__wieght=np.ones(3))
    assert "has shape [3], and digits_cnn wants [16, 16, 3, 3]" in problem(conv2__weight=np.ones(3))
    assert "no finite number" in problem(fc__bias=np.full(10, np.nan))
    assert "more" in problem(**dict.fromkeys(name.replace(".", "__") for name in weights))
    with pytest.raises(InputErrors):
        of_digits(begin=Weights({}))
    damaged = tmp_path / "w.npz"
    damaged.write_bytes(b"PK\x03\x04 nothing")
    for path, word in ((damaged, "damaged"), (tmp_path / "none.npz", "No such file")):
        with pytest.raises(InputError, match=word):
            Weights.load(path)
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(InputError, match=r"no \.npz"):
        Weights.load(tmp_path / "one.npy")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ("train", "--net", "digits_cnn", "--per-class", "12", "--epochs", "1", "-q")
    assert call(*small).status == 0
    (weights,) = (tmp_path / "runs").glob("*/weights.npz")
    done = call(*small, "--begin", str(weights), "--format", "csv")
    assert done.status == 0, done.err
    assert len(list((tmp_path / "runs").glob("*/weights.npz"))) == 2
    other = call(*small, "--begin", str(weights), "--width", "0.5")
    assert other.status == 2
    assert "has shape" in other.err
    assert call(*small, "--begin", "none.npz").status == 2
