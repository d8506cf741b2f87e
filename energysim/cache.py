"""A folder of small JSON entries: what searches have found, by a hash of what they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from energysim.errors import EnergysimError
from energysim.files import UNFINISHED, write_atomically

FORMAT = 2
"""Number of the layout of keys and entries: another one finds nothing of the old."""

SWEEPS = "sweeps"
"""Name of the folder in it for stores of sweeps."""

_DIGITS = set("0123456789abcdef")
_SHELF, _KEY = 2, 64
"""Letters of the name of a folder of entries, and of an entry."""


def folder() -> Path:
    """The user's cache folder: ``$ENERGYSIM_CACHE``, or where the system keeps caches."""
    own = os.environ.get("ENERGYSIM_CACHE")
    if own:
        return Path(own)
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "energysim"
    if sys.platform == "win32":
        return (
            Path(os.environ.get("LOCALAPPDATA") or home / "AppData/Local") / "energysim" / "cache"
        )
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "energysim"


def key_of(parts: object) -> str:
    """Hash plain data, the same on every machine and run.

    Raises
    ------
    TypeError
        If something in it is no plain data.

    Examples
    --------
    >>> key_of({"a": 1, "b": [2.5, None]}) == key_of({"b": [2.5, None], "a": 1})
    True
    """
    return hashlib.sha256(_canonical([FORMAT, parts]).encode()).hexdigest()


def _canonical(data: object) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class Cache:
    """Entries that any number of processes may read and write at once.

    An entry is written whole and then put in place; it carries its key and a checksum, and one that
    is broken in any way counts as missing. A folder that can't be used never stops a run.

    The checksum is there against accidents. Whoever means harm and may write here can make up an
    entry with a right one, as they can change the program: it can then show a mapping that is not
    the best as the best. What it costs is counted anew in every run.
    """

    folder: Path

    def get(self, key: str) -> Any | None:
        """What was put under a key; None if there is nothing that can be trusted."""
        try:
            entry = json.loads(self._path(key).read_text(encoding="utf-8"))
            if entry["key"] == key and entry["sha256"] == _checksum(key, entry["payload"]):
                return entry["payload"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        return None

    def put(self, key: str, payload: object) -> bool:
        """Keep plain data under a key; whether that was possible."""
        entry = {"key": key, "sha256": _checksum(key, payload), "payload": payload}
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(entry))
        except (OSError, EnergysimError):
            return False
        return True

    def clear(self) -> tuple[int, int]:
        """Remove all entries, and nothing else; how many there were, and their bytes."""
        many, size = self.usage()
        left = [path for shelf in self._shelves() for path in shelf.glob(UNFINISHED)]
        for path in [*self._entries(), *self._sweeps(), *left]:
            with suppress(OSError):
                path.unlink()
        for shelf in [*self._shelves(), self.folder / SWEEPS]:
            with suppress(OSError):
                shelf.rmdir()
        return many, size

    def usage(self) -> tuple[int, int]:
        """Number of entries, finished sweeps too, and their bytes."""
        sizes = []
        for path in [*self._entries(), *self._sweeps()]:
            with suppress(OSError):
                sizes.append(path.stat().st_size)
        return len(sizes), sum(sizes)

    def _path(self, key: str) -> Path:
        return self.folder / key[:_SHELF] / f"{key}.json"

    def _shelves(self) -> list[Path]:
        with suppress(OSError):
            return [
                shelf
                for shelf in sorted(self.folder.iterdir())
                if len(shelf.name) == _SHELF and set(shelf.name) <= _DIGITS and shelf.is_dir()
            ]
        return []

    def _sweeps(self) -> list[Path]:
        """Finished points of sweeps, and journals of those that were killed."""
        with suppress(OSError):
            return sorted((self.folder / SWEEPS).glob("*.sqlite*"))
        return []

    def _entries(self) -> list[Path]:
        found = []
        for shelf in self._shelves():
            with suppress(OSError):
                found += [
                    path
                    for path in sorted(shelf.iterdir())
                    if path.suffix == ".json"
                    and len(path.stem) == _KEY
                    and set(path.stem) <= _DIGITS
                ]
        return found


def _checksum(key: str, payload: object) -> str:
    return hashlib.sha256(f"{key}{_canonical(payload)}".encode()).hexdigest()
