"""All methods on CIFAR-10: a narrow VGG16 made cheap in 46 ways, three seeds each.

    python experiments/methods_cifar10.py train --data cifar-10-python.tar.gz --device cuda
    python experiments/methods_cifar10.py report --data cifar-10-python.tar.gz

The first trains with PyTorch and keeps, in --work, a record of each method and seed and what its
network is: masks, or a network's file. Several of these commands may work side by side on parts of
all, such as ``--share 3/15``. The second counts what the networks cost, and fills
``methods_cifar10/`` beside this file: a row a method, machine and batch, a row a run, and pictures.
One command does both where all of it is done on one machine: see ``README.md``.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
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
from energysim.network.shrink import DisconnectedError, shrunk
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


def kept_network(method: Method, seed: int, setting: Setting, path: Path) -> Network:
    """The network in use: from masks or a file where training or data decided on it."""
    if method.name in (*PRUNING, *REWIRED):
        return setting.network.with_masks(MaskFile.open(path.with_suffix(".npz")))
    if method.name == TUCKER2:
        return load_network(path.with_suffix(".yaml"))
    return network_of(method, seed, setting)


def found_in(setting: Setting, kept: Path) -> Iterator[tuple[Trained | Failed, dict[str, Any]]]:
    for method in methods():
        for seed in SEEDS:
            path = kept / f"{slug(method, seed)}.json"
            if not path.exists():
                print(f"{method.label} seed {seed}: not trained", file=sys.stderr)
                continue
            record = json.loads(path.read_text())
            if "why" in record:
                yield Failed(method, seed, record["why"]), record
                continue
            network, row = kept_network(method, seed, setting, path), record["row"]
            networks = [setting.network] * (len(record["all_epochs"]) - 1) + [network]
            jobs = tuple(
                Job(each, setting.data, setting.recipe, seed, setting.backend) for each in networks
            )
            epochs = tuple(record["all_epochs"])
            yield Trained(method, seed, network, row["top1"], jobs, epochs), record


def without_dead_channels(found: Trained | Failed) -> Trained | Failed:
    """As it is used without the channels that are dead for all weights."""
    masked = found.method.name in (*PRUNING, *REWIRED)
    if isinstance(found, Failed) or not masked:
        return found
    try:
        return replace(found, small=shrunk(found.network).network)
    except DisconnectedError as error:
        return Failed(found.method, found.seed, str(error))


def report(setting: Setting, kept: Path, *, shrink: bool, some: Sequence[str]) -> None:
    """Count, and put the rows among those of before; of some methods alone if they are named."""
    pairs = list(found_in(setting, kept))
    runs(pairs)
    found = [without_dead_channels(each) if shrink else each for each, _ in pairs]
    counted = compare_trained(
        [each for each in found if not some or each.method.name in some],
        setting.network,
        [load_hardware(name) for name in CHIPS],
        BATCHES,
        all_seeds=False,
        cache=Cache(folder()),
        progress=lambda done, of, name: print(f"{done}/{of} {name}", file=sys.stderr, flush=True),
    )
    path = HERE / ("methods_shrunk.csv" if shrink else "methods.csv")
    merged = {_key(row): row for row in [*read(path), *counted.rows()]}
    order = {each: place for place, each in enumerate(methods())}
    points = sorted(points_of(merged.values()), key=lambda each: order[each.method])
    compared = replace(counted, points=tuple(points))
    write_atomically(path, as_csv(compared.rows()))
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
                    float(each["energy_mj"]), float(each["time_ms"])
                )
                for each in own
            },
            {},
        )


def runs(pairs: list[tuple[Trained | Failed, dict[str, Any]]]) -> None:
    """A row a run, and the accuracies of its epochs."""
    rows, curves = [], []
    for found, record in pairs:
        who = {"method": found.method.label, "seed": found.seed}
        if isinstance(found, Failed):
            print(f"{found.method.label} seed {found.seed}: {found.why}")
            continue
        rows.append(who | record["row"])
        curves += [who | {name: line[name] for name in CURVE[2:]} for line in record["log"]]
    write_atomically(HERE / "runs.csv", to_csv(rows, RUN))
    write_atomically(HERE / "curves.csv", to_csv(curves, CURVE))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, default=Path("runs-methods-cifar10"))
    parser.add_argument("--share", default="0/1", help="part I of N, from 0: I/N")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--epochs", type=int, help="another number, to try")
    parser.add_argument("--methods", nargs="+", default=[], help="report these anew alone")
    parser.add_argument(
        "--shrink", action="store_true", help="report networks without their dead channels"
    )
    options = parser.parse_args()
    common = setting_of(
        load(options.data), options.work, options.device, options.backend, options.epochs
    )
    own, of = map(int, options.share.split("/"))
    if options.what == "train":
        train(common, shares(of)[own], options.work / "kept")
    else:
        report(common, options.work / "kept", shrink=options.shrink, some=options.methods)
