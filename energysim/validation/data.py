"""The reference numbers that come with the package, read from ``validation/data``."""

from __future__ import annotations

import csv
from importlib.resources import files
from importlib.resources.abc import Traversable


def data_file(name: str) -> Traversable:
    """Find a file of reference numbers."""
    return files("energysim.validation") / "data" / name


def read_rows(name: str) -> list[dict[str, str]]:
    """Rows of a CSV file of reference numbers; lines that begin with ``#`` say where from."""
    text = data_file(name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
