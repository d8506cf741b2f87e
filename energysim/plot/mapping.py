"""The loop nest of one layer: levels as boxes from DRAM inward, their loops, tiles and room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from energysim.axes import Dim, Shape, Tensor
from energysim.mapper.dataflows import with_dataflow
from energysim.mapping import LevelLoops, Nest, nominal_tile, read_loops, tile_extents
from energysim.model.capacity import Occupancy
from energysim.network import Layer, check_layer
from energysim.plot.bars import BYTES, unit_of
from energysim.plot.energy import amount
from energysim.plot.sheet import EDGE_IN, broken, cut, extent_in, figure_of, words_pt
from energysim.plot.style import (
    FAINT,
    INK,
    PAGE_IN,
    STYLE,
    TENSOR_LOOKS,
    Look,
    level_looks,
    new_figure,
    own_axes,
)
from energysim.price import machine_of
from energysim.result import Result
from energysim.units import BITS_PER_BYTE, percent, si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_IN, STEP_IN, STRIP_IN = 0.155, 0.15, 0.07
"""Height of a line, how far a box stands in the outer one, width of its coloured edge [inch]."""

METER_IN = 0.9
"""Width of what shows how full a level is [inch]."""

WORDS: Mapping[Dim, str] = {
    Dim.N: "images",
    Dim.G: "groups",
    Dim.K: "output channels",
    Dim.C: "input channels",
    Dim.P: "output rows",
    Dim.Q: "output columns",
    Dim.R: "kernel rows",
    Dim.S: "kernel columns",
}
"""What the loops run over."""


@dataclass(frozen=True, slots=True)
class Tile:
    """What a level holds of one tensor."""

    tensor: str
    extents: str
    """of the full tile, such as ``K64 C64 R3 S3``"""
    stays: bool
    """whether it is the whole tensor, kept from or for other layers"""
    share: float
    """part of the level that it takes, second buffer included"""


@dataclass(frozen=True, slots=True)
class Box:
    """One level of the nest."""

    level: str
    used: bool
    room: str
    """how full it is, in words; empty where it has no size"""
    tiles: tuple[Tile, ...]
    kept: float
    """part of the level that data of other layers takes"""
    loops: tuple[str, ...]
    """outermost first; those in parallel say so"""

    @property
    def full(self) -> float:
        """Part of the level that is taken."""
        return self.kept + sum(tile.share for tile in self.tiles)


def boxes_of(result: Result, name: str) -> list[Box]:
    """Levels of the mapping of one layer, outermost first.

    Parameters
    ----------
    result : Result
    name : str
        Of a layer, or of a step of training.

    Raises
    ------
    InputError
        If there is no such layer; names the nearest one.
    """
    layer = _layer(result, name)
    hardware = machine_of(layer, with_dataflow(result.inputs[1], result.dataflow))
    shape = layer.batched(result.batch)
    given = result.mappings[name]
    nest, trips = read_loops(hardware, shape, given, has_weights=layer.has_weights, where=str)
    row = next(each for each in result.layer_rows if each.layer == name)
    resident = {Tensor[word.upper()] for word in row.resident.split()}
    rooms = {room.level: room for room in result.rooms[name]}
    by_level = {each.level: each for each in given}
    boxes = []
    for place, level in enumerate(hardware.levels):
        room = rooms.get(place)
        tiles = [
            Tile(
                tensor.label,
                _extents(shape, nest, trips, place, tensor),
                tensor in resident and nest.holders(tensor)[1] == place,
                _share(room, tensor),
            )
            for tensor in Tensor
            if nest.cuts[place][tensor] is not None
        ]
        loops = by_level.get(level.name, LevelLoops(level=level.name))
        kept = _kept(room)
        words = _room_words(room) if room else ""
        boxes.append(Box(level.name, bool(tiles), words, tuple(tiles), kept, _loops(loops)))
    return boxes


def _layer(result: Result, name: str) -> Layer:
    layers = result.inputs[0].layers if result.training is None else result.training.steps
    check_layer(result.network, layers, name, where="--layer")
    return next(layer for layer in layers if layer.name == name)


def _loops(row: LevelLoops) -> tuple[str, ...]:
    """Loops as words, with where tiles that are cut further in begin."""
    words: list[str] = []
    for place, (dim, trips) in enumerate(row.temporal, start=1):
        words.append(f"for {dim.lower()} in 0..{trips - 1}")
        moved = [tensor for tensor, shift in row.cuts.items() if shift == place]
        if moved:
            words.append(f"tile of {', '.join(moved)} in {row.level} from here")
    words += [
        f"parallel {dim.lower()} in 0..{trips - 1} on {axis}" for dim, trips, axis in row.spatial
    ]
    return tuple(words)


def _extents(shape: Shape, nest: Nest, trips: Sequence[int], level: int, tensor: Tensor) -> str:
    return " ".join(tile_extents(shape, nominal_tile(shape, nest, trips, level, tensor), tensor))


def _whole(room: Occupancy) -> int:
    """Size of a level [bit]."""
    size = room.capacity_bits
    return size if isinstance(size, int) else sum(size.values())


def _share(room: Occupancy | None, tensor: Tensor) -> float:
    return room.bits.get(tensor, 0) / _whole(room) if room else 0.0


def _kept(room: Occupancy | None) -> float:
    return room.reserved_bits / _whole(room) if room else 0.0


def _room_words(room: Occupancy) -> str:
    whole = _whole(room)
    factor, unit = unit_of(whole / BITS_PER_BYTE, BYTES)
    size = f"{si(whole / BITS_PER_BYTE / factor)} {unit}" if factor > 1 else f"{whole // 8} byte"
    return f"{percent(room.used_bits, whole)} % of {size}"


# -- drawing ---------------------------------------------------------------------------------------


def mapping(result: Result, layer: str, ax: Axes | None = None, *, width: float = PAGE_IN) -> Axes:
    """Loop nest of one layer as boxes in boxes, DRAM outermost.

    Parameters
    ----------
    result : Result
    layer : str
        Name of the layer.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a figure of its own by default.
    width : float
        Of the axes [inch], to which words are broken.

    Returns
    -------
    matplotlib.axes.Axes
        Without numbers; its unit is an inch of the picture. Meters are rectangles with a tensor as
        label, as wide as its part of the level.
    """
    boxes = boxes_of(result, layer)
    found = _layer(result, layer)
    with mpl.rc_context(STYLE):
        axes = own_axes(ax, (width, 1.0))
        pen = _Pen(axes, width, words_pt(width), level_looks(result.inputs[1].levels))
        pen.title(_title(result, found))
        bottom = pen.nest(boxes, 0, "multiply and add" if found.has_weights else "vector unit")
        bottom = pen.key(boxes, found.batched(result.batch), bottom + 0.06)
        axes.set_axis_off()
        axes.set(xlim=(0, width), ylim=(bottom + EDGE_IN, 0), aspect="equal")
    return axes


def _title(result: Result, layer: Layer) -> list[str]:
    row = next(each for each in result.layer_rows if each.layer == layer.name)
    shape = layer.batched(result.batch)
    sizes = " ".join(f"{dim.name}{shape[dim]}" for dim in Dim if shape[dim] > 1)
    return [
        f"{layer.name} of {result.network} on {result.hardware}",
        sizes or "one MAC",
        amount(row.energy_pj),
        f"{row.cycles:,} cycles",
    ]


@dataclass(slots=True)
class _Pen:
    """Draws from the top down, in inches."""

    axes: Axes
    width: float
    size: float
    looks: Mapping[str, Look]
    top: float = EDGE_IN

    def measure(self, text: str, **how: Any) -> float:
        """Width of words [inch]."""
        figure = figure_of(self.axes)
        probe = figure.text(0, 0, text, size=how.pop("size", self.size), **how)
        wide = extent_in(figure, probe)[0]
        probe.remove()
        return wide

    def write(self, x: float, text: str, colour: str = INK, **how: Any) -> None:
        """Words on the line that begins at the top."""
        how = {"size": self.size, "va": "center", **how}
        self.axes.text(x, self.top + LINE_IN / 2, text, None, color=colour, **how)

    def title(self, words: Sequence[str]) -> None:
        """Bold words in as many lines as they need."""
        how: dict[str, Any] = {"size": self.size + 1, "weight": "bold"}
        room = self.width - 2 * EDGE_IN
        for line in broken(words, room, lambda text: self.measure(text, **how)):
            self.write(EDGE_IN, line, **how)
            self.top += LINE_IN + 0.02
        self.top += 0.04

    def rectangle(self, corner: tuple[float, float], size: tuple[float, float], **how: Any) -> None:
        """A filled or empty box [inch]."""
        from matplotlib.patches import Rectangle

        self.axes.add_patch(Rectangle(corner, *size, **how))

    def nest(self, boxes: Sequence[Box], depth: int, inmost: str) -> float:
        """A box with all that stand in it; where it ends."""
        left, right = EDGE_IN + depth * STEP_IN, self.width - EDGE_IN - depth * 0.05
        start = self.top
        if not boxes:
            self.write(left + 0.08, inmost, weight="bold")
            self.top += LINE_IN
            return self.top
        box = boxes[0]
        x = left + STRIP_IN + 0.06
        self.top += 0.03
        self._head(box, x, right - 0.06)
        self._tiles(box, x, right - 0.06)
        for loop in box.loops:
            self._loop(loop, x, right - 0.06)
        self.top += 0.03
        bottom = self.nest(boxes[1:], depth + 1, inmost) + 0.05
        self.top = bottom
        look, size = self.looks[box.level], (right - left, bottom - start)
        self.rectangle((left, start), size, fill=False, edgecolor=look.colour, linewidth=0.8)
        self.rectangle((left, start), (STRIP_IN, size[1]), **look.bar())
        return bottom

    def _head(self, box: Box, x: float, right: float) -> None:
        """Name of a level, and how full it is."""
        told = box.room if box.used else "not used"
        end = right - (METER_IN + 0.05 if box.used and box.room else 0.0)
        room = end - x - self.measure(told) - 0.08
        name = cut(box.level, room, lambda text: self.measure(text, weight="bold"))
        self.write(x, name, weight="bold")
        if not box.used:
            self.write(x + self.measure(name, weight="bold") + 0.08, told, FAINT)
        elif box.room:
            self._meter(box, right - METER_IN)
            self.write(end, told, FAINT, ha="right")
        self.top += LINE_IN

    def _meter(self, box: Box, x: float) -> None:
        low, high = self.top + 0.035, LINE_IN - 0.07
        start = x
        for label, share, look in (
            *((tile.tensor, tile.share, TENSOR_LOOKS[tile.tensor]) for tile in box.tiles),
            ("kept", box.kept, Look("#bbbbbb")),
        ):
            wide = METER_IN * share
            self.rectangle((start, low), (wide, high), label=label, **look.bar())
            start += wide
        self.rectangle((x, low), (METER_IN, high), fill=False, edgecolor=FAINT, linewidth=0.6)

    def _tiles(self, box: Box, x: float, right: float) -> None:
        """Tiles one behind the other, in as many lines as they need."""
        start = x
        for tile in box.tiles:
            words = f"{tile.tensor} {tile.extents}{' (stays)' if tile.stays else ''}"
            wide = self.measure(words) + 0.12
            if start > x and start + wide > right:
                start = x
                self.top += LINE_IN
            corner = (start, self.top + LINE_IN / 2 - 0.035)
            self.rectangle(corner, (0.07, 0.07), **TENSOR_LOOKS[tile.tensor].bar())
            self.write(start + 0.12, words)
            start += wide + 0.12
        if box.tiles:
            self.top += LINE_IN

    def _loop(self, loop: str, x: float, right: float) -> None:
        """A loop on a band, darker where it runs in parallel; remarks without."""
        if loop.startswith(("for", "parallel")):
            colour = "#dcdcdc" if loop.startswith("parallel") else "#f3f3f3"
            size = (right - x, LINE_IN - 0.02)
            self.rectangle((x, self.top + 0.01), size, facecolor=colour, edgecolor="none")
            self.write(x + 0.05, loop)
        else:
            self.write(x + 0.05, loop, FAINT)
        self.top += LINE_IN

    def key(self, boxes: Sequence[Box], shape: Shape, top: float) -> float:
        """What the letters mean, and the grey of a meter; where it ends."""
        words = [f"{dim.name} {WORDS[dim]}" for dim in Dim if shape[dim] > 1]
        if any(tile.tensor == "input" for box in boxes for tile in box.tiles):
            words.append("H, W input rows, columns")
        if any(box.kept for box in boxes):
            words.append("grey: kept for other layers")
        if any(tile.stays for box in boxes for tile in box.tiles):
            words.append("stays: on chip, not loaded or stored")
        self.top = top
        small = self.size - 0.5
        room = self.width - 2 * EDGE_IN
        for line in broken(words, room, lambda text: self.measure(text, size=small), "; "):
            self.write(EDGE_IN, line, FAINT, size=small)
            self.top += LINE_IN
        return self.top


def mapping_figure(result: Result, layer: str, *, width: float = PAGE_IN) -> Figure:
    """Loop nest of one layer as a picture, as high as it has to be.

    Parameters
    ----------
    result : Result
    layer : str
        Name of the layer.
    width : float
        Of the picture [inch].

    Returns
    -------
    matplotlib.figure.Figure
    """
    with mpl.rc_context(STYLE):
        figure = new_figure(width, 1.0)
        axes = figure.add_axes((0, 0, 1, 1))
        mapping(result, layer, axes, width=width)
        figure.set_size_inches(width, axes.get_ylim()[0])
    return figure
