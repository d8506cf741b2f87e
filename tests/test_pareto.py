"""Accuracies joined with costs: sources, what is left out or refused, intervals, probabilities."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import energysim as es
from energysim.cache import Cache, folder
from energysim.errors import DoesNotFitError, InputError, InputErrors
from energysim.pareto import (
    QUANTITIES,
    Accuracies,
    Accuracy,
    ParetoTable,
    chance,
    front_probability,
    join,
    left_out_lines,
    load_accuracies,
    network_named,
    non_dominated,
    pareto,
)
from energysim.train.job import digest
from energysim.train.record import COLUMNS
from energysim.uncertainty import uncertainty
from energysim.version import VERSION

ROOT = Path(__file__).parent.parent
CHIP = es.load_hardware("edge_tpu")


def table_of(accuracies: Accuracies, **options: Any) -> ParetoTable:
    return pareto(accuracies, options.pop("chip", CHIP), cache=Cache(folder()), **options)


def known(*rows: tuple[str, str, float], **more: Any) -> Accuracies:
    return Accuracies("a test", "a test", tuple(Accuracy(*row, **more) for row in rows))


DIGITS = known(
    ("digits_cnn", "dense", 97.0), ("digits_cnn", "PS4_P4", 96.0), ("digits_cnn", "PS1_P9", 90.0),
    ("digits_cnn", "PSD4_P8", 95.0),
)  # fmt: skip


# -- a CSV of the user's ---------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.csv"
    path.write_text(text)
    return path


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "# measured on my board\nnetwork,pattern,accuracy_percent,std_percent\n"
        "digits_cnn,,97.5,0.25\n\ndigits_cnn, ps4_p4 ,96,\n",
    )
    found = load_accuracies(path)
    assert [(row.network, row.pattern, row.percent, row.std) for row in found.rows] == [
        ("digits_cnn", "dense", 97.5, 0.25),
        ("digits_cnn", "PS4_P4", 96.0, None),
    ]
    assert found.rows[1].where == f"{path}:5"
    assert (found.dataset, found.metric, found.label) == ("", "", "accuracy")
    table = table_of(found)
    assert {point.candidate.network.name for point in table.points} == {
        "digits_cnn", "digits_cnn+PS4_P4"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ": the file is empty"),
        ("# nothing yet\n", ": is empty"),
        ("network,pattern,accuracy_percent\n", ": has no row"),
        ("network,pattern\nx,dense\n", ":1: column accuracy_percent is missing"),
        ("network,pattern,accuracy_percent,std\n", "no column named 'std'. Allowed: network, "),
        ("network;pattern;accuracy_percent\nx;dense;3\n", ":1: columns stand between semicolons"),
        ("network\tpattern\taccuracy_percent\n", ":1: columns stand between tabs, not commas"),
        ("network,network,pattern,accuracy_percent\n", ":1: column 'network' stands here twice"),
        ("network,pattern,accurracy_percent\n", "Did you mean 'accuracy_percent'?"),
        ("network,pattern,accuracy_percent\nx,dense\n", ":2: has 2 values for 3 columns"),
        ("network,pattern,accuracy_percent\nx,dense,\n", ":2 accuracy_percent: must be a number"),
        ("network,pattern,accuracy_percent\nx,dense,101\n", "got '101'"),
        ("network,pattern,accuracy_percent\nx,dense,nan\n", "got 'nan'"),
        ("network,pattern,accuracy_percent\n,dense,3\n", ":2 network: must not be empty"),
        ("network,pattern,accuracy_percent\nx,PS5_P4,3\n", ":2 pattern: "),
        ("network,pattern,accuracy_percent,std_percent\nx,dense,3,-1\n", ":2 std_percent: must"),
        ("network,pattern,accuracy_percent\nx,dense,3\nx,,4\n", ":3: x with dense stands at "),
    ],
)  # fmt: skip
def test_mistakes_in_a_table_have_their_line(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_accuracies(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("percent", "notes"), [("0.97", 1), ("97", 0)])
def test_shares_that_stand_for_percent_are_pointed_at(
    tmp_path: Path, percent: str, notes: int
) -> None:
    head = "network,pattern,accuracy_percent\n"
    path = written(tmp_path, f"{head}digits_cnn,dense,{percent}\ndigits_cnn,PS4_P4,0.9\n")
    found = load_accuracies(path).notes
    assert len(found) == notes
    assert all("multiply them by 100" in note for note in found)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "network,pattern,accuracy_percent\nx,no,3\ny,dense,-1\n")
    with pytest.raises(InputErrors) as caught:
        load_accuracies(path)
    assert len(caught.value.problems) == 2


def test_a_table_has_neither_data_set_nor_metric(tmp_path: Path) -> None:
    path = written(tmp_path, "network,pattern,accuracy_percent\ndigits_cnn,dense,97\n")
    for option in ({"dataset": "digits"}, {"metric": "top1"}):
        with pytest.raises(InputError, match="says nothing of a"):
            load_accuracies(path, **option)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("publishd", {}, "there is no 'publishd'"),
        ("published", {"dataset": "cifar-100"}, "Known: CIFAR-10, Tiny ImageNet"),
        ("published", {"metric": "top3"}, "top1 or top5"),
    ],
)
def test_sources_that_there_are_not(source: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_accuracies(source, **options)


# -- published -------------------------------------------------------------------------------------


def test_top1_and_top5_are_never_in_one_front() -> None:
    for metric, count in (("top5", 26), ("top1", 2)):
        found = load_accuracies("published", dataset="tiny imagenet", metric=metric)
        assert (len(found.rows), found.metric, found.dataset) == (count, metric, "Tiny ImageNet")
    assert load_accuracies("published", dataset="Tiny ImageNet").metric == "top5"
    with pytest.raises(InputError, match=r"published as top1 only.*--metric top1"):
        table_of(load_accuracies("published", dataset="TinyImageNet"), networks=["mobilenet_v2"])


def test_a_network_goes_by_the_name_of_the_paper_too() -> None:
    found = load_accuracies("published", dataset="Tiny ImageNet", metric="top1")
    (point,) = table_of(found, networks=["mobilenet_v2"], quantity="parameters").points
    assert point.candidate.network.input_size == (3, 64, 64)
    assert point.candidate.network.layers[-1].output == (200, 1, 1)


def test_what_has_no_accuracy_is_left_out_with_the_reason() -> None:
    found = load_accuracies("published")
    table = table_of(found, networks=["mobilenet_v2", "alexnet"], patterns=["dense", "PS4_P4"])
    assert [point.candidate.network.name for point in table.points] == ["mobilenet_v2"]
    assert list(left_out_lines(table.left_out)) == [
        "mobilenet_v2 with PS4_P4: no accuracy in the published results on CIFAR-10",
        "alexnet with dense, PS4_P4: no accuracy in the published results on CIFAR-10",
    ]


def test_a_variant_stands_for_its_pattern() -> None:
    table = table_of(load_accuracies("published"), networks=["vgg16_ps"], patterns=["dense"])
    (point,) = table.points
    assert (point.candidate.base, point.candidate.network.name) == ("vgg16", "vgg16_ps")
    assert point.percent == 92.51


def test_another_network_of_the_same_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "networks" / "mobilenet_v2.yaml").read_text()
    (tmp_path / "mobilenet_v2.yaml").write_text(text.replace("[3, 32, 32]", "[3, 64, 64]"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputErrors, match="of another network than this one, which has 3"):
        table_of(load_accuracies("published"), networks=["mobilenet_v2"])


def test_nothing_left_says_why() -> None:
    with pytest.raises(InputError, match="no network named 'vgg61'"):
        table_of(load_accuracies("published"), networks=["vgg61"])
    with pytest.raises(InputError, match=r"nothing that is asked for(.|\n)*alexnet with dense"):
        table_of(load_accuracies("published"), networks=["alexnet"])


# -- runs ------------------------------------------------------------------------------------------


def run_row(word: str = "digits_cnn", pattern: str = "dense", **changes: Any) -> dict[str, Any]:
    network = network_named(word).with_pattern(pattern)
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {
        "network": network.name,
        "pattern": pattern,
        "dataset": "digits",
        "synthetic": False,
        "seed": 0,
        "epochs": 3,
        "top1": 0.9,
        "top5": 0.99,
        "parameters": network.parameters,
        "macs": network.macs,
        "effective_macs": network.effective_macs,
        "classes": 10,
        "dataset_sha256": "d",
        "recipe_sha256": "r",
        "network_sha256": digest([asdict(layer) for layer in network.layers]),
        "backend": "numpy 2.0",
        "energysim": VERSION,
        "run": f"{network.name}_s0",
    }
    return row | changes


@pytest.fixture
def runs(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: dict[str, Any]) -> Path:
        with (tmp_path / "accuracy.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path

    return write


def test_seeds_give_mean_and_spread(runs: Callable[..., Path]) -> None:
    out = runs(
        *(run_row(seed=i, top1=share) for i, share in enumerate((0.90, 0.92, 0.97))),
        run_row(pattern="PS4_P4", top1=0.88),
    )
    for source in (out, out / "accuracy.csv"):
        found = load_accuracies(source)
        dense, sparse = found.rows
        assert (dense.percent, dense.std) == (pytest.approx(93), pytest.approx(3.605551275))
        assert (dense.seeds, sparse.seeds, sparse.std) == (3, 1, None)
        assert (sparse.network, sparse.pattern) == ("digits_cnn", "PS4_P4")
        assert any("1 of 2 accuracies are of one seed" in note for note in found.notes)
    table = table_of(found)
    assert [point.candidate.network.pattern for point in table.points] == ["PS4_P4", "dense"]
    assert load_accuracies(out, metric="top5").rows[0].percent == pytest.approx(99)


def test_what_a_name_says_differs_from_the_file_is_loaded_so(runs: Callable[..., Path]) -> None:
    word = "resnet18-x0.125-64px-c7"
    (point,) = table_of(load_accuracies(runs(run_row(word, "PS2_P6")))).points
    assert point.candidate.network.name == f"{word}+PS2_P6"
    assert point.candidate.network.input_size == (3, 64, 64)
    (same,) = table_of(load_accuracies(runs(run_row(word, "PS2_P6"))), networks=[word]).points
    assert same.cost == point.cost


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": 7}, "parameters in place of 7"),
        ({"macs": 8}, "macs in place of 8"),
        ({"effective_macs": 9}, "effective macs in place of 9"),
        ({"network_sha256": "0"}, "other layers"),
    ],
)
def test_runs_of_another_network_are_refused(
    runs: Callable[..., Path], changes: dict[str, Any], words: str
) -> None:
    found = load_accuracies(runs(run_row(**changes), run_row(pattern="PS4_P4")))
    with pytest.raises(InputErrors) as caught:
        table_of(found)
    assert words in str(caught.value)
    assert "accuracy.csv: digits_cnn_s0" in str(caught.value)
    assert len(caught.value.problems) == 1


def test_hashes_of_another_version_are_not_compared(runs: Callable[..., Path]) -> None:
    out = runs(run_row(network_sha256="0", energysim="0.0.1"))
    assert len(table_of(load_accuracies(out)).points) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe_sha256": "other"}, "trained in 2 ways (they differ in recipe)"),
        ({"dataset_sha256": "other"}, "differ in images"),
        ({"backend": "torch 2.2"}, "differ in back-end"),
        ({"network_sha256": "other"}, "differ in network"),
        ({"dataset": "cifar10"}, "on 2 data sets, which can't be compared: digits, cifar10"),
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_refused(
    runs: Callable[..., Path], change: dict[str, Any], words: str
) -> None:
    out = runs(run_row(), run_row(seed=1, **change))
    with pytest.raises(InputError) as caught:
        load_accuracies(out)
    assert words in str(caught.value)


def test_one_data_set_of_several(runs: Callable[..., Path]) -> None:
    out = runs(run_row(), run_row(seed=1, dataset="cifar10_jpeg", top1=0.5))
    found = load_accuracies(out, dataset="CIFAR10-JPEG")
    assert [(row.percent, found.dataset) for row in found.rows] == [(50, "cifar10_jpeg")]


def test_notes_say_what_a_reader_should_know(runs: Callable[..., Path]) -> None:
    found = load_accuracies(
        runs(run_row(synthetic=True), run_row(pattern="PS4_P4", epochs=9, synthetic=True))
    )
    assert any("synthetic" in note for note in found.notes)
    assert any("different ways" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no accuracy.csv in it"),
        ("a,b\n", "accuracy.csv:1: has no column network"),
        (",".join(COLUMNS) + "\n", "no finished run"),
        (",".join(COLUMNS) + "\n1,2\n", "accuracy.csv:2: "),
        (",".join(COLUMNS) + "\n" + ",".join("x" for _ in COLUMNS) + "\n", "accuracy.csv:2: "),
    ],
)
def test_what_is_no_folder_of_runs(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "accuracy.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        load_accuracies(tmp_path)
    assert words in str(caught.value)


def test_accuracies_that_are_no_shares_are_refused(runs: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="top1 must be a share"):
        load_accuracies(runs(run_row(top1=93)))


def test_runs_of_networks_that_are_gone_are_left_out(runs: Callable[..., Path]) -> None:
    out = runs(run_row(), run_row(network="gone", run="gone_s0"))
    table = table_of(load_accuracies(out))
    assert len(table.points) == 1
    (line,) = left_out_lines(table.left_out)
    assert line.startswith("gone: no network named 'gone'")


# -- costs, the front and its knee -----------------------------------------------------------------


@pytest.mark.parametrize("name", QUANTITIES)
def test_costs_are_those_of_a_run_for_one_image(name: str) -> None:
    table = table_of(DIGITS, quantity=name, batch=3, patterns=["dense", "PS4_P4"])
    of = {
        "energy": lambda r: r.total_energy_mj / 3,
        "latency": lambda r: r.total_time_ms / 3,
        "dram": lambda r: r.total_dram_bytes / 3,
        "parameters": lambda r: r.inputs[0].parameters,
        "training-energy": lambda r: r.total_energy_mj / 3,
    }[name]
    phase = "training" if name == "training-energy" else "inference"
    for point in table.points:
        own = es.simulate(
            point.candidate.network, CHIP, batch=3, phase=phase, cache=Cache(folder())
        )
        assert point.cost == pytest.approx(of(own), rel=1e-12)
        if QUANTITIES[name].is_energy:
            spread = uncertainty(own)
            assert point.low == pytest.approx(spread.low_pj / 3e9)
            assert point.high == pytest.approx(spread.high_pj / 3e9)
        else:
            assert point.low == point.cost == point.high


def test_front_and_knee_of_the_table() -> None:
    table = table_of(DIGITS)
    costs = [point.cost for point in table.points]
    assert costs == sorted(costs)
    both = [(point.cost, -point.percent) for point in table.points]
    assert [point.on_front for point in table.points] == non_dominated(both).tolist()
    assert [point.candidate.network.pattern for point in table.front] == [
        "PS1_P9", "PS4_P4", "dense"
    ]  # fmt: skip
    assert table.knee is not None
    assert table.knee.candidate.network.pattern == "PS4_P4"
    # exact accuracies and shared constants: fewer weights cost less whatever the constants
    assert [point.probability for point in table.points] == [1, 1, 0, 1]
    one, two, three = table.front
    by_hand = (two.cost - one.cost) * (90 - 80) + (three.cost - two.cost) * (96 - 80)
    assert table.hypervolume(three.cost, 80) == pytest.approx(by_hand)


def test_what_fits_nowhere_is_left_out_or_told() -> None:
    small = CHIP.levels[1].model_copy(update={"capacity_kib": 0.0625})
    chip = CHIP.model_copy(update={"levels": (CHIP.levels[0], small, *CHIP.levels[2:])})
    with pytest.raises(DoesNotFitError):
        table_of(DIGITS, chip=chip)


def test_what_fits_no_mapping_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = join.simulate

    def fussy(network: Any, *rest: Any, **more: Any) -> Any:
        if network.pattern == "PS4_P4":
            raise DoesNotFitError("conv1 fits no mapping")
        return real(network, *rest, **more)

    monkeypatch.setattr(join, "simulate", fussy)
    table = table_of(DIGITS)
    assert len(table.points) == 3
    assert list(left_out_lines(table.left_out)) == ["digits_cnn with PS4_P4: conv1 fits no mapping"]


def test_stopping_says_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = join.simulate

    def stopped(network: Any, *rest: Any, **more: Any) -> Any:
        if network.pattern == "PS1_P9":
            raise KeyboardInterrupt
        return real(network, *rest, **more)

    monkeypatch.setattr(join, "simulate", stopped)
    with pytest.raises(KeyboardInterrupt, match="2 of 4 networks were done"):
        table_of(DIGITS)


@pytest.mark.parametrize("quantity", ["energy", "training-energy"])
def test_progress_runs_once_through_all_layers(quantity: str) -> None:
    told: list[tuple[int, int, str]] = []
    table_of(DIGITS, quantity=quantity, progress=lambda *each: told.append(each))
    done = [each[0] for each in told]
    assert done == sorted(done)
    assert {each[1] for each in told} == {4 * len(network_named("digits_cnn").layers)}
    assert done[-1] == told[-1][1]
    assert told[0][2].startswith("digits_cnn ")


def test_an_unknown_quantity_is_refused() -> None:
    with pytest.raises(InputError, match="energy, latency, dram"):
        table_of(DIGITS, quantity="area")


def test_rows_and_data_hold_everything() -> None:
    table = table_of(replace(DIGITS, dataset="digits"), patterns=["PS4_P4"])
    (row,) = table.rows()
    assert row["energy_low_mj"] < row["energy_mj"] < row["energy_high_mj"]
    assert (row["network"], row["base"], row["dataset"]) == (
        "digits_cnn+PS4_P4", "digits_cnn", "digits"
    )  # fmt: skip
    data = json.loads(json.dumps(table.to_dict()))
    assert data["probability"] == {"draws": 10_000, "seed": chance.SEED}
    assert data["settings"]["patterns"] == ["PS4_P4"]
    assert len(data["rows"][0]["network_sha256"]) == 64


# -- probabilities ---------------------------------------------------------------------------------


def test_triangular_is_the_inverse_of_its_distribution() -> None:
    low, mode, high = np.array([0.0, 1.0, 2.0, 5.0]), np.array([0.0, 1.0, 3.0, 5.0]), np.array(
        [2.0, 1.0, 3.0, 9.0]
    )  # fmt: skip
    shares = np.linspace(0, 1, 41)[:, None] * np.ones(4)
    values = chance.triangular(shares, low, mode, high)
    assert (np.diff(values, axis=0) >= 0).all()
    assert values[0].tolist() == low.tolist()
    assert values[-1].tolist() == high.tolist()
    for i in (0, 2, 3):
        below = np.where(
            values[:, i] <= mode[i],
            (values[:, i] - low[i]) ** 2 / max((high[i] - low[i]) * (mode[i] - low[i]), 1e-300),
            1
            - (high[i] - values[:, i]) ** 2 / max((high[i] - low[i]) * (high[i] - mode[i]), 1e-300),
        )
        assert below == pytest.approx(shares[:, i])


def test_triangular_has_the_mean_of_three_points() -> None:
    ends = [np.array([each]) for each in (0.1, 0.3, 1.15)]
    shares = np.random.default_rng(1).random((200_000, 1))
    assert chance.triangular(shares, *ends).mean() == pytest.approx(1.55 / 3, rel=0.005)


def accuracies(percent: list[float], std: float = 0.0, either_way: float = 0.0) -> Any:
    own = np.array(percent)
    return chance.Accuracies(own, np.full(own.size, std), np.full(own.size, either_way))


def constants(amounts: list[list[float]], low: float, high: float) -> chance.Constants:
    count = len(amounts[0])
    ends = (np.full(count, each) for each in (1.0, low, high))
    return chance.Constants(tuple("abcdef"[:count]), *ends, np.array(amounts))


def test_constants_are_shared() -> None:
    # intervals overlap widely, and yet the second costs twice the first in every draw
    found = front_probability(
        np.array([1.0, 2.0]), accuracies([90.0, 89.0]), constants([[1.0], [2.0]], 0.2, 5.0)
    )
    assert found.tolist() == [1, 0]


def test_probability_against_its_formula() -> None:
    # equal means, constants alike and each with a candidate of its own: either is cheaper half of
    # the time, and the other, the less accurate one, then beaten half of the time
    found = front_probability(
        np.array([1.0, 1.0]),
        accuracies([90.0, 89.0]),
        constants([[1.0, 0.0], [0.0, 1.0]], 0.5, 1.5),
    )
    assert found == pytest.approx([1, 0.5], abs=0.02)
    # normal difference of two accuracies with mean 1 and deviation sqrt(2) * 0.5
    found = front_probability(np.array([1.0, 2.0]), accuracies([90.0, 91.0], std=0.5), None)
    assert found == pytest.approx([1, 0.92135], abs=0.01)
    # uniform: two values within 0.05, the second on average 0.02 better
    found = front_probability(np.array([1.0, 2.0]), accuracies([90, 90.02], either_way=0.05), None)
    assert found == pytest.approx([1, 1 - 0.08**2 / 2 / 0.1**2], abs=0.02)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(50, 60)), min_size=1, max_size=12))
def test_without_uncertainty_the_front_is_certain(pairs: list[tuple[int, int]]) -> None:
    costs, percents = (np.array(each, dtype=np.float64) for each in zip(*pairs, strict=True))
    kept = non_dominated(np.column_stack([costs, -percents]))
    fixed = constants([[each] for each in costs], 1.0, 1.0)
    for own in (None, fixed):
        found = front_probability(costs, accuracies(percents.tolist()), own, draws=20)
        assert found.tolist() == kept.astype(float).tolist()


def test_draws_are_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    given = (
        np.array([1.0, 1.1, 1.2]), accuracies([90.0, 90.2, 90.3], 0.1, 0.1),
        constants([[1.0, 0], [0.5, 0.6], [0.6, 0.6]], 0.5, 2.0),
    )  # fmt: skip
    whole = front_probability(*given)
    assert ((whole > 0) & (whole < 1)).any()
    assert front_probability(*given).tolist() == whole.tolist()
    assert front_probability(*given, seed=1).tolist() != whole.tolist()
    monkeypatch.setattr(chance, "AT_ONCE", 100)
    assert front_probability(*given).tolist() == whole.tolist()


def test_accuracies_stay_percentages() -> None:
    drawn = accuracies([99.9, 0.1], std=5.0).drawn(*map(np.random.default_rng, (0, 1)), 1000)
    assert drawn.min() == 0
    assert drawn.max() == 100


def test_amounts_of_constants_give_the_energy() -> None:
    found = [uncertainty(point.result) for point in table_of(DIGITS).points]
    together = chance.constants_of(found)
    assert together.changes_pj(together.value).tolist() == [0] * 4
    assert together.changes_pj(together.low) == pytest.approx(
        [each.low_pj - each.total_pj for each in found]
    )
    assert together.changes_pj(together.high) == pytest.approx(
        [each.high_pj - each.total_pj for each in found]
    )


# -- what is not done twice ------------------------------------------------------------------------


def test_a_mapping_that_is_known_to_be_the_best_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve = import_module("energysim.solve")
    cache, net = Cache(tmp_path), es.load_network("digits_cnn")
    patterned = [net.with_pattern(name) for name in ("PS4_P4", "pSC4", "PS2_P6")]
    first = [es.simulate(each, CHIP, cache=cache) for each in patterned]
    counted: list[tuple[Any, ...]] = []

    def count(shape: Any, nest: Any, trips: Any, rules: Any) -> Any:
        counted.append((shape, nest, trips.tobytes(), rules))
        return plain(shape, nest, trips, rules)

    plain = solve.count
    monkeypatch.setattr(solve, "count", count)
    solve._counted.cache_clear()
    again = [es.simulate(each, CHIP, cache=cache) for each in patterned]
    assert 0 < len(counted) == len(set(counted))
    assert [each.to_json() for each in again] == [each.to_json() for each in first]
