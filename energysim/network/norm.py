"""Mixture normalisation as a user writes it: how many components, of what, fitted how."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

from energysim.errors import InputError, did_you_mean

MIXTURE = "mixture"
BATCH = "batch"
"""Words for norms: a mixture norm, and the batch norm that a network has anyway."""

MOST_COMPONENTS, MOST_SWEEPS = 64, 100

FORM = "mixture:3, mixture:3:vector, mixture:3:sweeps=2 or mixture:3:root=no"


class Of(StrEnum):
    """What the points of a mixture are."""

    CHANNEL = "channel"
    """numbers: a mixture in one dimension for each channel"""
    VECTOR = "vector"
    """all channels of a pixel: one mixture in as many dimensions as there are channels"""


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture of Gaussians with diagonal covariance, in place of the one of a batch norm.

    Raises
    ------
    InputError
        If a number is out of its range.

    References
    ----------
    M. M. Kalayeh, M. Shah, "Training Faster by Separating Modes of Variation in Batch-normalized
    Models", IEEE TPAMI 42 (2020), arXiv 1806.02892.

    Examples
    --------
    >>> str(Mixture(3)), str(Mixture(5, Of.VECTOR, sweeps=2, root=False))
    ('mixture:3', 'mixture:5:vector:sweeps=2:root=no')
    """

    components: int
    """K, how many Gaussians; one is batch norm"""
    of: Of = Of.CHANNEL
    """a mixture for each channel, or one of all channels"""
    sweeps: int = 1
    """of expectation and maximisation in each step of training, from where the last step ended"""
    root: bool = True
    """divide by the root of each component's proportion, as the Fisher score has it"""

    def __post_init__(self) -> None:
        for word, number, most in (
            ("components", self.components, MOST_COMPONENTS),
            ("sweeps", self.sweeps, MOST_SWEEPS),
        ):
            if not 1 <= number <= most:
                raise InputError(f"a mixture norm has 1 to {most} {word}, got {number}")

    @classmethod
    def named(cls, text: str) -> Mixture:
        """Read what :meth:`__str__` writes.

        Raises
        ------
        InputError
            If it is something else; says what is allowed.

        Examples
        --------
        >>> Mixture.named("mixture:3:vector").of
        <Of.VECTOR: 'vector'>
        """
        kind, _, rest = text.partition(":")
        if kind != MIXTURE or not rest:
            hint = "" if kind == MIXTURE else did_you_mean(kind, (MIXTURE,))
            raise InputError(f"no norm named {text!r}.{hint} Allowed: {FORM}")
        first, *words = rest.split(":")
        of, sweeps, root = Of.CHANNEL, 1, True
        for word in words:
            key, _, value = word.partition("=")
            if word in list(Of):
                of = Of(word)
            elif key == "sweeps" and _is_count(value):
                sweeps = int(value)
            elif key == "root" and value in ("yes", "no"):
                root = value == "yes"
            else:
                raise InputError(f"norm {text!r}: nothing is named {word!r}. Allowed: {FORM}")
        if not _is_count(first):
            raise InputError(f"norm {text!r}: {first!r} is no number of components")
        return cls(int(first), of, sweeps, root)

    def __str__(self) -> str:
        words = [MIXTURE, str(self.components)]
        words += [str(self.of)] if self.of is not Of.CHANNEL else []
        words += [f"sweeps={self.sweeps}"] if self.sweeps != 1 else []
        words += [] if self.root else ["root=no"]
        return ":".join(words)

    @property
    def gain(self) -> float:
        """About how much wider its results are than those of a batch norm, before any training.

        Of K components that do not overlap, each gives its share of the elements variance 1 /
        share: K in all, and a deviation of sqrt(K). Without the root it is at most 1.
        """
        return sqrt(self.components) if self.root else 1.0


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(MOST_SWEEPS))
