"""Zeros in activations: how many there are, and what coding their runs makes of them.

Which activations are zero is not known before a layer runs, unlike for weights: only the share of
those that are not, the density, and every figure that follows from it is an expected value.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1, log1p

CODE_WORD_BITS = 64
"""Width of a word of run-length coded activations, as of the link to DRAM of Eyeriss [bit]"""


@dataclass(frozen=True, slots=True)
class Activity:
    """How many of a layer's activations are not zero."""

    input_density: float = 1.0
    """share of the input's elements that are not zero, 0 to 1"""
    output_density: float = 1.0
    """the same of the output, as the next layer finds it (after an activation function)"""


DENSE = Activity()
"""Nothing is known of zeros, or they are of no use to the machine."""


@dataclass(frozen=True, slots=True)
class Coded:
    """What an element of a tensor takes where it is stored coded, on average."""

    bits: float
    """[bit]"""
    entries: float
    """stored values"""


def entries_per_element(density: float, run_bits: int) -> float:
    """Run-length entries that code one element, on average.

    Parameters
    ----------
    density : float
        Share of elements that are not zero, each by itself with this probability.
    run_bits : int
        Width of the count of zeros in front of a value [bit].

    Returns
    -------
    float
        From ``2**-run_bits`` (all zero) to 1 (none is).

    Notes
    -----
    An entry is a count of zeros and the value behind them. It ends at the first element that is not
    zero, at the latest at element ``n = 2**run_bits``: the count is full then, and the value is
    written even if it is zero. With density d it covers

        sum over i < n of (1 - d)^i = (1 - (1 - d)^n) / d

    elements on average, and what comes behind it does not depend on it. The entry that the end of a
    tensor cuts short is neglected.

    References
    ----------
    Y.-H. Chen, T. Krishna, J. Emer, V. Sze, "Eyeriss: An Energy-Efficient Reconfigurable
    Accelerator for Deep Convolutional Neural Networks", IEEE JSSC 52(1), 2017: 5-bit counts.

    Examples
    --------
    >>> entries_per_element(0.0, 5), entries_per_element(1.0, 5)
    (0.03125, 1.0)
    """
    longest = 2**run_bits
    if density in (0.0, 1.0):
        return density or 1 / longest
    return density / -expm1(longest * log1p(-density))


def run_length_coded(density: float, value_bits: int, run_bits: int) -> Coded:
    """Room of an element in a run-length coded tensor, or as it is if that is smaller.

    Parameters
    ----------
    density : float
        Share of elements that are not zero.
    value_bits : int
        Width of an element [bit].
    run_bits : int
        Width of the count of zeros in front of a value [bit].

    Returns
    -------
    Coded
        On average. Entries do not straddle words of :data:`CODE_WORD_BITS`: 16-bit values with
        5-bit counts stand in threes, with one bit to spare. A tensor that coding would make larger
        is stored as it is; that takes a flag a tensor, which is not counted.

    Examples
    --------
    >>> run_length_coded(0.0, 16, 5)
    Coded(bits=0.6666666666666666, entries=0.03125)
    >>> run_length_coded(0.9, 16, 5)
    Coded(bits=16.0, entries=1.0)
    """
    plain = Coded(float(value_bits), 1.0)
    in_a_word = CODE_WORD_BITS // (value_bits + run_bits)
    if not in_a_word:
        return plain
    entries = entries_per_element(density, run_bits)
    bits = entries * CODE_WORD_BITS / in_a_word
    return Coded(bits, entries) if bits < plain.bits else plain
