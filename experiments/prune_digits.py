"""Does it matter which weights pruning before training keeps? Bundled digits, five seeds.

    python experiments/prune_digits.py --work runs-prune

gives ``digits_cnn`` the masks of each method and two controls: the same number of weights of each
layer in other places, and the method's masks for weights that another seed draws (J. Frankle et
al., "Pruning neural networks at initialization: why are we missing the mark?", ICLR 2021, section
5). ``prune_digits/`` beside this file gets a row a run (``runs.csv``) and, with mean and spread
over seeds, a row a method and density (``summary.csv``). What is in --work is not run again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from energysim import load_network
from energysim.files import write_atomically
from energysim.prune import BY_DATA, Pruned, alike, prune
from energysim.train.data import digits
from energysim.train.data.augment import in_order
from energysim.train.grid import run_all
from energysim.train.job import Job
from energysim.train.recipe import Recipe
from energysim.train.record import to_csv

HERE = Path(__file__).parent / "prune_digits"
RUNS, SUMMARY = HERE / "runs.csv", HERE / "summary.csv"

METHODS = ("synflow", "snip", "grasp", "magnitude")
DENSITIES = (0.1, 0.05)
SEEDS = range(5)
AS_IS, SHUFFLED, REDRAWN = CONTROLS = ("as it is", "shuffled within layers", "weights redrawn")
OTHER = 1000
"""What is added to a seed for other weights and other places."""
NETWORK, RECIPE, PER_CLASS = load_network("digits_cnn"), Recipe(epochs=20), 10
DATA = digits()


def pruned(method: str, density: float, seed: int) -> Pruned:
    batch = None
    if method in BY_DATA:
        some = DATA.subset(per_class=PER_CLASS)
        many = PER_CLASS * len(DATA.classes)
        batch = next(in_order(some, some.train, many, read=NETWORK.input_size[:2]))
    return prune(NETWORK, method, density, seed=seed, batch=batch)


def masks(method: str, density: float, seed: int, control: str) -> Pruned:
    if control == REDRAWN:
        return pruned(method, density, seed + OTHER)
    found = pruned(method, density, seed)
    if control == SHUFFLED and not found.collapsed:  # what has emptied a layer stays as it is
        return alike(NETWORK, found.masks, seed=seed + OTHER)
    return found


def run(work: Path) -> Iterator[dict[str, Any]]:
    for density in DENSITIES:
        for method in METHODS:
            for control in CONTROLS:
                for seed in SEEDS:
                    found = masks(method, density, seed, control)
                    row = trained(found, seed, work)
                    print(method, density, control, seed, row and row["top1"], flush=True)
                    yield {
                        "method": method,
                        "density": density,
                        "control": control,
                        "seed": seed,
                        "top1": row["top1"] if row else "",
                        "live_weights": found.live,
                        "effective_macs": found.network.effective_macs if row else "",
                    }


def trained(found: Pruned, seed: int, work: Path) -> dict[str, Any] | None:
    """The record of a run; None where a layer is emptied, so that no image comes through."""
    if found.collapsed:
        return None
    (attempt,) = run_all([Job(found.network, DATA, RECIPE, seed)], work)
    if attempt.row is None:
        raise SystemExit(f"{found.method}, seed {seed}: {attempt.problem}")
    return attempt.row


def summarise(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Accuracy of each control, and what it has above the method's own masks, seed by seed."""
    for density in DENSITIES:
        for method in METHODS:
            line: dict[str, Any] = {"method": method, "density": density}
            top1 = {
                control: {
                    row["seed"]: 100 * row["top1"]
                    for row in rows
                    if (row["method"], row["density"], row["control"]) == (method, density, control)
                    and row["top1"] != ""
                }
                for control in CONTROLS
            }
            for control, values in top1.items():
                word = control.replace(" ", "_")
                line[f"{word}_percent"] = f"{mean(values.values()):.2f}" if values else ""
                line[f"{word}_std"] = f"{stdev(values.values()):.2f}" if len(values) > 1 else ""
                line[f"{word}_runs"] = len(values)
                both = [values[seed] - top1[AS_IS][seed] for seed in values if seed in top1[AS_IS]]
                if control != AS_IS:
                    line[f"{word}_gain"] = f"{mean(both):.2f}" if both else ""
                    line[f"{word}_gain_std"] = f"{stdev(both):.2f}" if len(both) > 1 else ""
            yield line


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--work", type=Path, default=Path("runs-prune"), help="where runs are kept")
    rows = list(run(parser.parse_args().work))
    HERE.mkdir(exist_ok=True)
    write_atomically(RUNS, to_csv(rows, tuple(rows[0])))
    lines = list(summarise(rows))
    write_atomically(SUMMARY, to_csv(lines, tuple(lines[0])))


if __name__ == "__main__":
    main()
