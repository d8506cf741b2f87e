"""How all pictures look, and how they are written."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from energysim.errors import InputError
from energysim.yamlio import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.size": 9,
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

DOTS_PER_INCH = 200


def check_form(path: Path) -> None:
    """Refuse, before any work, a picture that can't be written.

    Raises
    ------
    InputError
        If the suffix is none of :data:`FORMS`, or the folder does not exist.
    """
    if path.suffix.lower() not in FORMS:
        allowed = ", ".join(FORMS)
        raise InputError(f"a picture can be written as {allowed}, not as '{path.name}'")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist", where=str(path))


def save(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all; the same picture gives the same bytes.

    Raises
    ------
    InputError
        If the suffix is none of :data:`FORMS`, or the file can't be written.
    """
    check_form(path)
    suffix, buffer = path.suffix.lower(), io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=suffix[1:], dpi=DOTS_PER_INCH, **FORMS[suffix])
    write_atomically(path, buffer.getvalue())
