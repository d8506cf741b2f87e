"""Our numbers beside those of chips, vendors and other tools: what holds, how it is told."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest
from command_line import call

import energysim.validation as package
from energysim.errors import InputError
from energysim.validation import (
    KINDS,
    Check,
    Study,
    Verdict,
    at_most,
    between,
    exact,
    shown,
    studies,
    within,
)
from energysim.validation.data import read_rows
from energysim.validation.report import (
    amount,
    difference,
    overview,
    page,
    records,
    row_text,
    section,
    summaries,
)

DOCS = Path(__file__).parents[1] / "docs" / "validation.md"
NAMES = [study.name for study in studies()]


# -- what holds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_study_holds_and_its_page_is_fresh(name: str) -> None:
    (study,) = studies((name,))
    assert study.kind in KINDS
    assert any(check.claimed for check in study.checks)
    assert [f"{check.what}, {check.quantity}" for check in study.failed] == []
    # written by: energysim validate --format md -o docs/validation.md --plot docs/validation.svg
    text = DOCS.read_text(encoding="utf-8")
    assert section(study) in text
    assert "".join(map(row_text, overview(study))) in text


def test_the_headline_counts_the_page() -> None:
    text = DOCS.read_text(encoding="utf-8")
    head = re.search(
        r"^Claims that hold: (.*); ([\d,]+) more numbers are shown\.$", text, re.MULTILINE
    )
    assert head
    counts = [int(each.replace(",", "")) for each in re.findall(r"[\d,]+", head[1]) if each != ","]
    held, claimed = counts[::2], counts[1::2]
    assert held == claimed
    tables = text.split('<a id="', 1)[1]
    assert sum(held) == len(re.findall(r"\| ok \|", tables))
    assert int(head[2].replace(",", "")) == len(re.findall(r"\| shown \|", tables))
    assert "| OFF |" not in tables


def test_the_page_has_all_studies_and_no_others() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert re.findall(r'<a id="(\w+)"></a>', text) == NAMES
    assert (DOCS.parent / "validation.svg").is_file()


def test_all_files_of_numbers_say_where_they_are_from() -> None:
    folder = Path(package.__file__).parent / "data"
    table = (folder / "README.md").read_text(encoding="utf-8")
    files = sorted(path.name for path in folder.iterdir() if path.suffix in (".csv", ".yaml"))
    assert [name for name in files if f"`{name}`" not in table] == []
    for name in files:
        first = (folder / name).read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith(("#", "name:")), name


# -- one check -------------------------------------------------------------------------------------


def test_exact() -> None:
    assert exact("a", "MACs", 7, 7).verdict is Verdict.OK
    assert exact("a", "MACs", 7, 8).verdict is Verdict.OFF
    assert exact("a", "MACs", 7, 7).difference == 0


@pytest.mark.parametrize(
    ("ours", "verdict"), [(98.9, "OFF"), (99.1, "ok"), (101.9, "ok"), (102.1, "OFF")]
)
def test_within(ours: float, verdict: str) -> None:
    check = within("a", "time", 100.0, ours, low=-0.01, high=0.02, unit="ms")
    assert (check.verdict, check.allowed) == (verdict, "-1 to +2 %")
    assert check.difference == pytest.approx(ours / 100 - 1)


@pytest.mark.parametrize(("ours", "verdict"), [(1.99, "OFF"), (2, "ok"), (3, "ok"), (3.01, "OFF")])
def test_between(ours: float, verdict: str) -> None:
    assert between("a", "time", 2.5, ours, low=2, high=3).verdict == verdict


def test_limits_on_one_side() -> None:
    assert at_most("a", "cost", 5, 4).verdict is Verdict.OK
    assert at_most("a", "cost", 5, 5.1).verdict is Verdict.OFF
    assert between("a", "rank", 1, 0.95, low=0.9, high=inf).allowed == "at least 0.9"
    assert between("a", "rank", 1, 0.95, low=-inf, high=2).allowed == "at most 2"
    assert within("a", "time", 5, 5, low=-0.1, high=0.1).allowed == "±10 %"


def test_what_is_only_shown_needs_a_reason_and_can_not_fail() -> None:
    assert shown("a", "time", 1, 99, reason="a black box").verdict is Verdict.SHOWN
    with pytest.raises(ValueError, match="say why"):
        shown("a", "time", 1, 99, reason="")


@pytest.mark.parametrize("number", [nan, inf])
def test_numbers_are_finite(number: float) -> None:
    with pytest.raises(ValueError, match="time"):
        exact("a", "time", 1, number)


def test_from_nothing_to_something() -> None:
    assert exact("a", "reads", 0, 3).difference == inf
    assert exact("a", "reads", 0, 0).difference == 0


# -- studies and how they are told -----------------------------------------------------------------


def toy() -> Study:
    def compute() -> Iterator[Check]:
        yield exact("one", "MACs", 10, 10)
        yield within("one", "time", 10, 11, low=-0.05, high=0.05, unit="ms")
        yield within("two", "time", 10, 10.2, low=-0.05, high=0.05, unit="ms")
        yield shown("three", "time", 10, 30, reason="a | b", unit="ms")

    return Study("toy", "A toy", "tool", "nowhere", "By hand.", compute)


def test_a_study_is_computed_once() -> None:
    calls = []

    def compute() -> list[Check]:
        calls.append(1)
        return []

    study = replace(toy(), compute=compute)
    assert study.checks == study.checks == ()
    assert calls == [1]


def test_summaries_name_the_one_that_is_furthest_off() -> None:
    macs, time, others = summaries([toy()])
    assert (macs.quantity, len(macs.checks), macs.verdict) == ("MACs", 1, Verdict.OK)
    assert (time.worst.what, time.verdict) == ("one", Verdict.OFF)
    assert time.mean_difference == pytest.approx(0.06)
    assert (others.worst.what, others.verdict) == ("three", Verdict.SHOWN)


def test_the_page_says_everything() -> None:
    text = page([toy()], "p.svg")
    words = (
        "](p.svg)",
        "Claims that hold: other tools 2 of 3; 1 more numbers are shown.",
        "By hand.",
        "*nowhere*",
        "| one | time | 10 ms | 11 ms | +10 % | ±5 % | OFF |",
        r"a \| b",
    )
    for each in words:
        assert each in text
    assert "<details>" not in text
    long = replace(toy(), compute=lambda: [exact(str(i), "x", 1, 1) for i in range(30)])
    assert "all 30 numbers</summary>" in page([long])


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1234567, "", "1,234,567"), (1234.567, "MB", "1,235 MB"), (0.00012345, "ms", "0.0001234 ms"),
     (3.0, "ms", "3 ms")],
)  # fmt: skip
def test_amounts(value: float, unit: str, text: str) -> None:
    assert amount(value, unit) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.0, "0"), (0.0123, "+1.2 %"), (-0.5, "-50 %"), (12, "+1200 %"),
                        (inf, "new")],
)  # fmt: skip
def test_differences(ratio: float, text: str) -> None:
    assert difference(ratio) == text


def test_a_study_that_is_not_there() -> None:
    with pytest.raises(InputError, match="Did you mean 'scalesim'"):
        studies(("scalesin",))


# -- the command -----------------------------------------------------------------------------------


def test_command_prints_a_line_for_each_quantity() -> None:
    done = call("validate", "scalesim")
    assert done.status == 0
    assert "claims that hold: other tools 96 of 96; 0 more" in done.out
    assert "SCALE-Sim 3.0.0" in done.out
    lines = [line for line in done.out.splitlines() if " ok" in line]
    assert len(lines) == 4


def test_command_prints_every_number() -> None:
    done = call("validate", "eyeriss_alexnet", "-v")
    assert re.search(r"conv2 +buffer traffic +77\.6 MB +77\.57 MB +-0\.041 % +±1 % +ok", done.out)


def test_a_narrow_terminal_loses_columns_and_no_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    from energysim.cli import render
    from energysim.cli.validate import _every, _short

    asked = studies(("eyeriss_alexnet",))
    for make, first in ((_short, "theirs"), (_every, "why")):
        wide = [each.heading for each in make(asked, render.UNBOUNDED).columns]
        narrow = make(asked, 80)
        kept = [each.heading for each in narrow.columns]
        assert kept == [name for name in wide if name in kept]
        assert first not in kept
        assert {"quantity", "verdict"} <= set(kept)
        lines = render.as_text(narrow, width=80).splitlines()
        table = [line for line in lines if " ok" in line]
        assert table
        assert max(map(len, table)) <= 80
        assert not any("…" in line for line in table)


def test_a_difference_from_nothing_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    new = replace(toy(), compute=lambda: [shown("a", "reads", 0, 3, reason="new")])
    monkeypatch.setattr("energysim.validation.studies", lambda names=(): (new,))
    done = call("validate", "--format", "json")
    assert json.loads(done.out, parse_constant=pytest.fail)["checks"][0]["difference"] is None


@pytest.mark.parametrize("form", ["csv", "json"])
def test_files_have_every_number_whole(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"v.{form}"
    assert call("validate", "scalesim", "-o", str(path)).status == 0
    text = path.read_text()
    rows = list(csv.DictReader(io.StringIO(text))) if form == "csv" else json.loads(text)["checks"]
    assert len(rows) == 4 * len(read_rows("scalesim.csv"))
    assert [int(float(row["ours"])) for row in rows[:2]] == [5504, 36864]
    assert len(rows) == len(records(studies(("scalesim",))))


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_pictures_are_the_same_bytes_again(tmp_path: Path, suffix: str) -> None:
    written = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{suffix}"
        done = call("validate", "scalesim", "eyeriss_vgg16", "--plot", str(path))
        assert done.status == 0, done.err
        assert f"wrote {path}" in done.err
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_a_number_out_of_its_band_is_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energysim.validation.studies", lambda names=(): (toy(),))
    done = call("validate")
    assert done.status == 1
    assert "OFF" in done.out
    assert "Error" not in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("scalesin",), "Did you mean 'scalesim'"),
        (("scalesim", "--plot", "x.gif"), "can be written as .png, .svg, .pdf, not as 'x.gif'"),
        (("scalesim", "-o", "x.parquet"), "choose one of"),
        (("scalesim", "--plot", "no/folder/x.png"), "does not exist"),
    ],
)
def test_command_refuses(words: tuple[str, ...], message: str) -> None:
    done = call("validate", *words)
    assert done.status == 2
    assert message in done.err
