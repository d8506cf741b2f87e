"""``energysim sweep``: any fields of hardware, network and run, in every combination."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from energysim.cli import options
from energysim.cli.options import SCAN

if TYPE_CHECKING:
    import pandas as pd

    from energysim.cli.render import Column
    from energysim.sweeps import Plan, Sweep
    from energysim.sweeps.run import Tell

SHOWN = 40
"""Points of which the table shows all; of more it shows the best."""
BEST = 20
"""How many of these."""

FORMS = ("table", "csv", "parquet", "json", "md")
MOST_JSON = 100_000
"""Points that JSON or Markdown may hold."""

MOST_WORKERS = 1024

NOTHING = 3
"""Exit status where no point can be."""

OWN = ("pattern", "batch", "objective", "dataflow", "residency", "phase", "width", "input",
       "classes")  # fmt: skip
"""Options that are fields of a sweep file."""


def scans(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Read ``field=values`` of each scan.

    Raises
    ------
    BadParameter
        If one is none, or a field occurs twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name.strip() and equals and values.strip()):
            raise click.BadParameter(f"'{text}' is no scan. Allowed: {SCAN}")
        if name.strip() in found:
            raise click.BadParameter(f"'{name.strip()}' is scanned twice")
        found[name.strip()] = values.strip()
    return found


@click.command("sweep")
@click.argument("spec", required=False, type=click.Path(path_type=Path), metavar="[SPEC.yaml]")
@click.option(
    "--net",
    metavar="NAME",
    shell_complete=options.complete_names("nets"),
    help="Network, unless it is scanned.",
)
@click.option(
    "--hw",
    metavar="NAME",
    shell_complete=options.complete_names("hw"),
    help="Hardware, unless it is scanned.",
)
@click.option(
    "--scan",
    "scan",
    multiple=True,
    callback=scans,
    metavar="FIELD=VALUES",
    help="Values of a field: 64:1024:x2, 4:40:+4, 4:40:#10 (ten evenly) or dense,PS4_P4. Fields "
    "are those of the hardware file (levels.SRAM.capacity_kib) and network, hardware, pattern, "
    "batch, objective, dataflow, residency, phase, width, input, classes. FIELD+FIELD change "
    "together, with the same value. May be given several times: every combination is a point; rows "
    "stand by what is searched, then by energies, bandwidths and clocks.",
)
@options.pattern
@options.one_objective
@options.one_dataflow
@options.residency
@options.batch
@options.phase
@options.width
@options.side
@options.classes
@click.option(
    "--mappings",
    type=click.Choice(("ends", "kept")),
    default="ends",
    show_default=True,
    help="Where only energies, bandwidths or clocks change: search once in the middle (kept), or "
    "also at both ends of each field, each point taking the best found (ends).",
)
@click.option(
    "--check",
    "checked",
    type=click.IntRange(0, 10_000),
    default=3,
    show_default=True,
    metavar="COUNT",
    help="Search so many other points anew, and say how far the table is above.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, MOST_WORKERS),
    default=1,
    show_default=True,
    help="Processes. Their number changes no result.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Use the workers of a Dask scheduler, such as tcp://host:8786, instead.",
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where finished points are kept, to go on from after an interruption.  [default: a file "
    "of its own for each sweep, in the cache folder]",
)
@options.no_cache
@click.option("--format", "print_format", type=click.Choice(("table", "csv", "json", "md")),
              help="What to print.  [default: table]")  # fmt: skip
@options.output
@options.quiet
@click.pass_context
def command(
    context: click.Context,
    /,
    spec: Path | None,
    net: str | None,
    hw: str | None,
    scan: dict[str, str],
    mappings: str,
    checked: int,
    workers: int,
    scheduler: str | None,
    store: Path | None,
    print_format: str | None,
    output: Path | None,
    *,
    no_cache: bool,
    quiet: bool,
    **own: Any,
) -> None:
    """Cost of many designs: any field of hardware, network and run, in every combination.

    Sizes, patterns and batches are searched, each combination by itself. Energies, bandwidths and
    clocks are computed as arrays: 20,000 of them take about as long as the searches of their
    network alone. What is finished is kept: the same command goes on where it was interrupted, and
    computes nothing twice. The file SPEC.yaml says the same as the options.

    \b
    Example:
      energysim sweep --net digits_cnn --hw edge_tpu --scan pattern=dense,PS4_P4 --scan batch=1,8
      energysim sweep --net digits_cnn --hw edge_tpu --scan levels.SRAM.capacity_kib=4:64:x2
      energysim sweep --net vgg16 --hw edge_tpu --scan levels.DRAM.read_pj_per_bit=4:40:#10
      energysim sweep sweep.yaml --workers 2 -o table.csv
    """  # noqa: D301 - click's mark is a backspace
    from energysim.cache import Cache, folder
    from energysim.cli import render
    from energysim.sweeps import swept

    target = options.target(output, print_format)
    if target.form not in FORMS:
        raise click.UsageError(f"sweep gives no {target.form}; choose one of {', '.join(FORMS)}")
    if scheduler is not None and workers > 1:
        raise click.UsageError("--workers are processes here; with --scheduler its own are used")
    plan = _planned(context, spec, net, hw, scan, mappings, own, quiet=quiet)
    if target.form in ("json", "md") and plan.points > MOST_JSON:
        raise click.UsageError(
            f"{plan.points:,} points are too many for {target.form}; write .csv or .parquet"
        )
    cache = None if no_cache else Cache(folder())
    with _progress(plan, visible=not quiet) as tell:
        found = swept(
            plan,
            store or _own_store(plan),
            cache=cache,
            workers=workers,
            scheduler=scheduler,
            checked=checked,
            tell=tell,
        )
    _write(found, target)
    failed = _failed(found)
    if not quiet:
        if target.path is not None:
            render.say(f"wrote {target.path} ({target.form}, {plan.points:,} rows)")
        for line in _notes(found, failed):
            render.say(line)
    if sum(failed.values()) == plan.points:
        context.exit(NOTHING)


def _failed(found: Sweep) -> dict[str, int]:
    """Points that can't be, by the reason."""
    plan, failed = found.plan, dict[str, int]()
    for number in range(plan.blocks):
        block = found.store.get(number)
        if block.note:
            failed[block.note] = failed.get(block.note, 0) + block.missing
    return failed


def _planned(
    context: click.Context,
    spec: Path | None,
    net: str | None,
    hw: str | None,
    scan: Mapping[str, str],
    mappings: str,
    own: dict[str, Any],
    *,
    quiet: bool,
) -> Plan:
    """The sweep of a file, or of the options.

    Raises
    ------
    UsageError
        If the options don't go together.
    InputErrors
        If something is wrong with the sweep.
    """
    from energysim.sweeps import load_plan, plan_of

    if len(own["objectives"]) > 1:
        raise click.UsageError("sweep takes one objective; 'energysim run' trades two")
    own["objective"], own["input"] = own.pop("objectives")[0], own.pop("side")
    if spec is not None:
        _refuse_options(context, spec)
        with _checking(visible=not quiet):
            return load_plan(spec)
    if not scan:
        raise click.UsageError(f"nothing is varied: give --scan {SCAN}, or a SPEC.yaml")
    with _checking(visible=not quiet):
        return plan_of(_spec(context, net, hw, scan, mappings, own))


def _refuse_options(context: click.Context, spec: Path) -> None:
    """Refuse options that the file says.

    Raises
    ------
    UsageError
        If one was given.
    """
    given = click.core.ParameterSource.COMMANDLINE
    names = {"net": "net", "hw": "hw", "scan": "scan", "objectives": "objective", "side": "input",
             "mappings": "mappings"} | {name: name for name in OWN}  # fmt: skip
    for name, word in names.items():
        if context.get_parameter_source(name) is given:
            raise click.UsageError(f"--{word} and {spec}: say it in the file")


def _spec(
    context: click.Context,
    net: str | None,
    hw: str | None,
    scan: Mapping[str, str],
    mappings: str,
    own: dict[str, Any],
) -> Any:
    """The options as a sweep file would say them: those that were given."""
    from energysim.sweeps import SweepSpec
    from energysim.yamlio import validated

    given = click.core.ParameterSource.COMMANDLINE
    words = {"objective": "objectives", "input": "side"}
    own = {
        name: value
        for name, value in own.items()
        if context.get_parameter_source(words.get(name, name)) is given
    }
    named = {"network": net, "hardware": hw, "scan": dict(scan), "mappings": mappings}
    return validated(named | own, SweepSpec, name="sweep")


def _own_store(plan: Plan) -> Path:
    """A file in the cache folder that is named after all that decides the result.

    Raises
    ------
    InputError
        If it can't be made.
    """
    from energysim.cache import SWEEPS, folder, key_of
    from energysim.errors import InputError
    from energysim.sweeps import identity

    path = folder() / SWEEPS / f"{key_of(identity(plan))[:32]}.sqlite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"can't be made: {error.strerror}. Name a file with --store", where=str(path.parent)
        ) from None
    return path


@contextmanager
def _checking(*, visible: bool) -> Iterator[None]:
    """A word on stderr while every value is tried: thousands take seconds."""
    if not visible or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status("checking the values"):
        yield


@contextmanager
def _progress(plan: Plan, *, visible: bool) -> Iterator[Tell | None]:
    """A bar of points on stderr, with their rate and the time left; nothing where no one looks."""
    if not visible or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} points"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("points", total=plan.points, rate="")

        def tell(points: int) -> None:
            bar.advance(task, points)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:,.0f} points/s" if speed else "")

        yield tell


# -- what is shown ---------------------------------------------------------------------------------


def _write(found: Sweep, target: options.Target) -> None:
    from energysim.cli import render

    if target.path is not None and target.form in ("csv", "parquet"):
        (found.to_csv if target.form == "csv" else found.to_parquet)(target.path)
    elif target.form == "csv":
        for number, each in enumerate(found.frames()):
            sys.stdout.write(each.to_csv(index=False, header=number == 0, lineterminator="\n"))
    elif target.form == "json":
        records = [
            {name: _plain(value) for name, value in row.items()}
            for row in found.table.to_dict("records")
        ]
        data = {"sweep": found.plan.described(), "points": records}
        render.print_text(render.as_json(data), target)
    else:
        render.print_text(render.grid_text(_grid(found), target), target)


def _plain(value: Any) -> Any:
    """Nothing in place of what is no number."""
    import pandas as pd

    if isinstance(value, str | bool):
        return value
    return None if pd.isna(value) else value


def _grid(found: Sweep) -> Any:
    """All points, or the best where there are many."""
    from energysim.cli.render import Grid

    table, plan = found.table, found.plan
    objectives = {axis.name for axis in plan.axes} & {"objective"}
    by = {"latency": "time_ms", "dram": "dram_bytes"}.get(plan.spec.objective, "energy_mj")
    words = "points"
    if len(table) > SHOWN:
        best = table.dropna(subset=[by]).nsmallest(BEST, by)
        words = f"points, the {len(best)} with the least {by.partition('_')[0]}"
        table = best if len(best) else table.head(BEST)
    scanned = {name for axis in plan.axes for name in axis.fields}
    what = [
        str(getattr(plan.spec, name)) for name in ("network", "hardware") if name not in scanned
    ]
    batch = [] if "batch" in scanned else [f"batch {plan.spec.batch}"]
    objective = [] if objectives else [f"objective {plan.spec.objective}"]
    title = " · ".join([" on ".join(what) or "sweep", *batch, *objective,
                        f"{plan.points:,} {words}"])  # fmt: skip
    columns = [*_axis_columns(plan, table), *_figure_columns(table)]
    return Grid(tuple(columns), title)


def _axis_columns(plan: Plan, table: pd.DataFrame) -> Iterator[Column]:
    from energysim.cli.render import Column

    for axis in plan.axes:
        cells = [word(value) for value in table[axis.name]]
        right = not any(isinstance(value, str | bool) for value in axis.values)
        name = "+".join(part.removeprefix("levels.") for part in axis.fields)
        yield Column(name, cells, right=right, narrow="wrap")


def word(value: object) -> str:
    """Write one value of a field."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _figure_columns(table: pd.DataFrame) -> Iterator[Column]:
    from energysim.cli.render import Column
    from energysim.units import BYTES, COUNTS, NANOSECONDS, PICOJOULES, heading, number, unit_for

    scaled = (
        ("energy", table["energy_mj"] * 1e9, PICOJOULES),
        ("time", table["time_ms"] * 1e6, NANOSECONDS),
        ("cycles", table["cycles"].astype("float64"), COUNTS),
        ("DRAM", table["dram_bytes"], BYTES),
        ("SRAM", table["sram_bytes"], BYTES),
        ("util. [%]", table["utilization"] * 100, ()),
    )
    for name, values, units in scaled:
        given = [None if isnan(value) else float(value) for value in values]
        known = [value for value in given if value is not None]
        factor, unit = unit_for(known, units) if units else (1, "")
        cells = ["-" if value is None else number(value, factor) for value in given]
        yield Column(heading(name, unit) if units else name, cells)


def _notes(found: Sweep, failed: Mapping[str, int]) -> Iterator[str]:
    """What a reader of the table should know."""
    plan = found.plan
    for name in plan.fixed_energies():
        yield (
            f"energies of {name} are those of its file at every size; leave them out there, with a"
            " technology, to have them looked up"
        )
    for note, many in failed.items():
        yield f"{many:,} points can't be: {note}"
    if plan.numbers > 1:
        anchors = len(plan.anchors())
        yield (
            f"mappings were sought at {anchors} of {plan.numbers:,} combinations of energies,"
            f" bandwidths and clocks, for each of {plan.designs:,} designs"
        )
    if found.check is not None and found.check.points:
        yield (
            f"{found.check.points} other points searched anew: the table is at most"
            f" {found.check.worst:.2%} above the best mappings there"
        )
