"""The bundled chips: sizes and peaks as published, a run of each, and the table of them all.

``python tests/test_hw_configs.py`` writes the table in ``hw_configs/README.md`` anew.
"""

from __future__ import annotations

from functools import cache
from math import prod
from pathlib import Path

import pytest
from command_line import ROOT

from energysim import load_hardware, load_network, simulate
from energysim.axes import Tensor
from energysim.hardware import Hardware, Level
from energysim.units import BITS_PER_KIB

FOLDER = ROOT / "hw_configs"
README = FOLDER / "README.md"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
BEGIN, END = "<!-- chips -->\n", "<!-- end of chips -->\n"

PEAK_GOPS = {
    "edge_tpu": (3_900, 4_100),  # 4 TOPS
    "eyeriss": (67.2, 67.2),  # 33.6 GMAC/s
    "eyeriss_absolute": (67.2, 67.2),
    "eyeriss_v2": (153.6, 153.6),
    "scnn": (2_000, 2_100),  # 2 TOPS
    "shidiannao": (128, 128),  # 64 multiplications and 64 additions at 1 GHz
    "simba": (3_550, 3_560),  # 128 TOPS of 36 chiplets
    "tpu_v1": (91_500, 92_500),  # 92 TOPS
}
"""Operations a second between which the full array must be, as the published figure rounds."""

ON_CHIP_KIB = {
    "eyeriss_v2": {"IGLB": 72, "PGLB": 120, "WSPAD": 54},  # 192 and, with the scratchpads, 246
    "scnn": {"RAM": 1024, "ACC": 192},
    "shidiannao": {"NB": 128, "SB": 128},
    "simba": {"GLB": 64, "WBUF": 16 * 32, "IBUF": 16 * 8, "ACC": 16 * 3},
    "tpu_v1": {"UB": 24 * 1024, "ACC": 4 * 1024, "FIFO": 4 * 64},
}
"""Published sizes of all instances of a memory [KiB]."""


NODES = {"eyeriss": "65 nm", "eyeriss_absolute": "65 nm"}
"""Chen et al., JSSC 2017: TSMC 65 nm LP; their files look no energy up."""


@cache
def chip(name: str) -> Hardware:
    return load_hardware(str(FOLDER / f"{name}.yaml"))


def kib(chip: Hardware, level: Level) -> float:
    """Size of all instances of a memory [KiB]."""
    bits = level.capacity_bits() or 0
    whole = sum(bits.values()) if isinstance(bits, dict) else bits
    return whole * chip.instances(chip.levels.index(level)) / BITS_PER_KIB


def gops(chip: Hardware) -> float:
    """Operations of the full array, two for a multiply-accumulate [10^9/s]."""
    return 2 * prod(chip.axis_sizes) * chip.clock_mhz / 1000


# -- the table -------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Four digits, but whole where there are more before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def memories(chip: Hardware) -> str:
    """Name, instances and size of each memory, from the outside in."""
    words = []
    for index, level in enumerate(chip.levels):
        if level.is_dram:
            words.append(level.name if level.kind == "dram" else level.kind.upper())
            continue
        count = chip.instances(index)
        size = kib(chip, level) / count
        amount = f"{number(size)} KiB" if size >= 1 else f"{number(1024 * size)} B"
        words.append(f"{level.name} {f'{count:,} x ' if count > 1 else ''}{amount}")
    return ", ".join(words)


def dataflow(chip: Hardware) -> str:
    """Name of the dataflow, what it keeps if the file spells it, and what spreads where."""
    held = f", {chip.stationary} stationary" if chip.stationary else ""
    spread = [f"{axis} {' '.join(dims)}" for axis, dims in chip.array.unroll.items()]
    return f"{chip.dataflow}{held} ({', '.join(spread)})"


def node(chip: Hardware) -> str:
    """Technology node: of the file, or of the chip where the file's energies are not looked up."""
    if chip.technology is not None:
        return f"{chip.technology.node_nm:g} nm"
    return NODES.get(chip.name, "")


def assumed(chip: Hardware) -> str:
    """Fields that nobody published, by block."""
    blocks = [
        ("", chip),
        ("technology", chip.technology),
        ("mac", chip.mac),
        ("vector", chip.vector),
        ("array", chip.array),
        ("sparsity", chip.sparsity),
        *((level.name, level) for level in chip.levels),
    ]
    parts = []
    for name, block in blocks:
        if block is not None and block.assumed:
            fields = ", ".join(block.assumed)
            parts.append(f"{name}: {fields}" if name else fields)
    return "; ".join(parts)


def table() -> str:
    """Markdown of the table of all chips."""
    heads = ("chip", "array", "memories", "dataflow", "node", "clock [MHz]", "peak [GOPS]")
    rows = [(*heads, "source", "assumed"), ("---",) * (len(heads) + 2)]
    for name in NAMES:
        one = chip(name)
        rows.append(
            (
                f"[`{name}`]({name}.yaml)",
                "x".join(map(str, one.axis_sizes)),
                memories(one),
                dataflow(one),
                node(one),
                f"{one.clock_mhz:g}",
                number(gops(one)),
                one.source,
                assumed(one),
            )
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def with_table(text: str) -> str:
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}{table()}{rest[rest.index(END) :]}"


def test_the_table_is_fresh() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == with_table(text), "run: python tests/test_hw_configs.py"


def test_the_readme_names_nothing_else() -> None:
    listed = {
        line.split("`")[1] for line in README.read_text("utf-8").splitlines() if "| [`" in line
    }
    assert listed == set(NAMES) == {path.stem for path in FOLDER.iterdir() if path != README}


# -- the chips -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PEAK_GOPS)
def test_peak_is_the_published_one(name: str) -> None:
    low, high = PEAK_GOPS[name]
    assert low <= round(gops(chip(name)), 6) <= high


@pytest.mark.parametrize("name", ON_CHIP_KIB)
def test_memories_are_the_published_ones(name: str) -> None:
    sizes = {level.name: kib(chip(name), level) for level in chip(name).levels}
    assert {level: sizes[level] for level in ON_CHIP_KIB[name]} == ON_CHIP_KIB[name]


def test_tpu_has_28_mib_on_chip() -> None:
    sizes = ON_CHIP_KIB["tpu_v1"]
    assert sizes["UB"] + sizes["ACC"] == 28 * 1024


@pytest.mark.parametrize("name", NAMES)
def test_no_layer_is_faster_than_the_array(name: str) -> None:
    network = load_network("resnet20")
    result = simulate(network, chip(name), perfect=True, uneven=False)
    for row in result.layer_rows:
        assert row.cycles * prod(chip(name).axis_sizes) >= row.macs
        assert 0 <= row.utilization <= 1
    assert result.total_macs == network.macs
    assert result.total_dram_bytes >= result.total_dram_bound_bytes * (1 - 1e-12)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("tpu_v1", Tensor.OUTPUT), ("shidiannao", Tensor.OUTPUT), ("scnn", Tensor.INPUT)],
)
def test_what_stays_on_a_chip_that_spells_its_dataflow(name: str, tensor: Tensor) -> None:
    assert chip(name).stationary_tensor is tensor


def test_partial_sums_of_the_tpu_stay_in_its_accumulators() -> None:
    """Only complete outputs reach the unified buffer: as many as there are."""
    network = load_network("resnet20")
    result = simulate(network, chip("tpu_v1"))
    written = {
        row.layer: row.elements
        for row in result.access_rows
        if (row.level, row.tensor, row.action) == ("UB", "output", "update")
    }
    for layer in network.layers:
        if layer.stores_weights:
            assert written[layer.name] == layer.shape.elements(Tensor.OUTPUT)


if __name__ == "__main__":
    README.write_text(with_table(Path(README).read_text("utf-8")), encoding="utf-8")
