"""One run of training: what decides its result, and what names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from energysim.errors import InputError
from energysim.network import MixtureLayer, Network
from energysim.train.data import Augmentation, Dataset
from energysim.train.recipe import Recipe
from energysim.train.rewire import check_rewirable
from energysim.train.weights import Weights

FORMAT = 1
"""Number of the procedure: runs of another one are neither resumed nor counted as done."""

DIGITS = 8
"""Of the hash in the name of a run's folder."""

LONGEST = 60
"""Of each word in it [characters]."""

NUMPY, TORCH, TORCH_BF16 = "numpy", "torch", "torch-bf16"
BACKENDS = (NUMPY, TORCH, TORCH_BF16)


@dataclass(frozen=True)
class Job:
    """Network, images, recipe and seed.

    Raises
    ------
    InputError
        If the images are not what the network reads, or the weights to begin with are not its own.
    """

    network: Network
    """with its pattern"""
    data: Dataset
    """as loaded"""
    recipe: Recipe
    seed: int
    backend: str = NUMPY
    """``numpy``, ``torch``, or ``torch-bf16``, which multiplies in bfloat16"""
    begin: Weights | None = None
    """weights to begin with, in place of drawn ones"""

    def __post_init__(self) -> None:
        refuse_mixtures(self.network, self.backend, attacked=self.recipe.adversarial is not None)
        classes, outputs = len(self.data.classes), self.network.layers[-1].output[0]
        if classes != outputs:
            raise InputError(
                f"{self.data.name} has {classes} classes, and {self.network.name} gives"
                f" {outputs} scores. Load it with as many classes as the data have"
            )
        wanted, given = self.network.input_size[0], self.data.shape[0]
        if given not in (1, wanted):
            raise InputError(
                f"images of {self.data.name} have {given} channels, and {self.network.name} reads"
                f" {wanted}. Choose a network for colour images"
            )
        if self.recipe.rewire is not None:
            check_rewirable(self.network, self.recipe.rewire.mode)
        if self.network.input_size[1] != self.network.input_size[2]:
            raise InputError(
                f"{self.network.name} reads images of {self.network.input_size[1]} x"
                f" {self.network.input_size[2]} pixels; images are made squares"
            )
        if self.begin is not None:
            self.begin.fitted(self.network)  # refuses those of another network

    @property
    def read(self) -> tuple[int, int]:
        """Channels, and height and width, of the images that the network reads."""
        return self.network.input_size[:2]

    @property
    def augmentation(self) -> Augmentation:
        """How training images are changed."""
        return self.recipe.augmentation(self.data)

    @cached_property
    def described(self) -> dict[str, Any]:
        """All that decides the result, as plain data."""
        begin = {} if self.begin is None else {"begin_sha256": self.begin.sha256}
        return begin | {
            "format": FORMAT,
            "network": self.network.name,
            "network_sha256": digest([asdict(layer) for layer in self.network.layers]),
            "dataset": self.data.name,
            "dataset_sha256": self.data.sha256,
            "recipe": self.recipe.described(),
            "seed": self.seed,
            "backend": self.backend,
        }

    @property
    def identity(self) -> str:
        """Hash of all that decides the result."""
        return digest(self.described)

    @property
    def identity_of_recipe(self) -> str:
        """Hash of the recipe."""
        return digest(self.described["recipe"])

    @property
    def name(self) -> str:
        """Of its folder: to be read by people, and different for every job."""
        words = (self.network.name, self.data.name, f"s{self.seed}", self.identity[:DIGITS])
        return "_".join(_word(each)[:LONGEST] for each in words)

    def generators(self) -> dict[str, np.random.Generator]:
        """Sources of chance, each of its own: asking one more often changes no other."""
        words = ("init", "order", "changes", "held_out", "wiring", "attacks")
        children = np.random.SeedSequence(self.seed).spawn(len(words))
        return {
            word: np.random.default_rng(child) for word, child in zip(words, children, strict=True)
        }


def refuse_mixtures(network: Network, backend: str, *, attacked: bool = False) -> None:
    """Refuse mixture norms where they can't be computed.

    Raises
    ------
    InputError
        If the back-end is not that in NumPy, or images are attacked while it learns.
    """
    if backend == NUMPY and not attacked:
        return
    mixed = next((layer.name for layer in network.layers if isinstance(layer, MixtureLayer)), None)
    if mixed is not None and attacked:
        raise InputError(
            f"{mixed} of {network.name} is a mixture norm, and no gradient of the image passes"
            " through its posteriors: adversarial training needs batch norms"
        )
    if mixed is not None:
        raise InputError(
            f"{mixed} of {network.name} is a mixture norm, which only --backend numpy computes, got"
            f" {backend}"
        )


def digest(data: object) -> str:
    """Hash plain data, the same on every machine."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def _word(text: str) -> str:
    """Text as a part of a file name."""
    return "".join(letter if letter.isalnum() or letter in "+-._" else "-" for letter in text)
