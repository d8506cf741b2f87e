"""The energy tables: every number has a source, points are met, and nothing is extrapolated."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energysim import technology
from energysim.errors import InputError
from energysim.hardware import DRAM_WORDS, SourceWord
from energysim.technology import OutsideError
from energysim.technology.tables import rows

STATUS = {"verified", "tool default", "computed", "from memory"}
BY_SOURCE = ("sram", "regfile", "arithmetic")
USES: tuple[technology.Use, ...] = ("read", "write")
SIZES = sorted({float(row["capacity_kib"]) for row in rows("sram") if row["source"] == "cacti"})
NODES = st.floats(22, 65)
WIDTHS = st.floats(32, 256)


@pytest.mark.parametrize("name", [*BY_SOURCE, "dram", "dram_channels"])
def test_every_number_has_a_source_and_a_status(name: str) -> None:
    for row in rows(name):
        assert None not in row.values()
        assert row["source"] in technology.SOURCES if name in BY_SOURCE else row["source"]
        assert row["status"] in STATUS
        words = {"source", "status", "operation", "kind", "chosen", "scope"}
        assert all(float(row[column]) > 0 for column in row.keys() - words)


def test_words_of_hardware_files_are_those_of_the_tables() -> None:
    assert set(get_args(SourceWord)) == set(technology.SOURCES)
    assert {"dram", *technology.DRAM_KINDS} == set(DRAM_WORDS)
    assert all(citation for citation in technology.SOURCES.values())


# Energies per access [pJ] of an earlier run of CACTI by way of hwcomponents-cacti 1.0.40.
@pytest.mark.parametrize(
    ("node", "kib", "read", "write"),
    [
        (65, 2, 3.62197, 10.5165),
        (65, 1024, 174.538, 146.11),
        (65, 8192, 478.671, 423.648),
        (45, 8, 6.13702, 7.87807),
        (45, 32, 17.0418, 15.3975),
        (45, 512, 68.3493, 51.346),
    ],
)
def test_sram_as_cacti_says(node: int, kib: int, read: float, write: float) -> None:
    assert technology.sram(kib, node, "read").value * 64 == pytest.approx(read, rel=1e-5)
    assert technology.sram(kib, node, "write").value * 64 == pytest.approx(write, rel=1e-5)


# As hwcomponents-library 1.0.58 gives them for its AladdinIntMAC.
@pytest.mark.parametrize(
    ("node", "operand", "total", "pj"),
    [
        (65, 8, 16, 1.28138),
        (65, 16, 32, 4.8257),
        (45, 8, 32, 1.15366),
        (22, 8, 32, 0.339299),
        (22, 16, 32, 1.14397),
    ],
)
def test_aladdin_macs(node: int, operand: int, total: int, pj: float) -> None:
    found = technology.mac(operand, total, node, source="aladdin")
    assert found.value == pytest.approx(pj, rel=1e-5)


def test_published_macs() -> None:
    assert technology.mac(8, 32, 45).value == pytest.approx(0.2 + 0.1)
    assert technology.mac(32, 32, 45).value == pytest.approx(3.1 + 0.1)
    assert technology.mac(8, 32, 7).value == pytest.approx(0.07 + 0.03)
    assert technology.add(8, 45).value == 0.03
    at_45 = technology.mac(8, 32, 45)
    assert (at_45.low, at_45.high) == pytest.approx((0.3, 1.15366), rel=1e-5)
    assert at_45.is_disputed
    assert "Horowitz ISSCC 2014" in at_45.origin
    assert "others: 1.154 Aladdin" in at_45.origin


def test_a_published_series_ends_where_its_tables_end() -> None:
    kib, node = 8, 7
    found = technology.sram(kib, node, "write")
    assert found.value * 64 == pytest.approx(7.5)
    assert not found.is_disputed
    assert "horowitz_jouppi 7 nm, 64 bit, 8 KiB (verified)" in found.origin


def test_register_files() -> None:
    assert technology.regfile(512, 28, "read").value * 16 == pytest.approx(0.96)
    assert technology.regfile(48, 28, "write").value * 16 == pytest.approx(0.09)  # linear in size
    assert technology.regfile(512, 65, "read").value * 16 == pytest.approx(1.0)
    assert technology.regfile(1, 40, "read").value == pytest.approx(0.009)
    eight = technology.regfile(8, 28, "read")
    assert eight.low * 16 == pytest.approx(0.015)
    assert eight.high > eight.low  # a register of 64 bit by another source


@pytest.mark.parametrize("row", rows("sram"), ids=lambda row: "-".join(list(row.values())[:4]))
def test_points_of_a_source_are_met(row: dict[str, str]) -> None:
    node, width, kib = (float(row[name]) for name in ("node_nm", "access_bits", "capacity_kib"))
    for use in USES:
        found = technology.sram(kib, node, use, access_bits=width, source=row["source"])
        assert found.value * width == pytest.approx(float(row[f"{use}_pj"]), rel=1e-12)
        assert "interpolated" not in found.origin.split(":")[0]
        assert found.low <= found.value <= found.high


@pytest.mark.parametrize("use", USES)
@given(node=NODES, width=WIDTHS, sizes=st.tuples(st.floats(4, 4096), st.floats(4, 4096)))
def test_energy_grows_with_capacity(
    use: technology.Use, node: float, width: float, sizes: tuple[float, float]
) -> None:
    small, large = (
        technology.sram(kib, node, use, access_bits=width, source="cacti").value
        for kib in sorted(sizes)
    )
    assert small <= large * (1 + 1e-12)


@pytest.mark.parametrize("use", USES)
@given(nodes=st.tuples(NODES, NODES), kib=st.floats(4, 4096))
def test_energy_grows_with_the_node(
    use: technology.Use, nodes: tuple[float, float], kib: float
) -> None:
    fine, coarse = (technology.sram(kib, node, use, source="cacti").value for node in sorted(nodes))
    assert fine <= coarse * (1 + 1e-12)


@given(
    pair=st.sampled_from(list(pairwise(SIZES))),
    share=st.floats(0, 1),
    node=st.sampled_from([22, 32, 45, 65]),
)
def test_between_neighbours_lies_between(
    pair: tuple[float, float], share: float, node: int
) -> None:
    low, high = (technology.sram(kib, node, "read", source="cacti").value for kib in pair)
    kib = min(pair[0] * (pair[1] / pair[0]) ** share, pair[1])
    found = technology.sram(kib, node, "read", source="cacti").value
    assert low * (1 - 1e-12) <= found <= high * (1 + 1e-12)
    assert found == pytest.approx(low * (high / low) ** share, rel=1e-9)


@pytest.mark.parametrize(
    ("kib", "node", "width", "source"),
    [
        (16384, 45, 64, None),
        (0.5, 45, 64, None),
        (32, 90, 64, None),
        (32, 5, 64, None),
        (32, 7, 128, None),
        (2, 16, 64, None),
        (512, 28, 16, "interstellar"),
        (32, 16, 64, "cacti"),
    ],
)
def test_nothing_is_extrapolated(kib: float, node: float, width: int, source: str | None) -> None:
    with pytest.raises(OutsideError) as caught:
        technology.sram(kib, node, "read", access_bits=width, source=source)
    text = str(caught.value)
    assert f"an SRAM of {kib:g} KiB at {node:g} nm" in text
    spans = {
        "cacti": "cacti (22 to 65 nm, 32 to 256 bit, 1 to 8192 KiB)",
        "interstellar": "interstellar (28 nm, 16 bit, 32 to 256 KiB)",
    }
    for name, span in spans.items():
        assert (span in text) == (source in (None, name))


def test_arithmetic_outside() -> None:
    with pytest.raises(OutsideError, match=r"multiply-accumulate of 8 and 32 bit at 90 nm\. Known"):
        technology.mac(8, 32, 90)
    with pytest.raises(OutsideError, match="2 and 32 bit"):
        technology.mac(2, 32, 45)
    with pytest.raises(OutsideError, match="register file of 64 bytes at 45 nm"):
        technology.regfile(64, 45, "read")


@pytest.mark.parametrize("kind", technology.DRAM_KINDS)
def test_dram(kind: str) -> None:
    found = technology.dram(kind)
    energy = found.pj_per_bit
    assert 0 < energy.low <= energy.value <= energy.high
    assert found.burst_bytes in (32, 64)
    assert 4 < found.gb_per_s < 40
    assert "(" in found.channel_origin
    assert energy.is_disputed == ("others:" in energy.origin)


def test_dram_figures() -> None:
    ddr3, lpddr4 = technology.dram("ddr3"), technology.dram("lpddr4")
    assert (ddr3.pj_per_bit.low, ddr3.pj_per_bit.high) == (20, 70)
    assert "20 Han et al. ISCA 2016 (EIE) (verified)" in ddr3.pj_per_bit.origin
    assert (lpddr4.pj_per_bit.value, lpddr4.pj_per_bit.is_disputed) == (8, False)
    assert ddr3.gb_per_s == pytest.approx(12.8)
    assert lpddr4.bits_per_cycle(500, channels=2) == pytest.approx(2 * 3200 * 16 / 500)
    with pytest.raises(InputError, match=r"no DRAM named 'lpdr4'\. Did you mean 'lpddr4'\?"):
        technology.dram("lpdr4")
