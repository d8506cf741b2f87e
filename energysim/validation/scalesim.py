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
        reason = f"the tool counts {extra:,} writes more than there are" if extra else ""
        yield exact(
            what,
            "outputs written",
            int(row["sram_output_writes"]) - extra,
            ours.output_writes,
            reason=reason,
        )


STUDIES = (
    Study(
        name="scalesim",
        title="Systolic arrays, closed forms",
        kind="tool",
        source="SCALE-Sim 3.0.0, run mode CALC",
        method=(
            "`run --model systolic`: output, weight and input stationary on 8x8 and 32x32 arrays, "
            "and weight stationary with N:M weights. Output stationary, the tool counts one write "
            "for each row and column of the array in every fold beside the outputs: these are "
            "taken off its figure."
        ),
        compute=_checks,
    ),
)
