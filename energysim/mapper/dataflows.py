"""Dataflows: named sets of constraints on the mapspace.

A dataflow says which dims may spread over which array axis and which tensor stays put. Everything
that it leaves open is searched.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import prod

from energysim.axes import Dim, Tensor
from energysim.errors import InputError, did_you_mean
from energysim.hardware import Hardware

N, G, K, C, P, Q, R, S = Dim

CUSTOM = "custom"
"""The name of a dataflow that a hardware file spells itself."""


@dataclass(frozen=True, slots=True)
class Dataflow:
    """Constraints on unrolling and on the loops inside the outermost on-chip memory."""

    name: str
    meaning: str
    """one line for ``list dataflows``"""
    unroll: tuple[tuple[Dim, ...], ...] = ()
    """dims for the first, second ... array axis, where the hardware file does not say; an axis
    that is left out takes any dim"""
    stationary: Tensor | None = None
    """while a tile of it is in its outermost on-chip memory, each of its elements goes to its
    innermost memory once; weights and inputs that are on chip all the time may come again for each
    tile of outputs (:func:`around`)"""
    whole: frozenset[Dim] = frozenset()
    """dims that a processing element takes whole, if its memories can hold them"""
    order: tuple[Dim, ...] = ()
    """loops inside the outermost on-chip memories, outermost first; others stand anywhere"""
    uneven: bool = True
    """False: all tensors of a level share one cut (what a loop leaves alone stays, as ever)"""
    local_reuse: bool = True
    """False: only the outermost on-chip memory of each tensor holds it"""


DATAFLOWS: dict[str, Dataflow] = {
    flow.name: flow
    for flow in (
        Dataflow(
            "weight_stationary",
            "weights stay at the processing elements while all outputs of a tile pass",
            ((C,), (K,)),
            stationary=Tensor.WEIGHT,
        ),
        Dataflow(
            "output_stationary",
            "partial sums stay at the processing elements until they are complete",
            ((Q, P), (K,)),
            stationary=Tensor.OUTPUT,
        ),
        Dataflow(
            "input_stationary",
            "inputs stay at the processing elements while all filters of a tile pass",
            ((C,), (Q, P)),
            stationary=Tensor.INPUT,
        ),
        Dataflow(
            "row_stationary",
            "a processing element convolves rows; sums pass up and input rows along diagonals "
            "(Chen et al., ISCA 2016)",
            ((R, K, C), (P, K)),
            whole=frozenset({S}),
        ),
        Dataflow(
            "no_local_reuse",
            "only the outermost on-chip memory holds data; the array shares what it reads there",
            ((C,), (K,)),
            local_reuse=False,
        ),
        Dataflow("free", "no constraint: any dim on any axis, any tensor stays or moves"),
        Dataflow(CUSTOM, "only what the hardware file spells: unroll, stationary, order"),
    )
}
"""Every dataflow by name."""


def get_dataflow(name: str) -> Dataflow:
    """Look a dataflow up by name.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in DATAFLOWS:
        hint = did_you_mean(name, DATAFLOWS)
        raise InputError(f"no dataflow named '{name}'.{hint}\n  known: {', '.join(DATAFLOWS)}")
    return DATAFLOWS[name]


def of_machine(hardware: Hardware) -> Dataflow:
    """The dataflow of a hardware file; what it spells itself goes before the named preset."""
    flow = get_dataflow(hardware.dataflow)
    stationary = hardware.stationary_tensor
    unroll = tuple(
        named if (named := hardware.unroll_dims(name)) is not None else default
        for name, default in zip(
            hardware.axis_names,
            (*flow.unroll, *[tuple(Dim)] * len(hardware.axis_names)),
            strict=False,
        )
    )
    return replace(
        flow,
        unroll=unroll,
        stationary=flow.stationary if stationary is None else stationary,
        order=hardware.loop_order or flow.order,
    )


def with_dataflow(hardware: Hardware, name: str | None) -> Hardware:
    """The machine under another dataflow; what its file spells belongs to its own.

    Raises
    ------
    InputError
        If there is no dataflow of that name.
    """
    if name is None or name in {hardware.dataflow, CUSTOM}:
        return hardware.model_copy(update={"dataflow": name or hardware.dataflow})
    get_dataflow(name)
    array = hardware.array.model_copy(update={"unroll": {}})
    update = {"array": array, "dataflow": name, "stationary": None, "order": ()}
    return hardware.model_copy(update=update)


def around(flow: Dataflow, resident: AbstractSet[Tensor]) -> Dataflow:
    """The dataflow of a layer of which some tensors stay on chip.

    A stay that outlasts the layer is no bound on what passes meanwhile: if weights that stay were
    loaded once, the partial sums of all images would have to wait for each other.

    Examples
    --------
    >>> flow = get_dataflow("weight_stationary")
    >>> around(flow, {Tensor.WEIGHT}).stationary, around(flow, {Tensor.OUTPUT}) == flow
    (None, True)
    """
    read = resident - {Tensor.OUTPUT}
    return replace(flow, stationary=None) if flow.stationary in read else flow


# -- what the array does at once -------------------------------------------------------------------

Fan = tuple[tuple[Dim, int, int], ...]
"""(dim, array axis, instances along it), in the order of the axes"""


def unrollings(
    hardware: Hardware, extents: dict[Dim, int], flow: Dataflow, *, perfect: bool = False
) -> list[Fan]:
    """Every way to fill the array: on each axis two dims lead, each taken as far as it goes.

    What they leave free is filled by the other dims that are allowed there, in their given order,
    so that no choice can be extended (replication where a dim is smaller than the axis).

    Parameters
    ----------
    hardware : Hardware
    extents : dict
        Of every dim.
    flow : Dataflow
        As :func:`of_machine` gives it.
    perfect : bool
        Only instances that divide what is left of the dim.

    Returns
    -------
    list of Fan
        Without repetitions, the one in the given order first.
    """
    found: dict[Fan, None] = {}

    def fill(axis: int, left: dict[Dim, int], fan: Fan) -> None:
        if axis == len(hardware.axis_sizes):
            found.setdefault(fan)
            return
        allowed = tuple(dim for dim in flow.unroll[axis] if left[dim] > 1)
        pairs = [(a, b) for a in allowed for b in allowed if a is not b]
        for first in ((), *pairs):
            room, rest, taken = hardware.axis_sizes[axis], dict(left), fan
            for dim in dict.fromkeys((*first, *allowed)):
                size = _largest(rest[dim], room, perfect=perfect)
                if size > 1:
                    taken = (*taken, (dim, axis, size))
                    rest[dim] = -(-rest[dim] // size)
                    room //= size
            fill(axis + 1, rest, taken)

    fill(0, extents, ())
    return list(_distinct(found))


def _largest(extent: int, room: int, *, perfect: bool) -> int:
    size = min(extent, room)
    if perfect:
        while extent % size:
            size -= 1
    return size


def _distinct(fans: dict[Fan, None]) -> list[Fan]:
    """Of choices with the same instances of each dim along each axis, the first."""
    kept: dict[frozenset[tuple[Dim, int, int]], Fan] = {}
    for fan in fans:
        kept.setdefault(frozenset(fan), fan)
    return list(kept.values())


def instances(fan: Fan, dim: Dim, axes: frozenset[int]) -> int:
    """Instances along some array axes that work on different pieces of a dim."""
    return prod(size for each, axis, size in fan if each is dim and axis in axes)
