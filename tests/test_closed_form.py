"""``run --model yang2019``: the closed-form model on the command line."""

import csv
import io
import json

import pytest
from command_line import call

from energysim import load_network
from energysim.cli.closed_form import rows_of
from energysim.model.yang2019 import layer_energy


def test_rows_are_those_of_the_model() -> None:
    network = load_network("resnet18", pattern="PSD1_P16")
    rows = rows_of(network)
    assert [row.layer.name for row in rows] == [
        layer.name for layer in network.layers if layer.has_weights
    ]
    assert {row.format for row in rows} == {"dense", "periodic"}
    for row in rows:
        assert row.dense == layer_energy(row.layer.shape, row.layer.mask.total)
        if row.format == "dense":
            assert row.energy == row.dense
    sparse = [row for row in rows if row.format == "periodic"]
    assert sum(row.energy.total for row in sparse) < 0.3 * sum(row.dense.total for row in sparse)


def test_a_format_of_choice() -> None:
    network = load_network("resnet18", pattern="PSD1_P16")
    chosen, best = rows_of(network, "csr"), rows_of(network)
    assert {row.format for row in chosen} == {"dense", "csr"}
    assert sum(row.energy.total for row in chosen) > sum(row.energy.total for row in best)
    stored_densely = rows_of(network, "dense")
    assert all(row.energy == row.dense for row in stored_densely)


def test_table_csv_and_json_agree() -> None:
    words = ("run", "--net", "vgg16_ps", "--model", "yang2019")
    table = call(*words)
    assert table.status == 0
    assert "0.53x" in next(
        line
        for line in table.out.splitlines()
        if " total " in line and "x" in line.split("total")[-1]
    )
    by_csv = list(csv.DictReader(io.StringIO(call(*words, "--format", "csv").out)))
    by_json = json.loads(call(*words, "--format", "json").out)
    assert [row["layer"] for row in by_csv] == [row["layer"] for row in by_json]
    for row, other in zip(by_csv, by_json, strict=True):
        assert float(row["total"]) == other["total"]
        parts = ("dram_input", "dram_output", "dram_weight", "dram_index", "cache", "register",
                 "compute")  # fmt: skip
        assert sum(other[part] for part in parts) == pytest.approx(other["total"])
        assert other["ratio"] == other["total"] / other["dense_total"]


def test_what_means_nothing_to_the_model_is_refused() -> None:
    words = ("run", "--net", "vgg16", "--model", "yang2019")
    done = call(*words, "--hw", "edge_tpu", "--batch", "4")
    assert done.status == 2
    assert "leave out --hw, --batch" in done.err
    assert call(*words, "--format", "html").status == 2
    assert call(*words[:-1], "yang").status == 2


def test_counts_need_hardware() -> None:
    done = call("run", "--net", "vgg16")
    assert done.status == 2
    assert "Missing option '--hw'" in done.err
