"""Run-length coded activations: the formula against encoders that write every bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energysim.sparsity import (
    CODE_WORD_BITS,
    Coded,
    entries_per_element,
    run_length_coded,
)
from energysim.validation.data import read_rows

Values = npt.NDArray[np.int64]

DENSITIES = (0.0, 0.02, 0.1, 0.3, 0.6, 0.95, 1.0)


# -- an encoder ------------------------------------------------------------------------------------


def encode(values: Values, value_bits: int, run_bits: int) -> list[int]:
    """Words of (run, value) pairs; the last word of a tensor may have room to spare.

    A run is at most ``2**run_bits - 1`` zeros long; then a value is written whatever it is. Zeros
    at the end become a pair too, of a run one shorter and the last zero.
    """
    longest, pairs, run = 2**run_bits - 1, list[tuple[int, int]](), 0
    for value in values.tolist():
        if value == 0 and run < longest:
            run += 1
        else:
            pairs.append((run, value))
            run = 0
    if run:
        pairs.append((run - 1, 0))
    in_a_word, width = CODE_WORD_BITS // (value_bits + run_bits), value_bits + run_bits
    words = []
    for first in range(0, len(pairs), in_a_word):
        word = 0
        for i, (zeros, value) in enumerate(pairs[first : first + in_a_word]):
            word |= (zeros << value_bits | value) << (i * width)
        assert word < 2**CODE_WORD_BITS
        words.append(word)
    return words


def decode(words: list[int], count: int, value_bits: int, run_bits: int) -> list[int]:
    found: list[int] = []
    width = value_bits + run_bits
    for word in words:
        for i in range(CODE_WORD_BITS // width):
            if len(found) == count:
                break
            pair = word >> (i * width) & (2**width - 1)
            found += [0] * (pair >> value_bits) + [pair & (2**value_bits - 1)]
    return found


def drawn(seed: int, count: int, density: float, value_bits: int = 16) -> Values:
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 2**value_bits, count)
    return np.where(rng.random(count) < density, values, 0)


@given(
    st.integers(0, 2**32),
    st.integers(1, 300),
    st.floats(0, 1),
    st.integers(1, 16),
    st.integers(1, 16),
)
def test_the_encoder_loses_nothing(
    seed: int, count: int, density: float, value_bits: int, run_bits: int
) -> None:
    values = drawn(seed, count, density, value_bits)
    words = encode(values, value_bits, run_bits)
    assert decode(words, count, value_bits, run_bits) == values.tolist()


# -- the formula -----------------------------------------------------------------------------------


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize(("value_bits", "run_bits"), [(16, 5), (8, 5), (16, 2), (8, 4)])
def test_bits_of_random_tensors(density: float, value_bits: int, run_bits: int) -> None:
    """The mean over many tensors is the expected one within half a percent."""
    count = 12_000
    in_a_word = CODE_WORD_BITS // (value_bits + run_bits)
    written = [
        len(encode(drawn(seed, count, density, value_bits), value_bits, run_bits)) * CODE_WORD_BITS
        for seed in range(20)
    ]
    expected = entries_per_element(density, run_bits) * CODE_WORD_BITS / in_a_word
    assert np.mean(written) / count == pytest.approx(expected, rel=0.005, abs=0.02)


@given(st.integers(0, 2**32), st.floats(0, 1), st.integers(1, 8))
def test_entries_of_any_density(seed: int, density: float, run_bits: int) -> None:
    """Of one tensor: within six standard deviations of a share of so many elements."""
    count, longest = 20_000, 2**run_bits - 1
    entries = run = 0
    for value in drawn(seed, count, density).tolist():
        whole = value or run == longest
        entries += bool(whole)
        run = 0 if whole else run + 1
    assert entries / count == pytest.approx(entries_per_element(density, run_bits), abs=0.022)


@pytest.mark.parametrize("run_bits", [1, 2, 5])
def test_entries_by_what_one_covers(run_bits: int) -> None:
    """Each length of an entry times its probability, added up term by term."""
    longest, density = 2**run_bits, 0.37
    covered = sum((1 - density) ** i * density * (i + 1) for i in range(longest - 1))
    covered += (1 - density) ** (longest - 1) * longest
    assert entries_per_element(density, run_bits) == pytest.approx(1 / covered, rel=1e-12)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 32), st.integers(1, 16))
def test_room_grows_with_density_and_never_beyond_dense(
    one: float, other: float, value_bits: int, run_bits: int
) -> None:
    low, high = sorted((one, other))
    less, more = (run_length_coded(each, value_bits, run_bits) for each in (low, high))
    assert less.bits <= more.bits * (1 + 1e-12)
    assert more.bits <= value_bits
    assert less.entries >= 2**-run_bits


def test_width_of_a_pair() -> None:
    assert run_length_coded(0.3, 16, 5).bits == pytest.approx(0.3 * 64 / 3, rel=1e-4)
    assert run_length_coded(0.3, 8, 5).bits == pytest.approx(0.3 * 64 / 4, rel=1e-4)
    assert run_length_coded(1.0, 16, 5) == Coded(16.0, 1.0)
    assert run_length_coded(0.0, 60, 5) == Coded(60.0, 1.0)  # no pair fits a word
    tiny = run_length_coded(1e-300, 16, 5)
    assert tiny.entries == pytest.approx(1 / 32)


# -- the chip --------------------------------------------------------------------------------------


def rows() -> list[dict[str, str]]:
    return read_rows("eyeriss_alexnet.csv")


def moved_bytes(row: dict[str, str]) -> tuple[float, float]:
    """What the chip moves to and from DRAM by its published mapping, as it is and coded."""
    size, kernel, stride, out, m, n, e = (
        int(row[key]) for key in ("size", "kernel", "stride", "out", "m", "n", "e")
    )
    channels, filters, groups = (int(row[key]) for key in ("channels", "filters", "groups"))
    batch, word = 4, 2
    strips = -(-out // e)
    # strips of e output rows share no input rows; m filters of a group pass over an input at once
    lines = size if strips == 1 else strips * ((e - 1) * stride + kernel)
    passes = -(-filters // (groups * m))
    weights = word * filters * channels // groups * kernel**2 * -(-batch // n) * strips
    raw = {
        "input": word * batch * channels * lines * size * passes,
        "output": word * batch * filters * out**2,
    }
    coded = sum(
        raw[name] * run_length_coded(float(row[f"{name}_density"]), 16, 5).bits / 16 for name in raw
    )
    return weights + sum(raw.values()), weights + coded


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["layer"])
def test_dram_of_alexnet_on_eyeriss(row: dict[str, str]) -> None:
    """Coded by our formula, the chip's traffic is what was measured.

    The ratio of bytes before and after is within 4 % of the published one (which is rounded to
    tenths, up to 4 %), the bytes within 5 % (rounded to tenths of a MB, up to 4 %).
    """
    raw, coded = moved_bytes(row)
    assert raw / coded == pytest.approx(float(row["rlc_ratio"]), rel=0.04)
    assert coded / 1e6 == pytest.approx(float(row["dram_mb"]), rel=0.05)


def test_readme_tells_the_ratios() -> None:
    ratios = [raw / coded for raw, coded in map(moved_bytes, rows())]
    words = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    measured = ", ".join(row["rlc_ratio"] for row in rows())
    text = " ".join((Path(__file__).parents[1] / "README.md").read_text().split())
    assert f"{words} in conv1 to conv5; measured were {measured}" in text
