"""``energysim shrink``: a network without the channels that its masks leave nothing to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from energysim.cli import options
from energysim.files import check_writable, write_atomically

if TYPE_CHECKING:
    from energysim.cli.render import Grid
    from energysim.network.shrink import Shrunk
    from energysim.train.weights import Weights

MASKS, WEIGHTS = ".npz", ".weights.npz"
"""End the names of what stands beside a network file."""


@click.command("shrink")
@options.network
@options.masks
@options.width
@options.side
@options.classes
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Of the masked network, such as weights.npz of a run: channels that are constant but not "
    "0 then stay.  [default: as training begins, biases and shifts 0]",
)
@options.print_format
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    callback=lambda _ctx, _param, path: options.network_path(path),
    metavar="FILE.yaml",
    help=f"Write the smaller network; what is left of its masks goes beside it, as FILE{MASKS}, "
    f"and its part of --weights as FILE{WEIGHTS}, for 'energysim train --begin'.  "
    "[default: write nothing]",
)
@options.quiet
def command(
    net: str,
    masks: Path | None,
    width: float,
    side: int | None,
    classes: int | None,
    weights: Path | None,
    print_format: str | None,
    output: Path | None,
    *,
    quiet: bool,
) -> None:
    """Take dead channels out of a masked network, so that it really is smaller.

    A channel is dead if nothing flows into it or nobody uses it. Sums of layers keep the channels
    that any operand needs, groups stay equally large, and an operand that only adds zeros goes as a
    whole. Every image gets the same scores as before, with the weights of --weights or, without
    them, with those that a training begins with. What is left of a mask stays a mask.

    \b
    Example:
      energysim prune --net digits_cnn --density 0.05 -o mask.npz
      energysim shrink --net digits_cnn --mask mask.npz -o small.yaml
      energysim run --net small.yaml --hw edge_tpu
    """  # noqa: D301 - click's mark is a backspace
    from energysim.catalog import load_network
    from energysim.cli import render
    from energysim.network import Scale
    from energysim.network.shrink import shrunk

    written = [] if output is None else [output, *_beside(output)]
    options.refuse_overwriting(written, (masks, weights, net))
    for path in written:
        check_writable(path)
    network = load_network(net, scale=Scale(width, side, classes), masks=masks)
    if weights is None:
        small, learnt = shrunk(network), None
    else:
        from energysim.train.shrunk import shrunk_with
        from energysim.train.weights import Weights

        small, learnt = shrunk_with(network, Weights.load(weights))
    target = options.Target(print_format or "table", None)
    click.echo(_text(small, target), nl=False)
    if output is not None:
        files = _write(small, learnt, output)
        if not quiet:
            render.say(f"wrote {', '.join(map(str, files))}")


def _beside(output: Path) -> tuple[Path, Path]:
    return output.with_suffix(MASKS), output.with_name(output.stem + WEIGHTS)


def _write(small: Shrunk, learnt: Weights | None, output: Path) -> list[Path]:
    """Write the network's file, and what it needs before that; the paths."""
    from dataclasses import replace

    from energysim.cli.describe import network_yaml
    from energysim.sparsity.maskfile import mask_file
    from energysim.train.checkpoint import write_arrays

    masks, weights = _beside(output)
    network, files = small.network, [output]
    own = {layer.name: layer.mask.array() for layer in network.layers if layer.live}
    if own:
        write_atomically(masks, mask_file(own))
        network = replace(network, masks=masks.name)
        files.append(masks)
    if learnt is not None:
        write_arrays(weights, dict(learnt.arrays))
        files.append(weights)
    write_atomically(output, network_yaml(network))
    return files


def _rows(small: Shrunk) -> list[dict[str, Any]]:
    """A record for each layer with weights, of which all may be gone."""
    after = {layer.name: layer for layer in small.network.layers}
    rows = []
    for layer in small.before.layers:
        if not layer.stores_weights:
            continue
        now = after.get(layer.name)
        rows.append(
            {
                "layer": layer.name,
                "channels_before": layer.output[0],
                "channels": now.output[0] if now else 0,
                "weights_before": layer.weights_dense,
                "weights": now.weights_dense if now else 0,
                "live_before": layer.weights,
                "live": now.weights if now else 0,
                "macs_before": layer.macs,
                "macs": now.macs if now else 0,
                "effective_macs_before": layer.effective_macs,
                "effective_macs": now.effective_macs if now else 0,
            }
        )
    return rows


def _text(small: Shrunk, target: options.Target) -> str:
    from energysim.cli import render

    rows = _rows(small)
    if target.form == "csv":
        return render.as_csv(rows)
    if target.form == "json":
        about = {
            "network": small.before.name,
            "smaller": small.network.name,
            "removed": list(small.removed),
            "parameters_before": small.before.parameters,
            "parameters": small.network.parameters,
        }
        return render.as_json({"shrinking": about, "layers": rows})
    return render.grid_text(_grid(small, rows), target)


def _grid(small: Shrunk, rows: list[dict[str, Any]]) -> Grid:
    from energysim.cli.render import Column, Grid, numbers
    from energysim.units import COUNTS

    def column(title: str, word: str) -> Column:
        like = [row[word.removesuffix("_before")] for row in rows]
        return numbers(title, [row[word] for row in rows], COUNTS, like=like)

    columns = (
        Column("layer", [row["layer"] for row in rows], "total", right=False, narrow="cut"),
        Column("channels", [f"{row['channels_before']} > {row['channels']}" for row in rows]),
        column("weights before", "weights_before"),
        column("weights", "weights"),
        column("live", "live"),
        column("MACs before", "macs_before"),
        column("MACs", "macs"),
        column("effective", "effective_macs"),
    )
    whole = {word: sum(row[word] for row in rows) for word in rows[0] if word != "layer"}
    kept = {word: _share(whole, word) for word in ("weights", "macs", "live", "effective_macs")}
    footer = [
        f"{kept['weights']} of the weights and {kept['macs']} of the MACs, zeros included",
        f"{kept['live']} of the live weights and {kept['effective_macs']} of their MACs",
    ]
    if small.network.layers == small.before.layers:
        footer = ["no dead channels: nothing to take out"]
    if small.removed:
        footer.append(f"layers gone: {', '.join(small.removed)}")
    shares = [row["macs"] / row["macs_before"] for row in rows]
    return Grid(columns, f"{small.before.name} > {small.network.name}", tuple(footer), shares)


def _share(whole: dict[str, int], word: str) -> str:
    return f"{100 * whole[word] / whole[f'{word}_before']:.3g} %"
