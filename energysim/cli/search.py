"""``energysim search``: designs that no other beats, by more than one objective."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from energysim.cli import options
from energysim.cli.options import SCAN
from energysim.cli.sweep import scans, word
from energysim.sparsity import PATTERNS

if TYPE_CHECKING:
    from energysim.cli.render import Column, Grid
    from energysim.studies import Study

MOST_TRIALS = 1_000_000
SHOWN = 40
"""Designs of the front that the table shows."""


@click.command("search")
@options.network
@options.hardware
@click.option(
    "--vary",
    multiple=True,
    callback=scans,
    metavar="FIELD=VALUES",
    help="Values that a field of the hardware (levels.SRAM.capacity_kib=64:4096:x2), or batch, "
    "dataflow, pattern, residency may take, as --scan of 'sweep'. May be given several times.",
)
@click.option(
    "--layer-patterns",
    callback=options.names_given,
    metavar="NAME,NAME...",
    shell_complete=options.complete_words(PATTERNS),
    help="Patterns from which each layer that one covers chooses its own.",
)
@click.option(
    "--goals",
    default="energy,on_chip",
    show_default=True,
    callback=options.names_given,
    metavar="NAME,NAME...",
    help="What is made small: energy, latency, dram, edp (of an image), on_chip (all memory on "
    "chip), elements (of the array); and large: live_weights, the share that patterns leave.",
)
@click.option(
    "--trials",
    type=click.IntRange(1, MOST_TRIALS),
    default=100,
    show_default=True,
    help="Designs to try in all.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="The same seed proposes the same designs.")  # fmt: skip
@click.option(
    "--sampler",
    type=click.Choice(("nsga2", "tpe", "random")),
    default="nsga2",
    show_default=True,
    help="Who proposes designs; all but chance begin with each pattern on all layers.",
)
@click.option(
    "--study",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the study in this file, and go on from there.  [default: keep nothing]",
)
@options.width
@options.side
@options.classes
@options.batch
@options.one_objective
@options.one_dataflow
@options.residency
@options.no_cache
@options.print_format
@options.output
@options.quiet
def command(
    net: str,
    hw: str,
    vary: dict[str, str],
    layer_patterns: Sequence[str],
    goals: Sequence[str],
    trials: int,
    seed: int,
    sampler: str,
    path: Path | None,
    width: float,
    side: int | None,
    classes: int | None,
    print_format: str | None,
    output: Path | None,
    *,
    no_cache: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Search for designs that no other beats, by several goals at once.

    Optuna (pip install 'energysim[search]') proposes hardware, and a pattern for each layer; every
    design is run with its best mappings. The table shows those that no other tried one beats; a file
    (-o) gets all. With --study the same command goes on where it was interrupted, and more --trials
    go on from there.

    \b
    Example:
      energysim search --net digits_cnn --hw edge_tpu --vary levels.SRAM.capacity_kib=1:64:x2 --trials 10
      energysim search --net digits_cnn --hw edge_tpu --layer-patterns dense,PS4_P4,PS1_P9 --goals energy,live_weights --trials 20 --study study.log -o trials.csv
    """  # noqa: D301, E501 - click's mark is a backspace
    from energysim.cache import Cache, folder
    from energysim.catalog import load_hardware, load_network
    from energysim.cli import render
    from energysim.errors import DoesNotFitError
    from energysim.network import Scale
    from energysim.studies import Space, study
    from energysim.sweeps.axes import Axis

    written = [end for end, form in options.FILE_FORMATS.items() if form in options.FORMATS]
    target = options.target(output, print_format, written)
    if target.form not in options.FORMATS:
        raise click.UsageError(
            f"search gives no {target.form}; choose one of {', '.join(options.FORMATS)}"
        )
    objectives = settings.pop("objectives")
    if len(objectives) > 1:
        raise click.UsageError("mappings take one objective; --goals takes several")
    if settings["dataflow"] == "all":
        raise click.UsageError("mappings have one dataflow; --vary dataflow=... takes several")
    if not vary and not layer_patterns:
        raise click.UsageError(f"nothing is varied: give --vary {SCAN}, or --layer-patterns")
    space = Space(
        load_network(net, scale=Scale(width, side, classes)),
        load_hardware(hw),
        tuple(Axis.read(name, values) for name, values in vary.items()),
        tuple(layer_patterns),
        settings | {"objective": objectives[0]},
    )
    with _progress(trials, visible=not quiet) as tell:
        found = study(
            space,
            goals,
            trials=trials,
            seed=seed,
            sampler=sampler,
            path=path,
            cache=None if no_cache else Cache(folder()),
            tell=tell,
        )
    render.print_text(_text(found, target), target)
    notes = [each.note or "it was interrupted" for each in found.trials if each.values is None]
    if not found.front:
        raise DoesNotFitError(f"none of {len(notes)} designs can be; the first: {notes[0]}")
    if not quiet:
        render.say(
            f"{_designs(found.front)} on the front, of {len(found.trials)} tried among"
            f" {space.size:,}"
            + (f"; {len(notes)} can't be, the first: {notes[0]}" if notes else "")
        )


def _designs(front: Sequence[Any]) -> str:
    return f"{len(front)} design{'s' * (len(front) != 1)}"


@contextmanager
def _progress(trials: int, *, visible: bool) -> Iterator[Any]:
    if not visible or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        BarColumn(), MofNCompleteColumn(), TextColumn("designs"), TimeRemainingColumn(compact=True),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task("designs", total=trials)
        yield lambda done: bar.update(task, completed=done)


def _text(found: Study, target: options.Target) -> str:
    from energysim.cli import render
    from energysim.version import VERSION

    if target.form == "csv":
        return render.as_csv(found.rows())
    if target.form == "json":
        about = found.space.described() | {
            "energysim": VERSION,
            "goals": [goal.name for goal in found.goals],
        }
        return render.as_json({"search": about, "trials": found.rows()})
    return render.grid_text(_grid(found), target)


def _grid(found: Study) -> Grid:
    from energysim.cli.render import Column, Grid

    front = found.front[:SHOWN]
    words = [found.space.network.name, found.space.hardware.name]
    goals = ", ".join(goal.name for goal in found.goals)
    more = f", the first {SHOWN} of" if len(found.front) > SHOWN else ""
    columns: list[Column] = [Column("trial", [str(each.number) for each in front])]
    for name, values in found.space.choices.items():
        right = not any(isinstance(value, str | bool) for value in values)
        cells = [word(each.chosen[name]) for each in front]
        heading = "+".join(part.removeprefix("levels.") for part in name.split("+"))
        columns.append(Column(heading, cells, right=right, narrow="wrap"))
    columns += _goal_columns(found, front)
    return Grid(
        tuple(columns), f"{' on '.join(words)} · {goals} · front{more} {_designs(found.front)}"
    )


def _goal_columns(found: Study, front: Sequence[Any]) -> Iterator[Column]:
    from energysim.cli.render import Column
    from energysim.units import BYTES, NANOSECONDS, PICOJOULES, heading, number, unit_for

    units: dict[str, tuple[Any, float]] = {
        "energy": (PICOJOULES, 1e9),
        "latency": (NANOSECONDS, 1e6),
        "dram": (BYTES, 1.0),
    }
    for place, goal in enumerate(found.goals):
        values = [each.values[place] for each in front]
        if goal.name in units:
            own, factor = units[goal.name]
            scaled = [value * factor for value in values]
            scale, unit = unit_for(scaled, own)
            yield Column(heading(goal.name, unit), [number(each, scale) for each in scaled])
        else:
            unit = {"kib": "KiB", "mj_ms": "mJ ms"}.get(goal.unit, "")
            name = f"{goal.name} [{unit}]" if unit else goal.name
            yield Column(name, [f"{value:.4g}" for value in values])
