"""Time that the front of many points takes, beside moocore: run this file."""

from __future__ import annotations

import time
from collections.abc import Callable

import moocore
import numpy as np

from energysim.pareto import non_dominated

ROUNDS = 5


def best_s(work: Callable[[], object]) -> float:
    """Shortest of a few rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    rng = np.random.default_rng(0)
    rising = np.arange(1e6)
    sets = {
        "1,000,000 x 2, random": rng.random((1_000_000, 2)),
        "1,000,000 x 2, all on the front": np.column_stack([rising, -rising])[
            rng.permutation(1_000_000)
        ],
        "1,000,000 x 2, many ties": rng.integers(0, 50, (1_000_000, 2)).astype(float),
        "1,000,000 x 3, random": rng.random((1_000_000, 3)),
        "100,000 x 4, random": rng.random((100_000, 4)),
    }
    print(f"{'points':34}{'front':>10}{'energysim [s]':>15}{'moocore [s]':>13}")
    for name, points in sets.items():
        ours = best_s(lambda points=points: non_dominated(points))
        theirs = best_s(lambda points=points: moocore.is_nondominated(points, keep_weakly=True))
        print(f"{name:34}{non_dominated(points).sum():>10,}{ours:>15.2f}{theirs:>13.2f}")


if __name__ == "__main__":
    main()
