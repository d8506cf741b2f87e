"""A network of low rank within a share of a cost, and what became of each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from energysim.cache import Cache
from energysim.errors import InputError
from energysim.errors import did_you_mean as hint
from energysim.hardware import Hardware
from energysim.lowrank.ranks import (
    COSTS,
    OPTIONS,
    Choice,
    Menu,
    by_singular_values,
    drawn,
    least_error,
    menu_of,
    uniform,
)
from energysim.lowrank.search import Settings, factored, search
from energysim.lowrank.tucker import Chain, Ranks, map_words
from energysim.network import Network
from energysim.train.data import Dataset
from energysim.train.engine import one_blas_thread
from energysim.train.parameters import WEIGHT, Layout, running_start, start
from energysim.train.recipe import Recipe
from energysim.train.weights import Weights

SEARCH = "search"
WAYS = ("error", "singular", "uniform", "random", SEARCH)
"""How ranks are chosen: :func:`~energysim.lowrank.least_error`,
:func:`~energysim.lowrank.by_singular_values`, :func:`~energysim.lowrank.uniform`,
:func:`~energysim.lowrank.drawn` or :func:`~energysim.lowrank.search`."""


@dataclass(frozen=True)
class Lowered:
    """A network of low rank."""

    dense: Network
    network: Network
    weights: Weights = field(repr=False)
    """of the network of low rank"""
    menu: Menu = field(repr=False)
    choice: Choice
    cost: str
    way: str
    share: float
    """of the cost of the dense network that was allowed"""
    probabilities: Mapping[str, float] | None = None
    """of a search: how sure each layer's gates are of its rank"""

    @property
    def ranks(self) -> dict[str, Ranks]:
        """By layer, of those that are factored."""
        return self.menu.chosen(self.choice)

    @property
    def kept(self) -> float:
        """Share of the dense network's cost, by the menu."""
        return self.menu.cost(self.choice) / self.menu.dense

    def totals(self) -> dict[str, int]:
        """Of the dense network and of this one, for one image."""
        found: dict[str, int] = {}
        for word, network in (("dense", self.dense), ("low", self.network)):
            layers = [each for each in network.layers if each.stores_weights]
            found |= {
                f"{word}_parameters": network.parameters,
                f"{word}_macs": network.macs,
                f"{word}_map_words": sum(map(map_words, layers)),
            }
        return found

    def rows(self) -> list[dict[str, Any]]:
        """A record for each layer that could have ranks."""
        rows = []
        for name, place in self.choice.items():
            layer, ranks = self.dense.layer(name), self.menu.ranks[name][place]
            now = layer if ranks is None else Chain(layer, ranks)
            costs = self.menu.costs[name]
            row: dict[str, Any] = {
                "layer": name,
                "in_channels": layer.shape.dims[3],
                "out_channels": layer.shape.dims[2],
                "r1": None if ranks is None else ranks[0],
                "r2": None if ranks is None else ranks[1],
                "kept": float(self.menu.kept[name][place]),  # of the kernels as they were given
                "weights_before": layer.weights,
                "weights": now.weights,
                "macs_before": layer.macs,
                "macs": now.macs,
                "map_words_before": map_words(layer),
                "map_words": map_words(layer) if ranks is None else Chain(layer, ranks).map_words,
                "cost_before": float(costs[-1]),
                "cost": float(costs[place]),
                "cost_unit": COSTS[self.cost] or "1",
            }
            if self.probabilities is not None:
                row["probability"] = self.probabilities[name]
            rows.append(row)
        return rows


@dataclass(frozen=True)
class Learning:
    """What ranks are learnt on."""

    data: Dataset
    recipe: Recipe
    settings: Settings = field(default_factory=Settings)
    path: Path | None = None
    """of a file that keeps the search"""


def lower(
    network: Network,
    share: float = 0.5,
    way: str = "error",
    *,
    cost: str = "macs",
    weights: Weights | None = None,
    options: int = OPTIONS,
    multiple: int = 1,
    seed: int = 0,
    learning: Learning | None = None,
    hardware: Hardware | None = None,
    cache: Cache | None = None,
    tell: Callable[[int, int, float], None] | None = None,
    **settings: Any,
) -> Lowered:
    """Put convolutions of low rank in place of those of a network, within a share of its cost.

    Parameters
    ----------
    network : Network
    share : float
        Of the cost of the whole network.
    way : str
        One of :data:`WAYS`.
    cost, options, multiple, hardware, cache, **settings
        As for :func:`~energysim.lowrank.menu_of`.
    weights : Weights, optional
        Of the network; by default those that a training with the seed begins with.
    seed : int
        Of drawn weights, of ``random`` and of the search.
    learning : Learning, optional
        Images and recipe, for ``search``.
    tell : callable, optional
        Of a search, is told of finished steps, of all steps, and of the last loss.

    Returns
    -------
    Lowered

    Raises
    ------
    InputError
        If there is no such way or cost, no layer can have ranks, or none are within the budget.

    Examples
    --------
    >>> from energysim.catalog import load_network
    >>> low = lower(load_network("digits_cnn"), 0.5, "uniform")
    >>> low.ranks, round(low.kept, 3)
    ({'conv2': (9, 9), 'conv3': (9, 9), 'conv4': (18, 18)}, 0.419)
    """
    if way not in WAYS:
        raise InputError(f"no way named '{way}'.{hint(way, WAYS)} Known: {', '.join(WAYS)}")
    if (way == SEARCH) != (learning is not None):
        raise InputError("a search needs images and a recipe" if way == SEARCH else
                         f"{way} learns nothing from images")  # fmt: skip
    recipe = Recipe() if learning is None else learning.recipe
    begun = weights if weights is not None else drawn_weights(network, seed, recipe)
    begun.fitted(network)  # refuses those of another network
    kernels = {
        layer.name: begun.arrays[f"{layer.name}.{WEIGHT}"]
        for layer in network.layers
        if layer.stores_weights
    }
    with one_blas_thread():  # their number would change the last bits of singular vectors
        menu = menu_of(
            network, kernels, cost=cost, options=options, multiple=multiple, hardware=hardware,
            cache=cache, **settings,
        )  # fmt: skip
    budget = menu.budget(share)
    sure = None
    if learning is not None:
        found = search(
            menu, budget, begun, learning.data, learning.recipe, learning.settings,
            seed=seed, path=learning.path, tell=tell,
        )  # fmt: skip
        choice, begun = found.choice, found.weights
        sure = {name: float(each[choice[name]]) for name, each in found.probabilities.items()}
    elif way == "random":
        choice = drawn(menu, budget, np.random.default_rng(seed))
    else:
        ways = {"error": least_error, "singular": by_singular_values, "uniform": uniform}
        choice = ways[way](menu, budget)
    with one_blas_thread():
        low, arrays = factored(network, begun, menu.chosen(choice))
    return Lowered(network, low, arrays, menu, choice, cost, way, share, sure)


def drawn_weights(network: Network, seed: int, recipe: Recipe) -> Weights:
    """Weights that a training with a seed begins with."""
    own = np.random.SeedSequence(seed).spawn(1)[0]
    vector = start(network, np.random.default_rng(own), recipe.init, gamma=recipe.gamma)
    views = Layout.of(network).views(vector)
    return Weights.of(network, views, running_start(network))
