"""Storage formats against real encodings: every tile is written as fields, read back, measured.

Nothing here is shared with ``energysim.sparsity.formats``: the encoder walks the weights one by
one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import pytest
from machines import machine, memory

from energysim.axes import Shape
from energysim.cache import key_of
from energysim.errors import InputError
from energysim.mapper.dataflows import of_machine
from energysim.mapper.goal import Objective
from energysim.mapper.problem import Problem
from energysim.mapping import machine_rules
from energysim.model.capacity import Residency
from energysim.model.sparse import WeightStore
from energysim.solve import _parts
from energysim.sparsity import (
    PATTERNS,
    Mask,
    Pattern,
    StoredBits,
    Tiles,
    all_formats,
    cheapest,
    get_format,
    rle_bits,
    tile_bits,
    tile_nonzeros,
)

NAMES = list(all_formats())
CASES = 2_400
BATCH = 100

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Ranges = list[tuple[int, int]]


# -- an encoder and a decoder ----------------------------------------------------------------------


@dataclass
class Stream:
    """Bits written one field after another, and read back in the same order."""

    bits: str = ""
    at: int = 0

    def put(self, value: int, width: int) -> None:
        assert 0 <= value < 2**width
        self.bits += format(value, f"0{width}b") if width else ""

    def get(self, width: int) -> int:
        word = self.bits[self.at : self.at + width]
        assert len(word) == width, "read beyond the end"
        self.at += width
        return int(word, 2) if width else 0


def width_of(count: int) -> int:
    """Bits that tell ``count`` things apart, found by doubling."""
    width = 0
    while 2**width < count:
        width += 1
    return width


@dataclass(frozen=True)
class Code:
    """What a tile is stored as; how many values there are is known to its reader."""

    values: Stream
    metadata: Stream


@dataclass(frozen=True)
class Setting:
    """All that a reader knows beside the code."""

    name: str
    size: tuple[int, ...]
    bits: int
    run_bits: int
    blocks: tuple[int, int]
    first_channel: int
    supports: Bools
    """for ``periodic``: those of the tile, looked up in the table of the layer"""


def encode(tile: Numbers, setting: Setting) -> Code:
    """Write a tile whose live weights are positive numbers."""
    code = Code(Stream(), Stream())
    WRITERS[setting.name](tile, setting, code)
    return code


def decode(code: Code, setting: Setting) -> Numbers:
    """Read a tile back; only the code and the setting are known."""
    tile = np.zeros(setting.size, dtype=np.int64)
    READERS[setting.name](tile, setting, code)
    assert code.values.at == len(code.values.bits)
    assert code.metadata.at == len(code.metadata.bits)
    return tile


def matrix(tile: Numbers) -> Numbers:
    """One row for each filter of each group; changes with the tile."""
    return tile.reshape(tile.shape[0] * tile.shape[1], -1)


def stored(setting: Setting, code: Code) -> int:
    return len(code.values.bits) // setting.bits


def write_live(tile: Numbers, setting: Setting, code: Code) -> None:
    for weight in tile.ravel():
        if weight:
            code.values.put(int(weight), setting.bits)


def read_supports(tile: Numbers, setting: Setting, code: Code) -> None:
    for place in np.flatnonzero(setting.supports):
        tile.reshape(-1)[place] = code.values.get(setting.bits)


def write_dense(tile: Numbers, setting: Setting, code: Code) -> None:
    for weight in tile.ravel():
        code.values.put(int(weight), setting.bits)


def read_dense(tile: Numbers, setting: Setting, code: Code) -> None:
    for place in range(tile.size):
        tile.reshape(-1)[place] = code.values.get(setting.bits)


def write_bitmap(tile: Numbers, setting: Setting, code: Code) -> None:
    write_live(tile, setting, code)
    for weight in tile.ravel():
        code.metadata.put(int(weight != 0), 1)


def read_bitmap(tile: Numbers, setting: Setting, code: Code) -> None:
    for place in range(tile.size):
        if code.metadata.get(1):
            tile.reshape(-1)[place] = code.values.get(setting.bits)


def write_rows(tile: Numbers, setting: Setting, code: Code) -> None:
    write_live(tile, setting, code)
    rows = matrix(tile)
    start_width, start = width_of(stored(setting, code) + 1), 0
    code.metadata.put(start, start_width)
    for row in rows:
        start += sum(weight != 0 for weight in row)
        code.metadata.put(int(start), start_width)
    for row in rows:
        for column, weight in enumerate(row):
            if weight:
                code.metadata.put(column, width_of(rows.shape[1]))


def read_rows(tile: Numbers, setting: Setting, code: Code) -> None:
    rows = matrix(tile)
    start_width = width_of(stored(setting, code) + 1)
    starts = [code.metadata.get(start_width) for _ in range(len(rows) + 1)]
    for row, (start, stop) in zip(rows, pairwise(starts), strict=True):
        for _ in range(start, stop):
            column = code.metadata.get(width_of(rows.shape[1]))
            row[column] = code.values.get(setting.bits)


def write_coordinates(tile: Numbers, setting: Setting, code: Code) -> None:
    write_live(tile, setting, code)
    for index in np.argwhere(tile):
        for coordinate, extent in zip(index, tile.shape, strict=True):
            code.metadata.put(int(coordinate), width_of(extent))


def read_coordinates(tile: Numbers, setting: Setting, code: Code) -> None:
    for _ in range(stored(setting, code)):
        index = tuple(code.metadata.get(width_of(extent)) for extent in tile.shape)
        tile[index] = code.values.get(setting.bits)


def write_runs(tile: Numbers, setting: Setting, code: Code) -> None:
    run = 0
    end = max((place + 1 for place, weight in enumerate(tile.ravel()) if weight), default=0)
    for weight in tile.ravel()[:end]:
        if weight == 0 and run < 2**setting.run_bits - 1:
            run += 1
            continue
        code.metadata.put(run, setting.run_bits)
        code.values.put(int(weight), setting.bits)  # zero where the run is full
        run = 0


def read_runs(tile: Numbers, setting: Setting, code: Code) -> None:
    place = 0
    for _ in range(stored(setting, code)):
        place += code.metadata.get(setting.run_bits)
        tile.reshape(-1)[place] = code.values.get(setting.bits)
        place += 1


def pieces(setting: Setting) -> Iterator[tuple[int, int, int]]:
    """Channels of the tile block by block: first, number, place of the first in its block."""
    block = setting.blocks[1]
    channel, stop = setting.first_channel, setting.first_channel + setting.size[2]
    while channel < stop:
        end = min(stop, (channel // block + 1) * block)
        yield channel - setting.first_channel, end - channel, channel % block
        channel = end


def lines(tile: Numbers) -> Iterator[Numbers]:
    """Weights of one filter and tap along the channels; change with the tile."""
    groups, filters, _, height, width = tile.shape
    for g, k, r, s in product(range(groups), range(filters), range(height), range(width)):
        yield tile[g, k, :, r, s]


def write_blocks(tile: Numbers, setting: Setting, code: Code) -> None:
    live, block = setting.blocks
    for line, (first, number, place) in product(lines(tile), pieces(setting)):
        piece = line[first : first + number]
        busy = [i for i in range(number) if piece[i]]
        idle = [i for i in range(number) if not piece[i]]
        room = min(live, number)
        assert len(busy) <= room
        for i in (*busy, *idle)[:room]:
            code.values.put(int(piece[i]), setting.bits)
            code.metadata.put(place + i, width_of(block))


def read_blocks(tile: Numbers, setting: Setting, code: Code) -> None:
    live, block = setting.blocks
    for line, (first, number, place) in product(lines(tile), pieces(setting)):
        for _ in range(min(live, number)):
            channel = first + code.metadata.get(width_of(block)) - place
            line[channel] = code.values.get(setting.bits)


Coder = Callable[[Numbers, Setting, Code], None]

WRITERS: dict[str, Coder] = {
    "dense": write_dense,
    "csr": write_rows,
    "periodic": write_live,
    "bitmap": write_bitmap,
    "rle": write_runs,
    "cp": write_coordinates,
    "nm": write_blocks,
}
READERS: dict[str, Coder] = {
    "dense": read_dense,
    "csr": read_rows,
    "periodic": read_supports,
    "bitmap": read_bitmap,
    "rle": read_runs,
    "cp": read_coordinates,
    "nm": read_blocks,
}


# -- random masks and tiles ------------------------------------------------------------------------

FIXED = [name for name in PATTERNS if name != "dense"]


def some_pattern(random: np.random.Generator, kernel: tuple[int, int]) -> Pattern | str:
    """One that fits the kernel."""
    choice = int(random.integers(4))
    if choice == 0:
        return "dense"
    if choice == 1:
        block = int(random.integers(2, 9))
        return Pattern.channels_of(int(random.integers(1, block)), block)
    if choice == 2 and kernel == (3, 3):
        return str(random.choice(FIXED))
    taps = kernel[0] * kernel[1]
    supports = [
        random.choice(taps, int(random.integers(1, taps + 1)), replace=False).tolist()
        for _ in range(int(random.integers(1, 5)))
    ]
    period = None if random.random() < 0.5 else int(random.integers(1, 7))
    every = None if random.random() < 0.5 else int(random.integers(1, 7))
    return Pattern.of(supports, kernel, period=period, fdk_every=every)


def some_mask(random: np.random.Generator) -> Mask:
    """Small layers of any kind of mask; dims need divide nothing."""
    groups, filters, channels = (int(random.integers(1, most)) for most in (4, 7, 20))
    side = int(random.choice([1, 3, 3, 3, 5, 7]))
    kernel = (side, int(random.choice([1, side])))
    dims = (groups, filters, channels, *kernel)
    shape = Shape((1, groups, filters, channels, 1, 1, *kernel), size=kernel)
    kind = int(random.integers(6))
    if kind == 0:  # down to no live weight at all, up to long runs of zeros
        return Mask.from_array(random.random(dims) < random.choice([0, 0.01, 0.1, 0.5, 1]))
    if kind == 1:
        return Mask.from_channels(shape, random.random(groups * channels) < 0.5)
    if kind == 2:  # some of what N:M allows
        mask = Mask.of(Pattern.channels_of(2, 4), shape, int(random.integers(9)))
        return Mask.from_array(mask.array() & (random.random(dims) < 0.8), blocks=(2, 4))
    return Mask.of(some_pattern(random, kernel), shape, int(random.integers(9)))


def some_tile(random: np.random.Generator, mask: Mask) -> Ranges:
    ranges = []
    for extent in mask.dims:
        start = int(random.integers(extent))
        ranges.append((start, int(random.integers(start + 1, extent + 1))))
    return ranges


def numbered(mask: Mask, bits: int, random: np.random.Generator) -> Numbers:
    """Weights that differ from zero exactly where the mask is live."""
    weights = random.integers(1, 2**bits, mask.dims)
    return np.where(mask.array(), weights, 0)


def cut_out(array: npt.NDArray[np.generic], ranges: Ranges) -> npt.NDArray[np.generic]:
    return array[tuple(slice(start, stop) for start, stop in ranges)]


def setting_of(name: str, mask: Mask, ranges: Ranges, *, bits: int, run_bits: int = 5) -> Setting:
    size = tuple(stop - start for start, stop in ranges)
    supports = np.zeros(size, dtype=np.bool_)
    if mask.periodic:
        # The table of the layer: filter 0 of one period of channels has the slots 1, 2, 3 ...
        period, (height, width) = mask.pattern.period, mask.dims[3:]
        one = Shape((1, 1, 1, period, 1, 1, height, width), size=(height, width))
        table = np.roll(Mask.of(mask.pattern, one).array()[0, 0], 1, axis=0)
        _, filters, channels = mask.dims[:3]
        for (i, g), (j, k), (m, c) in product(*(enumerate(range(*each)) for each in ranges[:3])):
            slot = (g * filters + k + g * channels + c + 1) % period
            supports[i, j, m] = cut_out(table[slot], ranges[3:])
    blocks = mask.pattern.blocks or (1, 1)
    return Setting(name, size, bits, run_bits, blocks, ranges[2][0], supports)


@pytest.mark.parametrize("batch", range(CASES // BATCH))
def test_tiles_equal_real_encodings(batch: int) -> None:
    """Masks, tiles and formats at random: what is counted is what the code is long."""
    random = np.random.default_rng(batch)
    done = 0
    while done < BATCH:
        mask = some_mask(random)
        bits, run_bits = int(random.integers(1, 17)), int(random.choice([1, 2, 5, 8]))
        weights = numbered(mask, bits, random)
        chosen = [some_tile(random, mask) for _ in range(3)]
        tiles = Tiles.of(mask, chosen)
        for name in NAMES:
            if not get_format(name).holds(mask):
                with pytest.raises(InputError, match=f"format {name} needs a"):
                    tile_bits(name, mask, tiles, bits)
                continue
            counted = tile_bits(name, mask, tiles, bits, run_bits=run_bits)
            for i, ranges in enumerate(chosen):
                setting = setting_of(name, mask, ranges, bits=bits, run_bits=run_bits)
                tile = cut_out(weights, ranges)
                code = encode(tile, setting)
                assert (decode(code, setting) == tile).all()
                expected = (len(code.values.bits), len(code.metadata.bits))
                assert (counted.values[i], counted.metadata[i]) == expected, (name, mask, ranges)
                done += 1


@pytest.mark.parametrize("batch", range(4))
def test_whole_layers_equal_real_encodings(batch: int) -> None:
    random = np.random.default_rng(1000 + batch)
    for _ in range(25):
        mask = some_mask(random)
        bits, run_bits = int(random.integers(1, 17)), int(random.choice([1, 2, 5, 8]))
        weights = numbered(mask, bits, random)
        everything = [(0, extent) for extent in mask.dims]
        for name in NAMES:
            each = get_format(name)
            if not each.holds(mask):
                with pytest.raises(InputError, match=f"format {name} needs a"):
                    each(mask, bits)
                continue
            setting = setting_of(name, mask, everything, bits=bits, run_bits=run_bits)
            code = encode(weights, setting)
            metadata = len(code.metadata.bits)
            if name == "periodic":
                metadata = mask.pattern.period * mask.dims[3] * mask.dims[4]
            found = each(mask, bits, run_bits=run_bits)
            assert found == StoredBits(len(code.values.bits), metadata), (name, mask)


def layer(filters: int, channels: int, *, groups: int = 1, kernel: int = 3) -> Shape:
    return Shape((1, groups, filters, channels, 1, 1, kernel, kernel), size=(kernel, kernel))


@pytest.mark.parametrize("name", ["PSD4_P8", "PS1_P9", "pSC2", "2:4"])
def test_tiles_of_a_large_layer_are_its_parts(name: str) -> None:
    """Values of all tiles add up to those of the layer; so do those of tiles of any mapping."""
    mask = Mask.of(name, layer(96, 64), 3)
    tiles = Tiles.grid(mask, (1, 20, 24, 3, 2))
    assert len(tiles) == 5 * 3 * 2
    assert tiles.elements.sum() == mask.total
    assert tile_nonzeros(mask, tiles).sum() == mask.nonzeros
    for name_ in ("dense", "csr", "bitmap", "cp", "nm", "periodic"):
        if get_format(name_).holds(mask):
            values = tile_bits(name_, mask, tiles, 8).values.sum()
            assert values == get_format(name_)(mask, 8).values


def test_runs_of_a_large_periodic_layer_equal_the_array() -> None:
    """The closed form against the same mask without its period."""
    for name in ("PSD4_P8", "PS1_P9", "PSD1_P16", "dense"):
        for groups, filters, channels in ((1, 64, 100), (3, 17, 45)):
            mask = Mask.of(name, layer(filters, channels, groups=groups))
            same = Mask.from_array(mask.array())
            for run_bits in (1, 2, 3, 5):
                assert rle_bits(mask, 8, run_bits) == rle_bits(same, 8, run_bits)


def test_runs_by_hand() -> None:
    """Live at 0, 32 and 65 of 100: 31 zeros fit, 32 take a full pair, those at the end nothing."""
    array = np.zeros((1, 1, 100, 1, 1), dtype=np.bool_)
    array[0, 0, [0, 32, 65]] = True
    assert rle_bits(Mask.from_array(array), 8) == StoredBits(4 * 8, 4 * 5)
    assert rle_bits(Mask.from_array(~(array | True)), 8) == StoredBits(0, 0)
    # With 3-bit runs 31 zeros take 3 full pairs and 7 zeros, 32 take 4.
    assert rle_bits(Mask.from_array(array), 8, 3) == StoredBits(10 * 8, 10 * 3)


def test_coordinates_and_blocks_by_hand() -> None:
    mask = Mask.of("2:4", layer(8, 10))
    live = 8 * 9 * (2 + 2 + 2)
    assert mask.nonzeros == live
    assert get_format("cp")(mask, 8) == StoredBits(8 * live, (0 + 3 + 4 + 2 + 2) * live)
    assert get_format("nm")(mask, 8) == StoredBits(8 * live, 2 * live)


@pytest.mark.parametrize("run_bits", [0, -1, 33])
def test_runs_of_no_width_are_refused(run_bits: int) -> None:
    mask = Mask.of("PS4_P4", layer(4, 4))
    with pytest.raises(InputError, match=f"a run of zeros has 1 to 32 bits, got {run_bits}"):
        rle_bits(mask, 8, run_bits)
    with pytest.raises(InputError, match="a run of zeros"):
        tile_bits("rle", mask, Tiles.grid(mask, mask.dims), 8, run_bits=run_bits)


def test_tiles_that_are_none_are_refused() -> None:
    mask = Mask.of("PS4_P4", layer(4, 4))
    whole = [(0, 1), (0, 4), (0, 4), (0, 3), (0, 3)]
    for wrong in ((2, 2), (3, 1), (0, 5), (-1, 2)):
        ranges = [*whole[:2], wrong, *whole[3:]]
        with pytest.raises(InputError, match=r"tile 1 is empty or reaches beyond .*1, 4, 4, 3, 3"):
            Tiles.of(mask, [whole, ranges])
    with pytest.raises(InputError, match="a tile has 5 extents"):
        Tiles.grid(mask, (1, 2, 0, 3, 3))


def test_formats_that_cannot_hold_a_mask_are_passed_over() -> None:
    assert cheapest(Mask.of("1:4", layer(16, 16)), 8, NAMES)[0] == "nm"
    # Two of four need two indices of 2 bits or four bits of a map: the first of equals wins.
    blocks = Mask.of("2:4", layer(16, 16))
    assert cheapest(blocks, 8, ["nm", "bitmap"])[0] == "nm"
    assert cheapest(blocks, 8, ["bitmap", "nm"])[0] == "bitmap"
    assert cheapest(blocks, 8, ["periodic", "dense"])[0] == "dense"
    with pytest.raises(InputError, match=r"\(periodic\) can hold a 2:4 mask; add one of"):
        cheapest(blocks, 8, ["periodic"])
    few = Mask.from_array(np.random.default_rng(0).random((1, 16, 16, 3, 3)) < 0.1)
    narrow = rle_bits(few, 8, 3).total
    assert cheapest(few, 8, ["rle", "cp"], run_bits=3)[1].total == narrow
    with pytest.raises(InputError, match="format nm needs an N:M pattern; irregular is none"):
        get_format("nm")(few, 8)


def test_the_width_of_a_run_changes_what_is_stored_and_where_a_mapping_is_kept() -> None:
    shape = layer(12, 22)
    mask = Mask.from_array(np.random.default_rng(5).random((1, 12, 22, 3, 3)) < 0.1)
    stores, keys = [], set()
    for run_bits in (1, 3, 5, 16):
        sparsity = {"formats": ["rle"], "run_bits": run_bits}
        hardware = machine(memory("BUF", capacity_kib=8), sparsity=sparsity)
        given = hardware.sparsity
        store = WeightStore.of(mask, 8, given.formats, run_bits=given.run_bits)
        assert (store.values_bits, store.metadata_bits) == (
            rle_bits(mask, 8, run_bits).values,
            rle_bits(mask, 8, run_bits).metadata,
        )
        stores.append(store.total_bits)
        asked = Problem(
            hardware=hardware,
            shape=shape,
            rules=machine_rules(hardware, has_weights=True),
            dataflow=of_machine(hardware),
            store=store,
            residency=Residency(),
            objective=Objective.ENERGY,
        )
        keys.add(key_of(_parts(asked)))
    assert len(set(stores)) == len(keys) == 4


EXACT_ROOM = ("nm", "bitmap")
"""Formats of which the room is known exactly, and not only bounded."""


@pytest.mark.parametrize("pattern", ["PSD4_P8", "pSC1", "2:4", "3:8", "array"])
@pytest.mark.parametrize(
    ("name", "run_bits"),
    [("rle", 5), ("rle", 1), ("rle", 16), ("cp", 5), ("nm", 5), ("csr", 5), ("bitmap", 5)],
)
def test_room_of_the_fullest_tile_is_enough(pattern: str, name: str, run_bits: int) -> None:
    shape = layer(12, 22)
    if pattern == "array":
        mask = Mask.from_array(np.random.default_rng(5).random((1, 12, 22, 3, 3)) < 0.1)
    else:
        mask = Mask.of(pattern, shape, 2)
    if not get_format(name).holds(mask):
        return
    store = WeightStore.of(mask, 8, [name], run_bits=run_bits)
    assert store.total_bits == get_format(name)(mask, 8, run_bits=run_bits).total
    assert store.stored * 8 == store.values_bits
    k_tiles, c_tiles = np.array([1, 5, 12]), np.array([1, 3, 4, 7, 22])
    room = store.tile_bits(k_tiles, c_tiles, 9)
    for (i, k), (j, c) in product(enumerate(k_tiles.tolist()), enumerate(c_tiles.tolist())):
        tiles = Tiles.grid(mask, (1, k, c, 3, 3))
        exact = tile_bits(name, mask, tiles, 8, run_bits=run_bits).total.max()
        assert exact <= room[i, j] <= exact * (1 if name in EXACT_ROOM else 3)
