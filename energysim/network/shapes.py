"""The shape of each kind of layer, from its record and the sizes of what it reads."""

from __future__ import annotations

from energysim.axes import Shape
from energysim.network.report import Place
from energysim.network.spec import (
    AddSpec,
    ConvSpec,
    DepthwiseSpec,
    LinearSpec,
    MatmulSpec,
    MixtureNormSpec,
    MultiplySpec,
    NormSpec,
    PadField,
    PairField,
    PoolSpec,
    SoftmaxSpec,
    TransposedSpec,
)
from energysim.network.types import Over, Pair, Volume
from energysim.network.wiring import operands

Reader = (
    ConvSpec
    | DepthwiseSpec
    | TransposedSpec
    | LinearSpec
    | PoolSpec
    | NormSpec
    | MixtureNormSpec
    | SoftmaxSpec
)
"""Records of layers that read one volume, joined or not."""

Combiner = AddSpec | MultiplySpec | MatmulSpec
"""Records of layers that read several volumes, each by itself."""


def reader_shape(record: Reader, size: Volume, at: Place) -> Shape | None:
    """Shape of a layer that reads one volume; None where there can be none."""
    channels, height, width = size
    match record:
        case ConvSpec():
            return _conv_shape(record, size, at)
        case DepthwiseSpec():
            return _window_shape(record, size, (channels, 1, 1), at)
        case TransposedSpec():
            return _transposed_shape(record, size, at)
        case LinearSpec():
            return Shape((1, 1, record.out, channels * height * width, 1, 1, 1, 1))
        case PoolSpec():
            return _pool_shape(record, size, at)
        case NormSpec() | MixtureNormSpec() | SoftmaxSpec():
            return Shape((1, channels, 1, 1, height, width, 1, 1), size=(height, width))


def produced(record: Reader | Combiner, sizes: list[Volume]) -> Volume | None:
    """Size of the output where the shape does not have it: of patches, and of scaled channels."""
    match record:
        case TransposedSpec():
            (_, height, width), (rows, columns) = sizes[0], pair(record.stride)
            return record.out, height * rows, width * columns
        case MultiplySpec() if sizes[0] != sizes[1]:
            return sizes[0]
    return None


def combined_shape(
    record: Combiner, inputs: tuple[str, ...], sizes: list[Volume], at: Place
) -> Shape | None:
    """Shape of a layer that reads several volumes; None where there can be none."""
    match record:
        case AddSpec():
            return _add_shape(inputs, sizes, at)
        case MultiplySpec():
            return _multiply_shape(inputs, sizes, at)
        case MatmulSpec():
            return _matmul_shape(record, inputs, sizes, at)


def _conv_shape(record: ConvSpec, size: Volume, at: Place) -> Shape | None:
    channels = size[0]
    groups, out = record.groups, record.out
    if channels % groups or out % groups:
        at.problem(
            "groups",
            f"groups: {groups} must divide the input channels ({channels}) and the output"
            f" channels ({out})",
        )
        return None
    return _window_shape(record, size, (groups, out // groups, channels // groups), at)


def _pool_shape(record: PoolSpec, size: Volume, at: Place) -> Shape | None:
    channels, height, width = size
    if record.kernel != "global":
        kernel = pair(record.kernel)
        stride = pair(record.stride) if record.stride is not None else kernel
        return _window(size, (channels, 1, 1), kernel, stride, (1, 1), record.pad, at)
    for key, given in (("stride", record.stride is not None), ("pad", record.pad != 0)):
        if given:
            at.problem(key, f"kernel: global covers the whole input; leave out {key}")
    return Shape((1, channels, 1, 1, 1, 1, height, width), size=(height, width))


def _transposed_shape(record: TransposedSpec, size: Volume, at: Place) -> Shape | None:
    """The 1x1 convolution that it is: one filter for each pixel of a patch."""
    channels, height, width = size
    kernel, stride = pair(record.kernel), pair(record.stride)
    if kernel != stride:
        at.problem(
            "kernel",
            "a transposed convolution must have a kernel as large as its stride, so that patches"
            f" don't overlap, got kernel {list(kernel)} and stride {list(stride)}",
        )
        return None
    filters = record.out * stride[0] * stride[1]
    return Shape((1, 1, filters, channels, height, width, 1, 1), size=(height, width))


def _multiply_shape(inputs: tuple[str, ...], sizes: list[Volume], at: Place) -> Shape | None:
    """Two operands of each output element, of equal volumes or of one and a scale.

    With a scale, a channel has height * width elements and one more. A window of two over a row of
    these reads and keeps as many as each output needs: its element, and the scale.
    """
    if len(sizes) != 2:  # noqa: PLR2004 - a product of two
        at.problem("input", f"a multiply needs two layers to multiply, got {len(sizes)}")
        return None
    (channels, height, width), second = sizes
    if second == sizes[0]:
        return Shape((1, channels, 1, 2, height, width, 1, 1), size=(height, width))
    if second == (channels, 1, 1):
        row = height * width
        return Shape((1, channels, 1, 1, 1, row, 1, 2), size=(1, row + 1))
    at.problem(
        "input",
        f"the second operand must be as large as the first or have size [{channels}, 1, 1], got"
        f" {operands(inputs, sizes)}",
    )
    return None


def _matmul_shape(
    record: MatmulSpec, inputs: tuple[str, ...], sizes: list[Volume], at: Place
) -> Shape | None:
    """A 1x1 convolution whose kernels are the second operand."""
    if len(sizes) != 2:  # noqa: PLR2004 - a product of two
        at.problem("input", f"a matmul needs two layers to multiply, got {len(sizes)}")
        return None
    (channels, height, width), (second, *extent) = sizes
    groups, positions = record.groups, extent[0] * extent[1]
    over_channels = record.over is Over.CHANNELS
    summed = second if over_channels else groups * positions
    if channels != summed:
        what = "" if over_channels else f"{groups} groups of {positions} positions = "
        at.problem(
            "input",
            f"the first operand has {channels} channels and the second {what}{summed} to sum over;"
            f" they must be equal, got {operands(inputs, sizes)}",
        )
        return None
    if second % groups:
        at.problem("groups", f"groups: {groups} must divide the channels of both, got {second}")
        return None
    filters, depth = positions, second // groups
    if not over_channels:
        filters, depth = depth, filters
    return Shape((1, groups, filters, depth, height, width, 1, 1), size=(height, width))


def _add_shape(inputs: tuple[str, ...], sizes: list[Volume], at: Place) -> Shape | None:
    if not sizes[1:]:
        at.problem("input", f"an add needs two or more layers to add, got {len(sizes)}")
        return None
    if len(set(sizes)) > 1:
        at.problem(
            "input",
            "channels, height and width of the operands must be equal, got"
            f" {operands(inputs, sizes)}",
        )
        return None
    channels, height, width = sizes[0]
    return Shape((1, channels, 1, len(inputs), height, width, 1, 1), size=(height, width))


def _window_shape(
    record: ConvSpec | DepthwiseSpec, size: Volume, channels: tuple[int, int, int], at: Place
) -> Shape | None:
    kernel, stride, dilation = map(pair, (record.kernel, record.stride, record.dilation))
    return _window(size, channels, kernel, stride, dilation, record.pad, at)


def pair(value: PairField) -> Pair:
    """Along (height, width), from one integer for both or a pair."""
    return (value, value) if isinstance(value, int) else value


def _margins(pad: PadField, extent: Pair, span: Pair, stride: Pair) -> tuple[Pair, Pair]:
    """Zeros (before, after) the input along (height, width)."""
    match pad:
        case "same":
            rows, columns = (
                max(0, (-(-image // step) - 1) * step + reach - image)
                for image, step, reach in zip(extent, stride, span, strict=True)
            )
            return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)
        case (top, bottom, left, right):
            return (top, bottom), (left, right)
        case (height, width):
            return (height, height), (width, width)
        case both:
            return (both, both), (both, both)


def _window(
    size: Volume,
    channels: tuple[int, int, int],
    kernel: Pair,
    stride: Pair,
    dilation: Pair,
    pad: PadField,
    at: Place,
) -> Shape | None:
    """Shape of anything that slides a window; ``channels`` are G, K, C."""
    extent = size[1], size[2]
    span = (kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1
    (top, bottom), (left, right) = _margins(pad, extent, span, stride)
    padded = top + extent[0] + bottom, left + extent[1] + right
    if span[0] > padded[0] or span[1] > padded[1]:
        dilated = f" (dilated to {span[0]}x{span[1]})" if span != kernel else ""
        at.problem(
            "kernel",
            f"a {kernel[0]}x{kernel[1]} kernel{dilated} is larger than the padded input"
            f" {padded[0]}x{padded[1]}",
        )
        return None
    groups, filters, inputs = channels
    return Shape(
        (
            1,
            groups,
            filters,
            inputs,
            (padded[0] - span[0]) // stride[0] + 1,
            (padded[1] - span[1]) // stride[1] + 1,
            kernel[0],
            kernel[1],
        ),
        stride=stride,
        dilation=dilation,
        pad=(top, left),
        size=extent,
    )
