"""``energysim report``: what is written, what is said, and what is refused."""

from __future__ import annotations

import html
import os
import re
import shlex
import sys
from itertools import islice
from pathlib import Path

import pytest
from command_line import ROOT, Done, call

import energysim as es
import energysim.report

pytest.importorskip("jinja2")

NET = """\
name: net
source: a test
input: [4, 8, 8]
layers:
  - {name: first, kind: conv, out: 8, kernel: 3, pad: 1}
  - {name: second, kind: conv, out: 8, kernel: 3, pad: 1}
  - {name: fc, kind: linear, out: 4}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENERGYSIM_PATH", raising=False)
    (tmp_path / "net.yaml").write_text(NET)
    (tmp_path / "chip.yaml").write_text((ROOT / "hw_configs" / "edge_tpu.yaml").read_text())
    return tmp_path


@pytest.fixture
def one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the first picture of each run only: all of them take seconds a page."""
    page = sys.modules["energysim.report.page"]
    every = page.of_run
    monkeypatch.setattr(page, "of_run", lambda *of: islice(every(*of), 1))


def report(*more: str, output: str = "report.html") -> Done:
    return call("report", "--net", "net.yaml", "--hw", "chip.yaml", *more, "-o", output)


def refused(done: Done) -> str:
    assert done.status == 2, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert not list(Path().glob("*.html"))
    return done.err


def command_on(path: str) -> list[str]:
    """The command that a page says repeats it."""
    found = re.search(r"<pre><code>(energysim .*?)</code></pre>", Path(path).read_text("utf-8"))
    assert found
    return shlex.split(html.unescape(found[1]))


def test_a_page_is_written_and_told_of() -> None:
    done = report()
    assert (done.status, done.out) == (0, "")
    size = len(Path("report.html").read_bytes()) / 1e3
    assert f"wrote report.html ({size:,.0f} kB, net)" in done.err
    assert "note: " in done.err
    assert report("-q").err == ""


@pytest.mark.usefixtures("one_picture")
def test_the_command_on_the_page_repeats_it(folder: Path) -> None:
    odd = folder / "a folder"
    odd.mkdir()
    (odd / "it's.yaml").write_text(NET)
    arguments = ["--net", "a folder/it's.yaml", "--hw", "chip.yaml", "--batch", "2", "--pattern",
                 "PS4_P4", "-o", "page.html"]  # fmt: skip
    assert call("report", *arguments).status == 0
    first = Path("page.html").read_bytes()
    program, *words = command_on("page.html")
    Path("page.html").unlink()
    assert (program, words) == ("energysim", ["report", *arguments])
    assert call(*words).status == 0
    assert Path("page.html").read_bytes() == first


@pytest.mark.usefixtures("one_picture")
def test_the_cache_changes_nothing() -> None:
    """Bytes are the same but for the command, looked up or searched again."""
    pages = []
    for more in ([], ["--no-cache"]):
        assert report(*more).status == 0
        text = Path("report.html").read_text("utf-8")
        pages.append(text.replace(" --no-cache", ""))
    assert pages[0] == pages[1]


@pytest.mark.usefixtures("one_picture")
def test_figures_are_those_of_run() -> None:
    assert report("--pattern", "PS4_P4", "--batch", "4").status == 0
    net, chip = es.load_network("./net.yaml", pattern="PS4_P4"), es.load_hardware("./chip.yaml")
    result, dense = (es.simulate(each, chip, batch=4) for each in (net, net.dense()))
    text = Path("report.html").read_text("utf-8")
    keys = [float(key) for key in re.findall(r'data-key="(.*?)"', text)]
    for value in (result.total_energy_pj, dense.total_energy_pj,
                  result.total_energy_pj / dense.total_energy_pj,
                  *(row.energy_pj for row in result.layer_rows),
                  *(row.energy_pj for row in result.access_rows)):  # fmt: skip
        assert value in keys
    assert all(value in text for value in result.settings().values() if isinstance(value, str))


@pytest.mark.usefixtures("one_picture")
def test_several_patterns_share_one_table() -> None:
    done = report("--patterns", "dense,PS4_P4,ps4_p4,PSD4_P8")
    assert done.status == 0, done.err
    assert "net, net+PS4_P4, net+PSD4_P8" in done.err
    text = Path("report.html").read_text("utf-8")
    assert re.findall(r'<section id="(run-\d)"', text) == ["run-1", "run-2", "run-3"]
    (table,) = re.findall(r'<table id="variants".*?</table>', text, re.DOTALL)
    assert table.count("<tr>") == 4
    assert "relative to net, which is dense" in text


@pytest.mark.usefixtures("one_picture")
def test_patterns_without_the_dense_one_are_compared_with_it() -> None:
    assert report("--patterns", "PS4_P4,PSD4_P8").status == 0
    text = Path("report.html").read_text("utf-8")
    assert re.findall(r'<section id="(run-\d)"', text) == ["run-1", "run-2"]
    (table,) = re.findall(r'<table id="variants".*?</table>', text, re.DOTALL)
    assert table.count("<tr>") == 4


@pytest.mark.usefixtures("one_picture")
def test_a_dense_network_alone_is_compared_with_nothing() -> None:
    assert report().status == 0
    text = Path("report.html").read_text("utf-8")
    assert 'id="variants"' not in text
    assert "relative to" not in text


@pytest.mark.usefixtures("one_picture")
def test_which_files_are_told() -> None:
    assert "network net.yaml: net.yaml" in report("-v").err


@pytest.mark.parametrize(
    ("more", "output", "words"),
    [
        ([], "report.htm", "'report.htm' is no .html file"),
        ([], "report", "'report' is no .html file"),
        ([], "nowhere/report.html", "the folder nowhere does not exist"),
        (["--objective", "energy,latency"], "report.html", "takes one objective"),
        (["--dataflow", "all"], "report.html", "takes one dataflow"),
        (["--dataflow", "output"], "report.html", "output_stationary"),
        (["--pattern", "PS4_P4", "--patterns", "PS4_P4"], "report.html", "give one of them"),
        (["--patterns", "PS4_P5,XY"], "report.html", "2 errors"),
        (["--patterns", ","], "report.html", "',' gives no name"),
        (["--mapping", "none.yaml"], "report.html", "none.yaml: no such file"),
    ],
)
def test_what_is_refused(more: list[str], output: str, words: str) -> None:
    assert words in refused(report(*more, output=output))


def test_a_file_to_write_is_needed() -> None:
    assert "Missing option '-o'" in refused(
        call("report", "--net", "net.yaml", "--hw", "chip.yaml")
    )


def test_nothing_is_searched_for_a_page_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        pytest.fail("it was simulated")

    monkeypatch.setattr(sys.modules["energysim.simulate"], "settle", fail)
    refused(report(output="report.txt"))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "pip install 'energysim[report]'" in refused(report())


@pytest.mark.usefixtures("one_picture")
def test_writing_fails_midway(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    assert report().status == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(os, "fsync", full)
    done = report("--batch", "2", "--no-cache")
    assert done.status == 2
    assert "report.html: can't be written: No space left on device" in done.err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_pattern_that_the_network_cannot_take() -> None:
    Path("net.yaml").write_text(NET.replace("kernel: 3, pad: 1", "kernel: 5, pad: 2"))
    assert "has a 5x5 kernel" in refused(report("--patterns", "dense,PS4_P4"))
