"""A network written out: one line a layer, with its size and cost behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from energysim.axes import Dim, Shape
from energysim.network import (
    NETWORK_INPUT,
    Activation,
    Layer,
    LayerKind,
    MixtureLayer,
    Network,
    Of,
    Shuffle,
)
from energysim.network.activate import usual_activations
from energysim.network.wiring import Channel, Wiring
from energysim.sparsity import Pattern, coverage
from energysim.units import COUNTS, number, unit_for
from energysim.yamlio import to_yaml

if TYPE_CHECKING:
    from energysim.train.recipe import Recipe

LONGEST_RECORD = 110
"""Comments behind the layers are lined up at most here [characters]."""


def recipe_yaml(name: str, recipe: Recipe) -> str:
    """Write a recipe of training as a file, what each field means behind it."""
    fields, given = type(recipe).model_fields, recipe.described()
    text = to_yaml(given) + "".join(f"# {each}:\n" for each in fields if each not in given)
    widest = max(map(len, text.splitlines()))
    lines = [f"# recipe {name}, for 'energysim train --recipe FILE.yaml'"]
    for line in text.splitlines():
        meaning = " ".join(
            (fields[line.removeprefix("# ").split(":")[0]].description or "")
            .replace("`", "")
            .split()
        )
        lines.append(f"{line:<{widest}}  # {meaning}".rstrip())
    return "\n".join(lines) + "\n"


def network_yaml(network: Network) -> str:
    """Write a network as a file of layers, a variant as if each layer had a pattern of its own.

    Parameters
    ----------
    network : Network

    Returns
    -------
    str
        YAML that :func:`energysim.catalog.load_network` reads back to equal layers. Where they have
        masks of their own, it names the file of masks as the network's file does, and so is read
        back from the same folder; masks given in Python are only described.
    """
    head: dict[str, Any] = {"name": network.name, "source": network.source}
    own = _own_activation(network)
    usual = usual_activations(network.layers, own)
    if network.masks is not None:
        head["masks"] = network.masks
    if network.missing:
        head["missing"] = list(network.missing)
    lines = [to_yaml(head).rstrip("\n")]
    if network.base is not None:
        lines.append(f"# variant of {network.base}: pattern {network.pattern}, written out")
    if network.masks is None and any(layer.live for layer in network.layers):
        lines.append("# masks given in Python: save them with numpy.savez, and name the file here:")
        lines.append("# masks: FILE.npz")
    lines.append(
        f"# {len(network.layers)} layers, {_figure(network.parameters)} parameters, "
        f"{_figure(network.macs)} MACs, {_figure(network.effective_macs)} effective"
    )
    lines.append(f"input: {list(network.input_size)}  # channels, height, width")
    if own is not Activation.RELU:
        lines.append(f"activation: {own}  # of layers that say nothing of their own")
    lines.append("layers:")
    records = []
    wiring = Wiring({NETWORK_INPUT: network.input_size[0]})
    previous = NETWORK_INPUT
    for each in _in_order(network):
        if isinstance(each, Shuffle):
            fields = dict(_shuffle_fields(each))
            wiring.take_up(each)
        else:
            fields = dict(_fields(each, previous, wiring))
            if each.activation is not usual[each.name]:
                fields["activation"] = str(each.activation)
            wiring.widths[each.name] = each.output[0]
        record = "  - {" + ", ".join(f"{key}: {_flow(fields[key])}" for key in fields) + "}"
        records.append((record, _comment(each) if isinstance(each, Layer) else ""))
        previous = each.name
    width = min(max(len(record) for record, _ in records), LONGEST_RECORD)
    lines += [
        f"{record:{width}}  # {comment}" if comment else record for record, comment in records
    ]
    return "\n".join(lines) + "\n"


def _own_activation(network: Network) -> Activation:
    """The activation function of a network that fewest of its layers differ from."""

    def others(own: Activation) -> int:
        usual = usual_activations(network.layers, own)
        return sum(layer.activation is not usual[layer.name] for layer in network.layers)

    choices: tuple[Activation, ...] = (Activation.RELU, *Activation)
    return min(choices, key=others)


def _in_order(network: Network) -> Iterator[Layer | Shuffle]:
    """Layers, and the shuffles where they stand between them."""
    waiting = list(network.shuffles)
    for at, layer in enumerate(network.layers):
        while waiting and waiting[0].before <= at:
            yield waiting.pop(0)
        yield layer
    yield from waiting


def pattern_yaml(pattern: Pattern) -> str:
    """Write down what a pattern leaves, and what a period of it covers."""
    if pattern.blocks is not None:
        live, block = pattern.blocks
        return f"name: '{pattern.name}'  # {live} of {block} neighbouring input channels, drawn\n"
    if pattern.random:
        return f"name: {pattern.name}  # {pattern.kss} taps of each kernel, drawn\n"
    found = coverage(pattern)
    lines = [
        f"name: {_flow(found.pattern)}",
        f"kernel: {list(found.kernel)}",
        f"period: {found.period}  # supports repeat after {_count(found.true_period, 'kernel')}",
        "supports:  # live taps of slot 0, 1, ...",
        *(f"  - {list(slot)}" for slot in pattern.slots),
        f"mean_kss: {found.mean_kss:.4g}  # live taps of a kernel",
        f"variants: {found.variants}  # distinct supports that are not the whole kernel",
        f"dense_kernels: {found.dense_kernels}  # in one period",
        f"live: {list(found.live)}  # for each tap, kernels of one period that have it",
    ]
    lines += [f"never_live: {list(found.missing)}  # no kernel has them"] * bool(found.missing)
    unused = [list(each) for each in found.unused]
    lines += [f"unused: {unused}  # supports that stand in no slot"] * bool(unused)
    return "\n".join(lines) + "\n"


def coverage_line(pattern: Pattern) -> str:
    """Say in one line what a period of a pattern covers; nothing of one without a period."""
    if pattern.dense or not pattern.slots:
        return ""
    found = coverage(pattern)
    taps = len(found.live)
    told = [
        f"{len(found.union)} of {taps} taps live in a period of {_count(found.period, 'kernel')}",
        f"mean KSS {found.mean_kss:.3g}",
        _count(found.variants, "variant"),
    ]
    if found.dense_kernels:
        told.append(f"{_count(found.dense_kernels, 'dense kernel')} in it")
    if found.true_period < found.period:
        told.append(f"repeats after {found.true_period}")
    if found.missing:
        told.append(f"never live: {', '.join(map(str, found.missing))}")
    if found.unused:
        told.append(f"in no slot: {', '.join(str(list(each)) for each in found.unused)}")
    return f"pattern {found.pattern}: {'; '.join(told)}"


def _count(number_of: int, word: str) -> str:
    return f"{number_of} {word}{'s' * (number_of != 1)}"


def _comment(layer: Layer) -> str:
    size = "x".join(map(str, layer.output))
    if not layer.has_weights:
        return f"-> {size}"
    weights, macs = _figure(layer.weights), _figure(layer.effective_macs)
    if not layer.stores_weights:
        return f"-> {size}, no weights, {macs} MACs"
    part = layer.weights / layer.weights_dense
    of = "" if part == 1 else f" of {_figure(layer.weights_dense)}"
    own = f", own mask of density {part:.3g}" if layer.live else ""
    return f"-> {size}, {weights}{of} weights, {macs} MACs{own}"


def _figure(value: int) -> str:
    factor, unit = unit_for([value], COUNTS, least=1)
    return f"{number(value, factor)}{' ' * bool(unit)}{unit}"


def _flow(value: object) -> str:
    if isinstance(value, list):  # a long one would be folded into lines
        return f"[{', '.join(map(_flow, value))}]"
    return to_yaml(value).removesuffix("\n").removesuffix("\n...")


def _shuffle_fields(shuffle: Shuffle) -> Iterator[tuple[str, Any]]:
    yield "name", shuffle.name
    yield "kind", "shuffle"
    yield "input", _one_or_list(shuffle.inputs)
    if shuffle.channels is not None:
        yield "channels", _plain(shuffle.channels)
    if shuffle.part is not None:
        yield "part", list(shuffle.part)
    yield "groups", shuffle.groups


def _one_or_list(names: tuple[str, ...]) -> str | list[str]:
    return names[0] if len(names) == 1 else list(names)


def _plain(channels: int | tuple[int, ...]) -> int | list[int]:
    return channels if isinstance(channels, int) else list(channels)


def _fields(layer: Layer, previous: str, wiring: Wiring) -> Iterator[tuple[str, Any]]:
    """Fields of one layer's record, without those that have their default value."""
    shape = layer.shape
    yield "name", layer.name
    yield "kind", str(layer.kind)
    yield from _reads(layer, previous, wiring)
    if layer.kind in (LayerKind.CONV, LayerKind.TRANSPOSED, LayerKind.LINEAR):
        yield "out", layer.output[0]
    if layer.kind in (LayerKind.CONV, LayerKind.DEPTHWISE, LayerKind.POOL):
        yield from _window(layer)
    if layer.kind is LayerKind.TRANSPOSED:
        patch = _patch(layer)
        yield "kernel", patch
        yield "stride", patch
    if layer.over is not None:
        yield "over", str(layer.over)
    if layer.kind in (LayerKind.CONV, LayerKind.MATMUL) and shape[Dim.G] > 1:
        yield "groups", shape[Dim.G]
    if layer.stores_weights and not layer.bias:
        yield "bias", False
    if layer.batch_norm:
        yield "batch_norm", True
    if layer.pattern != "dense" and not layer.live:
        yield "pattern", layer.pattern
    yield from _mixture_fields(layer)
    if layer.mode is not None:
        yield "mode", str(layer.mode)


def _mixture_fields(layer: Layer) -> Iterator[tuple[str, Any]]:
    if not isinstance(layer, MixtureLayer):
        return
    mixture = layer.mixture
    yield "components", mixture.components
    if mixture.of is not Of.CHANNEL:
        yield "of", str(mixture.of)
    if mixture.sweeps != 1:
        yield "sweeps", mixture.sweeps
    if not mixture.root:
        yield "root", False


def _reads(layer: Layer, previous: str, wiring: Wiring) -> Iterator[tuple[str, Any]]:
    if layer.picked is not None:
        yield from _picked(layer.inputs, layer.picked, wiring)
        return
    if len(layer.inputs) > 1:
        yield "input", list(layer.inputs)
    elif layer.inputs != (previous,):
        yield "input", layer.inputs[0]
    if layer.channels is not None:
        yield "channels", layer.channels


def _picked(
    inputs: tuple[str, ...], picked: tuple[int, ...], wiring: Wiring
) -> Iterator[tuple[str, Any]]:
    """Fields of channels in an order of their own: a shuffle, a part, or else all their numbers."""
    every = wiring.joined(inputs)
    read = [every[number] for number in picked]
    for names, channels in (
        *(((name,), dealt) for name, dealt in reversed(wiring.shuffles.items())),
        (inputs, every),
    ):
        found = _part_of(channels, read)
        if found is not None:
            yield "input", _one_or_list(names)
            if found != (1, 1):
                yield "part", list(found)
            return
    yield "input", _one_or_list(inputs)
    yield "channels", list(picked)


def _part_of(channels: Sequence[Channel], read: list[Channel]) -> tuple[int, int] | None:
    """Which of how many equal parts of some channels others are, None where they are none."""
    size = len(read)
    if len(channels) % size:
        return None
    for start in range(0, len(channels), size):
        if list(channels[start : start + size]) == read:
            return start // size + 1, len(channels) // size
    return None


def _window(layer: Layer) -> Iterator[tuple[str, Any]]:
    shape = layer.shape
    kernel = (shape[Dim.R], shape[Dim.S])
    is_pool = layer.kind is LayerKind.POOL
    yield "kernel", _pair(kernel)
    if shape.stride != (kernel if is_pool else (1, 1)):
        yield "stride", _pair(shape.stride)
    pad = _pad(shape)
    if pad:
        yield "pad", pad
    if shape.dilation != (1, 1):
        yield "dilation", _pair(shape.dilation)


def _patch(layer: Layer) -> int | list[int]:
    """Output pixels that each input pixel becomes."""
    (_, height, width), (rows, columns) = layer.output, layer.shape.size
    return _pair((height // rows, width // columns))


def _pair(value: tuple[int, int]) -> int | list[int]:
    return value[0] if value[0] == value[1] else list(value)


def _pad(shape: Shape) -> int | list[int]:
    """Zeros around the input: as much below as above where that gives the same output."""
    before = shape.pad
    after = [_after(shape, axis) for axis in (0, 1)]
    if tuple(after) == before:
        return _pair(before)
    return [before[0], after[0], before[1], after[1]]


def _after(shape: Shape, axis: int) -> int:
    """Zeros below (axis 0) or right (axis 1): those above, or else as few as will do."""
    count, kernel = ((shape[Dim.P], shape[Dim.R]), (shape[Dim.Q], shape[Dim.S]))[axis]
    stride, before = shape.stride[axis], shape.pad[axis]
    span = (kernel - 1) * shape.dilation[axis] + 1
    extent = before + shape.size[axis]
    if (extent + before - span) // stride + 1 == count:
        return before
    return max(0, (count - 1) * stride + span - extent)
