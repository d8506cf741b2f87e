"""Where a run stands after an epoch, in one file that is there whole or not at all."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from energysim.errors import InputError
from energysim.files import write_atomically
from energysim.train.data.npz import DAMAGE
from energysim.train.engine import State

META = "meta"
WEIGHTS = "weights"
MEMORY, RUNNING = "memory.", "running."
"""In front of the names of what the optimiser remembers and of running statistics."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that an interrupted run needs to end as it would have."""

    identity: str
    """of the run: a hash of all that decides its result"""
    state: State
    generators: dict[str, Any]
    """states of the generators of order and of augmentation"""
    records: tuple[dict[str, Any], ...]
    """what the log has of the epochs so far"""

    def save(self, path: Path) -> None:
        """Write the file, in place of an earlier one.

        Raises
        ------
        InputError
            If it can't be written; the earlier one stays as it is.
        """
        meta = {
            "identity": self.identity,
            "generators": self.generators,
            "records": self.records,
        }
        arrays = {
            META: np.frombuffer(json.dumps(meta).encode(), np.uint8),
            WEIGHTS: self.state.weights,
            **{f"{MEMORY}{name}": each for name, each in self.state.memory.items()},
            **{f"{RUNNING}{name}": each for name, each in self.state.running.items()},
        }
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path, identity: str) -> Checkpoint:
        """Read the file.

        Raises
        ------
        InputError
            If it is damaged, or of another run.
        """
        advice = "Remove it to begin the run anew"
        try:
            # Opened here: NumPy leaves open what turns out to be damaged.
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            meta = json.loads(arrays.pop(META).tobytes())
            found = cls(
                meta["identity"],
                State(
                    arrays.pop(WEIGHTS),
                    _behind(MEMORY, arrays),
                    _behind(RUNNING, arrays),
                ),
                meta["generators"],
                tuple(meta["records"]),
            )
        except OSError as error:
            raise InputError(f"can't be read: {error.strerror or error}", where=str(path)) from None
        except DAMAGE as error:
            raise InputError(
                f"is no checkpoint, or a damaged one ({error}). {advice}", where=str(path)
            ) from None
        if found.identity != identity:
            raise InputError(f"is of another run. {advice}", where=str(path))
        return found


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write an ``.npz`` file whole or not at all; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def _behind(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """Arrays whose names begin so, without it."""
    return {
        name.removeprefix(prefix): each for name, each in arrays.items() if name.startswith(prefix)
    }
