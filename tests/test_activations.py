"""Densities of activations: from a file to gated MACs, coded DRAM and the mapping chosen."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brute import best
from command_line import Done, call
from hypothesis import given
from hypothesis import strategies as st
from machines import conv, loops, machine, memory, network, random_layer, random_machine
from test_search import problem, without_latch

import energysim as es
from energysim import Activations, Density, load_activations, simulate
from energysim.cache import Cache
from energysim.checks import NoteKind
from energysim.errors import InputError, InputErrors
from energysim.hardware import Hardware
from energysim.mapper.goal import Objective
from energysim.mapper.search import search
from energysim.mapping import MappingFile
from energysim.network import Network
from energysim.result import Result
from energysim.sparsity import Activity, run_length_coded
from energysim.yamlio import to_yaml

NET = network(
    conv("a", 6),
    {"name": "p", "kind": "pool", "kernel": 2},
    conv("b", 8),
    conv("c", 4, 1),
    size=(3, 8, 8),
)
BOTH = {"activations": "gate", "activation_format": "rlc"}
ONE_PE = {"axes": {"rows": 1, "cols": 1}}


def chip(*levels: dict[str, Any], **fields: Any) -> Hardware:
    inner = levels or (
        memory("BUF", capacity_bytes=300, holds=["input", "output"]),
        memory("WPAD", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=12),
        memory("OPAD", "regfile", per=["rows", "cols"], holds=["output"], capacity_bytes=12),
    )
    sparsity = {"weights": "none", "formats": ["dense", "csr"], **BOTH}
    return machine(
        *inner,
        **{
            "sparsity": sparsity | fields.pop("sparsity", {}),
            "dram": {"bandwidth_bits_per_cycle": 8.0},
            "mac": {"energy_pj": 2.0, "source": "a test"},
            **fields,
        },
    )


CHIP = chip()


def given_as(**shares: float | tuple[float, float | None]) -> Activations:
    pairs = {name: each if isinstance(each, tuple) else (each, None)
             for name, each in shares.items()}  # fmt: skip
    return Activations({name: Density(*pair) for name, pair in pairs.items()})


def everywhere(density: float, net: Network = NET) -> Activations:
    return Activations({layer.name: Density(density, density) for layer in net.layers})


def bill(result: Result, layer: str) -> dict[tuple[str, str, str], tuple[int, float, float]]:
    return {
        (row.level, row.tensor, row.action): (row.elements, row.bits, row.energy_pj)
        for row in result.access_rows
        if row.layer == layer
    }


# -- gating ----------------------------------------------------------------------------------------


def test_gated_accesses_counted_one_by_one() -> None:
    """A 1x1 layer walked MAC by MAC, over inputs with 2 of 5 channels live wherever they are."""
    filters, channels, pixels, live = 4, 5, 3, 2
    hardware = chip(sparsity={"activation_format": "dense"})
    net = network(conv("c", filters, 1), size=(channels, 1, pixels))
    nest = loops(
        {
            "level": "BUF",
            "temporal": [("Q", pixels)],
            "spatial": [("K", 2, "rows")],
        },
        {"level": "OPAD", "temporal": [("C", channels), ("K", 2)]},
    )
    seen = {"weight read": 0, "output read": 0, "output update": 0, "MAC": 0}
    for shift in range(channels):  # every channel is live equally often, over all shifts
        zeros = np.roll(np.arange(channels) < live, shift)
        started = set[tuple[int, int]]()
        for q, c, k in product(range(pixels), range(channels), range(filters)):
            first = (q, k) not in started
            started.add((q, k))
            if zeros[c]:
                seen["MAC"] += 1
                seen["weight read"] += 1
                seen["output read"] += not first
                seen["output update"] += 1
    mapping = MappingFile(layers={"c": nest})
    found = bill(simulate(net, hardware, mapping=mapping, activations=given_as(c=0.4)), "c")
    assert found["MAC", "", "compute"][0] * channels == seen["MAC"]
    bits = {"WPAD weight read": 8, "OPAD output read": 24, "OPAD output update": 24}
    for words, width in bits.items():
        level, tensor, action = words.split()
        expected = seen[f"{tensor} {action}"] / channels
        assert found[level, tensor, action][:2] == (
            round(expected),
            pytest.approx(expected * width),
        )


def test_a_memory_of_several_elements_is_read_all_the_same() -> None:
    """Weights come from a memory of a row of the array, sums from one of a column."""
    shared = chip(
        memory("BUF", capacity_kib=1, holds=["input", "output"]),
        memory("WROW", per=["rows"], holds=["weight"], capacity_bytes=64),
        memory("ACC", per=["cols"], holds=["output"], capacity_bytes=64),
        sparsity={"activation_format": "dense"},
    )
    before = simulate(NET, shared)
    mapping = MappingFile(layers=dict(before.mappings))
    after = simulate(NET, shared, mapping=mapping, activations=everywhere(0.5))
    changed = {
        (one.level, one.layer)
        for one, other in zip(before.access_rows, after.access_rows, strict=True)
        if one != other
    }
    assert changed == {("MAC", "a"), ("MAC", "b"), ("MAC", "c")}


def test_what_a_latch_holds_is_read_all_the_same() -> None:
    latched = chip(
        sparsity={"activation_format": "dense"},
        mac={"energy_pj": 2.0, "latch": ["weight"], "source": "a test"},
    )
    before = simulate(NET, latched)
    mapping = MappingFile(layers=dict(before.mappings))
    after = simulate(NET, latched, mapping=mapping, activations=everywhere(0.5))
    for layer in ("a", "b", "c"):
        old, new = bill(before, layer), bill(after, layer)
        assert old["WPAD", "weight", "read"] == new["WPAD", "weight", "read"]
        assert new["OPAD", "output", "update"][1] == old["OPAD", "output", "update"][1] / 2


@pytest.mark.parametrize("weights", ["none", "gate", "skip"])
def test_zero_weights_and_zero_inputs_meet_by_chance(weights: str) -> None:
    hardware = chip(sparsity={"weights": weights})
    net = NET.with_pattern("PS2_P6")
    result = simulate(net, hardware, activations=everywhere(0.3))
    before = simulate(net, hardware)
    for row in result.layer_rows:
        if row.macs:
            live = row.macs if weights == "none" else row.effective_macs
            done = bill(result, row.layer)["MAC", "", "compute"]
            assert done == (round(0.3 * live), 0.0, pytest.approx(0.3 * live * 2.0))
    macs = [row.macs for row in before.layer_rows]
    assert [row.macs for row in result.layer_rows] == macs


def test_gating_saves_no_cycle() -> None:
    hardware = chip(sparsity={"activation_format": "dense"})
    before = simulate(NET, hardware)
    mapping = MappingFile(layers=dict(before.mappings))
    after = simulate(NET, hardware, mapping=mapping, activations=everywhere(0.1))
    assert [row.cycles for row in after.layer_rows] == [row.cycles for row in before.layer_rows]
    assert after.total_energy_pj < before.total_energy_pj


# -- run lengths in DRAM ---------------------------------------------------------------------------


def test_bits_that_cross_to_dram() -> None:
    """C outside: sums go to DRAM and back as they are, inputs and finished outputs are coded."""
    hardware = chip(memory("BUF", capacity_kib=4))
    net = network(conv("c", 4, 1), size=(6, 4, 4))
    nest = loops(
        {"level": "DRAM", "temporal": [("C", 3), ("P", 2)]},
        {"level": "BUF", "temporal": [("C", 2), ("K", 4), ("P", 2), ("Q", 4)]},
    )
    mapping = MappingFile(layers={"c": nest})
    given = given_as(c=(0.2, 0.1))
    found = bill(simulate(net, hardware, mapping=mapping, activations=given), "c")
    dense = bill(simulate(net, hardware, mapping=mapping), "c")
    read, written = (run_length_coded(each, 8, 5) for each in (0.2, 0.1))
    outputs, inputs = 4 * 16, 6 * 16
    assert dense["DRAM", "output", "update"][0] == 3 * outputs  # one for each third of C
    assert found["DRAM", "output", "read"] == dense["DRAM", "output", "read"]
    sums, done = 2 * outputs, outputs
    assert found["DRAM", "output", "update"][:2] == (
        round(sums + done * written.entries),
        pytest.approx(sums * 24 + done * written.bits),
    )
    assert found["DRAM", "input", "read"][:2] == (
        round(inputs * read.entries),
        pytest.approx(inputs * read.bits),
    )
    assert read.bits == pytest.approx(0.2 / (1 - 0.8**32) * 16)
    on_chip = [key for key in dense if key[0] == "BUF"]
    assert all(found[key] == dense[key] for key in on_chip)


def test_room_on_chip_and_what_stays_there_is_not_coded() -> None:
    hardware = chip(memory("BUF", capacity_kib=64), residency=True)
    before, after = (simulate(NET, hardware, activations=each) for each in (None, everywhere(0.1)))
    assert [row.resident for row in after.layer_rows] == [row.resident for row in before.layer_rows]
    assert any("input" in row.resident for row in after.layer_rows)
    assert after.rooms == before.rooms
    for one, other in zip(before.layer_rows, after.layer_rows, strict=True):
        staying = set(one.resident.split()) | {"weight"}
        moved = [row for row in after.access_rows if row.layer == one.layer and row.level == "DRAM"]
        assert other.dram_bytes == pytest.approx(sum(row.bits for row in moved) / 8)
        if staying == {"weight", "input", "output"}:
            assert one.dram_bytes == other.dram_bytes


def test_traffic_of_dram_takes_less_time() -> None:
    """DRAM of 1 bit a cycle is all that the time depends on."""
    slow = chip(sparsity={"activations": "none"}, dram={"bandwidth_bits_per_cycle": 1.0})
    before, after = simulate(NET, slow), simulate(NET, slow, activations=everywhere(0.1))
    for one, other in zip(before.layer_rows, after.layer_rows, strict=True):
        assert other.cycles < one.cycles
        assert other.cycles >= other.dram_bytes * 8
        assert other.energy_pj < one.energy_pj


@pytest.mark.parametrize("hardware", [CHIP, chip(memory("BUF", capacity_kib=64), residency=True)])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.4, 0.9])
def test_no_layer_moves_less_than_its_bound(hardware: Hardware, density: float) -> None:
    for objective in ("energy", "dram"):
        result = simulate(NET, hardware, objective=objective, activations=everywhere(density))
        for row in result.layer_rows:
            assert row.dram_bound_bytes <= row.dram_bytes * (1 + 1e-12)
            own = [each for each in result.access_rows if each.layer == row.layer]
            assert row.energy_pj == pytest.approx(sum(each.energy_pj for each in own))
            assert all(each.elements >= 0 and each.bits >= 0 for each in own)


# -- of any density --------------------------------------------------------------------------------


SMALL = network(conv("a", 5), {"name": "p", "kind": "pool", "kernel": 2}, size=(3, 4, 4))


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_nonzeros_never_cost_less(one: float, other: float) -> None:
    low, high = sorted((one, other))
    less, more = (
        simulate(SMALL, CHIP, activations=everywhere(each, SMALL)) for each in (low, high)
    )
    for smaller, larger in zip(less.layer_rows, more.layer_rows, strict=True):
        assert smaller.energy_pj <= larger.energy_pj * (1 + 1e-12)


def without_densities(result: Result) -> dict[str, Any]:
    data = json.loads(result.to_json())
    for block in (data, data["settings"]):
        block.pop("activations", None)
    return data  # type: ignore[no-any-return]


@pytest.mark.parametrize("hardware", [CHIP, chip(residency=True), chip(static_mw=3.0)])
def test_nothing_zero_is_as_if_nothing_was_said(hardware: Hardware) -> None:
    without, full = simulate(NET, hardware), simulate(NET, hardware, activations=everywhere(1.0))
    assert full.to_csv() == without.to_csv()
    assert full.to_csv(levels=True) == without.to_csv(levels=True)
    assert without_densities(full) == without_densities(without)
    assert "activations" not in without.to_dict()
    assert "activations" not in without.settings()


def test_a_machine_that_makes_no_use_of_zeros() -> None:
    deaf = chip(sparsity={"activations": "none", "activation_format": "dense"})
    result = simulate(NET, deaf, activations=everywhere(0.2))
    assert result.to_csv(levels=True) == simulate(NET, deaf).to_csv(levels=True)
    assert NoteKind.ACTIVATIONS_UNUSED in {note.kind for note in result.warnings}


# -- the search ------------------------------------------------------------------------------------


def sparse_problem(seed: int) -> Any:
    """Draw a layer and a machine, with densities."""
    rng = random.Random(seed)
    hardware = random_machine(rng)
    shape = random_layer(rng, largest=rng.choice((3, 4)), wide=rng.choice((1, 2)))
    if max(shape.dims[6:]) > 1:
        hardware = without_latch(hardware)
    sparsity = hardware.sparsity.model_copy(update=BOTH)
    hardware = hardware.model_copy(update={"sparsity": sparsity})
    activity = Activity(rng.choice((0.0, 0.1, 0.5)), rng.choice((0.02, 0.3, 1.0)))
    asked = problem(hardware, shape, rng.choice(list(Objective)))
    return replace(asked, activity=activity)


@pytest.mark.parametrize("part", range(3))
def test_the_search_equals_brute_force(part: int) -> None:
    compared, seed = 0, 700_000 + 10_000 * part
    while compared < 12:
        seed += 1
        asked = sparse_problem(seed)
        least = best(asked, asked.objective, most=100)
        if least is None or not np.isfinite(least[0]):
            continue
        found = search(asked)
        cost = found.best.measure.of(asked.objective)
        assert cost == pytest.approx(least[0], rel=1e-9), seed
        compared += 1


def test_densities_change_the_mapping() -> None:
    """With few inputs left, it is the partial sums whose trips to DRAM are worth saving."""
    hardware = chip(memory("BUF", capacity_bytes=200), sparsity={"formats": ["dense"]})
    net, given = network(conv("c", 16, 1), size=(48, 6, 6)), given_as(c=(0.02, 1.0))
    dense = simulate(net, hardware, objective="dram")
    sparse = simulate(net, hardware, objective="dram", activations=given)
    kept = MappingFile(layers=dict(dense.mappings))
    same_loops = simulate(net, hardware, mapping=kept, activations=given)
    assert sparse.total_dram_bytes < 0.5 * same_loops.total_dram_bytes


def test_like_layers_of_unlike_densities(tmp_path: Path) -> None:
    net = network(conv("a", 4), conv("b", 4), conv("c", 4), size=(4, 6, 6))
    kept = Cache(tmp_path)
    result = simulate(net, CHIP, cache=kept, activations=given_as(a=0.5, b=0.2, c=0.5))
    rows = {row.layer: row for row in result.layer_rows}
    assert rows["a"].energy_pj > rows["b"].energy_pj
    assert len(list(tmp_path.rglob("*.json"))) == 3  # the outputs of a and c differ
    again = simulate(net, CHIP, cache=kept, activations=given_as(a=0.5, b=0.2, c=0.5))
    assert again.to_json() == result.to_json()
    assert len(list(tmp_path.rglob("*.json"))) == 3


# -- which tensor has which density ----------------------------------------------------------------


def densities(net: Network, given: Activations) -> dict[str, tuple[float, float]]:
    return {name: (each.input_density, each.output_density) for name, each in given.of(net).items()}


def test_ends_of_a_tensor_tell_each_other() -> None:
    found = densities(NET, given_as(a=(0.9, 0.4), b=0.6))
    assert found == {"a": (0.9, 0.4), "p": (0.4, 0.6), "b": (0.6, 1.0), "c": (1.0, 1.0)}
    own = densities(NET, given_as(a=(0.9, 0.4), p=0.5, b=(0.6, 0.0), c=(0.3, 0.2)))
    assert own == {"a": (0.9, 0.4), "p": (0.5, 0.6), "b": (0.6, 0.0), "c": (0.3, 0.2)}


def test_readers_that_disagree_or_read_more_tell_nothing() -> None:
    net = network(
        conv("a", 4),
        conv("b", 4, input="a"),
        conv("c", 4, input="a"),
        {"name": "sum", "kind": "add", "input": ["b", "c"]},
        size=(4, 6, 6),
    )
    assert densities(net, given_as(b=0.5, c=0.5))["a"] == (1.0, 0.5)
    assert densities(net, given_as(b=0.5, c=0.4))["a"] == (1.0, 1.0)
    assert densities(net, given_as(b=0.5))["a"] == (1.0, 0.5)
    assert densities(net, given_as(sum=0.5))["b"] == (1.0, 1.0)
    assert densities(net, given_as(b=(0.5, 0.5), c=(0.5, 0.5)))["sum"] == (1.0, 1.0)


# -- the file --------------------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    path = folder / "densities.csv"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    text = (
        "# measured on nothing\n"
        "layer, input_density ,output_density,source\n"
        "\n"
        'a,1.0,0.25,"a guess, no more"\n'
        "b,5e-1,,\n"
    )
    found = load_activations(written(tmp_path, text), NET)
    assert found.layers == {"a": Density(1.0, 0.25), "b": Density(0.5, None)}
    assert found.left_out(NET) == ("p", "c")
    assert found.places == {"a": f"{tmp_path}/densities.csv:4", "b": f"{tmp_path}/densities.csv:5"}
    assert load_activations(written(tmp_path, "input_density,layer\n0,a\n")).layers == {
        "a": Density(0.0)
    }


BAD = {
    "": "the file is empty",
    "layer,input_density\n": "densities.csv: names no layer. Begin with the line",
    "# nothing\n": "densities.csv: names no layer",
    "layer\na\n": "densities.csv:1: column input_density is missing",
    "layer,inputdensity\na,1\n": "1: no column named 'inputdensity'. Did you mean 'input_density'?",
    "layer;input_density\na;1\n": "Did you mean 'input_density'?",
    "layer,input_density,layer\na,1,a\n": "densities.csv:1: column 'layer' stands here twice",
    "layer,input_density\nA,0.5\n": "2 layer: net has no layer named 'A'. It has: a, p, b, c",
    "layer,input_density\n,0.5\n": "densities.csv:2 layer: must not be empty",
    "layer,input_density\na,1\n\na,0.5\n": "densities.csv:4 layer: 'a' stands at ",
    "layer,input_density\na\n": "2: has 1 values for 2 columns (layer, input_density)",
    "layer,input_density\na,0,5\n": "2: has 3 values for 2 columns",
    "layer,input_density\na,\n": "2 input_density: must be a number from 0 to 1, got nothing",
    "layer,input_density\na,1.1\n": "2 input_density: must be a number from 0 to 1, got '1.1'",
    "layer,input_density\na,-0.1\n": "2 input_density: must be a number from 0 to 1, got '-0.1'",
    "layer,input_density\na,nan\n": "2 input_density: must be a number from 0 to 1, got 'nan'",
    "layer,input_density\na,45%\n": "2 input_density: must be a number from 0 to 1, got '45%'",
    "layer,input_density\na,0_1\n": "got '0_1'",
    "layer,input_density,output_density\na,1,2\n": "2 output_density: must be a number from 0 to 1",
    'layer,input_density\n"a,1\n': "densities.csv:2: is no line of CSV",
    '"layer,input_density\na,1\n': "densities.csv:1: is no line of CSV",
}


@pytest.mark.parametrize(("text", "message"), BAD.items(), ids=range(len(BAD)))
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_activations(path, NET)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    text = "layer,input_density,output_density\na,2,\nbee,0.5,x\na,0.5,0.5\n"
    with pytest.raises(InputErrors) as caught:
        load_activations(written(tmp_path, text), NET)
    assert [line.split("densities.csv:")[1].split(":")[0] for line in caught.value.problems] == [
        "2 input_density",
        "3 layer",
        "3 output_density",
        "4 layer",
    ]


WRONG: list[tuple[Any, str]] = [
    (given_as(bb=0.5), "activations layer: net has no layer named 'bb'."),
    (given_as(b=1.5), "input_density: layer 'b': must be a number from 0 to 1, got 1.5"),
    (given_as(b=(0.5, -1.0)), "output_density: layer 'b': must be a number from 0 to 1"),
    (given_as(b=float("nan")), "got nan"),
    ({"b": 0.5}, "activations must be Activations, got dict"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_python_is_checked_too(given: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        simulate(NET, CHIP, activations=given)
    assert message in str(caught.value)


def test_results_say_what_was_given(tmp_path: Path) -> None:
    path = written(tmp_path, "layer,input_density,output_density\nb,0.5,0.25\n")
    result = simulate(NET, CHIP, activations=load_activations(path, NET))
    data = json.loads(result.to_json())
    given = data["settings"]["activations"]
    assert given["file"] == "densities.csv"
    path.write_text("layer,input_density,output_density\nb,0.5,0.26\n")
    other = simulate(NET, CHIP, activations=load_activations(path, NET)).settings()["activations"]
    assert given["sha256"] != other["sha256"]
    rows: list[Mapping[str, Any]] = data["activations"]
    assert [row["layer"] for row in rows] == [layer.name for layer in NET.layers]
    assert rows[2] == {
        "layer": "b",
        "input_density": 0.5,
        "output_density": 0.25,
        "dram_bits_per_input": pytest.approx(8.0),
        "dram_bits_per_output": pytest.approx(0.25 * 16, rel=1e-3),
    }
    one, two = (given_as(b=each).settings() for each in (0.5, 0.6))
    assert one["file"] is None
    assert one["sha256"] != two["sha256"]


# -- the command line ------------------------------------------------------------------------------

TINY = """\
name: tiny
source: a test
input: [3, 8, 8]
layers:
  - {name: first, kind: conv, out: 8, kernel: 3, pad: 1}
  - {name: pool, kind: pool, kernel: 2}
  - {name: second, kind: conv, out: 8, kernel: 3, pad: 1}
"""
SHARES = "layer,input_density,output_density\nfirst,1,0.4\nsecond,0.3,0.2\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "tiny_ps.yaml").write_text(
        "name: tiny_ps\nsource: a test\nbase: tiny\npattern: PS4_P4\n"
    )
    (tmp_path / "densities.csv").write_text(SHARES)
    (tmp_path / "chip.yaml").write_text(to_yaml(CHIP.model_dump(mode="json")))
    return tmp_path


def run(*args: str, net: str = "tiny.yaml", hw: str = "chip.yaml") -> Done:
    return call("run", "--net", net, "--hw", hw, "--activations", "densities.csv", *args)


@pytest.mark.usefixtures("folder")
def test_run() -> None:
    done = run("--format", "json")
    assert done.status == 0, done.err
    net = es.load_network("tiny.yaml")
    given = load_activations("densities.csv", net)
    expected = simulate(net, es.load_hardware("chip.yaml"), activations=given)
    assert done.out == expected.to_json()
    assert expected.total_energy_pj < simulate(net, es.load_hardware("chip.yaml")).total_energy_pj
    assert "densities.csv leaves out 1 of 3 layers (pool)" in done.err


@pytest.mark.usefixtures("folder")
def test_run_on_a_machine_without_use_for_it() -> None:
    done = run("--format", "csv", hw="edge_tpu")
    assert done.out == call("run", "--net", "tiny.yaml", "--hw", "edge_tpu", "--format", "csv").out
    assert "note: edge_tpu neither gates nor codes activations, so densities.csv" in done.err


@pytest.mark.usefixtures("folder")
def test_explain() -> None:
    text = run("--explain", "second").out
    bits = run_length_coded(0.3, 8, 5).bits
    assert "Zero activations: 70 % of the MACs gated" in text
    assert f"an element of the input takes {bits:.3g} of 8 bits in DRAM" in text
    pool = run("--explain", "pool").out
    assert "gated" not in pool
    assert "an element of the input takes 6.4 of 8 bits in DRAM" in pool
    without = call("run", "--net", "tiny.yaml", "--hw", "chip.yaml", "--explain", "second").out
    assert "Zero activations" not in without


@pytest.mark.usefixtures("folder")
def test_every_answer_takes_densities() -> None:
    for extra in (("--dataflow", "all"), ("--objective", "energy,latency"), ("--levels",)):
        with_them = run(*extra, "--format", "csv")
        without = call("run", "--net", "tiny.yaml", "--hw", "chip.yaml", *extra, "--format", "csv")
        assert with_them.status == without.status == 0, with_them.err
        assert with_them.out != without.out
    variant = run(net="tiny_ps.yaml")  # its dense base has the same layers, and these densities
    assert "vs tiny (dense)" in variant.out


def test_bad_file_on_the_command_line(folder: Path) -> None:
    (folder / "densities.csv").write_text("layer,input_density\nfrist,0.5\nsecond,2\n")
    done = run()
    assert (done.status, done.out) == (2, "")
    assert "densities.csv:2 layer: tiny has no layer named 'frist'. Did you mean 'first'?" in (
        done.err
    )
    assert "densities.csv:3 input_density: must be a number from 0 to 1, got '2'" in done.err
    (folder / "densities.csv").unlink()
    done = run()
    assert done.status == 2
    assert "densities.csv: no such file." in done.err


@pytest.mark.usefixtures("folder")
def test_the_closed_form_knows_no_densities() -> None:
    done = call("run", "--net", "tiny.yaml", "--model", "yang2019", "--activations", "x.csv")
    assert done.status == 2
    assert "--activations" in done.err


def test_training_knows_no_densities_of_gradients() -> None:
    with pytest.raises(InputError, match="zeros of an inference"):
        simulate(NET, CHIP, phase="training", activations=everywhere(0.5))


# -- the chip --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eyeriss", "eyeriss_absolute"])
def test_eyeriss_does_both(name: str) -> None:
    """``test_activity.py`` compares what the chip moves."""
    hardware = es.load_hardware(name)
    assert (hardware.sparsity.activations, hardware.sparsity.activation_format) == ("gate", "rlc")
    assert hardware.sparsity.activation_run_bits == 5
    nest = loops(
        {"level": "GLB", "temporal": [("P", 6), ("Q", 6), ("C", 4)]},
        {"level": "WSPAD", "temporal": [("K", 4)]},
    )
    mapping = MappingFile(layers={"c": nest})
    net = network(conv("c", 4, 1), size=(4, 6, 6))
    before, after = (
        bill(simulate(net, hardware, mapping=mapping, activations=each), "c")
        for each in (None, given_as(c=(0.25, 0.5)))
    )
    halved = run_length_coded(0.5, 16, 5).bits / 16
    quartered = run_length_coded(0.25, 16, 5).bits / 16
    expected = dict.fromkeys(before, 1.0) | {
        ("DRAM", "input", "read"): quartered,
        ("DRAM", "output", "update"): halved,
        ("WSPAD", "weight", "read"): 0.25,
        ("PSPAD", "output", "read"): 0.25,
        ("PSPAD", "output", "update"): 0.25,
        ("MAC", "", "compute"): 0.25,
    }
    static = ("static", "", "static")
    for key in before.keys() - {static}:
        assert after[key][2] == pytest.approx(expected[key] * before[key][2]), key
