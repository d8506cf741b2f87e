"""Weights in a file, as a run of training leaves them, for another one to begin with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError, InputErrors, did_you_mean
from energysim.network import Network
from energysim.train.data.npz import DAMAGE
from energysim.train.parameters import (
    Arrays,
    Layout,
    Slot,
    live_weights,
    running_start,
)
from energysim.train.scratch import Floats

LARGEST = float(np.finfo(np.float32).max)
"""What weights may be at most, as they are kept in single precision."""

MOST_TOLD = 8
"""Problems of a file that are told one by one."""


@dataclass(frozen=True, slots=True)
class Weights:
    """All that a network has learnt, and its running statistics, by name: ``conv1.weight``."""

    arrays: Mapping[str, npt.NDArray[Any]]
    """weights ``[K, C / groups, R, S]`` with K over all groups, as frameworks hold them"""
    where: str = "weights"
    """the file, for messages"""

    @classmethod
    def load(cls, path: Path) -> Weights:
        """Read an ``.npz`` file, such as ``weights.npz`` of a run.

        Raises
        ------
        InputError
            If it can't be read, or holds something else than arrays of numbers.
        """
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except OSError as error:
            raise InputError(f"can't be read: {error.strerror or error}", where=str(path)) from None
        except DAMAGE:
            raise InputError(
                "is no .npz file of weights, or a damaged one. A run of 'energysim train' leaves"
                " one, weights.npz",
                where=str(path),
            ) from None
        return cls(arrays, str(path))

    @classmethod
    def of(cls, network: Network, views: Mapping[str, Floats], running: Arrays) -> Weights:
        """Take what stands in a vector of weights.

        Parameters
        ----------
        network : Network
        views : mapping of str to ndarray
            As :meth:`Layout.views` gives them.
        running : dict of ndarray
            Running statistics.
        """
        weighted = {f"{layer.name}.weight" for layer in network.layers}
        found = {}
        for name, each in views.items():
            if name in weighted:
                groups, filters, *rest = each.shape
                found[name] = np.ascontiguousarray(each).reshape(groups * filters, *rest)
            else:
                found[name] = each.copy()
        return cls(found | {name: each.copy() for name, each in running.items()})

    @property
    def sha256(self) -> str:
        """Hash of names and numbers."""
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            each = np.ascontiguousarray(self.arrays[name])
            digest.update(f"{name} {each.dtype.str} {each.shape}\n".encode())
            digest.update(each.tobytes())
        return digest.hexdigest()

    def fitted(self, network: Network, dtype: npt.DTypeLike = np.float32) -> tuple[Floats, Arrays]:
        """Lay the numbers out for a network; those that its masks leave out become 0.

        Parameters
        ----------
        network : Network
        dtype : dtype
            float32 or float64.

        Returns
        -------
        vector : ndarray, shape (Layout.total,)
        running : dict of ndarray
            Running statistics.

        Raises
        ------
        InputErrors
            If a name is missing or belongs to nothing, an array has another shape, or a number in
            it is none.
        """
        layout = Layout.of(network)
        vector: Floats = np.zeros(layout.total, dtype)
        views, running = layout.views(vector), running_start(network, dtype)
        shapes = {slot.name: _shape_in_file(slot) for slot in layout.slots}
        shapes |= {name: each.shape for name, each in running.items()}
        problems = list(self._problems(network.name, shapes))
        if problems:
            more = len(problems) - MOST_TOLD
            told = problems[:MOST_TOLD] + ([f"{self.where}: {more} more"] if more > 0 else [])
            raise InputErrors(told)
        for name, into in (views | running).items():
            into[...] = self.arrays[name].reshape(into.shape)
        vector[~live_weights(network)] = 0
        return vector, running

    def _problems(self, network: str, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        found = []
        for name in self.arrays:
            if name not in shapes:
                hint = did_you_mean(name, shapes)
                found.append(f"{self.where}: {network} has nothing named {name!r}.{hint}")
        for name, shape in shapes.items():
            given = self.arrays.get(name)
            if given is None:
                found.append(f"{self.where}: {name!r} of {network} is missing")
            elif given.shape != shape:
                found.append(
                    f"{self.where}: {name!r} has shape {list(given.shape)}, and {network} wants"
                    f" {list(shape)}"
                )
            elif given.dtype.kind != "f" or not (np.abs(given) <= LARGEST).all():
                found.append(f"{self.where}: {name!r} holds what is no finite number")
        return found


def _shape_in_file(slot: Slot) -> tuple[int, ...]:
    if len(slot.shape) == 1:
        return slot.shape
    groups, filters, *rest = slot.shape
    return (groups * filters, *rest)
