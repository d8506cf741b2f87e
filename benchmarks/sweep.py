"""Points a second of a sweep beside single runs, and a million points.

python benchmarks/sweep.py points     # 20,020 points of vgg16: a sweep and a loop of runs
python benchmarks/sweep.py million    # 1,000,000 points in a process of their own: time, memory
"""

from __future__ import annotations

import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import energysim as es
from energysim.sweeps import SweepSpec, plan_of, sweep
from energysim.sweeps.evaluate import METRICS
from energysim.sweeps.plan import Plan

DRAM = "levels.DRAM.read_pj_per_bit+levels.DRAM.write_pj_per_bit"
NUMBERS = {
    DRAM: "4:40:#11",
    "levels.SRAM.read_pj_per_bit": "0.05:0.5:#7",
    "levels.DRAM.bandwidth_bits_per_cycle": "16:256:x2",
    "mac.energy_pj": "0.1:0.8:x2",
}
PATTERNS = (
    "dense,pSC4,pSC2,pSC1,PS4_P4,PS2_P6,PS1_P9,PSD4_P8,PSD4_P16,PSD2_P8,PSD2_P16,PSD1_P8,PSD1_P16"
)
RUNS = 6
"""Single runs that are timed."""


def points() -> None:
    """No cache anywhere: of other energies nothing is known beforehand."""
    for mappings in ("kept", "ends"):
        spec = SweepSpec(
            network="vgg16", hardware="edge_tpu", scan={"pattern": PATTERNS} | NUMBERS,
            mappings=mappings,
        )  # fmt: skip
        plan = plan_of(spec)
        began = time.perf_counter()
        found = sweep("vgg16", "edge_tpu", dict(spec.scan), mappings=mappings)
        table = found.table
        swept = time.perf_counter() - began
        single, worst = runs(plan, table["energy_mj"].to_numpy())
        print(
            f"mappings {mappings}: {plan.points:,} points of {plan.designs} designs, searched at"
            f" {len(plan.anchors())} each: {swept:.1f} s, {plan.points / swept:,.0f} points/s."
            f" A run: {single:.2f} s, so a loop of runs {single * plan.points:,.0f} s:"
            f" {single * plan.points / swept:,.0f} times as long."
            f" Of these {RUNS} points the table is at most {worst:.3%} above the run.",
            flush=True,
        )


def runs(plan: Plan, energies: np.ndarray) -> tuple[float, float]:
    """Seconds of a run, on average, and how far the table is above at worst."""
    rng = random.Random(0)
    took, worst = [], 0.0
    for point in rng.sample(range(plan.points), RUNS):
        design = plan.design(*divmod(point, plan.numbers))
        began = time.perf_counter()
        run = es.simulate(design.network, design.hardware)
        took.append(time.perf_counter() - began)
        worst = max(worst, energies[point] / run.total_energy_mj - 1)
    return sum(took) / len(took), worst


def million() -> None:
    scan = {
        DRAM: "2:40:#20",
        "levels.SRAM.read_pj_per_bit": "0.05:0.5:#20",
        "levels.DRAM.bandwidth_bits_per_cycle": "16:512:#25",
        "mac.energy_pj": "0.1:0.8:#10",
        "clock_mhz": "100:500:#10",
    }
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        found = sweep("vgg16", "edge_tpu", scan, store=Path(folder) / "s", mappings="kept")
        computed = time.perf_counter() - began
        found.to_csv(Path(folder) / "t.csv")
        written = time.perf_counter() - began - computed
        size = (Path(folder) / "t.csv").stat().st_size
        kept = (Path(folder) / "s").stat().st_size
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{found.plan.points:,} points, {len(METRICS)} figures each: computed and kept in"
        f" {computed:.1f} s ({found.plan.points / computed:,.0f} points/s, the search of the"
        f" network included), written as CSV in {written:.1f} s; {memory:.2f} GB of memory at most,"
        f" store {kept / 1e6:.0f} MB, CSV {size / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    {"points": points, "million": million}[sys.argv[1]]()
