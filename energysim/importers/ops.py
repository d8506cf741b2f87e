"""What each operator of ONNX is in a network file: a layer, part of a layer, or another view.

A rule takes the state of the import and a node, and returns what the node's outputs hold. It raises
``InexpressibleError`` where no layer does exactly what the node does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from math import prod
from typing import Any

from energysim.errors import InputError
from energysim.importers.activation import ARITHMETIC, FUNCTIONS, follow
from energysim.importers.graph import Node
from energysim.importers.views import (
    NO_MARGINS,
    Axis,
    Dim,
    Margins,
    View,
    Volume,
    axes_of,
    dim,
    has_batch,
    image_of,
    is_flat,
    is_pixelwise,
    size_of,
)
from energysim.importers.walk import (
    FACTORS,
    WEIGHTS_AT,
    InexpressibleError,
    Record,
    Walk,
    Weights,
    reads,
)

Rule = Callable[[Walk, Node], "View | Sequence[View | None]"]

PLANE = 2
"""Dims of an image: height and width."""

_BATCH_AND_CHANNELS = 2
_PIXELS: frozenset[Axis] = frozenset({Axis.HEIGHT, Axis.WIDTH})
_LAYOUT = "reads its data in another layout than they were produced in"
_ACTIVATIONS = "its weights are computed from the image"


def apply(walk: Walk, node: Node) -> None:
    """Take one node into account."""
    records, left_out = len(walk.records), len(walk.left_out)
    try:
        found = RULES.get(node.op, _unknown)(walk, node)
    except InexpressibleError as reason:
        walk.leave_out(node, str(reason))
        stand_in = walk.stand_in(node)
        found = stand_in if stand_in is not None else ()
    views = (found,) if isinstance(found, View) else found
    walk.views |= {
        name: view for name, view in zip(node.outputs, views, strict=False) if name and view
    }
    follow(walk, node, made=len(walk.records) > records, left_out=len(walk.left_out) > left_out)


def _unknown(_walk: Walk, _node: Node) -> View:
    raise InexpressibleError("no kind of layer does this")


def _at(axis: int, rank: int, node: Node) -> int:
    if not -rank <= axis < rank:
        raise InputError(f"{node}: axis {axis} of a tensor of {rank} dimensions")
    return axis % rank


# -- convolutions and pools ------------------------------------------------------------------------


def _bare(walk: Walk, node: Node, view: View) -> View:
    """Note that a batch norm or bias behind this output can become part of its layer."""
    walk.bare[node.outputs[0]] = view.layers[0]
    return view


def _conv(walk: Walk, node: Node) -> View:
    at = WEIGHTS_AT[node.op]
    view = walk.view(node, padded=True)
    if not walk.is_constant(node, at):
        raise InexpressibleError(_ACTIVATIONS)
    shape = walk.shape(node, at)
    filters, channels, *taps = shape
    groups = int(node.attributes.get("group", 1))
    _check_kernel(node, taps)
    bias = _has_bias(walk, node, {"Conv": 2, "QLinearConv": 8}.get(node.op, len(node.inputs)))
    volume = image_of(view)
    pixel = prod(taps) == groups == prod(walk.out_shape(node)[2:]) == 1
    if volume is None and pixel and is_flat(view, 1) and view.margins == NO_MARGINS:
        return _fully_connected(
            walk, node, view, _weights(walk, node, at, (0, 1), (filters, channels)), bias=bias
        )
    if volume is None:
        raise InexpressibleError(_LAYOUT)
    if channels * groups != volume[0]:
        raise InputError(
            f"{node}: weights {list(shape)} in {groups} groups need {channels * groups} channels,"
            f" and its data have {volume[0]}"
        )
    kernel, fields, size = _window(walk, node, view, taps)
    depthwise = groups == filters == volume[0] and groups > 1
    record: Record = {"kind": "depthwise" if depthwise else "conv", **reads(view)}
    record |= {} if depthwise else {"out": filters}
    record |= {"kernel": kernel, **fields}
    record |= {"groups": groups} if groups > 1 and not depthwise else {}
    out = walk.add(node, record | {"bias": bias}, (filters, *size), len(shape))
    walk.weights[out.layers[0]] = _weights(
        walk, node, at, tuple(range(len(shape))), (filters, channels, *kernel)
    )
    return _bare(walk, node, out)


def _has_bias(walk: Walk, node: Node, at: int) -> bool:
    if node.input(at) and not walk.is_constant(node, at):
        raise InexpressibleError("its bias is computed from the image")
    return bool(node.input(at))


def _check_kernel(node: Node, taps: Sequence[int]) -> None:
    given = list(node.attributes.get("kernel_shape", taps))
    if given != list(taps):
        raise InputError(f"{node}: kernel_shape {given}, but its weights have {list(taps)} taps")


def _weights(
    walk: Walk, node: Node, at: int, axes: tuple[int, ...], shape: tuple[int, ...]
) -> Weights:
    zero_at = {"ConvInteger": 3, "QLinearConv": 5, "MatMulInteger": 3, "QLinearMatMul": 5}
    zero = node.input(zero_at[node.op]) if node.op in zero_at else ""
    if zero and zero not in walk.graph.constants:
        raise InexpressibleError(_ACTIVATIONS)
    return Weights(node.input(at), zero, axes, shape)


def _window(
    walk: Walk, node: Node, view: View, taps: Sequence[int]
) -> tuple[list[int], Record, tuple[int, int]]:
    """Kernel, the other fields of a window, and the size of what it gives."""
    if len(taps) not in (1, PLANE):
        raise InexpressibleError(f"slides over {len(taps)} dimensions")
    inside, outside = walk.shape(node)[2:], walk.out_shape(node)[2:]
    strides = _listed(node, "strides", taps)
    dilations = _listed(node, "dilations", taps)
    spans = [(tap - 1) * step + 1 for tap, step in zip(taps, dilations, strict=True)]
    before, after = _pads(node, inside, outside, spans, strides)
    if len(taps) == 1:
        return _line(view, taps[0], strides[0], dilations[0], (before[0], after[0]), outside[0])
    above, below, left, right = view.margins
    top, bottom = _fitted(view.volume[1], spans[0], strides[0], above + before[0],
                          below + after[0], outside[0])  # fmt: skip
    first, last = _fitted(view.volume[2], spans[1], strides[1], left + before[1],
                          right + after[1], outside[1])  # fmt: skip
    fields: Record = {"stride": strides, "pad": [top, bottom, first, last]}
    fields |= {"dilation": dilations} if dilations != [1, 1] else {}
    return list(taps), fields, (outside[0], outside[1])


def _line(
    view: View, tap: int, stride: int, dilation: int, pad: tuple[int, int], size: int
) -> tuple[list[int], Record, tuple[int, int]]:
    """A window over one dim, along the height or width that it is."""
    _, height, width = view.volume
    above, below, left, right = view.margins
    if height > 1 < width:
        if tap == stride == 1 and not any((*pad, above, below, left, right)):
            return [1, 1], {"stride": [1, 1], "pad": [0, 0, 0, 0]}, (height, width)
        raise InexpressibleError("slides over the rows of an image put end to end")
    upright = width == 1 < height
    before, after = (above, below) if upright else (left, right)
    extent, span = (height if upright else width), (tap - 1) * dilation + 1
    margins = [*_fitted(extent, span, stride, before + pad[0], after + pad[1], size)]
    fields: Record = {
        "stride": [stride, 1] if upright else [1, stride],
        "pad": [*margins, 0, 0] if upright else [0, 0, *margins],
    }
    if dilation > 1:
        fields["dilation"] = [dilation, 1] if upright else [1, dilation]
    return ([tap, 1] if upright else [1, tap]), fields, ((size, 1) if upright else (1, size))


def _listed(node: Node, key: str, taps: Sequence[int]) -> list[int]:
    found = [int(each) for each in node.attributes.get(key, [1] * len(taps))]
    if len(found) != len(taps) or min(found) < 1:
        raise InputError(f"{node}: {key} are {found}; allowed: {len(taps)} numbers of 1 or more")
    return found


def _pads(
    node: Node,
    inside: Sequence[int],
    outside: Sequence[int],
    spans: Sequence[int],
    strides: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Zeros before and after each dim, as given or as ``auto_pad`` asks."""
    rank = len(spans)
    how = node.attributes.get("auto_pad", "NOTSET")
    if how == "VALID":
        return [0] * rank, [0] * rank
    if how in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (out - 1) * step + span - size)
            for size, out, span, step in zip(inside, outside, spans, strides, strict=True)
        ]
        less, more = [each // 2 for each in total], [each - each // 2 for each in total]
        return (less, more) if how == "SAME_UPPER" else (more, less)
    given = [int(each) for each in node.attributes.get("pads", [0] * 2 * rank)]
    if len(given) != 2 * rank or min(given) < 0:
        raise InputError(f"{node}: pads are {given}; allowed: {2 * rank} numbers of 0 or more")
    return given[:rank], given[rank:]


def _fitted(
    extent: int, span: int, stride: int, before: int, after: int, count: int
) -> tuple[int, int]:
    """Zeros that give so many outputs: those given, or more behind where ONNX rounds up."""
    if (before + extent + after - span) // stride + 1 == count:
        return before, after
    return before, max(0, (count - 1) * stride + span - extent - before)


def _conv_transpose(walk: Walk, node: Node) -> View:
    view = walk.view(node)
    if not walk.is_constant(node, 1):
        raise InexpressibleError(_ACTIVATIONS)
    channels, out, *taps = walk.shape(node, 1)
    _check_kernel(node, taps)
    volume = image_of(view)
    if volume is None or len(taps) != PLANE:
        raise InexpressibleError(_LAYOUT)
    if channels != volume[0]:
        raise InputError(
            f"{node}: its weights need {channels} channels, and its data have {volume[0]}"
        )
    strides, dilations = _listed(node, "strides", taps), _listed(node, "dilations", taps)
    if strides == [1, 1]:
        return _turned(walk, node, view, dilations)
    height, width = walk.out_shape(node)[2:]
    moved = any(any(node.attributes.get(key, ())) for key in ("pads", "output_padding"))
    apart = taps == strides and dilations == [1, 1] and not moved
    patches = (height, width) == (volume[1] * strides[0], volume[2] * strides[1])
    if node.attributes.get("group", 1) != 1 or not apart or not patches:
        raise InexpressibleError("a transposed convolution with groups or overlapping patches")
    fields: Record = {"kind": "transposed", **reads(view), "out": out, "kernel": taps}
    fields |= {"stride": strides, "bias": _has_bias(walk, node, 2)}
    found = walk.add(node, fields, (out, height, width))
    shape = (out * prod(taps), channels)
    walk.weights[found.layers[0]] = _weights(walk, node, 1, (1, 2, 3, 0), shape)
    return _bare(walk, node, found)


def _turned(walk: Walk, node: Node, view: View, dilations: list[int]) -> View:
    """A transposed convolution of stride 1: a convolution with the taps in the other order.

    Where the one cuts off so many rows, the other puts as many less than a kernel's around.
    """
    channels, per_group, *taps = walk.shape(node, 1)
    groups = int(node.attributes.get("group", 1))
    spans = [(tap - 1) * step for tap, step in zip(taps, dilations, strict=True)]
    size = walk.out_shape(node)[2:]
    inside = view.volume[1:]
    ones = [1] * PLANE
    cut = _pads(node, size, inside, [each + 1 for each in spans], ones)[0]
    before = [span - each for span, each in zip(spans, cut, strict=True)]
    after = [
        out - extent + span - first
        for out, extent, span, first in zip(size, inside, spans, before, strict=True)
    ]
    if min(*before, *after) < 0:
        raise InexpressibleError("a transposed convolution that cuts off more than it adds")
    fields: Record = {"kind": "conv", **reads(view), "out": per_group * groups, "kernel": taps}
    fields |= {"pad": [before[0], after[0], before[1], after[1]], "groups": groups}
    fields |= {"dilation": dilations, "bias": _has_bias(walk, node, 2)}
    found = walk.add(node, fields, (per_group * groups, size[0], size[1]))
    shape = (per_group * groups, channels // groups, *taps)
    held = (groups, channels // groups, per_group, *taps)
    weights = _weights(walk, node, 1, (0, 2, 1, 3, 4), shape)
    walk.weights[found.layers[0]] = replace(weights, held=held)
    return _bare(walk, node, found)


def _pool(mode: str) -> Rule:
    def rule(walk: Walk, node: Node) -> View:
        view = walk.view(node, padded=True)
        volume = image_of(view)
        if volume is None:
            raise InexpressibleError(_LAYOUT)
        taps = [int(each) for each in node.attributes["kernel_shape"]]
        kernel, fields, size = _window(walk, node, view, taps)
        if "dilation" in fields:
            raise InexpressibleError("a pool with dilation")
        record = {"kind": "pool", **reads(view), "kernel": kernel, **fields, "mode": mode}
        return walk.add(node, record, (volume[0], *size), len(taps) + _BATCH_AND_CHANNELS)

    return rule


def _global_pool(mode: str) -> Rule:
    def rule(walk: Walk, node: Node) -> View:
        shape = walk.shape(node)
        return _reduced(walk, node, mode, range(_BATCH_AND_CHANNELS, len(shape)), keep=True)

    return rule


def _reduce(mode: str) -> Rule:
    def rule(walk: Walk, node: Node) -> View:
        rank = len(walk.shape(node))
        axes = node.attributes.get("axes")
        if axes is None and node.input(1):
            if not walk.is_constant(node, 1):
                raise InexpressibleError("its axes are computed from the image")
            axes = walk.graph.value(node.input(1)).ravel().tolist()
        if not axes:
            axes = [] if node.attributes.get("noop_with_empty_axes") else range(rank)
        keep = bool(node.attributes.get("keepdims", 1))
        return _reduced(walk, node, mode, [_at(each, rank, node) for each in axes], keep=keep)

    return rule


def _reduced(walk: Walk, node: Node, mode: str, axes: Sequence[int], *, keep: bool) -> View:
    """Sum up the whole image, channel by channel."""
    view = walk.view(node)
    inside = [view.dims[each] for each in axes]
    rest = [each for index, each in enumerate(view.dims) if index not in axes]
    dims = [
        () if index in axes else each
        for index, each in enumerate(view.dims)
        if keep or index not in axes
    ]
    if all(size_of(each) == 1 for each in inside):
        return replace(view, dims=tuple(dims))
    pixels = prod(view.volume[1:]) == prod(map(size_of, inside))
    if not pixels or any(not axes_of(each) <= _PIXELS for each in inside):
        raise InexpressibleError("sums over something else than height and width")
    if any(axes_of(each) & _PIXELS for each in rest):
        raise InexpressibleError("sums over a part of the image")
    record = {"kind": "pool", **reads(view), "kernel": "global", "mode": mode}
    return walk.add_as(node, record, (view.volume[0], 1, 1), dims)


# -- matrix products -------------------------------------------------------------------------------


def _gemm(walk: Walk, node: Node) -> View:
    view = walk.view(node)
    if not walk.is_constant(node, 1):
        raise InexpressibleError(_ACTIVATIONS)
    if node.attributes.get("transA"):
        view = view.transposed((1, 0))
    axes = (0, 1) if node.attributes.get("transB") else (1, 0)
    shape = walk.shape(node, 1)
    return _product(walk, node, view, -1, _weights(walk, node, 1, axes, _picked(shape, axes)),
                    bias=_has_bias(walk, node, 2))  # fmt: skip


def _picked(shape: Sequence[int], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[each] for each in axes)


def _matmul(walk: Walk, node: Node) -> View:
    first, second = FACTORS[node.op]
    if walk.is_constant(node, second):
        shape = walk.shape(node, second)
        axes, weights_at, view_at, at = (1, 0), second, first, -1
    elif walk.is_constant(node, first):
        shape = walk.shape(node, first)
        axes, weights_at, view_at, at = (0, 1), first, second, -2
    else:
        return _attention(walk, node, walk.view(node, first), walk.view(node, second))
    if len(shape) != PLANE or len(walk.shape(node, view_at)) < PLANE:
        raise InexpressibleError("its weights are no matrix")
    weights = _weights(walk, node, weights_at, axes, _picked(shape, axes))
    if weights_at == first:
        weights = replace(weights, zero_point=node.input(2) if node.op != "MatMul" else "")
    return _product(walk, node, walk.view(node, view_at), at, weights, bias=False)


def _product(walk: Walk, node: Node, view: View, at: int, weights: Weights, *, bias: bool) -> View:
    """Weights times one dim of a tensor: all of an image, or the channels of each pixel."""
    out, depth = weights.shape
    if is_flat(view, at):
        found = _fully_connected(walk, node, view, weights, bias=bias)
        dims: list[Dim] = list(view.dims)
        dims[at] = dim(Axis.CHANNEL, out)
        return replace(found, dims=tuple(dims))
    if not is_pixelwise(view, at) or depth != view.volume[0]:
        raise InexpressibleError(_LAYOUT)
    dims = list(view.dims)
    dims[at] = dim(Axis.CHANNEL, out)
    volume: Volume = (out, *view.volume[1:])
    record = {"kind": "conv", **reads(view), "out": out, "kernel": 1, "bias": bias}
    found = walk.add_as(node, record, volume, dims)
    walk.weights[found.layers[0]] = weights
    return _bare(walk, node, found)


def _fully_connected(walk: Walk, node: Node, view: View, weights: Weights, *, bias: bool) -> View:
    out, depth = weights.shape
    if depth != prod(view.volume):
        raise InputError(
            f"{node}: its weights take {depth} elements of an image that has {prod(view.volume)}"
        )
    record = {"kind": "linear", **reads(view), "out": out, "bias": bias}
    found = walk.add(node, record, (out, 1, 1), len(walk.out_shape(node)))
    walk.weights[found.layers[0]] = weights
    return _bare(walk, node, found)


def _attention(walk: Walk, node: Node, first: View, second: View) -> View:
    """The product of two activations, head by head."""
    ranks = {len(first.dims), len(second.dims)}
    if len(ranks) > 1 or min(ranks) < PLANE or not (first.whole and second.whole):
        raise InexpressibleError("a product of activations of different rank, or joined ones")
    *heads, rows, inner = first.dims
    *others, across, columns = second.dims
    if any(map(has_batch, (rows, inner, across, columns))):
        raise InexpressibleError(_LAYOUT)
    sizes = [size_of(each) for each in heads]
    if sizes != [size_of(each) for each in others] or any(
        not axes_of(each) <= {Axis.CHANNEL} for each in (*heads, *others)
    ):
        raise InexpressibleError("a product of activations whose heads are no channels")
    groups = prod(sizes) // walk.batch
    by_channels = axes_of(across) <= {Axis.CHANNEL} and axes_of(columns) <= _PIXELS
    by_positions = axes_of(across) <= _PIXELS and axes_of(columns) <= {Axis.CHANNEL}
    if not (axes_of(rows) <= _PIXELS and axes_of(inner) <= {Axis.CHANNEL}) or not (
        by_channels or by_positions
    ):
        raise InexpressibleError(_LAYOUT)
    width = size_of(columns)
    walk.unordered += [view.layers[0] for view in (first, second) if not view.in_order]
    record: Record = {"kind": "matmul", "input": [first.layers[0], second.layers[0]]}
    record |= {"over": "channels" if by_channels else "positions"}
    record |= {"groups": groups} if groups > 1 else {}
    volume: Volume = (groups * width, *first.volume[1:])
    return walk.add_as(node, record, volume, (*heads, rows, dim(Axis.CHANNEL, width)))


# -- element by element ----------------------------------------------------------------------------


def _fused(walk: Walk, node: Node) -> View:
    """An activation function: done where its operand is produced, so that it moves nothing."""
    return walk.view(node, padded=True)


def _batch_norm(walk: Walk, node: Node) -> View:
    view = walk.view(node)
    if node.attributes.get("training_mode"):
        raise InexpressibleError("a batch norm in training")
    name = walk.bare.get(node.input(0))
    record = walk.records.get(name or "", {})
    foldable = record.get("kind") in ("conv", "depthwise", "transposed")
    if name is not None and foldable and walk.only_reader(node.input(0)):
        record["batch_norm"] = True
        return view
    return _normed(walk, node, view, "batch_norm")


def _norm(kind: str) -> Rule:
    return lambda walk, node: _normed(walk, node, walk.view(node), kind)


def _normed(walk: Walk, node: Node, view: View, kind: str) -> View:
    return walk.add_as(node, {"kind": kind, **reads(view)}, view.volume, view.dims)


def _elementwise(walk: Walk, node: Node) -> View:
    """Several operands: constants are fused, other layers are added or multiplied."""
    at = walk.operands(node)
    views = [walk.view(node, index) for index in at]
    shape = walk.out_shape(node)
    constants = [walk.shape(node, index) for index in range(len(node.inputs))
                 if walk.is_constant(node, index)]  # fmt: skip
    largest = max(map(prod, constants), default=1)
    full = next((view for view, index in zip(views, at, strict=True)
                 if walk.shape(node, index) == shape), None)  # fmt: skip
    if full is None or largest > max(full.volume[0], 1):
        raise InexpressibleError("a constant operand, or a product, larger than the channels")
    if len({(view.layers, view.volume, view.origin) for view in views}) == 1:
        return _with_bias(walk, node, full, at, constants)
    if node.op in ("Add", "Sum", "Sub"):
        return _combined(walk, node, views, "add")
    if node.op == "Mul":
        return _combined(walk, node, sorted(views, key=lambda each: each is not full), "multiply")
    raise InexpressibleError("no kind of layer does this to two activations")


def _with_bias(
    walk: Walk, node: Node, view: View, at: Sequence[int], constants: Sequence[tuple[int, ...]]
) -> View:
    """Make an added vector the bias of the layer before it, where it has none."""
    tensor = node.input(at[0])
    record = walk.records.get(walk.bare.get(tensor, ""), {})
    added = node.op == "Add" and len(at) == 1 and walk.only_reader(tensor)
    if added and record.get("bias") is False and prod(constants[0]) == view.volume[0]:
        record["bias"] = True
        return _bare(walk, node, view)
    return view


def _combined(walk: Walk, node: Node, views: Sequence[View], kind: str) -> View:
    first, *others = views
    if not all(view.whole for view in views):
        raise InexpressibleError(f"{kind} of joined or partly read layers")
    scale = (first.volume[0], 1, 1)
    for other in others:
        alike = other.volume == first.volume and _axes(other) == _axes(first)
        scales = kind == "multiply" and other.volume == scale and _channels_match(first, other)
        if not (alike or scales):
            raise InexpressibleError(f"{kind} of layers of different size or layout")
    walk.unordered += [name for view in views for name in view.layers if not view.in_order]
    record = {"kind": kind, "input": [view.layers[0] for view in views]}
    return walk.add_as(node, record, first.volume, first.dims)


def _axes(view: View) -> list[frozenset[Axis]]:
    return [axes_of(each) for each in view.dims]


def _channels_match(full: View, scale: View) -> bool:
    """Whether the channels stand in the same dim, counted from behind as broadcasting does."""
    pairs = zip(reversed(full.dims), reversed(scale.dims), strict=False)
    return all(
        not axes_of(small) or axes_of(large) == axes_of(small) == {Axis.CHANNEL}
        for large, small in pairs
    )


# -- other views of the same data ------------------------------------------------------------------


def _same(walk: Walk, node: Node) -> View:
    view = walk.view(node, padded=True)
    if node.op == "Dropout" and node.attributes.get("training_mode"):
        raise InexpressibleError("dropout in training")
    return view


def _reshape(walk: Walk, node: Node) -> View:
    return _relabelled(node, walk.view(node), walk.out_shape(node))


def _relabelled(node: Node, view: View, sizes: Sequence[int]) -> View:
    held = prod(map(size_of, view.dims))
    if held != prod(sizes):
        raise InputError(f"{node}: makes a tensor {list(sizes)} of {held} elements")
    return view.reshaped(sizes)


def _transpose(walk: Walk, node: Node) -> View:
    rank = len(walk.shape(node))
    order = [int(each) for each in node.attributes.get("perm", range(rank)[::-1])]
    return walk.view(node).transposed(order)


def _expand(walk: Walk, node: Node) -> View:
    view = walk.view(node)
    if prod(walk.out_shape(node)) != prod(walk.shape(node)):
        raise InexpressibleError("repeats its data")
    return _relabelled(node, view, walk.out_shape(node))


def _concat(walk: Walk, node: Node) -> View:
    if len(walk.operands(node)) < len(node.inputs):
        raise InexpressibleError("joins constants")
    views = [walk.view(node, index) for index in range(len(node.inputs))]
    first = views[0]
    at = _at(int(node.attributes["axis"]), len(first.dims), node)
    if len(views) == 1:
        return first
    pixelwise = all(is_pixelwise(view, at) for view in views)
    if not pixelwise and not all(is_flat(view, at) for view in views):
        raise InexpressibleError("joins something else than channels")
    if any(view.volume[1:] != first.volume[1:] for view in views):
        raise InexpressibleError("joins images of different size")
    others = [[each for index, each in enumerate(_axes(view)) if index != at] for view in views]
    if pixelwise and any(each != others[0] for each in others):
        raise InexpressibleError(_LAYOUT)
    size = walk.out_shape(node)[at]
    dims = list(first.dims)
    dims[at] = dim(Axis.CHANNEL if pixelwise else Axis.MIXED, size)
    starts = accumulate((view.joined for view in views), initial=0)
    numbers = [start + each for start, view in zip(starts, views, strict=False)
               for each in view.numbers]  # fmt: skip
    return View(
        tuple(name for view in views for name in view.layers),
        sum(view.joined for view in views),
        (sum(view.volume[0] for view in views), *first.volume[1:]),
        tuple(dims),
        order=tuple(numbers),
    )


def _part(view: View, kept: Sequence[Sequence[int]]) -> View:
    """Leave only these entries of each dim."""
    for at, entries in enumerate(kept):
        size = size_of(view.dims[at])
        if len(entries) == size and tuple(entries) == tuple(range(size)):
            continue
        narrowed = view.narrowed(at, entries) if len(entries) <= size else None
        if narrowed is None:
            raise InexpressibleError("cuts out something else than channels")
        view = narrowed
    return view


def _slice(walk: Walk, node: Node) -> View:
    shape, left = walk.shape(node), walk.out_shape(node)
    kept: list[Sequence[int]] = [range(size) for size in left]
    starts, ends = (_integers(walk, node, key, at) for at, key in ((1, "starts"), (2, "ends")))
    if starts is not None and ends is not None:
        axes = _integers(walk, node, "axes", 3) or range(len(starts))
        steps = _integers(walk, node, "steps", 4) or [1] * len(starts)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            at = _at(axis, len(shape), node)
            kept[at] = range(shape[at])[start:end:step]
    return _part(walk.view(node), kept)


def _integers(walk: Walk, node: Node, key: str, at: int) -> list[int] | None:
    """Integers from an attribute, or from a constant input; None where there are none."""
    if key in node.attributes:
        return [int(each) for each in node.attributes[key]]
    if not walk.is_constant(node, at):
        return None
    return [int(each) for each in walk.graph.value(node.input(at)).ravel().tolist()]


def _split(walk: Walk, node: Node) -> list[View | None]:
    view, shape = walk.view(node), walk.shape(node)
    at = _at(int(node.attributes.get("axis", 0)), len(shape), node)
    sizes = [walk.out_shape(node, index)[at] if name else 0
             for index, name in enumerate(node.outputs)]  # fmt: skip
    every: list[Sequence[int]] = [range(size) for size in shape]
    found: list[View | None] = []
    for name, start, size in zip(node.outputs, accumulate(sizes, initial=0), sizes, strict=False):
        kept = [*every[:at], range(start, start + size), *every[at + 1 :]]
        found.append(_part(view, kept) if name else None)
    return found


def _gather(walk: Walk, node: Node) -> View:
    if not walk.is_constant(node, 1):
        raise InexpressibleError("which data it reads depends on the image")
    view, shape = walk.view(node), list(walk.shape(node))
    at = _at(int(node.attributes.get("axis", 0)), len(shape), node)
    entries = [int(each) for each in walk.graph.value(node.input(1)).ravel().tolist()]
    if any(not -shape[at] <= each < shape[at] for each in entries):
        raise InputError(f"{node}: indices {entries} of a dimension of {shape[at]}")
    kept: list[Sequence[int]] = [range(size) for size in shape]
    kept[at] = [each % shape[at] for each in entries]
    return _relabelled(node, _part(view, kept), walk.out_shape(node))


def _pad(walk: Walk, node: Node) -> View:
    view = walk.view(node, padded=True)
    rank = len(walk.shape(node))
    given = node.attributes.get("pads")
    if given is None:
        if not walk.is_constant(node, 1):
            raise InexpressibleError("how much it pads depends on the image")
        given = walk.graph.value(node.input(1)).ravel().tolist()
    axes: Sequence[Any] = range(rank)
    if node.input(3):
        axes = walk.graph.value(node.input(3)).ravel().tolist()
    at = [_at(int(each), rank, node) for each in axes]
    pads = [(0, 0)] * rank
    for index, axis in enumerate(at):
        pads[axis] = int(given[index]), int(given[index + len(at)])
    if not any(map(any, pads)):
        return view
    if any(map(any, pads[:_BATCH_AND_CHANNELS])) or min(map(min, pads)) < 0:
        raise InexpressibleError("pads channels, or cuts off instead")
    if image_of(view) is None or rank > _BATCH_AND_CHANNELS + PLANE:
        raise InexpressibleError(_LAYOUT)
    if node.attributes.get("mode", "constant") != "constant":
        walk.leave_out(node, "pads with copies of the data")
    return replace(view, margins=_wider(view, pads[_BATCH_AND_CHANNELS:]))


def _wider(view: View, pads: Sequence[tuple[int, int]]) -> Margins:
    above, below, left, right = view.margins
    if len(pads) == 1:
        upright = view.volume[2] == 1 < view.volume[1]
        if view.volume[1] > 1 < view.volume[2]:
            raise InexpressibleError(_LAYOUT)
        pads = [*pads, (0, 0)] if upright else [(0, 0), *pads]
    (top, bottom), (first, last) = pads
    return above + top, below + bottom, left + first, right + last


_SAME_DATA = "Cast CastLike DequantizeLinear Dropout DynamicQuantizeLinear Identity QuantizeLinear"

RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv"), _conv),
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool("max"),
    "AveragePool": _pool("average"),
    "GlobalMaxPool": _global_pool("max"),
    "GlobalAveragePool": _global_pool("average"),
    "ReduceMax": _reduce("max"),
    "ReduceMean": _reduce("average"),
    "Gemm": _gemm,
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), _matmul),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _norm("layer_norm"),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _norm("softmax")),
    **dict.fromkeys(FUNCTIONS.split(), _fused),
    **dict.fromkeys(ARITHMETIC.split(), _elementwise),
    **dict.fromkeys(_SAME_DATA.split(), _same),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    **dict.fromkeys(("Expand", "Tile"), _expand),
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Pad": _pad,
}
"""Operator -> rule."""
