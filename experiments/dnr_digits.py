"""Dynamic network rewiring and its controls on the bundled digits: ten ways, three seeds each.

    python experiments/dnr_digits.py --work runs-dnr

trains ``digits_cnn`` densely and sparsely, on images as they are and on attacked ones, and measures
accuracy as they are and under three attacks. ``dnr_digits/`` beside this file gets a row a run
(``runs.csv``), the density of each layer (``densities.csv``), mean and spread over seeds with what
an image costs on two chips (``summary.csv``) and a picture of both fronts. What is in --work is not
run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from energysim import load_hardware, load_network, simulate
from energysim.files import write_atomically
from energysim.network import Network
from energysim.pareto.front import non_dominated
from energysim.prune import alike, prune
from energysim.sparsity import MaskFile
from energysim.train.attacks import Attack
from energysim.train.data import digits
from energysim.train.grid import run_all
from energysim.train.job import Job
from energysim.train.recipe import Adversarial, Recipe, Rewire
from energysim.train.record import MASKS, WEIGHTS_FILE, to_csv
from energysim.train.rewire import Mode
from energysim.train.weights import Weights

HERE = Path(__file__).parent / "dnr_digits"
RUNS, DENSITIES, SUMMARY = HERE / "runs.csv", HERE / "densities.csv", HERE / "summary.csv"

NETWORK, RADIUS, SEEDS, EPOCHS = "digits_cnn", 0.1, (0, 1, 2), 20
AGAIN = 10
"""Epochs more, after a trained network was pruned."""
NATURAL = Recipe(epochs=EPOCHS)
HYBRID = Recipe(epochs=EPOCHS, adversarial=Adversarial(radius=RADIUS))
ATTACKS = {
    "fgsm": Attack.fgsm(RADIUS),
    "pgd7": Attack(RADIUS),
    "pgd50": Attack(RADIUS, steps=50, restarts=5),
}
CHIPS = ("edge_tpu", "eyeriss_v2")
"""The first gates zero weights, the second skips them."""


@dataclass(frozen=True)
class Way:
    """A way to get a network."""

    name: str
    recipe: Recipe
    network: Callable[[int, Path], Network] = lambda _seed, _work: load_network(NETWORK)
    """of a seed and the folder of all runs"""
    begin: str | None = None
    """the way whose weights it begins with"""


def rewired(recipe: Recipe, density: float, mode: Mode = Mode.IRREGULAR) -> Recipe:
    return recipe.model_copy(update={"rewire": Rewire(density=density, mode=mode)})


def folder(work: Path, way: str, seed: int) -> Path:
    """Of a run that is done."""
    (found,) = (work / slug(way)).glob(f"*_s{seed}_*")
    return found


def slug(way: str) -> str:
    return way.replace(" ", "-").replace(",", "").replace("%", "")


def uniform(density: float) -> Callable[[int, Path], Network]:
    """What the rewired network of the same seed begins with, and keeps."""
    return lambda seed, _: prune(load_network(NETWORK), "uniform", density, seed=seed).network


def with_final_densities(seed: int, work: Path) -> Network:
    masks = MaskFile.open(folder(work, "DNR 10%", seed) / MASKS)
    return alike(load_network(NETWORK), masks, seed=seed).network


def largest_weights(seed: int, work: Path) -> Network:
    """The largest tenth of all weights of the dense network that was trained."""
    network = load_network(NETWORK)
    arrays = Weights.load(folder(work, "dense", seed) / WEIGHTS_FILE).arrays
    sizes = {layer.name: np.abs(arrays[f"{layer.name}.weight"])
             for layer in network.layers if layer.stores_weights}  # fmt: skip
    every = np.sort(np.concatenate([each.ravel() for each in sizes.values()]))
    least = every[-round(0.1 * len(every))]
    return network.with_masks({name: each >= least for name, each in sizes.items()})


WAYS = (
    Way("dense, natural", NATURAL),
    Way("dense", HYBRID),
    Way("DNR 10%", rewired(HYBRID, 0.1)),
    Way("DNR 10%, natural", rewired(NATURAL, 0.1)),
    Way("random 10%, uniform", HYBRID, uniform(0.1)),
    Way("random 10%, densities of DNR", HYBRID, with_final_densities),
    Way("magnitude 10%", HYBRID.model_copy(update={"epochs": AGAIN}), largest_weights, "dense"),
    Way("DNR 5%", rewired(HYBRID, 0.05)),
    Way("random 5%, uniform", HYBRID, uniform(0.05)),
    Way("DNR 25%, channels", rewired(HYBRID, 0.25, Mode.CHANNEL)),
)


def run(work: Path) -> Iterator[dict[str, Any]]:
    """All ways and seeds; a row each."""
    data = digits()
    for way in WAYS:
        for seed in SEEDS:
            begin = way.begin and Weights.load(folder(work, way.begin, seed) / WEIGHTS_FILE)
            job = Job(way.network(seed, work), data, way.recipe, seed, begin=begin or None)
            (attempt,) = run_all([job], work / slug(way.name), attacks=tuple(ATTACKS.values()))
            row = attempt.row
            if row is None:
                raise SystemExit(f"{way.name}, seed {seed}: {attempt.problem}")
            final = job.network
            path = work / slug(way.name) / job.name / MASKS
            if path.exists():
                final = final.with_masks(MaskFile.open(path))
            yield told(way.name, seed, row, final)


def told(way: str, seed: int, row: dict[str, Any], final: Network) -> dict[str, Any]:
    under = {each["attack"]: each["robust_top1"] for each in row["robust"]}
    energies = {
        f"{chip}_nj": simulate(final, load_hardware(chip)).total_energy_pj / 1e3 for chip in CHIPS
    }
    print(way, seed, f"{row['top1']:.2%}", {word: f"{each:.2%}" for word, each in under.items()},
          flush=True)  # fmt: skip
    return {
        "way": way,
        "seed": seed,
        "epochs": row["epochs"],
        "clean": row["top1"],
        **{word: under[attack.name] for word, attack in ATTACKS.items()},
        "live_weights": sum(layer.weights for layer in final.layers),
        "effective_macs": final.effective_macs,
        **energies,
        "densities": {
            layer.name: layer.weights / layer.weights_dense
            for layer in final.layers
            if layer.stores_weights
        },
    }


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over seeds, and which ways no other beats on each chip."""
    found = []
    for way in dict.fromkeys(row["way"] for row in rows):
        some = [row for row in rows if row["way"] == way]
        line: dict[str, Any] = {"way": way, "seeds": len(some), "epochs": some[0]["epochs"]}
        for word in ("clean", *ATTACKS):
            values = [100 * row[word] for row in some]
            line |= {word: round(mean(values), 2), f"{word}_std": round(stdev(values), 2)}
        for word in ("live_weights", "effective_macs", *(f"{chip}_nj" for chip in CHIPS)):
            line[word] = round(mean(row[word] for row in some))
        found.append(line)
    for chip in CHIPS:
        for word in ("clean", "pgd50"):
            costs = [(line[f"{chip}_nj"], -line[word]) for line in found]
            for line, best in zip(found, non_dominated(costs), strict=True):
                line[f"front_{word}_{chip}"] = bool(best)
    return found


def picture(lines: Sequence[dict[str, Any]]) -> None:
    """Accuracy against energy on the chip that skips, as images are and under attack."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    from energysim import plot
    from energysim.plot.beside import Label, place_labels
    from energysim.plot.sheet import settle

    chip = CHIPS[1]
    titles = {"clean": "images as they are (from 85 %)", "pgd50": ATTACKS["pgd50"].name}
    lows = {"clean": 85, "pgd50": 0}
    with mpl.rc_context(plot.STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
        figure.suptitle(f"digits, {NETWORK} on {chip}: mean and standard deviation over seeds")
        for axes, (word, title) in zip(panels, titles.items(), strict=True):
            shown = [line for line in lines if line[word] > lows[word]]
            points = [(line[f"{chip}_nj"] / 1e3, line[word]) for line in shown]
            best = [line[f"front_{word}_{chip}"] for line in shown]
            spreads = [line[f"{word}_std"] for line in shown]
            for place, spread, on_front in zip(points, spreads, best, strict=True):
                axes.errorbar(
                    *place, spread, marker="o", markersize=5, capsize=2, linewidth=1,
                    color="#0072B2" if on_front else "#999999",
                )  # fmt: skip
            front = sorted(place for place, on_front in zip(points, best, strict=True) if on_front)
            axes.step(*zip(*front, strict=True), where="post", color="#0072B2", linewidth=1)
            axes.set(
                xlabel="energy of an image [uJ]", ylabel="accuracy, top-1 [%]", title=title,
                xlim=(0.4, 4.2), ylim=(lows[word], 101),
            )  # fmt: skip
            settle(figure)
            labels = [
                Label(line["way"], *place, {"fontsize": 6.5}, 3.0)
                for line, place in zip(shown, points, strict=True)
            ]
            bars = [(x, y - s, x, y + s) for (x, y), s in zip(points, spreads, strict=True)]
            place_labels(axes, labels, points=points, thin=bars)
        for suffix in ("svg", "png"):
            plot.save(figure, HERE / f"fronts.{suffix}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--work", type=Path, default=Path("runs-dnr"), help="where runs are kept")
    rows = list(run(parser.parse_args().work))
    HERE.mkdir(exist_ok=True)
    plain = [{name: value for name, value in row.items() if name != "densities"} for row in rows]
    write_atomically(RUNS, to_csv(plain, tuple(plain[0])))
    densities = [
        {"way": row["way"], "seed": row["seed"], "layer": name, "density": f"{value:.6f}"}
        for row in rows
        for name, value in row["densities"].items()
    ]
    write_atomically(DENSITIES, to_csv(densities, tuple(densities[0])))
    lines = summarise(rows)
    write_atomically(SUMMARY, to_csv(lines, tuple(lines[0])))
    picture(lines)


if __name__ == "__main__":
    main()
