"""Array steps with skipped zeros against the dense steps: order of channels, array, dataflow.

Ratios of steps to those of the dense layer on the same array, exact, for 3x3 layers with as many
input as output channels. Weight stationary: C along the rows, K along the columns. Output
stationary: K along the columns, pixels along the rows. ``both`` groups rows and columns by slot,
``queue_8`` is columns by slot and processing elements that hold 8 kernels of successive filters.

    python benchmarks/lockstep.py               the table; writes lockstep.csv beside this file
    python benchmarks/lockstep.py PSD4_P8       of some patterns; writes nothing
"""

import argparse
import csv
import time
from pathlib import Path

from energysim.axes import Dim, Shape
from energysim.model.lockstep import LockStep, Spread, lock_step
from energysim.sparsity import Mask

HERE = Path(__file__).parent
PATTERNS = ("PS4_P4", "PSD4_P8", "PS2_P6", "PS1_P9", "PSD1_P16")
CHANNELS = (64, 128, 256, 512)
SIDES = (8, 16, 32, 64)
DATAFLOWS = {"weight_stationary": Dim.C, "output_stationary": Dim.P}
"""Dataflow, and the dim along the rows."""

Row = dict[str, object]


def measure(pattern: str, dataflow: str, side: int, channels: int) -> Row:
    """Ratios of one layer on one array."""
    shape = Shape((1, 1, channels, channels, 1, 1, 3, 3), size=(3, 3))
    mask = Mask.of(pattern, shape)
    spreads = (Spread(DATAFLOWS[dataflow], side, "rows"), Spread(Dim.K, side, "cols"))
    begin = time.perf_counter()
    natural = lock_step(mask, spreads)
    took = time.perf_counter() - begin
    columns = lock_step(mask, spreads, order={"cols": "by_slot"})
    both = lock_step(mask, spreads, order="by_slot")
    auto = lock_step(mask, spreads, order="auto")
    queued = lock_step(mask, spreads, order={"cols": "by_slot"}, pe_queue=8)
    return {
        "dataflow": dataflow,
        "array": f"{side}x{side}",
        "pattern": pattern,
        "channels": channels,
        "density": round(mask.density, 4),
        "dense_steps": natural.dense_steps,
        "natural": round(natural.ratio, 4),
        "columns": round(columns.ratio, 4),
        "both": round(both.ratio, 4),
        "auto": round(auto.ratio, 4),
        "auto_order": _grouped(auto),
        "auto_utilization": round(auto.utilization, 4),
        "columns_lost": round(columns.lost_cycles / columns.steps, 4),
        "queue_8": round(queued.ratio, 4),
        "ms": round(1e3 * took, 2),
    }


def _grouped(found: LockStep) -> str:
    grouped = [axis for axis, word in found.order if word == "by_slot"]
    return "+".join(grouped) or "natural"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pattern", nargs="*", default=PATTERNS)
    chosen = parser.parse_args().pattern
    rows = [
        measure(pattern, dataflow, side, channels)
        for dataflow in DATAFLOWS
        for pattern in chosen
        for side in SIDES
        for channels in CHANNELS
    ]
    print(" ".join(f"{name:>12}" for name in rows[0]))
    for row in rows:
        print(" ".join(f"{str(value)[:17]:>12}" for value in row.values()))
    if tuple(chosen) == PATTERNS:
        with (HERE / "lockstep.csv").open("w", newline="") as file:
            # Times differ from run to run and stay out of the record.
            names = [name for name in rows[0] if name != "ms"]
            writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
