"""One training iteration as layers: forward, gradients, update, for the rule that counts layers.

A convolution has two gradients and both are convolutions again, so nothing new is needed to count,
map and price them:

- of its input: the gradient of the output is the input, the kernels are flipped and K and C change
  places. With a stride it falls apart into one dense convolution of stride 1 for each remainder of
  the input position, each with the taps that meet there; no zeros are inserted anywhere;
- of its weights: the input slides over the gradient of the output, with K as it is, C in place of
  N, N in place of C, R and S in place of P and Q and the other way round, and stride and dilation
  exchanged. So the batch is summed over, and the dims of this step depend on it.

Masks hold in all steps. Weights fixed at zero have no gradient and are never updated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import product
from math import ceil, gcd, isqrt
from typing import TYPE_CHECKING

from energysim.axes import Dim, Shape, Tensor
from energysim.errors import InputError
from energysim.hardware import Bits
from energysim.network import (
    NETWORK_INPUT,
    Layer,
    LayerKind,
    Mixture,
    MixtureLayer,
    Network,
    Operations,
    PoolMode,
    Work,
    operations,
)
from energysim.sparsity import Mask, Pattern

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

EPOCH_IMAGES = 50_000
"""Images of an epoch unless said otherwise: the training set of CIFAR-10."""

UPDATE_READS, UPDATE_WRITES = 3, 2
"""Words of a parameter that momentum SGD moves: gradient, momentum and weight in, the last two
out."""


TRAINED = (
    LayerKind.CONV,
    LayerKind.DEPTHWISE,
    LayerKind.LINEAR,
    LayerKind.POOL,
    LayerKind.ADD,
    LayerKind.MIXTURE_NORM,
)
"""Kinds of layer that training has gradients for."""


class Phase(StrEnum):
    """What a step of an iteration is for, in the order of computation."""

    FORWARD = "forward"
    """outputs"""
    RECOMPUTE = "recompute"
    """outputs once more, where they were not kept"""
    INPUT_GRAD = "input_grad"
    """gradient of the loss by activations"""
    WEIGHT_GRAD = "weight_grad"
    """gradient of the loss by weights"""
    UPDATE = "update"
    """momentum SGD"""


@dataclass(frozen=True, slots=True)
class Step(Layer):
    """One step of an iteration, as a layer whose shape already has the batch in it."""

    phase: Phase = Phase.FORWARD
    of: str = ""
    """the layer that it belongs to"""
    operand: Mask | None = None
    """of what the array multiplies with: kernels, or in the weight gradient the dense gradient of
    the output; None without MACs"""
    outputs: tuple[int, int] = (1, 1)
    """live and all elements of the output, where a mask lies on it: dead weights have no
    gradient"""

    @property
    def has_weights(self) -> bool:
        """Whether the array has anything to multiply with."""
        return self.operand is not None

    @property
    def mask(self) -> Mask:
        """Which elements of the second operand are live.

        Raises
        ------
        InputError
            For a step without MACs.
        """
        if self.operand is None:
            raise InputError(f"step {self.name} multiplies nothing, so it has no mask")
        return self.operand

    @property
    def effective_macs(self) -> int:
        """Multiply-accumulates with live operands for live outputs.

        Exact: every element of the output takes as many MACs as every other.
        """
        shape, (live, every) = self.shape, self.outputs
        return self.weights * shape[Dim.N] * shape[Dim.P] * shape[Dim.Q] * live // every

    def batched(self, batch: int) -> Shape:  # noqa: ARG002 - the steps are made for one batch
        """Shape for the batch, which the step was made for."""
        return self.shape

    def moved_outputs(self, *, skips_zeros: bool) -> tuple[int, int]:
        """Elements of the output that are computed and moved, and all.

        Parameters
        ----------
        skips_zeros : bool
            Whether the machine leaves out zero weights. One that does not computes and moves the
            gradients of dead weights too.
        """
        return self.outputs if skips_zeros else (1, 1)

    def widths(self, bits: Bits) -> Bits:
        """Width of what stands in place of weight, input and output.

        Gradients of activations are as wide as activations; gradients of weights, and their
        momentum, as weights.

        Parameters
        ----------
        bits : Bits
            Of weights and activations.

        Returns
        -------
        Bits
        """
        if self.phase is Phase.WEIGHT_GRAD:
            return bits.model_copy(update={"weight": bits.input, "output": bits.weight})
        if self.phase is Phase.UPDATE:
            return bits.model_copy(update={"input": bits.weight, "output": bits.weight})
        return bits


@dataclass(frozen=True, slots=True)
class NormStep(Step):
    """One pass of a mixture norm over its map."""

    mixture: Mixture = field(kw_only=True)
    work: Work = field(kw_only=True)

    @property
    def operations(self) -> Operations | None:
        """Arithmetic for one position of one image."""
        return operations(self.mixture, self.shape[Dim.G], self.work)


@dataclass(frozen=True, slots=True)
class Activations:
    """Most elements of activations that wait for the backward pass at once, for the batch.

    What waits is the input of every layer with weights or a mixture norm (the image apart, which is
    data and not an activation) and one word for each output of a max pool: where its maximum was.
    """

    kept: int
    """if all are kept"""
    recomputed: int
    """if only what crosses from one segment to another is kept"""
    segments: tuple[int, ...]
    """layers of each segment"""


@dataclass(frozen=True, slots=True)
class Training:
    """The steps of one iteration."""

    steps: tuple[Step, ...]
    activations: Activations
    recompute: bool
    """whether activations inside a segment are computed again"""
    repeated: tuple[str, ...]
    """layers that are computed again, or would be"""
    epoch_images: int


def training_of(
    network: Network,
    batch: int,
    *,
    recompute: bool = False,
    epoch_images: int = EPOCH_IMAGES,
) -> Training:
    """Spell out one iteration of training.

    Parameters
    ----------
    network : Network
    batch : int
        Images of an iteration.
    recompute : bool
        Keep only what crosses from one segment of about sqrt(L) of the L layers to another, and
        compute the rest of a segment again before its backward pass.
    epoch_images : int
        Images of an epoch.

    Returns
    -------
    Training

    Raises
    ------
    InputError
        If an epoch has no image, a layer is of a kind without gradients here or has the name of a
        step.

    References
    ----------
    T. Chen, B. Xu, C. Zhang, C. Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016
    (arXiv 1604.06174).

    Examples
    --------
    >>> from energysim.catalog import load_network
    >>> steps = training_of(load_network("vgg16"), 8).steps
    >>> [step.name for step in steps if step.of == "conv1_2"]
    ['conv1_2', 'conv1_2.dx', 'conv1_2.dw', 'conv1_2.update']
    """
    if type(epoch_images) is not int or epoch_images < 1:
        raise InputError(f"an epoch has 1 image or more, got {epoch_images!r}")
    _refuse_others(network)
    segments = segments_of(network)
    again = _repeated(network, segments)
    flow = _Backward(network, batch)
    steps = [
        step for layer in network.layers for step in _forward_steps(layer, batch, Phase.FORWARD)
    ]
    for place, segment in reversed(list(enumerate(segments))):
        if recompute and place < len(segments) - 1:
            steps += [
                step
                for layer in segment
                if layer.name in again
                for step in _forward_steps(layer, batch, Phase.RECOMPUTE)
            ]
        for layer in reversed(segment):
            steps += flow.steps(layer)
    _refuse_twins(network, steps)
    repeated = tuple(
        layer.name for segment in segments[:-1] for layer in segment if layer.name in again
    )
    waiting = _waiting(network, segments, again, batch)
    return Training(tuple(steps), waiting, recompute, repeated, epoch_images)


def _refuse_others(network: Network) -> None:
    """Refuse layers of which the gradients are not modelled."""
    others = [layer for layer in network.layers if layer.kind not in TRAINED]
    if others:
        kinds = ", ".join(dict.fromkeys(str(layer.kind) for layer in others))
        raise InputError(
            f"{network.name}: gradients of {kinds} layers are not modelled (the first is "
            f"'{others[0].name}'); training takes {', '.join(TRAINED)}"
        )


def _refuse_twins(network: Network, steps: Sequence[Step]) -> None:
    names = [step.name for step in steps]
    twin = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twin is not None:
        raise InputError(
            f"{network.name}: training has a step named '{twin}', and so is a layer. Rename it"
        )


# -- forward --------------------------------------------------------------------------------------


def _forward_steps(layer: Layer, batch: int, phase: Phase) -> Iterator[Step]:
    """One step, and before that of a mixture norm the sweeps that fit it.

    The statistics of a batch are known when all of it has been seen, so each sweep reads the whole
    map, and so does what normalises by them. Computed again, the fit is known.
    """
    if not isinstance(layer, MixtureLayer):
        yield _forward(layer, batch, phase)
        return
    shape = layer.batched(batch)
    if phase is Phase.FORWARD:
        for number in range(1, layer.mixture.sweeps + 1):
            yield _norm_step(layer, f".sweep{number}", phase, _summed(shape, 1), Work.SWEEP)
    suffix = "" if phase is Phase.FORWARD else ".again"
    yield _norm_step(layer, suffix, phase, shape, Work.APPLY)


def _norm_step(
    layer: MixtureLayer, suffix: str, phase: Phase, shape: Shape, work: Work
) -> NormStep:
    return NormStep(
        f"{layer.name}{suffix}",
        layer.kind,
        shape,
        layer.inputs if phase in (Phase.FORWARD, Phase.RECOMPUTE) else (),
        phase=phase,
        of=layer.name,
        mixture=layer.mixture,
        work=work,
    )


def _summed(shape: Shape, operands: int) -> Shape:
    """Read all elements of so many maps, and give one sum a channel and image."""
    height, width = shape.size
    changes = {Dim.C: operands, Dim.P: 1, Dim.Q: 1, Dim.R: height, Dim.S: width}
    return _with(shape, changes)


def _forward(layer: Layer, batch: int, phase: Phase) -> Step:
    shape = layer.batched(batch)
    if layer.mode is PoolMode.MAX:
        # Two outputs: the maximum, and where it was, which the gradient will ask for.
        shape = _with(shape, {Dim.K: 2})
    suffix = "" if phase is Phase.FORWARD else ".again"
    return _step(layer, suffix, phase, shape, layer.mask if layer.has_weights else None)


def _step(
    layer: Layer,
    suffix: str,
    phase: Phase,
    shape: Shape,
    operand: Mask | None = None,
    outputs: tuple[int, int] = (1, 1),
    kind: LayerKind | None = None,
) -> Step:
    return Step(
        f"{layer.name}{suffix}",
        kind or layer.kind,
        shape,
        layer.inputs if phase in (Phase.FORWARD, Phase.RECOMPUTE) else (),
        layer.pattern,
        mode=layer.mode,
        phase=phase,
        of=layer.name,
        operand=operand,
        outputs=outputs,
    )


def _with(shape: Shape, extents: Mapping[Dim, int]) -> Shape:
    dims = list(shape.dims)
    for dim, extent in extents.items():
        dims[dim] = extent
    n, g, k, c, p, q, r, s = dims
    return replace(shape, dims=(n, g, k, c, p, q, r, s))


# -- backward -------------------------------------------------------------------------------------


def _learns(layer: Layer) -> bool:
    """Whether it has parameters, of which the gradient needs what it read."""
    return layer.has_weights or isinstance(layer, MixtureLayer)


class _Backward:
    """Which gradients a network needs, and the steps that find them."""

    def __init__(self, network: Network, batch: int) -> None:
        self.batch = batch
        self.sizes = {layer.name: layer.output for layer in network.layers}
        self.needed: set[str] = set()
        for layer in network.layers:  # whatever depends on a weight
            if _learns(layer) or self.needed & set(layer.inputs):
                self.needed.add(layer.name)
        self.arriving: dict[str, list[int]] = {layer.name: [] for layer in network.layers}
        for layer in network.layers:
            for name, channels in channels_read(layer, self.sizes):
                self.arriving[name].append(channels)

    def steps(self, layer: Layer) -> Iterator[Step]:
        """Sum the gradient of the output, pass it on, find that of the weights, update them."""
        if layer.name not in self.needed:
            return
        total = sum_shape(layer, self.arriving[layer.name], self.batch)
        if total is not None:
            yield _step(layer, ".dy", Phase.INPUT_GRAD, total, kind=LayerKind.ADD)
        if isinstance(layer, MixtureLayer):
            yield from self._norm_gradients(layer)
            return
        if self.needed & set(layer.inputs):
            yield from self._input_gradient(layer)
        if layer.has_weights:
            mask, shape = layer.mask, weight_gradient(layer.batched(self.batch))
            outputs = (1, 1) if mask.nonzeros == mask.total else (mask.nonzeros, mask.total)
            given = Mask.of("dense", shape)
            yield _step(layer, ".dw", Phase.WEIGHT_GRAD, shape, given, outputs)
            update = update_shape(layer.parameters)
            yield _step(layer, ".update", Phase.UPDATE, update, kind=LayerKind.UPDATE)

    def _norm_gradients(self, layer: MixtureLayer) -> Iterator[Step]:
        """Sums over the whole batch first; scale and shift have their gradients from them."""
        shape = layer.batched(self.batch)
        backward = Phase.INPUT_GRAD
        yield _norm_step(layer, ".sums", backward, _summed(shape, 2), Work.SUMS)
        yield _norm_step(layer, ".dx", backward, _with(shape, {Dim.C: 2}), Work.GRADIENT)
        update = update_shape(layer.parameters)
        yield _step(layer, ".update", Phase.UPDATE, update, kind=LayerKind.UPDATE)

    def _input_gradient(self, layer: Layer) -> Iterator[Step]:
        shape = layer.batched(self.batch)
        if layer.kind is LayerKind.ADD:
            return  # the gradient of a sum is that of each operand: nothing moves
        if layer.kind is LayerKind.POOL:
            words = 2 if layer.mode is PoolMode.MAX else 1
            whole = tiled_pool_gradient(shape, words)
            if whole is not None:
                yield _step(layer, ".dx", Phase.INPUT_GRAD, whole)
                return
            for part in input_gradient(shape):
                narrow = _with(part.shape, {Dim.C: words})
                yield _step(layer, f".dx{part.suffix}", Phase.INPUT_GRAD, narrow)
            return
        for part in input_gradient(shape):
            kernels = part.mask(layer.mask)
            if kernels.nonzeros:  # without live taps the gradient of these positions is zero
                suffix = f".dx{part.suffix}"
                yield _step(layer, suffix, Phase.INPUT_GRAD, part.shape, kernels)


def channels_read(
    layer: Layer, sizes: Mapping[str, tuple[int, int, int]]
) -> Iterator[tuple[str, int]]:
    """How many channels of each layer another one reads, once for each time it names it.

    Of a layer that reads some channels of several joined ones, each gives its share, as it does
    where channels are shuffled.
    """
    present = [(name, sizes[name][0]) for name in layer.inputs if name != NETWORK_INPUT]
    if layer.channels is None or len(present) < len(layer.inputs):
        yield from present
        return
    total = sum(channels for _, channels in present)
    for name, channels in present:
        yield name, round(layer.channels * channels / total)


def sum_shape(layer: Layer, arriving: Sequence[int], batch: int) -> Shape | None:
    """The addition of the gradients that the readers of a layer send; None if they don't meet.

    Parameters
    ----------
    layer : Layer
    arriving : sequence of int
        Channels of its output that each reader has read.
    batch : int
    """
    channels, height, width = layer.output
    extra = sum(arriving) - channels
    if extra <= 0:
        return None  # one reader, or several that share the channels out
    operands = 2
    if extra == (len(arriving) - 1) * channels:
        extra, operands = channels, len(arriving)
    return Shape((batch, extra, 1, operands, height, width, 1, 1), size=(height, width))


def update_shape(parameters: int) -> Shape:
    """Momentum SGD on so many parameters: v' = m v + g, then w' = w - l v'.

    Each is a window of two over the three words (g, v, w), so that a parameter costs 3 words read,
    2 written and 4 operations (two products, two sums), whatever the mapping.

    Examples
    --------
    >>> step = update_shape(10)
    >>> step.elements(Tensor.INPUT), step.elements(Tensor.OUTPUT), step.macs
    (30, 20, 40)
    """
    taps = UPDATE_READS - UPDATE_WRITES + 1
    return Shape((1, parameters, 1, 1, 1, UPDATE_WRITES, 1, taps), size=(1, UPDATE_READS))


def weight_gradient(shape: Shape) -> Shape:
    """The convolution that finds the gradient of the weights.

    dW[g,k,c,r,s] = sum over n, p, q of dY[n,g,k,p,q] X[n,g,c,p*stride + r*dilation - pad, ..]

    Parameters
    ----------
    shape : Shape
        Of the layer, with the batch.

    Returns
    -------
    Shape
        With dY ``[G, K, N, P, Q]`` in place of weights, X ``[C, G, N, H, W]`` of inputs and dW
        ``[C, G, K, R, S]`` of outputs. A 1x1 kernel sums over all of N, P and Q as channels, of
        X gathered at the strides.

    Examples
    --------
    >>> weight_gradient(Shape((8, 1, 64, 3, 32, 32, 3, 3), pad=(1, 1), size=(32, 32))).dims
    (3, 1, 64, 8, 3, 3, 32, 32)
    """
    n, g, k, c, p, q, r, s = shape.dims
    if r == s == 1 and _all_inside(shape):
        return Shape((c, g, k, n * p * q, 1, 1, 1, 1))
    return Shape(
        (c, g, k, n, r, s, p, q),
        stride=shape.dilation,
        dilation=shape.stride,
        pad=shape.pad,
        size=shape.size,
    )


def _all_inside(shape: Shape) -> bool:
    """Whether no window reaches into padding."""
    ends = (
        (shape[out] - 1) * shape.stride[side] + (shape[tap] - 1) * shape.dilation[side]
        for side, (out, tap) in enumerate(_SIDES)
    )
    return shape.pad == (0, 0) and all(
        end < size for end, size in zip(ends, shape.size, strict=True)
    )


_SIDES = ((Dim.P, Dim.R), (Dim.Q, Dim.S))


@dataclass(frozen=True, slots=True)
class _Along:
    """The gradient of every stride-th input position along one axis."""

    first: int
    """the first of them"""
    extent: int
    """how many there are"""
    taps: tuple[int, ...]
    """the forward taps that meet there, in the order of the gradient's own"""
    dilation: int
    pad: int
    size: int
    """outputs of the layer that can be read"""
    skipped: int
    """outputs before them, which saw padding only"""


@dataclass(frozen=True, slots=True)
class Part:
    """A convolution of stride 1 that finds the input gradient at some positions."""

    shape: Shape
    """with dY ``[N, G, K, P, Q]`` in place of inputs, the kernels ``[G, C, K, ..]`` of weights and
    dX ``[N, G, C, ..]`` of outputs"""
    suffix: str
    """``.1_0`` for rows of remainder 1 and columns of remainder 0; nothing without strides"""
    along: tuple[_Along, _Along]

    def mask(self, mask: Mask) -> Mask:
        """Flip kernels, take the taps that meet here, and let K and C change places."""
        rows, columns = (each.taps for each in self.along)
        return turned(mask, rows, columns)


def input_gradient(shape: Shape) -> tuple[Part, ...]:
    """The convolutions that find the gradient of the input.

    Parameters
    ----------
    shape : Shape
        Of the layer, with the batch.

    Returns
    -------
    tuple of Part
        One for each remainder of the position by the strides where any tap meets any output.
        Elsewhere the gradient is zero, and known to be: it is neither computed nor written.

    Notes
    -----
    dX[h] = sum of dY[p] W[r] over p * stride + r * dilation - pad = h. With h = stride * i + a the
    taps r that meet a are ``stride / g`` apart, g = gcd(stride, dilation), and the outputs that
    they read ``dilation / g``: a convolution over p of that dilation with its taps in reverse.

    Examples
    --------
    >>> conv = Shape((1, 1, 8, 4, 16, 16, 3, 3), stride=(2, 2), pad=(1, 1), size=(32, 32))
    >>> [(part.suffix, part.shape.dims[4:]) for part in input_gradient(conv)]  # doctest: +ELLIPSIS
    [('.0_0', (16, 16, 1, 1)), ('.0_1', (16, 16, 1, 2)), ... ('.1_1', (16, 16, 2, 2))]
    """
    n, g, k, c, *_ = shape.dims
    split = max(shape.stride) > 1
    rows, columns = (list(_gradient_along(shape, side)) for side in (0, 1))
    found = []
    for row, column in product(rows, columns):
        dims = (n, g, c, k, row.extent, column.extent, len(row.taps), len(column.taps))
        part = Shape(
            dims,
            dilation=(row.dilation, column.dilation),
            pad=(row.pad, column.pad),
            size=(row.size, column.size),
        )
        suffix = f".{row.first}_{column.first}" if split else ""
        found.append(Part(part, suffix, (row, column)))
    return tuple(found)


def _gradient_along(shape: Shape, side: int) -> Iterator[_Along]:
    out, tap = _SIDES[side]
    stride, dilation, pad = shape.stride[side], shape.dilation[side], shape.pad[side]
    common = gcd(stride, dilation)
    spread = dilation // common
    for first in range(min(stride, shape.size[side])):
        taps = [r for r in range(shape[tap]) if (first + pad - r * dilation) % stride == 0]
        if not taps:
            continue
        extent = ceil((shape.size[side] - first) / stride)
        # Position i reads output i + ahead with the first tap, and spread fewer with each next.
        ahead = (first + pad - taps[0] * dilation) // stride
        before = (len(taps) - 1) * spread - ahead
        skipped = max(-before, 0)
        readable = range(skipped, shape[out])
        meets = any(
            i + ahead - j * spread in readable for j in range(len(taps)) for i in range(extent)
        )
        if meets:
            yield _Along(
                first,
                extent,
                tuple(reversed(taps)),
                spread,
                max(before, 0),
                len(readable),
                skipped,
            )


def turned(mask: Mask, rows: Sequence[int], columns: Sequence[int]) -> Mask:
    """The mask with K and C exchanged, of the kernels that some rows and columns make.

    A periodic mask stays periodic with its period, as the slot of a kernel depends on k + c alone.

    Parameters
    ----------
    mask : Mask
        Of weights ``[G, K, C, R, S]``.
    rows, columns : sequence of int
        Taps of each side, in their new order.

    Returns
    -------
    Mask
        Of ``[G, C, K, rows, columns]``.
    """
    groups, filters, channels, _, width = mask.dims
    kernel = len(rows), len(columns)
    dims = (groups, channels, filters, *kernel)
    place = {r * width + s: at for at, (r, s) in enumerate(product(rows, columns))}
    whole = tuple(range(len(place)))
    dense = Mask(Mask.of("dense", Shape((1, 1, 1, 1, 1, 1, 1, 1))).pattern, dims)
    if mask.nonzeros == mask.total:
        return dense
    if not mask.periodic:
        live: npt.NDArray[np.bool_] = mask.array()[:, :, :, list(rows)][..., list(columns)]
        if live.all():
            return dense
        return Mask.from_array(live.swapaxes(1, 2), name=mask.pattern.name)
    slots = [tuple(sorted(place[tap] for tap in taps if tap in place)) for taps in mask.slots]
    if all(taps == whole for taps in slots):
        return dense
    supports = (*slots[1:], slots[0])  # slot s takes support s - 1
    pattern = Pattern(mask.pattern.name, max(map(len, slots)), supports, len(slots), kernel=kernel)
    return Mask(pattern, dims)


def tiled_pool_gradient(shape: Shape, words: int) -> Shape | None:
    """The gradient of a pool whose windows tile its input: each output gives to all its taps.

    Parameters
    ----------
    shape : Shape
        Of the pool, with the batch.
    words : int
        Read for each output: its gradient and, of a maximum, where that was.

    Returns
    -------
    Shape or None
        None where windows overlap or reach over the edge, so that :func:`input_gradient` is needed.
    """
    n, g, _, _, p, q, r, s = shape.dims
    if shape.stride[0] < r or shape.stride[1] < s or not _all_inside(shape):
        return None
    return Shape((n, g, r * s, words, p, q, 1, 1), size=(p, q))


# -- what waits for the backward pass -------------------------------------------------------------


def segments_of(network: Network) -> tuple[tuple[Layer, ...], ...]:
    """Cut L layers into pieces of ceil(sqrt(L)), the last one shorter where it doesn't divide."""
    length = isqrt(len(network.layers) - 1) + 1
    return tuple(network.layers[at : at + length] for at in range(0, len(network.layers), length))


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Who reads the layers of each segment."""

    segment: Mapping[str, int]
    readers: Mapping[str, Sequence[Layer]] = field(repr=False)

    @classmethod
    def of(cls, segments: Sequence[Sequence[Layer]]) -> _Waiting:
        segment = {layer.name: at for at, own in enumerate(segments) for layer in own}
        readers: dict[str, list[Layer]] = {name: [] for name in segment}
        for own in segments:
            for layer in own:
                for name in set(layer.inputs) - {NETWORK_INPUT}:
                    readers[name].append(layer)
        return cls(segment, readers)

    def crosses(self, name: str) -> bool:
        """Whether a later segment reads it, so that it is kept."""
        own = self.segment[name]
        return any(self.segment[reader.name] > own for reader in self.readers[name])

    def used_inside(self, name: str, again: Iterable[str]) -> bool:
        """Whether its own segment needs it for a weight gradient or to compute more."""
        own = self.segment[name]
        return any(
            self.segment[reader.name] == own and (_learns(reader) or reader.name in again)
            for reader in self.readers[name]
        )


def _repeated(network: Network, segments: Sequence[Sequence[Layer]]) -> frozenset[str]:
    """Layers whose output the backward pass of their segment needs and that is not kept."""
    waiting = _Waiting.of(segments)
    again: set[str] = set()
    for layer in reversed(network.layers):
        if waiting.crosses(layer.name):
            continue
        if layer.mode is PoolMode.MAX or waiting.used_inside(layer.name, again):
            again.add(layer.name)
    return frozenset(again)


def _waiting(
    network: Network, segments: Sequence[Sequence[Layer]], again: frozenset[str], batch: int
) -> Activations:
    """Count what waits at most, kept or recomputed."""
    waiting = _Waiting.of(segments)
    layers = {layer.name: layer for layer in network.layers}
    elements = {
        name: layer.batched(batch).elements(Tensor.OUTPUT) for name, layer in layers.items()
    }

    def inputs_of_weights(name: str, at: int | None = None) -> int:
        """Its elements, if a layer with weights reads it (in one segment)."""
        reads = any(
            _learns(reader) and at in (None, waiting.segment[reader.name])
            for reader in waiting.readers[name]
        )
        return elements[name] if reads else 0

    def places(name: str) -> int:
        return elements[name] if layers[name].mode is PoolMode.MAX else 0

    kept = sum(inputs_of_weights(name) + places(name) for name in layers)
    peaks = []
    for at in range(len(segments)):
        held = 0
        for name in layers:
            own = waiting.segment[name]
            if own == at:
                held += inputs_of_weights(name, at) + places(name)
            elif own < at:
                held += 0 if name in again else places(name)
                ends = (waiting.segment[reader.name] for reader in waiting.readers[name])
                held += elements[name] if any(own < end <= at for end in ends) else 0
        peaks.append(held)
    return Activations(kept, max(peaks), tuple(map(len, segments)))
