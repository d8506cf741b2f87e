"""Pre-defined sparse kernels: the patterns by name, own ones from supports, what a pattern covers.

A pattern fixes before training which weights may differ from zero: which taps of every 2D kernel,
or with N:M which input channels of every tap. All is plain Python.

References
----------
S. Kundu, M. Nazemi, M. Pedram, K. M. Chugg, P. A. Beerel, "Pre-Defined Sparsity for Low-Complexity
Convolutional Neural Networks", IEEE Trans. Computers 69(7), 2020 (arXiv 2001.10710); supports and
slot rule as in the authors' code, github.com/ksouvik52/Pre-defined-sparseCNN (f41b11c).
A. Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021 (arXiv 2104.08378): N:M.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import lcm

from energysim.errors import InputError, InputErrors, did_you_mean

Taps = tuple[int, ...]
"""Live taps of one 2D kernel, numbered row-major from 0: 0..8 for 3x3."""

Problem = tuple[tuple[str | int, ...], str]
"""Path of a field, and what is wrong with it."""

SOURCE = (
    "S. Kundu et al., Pre-Defined Sparsity for Low-Complexity Convolutional Neural Networks, IEEE "
    "Trans. Computers 69(7), 2020 (arXiv 2001.10710)"
)
"""Where the named patterns are published."""

SIDE = 3
"""Height and width of the kernels that the named patterns are defined for."""

ALL_TAPS: Taps = tuple(range(SIDE * SIDE))
"""The support of a fully dense 3x3 kernel."""

CORNERS: tuple[Taps, ...] = ((0, 1, 3, 4), (1, 2, 4, 5), (3, 4, 6, 7), (4, 5, 7, 8))
"""KSS 4: the four 2x2 corners, in the order of the authors' code."""

PAIRS: tuple[Taps, ...] = ((0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8))
"""KSS 2: the six horizontally adjacent pairs, in the order of the authors' code."""

SINGLES: tuple[Taps, ...] = tuple((tap,) for tap in ALL_TAPS)
"""KSS 1: the nine single taps (assumed order: row-major; the authors' code has no KSS 1)."""

LONGEST_PERIOD = 128
"""Most slots of a period: tables of the fullest tiles grow with its third power."""

LARGEST_GROUP = 64
"""Largest M of an N:M pattern."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which weights of a layer are live.

    The kernel of filter k and input channel c stands in slot ``s = (k + c + 1) mod P``, with k and
    c counted over the layer's full channels (all groups). The kernel variants cycle over the slots
    1, 2, 3 ...: slot s takes variant ``((s - 1) mod cycle) mod KV``. Slot 0 is the end of that
    cycle: it holds the fully dense kernel where the pattern has one, else variant
    ``(P - 1) mod cycle mod KV``. The named patterns have ``cycle = P``; one of a user may be longer
    than its cycle, see :meth:`of`.

    Three kinds have no slots: a random pattern (every 2D kernel draws its own support), N:M (every
    M neighbouring input channels of a filter and tap draw the N that are live) and an irregular one
    (any array, see :meth:`energysim.sparsity.Mask.from_array`).
    """

    name: str
    """as the papers write it: ``PSD4_P8`` is KSS 4 with one dense kernel in every 8"""
    kss: int
    """kernel support size: live taps of a sparse kernel, the most where they differ; 0 without
    variants"""
    supports: tuple[Taps, ...]
    """the kernel variants; empty for a pattern without slots"""
    period: int = 1
    """P, number of slots"""
    fdk: bool = False
    """slot 0 is a fully dense kernel"""
    random: bool = False
    """a seeded random support for each 2D kernel"""
    kernel: tuple[int, int] | None = (SIDE, SIDE)
    """height and width of the kernels that it is defined for; None for any"""
    cycle: int = 0
    """slots after which the variants start anew; 0 for the period"""
    fdk_every: int = 0
    """slots from one fully dense kernel to the next; 0 for the period"""
    blocks: tuple[int, int] | None = None
    """(N, M): at most N of M neighbouring input channels are live at every filter and tap"""
    digest: str = ""
    """of an irregular mask: tells it from others"""

    @classmethod
    def of(
        cls,
        supports: Iterable[Iterable[int]],
        kernel: tuple[int, int] = (SIDE, SIDE),
        *,
        period: int | None = None,
        fdk_every: int | None = None,
    ) -> Pattern:
        """Make a periodic pattern of one's own supports.

        The variants cycle with ``period`` and every slot whose number ``fdk_every`` divides holds
        a fully dense kernel in place of its variant, so the whole repeats after P = the least
        common multiple of the two slots.

        Parameters
        ----------
        supports : iterable of iterable of int
            Live taps of each variant, numbered row-major from 0.
        kernel : (int, int)
            Height and width of the kernel.
        period : int, optional
            Slots after which the variants start anew; by default ``fdk_every``, so that they do
            after each dense kernel as in the papers, or without one the number of supports.
        fdk_every : int, optional
            One fully dense kernel in so many; none by default.

        Returns
        -------
        Pattern
            The named one that has the same slots, if there is one. Else its name spells it out,
            so that :func:`get_pattern` finds it again.

        Raises
        ------
        InputErrors
            With everything that is wrong.

        Examples
        --------
        >>> Pattern.of(CORNERS, period=4, fdk_every=8).name
        'PSD4_P8'
        >>> Pattern.of([[0, 6, 12], [2, 22]], (5, 5), fdk_every=3).name
        '5x5_0.6.12_2.22_F3'
        """
        variants = tuple(tuple(taps) for taps in supports)
        problems = [message for _, message in problems_of(variants, kernel, period, fdk_every)]
        if problems:
            raise InputErrors(problems)
        variants = tuple(tuple(sorted(taps)) for taps in variants)
        usual = fdk_every or len(variants)
        cycle = period or usual
        height, width = kernel
        words = [f"{height}x{width}", *(".".join(map(str, taps)) for taps in variants)]
        if cycle != usual:
            words.append(f"P{cycle}")
        if fdk_every:
            words.append(f"F{fdk_every}")
        made = cls(
            "_".join(words),
            max(map(len, variants)),
            variants,
            lcm(cycle, fdk_every or 1),
            fdk=bool(fdk_every),
            kernel=kernel,
            cycle=cycle,
            fdk_every=fdk_every or 0,
        )
        twins = (each for each in PATTERNS.values() if _same(each, made))
        return next(twins, made)

    @classmethod
    def channels_of(cls, live: int, block: int) -> Pattern:
        """Make an N:M pattern: N of M neighbouring input channels live, at every filter and tap.

        Which ones is drawn for each block by the seed of the mask; the same seed gives the same
        mask. In a last block of fewer than M channels, N or all of them are live.

        Parameters
        ----------
        live, block : int
            N and M, with 1 <= N < M.

        Raises
        ------
        InputError
            If they are not.
        """
        if not 1 <= live < block <= LARGEST_GROUP:
            raise InputError(
                f"pattern {live}:{block}: in N:M, N must be at least 1 and less than M, and M at"
                f" most {LARGEST_GROUP}. Try 2:4 or 1:4"
            )
        return cls(f"{live}:{block}", 0, (), kernel=None, blocks=(live, block))

    @property
    def dense(self) -> bool:
        """Whether this is the pattern that fixes no weight at zero."""
        return self.name == "dense"

    @property
    def seeded(self) -> bool:
        """Whether the mask depends on a seed."""
        return self.random or (self.blocks is not None and not self.digest)

    @property
    def slots(self) -> tuple[Taps, ...]:
        """Support of every slot, slot 0 first; empty for a pattern without slots.

        Examples
        --------
        >>> PATTERNS["PS4_P4"].slots[1]
        (0, 1, 3, 4)
        >>> PATTERNS["PSD4_P8"].slots[0] == ALL_TAPS
        True
        """
        if not self.supports:
            return ()
        cycle, every = self.cycle or self.period, self.fdk_every or self.period
        return tuple(
            self.all_taps
            if self.fdk and slot % every == 0
            else self.supports[(slot - 1) % cycle % len(self.supports)]
            for slot in range(self.period)
        )

    @property
    def all_taps(self) -> Taps:
        """The support of a fully dense kernel; 3x3 where the pattern is for any size."""
        height, width = self.kernel or (SIDE, SIDE)
        return tuple(range(height * width))

    @property
    def mean_kss(self) -> float:
        """Mean number of live taps of a kernel over one period.

        Raises
        ------
        InputError
            For N:M and irregular patterns, which don't speak of single kernels.

        Examples
        --------
        >>> PATTERNS["PSD4_P8"].mean_kss
        4.625
        """
        if self.random:
            return float(self.kss)
        if not self.supports:
            raise InputError(f"pattern {self.name} has no kernel variants, so no mean KSS")
        return sum(map(len, self.slots)) / self.period

    def fits(self, height: int, width: int) -> bool:
        """Whether the pattern is defined for kernels of this size."""
        return self.kernel is None or (height, width) == self.kernel

    def misfit(self, height: int, width: int) -> str:
        """Say that the pattern is not defined for kernels of this size."""
        own_height, own_width = self.kernel or (height, width)
        return (
            f"pattern {self.name} is defined for {own_height}x{own_width} kernels, not"
            f" {height}x{width}"
        )


def problems_of(
    supports: Sequence[Sequence[int]],
    kernel: tuple[int, int],
    period: int | None,
    fdk_every: int | None,
) -> list[Problem]:
    """Everything that is wrong with the fields of a pattern of one's own, and in which field.

    Parameters
    ----------
    supports, kernel, period, fdk_every
        As for :meth:`Pattern.of`.

    Returns
    -------
    list of (path, str)
    """
    height, width = kernel
    if height < 1 or width < 1:
        return [(("kernel",), f"a kernel has a height and a width of 1 or more, got {kernel}")]
    found: list[Problem] = []
    if not supports:
        found.append((("supports",), "a pattern needs at least one support, got none"))
    for index, taps in enumerate(supports):
        found += [(("supports", index), message) for message in _support_problems(taps, kernel)]
    for key, value in (("period", period), ("fdk_every", fdk_every)):
        if value is not None and value < 1:
            found.append(((key,), f"must be 1 or more, got {value}"))
    if found:
        return found
    slots = lcm(period or fdk_every or len(supports), fdk_every or 1)
    if slots <= LONGEST_PERIOD:
        return []
    message = (
        f"the pattern repeats after {slots} kernels, and at most {LONGEST_PERIOD} are allowed."
        " Try a period that divides fdk_every"
    )
    return [(("period",) if period else ("supports",), message)]


def _support_problems(taps: Sequence[int], kernel: tuple[int, int]) -> Iterator[str]:
    height, width = kernel
    if not taps:
        yield "a support needs at least one live tap, got an empty list"
    wrong = [tap for tap in taps if not 0 <= tap < height * width]
    if wrong:
        yield (
            f"a {height}x{width} kernel has the taps 0 to {height * width - 1}, numbered row by"
            f" row; got {', '.join(map(str, wrong))}"
        )
    twice = [tap for place, tap in enumerate(taps) if tap in taps[:place]]
    if twice:
        yield f"tap {twice[0]} stands in a support twice; write it once"


def _same(one: Pattern, other: Pattern) -> bool:
    """Whether two periodic patterns have the same mask on every layer that both fit."""
    return one.kernel == other.kernel and bool(one.slots) and one.slots == other.slots


def _periodic(name: str, supports: tuple[Taps, ...], period: int, *, fdk: bool) -> Pattern:
    return Pattern(name, len(supports[0]), supports, period, fdk)


PATTERNS: dict[str, Pattern] = {
    pattern.name: pattern
    for pattern in (
        Pattern("dense", len(ALL_TAPS), (ALL_TAPS,), kernel=None),
        Pattern("pSC4", 4, (), random=True),
        Pattern("pSC2", 2, (), random=True),
        Pattern("pSC1", 1, (), random=True),
        _periodic("PS4_P4", CORNERS, 4, fdk=False),
        _periodic("PS2_P6", PAIRS, 6, fdk=False),
        _periodic("PS1_P9", SINGLES, 9, fdk=False),
        _periodic("PSD4_P8", CORNERS, 8, fdk=True),
        _periodic("PSD4_P16", CORNERS, 16, fdk=True),
        _periodic("PSD2_P8", PAIRS, 8, fdk=True),
        _periodic("PSD2_P16", PAIRS, 16, fdk=True),
        _periodic("PSD1_P8", SINGLES, 8, fdk=True),
        _periodic("PSD1_P16", SINGLES, 16, fdk=True),
    )
}
"""Every pattern of the papers by name."""

ALIASES: dict[str, str] = {"pSC9": "dense"}
"""Other names that the papers use."""

_BLOCKS = re.compile(r"(\d{1,6}):(\d{1,6})")
_SPELLED = re.compile(
    r"(\d{1,6})x(\d{1,6})((?:_\d{1,6}(?:\.\d{1,6})*)+)(?:_P(\d{1,6}))?(?:_F(\d{1,6}))?",
    re.IGNORECASE,
)


def get_pattern(name: str) -> Pattern:
    """Find a pattern by name, in any mixture of upper and lower case.

    Parameters
    ----------
    name : str
        A key of :data:`PATTERNS` or :data:`ALIASES`; ``N:M`` such as ``2:4``; or supports spelled
        out as in ``3x3_0.1.3.4_4.5.7.8_F8``: the kernel, the taps of each variant, a period ``P``
        and ``F`` for one fully dense kernel in so many.

    Raises
    ------
    InputError
        If there is no such pattern; names the nearest one.

    Examples
    --------
    >>> get_pattern("psd4_p8").name
    'PSD4_P8'
    >>> get_pattern("2:4").blocks
    (2, 4)
    >>> get_pattern("3x3_0.4.8_2.4.6").slots
    ((2, 4, 6), (0, 4, 8))
    """
    known = {word.lower(): word for word in (*PATTERNS, *ALIASES)}
    word = known.get(name.lower())
    if word is not None:
        return PATTERNS[ALIASES.get(word, word)]
    if match := _BLOCKS.fullmatch(name):
        return Pattern.channels_of(int(match[1]), int(match[2]))
    if match := _SPELLED.fullmatch(name):
        supports = [map(int, taps.split(".")) for taps in match[3][1:].split("_")]
        kernel = int(match[1]), int(match[2])
        period, every = (None if text is None else int(text) for text in match.group(4, 5))
        return Pattern.of(supports, kernel, period=period, fdk_every=every)
    near = did_you_mean(name.lower(), known)
    for lower, proper in known.items():
        near = near.replace(f"'{lower}'", f"'{proper}'")
    raise InputError(
        f"no pattern named {name!r}.{near} Known: {', '.join(PATTERNS)}, N:M such as 2:4, or"
        " supports such as 3x3_0.1.3.4_4.5.7.8_F8"
    )


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the kernels of one period of a pattern cover between them."""

    pattern: str
    """name of the pattern"""
    kernel: tuple[int, int]
    """height and width"""
    period: int
    """slots of the pattern as it is written"""
    true_period: int
    """slots after which the supports really repeat"""
    live: tuple[int, ...]
    """for each tap, the kernels of one period in which it is live"""
    union: Taps
    """taps that are live in some kernel"""
    union_without_fdk: Taps
    """taps that are live in some kernel that isn't fully dense"""
    mean_kss: float
    """live taps of a kernel, mean over one period"""
    variants: int
    """distinct supports that occur, without the fully dense one"""
    dense_kernels: int
    """fully dense kernels in one period"""
    unused: tuple[Taps, ...]
    """supports that were given and occur in no slot"""

    @property
    def missing(self) -> Taps:
        """Taps that are dead in every kernel: the layer never sees these weights."""
        return tuple(tap for tap in range(len(self.live)) if not self.live[tap])


def pattern_words(name: str) -> str:
    """Say what a pattern does to the kernels.

    Examples
    --------
    >>> pattern_words("PSD4_P8")
    '3x3 kernels, PSD4_P8: 4 of 9 taps, 1 of 8 dense'
    >>> pattern_words("pSC2")
    '3x3 kernels, pSC2: 2 of 9 taps, drawn at random'
    """
    pattern = PATTERNS.get(name)
    if pattern is None:
        return f"{name} patterns"
    if pattern.dense:
        return "dense"
    kind = f"1 of {pattern.period} dense" if pattern.fdk else f"period {pattern.period}"
    if pattern.random:
        kind = "drawn at random"
    taps = len(ALL_TAPS)
    return f"{SIDE}x{SIDE} kernels, {name}: {pattern.kss} of {taps} taps, {kind}"


def coverage(pattern: Pattern | str) -> Coverage:
    """Say what a periodic pattern covers.

    Any P neighbouring kernels of a filter, or filters of a channel, stand in all P slots, so what
    holds for one period holds for each of them.

    Parameters
    ----------
    pattern : Pattern or str
        A pattern or its name. ``dense`` is taken as 3x3.

    Raises
    ------
    InputError
        If the pattern has no slots: random, N:M and irregular ones.

    Examples
    --------
    >>> covered = coverage("PSD1_P8")
    >>> covered.live, covered.mean_kss, covered.unused
    ((2, 2, 2, 2, 2, 2, 2, 1, 1), 2.0, ((7,), (8,)))
    >>> coverage("PSD1_P8").missing, coverage("PSD1_P8").union_without_fdk
    ((), (0, 1, 2, 3, 4, 5, 6))
    """
    found = get_pattern(pattern) if isinstance(pattern, str) else pattern
    slots = found.slots
    if not slots:
        raise InputError(
            f"pattern {found.name} has no period: only periodic patterns cover the same taps in"
            " every period. Count the mask of a layer instead"
        )
    taps = found.all_taps
    sparse = [slot for slot in slots if len(slot) < len(taps)]
    return Coverage(
        found.name,
        found.kernel or (SIDE, SIDE),
        found.period,
        smallest_period(slots),
        tuple(sum(tap in slot for slot in slots) for tap in taps),
        tuple(tap for tap in taps if any(tap in slot for slot in slots)),
        tuple(tap for tap in taps if any(tap in slot for slot in sparse)),
        found.mean_kss,
        len(set(sparse)),
        len(slots) - len(sparse),
        tuple(dict.fromkeys(each for each in found.supports if each not in slots)),
    )


def smallest_period(sequence: Sequence[object]) -> int:
    """Length of the shortest piece that, repeated, gives the whole sequence.

    Examples
    --------
    >>> smallest_period([4, 4, 4, 4]), smallest_period([9, 4, 9, 4]), smallest_period([1, 2, 1])
    (1, 2, 3)
    """
    length = len(sequence)
    return next(
        each
        for each in range(1, length + 1)
        if length % each == 0 and all(sequence[i] == sequence[i % each] for i in range(length))
    )
