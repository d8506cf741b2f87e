"""ONNX models as networks: the layers of a graph, its masks, and what has no layer.

References
----------
Open Neural Network Exchange, operator schemas: https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from energysim.errors import InputError, InputErrors
from energysim.importers.views import Axis
from energysim.network import Network, NetworkSpec, build_network

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from energysim.importers.graph import Graph
    from energysim.importers.walk import LeftOut, Record, Walk, Weights

SUFFIX = ".onnx"
"""Of the files that are read here."""

_LAYOUTS: dict[int, tuple[tuple[Axis, ...], ...]] = {
    1: ((Axis.CHANNEL,),),
    2: ((Axis.BATCH, Axis.CHANNEL),),
    3: ((Axis.BATCH, Axis.CHANNEL, Axis.WIDTH), (Axis.BATCH, Axis.HEIGHT, Axis.CHANNEL)),
    4: (
        (Axis.BATCH, Axis.CHANNEL, Axis.HEIGHT, Axis.WIDTH),
        (Axis.BATCH, Axis.HEIGHT, Axis.WIDTH, Axis.CHANNEL),
    ),
}
"""What the dims of an image may be, by their number. The file does not say: its nodes do."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A network from a file of another tool."""

    network: Network
    masks: Mapping[str, npt.NDArray[np.bool_]]
    """layer -> which weights are not zero, of layers with zeros"""
    missing: tuple[str, ...]
    """what costs something and has no layer, one line each"""
    notes: tuple[str, ...]
    """what else a reader should know"""


def import_onnx(
    path: Path | str,
    *,
    batch: int | None = None,
    sizes: Mapping[str, tuple[int, ...]] | None = None,
    weights_sparsity: bool = False,
    strict: bool = False,
) -> Imported:
    """Read an ONNX model as a network of one image.

    Parameters
    ----------
    path : Path or str
        The file.
    batch : int, optional
        Images in a batch dimension that the file leaves open, by default 1. The layers are those
        of one image all the same.
    sizes : mapping of str to tuple of int, optional
        Shapes of inputs, for dimensions that the file leaves open.
    weights_sparsity : bool
        Take the zeros of the weights as masks.
    strict : bool
        Refuse a model of which anything has no layer.

    Returns
    -------
    Imported

    Raises
    ------
    InputError
        If the package onnx is not there, or the file is wrong, or no layer comes of it.
    """
    from energysim.importers.graph import read_graph

    path = Path(path)
    if find_spec("onnx") is None:
        raise InputError(
            "reading ONNX needs the package onnx. Try: pip install 'energysim[onnx]'",
            where=str(path),
        )
    try:
        graph = read_graph(path, batch=batch, sizes=sizes)
        return _imported(graph, weights_sparsity=weights_sparsity, strict=strict)
    except UnicodeDecodeError:  # names are decoded when they are looked at
        raise InputError("is damaged: it holds names that are no text", where=str(path)) from None
    except InputErrors:
        raise
    except InputError as error:
        raise error if error.where else InputError(str(error), where=str(path)) from None


def _imported(graph: Graph, *, weights_sparsity: bool, strict: bool) -> Imported:
    walk = _best_walk(graph)
    missing = tuple(_missing(walk))
    if strict and missing:
        raise InputErrors(f"{graph.path}: no layer for {line}" for line in missing)
    if not walk.records:
        raise InputError(
            f"no layer comes of it: {'; '.join(missing) or 'its nodes only rearrange data'}"
        )
    unsaid = _unsaid(walk)
    network = _network(walk, missing)
    masks, notes = _masks(walk) if weights_sparsity else ({}, [])
    if walk.batch > 1:
        notes = [f"the file has {walk.batch} images at once; the layers are those of one", *notes]
    if graph.idle:
        notes.append(f"{len(graph.idle)} nodes that no output needs are left away")
    notes += unsaid
    return Imported(network, masks, missing, tuple(notes))


def _unsaid(walk: Walk) -> list[str]:
    """Settle the activation functions; what of them and of orders the layers don't say."""
    from energysim.importers.activation import listed, settle

    notes = settle(walk)
    if walk.unordered:
        notes.append(
            f"sums and products read {listed(walk.unordered)} with channels in another order, which"
            " is lost and which no count depends on"
        )
    return notes


def _best_walk(graph: Graph) -> Walk:
    """Go through the graph with the meaning of the image's dims that leaves least out."""
    from energysim.importers.ops import apply
    from energysim.importers.walk import Walk

    rank = len(graph.shapes[graph.image])
    if rank not in _LAYOUTS:
        raise InputError(
            f"its input '{graph.image}' has {rank} dimensions; allowed: 1 to {max(_LAYOUTS)}, such"
            " as batch, channels, height, width"
        )
    walks = []
    errors = []
    for layout in _LAYOUTS[rank]:
        walk = Walk.start(graph, layout)
        try:
            for node in graph.nodes:
                apply(walk, node)
        except InputError as error:
            errors.append(error)
            continue
        walks.append(walk)
    best = min(walks, key=_left_out, default=None)
    if best is None or (errors and best.left_out):
        raise errors[0]
    return best


def _left_out(walk: Walk) -> tuple[int, int]:
    """MACs and elements of nodes without a layer."""
    return sum(each.macs for each in walk.left_out), sum(each.elements for each in walk.left_out)


def _missing(walk: Walk) -> Iterator[str]:
    """Nodes without a layer, once for each operator and reason, the largest share first."""
    from energysim.importers.walk import macs_of

    shapes = walk.graph.shapes
    macs = sum(macs_of(node, shapes) for node in walk.graph.nodes)
    groups = [
        (key, list(found)) for key, found in groupby(sorted(walk.left_out, key=_group), key=_group)
    ]
    groups.sort(key=lambda each: -sum(one.elements for one in each[1]))
    for (op, reason), found in groups:
        share = sum(each.elements for each in found) / max(walk.elements, 1)
        lost = sum(each.macs for each in found)
        of_macs = f" and {lost / macs:.1%} of the MACs" if lost else ""
        names = ", ".join(f"'{each.node.name}'" for each in found[:2])
        more = ", ..." if len(found) > 2 else ""  # noqa: PLR2004 - two names will do
        yield f"{op} x{len(found)} ({names}{more}), {share:.1%} of the data{of_macs}: {reason}"


def _group(each: LeftOut) -> tuple[str, str]:
    return each.node.op, each.reason


def _network(walk: Walk, missing: tuple[str, ...]) -> Network:
    """Build the network, and check every layer's size against ONNX's own inference."""
    from energysim.importers.walk import valid_name

    graph, path = walk.graph, walk.graph.path
    made_by = f", producer {graph.producer}" if graph.producer else ""
    image = walk.views[graph.image].volume
    data: dict[str, Any] = {
        "name": valid_name(path.stem) or "network",
        "source": f"{path.name} (sha256 {graph.sha256}, opset {graph.opset}{made_by})",
        "missing": list(missing),
        "input": list(image),
        "activation": "none",
        "layers": list(_with_shuffles(walk)),
    }
    try:
        spec = NetworkSpec.model_validate_json(json.dumps(data))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"gives no valid network: {where}: {first['msg']}") from None
    network = build_network(spec, None, _no_base)
    for layer in network.layers:
        if layer.output != walk.volumes[layer.name]:
            raise RuntimeError(
                f"layer {layer.name} gives {layer.output}, and ONNX says {walk.volumes[layer.name]}"
            )
    return network


def _with_shuffles(walk: Walk) -> Iterator[Record]:
    """The records, with a shuffle before those that read all channels of a layer dealt out."""
    from energysim.importers.walk import unused_name

    named: dict[tuple[tuple[str, ...], int], str] = {}
    for name, record in walk.records.items():
        read = record.get("channels")
        if isinstance(read, list):
            given = record["input"]
            inputs = (given,) if isinstance(given, str) else tuple(given)
            total = sum(walk.width(each) for each in inputs)
            groups = next((each for each in range(2, total) if _is_dealt(read, total, each)), 0)
            if groups and (inputs, groups) not in named:
                taken = {*walk.records, *named.values()}
                named[inputs, groups] = unused_name(f"{inputs[-1]}.shuffle", taken)
                yield {"name": named[inputs, groups], "kind": "shuffle", "input": list(inputs),
                       "groups": groups}  # fmt: skip
            if groups:
                rest = {key: value for key, value in record.items() if key != "channels"}
                yield rest | {"input": named[inputs, groups]}
                continue
        yield walk.records[name]


def _is_dealt(read: list[int], total: int, groups: int) -> bool:
    from energysim.network.wiring import dealt

    return total % groups == 0 and tuple(read) == dealt(range(total), groups)


def _no_base(name: str) -> Network:
    raise InputError(f"an imported network has no base, got {name!r}")


def _masks(walk: Walk) -> tuple[dict[str, npt.NDArray[np.bool_]], list[str]]:
    """Which weights are not zero, for layers where some are; and what stands out."""
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    dead = []
    blocks = []
    for name, weights in walk.weights.items():
        mask = _mask(walk.graph, weights)
        if not mask.any():
            dead.append(name)
        elif not mask.all():
            masks[name] = mask
            blocks += [name] if _two_of_four(mask) else []
    notes = []
    if dead:
        notes.append(
            f"all weights are zero in {len(dead)} layers ('{dead[0]}'{', ...' * (len(dead) > 1)}),"
            " which are taken as dense: placeholders, not weights"
        )
    if walk.weights and not masks:
        notes.append("no layer has some weights that are zero and some that are not")
    if blocks:
        notes.append(f"2:4 along the input channels holds in {', '.join(blocks)}")
    return masks, notes


def _mask(graph: Graph, weights: Weights) -> npt.NDArray[np.bool_]:
    import numpy as np

    values = graph.value(weights.tensor)
    zero: npt.NDArray[Any] = np.zeros((), dtype=values.dtype)
    if weights.zero_point:
        zero = graph.value(weights.zero_point)
        # One for each filter, where there is more than one.
        if zero.size > 1:
            at = weights.axes[0]
            zero = zero.reshape([-1 if each == at else 1 for each in range(values.ndim)])
    live: npt.NDArray[np.bool_] = np.asarray(values != zero, dtype=np.bool_)
    live = live.reshape(weights.held or live.shape)
    return np.ascontiguousarray(live.transpose(weights.axes).reshape(weights.shape))


def _two_of_four(mask: npt.NDArray[np.bool_]) -> bool:
    filters, channels, *_ = mask.shape
    whole = channels - channels % 4
    if not whole:
        return False
    blocks = mask[:, :whole].reshape(filters, whole // 4, 4, -1)
    return bool((blocks.sum(axis=2) <= 2).all())  # noqa: PLR2004 - the format is called 2:4
