"""One layer's loop nest drawn, with what each memory holds and what limits the layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from energysim.axes import Dim, Tensor
from energysim.cli.render import UNBOUNDED
from energysim.mapping import (
    LevelLoops,
    machine_rules,
    nominal_tile,
    read_loops,
    tile_extents,
    write_line,
)
from energysim.model.capacity import Occupancy
from energysim.model.counts import Counts
from energysim.model.lockstep import Skipped
from energysim.network import Layer, check_layer
from energysim.price import machine_of
from energysim.result import LayerRow, Result
from energysim.sparsity import DENSE, Activity
from energysim.units import BITS_PER_BYTE, PICOJOULES, number, percent, unit_for

FULL = 0.9
"""A memory this full limits the tiles."""

LARGE = 0.05
"""Parts of the energy below this share are not named."""

FEW_NUMBERS = 8
"""So many filters or channels are named one by one."""


def explain(result: Result, name: str) -> str:
    """Draw the mapping of one layer.

    Raises
    ------
    InputError
        If the network has no such layer.
    """
    network, _ = result.inputs
    layers = network.layers if result.training is None else result.training.steps
    check_layer(network.name, layers, name, where="--explain")
    at = [row.layer for row in result.layer_rows].index(name)
    drawing = _Drawing(result, layers[at], result.layer_rows[at])
    lines = [*drawing.head(), *drawing.nest_lines(), "", *drawing.limits(), *drawing.others()]
    return "\n".join(lines) + "\n"


class _Drawing:
    """What is drawn of one layer."""

    def __init__(self, result: Result, layer: Layer, row: LayerRow) -> None:
        import numpy as np

        from energysim.mapper.dataflows import with_dataflow
        from energysim.model.counts import count

        self.result, self.layer, self.row = result, layer, row
        asked = with_dataflow(result.inputs[1], result.dataflow)
        self.hardware = machine_of(layer, asked)
        self.shape = layer.batched(result.batch)
        self.loops: Sequence[LevelLoops] = result.mappings[layer.name]
        self.nest, self.trips = read_loops(
            self.hardware, self.shape, self.loops, has_weights=layer.has_weights, where=str
        )
        rules = machine_rules(self.hardware, has_weights=layer.has_weights)
        self.counts: Counts = count(self.shape, self.nest, np.array([self.trips]), rules)
        self.resident = frozenset(Tensor[word.upper()] for word in row.resident.split())
        self.activity = self._activity()
        self.rooms = {room.level: room for room in result.rooms[layer.name]}

    def _activity(self) -> Activity:
        """Densities, as far as the machine makes use of them."""
        from energysim.model.energy import used_activity

        given = self.result.activations
        known = given.of(self.result.inputs[0])[self.layer.name] if given else DENSE
        return used_activity(self.hardware, known, has_weights=self.layer.has_weights)

    def head(self) -> Iterator[str]:
        shape = " ".join(f"{dim.name}{self.shape[dim]}" for dim in Dim if self.shape[dim] > 1)
        factor, unit = unit_for([self.row.energy_pj], PICOJOULES, least=1)
        yield (
            f"{self.layer.name} of {self.result.network} on {self.result.hardware}: "
            f"{shape or 'one MAC'}"
        )
        yield (
            f"{number(self.row.energy_pj, factor)} {unit}, {self.row.cycles:,} cycles; "
            f"{self._origin()}"
        )
        yield ""

    def _origin(self) -> str:
        if self.layer.name in self.result.given_mappings:
            return "the mapping was given"
        return f"{self.result.dataflow}, least {self.result.objective}"

    def nest_lines(self) -> Iterator[str]:
        """Levels and loops, outermost first, each loop one step further in."""
        depth = 0
        for level, row in enumerate(self._by_level()):
            yield f"{'  ' * depth}{self._level_line(level)}"
            for dim, trips in row.temporal:
                depth += 1
                yield f"{'  ' * depth}for {dim.lower()} in 0..{trips - 1}"
                moved = [
                    word for word, shift in row.cuts.items()
                    if shift == depth - self._depth_before(level)
                ]  # fmt: skip
                if moved:
                    yield f"{'  ' * depth}  tile of {', '.join(moved)} in {row.level} from here"
            for dim, trips, axis in row.spatial:
                depth += 1
                yield f"{'  ' * depth}in parallel {dim.lower()} in 0..{trips - 1} on {axis}"
        inmost = "multiply and add" if self.layer.has_weights else "vector unit"
        yield f"{'  ' * (depth + 1)}{inmost}"

    def _by_level(self) -> list[LevelLoops]:
        given = {row.level: row for row in self.loops}
        return [given.get(each.name, LevelLoops(level=each.name)) for each in self.hardware.levels]

    def _depth_before(self, level: int) -> int:
        return sum(len(row.temporal) + len(row.spatial) for row in self._by_level()[:level])

    def _level_line(self, level: int) -> str:
        memory = self.hardware.levels[level]
        if level == 0:
            return f"{memory.name}: all"
        room = self.rooms.get(level)
        held = [tensor for tensor in Tensor if self.nest.cuts[level][tensor] is not None]
        if room is None or not held:
            return f"{memory.name}: not used"
        tiles = ", ".join(self._tile_words(level, tensor) for tensor in held)
        return f"{memory.name}: {tiles}  [{_filled(room)}]"

    def _tile_words(self, level: int, tensor: Tensor) -> str:
        """Extents of the tile of a tensor, and whether it is the whole tensor that stays."""
        size = nominal_tile(self.shape, self.nest, self.trips, level, tensor)
        stays = tensor in self.resident and self.nest.holders(tensor)[1] == level
        words = "x".join(tile_extents(self.shape, size, tensor))
        return f"{tensor.label} {words}{' (stays)' if stays else ''}"

    def limits(self) -> Iterator[str]:
        """What keeps the layer from being cheaper: energy, traffic, room, time."""
        parts: dict[str, float] = {}
        for row in self.result.access_rows:
            if row.layer == self.layer.name:
                word = " ".join(filter(None, (row.level, row.tensor, row.action)))
                parts[word] = parts.get(word, 0.0) + row.energy_pj
        total = self.row.energy_pj
        large = sorted(parts.items(), key=lambda part: -part[1])
        named = [f"{word} {percent(part, total)} %" for word, part in large if part > LARGE * total]
        if named:
            yield f"Energy: {', '.join(named)}."
        moved, bound = self.row.dram_bytes, self.row.dram_bound_bytes
        outer = self.hardware.levels[0].name
        if moved <= bound * (1 + 1e-9):
            yield f"{outer} traffic is at its lower bound, {bound:,.0f} bytes."
        elif bound:
            yield f"{outer} moves {moved:,.0f} bytes, {moved / bound:.2f}x its lower bound."
        full = [
            self.hardware.levels[level].name
            for level, room in self.rooms.items()
            if _share(room) > FULL and not self._all_stay(level)
        ]
        if full:
            yield f"Tiles are limited by the size of {', '.join(full)}."
        else:
            yield "No memory is full: room does not limit the tiles."
        yield from self._zeros()
        yield from self._time()

    def _zeros(self) -> Iterator[str]:
        """What zeros among the activations save."""
        from energysim.model.energy import stored_in_dram

        if self.activity == DENSE:
            return
        parts = []
        if self.hardware.sparsity.activations == "gate" and self.layer.has_weights:
            parts.append(f"{percent(1 - self.activity.input_density, 1)} % of the MACs gated")
        if self.hardware.sparsity.activation_format != "dense":
            parts += [
                f"an element of the {tensor.label} takes "
                f"{stored_in_dram(self.hardware, tensor, self.activity).bits:.3g} of "
                f"{self.hardware.bits.of(tensor)} bits in {self.hardware.levels[0].name}"
                for tensor in (Tensor.INPUT, Tensor.OUTPUT)
            ]
        yield f"Zero activations: {', '.join(parts)}."

    def _all_stay(self, level: int) -> bool:
        """Whether a level holds nothing in tiles."""
        held = [tensor for tensor in Tensor if self.nest.cuts[level][tensor] is not None]
        return all(
            tensor in self.resident and self.nest.holders(tensor)[1] == level for tensor in held
        )

    def _time(self) -> Iterator[str]:
        """Which of array steps and traffic sets the time."""
        time = self.result.timings.get(self.layer.name)
        skipped = self.result.skipped.get(self.layer.name)
        if skipped is not None:
            yield _skipping(skipped)
        if time is None or not self.row.cycles:
            return
        unit = "the array" if self.layer.has_weights else "the vector unit"
        working = {
            f"steps of {unit}": time.compute_cycles,
            "the busiest bus of the array": time.bus_cycles,
        }
        waiting = {"waiting for weights and first inputs of each pass": time.waiting_cycles}
        hidden: dict[str, float] = {}
        added: dict[str, float] = {}
        dram = self.hardware.levels[0]
        for level, cycles in time.level_cycles.items():
            bursts = f" in bursts of {dram.burst_bits} bits" if level == dram.name else ""
            what = f"traffic of {level}{bursts if dram.burst_bits else ''}"
            if level in time.overlapping:
                hidden[what] = cycles - (time.exposed_cycles if level == dram.name else 0.0)
            else:
                added[what] = cycles
        added["the first tiles in and the last out"] = time.exposed_cycles
        most = max(working, key=lambda word: working[word])
        parts = {most: working[most]} | waiting
        if hidden and max(hidden.values()) > sum(parts.values()):
            most = max(hidden, key=lambda word: hidden[word])
            parts = {most: hidden[most]}
        parts |= {word: each for word, each in added.items() if each}
        words = [f"{word} {percent(each, self.row.cycles)} %" for word, each in parts.items()
                 if each or word == most]  # fmt: skip
        yield f"Time: {', '.join(words)} of {self.row.cycles:,} cycles."
        if self.row.macs:
            best = -(-self.row.macs // prod(self.hardware.axis_sizes))
            yield f"The array at its peak would take {best:,} cycles."

    def others(self) -> Iterator[str]:
        """The next best, and what is known of the rest."""
        if self.layer.name in self.result.given_mappings:
            return
        search, others = self.result.searches[self.layer.name], self.result.runners_up
        yield ""
        for other in others[self.layer.name]:
            figures = [_more("energy", other.measure.energy, self.row.energy_pj)]
            if other.measure.latency and self.row.cycles:
                figures.append(_more("cycles", other.measure.latency, self.row.cycles))
            yield f"Next best: {', '.join(figures)} with {write_line(other.loops)}"
        yield (
            f"Optimal: no mapping among {_many(search.mapspace)} is better."
            if search.optimal
            else f"Stopped early among {_many(search.mapspace)} mappings: the best may be up to "
            f"{100 * search.gap:.2g} % better."
        )


def _skipping(skipped: Skipped) -> str:
    """How many array steps skipping zeros leaves, and who waits for whom."""
    lock = skipped.lock
    grouped = [axis for axis, word in lock.order if word == "by_slot"]
    order = f"channels by slot on {', '.join(grouped)}" if grouped else "channels as numbered"
    left = f"{skipped.steps:,} of {lock.dense_steps * skipped.times:,} array steps"
    words = [f"Zeros skipped: {left} ({lock.ratio:.3f}x) with {order}"]
    if skipped.lost_cycles:
        slow = lock.slowest
        words.append(
            f"{skipped.lost_cycles:,.0f} of them lost to waiting (a group takes "
            f"{lock.mean_steps:.2f} on average, at most {lock.max_steps}: filters "
            f"{_span(slow.filters)}, channels {_span(slow.channels)})"
        )
    return "; ".join(words) + "."


def _span(numbers: Sequence[int]) -> str:
    """Numbers in short: all of them if few, else the ends and how many."""
    if len(numbers) <= FEW_NUMBERS:
        return " ".join(map(str, numbers))
    return f"{numbers[0]} to {numbers[-1]} ({len(numbers)})"


def _more(name: str, value: float, base: float) -> str:
    return f"{100 * (value / base - 1):+.3g} % {name}" if base else f"{value:.4g} pJ {name}"


def _many(count: int) -> str:
    return f"{count:,}" if count < UNBOUNDED else f"{count:.2g}"


def _share(room: Occupancy) -> float:
    if isinstance(room.capacity_bits, int):
        return room.used_bits / room.capacity_bits
    return max(room.bits.get(tensor, 0) / size for tensor, size in room.capacity_bits.items())


def _filled(room: Occupancy) -> str:
    used = -(-room.used_bits // BITS_PER_BYTE)
    kept = -(-room.reserved_bits // BITS_PER_BYTE)
    if isinstance(room.capacity_bits, int):
        size = room.capacity_bits // BITS_PER_BYTE
        words = f"{used:,} of {size:,} bytes, {percent(room.used_bits, room.capacity_bits)} %"
        return f"{words}, {kept:,} of them kept across layers" if kept else words
    size = sum(room.capacity_bits.values()) // BITS_PER_BYTE
    return f"{used:,} of {size:,} bytes in parts, fullest {100 * _share(room):.0f} %"
