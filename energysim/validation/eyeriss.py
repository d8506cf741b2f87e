"""Eyeriss, the chip: AlexNet and VGG-16 by the mappings that it ran."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from energysim.activations import Activations, Density
from energysim.axes import Dim, Tensor
from energysim.catalog import load_hardware, load_network
from energysim.hardware import Hardware
from energysim.mapping import LevelLoops, MappingFile
from energysim.network import Layer, Network
from energysim.result import AccessRow, LayerRow
from energysim.simulate import simulate
from energysim.validation.check import Check, Study, between, exact, shown, within
from energysim.validation.data import read_rows

MB = 1e6
"""Bytes; the paper's accesses per pixel come out with this meaning of MB only."""

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Measured:
    """What our model says of one layer of a batch."""

    layer: Layer
    row: LayerRow
    accesses: tuple[AccessRow, ...]
    active_pes: float
    """MACs of an array step, output rows of one whole strip"""

    def moved(self, level: str, tensor: str, *actions: str) -> float:
        """Bytes of some actions on a tensor at a level."""
        return sum(
            each.bits / 8
            for each in self.accesses
            if (each.level, each.tensor) == (level, tensor) and each.action in actions
        )


# -- the machine and its mapping -------------------------------------------------------------------


def chip(name: str = "eyeriss", *, waits: str = "array") -> Hardware:
    """Eyeriss as the paper's figures see it: tiles of the input are fetched whole, padding too.

    Parameters
    ----------
    name : str
        The file: relative or absolute energies.
    waits : {"nothing", "array", "all"}
        What is waited for: nothing (array steps alone), the array's buses (the paper's processing
        latency, in which DRAM traffic overlaps), or DRAM too.
    """
    hardware = load_hardware(name)
    changes: dict[str, dict[str, Any]] = {"GLB": {"halo": "refetch"}}
    if waits != "all":
        changes["DRAM"] = {"bandwidth_bits_per_cycle": None}
    levels = tuple(
        level.model_copy(update=changes.get(level.name, {})) for level in hardware.levels
    )
    update: dict[str, Any] = {"levels": levels, "padding": "count"}
    if waits == "nothing":
        update["array"] = hardware.array.model_copy(update={"link_bits_per_cycle": {}})
    return hardware.model_copy(update=update)


def row_stationary(layer: Layer, row: Row, axes: Mapping[str, int]) -> tuple[LevelLoops, ...]:
    """The loops of a mapping that the paper gives as m, n, e, p, q, r, t (table II).

    Of ``n`` images, ``e`` rows of ``m`` output channels stay in the buffer while all input channels
    pass, ``q * r`` at a time; a pass runs ``p * t`` filters. Each processing element does one row
    of ``p`` filters and ``q`` channels; ``r`` sets of elements add their sums, ``t`` sets have
    other filters. A set wider than the array goes on in the next rows.
    """
    m, n, e, p, q, r, t = (int(row[name]) for name in "mnepqrt")
    shape = layer.shape
    images = int(row["batch"])
    wide = ceil(e / axes["cols"])
    across = ceil(e / wide)
    beside = "cols" if t * e <= axes["cols"] else "rows"
    spatial = {
        "rows": [(Dim.R, shape[Dim.R]), (Dim.P, wide), (Dim.C, r)],
        "cols": [(Dim.P, across)],
    }
    spatial[beside].append((Dim.K, t))
    filters = min(m, shape[Dim.K])
    channels = ceil(shape[Dim.C] / (q * r))
    return (
        _level(
            "DRAM",
            [
                (Dim.G, shape[Dim.G]),
                (Dim.K, ceil(shape[Dim.K] / filters)),
                (Dim.P, ceil(shape[Dim.P] / e)),
                (Dim.N, ceil(images / n)),
            ],
        ),
        _level(
            "GLB",
            [
                (Dim.C, channels),
                (Dim.K, ceil(filters / (p * t))),
                (Dim.N, n),
                (Dim.Q, shape[Dim.Q]),
            ],
            spatial=tuple(
                (dim.name, count, axis)
                for axis, pairs in spatial.items()
                for dim, count in pairs
                if count > 1
            ),
            # the buffer has room for the channels of one pass
            cuts={"input": 1} if channels > 1 else {},
        ),
        _level("PSPAD", [(Dim.C, q), (Dim.S, shape[Dim.S]), (Dim.K, p)]),
    )


def _level(name: str, temporal: Sequence[tuple[Dim, int]], **others: Any) -> LevelLoops:
    loops = tuple((dim.name, count) for dim, count in temporal if count > 1)
    return LevelLoops.model_validate({"level": name, "temporal": loops, **others})


# -- what the model says ---------------------------------------------------------------------------


def run(
    network: Network,
    rows: Sequence[Row],
    machine: Hardware | None = None,
    *,
    densities: bool = False,
) -> list[Measured]:
    """Simulate the layers of some rows by the mappings in them."""
    named = {row["layer"]: row for row in rows}
    layers = [layer for layer in network.layers if layer.name in named]
    machine = machine or chip()
    axes = machine.array.axes
    mapping = MappingFile(
        layers={each.name: row_stationary(each, named[each.name], axes) for each in layers}
    )
    part = replace(network, layers=tuple(layers))
    batch = int(rows[0]["batch"])
    activations = None
    if densities:
        activations = Activations(
            {
                name: Density(float(row["input_density"]), float(row["output_density"]))
                for name, row in named.items()
            }
        )
    result = simulate(
        part, machine, batch=batch, mapping=mapping, residency=False, activations=activations
    )
    strips = [_one_strip(layer, int(named[layer.name]["e"])) for layer in layers]
    steps = simulate(
        replace(part, layers=tuple(strips)),
        chip(waits="nothing"),
        batch=batch,
        mapping=MappingFile(
            layers={each.name: row_stationary(each, named[each.name], axes) for each in strips}
        ),
        residency=False,
    )
    return [
        Measured(
            layer,
            row,
            tuple(each for each in result.access_rows if each.layer == layer.name),
            strip.macs / strip.cycles,
        )
        for layer, row, strip in zip(layers, result.layer_rows, steps.layer_rows, strict=True)
    ]


def _one_strip(layer: Layer, e: int) -> Layer:
    """The layer with as many output rows as are made at once."""
    shape = layer.shape
    strip = min(e, shape[Dim.P])
    n, g, k, c, _, width, r, s = shape.dims
    rows = (strip - 1) * shape.stride[0] + r - 2 * shape.pad[0]
    size = (rows, shape.size[1])
    return replace(layer, shape=replace(shape, dims=(n, g, k, c, strip, width, r, s), size=size))


def buffer_bytes(measured: Measured) -> float:
    """What passes between buffer and array as the paper counts it.

    Each pass reads every partial sum, the first one too, where nothing has been summed yet: our
    rule starts from zero and moves nothing there.
    """
    layer, row = measured.layer, measured.row
    images = row.macs // layer.macs
    zeros = images * layer.shape.elements(Tensor.OUTPUT) * 2
    return (
        measured.moved("GLB", "input", "read")
        + measured.moved("GLB", "output", "read", "update")
        + zeros
    )


# -- AlexNet ---------------------------------------------------------------------------------------

BUFFER_SHARE = 0.01
TIME_SHARE = 0.08
RATIO_STEP, MB_STEP = 0.05, 0.05
"""Half of the last digit in print."""

OTHER_MAPPING = {"q": "3", "r": "2", "t": "2"}
"""Of conv4 and conv5: by it conv3's buffer traffic is the one in print."""


def _alexnet_checks() -> Iterator[Check]:
    network = load_network("alexnet")
    rows = tuple(row | {"batch": "4"} for row in read_rows("eyeriss_alexnet.csv"))
    found = run(network, rows)
    for row, ours in zip(rows, found, strict=True):
        yield exact(row["layer"], "MACs of the shapes in table V", _macs_of(row), ours.row.macs)
    for row, ours in zip(rows, found, strict=True):
        yield exact(row["layer"], "active PEs", int(row["active_pes"]), ours.active_pes)
    yield from _buffer_checks(rows, found)
    for row, ours in zip(rows, found, strict=True):
        mb, ratio = float(row["dram_mb"]), float(row["rlc_ratio"])
        yield between(
            row["layer"],
            "DRAM traffic, uncoded",
            mb * ratio,
            ours.row.dram_bytes / MB,
            low=(mb - MB_STEP) * (ratio - RATIO_STEP),
            high=(mb + MB_STEP) * (ratio + RATIO_STEP),
            unit="MB",
            reason="theirs: coded traffic times ratio, both rounded in print",
        )
    coded = run(network, rows, densities=True)
    for row, ours in zip(rows, coded, strict=True):
        yield within(
            row["layer"],
            "DRAM traffic, run-length coded",
            float(row["dram_mb"]),
            ours.row.dram_bytes / MB,
            low=-0.05,
            high=0.05,
            unit="MB",
            reason="densities of another run of the network",
        )
    for row, ours in zip(rows, found, strict=True):
        yield within(
            row["layer"],
            "processing time",
            float(row["processing_ms"]),
            ours.row.time_ms,
            low=-TIME_SHARE,
            high=TIME_SHARE,
            unit="ms",
        )
    theirs = sum(float(row["processing_ms"]) for row in rows)
    every = sum(ours.row.time_ms for ours in found)
    yield within("AlexNet", "processing time", theirs, every, low=-0.05, high=0.05, unit="ms")
    yield from _whole_chip(rows)


def _macs_of(row: Row) -> int:
    """Multiply-accumulates by the shape in the paper's table."""
    kernel, out, filters = (int(row[name]) for name in ("kernel", "out", "filters"))
    channels = int(row["channels"]) // int(row["groups"])
    return int(row["batch"]) * filters * out**2 * channels * kernel**2


def _buffer_checks(rows: Sequence[Row], found: Sequence[Measured]) -> Iterator[Check]:
    for row, ours in zip(rows, found, strict=True):
        what, theirs = row["layer"], float(row["glb_mb"])
        if what != "conv3":
            yield within(
                what,
                "buffer traffic",
                theirs,
                buffer_bytes(ours) / MB,
                low=-BUFFER_SHARE,
                high=BUFFER_SHARE,
                unit="MB",
            )
            continue
        (other,) = run(load_network("alexnet"), [dict(row) | OTHER_MAPPING])
        yield shown(
            what,
            "buffer traffic",
            theirs,
            buffer_bytes(ours) / MB,
            unit="MB",
            reason=(
                "the mapping in print (q 4, r 1, t 4) does not give it; that of conv4 (q 3, r 2, "
                "t 2) does, so it may be the one that was measured"
            ),
        )
        yield shown(
            f"{what} as conv4",
            "buffer traffic",
            theirs,
            buffer_bytes(other) / MB,
            unit="MB",
            reason=f"by that mapping; then {other.active_pes:.1f} PEs are active in the mean, and "
            f"it takes {other.row.time_ms:.1f} ms",
        )


def _whole_chip(rows: Sequence[Row]) -> Iterator[Check]:
    """Total time and power, of which less is known: nothing is claimed."""
    everything = chip("eyeriss_absolute", waits="all")
    for row, ours in zip(
        rows, run(load_network("alexnet"), rows, everything, densities=True), strict=True
    ):
        yield shown(
            row["layer"],
            "total time",
            float(row["total_ms"]),
            ours.row.time_ms,
            unit="ms",
            reason="ours waits for all DRAM traffic; the chip loads weights while it computes",
        )
        outside = sum(each.energy_pj for each in ours.accesses if each.level == "DRAM")
        watts = (ours.row.energy_pj - outside) / ours.row.time_ms * 1e-9
        yield shown(
            row["layer"],
            "power of the chip",
            float(row["power_mw"]),
            1e3 * watts,
            unit="mW",
            reason="energies of another tool's fit (eyeriss_absolute), without clock network and "
            "control",
        )


# -- VGG-16 ----------------------------------------------------------------------------------------


def _vgg16_checks() -> Iterator[Check]:
    network = load_network("vgg16_imagenet")
    rows = [row | {"batch": "3"} for row in read_rows("eyeriss_vgg16.csv")]
    layers = {layer.name: layer for layer in network.layers}
    for row in rows:
        giga = 3 * layers[row["layer"]].macs / 1e9
        printed = float(row["macs_g"])
        low, high = printed - 0.005, printed + 0.005
        yield between(row["layer"], "MACs", printed, giga, low=low, high=high, unit="G")
    mapped = [row for row in rows if row["m"]]
    for row, ours in zip(mapped, run(network, mapped), strict=True):
        inferred = "the mapping is not published; this one was chosen by"
        yield shown(
            row["layer"],
            "active PEs",
            int(row["active_pes"]),
            ours.active_pes,
            reason=f"{inferred} this number",
        )
        yield shown(
            row["layer"],
            "buffer traffic",
            float(row["glb_mb"]),
            buffer_bytes(ours) / MB,
            unit="MB",
            reason=f"{inferred} this number",
        )
        yield shown(
            row["layer"],
            "processing time",
            float(row["processing_ms"]),
            ours.row.time_ms,
            unit="ms",
            reason=f"{inferred} active PEs and buffer traffic, not by the time",
        )


SOURCE = "Chen, Krishna, Emer, Sze, IEEE JSSC 52(1), 2017"

STUDIES = (
    Study(
        name="eyeriss_alexnet",
        title="Eyeriss, the chip, on AlexNet, batch 4",
        kind="silicon",
        source=f"{SOURCE}, tables III and V, Fig. 9",
        method=(
            "The mapping in print, m n e p q r t, as our loop nest on `eyeriss`, counted by the "
            "rule that counts everything. Two conventions are the paper's: tiles of the input are "
            "fetched whole with their padding (`halo: refetch`, `padding: count`), and every pass "
            "reads the partial sums, the first one too. Processing time has no constant that was "
            "fitted: array steps or, where it takes longer, the busiest of the buses (64, 16 and "
            "64 bits a cycle for weights, inputs and sums); on top of it, each pass waits for its "
            "weights and the first window of its inputs. That these waits add up was chosen with "
            "the five times in view: if they overlapped, CONV2 would be 9 % too fast."
        ),
        compute=_alexnet_checks,
    ),
    Study(
        name="eyeriss_vgg16",
        title="Eyeriss, the chip, on VGG-16, batch 3",
        kind="silicon",
        source=f"{SOURCE}, table VI (from memory; its sums agree)",
        method=(
            "The mapping is not published. For conv4 and conv5 one mapping of the dataflow gives "
            "the active PEs and the buffer traffic; its times are then a prediction. For the "
            "earlier layers no mapping that fits the buffer gives the buffer traffic in print, so "
            "only their MACs are compared."
        ),
        compute=_vgg16_checks,
    ),
)
