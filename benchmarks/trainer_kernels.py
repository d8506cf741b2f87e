"""How fast the trainer's kernels are: layers of vgg16 for CIFAR, and a whole step, beside PyTorch.

Every layer is timed forward, for its input gradient and for its weight gradient, computed by the
kind of kernel that its plan chooses, in the same run as PyTorch (the better of its two memory
layouts; zeros in its weights change nothing) and as a plain matrix product, whose speed is the
peak. Times are CPU milliseconds of one thread, medians; ``plan`` is what the cost model expects.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/trainer_kernels.py
    ... --patterns dense PS4_P4 --batch 64          some patterns only
    ... --net small                                 32-32-M-64-64-M-128-128
    ... --kinds                                     every kind of kernel instead of the chosen one
    ... --step                                      whole steps, forward and backward, instead

Without PyTorch its columns stay empty.
"""

import argparse
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from energysim.axes import Dim, Shape
from energysim.sparsity import Mask
from energysim.train import ops
from energysim.train.conv import ConvPlan

NETS = {
    "vgg16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512),
    "small": (32, 32, "M", 64, 64, "M", 128, 128),
}
"""Filters of 3x3 layers, and pools of 2x2; each layer has batch normalisation and ReLU."""
PATTERNS = ("dense", "PS4_P4", "PSD4_P8", "3x3_1.4_3.4_4.5_4.7", "PS2_P6", "3x3_4", "PS1_P9")
"""``3x3_1.4_...`` and ``3x3_4``: the centre with a neighbour, and alone; period 4 and 1."""
SIDE, COLOURS, CLASSES = 32, 3, 10
TORCH = importlib.util.find_spec("torch") is not None

Times = list[float]


def shape_of(filters: int, channels: int, side: int) -> Shape:
    return Shape((1, 1, filters, channels, side, side, 3, 3), pad=(1, 1), size=(side, side))


def layers(net: str) -> Iterator[Shape | str]:
    channels, side = COLOURS, SIDE
    for each in NETS[net]:
        if isinstance(each, str):
            side //= 2
            yield each
        else:
            yield shape_of(each, channels, side)
            channels = each


def clocks(works: list[Callable[[], object]], rounds: int) -> Times:
    """Median CPU time of each [ms]; they take turns, so that all see the same machine."""
    taken: list[Times] = [[] for _ in works]
    for _ in range(rounds):
        for work, times in zip(works, taken, strict=True):
            start = time.process_time()
            work()
            times.append(1000 * (time.process_time() - start))
    return [sorted(times)[rounds // 2] for times in taken]


def peak_gflops() -> float:
    square = np.ones((1024, 1024), np.float32)
    return 2 * 1024**3 / clocks([lambda: square @ square], 7)[0] / 1e6


# -- layers ----------------------------------------------------------------------------------------


def arrays(shape: Shape, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    side, filters, channels = shape.size[0], shape[Dim.K], shape[Dim.C]
    sizes = ((channels, side, side, batch), (1, filters, channels, 3, 3))
    x, w = (rng.standard_normal(size, dtype=np.float32) for size in sizes)
    return x, w, rng.standard_normal((filters, side, side, batch), dtype=np.float32)


def own_works(plan: ConvPlan, batch: int) -> list[Callable[[], object]]:
    x, w, dy = arrays(plan.shape, batch)
    w = plan.stored(w)
    works = [lambda: plan.forward(x, w), lambda: plan.backward_weight(dy, x)]
    if plan.shape[Dim.C] > COLOURS:
        works.append(lambda: plan.backward_input(dy, w))
    return works


def torch_works(shape: Shape, batch: int, last: bool) -> list[Callable[[], object]]:
    import torch

    x, w, dy = arrays(shape, batch)
    form = torch.channels_last if last else torch.contiguous_format
    images, kernels, given = (
        torch.from_numpy(np.ascontiguousarray(each)).to(memory_format=form)
        for each in (x.transpose(3, 0, 1, 2), w[0], dy.transpose(3, 0, 1, 2))
    )

    def backward(which: list[bool]) -> object:
        return torch.ops.aten.convolution_backward(
            given, images, kernels, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, which
        )

    works = [
        lambda: torch.nn.functional.conv2d(images, kernels, padding=1),
        lambda: backward([False, True, False]),
    ]
    if shape[Dim.C] > COLOURS:
        works.append(lambda: backward([True, False, False]))
    return works


def compare(net: str, patterns: list[str], batch: int, rounds: int, every: bool) -> None:
    peak = peak_gflops()
    print(f"peak {peak:.0f} GFLOP/s (1024 x 1024 x 1024), batch {batch}")
    print(f"{'layer':16}{'pattern':22}{'kind':12}{'fwd':>7}{'dw':>7}{'dx':>7}{'sum':>7}{'plan':>7}")
    every_layer = [each for each in layers(net) if isinstance(each, Shape)]
    totals: dict[str, float] = dict.fromkeys(["torch", *patterns], 0.0)
    for shape in dict.fromkeys(every_layer):
        again = every_layer.count(shape)
        first = shape[Dim.C] == COLOURS
        name = f"{shape[Dim.C]}-{shape[Dim.K]} {shape.size[0]}x{shape.size[1]}"
        rows: list[tuple[str, str, list[Callable[[], object]], float]] = []
        if TORCH:
            rows += [
                ("torch", form, torch_works(shape, batch, form == "last"), np.nan)
                for form in ("first", "last")
            ]
        for pattern in patterns:
            mask = Mask.of("dense" if first else pattern, shape)
            chosen = ConvPlan.of(shape, mask, batch=batch)
            for kind in chosen.estimates if every else [chosen.kind]:
                plan = ConvPlan.of(shape, mask, batch=batch, kind=kind)
                label = f"{kind}{'*' * (every and kind == chosen.kind)}"
                guess = plan.estimates[plan.kind] * batch / 1000
                rows.append((pattern, label, own_works(plan, batch), guess))
        works = [work for *_, some, _ in rows for work in some]
        times = iter(clocks(works, rounds))
        best: dict[str, float] = {}
        for pattern, label, some, guess in rows:
            parts = [next(times) for _ in some]
            if not every or pattern == "torch" or label.endswith("*"):
                best[pattern] = min(sum(parts), best.get(pattern, np.inf))
            cells = [*parts, *([np.nan] if first else []), sum(parts), guess]
            shown = "".join("      -" if np.isnan(each) else f"{each:7.1f}" for each in cells)
            print(f"{name:16}{pattern:22}{label:12}{shown}", flush=True)
        for pattern, each in best.items():
            totals[pattern] += again * each
    flops = 2 * batch * sum(s.macs * (2 if s[Dim.C] == COLOURS else 3) for s in every_layer)
    print(f"\n{'all layers':22}{'ms':>8}{'dense GFLOP/s':>15}{'of peak':>9}{'torch':>8}")
    for pattern, each in totals.items():
        if each:
            rate = flops / each / 1e6
            ratio = f"{totals['torch'] / each:8.2f}" if TORCH else ""
            print(f"{pattern:22}{each:8.0f}{rate:15.0f}{rate / peak:9.2f}{ratio}")


# -- whole steps -----------------------------------------------------------------------------------


def own_step(net: str, pattern: str, batch: int) -> Callable[[], object]:
    """Forward and backward of a net with batch normalisation, ReLU and pools, no update."""
    rng = np.random.default_rng(0)
    chain: list[tuple[ConvPlan, np.ndarray] | Shape] = []
    for shape, after in pairwise([*layers(net), "end"]):
        if isinstance(shape, Shape):
            mask = Mask.of("dense" if shape[Dim.C] == COLOURS else pattern, shape)
            plan = ConvPlan.of(shape, mask, batch=batch)
            w = plan.stored(rng.standard_normal(plan.weight_dims) / 3 / shape[Dim.C] ** 0.5)
            chain.append((plan, w))
            if after == "M":
                half, side = shape.size[0] // 2, shape.size
                dims = (1, shape[Dim.K], 1, 1, half, half, 2, 2)
                chain.append(Shape(dims, stride=(2, 2), size=side))
    width = next(each[0].shape[Dim.K] for each in reversed(chain) if isinstance(each, tuple))
    last = rng.standard_normal((CLASSES, width), dtype=np.float32)
    images = rng.standard_normal((COLOURS, SIDE, SIDE, batch), dtype=np.float32)
    labels = rng.integers(0, CLASSES, batch)

    def step() -> float:
        tape = []
        x = images
        for each in chain:
            if isinstance(each, Shape):
                y = ops.max_pool(x, each)
                tape.append((each, x, y))
                x = y
                continue
            plan, w = each
            one = np.ones(plan.shape[Dim.K], np.float32)
            before = plan.forward(x, w)
            after, statistics = ops.batch_norm(before, one, 0 * one, relu=True)
            tape.append((plan, w, x, before, after, one, statistics))
            x = after
        pooled = x.mean(axis=(1, 2))
        loss, dlogits = ops.cross_entropy(ops.linear(pooled, last), labels)
        dpooled, _, _ = ops.linear_backward(dlogits, pooled, last)
        pixels = x.shape[1] * x.shape[2]
        dx = np.broadcast_to((dpooled / pixels)[:, None, None], x.shape)
        for each in reversed(tape):
            if len(each) == 3:
                pool, x, y = each
                dx = ops.max_pool_backward(dx, x, y, pool)
                continue
            plan, w, x, before, after, one, statistics = each
            dy, _, _ = ops.batch_norm_backward(dx, before, after, one, statistics, relu=True)
            plan.backward_weight(dy, x)
            if plan.shape[Dim.C] > COLOURS:
                dx = plan.backward_input(dy, w)
        return loss

    return step


def torch_step(net: str, batch: int, last: bool) -> Callable[[], object]:
    import torch
    from torch import nn

    parts: list[nn.Module] = []
    for shape in layers(net):
        if isinstance(shape, str):
            parts.append(nn.MaxPool2d(2))
            continue
        filters = shape[Dim.K]
        conv = nn.Conv2d(shape[Dim.C], filters, 3, padding=1, bias=False)
        parts += [conv, nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
    model = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(CLASSES))
    form = torch.channels_last if last else torch.contiguous_format
    images = torch.randn(batch, COLOURS, SIDE, SIDE).to(memory_format=form)
    model(images)
    model.to(memory_format=form)
    labels = torch.randint(0, CLASSES, (batch,))

    def step() -> None:
        model.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()

    return step


def steps(net: str, patterns: list[str], batch: int, rounds: int) -> None:
    works = {pattern: own_step(net, pattern, batch) for pattern in patterns}
    if TORCH:
        for form in ("first", "last"):
            works[f"torch, channels {form}"] = torch_step(net, batch, form == "last")
    for work in works.values():
        work()
    times = dict(zip(works, clocks(list(works.values()), rounds), strict=True))
    best = min((each for name, each in times.items() if name.startswith("torch")), default=np.nan)
    print(f"{net}, batch {batch}, forward and backward\n{'':24}{'ms':>8}{'img/s':>8}{'torch':>8}")
    for name, each in times.items():
        ratio = "" if np.isnan(best) else f"{best / each:8.2f}"
        print(f"{name:24}{each:8.0f}{1000 * batch / each:8.1f}{ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", choices=NETS, default="vgg16")
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", action="store_true")
    parser.add_argument("--step", action="store_true")
    given = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        parser.error(
            "set OPENBLAS_NUM_THREADS=1: BLAS threads that wait for each other cost 5 times"
        )
    if TORCH:
        import torch

        torch.set_num_threads(1)
    if given.step:
        steps(given.net, given.patterns, given.batch, given.rounds)
    else:
        compare(given.net, given.patterns, given.batch, given.rounds, given.kinds)


if __name__ == "__main__":
    main()
