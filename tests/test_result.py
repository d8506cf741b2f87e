"""The result as tables, files and a notebook cell."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pytest
from machines import conv, looked_up, machine, memory, network

import energysim as es
from energysim.hardware import Hardware
from energysim.mapping import MappingFile
from energysim.result import AccessRow, LayerRow, Result
from energysim.simulate import simulate
from energysim.units import COLUMNS


@pytest.fixture(scope="module")
def result() -> Result:
    return simulate(es.load_network("vgg16_ps"), es.load_hardware("edge_tpu"), batch=2)


def test_tables(result: Result) -> None:
    layers, accesses = result.layers, result.accesses
    assert list(layers.columns) == [each.name for each in fields(LayerRow)]
    assert list(accesses.columns) == [each.name for each in fields(AccessRow)]
    assert len(layers) == len(result.layer_rows)
    assert layers["macs"].sum() == result.total_macs
    assert layers["energy_pj"].sum() == pytest.approx(result.total_energy_pj)
    assert accesses["energy_pj"].sum() == pytest.approx(result.total_energy_pj)
    assert accesses.groupby("level")["energy_pj"].sum()["DRAM"] == pytest.approx(
        result.energy_by_level()["DRAM"]
    )
    assert set(accesses["network"]) == {"vgg16_ps"}
    assert set(accesses["hardware"]) == {"edge_tpu"}


def test_number_columns_are_in_the_glossary() -> None:
    words = {"mapping", "resident", "weight_format"}
    for kind in (LayerRow, AccessRow):
        assert {each.name for each in fields(kind)} - words <= set(COLUMNS)


@pytest.mark.parametrize("levels", [False, True])
def test_csv(result: Result, *, levels: bool, tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    text = result.to_csv(path, levels=levels)
    assert path.read_bytes() == text.encode()
    rows = list(csv.DictReader(io.StringIO(text)))
    table = result.accesses if levels else result.layers
    assert len(rows) == len(table)
    assert [float(row["energy_pj"]) for row in rows] == table["energy_pj"].tolist()
    assert [row["layer"] for row in rows] == table["layer"].tolist()


def test_json(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    text = result.to_json(path)
    assert path.read_bytes() == text.encode()
    data = json.loads(text)
    assert data["totals"]["energy_mj"] == result.total_energy_mj
    assert sum(data["totals"]["energy_pj_by_level"].values()) == pytest.approx(
        result.total_energy_pj
    )
    assert data["settings"]["batch"] == 2
    assert data["settings"]["pattern"] == "PSD4_P8"
    assert len(data["layers"]) == len(result.layer_rows)
    assert data["search"]["mapspace"] == result.search.mapspace
    assert data["search"]["optimal"] is True
    assert "seconds" not in data["search"]
    hardware = Hardware.model_validate_json(json.dumps(data["hardware"]))
    assert hardware == es.load_hardware("edge_tpu")
    assert [layer["name"] for layer in data["network"]["layers"]] == list(result.mappings)


def test_the_mapping_of_a_json_file_repeats_the_run(result: Result) -> None:
    data = json.loads(result.to_json())
    mapping = MappingFile.model_validate_json(json.dumps(data["mapping"]))
    assert dict(mapping.layers) == dict(result.mappings)
    again = simulate(
        es.load_network("vgg16_ps"), es.load_hardware("edge_tpu"), batch=2, mapping=mapping
    )
    assert again.layer_rows == result.layer_rows


def test_hashes_tell_inputs_apart(result: Result) -> None:
    other = simulate(es.load_network("vgg16"), es.load_hardware("edge_tpu"), batch=2)
    ours, theirs = result.to_dict()["settings"], other.to_dict()["settings"]
    assert ours["network_sha256"] != theirs["network_sha256"]
    assert ours["hardware_sha256"] == theirs["hardware_sha256"]


@pytest.mark.parametrize("levels", [False, True])
def test_parquet(result: Result, *, levels: bool, tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    result.to_parquet(path, levels=levels)
    back = pd.read_parquet(path)
    pd.testing.assert_frame_equal(back, result.accesses if levels else result.layers)
    assert back.attrs["network"] == "vgg16_ps"
    assert back.attrs["batch"] == 2


def test_words(result: Result) -> None:
    text = repr(result)
    assert text.startswith("<vgg16_ps on edge_tpu: ")
    assert text.endswith(" DRAM, 19 layers>")
    page = result._repr_html_()
    assert page.count("<tr>") == 2 + len(result.layer_rows)
    assert "<td>conv1_1</td>" in page


def test_html_is_escaped(result: Result) -> None:
    rows = (replace(result.layer_rows[0], layer="<b>&"), *result.layer_rows[1:])
    page = replace(result, layer_rows=rows, network="<script>")._repr_html_()
    assert "<b>&" not in page.replace("<p><b>", "")
    assert "&lt;b&gt;&amp;" in page
    assert "<script>" not in page


def test_bytes_of_a_level(result: Result) -> None:
    for level in result.level_names:
        moved = result.level_bytes(level)
        assert len(moved) == len(result.layer_rows)
        bits = sum(row.bits for row in result.access_rows if row.level == level)
        assert sum(moved) == pytest.approx(bits / 8)
    assert result.level_bytes("DRAM") == pytest.approx(
        [row.dram_bytes for row in result.layer_rows]
    )


def test_totals_of_a_run_without_energy() -> None:
    free = {"read_pj_per_bit": 0.0, "write_pj_per_bit": 0.0}
    hardware = machine(memory("BUF", capacity_kib=8, **free), dram=free)
    result = simulate(network(conv("c", 2), size=(2, 4, 4)), hardware)
    assert result.total_energy_pj == 0
    assert result.energy_by_level() == {}
    assert "<td>0</td>" in result._repr_html_()
    assert result.total_time_ms == pytest.approx(result.total_cycles / 100e3)


@pytest.mark.parametrize("chip", ["edge_tpu", "eyeriss", "generic_embedded"])
def test_cycles_are_what_their_parts_say(chip: str) -> None:
    hardware = es.load_hardware(chip)
    pool = {"name": "p", "kind": "pool", "kernel": 2}
    dense = network(conv("a", 8), pool, conv("b", 12), size=(4, 8, 8))
    net = dense.with_pattern("PS4_P4")
    skip = hardware.sparsity.model_copy(update={"weights": "skip"})
    for each in (hardware, hardware.model_copy(update={"sparsity": skip})):
        result = looked_up(net, each, uneven=False)
        assert list(result.timings) == [row.layer for row in result.layer_rows]
        for row in result.layer_rows:
            time = result.timings[row.layer]
            hidden = [
                cycles - (time.exposed_cycles if level == "DRAM" else 0)
                for level, cycles in time.level_cycles.items()
                if level in time.overlapping
            ]
            others = sum(
                cycles
                for level, cycles in time.level_cycles.items()
                if level not in time.overlapping
            )
            working = max(time.compute_cycles, time.bus_cycles) + time.waiting_cycles
            total = max(working, *hidden, 0) + others + time.exposed_cycles
            assert row.cycles == pytest.approx(total, abs=1)
        assert [one["layer"] for one in result.to_dict()["timing"]] == list(result.timings)
