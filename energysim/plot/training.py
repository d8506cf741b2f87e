"""Loss and accuracy of runs of training over their epochs, mean and band over seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from energysim.errors import InputError
from energysim.files import read_text
from energysim.plot.sheet import NARROW_IN, box_of, figure_of, settle, sheet, words_pt
from energysim.plot.style import INK, OKABE_ITO, PAGE_IN, STYLE, own_axes
from energysim.train.record import LOG, finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Quantity = str
"""``loss`` or ``top1``."""

LABELS: Mapping[Quantity, str] = {"loss": "loss", "top1": "top-1 accuracy [%]"}
FACTORS: Mapping[Quantity, float] = {"loss": 1.0, "top1": 100.0}

COLOURS = tuple(
    OKABE_ITO[word] for word in ("blue", "vermillion", "green", "purple", "orange", "sky", "black")
)
"""Of groups; after the last the dashes change."""

DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))


@dataclass(frozen=True, slots=True)
class Curve:
    """One group of runs that differ in their seed only."""

    label: str
    seeds: int
    epochs: tuple[int, ...]
    """those that all seeds have"""
    values: Mapping[str, tuple[tuple[float, ...], ...]]
    """by column of the log: of each epoch, the value of every seed"""

    def mean(self, column: str) -> list[float]:
        """Mean over seeds, epoch by epoch."""
        return [fmean(each) for each in self.values[column]]


def read_curves(out: Path) -> list[Curve]:
    """Curves of all finished runs in a folder of ``energysim train --out``.

    Runs are of one group if they have the same network, images and number of epochs.

    Parameters
    ----------
    out : Path
        A folder of runs, or of one run.

    Returns
    -------
    list of Curve
        In the order of the folders' names.

    Raises
    ------
    InputError
        If there is no finished run, or a log can't be read.
    """
    if not out.is_dir():
        raise InputError("is no folder; give that of 'energysim train --out'", where=str(out))
    folders = [out, *sorted(each for each in out.iterdir() if each.is_dir())]
    runs = [(folder, row) for folder in folders if (row := finished(folder)) is not None]
    if not runs:
        raise InputError("holds no finished run of 'energysim train'", where=str(out))
    groups: dict[tuple[str, ...], list[list[dict[str, Any]]]] = {}
    for folder, row in runs:
        key = (*(str(row[word]) for word in ("network", "dataset", "epochs", "recipe_sha256")),)
        groups.setdefault(key, []).append(_records(folder / LOG))
    labels = _labels(list(groups))
    return [_curve(label, logs) for label, logs in zip(labels, groups.values(), strict=True)]


def _labels(keys: Sequence[tuple[str, ...]]) -> list[str]:
    """Network, and of the rest what tells groups apart."""
    columns = list(zip(*keys, strict=True))
    names, data, epochs, recipes = columns
    words = [list(names)]
    if len(set(data)) > 1:
        words.append(list(data))
    if len(set(epochs)) > 1:
        words.append([f"{each} epochs" for each in epochs])
    if len(set(recipes)) > 1:
        words.append([f"recipe {each[:6]}" for each in recipes])
    return [", ".join(each) for each in zip(*words, strict=True)]


def _records(path: Path) -> list[dict[str, Any]]:
    """Lines of a log."""
    lines = read_text(path).splitlines()
    try:
        records = [json.loads(line) for line in lines if line.strip()]
        for each in records:
            _ = each["epoch"], each["train_loss"], each["test_loss"], each["test_top1"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"is no log of a run: {error}", where=str(path)) from None
    if not records:
        raise InputError("has no epoch", where=str(path))
    return records


def _curve(label: str, logs: Sequence[Sequence[Mapping[str, Any]]]) -> Curve:
    shared = set.intersection(*({each["epoch"] for each in log} for log in logs))
    epochs = tuple(sorted(shared))
    by_epoch = [{each["epoch"]: each for each in log} for log in logs]
    columns = [f"{part}_{word}" for part in ("train", "test") for word in LABELS]
    values = {
        column: tuple(tuple(float(log[epoch][column]) for log in by_epoch) for epoch in epochs)
        for column in columns
        if all(column in log[epoch] for log in by_epoch for epoch in epochs)
    }
    return Curve(label, len(logs), epochs, values)


def curves(
    given: Sequence[Curve],
    quantity: Quantity,
    ax: Axes | None = None,
    *,
    size: float = 7.5,
    labels: bool = True,
    looks: Sequence[int] | None = None,
) -> Axes:
    """Loss or accuracy over epochs: test images thick, training images thin.

    Parameters
    ----------
    given : sequence of Curve
    quantity : {"loss", "top1"}
        What is shown.
    ax : matplotlib.axes.Axes, optional
        Where to draw; on a figure of its own by default.
    size : float
        Of the words [point].
    labels : bool
        Write the names of groups behind their lines.
    looks : sequence of int, optional
        Places of the groups among those that share their colours; in order by default.

    Returns
    -------
    matplotlib.axes.Axes
        A line a group and part, the mean over seeds; bands reach from the least to the most.
    """
    axes = own_axes(ax, (PAGE_IN / 2, PAGE_IN / 2))
    factor, places = FACTORS[quantity], looks or range(len(given))
    with mpl.rc_context(STYLE):
        for place, curve in zip(places, given, strict=True):
            colour, dashes = _look(place)
            for part, wide, alpha in (("train", 0.7, 0.5), ("test", 1.5, 1.0)):
                column = f"{part}_{quantity}"
                if column not in curve.values:
                    continue
                mean = [factor * each for each in curve.mean(column)]
                axes.plot(curve.epochs, mean, color=colour, linestyle=dashes, linewidth=wide,
                          alpha=alpha, label=f"{curve.label} {part}",
                          marker="o" if len(mean) == 1 else None, markersize=3)  # fmt: skip
            every = curve.values[f"test_{quantity}"]
            low, high = ([factor * end(each) for each in every] for end in (min, max))
            axes.fill_between(curve.epochs, low, high, color=colour, alpha=0.2, linewidth=0)
        _frame(axes, given, quantity, size)
        if labels:
            _names(axes, given, quantity, size, places)
    return axes


def _look(place: int) -> tuple[str, Any]:
    """Colour and dashes of a group."""
    return COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]


def _frame(axes: Axes, given: Sequence[Curve], quantity: Quantity, size: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch", size=size)
    axes.set_ylabel(LABELS[quantity], size=size)
    axes.tick_params(labelsize=size)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    first = min(curve.epochs[0] for curve in given)
    last = max(curve.epochs[-1] for curve in given)
    axes.set_xlim(first - (first == last), last + (first == last))
    if quantity == "loss":
        axes.set_ylim(bottom=0)


def _names(
    axes: Axes, given: Sequence[Curve], quantity: Quantity, size: float, places: Sequence[int]
) -> None:
    """Names behind the ends of the lines, moved apart where they would overlap."""
    ends = [
        (curve.epochs[-1], FACTORS[quantity] * curve.mean(f"test_{quantity}")[-1])
        for curve in given
    ]
    # All stand beside the axes at first, so that their width is known to the layout.
    labels = [
        axes.annotate(curve.label, end, (1.05, 0.5), textcoords="axes fraction", size=size,
                      color=_look(place)[0], va="center", annotation_clip=False, parse_math=False,
                      arrowprops={"arrowstyle": "-", "color": _look(place)[0], "linewidth": 0.5,
                                  "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)})
        for place, curve, end in zip(places, given, ends, strict=True)
    ]  # fmt: skip
    figure = figure_of(axes)
    settle(figure)
    box = axes.get_window_extent()
    high = 1.1 * max(box_of(label).height for label in labels) / box.height
    high = min(high, 1 / len(labels))
    wanted = [float(axes.transData.transform(end)[1] - box.y0) / box.height for end in ends]
    for label, y in zip(labels, apart(wanted, high, (high / 2, 1 - high / 2)), strict=True):
        label.set_position((1.05, y))


def apart(wanted: Sequence[float], least: float, ends: tuple[float, float]) -> list[float]:
    """Places near the wanted ones, in their order, no two nearer than ``least``.

    Examples
    --------
    >>> apart([5.0, 5.0, 1.0], 2.0, (0.0, 10.0))
    [4.0, 6.0, 1.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    groups: list[tuple[float, list[int]]] = []
    for i in order:
        groups.append((wanted[i], [i]))
        while len(groups) > 1 and _crowded(groups[-2], groups[-1], least):
            (low, first), (high, second) = groups[-2:]
            both = first + second
            groups[-2:] = [((low * len(first) + high * len(second)) / len(both), both)]
    places = [0.0] * len(wanted)
    floor = ends[0]
    for middle, members in groups:
        start = max(middle - (len(members) - 1) * least / 2, floor)
        for step, i in enumerate(members):
            places[i] = start + step * least
        floor = start + len(members) * least
    ceiling = ends[1]
    for _, members in reversed(groups):
        for i in reversed(members):
            places[i] = min(places[i], ceiling)
            ceiling = places[i] - least
    return places


def _crowded(below: tuple[float, list[int]], above: tuple[float, list[int]], least: float) -> bool:
    """Whether two groups, each spread around its middle, come too near."""
    room = (len(below[1]) + len(above[1])) * least / 2
    return above[0] - below[0] < room


def training_figure(given: Sequence[Curve], *, width: float = PAGE_IN, title: str = "") -> Figure:
    """Loss and accuracy beside each other, or one above the other in narrow pictures.

    Many groups have panels by their dense network, with the same colour for the same pattern.

    Parameters
    ----------
    given : sequence of Curve
        Of :func:`read_curves`.
    width : float
        Of the picture [inch].
    title : str
        Of the picture.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    size = words_pt(width)
    seeds = sorted({curve.seeds for curve in given})
    handles: list[Any] = [
        Line2D([], [], color=INK, linewidth=1.5, label="test images"),
        Line2D([], [], color=INK, linewidth=0.7, alpha=0.5, label="training images"),
    ]
    if seeds[-1] > 1:
        words = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
        handles.append(Patch(facecolor=INK, alpha=0.2, label=f"least to most of {words} seeds"))
    groups = _families(given)
    looks = {label: place for place, label in enumerate(
        dict.fromkeys(curve.label for each in groups.values() for curve in each))}  # fmt: skip
    narrow = width < NARROW_IN
    most = max(map(len, groups.values()))
    panel = max(2.0, most * size / 72 * 1.5 + 0.6)
    figure = sheet(width, panel * len(groups) * (2 if narrow else 1), [title], (), handles)
    with mpl.rc_context(STYLE):
        rows = len(groups) * (2 if narrow else 1)
        grid = figure.subplots(rows, 1 if narrow else 2, squeeze=False).reshape(len(groups), 2)
        for (family, own), (left, right) in zip(groups.items(), grid, strict=True):
            places = [looks[curve.label] for curve in own]
            curves(own, "loss", left, size=size, labels=narrow, looks=places)
            curves(own, "top1", right, size=size, looks=places)
            left.set_title(family, loc="left", size=size)
            if narrow:
                right.set_title(family, loc="left", size=size)
    return figure


def _families(given: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Groups by panel: one for all, or where they are many one for each dense network."""
    bases = [curve.label.partition("+")[0] for curve in given]
    if len(given) <= len(COLOURS) or len(set(bases)) == 1:
        return {"": list(given)}
    found: dict[str, list[Curve]] = {}
    for base, curve in zip(bases, given, strict=True):
        label = curve.label[len(base) + 1 :] or "dense"
        found.setdefault(base, []).append(replace(curve, label=label))
    return found
