"""Updates until a fixed accuracy, and their energy: mixture norms beside batch norms, on digits.

    python experiments/mixture_digits.py

Each run learns from the bundled images of digits with a constant learning rate, and is tested
every few updates until it tells ``TARGET`` of the test images right, or ``MOST`` updates are done.
A row a run goes to ``mixture_digits/updates.csv``; what stands there is not run again.
``summary.csv`` has the mean over seeds. The energy of an update is that of one iteration of
training on edge_tpu; for batch norms it is counted as a mixture of one component, so that what any
norm must do in training (two passes over the map forward, two back) is in all figures.

    python experiments/mixture_digits.py --report

only makes the summary of what there is.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from energysim.catalog import load_hardware, load_network
from energysim.files import write_atomically
from energysim.simulate import simulate
from energysim.train.data import Dataset, Split, batches, digits, in_order
from energysim.train.engine import Engine, one_blas_thread
from energysim.train.job import Job
from energysim.train.recipe import Recipe, Schedule
from energysim.train.record import to_csv

HERE = Path(__file__).parent / "mixture_digits"
ROWS, SUMMARY = HERE / "updates.csv", HERE / "summary.csv"

NETWORK, HARDWARE = "digits_cnn", "edge_tpu"
TARGET, EVERY, MOST = 0.97, 5, 460
"""Share of test images told right; updates between tests; updates at most, 20 epochs."""
SEEDS, RATES = (0, 1, 2, 3, 4), (0.01, 0.03, 0.1)
WIDE = 3**0.5


@dataclass(frozen=True)
class Variant:
    """A norm, and what it scales by at first."""

    norm: str
    gamma: float = 1.0

    @property
    def counted(self) -> str:
        """The norm as the model counts its training: batch norm is one component."""
        return "mixture:1" if self.norm == "batch" else self.norm


VARIANTS = (
    Variant("batch"),
    Variant("batch", WIDE),
    Variant("mixture:3"),
    Variant("mixture:3:root=no"),
    Variant("mixture:3:vector"),
    Variant("mixture:3:vector:root=no"),
)
COLUMNS = ("norm", "gamma", "lr", "seed", "updates", "last_top1", "update_uj", "target_mj")
MEANS = (
    "norm", "gamma", "lr", "reached", "seeds", "updates", "updates_std", "to_batch", "to_control",
    "update_uj", "target_mj", "energy_to_batch", "energy_to_control",
)  # fmt: skip
Row = dict[str, Any]


@cache
def update_uj(norm: str, batch: int) -> float:
    """Energy of one update [uJ]."""
    network = load_network(NETWORK, norm=norm)
    result = simulate(network, load_hardware(HARDWARE), batch=batch, phase="training")
    return result.total_energy_mj * 1000


def recipe_of(variant: Variant, lr: float) -> Recipe:
    return Recipe(epochs=MOST, lr=lr, schedule=Schedule.CONSTANT, gamma=variant.gamma)


def updates_to_target(variant: Variant, lr: float, seed: int, data: Dataset) -> tuple[int, float]:
    """Updates until the target is reached, 0 if it is not, and the last accuracy."""
    recipe = recipe_of(variant, lr)
    job = Job(load_network(NETWORK, norm=variant.norm), data, recipe, seed)
    draw = job.generators()
    engine = Engine(job.network, recipe, draw["init"], threads=1)
    done, share = 0, 0.0
    while done < MOST:
        for shards in batches(
            data, draw["order"], recipe.batch, recipe.shards, changes=draw["changes"],
            augmentation=job.augmentation, read=job.read,
        ):  # fmt: skip
            engine.step(shards, lr)
            done += 1
            if done % EVERY == 0:
                share = accuracy(engine, job, data.test)
                if share >= TARGET:
                    return done, share
            if done == MOST:
                break
    return 0, share


def accuracy(engine: Engine, job: Job, split: Split) -> float:
    score = engine.evaluate(in_order(job.data, split, 128, read=job.read))
    return score.first / score.images


def runs() -> Iterator[tuple[Variant, float, int]]:
    """All runs; those of one seed together, so that a part of them is of use."""
    for seed in SEEDS:
        for lr in RATES:
            for variant in VARIANTS:
                yield variant, lr, seed


def read() -> list[Row]:
    if not ROWS.exists():
        return []
    with ROWS.open(newline="") as file:
        return list(csv.DictReader(file))


def words_of(variant: Variant, lr: float, seed: int) -> Row:
    return {
        "norm": variant.norm, "gamma": f"{variant.gamma:.4g}", "lr": f"{lr:g}", "seed": str(seed)
    }  # fmt: skip


def run_all() -> None:
    data, rows = digits(), read()
    for variant, lr, seed in runs():
        words = words_of(variant, lr, seed)
        if any(words.items() <= row.items() for row in rows):
            continue
        updates, share = updates_to_target(variant, lr, seed, data)
        each = update_uj(variant.counted, recipe_of(variant, lr).batch)
        own = {
            "updates": str(updates or ""),
            "last_top1": f"{share:.4f}",
            "update_uj": f"{each:.2f}",
            "target_mj": f"{updates * each / 1000:.3f}" if updates else "",
        }
        rows.append(words | own)
        write_atomically(ROWS, to_csv(rows, COLUMNS))
        print(*rows[-1].values())


def report() -> None:
    rows = read()
    found: list[Row] = []
    for lr in RATES:
        own = [_mean([row for row in rows if words_of(each, lr, 0).items() - {("seed", "0")}
                      <= row.items()]) for each in VARIANTS]  # fmt: skip
        batch, control = own[0], own[1]
        for each in own:
            for word, of in (("batch", batch), ("control", control)):
                each[f"to_{word}"] = _ratio(each, of, "updates")
                each[f"energy_to_{word}"] = _ratio(each, of, "target_mj")
        found += own
    write_atomically(SUMMARY, to_csv(found, MEANS))
    for row in found:
        print(*(row[name] for name in MEANS), sep="\t")


def _mean(rows: list[Row]) -> Row:
    reached = [int(row["updates"]) for row in rows if row["updates"]]
    first = rows[0]
    return {
        "norm": first["norm"],
        "gamma": first["gamma"],
        "lr": first["lr"],
        "reached": len(reached),
        "seeds": len(rows),
        "updates": f"{mean(reached):.0f}" if reached else "",
        "updates_std": f"{stdev(reached):.0f}" if len(reached) > 1 else "",
        "update_uj": first["update_uj"],
        "target_mj": f"{mean(reached) * float(first['update_uj']) / 1000:.2f}" if reached else "",
    }


def _ratio(row: Row, other: Row, word: str) -> str:
    """Of means, where all seeds of both have reached the target: else it would flatter."""
    if any(each["reached"] < each["seeds"] for each in (row, other)):
        return ""
    return f"{float(row[word]) / float(other[word]):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", action="store_true", help="only summarise what there is")
    HERE.mkdir(exist_ok=True)
    if not parser.parse_args().report:
        with one_blas_thread():
            run_all()
    report()


if __name__ == "__main__":
    main()
