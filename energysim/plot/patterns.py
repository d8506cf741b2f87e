"""Gallery of sparse kernels: the supports of a period in the order of their slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl

from energysim.axes import Shape
from energysim.errors import InputError
from energysim.plot.sheet import EDGE_IN, broken, extent_in, figure_of, words_pt
from energysim.plot.style import (
    COLUMN_IN,
    FAINT,
    INK,
    OKABE_ITO,
    PAGE_IN,
    STYLE,
    new_figure,
    own_axes,
)
from energysim.sparsity import Mask, Pattern

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIVE, DEAD, FULL = OKABE_ITO["blue"], "#f2f2f2", OKABE_ITO["vermillion"]
"""Colours of a live tap, of one fixed at zero, and of the frame of a fully dense kernel."""

CELL_IN, SMALLEST_CELL_IN = 0.085, 0.03
"""Side of a tap of a 3x3 kernel, and the least of larger ones [inch]."""

KERNEL_IN = 3 * CELL_IN
"""Side of a kernel of 3x3, which larger ones take more of where they must [inch]."""

GAP_IN, LINE_IN = 0.11, 0.14
"""Between kernels, and height of a line of words [inch]."""

DRAWN = 8
"""Kernels that stand for a pattern without slots."""

Support = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One small grid."""

    word: str
    """below it"""
    height: int
    width: int
    live: frozenset[int]
    """taps, row-major"""
    dense: bool
    """a fully dense kernel in a pattern of sparse ones"""


def kernels_of(pattern: Pattern) -> list[Kernel]:
    """What is drawn of a pattern: its slots in order, or kernels that its seed draws.

    Of N:M patterns, a grid is one filter at one block of channels: a row a channel of the block, a
    column a tap of a 3x3 kernel.
    """
    height, width = pattern.kernel or (3, 3)
    if pattern.slots:
        return [
            Kernel(str(slot) if len(pattern.slots) > 1 else "", height, width, frozenset(taps),
                   dense=pattern.fdk and taps == pattern.all_taps)
            for slot, taps in enumerate(pattern.slots)
        ]  # fmt: skip
    if pattern.blocks is not None:
        return _blocks(pattern, pattern.blocks[1])
    array = Mask.of(pattern, _shape(DRAWN, 1), 0).array().reshape(DRAWN, -1)
    return [
        Kernel("", height, width, frozenset(array[k].nonzero()[0].tolist()), dense=False)
        for k in range(DRAWN)
    ]


def _blocks(pattern: Pattern, block: int) -> list[Kernel]:
    drawn = DRAWN // 2  # they are wide
    taps = Mask.of(pattern, _shape(drawn, block), 0).array().reshape(drawn, block, -1)
    return [
        Kernel(
            "", block, taps.shape[2], frozenset(taps[k].ravel().nonzero()[0].tolist()), dense=False
        )
        for k in range(drawn)
    ]


def _shape(filters: int, channels: int) -> Shape:
    return Shape((1, 1, filters, channels, 1, 1, 3, 3), size=(3, 3))


def words_of(pattern: Pattern) -> str:
    """What is said of a pattern beside its name."""
    if pattern.dense:
        return "every tap is live"
    if pattern.blocks is not None:
        live, block = pattern.blocks
        return (
            f"{live} of {block} neighbouring input channels, at every tap, drawn by a seed, "
            "rows are channels, columns taps"
        )
    if not pattern.slots:
        return f"KSS {pattern.kss}, drawn by a seed, the first {DRAWN} of seed 0"
    taps = len(pattern.all_taps)
    sizes = sorted({len(each) for each in pattern.supports})
    kss = "KSS " + (str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}")
    words = [kss, f"period {pattern.period}"]
    if pattern.fdk:
        words.append(f"FDK 1 in {pattern.fdk_every or pattern.period}")
    return ", ".join([*words, f"{pattern.mean_kss / taps:.3f} live"])


@dataclass(frozen=True, slots=True)
class _Block:
    """One pattern laid out: lines of kernels below its name."""

    kernels: tuple[tuple[Kernel, ...], ...]
    """by line"""
    names: tuple[str, ...]
    """lines of the name"""
    words: tuple[str, ...]
    """lines of what is said; the first stands behind the name where there is room"""
    indent: float
    """where the first line of words begins [inch]; 0 below the name"""
    cell: float
    """side of a tap [inch]"""

    @property
    def kernel_height(self) -> float:
        """Of one of its kernels [inch]."""
        return self.kernels[0][0].height * self.cell

    @property
    def line_height(self) -> float:
        """Of a line of kernels, with the words below them [inch]."""
        numbered = any(kernel.word for kernel in self.kernels[0])
        return self.kernel_height + (LINE_IN if numbered else 0.04)

    @property
    def text_lines(self) -> int:
        """Lines of words above the kernels."""
        return len(self.names) + len(self.words) - (self.indent > 0)

    @property
    def height(self) -> float:
        """All together, with what sets it apart from the next [inch]."""
        return len(self.kernels) * self.line_height + (self.text_lines + 0.7) * LINE_IN


def _laid_out(figure: Figure, pattern: Pattern, width: float, size: float) -> _Block:
    """Break kernels and words into lines that fit a width [inch]."""
    kernels = kernels_of(pattern)
    columns = kernels[0].width
    cell = max(min(CELL_IN, 3 * KERNEL_IN / max(columns, kernels[0].height)), SMALLEST_CELL_IN)
    fitting = max(int((width + GAP_IN) / (columns * cell + GAP_IN)), 1)
    lines = tuple(tuple(kernels[i : i + fitting]) for i in range(0, len(kernels), fitting))
    probe = figure.text(0, 0, "", size=size, weight="bold")

    def measure(text: str) -> float:
        probe.set_text(text)
        return extent_in(figure, probe)[0]

    names = broken([f"{part}_" for part in pattern.name.split("_")], width, measure, "")
    names[-1] = names[-1].removesuffix("_")
    indent = measure(names[-1]) + 0.05
    said = words_of(pattern).split(", ")
    probe.set_fontweight("normal")
    beside = len(names) == 1 and measure(", ".join(said)) <= width - indent
    words = [", ".join(said)] if beside else broken(said, width, measure, ", ")
    probe.remove()
    return _Block(lines, tuple(names), tuple(words), indent if beside else 0.0, cell)


def gallery(patterns: Sequence[Pattern], ax: Axes | None = None, *, width: float = PAGE_IN) -> Axes:
    """Supports of patterns as small grids, a block a pattern.

    Parameters
    ----------
    patterns : sequence of Pattern
    ax : matplotlib.axes.Axes, optional
        Where to draw; a figure of its own by default.
    width : float
        Of the axes [inch], to which lines are broken; blocks stand side by side where there is room
        for that.

    Returns
    -------
    matplotlib.axes.Axes
        Without numbers; its unit is an inch of the picture. A rectangle a tap, with the label
        ``live`` or ``dead``.

    Raises
    ------
    InputError
        If there is no pattern.
    """
    if not patterns:
        raise InputError("there is no pattern to draw")
    with mpl.rc_context(STYLE):
        axes = own_axes(ax, (width, 1.0))
        figure, size = figure_of(axes), words_pt(width)
        columns = max(int(width / COLUMN_IN), 1)
        share = width / columns
        inner = share - 2 * EDGE_IN
        blocks = [_laid_out(figure, each, inner, size) for each in patterns]
        top = EDGE_IN
        for start in range(0, len(blocks), columns):
            row = blocks[start : start + columns]
            for place, block in enumerate(row):
                _draw(axes, block, (place * share + EDGE_IN, top), size)
            top += max(block.height for block in row)
        top = _key(axes, patterns, top, size, width - 2 * EDGE_IN)
        axes.set_axis_off()
        axes.set(xlim=(0, width), ylim=(top + EDGE_IN, 0), aspect="equal")
    return axes


def _draw(axes: Axes, block: _Block, corner: tuple[float, float], size: float) -> None:
    left, top = corner
    for name in block.names:
        axes.text(left, top + LINE_IN / 2, name, size=size, weight="bold", color=INK, va="center")
        top += LINE_IN
    if block.indent:
        top -= LINE_IN
    for line in block.words:
        axes.text(left + block.indent, top + LINE_IN / 2, line, size=size, color=FAINT, va="center")
        top += LINE_IN
    for kernels in block.kernels:
        for place, kernel in enumerate(kernels):
            start = left + place * (kernel.width * block.cell + GAP_IN)
            _grid(axes, kernel, (start, top), block.cell)
            middle, below = start + kernel.width * block.cell / 2, top + block.kernel_height + 0.02
            axes.text(middle, below, kernel.word, size=size - 1, ha="center", va="top",
                      color=FULL if kernel.dense else FAINT,
                      weight="bold" if kernel.dense else "normal")  # fmt: skip
        top += block.line_height


def _grid(axes: Axes, kernel: Kernel, corner: tuple[float, float], cell: float) -> None:
    from matplotlib.patches import Rectangle

    left, top = corner
    for tap in range(kernel.height * kernel.width):
        row, column = divmod(tap, kernel.width)
        live = tap in kernel.live
        axes.add_patch(
            Rectangle((left + column * cell, top + row * cell), cell, cell, linewidth=0.5,
                      facecolor=LIVE if live else DEAD, edgecolor="white",
                      label="live" if live else "dead")
        )  # fmt: skip
    frame = FULL if kernel.dense else FAINT
    axes.add_patch(
        Rectangle(corner, kernel.width * cell, kernel.height * cell, fill=False, edgecolor=frame,
                  linewidth=1.6 if kernel.dense else 0.6, label="frame")
    )  # fmt: skip


def _key(axes: Axes, patterns: Sequence[Pattern], top: float, size: float, width: float) -> float:
    """Lines that say what the numbers and frames mean; where they end."""
    words = []
    if any(len(pattern.slots) > 1 for pattern in patterns):
        words.append("numbers: slot (k + c + 1) mod P of filter k, channel c")
    if any(pattern.fdk for pattern in patterns):
        words.append("heavy frame: fully dense kernel (FDK)")
    figure = figure_of(axes)
    probe = figure.text(0, 0, "", size=size - 0.5)

    def measure(text: str) -> float:
        probe.set_text(text)
        return extent_in(figure, probe)[0]

    for line in broken(words, width, measure, "; "):
        axes.text(EDGE_IN, top + LINE_IN / 2, line, size=size - 0.5, color=FAINT, va="center")
        top += LINE_IN
    probe.remove()
    return top


def gallery_figure(patterns: Sequence[Pattern], *, width: float = PAGE_IN) -> Figure:
    """Gallery of patterns as a picture, as high as it has to be.

    Parameters
    ----------
    patterns : sequence of Pattern
    width : float
        Of the picture [inch].

    Returns
    -------
    matplotlib.figure.Figure
    """
    with mpl.rc_context(STYLE):
        figure = new_figure(width, 1.0)
        axes = figure.add_axes((0, 0, 1, 1))
        gallery(patterns, axes, width=width)
        figure.set_size_inches(width, axes.get_ylim()[0])
    return figure
