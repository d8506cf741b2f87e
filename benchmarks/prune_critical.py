"""The largest compression at which a method of pruning empties no layer, by steps of 10^(1/4).

python benchmarks/prune_critical.py mlp vgg16   # writes prune_critical.csv; 20 minutes
python benchmarks/prune_critical.py vgg16 --methods grasp   # only these rows anew

Weights begin as those of SynFlow's authors do: all normal with variance 2 / inputs, linear layers
too. Images of snip and grasp are noise, which tells nothing of classes; critical compressions hang
on the widths of layers and on how scores are spread in them, so that noise will do. Methods that
score once keep nested sets of weights and are tried from small compressions up; the others from the
largest one down.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from math import log10
from pathlib import Path
from typing import Any

import numpy as np

import energysim as es
from energysim.network import Network, NetworkSpec, Scale, build_network
from energysim.prune import BY_DATA, STEPS, Start, critical_compression, prune
from energysim.train.data import Batch
from energysim.train.parameters import Layout

RESULT = Path(__file__).with_suffix(".csv")
WIDTHS = (784, 1000, 300, 100, 10)
QUARTER = 4
KEY = ("network", "method", "steps", "schedule", "seed")
"""Columns of the table that name a row."""


@dataclass(frozen=True)
class Case:
    """A method, how often it scores, and what is known of its critical compression."""

    method: str
    steps: int
    schedule: str
    expected: float
    """log10, of another program on the same widths (mlp) or as drawn by the authors (vgg16)"""
    seeds: tuple[int, ...] = (0, 1, 2)


CASES = {
    "mlp": (
        Case("random", 1, "exponential", 3.25),
        Case("magnitude", 1, "exponential", 3.5),
        Case("snip", 1, "exponential", 2.25),
        Case("grasp", 1, "exponential", float("nan")),
        Case("synflow", 1, "exponential", 1.25),
        Case("synflow", 10, "exponential", 4.5),
        Case("synflow", 100, "exponential", 5.25),
        Case("synflow", 100, "linear", 3.0),
        Case("snip", 100, "exponential", 5.25, (0,)),
    ),
    "vgg16": (
        Case("random", 1, "exponential", 3.25),
        Case("magnitude", 1, "exponential", 2.75),
        Case("snip", 1, "exponential", 3.5, (0,)),
        Case("grasp", 1, "exponential", 3.5),
        Case("synflow", 100, "exponential", 6.0, (0,)),
    ),
}
IMAGES = {"mlp": 100, "vgg16": 100}


def network_of(name: str) -> Network:
    if name == "vgg16":
        return es.load_network("vgg16", scale=Scale(1.0, None, 100))
    first, *rest = WIDTHS
    layers = [
        {"name": f"l{place}", "kind": "linear", "out": out, "bias": False}
        for place, out in enumerate(rest, start=1)
    ]
    spec = {"name": "mlp", "source": "784-1000-300-100-10", "input": (first, 1, 1)}
    found = NetworkSpec.model_validate(spec | {"layers": tuple(layers)})
    return build_network(found, None, es.load_network)


def begun(network: Network, seed: int) -> Start:
    """Weights as the authors draw them; norms scale by 1."""
    rng = np.random.default_rng(seed)
    layout = Layout.of(network)
    vector = np.zeros(layout.total)
    for slot in layout.slots:
        if slot.name.endswith(".weight"):
            _, _, channels, height, width = slot.shape
            deviation = (2 / (channels * height * width)) ** 0.5
            slot.view(vector)[...] = rng.standard_normal(slot.shape) * deviation
        elif slot.name.endswith(".gamma"):
            slot.view(vector)[...] = 1
    return Start.of(network, vector)


def noise(network: Network, many: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*network.input_size, many)).astype(np.float32)
    return Batch(x, np.arange(many) % network.layers[-1].output[0])


def critical(network: Network, case: Case, settings: dict[str, Any]) -> tuple[float, str]:
    """Log10 of the critical compression, and what the next larger one empties."""
    if case.steps == 1:
        last = 0.0
        tried = critical_compression(network, case.method, steps=1, **settings)
        for compression, emptied in tried:
            if emptied:
                return last, "+".join(emptied)
            last = log10(compression)
    weights = sum(layer.weights for layer in network.layers if layer.stores_weights)
    layers = sum(layer.stores_weights for layer in network.layers)
    next_emptied = ""
    for step in range(int(log10(weights / layers) * QUARTER), -1, -1):
        live = int(weights / 10 ** (step / QUARTER))
        found = prune(
            network,
            case.method,
            live / weights,
            steps=case.steps,
            schedule=case.schedule,
            **settings,
        )
        if not found.collapsed:
            return step / QUARTER, next_emptied
        next_emptied = "+".join(found.collapsed)
    return 0.0, next_emptied


def rows(name: str, methods: list[str]) -> Iterator[dict[str, object]]:
    network = network_of(name)
    for case in (each for each in CASES[name] if each.method in methods):
        for seed in case.seeds:
            settings: dict[str, Any] = {"seed": seed, "begun": begun(network, seed)}
            if case.method in BY_DATA:
                settings["batch"] = noise(network, IMAGES[name], seed)
            found, emptied = critical(network, case, settings)
            yield {
                "network": name,
                "method": case.method,
                "steps": case.steps,
                "schedule": case.schedule if case.steps > 1 else "",
                "seed": seed,
                "log10_critical": found,
                "log10_expected": case.expected,
                "emptied_next": emptied,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", choices=sorted(CASES))
    assert all(case.method in STEPS for cases in CASES.values() for case in cases)
    parser.add_argument("--methods", nargs="+", choices=list(STEPS), default=list(STEPS))
    options = parser.parse_args()
    kept: dict[tuple[str, ...], dict[str, object]] = {}
    if RESULT.exists():
        with RESULT.open(encoding="utf-8", newline="") as file:
            kept = {tuple(row[word] for word in KEY): dict(row) for row in csv.DictReader(file)}
    for name in options.networks:
        for row in rows(name, options.methods):
            kept[tuple(str(row[word]) for word in KEY)] = row
            print(*row.values(), flush=True)
            with RESULT.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
                writer.writerows(kept.values())


if __name__ == "__main__":
    main()
