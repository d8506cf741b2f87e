"""``energysim run --model``: a network by the closed form of others, as a second opinion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from energysim.cli import options, render
from energysim.model.systolic import systolic, systolic_array
from energysim.units import COUNTS, cycles_to_ms, times

if TYPE_CHECKING:
    from energysim.hardware import Hardware
    from energysim.model.yang2019 import LayerEnergy
    from energysim.network import Layer, Network

SCALE = frozenset({"width", "side", "classes"})
COMMON = SCALE | {"net", "pattern", "norm", "masks", "model", "print_format", "output", "quiet"}
USED = {
    "yang2019": COMMON | {"weight_format"},
    "systolic": COMMON | {"hw", "dataflow", "batch"},
}
"""Options of ``run`` that mean something to each model."""

WHY = {
    "yang2019": "has a machine and a mapping of its own",
    "systolic": "needs the array of the hardware and a dataflow, nothing else",
}

FORMS = ("table", "md", "csv", "json")


@dataclass(frozen=True, slots=True)
class Row:
    """One layer by the model of Yang et al. 2019, as it is and dense."""

    layer: Layer
    format: str
    """how its weights are stored"""
    energy: LayerEnergy
    dense: LayerEnergy


def rows_of(network: Network, weight_format: str = "auto") -> list[Row]:
    """Energy of every layer with weights for one image.

    Parameters
    ----------
    network : Network
    weight_format : str
        A storage format; ``auto`` takes the smallest of dense, periodic, csr and bitmap. Layers
        that a pattern leaves dense are stored dense.
    """
    from energysim.model.yang2019 import Machine, layer_energy
    from energysim.sparsity import cheapest

    bits, rows = Machine().word_bits, []
    for layer in network.layers:
        if not layer.has_weights:
            continue
        names = ("dense", "periodic", "csr", "bitmap") if weight_format == "auto" else ("dense",)
        if weight_format != "auto" and layer.mask.nonzeros < layer.mask.total:
            names = (weight_format,)
        name, stored = cheapest(layer.mask, bits, names)
        live = layer.mask.total if name == "dense" else layer.mask.nonzeros
        energy = layer_energy(
            layer.shape,
            live,
            index_bits=stored.total - live * bits,  # zeros that rle stores say where, too
            index_once=name == "periodic",
        )
        rows.append(Row(layer, name, energy, layer_energy(layer.shape, layer.mask.total)))
    return rows


def check_options(context: click.Context, target: options.Target) -> None:
    """Refuse, before any work, what means nothing to the model asked for.

    Raises
    ------
    UsageError
        If an option was given that means nothing to it, or a format that it can't write.
    """
    model = context.params["model"]
    given = [
        name
        for name in context.params
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        and name not in USED[model]
    ]
    if given:
        flags = {each.name: each.opts[-1] for each in context.command.params}
        words = ", ".join(flags[name] for name in given)
        raise click.UsageError(f"--model {model} {WHY[model]}: leave out {words}")
    if target.form not in FORMS:
        raise click.UsageError(
            f"--model {model} gives no {target.form}; choose one of {', '.join(FORMS)}"
        )


def show_yang2019(network: Network, weight_format: str, target: options.Target) -> None:
    """Print the energy of a network by the model, its weights stored in one format."""
    rows = rows_of(network, weight_format)
    _show([_record(network, row) for row in rows], _grid(network, rows), target)


def show_systolic(
    network: Network, hardware: Hardware, dataflow: str | None, batch: int, target: options.Target
) -> None:
    """Print cycles and buffer accesses of a network on the hardware's array, as a systolic one.

    Raises
    ------
    InputError
        If the array has not two axes, or the dataflow is none of a systolic array.
    """
    flow = dataflow or hardware.dataflow
    layers = [layer for layer in network.layers if layer.has_weights]
    array = systolic_array(hardware)
    found = [systolic(layer.batched(batch), *array, flow, mask=layer.mask) for layer in layers]
    records = [
        {
            "network": network.name,
            "hardware": hardware.name,
            "layer": layer.name,
            "dataflow": flow,
            **asdict(each),
            "time_ms": cycles_to_ms(each.cycles, hardware.clock_mhz),
        }
        for layer, each in zip(layers, found, strict=True)
    ]
    cycles = [each.cycles for each in found]
    total = sum(cycles)
    figures = [
        render.numbers(name, [getattr(each, part) for each in found], COUNTS)
        for name, part in (
            ("folds", "folds"),
            ("cycles", "cycles"),
            ("inputs read", "input_reads"),
            ("weights read", "weight_reads"),
            ("outputs written", "output_writes"),
        )
    ]
    units = array[0] * array[1]
    used = sum(each.macs for each in found) / (total * units)
    columns = (
        render.Column("layer", [layer.name for layer in layers], "total", right=False,
                      narrow="cut"),
        *figures,
        render.Column("used", [f"{each.utilization:.1%}" for each in found], f"{used:.1%}"),
    )  # fmt: skip
    time = f"{cycles_to_ms(total, hardware.clock_mhz):.3g} ms at {hardware.clock_mhz:g} MHz"
    footer = (
        f"{array[0]}x{array[1]} units, {flow}, {time}; elements, batch {batch}",
        "closed forms of SCALE-Sim: no mapping, no waits for memory, each fold fills and drains it",
    )
    title = f"{network.name} · {hardware.name} · model systolic"
    _show(records, render.Grid(columns, title, footer, shares=cycles), target)


def _show(records: list[dict[str, Any]], grid: render.Grid, target: options.Target) -> None:
    if target.form in {"csv", "json"}:
        text = render.as_csv(records) if target.form == "csv" else render.as_json(records)
    else:
        text = render.grid_text(grid, target)
    render.print_text(text, target)


def _record(network: Network, row: Row) -> dict[str, Any]:
    return {
        "network": network.name,
        "layer": row.layer.name,
        "pattern": row.layer.pattern,
        "weights": row.layer.mask.total,
        "live_weights": row.layer.mask.nonzeros,
        "weight_format": row.format,
        **asdict(row.energy),
        "dram": row.energy.dram,
        "total": row.energy.total,
        "dense_total": row.dense.total,
        "ratio": row.energy.total / row.dense.total,
    }


def _grid(network: Network, rows: Sequence[Row]) -> render.Grid:
    parts = ("dram", "cache", "register", "compute", "total")
    totals = [row.energy.total for row in rows]
    names = ("DRAM", "cache", "registers", "MACs", "total")
    figures = [
        render.numbers(name, [getattr(row.energy, part) for row in rows], COUNTS, like=totals)
        for name, part in zip(names, parts, strict=True)
    ]
    ratios = [times(row.energy.total, row.dense.total) for row in rows]
    dense = sum(row.dense.total for row in rows)
    columns = (
        render.Column("layer", [row.layer.name for row in rows], "total", right=False,
                      narrow="cut"),
        *figures,
        render.Column("of dense", ratios, times(sum(totals), dense)),
        render.Column("stored", [row.format for row in rows], right=False),
    )  # fmt: skip
    footer = (
        "one image, 16-bit words; energy in register-file accesses, a DRAM word is 200",
        "closed form of Yang et al. 2019: a 12x14 array of its own, no mapping, nothing kept",
    )
    return render.Grid(columns, f"{network.name} · model yang2019", footer, shares=totals)
