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


# -- what it computes ------------------------------------------------------------------------------

EXPONENTIAL_MACS = 6
"""Multiply-accumulates of an exponential: one takes off a power of two, five are a polynomial. An
assumption, as hardware may have tables instead."""

RECIPROCAL_MACS = 4
"""Of a reciprocal: two steps of Newton's rule from a value that is looked up. An assumption."""


@dataclass(frozen=True, slots=True)
class Operations:
    """Arithmetic of some elements."""

    multiplications: int = 0
    additions: int = 0
    """subtractions and comparisons among them"""
    exponentials: int = 0
    reciprocals: int = 0

    def __add__(self, other: Operations) -> Operations:
        return Operations(
            self.multiplications + other.multiplications,
            self.additions + other.additions,
            self.exponentials + other.exponentials,
            self.reciprocals + other.reciprocals,
        )

    def __mul__(self, times: int) -> Operations:
        return Operations(
            self.multiplications * times,
            self.additions * times,
            self.exponentials * times,
            self.reciprocals * times,
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates that cost as much, without the additions."""
        exponentials = EXPONENTIAL_MACS * self.exponentials
        return self.multiplications + exponentials + RECIPROCAL_MACS * self.reciprocals

    @property
    def steps(self) -> int:
        """Operations of a vector unit, one after another."""
        return self.macs + self.additions


class Work(StrEnum):
    """What is done to the elements of a map in one pass over it."""

    NORMALISE = "normalise"
    """posteriors, then scale and shift, of an inference"""
    APPLY = "apply"
    """the same of a step of training: posteriors under one fit, distances to the next"""
    SWEEP = "sweep"
    """expectation, and the sums of the maximisation"""
    SUMS = "sums"
    """of the gradient over all elements"""
    GRADIENT = "gradient"
    """of the input"""


def operations(mixture: Mixture, channels: int, work: Work = Work.NORMALISE) -> Operations:
    """Arithmetic of a mixture norm for one position of one image.

    Parameters
    ----------
    mixture : Mixture
    channels : int
        C of the map.
    work : Work

    Returns
    -------
    Operations

    Notes
    -----
    With constants of each component worked out beforehand, and no posteriors kept from one pass to
    the next. K components, C channels; P = 1 of vectors and C of channels, as many mixtures there
    are at a position. One component has no posteriors: it is batch norm.

    ========== ================== ========================== ============ ===========
    part       multiplications    additions                  exponentials reciprocals
    ========== ================== ========================== ============ ===========
    posteriors 2 K C + K P        2 K C + P (3 K - 2)        K P          P
    normalise  2 K C (K = 1: C)   K C (K = 1: 2 C)
    apply      2 K C (K = 1: C)   2 K C
    sweep      2 K C (K = 1: C)   2 K C + K P (K = 1: 2 C)
    sums       2 K C (K = 1: C)   3 K C
    gradient   3 K C (K = 1: 2 C) 4 K C - C
    ========== ================== ========================== ============ ===========

    Posteriors: the square of each distance x - mu times half the precision, summed up from a
    constant; then per mixture the largest of K (K - 1 comparisons), K differences from it, their
    powers, the sum of these (K - 1), its reciprocal and K products. All other lines come on top of
    them. Normalise: posterior times distance times scale, added to beta; apply: the distance is to
    another mean than that of the posteriors. Sweep: sums of g, g x and g x x. Sums: of g dy and of
    g dy (x - mu). Gradient: per component dy less its mean and less the distance times a factor,
    times g times another factor, added up.

    Examples
    --------
    >>> operations(Mixture(3, Of.VECTOR), 64)
    Operations(multiplications=771, additions=583, exponentials=3, reciprocals=1)
    >>> operations(Mixture(1), 64).multiplications
    64
    """
    k, each = mixture.components, mixture.components * channels
    if k == 1:
        return _OF_ONE[work] * channels
    many = channels if mixture.of is Of.CHANNEL else 1
    posteriors = Operations(
        2 * each + k * many, 2 * each + many * (3 * k - 2), exponentials=k * many, reciprocals=many
    )
    own = {
        Work.NORMALISE: Operations(2 * each, each),
        Work.APPLY: Operations(2 * each, 2 * each),
        Work.SWEEP: Operations(2 * each, 2 * each + k * many),
        Work.SUMS: Operations(2 * each, 3 * each),
        Work.GRADIENT: Operations(3 * each, 4 * each - channels),
    }
    return posteriors + own[work]


_OF_ONE = {
    Work.NORMALISE: Operations(1, 2),
    Work.APPLY: Operations(1, 2),
    Work.SWEEP: Operations(1, 2),
    Work.SUMS: Operations(1, 3),
    Work.GRADIENT: Operations(2, 3),
}
"""For each channel, of a batch norm."""


STATISTIC_BITS = 32
"""Width of a statistic of a norm, as biases have it beside weights of 8 bits (TensorFlow Lite's
quantisation specification) [bit]."""


def statistics_words(mixture: Mixture, channels: int) -> int:
    """Numbers that a mixture norm needs at inference: its components, scale and shift.

    K (2 C + 1) + 2 C with vectors; of a mixture for each channel, proportions are K C.

    Examples
    --------
    >>> statistics_words(Mixture(3, Of.VECTOR), 64), statistics_words(Mixture(3), 64)
    (515, 704)
    """
    many = channels if mixture.of is Of.CHANNEL else 1
    return mixture.components * (2 * channels + many) + 2 * channels
