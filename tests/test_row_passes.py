"""Row stationary by passes over whole rows, as two studies count it."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import walk

from energysim.axes import Dim, Tensor
from energysim.catalog import load_hardware
from energysim.mapping import Rules
from energysim.validation.data import data_file
from energysim.validation.row_passes import (
    BUFFER,
    INPUT_BUS,
    OUTPUT_BUS,
    REGISTERS,
    Pass,
    Placement,
    RowLayer,
    add_buses,
    best_passes,
    folded,
    passes,
    place,
    single_words_of,
    words_of,
)
from energysim.validation.variant import variant

SMALL = RowLayer(images=1, filters=6, channels=4, side=6, kernel=3, stride=1)
"""On 6 rows of 3 columns: two pieces of a map, one above the other."""

BLOCKS = {
    Dim.N: np.array([[1, 1, 1]]),
    Dim.K: np.array([[2, 1, 3]]),
    Dim.C: np.array([[2, 2, 1]]),
}


@pytest.mark.parametrize(
    ("layer", "array", "expected"),
    [
        # VGG-16 conv1, 224 rows on 14 columns: 16 pieces, four at a time
        (RowLayer(1, 64, 3, 224, 3, 1), (12, 14), Placement(4, 4, 14, 1, 1)),
        # 28 rows: both pieces at once, and twice
        (RowLayer(1, 128, 128, 28, 3, 1), (12, 14), Placement(1, 2, 14, 2, 1)),
        # AlexNet conv1: 55 rows, the last fold is shorter
        (RowLayer(16, 48, 3, 55, 11, 4), (16, 16), Placement(4, 1, 14, 1, 1)),
        # a linear layer: nothing but filters and channels to spread
        (RowLayer(1, 1000, 4096, 1, 1, 1), (12, 14), Placement(1, 1, 1, 12, 14)),
    ],
)
def test_place(layer: RowLayer, array: tuple[int, int], expected: Placement) -> None:
    assert place(layer, *array) == expected


def test_folds_are_images() -> None:
    layer = RowLayer(2, 64, 3, 224, 3, 1)
    rows = folded(layer, place(layer, 12, 14))
    assert (rows.images, rows.side, rows.reach) == (8, 56, 58)
    assert rows.macs * 4 == layer.macs  # rows of a fold are as long, see row_words


@pytest.mark.parametrize("kind", list(passes(place(SMALL, 6, 3), bypass=True)), ids=str)
def test_words_are_what_a_walk_moves(kind: Pass) -> None:
    if any(np.prod(BLOCKS[dim]) != trips for dim, trips in kind.trips(SMALL).items()):
        pytest.skip("other numbers of passes")
    nest, trips = kind.nest(SMALL, BLOCKS)
    with_buses = add_buses(nest)
    refetch = frozenset({BUFFER, INPUT_BUS, REGISTERS})
    counts = walk(SMALL.rows, with_buses, trips[0].tolist(), Rules(refetch=refetch)).counts
    words = words_of(SMALL, SMALL, nest, trips)
    for tensor, length in SMALL.row_words.items():
        dram = counts[0, tensor, "read"] + counts[0, tensor, "update"]
        buffer = counts[BUFFER, tensor, "read"] + counts[BUFFER, tensor, "update"]
        assert words.dram[tensor][0] == length * dram
        assert words.buffer[tensor][0] == length * buffer
    assert words.array[Tensor.INPUT][0] == 8 * counts[INPUT_BUS, Tensor.INPUT, "fill"]
    assert words.array[Tensor.WEIGHT][0] == 3 * counts[REGISTERS, Tensor.WEIGHT, "fill"]
    out = counts[OUTPUT_BUS, Tensor.OUTPUT, "drain"], counts[OUTPUT_BUS, Tensor.OUTPUT, "fill"]
    assert words.array[Tensor.OUTPUT][0] == 6 * (out[0] + 3 * out[1])


def test_word_by_word_nothing_moves_less() -> None:
    for kind in passes(place(SMALL, 6, 3), bypass=False):
        if any(np.prod(BLOCKS[dim]) != trips for dim, trips in kind.trips(SMALL).items()):
            continue
        nest, trips = kind.nest(SMALL, BLOCKS)
        rows = words_of(SMALL, SMALL, nest, trips)
        for first in (False, True):
            single = single_words_of(SMALL, SMALL, nest, trips, slides_first=first)
            for tensor in (Tensor.WEIGHT, Tensor.OUTPUT):
                assert single.array[tensor][0] >= rows.array[tensor][0]


def test_best_passes_must_fit() -> None:
    hardware = load_hardware(str(data_file("isca16.yaml")))
    best = best_passes(SMALL, hardware, bypass=False)
    assert best.dram == {Tensor.WEIGHT: 216, Tensor.INPUT: 256, Tensor.OUTPUT: 216}
    small = variant(hardware, levels={"RF": {"capacity_bytes": 8}})
    with pytest.raises(ValueError, match="no passes"):
        best_passes(SMALL, small, bypass=False)
