"""Timeloop: elements read, filled and updated by loop nests that are written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import yaml

from energysim.axes import Dim, Shape, Tensor
from energysim.mapping import Nest, Rules, Segment, build_nest
from energysim.model.counts import Counts, count
from energysim.validation.check import Check, Study, exact, shown
from energysim.validation.data import data_file

ACTIONS = {"read": "reads", "fill": "fills", "update": "updates"}

WRAP = "a window that wraps back to its start is fetched whole by the tool, overlap or not"
BOX = "the tool counts the bounding box, with the gaps that a stride leaves between kernels"
HALO = "tiles of neighbouring instances that overlap only in part are read one by one by the tool"
FULL_LAST = "the tool takes a smaller last tile as full"
TO_ALL = "a sum that comes back goes to every instance that adds to it, in ours to one of them"

WHY_INPUT = {
    "m05_conv1d_P_outer_R_inner": WRAP,
    "m09_conv1d_stride3_R1": BOX,
    "m10_conv1d_stride3_R2_full": BOX,
    "m13_bypass_W": WRAP,
    "m16_sreduce_C": WRAP,
    "m17_mcast_halo_P": HALO,
    "m19_conv2d_halo_PQ": WRAP,
    "m24_imperfect_P": FULL_LAST,
    "ws_resnet18_layer2_0_down_1x1_s2": BOX,
}
"""Why inputs differ, by nest; ``tests/test_golden.py`` has each number as a sum."""


@dataclass(frozen=True, slots=True)
class Case:
    """One loop nest and what Timeloop counts for it."""

    name: str
    shape: Shape
    nest: Nest
    trips: tuple[int, ...]
    levels: tuple[str, ...]
    macs: int
    cycles: int
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    """level, tensor, count"""

    def count(self, rules: Rules | None = None) -> Counts:
        """Our counts."""
        return count(self.shape, self.nest, np.array([self.trips]), rules)

    def held(self) -> Iterator[tuple[int, str, Tensor]]:
        """Yield every level with every tensor that it holds."""
        for index, level in enumerate(self.levels):
            for word in self.counts[level]:
                yield index, level, Tensor[word.upper()]


def shape_of(dims: Mapping[str, int], stride: list[int], dilation: list[int]) -> Shape:
    """Build a layer without padding; absent dims are 1."""
    n, g, k, c, p, q, r, s = (dims.get(dim.name, 1) for dim in Dim)
    size = (
        (p - 1) * stride[0] + (r - 1) * dilation[0] + 1,
        (q - 1) * stride[1] + (s - 1) * dilation[1] + 1,
    )
    return Shape(
        (n, g, k, c, p, q, r, s),
        stride=(stride[0], stride[1]),
        dilation=(dilation[0], dilation[1]),
        size=size,
    )


def _case(record: Mapping[str, Any]) -> Case:
    """Turn one record of the file into a layer and a nest."""
    axes: list[frozenset[int]] = []
    segments: list[Segment] = []
    trips: list[int] = []
    fanned: frozenset[int] = frozenset()
    for row in record["nest"]:
        temporal, spatial = row.get("temporal", ()), row.get("spatial", ())
        axes.append(fanned)
        fan = tuple((Dim[dim], "xy".index(axis)) for dim, _, axis in spatial)
        segments.append((tuple(Dim[dim] for dim, _ in temporal), fan))
        trips += [loop[1] for loop in (*temporal, *spatial)]
        fanned |= {axis for _, axis in fan}
    counts = record["counts"]
    holds = [frozenset(Tensor[word.upper()] for word in row) for row in counts.values()]
    stride, dilation = record.get("stride", [1, 1]), record.get("dilation", [1, 1])
    return Case(
        name=record["name"],
        shape=shape_of(record["layer"], stride, dilation),
        nest=build_nest(axes, holds, segments),
        trips=tuple(trips),
        levels=tuple(counts),
        macs=record["macs"],
        cycles=record["cycles"],
        counts=counts,
    )


@cache
def cases() -> Mapping[str, Case]:
    """The loop nests that the tool was given, by name."""
    text = data_file("timeloop.yaml").read_text(encoding="utf-8")
    return {record["name"]: _case(record) for record in yaml.safe_load(text)["cases"]}


# -- checks ----------------------------------------------------------------------------------------


def _checks() -> Iterator[Check]:
    for case in cases().values():
        yield from _case_checks(case, case.count())


def _case_checks(case: Case, counts: Counts) -> Iterator[Check]:
    why = WHY_INPUT.get(case.name, "")
    yield _equal(
        case.name, "cycles", case.cycles, int(counts.steps[0]), why if why == FULL_LAST else ""
    )
    for action, quantity in ACTIONS.items():
        for tensor in Tensor:
            levels = [(at, level) for at, level, held in case.held() if held is tensor]
            theirs = sum(case.counts[level][tensor.label][action] for _, level in levels)
            ours = sum(int(counts(at, tensor, action)[0]) for at, _ in levels)
            if theirs or ours:
                why = _why(case.name, action, tensor)
                yield _equal(f"{case.name} {tensor.label}", quantity, theirs, ours, why)


def _equal(what: str, quantity: str, theirs: int, ours: int, why: str) -> Check:
    """Equal; shown where they are not and the rule that differs is known."""
    if theirs != ours and why:
        return shown(what, quantity, theirs, ours, reason=why)
    return exact(what, quantity, theirs, ours)


def _why(case: str, action: str, tensor: Tensor) -> str:
    if tensor is Tensor.INPUT:
        return WHY_INPUT.get(case, "")
    return TO_ALL if (action, tensor) == ("fill", Tensor.OUTPUT) else ""


STUDIES = (
    Study(
        name="timeloop",
        title="26 loop nests of two to five levels, up to two array axes",
        kind="tool",
        source="Timeloop v3.0.3, commit 6b41058, timeloop-model",
        method=(
            "16 small nests that can be checked by hand, 7 layers of VGG-16 and ResNets on a 16x16 "
            "weight-stationary array, 3 on a 12x14 row-stationary one. Each number is the sum over"
            " the levels; `tests/test_golden.py` compares every level. Neither side counts the "
            "read by which an output leaves a level, nor the first one of a sum. Where a rule of "
            "the tool differs it is shown; there ours are the elements that really move, as a walk"
            " through the nest counts them (of the large nests, through smaller ones of the same "
            "form)."
        ),
        compute=_checks,
    ),
)
