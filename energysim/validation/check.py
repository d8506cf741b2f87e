"""One number of ours beside one of theirs, and whether it is as near as it must be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import inf, isfinite

Kind = str
"""How the other number was got: one of ``KINDS``."""

KINDS = ("silicon", "vendor", "tool", "paper")
"""Measured on a chip, said by who makes it, computed by another tool, printed in a paper."""


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    OFF = "OFF"
    SHOWN = "shown"
    """nothing is claimed of it: it stands there with the reason why it differs"""


@dataclass(frozen=True, slots=True)
class Check:
    """One number of ours beside one of theirs.

    Parameters
    ----------
    what : str
        What was counted or timed, such as ``CONV1``.
    quantity : str
        Of which kind, such as ``buffer traffic``; checks of one quantity share unit and band.
    theirs, ours : float
        Both in ``unit``.
    unit : str
        Empty for a count or a ratio.
    low, high : float
        Between which ``ours`` must be; infinite where there is no such limit.
    allowed : str
        The band in words.
    reason : str
        Why the two differ, where that is known; needed where nothing is claimed.
    claimed : bool
        Whether the check can fail; otherwise it is shown only.

    Raises
    ------
    ValueError
        If a number is not finite, or nothing is claimed and no reason given: a study is wrong.
    """

    what: str
    quantity: str
    theirs: float
    ours: float
    unit: str
    low: float
    high: float
    allowed: str
    reason: str = ""
    claimed: bool = True

    def __post_init__(self) -> None:
        if not (isfinite(self.theirs) and isfinite(self.ours)):
            raise ValueError(f"{self.what}, {self.quantity}: {self.theirs} and {self.ours}")
        if not (self.claimed or self.reason):
            raise ValueError(f"{self.what}, {self.quantity}: say why nothing is claimed")

    @property
    def difference(self) -> float:
        """Ours over theirs, less one; infinite where theirs is zero and ours is not."""
        if self.theirs == self.ours:
            return 0.0
        return self.ours / self.theirs - 1 if self.theirs else inf

    @property
    def verdict(self) -> Verdict:
        """Whether ours is inside the band."""
        if not self.claimed:
            return Verdict.SHOWN
        return Verdict.OK if self.low <= self.ours <= self.high else Verdict.OFF


def exact(
    what: str, quantity: str, theirs: float, ours: float, *, unit: str = "", reason: str = ""
) -> Check:
    """Ours must be theirs."""
    return Check(what, quantity, theirs, ours, unit, theirs, theirs, "equal", reason)


def within(
    what: str,
    quantity: str,
    theirs: float,
    ours: float,
    *,
    low: float,
    high: float,
    unit: str = "",
    reason: str = "",
) -> Check:
    """Ours over theirs, less one, must be between two shares, such as -0.01 and 0.01."""
    words = f"±{100 * high:.3g} %"
    if low != -high:
        words = f"{100 * low:+.3g} to {100 * high:+.3g} %"
    return Check(
        what, quantity, theirs, ours, unit, theirs * (1 + low), theirs * (1 + high), words, reason
    )


def between(
    what: str,
    quantity: str,
    theirs: float,
    ours: float,
    *,
    low: float,
    high: float,
    unit: str = "",
    reason: str = "",
) -> Check:
    """Ours must be between two numbers, such as those that round to the one in print."""
    words = f"{low:.4g} to {high:.4g}"
    if high == inf:
        words = f"at least {low:.4g}"
    elif low == -inf:
        words = f"at most {high:.4g}"
    return Check(what, quantity, theirs, ours, unit, low, high, words, reason)


def at_most(
    what: str, quantity: str, theirs: float, ours: float, *, unit: str = "", reason: str = ""
) -> Check:
    """Ours must not be above theirs."""
    return Check(what, quantity, theirs, ours, unit, -inf, theirs, "not above", reason)


def shown(
    what: str, quantity: str, theirs: float, ours: float, *, reason: str, unit: str = ""
) -> Check:
    """Nothing is claimed, and why."""
    return Check(what, quantity, theirs, ours, unit, -inf, inf, "-", reason, claimed=False)


@dataclass(frozen=True)
class Study:
    """Checks against one source.

    Parameters
    ----------
    name : str
        Short, for the command line.
    title : str
        What is compared, for people.
    kind : {"silicon", "vendor", "tool", "paper"}
        How the other numbers were got.
    source : str
        Where they are published, with version or commit.
    method : str
        How both were brought to the same convention; a few sentences.
    compute : callable
        Makes the checks.
    """

    name: str
    title: str
    kind: Kind
    source: str
    method: str
    compute: Callable[[], Iterable[Check]]

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """The checks, computed when first asked for."""
        return tuple(self.compute())

    @property
    def failed(self) -> tuple[Check, ...]:
        """Those outside their bands."""
        return tuple(check for check in self.checks if check.verdict is Verdict.OFF)
