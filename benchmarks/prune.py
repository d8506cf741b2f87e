"""What pruning before training leaves of VGG16 for 100 classes, by method and compression.

python benchmarks/prune.py            # writes prune.csv, about 10 minutes of one core

No training: masks alone. The published figures that are beside it in the file are those of the
result files of SynFlow's authors (github.com/ganguli-lab/Synaptic-Flow), seed by seed on their own
weights: share of MACs at 10x, and the largest compression that empties no layer.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import energysim as es
from energysim.network import Scale
from energysim.prune import critical_compression, prune

HERE = Path(__file__).parent
NETWORK = es.load_network("vgg16", scale=Scale(1.0, None, 100))
PUBLISHED = {"random": 0.100, "magnitude": 0.243, "synflow": 0.351}
CRITICAL = {"random": 3.25, "magnitude": 2.75, "synflow": 6.0}
"""log10, as drawn in figure 1 of the paper."""

DENSITIES = (0.1, 0.01)


def rows() -> Iterator[dict[str, object]]:
    for method in ("random", "uniform", "erdos_renyi", "magnitude", "synflow"):
        for density in DENSITIES:
            found = prune(NETWORK, method, density)
            yield {
                "method": method,
                "density": density,
                "mac_density": round(found.mac_density, 6),
                "clean_mac_density": round(found.clean_mac_density, 6),
                "dead_channels": sum(found.liveness.dead().values()),
                "published_mac_density": PUBLISHED.get(method, "") if density == 0.1 else "",
                "emptied": "+".join(found.collapsed),
            }
            print(method, density, f"{found.mac_density:.4f}", flush=True)


def critical(method: str) -> float:
    last = 0.0
    for compression, emptied in critical_compression(NETWORK, method):
        if emptied:
            break
        last = compression
    return last


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    found = list(rows())
    with (HERE / "prune.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    for method in ("random", "magnitude"):
        print(f"{method}: {critical(method):,.4g}x; published 10^{CRITICAL[method]}")


if __name__ == "__main__":
    main()
