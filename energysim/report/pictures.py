"""Pictures inside the page, as SVG text that refers to nothing outside of itself."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_METADATA: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
"""What Matplotlib would write into a picture of itself, the clock included."""

_ID = re.compile(r'\bid="([^"]*)"')
_USE = re.compile(r'(xlink:href="|url\()#')


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture and what it shows."""

    title: str
    caption: str
    svg: str
    """an ``svg`` element"""


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
    text = text[text.index("<svg") :].rstrip()
    text = _ID.sub(rf'id="{place}-\1"', text)
    text = _USE.sub(rf"\1#{place}-", text)
    head, _, body = text.partition(">")
    # its size is that of the page's column; the view box keeps the shape
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(label)}">{body}'
