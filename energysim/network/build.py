"""From what a user wrote to what it means, every shape inferred and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from energysim.axes import Shape
from energysim.errors import InputError, InputErrors, did_you_mean
from energysim.network.activate import usual_activations
from energysim.network.norm import Mixture
from energysim.network.report import Location, Place, Positions, Report
from energysim.network.shapes import Combiner, Reader, combined_shape, pair, produced, reader_shape
from energysim.network.spec import (
    AddSpec,
    ConvSpec,
    DepthwiseSpec,
    LayerSpec,
    LinearSpec,
    MatmulSpec,
    MixtureNormSpec,
    NetworkSpec,
    PatternField,
    PatternSpec,
    PoolSpec,
    ShuffleSpec,
    TransposedSpec,
)
from energysim.network.types import (
    NETWORK_INPUT,
    Activation,
    Layer,
    MixtureLayer,
    Network,
    Pair,
    Shuffle,
    Volume,
    laid_over,
    masked,
    pattern_of,
)
from energysim.network.wiring import Reads, Wiring, misread, numbers_of, volume_read
from energysim.sparsity import SIDE, MaskFile, Pattern, get_pattern, problems_of

Convolution = ConvSpec | DepthwiseSpec | TransposedSpec
"""Records of layers that a batch norm can be folded into."""

LayerRecord = Reader | Combiner
"""Records of layers, as against names for channels of theirs."""


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
    report = Report(spec.name, source)
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
    network: Network, name: str, open_masks: Callable[[str], MaskFile], report: Report
) -> Network:
    try:
        file = open_masks(name)
    except InputError as error:
        report.add(("masks",), str(error))
        return network
    problems: list[str] = []
    layers = masked(network.layers, file.heads, file.read, problems)
    for problem in problems:
        report.add(("masks",), f"{name}: {problem}")
    return replace(network, layers=layers, pattern=pattern_of(layers), masks=name)


def _build_variant(
    spec: NetworkSpec, report: Report, resolve_base: Callable[[str], Network]
) -> Network | None:
    """Lay the pattern of a variant over its base."""
    if spec.base is None:
        report.add(
            ("pattern",) if spec.pattern else (),
            f"network {spec.name!r} needs either `input:` and `layers:`, or `base:` and `pattern:`",
        )
        return None
    for key, given in (("input", spec.input), ("activation", spec.activation)):
        if given is not None:
            report.add((key,), f"a variant has the {key} of its base {spec.base!r}: leave it out")
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
    layers, problems = laid_over(base, pattern)
    for problem in problems:
        report.add(("base",) if base.pattern != "dense" else ("pattern",), problem)
    return Network(
        spec.name,
        spec.source,
        layers,
        base.input_size,
        base.name,
        pattern.name,
        missing=base.missing + spec.missing,
        shuffles=base.shuffles,
    )


def _variant_pattern(spec: NetworkSpec, report: Report) -> Pattern | None:
    if spec.pattern is not None:
        return _find_pattern(spec.pattern, ("pattern",), report, kernel=(SIDE, SIDE))
    if spec.masks is not None:
        return get_pattern("dense")
    report.add(
        ("base",), f"a variant of {spec.base!r} needs a `pattern:` to lay over it, or `masks:`"
    )
    return None


def _find_pattern(
    given: PatternField, loc: Location, report: Report, *, kernel: Pair
) -> Pattern | None:
    """Find a pattern by name, or make one of a user's own supports; ``kernel`` is the usual one."""
    if isinstance(given, PatternSpec):
        own = kernel if given.kernel is None else pair(given.kernel)
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


def _check_top(spec: NetworkSpec, records: tuple[LayerSpec, ...], report: Report) -> None:
    """What a network with layers of its own must and must not say beside them."""
    if spec.base is not None:
        report.add(("base",), "a network has either `layers:` or `base:`, not both")
    elif spec.pattern is not None:
        report.add(
            ("pattern",),
            "a network of its own layers takes `pattern:` in each layer; write a variant with"
            " `base:` for a pattern on all of them",
        )
    if all(isinstance(record, ShuffleSpec) for record in records):
        report.add(("layers",), "a network needs at least one layer")
    if spec.input is None:
        report.add(("layers",), "`layers:` need an `input: [channels, height, width]` to work on")


def _build_layers(
    spec: NetworkSpec, records: tuple[LayerSpec, ...], report: Report
) -> Network | None:
    """Go through the layers in order, each with the sizes of the ones before it."""
    _check_top(spec, records, report)
    # None = the size could not be found because of a problem that is reported already.
    sizes: dict[str, Volume | None] = {NETWORK_INPUT: spec.input}
    all_names = {record.name for record in records}
    layers: list[Layer] = []
    wiring = Wiring({NETWORK_INPUT: spec.input[0]} if spec.input else {})
    shuffles: list[Shuffle] = []
    previous = NETWORK_INPUT
    for index, record in enumerate(records):
        at = Place(report, index, record.name)
        inputs = _inputs_of(record, previous)
        for name in inputs:
            if name not in sizes:
                at.problem("input", _bad_reference(name, record.name, all_names, list(sizes)))
        read = tuple(sizes.get(name) for name in inputs)
        if isinstance(record, ShuffleSpec):
            shuffle = _shuffle(record, inputs, before=index - len(shuffles))
            size = _build_shuffle(record, shuffle, read, wiring, at)
            shuffles.append(shuffle)
        else:
            layer = _build_layer(record, inputs, read, wiring, at, seed=index - len(shuffles))
            size = layer.output if layer is not None else None
            if layer is not None:
                layers.append(layer)
                wiring.widths[layer.name] = layer.output[0]
        if record.name == NETWORK_INPUT:
            at.problem("name", "a layer can't be named 'input': it stands for the network's input")
        elif record.name in sizes:
            at.problem("name", "there is an earlier layer of the same name; names must be unique")
            sizes[record.name] = None  # whoever reads it may mean either
        else:
            sizes[record.name] = size
        previous = record.name
    if spec.input is None or report.problems:
        return None
    pattern = pattern_of(tuple(layers))
    return Network(
        spec.name,
        spec.source,
        _activated(layers, records, spec.activation or Activation.RELU),
        spec.input,
        None,
        pattern,
        missing=spec.missing,
        shuffles=tuple(shuffles),
    )


def _activated(
    layers: list[Layer], records: tuple[LayerSpec, ...], own: Activation
) -> tuple[Layer, ...]:
    """Give each layer the activation function that its record says, or else its usual one."""
    found = usual_activations(layers, own)
    for record in records:
        said: Activation | None = getattr(record, "activation", None)
        if said is not None:
            found[record.name] = said
    return tuple(replace(layer, activation=found[layer.name]) for layer in layers)


def _inputs_of(record: LayerSpec, previous: str) -> tuple[str, ...]:
    named = record.input or previous
    return (named,) if isinstance(named, str) else named


def _bad_reference(name: str, reader: str, all_names: set[str], earlier: list[str]) -> str:
    if name == reader or name in all_names:
        which = "itself" if name == reader else f"the later layer {name!r}"
        return f"reads {which} (cycle or forward reference); only earlier layers can be read"
    return f"reads {name!r}, but there is no such layer.{did_you_mean(name, earlier)}"


def _shuffle(record: ShuffleSpec, inputs: tuple[str, ...], *, before: int) -> Shuffle:
    return Shuffle(record.name, inputs, record.groups, before, record.channels, record.part)


def _build_shuffle(
    record: ShuffleSpec,
    shuffle: Shuffle,
    sizes: tuple[Volume | None, ...],
    wiring: Wiring,
    at: Place,
) -> Volume | None:
    """Take up a name for channels in another order; its size, None where it can't be known."""
    known = [size for size in sizes if size is not None]
    size = _size_read(record, shuffle.inputs, known, at) if len(known) == len(sizes) else None
    if size is not None and size[0] % record.groups:
        at.problem("groups", f"groups: {record.groups} must divide the {size[0]} channels")
        return None
    if size is not None:
        wiring.take_up(shuffle)
    return size


def _size_read(
    record: Reader | ShuffleSpec, inputs: tuple[str, ...], known: list[Volume], at: Place
) -> Volume | None:
    """Size of what a record reads."""
    volume = volume_read(inputs, known, at)
    if volume is None:
        return None
    total, height, width = volume
    problem = misread(record.channels, record.part, total)
    if problem is not None:
        at.problem(*problem)
        return None
    return len(numbers_of(record.channels, record.part, total)), height, width


def _reads(record: Reader, inputs: tuple[str, ...], wiring: Wiring) -> Reads:
    """What a layer reads in terms of other layers, as the record says it where it can."""
    first, shuffled = record.channels, wiring.shuffles.keys() & set(inputs)
    if not shuffled and record.part is None and not isinstance(first, tuple):
        return Reads(inputs, first, None)
    every = wiring.joined(inputs)
    numbers = numbers_of(record.channels, record.part, len(every))
    return Reads.of([every[number] for number in numbers], wiring.widths)


def _build_layer(
    record: LayerRecord,
    inputs: tuple[str, ...],
    sizes: tuple[Volume | None, ...],
    wiring: Wiring,
    at: Place,
    *,
    seed: int,
) -> Layer | None:
    """Find the shape of one layer; None where it can't be known."""
    known = [size for size in sizes if size is not None]
    pattern = "dense"
    if isinstance(record, ConvSpec | DepthwiseSpec):
        pattern = _own_pattern(record, at)
    shuffled = [name for name in inputs if name in wiring.shuffles]
    if isinstance(record, Combiner) and shuffled:
        at.problem("input", f"{_of_whole_layers(record)}, and {shuffled[0]!r} is a shuffle")
        return None
    if len(known) < len(sizes):
        return None
    shape: Shape | None
    if isinstance(record, Combiner):
        reads = Reads(inputs, None, None)
        shape = combined_shape(record, inputs, known, at)
    else:
        size = _size_read(record, inputs, known, at)
        if size is None:
            return None
        reads = _reads(record, inputs, wiring)
        shape = reader_shape(record, size, at)
    if shape is None:
        return None
    if isinstance(record, MixtureNormSpec):
        mixture = Mixture(record.components, record.of, record.sweeps, record.root)
        channels, picked = reads.channels, reads.picked
        return MixtureLayer(
            record.name, record.kind, shape, reads.inputs,
            channels=channels, picked=picked, seed=seed, mixture=mixture,
        )  # fmt: skip
    return Layer(
        record.name,
        record.kind,
        shape,
        reads.inputs,
        pattern,
        seed=seed,
        bias=isinstance(record, Convolution | LinearSpec) and record.bias,
        batch_norm=isinstance(record, Convolution) and record.batch_norm,
        mode=record.mode if isinstance(record, PoolSpec) else None,
        channels=reads.channels,
        picked=reads.picked,
        over=record.over if isinstance(record, MatmulSpec) else None,
        volume=produced(record, known),
    )


def _of_whole_layers(record: Combiner) -> str:
    article = "an" if isinstance(record, AddSpec) else "a"
    return f"{article} {record.kind} takes whole layers, channel by channel"


def _own_pattern(record: ConvSpec | DepthwiseSpec, at: Place) -> str:
    kernel = pair(record.kernel)
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
