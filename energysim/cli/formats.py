"""``energysim formats``: what the weights of a network take in every storage format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from energysim.cli import options
from energysim.sparsity import RUN_BITS
from energysim.units import BITS

if TYPE_CHECKING:
    from energysim.cli.render import Column, Grid
    from energysim.network import Network

Record = Mapping[str, Any]

WIDEST = 64
"""Widest weight [bit]."""

WIDEST_RUN = 32
"""Widest run of zeros [bit]."""


@click.command("formats")
@options.network
@options.pattern
@click.option(
    "--bits",
    type=click.IntRange(1, WIDEST),
    default=8,
    show_default=True,
    help="Width of a weight [bit].",
)
@click.option(
    "--run-bits",
    type=click.IntRange(1, WIDEST_RUN),
    default=RUN_BITS,
    show_default=True,
    help="Width of a run of zeros in rle [bit].",
)
@options.print_format
def command(
    net: str, pattern: str | None, bits: int, run_bits: int, print_format: str | None
) -> None:
    """Stored bits of every layer in every storage format, and the smallest.

    Bits of the stored values and of what says where they stand are apart. A format that can't hold
    the mask of a layer is left out there: periodic without a period, nm without N:M.

    \b
    Example:
      energysim formats --net vgg16_ps
      energysim formats --net vgg16 --pattern PS4_P4 --bits 16
      energysim formats --net vgg16 --pattern 1:4 --format csv
    """  # noqa: D301 - click's mark is a backspace
    from energysim import catalog
    from energysim.cli import render

    network = catalog.load_network(net, pattern=pattern)
    records = _records(network, bits, run_bits)
    if print_format == "json":
        text = render.as_json(records)
    elif print_format == "csv":
        text = render.as_csv(records)
    else:
        target = options.Target(print_format or "table", None)
        text = render.grid_text(_grid(network, records, bits, run_bits), target)
    click.echo(text, nl=False)


def _records(network: Network, bits: int, run_bits: int) -> list[Record]:
    """One record for each layer with weights and each format that can hold it."""
    from energysim.sparsity import all_formats, cheapest

    formats = all_formats()
    records: list[Record] = []
    for layer in network.layers:
        if not layer.stores_weights:
            continue
        mask = layer.mask
        smallest, _ = cheapest(mask, bits, formats, run_bits=run_bits)
        for name, each in formats.items():
            if not each.holds(mask):
                continue
            stored = each(mask, bits, run_bits=run_bits)
            records.append(
                {
                    "network": network.name,
                    "layer": layer.name,
                    "pattern": layer.pattern,
                    "weights": mask.total,
                    "live_weights": mask.nonzeros,
                    "format": name,
                    "values_bits": stored.values,
                    "metadata_bits": stored.metadata,
                    "total_bits": stored.total,
                    "cheapest": name == smallest,
                }
            )
    return records


def _grid(network: Network, records: Sequence[Record], bits: int, run_bits: int) -> Grid:
    """One row a layer, one column a format."""
    from energysim.cli.render import Column, Grid, numbers
    from energysim.units import COUNTS, number, times, unit_for

    rows: dict[str, dict[str, Record]] = {}
    for record in records:
        rows.setdefault(record["layer"], {})[record["format"]] = record
    some = [next(iter(row.values())) for row in rows.values()]
    weights = [each["weights"] for each in some]
    best = [record for record in records if record["cheapest"]]
    unit = unit_for([record["total_bits"] for record in records], BITS)
    names = dict.fromkeys(record["format"] for record in records)
    columns = [
        Column("layer", list(rows), "total", right=False, narrow="cut"),
        numbers("weights", weights, COUNTS),
        numbers("live", [each["live_weights"] for each in some], COUNTS, like=weights),
        *(_column(name, [row.get(name) for row in rows.values()], unit) for name in names),
        Column("smallest", [each["format"] for each in best], right=False),
    ]
    dense, least = (_total(each) for each in ([row["dense"] for row in rows.values()], best))
    size = f"{number(least, unit[0])} {unit[1]}, {times(least, dense)} dense"
    footer = (
        f"values + metadata; weights of {bits} bit, runs of {run_bits} bit",
        f"each layer in its smallest format: {size}",
    )
    return Grid(tuple(columns), f"{network.name} · stored weights", footer)


def _column(name: str, records: Sequence[Record | None], unit: tuple[float, str]) -> Column:
    """Bits of every layer in one format; a total only where it holds them all."""
    from energysim.cli.render import Column
    from energysim.units import heading, number

    def cell(values: int, metadata: int) -> str:
        return f"{number(values, unit[0])} + {number(metadata, unit[0])}"

    cells = [
        "-" if each is None else cell(each["values_bits"], each["metadata_bits"])
        for each in records
    ]
    held = [each for each in records if each is not None]
    total = "-"
    if len(held) == len(records):
        total = cell(*(sum(each[key] for each in held) for key in ("values_bits", "metadata_bits")))
    return Column(heading(name, unit[1]), cells, total)


def _total(records: Sequence[Record]) -> int:
    return sum(record["total_bits"] for record in records)
