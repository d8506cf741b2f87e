"""The hardware description: what is accepted, what is refused, and the files that come along."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from machines import with_fields
from pydantic import BaseModel, ValidationError

from energysim.axes import Dim, Tensor
from energysim.errors import InputError, InputErrors
from energysim.hardware import FormatWord, Hardware
from energysim.sparsity import FORMATS
from energysim.units import COLUMNS, average_pj, cycles_to_ms, pj_to_mj, si
from energysim.yamlio import load_model, parse_model, to_yaml

CONFIGS = sorted((Path(__file__).parent.parent / "hw_configs").glob("*.yaml"))

CHIP: dict[str, Any] = {
    "name": "chip",
    "source": "a test",
    "clock_mhz": 100,
    "bits": {"weight": 8, "input": 4, "output": 16, "psum": 32},
    "mac": {"energy_pj": 1.0, "latch": ["weight"], "source": "a test"},
    "array": {"axes": {"rows": 4, "cols": 8}, "unroll": {"rows": ["C", "R"]}, "source": "a test"},
    "levels": [
        {
            "name": "DRAM",
            "kind": "dram",
            "read_pj_per_bit": 8,
            "write_pj_per_bit": 9,
            "source": "a test",
        },
        {
            "name": "SRAM",
            "kind": "sram",
            "capacity_kib": 0.5,
            "read_pj_per_bit": 1,
            "write_pj_per_bit": 1,
            "compressed": True,
            "source": "a test",
        },
        {
            "name": "RF",
            "kind": "regfile",
            "per": ["rows", "cols"],
            "holds": ["weight", "output"],
            "capacity_bytes": {"weight": 3, "output": 8},
            "read_pj_per_bit": 0,
            "write_pj_per_bit": 0,
            "source": "a test",
        },
    ],
    "dataflow": "weight_stationary",
}


def changed(*changes: tuple[tuple[str | int, ...], Any]) -> dict[str, Any]:
    """Copy the chip with some fields set; None removes a field."""
    return with_fields(CHIP, *changes)


def load(data: dict[str, Any]) -> Hardware:
    return parse_model(json.dumps(data, indent=1), Hardware, name="chip.yaml")[0]


def problems(*changes: tuple[tuple[str | int, ...], Any]) -> list[str]:
    """What is wrong with a changed chip, without the positions."""
    with pytest.raises(InputErrors) as caught:
        load(changed(*changes))
    assert all(line.startswith("chip.yaml:") for line in caught.value.problems)
    return [line.partition(" ")[2] for line in caught.value.problems]


def test_helpers() -> None:
    chip = load(CHIP)
    assert chip.axis_names == ("rows", "cols")
    assert chip.axis_sizes == (4, 8)
    assert chip.axis_index("cols") == 1
    assert chip.unroll_dims("rows") == (Dim.C, Dim.R)
    assert chip.unroll_dims("cols") is None
    assert [chip.instances(i) for i in range(3)] == [1, 1, 32]
    assert [chip.level_axes(i) for i in range(3)] == [frozenset(), frozenset(), {0, 1}]
    assert [chip.innermost(tensor) for tensor in Tensor] == [2, 1, 2]
    assert chip.holders(Tensor.INPUT) == (0, 1)
    assert chip.levels[2].tensors == {Tensor.WEIGHT, Tensor.OUTPUT}
    assert chip.mac.latched == {Tensor.WEIGHT}
    assert [chip.bits.of(tensor) for tensor in Tensor] == [8, 4, 16]
    assert [level.capacity_bits() for level in chip.levels] == [
        None,
        4096,
        {Tensor.WEIGHT: 24, Tensor.OUTPUT: 64},
    ]


def test_unknown_axis_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no array axis named 'row'. Did you mean 'rows'\?"):
        load(CHIP).axis_index("row")


def test_defaults() -> None:
    chip = load(CHIP)
    assert chip.vector is None
    assert chip.sparsity.weights == "none"
    assert chip.sparsity.formats == ("dense",)
    assert chip.sparsity.run_bits == 5
    assert (chip.padding, chip.residency, chip.static_mw) == ("clip", False, 0.0)
    assert [level.compressed for level in chip.levels] == [True, True, False]
    assert chip.levels[0].holds == ("weight", "input", "output")
    assert chip.levels[1].bandwidth_bits_per_cycle is None


def test_hardware_can_name_every_format() -> None:
    assert get_args(FormatWord) == tuple(FORMATS)


def test_capacity_per_tensor_in_kib() -> None:
    sizes = {"weight": 1, "input": 0.25, "output": 2.5}
    chip = load(changed((("levels", 1, "capacity_kib"), sizes)))
    assert chip.levels[1].capacity_bits() == {
        Tensor.WEIGHT: 8192,
        Tensor.INPUT: 2048,
        Tensor.OUTPUT: 20480,
    }


L1, L2 = ("levels", 1), ("levels", 2)


@pytest.mark.parametrize(
    ("loc", "value", "message"),
    [
        (("name",), "a chip", "name: must match ^[A-Za-z0-9_.-]+$, got 'a chip'"),
        (("source",), "", "source: must not be empty"),
        (("clock_mhz",), 0, "clock_mhz: must be > 0, got 0"),
        (("bits", "weight"), 0, "bits.weight: must be >= 1, got 0"),
        (("bits", "psum"), 65, "bits.psum: must be <= 64, got 65"),
        (("mac", "energy_pj"), -0.2, "mac.energy_pj: must be >= 0, got -0.2"),
        (("mac", "source"), None, "mac: missing field 'source'"),
        (
            ("vector",),
            {"lanes": 0, "energy_pj": 1, "source": "s"},
            "vector.lanes: must be >= 1, got 0",
        ),
        (("array", "axes"), {}, "array.axes: must have at least 1 entry, got 0"),
        (
            ("array", "axes"),
            {"rows": 1, "cols": 1, "c": 1, "d": 1, "e": 1},
            "array.axes: must have at most 4 entries, got 5",
        ),
        (("array", "axes", "rows"), 0, "array.axes.rows: must be >= 1, got 0"),
        (("array", "axes", "rows"), 2.5, "array.axes.rows: must be an integer, got 2.5"),
        (
            ("array", "axes", "Rows"),
            3,
            "array.axes.Rows: must match ^[a-z][a-z0-9_]*$, got 'Rows'",
        ),
        (
            ("array", "unroll", "row"),
            ["C"],
            "array.unroll.row: no array axis named 'row'. Did you mean 'rows'?",
        ),
        (("array", "unroll", "rows"), ["C", "C"], "array.unroll.rows.1: 'C' stands here twice"),
        (
            ("array", "unroll", "rows"),
            ["M"],
            "array.unroll.rows.0: must be one of 'N', 'G', 'K', 'C', 'P', 'Q', 'R', 'S', got 'M'",
        ),
        (
            ("sparsity",),
            {"formats": ["dense", "dense"]},
            "sparsity.formats.1: 'dense' stands here twice",
        ),
        (
            ("sparsity",),
            {"formats": ["rel"]},
            (
                "sparsity.formats.0: must be one of 'dense', 'csr', 'periodic', 'bitmap', 'rle',"
                " 'cp', 'nm', got 'rel'"
            ),
        ),
        (("sparsity",), {"run_bits": 0}, "sparsity.run_bits: must be >= 1, got 0"),
        (("sparsity",), {"run_bits": 17}, "sparsity.run_bits: must be <= 16, got 17"),
        (("levels",), CHIP["levels"][:1], "levels: must have at least 2 entries, got 1"),
        (
            ("levels",),
            CHIP["levels"] + CHIP["levels"] + CHIP["levels"],
            "levels: must have at most 8 entries, got 9",
        ),
        ((*L1, "name"), "DRAM", "levels.1.name: 'DRAM' is the name of level 0 already"),
        (
            (*L1, "name"),
            "MAC",
            "levels.1.name: 'MAC' is a word of the result tables. Choose another name",
        ),
        (("levels", 0, "kind"), "sram", "levels.0.kind: the first level must be dram, got sram"),
        (
            ("levels", 0, "holds"),
            ["weight", "input"],
            "levels.0.holds: the first level must hold weight, input and output",
        ),
        (
            ("levels", 0, "capacity_kib"),
            4,
            "levels.0.capacity_kib: the first level has no limit: leave 'capacity_kib' out",
        ),
        (
            ("levels", 0, "per"),
            ["rows"],
            "levels.0.per: the first level has one instance: leave 'per' out",
        ),
        ((*L1, "kind"), "dram", "levels.1.kind: only the first level can be dram"),
        ((*L1, "capacity_kib"), None, "levels.1: 'SRAM' needs capacity_kib or capacity_bytes"),
        ((*L1, "capacity_kib"), 0, "levels.1.capacity_kib: must be > 0, got 0"),
        ((*L1, "capacity_kib"), "8k", "levels.1.capacity_kib: must be a number, got '8k'"),
        (
            (*L1, "capacity_bytes"),
            4,
            "levels.1.capacity_bytes: capacity_kib is given already. Give one of the two",
        ),
        ((*L2, "capacity_bytes"), 1.5, "levels.2.capacity_bytes: must be an integer, got 1.5"),
        (
            (*L2, "capacity_bytes", "output"),
            None,
            (
                "levels.2.capacity_bytes: must give a size for each tensor it holds "
                "(weight, output), got weight"
            ),
        ),
        (
            (*L2, "capacity_bytes", "inptu"),
            3,
            (
                "levels.2.capacity_bytes.inptu: must be one of 'weight', 'input', 'output', "
                "got 'inptu'. Did you mean 'input'?"
            ),
        ),
        ((*L2, "holds"), [], "levels.2.holds: must have at least 1 entry, got 0"),
        (
            (*L2, "per"),
            ["rows", "col"],
            "levels.2.per.1: no array axis named 'col'. Did you mean 'cols'?",
        ),
        (
            (*L2, "per"),
            ["xyz"],
            "levels.2.per.0: no array axis named 'xyz'. Axes of the array: rows, cols",
        ),
        ((*L2, "per"), ["rows", "rows"], "levels.2.per.1: 'rows' stands here twice"),
        (
            (*L1, "per"),
            ["diag"],
            "levels.1.per.0: no array axis named 'diag'. Axes of the array: rows, cols",
        ),
        (
            (*L1, "capcity_kib"),
            3,
            "levels.1.capcity_kib: unknown field. Did you mean 'capacity_kib'?",
        ),
        (
            (*L1, "bandwidth_bits_per_cycle"),
            0,
            "levels.1.bandwidth_bits_per_cycle: must be > 0, got 0",
        ),
        (
            (*L1, "assumed"),
            ["read_pj_bit"],
            (
                "levels.1.assumed.0: no field named 'read_pj_bit' here. "
                "Did you mean 'read_pj_per_bit'?"
            ),
        ),
        (("assumed",), ["note"], "assumed.0: no field named 'note' here."),
        (
            ("levels", 0, "compressed"),
            False,
            "levels.1.compressed: must be false: 'DRAM' outside it holds weights uncompressed",
        ),
        (
            ("padding",),
            "clop",
            "padding: must be one of 'clip', 'count', got 'clop'. Did you mean 'clip'?",
        ),
    ],
)
def test_each_mistake_is_told(loc: tuple[str | int, ...], value: Any, message: str) -> None:
    told = problems((loc, value))
    assert any(line.startswith(message) for line in told), told


def test_instances_widen_inwards() -> None:
    told = problems(((*L1, "per"), ["rows"]), ((*L2, "per"), ["cols"]))
    assert told == [
        (
            "levels.2.per: must include 'rows': 'SRAM' outside it has instances along it, "
            "and both hold weight"
        )
    ]


def test_level_without_weights_keeps_none_compressed() -> None:
    told = problems(((*L1, "holds"), ["input", "output"]))
    assert told == ["levels.1.compressed: 'SRAM' holds no weights"]


def test_mistakes_between_blocks_come_together() -> None:
    told = problems(
        (("levels", 0, "kind"), "sram"),
        (("levels", 0, "compressed"), True),
        ((*L1, "capacity_kib"), None),
        ((*L2, "name"), "SRAM"),
    )
    assert told == [
        "levels.0.kind: the first level must be dram, got sram",
        "levels.1: 'SRAM' needs capacity_kib or capacity_bytes",
        "levels.2.name: 'SRAM' is the name of level 1 already",
    ]


def test_mistakes_between_blocks_are_refused_without_a_file_too() -> None:
    with pytest.raises(ValidationError, match=r"levels\.1\.kind: only the first level can be dram"):
        Hardware.model_validate_json(json.dumps(changed(((*L1, "kind"), "dram"))))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite_without_a_file_too(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        load(CHIP).mac.model_validate({"energy_pj": value, "source": "s"})


def test_position_of_a_mistake_between_blocks(tmp_path: Path) -> None:
    text = to_yaml(load(CHIP)).replace("per: [rows, cols]", "per: [rows, colz]")
    (tmp_path / "chip.yaml").write_text(text)
    line = next(i for i, each in enumerate(text.splitlines(), start=1) if "colz" in each)
    with pytest.raises(InputErrors) as caught:
        load_model(tmp_path / "chip.yaml", Hardware)
    assert caught.value.problems == (
        (
            f"{tmp_path}/chip.yaml:{line}:15 levels.2.per.1: no array axis named 'colz'. "
            "Did you mean 'cols'?"
        ),
    )


# The files that come along


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_round_trip(path: Path) -> None:
    hardware, _ = load_model(path, Hardware)
    assert hardware.name == path.stem
    again, _ = parse_model(to_yaml(hardware), Hardware, name="again")
    assert again == hardware


def blocks(block: BaseModel) -> Iterator[BaseModel]:
    yield block
    for name in type(block).model_fields:
        value = getattr(block, name)
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, BaseModel):
                yield from blocks(inner)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_block_has_a_source(path: Path) -> None:
    hardware, _ = load_model(path, Hardware)
    for block in blocks(hardware):
        if "source" in type(block).model_fields:
            assert getattr(block, "source"), block  # noqa: B009 - not all blocks have one


@pytest.fixture
def chips() -> dict[str, Hardware]:
    return {path.stem: load_model(path, Hardware)[0] for path in CONFIGS}


def test_edge_tpu_peak_is_the_published_one(chips: dict[str, Hardware]) -> None:
    chip = chips["edge_tpu"]
    tera_operations = 2 * chip.instances(3) * chip.clock_mhz * 1e6 / 1e12
    assert tera_operations == pytest.approx(4, rel=0.02)


def test_edge_tpu_energies_are_those_of_the_named_sources(chips: dict[str, Hardware]) -> None:
    chip = chips["edge_tpu"]
    dram, sram, accumulator, register = chip.levels
    # 64-bit accesses at 45 nm from CACTI: 128 KiB and 8 KiB, read and write [pJ]
    assert sram.read_pj_per_bit * 64 == pytest.approx(32.2859, rel=1e-3)
    assert sram.write_pj_per_bit * 64 == pytest.approx(26.065, rel=1e-3)
    assert accumulator.read_pj_per_bit * 64 == pytest.approx(6.13702, rel=1e-3)
    assert accumulator.write_pj_per_bit * 64 == pytest.approx(7.87807, rel=1e-3)
    assert register.read_pj_per_bit * 8 == pytest.approx(0.01)
    assert dram.bandwidth_bits_per_cycle == pytest.approx(32e9 * 8 / 480e6, rel=1e-4)
    assert chip.mac.energy_pj == pytest.approx(0.2 + 0.1)


@pytest.mark.parametrize(
    ("name", "costs", "static_mw"),
    [
        # MAC, scratchpad, hop, buffer, DRAM of one 16-bit word [pJ]
        ("eyeriss", (2 * 1, 2 * 1, 2 * 2, 2 * 6, 2 * 200), 0),
        ("eyeriss_absolute", (2, 1, 4, 15, 460), 30),
    ],
)
def test_eyeriss(
    chips: dict[str, Hardware], name: str, costs: tuple[float, ...], static_mw: float
) -> None:
    chip = chips[name]
    dram, buffer, *pads = chip.levels
    words = [chip.array.hop_pj_per_bit, buffer.read_pj_per_bit, dram.read_pj_per_bit]
    mac, pad, *others = costs
    assert chip.mac.energy_pj == mac
    assert {level.read_pj_per_bit * 16 for level in pads} == {pad}
    assert [16 * energy for energy in words] == others
    assert all(level.read_pj_per_bit == level.write_pj_per_bit for level in chip.levels)
    assert chip.static_mw == static_mw
    assert [level.capacity_bits() for level in pads] == [12 * 16, 224 * 16, 24 * 16]
    assert chip.instances(2) == 168
    # 33.6 GMAC/s, and a 64-bit link at 60 MHz
    assert chip.instances(2) * chip.clock_mhz == 33_600
    assert dram.bandwidth_bits_per_cycle == 64 * 60 / 200


def test_eyeriss_files_differ_in_energies_only(chips: dict[str, Hardware]) -> None:
    def machine(name: str) -> dict[str, Any]:
        text = chips[name].model_dump(mode="json")
        kept = ("clock_mhz", "bits", "padding", "dataflow", "residency")
        arrays = {"axes": text["array"]["axes"], "unroll": text["array"]["unroll"]}
        fields = ("name", "per", "holds", "capacity_kib", "capacity_bytes")
        levels = [{field: level[field] for field in fields} for level in text["levels"]]
        return {field: text[field] for field in kept} | arrays | {"levels": levels}

    assert machine("eyeriss") == machine("eyeriss_absolute")


# Units


def test_conversions() -> None:
    assert pj_to_mj(1e9) == 1.0
    assert cycles_to_ms(200e3, 200) == 1.0
    assert pj_to_mj(average_pj(30, 1000)) == 30.0  # 30 mW for a second


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12.345, "12.3"),
        (0.4, "0.400"),
        (1.2345, "1.23"),
        (9.995, "9.99"),
        (9.996, "10.0"),
        (99.96, "100"),
        (822, "822"),
        (6823.4, "6820"),
        (-0.4567, "-0.457"),
        (0.00012345, "0.000123"),
        (1.2e-9, "1.20e-09"),
        (12_345_678, "1.23e+07"),
        (float("inf"), "inf"),
    ],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert si(value) == text


def test_glossary_headings() -> None:
    assert COLUMNS["energy_pj"].heading == "energy [pJ]"
    assert COLUMNS["macs"].heading == "MACs"
    assert all(column.meaning for column in COLUMNS.values())
