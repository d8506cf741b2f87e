"""How all pictures look, and how they are written."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from energysim.axes import Tensor
from energysim.errors import InputError
from energysim.files import check_writable, write_atomically
from energysim.hardware import Level

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "hatch.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "energysim",
    "svg.fonttype": "path",
}

FORMS: Mapping[str, Mapping[str, Any]] = {
    ".png": {},
    ".svg": {"metadata": {"Date": None}},
    ".pdf": {"metadata": {"CreationDate": None}},
}
"""What a picture can be written as, and what keeps the clock out of it."""

DOTS_PER_INCH, SCREEN_DOTS_PER_INCH = 200, 96

COLUMN_IN, PAGE_IN = 3.5, 7.0
"""Widths of a column and of a page of a paper [inch]."""

OKABE_ITO: Mapping[str, str] = MappingProxyType(
    {
        "black": "#000000",
        "orange": "#E69F00",
        "sky": "#56B4E9",
        "green": "#009E73",
        "yellow": "#F0E442",
        "blue": "#0072B2",
        "vermillion": "#D55E00",
        "purple": "#CC79A7",
    }
)
"""Colours that people with any kind of colour blindness can tell apart.

References
----------
M. Okabe, K. Ito, "Color Universal Design", 2002, jfly.uni-koeln.de/color.
"""

INK, FAINT = "#222222", "#777777"
"""Of words and lines that matter, and of those that explain."""


@dataclass(frozen=True, slots=True)
class Look:
    """How one part of the energy, or one tensor, is drawn in every picture."""

    colour: str
    hatch: str = ""
    """tells it from its neighbours where there are no colours"""

    def bar(self) -> dict[str, Any]:
        """Keywords of a filled shape."""
        return {"facecolor": self.colour, "hatch": self.hatch, "edgecolor": "white",
                "linewidth": 0.4}  # fmt: skip


PART_LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        "NoC": Look(OKABE_ITO["yellow"]),
        "vector": Look(OKABE_ITO["purple"], "\\\\\\\\"),
        "MAC": Look(OKABE_ITO["orange"], "xx"),
        "static": Look("#999999", "----"),
    }
)
"""Parts of the energy that are no memory."""

DRAM_LOOK = Look(OKABE_ITO["vermillion"])

SRAM_LOOKS = (
    Look(OKABE_ITO["blue"], "////"),
    Look(OKABE_ITO["sky"]),
    Look("#004266", "...."),
    Look("#B3DBF5", "////"),
)
"""SRAMs from the outermost inward; further ones start anew."""

REGFILE_LOOKS = (
    Look(OKABE_ITO["green"], "...."),
    Look("#7FD0B9"),
    Look("#00573F", "////"),
)
"""Register files from the outermost inward; further ones start anew."""

TENSOR_LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        "weight": Look("#444444"),
        "input": Look(OKABE_ITO["purple"], "////"),
        "output": Look(OKABE_ITO["sky"]),
        "compute": Look(OKABE_ITO["orange"], "xx"),
        "static": PART_LOOKS["static"],
    }
)
"""Tensors, by the word of the ``tensor`` column, and what belongs to none of them."""

assert set(TENSOR_LOOKS) >= {tensor.label for tensor in Tensor}


def level_looks(levels: Sequence[Level]) -> dict[str, Look]:
    """How the memories of a machine, and the parts that are no memory, are drawn.

    A memory looks the same in all pictures: by what it is made of, and how many of its kind stand
    outside it.

    Parameters
    ----------
    levels : sequence of Level
        Outermost first.

    Returns
    -------
    dict
        By the word of the ``level`` column, in the order in which they are stacked.

    Examples
    --------
    >>> import energysim as es
    >>> looks = level_looks(es.load_hardware("edge_tpu").levels)
    >>> looks["DRAM"].colour, looks["SRAM"].colour
    ('#D55E00', '#0072B2')
    """
    looks: dict[str, Look] = {}
    met = {"sram": 0, "regfile": 0}
    for level in levels:
        if level.is_dram:
            looks[level.name] = DRAM_LOOK
            continue
        family = SRAM_LOOKS if level.kind == "sram" else REGFILE_LOOKS
        looks[level.name] = family[met[level.kind] % len(family)]
        met[level.kind] += 1
    return looks | dict(PART_LOOKS)


class Picture(Figure):
    """A figure in the style of this house, which a notebook shows without pyplot."""

    def add_subplot(self, *args: Any, **kwargs: Any) -> Any:
        """Add axes as :meth:`matplotlib.figure.Figure.add_subplot` does, in the style."""
        with mpl.rc_context(STYLE):
            return super().add_subplot(*args, **kwargs)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the file that :func:`save` would write, and its size on a screen [pixel]."""
        size = (self.get_size_inches() * SCREEN_DOTS_PER_INCH).round().astype(int).tolist()
        return _drawn(self, ".png"), dict(zip(("width", "height"), size, strict=True))


def new_figure(width: float, height: float, **more: Any) -> Picture:
    """Make a figure [inch] without the state of pyplot.

    Words are as wide as they will be in the file: at another resolution they are rounded otherwise.
    """
    with mpl.rc_context(STYLE):
        return Picture(figsize=(width, height), dpi=DOTS_PER_INCH, **more)


def own_axes(axes: Axes | None, size: tuple[float, float]) -> Axes:
    """Give back the axes, or make some on a figure of their own, without the state of pyplot."""
    if axes is not None:
        return axes
    with mpl.rc_context(STYLE):
        return new_figure(*size, layout="constrained").subplots()


def check_form(path: Path) -> None:
    """Refuse, before any work, a picture that can't be written.

    Raises
    ------
    InputError
        If the suffix is none of :data:`FORMS`, or the file can't be written.
    """
    if path.suffix.lower() not in FORMS:
        allowed = ", ".join(FORMS)
        raise InputError(f"a picture can be written as {allowed}, not as '{path.name}'")
    check_writable(path)


def save(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all; the same picture gives the same bytes.

    Raises
    ------
    InputError
        If the suffix is none of :data:`FORMS`, or the file can't be written.
    """
    check_form(path)
    write_atomically(path, _drawn(figure, path.suffix.lower()))


def _drawn(figure: Figure, suffix: str) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=suffix[1:], dpi=DOTS_PER_INCH, **FORMS[suffix])
    return buffer.getvalue()
