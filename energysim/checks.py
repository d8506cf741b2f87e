"""What a reader of a result should know: found after a run, shown after the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from energysim.axes import Tensor
from energysim.hardware import Hardware
from energysim.network import Network
from energysim.result import Note, NoteKind, Result
from energysim.units import BITS_PER_BYTE, si

LOW_UTILIZATION = 0.1
"""Share of MAC slots used over a whole run below which a note is made."""

WAITING = 0.05
"""Array steps beyond the live MACs' share, relative, above which a note is made."""

SHOWN = 3
"""Layers that a note names."""


def collect_notes(result: Result, network: Network, hardware: Hardware) -> tuple[Note, ...]:
    """All notes on a result, in a fixed order."""
    return tuple(_notes(result, network, hardware))


def _notes(result: Result, network: Network, hardware: Hardware) -> Iterator[Note]:
    if network.missing:
        yield Note(
            NoteKind.MISSING,
            f"not counted, as {network.name} has no layer for it: {'; '.join(network.missing)}.",
        )
    if result.cached_weight_bytes:
        dram = hardware.levels[0]
        once = result.cached_weight_bytes * BITS_PER_BYTE * dram.read_pj_per_bit
        yield Note(
            NoteKind.WEIGHTS_CACHED,
            f"all weights ({si(result.cached_weight_bytes / 1e6)} MB) stay in "
            f"{hardware.levels[1].name}: figures are per inference once they are loaded; loading "
            f"them reads {si(once / 1e9)} mJ worth of {dram.name}.",
        )
    elif result.residency and "weight" in hardware.levels[1].holds:
        yield _streamed(result, hardware)
    yield from _array_notes(result, hardware)
    if result.training:
        yield Note(
            NoteKind.TRAINING,
            f"every tensor of the iteration goes to and from {hardware.levels[0].name}. Gradients "
            "are as wide as activations, weight gradients and momentum as weights; loss, ReLU, "
            "batch norm and the gradients of biases cost nothing beside the steps shown.",
        )
    sparse = [layer.name for layer in network.layers if layer.pattern != "dense"]
    formats = {row.layer: row.weight_format for row in result.layer_rows}
    if sparse and all(formats[name] == "dense" for name in sparse):
        yield Note(
            NoteKind.DENSE_STORED,
            f"{hardware.name} stores the sparse weights densely, so they save no traffic. Name the "
            f"formats it decodes in its file: 'sparsity: {{formats: [dense, periodic]}}'.",
        )
    yield from _skip_notes(result, hardware)
    yield from _activation_notes(result, network, hardware)
    without_macs = any(not layer.has_weights for layer in network.layers)
    if hardware.vector is None and (without_macs or result.training):
        what = "pools, additions and updates" if result.training else "layers without MACs"
        yield Note(
            NoteKind.VECTOR_FREE,
            f"{hardware.name} has no 'vector' block: the arithmetic of {what} is "
            f"free, only their data is counted.",
        )
    assumed = hardware.assumed + hardware.mac.assumed + hardware.array.assumed
    assumed += hardware.sparsity.assumed + (hardware.vector.assumed if hardware.vector else ())
    assumed += tuple(name for level in hardware.levels for name in level.assumed)
    if assumed:
        yield Note(
            NoteKind.ASSUMED,
            f"{len(assumed)} values of {hardware.name} are assumed, not published: see "
            f"'energysim show {hardware.name}'.",
        )


def _activation_notes(result: Result, network: Network, hardware: Hardware) -> Iterator[Note]:
    given = result.activations
    if given is None:
        return
    name = given.file or "activations"
    if (hardware.sparsity.activations, hardware.sparsity.activation_format) == ("none", "dense"):
        yield Note(
            NoteKind.ACTIVATIONS_UNUSED,
            f"{hardware.name} neither gates nor codes activations, so {name} changes nothing. A "
            f"file of hardware that does says 'sparsity: {{activations: gate, activation_format: "
            f"rlc}}'.",
        )
        return
    left = given.left_out(network)
    if left:
        named = ", ".join(left[:SHOWN]) + (" ..." if len(left) > SHOWN else "")
        yield Note(
            NoteKind.ACTIVATIONS_LEFT_OUT,
            f"{name} leaves out {len(left)} of {len(network.layers)} layers ({named}): taken as "
            f"dense, but where a neighbour's density tells that of the tensor between them.",
        )


def _skip_notes(result: Result, hardware: Hardware) -> Iterator[Note]:
    if not result.skipped:
        return
    if result.skipped.keys() - set(result.given_mappings):
        yield Note(
            NoteKind.SKIP_NOT_SOUGHT,
            f"mappings were sought as if {hardware.name} did not skip zeros: figures are those of "
            f"the mappings found with zeros skipped, others may skip better.",
        )
    steps = sum(each.steps for each in result.skipped.values())
    dense = sum(each.lock.dense_steps * each.times for each in result.skipped.values())
    live = sum(row.effective_macs for row in result.layer_rows if row.layer in result.skipped)
    every = sum(row.macs for row in result.layer_rows if row.layer in result.skipped)
    if steps / dense > (1 + WAITING) * live / every:
        best = hardware.sparsity.order == "auto"
        advice = "" if best else " Try 'sparsity: {order: auto}' in its file."
        yield Note(
            NoteKind.IMBALANCE,
            f"sparse layers have {si(100 * live / every)} % of their MACs left but take "
            f"{si(100 * steps / dense)} % of the array steps: processing elements wait for the "
            f"slowest.{advice}",
        )


def _streamed(result: Result, hardware: Hardware) -> Note:
    """Why weights come from DRAM again and again."""
    stored, memory = sum(row.weight_bits for row in result.layer_rows), hardware.levels[1]
    size = memory.capacity_bits()
    room = size[Tensor.WEIGHT] if isinstance(size, dict) else size
    why = f"do not fit {memory.name} all at once"
    if room is not None and stored <= room:
        why = f"would fit {memory.name}, but leave the rest too little room or cost more than that"
    advice = "" if result.batch > 1 else " Try --batch 8, or a sparse --pattern."
    return Note(
        NoteKind.WEIGHTS_STREAMED,
        f"weights ({si(stored / BITS_PER_BYTE / 1e6)} MB stored) {why}: streamed from "
        f"{hardware.levels[0].name} once per batch or more.{advice}",
    )


def _array_notes(result: Result, hardware: Hardware) -> Iterator[Note]:
    places = prod(hardware.axis_sizes)
    used = result.total_macs / (result.total_cycles * places) if result.total_cycles else 1.0
    if result.total_macs and used < LOW_UTILIZATION:
        untried = ["--batch 8"] * (result.batch == 1)
        untried += ["--objective latency"] * (result.objective != "latency")
        advice = f" Try {' or '.join(untried)}." if untried else ""
        slowest = max(result.layer_rows, key=lambda row: row.cycles)
        yield Note(
            NoteKind.LOW_UTILIZATION,
            f"the array does {si(100 * used)} % of the MACs it could; {slowest.layer} takes "
            f"{si(100 * slowest.cycles / result.total_cycles)} % of the time.{advice}",
        )
    spilled = [
        row.layer
        for row in result.access_rows
        if row.level == result.level_names[0] and row.tensor == "output" and row.action == "read"
    ]
    if spilled:
        named = ", ".join(spilled[:SHOWN]) + (" ..." if len(spilled) > SHOWN else "")
        yield Note(
            NoteKind.SUMS_SPILLED,
            f"partial sums of {named} go to {result.level_names[0]} and back.",
        )
