"""How many mappings a second the closed form counts on one core, for a three-level hierarchy.

Every count of every tensor, level and action is computed for a batch of distinct mappings of VGG16
conv3_2 on a weight-stationary 16x16 array (DRAM, buffer, registers). Run it with one BLAS thread:

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/counting.py
"""

import time

import numpy as np

from energysim import load_hardware, load_network, simulate
from energysim.axes import Dim, Shape, Tensor
from energysim.mapper.space import distinct_trips
from energysim.mapping import build_nest
from energysim.model.counts import count

SHAPE = Shape((1, 1, 256, 256, 56, 56, 3, 3), pad=(1, 1), size=(56, 56))
EVERY = frozenset(Tensor)
NEST = build_nest(
    axes=(frozenset(), frozenset(), frozenset({0, 1})),
    holds=(EVERY, EVERY, EVERY),
    segments=(
        ((Dim.K, Dim.C, Dim.P, Dim.Q), ()),
        ((Dim.K, Dim.C, Dim.R, Dim.S, Dim.P, Dim.Q), ((Dim.K, 0), (Dim.C, 1))),
        ((), ()),
    ),
)


def mappings(limit: int) -> np.ndarray:
    """Distinct tile sizes in K, C, P, Q, as trip counts of every loop."""
    grid = np.meshgrid(*(distinct_trips(SHAPE[d]) for d in (Dim.K, Dim.C, Dim.P, Dim.Q)))
    k, c, p, q = (axis.reshape(-1)[:limit] for axis in grid)
    tile_k, tile_c = -(-256 // k), -(-256 // c)
    inner_k, inner_c = -(-tile_k // 16), -(-tile_c // 16)
    spatial_k, spatial_c = -(-tile_k // inner_k), -(-tile_c // inner_c)
    three = np.full_like(k, 3)
    columns = (
        k,
        c,
        p,
        q,
        inner_k,
        inner_c,
        three,
        three,
        -(-56 // p),
        -(-56 // q),
        spatial_k,
        spatial_c,
    )
    return np.stack(columns, axis=1)


def searched() -> None:
    """Whole mapspaces priced on their grid, as ``energysim run`` does it."""
    network, hardware = load_network("vgg16_imagenet"), load_hardware("edge_tpu")
    start = time.process_time()
    result = simulate(network, hardware)
    seconds = time.process_time() - start
    print(
        f"{result.mapspace:>10,} mappings of {network.name} on {hardware.name} priced by the "
        f"search: {seconds:.3f} s CPU, {result.mapspace / seconds / 1e6:.1f} million mappings/s"
    )


def main() -> None:
    searched()
    for batch in (1, 1_000, 100_000, 400_000):
        trips = mappings(batch)
        best = np.inf
        for _ in range(3):
            start = time.process_time()
            counts = count(SHAPE, NEST, trips)
            best = min(best, time.process_time() - start)
        print(
            f"{trips.shape[0]:>9,} mappings, {len(counts.values)} counts each: {best:.4f} s CPU, "
            f"{trips.shape[0] / best / 1e6:.3f} million mappings/s"
        )


if __name__ == "__main__":
    main()
