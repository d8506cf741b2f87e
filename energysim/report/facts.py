"""What a run comes to: a few figures, what was run, and what is known of the machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    Unit,
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


def stored_bytes(result: Result) -> float:
    """Size of the weights as they are stored [byte]; steps of training that read them add none."""
    names = {layer.name for layer in result.inputs[0].layers}
    bits = sum(row.weight_bits for row in result.layer_rows if row.layer in names)
    return bits / BITS_PER_BYTE


def figures(
    result: Result, dense: Result | EnergysimError | None, found: Uncertainty
) -> Iterator[Fact]:
    """The figures that come first."""
    batch, outer = result.batch, result.level_names[0]
    images = f" for {batch} images" if batch > 1 else ""

    def explained(*words: str) -> str:
        return "; ".join(filter(None, words))

    def each(value: float, units: Sequence[Unit]) -> str:
        return f"{quantity(value / batch, units)} an image" if batch > 1 else ""

    energy, time_ns = result.total_energy_pj, result.total_time_ms * NS_PER_MS
    low, high = quantity(found.low_pj, JOULES), quantity(found.high_pj, JOULES)
    span = f"{low} to {high} with the ranges of the constants" if low != high else ""
    yield Fact(f"energy{images}", quantity(energy, JOULES), explained(each(energy, JOULES), span))
    cycles = f"{quantity(result.total_cycles, COUNTS)} cycles"
    yield Fact(
        f"time{images}", quantity(time_ns, SECONDS), explained(each(time_ns, SECONDS), cycles)
    )
    moved = result.total_dram_bytes
    bound = times(moved, result.total_dram_bound_bytes)
    above = f"{bound} its lower bound" if bound != "-" else ""
    yield Fact(
        f"{outer} traffic{images}", quantity(moved, BYTES), explained(each(moved, BYTES), above)
    )
    live = percent(result.total_effective_macs, result.total_macs)
    dead = result.total_effective_macs < result.total_macs
    yield Fact(
        "array utilization",
        f"{percent(busy(result), 1)} %",
        f"{quantity(result.total_macs, COUNTS)} MACs"
        + f", {live} % of them with live weights" * dead,
    )
    if isinstance(dense, Result) and dense is not result:
        yield Fact(
            f"beside {dense.network} (dense)",
            f"{times(energy, dense.total_energy_pj)} energy",
            f"{times(moved, dense.total_dram_bytes)} {outer}, "
            f"{times(result.total_cycles, dense.total_cycles)} cycles",
        )


def what_was_run(result: Result) -> Iterator[Fact]:
    """Network, pattern, machine and settings, each with its source where it has one."""
    network, hardware = result.inputs
    size = "x".join(map(str, network.input_size))
    yield Fact(
        "network",
        f"{network.name}: {len(network.layers)} layers, input {size}, "
        f"{quantity(network.parameters, COUNTS)} parameters, "
        f"{quantity(stored_bytes(result), BYTES)} of weights stored",
        network.source,
    )
    yield from _pattern(result)
    told = (each.rstrip(".") for each in (hardware.source, hardware.note) if each)
    yield Fact("hardware", hardware.name, ". ".join(told))
    yield Fact("dataflow", result.dataflow.replace("_", " "))
    yield Fact("numbers", f"{result.bits} weights, batch {result.batch}")
    stays = "data that fits stays on chip" if result.residency else "nothing stays on chip"
    yield Fact("between layers", stays)
    yield Fact("objective", f"least {result.objective}", _searched(result))
    yield from _training(result)
    if result.activations is not None:
        yield Fact("activations", f"densities of {result.activations.file or 'the caller'}")


def _training(result: Result) -> Iterator[Fact]:
    """What an iteration of training is part of, and what it has to keep."""
    if result.training is None:
        return
    kept = "recomputed" if result.training.recompute else "kept"
    peak = result.activation_bytes()[kept]
    yield Fact(
        "phase",
        f"one iteration of training, activations {kept}",
        f"at most {quantity(peak, BYTES)} of activations wait for the backward pass",
    )
    iterations = result.epoch_iterations
    energy = quantity(result.total_energy_pj * iterations, JOULES)
    time = quantity(result.total_time_ms * NS_PER_MS * iterations, SECONDS)
    yield Fact("epoch", f"{energy}, {time}", f"of {result.training.epoch_images:,} images")


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
