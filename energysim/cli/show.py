"""``energysim show``: what a name stands for, in full."""

from __future__ import annotations

import click

from energysim.catalog import Kind
from energysim.cli import options


@click.command("show")
@click.argument("name", shell_complete=options.complete_names("nets", "hw"))
@click.option("--kind", type=click.Choice(("nets", "hw")), help="Which, where both have the name.")
def command(name: str, kind: Kind | None) -> None:
    """A network, hardware or recipe of training in full; or what a pattern covers.

    What its file leaves out is filled in, and the layers of a variant are written out. The YAML
    text can be saved, changed and used as a file of its own.

    \b
    Example:
      energysim show edge_tpu
      energysim show vgg16_ps
      energysim show PSD4_P8
      energysim show paper
    """  # noqa: D301 - click's mark is a backspace
    from energysim import catalog
    from energysim.cli import describe, locate
    from energysim.yamlio import to_yaml

    pattern = None if kind else locate.pattern(name)
    if pattern is not None:
        click.echo(describe.pattern_yaml(pattern), nl=False)
        return
    recipe = None if kind else locate.recipe(name)
    if recipe is not None:
        click.echo(describe.recipe_yaml(name, recipe), nl=False)
        return
    kind, found = locate.named(name, kind)
    path = locate.as_path(found.path)
    if kind == "hw":
        text = to_yaml(catalog.load_hardware(path))
    else:
        text = describe.network_yaml(catalog.load_network(path))
    click.echo(f"# {found.path} ({found.origin})\n{text}", nl=False)
