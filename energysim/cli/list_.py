"""``energysim list``: what there is to name."""

from __future__ import annotations

import click

from energysim.cli import options

KINDS = ("nets", "hw", "dataflows", "patterns")


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS), required=False)
@options.print_format
def command(kind: str | None, print_format: str | None) -> None:
    """Networks, hardware, dataflows and patterns by name.

    Networks and hardware are looked for in the current folder, in the folders of the environment
    variable ENERGYSIM_PATH, and among the files that come with the package.

    \b
    Example:
      energysim list
      energysim list nets
      energysim list hw --format json
    """  # noqa: D301 - click's mark is a backspace
    from energysim.cli import inventory, render

    if print_format == "csv" and kind is None:
        raise click.UsageError(f"CSV holds one table. Name one of: {', '.join(KINDS)}")
    found = {each: inventory.TABLES[each]() for each in ([kind] if kind else KINDS)}
    if print_format == "json":
        data = {each: table.records for each, table in found.items()}
        text = render.as_json(data[kind] if kind else data)
    elif print_format == "csv" and kind:
        text = render.as_csv(found[kind].records)
    else:
        target = options.Target(print_format or "table", None)
        text = "\n".join(render.grid_text(table.grid(), target) for table in found.values())
    click.echo(text, nl=False)
