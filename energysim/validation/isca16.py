"""Eyeriss, the paper on dataflows: where the energy of AlexNet goes under row stationary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from energysim.axes import Tensor
from energysim.catalog import load_hardware, load_network
from energysim.hardware import Hardware
from energysim.network import Network
from energysim.simulate import simulate
from energysim.validation.check import Check, Study, between, shown, within
from energysim.validation.data import data_file, read_rows
from energysim.validation.row_passes import RowLayer, best_passes

IMAGES = 16
"""Batch of the figure."""

UNIT = 1e9
"""Multiply-accumulates of energy."""

HALF_DIGIT = 0.005
"""The figures have two decimals."""

SHARE = 0.1

UNEVEN = ("conv3", "conv4", "conv5")
"""Layers for which uneven mappings are searched too; in the others that takes up to half a minute.
"""

LESS = {
    "conv1": "parts of rows leave room for all weights; inputs once, not for each half",
    "conv2": "parts of rows leave room for weights in the buffer: they are read once, not 8 times",
}
"""Why we move less."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Energy of one layer by the best of all mappings [1e9 MAC]."""

    arithmetic: float
    dram: float
    registers: float


def _parts(network: Network, hardware: Hardware, name: str) -> Parts:
    """What the simulator says of a layer."""
    alone = replace(network, layers=(replace(network.layer(name), inputs=("input",)),))
    result = simulate(alone, hardware, batch=IMAGES, uneven=name in UNEVEN)
    energy = dict.fromkeys(("MAC", "DRAM", "RF"), 0.0)
    for row in result.access_rows:
        if row.level in energy:
            energy[row.level] += row.energy_pj / UNIT
    return Parts(*energy.values())


def _passes_dram(hardware: Hardware, row: Mapping[str, str]) -> float:
    """DRAM energy of the best passes over whole rows [1e9 MAC]."""
    sizes = (int(row[name]) for name in ("K", "C", "P", "R", "stride"))
    best = best_passes(RowLayer(IMAGES, *sizes), hardware, bypass=False)
    price = hardware.levels[0].read_pj_per_bit * hardware.bits.of(Tensor.INPUT)
    return int(row["halves"]) * price * sum(best.dram.values()) / UNIT


def _checks() -> Iterator[Check]:
    hardware, network = load_hardware(str(data_file("isca16.yaml"))), load_network("alexnet")
    rows = read_rows("isca16.csv")
    parts = [_parts(network, hardware, row["layer"]) for row in rows]
    for row, ours in zip(rows, parts, strict=True):
        theirs = float(row["arithmetic"])
        low, high = theirs - HALF_DIGIT, theirs + HALF_DIGIT
        yield between(
            row["layer"], "arithmetic", theirs, ours.arithmetic, low=low, high=high, unit="G"
        )
    for row, ours in zip(rows, parts, strict=True):
        loads = "theirs: four accesses a MAC; ours also what fills and empties the registers"
        yield _near(row, "registers", ours.registers, loads)
    for row in rows:
        yield _near(row, "dram", _passes_dram(hardware, row), quantity="DRAM, passes over rows")
    for row, ours in zip(rows, parts, strict=True):
        quantity = "DRAM, any mapping"
        if row["layer"] in LESS:
            reason = LESS[row["layer"]]
            theirs = float(row["dram"])
            yield shown(row["layer"], quantity, theirs, ours.dram, reason=reason, unit="G")
        else:
            yield _near(row, "dram", ours.dram, quantity=quantity)


def _near(
    row: Mapping[str, str], column: str, ours: float, reason: str = "", *, quantity: str = ""
) -> Check:
    return within(
        row["layer"],
        quantity or column,
        float(row[column]),
        ours,
        low=-SHARE,
        high=SHARE,
        unit="G",
        reason=reason,
    )


STUDIES = (
    Study(
        name="isca16",
        title="Row stationary, where the energy goes",
        kind="paper",
        source=(
            "Chen, Emer, Sze, ISCA 2016, Fig. 10, as stated in nn_dataflow's test of it "
            "(test_eyeriss_isca16)"
        ),
        method=(
            "AlexNet, batch 16, padding counted as data, energies in multiply-accumulates. Passes "
            "over rows: the least energy by our counts of passes over whole rows, blocked over "
            "channels, filters and images, each layer in the halves in which the source runs it. "
            "Arithmetic, registers, any mapping: the simulator's optimum for whole layers; with "
            f"tiles of each tensor cut apart in {', '.join(UNEVEN)} only, to be quick."
        ),
        compute=_checks,
    ),
)
