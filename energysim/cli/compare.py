"""``energysim compare``: patterns, networks and hardware side by side, relative to dense."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from energysim.cli import options
from energysim.errors import InputError, InputErrors
from energysim.units import BITS

if TYPE_CHECKING:
    from energysim.cli.render import Column, Grid
    from energysim.compare import Comparison, LeftOut, Row
    from energysim.units import Unit

Found = TypeVar("Found")

FOOTER = (
    "rel.: relative to the dense network on the same hardware",
    "stored: each layer in its smallest format, metadata included",
)

NAMED = 6
"""Rows named in the footer."""


@click.command("compare")
@click.option(
    "--net",
    "net",
    multiple=True,
    metavar="NAME",
    shell_complete=options.complete_names("nets"),
    help="Network: a name ('energysim list nets') or a .yaml file; may be given several times.",
)
@click.option(
    "--nets",
    callback=options.names_given,
    metavar="NAME,NAME...",
    help="Several networks.",
)
@click.option(
    "--hw",
    "hw",
    multiple=True,
    required=True,
    metavar="NAME",
    shell_complete=options.complete_names("hw"),
    help="Hardware: a name ('energysim list hw') or a .yaml file; may be given several times.",
)
@options.patterns
@options.one_objective
@options.one_dataflow
@options.residency
@options.batch
@options.no_cache
@options.print_format
@options.output
@options.quiet
def command(
    net: tuple[str, ...],
    nets: tuple[str, ...],
    hw: tuple[str, ...],
    print_format: str | None,
    output: Path | None,
    *,
    quiet: bool,
    no_cache: bool,
    **settings: Any,
) -> None:
    """Networks, patterns and hardware in one table, each relative to dense.

    A network with a pattern of its own is compared with the dense network that it is made of, on
    the same hardware. Each is run with the best mappings of its own. What was found is kept for the
    next run (see 'energysim cache').

    \b
    Example:
      energysim compare --net vgg16 --patterns all --hw edge_tpu
      energysim compare --net digits_cnn --patterns PS4_P4 --hw edge_tpu --hw eyeriss
      energysim compare --nets vgg16_ps,mobilenet_v2,shufflenet_v2 --hw edge_tpu
      energysim compare --net resnet18_ps --patterns 2:4 --hw edge_tpu -o resnet18.csv
    """  # noqa: D301 - click's mark is a backspace
    from energysim.cache import Cache, folder
    from energysim.catalog import load_hardware, load_network
    from energysim.cli import render
    from energysim.compare import compare, pattern_names

    target = options.target(output, print_format)
    objectives = settings.pop("objectives")
    if not (net or nets):
        raise click.UsageError("Missing option '--net': give a network, or several with --nets")
    _check_asked(target, objectives, settings["dataflow"])
    settings["objective"] = objectives[0]
    errors: list[InputError] = []
    networks = _each(load_network, (*net, *nets), errors)
    machines = _each(load_hardware, hw, errors)
    _each(lambda word: pattern_names([word]), settings["patterns"], errors)
    if errors:
        raise errors[0] if len(errors) == 1 else InputErrors(map(str, errors))
    cache = None if no_cache else Cache(folder())
    with render.progress(visible=not quiet) as tell:
        found = compare(networks, machines, cache=cache, progress=tell, **settings)
    render.print_text(text(found, target, settings), target)
    if not quiet:
        if target.path is not None:
            render.say(f"wrote {target.path} ({target.form}, {len(found.rows)} rows)")
        for line in _left_out(found.left_out):
            render.say(line)


def _check_asked(target: options.Target, objectives: Sequence[str], dataflow: str | None) -> None:
    """Refuse what can't be answered, before any work."""
    if target.form not in options.FORMATS:
        allowed = ", ".join(options.FORMATS)
        raise click.UsageError(f"compare gives no {target.form}; choose one of {allowed}")
    if len(objectives) > 1:
        raise click.UsageError("compare takes one objective; 'energysim run' trades two")
    if dataflow == "all":
        raise click.UsageError("compare takes one dataflow; 'energysim run' compares them all")


def _each(
    read: Callable[[str], Found], words: Sequence[str], errors: list[InputError]
) -> list[Found]:
    """Read what words stand for; what is wrong goes to the errors."""
    found = []
    for word in dict.fromkeys(words):
        try:
            found.append(read(word))
        except InputError as error:
            errors.append(error)
    return found


def _left_out(left_out: Sequence[LeftOut]) -> Iterator[str]:
    """One line for all patterns of a network that are left out for the same reason."""
    alike: dict[tuple[str, str], list[str]] = {}
    for each in left_out:
        what = f"{each.network} on {each.hardware}" if each.hardware else each.network
        reason = each.reason.replace(f"pattern {each.pattern}", "the pattern")
        alike.setdefault((what, reason), []).append(each.pattern)
    for (what, reason), patterns in alike.items():
        yield f"left out: {what} with {', '.join(patterns)}: {reason}"


# -- the table -------------------------------------------------------------------------------------


def text(found: Comparison, target: options.Target, settings: dict[str, Any]) -> str:
    """Write a comparison in the form that is asked for.

    Parameters
    ----------
    found : Comparison
    target : Target
    settings : dict
        What JSON says of the options.
    """
    from energysim.cli import render
    from energysim.version import VERSION

    if target.form == "csv":
        return render.as_csv(_records(found))
    if target.form == "json":
        return render.as_json(_data(found, {"energysim": VERSION, **settings}))
    terminal = target.form == "table" and target.path is None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else render.UNBOUNDED
    return "\n".join(render.grid_text(grid, target) for grid in grids(found, width))


def _records(found: Comparison) -> list[dict[str, Any]]:
    """Rows of a file; a format that a machine lacks or that can't hold the pattern is empty."""
    names = dict.fromkeys(each.format for row in found.rows for each in row.formats)
    records = []
    for row in found.rows:
        record = row.record()
        sizes = {each.format: each for each in row.formats}
        for name in names:
            size = sizes.get(name)
            record[f"{name}_values_bits"] = size.values_bits if size else None
            record[f"{name}_metadata_bits"] = size.metadata_bits if size else None
        records.append(record)
    return records


def _data(found: Comparison, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything, with what it depends on."""
    hashes = ("network_sha256", "hardware_sha256", "dataflow", "residency")
    rows = []
    for row, record in zip(found.rows, _records(found), strict=True):
        own = row.result.settings()
        rows.append(record | {name: own[name] for name in hashes})
    return {
        "settings": settings | {"patterns": list(settings["patterns"])},
        "rows": rows,
        "left_out": [asdict(each) for each in found.left_out],
    }


def grids(found: Comparison, width: int) -> list[Grid]:
    """Table of what is compared, and one of the weights in all formats.

    Where the first is wider than the terminal, it is broken into several between its columns, each
    with the names of the rows.
    """
    from energysim.cli.render import Grid

    rows = found.rows
    names = _names(rows)
    blocks = _broken(names, [*_network_columns(rows), *_cost_columns(rows)], width)
    if len(blocks) > 1:
        both = (_network_columns(rows), _cost_columns(rows))
        blocks = [block for part in both for block in _broken(names, part, width)]
    several = len(names) > 1
    made = [Grid(tuple(block), blank_repeats=several) for block in blocks]
    made[0] = replace(made[0], title=_title(rows))
    made[-1] = replace(made[-1], footer=(*FOOTER, *_kept(rows)))
    if any(len(row.formats) > 1 for row in rows):
        columns = _format_columns(rows)
        head = "weights in each format the hardware decodes: values + metadata"
        made += [
            Grid(tuple(block), head * (i == 0), blank_repeats=several)
            for i, block in enumerate(_broken(names, columns, width))
        ]
    return made


def _kept(rows: Sequence[Row]) -> Iterator[str]:
    """Say whose weights stay on chip, where that sets rows apart."""
    kept = [row for row in rows if row.result.cached_weight_bytes]
    if 0 < len(kept) < len(rows):
        several = len({(row.base, row.hardware) for row in rows}) > 1
        words = [f"{row.base} {row.pattern} on {row.hardware}" if several else row.pattern
                 for row in kept]  # fmt: skip
        named = ", ".join(words[:NAMED]) + (" ..." if len(words) > NAMED else "")
        yield f"weights stay on chip from one inference to the next: {named}; else loaded again"


def _broken(
    names: list[Column], columns: Sequence[tuple[Column, ...]], width: int
) -> list[list[Column]]:
    """Put columns beside one another as far as they go; a figure stays with its ratio."""
    blocks: list[list[Column]] = []
    for group in columns:
        if not blocks or _width([*blocks[-1], *group]) > width:
            blocks.append([*names])
        blocks[-1].extend(group)
    return blocks


def _width(columns: Sequence[Column]) -> int:
    """Width of a table with units under the headings [characters]."""
    return sum(
        1 + max(map(len, (*column.heading.replace(" [", "\n[").split("\n"), *column.cells)))
        for column in columns
    )


def _names(rows: Sequence[Row]) -> list[Column]:
    """What tells the rows apart; the pattern always."""
    from energysim.cli.render import Column

    shown = Counter((row.base, row.hardware, row.pattern) for row in rows)
    columns = {
        "network": [row.base for row in rows],
        "hardware": [row.hardware for row in rows],
        "pattern": [
            # Masks that differ may go by the same word.
            row.pattern if shown[row.base, row.hardware, row.pattern] == 1 else row.network
            for row in rows
        ],
    }
    return [
        Column(name, cells, right=False, narrow="cut")
        for name, cells in columns.items()
        if name == "pattern" or len(set(cells)) > 1
    ]


def _network_columns(rows: Sequence[Row]) -> list[tuple[Column, ...]]:
    from energysim.units import COUNTS

    every, dense = [row.figures for row in rows], [row.dense for row in rows]
    stored = [each.stored_bits for each in every]
    macs = [each.macs for each in every]
    (metadata,) = _figure("metadata", [each.metadata_bits for each in every], BITS, like=stored)
    return [
        _figure(
            "params",
            [each.parameters for each in every],
            COUNTS,
            base=[each.parameters for each in dense],
        ),
        (*_figure("stored", stored, BITS, base=[each.stored_bits for each in dense]), metadata),
        (
            *_figure("MACs", macs, COUNTS, base=[each.macs for each in dense]),
            *_figure(
                "effective",
                [each.effective_macs for each in every],
                COUNTS,
                base=[each.effective_macs for each in dense],
                like=macs,
            ),
        ),
    ]


def _cost_columns(rows: Sequence[Row]) -> list[tuple[Column, ...]]:
    from energysim.units import BYTES, COUNTS, PICOJOULES

    every, dense = [row.figures for row in rows], [row.dense for row in rows]
    return [
        _figure(
            "cycles",
            [each.cycles for each in every],
            COUNTS,
            base=[each.cycles for each in dense],
        ),
        _figure(
            "DRAM",
            [each.dram_bytes for each in every],
            BYTES,
            base=[each.dram_bytes for each in dense],
        ),
        _figure(
            "energy",
            [each.energy_pj for each in every],
            PICOJOULES,
            base=[each.energy_pj for each in dense],
        ),
    ]


def _figure(
    name: str,
    values: Sequence[float],
    units: Sequence[Unit],
    *,
    base: Sequence[float] = (),
    like: Sequence[float] = (),
) -> tuple[Column, ...]:
    """Column of a figure, and of its ratio to ``base`` where there is one."""
    from energysim.cli.render import Column, numbers
    from energysim.units import times

    column = replace(numbers(name, values, units, like=like), total="")
    if not base:
        return (column,)
    return column, Column("rel.", [times(*pair) for pair in zip(values, base, strict=True)])


def _format_columns(rows: Sequence[Row]) -> list[tuple[Column, ...]]:
    from energysim.cli.render import Column
    from energysim.units import heading, number, unit_for

    factor, unit = unit_for([row.figures.stored_bits for row in rows], BITS)
    chosen = Column("chosen", [row.weight_format for row in rows], right=False)
    columns: list[tuple[Column, ...]] = [(chosen,)]
    for name in dict.fromkeys(each.format for row in rows for each in row.formats):
        sizes = [next((x for x in row.formats if x.format == name), None) for row in rows]
        cells = [
            f"{number(each.values_bits, factor)} + {number(each.metadata_bits, factor)}"
            if each
            else "-"
            for each in sizes
        ]
        columns.append((Column(heading(name, unit), cells),))
    return columns


def _title(rows: Sequence[Row]) -> str:
    """Say what all rows have in common."""
    bases = list(dict.fromkeys(row.base for row in rows))
    machines = list(dict.fromkeys(row.hardware for row in rows))
    flows = dict.fromkeys(row.result.dataflow for row in rows)
    result = rows[0].result
    objective = () if result.objective == "energy" else (f"objective {result.objective}",)
    words = (
        f"{', '.join(bases)} on {', '.join(machines)}",
        ", ".join(flows),
        f"batch {result.batch}",
        *objective,
    )
    return " · ".join(words)
