"""Networks: what a user writes (a table of layers, or a base and a pattern) and what it means.

A :class:`NetworkSpec` is the file, field by field; :func:`build_network` infers every shape, checks
that the layers fit together and returns a :class:`Network`.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from energysim.axes import Dim, Shape, Tensor
from energysim.errors import InputError, InputErrors, did_you_mean
from energysim.sparsity import (
    SIDE,
    Head,
    Mask,
    MaskFile,
    Pattern,
    get_pattern,
    mask_misfit,
    problems_of,
)

if TYPE_CHECKING:
    import numpy.typing as npt

LIMIT = 2**20
"""Every integer of a network file is smaller than this."""

NETWORK_INPUT = "input"
"""The name under which layers refer to the image that enters the network."""

Location = tuple[str | int, ...]
"""Path of a field in a file: ``("layers", 3, "kernel")``."""

Pair = tuple[int, int]
"""Along (height, width)."""

Volume = tuple[int, int, int]
"""Channels, height, width."""


class LayerKind(StrEnum):
    """What a layer does."""

    CONV = "conv"
    DEPTHWISE = "depthwise"
    LINEAR = "linear"
    POOL = "pool"
    ADD = "add"
    UPDATE = "update"
    """of weights, a step of training; no network file has it"""


class PoolMode(StrEnum):
    """How a pooling layer sums up its window."""

    MAX = "max"
    AVERAGE = "average"


WEIGHTED: frozenset[LayerKind] = frozenset({LayerKind.CONV, LayerKind.DEPTHWISE, LayerKind.LINEAR})
"""Kinds of layer that have weights and so multiply-accumulates."""


NAME_PATTERN = r"^[A-Za-z0-9_.-]+$"
"""Names of networks and layers are file names and column values too."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Count = Annotated[int, Field(ge=1, lt=LIMIT)]
Margin = Annotated[int, Field(ge=0, lt=LIMIT)]
PairField = Count | tuple[Count, Count]
PadField = Margin | tuple[Margin, Margin] | tuple[Margin, Margin, Margin, Margin] | Literal["same"]


class _Spec(BaseModel):
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )


class PatternSpec(_Spec):
    """A periodic pattern of one's own: see :meth:`energysim.sparsity.Pattern.of`."""

    supports: Annotated[tuple[tuple[Margin, ...], ...], Field(min_length=1)]
    """live taps of each kernel variant, numbered row by row from 0"""
    period: Count | None = None
    """kernels after which the variants start anew; by default fdk_every, or without one the number
    of supports"""
    fdk_every: Count | None = None
    """one fully dense kernel in so many; by default none"""
    kernel: PairField | None = None
    """taps, one integer or [height, width]; by default that of the layer, or 3 for a variant"""


PatternField = str | PatternSpec


class _LayerSpec(_Spec):
    name: Name
    """unique in the network"""


class _Reader(_LayerSpec):
    input: Name | Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """an earlier layer, or ``input`` for the network's input; by default the layer before. A list
    joins the channels of several (concatenation)"""
    channels: Count | None = None
    """read only so many of the input's channels (channel split); by default all"""


class _Window(_Reader):
    stride: PairField = 1
    """step of the window, one integer or [height, width]"""
    pad: PadField = 0
    """zeros around the input: one integer, [height, width], [top, bottom, left, right] or ``same``
    (as many as make the output size ceil(input / stride), the odd one below and to the right)"""
    dilation: PairField = 1
    """distance between taps, one integer or [height, width]"""


class ConvSpec(_Window):
    """A convolution."""

    kind: Literal[LayerKind.CONV]
    """``conv``"""
    out: Count
    """output channels, over all groups"""
    kernel: PairField
    """taps, one integer or [height, width]"""
    groups: Count = 1
    """input and output channels are cut into this many independent groups"""
    bias: bool = True
    """one added number per output channel"""
    batch_norm: bool = False
    """followed by batch normalisation (two parameters per channel)"""
    pattern: PatternField = "dense"
    """pre-defined sparse kernels of this layer: a name, N:M such as 2:4, or own supports"""


class DepthwiseSpec(_Window):
    """A convolution of every channel with one kernel of its own."""

    kind: Literal[LayerKind.DEPTHWISE]
    """``depthwise``"""
    kernel: PairField
    """taps, one integer or [height, width]"""
    bias: bool = True
    """one added number per channel"""
    batch_norm: bool = False
    """followed by batch normalisation (two parameters per channel)"""
    pattern: PatternField = "dense"
    """pre-defined sparse kernels of this layer: a name, N:M such as 2:4, or own supports"""


class LinearSpec(_Reader):
    """A fully connected layer over the flattened input."""

    kind: Literal[LayerKind.LINEAR]
    """``linear``"""
    out: Count
    """output features"""
    bias: bool = True
    """one added number per output"""


class PoolSpec(_Reader):
    """The maximum or the average over a window, channel by channel."""

    kind: Literal[LayerKind.POOL]
    """``pool``"""
    kernel: PairField | Literal["global"]
    """window, one integer or [height, width], or ``global`` for the whole input"""
    stride: PairField | None = None
    """step of the window; by default the kernel"""
    pad: PadField = 0
    """as for a convolution"""
    mode: PoolMode = PoolMode.MAX
    """``max`` or ``average``"""


class AddSpec(_LayerSpec):
    """The element-wise sum of two or more layers."""

    kind: Literal[LayerKind.ADD]
    """``add``"""
    input: tuple[Name, ...]
    """two or more earlier layers of equal size"""


LayerSpec = Annotated[
    ConvSpec | DepthwiseSpec | LinearSpec | PoolSpec | AddSpec, Field(discriminator="kind")
]


class NetworkSpec(_Spec):
    """A network file: a table of layers, or the name of a dense base and a pattern."""

    name: Name
    """of the network"""
    source: Annotated[str, Field(min_length=1)]
    """where the layers come from"""
    note: str | None = None
    """anything a reader should know"""
    input: tuple[Count, Count, Count] | None = None
    """channels, height, width of the image"""
    layers: tuple[LayerSpec, ...] | None = None
    """in the order of computation"""
    base: Name | None = None
    """name of a dense network, in place of ``input`` and ``layers``"""
    pattern: PatternField | None = None
    """laid over the base: every convolution larger than 1x1 but the first, N:M on 1x1 ones too"""
    masks: Annotated[str, Field(min_length=1)] | None = None
    """file of masks (``.npz``: layer name -> array of bool), its path seen from this file; layers
    that it doesn't name keep their pattern"""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer with all its sizes known, for one image."""

    name: str
    """unique in the network"""
    kind: LayerKind
    """what it does"""
    shape: Shape
    """geometry with N = 1; a pool has G channels and K = C = 1, an add sums over C operands"""
    inputs: tuple[str, ...]
    """the layers it reads, ``input`` for the network's input"""
    pattern: str = "dense"
    """name of its pre-defined sparsity"""
    seed: int = 0
    """of a random or N:M pattern: the layer's place in the network"""
    bias: bool = False
    """one added number per output channel"""
    batch_norm: bool = False
    """followed by batch normalisation"""
    mode: PoolMode | None = None
    """of a pool"""
    channels: int | None = None
    """how many channels of its inputs it reads, where the file says so"""
    live: str = ""
    """of a mask of its own: one bit a weight in the order of ``[G, K, C, R, S]``, as base64"""

    @property
    def has_weights(self) -> bool:
        """Whether there is anything to multiply with."""
        return self.kind in WEIGHTED

    def batched(self, batch: int) -> Shape:
        """Shape for so many images."""
        return replace(self.shape, dims=(batch, *self.shape.dims[1:]))

    @property
    def output(self) -> Volume:
        """Channels, height, width of what it produces."""
        shape = self.shape
        return shape[Dim.G] * shape[Dim.K], shape[Dim.P], shape[Dim.Q]

    @property
    def mask(self) -> Mask:
        """Which weights are live; only for a layer with weights."""
        if self.live:
            return _own_mask(self.live, self.shape, self.pattern)
        return Mask.of(self.pattern, self.shape, self.seed)

    @property
    def weights_dense(self) -> int:
        """Weights, zeros included."""
        return self.shape.elements(Tensor.WEIGHT) if self.has_weights else 0

    @property
    def weights(self) -> int:
        """Weights that the pattern leaves."""
        return self.mask.nonzeros if self.has_weights else 0

    @property
    def parameters(self) -> int:
        """Weights that the pattern leaves, biases, and two per channel of a batch norm."""
        return self.weights + self.output[0] * (self.bias + 2 * self.batch_norm)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, zeros included; 0 without weights."""
        return self.shape.macs if self.has_weights else 0

    @property
    def effective_macs(self) -> int:
        """Multiply-accumulates with the weights that the pattern leaves."""
        shape = self.shape
        return self.weights * shape[Dim.N] * shape[Dim.P] * shape[Dim.Q]


@lru_cache(maxsize=128)
def _own_mask(live: str, shape: Shape, pattern: str) -> Mask:
    return Mask.from_bits(b64decode(live), shape, name=pattern)


@dataclass(frozen=True, slots=True)
class Network:
    """Layers in the order of computation, checked to fit together."""

    name: str
    """of the network; ``base+pattern`` where :meth:`with_pattern` made it, ``network+masks`` where
    :meth:`with_masks` did"""
    source: str
    """where the layers come from"""
    layers: tuple[Layer, ...]
    """in the order of computation"""
    input_size: Volume
    """channels, height, width of the image"""
    base: str | None = None
    """name of the dense network that this is a variant of"""
    pattern: str = "dense"
    """of all its layers that aren't dense; ``mixed`` where they differ"""
    masks: str | None = None
    """the file of masks, as the network file names it"""

    @property
    def parameters(self) -> int:
        """Weights that the pattern leaves, biases and batch-norm parameters."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def conv_macs(self) -> int:
        """Multiply-accumulates of the convolutions, zeros included."""
        return sum(layer.macs for layer in self.layers if layer.kind is not LayerKind.LINEAR)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, zeros included."""
        return sum(layer.macs for layer in self.layers)

    @property
    def effective_macs(self) -> int:
        """Multiply-accumulates with the weights that the pattern leaves."""
        return sum(layer.effective_macs for layer in self.layers)

    def layer(self, name: str) -> Layer:
        """Find a layer by name.

        Raises
        ------
        InputError
            If there is no such layer; names the nearest one.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        near = did_you_mean(name, [layer.name for layer in self.layers])
        raise InputError(f"network {self.name} has no layer named {name!r}.{near}")

    def with_pattern(self, name: str) -> Network:
        """Lay a pattern over every convolution larger than 1x1 but the first, N:M on 1x1 ones too.

        Parameters
        ----------
        name : str
            Of a pattern. It replaces that of a variant; ``dense`` gives the variant's base.

        Returns
        -------
        Network
            Named ``network+pattern``.

        Raises
        ------
        InputErrors
            If layers have patterns of their own, or the pattern doesn't fit them.
        """
        pattern = get_pattern(name)
        base = self.dense()
        if pattern.dense:
            return base
        layers, problems = _lay_over(base, pattern)
        if problems:
            raise InputErrors(f"{self.name}: {problem}" for problem in problems)
        return replace(
            base,
            name=f"{base.name}+{pattern.name}",
            layers=layers,
            base=base.name,
            pattern=pattern.name,
        )

    def dense(self) -> Network:
        """The dense network that a variant is made of; any other network as it is."""
        if self.base is None:
            return self
        layers = tuple(replace(layer, pattern="dense", live="") for layer in self.layers)
        return replace(self, name=self.base, layers=layers, base=None, pattern="dense", masks=None)

    def with_masks(self, masks: Mapping[str, npt.ArrayLike]) -> Network:
        """Give layers a mask of their own, such as what pruning has left.

        Parameters
        ----------
        masks : mapping of str to array-like of bool
            Layer name -> mask: ``[K, C / groups, R, S]`` with K over all groups, as frameworks hold
            weights; ``[G, K, C, R, S]``; for 1x1 kernels and linear layers ``[K, C]`` too; or one
            bool for each input channel. Layers that it doesn't name keep their pattern.

        Returns
        -------
        Network
            Named ``network+masks``.

        Raises
        ------
        InputErrors
            If a layer is unknown or has no weights, or its mask has another type or shape or no
            live weight.

        Examples
        --------
        >>> import numpy as np
        >>> from energysim.catalog import load_network
        >>> some = load_network("vgg16").with_masks({"conv1_2": np.eye(64, dtype=bool)[0]})
        >>> some.name, some.layer("conv1_2").weights, some.pattern
        ('vgg16+masks', 576, 'channels')
        """
        import numpy as np

        arrays = {name: np.asarray(mask) for name, mask in masks.items()}
        heads = {name: Head(str(each.dtype), each.shape) for name, each in arrays.items()}
        problems: list[str] = []
        layers = _masked(self.layers, heads, arrays.__getitem__, problems)
        if problems:
            raise InputErrors(f"{self.name}: {problem}" for problem in problems)
        return replace(
            self,
            name=self.name if self.name.endswith("+masks") else f"{self.name}+masks",
            layers=layers,
            base=self.base or (self.name if self.pattern == "dense" else None),
            pattern=_pattern_of(layers),
            masks=None,
        )


def _masked(
    layers: tuple[Layer, ...],
    heads: Mapping[str, Head],
    read: Callable[[str], npt.ArrayLike],
    problems: list[str],
) -> tuple[Layer, ...]:
    """Give layers masks of their own; adds to the problems what stands against it.

    Masks are read one by one, and those that do not fit by their heads are not.
    """
    known = {layer.name: layer for layer in layers}
    made: dict[str, Layer] = {}
    for name, head in heads.items():
        layer = known.get(name)
        if layer is None:
            problems.append(f"there is no layer named {name!r}.{did_you_mean(name, known)}")
        elif not layer.has_weights:
            problems.append(f"layer {name!r} ({layer.kind}) has no weights, so it takes no mask")
        elif problem := mask_misfit(layer.shape, head.dtype, head.shape):
            problems.append(f"layer {name!r}: {problem}")
        else:
            try:
                mask = Mask.for_layer(read(name), layer.shape)
            except InputError as error:
                problems.append(f"layer {name!r}: {error}")
                continue
            live = b64encode(mask.live).decode()
            made[name] = replace(layer, pattern=mask.pattern.name, live=live)
    return tuple(made.get(layer.name, layer) for layer in layers)


def _pattern_of(layers: tuple[Layer, ...]) -> str:
    """Name the pattern of all layers that aren't dense; ``mixed`` where they differ."""
    patterns = {layer.pattern for layer in layers} - {"dense"} or {"dense"}
    return patterns.pop() if len(patterns) == 1 else "mixed"


def _lay_over(network: Network, pattern: Pattern) -> tuple[tuple[Layer, ...], list[str]]:
    """Give a pattern to the layers that a network-wide one covers; say what stands against it.

    As in the authors' code, the first convolution, 1x1 convolutions and linear layers stay dense;
    so do depthwise ones, where a sparse kernel would hide taps of its channel from every output.
    N:M thins out channels and not taps, so it covers 1x1 convolutions too.
    """
    if network.pattern != "dense":
        return network.layers, [
            (
                f"layers of {network.name!r} have patterns of their own; a pattern goes on a dense "
                f"network"
            )
        ]
    problems = []
    layers = list(network.layers)
    convolutions = [
        index
        for index, layer in enumerate(layers)
        if layer.kind in (LayerKind.CONV, LayerKind.DEPTHWISE)
    ]
    covered = 0
    for index in convolutions[1:]:
        layer = layers[index]
        shape = layer.shape
        height, width = shape[Dim.R], shape[Dim.S]
        depthwise = shape[Dim.K] == shape[Dim.C] == 1
        if depthwise or (height == width == 1 and pattern.blocks is None):
            continue
        if not pattern.fits(height, width):
            own = "x".join(map(str, pattern.kernel or ()))
            problems.append(
                f"layer {layer.name!r} has a {height}x{width} kernel; pattern {pattern.name} is"
                f" defined for {own} kernels. Give the layers that it suits a `pattern:` of their"
                " own"
            )
        layers[index] = replace(layer, pattern=pattern.name)
        covered += 1
    if not covered and not pattern.dense:
        problems.append(
            f"pattern {pattern.name} covers no layer of {network.name!r}: the first convolution,"
            " 1x1 and depthwise convolutions and linear layers stay dense"
        )
    return tuple(layers), problems


class Positions(Protocol):
    """Where the fields of a file stand."""

    def problem(self, loc: Location, message: str, /) -> str:
        """``file:line:column field: message`` for a field, or the nearest one around it."""


def build_network(
    spec: NetworkSpec,
    source: Positions | None,
    resolve_base: Callable[[str], Network],
    *,
    open_masks: Callable[[str], MaskFile] = MaskFile.open,
) -> Network:
    """Infer every shape and check that the layers fit together.

    Parameters
    ----------
    spec : NetworkSpec
        What the user wrote.
    source : Positions or None
        The file it comes from, if any, to say where a problem stands.
    resolve_base : callable
        Finds the network that ``base:`` names.
    open_masks : callable
        Opens the file that ``masks:`` names; by default seen from the current folder.

    Returns
    -------
    Network

    Raises
    ------
    InputErrors
        With everything that is wrong, each problem at its place in the file.
    """
    report = _Report(spec.name, source)
    if spec.layers is None:
        network = _build_variant(spec, report, resolve_base)
    else:
        network = _build_layers(spec, spec.layers, report)
    if network is not None and spec.masks is not None and not report.problems:
        network = _with_mask_file(network, spec.masks, open_masks, report)
    if network is None or report.problems:
        raise InputErrors(report.problems)
    return network


def _with_mask_file(
    network: Network, name: str, open_masks: Callable[[str], MaskFile], report: _Report
) -> Network:
    try:
        file = open_masks(name)
    except InputError as error:
        report.add(("masks",), str(error))
        return network
    problems: list[str] = []
    layers = _masked(network.layers, file.heads, file.read, problems)
    for problem in problems:
        report.add(("masks",), f"{name}: {problem}")
    return replace(network, layers=layers, pattern=_pattern_of(layers), masks=name)


@dataclass(slots=True)
class _Report:
    """Collects what is wrong."""

    network: str
    source: Positions | None
    problems: list[str] = field(default_factory=list)

    def add(self, loc: Location, message: str) -> None:
        if self.source is not None:
            self.problems.append(self.source.problem(loc, message))
            return
        where = " ".join(filter(None, (self.network, ".".join(map(str, loc)))))
        self.problems.append(f"{where}: {message}")


def _build_variant(
    spec: NetworkSpec, report: _Report, resolve_base: Callable[[str], Network]
) -> Network | None:
    """Lay the pattern of a variant over its base."""
    if spec.base is None:
        report.add(
            ("pattern",) if spec.pattern else (),
            f"network {spec.name!r} needs either `input:` and `layers:`, or `base:` and `pattern:`",
        )
        return None
    if spec.input is not None:
        report.add(("input",), f"a variant has the input of its base {spec.base!r}: leave it out")
    if spec.base == spec.name:
        report.add(("base",), f"network {spec.name!r} names itself as its base")
        return None
    pattern = _variant_pattern(spec, report)
    try:
        base = resolve_base(spec.base)
    except InputErrors:
        raise  # the base file is wrong in itself, and its problems carry their own places
    except InputError as error:
        report.add(("base",), str(error))
        return None
    if pattern is None:
        return None
    if base.base is not None:
        report.add(
            ("base",),
            f"{base.name!r} is itself a variant ({base.pattern} on {base.base!r}); a pattern goes "
            f"on a dense network. Did you mean {base.base!r}?",
        )
        return None
    layers, problems = _lay_over(base, pattern)
    for problem in problems:
        report.add(("base",) if base.pattern != "dense" else ("pattern",), problem)
    return Network(spec.name, spec.source, layers, base.input_size, base.name, pattern.name)


def _variant_pattern(spec: NetworkSpec, report: _Report) -> Pattern | None:
    if spec.pattern is not None:
        return _find_pattern(spec.pattern, ("pattern",), report, kernel=(SIDE, SIDE))
    if spec.masks is not None:
        return get_pattern("dense")
    report.add(
        ("base",), f"a variant of {spec.base!r} needs a `pattern:` to lay over it, or `masks:`"
    )
    return None


def _find_pattern(
    given: PatternField, loc: Location, report: _Report, *, kernel: Pair
) -> Pattern | None:
    """Find a pattern by name, or make one of a user's own supports; ``kernel`` is the usual one."""
    if isinstance(given, PatternSpec):
        own = kernel if given.kernel is None else _pair(given.kernel)
        problems = problems_of(given.supports, own, given.period, given.fdk_every)
        for inner, message in problems:
            report.add((*loc, *inner), message)
        if problems:
            return None
        return Pattern.of(given.supports, own, period=given.period, fdk_every=given.fdk_every)
    try:
        return get_pattern(given)
    except InputError as error:
        report.add(loc, str(error))
        return None


def _check_top(spec: NetworkSpec, records: tuple[LayerSpec, ...], report: _Report) -> None:
    """What a network with layers of its own must and must not say beside them."""
    if spec.base is not None:
        report.add(("base",), "a network has either `layers:` or `base:`, not both")
    elif spec.pattern is not None:
        report.add(
            ("pattern",),
            "a network of its own layers takes `pattern:` in each layer; write a variant with"
            " `base:` for a pattern on all of them",
        )
    if not records:
        report.add(("layers",), "a network needs at least one layer")
    if spec.input is None:
        report.add(("layers",), "`layers:` need an `input: [channels, height, width]` to work on")


def _build_layers(
    spec: NetworkSpec, records: tuple[LayerSpec, ...], report: _Report
) -> Network | None:
    """Go through the layers in order, each with the sizes of the ones before it."""
    _check_top(spec, records, report)
    # None = the size could not be found because of a problem that is reported already.
    sizes: dict[str, Volume | None] = {NETWORK_INPUT: spec.input}
    all_names = {record.name for record in records}
    layers: list[Layer] = []
    previous = NETWORK_INPUT
    for index, record in enumerate(records):
        at = _Place(report, index, record.name)
        inputs = _inputs_of(record, previous)
        for name in inputs:
            if name not in sizes:
                at.problem("input", _bad_reference(name, record.name, all_names, list(sizes)))
        layer = _build_layer(record, inputs, tuple(sizes.get(name) for name in inputs), at)
        if record.name == NETWORK_INPUT:
            at.problem("name", "a layer can't be named 'input': it stands for the network's input")
        elif record.name in sizes:
            at.problem("name", "there is an earlier layer of the same name; names must be unique")
            sizes[record.name] = None  # whoever reads it may mean either
        else:
            sizes[record.name] = layer.output if layer is not None else None
        if layer is not None:
            layers.append(layer)
        previous = record.name
    if spec.input is None or report.problems:
        return None
    pattern = _pattern_of(tuple(layers))
    return Network(spec.name, spec.source, tuple(layers), spec.input, None, pattern)


@dataclass(frozen=True, slots=True)
class _Place:
    """One layer in the file."""

    report: _Report
    index: int
    name: str

    def problem(self, key: str, message: str) -> None:
        self.report.add(("layers", self.index, key), f"layer {self.name!r}: {message}")


def _inputs_of(record: LayerSpec, previous: str) -> tuple[str, ...]:
    named = record.input or previous
    return (named,) if isinstance(named, str) else named


def _bad_reference(name: str, reader: str, all_names: set[str], earlier: list[str]) -> str:
    if name == reader or name in all_names:
        which = "itself" if name == reader else f"the later layer {name!r}"
        return f"reads {which} (cycle or forward reference); only earlier layers can be read"
    return f"reads {name!r}, but there is no such layer.{did_you_mean(name, earlier)}"


def _build_layer(
    record: LayerSpec, inputs: tuple[str, ...], sizes: tuple[Volume | None, ...], at: _Place
) -> Layer | None:
    """Find the shape of one layer; None where it can't be known."""
    known = [size for size in sizes if size is not None]
    pattern = "dense"
    if isinstance(record, ConvSpec | DepthwiseSpec):
        pattern = _own_pattern(record, at)
    if len(known) < len(sizes):
        return None
    shape: Shape | None
    if isinstance(record, AddSpec):
        shape = _add_shape(inputs, known, at)
    else:
        size = _joined(record.channels, inputs, known, at)
        shape = _reader_shape(record, size, at) if size is not None else None
    if shape is None:
        return None
    return Layer(
        record.name,
        record.kind,
        shape,
        inputs,
        pattern,
        seed=at.index,
        bias=isinstance(record, ConvSpec | DepthwiseSpec | LinearSpec) and record.bias,
        batch_norm=isinstance(record, ConvSpec | DepthwiseSpec) and record.batch_norm,
        mode=record.mode if isinstance(record, PoolSpec) else None,
        channels=None if isinstance(record, AddSpec) else record.channels,
    )


def _joined(
    wanted: int | None, inputs: tuple[str, ...], sizes: list[Volume], at: _Place
) -> Volume | None:
    """Size of what a layer reads: the channels of all inputs together, or as many as it wants.

    Nothing is moved for it. Each channel is read where its producer put it, so which of them are
    read, and in which order (a channel shuffle), makes no difference to any count.
    """
    _, height, width = sizes[0]
    if any(size[1:] != (height, width) for size in sizes):
        at.problem(
            "input",
            "height and width of layers that are read together must be equal, got"
            f" {_operands(inputs, sizes)}",
        )
        return None
    channels = sum(size[0] for size in sizes)
    if wanted is not None and wanted > channels:
        at.problem("channels", f"there are {channels} channels to read, got {wanted}")
        return None
    return wanted or channels, height, width


def _operands(inputs: tuple[str, ...], sizes: list[Volume]) -> str:
    return ", ".join(f"{name!r} {list(size)}" for name, size in zip(inputs, sizes, strict=True))


def _reader_shape(
    record: ConvSpec | DepthwiseSpec | LinearSpec | PoolSpec, size: Volume, at: _Place
) -> Shape | None:
    channels, height, width = size
    match record:
        case ConvSpec():
            return _conv_shape(record, size, at)
        case DepthwiseSpec():
            return _window_shape(record, size, (channels, 1, 1), at)
        case LinearSpec():
            return Shape((1, 1, record.out, channels * height * width, 1, 1, 1, 1))
        case PoolSpec():
            return _pool_shape(record, size, at)


def _own_pattern(record: ConvSpec | DepthwiseSpec, at: _Place) -> str:
    kernel = _pair(record.kernel)
    where = ("layers", at.index, "pattern")
    pattern = _find_pattern(record.pattern, where, at.report, kernel=kernel)
    if pattern is None:
        return "dense"
    if not pattern.fits(*kernel):
        at.problem("pattern", f"{pattern.misfit(*kernel)}; leave it out or use dense")
    if pattern.blocks is not None and isinstance(record, DepthwiseSpec):
        at.problem(
            "pattern",
            f"pattern {pattern.name} thins out input channels, and a depthwise layer has one for"
            " each output; leave it out or use dense",
        )
    return pattern.name


def _conv_shape(record: ConvSpec, size: Volume, at: _Place) -> Shape | None:
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


def _pool_shape(record: PoolSpec, size: Volume, at: _Place) -> Shape | None:
    channels, height, width = size
    if record.kernel != "global":
        kernel = _pair(record.kernel)
        stride = _pair(record.stride) if record.stride is not None else kernel
        return _window(size, (channels, 1, 1), kernel, stride, (1, 1), record.pad, at)
    for key, given in (("stride", record.stride is not None), ("pad", record.pad != 0)):
        if given:
            at.problem(key, f"kernel: global covers the whole input; leave out {key}")
    return Shape((1, channels, 1, 1, 1, 1, height, width), size=(height, width))


def _add_shape(inputs: tuple[str, ...], sizes: list[Volume], at: _Place) -> Shape | None:
    if not sizes[1:]:
        at.problem("input", f"an add needs two or more layers to add, got {len(sizes)}")
        return None
    if len(set(sizes)) > 1:
        at.problem(
            "input",
            "channels, height and width of the operands must be equal, got"
            f" {_operands(inputs, sizes)}",
        )
        return None
    channels, height, width = sizes[0]
    return Shape((1, channels, 1, len(inputs), height, width, 1, 1), size=(height, width))


def _window_shape(
    record: ConvSpec | DepthwiseSpec, size: Volume, channels: tuple[int, int, int], at: _Place
) -> Shape | None:
    kernel, stride, dilation = map(_pair, (record.kernel, record.stride, record.dilation))
    return _window(size, channels, kernel, stride, dilation, record.pad, at)


def _pair(value: PairField) -> Pair:
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
    at: _Place,
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
