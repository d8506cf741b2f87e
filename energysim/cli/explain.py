"""One layer's loop nest drawn, with what each memory holds and what limits the layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from energysim.axes import Dim, Tensor
from energysim.cli.render import number, percent, unit_for
from energysim.errors import InputError, did_you_mean
from energysim.mapping import LevelLoops, Nest, machine_rules, nominal_tile, read_loops, write_line
from energysim.model.capacity import Occupancy, Residency, occupancy
from energysim.model.sparse import WeightStore
from energysim.network import Layer
from energysim.price import machine_of
from energysim.result import LayerRow, Result
from energysim.units import BITS_PER_BYTE

ENERGY = ((1, "pJ"), (1e3, "nJ"), (1e6, "uJ"), (1e9, "mJ"), (1e12, "J"))
FULL = 0.9
"""A memory this full limits the tiles."""


def explain(result: Result, name: str) -> str:
    """Draw the mapping of one layer.

    Raises
    ------
    InputError
        If the network has no such layer.
    """
    network, _ = result.inputs
    known = [row.layer for row in result.layer_rows]
    if name not in known:
        hint = did_you_mean(name, known)
        raise InputError(f"{network.name} has no layer named '{name}'.{hint}", where="--explain")
    row = result.layer_rows[known.index(name)]
    drawing = _Drawing(result, network.layers[known.index(name)], row)
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
        dims = (result.batch, *layer.shape.dims[1:])
        self.shape = type(layer.shape)(
            dims, layer.shape.stride, layer.shape.dilation, layer.shape.pad, layer.shape.size
        )
        self.loops: Sequence[LevelLoops] = result.mappings[layer.name]
        self.nest, self.trips = read_loops(
            self.hardware, self.shape, self.loops, has_weights=layer.has_weights, where=str
        )
        rules = machine_rules(self.hardware, has_weights=layer.has_weights)
        self.counts = count(self.shape, self.nest, np.array([self.trips]), rules)
        store = None
        if layer.has_weights:
            formats = (row.weight_format,)
            store = WeightStore.of(layer.mask, self.hardware.bits.weight, formats)
        resident = frozenset(Tensor[word.upper()] for word in row.resident.split())
        self.rooms = {
            room.level: room
            for room in occupancy(
                self.hardware, self.shape, self.nest, self.trips, self.counts, store,
                Residency(resident),
            )
        }  # fmt: skip

    def head(self) -> Iterator[str]:
        shape = " ".join(f"{dim.name}{self.shape[dim]}" for dim in Dim if self.shape[dim] > 1)
        factor, unit = unit_for([self.row.energy_pj], ENERGY, least=1)
        yield (
            f"{self.layer.name} of {self.result.network} on {self.result.hardware}: "
            f"{shape or 'one MAC'}"
        )
        yield (
            f"{number(self.row.energy_pj, factor)} {unit}, {self.row.cycles:,} cycles, "
            f"mapping by {self.result.dataflow} for {self.result.objective}"
        )
        yield ""

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
        sizes = [_tile(self.shape, self.nest, self.trips, level, tensor) for tensor in held]
        tiles = ", ".join(f"{t.label} {size}" for t, size in zip(held, sizes, strict=True))
        return f"{memory.name}: {tiles}  [{_filled(room)}]"

    def limits(self) -> Iterator[str]:
        """What keeps the layer from being cheaper."""
        moved, bound = self.row.dram_bytes, self.row.dram_bound_bytes
        outer = self.hardware.levels[0].name
        if moved <= bound * (1 + 1e-9):
            yield f"{outer} traffic is at its lower bound, {bound:,.0f} bytes."
        elif bound:
            yield f"{outer} moves {moved:,.0f} bytes, {moved / bound:.2f}x its lower bound."
        full = [
            self.hardware.levels[level].name
            for level, room in self.rooms.items()
            if _share(room) > FULL
        ]
        if full:
            yield f"Full to the brim: {', '.join(full)}; a larger one could help."
        macs = self.row.macs
        if macs:
            best = -(-macs // prod(self.hardware.axis_sizes))
            yield (
                f"Time: {percent(best, self.row.cycles)} % of the array's peak "
                f"({best:,} of {self.row.cycles:,} cycles would do)."
            )

    def others(self) -> Iterator[str]:
        """The next best mappings that were counted."""
        search = self.result.search
        yield ""
        if self.result.runners_up.get(self.layer.name):
            yield "Next best of those counted:"
            for other in self.result.runners_up[self.layer.name]:
                more = other.measure.energy / self.row.energy_pj - 1
                late = other.measure.latency / self.row.cycles - 1 if self.row.cycles else 0.0
                yield (
                    f"  {100 * more:+.3g} % energy, {100 * late:+.3g} % cycles: "
                    f"{write_line(other.loops)}"
                )
        yield (
            "No mapping of the mapspace is better." if search.optimal
            else f"Stopped early: the best may be up to {100 * search.gap:.3g} % better."
        )  # fmt: skip


def _tile(shape: object, nest: Nest, trips: Sequence[int], level: int, tensor: Tensor) -> str:
    from energysim.axes import RELEVANT, Shape

    assert isinstance(shape, Shape)
    size = nominal_tile(shape, nest, trips, level, tensor)
    dims = [f"{dim.name}{size[dim]}" for dim in Dim if dim in RELEVANT[tensor] and size[dim] > 1]
    return "x".join(dims) or "1"


def _share(room: Occupancy) -> float:
    if isinstance(room.capacity_bits, int):
        return room.used_bits / room.capacity_bits
    return max(room.bits.get(tensor, 0) / size for tensor, size in room.capacity_bits.items())


def _filled(room: Occupancy) -> str:
    used = -(-room.used_bits // BITS_PER_BYTE)
    if isinstance(room.capacity_bits, int):
        return (
            f"{used:,} of {room.capacity_bits // BITS_PER_BYTE:,} bytes, {100 * _share(room):.0f} %"
        )
    size = sum(room.capacity_bits.values()) // BITS_PER_BYTE
    return f"{used:,} of {size:,} bytes in parts, fullest {100 * _share(room):.0f} %"
