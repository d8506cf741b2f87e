"""``energysim list``: complete, in every format, whatever else lies in the folder."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from command_line import ROOT, call

from energysim.catalog import load_network
from energysim.mapper.dataflows import DATAFLOWS
from energysim.sparsity import PATTERNS, Pattern, get_pattern

NETS = sorted(path.stem for path in (ROOT / "networks").glob("*.yaml"))
HARDWARE = sorted(path.stem for path in (ROOT / "hw_configs").glob("*.yaml"))
NAMES = {"nets": NETS, "hw": HARDWARE, "dataflows": list(DATAFLOWS), "patterns": list(PATTERNS)}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENERGYSIM_PATH", raising=False)
    return tmp_path


def as_json(*args: str) -> object:
    done = call("list", *args, "--format", "json")
    assert (done.status, done.err) == (0, "")
    return json.loads(done.out)


def test_everything() -> None:
    done = call("list")
    assert (done.status, done.err) == (0, "")
    words = done.out.split()
    for names in NAMES.values():
        assert set(names) <= set(words)
    titles = [line for line in done.out.splitlines() if line and not line.startswith(" ")]
    assert titles == ["networks", "hardware", "dataflows", "patterns of 3x3 kernels"]


@pytest.mark.parametrize("kind", NAMES)
def test_one_kind_in_every_format(kind: str) -> None:
    records = as_json(kind)
    assert isinstance(records, list)
    assert [record["name"] for record in records] == NAMES[kind]

    rows = list(csv.DictReader(io.StringIO(call("list", kind, "--format", "csv").out)))
    assert [row["name"] for row in rows] == NAMES[kind]
    assert list(rows[0]) == list(records[0])

    table = call("list", kind).out.split("\n\n")[1].splitlines()
    assert [line.split()[0] for line in table[1:]] == NAMES[kind]

    markdown = call("list", kind, "--format", "md").out.split("\n\n")[1].splitlines()
    assert [line.split()[1] for line in markdown[2:]] == NAMES[kind]
    assert len({line.count("|") for line in markdown}) == 1


def test_patterns_that_have_no_name_are_told() -> None:
    notes = call("list", "patterns").out.split("\n\n")[2]
    blocks, spelled, written = notes.strip().splitlines()
    word = re.search(r"\d+:\d+", blocks)
    assert word
    assert get_pattern(word[0]).blocks == (2, 4)
    word = re.search(r"3x3_\S*(?=:)", spelled)
    assert word
    own = get_pattern(word[0])
    assert (own.fdk, own.period) == (True, 8)
    given = yaml.safe_load(written.removeprefix(" in a file: ").removesuffix(", any kernel size"))
    assert Pattern.of(**given["pattern"], kernel=(3, 3)) == own


def test_all_kinds_in_one_json() -> None:
    everything = as_json()
    assert isinstance(everything, dict)
    assert {kind: [each["name"] for each in everything[kind]] for kind in everything} == NAMES


def test_figures_of_a_network() -> None:
    records = as_json("nets")
    assert isinstance(records, list)
    (record,) = [each for each in records if each["name"] == "vgg16_ps"]
    network = load_network("vgg16_ps")
    assert record["layers"] == len(network.layers)
    assert record["parameters"] == network.parameters
    assert (record["macs"], record["effective_macs"]) == (network.macs, network.effective_macs)
    assert (record["base"], record["pattern"]) == ("vgg16", "PSD4_P8")


def test_figures_of_hardware() -> None:
    records = as_json("hw")
    assert isinstance(records, list)
    (record,) = [each for each in records if each["name"] == "edge_tpu"]
    assert record["array"] == "64x64"
    assert record["on_chip_kib"] == 8192 + 64 * 8 + 64 * 64 / 1024
    assert record["clock_mhz"] == 480


def test_own_files_are_listed(empty_folder: Path) -> None:
    shutil.copy(ROOT / "networks" / "vgg16.yaml", empty_folder / "mine.yaml")
    shutil.copy(ROOT / "hw_configs" / "edge_tpu.yaml", empty_folder / "my_chip.yml")
    assert "mine" in call("list", "nets").out
    assert "my_chip" in call("list", "hw").out


def test_a_file_with_mistakes_is_listed_with_advice(empty_folder: Path) -> None:
    (empty_folder / "broken.yaml").write_text("name: broken\nlayers: 3\n")
    done = call("list", "nets")
    assert done.status == 0
    (line,) = [each for each in done.out.splitlines() if "broken" in each]
    assert "has mistakes: energysim check nets broken" in line
    records = as_json("nets")
    assert isinstance(records, list)
    (record,) = [each for each in records if each["name"] == "broken"]
    assert record["macs"] is None
    assert call("list", "nets", "--format", "csv").status == 0
    assert call("check", "nets", "broken").status == 2


def test_only_files_with_mistakes(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / "broken.yaml").write_text("name: broken\nlayers: 3\n")
    monkeypatch.setattr("energysim.catalog.names", lambda _kind: ["broken"])
    for form in ("table", "md", "csv", "json"):
        done = call("list", "nets", "--format", form)
        assert done.status == 0, done.err
        assert "broken" in done.out


def test_no_files_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energysim.catalog.names", lambda _kind: [])
    for form in ("table", "md", "csv", "json"):
        assert call("list", "hw", "--format", form).status == 0
