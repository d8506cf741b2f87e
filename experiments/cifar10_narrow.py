"""Accuracy of narrow networks with sparse kernels on CIFAR-10: 16 networks, three seeds each.

    python experiments/cifar10_narrow.py --data cifar-10-python.tar.gz

Rows of finished runs and the accuracies of all their epochs go to ``cifar10_narrow/`` beside this
file; what stands there is not run again. Runs themselves (checkpoints, weights) are kept in --work,
where an interrupted one goes on. Several of these commands may work side by side, each on runs of
its own; one thread each uses the cores best.

    python experiments/cifar10_narrow.py --report

only makes the summary and the picture of what there is.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from filelock import FileLock

from energysim import cache
from energysim.catalog import load_network
from energysim.files import write_atomically
from energysim.network import Scale
from energysim.train.data import Dataset, load
from energysim.train.job import Job, digest
from energysim.train.recipe import Recipe
from energysim.train.record import COLUMNS, LOG, to_csv
from energysim.train.run import BusyError, Tick, row_if_done, train
from energysim.yamlio import load_model

HERE = Path(__file__).parent / "cifar10_narrow"
RECIPE = HERE / "recipe.yaml"
ROWS, CURVES, SUMMARY = HERE / "accuracy.csv", HERE / "curves.csv", HERE / "summary.csv"

PATTERNS = ("dense", "PS4_P4", "PSD4_P8", "PS2_P6", "PSD2_P8", "PS1_P9", "PSD1_P16")
WIDTH, SEEDS = 0.25, (0, 1, 2)
NETWORKS = (
    *(("vgg16", pattern) for pattern in PATTERNS),
    *(("resnet18", pattern) for pattern in PATTERNS),
    ("mobilenet_v2", "dense"),
    ("shufflenet_v2", "dense"),
)
CURVE = ("run", "epoch", "lr", "train_loss", "train_top1", "test_loss", "test_top1", "test_top5")


def jobs(data: Dataset) -> Iterator[Job]:
    """All runs; those of one seed together, so that a part of them is of use."""
    recipe, _ = load_model(RECIPE, Recipe)
    scale = Scale(WIDTH, classes=len(data.classes))
    for seed in SEEDS:
        for name, pattern in NETWORKS:
            network = load_network(name, pattern=pattern, scale=scale)
            yield Job(network, data, recipe, seed)


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def keep(folder: Path, row: dict[str, object]) -> None:
    """Add a finished run to the tables."""
    log = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    curve = [{"run": row["run"]} | {name: line[name] for name in CURVE[1:]} for line in log]
    with FileLock(HERE / ".lock"):
        for path, columns, new in ((ROWS, COLUMNS, [row]), (CURVES, CURVE, curve)):
            old = [each for each in read(path) if each["run"] != row["run"]]
            rows = sorted([*old, *new], key=lambda each: (each["run"], int(each.get("epoch", 0))))
            write_atomically(path, to_csv(rows, columns))


def tell(tick: Tick) -> None:
    if tick.record is not None:
        record = tick.record
        print(
            f"{tick.job.network.name} seed {tick.job.seed} epoch {tick.epoch}:"
            f" test {record['test_top1']:.2%}, {record['images_per_second']:.0f} images/s",
            flush=True,
        )


def run(data: Dataset, work: Path, *, backwards: bool) -> None:
    for job in reversed([*jobs(data)]) if backwards else jobs(data):
        if any(row["run"] == job.name for row in read(ROWS)):
            continue
        folder = work / job.name
        try:
            row = row_if_done(job, work) or train(job, folder, threads=1, tell=tell).row
        except BusyError:
            continue
        keep(folder, row)


def summarise() -> list[dict[str, Any]]:
    """Mean and spread over seeds, and what each pattern loses against dense, seed by seed."""
    recipe, _ = load_model(RECIPE, Recipe)
    own = digest(recipe.described())
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in (row for row in read(ROWS) if row["recipe_sha256"] == own):
        groups.setdefault((row["network"].split("+")[0], row["pattern"]), []).append(row)
    found = []
    order = {(f"{name}-x{WIDTH:g}", pattern): i for i, (name, pattern) in enumerate(NETWORKS)}
    for (name, pattern), rows in sorted(groups.items(), key=lambda each: order[each[0]]):
        top1 = {row["seed"]: 100 * float(row["top1"]) for row in rows}
        dense = {row["seed"]: 100 * float(row["top1"]) for row in groups.get((name, "dense"), [])}
        lost = [dense[seed] - value for seed, value in top1.items() if seed in dense]
        first = rows[0]
        found.append(
            {
                "network": name,
                "pattern": pattern,
                "seeds": len(rows),
                "top1_percent": f"{mean(top1.values()):.2f}",
                "top1_std_percent": f"{stdev(top1.values()):.2f}" if len(top1) > 1 else "",
                "lost_percent": f"{mean(lost):.2f}" if lost else "",
                "parameters": first["parameters"],
                "macs": first["macs"],
                "effective_macs": first["effective_macs"],
            }
        )
    return found


def report() -> None:
    rows = summarise()
    if not rows:
        raise SystemExit("no run of this recipe is finished")
    write_atomically(SUMMARY, to_csv(rows, tuple(rows[0])))
    for row in rows:
        print(*row.values(), sep="\t")
    picture(rows)


COLOURS = ("#000000", "#0072B2", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7")
"""Okabe and Ito's, one a pattern or network."""
MARKS = ("o", "s", "^", "D")


def picture(rows: list[dict[str, Any]]) -> None:
    """Accuracy against multiply-accumulates that are left, and how it grew."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    from energysim import plot
    from energysim.plot.beside import Label, place_labels
    from energysim.plot.sheet import settle

    with mpl.rc_context(plot.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
        figure.suptitle("CIFAR-10 (JPEG re-encoding), a quarter of the width, three epochs")
        for number, network in enumerate(dict.fromkeys(row["network"] for row in rows)):
            some = [row for row in rows if row["network"] == network]
            left.errorbar(
                [int(row["effective_macs"]) / 1e6 for row in some],
                [float(row["top1_percent"]) for row in some],
                [float(row["top1_std_percent"] or 0) for row in some],
                linestyle="none", marker=MARKS[number], markersize=5, capsize=2, linewidth=1,
                color=COLOURS[(1, 5, 3, 6)[number]], label=network,
            )  # fmt: skip
        left.set(
            xscale="log",
            xlabel="MACs left by the pattern [M]",
            ylabel="test accuracy, top-1 [%]",
            title="mean and standard deviation over seeds",
        )
        left.margins(x=0.12)
        for axis in (left.xaxis.set_major_formatter, left.xaxis.set_minor_formatter):
            axis(ScalarFormatter())
        left.legend(loc="lower right")
        settle(figure)
        points = [(int(row["effective_macs"]) / 1e6, float(row["top1_percent"])) for row in rows]
        spreads = [float(row["top1_std_percent"] or 0) for row in rows]
        labels = [
            Label(row["pattern"], *place, {"fontsize": 6.5}, 3.0)
            for row, place in zip(rows, points, strict=True)
            if row["network"].startswith(("vgg16", "resnet18"))
        ]
        bars = [(x, y - s, x, y + s) for (x, y), s in zip(points, spreads, strict=True)]
        place_labels(left, labels, points=points, thin=bars)
        for pattern, epochs in curves("vgg16").items():
            right.plot(
                list(epochs),
                [mean(each) for each in epochs.values()],
                color=COLOURS[PATTERNS.index(pattern)],
                marker=".",
                label=pattern,
            )
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set(xlabel="epoch", title=f"vgg16-x{WIDTH:g}, mean over seeds")
        right.legend(loc="lower right")
        for suffix in ("svg", "png"):
            plot.save(figure, HERE / f"accuracy.{suffix}")


def curves(network: str) -> dict[str, dict[int, list[float]]]:
    """Test accuracies of all seeds by pattern and epoch [%]."""
    patterns = {
        row["run"]: row["pattern"] for row in read(ROWS) if row["network"].startswith(network)
    }
    found: dict[str, dict[int, list[float]]] = {each: {} for each in PATTERNS}
    for line in read(CURVES):
        if line["run"] in patterns:
            epochs = found[patterns[line["run"]]]
            epochs.setdefault(int(line["epoch"]), []).append(100 * float(line["test_top1"]))
    return {pattern: epochs for pattern, epochs in found.items() if epochs}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="CIFAR-10 in any form that the trainer reads")
    parser.add_argument("--work", type=Path, default=Path("runs-cifar10-narrow"))
    parser.add_argument("--backwards", action="store_true", help="begin with the last run")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if options.data is not None:
        images = load(options.data, cache=cache.folder())
        run(images, options.work, backwards=options.backwards)
    if not options.report and options.data is None:
        parser.error("give --data to run, or --report")
    if options.report or options.data is not None:
        report()
