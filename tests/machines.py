"""Small accelerators, networks and layers for tests, given by what matters or drawn at random."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

import energysim as es
from energysim.axes import Dim, Shape
from energysim.cache import Cache, folder
from energysim.hardware import Hardware
from energysim.mapper.dataflows import DATAFLOWS
from energysim.mapper.space import TAPS
from energysim.mapping import LevelLoops
from energysim.model.counts import Counts
from energysim.network import Network, NetworkSpec, build_network
from energysim.result import Result

WORDS = ("weight", "input", "output")


def memory(name: str, kind: str = "sram", **fields: Any) -> dict[str, Any]:
    """Describe a memory level."""
    free = {"read_pj_per_bit": 1.0, "write_pj_per_bit": 1.5, "source": "a test"}
    return {"name": name, "kind": kind, **free, **fields}


def machine(*levels: dict[str, Any], **fields: Any) -> Hardware:
    """Build an accelerator with these levels inside DRAM."""
    dram = memory("DRAM", "dram", read_pj_per_bit=20.0, write_pj_per_bit=25.0)
    data = {
        "name": "chip",
        "source": "a test",
        "clock_mhz": 100.0,
        "bits": {"weight": 8, "input": 8, "output": 8, "psum": 24},
        "mac": {"energy_pj": 0.0, "source": "a test"},
        "array": {"axes": {"rows": 2, "cols": 3}, "source": "a test"},
        "levels": [dram | fields.pop("dram", {}), *levels],
        "dataflow": "weight_stationary",
    }
    array = data["array"] | fields.pop("array", {})
    return Hardware.model_validate_json(json.dumps(data | {"array": array} | fields))


def with_fields(
    data: dict[str, Any], *changes: tuple[tuple[str | int, ...], Any]
) -> dict[str, Any]:
    """Copy plain data with some fields set; None removes a field."""
    data = copy.deepcopy(data)
    for loc, value in changes:
        block: Any = data
        for step in loc[:-1]:
            block = block[step]
        if value is None:
            del block[loc[-1]]
        else:
            block[loc[-1]] = value
    return data


def network(*layers: dict[str, Any], size: tuple[int, int, int]) -> Network:
    """Build a network of these layers."""
    data = {"name": "net", "source": "a test", "input": size, "layers": layers}
    spec = NetworkSpec.model_validate_json(json.dumps(data))
    return build_network(spec, None, lambda name: pytest.fail(f"no base asked for, got {name}"))


def conv(name: str, out: int, kernel: int = 3, **fields: Any) -> dict[str, Any]:
    """Describe a convolution that keeps the size of its input."""
    pad = {"pad": kernel // 2} if kernel > 1 else {}
    return {"name": name, "kind": "conv", "out": out, "kernel": kernel, **pad, **fields}


def loops(*rows: dict[str, Any]) -> tuple[LevelLoops, ...]:
    """Write a mapping as a file does."""
    return tuple(
        LevelLoops.model_validate(
            {key: value if key in ("level", "cuts") else tuple(value) for key, value in row.items()}
        )
        for row in rows
    )


def looked_up(net: Network, hardware: Hardware, **options: Any) -> Result:
    """Run a network; layers that any test has searched before are looked up in the tests' cache."""
    return es.simulate(net, hardware, cache=Cache(folder()), **options)


@cache
def bundled(name: str, chip: str, **options: Any) -> Result:
    """Run a network on a machine that come along, once for all tests that ask for the same."""
    return looked_up(es.load_network(name), es.load_hardware(chip), **options)


def random_machine(rng: random.Random) -> Hardware:
    """Draw a small accelerator: 2 to 4 levels, tiny memories, any dataflow.

    Now and then the outermost on-chip level has instances along array axes, so that spatial loops
    stand behind DRAM. Multiplications cost little or more than all accesses together.
    """
    axes = dict(
        zip(("rows", "cols", "deep"), rng.choices((1, 2, 3), k=rng.randint(1, 3)), strict=False)
    )
    names, levels = list(axes), []
    buffer: dict[str, Any] = {"double_buffered": rng.random() < 0.5}
    if rng.random() < 0.25:
        buffer["capacity_bytes"] = {word: rng.randint(12, 90) for word in WORDS}
    else:
        buffer["capacity_bytes"] = rng.randint(40, 400)
    if rng.random() < 0.2:
        buffer["holds"] = rng.choice((["input", "output"], ["weight", "input"], ["output"]))
        if isinstance(buffer["capacity_bytes"], dict):
            buffer["capacity_bytes"] = dict.fromkeys(buffer["holds"], 60)
    holds_weights = "weight" in buffer.get("holds", WORDS)
    buffer["compressed"] = holds_weights and rng.random() < 0.5
    if rng.random() < 0.4:
        buffer["per"] = rng.choice((names, names[:1], names[-1:]))
    if rng.random() < 0.7:
        buffer["bandwidth_bits_per_cycle"] = rng.choice((3.5, 16.0, 100.0))
    levels.append(memory("BUF", **buffer))
    if rng.random() < 0.4:
        columns = sorted({rng.choice(names), *buffer.get("per", [])})
        acc = {"capacity_bytes": rng.randint(6, 24), "double_buffered": rng.random() < 0.3}
        levels.append(memory("ACC", per=columns, holds=["output"], read_pj_per_bit=0.3, **acc))
    if rng.random() < 0.6:
        held = rng.choice((["weight"], ["weight", "input"], ["input", "output"], [*WORDS]))
        cheap = {"read_pj_per_bit": 0.1, "write_pj_per_bit": 0.2}
        size = rng.randint(16, 40)
        levels.append(memory("RF", "regfile", per=names, holds=held, capacity_bytes=size, **cheap))
    hardware = machine(
        *levels,
        dram={
            "bandwidth_bits_per_cycle": rng.choice((4.0, 30.0)),
            "compressed": buffer["compressed"] or rng.random() < 0.8,
        },
        array={
            "axes": axes,
            "systolic": rng.random() < 0.3,
            "multicast": rng.random() < 0.8,
            "reduce": rng.random() < 0.8,
            "hop_pj_per_bit": rng.choice((0.0, 0.4)),
        },
        bits={"weight": rng.choice((4, 8)), "input": 8, "output": 8, "psum": rng.choice((8, 24))},
        mac={
            "energy_pj": rng.choice((0.1, 3.0, 300.0)),
            "latch": rng.choice(([], ["weight"])),
            "source": "a test",
        },
        vector=rng.choice((None, {"lanes": 3, "energy_pj": 40.0, "source": "a test"})),
        sparsity={"weights": "gate", "formats": ["dense", "csr", "bitmap", "periodic"]},
        dataflow=rng.choice(sorted(DATAFLOWS)),
        static_mw=rng.choice((0.0, 5.0)),
    )
    # draws of their own, so that all others stay what they were
    own = random.Random(sum(rng.getstate()[1][:8]))
    array = hardware.array.model_copy(update={"link_bits_per_cycle": own.choice(LINKS)})
    dram, *inner = hardware.levels
    dram = dram.model_copy(update={"burst_bits": own.choice((None, None, 24, 64))})
    return hardware.model_copy(update={"array": array, "levels": (dram, *inner)})


LINKS: tuple[dict[str, float], ...] = (
    {},
    {},
    {"weight": 8.0, "input": 4.0, "output": 24.0},
    {"input": 2.0},
    {"weight": 3.0},
)

KERNELS = ((1, 1), (3, 3), (2, 1), (3, 3))


def random_layer(
    rng: random.Random,
    *,
    largest: int = 4,
    wide: int = 4,
    kernels: Sequence[tuple[int, int]] = KERNELS,
) -> Shape:
    """Draw a layer with at most ``wide`` dims of more than one element besides the kernel."""
    dims = [1] * len(Dim)
    for dim in rng.sample([dim for dim in Dim if dim not in TAPS], wide):
        dims[dim] = rng.randint(1, largest)
    dims[Dim.R], dims[Dim.S] = rng.choice(kernels)
    stride, pad = rng.choice((1, 1, 2)), rng.choice((0, 1))
    dilation = rng.choice((1, 1, 2))
    size = [
        max(1, (dims[p] - 1) * stride + (dims[r] - 1) * dilation + 1 - 2 * pad)
        for p, r in ((Dim.P, Dim.R), (Dim.Q, Dim.S))
    ]
    return Shape(
        tuple(dims),  # type: ignore[arg-type]
        stride=(stride, stride),
        dilation=(dilation, dilation),
        pad=(pad, pad),
        size=(size[0], size[1]),
    )


def single(counts: Counts, at: int) -> Counts:
    """Take one mapping out of a batch."""
    one = slice(at, at + 1)
    return Counts(
        counts.steps[one],
        {key: value[one] for key, value in counts.values.items()},
        tuple(each[one] for each in counts.used),
    )
