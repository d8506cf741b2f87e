"""A picture of panels below a title and a legend, and words measured so that nothing overlaps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.transforms import Bbox

from energysim.plot.style import INK, STYLE, Look, new_figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

EDGE_IN = 0.06
"""Between what is drawn and the edge of the picture [inch]."""

NARROW_IN = 5.0
"""Narrower pictures have smaller words, and panels one above the other [inch]."""

TITLE_PT, WORDS_PT, SMALL_PT = 9.0, 7.5, 6.5
"""Sizes of the title, of words, and of words in narrow pictures and dense rows [point]."""


PANEL_IN, NAMES_IN = 1.1, 1.2
"""Least width of a panel, and room for the names of the layers [inch]."""

FRAME_IN, PANEL_TITLE_IN = 0.5, 0.2
"""Height of the numbers and words of an axis, and of the title of a panel [inch]."""


def words_pt(width: float) -> float:
    """Size of words in a picture of some width [inch] as [point]."""
    return SMALL_PT if width < NARROW_IN else WORDS_PT


def renderer_of(figure: Figure) -> RendererAgg:
    """What measures the words of a figure."""
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
    renderer: RendererAgg = canvas.get_renderer()  # type: ignore[no-untyped-call]
    return renderer


def figure_of(axes: Axes) -> Figure:
    """Figure that axes stand in, in the end."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def extent_in(figure: Figure, artist: Artist) -> tuple[float, float]:
    """Width and height of what is drawn [inch]."""
    box = artist.get_window_extent(renderer_of(figure))
    return box.width / figure.dpi, box.height / figure.dpi


def broken(words: Sequence[str], width: float, measure: Any, joint: str = " · ") -> list[str]:
    """Words in lines that are no wider than ``width``; a word that is wider has its own.

    Examples
    --------
    >>> broken(["one", "two", "three"], 10, len)
    ['one · two', 'three']
    """
    lines: list[str] = []
    for word in words:
        if lines and measure(lines[-1] + joint + word) <= width:
            lines[-1] += joint + word
        else:
            lines.append(word)
    return lines


def sheet(
    width: float,
    body: float,
    title: Sequence[str],
    looks: Iterable[tuple[str, Look]] = (),
    handles: Sequence[Any] = (),
) -> Figure:
    """Make an empty figure with a title and a legend above where the panels go.

    Parameters
    ----------
    width, body : float
        Of the picture, and height of all below title and legend [inch].
    title : sequence of str
        Words that are joined by dots and broken into lines.
    looks : iterable of (str, Look)
        Entries of the legend.
    handles : sequence of Artist, optional
        Further entries, with labels of their own.

    Returns
    -------
    matplotlib.figure.Figure
        Its layout leaves the room above free.
    """
    from matplotlib.patches import Patch

    with mpl.rc_context(STYLE):
        figure = new_figure(width, body, layout="constrained")
        room = width - 2 * EDGE_IN
        words = figure.text(0, 0, "", size=TITLE_PT, color=INK, weight="bold", va="top",
                            parse_math=False)  # fmt: skip
        words.set_text("\n".join(_fitted(figure, words, title, room)))
        entries = [
            *(Patch(label=label, **look.bar()) for label, look in looks),
            *handles,
        ]
        key = _legend(figure, entries, room, words_pt(width)) if entries else None
        title_in = extent_in(figure, words)[1]
        key_in = extent_in(figure, key)[1] + EDGE_IN if key else 0.0
        height = body + title_in + key_in + 2 * EDGE_IN
        figure.set_size_inches(width, height)
        words.set_position((EDGE_IN / width, 1 - EDGE_IN / height))
        if key:
            top = 1 - (EDGE_IN + title_in + EDGE_IN) / height
            key.set_bbox_to_anchor((EDGE_IN / width, top), transform=figure.transFigure)
        for each in (words, key):
            if each is not None:
                each.set_in_layout(False)
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.set(rect=(0, 0, 1, body / height), h_pad=0.03, w_pad=0.03)  # type: ignore[call-arg]
    return figure


def _fitted(figure: Figure, words: Text, title: Sequence[str], room: float) -> list[str]:
    def measure(line: str) -> float:
        words.set_text(line)
        return extent_in(figure, words)[0]

    lines = broken(title, room, measure)
    return [cut(line, room, measure) for line in lines]


def cut(line: str, room: float, measure: Any) -> str:
    """Cut a line in the middle until it is narrow enough.

    Examples
    --------
    >>> cut("a_long_name_of_a_level", 9, len)
    'a_lo…evel'
    """
    kept = len(line)
    short = line
    while measure(short) > room and kept > 2:  # noqa: PLR2004 - a letter at each end
        kept -= 1
        half = kept // 2
        short = f"{line[: kept - half]}…{line[len(line) - half :]}"
    return short


def _legend(figure: Figure, entries: Sequence[Any], room: float, size: float) -> Any:
    """A legend with as many columns as there is room for."""
    for columns in range(len(entries), 0, -1):
        # a legend is filled column by column, and read row by row
        ordered = [each for first in range(columns) for each in entries[first::columns]]
        key = figure.legend(handles=ordered, loc="upper left", ncols=columns, fontsize=size,
                            borderaxespad=0, borderpad=0, handlelength=1.4, handletextpad=0.5,
                            columnspacing=1.2, labelspacing=0.35)  # fmt: skip
        if columns == 1:
            _narrow(figure, key, room)
        if columns == 1 or extent_in(figure, key)[0] <= room:
            return key
        key.remove()
    return None


def _narrow(figure: Figure, key: Any, room: float) -> None:
    """Cut what a legend says until it fits."""
    widths = [extent_in(figure, words)[0] for words in key.get_texts()]
    beside = extent_in(figure, key)[0] - max(widths)
    for words in key.get_texts():

        def measure(text: str, words: Text = words) -> float:
            words.set_text(text)
            return extent_in(figure, words)[0]

        words.set_text(cut(words.get_text(), room - beside, measure))


def settle(figure: Figure) -> None:
    """Give all axes their final places, so that words can be measured against them."""
    with mpl.rc_context(STYLE):
        renderer_of(figure)
        figure.draw_without_rendering()


def words_in(figure: Figure) -> list[Text]:
    """All words of a figure that are drawn."""
    from matplotlib.text import Text

    hidden = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
        if not axes.axison or not _shown(tick.get_loc(), axis.get_view_interval())
    }
    found = (cast("Text", each) for each in figure.findobj(lambda each: isinstance(each, Text)))
    return [each for each in found
            if each.get_visible() and each.get_text().strip()
            and id(each) not in hidden]  # fmt: skip


def _shown(place: float, ends: Sequence[float]) -> bool:
    """Whether a tick stands inside its axis, rounding apart."""
    low, high = sorted(ends)
    slack = 1e-9 * (high - low)
    return low - slack <= place <= high + slack


def box_of(words: Text) -> Bbox:
    """Where words stand, without the arrow they may have [pixel]."""
    from matplotlib.text import Text

    figure = words.get_figure(root=True)
    assert figure is not None
    if hasattr(words, "update_positions"):  # of an annotation
        words.update_positions(renderer_of(figure))
    return Text.get_window_extent(words, renderer_of(figure))


def room_for_words(axes: Axes, ends: Sequence[float], words: Sequence[str], size: float) -> float:
    """Right end of a linear axis from 0 on which words fit behind bars.

    Parameters
    ----------
    axes : Axes
        Settled, see :func:`settle`.
    ends : sequence of float
        Where the bars end.
    words : sequence of str
        What stands behind each.
    size : float
        Of the words [point].

    Returns
    -------
    float
        In the unit of the axis.
    """
    figure = figure_of(axes)
    width = axes.get_window_extent().width / figure.dpi
    most = max(ends, default=0.0) or 1.0
    probe = figure.text(0, 0, "", size=size)
    right = most
    for end, text in zip(ends, words, strict=True):
        probe.set_text(text)
        share = min((extent_in(figure, probe)[0] + 2 * EDGE_IN) / width, 0.8)
        right = max(right, end / (1 - share))
    probe.remove()
    return right


def fitting_panels(width: float) -> int:
    """How many panels of bars fit beside one another in a picture of some width [inch]."""
    return max(int((width - NAMES_IN) / PANEL_IN), 1)
