"""SCALE-Sim: cycles and buffer accesses of systolic arrays in closed form."""

from __future__ import annotations

from collections.abc import Iterator

from energysim.axes import Shape
from energysim.model.systolic import DATAFLOWS, systolic
from energysim.sparsity import Mask
from energysim.validation.check import Check, Study, exact
from energysim.validation.data import read_rows

FLOWS = dict(zip(("os", "ws", "is"), DATAFLOWS, strict=True))
DENSE = ("", "4:4")


def _checks() -> Iterator[Check]:
    for row in read_rows("scalesim.csv"):
        k, c, p, r, stride, rows, cols = (
            int(row[name]) for name in ("K", "C", "P", "R", "stride", "array_rows", "array_cols")
        )
        side = (p - 1) * stride + r  # padding included
        shape = Shape((1, 1, k, c, p, p, r, r), stride=(stride, stride), size=(side, side))
        pattern, flow = row["n_m"], row["dataflow"]
        mask = None if pattern in DENSE else Mask.of(pattern, shape)
        ours = systolic(shape, rows, cols, FLOWS[flow], mask=mask)
        what = " ".join(filter(None, (row["layer"], flow, f"{rows}x{cols}", pattern)))
        yield exact(what, "cycles", int(row["compute_cycles"]), ours.cycles)
        yield exact(what, "inputs read", int(row["sram_input_reads"]), ours.input_reads)
        yield exact(what, "weights read", int(row["sram_weight_reads"]), ours.weight_reads)
        extra = (rows + cols) * ours.folds if flow == "os" else 0
        yield exact(
            what,
            "outputs written, with the tool's extra ones",
            int(row["sram_output_writes"]),
            ours.output_writes + extra,
            reason=f"{extra:,} writes of nothing added to ours" if extra else "",
        )


STUDIES = (
    Study(
        name="scalesim",
        title="Systolic arrays, closed forms",
        kind="tool",
        source="SCALE-Sim 3.0.0, run mode CALC",
        method=(
            "`run --model systolic`: output, weight and input stationary on 8x8 and 32x32 arrays, "
            "and weight stationary with N:M weights. What the tool gets wrong, as far as we know: "
            "its report prints one cycle less than its demand matrix has, which is compared here; "
            "it rounds the size of the output up, so sides that a stride does not divide are given"
            " cut; weight and input stationary, it writes partial sums of every fold and never "
            "reads them back (its writes are compared, and the reads are in neither); from DRAM it"
            " reads again what its buffer, a queue, has dropped (not compared); output stationary,"
            " it counts one write too many for each row and column of the array in every fold, "
            "which is added to ours."
        ),
        compute=_checks,
    ),
)
