"""Eyeriss v2: cycles of one element on a sparse MobileNet, as published with Sparseloop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import as_file
from statistics import fmean

from energysim.axes import Dim, Shape
from energysim.catalog import load_network
from energysim.model.csc_pe import expected_pe_work
from energysim.network import LayerKind
from energysim.validation.check import Check, Study, between, shown, within
from energysim.validation.data import data_file, read_rows

ROUNDED_UP = 2
"""Sparseloop rounds counts up on the way to its cycles [cycle]."""

WHY_LOW = (
    "densities miss that channels with more live weights have more live inputs as well: always too "
    "low"
)
WHY_IMPLIED = (
    "the densities are not published: ours is the share of the dense multiply-accumulates in the "
    "cycles that Sparseloop found from them, so this compares Sparseloop's result with the element"
)

Row = Mapping[str, str]


@cache
def rows() -> Mapping[str, Row]:
    """What is published of each layer, by its name."""
    return {row["layer"]: row for row in read_rows("eyeriss_v2_pe.csv")}


@cache
def shapes() -> Mapping[str, Shape]:
    """Layers of the network, by name."""
    with as_file(data_file("mobilenet_0.5_128.yaml")) as path:
        layers = load_network(str(path)).layers
    return {layer.name: layer.shape for layer in layers if layer.kind is not LayerKind.POOL}


def is_given(name: str) -> bool:
    """Whether the densities of a layer are published."""
    return bool(rows()[name]["weight_density"])


def is_pointwise(shape: Shape) -> bool:
    """Whether kernels are 1x1: only then are inputs skipped."""
    return shape[Dim.R] == shape[Dim.S] == 1


def predicted(name: str, *, lanes: int = 1) -> float:
    """Cycles of a layer by our model, from densities."""
    row, shape = rows()[name], shapes()[name]
    if is_given(name):
        densities = float(row["weight_density"]), float(row["input_density"])
        return expected_pe_work(shape, *densities, lanes=lanes).cycles
    density = int(row["cycles_from_densities"]) / shape.macs
    # Weight times input density where both are skipped; with one lane only the product matters.
    inputs = 1.0 if is_pointwise(shape) else None
    return expected_pe_work(shape, density, inputs, lanes=lanes).cycles


def _mean(names: list[str], truth: Mapping[str, int], ours: Mapping[str, float]) -> float:
    """Ours over theirs, mean of the layers."""
    return fmean(ours[name] / truth[name] for name in names)


def _checks() -> Iterator[Check]:
    truth = {name: int(row["cycles_of_element"]) for name, row in rows().items()}
    ours = {name: predicted(name) for name in rows()}
    given = [name for name in rows() if is_given(name)]
    for name in given:
        yield within(name, "cycles", truth[name], ours[name], low=-0.07, high=0.07, reason=WHY_LOW)
    yield within(
        f"{len(given)} layers",
        "cycles, ours over theirs in the mean",
        1.0,
        _mean(given, truth, ours),
        low=-0.04,
        high=0.04,
        reason=WHY_LOW,
    )
    for name in given:
        theirs = int(rows()[name]["cycles_from_densities"])
        yield between(
            name,
            "cycles, as Sparseloop finds them from the same densities",
            theirs,
            ours[name],
            low=theirs - ROUNDED_UP,
            high=theirs + ROUNDED_UP,
            reason="Sparseloop rounds up",
        )
    for name, theirs in truth.items():
        if name not in given:
            yield shown(name, "cycles, density implied", theirs, ours[name], reason=WHY_IMPLIED)
    off = [100 * abs(ours[name] / truth[name] - 1) for name in truth]
    yield shown(
        f"all {len(truth)} layers",
        "cycles, ours over theirs in the mean",
        1.0,
        _mean(list(truth), truth, ours),
        reason=f"{fmean(off):.1f} % off in the mean, {max(off):.1f} % at most; "
        f"{len(truth) - len(given)} of them by implied densities",
    )


STUDIES = (
    Study(
        name="eyeriss_v2_pe",
        title="Eyeriss v2, one element that skips zeros",
        kind="paper",
        source="Sparseloop artifact, MICRO 2022, fig12_eyerissv2_pe_setup",
        method=(
            "Cycles of one processing element on the layers of a pruned MobileNet (width 0.5, "
            "128x128), from the densities of its weights and inputs. A cycle is one "
            "multiply-accumulate of a live weight and a live input, as the data show: the dense "
            "first layer takes as many as it has. So ours has one lane, though the element that "
            "was built starts two at a time. Depthwise layers and the first skip no inputs and "
            "walk the padding too. The group that built the chip published the cycles; no stall "
            "of the pipeline shows in them. Densities of eight layers are published."
        ),
        compute=_checks,
    ),
)
