"""Pictures: what is drawn is what was computed, words keep clear of each other, bytes repeat."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import energysim as es
from energysim import plot
from energysim.cache import Cache, folder
from energysim.errors import InputError
from energysim.hardware import Hardware
from energysim.plot import style
from energysim.plot.bars import alike
from energysim.plot.costs import Saved, common_title, variants_of
from energysim.plot.energy import parts_of
from energysim.plot.mapping import boxes_of
from energysim.plot.patterns import kernels_of
from energysim.plot.roofline import peak_of, points_of, roofs_of
from energysim.plot.rows import Row, rows_of, shortened
from energysim.plot.sheet import box_of, settle, words_in
from energysim.plot.traffic import traffic_of
from energysim.plot.training import Curve, apart
from energysim.result import AccessRow, LayerRow, Result
from energysim.sparsity import PATTERNS, Mask, Pattern, get_pattern

WIDTHS = (3.5, 7.0)
SLACK_PX = 1.0
"""Words may touch by this much: their boxes are a little larger than their ink [pixel]."""


@pytest.fixture(scope="module")
def run() -> Callable[..., Result]:
    cache = Cache(folder())

    def simulate(net: str, hw: str = "edge_tpu", pattern: str | None = None, **more: Any) -> Result:
        network = es.load_network(net, pattern=pattern)
        return es.simulate(network, es.load_hardware(hw), cache=cache, **more)

    return simulate


def made(names: Sequence[str], energies: Sequence[float], hw: str = "edge_tpu") -> Saved:
    """Costs of layers with names and energies of one's own, a part in ten of each on chip."""
    hardware = es.load_hardware(hw)
    levels = [level.name for level in hardware.levels[:2]]
    rows, accesses = [], []
    for name, energy in zip(names, energies, strict=True):
        bytes_ = energy / 8
        rows.append(
            LayerRow(name, "conv", 10**6, 10**6, 1000, 0.01, 0.5, bytes_, bytes_, energy,
                     bytes_ / 2, "dense", 0, "", "")
        )  # fmt: skip
        accesses += [
            AccessRow("net", hw, name, level, "weight", "read", 1, bytes_ * 8, share * energy)
            for level, share in zip(levels, (0.9, 0.1), strict=True)
        ]
    return Saved("net", hw, "dense", "weight_stationary", 1, tuple(rows), tuple(accesses),
                 (None, hardware))  # fmt: skip


def layers_of(net: str) -> list[str]:
    return [layer.name for layer in es.load_network(net).layers]


def bars(axes: Axes) -> dict[str, list[float]]:
    """Lengths of the bars of each part."""
    return {str(each.get_label()): [bar.get_width() for bar in each] for each in axes.containers}


def unit_pj(axes: Axes) -> float:
    """Factor of the unit in the label of the value axis."""
    found = re.search(r"\[(.+)\]", axes.get_xlabel())
    assert found
    return {"pJ": 1.0, "nJ": 1e3, "µJ": 1e6, "mJ": 1e9, "J": 1e12, "byte": 1.0, "kB": 1e3,
            "MB": 1e6, "GB": 1e9}[found[1]]  # fmt: skip


def collisions(figure: Figure) -> list[tuple[str, str]]:
    """Words that overlap, and words that stand outside the picture (beside themselves)."""
    settle(figure)
    boxes = [(words.get_text(), box_of(words)) for words in words_in(figure)
             if words.get_rotation() in (0.0, 90.0)]  # fmt: skip
    found = []
    edge = figure.bbox
    for place, (text, box) in enumerate(boxes):
        if box.x0 < -SLACK_PX or box.y0 < -SLACK_PX or box.x1 > edge.x1 + SLACK_PX or (
            box.y1 > edge.y1 + SLACK_PX
        ):  # fmt: skip
            found.append((text, "edge"))
        for other, beside in boxes[:place]:
            if min(box.x1, beside.x1) - max(box.x0, beside.x0) > SLACK_PX and (
                min(box.y1, beside.y1) - max(box.y0, beside.y0) > SLACK_PX * 2
            ):
                found.append((other, text))
    return found


# -- style -----------------------------------------------------------------------------------------


def test_levels_look_the_same_on_every_machine() -> None:
    from energysim import catalog

    for name in catalog.names("hw"):
        levels = es.load_hardware(name).levels
        looks = style.level_looks(levels)
        assert looks[levels[0].name].colour == style.OKABE_ITO["vermillion"]
        first = next(level.name for level in levels if level.kind == "sram")
        assert looks[first].colour == style.OKABE_ITO["blue"]
        assert list(looks)[-4:] == ["NoC", "vector", "MAC", "static"]
        drawn = [(looks[level.name].colour, looks[level.name].hatch) for level in levels]
        assert len(set(drawn)) == len(drawn)


def test_neighbours_differ_in_grey() -> None:
    """Parts of one bar next to each other differ in lightness or in their hatch."""
    for looks in (
        list(style.level_looks(es.load_hardware("edge_tpu").levels).values()),
        list(style.level_looks(es.load_hardware("eyeriss").levels).values()),
        list(style.TENSOR_LOOKS.values()),
    ):
        for one, other in pairwise(looks):
            light = [np.dot((0.2126, 0.7152, 0.0722), np.power(to_rgb(each.colour), 2.2))
                     for each in (one, other)]  # fmt: skip
            assert abs(light[0] - light[1]) > 0.1 or one.hatch != other.hatch


def test_nothing_is_changed_for_others(run: Callable[..., Result]) -> None:
    import matplotlib.pyplot as plt  # others may have opened figures before

    before, figures = dict(mpl.rcParams), plt.get_fignums()
    plot.energy_figure([run("digits_cnn")])
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == figures


# -- rows ------------------------------------------------------------------------------------------


@given(
    st.lists(st.from_regex(r"[a-c]{1,3}([./][a-c0-9]{1,3}){0,3}", fullmatch=True), min_size=1,
             max_size=60, unique=True),
    st.integers(1, 70),
)  # fmt: skip
def test_every_layer_is_in_one_row(names: list[str], most: int) -> None:
    rows = rows_of(names, most)
    assert [place for row in rows for place in row.layers] == list(range(len(names)))
    assert len(rows) <= most
    if len(names) <= most:
        assert len(rows) == len(names)


@pytest.mark.parametrize("net", ["mobilenet_v2", "densenet121", "efficientnet_b0", "resnet50"])
def test_long_networks_are_put_together_by_stage(net: str) -> None:
    names = layers_of(net)
    rows = rows_of(names)
    assert len(rows) <= 50
    for row in rows:
        if len(row.layers) > 1:
            stage = row.label.partition(" (")[0]
            assert all(names[place].startswith(f"{stage}.") for place in row.layers)
            assert row.label.endswith(f"({len(row.layers)})")


def test_long_names_keep_their_ends() -> None:
    short = shortened("features.denseblock1.denselayer1.conv1", 20)
    assert len(short) == 20
    assert short.endswith("conv1")


# -- energy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hw", ["edge_tpu", "eyeriss_absolute"])
@pytest.mark.parametrize("by", ["level", "tensor"])
def test_bars_add_up_to_the_energy(run: Callable[..., Result], by: plot.By, hw: str) -> None:
    result = run("mobilenet_v2" if hw == "edge_tpu" else "digits_cnn", hw)
    for rows in (4, 20, 200):
        axes = plot.energy(result, by=by, rows=rows)
        lengths = bars(axes)
        total = sum(sum(values) for values in lengths.values()) * unit_pj(axes)
        assert total == pytest.approx(result.total_energy_pj, rel=1e-12)
        if by == "level":
            by_level = result.energy_by_level()
            assert {part: pytest.approx(sum(values) * unit_pj(axes)) for part, values in
                    lengths.items()} == by_level  # fmt: skip
    layers = np.sum(list(lengths.values()), axis=0) * unit_pj(axes)
    assert layers == pytest.approx([row.energy_pj for row in result.layer_rows], rel=1e-9)


def test_parts_by_tensor_are_those_of_the_rows(run: Callable[..., Result]) -> None:
    result = run("digits_cnn", "eyeriss_absolute")
    frame = result.accesses
    parts = parts_of(result, "tensor")
    assert sum(parts["weight"]) == pytest.approx(frame[frame.tensor == "weight"].energy_pj.sum())
    assert sum(parts["static"]) == pytest.approx(frame[frame.level == "static"].energy_pj.sum())
    arithmetic = frame[frame.action == "compute"].energy_pj.sum()
    assert sum(parts["compute"]) == pytest.approx(arithmetic)


def test_variants_have_panels_with_one_scale(run: Callable[..., Result]) -> None:
    every = [run("vgg16"), run("vgg16", pattern="PS4_P4")]
    figure = plot.energy_figure(every)
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim()
    for axes, result in zip(figure.axes, every, strict=True):
        drawn = sum(map(sum, bars(axes).values())) * unit_pj(left)
        assert drawn == pytest.approx(result.total_energy_pj)
    assert [axes.get_title(loc="left").partition(":")[0] for axes in figure.axes] == [
        "dense", "PS4_P4",
    ]  # fmt: skip


@pytest.mark.parametrize("why", ["asked", "too many", "other layers"])
def test_variants_have_one_bar_each(run: Callable[..., Result], why: str) -> None:
    every = [run("digits_cnn"), run("digits_cnn", batch=2)]
    if why == "too many":
        every *= 5
    if why == "other layers":
        every.append(run("vgg16_ps"))
    figure = plot.energy_figure(every, totals=why == "asked")
    (axes,) = figure.axes
    lengths = np.sum(list(bars(axes).values()), axis=0) * unit_pj(axes)
    assert lengths == pytest.approx([each.total_energy_pj for each in every])


def test_what_tells_variants_apart(run: Callable[..., Result]) -> None:
    dense, sparse = run("vgg16"), run("vgg16", pattern="PS4_P4")
    assert variants_of([dense, sparse]) == ["dense", "PS4_P4"]
    assert variants_of([run("digits_cnn"), run("digits_cnn", batch=2)]) == ["batch 1", "batch 2"]
    assert common_title([dense, sparse])[0] == "vgg16 on edge_tpu"
    assert common_title([dense, run("digits_cnn")])[0] == "on edge_tpu"


def test_numbers_beside_bars_have_the_same_decimals() -> None:
    assert alike([1234.5, 12, 0.2]) == ["1234", "12", "<1"]
    assert alike([0.5, 0.25, 0]) == ["0.50", "0.25", "0"]


def test_nothing_to_draw() -> None:
    with pytest.raises(InputError, match="no result"):
        plot.energy_figure([])
    with pytest.raises(InputError, match="no result"):
        plot.traffic_figure([])
    with pytest.raises(InputError, match="no pattern"):
        plot.gallery([])


# -- traffic ---------------------------------------------------------------------------------------


def test_traffic_is_that_of_the_layers_and_lines_are_the_bounds(run: Callable[..., Result]) -> None:
    result = run("digits_cnn", "eyeriss")
    axes = plot.traffic(result, rows=100)
    moved = np.sum(list(bars(axes).values()), axis=0) * unit_pj(axes)
    assert moved == pytest.approx([row.dram_bytes for row in result.layer_rows])
    (lines,) = axes.collections
    ends = [segment[0][0] * unit_pj(axes) for segment in lines.get_segments()]
    assert ends == pytest.approx([row.dram_bound_bytes for row in result.layer_rows])
    assert sum(map(sum, traffic_of(result).values())) == pytest.approx(result.total_dram_bytes)


def test_traffic_says_how_far_above_the_bound() -> None:
    figure = plot.traffic_figure([made(["a", "b"], [8e6, 0.0])])
    texts = [words.get_text() for words in words_in(figure)]
    assert "1.00, 2.00x" in texts
    assert "0" in texts


def test_traffic_of_too_many() -> None:
    with pytest.raises(InputError, match=r"3 results are too many for 3\.5 inches"):
        plot.traffic_figure([made(["a"], [1.0])] * 3, width=3.5)
    with pytest.raises(InputError, match="different layers"):
        plot.traffic_figure([made(["a"], [1.0]), made(["b"], [1.0])])


# -- roofline --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hw", ["edge_tpu", "eyeriss", "eyeriss_v2", "nvdla_small", "shidiannao"])
def test_no_layer_is_above_its_roofs(run: Callable[..., Result], hw: str) -> None:
    for pattern in (None, "PS4_P4"):
        result = run("digits_cnn", hw, pattern)
        hardware = result.inputs[1]
        peak = peak_of(hardware)
        by_level = {roof.level: roof for roof in roofs_of(hardware)}
        points = points_of(result)
        assert points
        for point in points:
            assert point.speed <= by_level[point.level].at(point.intensity, peak) * (1 + 1e-9)


def test_points_of_the_roofline(run: Callable[..., Result]) -> None:
    result = run("digits_cnn")
    points = [point for point in points_of(result) if point.level == "DRAM"]
    rows = {row.layer: row for row in result.layer_rows if row.macs}
    assert [point.layer for point in points] == list(rows)
    for point in points:
        row = rows[point.layer]
        expected = row.macs / row.dram_bytes if row.dram_bytes else inf
        assert point.intensity == pytest.approx(expected)
        assert point.speed == pytest.approx(row.macs / row.time_ms / 1e6)
    axes = plot.roofline(result)
    offsets = np.asarray(axes.collections[0].get_offsets())
    assert np.isfinite(offsets).all()
    assert offsets[:, 1] == pytest.approx([point.speed for point in points])
    resident = [point.intensity == inf for point in points]
    assert any(resident), "the test needs a layer that moves nothing"
    finite = max(offsets[~np.array(resident), 0])
    assert (offsets[resident, 0] > finite).all()


def test_skipped_zeros_are_no_speed(run: Callable[..., Result]) -> None:
    data = es.load_hardware("edge_tpu").model_dump(mode="json")
    data["sparsity"]["weights"] = "skip"
    hardware = Hardware.model_validate_json(json.dumps(data))
    result = es.simulate(es.load_network("digits_cnn", pattern="PS4_P4"), hardware)
    rows = {row.layer: row for row in result.layer_rows}
    for point in points_of(result):
        row = rows[point.layer]
        assert point.speed == pytest.approx(row.effective_macs / row.time_ms / 1e6)


# -- tornado ---------------------------------------------------------------------------------------


def test_tornado_shows_intervals_and_steps(run: Callable[..., Result]) -> None:
    given = es.uncertainty(run("vgg16"))
    axes = plot.tornado(given, most=100)
    factor = unit_pj(axes)
    interval, step = axes.containers
    by_name = {each.constant: each for each in given.effects}
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(names) == sorted(by_name)
    for name, wide, thin in zip(names, interval, step, strict=True):
        each = by_name[name]
        assert wide.get_width() * factor == pytest.approx(each.interval_pj)
        low = given.total_pj - each.amount * (each.value - each.low)
        assert wide.get_x() * factor == pytest.approx(low)
        assert thin.get_width() * factor == pytest.approx(0.2 * each.energy_pj)
        middle = thin.get_x() + thin.get_width() / 2
        assert middle * factor == pytest.approx(given.total_pj)
    widths = [max(a.get_width(), b.get_width()) for a, b in zip(interval, step, strict=True)]
    assert widths == sorted(widths, reverse=True)


def test_tornado_counts_what_it_leaves_out(run: Callable[..., Result]) -> None:
    figure = plot.tornado_figure(run("vgg16"), most=2)
    texts = [words.get_text() for words in words_in(figure)]
    count = len(es.uncertainty(run("vgg16")).effects) - 2
    assert any(text.startswith(f"{count} more: ") for text in texts)
    assert len(figure.axes[0].containers[0]) == 2


# -- patterns --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PATTERNS, "5x5_0.6.12_2.22_F3", "1x7_0.3_2.6"])
def test_kernels_are_those_of_the_slots(name: str) -> None:
    pattern = get_pattern(name)
    kernels = kernels_of(pattern)
    if pattern.slots:
        assert [kernel.live for kernel in kernels] == [frozenset(taps) for taps in pattern.slots]
        assert [kernel.dense for kernel in kernels] == [
            pattern.fdk and taps == pattern.all_taps for taps in pattern.slots
        ]
    else:
        assert {len(kernel.live) for kernel in kernels} == {pattern.kss}
    axes = plot.gallery([pattern])
    live = [each for each in axes.patches if each.get_label() == "live"]
    assert len(live) == sum(len(kernel.live) for kernel in kernels)


def test_blocks_of_channels_are_those_of_the_mask() -> None:
    for kernel in kernels_of(get_pattern("2:4")):
        rows = [[tap // 9 for tap in kernel.live if tap % 9 == column] for column in range(9)]
        assert all(len(each) == 2 for each in rows)
    from energysim.axes import Shape

    shape = Shape((1, 1, 4, 4, 1, 1, 3, 3), size=(3, 3))
    mask = Mask.of("2:4", shape, 0).array()[0]
    drawn = [kernel.live for kernel in kernels_of(get_pattern("2:4"))]
    assert drawn == [frozenset(np.flatnonzero(mask[k])) for k in range(4)]


def test_places_of_taps_are_row_major() -> None:
    axes = plot.gallery([Pattern.of([[1], [5]], (2, 3))])
    squares = [each for each in axes.patches if isinstance(each, Rectangle)]
    taps = [each for each in squares if each.get_label() in ("live", "dead")][6:12]
    (live,) = [place for place, each in enumerate(taps) if each.get_label() == "live"]
    assert live == 1
    assert taps[1].get_x() > taps[0].get_x()
    assert taps[3].get_y() > taps[0].get_y()


# -- mapping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "hw", "layer"),
    [("vgg16_ps", "edge_tpu", "conv3_2"), ("digits_cnn", "eyeriss", "conv2"),
     ("digits_cnn", "edge_tpu", "pool1"), ("digits_cnn", "shidiannao", "fc")],
)  # fmt: skip
def test_boxes_say_what_the_mapping_is(
    run: Callable[..., Result], net: str, hw: str, layer: str
) -> None:
    result = run(net, hw)
    boxes = boxes_of(result, layer)
    assert [box.level for box in boxes] == [level.name for level in result.inputs[1].levels]
    by_level = {row.level: row for row in result.mappings[layer]}
    rooms = {room.level: room for room in result.rooms[layer]}
    for place, box in enumerate(boxes):
        row = by_level.get(box.level)
        loops = [loop for loop in box.loops if loop.startswith(("for", "parallel"))]
        assert len(loops) == (len(row.temporal) + len(row.spatial) if row else 0)
        if place in rooms:
            room = rooms[place]
            size = room.capacity_bits
            whole = size if isinstance(size, int) else sum(size.values())
            assert box.full == pytest.approx(room.used_bits / whole)
    axes = plot.mapping(result, layer)
    texts = [words.get_text() for words in axes.texts]
    for box in boxes:
        assert box.level in texts
        assert all(loop in texts for loop in box.loops)


def test_a_layer_that_is_not_there(run: Callable[..., Result]) -> None:
    with pytest.raises(InputError, match=r"no layer named 'conv9'\. Did you mean"):
        plot.mapping(run("digits_cnn"), "conv9")


def test_a_step_of_training_is_a_layer(run: Callable[..., Result]) -> None:
    result = run("digits_cnn", phase="training", batch=2)
    assert boxes_of(result, "conv2.dw")
    assert plot.energy(result).containers


# -- training --------------------------------------------------------------------------------------


def trained(out: Path, network: str, seed: int, losses: Sequence[float]) -> None:
    """A folder as the trainer leaves it."""
    from energysim.train.record import COLUMNS, log_text

    folder = out / f"{network}_s{seed}"
    folder.mkdir(parents=True)
    row = dict.fromkeys([*COLUMNS, "job"], "")
    row |= {"network": network, "dataset": "digits", "epochs": len(losses), "seed": seed}
    (folder / "result.json").write_text(json.dumps(row))
    records = [
        {"epoch": epoch, "train_loss": loss, "train_top1": 1 - loss / 4, "test_loss": loss + 0.1,
         "test_top1": 0.9 - loss / 4}
        for epoch, loss in enumerate(losses, start=1)
    ]  # fmt: skip
    (folder / "log.jsonl").write_text(log_text(records))


def test_curves_are_means_with_bands(tmp_path: Path) -> None:
    trained(tmp_path, "net", 0, [2.0, 1.0, 0.5])
    trained(tmp_path, "net", 1, [1.0, 0.5, 0.5])
    trained(tmp_path, "net+PS4_P4", 0, [2.0, 1.5, 1.0])
    (tmp_path / "unfinished").mkdir()
    sparse, dense = sorted(plot.read_curves(tmp_path), key=lambda each: each.seeds)
    assert (dense.label, dense.seeds, sparse.label) == ("net", 2, "net+PS4_P4")
    axes = plot.curves([dense, sparse], "top1")
    by_label = {str(line.get_label()): line for line in axes.lines}
    top1 = np.asarray(by_label["net test"].get_ydata())
    assert top1 == pytest.approx([52.5, 71.25, 77.5])
    assert np.asarray(by_label["net train"].get_ydata()) == pytest.approx([62.5, 81.25, 87.5])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((40.0, 77.5))
    (alone,) = plot.read_curves(tmp_path / "net_s0")
    assert alone.mean("test_loss") == pytest.approx([2.1, 1.1, 0.6])


@pytest.mark.parametrize("groups", [1, 3, 16])
@pytest.mark.parametrize("width", WIDTHS)
def test_names_of_curves_keep_apart(tmp_path: Path, groups: int, width: float) -> None:
    for place in range(groups):
        base, pattern = ("vgg16", "resnet18")[place % 2], f"+P{place // 2}" if place > 1 else ""
        trained(tmp_path, base + pattern, 0, [2.0, 1.0 + 0.001 * place])
    figure = plot.training_figure(plot.read_curves(tmp_path), width=width, title="runs")
    assert collisions(figure) == []


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12))
def test_places_are_apart_and_inside(wanted: list[float]) -> None:
    places = apart(wanted, 5.0, (0.0, 100.0))
    ordered = sorted(places)
    assert all(b - a >= 5.0 - 1e-9 for a, b in pairwise(ordered))
    assert ordered[0] >= 0
    assert ordered[-1] <= 100
    by_wanted = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    assert [places[i] for i in by_wanted] == ordered


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", "the file is empty"),
        ("\n \n", "empty|has no epoch"),
        ("{}\n", "is no log of a run"),
        ("no json\n", "is no log of a run"),
    ],
)
def test_logs_that_are_none(tmp_path: Path, log: str, words: str) -> None:
    trained(tmp_path, "net", 0, [1.0])
    (tmp_path / "net_s0" / "log.jsonl").write_text(log)
    with pytest.raises(InputError, match=words):
        plot.read_curves(tmp_path)


def test_names_that_look_like_formulas_are_names() -> None:
    name = r"a$\frac$b_c"
    losses = {f"{part}_{word}": ((1.0,), (0.5,)) for part in ("train", "test")
              for word in ("loss", "top1")}  # fmt: skip
    given = [Curve(f"net, {name}{i}", 1, (1, 2), losses) for i in range(2)]
    figure = plot.training_figure(given, title=name)
    settle(figure)
    words = [each.get_text() for each in words_in(figure)]
    assert {name, f"net, {name}0"} <= set(words)


def test_a_folder_without_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run"):
        plot.read_curves(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        plot.read_curves(tmp_path / "nowhere")


# -- words keep clear of each other ----------------------------------------------------------------

LONG = "a_rather_long_name_of_a_layer_as_exporters_like_to_give_them.conv"
EXTREMES = {
    "one layer": (["conv"], [1.0]),
    "nothing": (["conv", "fc"], [0.0, 0.0]),
    "huge ratio": (["a", "b", "c"], [1e-3, 1e15, 1.0]),
    "long names": ([f"{LONG}{i}" for i in range(30)], [float(i + 1) for i in range(30)]),
    "188 layers": (layers_of("densenet121"), [float(i % 7) * 1e6 for i in range(188)]),
    "300 of no stage": ([f"layer{i}" for i in range(300)], [1e3] * 300),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", EXTREMES)
def test_words_keep_apart_in_extremes(case: str, width: float) -> None:
    costs = made(*EXTREMES[case])
    for figure in (
        plot.energy_figure([costs], width=width),
        plot.energy_figure([costs, costs], width=width, by="tensor"),
        plot.energy_figure([costs] * 9, width=width),
        plot.traffic_figure([costs], width=width),
        plot.roofline_figure(costs, width=width),
        plot.tornado_figure(costs, width=width) if case != "nothing" else Figure(),
    ):
        assert collisions(figure) == []


@pytest.mark.parametrize("width", [3.0, *WIDTHS])
def test_long_names_of_levels_and_patterns_leave_room(width: float) -> None:
    long = "a_very_long_name_of_a_level_that_never_ends"
    hardware = es.load_hardware("edge_tpu")
    levels = [hardware.levels[0], hardware.levels[1].model_copy(update={"name": long}),
              *hardware.levels[2:]]  # fmt: skip
    hardware = hardware.model_copy(update={"levels": tuple(levels)})
    result = es.simulate(es.load_network("digits_cnn"), hardware)
    costs = made(["conv"], [1.0])
    patterned = replace(costs, pattern="3x3" + "_0.1.3.4_4.5.7.8" * 4)
    totals = plot.energy_figure([costs, patterned], width=width, totals=True)
    for figure in (
        totals,
        plot.energy_figure([result], width=width),
        plot.roofline_figure(result, width=width),
        plot.tornado_figure(result, width=width),
        plot.mapping_figure(result, "conv2", width=width),
        plot.mapping_figure(result, "pool1", width=width),
    ):
        assert collisions(figure) == []
        settle(figure)
        assert figure.axes[0].get_window_extent().width > 0.35 * figure.bbox.width


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("net", "hw"),
    [("digits_cnn", "edge_tpu"), ("vgg16_ps", "edge_tpu"), ("mobilenet_v2", "edge_tpu"),
     ("digits_cnn", "eyeriss")],
)  # fmt: skip
def test_words_keep_apart(run: Callable[..., Result], net: str, hw: str, width: float) -> None:
    result = run(net, hw)
    layer = result.layer_rows[len(result.layer_rows) // 2].layer
    for figure in (
        plot.energy_figure([result], width=width),
        plot.energy_figure([result], width=width, by="tensor"),
        plot.energy_figure([result], width=width, rows=200),
        plot.energy_figure([result, result], width=width),
        plot.traffic_figure([result], width=width),
        plot.roofline_figure(result, width=width),
        plot.tornado_figure(result, width=width),
        plot.mapping_figure(result, layer, width=width),
    ):
        assert collisions(figure) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_words_of_the_gallery_keep_apart(width: float) -> None:
    own = [
        "2:4",
        "1:8",
        "5x5_0.6.12_2.22_F3",
        "7x7_" + "_".join(f"{i}.{i + 20}" for i in range(12)),
    ]
    patterns = [*PATTERNS.values(), *map(get_pattern, own)]
    assert collisions(plot.gallery_figure(patterns, width=width)) == []


def test_one_layer_that_does_not_multiply_is_one(run: Callable[..., Result]) -> None:
    costs = made(["conv", "pool"], [1.0, 1.0])
    pool = replace(costs.layer_rows[1], macs=0, effective_macs=0)
    figure = plot.roofline_figure(replace(costs, layer_rows=(costs.layer_rows[0], pool)))
    words = [each.get_text() for each in words_in(figure)]
    assert "without 1 layer that doesn't multiply" in words
    words = [each.get_text() for each in words_in(plot.roofline_figure(run("digits_cnn")))]
    assert "without 2 layers that don't multiply" in words


def test_names_of_points_keep_off_points_and_roofs(run: Callable[..., Result]) -> None:
    figure = plot.roofline_figure(run("mobilenet_v2"), width=7.0)
    settle(figure)
    (axes,) = figure.axes
    names = [words for words in axes.texts if words.get_rotation() == 0 and "GMAC" not in
             words.get_text()]  # fmt: skip
    assert names
    points = [axes.transData.transform(place) for each in axes.collections
              for place in np.asarray(each.get_offsets())]  # fmt: skip
    for words in names:
        box = box_of(words)
        assert not any(box.contains(*point) for point in points), words.get_text()
        for line in axes.lines:
            path = line.get_path().transformed(axes.transData)
            assert not path.intersects_bbox(box, filled=False), words.get_text()


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", plot.FORMS)
def test_same_input_same_bytes(run: Callable[..., Result], suffix: str, tmp_path: Path) -> None:
    result = run("digits_cnn")
    trained(tmp_path, "net", 0, [2.0, 1.0])
    found = plot.read_curves(tmp_path)
    figures: dict[str, Callable[[], Figure]] = {
        "energy": lambda: plot.energy_figure([result]),
        "traffic": lambda: plot.traffic_figure([result]),
        "roofline": lambda: plot.roofline_figure(result),
        "tornado": lambda: plot.tornado_figure(result),
        "gallery": lambda: plot.gallery_figure([PATTERNS["PSD4_P8"]]),
        "mapping": lambda: plot.mapping_figure(result, "conv2"),
        "training": lambda: plot.training_figure(found),
    }
    for name, draw in figures.items():
        paths = [tmp_path / f"{name}{i}{suffix}" for i in range(2)]
        for path in paths:
            plot.save(draw(), path)
        one, other = (path.read_bytes() for path in paths)
        assert one == other, name
        assert one.startswith((b"\x89PNG", b"<?xml", b"%PDF"))


@pytest.mark.parametrize("width", WIDTHS)
def test_pictures_are_as_wide_as_asked(run: Callable[..., Result], width: float) -> None:
    result = run("digits_cnn")
    for figure in (
        plot.energy_figure([result], width=width),
        plot.roofline_figure(result, width=width),
        plot.gallery_figure([PATTERNS["dense"]], width=width),
    ):
        assert figure.get_size_inches()[0] == width


# -- saved results ---------------------------------------------------------------------------------


def test_a_saved_result_gives_the_same_pictures(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("digits_cnn", "eyeriss_absolute")
    result.to_json(tmp_path / "run.json")
    saved = plot.read_costs(tmp_path / "run.json")
    assert saved.total_energy_pj == result.total_energy_pj
    assert saved.total_energy_mj == result.total_energy_mj
    for draw in (
        lambda costs: plot.energy_figure([costs]),
        lambda costs: plot.traffic_figure([costs]),
        plot.roofline_figure,
        plot.tornado_figure,
    ):
        for name, costs in (("a", result), ("b", saved)):
            plot.save(draw(costs), tmp_path / f"{name}.svg")
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def broken_file(change: Callable[[dict[str, Any]], object], result: Result, path: Path) -> Path:
    data = result.to_dict()
    change(data)
    path.write_text(json.dumps(data))
    return path


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no layers": (lambda data: data.pop("layers"), "has no layers"),
    "no column": (lambda data: data["layers"][0].pop("energy_pj"), "energy_pj"),
    "text for a number": (lambda data: data["layers"][0].update(energy_pj="3"), "energy_pj is '3'"),
    "a list": (lambda data: data.update(layers=[1]), "was changed"),
    "an unknown layer": (lambda data: data["accesses"][0].update(layer="x"), "no layer named x"),
    "an unknown level": (lambda data: data["accesses"][0].update(level="L9"), "no level named L9"),
    "no settings": (lambda data: data["settings"].pop("batch"), "batch"),
    "other hardware": (lambda data: data["hardware"].pop("levels"), "levels"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_saved_results_that_are_broken(
    run: Callable[..., Result], tmp_path: Path, case: str
) -> None:
    change, words = CHANGES[case]
    path = broken_file(change, run("digits_cnn"), tmp_path / "run.json")
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        plot.read_costs(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"layers": []}'])
def test_files_that_are_no_results(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"run\.json: (is no JSON|has no|the file is empty)"):
        plot.read_costs(path)


def test_rows_are_named_once() -> None:
    assert Row("a", (0,)) == rows_of(["a"])[0]
