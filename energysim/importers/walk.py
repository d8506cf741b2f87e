"""What an import knows while it goes from node to node, and what is left of it in the end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from energysim.errors import InputError
from energysim.importers.activation import Chain
from energysim.importers.graph import Graph, Node
from energysim.importers.views import NO_MARGINS, Axis, Dim, View, Volume, dim, plain_dims
from energysim.network import LIMIT, NETWORK_INPUT

Record = dict[str, Any]
"""A layer as a network file has it."""


class InexpressibleError(Exception):
    """A node that no layer of a network file stands for; says why."""


LEFT_OUT_BEFORE = "reads what is left out"


@dataclass(frozen=True, slots=True)
class Weights:
    """Where the weights of a layer are."""

    tensor: str
    """a constant"""
    zero_point: str
    """the constant that stands for zero, or empty"""
    axes: tuple[int, ...]
    """order in which its dims are filters, channels and taps"""
    shape: tuple[int, ...]
    """of its mask, after that"""
    held: tuple[int, ...] = ()
    """its dims before that, where they are cut in groups"""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A node that costs something and that no layer stands for."""

    node: Node
    reason: str
    elements: int
    """of its outputs, with the batch"""
    macs: int
    """multiply-accumulates, with the batch"""


@dataclass(slots=True)
class Walk:
    """The state of one import."""

    graph: Graph
    batch: int
    """images in each tensor"""
    views: dict[str, View]
    """what the tensors hold, as far as layers have produced it"""
    records: dict[str, Record] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    """what each layer produces according to ONNX"""
    weights: dict[str, Weights] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    bare: dict[str, str] = field(default_factory=dict)
    """tensors that are a layer's output as its MACs leave it -> the layer"""
    readers: Counter[str] = field(default_factory=Counter)
    chains: dict[str, Chain] = field(default_factory=dict)
    """tensors that follow from the output of one layer element by element"""
    unordered: list[str] = field(default_factory=list)
    """layers whose channels stand in another order than the network file can say"""

    @classmethod
    def start(cls, graph: Graph, dims: Sequence[Axis]) -> Walk:
        """Begin at the image, whose dims are these axes."""
        sizes = dict(zip(dims, graph.shapes[graph.image], strict=True))
        channels, height, width = (
            sizes.get(axis, 1) for axis in (Axis.CHANNEL, Axis.HEIGHT, Axis.WIDTH)
        )
        held = [dim(axis, sizes[axis]) for axis in dims]
        image = View.of(NETWORK_INPUT, (channels, height, width), held)
        readers = Counter(name for node in graph.nodes for name in node.inputs)
        readers.update(each.name for each in graph.model.graph.output)
        return cls(graph, sizes.get(Axis.BATCH, 1), {graph.image: image}, readers=readers)

    # -- what a node reads --

    def shape(self, node: Node, index: int = 0) -> tuple[int, ...]:
        """Size of an input."""
        return self.graph.shape(node.input(index), node)

    def out_shape(self, node: Node, index: int = 0) -> tuple[int, ...]:
        """Size of an output."""
        return self.graph.shape(node.outputs[index], node)

    def is_constant(self, node: Node, index: int) -> bool:
        """Whether an input is there and does not depend on the image."""
        return node.input(index) in self.graph.constants

    def view(self, node: Node, index: int = 0, *, padded: bool = False) -> View:
        """What an input holds.

        Raises
        ------
        InexpressibleError
            If it comes from a node that is left out, or has zeros around it that only a window can
            take up.
        """
        found = self.views.get(node.input(index))
        if found is None:
            raise InexpressibleError(LEFT_OUT_BEFORE)
        if found.margins != NO_MARGINS and not padded:
            raise InexpressibleError("reads zeros that Pad has put around its data")
        return found

    def operands(self, node: Node) -> list[int]:
        """Inputs that depend on the image."""
        return [
            index
            for index, name in enumerate(node.inputs)
            if name and name not in self.graph.constants
        ]

    def width(self, layer: str) -> int:
        """Channels of a layer, or of the image."""
        image = self.views[self.graph.image]
        return self.volumes[layer][0] if layer in self.volumes else image.volume[0]

    def only_reader(self, tensor: str) -> bool:
        """Whether one node reads a tensor, which is no output either."""
        return self.readers[tensor] == 1

    # -- what it leaves --

    def add(self, node: Node, fields: Record, volume: Volume, rank: int = 4) -> View:
        """Add a layer.

        Returns
        -------
        View
            Of its output, in a tensor of batch, channels and then height and width.
        """
        dims = plain_dims(volume, batch=self.batch)
        if rank == 3:  # noqa: PLR2004 - height and width in one dim
            dims = (dims[0], dims[1], dims[2] + dims[3])
        return self.add_as(node, fields, volume, dims[:rank])

    def add_as(self, node: Node, fields: Record, volume: Volume, dims: Sequence[Dim]) -> View:
        """Add a layer whose output has dims of its own."""
        name = unique_name(node, self.records)
        record = {"name": name, **fields}
        _check_sizes(node, record)
        self.records[name] = record
        self.volumes[name] = volume
        return View.of(name, volume, dims)

    def leave_out(self, node: Node, reason: str) -> None:
        """Remember a node that no layer stands for."""
        shapes = self.graph.shapes
        size = sum(prod(shapes.get(name, (0,))) for name in node.outputs if name)
        self.left_out.append(LeftOut(node, reason, size, macs_of(node, shapes)))

    def stand_in(self, node: Node) -> View | None:
        """What may stand for the output of a node that is left out: an operand of its size."""
        if node.op in MULTIPLYING or not node.outputs or node.outputs[0] not in self.graph.shapes:
            return None
        shape = self.out_shape(node)
        views = [
            self.views[name]
            for name in node.inputs
            if name in self.views and self.graph.shapes.get(name) == shape
        ]
        best = next((view for view in views if view.whole), views[0] if views else None)
        return None if best is None else replace(best, origin=node.outputs[0])

    @property
    def elements(self) -> int:
        """Of the outputs of all nodes, with the batch."""
        shapes = self.graph.shapes
        return sum(
            prod(shapes.get(name, (0,)))
            for node in self.graph.nodes
            for name in node.outputs
            if name
        )


def reads(view: View) -> Record:
    """Fields of a layer that reads a view."""
    (first, *more) = view.layers
    found: Record = {"input": [first, *more] if more else first}
    numbers = view.numbers
    if numbers != tuple(range(len(numbers))):
        return found | {"channels": list(numbers)}
    return found if view.channels is None else found | {"channels": view.channels}


def _check_sizes(node: Node, record: Record) -> None:
    for key, value in record.items():
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(each, int) and each >= LIMIT for each in numbers):
            raise InputError(
                f"{node}: {key} is {value}; a network file takes numbers below {LIMIT}"
            )


def valid_name(text: str) -> str:
    """Text as a name of a network file; empty where nothing of it can stay.

    Examples
    --------
    >>> valid_name("/layer1/layer1.0/conv1/Conv"), valid_name("gpu_0/conv1_1"), valid_name("é")
    ('layer1_layer1.0_conv1_Conv', 'gpu_0_conv1_1', '')
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_")


def unique_name(node: Node, taken: Mapping[str, object]) -> str:
    """Name of the layer that stands for a node: its own as far as it may stay."""
    name = valid_name(node.name) or f"{node.op.lower()}"
    name = f"{name}_" if name == NETWORK_INPUT else name
    return unused_name(name, taken)


def unused_name(name: str, taken: Container[str]) -> str:
    """A name, with a number behind it where it is taken."""
    return next(each for each in _numbered(name) if each not in taken)


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


# -- work of nodes, from their shapes alone --------------------------------------------------------

WEIGHTS_AT = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}
"""Input that holds the weights, of convolutions."""

FACTORS = {"MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3), "Gemm": (0, 1)}
"""Inputs that are multiplied, of matrix products."""

MULTIPLYING = frozenset({*WEIGHTS_AT, *FACTORS, "Einsum", "LSTM", "GRU", "RNN", "Attention"})
"""Operators whose output nothing else can stand for."""


def macs_of(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates of a convolution or matrix product with its batch; 0 for anything else.

    A transposed convolution multiplies every input element with all taps, any other one collects
    all taps for every output element.
    """
    output = shapes.get(node.outputs[0], ()) if node.outputs else ()
    if node.op in WEIGHTS_AT:
        weights = shapes.get(node.input(WEIGHTS_AT[node.op]), (0, 0))
        every = shapes.get(node.input(0), (0,)) if node.op == "ConvTranspose" else output
        return prod(every) * prod(weights[1:])
    if node.op in FACTORS:
        first = shapes.get(node.input(FACTORS[node.op][0]), ())
        depth = first[0 if node.attributes.get("transA") else -1] if first else 0
        return prod(output) * depth
    return 0
