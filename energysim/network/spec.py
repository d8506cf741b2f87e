"""What a user writes: the fields of a network file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from energysim.network.norm import MOST_COMPONENTS, MOST_SWEEPS, Of
from energysim.network.types import Activation, LayerKind, Over, PoolMode

LIMIT = 2**20
"""Every integer of a network file is smaller than this."""

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
    """an earlier layer or shuffle, or ``input`` for the network's input; by default the one before.
    A list joins the channels of several (concatenation)"""
    channels: Count | Annotated[tuple[Margin, ...], Field(min_length=1)] | None = None
    """read only the first so many of the input's channels (channel split), or those of a list, in
    its order, numbered from 0; by default all"""
    part: tuple[Count, Count] | None = None
    """[i, n]: read only the i-th of n equal parts of the input's channels, i from 1; in place of
    ``channels``"""


class _Activated(_LayerSpec):
    activation: Activation | None = None
    """function of each element produced, after the layer's batch norm: ``none``, ``relu``,
    ``relu6``, ``sigmoid``, ``swish`` or ``gelu``; it costs nothing. By default conv, depthwise,
    transposed, linear, batch_norm and add layers have that of the network, and others have none;
    nor have layers that nobody reads (outputs), or that only adds read: in a residual block the sum
    has it"""


class _Window(_Reader):
    stride: PairField = 1
    """step of the window, one integer or [height, width]"""
    pad: PadField = 0
    """zeros around the input: one integer, [height, width], [top, bottom, left, right] or ``same``
    (as many as make the output size ceil(input / stride), the odd one below and to the right)"""
    dilation: PairField = 1
    """distance between taps, one integer or [height, width]"""


class ConvSpec(_Window, _Activated):
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


class DepthwiseSpec(_Window, _Activated):
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


class TransposedSpec(_Reader, _Activated):
    """A transposed convolution whose patches don't overlap, as U-Nets enlarge.

    Each input pixel gives stride x stride output pixels of its own, so it is the 1x1 convolution to
    out * stride * stride channels that it is counted as, zeros nowhere inserted.
    """

    kind: Literal[LayerKind.TRANSPOSED]
    """``transposed``"""
    out: Count
    """output channels"""
    kernel: PairField
    """taps, one integer or [height, width]; the same as the stride"""
    stride: PairField
    """how many output pixels each input pixel becomes, one integer or [height, width]"""
    bias: bool = True
    """one added number per output channel"""
    batch_norm: bool = False
    """followed by batch normalisation (two parameters per channel)"""


class LinearSpec(_Reader, _Activated):
    """A fully connected layer over the flattened input."""

    kind: Literal[LayerKind.LINEAR]
    """``linear``"""
    out: Count
    """output features"""
    bias: bool = True
    """one added number per output"""


class MatmulSpec(_LayerSpec):
    """The product of two activations, such as the two of an attention.

    Channels of both operands are cut into groups (heads). Over channels, the output has a channel
    for each position k of the second operand: ``out[k, p] = sum over c of a[c, p] b[c, k]`` (Q by
    K). Over positions, it has the channels k of the second operand, and the first operand's
    channels are weights of its positions: ``out[k, p] = sum over c of a[c, p] b[k, c]`` (scores by
    V).
    """

    kind: Literal[LayerKind.MATMUL]
    """``matmul``"""
    input: tuple[Name, ...]
    """two earlier layers; the array holds the second one as it else holds weights"""
    over: Over
    """what of the second operand is summed over: its ``channels`` or its ``positions``"""
    groups: Count = 1
    """independent products, such as the heads of an attention"""


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


class AddSpec(_Activated):
    """The element-wise sum of two or more layers."""

    kind: Literal[LayerKind.ADD]
    """``add``"""
    input: tuple[Name, ...]
    """two or more earlier layers of equal size"""


class MultiplySpec(_Activated):
    """The element-wise product of two layers."""

    kind: Literal[LayerKind.MULTIPLY]
    """``multiply``"""
    input: tuple[Name, ...]
    """two earlier layers of equal size, or the second with one element per channel (scale)"""


class NormSpec(_Reader, _Activated):
    """A pass over all elements: each is read once, normalised, and written once."""

    kind: Literal[LayerKind.BATCH_NORM, LayerKind.LAYER_NORM]
    """``batch_norm`` or ``layer_norm``, two parameters per channel"""


class MixtureNormSpec(_Reader, _Activated):
    """A norm by a mixture of Gaussians, which can't be folded into the layer before it."""

    kind: Literal[LayerKind.MIXTURE_NORM]
    """``mixture_norm``, two parameters per channel"""
    components: Annotated[int, Field(ge=1, le=MOST_COMPONENTS)]
    """Gaussians of a mixture; one is batch norm"""
    of: Of = Of.CHANNEL
    """``channel``, a mixture for each, or ``vector``, one of all channels of a pixel"""
    sweeps: Annotated[int, Field(ge=1, le=MOST_SWEEPS)] = 1
    """of expectation and maximisation in each step of training"""
    root: bool = True
    """divide by the root of the proportion of each component"""


class SoftmaxSpec(_Reader):
    """A pass over all elements, as a norm without parameters."""

    kind: Literal[LayerKind.SOFTMAX]
    """``softmax``"""


class ShuffleSpec(_Reader):
    """Channels of earlier layers in another order, under a name of its own (channel shuffle).

    It is no layer: nothing moves. Whoever reads it reads the channels where their layers put them.
    With g groups of n channels, channel j of group i becomes channel ``j * g + i`` (X. Zhang, X.
    Zhou, M. Lin, J. Sun, "ShuffleNet", CVPR 2018, section 3.1).
    """

    kind: Literal["shuffle"]
    """``shuffle``"""
    groups: Count
    """into how many groups the channels are cut before they are dealt out in turn; 1 keeps their
    order, and so names a part of them"""


LayerSpec = Annotated[
    ConvSpec
    | DepthwiseSpec
    | TransposedSpec
    | LinearSpec
    | MatmulSpec
    | PoolSpec
    | AddSpec
    | MultiplySpec
    | NormSpec
    | MixtureNormSpec
    | SoftmaxSpec
    | ShuffleSpec,
    Field(discriminator="kind"),
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
    activation: Activation | None = None
    """of every layer that has one and says nothing of its own, see there; by default ``relu``"""
    layers: tuple[LayerSpec, ...] | None = None
    """in the order of computation"""
    base: Name | None = None
    """name of a dense network, in place of ``input`` and ``layers``"""
    pattern: PatternField | None = None
    """laid over the base: every convolution larger than 1x1 but the first, N:M on 1x1 ones too"""
    missing: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """what the network does beside its layers: not counted, and told with every result"""
    masks: Annotated[str, Field(min_length=1)] | None = None
    """file of masks (``.npz``: layer name -> array of bool), its path seen from this file; layers
    that it doesn't name keep their pattern"""
