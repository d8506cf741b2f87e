"""What a run comes to: a few figures, what was run, and what is known of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from energysim.errors import EnergysimError
from energysim.report.table import JOULES, SECONDS
from energysim.result import Result
from energysim.sparsity import PATTERNS, SOURCE, pattern_words
from energysim.uncertainty import Uncertainty
from energysim.units import (
    BITS_PER_BYTE,
    BYTES,
    COUNTS,
    percent,
    quantity,
    times,
)

NS_PER_MS = 1e6

MANY = 10_000
"""Counts from here on are written with an exponent."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and what it is."""

    name: str
    text: str
    more: str = ""
    """what explains it, in smaller letters"""


def busy(result: Result) -> float:
    """Share of the array that works, over all cycles."""
    done = sum(row.utilization * row.cycles for row in result.layer_rows)
    return done / (result.total_cycles or 1)


def figures(
    result: Result, dense: Result | EnergysimError | None, found: Uncertainty
) -> Iterator[Fact]:
    """The figures that come first."""
    images = f" for {result.batch} images" if result.batch > 1 else ""
    low, high = quantity(found.low_pj, JOULES), quantity(found.high_pj, JOULES)
    span = f"{low} to {high} with the ranges of the constants" if low != high else ""
    yield Fact("energy" + images, quantity(result.total_energy_pj, JOULES), span)
    yield Fact(
        "time" + images,
        quantity(result.total_time_ms * NS_PER_MS, SECONDS),
        f"{quantity(result.total_cycles, COUNTS)} cycles",
    )
    outer = result.level_names[0]
    bound = times(result.total_dram_bytes, result.total_dram_bound_bytes)
    above = f"{bound} its lower bound" if bound != "-" else ""
    yield Fact(f"{outer} traffic{images}", quantity(result.total_dram_bytes, BYTES), above)
    live = percent(result.total_effective_macs, result.total_macs)
    yield Fact(
        "array utilization",
        f"{percent(busy(result), 1)} %",
        f"{quantity(result.total_macs, COUNTS)} MACs, {live} % of them with live weights",
    )
    if isinstance(dense, Result) and dense is not result:
        yield Fact(
            f"beside {dense.network} (dense)",
            f"{times(result.total_energy_pj, dense.total_energy_pj)} energy",
            f"{times(result.total_dram_bytes, dense.total_dram_bytes)} {outer}, "
            f"{times(result.total_cycles, dense.total_cycles)} cycles",
        )


def what_was_run(result: Result) -> Iterator[Fact]:
    """Network, pattern, machine and settings, each with its source where it has one."""
    network, hardware = result.inputs
    size = "x".join(map(str, network.input_size))
    stored = sum(row.weight_bits for row in result.layer_rows) / BITS_PER_BYTE
    yield Fact(
        "network",
        f"{network.name}: {len(network.layers)} layers, input {size}, "
        f"{quantity(network.parameters, COUNTS)} parameters, "
        f"{quantity(stored, BYTES)} of weights stored",
        network.source,
    )
    yield from _pattern(result)
    yield Fact("hardware", hardware.name, " ".join(filter(None, (hardware.source, hardware.note))))
    yield Fact("dataflow", result.dataflow.replace("_", " "))
    yield Fact("numbers", f"{result.bits} weights, batch {result.batch}")
    stays = "data that fits stays on chip" if result.residency else "nothing stays on chip"
    yield Fact("between layers", stays)
    yield Fact("objective", f"least {result.objective}", _searched(result))
    if result.training is not None:
        kept = "recomputed" if result.training.recompute else "kept"
        yield Fact("phase", f"one iteration of training, activations {kept}")
    if result.activations is not None:
        yield Fact("activations", f"densities of {result.activations.file or 'the caller'}")


def _pattern(result: Result) -> Iterator[Fact]:
    if result.pattern == "dense":
        yield Fact("pattern", "dense")
        return
    source = SOURCE if result.pattern in PATTERNS else ""
    yield Fact("pattern", pattern_words(result.pattern), source)


def _searched(result: Result) -> str:
    """How mappings were found, and how good they are."""
    search = result.search
    if len(result.given_mappings) == len(result.layer_rows):
        return "all mappings were given"
    size = f"{search.mapspace:,}" if search.mapspace < MANY else f"{search.mapspace:.2g}"
    given = len(result.given_mappings)
    rest = f"; those of {given} layers were given" if given else ""
    if search.optimal:
        return f"optimal among {size} mappings, {search.evaluated:,} of them counted{rest}"
    return (
        f"stopped early among {size} mappings; the best of a layer may be up to "
        f"{100 * search.gap:.2g} % better{rest}"
    )
