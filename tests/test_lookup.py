"""Energies that a hardware file leaves out: looked up, told where from, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from machines import machine, memory, with_fields

from energysim import technology
from energysim.catalog import load_hardware
from energysim.errors import InputErrors
from energysim.hardware import Hardware
from energysim.solve import _bare
from energysim.yamlio import parse_model, to_yaml

CHIP: dict[str, Any] = {
    "name": "npu",
    "source": "a test",
    "clock_mhz": 500,
    "technology": {"node_nm": 28},
    "bits": {"weight": 8, "input": 8, "output": 8, "psum": 32},
    "mac": {"source": "a test"},
    "vector": {"lanes": 4, "source": "a test"},
    "array": {"axes": {"rows": 4, "cols": 8}, "source": "a test"},
    "levels": [
        {"name": "DRAM", "kind": "ddr3", "source": "a test"},
        {"name": "SRAM", "kind": "sram", "capacity_kib": 100, "source": "a test"},
        {
            "name": "RF",
            "kind": "regfile",
            "per": ["rows", "cols"],
            "capacity_bytes": 64,
            "source": "a test",
        },
    ],
}


def changed(*changes: tuple[tuple[str | int, ...], Any]) -> dict[str, Any]:
    """Copy the chip with some fields set; None removes a field."""
    return with_fields(CHIP, *changes)


def load(*changes: tuple[tuple[str | int, ...], Any]) -> Hardware:
    return parse_model(json.dumps(changed(*changes), indent=1), Hardware, name="chip.yaml")[0]


def problems(*changes: tuple[tuple[str | int, ...], Any]) -> list[str]:
    with pytest.raises(InputErrors) as caught:
        load(*changes)
    assert all(line.startswith("chip.yaml:") for line in caught.value.problems)
    return [line.partition(" ")[2] for line in caught.value.problems]


def test_what_is_left_out_is_looked_up() -> None:
    chip = load()
    dram, sram, pad = chip.levels
    assert chip.mac.energy_pj == technology.mac(8, 32, 28).value
    assert chip.vector is not None
    assert chip.vector.energy_pj == technology.add(8, 28).value
    assert dram.read_pj_per_bit == dram.write_pj_per_bit == 70
    assert sram.read_pj_per_bit == technology.sram(100, 28, "read").value
    assert sram.write_pj_per_bit == technology.sram(100, 28, "write").value
    assert pad.read_pj_per_bit == technology.regfile(64, 28, "read").value
    assert dram.from_tables.keys() == sram.from_tables.keys()
    assert sram.from_tables["read_pj_per_bit"].startswith(
        "cacti 22 to 32 nm, 64 bit, 64 to 128 KiB (interpolated, computed): CACTI"
    )
    assert dram.ranges == dict.fromkeys(("read_pj_per_bit", "write_pj_per_bit"), (20, 70))
    assert pad.ranges == {}  # one source only
    assert dram.compressed


def test_values_that_are_given_win() -> None:
    chip = load(
        (("mac", "energy_pj"), 0),
        (("levels", 0, "read_pj_per_bit"), 5),
        (("levels", 1, "write_pj_per_bit"), 1.5),
    )
    assert chip.mac.energy_pj == 0
    assert (chip.mac.from_tables, chip.mac.ranges) == ({}, {})
    assert [level.read_pj_per_bit for level in chip.levels[:1]] == [5]
    assert chip.levels[0].write_pj_per_bit == 70
    assert chip.levels[0].from_tables.keys() == chip.levels[0].ranges.keys() == {"write_pj_per_bit"}
    assert chip.levels[1].write_pj_per_bit == 1.5
    assert chip.levels[1].from_tables.keys() == {"read_pj_per_bit"}


def test_a_range_of_the_file_goes_before_that_of_the_tables() -> None:
    where = ("levels", 0, "ranges")
    chip = load((where, {"read_pj_per_bit": [60, 80]}))
    assert chip.levels[0].ranges == {"read_pj_per_bit": (60, 80), "write_pj_per_bit": (20, 70)}
    assert problems((where, {"read_pj_per_bit": [4, 20]})) == [
        "levels.0.ranges.read_pj_per_bit: read_pj_per_bit is 70 as looked up, outside 4 to 20"
    ]


def test_bank_width_and_source_are_used() -> None:
    chip = load(
        (("technology",), {"node_nm": 28, "mac": "aladdin"}),
        (("levels", 1, "capacity_kib"), 65536),
        (("levels", 1, "bank_kib"), 32),
        (("levels", 1, "access_bits"), 128),
    )
    expected = technology.sram(32, 28, "read", access_bits=128).value
    assert chip.levels[1].read_pj_per_bit == expected
    assert chip.mac.energy_pj == technology.mac(8, 32, 28, source="aladdin").value


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            [(("technology",), None), (("levels", 1, "read_pj_per_bit"), 1)],
            [
                "mac: missing field 'energy_pj': give it, or have it looked up",
                "vector: missing field 'energy_pj': give it, or",
                (
                    "levels.1: missing field 'write_pj_per_bit': give it, or have it looked up, "
                    "by a line such as 'technology: {node_nm: 28}'"
                ),
                "levels.2: missing field 'read_pj_per_bit': give it",
                "levels.2: missing field 'write_pj_per_bit': give it",
            ],
        ),
        (
            [(("levels", 0, "kind"), "dram")],
            [
                (
                    "levels.0: missing field 'read_pj_per_bit': give it, or in place of 'dram' the "
                    "kind of DRAM, one of lpddr2, "
                ),
                "levels.0: missing field 'write_pj_per_bit': give it",
            ],
        ),
        (
            [(("levels", 1, "capacity_kib"), 65536)],
            [
                (
                    "levels.1: missing field 'read_pj_per_bit': no energy is known of a 64-bit "
                    "access to an SRAM of 65536 KiB at 28 nm. Known: cacti (22 to 65 nm, "
                    "32 to 256 bit, 1 to 8192 KiB); "
                ),
                "levels.1: missing field 'write_pj_per_bit': no energy",
            ],
        ),
        (
            [(("levels", 2, "capacity_bytes"), dict.fromkeys(("weight", "input", "output"), 4))],
            [
                (
                    "levels.2: missing field 'read_pj_per_bit': give it, or bank_kib, the size it "
                    "is to be looked up for: the level has a capacity for each tensor"
                ),
                "levels.2: missing field 'write_pj_per_bit': give it",
            ],
        ),
        (
            [(("levels", 1, "bank_kib"), 101), (("levels", 2, "access_bits"), 8)],
            [
                "levels.1.bank_kib: is larger than the level, 100 KiB",
                "levels.2.access_bits: is for sram only",
            ],
        ),
        (
            [(("mac", "ranges"), {"energy": [1, 2]}), (("mac", "energy_pj"), 1)],
            ["mac.ranges.energy: no energy named 'energy' here. Did you mean 'energy_pj'?"],
        ),
        (
            [(("mac", "ranges"), {"energy_pj": [2, 1]})],
            ["mac.ranges.energy_pj: the low end 2 is above the high end 1"],
        ),
        (
            [(("mac", "ranges"), {"energy_pj": [2, 3]}), (("mac", "energy_pj"), 1)],
            ["mac.ranges.energy_pj: energy_pj is 1, outside 2 to 3"],
        ),
        (
            [(("mac", "from_tables"), {"energy_pj": "thin air"})],
            ["mac.from_tables.energy_pj: is no energy given here: leave this line out"],
        ),
        (
            [(("technology", "sram"), "cactus")],
            [
                (
                    "technology.sram: must be one of 'horowitz_jouppi', 'cacti', 'interstellar', "
                    "'aladdin', 'eyeriss_fit', got 'cactus'. Did you mean 'cacti'?"
                )
            ],
        ),
        (
            [(("levels", 0, "kind"), "lpdr4")],
            ["levels.0.kind: must be one of 'dram', "],
        ),
    ],
)
def test_what_can_not_be_looked_up(
    changes: list[tuple[tuple[str | int, ...], Any]], expected: list[str]
) -> None:
    found = problems(*changes)
    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_the_kind_of_dram_needs_no_node() -> None:
    energies = {"read_pj_per_bit": 1, "write_pj_per_bit": 1}
    chip = load(
        (("technology",), None),
        (("mac", "energy_pj"), 1),
        (("vector",), None),
        (("levels", 1), CHIP["levels"][1] | energies),
        (("levels", 2), CHIP["levels"][2] | energies),
    )
    assert chip.levels[0].read_pj_per_bit == 70


def test_only_the_first_level_is_dram_of_any_kind() -> None:
    assert "levels.1.kind: only the first level can be dram" in problems(
        (("levels", 1, "kind"), "lpddr4")
    )


def test_where_numbers_come_from_changes_no_search() -> None:
    chip = load()
    by_hand = changed((("technology",), None))
    for name in ("mac", "vector"):
        by_hand[name]["energy_pj"] = getattr(chip, name).energy_pj
    for data, level in zip(by_hand["levels"], chip.levels, strict=True):
        data["read_pj_per_bit"] = level.read_pj_per_bit
        data["write_pj_per_bit"] = level.write_pj_per_bit
    same = Hardware.model_validate_json(json.dumps(by_hand))
    assert _bare(same) == _bare(chip)
    other = load((("levels", 1, "access_bits"), 128))
    assert _bare(other) != _bare(chip)


def test_files_without_it_are_written_as_before() -> None:
    vector = {"lanes": 3, "energy_pj": 0.1, "source": "a test"}
    plain = machine(memory("BUF", capacity_kib=8), vector=vector).model_dump(mode="json")
    assert "technology" not in plain
    new = {"ranges", "from_tables", "bank_kib", "access_bits", "burst_bits", "link_bits_per_cycle"}
    for block in (plain, plain["mac"], plain["vector"], plain["array"], *plain["levels"]):
        assert not block.keys() & new


def test_show_tells_where_each_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("npu.yaml").write_text(to_yaml(CHIP))
    done = call("show", "npu")
    assert (done.status, done.err) == (0, "")
    text = " ".join(done.out.split())
    for level in load().levels:
        for origin in level.from_tables.values():
            assert origin in text
    assert "technology: {node_nm: 28.0}" in text
    Path("again.yaml").write_text(done.out)
    assert load_hardware("again") == load_hardware("npu")
    wrong = CHIP | {"technology": {"node_nm": 5}}
    Path("wrong.yaml").write_text(to_yaml(wrong))
    done = call("check", "hw", "wrong.yaml")
    assert done.status == 2
    assert "wrong.yaml:7:3 mac: missing field 'energy_pj': no energy is known of a" in done.out
    assert "at 5 nm. Known: horowitz_jouppi (7 to 45 nm" in done.out
