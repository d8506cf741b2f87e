"""``energysim pareto``: accuracy against what it costs, and which candidates no other beats."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from energysim.cli import options
from energysim.sparsity import PATTERNS
from energysim.units import (
    BYTES,
    COUNTS,
    NANOSECONDS,
    PICOJOULES,
    heading,
    number,
    percent,
    si,
    unit_for,
)

if TYPE_CHECKING:
    from energysim.cli.render import Column, Grid
    from energysim.pareto import ParetoTable, Point
    from energysim.units import Unit

PICTURES = (".png", ".svg", ".pdf")
"""What a picture can be written as."""

TABLES = tuple(end for end, form in options.FILE_FORMATS.items() if form in options.FORMATS)
"""What a table can be written to."""

QUANTITIES = ("energy", "latency", "dram", "parameters", "training-energy")
"""What accuracy can be set against; as the library has them, which takes long to import."""

BASE_UNITS: dict[str, tuple[float, Sequence[Unit]]] = {
    "energy_mj": (1e9, PICOJOULES),
    "training_energy_mj": (1e9, PICOJOULES),
    "time_ms": (1e6, NANOSECONDS),
    "dram_bytes": (1, BYTES),
    "parameters": (1, COUNTS),
}
"""By column of a file: the smallest units in its own, and the units that a table may take."""


def _reference(
    _ctx: click.Context, _param: click.Parameter, text: str | None
) -> tuple[float, float] | None:
    """Read a cost and an accuracy with a comma between."""
    if text is None:
        return None
    try:
        cost, accuracy = map(float, text.split(","))
    except ValueError:
        cost = accuracy = math.nan
    if not (math.isfinite(cost) and math.isfinite(accuracy)):
        raise click.BadParameter(f"'{text}' is no cost and accuracy, such as 1.5,85")
    return cost, accuracy


@click.command("pareto")
@click.option(
    "--net",
    "--nets",
    "nets",
    callback=options.names_given,
    metavar="NAME,...",
    shell_complete=options.complete_names("nets"),
    help="Networks: names ('energysim list nets', with -x0.25, -64px, -c100 behind it for another "
    "width, image or number of classes) or files.  [default: all that have an accuracy]",
)
@options.hardware
@click.option(
    "--patterns",
    callback=options.names_given,
    metavar="all|NAME,...",
    shell_complete=options.complete_words(("all", *PATTERNS)),
    help="Patterns of sparse kernels: names ('energysim list patterns'), N:M, or all of the papers."
    "  [default: all that have an accuracy]",
)
@click.option(
    "--accuracy",
    "source",
    default="published",
    show_default=True,
    metavar="SOURCE",
    help="published (the source paper's), a folder of runs of 'energysim train', or a CSV with "
    "columns network, pattern, accuracy_percent and, if known, std_percent.",
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="Data set of the accuracies, where there are several.  [default of published: CIFAR-10]",
)
@click.option(
    "--metric",
    type=click.Choice(("top1", "top5")),
    help="Which accuracy; the two are never put beside each other.  [default: what most have]",
)
@click.option(
    "--x",
    "quantity",
    type=click.Choice(QUANTITIES),
    default="energy",
    show_default=True,
    help="What accuracy costs, for one image.",
)
@options.one_objective
@options.one_dataflow
@options.residency
@click.option(
    "--batch",
    type=click.IntRange(1, options.MOST_IMAGES),
    default=1,
    show_default=True,
    help="Images processed together; costs are for one of them.",
)
@click.option(
    "--hypervolume",
    "reference",
    callback=_reference,
    metavar="COST,ACCURACY",
    help="Say the area that the front dominates, as far as a cost (mJ, ms, bytes or parameters, as "
    "in files) and an accuracy (%) that are worse.",
)
@options.no_cache
@options.print_format
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Draw the front ({', '.join(PICTURES)}; the table goes to stdout), or write the table "
    "(.csv, .json, .md).",
)
@click.option(
    "--width",
    "width_in",
    type=click.FloatRange(3.0, 40.0),
    default=7.0,
    show_default=True,
    metavar="INCHES",
    help="Of the picture: 3.5 is a column of a paper, 7 a page.",
)
@options.quiet
def command(
    nets: tuple[str, ...],
    hw: str,
    patterns: tuple[str, ...],
    source: str,
    dataset: str | None,
    metric: str | None,
    reference: tuple[float, float] | None,
    print_format: str | None,
    output: Path | None,
    width_in: float,
    *,
    quiet: bool,
    no_cache: bool,
    **settings: Any,
) -> None:
    """Accuracy against energy: what no other network and pattern beats.

    Each network with each pattern is run with the best mappings of its own, and its cost for one
    image put beside its accuracy. Marked are the front (nothing is as good by both and better by
    one), its knee, and how probable it is that each is on the front, given the ranges of the
    hardware's constants, which all share, and how well accuracies are known.

    \b
    Example:
      energysim pareto --nets vgg16,resnet18 --patterns all --hw edge_tpu
      energysim pareto --nets vgg16,mobilenet_v2 --hw edge_tpu --x latency -o pareto.png
      energysim pareto --net resnet18 --hw edge_tpu --patterns dense,PS4_P4 --hypervolume 2,85
    """  # noqa: D301 - click's mark is a backspace
    from energysim.cache import Cache, folder
    from energysim.catalog import load_hardware
    from energysim.cli import render
    from energysim.compare import pattern_names
    from energysim.pareto import left_out_lines, load_accuracies, pareto

    is_picture = output is not None and output.suffix.lower() in PICTURES
    target = options.target(None if is_picture else output, print_format, (*TABLES, *PICTURES))
    objectives = settings.pop("objectives")
    _check_asked(target, objectives, settings["dataflow"])
    picture = output if is_picture else None
    if picture is not None:
        from energysim.plot.style import check_form

        check_form(picture)
    machine = load_hardware(hw)
    accuracies = load_accuracies(source, dataset=dataset, metric=metric)
    cache = None if no_cache else Cache(folder())
    with render.progress(visible=not quiet) as tell:
        found = pareto(
            accuracies,
            machine,
            networks=nets,
            patterns=pattern_names(patterns),
            objective=objectives[0],
            cache=cache,
            progress=tell,
            **settings,
        )
    render.print_text(text(found, target, reference), target)
    if picture is not None:
        from energysim.plot.pareto import pareto_figure
        from energysim.plot.style import save

        save(pareto_figure(found, width_in=width_in), picture)
    if quiet:
        return
    for path in (target.path, picture):
        if path is not None:
            render.say(
                f"wrote {path} ({len(found.points)} points, {len(found.front)} on the front)"
            )
    for line in left_out_lines(found.left_out):
        render.say(f"left out: {line}")
    for note in accuracies.notes:
        render.say(f"note: {note}")


def _check_asked(target: options.Target, objectives: Sequence[str], dataflow: str | None) -> None:
    """Refuse what can't be answered, before any work."""
    if target.form not in options.FORMATS:
        allowed = ", ".join((*options.FORMATS, *PICTURES))
        raise click.UsageError(f"pareto gives no {target.form}; choose one of {allowed}")
    if len(objectives) > 1:
        raise click.UsageError("pareto takes one objective; 'energysim run' trades two")
    if dataflow == "all":
        raise click.UsageError("pareto takes one dataflow; 'energysim run' compares them all")


# -- the table -------------------------------------------------------------------------------------


def text(
    found: ParetoTable, target: options.Target, reference: tuple[float, float] | None = None
) -> str:
    """Write a table of candidates in the form that is asked for."""
    from energysim.cli import render

    if target.form == "csv":
        return render.as_csv(found.rows())
    if target.form == "json":
        data = found.to_dict()
        if reference is not None:
            data["hypervolume"] = {"reference": list(reference),
                                   "value": found.hypervolume(*reference)}  # fmt: skip
        return render.as_json(data)
    return render.grid_text(grid(found, reference), target)


def grid(found: ParetoTable, reference: tuple[float, float] | None = None) -> Grid:
    """One row a candidate, by rising cost."""
    from energysim.cli.render import Column, Grid

    points = found.points
    columns = [
        Column("network", [each.candidate.base for each in points], right=False, narrow="cut"),
        Column("pattern", [each.candidate.network.pattern for each in points], right=False),
        *_cost_columns(found),
        Column(f"{found.accuracies.label} [%]", [f"{each.percent:.2f}" for each in points]),
    ]
    if any(each.error is not None for each in points):
        columns.append(Column("±", [_error(each) for each in points]))
    columns += [
        Column("front", [_mark(each) for each in points], right=False),
        Column("P(front) [%]", [percent(each.probability, 1) for each in points]),
    ]
    return Grid(tuple(columns), _title(found), tuple(_footer(found, reference)))


def _cost_columns(found: ParetoTable) -> Iterator[Column]:
    from energysim.cli.render import Column

    factor, units = BASE_UNITS[found.quantity.column]
    costs = [each.cost * factor for each in found.points]
    scale, unit = unit_for(costs, units)
    name = found.quantity.label.removesuffix(" per image")
    yield Column(heading(name, unit), [number(each, scale) for each in costs])
    if found.quantity.is_energy:
        for word in ("low", "high"):
            ends = [getattr(each, word) * factor for each in found.points]
            yield Column(word, [number(each, scale) for each in ends])


def _error(point: Point) -> str:
    return "-" if point.error is None else si(point.error, 2)


def _mark(point: Point) -> str:
    return "knee" if point.is_knee else "front" if point.on_front else ""


def _title(found: ParetoTable) -> str:
    result = found.points[0].result
    objective = () if result.objective == "energy" else (f"objective {result.objective}",)
    where = (found.accuracies.dataset,) if found.accuracies.dataset else ()
    words = (
        f"{found.accuracies.label} against {found.quantity.label} on {found.hardware.name}",
        *where,
        result.dataflow,
        f"batch {result.batch}",
        *objective,
    )
    return " · ".join(words)


def _footer(found: ParetoTable, reference: tuple[float, float] | None) -> Iterator[str]:
    from energysim.pareto.chance import DRAWS

    yield f"accuracy: {found.accuracies.source}{_what_errors_are(found)}"
    if found.quantity.is_energy:
        yield "low, high: every constant of the hardware at that end of its range"
    yield (
        "front: nothing is as good by both and better by one; P(front): in how many of "
        f"{DRAWS:,} draws of all that is uncertain"
    )
    if found.knee is None:
        yield f"the front has no knee: {_why_no_knee(found)}"
    if reference is not None:
        value = found.hypervolume(*reference)
        yield (
            f"hypervolume: {si(value)} {found.quantity.column} x percent, as far as "
            f"{reference[0]:g} and {reference[1]:g} %"
        )


def _why_no_knee(found: ParetoTable) -> str:
    if len({(point.cost, point.percent) for point in found.front}) <= 2:  # noqa: PLR2004 - its ends
        return "there is nothing between its ends"
    return "no point lies on the inner side of the line through its ends"


def _what_errors_are(found: ParetoTable) -> str:
    kinds = {
        "a standard deviation": any(p.candidate.accuracy.std is not None for p in found.points),
        "at most": any(p.candidate.accuracy.either_way is not None for p in found.points),
    }
    known = [word for word, is_there in kinds.items() if is_there]
    return f"; ± is {' or '.join(known)}" if known else ""
