"""Ranks of a network within a budget, chosen in six ways, on the bundled digits; three seeds each.

    python experiments/low_rank_digits.py --work runs-low-rank

trains ``digits_cnn``, puts Tucker-2 layers in place of its convolutions within two budgets of MACs
and two of energy, and trains on for half as long; narrower dense networks of the same cost, trained
for as long in all, stand beside them. ``low_rank_digits/`` beside this file gets a row a run
(``runs.csv``), mean and spread over seeds (``summary.csv``), and how far the ranks that were learnt
are from the best of all 64 where there are four a layer (``regret.csv``). What is in --work is not
run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from energysim import load_hardware, load_network, simulate
from energysim.files import write_atomically
from energysim.lowrank import Learning, Lowered, Settings, factored, lower, menu_of
from energysim.network import Network, Scale
from energysim.train.data import digits
from energysim.train.grid import run_all
from energysim.train.job import Job
from energysim.train.recipe import Recipe
from energysim.train.record import WEIGHTS_FILE, to_csv
from energysim.train.weights import Weights

HERE = Path(__file__).parent / "low_rank_digits"
NETWORK, CHIP, SEEDS = "digits_cnn", "edge_tpu", (0, 1, 2)
FIRST, AGAIN = Recipe(epochs=20), Recipe(epochs=10, lr=0.03)
LONG = Recipe(epochs=30)
BUDGETS = (("macs", 0.3), ("macs", 0.15), ("energy", 0.6), ("energy", 0.4))
"""Shares of a cost; ranks can't bring the energy below 0.31, as other layers take that."""

SEARCHING = Recipe(epochs=10, lr=0.03)
WAYS = ("uniform", "singular", "error", "random", "search", "search, no matching")
OPTIONS = 12
"""Ranks to choose from."""

FEW = 3
"""Ranks to choose from where all combinations are trained: 4 with the layer as it is, 64 in all."""

SHORT = Recipe(epochs=5, lr=0.03)
"""Of each of them."""

RUN_COLUMNS = (
    "cost",
    "share",
    "way",
    "seed",
    "ranks",
    "kept",
    "top1",
    "macs",
    "parameters",
    "energy_mj",
)
SUMMARY_COLUMNS = ("cost", "share", "way", "top1", "std", "kept", "macs", "parameters", "energy_mj")
REGRET_COLUMNS = ("seed", "share", "ranks", "top1", "best_ranks", "best_top1", "regret")


def trained(
    network: Network, recipe: Recipe, seed: int, work: Path, begin: Weights | None = None
) -> tuple[Path, float]:
    """Folder and accuracy of a run, done before or now."""
    job = Job(network, digits(), recipe, seed, begin=begin)
    (attempt,) = run_all([job], work)
    if attempt.row is None:
        raise SystemExit(f"{network.name}, seed {seed}: {attempt.problem}")
    return work / job.name, float(attempt.row["top1"])


def lowered(weights: Weights, way: str, cost: str, share: float, seed: int) -> Lowered:
    """Ranks chosen in one way."""
    hardware = {} if cost == "macs" else {"hardware": load_hardware(CHIP)}
    word, learning = way, None
    if way.startswith("search"):
        settings = Settings(matching=0.0) if "no matching" in way else Settings()
        word, learning = "search", Learning(digits(), SEARCHING, settings)
    return lower(
        load_network(NETWORK), share, word, cost=cost, weights=weights, options=OPTIONS, seed=seed,
        learning=learning, **hardware,
    )  # fmt: skip


def energy(network: Network) -> float:
    return simulate(network, load_hardware(CHIP)).total_energy_mj


def runs(work: Path) -> Iterator[dict[str, Any]]:
    dense = load_network(NETWORK)
    whole = {"macs": float(dense.macs), "energy": energy(dense)}
    for seed in SEEDS:
        folder, _ = trained(dense, FIRST, seed, work)
        weights = Weights.load(folder / WEIGHTS_FILE)
        _, top1 = trained(dense, LONG, seed, work)
        yield row("-", 1.0, "dense", seed, "", 1.0, top1, dense)
        for cost, share in BUDGETS:
            for way in WAYS:
                low = lowered(weights, way, cost, share, seed)
                _, top1 = trained(low.network, AGAIN, seed, work, low.weights)
                ranks = " ".join(f"{name}:{own[0]}" for name, own in low.ranks.items())
                yield row(cost, share, way, seed, ranks, low.kept, top1, low.network)
            narrow = narrower(cost, share * whole[cost])
            if narrow is not None:
                _, top1 = trained(narrow, LONG, seed, work)
                kept = (narrow.macs if cost == "macs" else energy(narrow)) / whole[cost]
                yield row(cost, share, "narrower, dense", seed, "", kept, top1, narrow)


def narrower(cost: str, budget: float) -> Network | None:
    """The widest dense network within a budget; None if none is."""
    for step in range(64, 0, -1):
        network = load_network(NETWORK, scale=Scale(step / 64))
        if (network.macs if cost == "macs" else energy(network)) <= budget:
            return network
    return None


def row(
    cost: str,
    share: float,
    way: str,
    seed: int,
    ranks: str,
    kept: float,
    top1: float,
    network: Network,
) -> dict[str, Any]:
    found = (cost, share, way, seed, ranks, round(kept, 6), top1, network.macs, network.parameters,
             round(energy(network), 12))  # fmt: skip
    return dict(zip(RUN_COLUMNS, found, strict=True))


def summary(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    keys = dict.fromkeys((each["cost"], each["share"], each["way"]) for each in rows)
    for key in keys:
        own = [each for each in rows if (each["cost"], each["share"], each["way"]) == key]
        tops = [each["top1"] for each in own]
        means = {word: round(mean(each[word] for each in own), 9) for word in SUMMARY_COLUMNS[5:]}
        yield dict(zip(SUMMARY_COLUMNS[:3], key, strict=True)) | {
            "top1": round(mean(tops), 6), "std": round(stdev(tops), 6)
        } | means  # fmt: skip


def regrets(work: Path) -> Iterator[dict[str, Any]]:
    """Ranks that were learnt beside the best of all within the same budget, trained alike."""
    dense = load_network(NETWORK)
    for seed in SEEDS:
        folder, _ = trained(dense, FIRST, seed, work)
        weights = Weights.load(folder / WEIGHTS_FILE)
        kernels = {layer.name: weights.arrays[f"{layer.name}.weight"] for layer in dense.layers
                   if layer.stores_weights}  # fmt: skip
        menu = menu_of(dense, kernels, options=FEW)
        tops = {}
        for places in product(range(FEW + 1), repeat=len(menu.costs)):
            choice = dict(zip(menu.costs, places, strict=True))
            low, begin = factored(dense, weights, menu.chosen(choice))
            tops[places] = trained(low, SHORT, seed, work, begin)[1]
        for share in (0.5, 0.3, 0.15):
            within = [each for each in tops if menu.cost(dict(zip(menu.costs, each, strict=True)))
                      <= share * menu.dense]  # fmt: skip
            best = max(within, key=lambda each: tops[each])
            found = lower(dense, share, "search", weights=weights, options=FEW, seed=seed,
                          learning=Learning(digits(), SEARCHING))  # fmt: skip
            own = tuple(found.choice[name] for name in menu.costs)
            yield dict(zip(REGRET_COLUMNS, (
                seed, share, " ".join(map(str, own)), tops[own], " ".join(map(str, best)),
                tops[best], round(tops[best] - tops[own], 6)), strict=True))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--work", type=Path, default=Path("runs-low-rank"))
    work = parser.parse_args().work
    HERE.mkdir(exist_ok=True)
    rows = list(runs(work))
    write_atomically(HERE / "runs.csv", to_csv(rows, RUN_COLUMNS))
    found = list(summary(rows))
    write_atomically(HERE / "summary.csv", to_csv(found, SUMMARY_COLUMNS))
    for each in found:
        print(f"{each['cost']:7} {each['share']:5} {each['way']:20} {100 * each['top1']:6.2f} ±"
              f" {100 * each['std']:5.2f}  kept {100 * each['kept']:5.1f} %")  # fmt: skip
    write_atomically(HERE / "regret.csv", to_csv(list(regrets(work)), REGRET_COLUMNS))


if __name__ == "__main__":
    main()
