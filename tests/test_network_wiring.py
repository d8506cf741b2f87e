"""Joined, split and shuffled channels: which channel of which layer is read, one by one."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import energysim as es
from energysim.cli.describe import network_yaml
from energysim.errors import InputErrors
from energysim.network import Layer, Network, NetworkSpec, build_network

Names = npt.NDArray[np.str_]

SHUFFLENETS = ["shufflenet_v2", "shufflenet_v2_x1_0_imagenet", "shufflenet_v2_x1_5_imagenet"]


def build(*records: dict[str, Any], size: tuple[int, int, int] = (3, 8, 8)) -> Network:
    data = {"name": "net", "source": "a test", "input": size, "layers": records}
    return build_network(NetworkSpec.model_validate_json(json.dumps(data)), None, es.load_network)


def conv(name: str, out: int, **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": "conv", "out": out, "kernel": 1} | fields


def shuffle(name: str, *inputs: str, groups: int = 2, **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": "shuffle", "input": list(inputs), "groups": groups} | fields


A, B = conv("a", 4), conv("b", 6, input="input")


def channels_of(name: str, count: int) -> Names:
    return np.array([f"{name}/{number}" for number in range(count)])


def read_by(network: Network, layer: Layer) -> list[str]:
    """Names of the channels that a layer reads, from what the layer says of them."""
    sizes = {"input": network.input_size[0]} | {
        each.name: each.output[0] for each in network.layers
    }
    joined = np.concatenate([channels_of(name, sizes[name]) for name in layer.inputs])
    numbers = range(joined.size if layer.channels is None else layer.channels)
    found: list[str] = joined[list(layer.picked or numbers)].tolist()
    return found


# --- the record, the parts ------------------------------------------------------------------------


def test_a_shuffle_deals_out_its_groups_in_turn() -> None:
    network = build(A, B, shuffle("s", "a", "b"), conv("c", 2), conv("d", 2, input="s"))
    c, d = network.layers[2:]
    assert [layer.name for layer in network.layers] == ["a", "b", "c", "d"]
    # Groups a0 a1 a2 a3 b0 and b1 b2 b3 b4 b5 in turn.
    expected = ["a/0", "b/1", "a/1", "b/2", "a/2", "b/3", "a/3", "b/4", "b/0", "b/5"]
    assert read_by(network, c) == read_by(network, d) == expected
    assert (c.inputs, c.channels) == (("a", "b"), None)
    assert c.picked == (0, 5, 1, 6, 2, 7, 3, 8, 4, 9)
    assert [layer.seed for layer in network.layers] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("how", "inputs", "channels", "picked"),
    [
        ({"part": [1, 2]}, ("a", "b"), 5, (0, 5, 1, 6, 2)),
        ({"part": [2, 2]}, ("b", "a"), 5, (3, 9, 4, 0, 5)),
        ({"part": [2, 5]}, ("a", "b"), 2, (1, 6)),
        ({"part": [1, 1]}, ("a", "b"), None, (0, 5, 1, 6, 2, 7, 3, 8, 4, 9)),
        ({"channels": 1}, ("a",), 1, None),
        ({"channels": 3}, ("a", "b"), 3, (0, 5, 1)),
        ({"channels": [9, 0]}, ("b", "a"), 2, (5, 6)),
        ({"channels": [8, 1]}, ("b",), 2, None),
    ],
)
def test_what_a_reader_takes_of_a_shuffle(
    how: dict[str, Any], inputs: tuple[str, ...], channels: int | None, picked: Any
) -> None:
    layer = build(A, B, shuffle("s", "a", "b"), conv("c", 2, **how)).layers[2]
    assert (layer.inputs, layer.channels, layer.picked) == (inputs, channels, picked)
    assert layer.shape.dims[3] == (channels or 10)


@pytest.mark.parametrize(
    ("how", "inputs", "channels", "picked"),
    [
        ({"part": [1, 2]}, ("a", "b"), 5, None),
        ({"part": [2, 2]}, ("b",), 5, (1, 2, 3, 4, 5)),
        ({"part": [3, 5]}, ("b",), 2, None),
        ({"channels": [0, 1, 2, 3]}, ("a",), None, None),
        ({"channels": [3, 3]}, ("a", "a"), 2, (3, 7)),
        ({"channels": 5}, ("a", "b"), 5, None),
        ({"channels": 4}, ("a", "b"), 4, None),
    ],
)
def test_what_a_reader_takes_of_joined_layers(
    how: dict[str, Any], inputs: tuple[str, ...], channels: int | None, picked: Any
) -> None:
    """So many `channels` of layers are written down as they stand; anything else is followed."""
    layer = build(A, B, conv("c", 2, input=["a", "b"], **how)).layers[2]
    assert (layer.inputs, layer.channels, layer.picked) == (inputs, channels, picked)


def test_one_group_names_a_part_in_its_order() -> None:
    records = [A, B, shuffle("s", "b", groups=1, part=[2, 3]), conv("c", 2, input=["s", "a"])]
    network = build(*records)
    assert read_by(network, network.layers[2]) == ["b/2", "b/3", "a/0", "a/1", "a/2", "a/3"]


def test_a_layer_twice_in_a_shuffle_is_read_twice() -> None:
    network = build(A, shuffle("s", "a", "a"), conv("c", 2))
    assert network.layers[1].inputs == ("a", "a")
    assert read_by(network, network.layers[1]) == [f"a/{n}" for n in (0, 0, 1, 1, 2, 2, 3, 3)]


def test_every_kind_that_reads_a_volume_reads_shuffles() -> None:
    readers: list[dict[str, Any]] = [
        conv("c", 5),
        {"name": "w", "kind": "depthwise", "kernel": 3},
        {"name": "t", "kind": "transposed", "out": 2, "kernel": 2, "stride": 2},
        {"name": "p", "kind": "pool", "kernel": 2},
        {"name": "f", "kind": "linear", "out": 2},
        {"name": "n", "kind": "batch_norm"},
        {"name": "l", "kind": "layer_norm"},
        {"name": "m", "kind": "softmax"},
    ]
    how = {"input": "s", "part": [2, 2]}
    network = build(A, B, shuffle("s", "a", "b"), *(each | how for each in readers))
    for layer in network.layers[2:]:
        assert (layer.inputs, layer.channels, layer.picked) == (("b", "a"), 5, (3, 9, 4, 0, 5))
    assert network.layers[4].shape.dims[3] == 5
    assert network.layers[6].shape.dims[3] == 5 * 64


def test_the_image_can_be_shuffled() -> None:
    network = build(shuffle("s", "input", groups=3), conv("c", 2), size=(6, 4, 4))
    assert network.layers[0].picked == (0, 2, 4, 1, 3, 5)


# --- against arrays of names ----------------------------------------------------------------------


def shuffled(x: Names, groups: int) -> Names:
    """View as [groups, channels], transpose, flatten."""
    return x.reshape(groups, -1).T.reshape(-1)


@st.composite
def wirings(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """Records, and the channels that each of their convolutions reads."""
    held: dict[str, Names] = {"input": channels_of("input", 6)}
    records, expected = [], {}
    for index in range(draw(st.integers(2, 8))):
        inputs = draw(st.lists(st.sampled_from(sorted(held)), min_size=1, max_size=3))
        read = np.concatenate([held[each] for each in inputs])
        how: dict[str, Any] = {}
        kind = draw(st.sampled_from(["all", "part", "channels", "list"]))
        if kind == "part":
            parts = draw(st.sampled_from([n for n in range(1, 5) if read.size % n == 0]))
            which = draw(st.integers(1, parts))
            how = {"part": [which, parts]}
            read = np.split(read, parts)[which - 1]
        elif kind == "channels":
            how = {"channels": draw(st.integers(1, read.size))}
            read = read[: how["channels"]]
        elif kind == "list":
            how = {
                "channels": draw(st.lists(st.integers(0, read.size - 1), min_size=1, max_size=5))
            }
            read = read[how["channels"]]
        name = f"{'ls'[index % 2]}{index}"
        if index % 2:
            groups = draw(st.sampled_from([n for n in range(1, 7) if read.size % n == 0]))
            records.append(shuffle(name, *inputs, groups=groups, **how))
            held[name] = shuffled(read, groups)
        else:
            out = draw(st.integers(1, 6))
            records.append(conv(name, out, input=inputs, **how))
            held[name], expected[name] = channels_of(name, out), read.tolist()
    return records, expected


@settings(max_examples=200, deadline=None)
@given(wirings())
def test_channels_are_those_of_arrays_of_names(wiring: Any) -> None:
    records, expected = wiring
    network = build(*records, size=(6, 4, 4))
    assert {layer.name: read_by(network, layer) for layer in network.layers} == expected
    for layer in network.layers:
        assert layer.shape.dims[3] == len(expected[layer.name])
        assert layer.picked != tuple(range(len(expected[layer.name])))


@settings(max_examples=100, deadline=None)
@given(wirings())
def test_what_is_shown_is_read_back(tmp_path_factory: pytest.TempPathFactory, wiring: Any) -> None:
    network = build(*wiring[0], size=(6, 4, 4))
    path = tmp_path_factory.mktemp("shown") / "net.yaml"
    path.write_text(network_yaml(network))
    again = es.load_network(str(path))
    assert again.layers == network.layers
    assert again.shuffles == network.shuffles


# --- ShuffleNet -----------------------------------------------------------------------------------

BEFORE = {
    "": "437d8594f52026b130e1968ab1e39fff3e261c5fc48d16519353c8a7a5b2c3af",
    "_x1_0_imagenet": "c416275713127cf9f8d1e0999b4aa65c2f635d8aafa0c101bae3d0bc15583dbf",
    "_x1_5_imagenet": "6e3458fdfb816a7c93a38e5284914672785072d8e071ba4128e0def93e921a71",
}
"""SHA-256 of the layers, without activation functions and picked channels, as they stood in the
files that listed the layers to read for each convolution."""


@pytest.mark.parametrize("name", SHUFFLENETS)
def test_layers_are_those_that_were_listed_by_hand(name: str) -> None:
    layers = es.load_network(name).counted()["layers"]
    text = json.dumps(layers, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == BEFORE[name.removeprefix("shufflenet_v2")]


def test_some_layers_that_were_listed_by_hand() -> None:
    network = es.load_network("shufflenet_v2")
    found = {
        name: (network.layer(name).inputs, network.layer(name).channels)
        for name in (
            "layer1.1.conv1",
            "layer1.2.conv1",
            "layer2.0.conv3",
            "layer2.5.conv1",
            "conv2",
        )
    }
    assert found == {
        "layer1.1.conv1": (("layer1.0.conv2", "layer1.0.conv5"), 88),
        "layer1.2.conv1": (("layer1.0.conv2", "layer1.1.conv3", "layer1.0.conv5"), 88),
        "layer2.0.conv3": (
            ("layer1.0.conv2", "layer1.3.conv3", "layer1.2.conv3", "layer1.1.conv3",
             "layer1.0.conv5"),
            176,
        ),
        "layer2.5.conv1": (
            ("layer2.0.conv5", "layer2.4.conv3", "layer2.3.conv3", "layer2.2.conv3",
             "layer2.1.conv3", "layer2.0.conv2"),
            176,
        ),
        "conv2": (
            ("layer3.0.conv2", "layer3.3.conv3", "layer3.2.conv3", "layer3.1.conv3",
             "layer3.0.conv5"),
            704,
        ),
    }  # fmt: skip


class Walk:
    """ShuffleNet V2 on arrays of channel names, as the reference code runs it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.seen: set[str] = set()

    def __call__(self, name: str, x: Names) -> Names:
        """A layer, checked to read these channels; what it makes."""
        layer = self.network.layer(name)
        assert read_by(self.network, layer) == x.tolist()
        self.seen.add(name)
        return channels_of(name, layer.output[0])

    def chain(self, x: Names, *names: str) -> Names:
        for name in names:
            x = self(name, x)
        return x

    def unit(self, x: Names, *branch: str) -> Names:
        kept, worked = np.split(x, 2)
        return shuffled(np.concatenate([kept, self.chain(worked, *branch)]), 2)

    def down(self, x: Names, left: list[str], right: list[str]) -> Names:
        return shuffled(np.concatenate([self.chain(x, *left), self.chain(x, *right)]), 2)


def test_channels_of_the_cifar_form_are_those_of_its_code() -> None:
    """Split in halves, work on the second, concatenate, shuffle with 2 groups (its BasicBlock)."""
    network = es.load_network("shufflenet_v2")
    walk = Walk(network)
    x = walk("conv1", channels_of("input", 3))
    for stage, units in ((1, 3), (2, 7), (3, 3)):
        names = [f"layer{stage}.0.conv{part}" for part in range(1, 6)]
        x = walk.down(x, names[:2], names[2:])
        for unit in range(1, units + 1):
            x = walk.unit(x, *(f"layer{stage}.{unit}.conv{part}" for part in (1, 2, 3)))
    walk.chain(x, "conv2", "avgpool", "fc")
    assert walk.seen == {layer.name for layer in network.layers}


@pytest.mark.parametrize("name", SHUFFLENETS[1:])
def test_channels_of_the_imagenet_form_are_those_of_its_code(name: str) -> None:
    network = es.load_network(name)
    walk = Walk(network)
    x = walk.chain(channels_of("input", 3), "conv1", "maxpool")
    for stage, units in ((2, 3), (3, 7), (4, 3)):
        first = f"stage{stage}.0.branch"
        x = walk.down(
            x,
            [f"{first}1.{part}" for part in ("dw", "pw")],
            [f"{first}2.{part}" for part in ("pw1", "dw", "pw2")],
        )
        for unit in range(1, units + 1):
            x = walk.unit(x, *(f"stage{stage}.{unit}.{part}" for part in ("pw1", "dw", "pw2")))
    walk.chain(x, *(layer.name for layer in network.layers[-3:]))
    assert walk.seen == {layer.name for layer in network.layers}


@pytest.mark.parametrize("name", SHUFFLENETS)
def test_shuffles_are_shown_as_they_are_written(name: str) -> None:
    network = es.load_network(name)
    text = network_yaml(network)
    assert text.count("kind: shuffle") == len(network.shuffles) == 13 + 16
    assert "channels:" not in text


@pytest.mark.parametrize("name", SHUFFLENETS)
def test_no_result_knows_of_the_order_of_channels(name: str) -> None:
    counted = es.load_network(name).counted()
    assert counted.keys().isdisjoint({"shuffles"})
    for layer in counted["layers"]:
        assert layer.keys().isdisjoint({"picked", "activation"})


# --- mistakes -------------------------------------------------------------------------------------

MISTAKES = [
    (
        "conv, out: 4, kernel: 1, part: [3, 2]",
        "part",
        "the i-th of n parts, i from 1 to n, got [3, 2]",
    ),
    (
        "conv, out: 4, kernel: 1, part: [1, 3]",
        "part",
        "10 channels can't be cut into 3 equal parts",
    ),
    ("conv, out: 4, kernel: 1, part: [1, 2], channels: 2", "part", "or some `channels:`, not both"),
    ("conv, out: 4, kernel: 1, channels: 11", "channels", "there are 10 channels to read, got 11"),
    ("conv, out: 4, kernel: 1, channels: [0, 10]", "channels", "channels 0 to 9 to read, got 10"),
    ("conv, out: 4, kernel: 1, input: [s, small]", "input", "'s' [10, 8, 8], 'small' [6, 4, 4]"),
    ("shuffle, groups: 3", "groups", "groups: 3 must divide the 10 channels"),
    ("shuffle, groups: 2, part: [1, 2]", "groups", "groups: 2 must divide the 5 channels"),
    ("shuffle, groups: 1, part: [2, 1]", "part", "i from 1 to n, got [2, 1]"),
    ("shuffle, groups: 2, input: [a, small]", "input", "height and width of layers that are read"),
    ("shuffle, groups: 2, input: x", "input", "reads itself (cycle or forward reference)"),
    ("shuffle, groups: 2, input: last", "input", "reads the later layer 'last' (cycle or forward"),
    ("shuffle, groups: 2, input: t", "input", "reads 't', but there is no such layer."),
    ("conv, out: 4, kernel: 1, input: smal", "input", "no such layer. Did you mean 'small'?"),
    ("add, input: [s, s]", "input", "an add takes whole layers, channel by channel, and 's' is a"),
    (
        "multiply, input: [a, s]",
        "input",
        "a multiply takes whole layers, channel by channel, and 's'",
    ),
    ("matmul, input: [s, a], over: channels", "input", "a matmul takes whole layers, channel by"),
]


@pytest.mark.parametrize(("record", "key", "text"), MISTAKES)
def test_mistakes(tmp_path: Path, record: str, key: str, text: str) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(
        "name: net\nsource: a test\ninput: [3, 8, 8]\nlayers:\n"
        "  - {name: a, kind: conv, out: 4, kernel: 1}\n"
        "  - {name: b, kind: conv, out: 6, kernel: 1}\n"
        "  - {name: small, kind: pool, kernel: 2}\n"
        "  - {name: s, kind: shuffle, input: [a, b], groups: 2}\n"
        f"  - {{name: x, kind: {record}}}\n"
        "  - {name: last, kind: pool, kernel: 1, input: a}\n"
    )
    with pytest.raises(InputErrors) as caught:
        es.load_network(str(path))
    (problem,) = caught.value.problems
    assert re.match(rf".*net\.yaml:9:\d+ layers\.4(\.{key})?: layer 'x': ", problem), problem
    assert text in problem


@pytest.mark.parametrize("again", [shuffle("s", "a"), conv("s", 4), shuffle("a", "b")])
def test_names_are_unique_among_layers_and_shuffles(again: dict[str, Any]) -> None:
    with pytest.raises(InputErrors, match="there is an earlier layer of the same name"):
        build(A, B, shuffle("s", "a", "b"), again, conv("c", 2))


def test_a_shuffle_is_not_the_image() -> None:
    with pytest.raises(InputErrors, match="a layer can't be named 'input'"):
        build(A, shuffle("input", "a"))


def test_readers_of_a_wrong_shuffle_are_not_wrong_themselves() -> None:
    with pytest.raises(InputErrors) as caught:
        build(
            A, B, shuffle("s", "a", "b", groups=4), conv("c", 2), conv("d", 9, groups=2, input="a")
        )
    assert len(caught.value.problems) == 2
    assert "groups: 4 must divide the 10 channels" in caught.value.problems[0]
    assert "layer 'd': groups: 2 must divide" in caught.value.problems[1]


def test_a_network_of_shuffles_alone_has_no_layer() -> None:
    with pytest.raises(InputErrors, match="a network needs at least one layer"):
        build(shuffle("s", "input", groups=3))
