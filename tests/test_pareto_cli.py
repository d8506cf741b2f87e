"""``energysim pareto``: the table, files and pictures, what is told and what is refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from command_line import Done, call

import energysim.cli.pareto as command
from energysim.pareto import QUANTITIES
from energysim.plot.style import FORMS

TABLE = """\
network,pattern,accuracy_percent,std_percent
digits_cnn,dense,97,0.4
digits_cnn,PS4_P4,96,0.3
digits_cnn,PS1_P9,90,
"""


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(TABLE)
    return tmp_path


def pareto(*more: str) -> Done:
    return call("pareto", "--accuracy", "mine.csv", "--hw", "edge_tpu", *more)


def records(done: Done) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(done.out)))


def test_words_are_those_of_the_library() -> None:
    assert list(command.QUANTITIES) == list(QUANTITIES)
    assert list(command.PICTURES) == list(FORMS)
    assert set(command.BASE_UNITS) == {each.column for each in QUANTITIES.values()}


def test_the_table_marks_front_and_knee() -> None:
    done = pareto()
    assert done.status == 0
    assert done.err == ""
    lines = done.out.splitlines()
    assert lines[0].startswith("accuracy against energy per image on edge_tpu · weight_stationary")
    rows = [line.split() for line in lines[3:6]]
    assert [row[1] for row in rows] == ["PS1_P9", "PS4_P4", "dense"]
    assert [row[7] for row in rows] == ["front", "knee", "front"]
    assert [row[6] for row in rows] == ["-", "0.30", "0.40"]
    assert "± is a standard deviation" in done.out


@pytest.mark.parametrize("quantity", command.QUANTITIES)
def test_every_cost_can_be_asked_for(quantity: str) -> None:
    done = pareto("--x", quantity, "--format", "csv", "--batch", "2")
    assert done.status == 0, done.err
    column = QUANTITIES[quantity].column
    costs = [float(row[column]) for row in records(done)]
    assert costs == sorted(costs)
    assert ("energy_low_mj" in done.out) == QUANTITIES[quantity].is_energy


def test_picture_and_table() -> None:
    done = pareto("-o", "front.svg", "--width", "3.5")
    assert done.status == 0
    assert done.out == pareto().out
    assert done.err == "wrote front.svg (3 points, 3 on the front)\n"
    assert Path("front.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("suffix", ["csv", "json", "md"])
def test_files(suffix: str) -> None:
    done = pareto("-o", f"front.{suffix}")
    assert (done.status, done.out) == (0, "")
    assert Path(f"front.{suffix}").read_text() == pareto("--format", suffix).out


def test_same_question_same_answer() -> None:
    assert pareto("--format", "json").out == pareto("--format", "json").out


def test_why_there_is_no_knee() -> None:
    alone = pareto("--patterns", "dense")
    assert "the front has no knee: there is nothing between its ends" in alone.out
    assert "no knee" not in pareto().out


def test_hypervolume() -> None:
    done = pareto("--hypervolume", "1,80", "--format", "json")
    data = json.loads(done.out)
    rows = data["rows"]
    by_hand = (1 - rows[0]["energy_mj"]) * 10 + (1 - rows[1]["energy_mj"]) * 6 + (
        1 - rows[2]["energy_mj"]) * 1  # fmt: skip
    assert data["hypervolume"] == {"reference": [1, 80], "value": pytest.approx(by_hand)}
    assert (
        "hypervolume: 17.0 energy_mj x percent, as far as 1 and 80 %"
        in pareto("--hypervolume", "1,80").out
    )


def test_what_is_left_out_and_notes_are_told_unless_quiet() -> None:
    asked = ("pareto", "--hw", "edge_tpu", "--nets", "mobilenet_v2", "--patterns", "dense,PS4_P4")
    done = call(*asked)
    assert done.status == 0
    assert "left out: mobilenet_v2 with PS4_P4: no accuracy in the published results" in done.err
    assert "note: published accuracies are of the best epoch" in done.err
    assert "the front has no knee" in done.out
    quiet = call(*asked, "-q")
    assert (quiet.out, quiet.err) == (done.out, "")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--nets", "alexnet"), "alexnet with dense: no accuracy in mine.csv"),
        (("--nets", "vgg61"), "no network named 'vgg61'"),
        (("--nets", ","), "',' gives no name"),
        (("--patterns", "PS5"), "PS5"),
        (("--x", "area"), "'area' is not one of"),
        (("--objective", "energy,latency"), "takes one objective"),
        (("--dataflow", "all"), "takes one dataflow"),
        (("--hypervolume", "1"), "no cost and accuracy"),
        (("--hypervolume", "1,nan"), "no cost and accuracy"),
        (("-o", "front.parquet"), "choose one of table, csv, json, md, .png"),
        (("-o", "nowhere/front.png"), "the folder nowhere does not exist"),
        (("-o", "front.gif"), "names no format. Known: .csv, .json, .md, .png, .svg, .pdf"),
        (("-o", "folder.png"), "folder.png: is a folder, not a file to write"),
        (("--dataset", "CIFAR-10"), "says nothing of a data set"),
        (("--accuracy", "gone.csv"), "there is no 'gone.csv'"),
        (("--accuracy", "."), "no accuracy.csv in it"),
        (("--width", "1"), "1.0 is not in the range"),
    ],
)
def test_what_is_refused(more: tuple[str, ...], words: str) -> None:
    Path("folder.png").mkdir()
    done = pareto(*more)
    assert done.status == 2
    assert words in done.err
    assert done.out == ""
    assert "Traceback" not in done.err
