"""``energysim validate``: our numbers beside those of chips, vendors and other tools."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from energysim.cli import options

if TYPE_CHECKING:
    from energysim.cli.render import Column, Grid
    from energysim.validation import Study

EXIT_OFF = 1
"""A number left its band."""


def _complete(_ctx: click.Context, _param: click.Parameter, text: str) -> list[CompletionItem]:
    from energysim.validation import studies

    return [CompletionItem(each.name) for each in studies() if each.name.startswith(text)]


@click.command("validate")
@click.argument("names", nargs=-1, metavar="[STUDY...]", shell_complete=_complete)
@click.option(
    "--plot",
    "picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw predicted against published numbers (.png, .svg or .pdf).",
)
@options.print_format
@options.output
@click.option("-v", "--verbose", is_flag=True, help="Every number, and why some differ.")
@options.quiet
@click.pass_context
def command(
    ctx: click.Context,
    names: tuple[str, ...],
    picture: Path | None,
    print_format: str | None,
    output: Path | None,
    *,
    verbose: bool,
    quiet: bool,
) -> None:
    """Compare what we compute with what chips, vendors and other tools say.

    Each number has a band in which ours must be; the table shows the one that is furthest off of
    each kind. Exit status 1 if a number left its band.

    \b
    Example:
      energysim validate eyeriss_alexnet -v
      energysim validate scalesim eyeriss_vgg16 --plot validation.png
      energysim validate scalesim -o validation.csv
    """  # noqa: D301 - click's mark is a backspace
    from energysim.cli import render
    from energysim.validation import studies

    target = options.target(output, print_format)
    if target.form not in options.FORMATS:
        allowed = ", ".join(options.FORMATS)
        raise click.UsageError(f"validate gives no {target.form}; choose one of {allowed}")
    if picture is not None:
        from energysim import plot

        plot.check_form(picture)
    asked = studies(names)
    with render.progress(visible=not quiet) as tell:
        for done, study in enumerate(asked):
            if tell is not None:
                tell(done, len(asked), study.name)
            _ = study.checks
    if picture is not None:
        plot.save(plot.validation(asked), picture)
    linked = None
    if picture is not None:
        linked = Path(
            os.path.relpath(picture, target.path.parent if target.path else ".")
        ).as_posix()
    render.print_text(_text(asked, target, linked, verbose=verbose), target)
    if not quiet and picture is not None:
        render.say(f"wrote {picture}")
    if any(study.failed for study in asked):
        ctx.exit(EXIT_OFF)


def _text(
    studies: Sequence[Study], target: options.Target, picture: str | None, *, verbose: bool
) -> str:
    from energysim.cli import render
    from energysim.validation import report
    from energysim.version import VERSION

    if target.form == "csv":
        return render.as_csv(report.records(studies))
    if target.form == "json":
        return render.as_json({"energysim": VERSION, "checks": report.records(studies)})
    if target.form == "md":
        return report.page(studies, picture)
    terminal = target.form == "table" and target.path is None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else render.UNBOUNDED
    grid = _every(studies, width) if verbose else _short(studies, width)
    return render.grid_text(grid, target)


def _short(studies: Sequence[Study], width: int) -> Grid:
    """One row for each kind of number of a study: how many, and the one that is furthest off."""
    from energysim.cli.render import Column
    from energysim.validation import report

    rows = list(report.summaries(studies))
    worst = [row.worst for row in rows]
    columns = (
        Column("study", [row.study.name for row in rows], right=False),
        Column("quantity", [row.quantity for row in rows], right=False, narrow="wrap"),
        Column("checks", [str(len(row.checks)) for row in rows]),
        Column("mean", [report.difference(row.mean_difference).lstrip("+") for row in rows]),
        Column("worst", [report.difference(each.difference) for each in worst]),
        Column("at", [each.what for each in worst], right=False, narrow="cut"),
        Column("theirs", [report.amount(each.theirs, each.unit) for each in worst]),
        Column("ours", [report.amount(each.ours, each.unit) for each in worst]),
        Column("allowed", [each.allowed for each in worst]),
        Column("verdict", [str(row.verdict) for row in rows], right=False),
    )
    return _grid(studies, columns, ("theirs", "ours", "at", "checks", "mean"), width)


def _every(studies: Sequence[Study], width: int) -> Grid:
    """One row a number."""
    from energysim.cli.render import Column
    from energysim.validation import report

    rows = [(study, check) for study in studies for check in study.checks]
    checks = [check for _, check in rows]
    columns = (
        Column("study", [study.name for study, _ in rows], right=False),
        Column("what", [check.what for check in checks], right=False),
        Column("quantity", [check.quantity for check in checks], right=False),
        Column("theirs", [report.amount(check.theirs, check.unit) for check in checks]),
        Column("ours", [report.amount(check.ours, check.unit) for check in checks]),
        Column("difference", [report.difference(check.difference) for check in checks]),
        Column("allowed", [check.allowed for check in checks]),
        Column("verdict", [str(check.verdict) for check in checks], right=False),
        Column("why", [check.reason for check in checks], right=False, narrow="wrap"),
    )
    return _grid(studies, columns, ("why", "allowed", "theirs", "study", "ours"), width)


def _grid(
    studies: Sequence[Study], columns: Sequence[Column], dispensable: Sequence[str], width: int
) -> Grid:
    """A table without the columns that there is no room for, the most dispensable first."""
    from energysim.cli.render import Grid
    from energysim.validation import report

    kept = list(columns)
    for name in dispensable:
        if sum(2 + max(map(len, (each.heading, *each.cells))) for each in kept) > width:
            kept = [each for each in kept if each.heading != name]
    footer = tuple(f"{study.name}: {study.source}" for study in studies)
    return Grid(tuple(kept), report.verdict_words(studies), footer, blank_repeats=True)
