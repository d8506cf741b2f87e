"""What a network means: layers with all their sizes known, checked to fit together."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from energysim.axes import Dim, Shape, Tensor
from energysim.errors import InputError, InputErrors, did_you_mean
from energysim.network.norm import Mixture, Operations, operations, statistics_words
from energysim.sparsity import Head, Mask, MaskFile, Pattern, get_pattern, mask_misfit

if TYPE_CHECKING:
    import numpy.typing as npt

    from energysim.hardware import Bits

NETWORK_INPUT = "input"
"""The name under which layers refer to the image that enters the network."""

Pair = tuple[int, int]
"""Along (height, width)."""

Volume = tuple[int, int, int]
"""Channels, height, width."""


class LayerKind(StrEnum):
    """What a layer does."""

    CONV = "conv"
    DEPTHWISE = "depthwise"
    TRANSPOSED = "transposed"
    """a convolution that enlarges: each input pixel becomes a patch of output pixels"""
    LINEAR = "linear"
    MATMUL = "matmul"
    """of activations by activations"""
    POOL = "pool"
    ADD = "add"
    MULTIPLY = "multiply"
    BATCH_NORM = "batch_norm"
    """by itself, where it can't be folded into the convolution before it"""
    LAYER_NORM = "layer_norm"
    MIXTURE_NORM = "mixture_norm"
    """by a mixture of Gaussians; it can't be folded into anything"""
    SOFTMAX = "softmax"
    UPDATE = "update"
    """of weights, a step of training; no network file has it"""


class PoolMode(StrEnum):
    """How a pooling layer sums up its window."""

    MAX = "max"
    AVERAGE = "average"


class Activation(StrEnum):
    """A function of each element that a layer produces; no model counts it."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"
    SIGMOID = "sigmoid"
    SWISH = "swish"
    """x sigmoid(x), also called SiLU"""
    GELU = "gelu"
    """x times the normal distribution function of x"""


class Over(StrEnum):
    """What of its second operand a matmul sums over."""

    CHANNELS = "channels"
    POSITIONS = "positions"


WEIGHTED: frozenset[LayerKind] = frozenset(
    {LayerKind.CONV, LayerKind.DEPTHWISE, LayerKind.TRANSPOSED, LayerKind.LINEAR}
)
"""Kinds of layer that have weights and so multiply-accumulates."""

NORMALIZING: frozenset[LayerKind] = frozenset(
    {LayerKind.BATCH_NORM, LayerKind.LAYER_NORM, LayerKind.MIXTURE_NORM}
)
"""Kinds of layer that normalise, scale and shift, each channel with two parameters of its own."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer with all its sizes known, for one image."""

    name: str
    """unique in the network"""
    kind: LayerKind
    """what it does"""
    shape: Shape
    """geometry with N = 1; a pool has G channels and K = C = 1, an add sums over C operands, a
    matmul has its second operand in place of the weights"""
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
    over: Over | None = None
    """of a matmul"""
    activation: Activation = Activation.NONE
    """of what it produces, after its batch norm"""
    picked: tuple[int, ...] | None = None
    """which channels of its inputs, joined in order, it reads; None = the first :attr:`channels`"""
    volume: Volume | None = None
    """channels, height, width of what it produces, where the shape has them in another order"""

    @property
    def operations(self) -> Operations | None:
        """Arithmetic for one position of one image, where it is more than an addition a step."""
        return None

    @property
    def has_weights(self) -> bool:
        """Whether the array has anything to multiply with: weights, or another activation."""
        return self.stores_weights or self.kind is LayerKind.MATMUL

    @property
    def stores_weights(self) -> bool:
        """Whether what it multiplies with is known before any image comes."""
        return self.kind in WEIGHTED

    @property
    def operands(self) -> dict[Tensor, tuple[str, ...]]:
        """The layers it reads, by the tensor that they are for it."""
        if self.kind is LayerKind.MATMUL:
            return {Tensor.INPUT: self.inputs[:1], Tensor.WEIGHT: self.inputs[1:]}
        return {Tensor.INPUT: self.inputs}

    def batched(self, batch: int) -> Shape:
        """Shape for so many images; each image brings its own second operand to a matmul."""
        shape = self.shape
        if self.kind is LayerKind.MATMUL:
            return replace(shape, dims=(1, batch * shape[Dim.G], *shape.dims[2:]))
        return replace(shape, dims=(batch, *shape.dims[1:]))

    def widths(self, bits: Bits) -> Bits:
        """Width of what stands in place of weight, input and output.

        Parameters
        ----------
        bits : Bits
            Of weights and activations.

        Returns
        -------
        Bits
        """
        if self.kind is LayerKind.MATMUL:
            return bits.model_copy(update={"weight": bits.input})
        return bits

    @property
    def output(self) -> Volume:
        """Channels, height, width of what it produces."""
        if self.volume is not None:
            return self.volume
        shape = self.shape
        return shape[Dim.G] * shape[Dim.K], shape[Dim.P], shape[Dim.Q]

    @property
    def mask(self) -> Mask:
        """Which weights are live; only for a layer that multiplies."""
        if self.live:
            return _own_mask(self.live, self.shape, self.pattern)
        return Mask.of(self.pattern, self.shape, self.seed)

    @property
    def weights_dense(self) -> int:
        """Weights, zeros included."""
        return self.shape.elements(Tensor.WEIGHT) if self.stores_weights else 0

    @property
    def weights(self) -> int:
        """Weights that the pattern leaves."""
        return self.mask.nonzeros if self.stores_weights else 0

    @property
    def parameters(self) -> int:
        """Weights that the pattern leaves, biases, and two per channel of a norm."""
        norm = self.batch_norm or self.kind in NORMALIZING
        return self.weights + self.output[0] * (self.bias + 2 * norm)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, zeros included; 0 for a layer that only adds or compares."""
        return self.shape.macs if self.has_weights else 0

    @property
    def effective_macs(self) -> int:
        """Multiply-accumulates with the weights that the pattern leaves."""
        if not self.stores_weights:
            return self.macs
        shape = self.shape
        return self.weights * shape[Dim.N] * shape[Dim.P] * shape[Dim.Q]


@dataclass(frozen=True, slots=True)
class MixtureLayer(Layer):
    """A norm by a mixture of Gaussians."""

    mixture: Mixture = field(kw_only=True)
    """how many components, and of what"""

    @property
    def operations(self) -> Operations | None:
        """Arithmetic for one position of one image."""
        return operations(self.mixture, self.output[0])

    @property
    def statistics(self) -> int:
        """Numbers of its components, with scale and shift."""
        return statistics_words(self.mixture, self.output[0])


@lru_cache(maxsize=128)
def _own_mask(live: str, shape: Shape, pattern: str) -> Mask:
    return Mask.from_bits(b64decode(live), shape, name=pattern)


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Channels of earlier layers in another order, under a name of its own; it is no layer.

    Layers that read it have the producers as :attr:`Layer.inputs`, and :attr:`Layer.picked`.
    """

    name: str
    """unique in the network"""
    inputs: tuple[str, ...]
    """layers and shuffles whose channels it joins"""
    groups: int
    """into which the channels are cut before they are dealt out in turn"""
    before: int
    """how many layers stand before it"""
    channels: int | tuple[int, ...] | None = None
    """which channels of its inputs it has: the first so many, or a list"""
    part: tuple[int, int] | None = None
    """which channels of its inputs it has: the i-th of n equal parts, i from 1"""


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
    missing: tuple[str, ...] = ()
    """what it does beside its layers, which no result counts"""
    shuffles: tuple[Shuffle, ...] = ()
    """names of the file for channels in another order, for it to be written again"""

    def counted(self) -> dict[str, Any]:
        """Everything that a cost can depend on, as plain data.

        Activation functions and the order of channels are no part of it: they cost nothing.
        """
        data = asdict(self)
        del data["shuffles"]
        for layer in data["layers"]:
            del layer["activation"], layer["picked"]
        return data

    @property
    def parameters(self) -> int:
        """Weights that the pattern leaves, biases and batch-norm parameters."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def conv_macs(self) -> int:
        """Multiply-accumulates of the convolutions, zeros included."""
        others = (LayerKind.LINEAR, LayerKind.MATMUL)
        return sum(layer.macs for layer in self.layers if layer.kind not in others)

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
        layers, problems = laid_over(base, pattern)
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

    def with_norm(self, norm: Mixture | str) -> Network:
        """Put a mixture norm, a layer of its own, in the place of each batch norm.

        Parameters
        ----------
        norm : Mixture or str
            Such as ``mixture:3``; see :meth:`energysim.network.Mixture.named`.

        Returns
        -------
        Network
            Named ``network+mixture:3``. Biases before norms are left out: norms take them away.

        Raises
        ------
        InputError
            If it has no batch norm, the norm is unknown, or a layer has the name of a new one.

        Examples
        --------
        >>> from energysim.catalog import load_network
        >>> [layer.name for layer in load_network("digits_cnn").with_norm("mixture:3").layers][:4]
        ['conv1', 'conv1.norm', 'conv2', 'conv2.norm']
        """
        mixture = Mixture.named(norm) if isinstance(norm, str) else norm
        layers = tuple(each for layer in self.layers for each in _normed(layer, mixture))
        if len({layer.name for layer in layers}) < len(layers):
            raise InputError(f"{self.name}: a layer has the name of a norm, such as 'conv1.norm'")
        if not any(isinstance(layer, MixtureLayer) for layer in layers):
            raise InputError(
                f"{self.name} has no batch norm that {mixture} could take the place of"
            )
        moved = {
            layer.inputs[0]: layer.name
            for layer in layers
            if isinstance(layer, MixtureLayer) and layer.name not in _names(self.layers)
        }
        return replace(
            self,
            name=f"{self.name}+{mixture}",
            base=self.base and f"{self.base}+{mixture}",
            layers=tuple(_reading(layer, moved) for layer in layers),
            shuffles=tuple(_shuffled(each, self.layers, moved) for each in self.shuffles),
        )

    def with_batch_norm(self) -> Network:
        """Put a batch norm in the place of each mixture norm; any other network as it is."""
        if not any(isinstance(layer, MixtureLayer) for layer in self.layers):
            return self
        layers = tuple(
            Layer(
                layer.name, LayerKind.BATCH_NORM, layer.shape, layer.inputs, seed=layer.seed,
                channels=layer.channels, picked=layer.picked, activation=layer.activation,
            )
            if isinstance(layer, MixtureLayer)
            else layer
            for layer in self.layers
        )  # fmt: skip
        base = self.base and f"{self.base}+batch"
        return replace(self, name=f"{self.name}+batch", base=base, layers=layers)

    def with_masks(self, masks: Mapping[str, npt.ArrayLike] | MaskFile) -> Network:
        """Give layers a mask of their own, such as what pruning has left.

        Parameters
        ----------
        masks : mapping of str to array-like of bool, or MaskFile
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
        problems: list[str] = []
        if isinstance(masks, MaskFile):
            where = f"{masks.path}: {self.name}"
            layers = masked(self.layers, masks.heads, masks.read, problems)
        else:
            import numpy as np

            where = self.name
            arrays = {name: np.asarray(mask) for name, mask in masks.items()}
            heads = {name: Head(str(each.dtype), each.shape) for name, each in arrays.items()}
            layers = masked(self.layers, heads, arrays.__getitem__, problems)
        if problems:
            raise InputErrors(f"{where}: {problem}" for problem in problems)
        return replace(
            self,
            name=self.name if self.name.endswith("+masks") else f"{self.name}+masks",
            layers=layers,
            base=self.base or (self.name if self.pattern == "dense" else None),
            pattern=pattern_of(layers),
            masks=None,
        )


def _names(layers: Sequence[Layer]) -> set[str]:
    return {layer.name for layer in layers}


def _normed(layer: Layer, mixture: Mixture) -> tuple[Layer, ...]:
    """A layer, and behind it the mixture norm that takes the place of its batch norm."""
    if layer.kind is LayerKind.BATCH_NORM:
        return (_mixture_layer(layer, layer.name, layer.inputs, mixture),)
    if not layer.batch_norm:
        return (layer,)
    bare = replace(layer, batch_norm=False, bias=False, activation=Activation.NONE)
    norm = _mixture_layer(layer, f"{layer.name}.norm", (layer.name,), mixture)
    return bare, replace(norm, channels=None, picked=None)


def _mixture_layer(
    layer: Layer, name: str, inputs: tuple[str, ...], mixture: Mixture
) -> MixtureLayer:
    channels, height, width = layer.output
    return MixtureLayer(
        name,
        LayerKind.MIXTURE_NORM,
        Shape((1, channels, 1, 1, height, width, 1, 1), size=(height, width)),
        inputs,
        channels=layer.channels,
        picked=layer.picked,
        activation=layer.activation,
        mixture=mixture,
    )


def _reading(layer: Layer, moved: Mapping[str, str]) -> Layer:
    """A layer that reads norms and not what stands before them; norms themselves as they are."""
    if moved.get(layer.inputs[0]) == layer.name:
        return layer
    return replace(layer, inputs=tuple(moved.get(name, name) for name in layer.inputs))


def _shuffled(shuffle: Shuffle, layers: Sequence[Layer], moved: Mapping[str, str]) -> Shuffle:
    inputs = tuple(moved.get(name, name) for name in shuffle.inputs)
    more = sum(layer.name in moved for layer in layers[: shuffle.before])
    return replace(shuffle, inputs=inputs, before=shuffle.before + more)


def masked(
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
        elif not layer.stores_weights:
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


def check_layer(network: str, layers: Sequence[Layer], name: str, *, where: str) -> None:
    """Refuse a name that no layer (or step of training) of a network has.

    Raises
    ------
    InputError
        With the nearest name, or else all of them; ``where`` is the option that named it.
    """
    known = [layer.name for layer in layers]
    if name not in known:
        hint = did_you_mean(name, known) or f"\n  known: {', '.join(known)}"
        raise InputError(f"{network} has no layer named '{name}'.{hint}", where=where)


def pattern_of(layers: tuple[Layer, ...]) -> str:
    """Name the pattern of all layers that aren't dense; ``mixed`` where they differ."""
    patterns = {layer.pattern for layer in layers} - {"dense"} or {"dense"}
    return patterns.pop() if len(patterns) == 1 else "mixed"


def laid_over(network: Network, pattern: Pattern) -> tuple[tuple[Layer, ...], list[str]]:
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
