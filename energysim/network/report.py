"""Where a network file is wrong, collected so that all of it is shown at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

Location = tuple[str | int, ...]
"""Path of a field in a file: ``("layers", 3, "kernel")``."""


class Positions(Protocol):
    """Where the fields of a file stand."""

    def problem(self, loc: Location, message: str, /) -> str:
        """``file:line:column field: message`` for a field, or the nearest one around it."""


@dataclass(slots=True)
class Report:
    """Collects what is wrong."""

    network: str
    source: Positions | None
    problems: list[str] = field(default_factory=list)

    def add(self, loc: Location, message: str) -> None:
        """Note a problem with a field."""
        if self.source is not None:
            self.problems.append(self.source.problem(loc, message))
            return
        where = " ".join(filter(None, (self.network, ".".join(map(str, loc)))))
        self.problems.append(f"{where}: {message}")


@dataclass(frozen=True, slots=True)
class Place:
    """One layer in the file."""

    report: Report
    index: int
    name: str

    def problem(self, key: str, message: str) -> None:
        """Note a problem with a field of the layer."""
        self.report.add(("layers", self.index, key), f"layer {self.name!r}: {message}")
