"""``energysim cache``: the mappings and points of sweeps found before."""

from __future__ import annotations

import click


@click.group("cache")
def command() -> None:
    """Mappings that earlier runs have found, and points of sweeps, so as not to seek them again.

    They are kept by content: a change of any number that matters makes a new entry. The folder is
    that of ENERGYSIM_CACHE, or the system's place for caches.

    \b
    Example:
      energysim cache show
      energysim cache clear
    """  # noqa: D301 - click's mark is a backspace


@command.command("show")
def show() -> None:
    """Where the cache is, and how large.

    \b
    Example:
      energysim cache show
    """  # noqa: D301
    from energysim.cache import Cache, folder

    many, size = Cache(folder()).usage()
    click.echo(f"{folder()}: {many:,} entries, {size / 1e6:.2f} MB")


@command.command("clear")
def clear() -> None:
    """Remove all entries, and nothing else in that folder.

    \b
    Example:
      energysim cache clear
    """  # noqa: D301
    from energysim.cache import Cache, folder

    many, size = Cache(folder()).clear()
    click.echo(f"removed {many:,} entries, {size / 1e6:.2f} MB, from {folder()}")
