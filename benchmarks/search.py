"""What a search finds beside chance at equal budget: hypervolume of the front, several seeds.

python benchmarks/search.py           # writes search.csv and prints what stands in search.txt

Chance stands there twice: alone, and after the designs that the others begin with.

A pattern for each of the 12 sparse layers of vgg16 and a size of the SRAM of edge_tpu: 83 billion
designs. Goals: energy and on-chip memory small, share of live weights large. Deterministic: it
needs no quiet machine.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import energysim as es
from energysim.cache import Cache, folder
from energysim.pareto import hypervolume
from energysim.studies import SAMPLERS, Space, Study, study
from energysim.sweeps.axes import Axis

HERE = Path(__file__).parent
PATTERNS = ("dense", "PSD4_P8", "PS4_P4", "PSD2_P8", "PS2_P6", "PSD1_P16", "PS1_P9")
SIZES = "512:16384:x2"
GOALS = ("energy", "live_weights", "on_chip")
BUDGET = 200
MARKS = (50, 100, BUDGET)
"""Trials after which the fronts are measured."""

SEEDS = range(5)
STARTED = "random, started"
ALL = (*SAMPLERS, STARTED)


def space() -> Space:
    axes = (Axis.read("levels.SRAM.capacity_kib", SIZES),)
    return Space(es.load_network("vgg16"), es.load_hardware("edge_tpu"), axes, PATTERNS)


def costs(found: Study) -> np.ndarray:
    """Shape (trials, goals), all to be made small."""
    return np.array([found.costs(each) for each in found.trials if each.values is not None])


def run(job: tuple[str, int]) -> np.ndarray:
    sampler, seed = job
    found = study(space(), GOALS, trials=BUDGET, seed=seed, sampler=sampler, cache=Cache(folder()))
    return costs(found)


def measured() -> Iterator[dict[str, object]]:
    jobs = [(sampler, seed) for seed in SEEDS for sampler in SAMPLERS]
    with ProcessPoolExecutor() as pool:
        runs = dict(zip(jobs, pool.map(run, jobs), strict=True))
    many = len(space().starts)
    for seed in SEEDS:
        begun = runs["nsga2", seed][:many]
        runs[STARTED, seed] = np.concatenate([begun, runs["random", seed]])[:BUDGET]
    every = np.concatenate(list(runs.values()))
    best, worst = every.min(axis=0), every.max(axis=0)
    for (sampler, seed), tried in runs.items():
        for mark in MARKS:
            scaled = (tried[:mark] - best) / (worst - best)
            volume = hypervolume(scaled, (1.0,) * len(GOALS))
            yield {"sampler": sampler, "seed": seed, "trials": mark, "hypervolume": volume}


def told(rows: list[dict[str, object]]) -> Iterator[str]:
    """Mean and range of each sampler, and in how many seeds it is above chance."""

    def volumes(sampler: str, mark: int) -> np.ndarray:
        picked = (r for r in rows if r["sampler"] == sampler and r["trials"] == mark)
        return np.array([float(str(r["hypervolume"])) for r in picked])

    yield (
        f"{space().size:,} designs; hypervolume between the best and the worst of all that was"
        f" tried, mean (lowest to highest) of {len(SEEDS)} seeds"
    )
    yield f"{'trials':>8}" + "".join(f"{sampler:>26}" for sampler in ALL)
    for mark in MARKS:
        cells = [
            f"{own.mean():.3f} ({own.min():.3f} to {own.max():.3f})"
            for own in (volumes(sampler, mark) for sampler in ALL)
        ]
        yield f"{mark:>8}" + "".join(f"{cell:>26}" for cell in cells)
    for sampler in ("nsga2", "tpe"):
        for other in ("random", STARTED):
            above = volumes(sampler, BUDGET) > volumes(other, BUDGET)
            least = volumes(sampler, BUDGET).min() > volumes(other, BUDGET).max()
            yield (
                f"{sampler} is above {other} in {above.sum()} of {len(above)} seeds"
                + (", its lowest above the highest of that" if least else "")
            )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = list(measured())
    with (HERE / "search.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print("\n".join(told(rows)))


if __name__ == "__main__":
    main()
