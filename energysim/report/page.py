"""The page itself: what stands where, and the text of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any

from energysim.errors import EnergysimError, InputError, MissingExtraError
from energysim.report.constants import constants
from energysim.report.facts import Fact, figures, what_was_run
from energysim.report.mappings import about_layer, mapping
from energysim.report.pictures import Picture, of_run, of_variants
from energysim.report.table import Table
from energysim.report.tables import accesses, layers, levels, phases, sensitivity, variants
from energysim.result import Result
from energysim.uncertainty import uncertainty
from energysim.units import COLUMNS
from energysim.version import VERSION
from energysim.yamlio import to_yaml

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE, STYLE_SHEET, SCRIPT = "page.html.jinja", "page.css", "page.js"
"""Files beside this one."""

NAMED = 3
"""Networks that the heading names."""

EXPLAINED = (
    "macs", "effective_macs", "cycles", "utilization", "dram_bytes", "dram_bound_bytes",
    "sram_bytes", "level", "tensor", "action", "elements", "parameters",
)  # fmt: skip
"""Columns whose meaning the page tells."""


@dataclass(frozen=True)
class Report:
    """What a page is made from."""

    results: tuple[Result, ...]
    """variants of one network on one machine, each with a section of its own"""
    dense: Result | EnergysimError | None = None
    """of the dense network that they are compared with, or why there is none; may be one of the
    results"""
    command: str = ""
    """what repeats it"""

    def __post_init__(self) -> None:
        if not self.results:
            raise InputError("a report needs at least one result")
        machines = {each.settings()["hardware_sha256"] for each in self.every}
        if len(machines) > 1:
            raise InputError("a report is about one machine: its results are of several")

    @property
    def every(self) -> tuple[Result, ...]:
        """All results, the dense one first."""
        if isinstance(self.dense, Result) and self.dense not in self.results:
            return (self.dense, *self.results)
        return self.results

    @property
    def title(self) -> str:
        """Heading of the page."""
        names = list(dict.fromkeys(each.network for each in self.results))
        rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return f"{', '.join(names[:NAMED])}{rest} on {self.results[0].hardware}"

    @cached_property
    def side_by_side(self) -> Table | None:
        """All networks in one table, where there is more than one."""
        every = self.every
        base = self.dense if isinstance(self.dense, Result) else None
        return variants(every, base) if len(every) > 1 else None


@dataclass(frozen=True, slots=True)
class Mapped:
    """The mapping of one layer."""

    id: str
    layer: str
    line: str
    facts: tuple[Fact, ...]
    table: Table


@dataclass(frozen=True, slots=True)
class Section:
    """All about one result."""

    id: str
    name: str
    figures: tuple[Fact, ...]
    notes: tuple[str, ...]
    facts: tuple[Fact, ...]
    pictures: tuple[Picture, ...]
    tables: tuple[Table, ...]
    accesses: Table
    mappings: tuple[Mapped, ...]
    settings: tuple[Fact, ...]


def page(report: Report) -> str:
    """Write one HTML page that needs nothing but a browser.

    Parameters
    ----------
    report : Report

    Returns
    -------
    str
        Style, script and pictures included; the same report gives the same text.

    Raises
    ------
    MissingExtraError
        Without Jinja2 (``pip install 'energysim[report]'``).

    Examples
    --------
    >>> import energysim as es
    >>> r = es.simulate(es.load_network("digits_cnn"), es.load_hardware("edge_tpu"))
    >>> page(Report((r,))).splitlines()[0]
    '<!doctype html>'
    """
    template = _template()
    script = _file(SCRIPT)
    hardware = report.results[0].inputs[1]
    first, every = report.results[0], report.every
    table, sources = constants(hardware)
    # markup made by the package; everything else is escaped
    own = {"style": _markup(_file(STYLE_SHEET)), "script": _markup(script)}
    return template.render(
        title=report.title,
        lead=f"Energy, memory traffic and time, layer by layer: {first.dataflow.replace('_', ' ')}"
        f" dataflow, batch {first.batch}, {first.bits}.",
        version=VERSION,
        script_hash=_hash_of(f"\n{script}"),
        sections=[_section(report, result, i) for i, result in enumerate(report.results, start=1)],
        side_by_side=report.side_by_side,
        beside=of_variants(every) if len(every) > 1 else None,
        no_dense=str(report.dense) if isinstance(report.dense, EnergysimError) else "",
        constants=table,
        sources=sources,
        command=report.command,
        hardware_name=hardware.name,
        hardware_yaml=to_yaml(hardware),
        glossary=[Fact(COLUMNS[name].label, COLUMNS[name].meaning) for name in EXPLAINED],
        **own,
    )


def _section(report: Report, result: Result, number: int) -> Section:
    place = f"run-{number}"
    found = uncertainty(result)
    every = (phases(result), layers(result, report.dense, f"{place}-layer-"), levels(result),
             sensitivity(found))  # fmt: skip
    return Section(
        place,
        f"{result.network} in detail",
        tuple(figures(result, report.dense, found)),
        tuple(note.text for note in result.warnings),
        tuple(what_was_run(result)),
        tuple(of_run(result, place)),
        tuple(table for table in every if table is not None),
        accesses(result),
        tuple(_mappings(result, f"{place}-layer-")),
        tuple(_settings(result)),
    )


def _mappings(result: Result, place: str) -> Iterator[Mapped]:
    for i, row in enumerate(result.layer_rows):
        facts = tuple(about_layer(result, i))
        yield Mapped(f"{place}{i}", row.layer, row.mapping, facts, mapping(result, row.layer))


def _settings(result: Result) -> Iterator[Fact]:
    for name, value in result.settings().items():
        words = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
        text = ", ".join(map(str, value)) if isinstance(value, list) else words
        yield Fact(name, text or "none")


def check_extra() -> None:
    """Make sure, before any work, that what writes the page is there.

    Raises
    ------
    MissingExtraError
        Jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: F401 - only asked for
    except ImportError:
        raise MissingExtraError(
            "a report needs Jinja2: install it with: pip install 'energysim[report]'"
        ) from None


def _template() -> Template:
    check_extra()
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(_file(TEMPLATE))


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - the package's own files


def _file(name: str) -> str:
    return (resources.files("energysim.report") / name).read_text(encoding="utf-8")


def _hash_of(script: str) -> str:
    """Name a script for a content security policy: the browser runs it and no other."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
