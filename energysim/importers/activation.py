"""Activation functions of a graph: which layer each belongs to, and which function it is.

Nodes that work element by element on the output of one layer form a chain. Where everything that
reads the layer reads the end of it, the chain is the layer's activation function, however many
nodes it is made of; which one is told by the values that it gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import erf, prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError
from energysim.network import Activation, LayerKind
from energysim.network.activate import CAN_BE_ACTIVATED

if TYPE_CHECKING:
    from energysim.importers.graph import Graph, Node
    from energysim.importers.walk import Walk

Values = npt.NDArray[np.float64]

FUNCTIONS = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu"
    " HardSigmoid HardSwish IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu"
    " Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"
)
"""Operators of one activation."""

ARITHMETIC = "Add Div Max Mean Min Mod Mul PRelu Pow Sub Sum"
"""Operators of several activations or constants."""

RELABELLING = frozenset(
    {
        "Cast",
        "CastLike",
        "DequantizeLinear",
        "Dropout",
        "DynamicQuantizeLinear",
        "Expand",
        "Flatten",
        "Identity",
        "QuantizeLinear",
        "Reshape",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that leave each element what it is."""

_FUNCTIONS, _ARITHMETIC = frozenset(FUNCTIONS.split()), frozenset(ARITHMETIC.split())

POINTS: Values = np.linspace(-8, 8, 257)
"""Where functions are compared."""

CLOSE = 1e-3
"""How near values are those of the same function: the form of GELU with tanh passes for it, its
form with a sigmoid does not."""

_AFFINE = frozenset({"Add", "Div", "Mul", "Sub"})
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Chain:
    """How a tensor follows from the output of one layer, element by element."""

    layer: str
    start: str
    """the tensor that is the layer's output, with its bias and batch norm"""
    nodes: tuple[str, ...] = ()
    """first outputs of the nodes between, in the order of computation"""


def follow(walk: Walk, node: Node, *, made: bool, left_out: bool) -> None:
    """Take note of what one node makes of the output of a layer.

    Parameters
    ----------
    walk : Walk
        With the views of the node's outputs.
    made : bool
        Whether a layer has come of the node.
    left_out : bool
        Whether no layer stands for the node.
    """
    if not node.outputs or node.outputs[0] not in walk.views:
        return
    tensor = node.outputs[0]
    if made:
        walk.chains[tensor] = Chain(next(reversed(walk.records)), tensor)
        return
    if left_out:
        return
    before = [walk.chains.get(node.inputs[index]) for index in walk.operands(node)]
    first = before[0] if before else None
    if first is None or any(_origin(each) != _origin(first) for each in before):
        return
    if node.op == "BatchNormalization" or tensor in walk.bare or _is_affine(walk, node, first):
        walk.chains[tensor] = Chain(first.layer, tensor)
    elif node.op in _FUNCTIONS | _ARITHMETIC | RELABELLING:
        nodes = [name for each in before if each for name in each.nodes]
        walk.chains[tensor] = Chain(first.layer, first.start, (*dict.fromkeys(nodes), tensor))


def _is_affine(walk: Walk, node: Node, chain: Chain) -> bool:
    """Whether a node scales or shifts each channel of a batch norm, and so is a part of it."""
    record = walk.records[chain.layer]
    normed = record.get("batch_norm") or record["kind"] == LayerKind.BATCH_NORM
    constants = [name for name in node.inputs if name in walk.graph.constants]
    by_channel = any(prod(walk.graph.shapes.get(name, ())) > 1 for name in constants)
    return bool(normed and by_channel and not chain.nodes and node.op in _AFFINE)


def _origin(chain: Chain | None) -> tuple[str, str] | None:
    return None if chain is None else (chain.layer, chain.start)


def settle(walk: Walk) -> list[str]:
    """Write into the records which activation function each layer has.

    Returns
    -------
    list of str
        What no record can say, one line for each reason.
    """
    graph = walk.graph
    makers = {node.outputs[0]: node for node in graph.nodes if node.outputs}
    unknown: dict[str, list[str]] = {}
    twofold: list[str] = []
    misplaced = [
        makers[tensor].name
        for tensor in makers
        if makers[tensor].op in _FUNCTIONS and tensor not in walk.chains
    ]
    for layer, ends in _ends(walk).items():
        functions = {_function(graph, walk.chains[tensor], makers) for tensor in ends}
        names = " ".join(_operators(walk.chains[ends[0]], makers)) if ends else ""
        kind = LayerKind(walk.records[layer]["kind"])
        if functions <= {Activation.NONE}:
            continue
        if len(functions) > 1:
            twofold.append(layer)
        elif kind not in CAN_BE_ACTIVATED:
            misplaced.append(layer)
        elif (function := functions.pop()) is None:
            unknown.setdefault(names, []).append(layer)
        else:
            walk.records[layer]["activation"] = str(function)
    return [*_notes(unknown, twofold, misplaced)]


def _notes(
    unknown: Mapping[str, Sequence[str]], twofold: Sequence[str], misplaced: Sequence[str]
) -> Iterator[str]:
    left = "left out of the layers, which no count depends on"
    for operators, layers in unknown.items():
        yield (
            f"{operators} behind {listed(layers)}: no activation function that a network file"
            f" knows, {left}"
        )
    if twofold:
        yield (
            f"{listed(twofold)}: read with an activation function and without it, so that it is"
            f" {left}"
        )
    if misplaced:
        yield (f"activation functions at {listed(misplaced)}, where no layer has one: {left}")


def listed(names: Sequence[str]) -> str:
    """Some of many names, and how many there are."""
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > _SHOWN else shown


def _ends(walk: Walk) -> dict[str, list[str]]:
    """Tensors of each layer's chain that something outside of it reads."""
    outputs = {each.name for each in walk.graph.model.graph.output}
    readers: dict[str, list[Node]] = {}
    for node in walk.graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    found: dict[str, list[str]] = {}
    for tensor, chain in walk.chains.items():
        inside = all(
            (then := walk.chains.get(node.outputs[0])) is not None and then.layer == chain.layer
            for node in readers.get(tensor, ())
        )
        if not inside or tensor in outputs:
            found.setdefault(chain.layer, []).append(tensor)
    return found


def _operators(chain: Chain, makers: Mapping[str, Node]) -> list[str]:
    nodes = [makers[name] for name in chain.nodes]
    return [node.op for node in nodes if node.op not in RELABELLING]


def _function(graph: Graph, chain: Chain, makers: Mapping[str, Node]) -> Activation | None:
    """Which activation function a chain is; None for one that has no name here."""
    operators = _operators(chain, makers)
    plain = {(): Activation.NONE, ("Relu",): Activation.RELU, ("Sigmoid",): Activation.SIGMOID}
    known = plain.get(tuple(operators))
    if known is not None:
        return known
    nodes = [makers[name] for name in chain.nodes]
    constants = {name for node in nodes for name in node.inputs if name in graph.constants}
    values = [node for node in nodes if node.op not in RELABELLING]
    if any(
        prod(graph.shapes.get(name, (0,))) != 1
        for node in values
        for name in node.inputs
        if name in constants
    ):
        return None  # not the same for every channel
    try:
        x = POINTS.astype(np.float32)
        found = np.asarray(graph.mapped(nodes, chain.start, x, skip=RELABELLING), dtype=np.float64)
    except InputError:
        return None
    for function, expected in _expected().items():
        if found.size == POINTS.size and np.abs(found.ravel() - expected).max() < CLOSE:
            return function
    return None


def _expected() -> dict[Activation, Values]:
    """Values of each activation function at the points."""
    x = POINTS
    logistic = 1 / (1 + np.exp(-x))
    normal = np.array([0.5 * (1 + erf(each / 2**0.5)) for each in x.tolist()])
    return {
        Activation.NONE: x,
        Activation.RELU: np.maximum(x, 0),
        Activation.RELU6: np.clip(x, 0, 6),
        Activation.SIGMOID: logistic,
        Activation.SWISH: x * logistic,
        Activation.GELU: x * normal,
    }
