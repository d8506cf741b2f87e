"""``energysim run``: one network on one accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from energysim.cli import options, render
from energysim.errors import DoesNotFitError, EnergysimError

if TYPE_CHECKING:
    from energysim.cli.render import Grid
    from energysim.hardware import Hardware
    from energysim.network import Network
    from energysim.result import Result

_SWITCH = {"on": True, "off": False, None: None}


@click.command("run")
@options.run_options
def command(
    net: str,
    hw: str,
    pattern: str | None,
    mapping: Path | None,
    print_format: str | None,
    output: Path | None,
    **settings: Any,
) -> None:
    """Cost of a network on an accelerator, layer by layer.

    For each layer the best of all mappings is taken: tile sizes, loop orders, unrolling and what
    each memory holds, as far as the dataflow leaves them open. What was found is kept for the next
    run (see 'energysim cache').
    Numbers go to stdout or to the file of -o, notes to stderr. JSON holds everything: layers,
    levels, mappings and all that is needed to repeat the run.

    \b
    Example:
      energysim run --net vgg16_ps --hw edge_tpu
      energysim run --net vgg16 --pattern PS4_P4 --hw eyeriss --levels
      energysim run --net resnet18 --hw edge_tpu --batch 8 -o resnet18.csv
    """  # noqa: D301 - click's mark is a backspace
    from energysim.cache import Cache, folder
    from energysim.catalog import load_hardware, load_network
    from energysim.mapping import MappingFile
    from energysim.simulate import simulate
    from energysim.yamlio import load_model

    quiet, verbose, levels = (settings.pop(word) for word in ("quiet", "verbose", "levels"))
    layer = settings.pop("explain")
    target = options.target(output, print_format)
    if verbose:
        render.say_files(nets=net, hw=hw)
    network, hardware = load_network(net, pattern=pattern), load_hardware(hw)
    settings["residency"] = _SWITCH[settings["residency"]]
    settings["cache"] = None if settings.pop("no_cache") else Cache(folder())
    if mapping is not None:
        settings["mapping"], source = load_model(mapping, MappingFile)
        settings["where"] = source.where
    with render.progress(visible=not quiet) as tell:
        settings["progress"] = tell
        if settings["dataflow"] == "all":
            grid = compare_dataflows(network, hardware, settings)
            render.print_grid(grid, target)
            return
        result = simulate(network, hardware, **settings)
        dense = None
        if target.form in ("table", "md") and not levels and layer is None:
            dense = _dense(network, hardware, settings)
    if layer is not None:
        from energysim.cli.explain import explain

        render.print_text(explain(result, layer), target)
        return
    if verbose and not quiet:
        render.say(f"searched for {result.search.seconds:.2f} s")
    render.deliver(result, dense, target, levels=levels, quiet=quiet)


def compare_dataflows(network: Network, hardware: Hardware, settings: dict[str, Any]) -> Grid:
    """Run every dataflow; one row each."""
    from energysim.mapper.dataflows import CUSTOM, DATAFLOWS
    from energysim.simulate import simulate

    names = [name for name in DATAFLOWS if name != CUSTOM or hardware.dataflow == CUSTOM]
    found: dict[str, Result | EnergysimError] = {}
    for name in names:
        try:
            found[name] = simulate(network, hardware, **settings | {"dataflow": name})
        except DoesNotFitError as error:
            found[name] = error
    return render.dataflow_grid(network.name, hardware, found)


def _dense(
    network: Network, hardware: Hardware, settings: dict[str, Any]
) -> Result | EnergysimError | None:
    """Cost of the dense network that a variant is made of, or why there is none."""
    from energysim.simulate import simulate

    if network.base is None:
        return None
    try:
        return simulate(network.dense(), hardware, **settings | {"weight_format": "auto"})
    except EnergysimError as error:
        return error
