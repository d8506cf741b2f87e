"""Predicted against published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from energysim.plot.style import STYLE
from energysim.validation.report import KIND_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from energysim.validation import Check, Study

KIND_COLOURS = {
    "silicon": "#D55E00",
    "vendor": "#CC79A7",
    "paper": "#009E73",
    "tool": "#0072B2",
}
"""How the other numbers were got (colours of Okabe and Ito)."""

EXACT_SHARE = 1e-4
"""Differences below this are drawn as none."""

FURTHEST = 10.0
"""Ratios are drawn up to this, and down to its inverse."""


def validation(studies: Sequence[Study]) -> Figure:
    """Predicted against published numbers: all of them, and how far off they are by study.

    Parameters
    ----------
    studies : sequence of Study
        Their checks are computed if they were not before.

    Returns
    -------
    matplotlib.figure.Figure
        Left, ours over theirs in their own units; right, the ratio, a line a study. Filled points
        are claims, hollow ones are shown only.
    """
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 1.6 + 0.32 * max(len(studies), 8)), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        predicted_against_published(studies, left)
        ratios_by_study(studies, right)
    return figure


def predicted_against_published(studies: Sequence[Study], axes: Axes) -> Axes:
    """Every number of ours over theirs, in its own unit, on logarithmic axes."""
    ends = [np.inf, 0.0]
    for kind, colour in KIND_COLOURS.items():
        for claimed in (False, True):
            points = np.array(
                [
                    (check.theirs, check.ours)
                    for study in studies
                    if study.kind == kind
                    for check in study.checks
                    if check.claimed == claimed and check.theirs > 0 and check.ours > 0
                ]
            ).reshape(-1, 2)
            if not points.size:
                continue
            ends = [min(ends[0], points.min()), max(ends[1], points.max())]
            axes.scatter(
                points[:, 0],
                points[:, 1],
                zorder=3,
                label=_label(kind, claimed=claimed),
                **_marker(colour, 14, claimed=claimed),
            )
    axes.set(xscale="log", yscale="log", xlabel="published, in its own unit", ylabel="predicted")
    if ends[1]:
        axes.plot(ends, ends, color="#999999", linewidth=0.8, zorder=2)
    axes.set_title("every number", loc="left", fontsize="medium")
    axes.scatter([], [], label="hollow: no claim", **_marker("#777777", 14, claimed=False))
    axes.legend(loc="upper left", handletextpad=0.2)
    return axes


def ratios_by_study(studies: Sequence[Study], axes: Axes) -> Axes:
    """How far ours are off, a line a study; numbers that are alike share a point."""
    for place, study in enumerate(studies):
        for claimed in (False, True):
            checks = [check for check in study.checks if check.claimed == claimed]
            ratios = np.array([_ratio(check) for check in checks])
            if ratios.size:
                colour = KIND_COLOURS[study.kind]
                places = np.full(ratios.size, place)
                axes.scatter(ratios, places, zorder=3, **_marker(colour, 22, claimed=claimed))
        same = sum(_ratio(check) == 1 for check in study.checks)
        words = f"{same} of {len(study.checks)} equal"
        axes.annotate(words, (1, place), xycoords=("axes fraction", "data"), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize="small",
                      color="#555555")  # fmt: skip
    axes.axvline(1, color="#999999", linewidth=0.8, zorder=2)
    axes.axvspan(0.9, 1.1, color="#f2f2f2", zorder=0)
    ticks = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    axes.set(xscale="log", xlim=(1 / FURTHEST / 1.1, FURTHEST * 1.1),
             xlabel=f"predicted / published, at most {FURTHEST:g} (grey: within 10 %)")  # fmt: skip
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(studies)), [study.name for study in studies])
    axes.set_ylim(len(studies) - 0.4, -0.6)
    axes.set_title("how far off", loc="left", fontsize="medium")
    return axes


def _ratio(check: Check) -> float:
    """Ours over theirs, inside the picture."""
    if abs(check.difference) < EXACT_SHARE:
        return 1.0
    return float(np.clip(1 + check.difference, 1 / FURTHEST, FURTHEST))


def _label(kind: str, *, claimed: bool) -> str:
    return KIND_NAMES[kind] if claimed else "_shown"


def _marker(colour: str, size: float, *, claimed: bool) -> dict[str, Any]:
    if claimed:
        return {"s": size, "facecolors": colour, "edgecolors": "none", "alpha": 0.75}
    return {"s": size, "facecolors": "none", "edgecolors": colour, "linewidths": 0.9}
