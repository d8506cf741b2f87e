"""Methods that make a network cheap, by name: which there are, and the networks they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from energysim.catalog import find
from energysim.errors import InputError, did_you_mean
from energysim.network import Network
from energysim.prune import METHODS as PRUNING
from energysim.sparsity import PATTERNS, get_pattern

DENSE, NARROW, TUCKER2 = "dense", "narrow", "tucker2"
DNR, DNR_CHANNELS = "dnr", "dnr_channels"
REWIRED = (DNR, DNR_CHANNELS)
"""Methods that decide in training: single weights, and all that read a channel."""

PERIODIC = tuple(name for name, each in PATTERNS.items() if not each.random and name != DENSE)
"""Pre-defined periodic patterns of the source paper."""

BY_KERNEL = tuple(name for name, each in PATTERNS.items() if each.random)
"""Its controls: a support for each kernel, by chance."""

GROUPS = {
    "periodic": PERIODIC,
    "psc": BY_KERNEL,
    "pruning": tuple(PRUNING),
    "all": (DENSE, NARROW, *PERIODIC, *BY_KERNEL, "2:4", *PRUNING, *REWIRED, TUCKER2),
}
"""Words that stand for several."""


class Family(StrEnum):
    """What a method does."""

    DENSE = "dense networks"
    PERIODIC = "periodic kernels"
    BY_KERNEL = "random kernels"
    BLOCKS = "N:M"
    PRUNING = "pruning before training"
    CHANCE = "weights by chance"
    REWIRING = "rewiring"
    LOW_RANK = "low rank"


CHANCES = ("random", "uniform", "erdos_renyi")
"""Methods of pruning that look at nothing."""

OWN: dict[str, tuple[Family, bool]] = {
    DENSE: (Family.DENSE, False),
    NARROW: (Family.DENSE, True),
    TUCKER2: (Family.LOW_RANK, True),
    **dict.fromkeys(REWIRED, (Family.REWIRING, True)),
    **{name: (Family.CHANCE if name in CHANCES else Family.PRUNING, True) for name in PRUNING},
}
"""Family of each method that is neither a pattern nor a network, and whether it needs a density."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method, at the density that it is asked for."""

    name: str
    """a word of :data:`GROUPS`' values, a pattern, or a network"""
    family: Family
    density: float | None = None
    """share of the weights that it leaves; None where the method says so itself"""
    width: float = 1.0
    """of another network, the factor of its channels"""

    @property
    def label(self) -> str:
        """Name and density, or width.

        Examples
        --------
        >>> Method("synflow", Family.PRUNING, 0.1).label
        'synflow 10 %'
        >>> Method("mobilenet_v2", Family.DENSE, width=0.25).label
        'mobilenet_v2 x0.25'
        """
        if self.density is not None:
            return f"{self.name} {100 * self.density:.3g} %"
        return self.name if self.width == 1 else f"{self.name} x{self.width:.3g}"


def methods_named(words: Iterable[str], densities: Sequence[float] = (0.1,)) -> tuple[Method, ...]:
    """Find methods by their names.

    Parameters
    ----------
    words : iterable of str
        Names, groups of :data:`GROUPS`, patterns, networks; ``name@0.1`` has a density of its own,
        of another network a width.
    densities : sequence of float
        For each method that needs one.

    Returns
    -------
    tuple of Method
        In order, each once.

    Raises
    ------
    InputError
        If a name is none, or a density is out of its range or of no use.

    Examples
    --------
    >>> found = methods_named(["dense", "synflow", "2:4"], [0.1, 0.3])
    >>> [each.label for each in found]
    ['dense', 'synflow 10 %', 'synflow 30 %', '2:4']
    >>> methods_named(["mobilenet_v2@0.25"])[0].width
    0.25
    """
    for density in densities:
        _check_density(density)
    found: dict[Method, None] = {}
    for word in words:
        name, at, own = word.partition("@")
        if at and name not in OWN and _is_network(name):
            found[Method(name, Family.DENSE, width=_width(own, word))] = None
            continue
        asked = list(densities)
        if at:
            asked = [_density(own, word)]
        for each in GROUPS.get(name, (name,)):
            family, needs = _family(each)
            if at and not needs and name not in GROUPS:
                raise InputError(f"{each} has a density of its own: leave @{own} out")
            proper = _proper(each, family)
            for share in asked if needs else (None,):
                found[Method(proper, family, share)] = None
    if not found:
        raise InputError(f"no method is named. Known: {', '.join(known())}")
    return tuple(found)


def known() -> tuple[str, ...]:
    """All words but patterns and networks."""
    return tuple(dict.fromkeys((*GROUPS, DENSE, NARROW, *PRUNING, *REWIRED, TUCKER2)))


def _density(text: str, word: str) -> float:
    try:
        return _check_density(float(text))
    except ValueError:
        raise InputError(f"'{word}': '{text}' is no density, such as 0.1") from None


def _width(text: str, word: str) -> float:
    try:
        width = float(text)
    except ValueError:
        raise InputError(f"'{word}': '{text}' is no width, such as 0.25") from None
    if not 0 < width < float("inf"):
        raise InputError(f"'{word}': a width is above 0, got {width:g}")
    return width


def _check_density(density: float) -> float:
    if not 0 < density <= 1:
        raise InputError(f"a density is above 0 and at most 1, got {density:g}")
    return density


def _family(name: str) -> tuple[Family, bool]:
    """What a method does, and whether it needs a density.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name in OWN:
        return OWN[name]
    try:
        pattern = get_pattern(name)
    except InputError:
        if _is_network(name):
            return Family.DENSE, False
        hint = did_you_mean(name, (*known(), *PATTERNS))
        raise InputError(
            f"no method named '{name}'.{hint} Known: {', '.join(known())}, patterns"
            " ('energysim list patterns') and networks ('energysim list nets')"
        ) from None
    if pattern.blocks is not None:
        return Family.BLOCKS, False
    return (Family.BY_KERNEL if pattern.random else Family.PERIODIC), False


def _is_network(name: str) -> bool:
    try:
        find("nets", name)
    except InputError:
        return False
    return True


def _proper(name: str, family: Family) -> str:
    patterned = (Family.PERIODIC, Family.BY_KERNEL, Family.BLOCKS)
    return get_pattern(name).name if family in patterned else name


def narrowed(scaled: Callable[[float], Network], parameters: float, *, steps: int = 64) -> Network:
    """Find the widest network that has no more parameters than are allowed.

    Parameters
    ----------
    scaled : callable
        Gives the network at a factor of its width.
    parameters : float
    steps : int
        Factors to try, evenly from 1 down.

    Raises
    ------
    InputError
        If even the narrowest has more.
    """
    for step in range(steps, 0, -1):
        network = scaled(step / steps)
        if network.parameters <= parameters:
            return network
    raise InputError(
        f"{scaled(1.0).name}: no width has as few as {parameters:,.0f} parameters: channels are"
        " multiples of 8"
    )
