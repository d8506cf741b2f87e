"""Which ranks: what each layer's may be, what they cost, and how a budget is spread over layers.

Both ranks of a layer are tied, as HALOC has them (Xiao et al., AAAI 2023): R1 = R2. That leaves M^L
networks of L layers, each of M ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim
from energysim.cache import Cache
from energysim.errors import InputError
from energysim.errors import did_you_mean as hint
from energysim.hardware import Hardware
from energysim.lowrank.tucker import (
    CORE,
    REDUCE,
    Chain,
    Floats,
    Ranks,
    core_of,
    factorable,
    singular_values,
    with_ranks,
)
from energysim.network import Layer, Network
from energysim.simulate import simulate

Choice = Mapping[str, int]
"""By layer, the place of its rank in the menu."""

COSTS = {"parameters": "", "macs": "", "energy": "mJ", "latency": "ms"}
"""What a budget may be a share of, with its unit."""

OPTIONS = 8
"""Ranks to choose from, where nothing is said: 1/9 to 8/9 of the smaller number of channels."""

STEPS = 20_000
"""Parts that a budget is divided into to find the best choice; what is lost is at most a part for
each layer."""

ROUNDING = 1e-12
"""Share of a budget that sums may be off by."""

HALVINGS = 60
"""Of the interval in which a threshold is looked for: as fine as numbers are."""


@dataclass(frozen=True)
class Menu:
    """Ranks that the layers of a network may have, with what each costs and how far off it is.

    In all arrays the last entry of a layer is the layer as it is, of full rank and not factored.
    """

    network: Network
    ranks: Mapping[str, tuple[Ranks | None, ...]]
    """by layer, small ones first; None: as it is"""
    costs: Mapping[str, npt.NDArray[np.float64]]
    """of the layers that stand for one, by rank"""
    rest: float
    """cost of all layers that are not in the menu"""
    kept: Mapping[str, npt.NDArray[np.float64]]
    """of each layer, share of the kernel's squared length that a rank keeps (HOSVD)"""
    values: Mapping[str, tuple[Floats, Floats]]
    """singular values of each kernel along its input and output channels"""

    @property
    def dense(self) -> float:
        """Cost of the network as it is."""
        return self.rest + sum(float(each[-1]) for each in self.costs.values())

    def cost(self, choice: Choice) -> float:
        """Cost of a choice."""
        return self.rest + sum(float(self.costs[name][place]) for name, place in choice.items())

    def error(self, choice: Choice) -> float:
        """Squared error of the kernels, each relative to its length, summed over layers."""
        return sum(1 - float(self.kept[name][place]) for name, place in choice.items())

    def chosen(self, choice: Choice) -> dict[str, Ranks]:
        """Ranks of the layers that get some."""
        found = {name: self.ranks[name][place] for name, place in choice.items()}
        return {name: ranks for name, ranks in found.items() if ranks is not None}

    def budget(self, share: float) -> float:
        """Cost that a share of the dense network's is.

        Raises
        ------
        InputError
            If no choice is as cheap.
        """
        if not 0 < share <= 1:
            raise InputError(f"a share of the cost is above 0 and at most 1, got {share:g}")
        least = self.rest + sum(float(each.min()) for each in self.costs.values())
        if least > share * self.dense * (1 + ROUNDING):
            raise InputError(
                f"{self.network.name}: the cheapest ranks keep {100 * least / self.dense:.3g} % of"
                f" the cost, not {100 * share:.3g} %. More options, or a smaller multiple, allow"
                " smaller ranks"
            )
        return share * self.dense


def menu_of(
    network: Network,
    kernels: Mapping[str, Floats],
    *,
    cost: str = "macs",
    options: int = OPTIONS,
    multiple: int = 1,
    hardware: Hardware | None = None,
    cache: Cache | None = None,
    **settings: Any,
) -> Menu:
    """Find out what ranks a network's layers may have, and what they cost.

    The first convolution stays as it is: it has few channels. So do all that
    :func:`~energysim.lowrank.factorable` does not allow.

    Parameters
    ----------
    network : Network
    kernels : mapping of str to ndarray
        Kernel of each layer by its name, ``[K, C, R, S]``.
    cost : str
        One of :data:`COSTS`. Energy and latency are those of :func:`energysim.simulate`, the three
        layers that stand for one together, where all layers have ranks of the same share: exact
        where layers cost the same whatever stands beside them, as they do without residency.
    options : int
        Ranks to choose from, besides the layer as it is: shares 1/(options + 1) ... of the smaller
        number of channels.
    multiple : int
        Ranks are rounded up to multiples of it, as far as there are channels: hardware often gains
        nothing from others.
    hardware : Hardware, optional
        For energy and latency.
    cache : Cache, optional
        Of mappings.
    **settings
        Of :func:`energysim.simulate`.

    Raises
    ------
    InputError
        If no layer can have ranks, there is no such cost, or it needs hardware.
    """
    if cost not in COSTS:
        raise InputError(f"no cost named '{cost}'.{hint(cost, COSTS)} Known: {', '.join(COSTS)}")
    if COSTS[cost] and hardware is None:
        raise InputError(f"{cost} needs hardware")
    layers = rankable(network)
    if not layers:
        raise InputError(
            f"{network.name} has no layer that can have ranks: only convolutions of kernels above"
            " 1x1 can, without groups and zeros, and the first one stays"
        )
    ranks = {
        layer.name: (*(ranks_of(layer, part, options, multiple) for part in range(options)), None)
        for layer in layers
    }
    if hardware is None or not COSTS[cost]:
        costs, rest = _counted(network, ranks, cost)
    else:
        costs, rest = _simulated(network, ranks, cost, hardware, cache, settings)
    kept = {name: kept_of(kernels[name], each) for name, each in ranks.items()}
    values = {layer.name: singular_values(kernels[layer.name]) for layer in layers}
    return Menu(network, ranks, costs, rest, kept, values)


def rankable(network: Network) -> tuple[Layer, ...]:
    """Layers that may have ranks: all that are factorable, but the first convolution."""
    return tuple(layer for layer in network.layers[1:] if factorable(layer))


def ranks_of(layer: Layer, part: int, options: int, multiple: int) -> Ranks:
    """Tied ranks of one of the options of a layer."""
    channels = min(layer.shape[Dim.C], layer.shape[Dim.K])
    share = -(-channels * (part + 1) // (options + 1))
    rank = min(channels, -(-share // multiple) * multiple)
    return rank, rank


def kept_of(kernel: Floats, options: Sequence[Ranks | None]) -> npt.NDArray[np.float64]:
    """Share of a kernel's squared length that each of some ranks keeps (HOSVD)."""
    squares = core_of(kernel) ** 2
    total = float(squares.sum())
    shares = [
        1.0 if each is None or not total else float(squares[: each[1], : each[0]].sum()) / total
        for each in options
    ]
    return np.array(shares)


def _counted(
    network: Network, ranks: Mapping[str, Sequence[Ranks | None]], cost: str
) -> tuple[dict[str, npt.NDArray[np.float64]], float]:
    costs = {}
    for name, options in ranks.items():
        layer = network.layer(name)
        costs[name] = np.array(
            [float(getattr(layer if each is None else Chain(layer, each), cost))
             for each in options]
        )  # fmt: skip
    rest = sum(float(getattr(each, cost)) for each in network.layers if each.name not in ranks)
    return costs, rest


def _simulated(
    network: Network,
    ranks: Mapping[str, Sequence[Ranks | None]],
    cost: str,
    hardware: Hardware,
    cache: Cache | None,
    settings: Mapping[str, Any],
) -> tuple[dict[str, npt.NDArray[np.float64]], float]:
    options = len(next(iter(ranks.values())))
    found: dict[str, list[float]] = {name: [] for name in ranks}
    rest = 0.0
    for place in range(options):
        picked = {name: each[place] for name, each in ranks.items()}
        own = {name: each for name, each in picked.items() if each is not None}
        result = simulate(with_ranks(network, own), hardware, cache=cache, **settings)
        each = {
            row.layer: row.energy_pj * 1e-9 if cost == "energy" else row.time_ms
            for row in result.layer_rows
        }
        for name in ranks:
            chain = [f"{name}.{REDUCE}", f"{name}.{CORE}", name]
            found[name].append(sum(each[part] for part in chain if part in each))
        rest = sum(each.values()) - sum(values[-1] for values in found.values())
    return {name: np.array(values) for name, values in found.items()}, rest


# -- how a budget is spread ------------------------------------------------------------------------


def uniform(menu: Menu, budget: float) -> dict[str, int]:
    """Take the same share of the channels in all layers, the largest within the budget.

    Raises
    ------
    InputError
        If even the smallest one costs more.
    """
    options = len(next(iter(menu.costs.values())))
    for place in reversed(range(options)):
        choice = dict.fromkeys(menu.costs, place)
        if menu.cost(choice) <= budget:
            return choice
    raise _too_dear(menu, budget)


def by_singular_values(menu: Menu, budget: float) -> dict[str, int]:
    """Keep the same share of squared singular values in all layers, as much as the budget allows.

    A layer gets the smallest of its ranks that keeps the share along both modes.

    Raises
    ------
    InputError
        If even the smallest ranks cost more.
    """

    def choice(share: float) -> dict[str, int]:
        return {name: _first_that_keeps(menu, name, share) for name in menu.costs}

    low, high = 0.0, 1.0
    if menu.cost(choice(high)) <= budget:
        return choice(high)
    if menu.cost(choice(low)) > budget:
        raise _too_dear(menu, budget)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if menu.cost(choice(middle)) <= budget else (low, middle)
    return choice(low)


def _first_that_keeps(menu: Menu, name: str, share: float) -> int:
    shares = [np.cumsum(each**2) / max(float((each**2).sum()), 1e-300)
              for each in menu.values[name]]  # fmt: skip
    for place, ranks in enumerate(menu.ranks[name]):
        if ranks is None or all(
            part[rank - 1] >= share for part, rank in zip(shares, ranks, strict=True)
        ):
            return place
    return len(menu.ranks[name]) - 1


def least_error(menu: Menu, budget: float) -> dict[str, int]:
    """Keep as much of all kernels as the budget allows, each relative to its length.

    Raises
    ------
    InputError
        If even the cheapest ranks cost more.
    """
    losses = {name: 1 - each for name, each in menu.kept.items()}
    return cheapest(menu, losses, budget)


def cheapest(
    menu: Menu, losses: Mapping[str, npt.NDArray[np.float64]], budget: float
) -> dict[str, int]:
    """Make the sum of losses as small as a budget allows: a knapsack of one rank a layer.

    By dynamic programming over :data:`STEPS` parts of the budget, costs rounded up, so that the
    budget is kept; a choice is lost only if it is closer to the budget than a part a layer.

    Parameters
    ----------
    menu : Menu
    losses : mapping of str to ndarray
        Of each layer, by rank.
    budget : float
        Of the whole network.

    Raises
    ------
    InputError
        If no choice is within the budget.
    """
    best = {name: int(np.argmin(each)) for name, each in losses.items()}
    if menu.cost(best) <= budget:  # free of rounding
        return best
    room = budget - menu.rest
    names = list(menu.costs)
    if room <= 0:
        raise _too_dear(menu, budget)
    least = np.zeros(STEPS + 1)  # loss of the layers so far, by what they may cost
    taken = []
    for name in names:
        parts = np.ceil(menu.costs[name] / room * STEPS - 1e-9).astype(int)
        tried = np.full((len(parts), STEPS + 1), np.inf)
        for place, part in enumerate(parts):
            if part <= STEPS:
                tried[place, part:] = least[: STEPS + 1 - part] + losses[name][place]
        taken.append((parts, np.argmin(tried, axis=0)))
        least = tried.min(axis=0)
    if not np.isfinite(least[-1]):
        raise _too_dear(menu, budget)
    choice, left = dict[str, int](), STEPS
    for name, (parts, places) in zip(reversed(names), reversed(taken), strict=True):
        choice[name] = int(places[left])
        left -= int(parts[choice[name]])
    return {name: choice[name] for name in names}


def drawn(menu: Menu, budget: float, rng: np.random.Generator) -> dict[str, int]:
    """Draw ranks at random, and make layers drawn at random smaller until the budget is kept.

    Raises
    ------
    InputError
        If even the smallest ranks cost more.
    """
    names = list(menu.costs)
    choice = {name: int(rng.integers(len(menu.costs[name]))) for name in names}
    while menu.cost(choice) > budget:
        larger = [name for name in names if choice[name] > 0]
        if not larger:
            raise _too_dear(menu, budget)
        choice[larger[int(rng.integers(len(larger)))]] -= 1
    return choice


def _too_dear(menu: Menu, budget: float) -> InputError:
    return InputError(
        f"{menu.network.name}: no ranks within {100 * budget / menu.dense:.3g} % of the cost are"
        " found so. More options, or a smaller multiple, allow smaller ones"
    )
