"""``energysim plot``: pictures of what a run gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from energysim.cli import options
from energysim.errors import did_you_mean
from energysim.sparsity import PATTERNS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from energysim.plot import By, Costs
    from energysim.result import Result

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

WIDEST_IN = 40.0
"""Widest picture [inch]."""

NARROWEST_IN = 3.0
"""Narrowest picture that there is room for words in [inch]."""


OF_PICTURES = frozenset({"results", "width", "rows", "totals", "most", "output", "quiet"})
"""Options that say how something is drawn, not what is run."""


class _Kinds(click.Group):
    """Lists kinds in the order of this file, and names the nearest where one is mistyped."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in self.commands and not word.startswith("-") and not ctx.resilient_parsing:
            hint = did_you_mean(word, self.commands) or f" Kinds: {', '.join(self.commands)}"
            ctx.fail(f"no kind of picture named '{word}'.{hint}")
        return super().resolve_command(ctx, args)


@click.group("plot", cls=_Kinds)
def command() -> None:
    """Pictures of a run: energy, traffic, roofline, sensitivity, mapping, patterns, training.

    Written as .png, .svg or .pdf; the same input gives the same bytes. Colours are the same in all
    pictures, and can be told apart by people with colour blindness and in grey.

    \b
    Example:
      energysim plot energy --net vgg16_ps --hw edge_tpu -o energy.png
      energysim plot patterns -o patterns.svg
    """  # noqa: D301 - click's mark is a backspace


# -- options ---------------------------------------------------------------------------------------

_output = click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Picture to write: .png, .svg or .pdf.",
)
_width = click.option(
    "--width",
    type=click.FloatRange(NARROWEST_IN, WIDEST_IN),
    default=7.0,
    show_default=True,
    metavar="INCHES",
    help="Of the picture: 3.5 is a column of a paper, 7 a page.",
)
_rows = click.option(
    "--rows",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    metavar="COUNT",
    help="Most bars; more layers are put together by stage.",
)
_results = click.option(
    "--result",
    "results",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw what 'energysim run -o FILE.json' wrote, in place of a run; may be given several "
    "times.",
)
_one_result = click.option(
    "--result",
    "results",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw what 'energysim run -o FILE.json' wrote, in place of a run.",
)
_net = click.option(
    "--net",
    "net",
    metavar="NAME",
    shell_complete=options.complete_names("nets"),
    help="Network: a name ('energysim list nets') or a .yaml or .onnx file.",
)
_hw = click.option(
    "--hw",
    "hw",
    metavar="NAME",
    shell_complete=options.complete_names("hw"),
    help="Hardware: a name ('energysim list hw') or a .yaml file.",
)


_patterns = click.option(
    "--patterns",
    callback=options.names_given,
    metavar="NAME,NAME...",
    shell_complete=options.complete_words(PATTERNS),
    help="Patterns of sparse kernels to lay over a dense network, side by side; dense is the "
    "network itself.",
)

_how = options.together(
    options.one_objective,
    options.one_dataflow,
    options.mapping,
    options.residency,
    options.batch,
    options.phase,
    options.weight_format,
    options.activations,
    options.budget,
    options.no_cache,
)
"""How a run is made, as ``run`` has it."""


def _run_options(which: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """All options of a kind that shows runs; ``which`` says what patterns and results it takes."""
    return options.together(_net, _hw, which, _how, _width, _output, options.quiet)


_many = options.together(_patterns, _results, _rows)
_one = options.together(options.pattern, _one_result)


# -- what is drawn ---------------------------------------------------------------------------------


def _runs(settings: dict[str, Any]) -> list[Costs]:
    """Results that were saved, or those of a run with each pattern."""
    from energysim.plot import read_costs

    results = settings.pop("results", ())
    if results:
        _refuse_settings()
        return [read_costs(path) for path in dict.fromkeys(results)]
    if settings["net"] is None:
        raise click.UsageError("Missing option '--net' or '--result'.")
    return list(_simulated(settings))


def _refuse_settings() -> None:
    """Refuse what would change a run, beside results that are drawn as they are.

    Raises
    ------
    UsageError
        If any is given.
    """
    from click.core import ParameterSource

    context = click.get_current_context()
    for each in context.command.params:
        given = context.get_parameter_source(each.name or "") is ParameterSource.COMMANDLINE
        if given and each.name not in OF_PICTURES:
            raise click.UsageError(
                f"--result stands for a run: leave {each.opts[0]} out, or give --net and --hw"
            )


def _simulated(settings: dict[str, Any], layer: str | None = None) -> list[Result]:
    """Run a network with each pattern; one that lacks the layer is refused before."""
    from energysim.activations import load_activations
    from energysim.cache import Cache, folder
    from energysim.catalog import load_hardware, load_network
    from energysim.cli import render
    from energysim.mapping import MappingFile
    from energysim.network import check_layer
    from energysim.simulate import simulate
    from energysim.yamlio import load_model

    for name in ("net", "hw"):
        if settings[name] is None:
            raise click.UsageError(f"Missing option '--{name}'.")
    net, hardware = settings.pop("net"), load_hardware(settings.pop("hw"))
    one = settings.pop("pattern", None)
    patterns = settings.pop("patterns", ()) or (one,)
    networks = [load_network(net, pattern=each) for each in dict.fromkeys(patterns)]
    if layer is not None and settings["phase"] == "inference":
        check_layer(networks[0].name, networks[0].layers, layer, where="--layer")
    settings["objective"] = _single(settings.pop("objectives"))
    settings["cache"] = None if settings.pop("no_cache") else Cache(folder())
    mapping, densities = settings.pop("mapping"), settings.pop("activations")
    if mapping is not None:
        settings["mapping"], source = load_model(mapping, MappingFile)
        settings["where"] = source.where
    if settings["dataflow"] == "all":
        raise click.UsageError("a picture shows one dataflow; 'energysim run' compares them all")
    quiet = settings.pop("quiet")
    found = []
    with render.progress(visible=not quiet) as tell:
        for network in networks:
            if densities is not None:
                settings["activations"] = load_activations(densities, network)
            found.append(simulate(network, hardware, progress=tell, **settings))
    return found


def _single(objectives: tuple[str, ...]) -> str:
    """The one objective.

    Raises
    ------
    UsageError
        If there are two.
    """
    if len(objectives) > 1:
        raise click.UsageError("a picture shows one objective; 'energysim run' trades two")
    return objectives[0]


def _only(runs: list[Costs]) -> Costs:
    """The one result of a picture that shows one.

    Raises
    ------
    UsageError
        If there are several.
    """
    if len(runs) > 1:
        raise click.UsageError(f"this picture shows one result, got {len(runs)}")
    return runs[0]


def _written(output: Path, *, quiet: bool, draw: Callable[[], Figure]) -> None:
    """Draw and write a picture; what can't be written is refused before any work."""
    from energysim import plot
    from energysim.cli import render

    plot.check_form(output)
    plot.save(draw(), output)
    if not quiet:
        render.say(f"wrote {output}")


# -- kinds -----------------------------------------------------------------------------------------


def _energy(by: By, output: Path, width: float, rows: int, settings: dict[str, Any]) -> None:
    totals, quiet = settings.pop("totals"), settings["quiet"]

    def draw() -> Figure:
        from energysim.plot import energy_figure

        return energy_figure(_runs(settings), by=by, width=width, rows=rows, totals=totals)

    _written(output, quiet=quiet, draw=draw)


_totals = click.option("--totals", is_flag=True, help="One bar a run, all layers together.")


@command.command("energy")
@_run_options(options.together(_many, _totals))
def energy(output: Path, width: float, rows: int, **settings: Any) -> None:
    """Energy by memory level, a bar a layer.

    Several patterns or results stand side by side; more of them than there is room for have one bar
    each.

    \b
    Example:
      energysim plot energy --net vgg16_ps --hw edge_tpu -o energy.png
      energysim plot energy --net vgg16 --hw edge_tpu --patterns dense,PS4_P4 -o energy.svg
      energysim plot energy --net vgg16 --hw edge_tpu --patterns dense,PS4_P4 --totals -o energy.pdf
    """  # noqa: D301
    _energy("level", output, width, rows, settings)


@command.command("tensors")
@_run_options(options.together(_many, _totals))
def tensors(output: Path, width: float, rows: int, **settings: Any) -> None:
    """Energy by tensor: weight, input, output, compute.

    \b
    Example:
      energysim plot tensors --net vgg16_ps --hw edge_tpu -o tensors.png
    """  # noqa: D301
    _energy("tensor", output, width, rows, settings)


@command.command("traffic")
@_run_options(_many)
def traffic(output: Path, width: float, rows: int, **settings: Any) -> None:
    """DRAM traffic by tensor against its lower bound, a bar a layer.

    \b
    Example:
      energysim plot traffic --net digits_cnn --hw eyeriss -o traffic.png
    """  # noqa: D301

    def draw() -> Figure:
        from energysim.plot import traffic_figure

        return traffic_figure(_runs(settings), width=width, rows=rows)

    _written(output, quiet=settings["quiet"], draw=draw)


@command.command("roofline")
@_run_options(_one)
def roofline(output: Path, width: float, **settings: Any) -> None:
    """Speed of layers over MACs per byte, below the roofs of array and memories.

    Bytes are those of DRAM, and of the memory next to it. Layers that move none there stand at the
    right end.

    \b
    Example:
      energysim plot roofline --net vgg16_ps --hw edge_tpu -o roofline.png
    """  # noqa: D301

    def draw() -> Figure:
        from energysim.plot import roofline_figure

        return roofline_figure(_only(_runs(settings)), width=width)

    _written(output, quiet=settings["quiet"], draw=draw)


@command.command("tornado")
@_run_options(_one)
@click.option(
    "--most",
    type=click.IntRange(1),
    default=14,
    show_default=True,
    metavar="COUNT",
    help="Constants that are drawn, those that matter most.",
)
def tornado(output: Path, width: float, most: int, **settings: Any) -> None:
    """Total energy over the range of each constant, and with 10 % more and less.

    On the mappings of the run, as 'energysim run --uncertainty' has it.

    \b
    Example:
      energysim plot tornado --net vgg16_ps --hw edge_tpu -o tornado.png
    """  # noqa: D301

    def draw() -> Figure:
        from energysim.plot import tornado_figure

        return tornado_figure(_only(_runs(settings)), width=width, most=most)

    _written(output, quiet=settings["quiet"], draw=draw)


@command.command("patterns")
@click.option(
    "--patterns",
    "names",
    callback=options.names_given,
    metavar="all|NAME,...",
    shell_complete=options.complete_words(("all", *PATTERNS)),
    help="Patterns to draw: names, N:M, or supports spelled out.  [default: all of the papers]",
)
@_width
@_output
@options.quiet
def patterns(names: tuple[str, ...], output: Path, width: float, *, quiet: bool) -> None:
    """Supports of sparse kernels, slot by slot.

    \b
    Example:
      energysim plot patterns -o patterns.svg
      energysim plot patterns --patterns PS4_P4,2:4,5x5_0.6.12_2.22_F3 -o mine.png
    """  # noqa: D301

    def draw() -> Figure:
        from energysim.compare import pattern_names
        from energysim.plot import gallery_figure
        from energysim.sparsity import get_pattern

        words = pattern_names(names or ["all"])
        return gallery_figure([get_pattern(each) for each in words], width=width)

    _written(output, quiet=quiet, draw=draw)


@command.command("mapping")
@_run_options(
    options.together(
        options.pattern,
        click.option(
            "--layer", required=True, metavar="NAME", help="Layer whose loop nest is drawn."
        ),
    )
)
def mapping(output: Path, width: float, layer: str, **settings: Any) -> None:
    """Loop nest of one layer: levels, loops, tiles and room.

    What 'energysim run --explain LAYER' says in words.

    \b
    Example:
      energysim plot mapping --net vgg16_ps --hw edge_tpu --layer conv3_2 -o conv3_2.svg
    """  # noqa: D301

    def draw() -> Figure:
        from energysim.plot import mapping_figure

        return mapping_figure(_simulated(settings, layer=layer)[0], layer, width=width)

    _written(output, quiet=settings["quiet"], draw=draw)


@command.command("training")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_width
@_output
@options.quiet
def training(folder: Path, output: Path, width: float, *, quiet: bool) -> None:
    """Loss and accuracy over epochs, of the runs in FOLDER.

    FOLDER is that of 'energysim train --out', or of one run in it. Runs that differ in their seed
    only are one line, the mean, with a band from the least to the most. What is unfinished is left
    out.

    \b
    Example:
      energysim plot training runs -o training.png
    """  # noqa: D301

    def draw() -> Figure:
        from energysim.plot import read_curves, training_figure

        return training_figure(read_curves(folder), width=width, title=folder.resolve().name)

    _written(output, quiet=quiet, draw=draw)
