"""``energysim run``: one network on one accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from energysim.cli import options, render


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
    """Cost of a network on an accelerator: energy, memory traffic, cycles of every layer.

    Every mapping of each layer that the dataflow allows is evaluated; the best one counts.
    Numbers go to stdout or to the file of -o, notes to stderr. JSON holds everything: layers,
    levels, mappings and all that is needed to repeat the run.

    \b
    Example:
      energysim run --net vgg16_ps --hw edge_tpu
      energysim run --net vgg16 --pattern PS4_P4 --hw eyeriss --levels
      energysim run --net resnet18 --hw edge_tpu --batch 8 -o resnet18.csv
    """
    from energysim.catalog import load_hardware, load_network
    from energysim.mapping import MappingFile
    from energysim.simulate import simulate
    from energysim.yamlio import load_model

    quiet, verbose, levels = (settings.pop(word) for word in ("quiet", "verbose", "levels"))
    target = options.target(output, print_format)
    if verbose:
        render.say_files(net, hw)
    network, hardware = load_network(net, pattern=pattern), load_hardware(hw)
    settings["residency"] = {"on": True, "off": False, None: None}[settings["residency"]]
    if mapping is not None:
        settings["mapping"], source = load_model(mapping, MappingFile)
        settings["where"] = source.where
    with render.progress(visible=not quiet) as tell:
        result = simulate(network, hardware, progress=tell, **settings)
    render.deliver(result, target, levels=levels, quiet=quiet, settings=settings)
