"""All methods on CIFAR-10: a narrow VGG16 made cheap in 46 ways, three seeds each.

    python experiments/methods_cifar10.py train --data cifar-10-python.tar.gz --device cuda
    python experiments/methods_cifar10.py collect
    python experiments/methods_cifar10.py report --data cifar-10-python.tar.gz

The first trains with PyTorch and keeps, in --work, a record of each method and seed and what its
network is: masks, or a network's file. Several of these commands may work side by side on parts of
all, such as ``--share 3/15``. The second takes the records into ``methods_cifar10/`` beside this
file: a row a run, a row an epoch, and the networks that training has decided on. The third counts
what the networks cost: a row a method, machine and batch, and a picture. It needs no runs.
``energysim compare-methods`` does all of it where it is done on one machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from types import SimpleNamespace
from typing import Any

from energysim import load_hardware, load_network
from energysim.cache import Cache, folder
from energysim.cli.describe import network_yaml
from energysim.cli.render import as_csv
from energysim.methods import (
    Failed,
    Figures,
    Method,
    Point,
    Setting,
    Trained,
    compare_trained,
    methods_named,
    train_all,
)
from energysim.methods.named import REWIRED, TUCKER2
from energysim.methods.trained import network_of
from energysim.network import Network, Scale
from energysim.network.shrink import shrunk
from energysim.plot.methods import methods_figure
from energysim.plot.style import save
from energysim.prune import METHODS as PRUNING
from energysim.sparsity.maskfile import MaskFile, mask_file
from energysim.train.data import Dataset, load
from energysim.train.grid import run_all
from energysim.train.job import Job
from energysim.train.recipe import Recipe
from energysim.train.record import LOG, to_csv
from energysim.yamlio import load_model, write_atomically

HERE = Path(__file__).parent / "methods_cifar10"
RECIPE = HERE / "recipe.yaml"
ROWS, CURVES, NETWORKS = HERE / "runs.csv", HERE / "curves.csv", HERE / "networks"
NETWORK, WIDTH, SEEDS, DENSITIES = "vgg16", 0.25, (0, 1, 2), (0.03, 0.1, 0.3)
WORDS = ("all", "mobilenet_v2@0.25", "shufflenet_v2@0.25")
CHIPS, BATCHES = ("edge_tpu", "eyeriss_v2"), (1, 8, 64)
RUN = (
    "method", "seed", "network", "top1", "top5", "test_loss", "best_top1", "best_epoch", "epochs",
    "parameters", "macs", "effective_macs", "recipe_sha256", "dataset_sha256", "backend",
)  # fmt: skip
"""Columns of the table of runs."""
CURVE = ("method", "seed", "epoch", "lr", "train_loss", "train_top1", "test_loss", "test_top1")

Item = tuple[Method, int]


def setting_of(data: Dataset, work: Path, device: str, backend: str, epochs: int | None) -> Setting:
    recipe, _ = load_model(RECIPE, Recipe)
    if epochs is not None:
        recipe = recipe.model_copy(update={"epochs": epochs})
    made = Setting.of(NETWORK, data, recipe, seeds=SEEDS, out=work, scale=Scale(WIDTH))
    return replace(made, backend=backend, device=device)


def methods() -> tuple[Method, ...]:
    return methods_named(WORDS, DENSITIES)


def shares(many: int) -> list[list[Item]]:
    """Parts of all work, about as long as each other.

    What is factorised begins with the dense network of the same seed, so that these stay together.
    """
    units: list[list[Item]] = []
    for seed in SEEDS:
        units.append([(each, seed) for each in methods() if each.name in ("dense", TUCKER2)])
        units += [[(each, seed)] for each in methods() if each.name not in ("dense", TUCKER2)]
    found: list[list[Item]] = [[] for _ in range(many)]
    for unit in sorted(units, key=_cost, reverse=True):
        min(found, key=_cost).extend(unit)
    return found


def _cost(items: list[Item]) -> float:
    """Networks of many layers take longer."""
    return sum(3.0 if each.name in ("mobilenet_v2", "shufflenet_v2") else 1.0 for each, _ in items)


def slug(method: Method, seed: int) -> str:
    return f"{method.label.replace(' %', '').replace(' ', '-').replace(':', '-')}_s{seed}"


def train(setting: Setting, items: list[Item], kept: Path) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    for method, seed in items:
        path = kept / f"{slug(method, seed)}.json"
        if path.exists():
            continue
        (found,) = train_all([method], replace(setting, seeds=(seed,)))
        if isinstance(found, Failed):
            write_atomically(path, json.dumps({"why": found.why}))
            print(f"{method.label} seed {seed}: {found.why}", flush=True)
            continue
        network, job = found.network, found.jobs[-1]
        if method.name in (*PRUNING, *REWIRED):
            masks = {e.name: e.mask.array() for e in network.layers if e.stores_weights}
            write_atomically(path.with_suffix(".npz"), mask_file(masks))
        elif method.name == TUCKER2:
            write_atomically(path.with_suffix(".yaml"), network_yaml(network))
        (attempt,) = run_all([job], setting.out)
        assert attempt.row is not None
        row = {name: attempt.row[name] for name in RUN if name not in ("method", "seed")}
        log = [json.loads(line) for line in (setting.out / job.name / LOG).read_text().splitlines()]
        record: dict[str, Any] = {"row": row, "log": log, "all_epochs": found.epochs}
        write_atomically(path, json.dumps(record))
        print(f"{method.label} seed {seed}: {found.top1:.2%}", flush=True)


# -- what it came to -------------------------------------------------------------------------------


def collect(kept: Path) -> None:
    """Take records into the tables, and networks that training decided on, of the first seed."""
    rows, curves = ({_run(row): [] for row in read(path)} for path in (ROWS, CURVES))
    for path, found in ((ROWS, rows), (CURVES, curves)):
        for row in read(path):
            found[_run(row)].append(row)
    for method in methods():
        for seed in SEEDS:
            path = kept / f"{slug(method, seed)}.json"
            record = json.loads(path.read_text()) if path.exists() else {"why": "not trained"}
            who = {"method": method.label, "seed": seed}
            if "why" in record:
                print(f"{method.label} seed {seed}: {record['why']}")
                continue
            rows[_run(who)] = [who | record["row"]]
            curves[_run(who)] = [who | {word: line[word] for word in CURVE[2:]}
                                 for line in record["log"]]  # fmt: skip
            suffix = ".npz" if method.name in REWIRED else ".yaml"
            if method.name in (*REWIRED, TUCKER2) and seed == SEEDS[0]:
                NETWORKS.mkdir(exist_ok=True)
                copyfile(path.with_suffix(suffix), NETWORKS / path.with_suffix(suffix).name)
    order = {each.label: place for place, each in enumerate(methods())}
    for path, columns, found in ((ROWS, RUN, rows), (CURVES, CURVE, curves)):
        keys = sorted(found, key=lambda each: (order[each[0]], each[1]))
        write_atomically(path, to_csv([row for key in keys for row in found[key]], columns))


def _run(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["method"], int(row["seed"])


def network_in_use(method: Method, setting: Setting, *, shrink: bool) -> Network:
    """Of the first seed: from a file where training decided on it, else made again.

    Masks by gradients may differ in a few weights from those of another machine.
    """
    path = NETWORKS / slug(method, SEEDS[0])
    if method.name == TUCKER2:
        return load_network(path.with_suffix(".yaml"))
    if method.name in REWIRED:
        network = setting.network.with_masks(MaskFile.open(path.with_suffix(".npz")))
    else:
        network = network_of(method, SEEDS[0], setting)
    # without the channels that are dead for all weights
    masked = method.name in (*PRUNING, *REWIRED)
    return shrunk(network).network if shrink and masked else network


def trained(method: Method, setting: Setting, *, shrink: bool) -> list[Trained]:
    """Runs of the table, each with the network of the first seed."""
    rows = [row for row in read(ROWS) if row["method"] == method.label]
    if not rows:
        return []
    network = network_in_use(method, setting, shrink=shrink)
    jobs = (Job(network, setting.data, setting.recipe, SEEDS[0], setting.backend),)
    epochs = (setting.recipe.epochs,)
    return [
        Trained(method, int(row["seed"]), network, float(row["top1"]), jobs, epochs) for row in rows
    ]


def report(setting: Setting, *, shrink: bool, some: Sequence[str], chips: Sequence[str]) -> None:
    """Count, and put the rows among those of before; of some methods and chips if they are named.

    The picture has the machines that all methods were counted on.
    """
    asked = [each for each in methods() if not some or each.name in some]
    counted = compare_trained(
        [run for each in asked for run in trained(each, setting, shrink=shrink)],
        setting.network,
        [load_hardware(name) for name in chips],
        BATCHES,
        all_seeds=False,
        cache=Cache(folder()),
        progress=lambda done, of, name: print(f"{done}/{of} {name}", file=sys.stderr, flush=True),
    )
    path = HERE / ("methods_shrunk.csv" if shrink else "methods.csv")
    merged = {_key(row): row for row in [*read(path), *counted.rows()]}
    order = {each: place for place, each in enumerate(methods())}
    points = sorted(points_of(merged.values()), key=lambda each: order[each.method])
    whole = [
        chip
        for chip in CHIPS
        if all((chip, batch) in each.inference for each in points for batch in BATCHES)
    ]
    compared = replace(counted, points=tuple(points), hardware=tuple(whole))
    parts = [row for row in merged.values() if row["hardware"] not in whole]
    write_atomically(path, as_csv([*compared.rows(), *parts]))
    save(methods_figure(compared, ("energy", "parameters")), path.with_suffix(".png"))


def read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[word] or "") for word in ("method", "density", "hardware", "batch"))


def points_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[Point]:
    """Points as rows of a table have them: runs that give its mean, spread and sizes."""
    by_method: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_method.setdefault(_key(row)[:2], []).append(row)
    known = {(each.name, str(each.density or "")): each for each in methods()}
    for key, own in by_method.items():
        row, method = own[0], known[key]
        sizes = {word: float(row[word]) for word in ("parameters", "macs", "effective_macs")}
        network: Any = SimpleNamespace(name=row["network"], **sizes)
        mean, std = float(row["accuracy_percent"]) / 100, float(row["std_percent"] or 0) / 100
        many = int(row["seeds"])
        # two at the ends and the rest in the middle have this mean and standard deviation
        ends = std * ((many - 1) / 2) ** 0.5
        tops = [mean - ends, *([mean] * (many - 2)), mean + ends][-many:]
        yield Point(
            method,
            tuple(Trained(method, seed, network, top, (), ()) for seed, top in enumerate(tops)),
            {
                (each["hardware"], int(each["batch"])): Figures(
                    float(each["energy_mj"]),
                    float(each["time_ms"]),
                    each["dataflow"],
                    each["objective"],
                    str(each["residency"]) == "True",
                )
                for each in own
            },
            {},
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("train", "collect", "report"))
    parser.add_argument("--data", help="of train and report")
    parser.add_argument("--work", type=Path, default=Path("runs-methods-cifar10"))
    parser.add_argument("--share", default="0/1", help="part I of N, from 0: I/N")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend", default="torch-bf16")
    parser.add_argument("--epochs", type=int, help="another number, to try")
    parser.add_argument("--methods", nargs="+", default=[], help="report these anew alone")
    parser.add_argument("--hw", nargs="+", default=CHIPS, help="report on these alone")
    parser.add_argument(
        "--shrink", action="store_true", help="report networks without their dead channels"
    )
    options = parser.parse_args()
    if options.what == "collect":
        collect(options.work / "kept")
        raise SystemExit
    common = setting_of(
        load(options.data), options.work, options.device, options.backend, options.epochs
    )
    if options.what == "train":
        own, of = map(int, options.share.split("/"))
        train(common, shares(of)[own], options.work / "kept")
    else:
        report(common, shrink=options.shrink, some=options.methods, chips=options.hw)
