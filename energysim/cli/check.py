"""``energysim check``: everything that is wrong with files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from energysim.cli import locate, options
from energysim.errors import EnergysimError, InputError, InputErrors

if TYPE_CHECKING:
    from energysim.network import Network

KINDS = ("nets", "hw", "mapping")
EXIT_INPUT = EnergysimError.exit_code


@click.command("check")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="[nets|hw|mapping] FILE...",
    shell_complete=options.complete_names("nets", "hw"),
)
@click.pass_context
def command(ctx: click.Context, files: tuple[str, ...]) -> None:
    """Find every mistake in files, with its line and column.

    A file is checked as what its fields say it is, or as what stands before the files.

    \b
    Example:
      energysim check vgg16_ps edge_tpu
      energysim check hw edge_tpu
    """  # noqa: D301 - click's mark is a backspace
    kind = files[0] if files[0] in KINDS and not Path(files[0]).is_file() else None
    names = files[1:] if kind else files
    if not names:
        raise click.UsageError(f"Which files? Give at least one after '{kind}'.")
    count = 0
    for name in names:
        try:
            click.echo(f"{name}: ok {_check(name, kind)}")
        except InputErrors as error:
            click.echo("\n".join(error.problems))
            count += len(error.problems)
        except InputError as error:
            click.echo(str(error))
            count += 1
    if count:
        click.echo(f"{count} error{'s' * (count != 1)}")
        ctx.exit(EXIT_INPUT)


def _check(name: str, kind: str | None) -> str:
    """Say what is in a file that is in order."""
    from energysim import catalog
    from energysim.hardware import Hardware
    from energysim.mapper.dataflows import get_dataflow
    from energysim.mapping import MappingFile
    from energysim.yamlio import load_model

    path = locate.any_file(name, kind)
    kind = kind or locate.kind_of(path)
    if kind == "hw":
        chip, source = load_model(path, Hardware)
        try:
            get_dataflow(chip.dataflow)
        except InputError as error:
            raise InputErrors([source.problem(("dataflow",), str(error))]) from None
        return f"(hardware, {len(chip.levels)} levels)"
    if kind == "nets":
        return _network(catalog.load_network(locate.as_path(path)))
    return f"(mapping, {len(load_model(path, MappingFile)[0].layers)} layers)"


def _network(network: Network) -> str:
    """Say how many layers there are, and what each pattern of theirs covers."""
    from energysim.cli.describe import coverage_line

    patterns = {
        layer.mask.pattern: None
        for layer in network.layers
        if layer.stores_weights and layer.pattern != "dense" and not layer.live
    }
    told = [line for each in patterns if (line := coverage_line(each))]
    return "\n  ".join([f"(network, {len(network.layers)} layers)", *told])
