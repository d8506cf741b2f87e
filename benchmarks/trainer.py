"""Whole training steps beside PyTorch: forward, backward and SGD, dense and with sparse kernels.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/trainer.py
    ... --nets vgg16 small --patterns dense PS4_P4          chains of layers only
    ... --cores 2            both with so many threads, by the clock, instead of one by CPU time

Steps are those of ``energysim train`` (one shard a thread) and of a plain PyTorch program: modules
of ``torch.nn``, ``torch.optim.SGD``, the better of its two memory layouts; it multiplies zeros like
all other weights, so its time is that of the dense network. Both take turns in the same run. One
thread is measured in CPU time, more by the clock. ``peak`` is the share of the speed of a plain
matrix product (1024 x 1024 x 1024, single precision, in the same run) that the multiply-accumulates
of live weights reach, as if each were done (Winograd does fewer). Without PyTorch its columns stay
empty.
"""

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from statistics import median

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np

from energysim.catalog import load_network
from energysim.network import Network, NetworkSpec, build_network
from energysim.train.data import Batch
from energysim.train.engine import Engine, one_blas_thread
from energysim.train.recipe import Recipe

PATTERNS = ("dense", "PS4_P4", "PSD4_P8", "PS2_P6", "PS1_P9")
SMALL = (32, 32, "M", 64, 64, "M", 128, 128)
TORCH = importlib.util.find_spec("torch") is not None
LR = 0.01


def small() -> Network:
    """32-32-M-64-64-M-128-128, global pool, one linear layer."""
    layers = []
    for index, each in enumerate(SMALL):
        if each == "M":
            layers.append({"name": f"pool{index}", "kind": "pool", "kernel": 2})
        else:
            layers.append(
                {"name": f"conv{index}", "kind": "conv", "out": each, "kernel": 3, "pad": 1,
                 "bias": False, "batch_norm": True}
            )  # fmt: skip
    layers += [
        {"name": "mean", "kind": "pool", "kernel": "global", "mode": "average"},
        {"name": "fc", "kind": "linear", "out": 10},
    ]
    spec = NetworkSpec.model_validate(
        {"name": "small", "source": "this benchmark", "input": (3, 32, 32), "layers": layers},
        strict=False,
    )
    return build_network(spec, None, load_network)


def network_named(name: str, pattern: str) -> Network:
    if name == "small":
        return small().with_pattern(pattern)
    return load_network(name, pattern=pattern)


def images(network: Network, batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((*network.input_size, batch)).astype(np.float32)
    return x, rng.integers(0, 10, batch)


def ours(network: Network, batch: int, cores: int) -> Callable[[], object]:
    recipe = Recipe(batch=batch, shards=cores)
    engine = Engine(network, recipe, np.random.default_rng(0), threads=cores)
    x, y = images(network, batch)
    shards = [
        Batch(np.ascontiguousarray(part), labels)
        for part, labels in zip(
            np.array_split(x, cores, axis=3), np.array_split(y, cores), strict=True
        )
    ]
    return lambda: engine.step(shards, LR)


def theirs(network: Network, batch: int, layout: str) -> Callable[[], object]:
    """The same network of a chain of layers in PyTorch's modules, masks multiplied in."""
    import torch
    from torch import nn

    modules: list[nn.Module] = []
    masked = []
    for layer in network.layers:
        channels = layer.output[0]
        if layer.kind == "conv":
            _, _, _, depth, _, _, high, wide = layer.shape.dims
            conv = nn.Conv2d(depth, channels, (high, wide), padding=layer.shape.pad, bias=False)
            mask = torch.from_numpy(layer.mask.array()[0].astype(np.float32))
            with torch.no_grad():
                conv.weight *= mask
            masked.append((conv, mask))
            modules += [conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        elif layer.kind == "pool":
            _, _, _, _, _, _, high, wide = layer.shape.dims
            kind = nn.MaxPool2d if layer.mode == "max" else nn.AvgPool2d
            modules.append(kind((high, wide), layer.shape.stride))
        elif layer.kind != "linear":
            raise SystemExit(f"{network.name}: a {layer.kind} layer; choose a chain, as vgg16 is")
        else:
            modules += [nn.Flatten(), nn.Linear(layer.shape.dims[3], channels)]
    model = nn.Sequential(*modules)
    x, y = images(network, batch)
    given = torch.from_numpy(np.ascontiguousarray(x.transpose(3, 0, 1, 2)))
    if layout == "channels last":
        model = model.to(memory_format=torch.channels_last)
        given = given.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(y)
    optimiser = torch.optim.SGD(
        model.parameters(), LR, momentum=0.9, nesterov=True, weight_decay=5e-4
    )

    def step() -> None:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(given), labels).backward()
        for conv, mask in masked:
            conv.weight.grad *= mask
        optimiser.step()

    return step


def times(
    works: list[Callable[[], object]], clock: Callable[[], float], rounds: int
) -> list[float]:
    """Median seconds of each; they take turns, so that all see the same machine."""
    found: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(rounds):
        for work, seen in zip(works, found, strict=True):
            began = clock()
            work()
            seen.append(clock() - began)
    return [median(each) for each in found]


def peak(clock: Callable[[], float]) -> float:
    """Multiply-accumulates a second of a plain product, one thread."""
    a = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    (seconds,) = times([lambda: a @ a], clock, 7)
    return float(a.shape[0] ** 3 / seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nets", nargs="+", default=["vgg16", "small"])
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    clock = time.process_time if options.cores == 1 else time.perf_counter
    if TORCH:
        import torch

        torch.set_num_threads(options.cores)
        print(f"numpy {np.__version__}, torch {torch.__version__}, threads: {options.cores}")
    print(f"load average before: {os.getloadavg()[0]:.1f}")
    with one_blas_thread():
        top = peak(clock)
        print(f"matrix product: {2 * top / 1e9:.0f} GFLOP/s of one thread")
        print(f"{'network':<8}{'pattern':<9}{'images/s':>9}{'torch':>8}{'ratio':>7}{'peak':>7}")
        for name in options.nets:
            for pattern in options.patterns:
                network = network_named(name, pattern)
                works = [ours(network, options.batch, options.cores)]
                if TORCH:
                    works += [
                        theirs(network, options.batch, each) for each in ("plain", "channels last")
                    ]
                own, *other = times(works, clock, options.rounds)
                speed = options.batch / own
                # Forward and both gradients; the first layer's input has none.
                macs = 3 * network.effective_macs - network.layers[0].effective_macs
                share = speed * macs / top / options.cores
                torches = [options.batch / min(other), min(other) / own] if other else []
                words = "".join(f"{each:8.1f}" for each in torches[:1]) + "".join(
                    f"{each:7.2f}" for each in torches[1:]
                )
                print(f"{name:<8}{pattern:<9}{speed:9.1f}{words}{share:7.2f}", flush=True)


if __name__ == "__main__":
    main()
