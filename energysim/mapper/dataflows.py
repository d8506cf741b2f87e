"""Dataflows: named sets of constraints on where loops may stand.

A dataflow says which dims spread over the array, in which order the loops on chip stand, and which
of them may be inside the memories next to the processing elements. The rest is searched.
"""

from __future__ import annotations

from dataclasses import dataclass

from energysim.axes import Dim
from energysim.errors import InputError, did_you_mean

N, G, K, C, P, Q, R, S = Dim


@dataclass(frozen=True, slots=True)
class Dataflow:
    """Constraints on the loops inside the outermost on-chip memory."""

    name: str
    meaning: str
    """one line for ``list dataflows``"""
    inner: tuple[Dim, ...]
    """dims whose loops may stand inside the levels within the outermost on-chip memory, innermost
    first"""
    order: tuple[Dim, ...]
    """all dims: loops of the outermost on-chip memory, innermost first"""
    unroll: tuple[tuple[Dim, ...], ...]
    """dims for the first, second ... array axis, where the hardware file does not say; the first
    that leaves room on the axis is joined by the next"""
    whole: frozenset[Dim] = frozenset()
    """dims that a processing element takes whole if its memories can hold them"""


DATAFLOWS: dict[str, Dataflow] = {
    flow.name: flow
    for flow in (
        Dataflow(
            "weight_stationary",
            "weights stay at the processing elements while all outputs of a tile pass",
            (Q, P, N, S, R, C),
            (Q, P, N, S, R, C, K, G),
            ((C,), (K,)),
        ),
        Dataflow(
            "output_stationary",
            "partial sums stay at the processing elements until they are complete",
            (S, R, C),
            (S, R, C, Q, P, K, N, G),
            ((Q, P), (K,)),
        ),
        Dataflow(
            "row_stationary",
            "a processing element convolves rows; sums pass up and input rows along diagonals "
            "(Chen et al., ISCA 2016)",
            (K, S, C),
            (Q, P, R, S, C, K, N, G),
            ((R, K, C), (P, K)),
            frozenset({S}),
        ),
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
