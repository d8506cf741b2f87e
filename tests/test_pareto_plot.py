"""The picture of the front: its data, words that hide nothing, the same bytes; README's figure."""

from __future__ import annotations

import csv
import importlib.util
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

import energysim as es
from energysim.cache import Cache, folder
from energysim.pareto import Accuracies, Accuracy, ParetoTable, load_accuracies, pareto
from energysim.plot import pareto_figure
from energysim.plot.beside import Label, place_labels
from energysim.plot.pareto import network_looks
from energysim.plot.sheet import renderer_of, settle
from energysim.plot.style import save

DOCS = Path(__file__).parent.parent / "docs"
EXACT = ("network", "base", "pattern", "hardware", "dataset", "metric", "on_front", "is_knee")


@cache
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", DOCS / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def readme_table() -> ParetoTable:
    found: ParetoTable = figures().front(Cache(folder()))
    return found


@cache
def small_table(quantity: str = "energy", count: int = 4) -> ParetoTable:
    rows = [("dense", 97.0), ("PS4_P4", 96.0), ("PS1_P9", 90.0), ("PSD4_P8", 95.0)][:count]
    own = tuple(Accuracy("digits_cnn", name, percent, 0.3) for name, percent in rows)
    return pareto(
        Accuracies("a test", "a test", own), es.load_hardware("edge_tpu"),
        quantity=quantity, cache=Cache(folder()),
    )  # fmt: skip


def words_beside(figure: Figure) -> list[Text]:
    settle(figure)
    (axes,) = figure.axes
    return [each for each in axes.texts if each.get_text()]


def box(figure: Figure, text: Text) -> Bbox:
    return text.get_window_extent(renderer_of(figure))


# -- README's figure -------------------------------------------------------------------------------


def test_numbers_of_the_figure_are_computed_again() -> None:
    with (DOCS / "pareto.csv").open(encoding="utf-8", newline="") as file:
        shown = list(csv.DictReader(file))
    found = readme_table().rows()
    assert len(shown) == len(found) == 28
    for theirs, ours in zip(shown, found, strict=True):
        assert list(theirs) == list(ours)
        for name in EXACT:
            assert theirs[name] == str(ours[name])
        for name in ("accuracy_percent", "energy_mj", "energy_low_mj", "energy_high_mj"):
            assert float(theirs[name]) == pytest.approx(ours[name], rel=1e-9)
        # other versions of NumPy may draw other numbers
        assert float(theirs["front_probability"]) == pytest.approx(
            ours["front_probability"], abs=0.02
        )


def test_what_the_figure_says() -> None:
    table = readme_table()
    assert table.knee is not None
    assert table.knee.candidate.network.name == "vgg16+PSD2_P8"
    names = [point.candidate.network.name for point in table.front]
    assert names[0] == "vgg16+PS1_P9"
    assert names[-1] == "resnet18+PS4_P4"
    assert not any(point.on_front for point in table.points
                   if point.candidate.network.name in ("vgg16", "resnet18"))  # fmt: skip


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_pictures_of_the_documents_are_there(suffix: str) -> None:
    assert (DOCS / f"pareto{suffix}").stat().st_size > 10_000


# -- what is drawn ---------------------------------------------------------------------------------


def test_every_candidate_is_a_point_of_its_colour_and_shade() -> None:
    table = readme_table()
    (axes,) = pareto_figure(table).axes
    looks = network_looks(table)
    assert len({(look.colour, look.marker) for look in looks.values()}) == 4
    drawn = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
    points = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])): line for line in drawn
              if line.get_markerfacecolor() != "none"}  # fmt: skip
    assert len(points) == len(table.points)
    for point in table.points:
        line = next(each for (x, y), each in points.items()
                    if y == point.percent and x == pytest.approx(point.cost * 1e3))  # fmt: skip
        look = looks[point.candidate.base]
        assert line.get_marker() == look.marker
        assert line.get_markeredgecolor() == look.colour
        shade = [1 - point.probability * (1 - part) for part in to_rgb(look.colour)]
        assert to_rgb(line.get_markerfacecolor()) == pytest.approx(shade)
    rings = [line for line in drawn if line.get_markerfacecolor() == "none"]
    assert table.knee is not None
    assert [float(ring.get_ydata()[0]) for ring in rings] == [table.knee.percent]


def test_front_is_drawn_as_steps() -> None:
    table = readme_table()
    (axes,) = pareto_figure(table).axes
    (steps,) = [line for line in axes.lines if line.get_linewidth() == 1.0 and len(
        line.get_xdata()) > 2]  # fmt: skip
    x, y = np.asarray(steps.get_xdata()), np.asarray(steps.get_ydata())
    assert ((np.diff(x) == 0) | (np.diff(y) == 0)).all()
    corners = {(round(a, 9), b) for a, b in zip(x.tolist(), y.tolist(), strict=True)}
    assert {(round(point.cost * 1e3, 9), point.percent) for point in table.front} <= corners


def test_axes_say_what_and_in_which_unit() -> None:
    for quantity, words in (
        ("energy", "energy per image [nJ]"), ("latency", "latency per image [µs]"),
        ("parameters", "parameters [k]"), ("dram", "DRAM traffic per image [B]"),
    ):  # fmt: skip
        (axes,) = pareto_figure(small_table(quantity)).axes
        assert axes.get_xlabel() == words
        assert axes.get_ylabel() == "accuracy [%]"


CASES: list[Any] = [readme_table, small_table, lambda: small_table("dram"), lambda: small_table(
    "parameters"), lambda: small_table(count=1)]  # fmt: skip


@pytest.mark.parametrize("width", [3.5, 5.0, 7.0])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_words_hide_nothing(case: int, width: float) -> None:
    table = CASES[case]()
    figure = pareto_figure(table, width_in=width)
    words = words_beside(figure)
    (axes,) = figure.axes
    named = {point for point in table.points
             if point.on_front or point.candidate.network.pattern == "dense"}  # fmt: skip
    assert len(words) == len(named)
    boxes = [box(figure, each) for each in words]
    for one, other in combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other.padded(-1))
    frame = axes.get_window_extent()
    dots = axes.transData.transform(
        [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines
         if line.get_marker() not in ("None", "", None)]
    )  # fmt: skip
    for own in boxes:
        assert frame.x0 <= own.x0
        assert own.x1 <= frame.x1
        assert frame.y0 <= own.y0
        assert own.y1 <= frame.y1
        assert not own.count_contains(dots)
    around = [*figure.texts, *figure.legends[0].get_texts(), axes.xaxis.label, axes.yaxis.label]
    for text in around:
        own = box(figure, text)
        assert figure.bbox.x0 - 1 <= own.x0 <= own.x1 <= figure.bbox.x1 + 1, text.get_text()
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        ticks = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        assert len(ticks) >= 2
        for one, other in pairwise(box(figure, each) for each in ticks):
            assert not one.overlaps(other)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        save(pareto_figure(small_table()), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_style_is_left_as_it_was() -> None:
    before = dict(mpl.rcParams)
    pareto_figure(small_table())
    assert dict(mpl.rcParams) == before


# -- places of words -------------------------------------------------------------------------------


def test_crowded_words_find_places() -> None:
    rng = np.random.default_rng(4)
    points = rng.random((24, 2))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-0.2, 1.2), ylim=(-0.2, 1.2))
    settle(figure)
    labels = [Label(f"word {i}", x, y, {"fontsize": 7}, 3.0) for i, (x, y) in enumerate(points)]
    place_labels(axes, labels, points=points)
    boxes = [box(figure, each) for each in axes.texts]
    assert len(boxes) == len(labels)
    for one, other in combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other.padded(-1))
    dots = axes.transData.transform(points)
    assert not any(own.count_contains(dots) for own in boxes)


def test_words_keep_off_lines() -> None:
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    settle(figure)
    label = Label("left of it runs a line", 0.5, 0.5, {"fontsize": 7}, 3.0)
    place_labels(axes, [label], points=[(0.5, 0.5)])
    free = box(figure, axes.texts[0])
    assert free.x1 < axes.transData.transform((0.5, 0.5))[0]
    axes.texts[0].remove()
    line = (0.3, 0.0, 0.3, 1.0)
    place_labels(axes, [label], points=[(0.5, 0.5)], lines=[line])
    kept = box(figure, axes.texts[0])
    assert kept.x0 > axes.transData.transform((0.3, 0))[0]


def test_published_accuracies_of_the_other_data_set_can_be_drawn() -> None:
    found = load_accuracies("published", dataset="Tiny ImageNet")
    table = pareto(found, es.load_hardware("edge_tpu"), networks=["vgg16"],
                   patterns=["PS1_P9", "PSD1_P8"], cache=Cache(folder()))  # fmt: skip
    (axes,) = pareto_figure(table).axes
    assert axes.get_ylabel() == "top-5 accuracy [%]"
