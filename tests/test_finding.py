"""README's finding: every number in it is computed again."""

import csv
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import finding

from energysim import load_hardware, load_network, simulate
from energysim.axes import Dim, Shape
from energysim.cache import Cache
from energysim.model.lockstep import Spread, lock_step
from energysim.result import NoteKind, Result
from energysim.sparsity import PATTERNS, Mask
from energysim.units import BITS_PER_BYTE, BITS_PER_KIB

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## When do periodic kernels pay?")[1].split("\n## ")[0]
PROSE = " ".join(SECTION.split())

SORTABLE = [name for name, each in PATTERNS.items() if not each.random and name != "dense"]
EVEN = [name for name in SORTABLE if 64 % PATTERNS[name].period == 0]
"""The classes of other periods are never full."""


def table(mark: str) -> list[list[str]]:
    lines = SECTION.split(f"<!-- {mark} -->")[1].split("\n\n")[1].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def said(pattern: str) -> str:
    """Find the one number that a sentence states."""
    (found,) = re.findall(pattern, PROSE)
    return str(found)


ROOM = table("room on chip")
STEPS = table("steps of vgg16")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("mappings"))


def run(name: str, pattern: str, kib: int, form: str, cache: Cache) -> Result:
    weight_format = None if form == "dense" else form
    return finding.run(finding.variant(name, pattern), kib, weight_format, cache)


def test_tables_are_whole() -> None:
    assert len(ROOM) == 7
    assert len(STEPS) == 5


@pytest.mark.parametrize(("name", "pattern", "form", "megabytes", "kib", "ratios"),
                         [(*row[:5], row[5:]) for row in ROOM],
                         ids=[" ".join(row[:3]) for row in ROOM])  # fmt: skip
def test_room_on_chip(
    name: str, pattern: str, form: str, megabytes: str, kib: str, ratios: list[str], cache: Cache
) -> None:
    own = [run(name, pattern, size, form, cache) for size in (1024, 8192, 16384)]
    dense = [run(name, "dense", size, "dense", cache) for size in (1024, 8192, 16384)]
    bits = sum(row.weight_bits for row in own[0].layer_rows)
    assert f"{bits / BITS_PER_BYTE / 1e6:.2f}" == megabytes
    dram = [a.total_dram_bytes / b.total_dram_bytes for a, b in zip(own, dense, strict=True)]
    energy = [a.total_energy_pj / b.total_energy_pj for a, b in zip(own, dense, strict=True)]
    assert [f"{each:.3f}" for each in (*dram[:2], *energy)] == ratios

    first = int(kib.replace(",", ""))
    enough = run(name, pattern, first, form, cache)
    assert enough.total_dram_bytes == int(said(r"DRAM moves ([\d,]+) bytes").replace(",", ""))
    assert enough.cached_weight_bytes == bits / BITS_PER_BYTE
    short = run(name, pattern, first - 1, form, cache)
    assert short.total_dram_bytes > 100 * enough.total_dram_bytes
    # the rule, to the KiB
    needed = finding.activations_bytes(load_network(name))
    assert first == -(-(bits + needed * BITS_PER_BYTE) // BITS_PER_KIB)
    # nothing fits in 1 MiB: the stored bits once, the image and the result
    assert own[0].total_dram_bytes == bits / BITS_PER_BYTE + enough.total_dram_bytes


def test_activations_needed_at_once() -> None:
    for name in finding.NETWORKS:
        needed = finding.activations_bytes(load_network(name)) * BITS_PER_BYTE / BITS_PER_KIB
        assert f"{needed:g}" == said(rf"(\d+) KiB (?:of them )?in {name}")


def test_a_bitmap_against_periodic(cache: Cache) -> None:
    bits, energy, notes = {}, {}, {}
    for pattern, form in (("PS4_P4", "periodic"), ("PS4_P4", "bitmap"), ("pSC4", "dense")):
        found = run("vgg16", pattern, 8192, form, cache)
        bits[pattern, form] = sum(row.weight_bits for row in found.layer_rows)
        energy[pattern, form] = found.total_energy_pj
        notes[pattern, form] = {note.kind for note in found.warnings}
    bitmap, periodic = ("PS4_P4", "bitmap"), ("PS4_P4", "periodic")
    assert f"{energy[bitmap] / energy[periodic]:.1f}" == said(r"takes ([\d.]+)x the energy")
    needed = finding.activations_bytes(load_network("vgg16")) * BITS_PER_BYTE
    short = -(-(bits[bitmap] + needed) // BITS_PER_KIB) - 8192
    assert str(short) == said(r"misses the 8 MiB by (\d+) KiB")
    # "dense" asks for no format: each layer takes the smallest that can hold it
    assert (bits["pSC4", "dense"], energy["pSC4", "dense"]) == (bits[bitmap], energy[bitmap])
    assert NoteKind.WEIGHTS_CACHED in notes[periodic]
    assert NoteKind.WEIGHTS_STREAMED in notes[bitmap]


def test_csr_against_periodic(cache: Cache) -> None:
    def stored(pattern: str, form: str) -> int:
        return finding.stored_bits(finding.variant("vgg16", pattern), form)

    large, small = stored("PS4_P4", "csr"), stored("PS1_P9", "csr")
    assert f"{large / BITS_PER_BYTE / 1e6:.2f}" == said(r"PS4_P4 takes ([\d.]+) MB")
    assert large > stored("dense", "dense")
    assert f"{small / BITS_PER_BYTE / 1e6:.2f}" == said(r"PS1_P9 ([\d.]+) MB")
    assert f"{small / stored('PS1_P9', 'periodic'):.1f}" == said(r"MB, ([\d.]+)x the periodic form")
    for pattern in ("PS4_P4", "PS1_P9"):
        csr, periodic = (run("vgg16", pattern, 1024, form, cache) for form in ("csr", "periodic"))
        assert csr.total_dram_bytes > 2 * periodic.total_dram_bytes
        # more indices than weights: more than half of what is stored
        live = finding.variant("vgg16", pattern).layers
        values = sum(layer.weights for layer in live) * BITS_PER_BYTE
        assert stored(pattern, "csr") > 2 * values


@pytest.mark.parametrize("row", STEPS, ids=[row[0] for row in STEPS])
def test_steps_of_vgg16(row: list[str]) -> None:
    made = finding.variant("vgg16", row[0])
    assert f"{finding.macs_left(made):.3f}" == row[1]
    counted = [
        finding.steps_ratio(made, dataflow, side, "best")
        for dataflow in ("weight_stationary", "output_stationary")
        for side in finding.SIDES
    ]
    assert [f"{each:.3f}" for each in counted] == row[2:]


def test_natural_order_saves_nothing_but_on_the_smallest_arrays() -> None:
    saved = {}
    for pattern in SORTABLE:
        made = finding.variant("vgg16", pattern)
        for dataflow in ("weight_stationary", "output_stationary"):
            for side in finding.SIDES:
                ratio = finding.steps_ratio(made, dataflow, side, "natural")
                if ratio < 1:
                    saved[pattern, dataflow, side] = f"{ratio:.3f}"
    stated = {name: said(rf"([\d.]+) \({name}\)") for name in ("PS1_P9", "PSD1_P16")}
    assert saved == {
        (name, dataflow, 8): ratio
        for name, ratio in stated.items()
        for dataflow in ("weight_stationary", "output_stationary")
    }
    assert all(PATTERNS[name].period > 8 for name in stated)


@pytest.mark.parametrize("pattern", EVEN)
def test_which_layers_save_all_that_they_can(pattern: str) -> None:
    own = PATTERNS[pattern]
    for filters in (64, 128, 256, 512):
        for channels in (64, 512):
            mask = Mask.of(pattern, Shape((1, 1, filters, channels, 1, 1, 3, 3), size=(3, 3)))
            for side in finding.SIDES:
                for dataflow in ("weight_stationary", "output_stationary"):
                    found = lock_step(mask, finding.spreads(dataflow, side), order="auto")
                    fits = side * own.period <= filters
                    if own.fdk and dataflow == "weight_stationary":
                        fits = fits and side * own.period <= channels
                    assert (found.ratio == pytest.approx(mask.density)) is fits


def test_an_array_of_pixels_waits_for_nobody() -> None:
    for pattern in SORTABLE:
        mask = Mask.of(pattern, Shape((1, 1, 64, 128, 8, 8, 3, 3), pad=(1, 1), size=(8, 8)))
        pixels = (Spread(Dim.P, 8, "rows"), Spread(Dim.Q, 8, "cols"))
        assert lock_step(mask, pixels).ratio == pytest.approx(mask.density)


def test_where_they_do_not_pay(cache: Cache) -> None:
    chip = load_hardware("edge_tpu")

    def dram(name: str, pattern: str, residency: bool | None = None) -> float:
        made = finding.variant(name, pattern)
        return simulate(made, chip, residency=residency, cache=cache).total_dram_bytes

    large = dram("vgg16_imagenet", "PSD4_P8") / dram("vgg16_imagenet", "dense")
    assert f"{large:.2f}" == said(r"PSD4_P8 still moves ([\d.]+)x")
    dense = dram("vgg16_tinyimagenet", "dense")
    crowded = dram("vgg16_tinyimagenet", "PSD4_P8") / dense
    assert f"{crowded:.2f}" == said(r"that is ([\d.]+)x the DRAM traffic")
    alone = dram("vgg16_tinyimagenet", "PSD4_P8", residency=False) / dense
    assert f"{alone:.2f}" == said(r"with `--residency off` it is ([\d.]+)x")


def recorded(name: str) -> list[dict[str, str]]:
    with (ROOT / "benchmarks" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_record_says_the_same() -> None:
    rooms = {(row["network"], row["pattern"], row["format"]): row
             for row in recorded("finding_room.csv")}  # fmt: skip
    for name, pattern, form, _, kib, *ratios in ROOM:
        row = rooms[name, pattern, form]
        assert int(row["fits_from_kib"]) == int(kib.replace(",", ""))
        names = ("dram_1024", "dram_8192", "energy_1024", "energy_8192", "energy_16384")
        assert [float(row[each]) for each in names] == pytest.approx(
            [float(each) for each in ratios], abs=6e-4
        )
    # the rule holds for every pattern in every format
    for row in rooms.values():
        needed = int(row["stored_bits"]) + int(row["activations_bytes"]) * BITS_PER_BYTE
        assert int(row["fits_from_kib"]) == -(-needed // BITS_PER_KIB)
    steps = {(row["pattern"], row["dataflow"], row["array"]): row["best"]
             for row in recorded("finding_steps.csv") if row["network"] == "vgg16"}  # fmt: skip
    for pattern, _, *ratios in STEPS:
        own = [
            float(steps[pattern, dataflow, f"{side}x{side}"])
            for dataflow in ("weight_stationary", "output_stationary")
            for side in finding.SIDES
        ]
        assert own == pytest.approx([float(each) for each in ratios], abs=6e-4)
