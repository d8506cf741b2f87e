"""Where finished blocks of a sweep are kept: one SQLite file, whole after any interruption.

A block is written in one transaction, under its number, once: what two processes compute twice is
kept once, and both come to the same bytes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from energysim.cache import key_of
from energysim.errors import EnergysimError, InputError
from energysim.sweeps.evaluate import METRICS, Block

FORMAT = 1
"""Number of the layout: another one is refused."""

APPLICATION = 0x65735377
"""What SQLite keeps in the file to tell whose it is."""

PATIENCE_S = 60.0
"""How long to wait for another process that writes [s]."""

_TABLES = """
create table if not exists sweep (name text primary key, value text not null) without rowid;
create table if not exists blocks (
  number integer primary key, points integer not null, figures blob not null, note text not null
);
"""

_LITTLE = np.dtype("<f8")


class StoreError(EnergysimError):
    """The store can't be used."""


class Blocks(Protocol):
    """Finished blocks, by number."""

    @property
    def where(self) -> str:
        """The file that keeps them; empty if none does."""

    def done(self, first: int = 0, last: int = 2**62) -> set[int]:
        """Numbers of the blocks that are kept, from the first to the last."""

    def put(self, number: int, block: Block) -> None:
        """Keep a block."""

    def get(self, number: int) -> Block:
        """A block that is kept."""


class Memory:
    """Blocks of a sweep that nobody wants to keep."""

    where = ""

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}

    def done(self, first: int = 0, last: int = 2**62) -> set[int]:
        """Numbers of the blocks that are there, from the first to the last."""
        return {number for number in self._blocks if first <= number <= last}

    def put(self, number: int, block: Block) -> None:
        """Hold a block."""
        self._blocks[number] = block

    def get(self, number: int) -> Block:
        """A block that is there."""
        return self._blocks[number]


class Store:
    """Blocks of one sweep in a file.

    Parameters
    ----------
    path : Path
        Made if it is not there.
    described : dict
        All that decides the result: a store of another sweep is refused.

    Raises
    ------
    InputError
        If the file is no store, or that of another sweep.
    StoreError
        If it can't be read or written, such as on a full disk; what it holds stays whole.
    """

    def __init__(self, path: Path, described: dict[str, Any]) -> None:
        self.path = path
        if not path.parent.is_dir():
            raise InputError(f"the folder {path.parent} does not exist", where=str(path))
        with self._open() as database:
            (ours,) = database.execute("pragma application_id").fetchone()
            (tables,) = database.execute("select count(*) from sqlite_master").fetchone()
            if tables and ours != APPLICATION:
                raise InputError("is no store of a sweep", where=str(path))
            database.executescript(f"pragma application_id = {APPLICATION}; {_TABLES}")
            identity = key_of([FORMAT, described])
            texts = (("identity", identity), ("sweep", json.dumps(described)))
            database.executemany("insert or ignore into sweep values (?, ?)", texts)
            # of two that begin at once, the other one may have been first
            row = database.execute("select value from sweep where name = 'identity'").fetchone()
            if row[0] != identity:
                raise InputError(
                    "holds another sweep: other fields, values, networks, hardware or program."
                    " Name another file with --store, or remove this one",
                    where=str(path),
                )

    @property
    def where(self) -> str:
        """Its file."""
        return str(self.path)

    def done(self, first: int = 0, last: int = 2**62) -> set[int]:
        """Numbers of the blocks that are kept, from the first to the last."""
        asked = "select number from blocks where number between ? and ?"
        with self._open() as database:
            return {number for (number,) in database.execute(asked, (first, last))}

    def put(self, number: int, block: Block) -> None:
        """Keep a block; whole, or on any error not at all. One that is there stays."""
        figures = np.ascontiguousarray(block.values, dtype=_LITTLE).tobytes()
        row = (number, len(block.values), figures, block.note)
        with self._open() as database:
            database.execute("insert or ignore into blocks values (?, ?, ?, ?)", row)

    def get(self, number: int) -> Block:
        """A block that is kept."""
        with self._open() as database:
            row = database.execute(
                "select points, figures, note from blocks where number = ?", (number,)
            ).fetchone()
        if row is None or len(row[1]) != row[0] * len(METRICS) * _LITTLE.itemsize:
            raise StoreError(f"{self.path}: block {number} is missing or damaged. Remove the file")
        points, figures, note = row
        values = np.frombuffer(figures, dtype=_LITTLE).reshape(points, len(METRICS))
        return Block(values.astype(np.float64), note)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE_S)) as database, database:
                yield database
        except sqlite3.DatabaseError as error:
            if "no such table" in str(error):
                raise StoreError(
                    f"{self.path} was removed while it was in use; the same command begins anew"
                ) from None
            if "not a database" in str(error) or "no such column" in str(error):
                raise InputError("is no store of a sweep", where=str(self.path)) from None
            raise StoreError(
                f"{self.path}: {error}. What was computed before is kept. Is there room on the"
                " disk, and may the file and its folder be written?"
            ) from None
