"""Numbers as text: what the commands print, and where it goes."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from energysim import catalog
from energysim.axes import Action, Tensor
from energysim.cli.options import Target
from energysim.errors import DoesNotFitError, EnergysimError, InputError
from energysim.files import write_atomically
from energysim.sparsity import pattern_words
from energysim.units import (
    BITS_PER_BYTE,
    BYTES,
    COUNTS,
    NANOSECONDS,
    PERCENT,
    PICOJOULES,
    Unit,
    heading,
    number,
    percent,
    quantity,
    si,
    times,
    unit_for,
)

if TYPE_CHECKING:
    from rich.table import Table

    from energysim.hardware import Hardware
    from energysim.result import Result
    from energysim.tradeoff import Front

Narrow = Literal["keep", "cut", "wrap"]

NS_PER_MS = 1e6
PJ_PER_MJ = 1e9

MOST_POINTS = 20
"""Rows of a Pareto set that a table shows."""

UNBOUNDED = 10_000
"""Width of a line where nobody has to see it whole [characters]."""

PATIENCE_S = 1.0
"""Shorter runs show no progress bar [s]."""


# -- tables ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """Heading and values of one column, as text."""

    heading: str
    cells: Sequence[str]
    total: str = ""
    right: bool = True
    """numbers are aligned to the right, words to the left"""
    narrow: Narrow = "keep"
    """what becomes of the cells where a terminal has no room for them"""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table with what stands above and below it."""

    columns: tuple[Column, ...]
    title: str = ""
    footer: tuple[str, ...] = ()
    shares: Sequence[float] = ()
    """drawn as bars behind each row"""
    blank_repeats: bool = False
    """leave out words in the first column that stand in the row above"""

    @property
    def has_total(self) -> bool:
        """Whether there is a row of totals."""
        return any(column.total for column in self.columns)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Cells row by row, without the totals."""
        return list(zip(*(column.cells for column in self.columns), strict=True))


def numbers(
    name: str, values: Sequence[float], units: Sequence[Unit], *, like: Sequence[float] = ()
) -> Column:
    """Column of numbers that add up, in one unit; ``like`` has a say in which."""
    factor, unit = unit_for([*values, *like], units)
    cells = [number(value, factor) for value in values]
    return Column(heading(name, unit), cells, number(sum(values), factor))


def as_text(grid: Grid, *, width: int | None = None, colour: bool = False) -> str:
    """Write a table for a terminal.

    Parameters
    ----------
    grid : Grid
    width : int, optional
        Of the terminal; as wide as need be by default.
    colour : bool
        Whether to use escape codes.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width or UNBOUNDED,
        force_terminal=colour,
        color_system="auto" if colour else None,
        highlight=False,
        legacy_windows=False,
    )
    if grid.title:
        console.print(Text(grid.title, style="bold"))
        console.print()
    for layout in _LAYOUTS:
        table = _rich_table(grid, layout)
        if console.measure(table, options=console.options.update(width=UNBOUNDED)).maximum <= (
            console.width
        ):
            break
    console.print(table)
    if grid.footer:
        console.print()
    for line in grid.footer:
        console.print(Padding(Text(line), (0, 0, 0, 1)))
    return "\n".join(line.rstrip() for line in buffer.getvalue().split("\n"))


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a table makes do with the width there is."""

    tall: bool
    """units stand under the headings, and columns close together"""
    bar: int
    """width of the bars, 0 for none [characters]"""


_LAYOUTS = (_Layout(False, 10), _Layout(True, 10), _Layout(True, 5), _Layout(True, 0))


def _rich_table(grid: Grid, layout: _Layout) -> Table:
    from rich.table import Table
    from rich.text import Text

    bar = layout.bar if grid.shares else 0
    # Rows have a space on their left; what stands between columns is on the right of each.
    table = Table(
        box=None,
        padding=(0, 1, 0, 0 if layout.tall else 1),
        show_footer=grid.has_total,
        header_style="bold",
    )
    for column in grid.columns:
        text = column.heading.replace(" [", "\n[") if layout.tall else column.heading
        table.add_column(
            Text(text),
            Text(column.total, style="bold"),
            justify="right" if column.right else "left",
            vertical="middle",
            no_wrap=column.narrow == "keep",
        )
    if bar:
        table.add_column(style="cyan", no_wrap=True, min_width=bar)
    most = max(grid.shares, default=0.0)
    last = ""
    for i, row in enumerate(grid.rows):
        first, *rest = row
        shown = "" if grid.blank_repeats and first == last else first
        last = first
        cells = [
            Text(cell, no_wrap=column.narrow != "wrap", overflow="ellipsis")
            for column, cell in zip(grid.columns, (shown, *rest), strict=True)
        ]
        table.add_row(*cells, *([Text(_bar(grid.shares[i], most, bar))] if bar else []))
    return table


def _bar(value: float, most: float, width: int) -> str:
    """Draw a bar in eighths of a character."""
    eighths = round(8 * width * value / most) if most else 0
    whole, rest = divmod(eighths, 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[rest].strip()


def as_markdown(grid: Grid) -> str:
    """Write a table as Markdown."""
    rows = [tuple(column.heading for column in grid.columns)]
    rows.append(tuple("---:" if column.right else "---" for column in grid.columns))
    rows += grid.rows
    if grid.has_total:
        rows.append(tuple(column.total for column in grid.columns))
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    above = [f"**{grid.title}**", ""] if grid.title else []
    below = ["", *(f"- {line}" for line in grid.footer)] if grid.footer else []
    return "\n".join([*above, *lines, *below]) + "\n"


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Write records as CSV, with a heading."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def as_json(data: object) -> str:
    """Write plain data as JSON."""
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


# -- results --------------------------------------------------------------------------------------


def title(result: Result) -> str:
    """Say in one line what was run."""
    objective = () if result.objective == "energy" else (f"objective {result.objective}",)
    phase = ("training",) if result.training else ()
    parts = (
        f"{result.network} on {result.hardware}",
        result.dataflow,
        f"batch {result.batch}",
        result.bits,
        pattern_words(result.pattern),
        *phase,
        *objective,
    )
    return " · ".join(parts)


def layer_grid(result: Result, dense: Result | EnergysimError | None = None) -> Grid:
    """One row a layer; the last line compares with the dense network of a variant."""
    rows = result.layer_rows
    outer, buffer, *_ = result.level_names
    outer_bytes, buffer_bytes = result.level_bytes(outer), result.level_bytes(buffer)
    energies = [row.energy_pj for row in rows]
    macs, effective = ([row.macs for row in rows], [row.effective_macs for row in rows])
    columns = [
        Column("layer", [row.layer for row in rows], "total", right=False, narrow="cut"),
        numbers("MACs", macs, COUNTS),
    ]
    if effective != macs:
        columns.append(numbers("effective", effective, COUNTS, like=macs))
    columns += [
        numbers("cycles", [row.cycles for row in rows], COUNTS),
        Column(
            "util. [%]",
            [percent(row.utilization, 1) if row.macs else "-" for row in rows],
            percent(_busy(result), 1),
        ),
        numbers(outer, outer_bytes, BYTES, like=buffer_bytes),
        numbers(buffer, buffer_bytes, BYTES, like=outer_bytes),
        numbers("energy", energies, PICOJOULES),
        Column("share [%]", [percent(each, result.total_energy_pj) for each in energies]),
    ]
    return Grid(tuple(columns), title(result), tuple(_footer(result, dense)), energies)


def _footer(result: Result, dense: Result | EnergysimError | None) -> Iterator[str]:
    total = result.total_energy_pj
    parts = result.energy_by_level().items()
    yield "energy: " + "  ".join(f"{name} {percent(part, total)} %" for name, part in parts)
    energy = total / result.batch
    factor, unit = unit_for([energy], PICOJOULES, least=1)
    yield (
        f"per image: {number(energy, factor)} {unit}, "
        f"{si(result.total_time_ms / result.batch)} ms · {result.level_names[0]} is "
        f"{times(result.total_dram_bytes, result.total_dram_bound_bytes)} its lower bound"
    )
    yield from _training_lines(result)
    yield _searched(result)
    if isinstance(dense, EnergysimError):
        yield f"vs {result.base} (dense): no comparison, {dense}"
    elif dense is not None:
        ratios = (
            f"{times(total, dense.total_energy_pj)} energy",
            f"{times(result.total_dram_bytes, dense.total_dram_bytes)} {result.level_names[0]}",
            f"{times(result.total_cycles, dense.total_cycles)} cycles",
        )
        yield f"vs {dense.network} (dense): {', '.join(ratios)}"


def _training_lines(result: Result) -> Iterator[str]:
    """Cost of each phase of an iteration, of an epoch, and of keeping activations."""
    if result.training is None:
        return
    for name, cost in result.by_phase().items():
        yield (
            f"{name}: {percent(cost.energy_mj, result.total_energy_mj)} % of energy, "
            f"{quantity(cost.energy_mj * PJ_PER_MJ, PICOJOULES)}, "
            f"{quantity(cost.time_ms * NS_PER_MS, NANOSECONDS)}, "
            f"{quantity(cost.dram_bytes, BYTES)} {result.level_names[0]}"
        )
    energy = result.total_energy_pj * result.epoch_iterations
    time_ns = result.total_time_ms * NS_PER_MS * result.epoch_iterations
    yield (
        f"per epoch of {result.training.epoch_images:,} images: {quantity(energy, PICOJOULES)}, "
        f"{quantity(time_ns, NANOSECONDS)}"
    )
    peak = {name: quantity(each, BYTES) for name, each in result.activation_bytes().items()}
    again = quantity(result.recompute_energy_mj * PJ_PER_MJ, PICOJOULES)
    if result.training.recompute:
        yield (
            f"activations recomputed: at most {peak['recomputed']} wait, for {again} an iteration; "
            f"kept it would be {peak['kept']}"
        )
    else:
        yield (
            f"activations kept: at most {peak['kept']} wait; recomputed it would be "
            f"{peak['recomputed']}, for {again} more an iteration"
        )


def _searched(result: Result) -> str:
    search = result.search
    size = f"{search.mapspace:,}" if search.mapspace < UNBOUNDED else f"{search.mapspace:.2g}"
    if search.optimal:
        return f"mapping: optimal among {size} mappings, {search.evaluated:,} of them counted"
    return (
        f"mapping: stopped early among {size} mappings; the best of a layer may be up to "
        f"{PERCENT * search.gap:.2g} % better"
    )


def print_dataflows(
    network: str,
    hardware: Hardware,
    found: Mapping[str, Result | DoesNotFitError],
    target: Target,
) -> None:
    """Print or write the comparison of dataflows."""
    records = [
        {
            "dataflow": name,
            "energy_mj": each.total_energy_mj,
            "time_ms": each.total_time_ms,
            "cycles": each.total_cycles,
            "dram_bytes": each.total_dram_bytes,
            "utilization": _busy(each),
            "optimal": each.search.optimal,
            "gap": each.search.gap,
        }
        for name, each in found.items()
        if not isinstance(each, EnergysimError)
    ]
    if target.form == "csv":
        text = as_csv(records)
    elif target.form == "json":
        failed = {name: str(each) for name, each in found.items()
                  if isinstance(each, EnergysimError)}  # fmt: skip
        head = {"network": network, "hardware": hardware.name}
        text = as_json({**head, "dataflows": records, "do_not_fit": failed})
    else:
        text = grid_text(dataflow_grid(network, hardware, found), target)
    print_text(text, target)


def _busy(result: Result) -> float:
    """Share of the array that works, over all cycles."""
    return sum(row.utilization * row.cycles for row in result.layer_rows) / (
        result.total_cycles or 1
    )


def dataflow_grid(
    network: str, hardware: Hardware, found: Mapping[str, Result | DoesNotFitError]
) -> Grid:
    """One row a dataflow; the hardware's own is marked."""
    good = {name: each for name, each in found.items() if not isinstance(each, EnergysimError)}
    least = min((each.total_energy_pj for each in good.values()), default=1.0)
    energies = [each.total_energy_pj for each in good.values()]
    columns = (
        Column(
            "dataflow",
            [f"{name} *" if name == hardware.dataflow else name for name in good],
            right=False,
        ),
        _figures("energy", energies, PICOJOULES),
        Column("vs best", [times(energy, least) for energy in energies]),
        _figures("cycles", [each.total_cycles for each in good.values()], COUNTS),
        Column("util. [%]", [percent(_busy(each), 1) for each in good.values()]),
        _figures(hardware.levels[0].name, [each.total_dram_bytes for each in good.values()], BYTES),
    )
    footer = ["* the hardware's own, with what its file spells"]
    footer += [f"{name}: {each}" for name, each in found.items() if name not in good]
    footer += [f"{name}: {_searched(each)}" for name, each in good.items()
               if not each.search.optimal]  # fmt: skip
    return Grid(columns, f"{network} on {hardware.name}, by dataflow", tuple(footer), energies)


def _figures(name: str, values: Sequence[float], units: Sequence[Unit]) -> Column:
    """Column of numbers that have no sum."""
    column = numbers(name, values, units)
    return Column(column.heading, column.cells)


def print_front(front: Front, target: Target) -> None:
    """Print or write the Pareto set of a network."""
    if target.form == "csv":
        text = as_csv(front.rows())
    elif target.form == "json":
        text = front.to_json()
    else:
        text = grid_text(front_grid(front), target)
    print_text(text, target)


def front_grid(front: Front) -> Grid:
    """One row a point, by the first objective; of many some, evenly spread."""
    many = len(front.points)
    if many > MOST_POINTS:
        last = MOST_POINTS - 1
        shown = [front.points[i * (many - 1) // last] for i in range(MOST_POINTS)]
    else:
        shown = list(front.points)
    energies, first = [each.energy_mj * PJ_PER_MJ for each in shown], shown[0]
    columns = (
        _figures("energy", energies, PICOJOULES),
        Column("rel.", [times(each.energy_mj, first.energy_mj) for each in shown]),
        _figures("cycles", [each.cycles for each in shown], COUNTS),
        Column("rel.", [times(each.cycles, first.cycles) for each in shown]),
        _figures("time", [each.time_ms * NS_PER_MS for each in shown], NANOSECONDS),
        _figures(front.settled.hardware.levels[0].name, [each.dram_bytes for each in shown], BYTES),
    )
    one, other = front.objectives
    above = title(front.result(0)).split(" · objective ")[0]
    points = "one point" if many == 1 else f"{many:,} points"
    if many > len(shown):
        points += f", {len(shown)} of them shown (all in --format csv)"
    footer = f"{points}; no choice of mappings has less of one and no more of the other"
    if not front.search.optimal:
        footer = f"{points}; stopped early, there may be better ones"
    return Grid(columns, f"{above} · {one} against {other}", (footer,))


def print_text(text: str, target: Target) -> None:
    """Print or write text."""
    if target.path is None:
        click.echo(text, nl=False)
    else:
        write_atomically(target.path, text)


def level_grid(result: Result) -> Grid:
    """One row a memory level, tensor and action, all layers together."""
    sums: dict[tuple[str, str, str], list[float]] = {}
    for row in result.access_rows:
        sofar = sums.setdefault((row.level, row.tensor, row.action), [0, 0.0, 0.0])
        for i, value in enumerate((row.elements, row.bits / BITS_PER_BYTE, row.energy_pj)):
            sofar[i] += value
    orders = (
        [*result.level_names, "NoC", "vector", "MAC", "static"],
        ["", *(tensor.label for tensor in Tensor)],
        [*(action.label for action in Action), "hop", "compute", "static"],
    )
    keys = sorted(
        sums, key=lambda key: [order.index(word) for order, word in zip(orders, key, strict=True)]
    )
    elements, moved, energies = zip(*(sums[key] for key in keys), strict=True)
    count, data = numbers("elements", elements, COUNTS), numbers("data", moved, BYTES)
    columns = (
        Column("level", [key[0] for key in keys], "total", right=False),
        Column("tensor", [key[1] for key in keys], right=False),
        Column("action", [key[2] for key in keys], right=False),
        Column(count.heading, count.cells),  # what moves through several levels has no sum
        Column(data.heading, data.cells),
        numbers("energy", energies, PICOJOULES),
        Column("share [%]", [percent(each, result.total_energy_pj) for each in energies]),
    )
    footer = ("All layers together; --format csv has a row for every layer.",)
    return Grid(columns, title(result), footer, energies, blank_repeats=True)


# -- where it goes --------------------------------------------------------------------------------


def deliver(
    result: Result,
    dense: Result | EnergysimError | None,
    target: Target,
    *,
    levels: bool,
    quiet: bool,
) -> None:
    """Print or write a result, and then what there is to say about it.

    Parameters
    ----------
    result : Result
    dense : Result or EnergysimError or None
        Of the dense network to compare with, if there is one: its cost, or why there is none.
    target : Target
    levels : bool
        Levels, tensors and actions in place of layers.
    quiet : bool
        Say nothing.
    """
    if target.form == "parquet" and target.path is not None:
        try:
            result.to_parquet(target.path, levels=levels)
        except ImportError:
            advice = "install it with: pip install 'energysim[parquet]'"
            raise InputError(f"Parquet needs pyarrow; {advice}", where="-o") from None
    else:
        text = _written(result, dense, target, levels=levels)
        if target.path is None:
            click.echo(text, nl=False)
        else:
            write_atomically(target.path, text)
    if quiet:
        return
    if target.path is not None:
        rows = len(result.access_rows if levels else result.layer_rows)
        say(f"wrote {target.path} ({target.form}, {rows} {'rows' if levels else 'layers'})")
    for note in result.warnings:
        say(f"note: {note.text}")


def _written(
    result: Result, dense: Result | EnergysimError | None, target: Target, *, levels: bool
) -> str:
    if target.form == "csv":
        return result.to_csv(levels=levels)
    if target.form == "json":
        return result.to_json()
    if target.form == "html":
        body = result.accesses.to_html(index=False) if levels else result._repr_html_()
        head = f'<!doctype html><meta charset="utf-8"><title>{title(result)}</title>'
        return f"{head}\n{body}\n"
    grid = level_grid(result) if levels else layer_grid(result, dense)
    return grid_text(grid, target)


def grid_text(grid: Grid, target: Target) -> str:
    """Write a table as Markdown, for the terminal it is printed to, or for a file."""
    if target.form == "md":
        return as_markdown(grid)
    if target.path is None and sys.stdout.isatty():
        return as_text(grid, width=shutil.get_terminal_size().columns, colour=True)
    return as_text(grid)


def say(text: str) -> None:
    """Tell the user something that is no data."""
    click.echo(text, err=True)


def say_files(*, nets: str, hw: str) -> None:
    """Say which file the name of a network and that of hardware stand for."""
    for word, name, found in (
        ("network", nets, catalog.find("nets", nets)),
        ("hardware", hw, catalog.find("hw", hw)),
    ):
        say(f"{word} {name}: {found.path} ({found.origin})")


@contextmanager
def progress(*, visible: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """Show a progress bar on a terminal, if the run takes long enough to want one."""
    if not visible or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    words = TextColumn("{task.description}", markup=False)
    bar = Progress(words, BarColumn(), MofNCompleteColumn(), console=Console(stderr=True),
                   transient=True)  # fmt: skip
    task = bar.add_task("")
    began = time.monotonic()
    # One layer may take longer than anyone is patient.
    waiting = threading.Timer(max(PATIENCE_S, 0.0), bar.start)
    waiting.daemon = True
    waiting.start()

    def tell(done: int, total: int, layer: str) -> None:
        bar.update(task, completed=done, total=total, description=layer)
        if time.monotonic() - began > PATIENCE_S:
            bar.start()

    try:
        yield tell
    finally:
        waiting.cancel()
        waiting.join()
        bar.stop()
