"""Pictures inside the page, as SVG text that refers to nothing outside of itself."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from energysim.errors import InputError
from energysim.result import Result
from energysim.sparsity import Pattern

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_METADATA: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
"""What Matplotlib would write into a picture of itself, the clock included."""

_ID = re.compile(r'\bid="([^"]*)"')
_USE = re.compile(r'(xlink:href="|url\()#')
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_INDENT = re.compile(r"\s*\n\s*")
_PLACE = re.compile(r'\b(?:d|x|y|width|height)="[^"]*"|translate\([^)]*\)')
_LONG = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_POINT = rf"\s*{_NUMBER.pattern}\s+{_NUMBER.pattern}\s*"
_CIRCLE = re.compile(rf"M{_POINT}(?:C{_POINT}{_POINT}{_POINT}){{8}}z")

ROUND = 1e-3
"""What is this much wider than high, or less, is a circle [1/72 inch]."""

DECIMALS = 2
"""Of places in a picture [1/72 inch]."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture and what it shows."""

    title: str
    caption: str
    svg: str
    """an ``svg`` element"""


def of_run(result: Result, place: str) -> Iterator[Picture]:
    """Draw all that is shown of one result; what there is nothing to draw of is left out."""
    from energysim import plot

    outer = result.level_names[0]
    drawn: tuple[tuple[str, str, Callable[[], Figure]], ...] = (
        (
            "Energy by level",
            "Which memories and units the energy of each layer goes to.",
            lambda: plot.energy_figure([result]),
        ),
        (
            "Energy by tensor",
            "The same energy, by what it is spent on.",
            lambda: plot.energy_figure([result], by="tensor"),
        ),
        (
            f"{outer} traffic",
            "What each layer moves, beside the least that any mapping must move.",
            lambda: plot.traffic_figure([result]),
        ),
        (
            "Roofline",
            "What holds each layer back: the array, or a memory.",
            lambda: plot.roofline_figure(result),
        ),
        (
            "What each constant does",
            "Change of the energy with each constant, on the same mappings.",
            lambda: plot.tornado_figure(result),
        ),
        (
            "Kernels",
            "Live taps of the sparse kernels, slot by slot of a period.",
            lambda: plot.gallery_figure(_patterns(result)),
        ),
    )
    for i, (title, caption, draw) in enumerate(drawn, start=1):
        try:
            figure = draw()
        except InputError:  # such as the roofline of layers that multiply nothing
            continue
        label = f"{title} of {result.network} on {result.hardware}"
        yield Picture(title, caption, inline(figure, f"{place}-picture-{i}", label))


def _patterns(result: Result) -> list[Pattern]:
    """Patterns of the layers that repeat themselves, each once."""
    layers = result.inputs[0].layers
    used = dict.fromkeys(layer.mask.pattern for layer in layers if layer.pattern != "dense")
    return [pattern for pattern in used if pattern.slots]


def of_variants(results: Sequence[Result]) -> Picture:
    """Draw the energy of several results side by side."""
    from energysim import plot

    names = ", ".join(each.network for each in results)
    svg = inline(plot.energy_figure(results, totals=True), "variants-picture", f"Energy of {names}")
    return Picture("Energy side by side", "All layers together, by level.", svg)


def inline(figure: Figure, place: str, label: str) -> str:
    """Write a figure as an ``svg`` element for an HTML page.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    place : str
        Start of all ids inside, so that several pictures can stand on one page.
    label : str
        What it shows, for those who can't see it.

    Returns
    -------
    str
        The same figure gives the same text.
    """
    import matplotlib as mpl

    from energysim.plot import STYLE

    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA, transparent=True)
    text = buffer.getvalue()
    text = _shorter(text[text.index("<svg") :].rstrip())
    text = _ID.sub(rf'id="{place}-\1"', text)
    text = _USE.sub(rf"\1#{place}-", text)
    head, _, body = text.partition(">")
    # its size is that of the page's column; the view box keeps the shape
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(label)}">{body}'


def _shorter(svg: str) -> str:
    """Leave out what can't be seen: comments, indents, and thousandths of a point."""
    text = _INDENT.sub("\n", _COMMENT.sub("", svg))
    return _PLACE.sub(lambda places: _rounded(places[0]), text)


def _rounded(places: str) -> str:
    """Round the numbers of one attribute, and draw circles by arcs.

    Examples
    --------
    >>> _rounded('d="M 12.500001 -0.000004 L 3 4 z"')
    'd="M 12.5 0 L 3 4 z"'
    """
    short = _CIRCLE.sub(_arcs, places)
    short = _LONG.sub(lambda found: f"{round(float(found[0]), DECIMALS) + 0:g}", short)
    return re.sub(r"\s*\n", "", short)


def _arcs(curves: re.Match[str]) -> str:
    """Draw a circle that stands there as eight curves by two arcs: hatches have hundreds."""
    numbers = [float(each) for each in _NUMBER.findall(curves[0])]
    across, down = numbers[::2], numbers[1::2]
    width, height = max(across) - min(across), max(down) - min(down)
    if abs(width - height) > ROUND:
        return curves[0]
    left, middle, r = min(across), (max(down) + min(down)) / 2, width / 2
    return (
        f"M{left:.6f} {middle:.6f}a{r:.6f} {r:.6f} 0 1 0 {width:.6f} 0"
        f"a{r:.6f} {r:.6f} 0 1 0 {-width:.6f} 0z"
    )
