"""``energysim report``: one page about a run that can be mailed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from energysim.cli import options
from energysim.errors import InputError, InputErrors

if TYPE_CHECKING:
    from energysim.network import Network
    from energysim.report import Report

SUFFIX = ".html"

_WORDS = f"{__name__}.words"
"""Under this the words of the command line are kept."""


class _Remembers(click.Command):
    """Keeps the words it was called with: the page shows them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_WORDS] = tuple(args)
        return super().parse_args(ctx, args)


def _page_path(_ctx: click.Context, _param: click.Parameter, path: Path) -> Path:
    """Take a path that the page can be written to.

    Raises
    ------
    BadParameter
        If its suffix is another, or it can't be written.
    """
    if path.suffix.lower() != SUFFIX:
        raise click.BadParameter(f"'{path}' is no {SUFFIX} file, which a report is")
    options.target(path, None)
    return path


@click.command("report", cls=_Remembers)
@options.network
@options.hardware
@options.pattern
@options.patterns
@options.one_objective
@options.one_dataflow
@options.together(options.width, options.side, options.classes)
@options.together(options.mapping, options.residency, options.batch)
@options.together(options.phase, options.recompute, options.epoch_images)
@options.together(options.weight_format, options.activations)
@options.together(options.perfect, options.uneven, options.budget, options.no_cache)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    callback=_page_path,
    metavar="FILE.html",
    help="Page to write.",
)
@options.quiet
@options.verbose
@click.pass_context
def command(
    context: click.Context,
    /,
    net: str,
    hw: str,
    output: Path,
    *,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> None:
    """One self-contained HTML page about a run: summary, pictures, tables, constants, mappings.

    The page needs no network and loads nothing: it can be mailed, printed and kept. A variant is
    compared with its dense network; several patterns get one table and a section each. Needs
    Jinja2: pip install 'energysim[report]'.

    \b
    Example:
      energysim report --net vgg16_ps --hw edge_tpu -o vgg16_ps.html
      energysim report --net digits_cnn --patterns dense,PS4_P4 --hw simba -o patterns.html
    """  # noqa: D301 - click's mark is a backspace
    from energysim.cli import render
    from energysim.files import write_atomically
    from energysim.report import check_extra, page

    check_extra()
    _check_asked(settings)
    if verbose:
        render.say_files(nets=net, hw=hw)
    with render.progress(visible=not quiet) as tell:
        settings["progress"] = tell
        made = _run(net, hw, settings, _words(context))
    text = page(made)
    write_atomically(output, text)
    if quiet:
        return
    render.say(f"wrote {output} ({len(text.encode()) / 1e3:,.0f} kB, "
               f"{', '.join(each.network for each in made.results)})")  # fmt: skip
    for note in dict.fromkeys(each.text for result in made.results for each in result.warnings):
        render.say(f"note: {note}")


def _words(context: click.Context) -> str:
    """The command line, to be typed again."""
    return shlex.join(["energysim", "report", *context.meta[_WORDS]])


def _check_asked(settings: dict[str, Any]) -> None:
    """Refuse what can't be answered, before any work."""
    if len(settings["objectives"]) > 1:
        raise click.UsageError("a report takes one objective; 'energysim run' trades two")
    if settings["dataflow"] == "all":
        raise click.UsageError("a report takes one dataflow; 'energysim run' compares them all")
    if settings["pattern"] and settings["patterns"]:
        raise click.UsageError("--pattern and --patterns say the same: give one of them")


def _run(net: str, hw: str, settings: dict[str, Any], words: str) -> Report:
    """Simulate all that the page is about."""
    from energysim.cache import Cache, folder
    from energysim.catalog import load_hardware, load_network
    from energysim.cli.run import dense_result, settings_from_files
    from energysim.network import Scale
    from energysim.report import Report
    from energysim.simulate import simulate

    scale = Scale(*(settings.pop(word) for word in ("width", "side", "classes")))
    pattern, patterns = settings.pop("pattern"), settings.pop("patterns")
    network, hardware = load_network(net, pattern=pattern, scale=scale), load_hardware(hw)
    networks = _variants(network, patterns) if patterns else [network]
    settings["objective"] = settings.pop("objectives")[0]
    settings["cache"] = None if settings.pop("no_cache") else Cache(folder())
    files = (settings.pop("mapping"), settings.pop("activations"))
    settings |= settings_from_files(network, *files)
    results = tuple(simulate(each, hardware, **settings) for each in networks)
    dense = next((each for each in results if each.network == network.dense().name), None)
    variant = next((each for each in networks if each.base is not None), None)
    if dense is None and variant is not None:
        return Report(results, dense_result(variant, hardware, settings), words)
    return Report(results, dense, words)


def _variants(network: Network, names: tuple[str, ...]) -> list[Network]:
    """The dense network with each of the patterns, what is the same once.

    Raises
    ------
    InputErrors
        There are no such patterns, or the network can't take them; with everything that is wrong.
    """
    from energysim.compare import pattern_names

    made: dict[str, Network] = {}
    problems: list[str] = []
    for name in pattern_names(names):
        try:
            variant = network.with_pattern(name)
        except InputErrors as error:
            problems += error.problems
        except InputError as error:
            problems.append(str(error))
        else:
            made.setdefault(variant.name, variant)
    if problems:
        raise InputErrors(problems)
    return list(made.values())
