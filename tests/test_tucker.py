"""Networks of low rank: kernels, layers, counts."""

from __future__ import annotations

import json
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from trainable import network_of

import energysim as es
from energysim.axes import Dim
from energysim.cli.describe import network_yaml
from energysim.errors import InputError, InputErrors
from energysim.lowrank import (
    Chain,
    factorable,
    map_words,
    singular_values,
    tucker2,
    with_ranks,
)
from energysim.network import Layer, Network
from energysim.train.model import Model
from energysim.train.parameters import Layout

Floats = npt.NDArray[np.float64]


def kernel(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape)


def error(one: Floats, other: Floats) -> float:
    return float(((one - other) ** 2).sum())


# -- kernels ---------------------------------------------------------------------------------------


def test_full_ranks_are_the_kernel_itself() -> None:
    for shape in ((6, 4, 3, 3), (4, 20, 2, 2), (30, 3, 3, 1)):
        whole = kernel(*shape)
        found = tucker2(whole, (shape[1], shape[0]))
        np.testing.assert_allclose(found.kernel, whole, atol=1e-12)


@pytest.mark.parametrize("ranks", [(2, 3), (5, 5), (8, 1), (1, 8)])
@pytest.mark.parametrize("seed", range(4))
def test_error_lies_between_its_bounds(ranks: tuple[int, int], seed: int) -> None:
    """H2: of HOSVD, between the larger and the sum of what each mode leaves out."""
    whole = kernel(9, 8, 3, 2, seed=seed)
    of_input, of_output = singular_values(whole)
    left = float((of_input[ranks[0] :] ** 2).sum()), float((of_output[ranks[1] :] ** 2).sum())
    off = error(tucker2(whole, ranks, sweeps=0).kernel, whole)
    assert max(left) - 1e-9 <= off <= sum(left) + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_rounds_never_make_it_worse(seed: int) -> None:
    """H3"""
    whole = kernel(10, 12, 3, 3, seed=seed)
    offs = [error(tucker2(whole, (4, 3), sweeps=sweeps).kernel, whole) for sweeps in range(6)]
    assert all(later <= before + 1e-9 for before, later in pairwise(offs))
    assert offs[-1] < offs[0]
    found = tucker2(whole, (4, 3))
    for rows in (found.reduce, found.expand.T):
        np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-12)


def test_squared_lengths_are_those_of_the_singular_values() -> None:
    whole = kernel(40, 3, 2, 2)
    for values, size in zip(singular_values(whole), (3, 40), strict=True):
        assert len(values) == size
        assert (values**2).sum() == pytest.approx((whole**2).sum())


@pytest.mark.parametrize(
    ("ranks", "message"), [((0, 2), "R1 of the kernel is from 1 to 4"), ((2, 7), "R2 .* to 6")]
)
def test_ranks_that_a_kernel_can_not_have(ranks: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tucker2(kernel(6, 4, 3, 3), ranks)


# -- layers ----------------------------------------------------------------------------------------


def one_layer(**fields: object) -> Network:
    layers = [
        {"name": "conv", "kind": "conv", "out": 7, "bias": True} | fields,
        {"name": "scores", "kind": "linear", "out": 3, "bias": False},
    ]
    spec = {"name": "net", "source": "a test", "input": [5, 9, 8], "layers": layers}
    return network_of(json.dumps(spec))


CONVOLUTIONS: tuple[dict[str, object], ...] = (
    {"kernel": 3, "pad": 1},
    {"kernel": 3, "stride": 2, "pad": 1},
    {"kernel": [3, 2], "stride": [2, 1], "pad": [1, 0, 0, 1]},
    {"kernel": 3, "dilation": 2, "pad": 2, "activation": "swish"},
    {"kernel": 3, "channels": [4, 0, 2]},
)


@pytest.mark.parametrize("fields", CONVOLUTIONS, ids=str)
def test_three_layers_compute_what_the_kernel_they_make_does(fields: dict[str, object]) -> None:
    """H1, to 1e-12"""
    dense = one_layer(**fields)
    layer = dense.layer("conv")
    channels = layer.shape[Dim.C]
    low = with_ranks(dense, {"conv": (min(3, channels), 4)})
    rng = np.random.default_rng(0)
    x = rng.standard_normal((*dense.input_size, 4))
    factors = tucker2(kernel(7, channels, *layer.shape.dims[6:]), (min(3, channels), 4))
    shared = {"conv.bias": rng.standard_normal(7)}
    shared["scores.weight"] = rng.standard_normal((1, 3, dense.layer("scores").shape[Dim.C], 1, 1))
    whole = scores(dense, x, shared | {"conv.weight": factors.kernel[None]})
    parts = {
        "conv.reduce.weight": factors.reduce[None, :, :, None, None],
        "conv.core.weight": factors.core[None],
        "conv.weight": factors.expand[None, :, :, None, None],
    }
    np.testing.assert_allclose(scores(low, x, shared | parts), whole, atol=1e-12)


def scores(network: Network, x: Floats, given: dict[str, Floats]) -> Floats:
    model = Model.of(network, dtype=np.float64, kind="dense")
    views = Layout.of(network).views(np.zeros(Layout.of(network).total))
    for name, values in given.items():
        views[name][...] = values
    assert views.keys() == given.keys()
    return np.asarray(model.forward(views, x)[0])


def walked(layer: Layer) -> tuple[int, int]:
    """Weights and MACs of a layer, one by one."""
    shape = layer.shape
    weights = set()
    macs = 0
    for k, c, p, q, r, s in product(*(range(shape[dim]) for dim in (Dim.K, Dim.C, *list(Dim)[4:]))):
        del p, q
        weights.add((k, c, r, s))
        macs += 1
    return len(weights), macs


@pytest.mark.parametrize("fields", CONVOLUTIONS[:4], ids=str)
def test_counts_of_three_layers(fields: dict[str, object]) -> None:
    """H4: closed forms of the note on this method against a walk over every product."""
    layer = one_layer(**fields).layer("conv")
    first, second = 2, 3
    chain = Chain(layer, (first, second))
    walks = [walked(each) for each in chain.layers]
    assert chain.weights == sum(weights for weights, _ in walks)
    assert chain.macs == sum(macs for _, macs in walks)
    k, c, p, q, r, s = (layer.shape[dim] for dim in (Dim.K, Dim.C, *list(Dim)[4:]))
    high, wide = layer.shape.size  # the first of the three sees the whole input
    assert chain.weights == c * first + r * s * first * second + second * k
    assert chain.macs == (
        c * first * high * wide + r * s * first * second * p * q + second * k * p * q
    )
    assert chain.map_words == (c + 2 * first) * high * wide + (2 * second + k) * p * q
    assert chain.map_words_fused == c * high * wide + k * p * q


def test_a_network_of_low_rank_is_simulated_trained_and_written(tmp_path: Path) -> None:
    dense = es.load_network("digits_cnn")
    low = with_ranks(dense, {"conv3": 6, "conv4": (4, 8)})
    assert low.name == "digits_cnn_tucker2"
    assert [layer.name for layer in low.layers if "conv" in layer.name] == [
        *("conv1", "conv2", "conv3.reduce", "conv3.core", "conv3"),
        *("conv4.reduce", "conv4.core", "conv4"),
    ]
    result = es.simulate(low, es.load_hardware("edge_tpu"))
    assert result.total_macs == low.macs < dense.macs
    model = Model.of(low)
    assert model.layout.weights == sum(each.weights for each in low.layers if each.stores_weights)
    path = tmp_path / "low.yaml"
    path.write_text(network_yaml(low))
    assert es.load_network(str(path)).layers == low.layers


# -- what is published -----------------------------------------------------------------------------

PUBLISHED = (
    # cut of FLOPs that HALOC's abstract states; ranks of one fraction of the channels that give
    # it; what then follows for weights and maps of all convolutions but the first one and the
    # shortcuts, and the classifier (derived)
    ("resnet20", {16: 7, 32: 13, 64: 27}, 0.722, -0.734, 0.787),
    ("vgg16", {64: 18, 128: 36, 256: 72, 512: 143}, 0.8644, -0.865, 0.442),
    ("resnet18_imagenet", {64: 28, 128: 56, 256: 112, 512: 224}, 0.6616, -0.685, 0.581),
)


@pytest.mark.parametrize(("name", "ranks", "cut", "weights", "maps"), PUBLISHED)
def test_fewer_products_and_more_maps(
    name: str, ranks: dict[int, int], cut: float, weights: float, maps: float
) -> None:
    """With the published cut of FLOPs, maps that leave the chip take more words than before."""
    dense = es.load_network(name)
    some = [layer for layer in dense.layers if factorable(layer)][1:]
    low = with_ranks(
        dense, {each.name: ranks[min(each.shape[Dim.C], each.shape[Dim.K])] for each in some}
    )

    def totals(network: Network) -> list[int]:
        own = [
            layer
            for layer in network.layers
            if layer.stores_weights and not (name == "resnet20" and "downsample" in layer.name)
        ]
        return [
            sum(each.macs for each in own),
            sum(each.weights for each in own),
            sum(map_words(each) for each in own),
        ]

    changes = [after / before - 1 for before, after in zip(totals(dense), totals(low), strict=True)]
    assert changes == pytest.approx([-cut, weights, maps], abs=0.011)


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({"conv9": 3}, "no layer named 'conv9'"),
        ({"fc": 3}, "fc can't have ranks"),
        ({"conv4": 33}, "R1 of conv4 is from 1 to 32"),
        ({"conv4": (3, 0)}, "R2 of conv4"),
    ],
)
def test_refused(ranks: dict[str, int], message: str) -> None:
    with pytest.raises(InputErrors, match=message):
        with_ranks(es.load_network("digits_cnn"), ranks)
    with pytest.raises(InputErrors, match="without groups and zeros"):
        with_ranks(es.load_network("vgg16_ps"), {"conv2_1": 3})
