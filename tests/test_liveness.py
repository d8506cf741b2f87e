"""Live channels of masked networks, and the smaller networks that are left of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainable import ATTENTION, CONVOLUTIONS, JOINED, network_of

import energysim as es
from energysim.cli.describe import network_yaml
from energysim.network import Activation, Network, Scale
from energysim.network.activate import CAN_BE_ACTIVATED
from energysim.network.liveness import (
    Flags,
    liveness,
    outputs_of,
    seen_taps,
    some_along,
)
from energysim.network.shrink import DisconnectedError, Shrunk, shrunk
from energysim.train.model import Model
from energysim.train.parameters import Arrays, Layout, running_start, start
from energysim.train.shrunk import cut, silent_with

RNG = np.random.default_rng
Masks = dict[str, Flags]
Record = dict[str, Any]


def built(*layers: Record, size: tuple[int, int, int] = (3, 4, 4), own: str = "none") -> Network:
    """A network of these layers, without biases and norms where they say nothing."""
    plain = [{"bias": False} | layer if layer["kind"] in KINDS else layer for layer in layers]
    spec = {"name": "net", "source": "a test", "input": list(size), "activation": own}
    return network_of(json.dumps(spec | {"layers": plain}))


KINDS = ("conv", "depthwise", "linear", "transposed")


def kernels(network: Network, density: float, rng: np.random.Generator) -> Masks:
    """Whole kernels at random, at least one of each layer."""
    masks = {}
    for layer in network.layers:
        if layer.stores_weights:
            dims = layer.mask.dims
            some = rng.random(dims[:3]) < density
            some.flat[rng.integers(some.size)] = True
            masks[layer.name] = np.broadcast_to(some[..., None, None], dims)
    return masks


def taps(network: Network, density: float, rng: np.random.Generator) -> Masks:
    """Weights at random, with filters and channels that have none; at least one of each layer."""
    masks = {}
    for name, mask in kernels(network, 0.6, rng).items():
        some = mask & (rng.random(mask.shape) < density)
        some.flat[rng.integers(some.size)] = True
        masks[name] = some
    return masks


def begun(network: Network, seed: int = 0) -> Arrays:
    return Layout.of(network).views(start(network, RNG(seed), dtype=np.float64))


def images(network: Network, many: int = 4, seed: int = 0) -> npt.NDArray[np.float64]:
    return RNG(seed).standard_normal((*network.input_size, many))


def same_scores(small: Shrunk, seed: int = 0) -> None:
    """N8: the shrunken network gives what the masked one gives, in training and in use."""
    network, x, weights = small.before, images(small.before), begun(small.before, seed)
    before, after = (Model.of(each, dtype=np.float64) for each in (network, small.network))
    expected = before.forward(weights, x)[0]
    found = after.forward(cut(small, weights), x)[0]
    most = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * most)
    running = running_start(network, np.float64)
    expected = before.infer(weights, running, x)
    found = after.infer(cut(small, weights), cut(small, running), x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def written_and_read(network: Network) -> Network:
    own = {layer.name: layer.mask.array() for layer in network.layers if layer.live}
    read = network_of(network_yaml(network))
    return read.with_masks(own) if own else read


# -- random networks -------------------------------------------------------------------------------


DRAWN = ("conv", "conv", "grouped", "depthwise", "pool", "add", "scale", "norm")


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A few layers that read any of those before them; what nobody reads is joined at the end."""
    width = {"input": draw(st.integers(2, 4))}
    layers: list[Record] = []
    for number in range(draw(st.integers(2, 6))):
        name = f"l{number}"
        kind = draw(
            st.sampled_from(
                ["conv", "conv", "grouped", "depthwise", "pool", "add", "scale", "norm"]
            )
        )
        read = draw(st.lists(st.sampled_from(sorted(width)), min_size=1, max_size=2))
        channels = sum(width[each] for each in read)
        record: Record = {"name": name, "input": read}
        if draw(st.booleans()):
            channels = draw(st.integers(1, channels))
            every = sum(width[each] for each in read)
            record["channels"] = draw(st.permutations(range(every)))[:channels]
        if kind in ("add", "scale"):
            like = [each for each in width if width[each] == width[read[0]]]
            others = draw(st.lists(st.sampled_from(like), min_size=1, max_size=2))
            record = {"name": name, "kind": "add", "input": [read[0], *others]}
            if kind == "scale":
                record |= {"kind": "multiply", "input": [read[0], others[0]]}
            width[name] = width[read[0]]
        elif kind == "pool":
            record |= {"kind": "pool", "kernel": 3, "stride": 1, "pad": 1, "mode": "average"}
            width[name] = channels
        elif kind == "norm":
            record |= {"kind": "batch_norm"}
            width[name] = channels
        elif kind == "depthwise":
            record |= {"kind": "depthwise", "kernel": 3, "pad": 1}
            width[name] = channels
        else:
            groups = 1
            if kind == "grouped":
                groups = draw(st.sampled_from([n for n in (1, 2, 3) if channels % n == 0]))
            width[name] = groups * draw(st.integers(1, 3))
            record |= {"kind": "conv", "out": width[name], "kernel": 3, "pad": 1, "groups": groups}
            record["batch_norm"] = draw(st.booleans())
        layers.append(record)
    size = width["input"], 4, 4
    ends = outputs_of(built(*layers, size=size))
    layers.append({"name": "flat", "kind": "linear", "input": list(ends), "out": 5})
    layers.append({"name": "scores", "kind": "linear", "out": 3})
    return built(*layers, size=size)


RANDOM = settings(max_examples=30)


@given(networks(), st.integers(0, 99), st.sampled_from([0.2, 0.4, 0.7]))
@RANDOM
def test_a_weight_is_live_where_it_has_a_gradient(
    network: Network, seed: int, density: float
) -> None:
    """Without activation functions no weight on a way from image to scores has a gradient of 0."""
    rng = RNG(seed)
    masked = network.with_masks(kernels(network, density, rng))
    model, weights = Model.of(masked, dtype=np.float64), begun(masked, seed)
    for name, each in weights.items():  # else channels of equal norms may cancel in products
        if name.endswith("gamma"):
            each[...] = rng.uniform(0.5, 2, each.shape)
    layout = model.layout
    gradient = np.zeros(layout.total)
    seen = np.zeros(layout.total, np.bool_)
    for again in range(2):
        x = images(masked, 5, seed + again)
        scores, trace = model.forward(weights, x)
        model.backward(weights, trace, rng.standard_normal(scores.shape), gradient)
        seen |= np.abs(gradient) > 1e-13 * np.abs(gradient).max(initial=0)
    views = layout.views(seen)  # type: ignore[arg-type]
    found = liveness(masked)
    for layer in masked.layers:
        if not layer.stores_weights:
            continue
        live = found.pairs(layer.name)
        moved = np.asarray(views[f"{layer.name}.weight"].any(axis=(3, 4)))
        if layer.name == "flat":  # positions of a channel stand together
            live, moved = (some_along(each.reshape(5, -1, 16), 2) for each in (live, moved))
        assert (live == moved).all(), layer.name


@given(networks(), st.integers(0, 99), st.sampled_from([0.1, 0.3, 0.6]))
@RANDOM
def test_random_networks_give_the_same_scores_shrunken(
    network: Network, seed: int, density: float
) -> None:
    some = (Activation.NONE, Activation.RELU, Activation.SWISH, Activation.RELU6)
    layers = tuple(
        replace(layer, activation=some[(seed * place + seed) % len(some)])
        if layer.kind in CAN_BE_ACTIVATED
        else layer
        for place, layer in enumerate(network.layers)
    )
    masked = replace(network, layers=layers).with_masks(taps(network, density, RNG(seed)))
    found = liveness(masked)
    if not found.reached:
        with pytest.raises(DisconnectedError, match="no way leads"):
            shrunk(masked)
        return
    small = shrunk(masked)
    same_scores(small, seed)
    assert written_and_read(small.network).layers == small.network.layers
    assert small.network.effective_macs >= found.macs
    assert small.network.macs <= network.macs


# -- networks of the field -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "width", "density"),
    [
        ("digits_cnn", 1, 0.05),
        ("resnet20", 0.25, 0.05),
        ("mobilenet_v2", 0.25, 0.4),
        ("shufflenet_v2", 1, 0.05),
    ],
)
def test_networks_of_the_field_give_the_same_scores_shrunken(
    name: str, width: float, density: float
) -> None:
    network = es.load_network(name, scale=Scale(width))
    masked = network.with_masks(taps(network, density, RNG(1)))
    small = shrunk(masked)
    same_scores(small)
    assert written_and_read(small.network).layers == small.network.layers
    assert small.network.macs < 0.95 * network.macs
    assert small.network.effective_macs == small.liveness.macs < masked.effective_macs


@pytest.mark.parametrize("text", [CONVOLUTIONS, JOINED, ATTENTION], ids=["conv", "joined", "att"])
def test_every_kind_of_layer_gives_the_same_scores_shrunken(text: str) -> None:
    network = network_of(text)
    masked = network.with_masks(taps(network, 0.25, RNG(2)))
    small = shrunk(masked)
    same_scores(small)
    assert small.network.parameters < masked.parameters
    assert written_and_read(small.network).layers == small.network.layers


def test_a_densely_connected_block_gives_the_same_scores_shrunken() -> None:
    """Norms and convolutions that read all layers before them, joined."""
    grown, layers = ["stem"], [{"name": "stem", "kind": "conv", "out": 8, "kernel": 3, "pad": 1}]
    for number in range(4):
        own = f"b{number}"
        layers += [
            {"name": f"{own}.norm", "kind": "batch_norm", "input": list(grown)},
            conv(f"{own}.conv1", 8, batch_norm=True),
            {"name": f"{own}.conv2", "kind": "conv", "out": 4, "kernel": 3, "pad": 1,
             "activation": "none"},
        ]  # fmt: skip
        grown.append(f"{own}.conv2")
    layers += [
        {"name": "norm", "kind": "batch_norm", "input": list(grown)},
        {"name": "pool", "kind": "pool", "kernel": "global", "mode": "average"},
        {"name": "scores", "kind": "linear", "out": 4},
    ]
    network = built(*layers, size=(3, 8, 8), own="relu")
    small = shrunk(network.with_masks(taps(network, 0.15, RNG(3))))
    same_scores(small)
    assert small.network.layer("norm").output[0] < network.layer("norm").output[0]
    assert small.network.macs < 0.8 * network.macs
    assert written_and_read(small.network).layers == small.network.layers


def test_mixture_norms_keep_all_channels_that_they_read() -> None:
    network = es.load_network("digits_cnn").with_norm("mixture:2")
    small = shrunk(network.with_masks({"conv4": np.arange(32) < 20, "fc": np.arange(32) < 9}))
    assert small.network.layer("conv3").output[0] == 32
    assert small.network.effective_macs == small.liveness.macs
    before, after = (Model.of(each, dtype=np.float64) for each in (small.before, small.network))
    weights, x = begun(small.before), images(small.before)
    np.testing.assert_allclose(
        after.forward(cut(small, weights), x)[0], before.forward(weights, x)[0], rtol=1e-12
    )


def test_a_dense_network_stays_as_it_is() -> None:
    for name in ("resnet18_ps", "shufflenet_v2", "unet"):
        network = es.load_network(name)
        small = shrunk(network)
        assert small.network.layers == network.layers
        assert not small.liveness.dead()
        assert small.liveness.macs == network.effective_macs


def test_the_smaller_network_is_counted_and_costs_less() -> None:
    network = es.load_network("digits_cnn")
    masked = network.with_masks({"conv4": np.arange(32) < 8, "fc": np.arange(32) < 16})
    small = shrunk(masked)
    assert [small.network.layer(name).output[0] for name in ("conv3", "conv4", "fc")] == [8, 16, 10]
    assert not any(layer.live for layer in small.network.layers)
    hardware = es.load_hardware("edge_tpu")
    before, after = (es.simulate(each, hardware) for each in (masked, small.network))
    assert after.total_macs == after.total_effective_macs == small.liveness.macs
    assert after.total_energy_pj < before.total_energy_pj


# -- single rules ----------------------------------------------------------------------------------


def conv(name: str, out: int, **more: object) -> Record:
    return {"name": name, "kind": "conv", "out": out, "kernel": 1, **more}


def without(network: Network, **dead: tuple[int, int]) -> Masks:
    """Masks that leave out a (filter, channel) of a layer, or with -1 all filters or channels."""
    masks = {name: np.ones(network.layer(name).mask.dims, np.bool_) for name in dead}
    for name, (row, column) in dead.items():
        rows = slice(None) if row < 0 else row
        columns = slice(None) if column < 0 else column
        masks[name][0, rows, columns] = False
    return masks


def test_dead_goes_on_in_both_directions() -> None:
    network = built(conv("a", 3), conv("b", 3), conv("c", 2), {"name": "e", "kind": "linear",
                    "out": 2})  # fmt: skip
    found = liveness(network.with_masks(without(network, b=(1, -1), c=(-1, 2))))
    assert found.filled["b"].tolist() == [True, False, True]
    assert found.used["b"].tolist() == [True, True, False]
    assert found.dead() == {"b": 2}
    masks = without(network, b=(-1, 1))
    masks["b"][0, :, 0] = False
    found = liveness(network.with_masks(masks))
    assert found.dead() == {"a": 2}
    assert found.weights == {"a": 3, "b": 3, "c": 6, "e": 2 * 2 * 16}
    assert found.macs == 16 * (3 + 3 + 6) + 64


def branch(activation: str, after: str = "none", **more: object) -> Network:
    """A stem, and beside it a branch of two layers that is added to it."""
    return built(
        conv("stem", 4, activation=activation),
        conv("one", 4, activation="relu"),
        conv("two", 4),
        {"name": "sum", "kind": "add", "input": ["stem", "two"], "activation": after, **more},
        conv("next", 3),
        {"name": "e", "kind": "linear", "out": 2},
    )


def emptied(network: Network) -> Network:
    """Nothing flows from the first layer of the branch into the second."""
    masks = {name: np.zeros(network.layer(name).mask.dims, np.bool_) for name in ("one", "two")}
    masks["one"][0, :2] = masks["two"][0, :, 2:] = True
    return network.with_masks(masks)


@pytest.mark.parametrize(
    ("activation", "after", "left"),
    [
        ("none", "none", "stem next e"),
        ("relu", "relu", "stem next e"),
        ("relu", "relu6", "stem one two sum next e"),
        ("swish", "swish", "stem one two sum next e"),
    ],
)
def test_a_branch_that_adds_zeros_goes(activation: str, after: str, left: str) -> None:
    """The sum too, where its activation function does nothing more; else the branch stays thin."""
    masked = emptied(branch(activation, after))
    small = shrunk(masked)
    assert " ".join(layer.name for layer in small.network.layers) == left
    same_scores(small)
    if "two" in left:
        assert small.network.layer("one").output[0] == 1
        assert small.network.layer("two").weights == 1
    assert small.removed == tuple(
        layer.name for layer in masked.layers if layer.name not in left.split()
    )


def test_an_activation_function_moves_to_the_only_operand() -> None:
    network = built(
        conv("stem", 4, activation="relu"),
        conv("one", 4, activation="relu"),
        conv("two", 4),
        conv("short", 4, input="stem"),
        {"name": "sum", "kind": "add", "input": ["short", "two"], "activation": "swish"},
        {"name": "e", "kind": "linear", "out": 2},
    )
    small = shrunk(emptied(network))
    assert [layer.name for layer in small.network.layers] == ["stem", "short", "e"]
    assert small.network.layer("short").activation is Activation.SWISH
    same_scores(small)


@pytest.mark.parametrize("stem", ["pool", "input"])
def test_a_sum_of_a_pool_gives_way_and_one_of_the_image_does_not(stem: str) -> None:
    """Pools of what is not negative are not negative; the image may be."""
    network = built(
        conv("first", 4, activation="relu"),
        {"name": "pool", "kind": "pool", "kernel": 3, "stride": 1, "pad": 1},
        conv("one", 4, activation="relu"),
        conv("two", 4),
        {"name": "sum", "kind": "add", "input": [stem, "two"], "activation": "relu"},
        {"name": "e", "kind": "linear", "out": 2, "input": ["sum", "pool"]},
        size=(4, 4, 4),
    )
    small = shrunk(emptied(network))
    assert ("sum" in small.removed) == (stem == "pool")
    same_scores(small)


def test_sums_of_sums_give_way_one_after_the_other() -> None:
    layers = [conv("stem", 4, activation="relu")]
    before = "stem"
    for block in "ab":
        layers += [
            conv(f"{block}.one", 4, input=before, activation="relu"),
            conv(f"{block}.two", 4),
            {"name": block, "kind": "add", "input": [f"{block}.two", before], "activation": "relu"},
        ]
        before = block
    network = built(*layers, {"name": "e", "kind": "linear", "out": 2})
    masks = {}
    for block in "ab":
        for half, layer in ((slice(2), "one"), (slice(2, 4), "two")):
            mask = np.zeros(network.layer(f"{block}.{layer}").mask.dims, np.bool_)
            mask[0, half] = True
            masks[f"{block}.{layer}"] = mask if layer == "one" else mask.swapaxes(1, 2)
    small = shrunk(network.with_masks(masks))
    assert [layer.name for layer in small.network.layers] == ["stem", "e"]
    same_scores(small)
    assert written_and_read(small.network).layers == small.network.layers


def test_a_sum_keeps_the_union_of_its_operands() -> None:
    network = branch("none")
    masks = without(network, stem=(0, -1), two=(0, -1))
    masks["stem"][0, 1] = masks["two"][0, 2] = False
    small = shrunk(network.with_masks(masks))
    for name in ("stem", "two", "sum"):
        assert small.channels[name].tolist() == [1, 2, 3]
    same_scores(small)


def test_groups_stay_equally_large_or_go() -> None:
    network = built(
        conv("a", 6),
        conv("b", 9, groups=3),
        conv("c", 2),
        {"name": "e", "kind": "linear", "out": 2},
    )
    masks = without(network, c=(-1, 0))
    masks["c"][0, :, [1, 6, 7, 8]] = False
    small = shrunk(network.with_masks(masks))
    assert small.network.layer("b").shape.dims[1:4] == (2, 3, 2)
    assert small.channels["b"].tolist() == [0, 1, 2, 3, 4, 5]
    assert small.network.layer("b").weights == (1 + 3) * 2
    assert small.network.layer("a").output[0] == 4
    same_scores(small)


def test_taps_over_margins_alone_read_nothing() -> None:
    network = built(
        {"name": "p", "kind": "pool", "kernel": "global"},
        {"name": "a", "kind": "conv", "out": 2, "kernel": 3, "pad": 1},
        {"name": "e", "kind": "linear", "out": 2},
    )
    shape = network.layer("a").shape
    assert seen_taps(shape).tolist() == [[False] * 3, [False, True, False], [False] * 3]
    mask = np.ones(network.layer("a").mask.dims, np.bool_)
    mask[0, 0, :, 1, 1] = False
    small = shrunk(network.with_masks({"a": mask}))
    assert small.channels["a"].tolist() == [1]
    same_scores(small)


def test_what_a_filter_gives_by_itself_counts() -> None:
    """A shift that ReLU lets through keeps a filter without weights, one that it doesn't not."""
    network = branch("relu")
    layers = tuple(
        replace(layer, bias=True, activation=Activation.RELU) if layer.name == "two" else layer
        for layer in network.layers
    )
    masked = replace(network, layers=layers).with_masks(without(network, stem=(3, -1), two=(3, -1)))
    weights = begun(masked)
    assert shrunk(masked).channels["sum"].tolist() == [0, 1, 2]
    for shift, channels in ((-1.0, [0, 1, 2]), (1.0, [0, 1, 2, 3])):
        weights["two.bias"][:] = shift
        small = shrunk(masked, silent=silent_with(masked, weights))
        assert small.channels["sum"].tolist() == channels
        x = images(masked)
        before = Model.of(masked, dtype=np.float64).forward(weights, x)[0]
        after = Model.of(small.network, dtype=np.float64).forward(cut(small, weights), x)[0]
        np.testing.assert_allclose(after, before, rtol=1e-12)


def test_a_factor_that_is_constant_lets_the_image_through() -> None:
    """A squeeze that nothing flows into scales by sigmoid(0), not by 0."""
    network = built(
        conv("a", 4),
        conv("squeezed", 2, input=["a"]),
        {"name": "pool", "kind": "pool", "kernel": "global", "mode": "average"},
        conv("gate", 4, activation="sigmoid"),
        {"name": "scaled", "kind": "multiply", "input": ["a", "gate"]},
        {"name": "scores", "kind": "linear", "out": 3},
    )
    masked = network.with_masks(without(network, squeezed=(0, -1), gate=(-1, 1)))
    found = liveness(masked)
    assert not found.filled["pool"][0]
    assert not found.pairs("gate").any()
    assert found.reached
    same_scores(shrunk(masked))


def test_a_mixture_norm_gives_its_running_means_where_nothing_flows() -> None:
    network = built(
        conv("a", 4),
        conv("b", 2, input=["input"]),
        conv("c", 4),
        {"name": "norm", "kind": "mixture_norm", "components": 2, "activation": "relu"},
        {"name": "sum", "kind": "add", "input": ["a", "norm"]},
        {"name": "scores", "kind": "linear", "out": 3},
    )
    masked = network.with_masks(without(network, b=(0, -1), c=(-1, 1)))
    weights, running, x = begun(masked), running_start(masked, np.float64), images(masked)
    before = Model.of(masked, dtype=np.float64)
    assert "norm" in shrunk(masked, silent=silent_with(masked, weights, running)).removed
    running["norm.mean"][...] = RNG(0).standard_normal((2, 4))
    small = shrunk(masked, silent=silent_with(masked, weights, running))
    after = Model.of(small.network, dtype=np.float64)
    np.testing.assert_allclose(
        after.infer(cut(small, weights), cut(small, running), x),
        before.infer(weights, running, x),
        rtol=1e-12,
    )


def test_shifts_of_norms_count_with_running_means() -> None:
    network = es.load_network("digits_cnn")
    mask = np.ones(network.layer("conv2").mask.dims, np.bool_)
    mask[0, 4:] = False
    masked = network.with_masks({"conv2": mask})
    weights, running, rng = begun(masked), running_start(masked, np.float64), RNG(5)
    for name, each in (weights | running).items():
        if not name.endswith("weight"):
            each[...] = rng.uniform(-1, 1, each.shape) ** (2 if "variance" in name else 1)
    few = shrunk(masked)
    small = shrunk(masked, silent=silent_with(masked, weights, running))
    assert few.channels["conv2"].size < small.channels["conv2"].size < 16
    x = images(masked)
    before = Model.of(masked, dtype=np.float64).infer(weights, running, x)
    model = Model.of(small.network, dtype=np.float64)
    after = model.infer(cut(small, weights), cut(small, running), x)
    np.testing.assert_allclose(after, before, rtol=1e-10)


def test_a_bias_of_a_dead_channel_changes_no_score() -> None:
    """Perturbed one by one: scores move where, and only where, the channel is used."""
    network = es.load_network("resnet20", scale=Scale(0.125, 16, 4))
    masked = network.with_masks(kernels(network, 0.12, RNG(4)))
    layers = tuple(replace(layer, activation=Activation.NONE) for layer in masked.layers)
    masked = replace(masked, layers=layers)
    found, weights = liveness(masked), begun(masked)
    model, x = Model.of(masked, dtype=np.float64), images(masked, 3)
    running = running_start(masked, np.float64)
    before = model.infer(weights, running, x)
    told = set()
    for layer in masked.layers[::3]:
        if not layer.batch_norm:
            continue
        for channel in range(layer.output[0]):
            shift = weights[f"{layer.name}.beta"]
            shift[channel] = 3.0
            moved = np.abs(model.infer(weights, running, x) - before).max() > 1e-12
            shift[channel] = 0.0
            assert moved == found.used[layer.name][channel], (layer.name, channel)
            told.add(bool(moved))
    assert told == {True, False}


def test_no_way_through_is_told() -> None:
    network = built(conv("a", 2), conv("b", 2), {"name": "e", "kind": "linear", "out": 2})
    masked = network.with_masks(without(network, a=(0, -1), b=(-1, 1)))
    assert not liveness(masked).reached
    with pytest.raises(DisconnectedError, match="no way leads from the image"):
        shrunk(masked)
