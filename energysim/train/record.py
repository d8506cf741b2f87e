"""What is kept of a run: a row of accuracies, a log of its epochs, densities of activations."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from energysim.network import Network
from energysim.train.engine import TOP, Score
from energysim.train.job import Job
from energysim.train.model import Watch
from energysim.version import VERSION

ROW, LOG, DENSITIES, WEIGHTS_FILE = "result.json", "log.jsonl", "densities.csv", "weights.npz"
CHECKPOINT, TABLE = "checkpoint.npz", "accuracy.csv"
MASKS, ROBUST_TABLE = "masks.npz", "robust.csv"

Record = dict[str, Any]
"""Of one epoch: a line of the log."""

COLUMNS = (
    "network",
    "pattern",
    "dataset",
    "synthetic",
    "seed",
    "epochs",
    "top1",
    "top5",
    "test_loss",
    "best_top1",
    "best_epoch",
    "chosen_top1",
    "chosen_epoch",
    "parameters",
    "macs",
    "effective_macs",
    "classes",
    "train_images",
    "test_images",
    "dataset_sha256",
    "network_sha256",
    "recipe_sha256",
    "backend",
    "energysim",
    "run",
    "dataset_notes",
)
"""Of the table of accuracies."""


ROBUST_COLUMNS = (
    "network",
    "pattern",
    "dataset",
    "seed",
    "attack",
    "radius",
    "steps",
    "length",
    "restarts",
    "random_start",
    "images",
    "clean_top1",
    "robust_top1",
    "robust_loss",
    "network_sha256",
    "dataset_sha256",
    "recipe_sha256",
    "backend",
    "run",
)
"""Of the table of accuracies under attack."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    row: dict[str, Any]
    """by :data:`COLUMNS`; accuracies are shares of the test images"""
    records: tuple[Record, ...]
    """of each epoch"""
    densities: Mapping[str, tuple[float, float]]
    """by layer: share of what it reads and of what it gives that is not 0, on test images"""
    weights: Mapping[str, Any]
    """by name: ``conv1.weight`` is ``[K, C, R, S]`` with K over all groups"""
    masks: Mapping[str, Any] = field(default_factory=dict)
    """by layer, of a network that was rewired: what is live after the last step"""
    layers: tuple[Record, ...] = ()
    """of a network that was rewired: live weights and density of each layer"""

    @property
    def top1(self) -> float:
        """Share of the test images told right after the last epoch."""
        return float(self.row["top1"])


def epoch_record(epoch: int, lr: float, speed: float, scores: Mapping[str, Score]) -> Record:
    """A line of the log.

    Parameters
    ----------
    epoch : int
        From 1.
    lr : float
        Learning rate of the last step.
    speed : float
        Images a second in training: the only figure that depends on the machine.
    scores : mapping
        By ``train`` (before each step), ``test`` and, where images are held out, ``validation``.
    """
    line: Record = {"epoch": epoch, "lr": lr}
    for word, score in scores.items():
        line[f"{word}_loss"] = score.loss / score.images
        line[f"{word}_top1"] = score.first / score.images
        if word == "test":
            line["test_top5"] = score.among / score.images
    return line | {"images_per_second": round(speed, 1)}


def row_of(job: Job, records: Sequence[Record], backend: str, network: Network) -> dict[str, Any]:
    """The row of a finished run.

    ``network`` is that of the job, or with the masks that rewiring has left: names, parameters and
    multiply-accumulates are of it. ``network_sha256`` is of what was trained.

    ``best`` is the epoch that did best on the test images, as papers often report it: chosen by
    what it is measured by, so it is no fair estimate. ``chosen`` is the epoch with the smallest
    loss on images held out, and what that one had on the test images.
    """
    data = job.data
    last = records[-1]
    best = max(records, key=lambda each: (each["test_top1"], -each["epoch"]))
    held = [each for each in records if "validation_loss" in each]
    chosen = min(held, key=lambda each: (each["validation_loss"], each["epoch"])) if held else None
    return {
        "network": network.name,
        "pattern": network.pattern,
        "dataset": data.name,
        "synthetic": data.synthetic,
        "seed": job.seed,
        "epochs": last["epoch"],
        "top1": last["test_top1"],
        "top5": last["test_top5"] if len(data.classes) > TOP else None,
        "test_loss": last["test_loss"],
        "best_top1": best["test_top1"],
        "best_epoch": best["epoch"],
        "chosen_top1": chosen["test_top1"] if chosen else None,
        "chosen_epoch": chosen["epoch"] if chosen else None,
        "parameters": network.parameters,
        "macs": network.macs,
        "effective_macs": network.effective_macs,
        "classes": len(data.classes),
        "train_images": len(data.train),
        "test_images": len(data.test),
        "dataset_sha256": data.sha256,
        "network_sha256": job.described["network_sha256"],
        "recipe_sha256": job.identity_of_recipe,
        "backend": backend,
        "energysim": VERSION,
        "run": job.name,
        "dataset_notes": "; ".join(data.notes),
    }


def robust_rows(rows: Sequence[Record]) -> list[Record]:
    """A row an attack on a run, by :data:`ROBUST_COLUMNS`."""
    return [
        {word: {**row, **each}[word] for word in ROBUST_COLUMNS}
        for row in rows
        for each in row.get("robust", ())
    ]


def layer_records(network: Network) -> tuple[Record, ...]:
    """Live weights and density of each layer with weights."""
    return tuple(
        {
            "layer": layer.name,
            "weights": layer.weights_dense,
            "live": layer.weights,
            "density": layer.weights / layer.weights_dense,
        }
        for layer in network.layers
        if layer.stores_weights
    )


def densities_of(watch: Watch) -> dict[str, tuple[float, float]]:
    """Shares that are not 0, by layer."""
    shares = {}
    for name, (found, total) in watch.read.items():
        given, size = watch.given[name]
        shares[name] = found / total, given / size
    return shares


def densities_csv(densities: Mapping[str, tuple[float, float]], source: str) -> str:
    """The file that ``--activations`` reads."""
    rows = [
        {
            "layer": name,
            "input_density": f"{read:.6f}",
            "output_density": f"{given:.6f}",
            "source": source,
        }
        for name, (read, given) in densities.items()
    ]
    return to_csv(rows, ("layer", "input_density", "output_density", "source"))


def log_text(records: Sequence[Record]) -> str:
    """The log: one line of JSON an epoch."""
    return "".join(f"{json.dumps(each, allow_nan=False)}\n" for each in records)


def to_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as CSV; what is not known is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if row[name] is None else row[name] for name in columns})
    return out.getvalue()


def finished(folder: Path) -> dict[str, Any] | None:
    """Row of a run that is done; None if it is not."""
    try:
        row = json.loads((folder / ROW).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) and {*COLUMNS, "job"} <= set(row) else None


def rows_in(out: Path) -> list[dict[str, Any]]:
    """Rows of all finished runs in a folder of runs, by name."""
    if not out.is_dir():
        return []
    folders = sorted(each for each in out.iterdir() if each.is_dir())
    return [row for row in map(finished, folders) if row is not None]
