"""Accuracy of networks in full width on CIFAR-10, beside the values of the source paper.

    python experiments/full_size.py --runs runs-full-size

takes finished runs of the command in ``README.md`` into ``full_size/`` beside this file: a row a
run, the accuracies of all epochs, and a table and a picture of both. Without --runs only the last
two are made again.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from statistics import mean

from energysim.accuracy import published
from energysim.files import write_atomically
from energysim.train.record import COLUMNS, LOG, ROW, to_csv

HERE = Path(__file__).parent / "full_size"
ROWS, CURVES, BESIDE = HERE / "accuracy.csv", HERE / "curves.csv", HERE / "beside.csv"
NETWORKS = ("vgg16", "resnet18")
PATTERNS = ("dense", "PSD4_P8", "PS4_P4", "PSD2_P8", "PS2_P6", "PSD1_P16", "PS1_P9")
CURVE = ("run", "epoch", "lr", "train_loss", "train_top1", "test_loss", "test_top1", "test_top5")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def collect(runs: Path) -> None:
    """Rows and curves of all finished runs of a folder."""
    rows: list[dict[str, object]] = []
    curves: list[dict[str, object]] = []
    for path in sorted(runs.glob(f"*/{ROW}")):
        row = json.loads(path.read_text())
        rows.append({name: row[name] for name in COLUMNS})
        log = [json.loads(line) for line in (path.parent / LOG).read_text().splitlines()]
        curves += [{"run": row["run"]} | {name: line[name] for name in CURVE[1:]} for line in log]
    if not rows:
        raise SystemExit(f"{runs}: no finished run")
    write_atomically(ROWS, to_csv(rows, COLUMNS))
    write_atomically(CURVES, to_csv(curves, CURVE))


def beside() -> list[dict[str, str]]:
    """What each pattern reaches and loses, here and in the paper."""
    theirs = {
        (each.network, each.pattern): each.percent
        for each in published()
        if each.dataset == "CIFAR-10"
    }
    ours: dict[tuple[str, str], list[float]] = {}
    for row in read(ROWS):
        key = row["network"].split("+")[0], row["pattern"]
        ours.setdefault(key, []).append(100 * float(row["top1"]))
    found = []
    for network in NETWORKS:
        for pattern in PATTERNS:
            here, there = mean(ours[network, pattern]), theirs[network, pattern]
            found.append(
                {
                    "network": network,
                    "pattern": pattern,
                    "seeds": str(len(ours[network, pattern])),
                    "top1_percent": f"{here:.2f}",
                    "paper_percent": f"{there:.2f}",
                    "lost_percent": f"{mean(ours[network, 'dense']) - here:.2f}",
                    "paper_lost_percent": f"{theirs[network, 'dense'] - there:.2f}",
                }
            )
    return found


def picture(rows: list[dict[str, str]]) -> None:
    """What each pattern loses against dense kernels."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    from energysim import plot

    with mpl.rc_context(plot.STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
        for ax, network in zip(axes, NETWORKS, strict=True):
            some = [row for row in rows if row["network"] == network and row["pattern"] != "dense"]
            for shift, key, label, colour in (
                (-0.2, "lost_percent", "here: 60 epochs, one seed, last epoch", "#0072B2"),
                (0.2, "paper_lost_percent", "paper: 150 epochs, best epoch", "#E69F00"),
            ):
                ax.bar(
                    [place + shift for place in range(len(some))],
                    [float(row[key]) for row in some],
                    width=0.38, color=colour, label=label,
                )  # fmt: skip
            ax.set_xticks(range(len(some)), [row["pattern"] for row in some], rotation=30)
            ax.axhline(0, color="#000000", linewidth=0.6)
            ax.set_title(network)
        axes[0].set_ylabel("accuracy lost against dense [%]")
        axes[0].legend(loc="upper left")
        figure.suptitle("CIFAR-10 (here its JPEG re-encoding), full width")
        for suffix in ("svg", "png"):
            plot.save(figure, HERE / f"beside.{suffix}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, help="folder of 'energysim train --out'")
    options = parser.parse_args()
    if options.runs is not None:
        collect(options.runs)
    table = beside()
    write_atomically(BESIDE, to_csv(table, tuple(table[0])))
    for row in table:
        print(*row.values(), sep="\t")
    picture(table)
