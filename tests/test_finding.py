"""README's finding: every number in it is computed again."""

import csv
import re
import sys
from functools import cache
from pathlib import Path

import pytest
from machines import looked_up

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import finding

from energysim import load_hardware, load_network
from energysim.axes import Dim, Shape
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


variant = cache(finding.variant)


@cache
def run(name: str, pattern: str, kib: int, form: str = "dense") -> Result:
    """Run once for all tests; "dense" asks for no format: each layer takes the smallest."""
    machine = finding.with_room(load_hardware("edge_tpu"), kib)
    weight_format = None if form == "dense" else form
    return looked_up(variant(name, pattern), machine, weight_format=weight_format)


@cache
def stored(pattern: str, form: str) -> int:
    return finding.stored_bits(variant("vgg16", pattern), None if form == "dense" else form)


def number(pattern: str) -> int:
    return int(said(pattern).replace(",", ""))


def test_tables_are_whole() -> None:
    assert len(ROOM) == 7
    assert len(STEPS) == 5


@pytest.mark.parametrize(("name", "pattern", "form", "megabytes", "kib", "ratios"),
                         [(*row[:5], row[5:]) for row in ROOM],
                         ids=[" ".join(row[:3]) for row in ROOM])  # fmt: skip
def test_room_on_chip(
    name: str, pattern: str, form: str, megabytes: str, kib: str, ratios: list[str]
) -> None:
    own = [run(name, pattern, size, form) for size in (1024, 8192, 16384)]
    dense = [run(name, "dense", size) for size in (1024, 8192, 16384)]
    bits = sum(row.weight_bits for row in own[0].layer_rows)
    assert f"{bits / BITS_PER_BYTE / 1e6:.2f}" == megabytes
    dram = [a.total_dram_bytes / b.total_dram_bytes for a, b in zip(own, dense, strict=True)]
    energy = [a.total_energy_pj / b.total_energy_pj for a, b in zip(own, dense, strict=True)]
    assert [f"{each:.3f}" for each in (*dram[:2], *energy)] == ratios

    # the rule, to the KiB
    needed = bits + finding.activations_bytes(variant(name, pattern)) * BITS_PER_BYTE
    first = int(kib.replace(",", ""))
    assert first == -(-needed // BITS_PER_KIB)
    # all fits in 16 MiB; nothing in 1 MiB: the stored bits once, the image and the result
    ends = number(r"DRAM moves ([\d,]+) bytes")
    assert own[2].total_dram_bytes == ends
    assert own[2].cached_weight_bytes == bits / BITS_PER_BYTE
    assert own[0].total_dram_bytes == bits / BITS_PER_BYTE + ends
    # more room costs no energy
    assert own[0].total_energy_pj >= own[1].total_energy_pj >= own[2].total_energy_pj


def test_just_below_the_size_that_fits() -> None:
    found = re.search(r"(\d+) uJ at\s+([\d,]+) KiB become (\d+) at ([\d,]+), "
                      r"then (\d+) at ([\d,]+)", PROSE)  # fmt: skip
    assert found is not None
    stated = [int(each.replace(",", "")) for each in found.groups()]
    points = [run("vgg16", "PSD4_P8", kib, "periodic") for kib in stated[1::2]]
    *_, short, enough = points
    (first,) = (int(row[4].replace(",", "")) for row in ROOM if row[:2] == ["vgg16", "PSD4_P8"])
    assert stated[3::2] == [first - 1, first]
    assert finding.fits(enough)
    assert short.total_dram_bytes > 40 * enough.total_dram_bytes
    assert points[0].total_energy_pj > short.total_energy_pj > enough.total_energy_pj
    assert [round(each.total_energy_pj / 1e6) for each in points] == stated[::2]
    assert all(each.cached_weight_bytes for each in points)
    streamed = run("vgg16", "PSD4_P8", 1024, "periodic").total_energy_pj
    assert all(each.total_energy_pj <= streamed for each in points)


def test_activations_needed_at_once() -> None:
    for name in finding.NETWORKS:
        needed = finding.activations_bytes(load_network(name)) * BITS_PER_BYTE / BITS_PER_KIB
        assert f"{needed:g}" == said(rf"(\d+) KiB (?:of them )?in {name}")


def test_a_bitmap_against_periodic() -> None:
    periodic, bitmap = (run("vgg16", "PS4_P4", 8192, form) for form in ("periodic", "bitmap"))
    ratio = bitmap.total_energy_pj / periodic.total_energy_pj
    assert f"{ratio:.1f}" == said(r"takes ([\d.]+)x the energy")
    bits = sum(row.weight_bits for row in bitmap.layer_rows)
    needed = finding.activations_bytes(variant("vgg16", "PS4_P4")) * BITS_PER_BYTE
    short = -(-(bits + needed) // BITS_PER_KIB) - 8192
    assert str(short) == said(r"misses the 8 MiB by (\d+) KiB")
    # the smallest format that can hold random kernels of this density
    assert stored("pSC4", "dense") == bits == stored("PS4_P4", "bitmap")
    assert NoteKind.WEIGHTS_CACHED in {note.kind for note in periodic.warnings}
    assert NoteKind.WEIGHTS_STREAMED in {note.kind for note in bitmap.warnings}


def test_csr_against_periodic() -> None:
    large, small = stored("PS4_P4", "csr"), stored("PS1_P9", "csr")
    assert f"{large / BITS_PER_BYTE / 1e6:.2f}" == said(r"PS4_P4 takes ([\d.]+) MB")
    assert large > stored("dense", "dense")
    assert f"{small / BITS_PER_BYTE / 1e6:.2f}" == said(r"PS1_P9 ([\d.]+) MB")
    assert f"{small / stored('PS1_P9', 'periodic'):.1f}" == said(r"MB, ([\d.]+)x the periodic form")
    found = re.search(r"([\d.]+) MB and ([\d.]+) MB move: ([\d.]+)x and ([\d.]+)x", PROSE)
    assert found is not None
    moved = []
    for pattern in ("PS4_P4", "PS1_P9"):
        csr, periodic = (
            run("vgg16", pattern, 1024, form).total_dram_bytes for form in ("csr", "periodic")
        )
        moved.append((f"{csr / 1e6:.2f}", f"{csr / periodic:.2f}"))
        # more indices than weights: more than half of what is stored
        values = sum(layer.weights for layer in variant("vgg16", pattern).layers) * BITS_PER_BYTE
        assert stored(pattern, "csr") > 2 * values
    assert moved == [found.group(1, 3), found.group(2, 4)]
    # a mapping of 1 MiB would do in 8 MiB as well: mend README with the search
    missed = run("vgg16", "PS4_P4", finding.CHIP_KIB, "csr").total_dram_bytes
    assert f"{missed / 1e6:.2f}" == said(r"PS4_P4 moves ([\d.]+) MB")


@pytest.mark.parametrize("row", STEPS, ids=[row[0] for row in STEPS])
def test_steps_of_vgg16(row: list[str]) -> None:
    made = variant("vgg16", row[0])
    assert f"{finding.macs_left(made):.3f}" == row[1]
    counted = [
        finding.steps_ratio(made, dataflow, side, "best")
        for dataflow in ("weight_stationary", "output_stationary")
        for side in finding.SIDES
    ]
    assert [f"{each:.3f}" for each in counted] == row[2:]


def test_natural_order_saves_nothing_but_on_the_smallest_arrays() -> None:
    saved = {
        (row["pattern"], row["dataflow"], row["array"]): row["natural"]
        for row in recorded("finding_steps.csv")
        if row["network"] == "vgg16"
        and row["pattern"] in SORTABLE
        and row["dataflow"] != "pixels_only"
        and float(row["natural"]) < 1
    }
    stated = {name: said(rf"([\d.]+) \({name}\)") for name in ("PS1_P9", "PSD1_P16")}
    flows = ("weight_stationary", "output_stationary")
    assert {key: f"{float(ratio):.3f}" for key, ratio in saved.items()} == {
        (name, dataflow, "8x8"): ratio for name, ratio in stated.items() for dataflow in flows
    }
    assert all(PATTERNS[name].period > 8 for name in stated)
    # the record counted again: these, and the next larger array
    for name, ratio in stated.items():
        for side, expected in ((8, ratio), (16, "1.000")):
            counted = finding.steps_ratio(variant("vgg16", name), flows[0], side, "natural")
            assert f"{counted:.3f}" == expected


@pytest.mark.parametrize("pattern", EVEN)
def test_which_layers_save_all_that_they_can(pattern: str) -> None:
    own = PATTERNS[pattern]
    for filters in (128, 512):
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


def test_where_they_pay_little() -> None:
    own, dense = (
        run("vgg16_imagenet", pattern, finding.CHIP_KIB) for pattern in ("PSD4_P8", "dense")
    )
    ratio = own.total_dram_bytes / dense.total_dram_bytes
    assert f"{ratio:.2f}" == said(r"PSD4_P8 still moves ([\d.]+)x")


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
