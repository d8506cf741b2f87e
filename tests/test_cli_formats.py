"""``energysim formats``: every layer, every format that holds it, the same in every form."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from command_line import call

from energysim.catalog import load_network
from energysim.sparsity import all_formats


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENERGYSIM_PATH", raising=False)
    return tmp_path


def records(*args: str) -> list[dict[str, Any]]:
    done = call("formats", *args, "--format", "json")
    assert (done.status, done.err) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


@pytest.mark.parametrize("pattern", ["PSD4_P8", "pSC1", "2:4", "3x3_0.4.8_2.4.6_F4"])
def test_records_are_those_of_the_library(pattern: str) -> None:
    network = load_network("resnet18", pattern=pattern)
    options = ("--net", "resnet18", "--pattern", pattern, "--bits", "16", "--run-bits", "3")
    expected = [
        (layer.name, layer.pattern, name, each(layer.mask, 16, run_bits=3))
        for layer in network.layers
        if layer.has_weights
        for name, each in all_formats().items()
        if each.holds(layer.mask)
    ]
    found = records(*options)
    assert len(found) == len(expected)
    for record, (layer_name, layer_pattern, name, stored) in zip(found, expected, strict=True):
        assert (record["layer"], record["pattern"]) == (layer_name, layer_pattern)
        assert record["format"] == name
        assert (record["values_bits"], record["metadata_bits"]) == (stored.values, stored.metadata)
        assert record["total_bits"] == stored.total
    for layer in {record["layer"] for record in found}:
        here = [record for record in found if record["layer"] == layer]
        (best,) = [record for record in here if record["cheapest"]]
        assert best["total_bits"] == min(record["total_bits"] for record in here)
    formats = {record["format"] for record in found if record["pattern"] != "dense"}
    assert ("periodic" in formats) is (pattern[:2] in ("PS", "3x"))
    assert ("nm" in formats) is (pattern == "2:4")


def test_totals_of_the_paper_notes() -> None:
    """All convolutions at 16 bits: CSR of the sparse ones, and periodic as a table of one period.

    The notes keep the first convolution dense and leave out the classifier.
    """
    found = records("--net", "vgg16", "--pattern", "PSD4_P8", "--bits", "16")
    first = [each for each in found if each["layer"] == "conv1_1" and each["format"] == "dense"]
    for name, megabits in (("csr", "217.47"), ("periodic", "120.97"), ("dense", "235.37")):
        rest = [
            each
            for each in found
            if each["format"] == name and each["layer"] not in ("conv1_1", "fc")
        ]
        assert len(rest) == 12
        assert f"{sum(each['total_bits'] for each in first + rest) / 1e6:.2f}" == megabits


def test_csv_has_the_same_rows() -> None:
    found = records("--net", "vgg16_ps")
    done = call("formats", "--net", "vgg16_ps", "--format", "csv")
    assert (done.status, done.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert rows == [{key: str(value) for key, value in record.items()} for record in found]


def test_table() -> None:
    done = call("formats", "--net", "vgg16_ps", "--bits", "16")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "vgg16_ps · stored weights"
    for name in ("dense", "csr", "periodic", "bitmap", "rle", "cp"):
        assert f"{name} [Mbit]" in lines[2]
    assert "nm" not in lines[2]
    (row,) = [line for line in lines if line.lstrip().startswith("conv4_2")]
    assert row.split()[-1] == "periodic"
    assert " 37.7 + 0 " in row  # 2,359,296 weights of 16 bit
    assert " 19.4 + 2.36 " in row  # 1,212,416 live of 16 bit, and the map
    assert "values + metadata; weights of 16 bit, runs of 5 bit" in done.out
    # The 120.97 and 235.37 Mbit of the notes, and 0.08 Mbit of the classifier in both.
    assert "each layer in its smallest format: 121 Mbit, 0.51x dense" in done.out


def test_a_format_that_does_not_hold_all_layers_has_no_total() -> None:
    done = call("formats", "--net", "vgg16", "--pattern", "1:4")
    (heading,) = [line for line in done.out.splitlines() if line.startswith(" layer")]
    assert "nm [Mbit]" in heading
    (total,) = [line for line in done.out.splitlines() if line.startswith(" total")]
    assert total.split().count("-") == 2  # periodic for the sparse layers, nm for the dense ones
    (row,) = [line for line in done.out.splitlines() if line.lstrip().startswith("conv4_2")]
    assert row.split()[-1] == "nm"


def test_markdown() -> None:
    done = call("formats", "--net", "vgg16_ps", "--format", "md")
    assert done.status == 0
    rows = [line for line in done.out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert len(rows) == 2 + 14 + 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--net", "resnet81"], "no network named 'resnet81'. Did you mean 'resnet18'?"),
        (["--net", "vgg16", "--pattern", "PSD4P8"], "Did you mean 'PSD4_P8'?"),
        (["--net", "vgg16", "--pattern", "4:2"], "in N:M, N must be at least 1 and less than M"),
        (["--net", "vgg16", "--pattern", "3x3_9"], "a 3x3 kernel has the taps 0 to 8"),
        (["--net", "alexnet", "--pattern", "PS4_P4"], "is defined for 3x3 kernels"),
        (["--net", "vgg16", "--bits", "0"], "0 is not in the range"),
        (["--net", "vgg16", "--run-bits", "33"], "33 is not in the range"),
        ([], "Missing option '--net'"),
    ],
)
def test_mistakes(args: list[str], words: str) -> None:
    done = call("formats", *args)
    assert (done.status, done.out) == (2, "")
    assert words in done.err
    assert "Traceback" not in done.err
