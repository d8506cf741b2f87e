"""Our periodic format against the lossless weight coder of Arm Vela, on the same network.

``golden/README.md`` says where the numbers come from. Vela's coder knows nothing of a pattern; the
periodic format stores the live weights and one table of supports a layer.
"""

from __future__ import annotations

import csv
from functools import cache
from math import ceil
from pathlib import Path

import pytest

from energysim import load_network
from energysim.axes import Dim
from energysim.sparsity import CORNERS, PAIRS, SINGLES, Mask, Pattern, Taps, get_format

HERE = Path(__file__).parent
README = (HERE.parent / "README.md").read_text(encoding="utf-8")
PERIOD = 8
"""of the patterns that Vela compiled"""

SUPPORTS: dict[int, tuple[Taps, ...]] = {
    6: ((0, 1, 2, 3, 4, 5), (3, 4, 5, 6, 7, 8), (0, 1, 3, 4, 6, 7), (1, 2, 4, 5, 7, 8)),
    4: CORNERS,
    2: PAIRS,
    1: SINGLES,
}
"""by kernel support size; which taps are live doesn't change the size of any format but RLE"""

VALUES = {6: 169_152, 4: 115_712, 2: 62_272, 1: 35_552}
"""live weights of the networks that Vela compiled [byte]"""

POOL = 4096
"""equal weights in Vela's figures that stand for the mean pool, 64 channels of 8x8 [byte]"""

with (HERE / "golden" / "vela_smallcnn.csv").open(encoding="utf-8", newline="") as file:
    ROWS = list(csv.DictReader(file))


@cache
def masks(kss: int) -> tuple[Mask, ...]:
    """Of the layers with weights; every 3x3 convolution has the pattern, the first one too."""
    pattern = Pattern.of(SUPPORTS[kss], period=PERIOD) if kss in SUPPORTS else "dense"
    layers = load_network(str(HERE / "golden" / "vela_smallcnn.yaml")).layers
    return tuple(
        Mask.of(pattern if layer.shape[Dim.R] == 3 else "dense", layer.shape)
        for layer in layers
        if layer.weights
    )


def stored_bytes(kss: int, name: str) -> int:
    """Of a network of 8-bit weights, layers without a pattern as they are [byte]."""
    bits = (
        get_format("dense" if mask.pattern.dense else name)(mask, 8).total for mask in masks(kss)
    )
    return ceil(sum(bits) / 8)


def vela_bytes(kss: int, accelerator: str = "ethos-u55-128") -> int:
    return next(
        int(row["encoded_weight_bytes"])
        for row in ROWS
        if row["kss"] == str(kss) and row["accelerator"] == accelerator
    )


def test_the_networks_are_the_same() -> None:
    assert {int(row["original_weight_bytes"]) for row in ROWS} == {stored_bytes(9, "dense") + POOL}
    for kss, values in VALUES.items():
        assert sum(mask.nonzeros for mask in masks(kss)) == values


@pytest.mark.parametrize("accelerator", sorted({row["accelerator"] for row in ROWS}))
@pytest.mark.parametrize("kss", SUPPORTS)
def test_periodic_is_smaller_than_what_vela_encodes(kss: int, accelerator: str) -> None:
    """Even if the pool's weights, which Vela codes with the rest, cost us a byte each."""
    tables = sum(not mask.pattern.dense for mask in masks(kss)) * PERIOD * 9 / 8
    assert stored_bytes(kss, "periodic") == VALUES[kss] + tables
    assert stored_bytes(kss, "periodic") + POOL < vela_bytes(kss, accelerator)


def test_readme_table() -> None:
    table = README.split("<!-- vela -->")[1].split("\n\n")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [int(row[0]) for row in rows] == list(SUPPORTS)
    for word, *shown in rows:
        kss = int(word)
        periodic, vela = stored_bytes(kss, "periodic"), vela_bytes(kss)
        counted = [
            *(f"{stored_bytes(kss, name):,}" for name in ("periodic", "bitmap", "csr")),
            f"{vela:,}",
            f"{periodic / vela:.3f}",
        ]
        assert shown == counted
