"""MAESTRO: accesses of two memory levels under four dataflows that come with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np

from energysim.axes import Dim, Shape, Tensor
from energysim.mapping import Nest, build_nest
from energysim.model.counts import Counts, count
from energysim.validation.check import Check, Study, exact, shown
from energysim.validation.data import read_rows

PES = 256
CLUSTER_KP = 64
"""Processing elements of ``ckp_ws`` that share a channel and have a filter each."""
CLUSTER_X = 8
"""Processing elements of ``yxp_os`` that share output rows and have a column each."""

DRAM, L2, L1 = range(3)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of VGG-16 without padding, and what the tool counts for it."""

    row: Mapping[str, str]
    filters: int
    channels: int
    image: int
    """rows and columns of the input"""
    kernel: int

    @property
    def name(self) -> str:
        """Of the dataflow and the layer."""
        return f"{self.row['dataflow']} {self.row['layer']}"

    @property
    def out(self) -> int:
        """Rows and columns of the output."""
        return self.image - self.kernel + 1

    @property
    def outputs(self) -> int:
        """Elements of the output."""
        return self.filters * self.out**2

    @property
    def window(self) -> int:
        """Inputs that one output of one channel needs."""
        return self.kernel**2

    @property
    def shape(self) -> Shape:
        """As the counts take it."""
        k, c, p, r = self.filters, self.channels, self.out, self.kernel
        return Shape((1, 1, k, c, p, p, r, r), size=(self.image, self.image))

    def theirs(self, *columns: str) -> int:
        """Sum of some columns."""
        return sum(int(self.row[column]) for column in columns)


Loops = tuple[tuple[Dim, int], ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Words by which the tool's count is above ours, and why."""

    words: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Flow:
    """A dataflow: its loops, and where the tool's rules differ from ours."""

    temporal: Callable[[Layer], Loops]
    """outside of a processing element, outermost first"""
    spatial: Callable[[Layer], Loops]
    inputs: Callable[[Layer], Difference]
    """of words read from L2"""
    weights: Callable[[Layer], Difference] = lambda _: Difference()
    sums: Callable[[Layer], Difference] = lambda _: Difference()
    """of partial sums written to L2"""


# -- weights stay, channels and filters spread -----------------------------------------------------


def _ckp_temporal(layer: Layer) -> Loops:
    clusters = PES // CLUSTER_KP
    return (
        (Dim.C, ceil(layer.channels / clusters)),
        (Dim.K, ceil(layer.filters / CLUSTER_KP)),
        (Dim.P, layer.out),
        (Dim.Q, layer.out),
    )


def _ckp_spatial(layer: Layer) -> Loops:
    return (
        (Dim.C, min(layer.channels, PES // CLUSTER_KP)),
        (Dim.K, min(layer.filters, CLUSTER_KP)),
    )


NOT_BACK = "after a change of filters the tool does not load the first window again"


def _ckp_inputs(layer: Layer) -> Difference:
    changes = ceil(layer.filters / CLUSTER_KP) - 1
    return Difference(-changes * layer.channels * layer.window, NOT_BACK if changes else "")


# -- nothing stays, channels spread ----------------------------------------------------------------


def _nlr_temporal(layer: Layer) -> Loops:
    return (
        (Dim.K, layer.filters),
        (Dim.P, layer.out),
        (Dim.Q, layer.out),
        (Dim.C, ceil(layer.channels / PES)),
    )


def _nlr_spatial(layer: Layer) -> Loops:
    return ((Dim.C, min(layer.channels, PES)),)


LEFT_OUT = "of fewer channels than elements it loads one less after the first window"


def _nlr_inputs(layer: Layer) -> Difference:
    words = -(layer.filters - 1) * min(layer.channels, PES) * layer.window
    if layer.channels >= PES:
        return Difference(words, NOT_BACK)
    sliding = layer.out * layer.kernel * layer.image - layer.window
    return Difference(words - layer.filters * sliding, f"{NOT_BACK}; {LEFT_OUT}")


def _nlr_weights(layer: Layer) -> Difference:
    if layer.channels < PES:
        return Difference(-(layer.filters - 1) * layer.window, LEFT_OUT)
    if layer.channels == PES:
        return Difference()
    words = layer.window * PES * (layer.outputs - layer.filters)
    return Difference(-words, "it does not load weights of the first channels again for each pixel")


def _nlr_sums(layer: Layer) -> Difference:
    more = ceil(layer.channels / PES) - 1
    reason = "it writes sums that stay in the elements while the next channels are added"
    return Difference(more * layer.outputs, reason if more else "")


# -- weights stay, columns spread ------------------------------------------------------------------


def _xp_temporal(layer: Layer) -> Loops:
    return ((Dim.K, layer.filters), (Dim.C, layer.channels), (Dim.P, layer.out))


def _xp_spatial(layer: Layer) -> Loops:
    return ((Dim.Q, layer.out),)


def _xp_inputs(layer: Layer) -> Difference:
    taps, maps = layer.kernel, layer.filters * layer.channels
    column = maps * (taps + layer.out - 1)
    first = taps * (layer.image - 1)
    back = layer.filters * first - layer.out * layer.window
    return Difference(
        -(column + back),
        f"{NOT_BACK}, and for the very first each element's alone; of fewer columns than elements "
        "it loads one less",
    )


# -- sums stay, rows and columns spread ------------------------------------------------------------


def _yxp_temporal(layer: Layer) -> Loops:
    return (
        (Dim.K, layer.filters),
        (Dim.C, layer.channels),
        (Dim.P, ceil(layer.out / (PES // CLUSTER_X))),
        (Dim.Q, ceil(layer.out / CLUSTER_X)),
    )


def _yxp_spatial(layer: Layer) -> Loops:
    return (
        (Dim.P, min(layer.out, PES // CLUSTER_X)),
        (Dim.Q, CLUSTER_X),
    )


def _yxp_inputs(layer: Layer) -> Difference:
    taps, clusters = layer.kernel, PES // CLUSTER_X
    maps, rows = layer.filters * layer.channels, min(layer.out, clusters)
    steps, folds = ceil(layer.out / CLUSTER_X), ceil(layer.out / clusters)
    wide = CLUSTER_X + taps - 1
    shared = (taps + rows - (1 if rows == clusters else 2)) * wide
    apart = rows * taps * wide
    every = layer.out * taps * (wide + (steps - 1) * CLUSTER_X)
    theirs = maps * (every - apart) + (maps - layer.filters) * shared + apart
    halo = taps - 1
    ours = maps * (layer.out + folds * halo) * (layer.out + steps * halo)
    return Difference(
        theirs - ours,
        "it reads rows that neighbours share for each of them, but for the first tile of a channel"
        f"{'' if rows == clusters else ', where it leaves a cluster out'}; columns that tiles "
        f"share once, and some past the edge; {NOT_BACK}",
    )


def _yxp_weights(layer: Layer) -> Difference:
    steps, folds = ceil(layer.out / CLUSTER_X), ceil(layer.out * CLUSTER_X / PES)
    if folds == 1 or layer.out % ceil(layer.out / steps) == 0:
        return Difference()
    again = (folds - 1) * layer.filters * layer.channels * layer.window
    return Difference(
        -again,
        "ours: elements without work in the last columns keep nothing, and take their weights "
        "again for the next rows",
    )


FLOWS = {
    "ckp_ws": Flow(_ckp_temporal, _ckp_spatial, _ckp_inputs),
    "nlr": Flow(_nlr_temporal, _nlr_spatial, _nlr_inputs, _nlr_weights, _nlr_sums),
    "xp_ws": Flow(_xp_temporal, _xp_spatial, _xp_inputs),
    "yxp_os": Flow(_yxp_temporal, _yxp_spatial, _yxp_inputs, _yxp_weights),
}


# -- checks ----------------------------------------------------------------------------------------


def _counts(layer: Layer, flow: Flow) -> Counts:
    temporal, spatial = flow.temporal(layer), flow.spatial(layer)
    taps = ((Dim.R, layer.kernel), (Dim.S, layer.kernel))
    nest: Nest = build_nest(
        (frozenset(), frozenset(), frozenset(range(len(spatial)))),
        (frozenset(Tensor),) * 3,
        (
            ((), ()),
            (
                tuple(dim for dim, _ in temporal),
                tuple((dim, axis) for axis, (dim, _) in enumerate(spatial)),
            ),
            (tuple(dim for dim, _ in taps), ()),
        ),
    )
    trips = [trip for _, trip in (*temporal, *spatial, *taps)]
    return count(layer.shape, nest, np.array([trips]))


def _layers() -> Iterator[Layer]:
    for row in read_rows("maestro.csv"):
        yield Layer(row, *(int(row[name]) for name in ("K", "C", "Y", "R")))


def _checks() -> Iterator[Check]:
    found = [(layer, _counts(layer, FLOWS[layer.row["dataflow"]])) for layer in _layers()]
    for layer, counts in found:
        yield from _layer_checks(layer, counts)


def _layer_checks(layer: Layer, counts: Counts) -> Iterator[Check]:
    flow, what = FLOWS[layer.row["dataflow"]], layer.name

    def ours(level: int, action: str, *tensors: Tensor) -> int:
        return sum(int(counts(level, tensor, action)[0]) for tensor in tensors)

    operands = (Tensor.INPUT, Tensor.WEIGHT)
    yield exact(
        what,
        "L1 reads, operands",
        layer.theirs("input_l1_read", "weight_l1_read"),
        ours(L1, "read", *operands),
    )
    begun = layer.outputs * dict(flow.spatial(layer)).get(Dim.C, 1)
    yield exact(
        what,
        "L1 reads, sums, and zeros where a sum begins",
        layer.theirs("output_l1_read"),
        ours(L1, "read", Tensor.OUTPUT) + begun,
        reason=f"the tool also reads where a sum begins: {begun:,} zeros added to ours",
    )
    yield exact(
        what,
        "L1 writes, sums",
        layer.theirs("output_l1_write"),
        ours(L1, "update", Tensor.OUTPUT),
    )
    for quantity, column, number, difference in (
        ("L2 reads, inputs", "input_l2_read", ours(L2, "read", Tensor.INPUT), flow.inputs),
        ("L2 reads, weights", "weight_l2_read", ours(L2, "read", Tensor.WEIGHT), flow.weights),
        ("L2 writes, sums", "output_l2_write", ours(L2, "update", Tensor.OUTPUT), flow.sums),
    ):
        yield _compared(what, quantity, layer.theirs(column), number, difference(layer))
    yield exact(
        what,
        "L2 writes, operands",
        layer.theirs("input_l2_write", "weight_l2_write"),
        ours(L2, "fill", *operands),
    )
    yield exact(
        what,
        "L2 reads, outputs",
        layer.theirs("output_l2_read"),
        ours(L2, "drain", Tensor.OUTPUT),
    )
    back = ours(L2, "read", Tensor.OUTPUT)
    if back:
        reason = "sums that leave an element unfinished come back to it: not counted by the tool"
        yield shown(what, "L2 reads, sums", 0, back, reason=reason)
    yield shown(
        what,
        "L1 writes, operands",
        layer.theirs("input_l1_write", "weight_l1_write"),
        ours(L1, "fill", *operands),
        reason="the tool writes what it reads from L2, once however many elements take it",
    )


def _compared(what: str, quantity: str, printed: int, ours: int, known: Difference) -> Check:
    """Equal as printed, or shown with the rule that differs."""
    if not known.words:
        return exact(what, quantity, printed, ours)
    explained = printed - known.words == ours
    rest = f"by this rule ours are {printed:,} too" if explained else "the rest is not explained"
    return shown(what, quantity, printed, ours, reason=f"{known.reason}; {rest}")


STUDIES = (
    Study(
        name="maestro",
        title="Two memory levels, four dataflows",
        kind="tool",
        source="MAESTRO, commit 4eb08d1, VGG-16 with the mappings that come with it",
        method=(
            "Each mapping written as a loop nest on 256 processing elements and counted without "
            "limits of room, as the tool counts; its figures are as printed. Claimed are those "
            "that ours equal, of sums in L1 after adding the zeros that it reads where they begin."
            " Where its rules for what stays or is shared differ from ours, both are shown, with "
            "the rule; a closed form of it, in the code of this study, says by how much."
        ),
        compute=_checks,
    ),
)
