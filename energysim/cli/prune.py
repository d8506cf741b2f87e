"""``energysim prune``: which weights of an untrained network stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from energysim.cli import options
from energysim.files import check_writable, write_atomically

if TYPE_CHECKING:
    from energysim.cli.render import Grid
    from energysim.network import Network
    from energysim.prune import Pruned, Start
    from energysim.train.data import Batch

METHODS = ("synflow", "snip", "grasp", "magnitude", "random", "uniform", "erdos_renyi")
PER_CLASS = 10
"""Images of each class that snip and grasp look at, as in the experiments of SynFlow's authors."""


def _mask_path(_ctx: click.Context, _param: click.Parameter, path: Path | None) -> Path | None:
    """Take a path that a file of masks can have.

    Raises
    ------
    BadParameter
        If its suffix is another.
    """
    if path is not None and path.suffix != ".npz":
        raise click.BadParameter(f"'{path}' is no .npz file, as those of masks are")
    return path


@click.command("prune")
@options.network
@options.pattern
@options.width
@options.side
@options.classes
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="synflow",
    show_default=True,
    help="What decides which weights stay: what flows through them (synflow), their gradients on "
    "images (snip, grasp), their size (magnitude), or chance, with one share for all layers "
    "(uniform), one for the network (random), or larger ones for small layers (erdos_renyi).",
)
@click.option(
    "--density",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    show_default=True,
    help="Share of the weights that stay.",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="How often what is left is scored anew.  [default: 100 of synflow, 1 of others]",
)
@click.option(
    "--schedule",
    type=click.Choice(("exponential", "linear")),
    default="exponential",
    show_default=True,
    help="How the share shrinks from step to step.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the weights: those that 'energysim train' with this seed begins with.",
)
@click.option("--keep-one", is_flag=True, help="Never take the last weight of a layer.")
@click.option(
    "--data",
    metavar="NAME|PATH",
    help="Images for snip and grasp, as for 'energysim train': the first of each class.  "
    "[default: digits]",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Look at the weights in a file, such as weights.npz of a run: magnitude after training.  "
    "[default: those that training begins with]",
)
@click.option(
    "--like",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Instead of a method, draw as many weights of each layer at random as these masks have.",
)
@click.option(
    "--critical",
    is_flag=True,
    help="Instead of one density, prune by steps of 10^(1/4) until a layer is emptied.",
)
@options.print_format
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    callback=_mask_path,
    metavar="FILE.npz",
    help="Write the masks to a file, for --mask of 'run' and 'train'.  [default: write nothing]",
)
@options.quiet
@click.pass_context
def command(
    context: click.Context,
    /,
    net: str,
    pattern: str | None,
    width: float,
    side: int | None,
    classes: int | None,
    method: str,
    density: float,
    data: str | None,
    weights: Path | None,
    like: Path | None,
    print_format: str | None,
    output: Path | None,
    *,
    critical: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Prune a network before training: which weights stay, layer by layer.

    The weights are those that a training with the same --seed begins with. What stays is counted
    in weights and in MACs, which are not the same, and so are channels that are dead: nothing flows
    into them, or nobody uses them ('energysim shrink' takes them out). A layer that nothing is left
    of lets no image through: then the exit code is 3, and no file is written.

    \b
    Example:
      energysim prune --net digits_cnn --density 0.1 -o mask.npz
      energysim prune --net digits_cnn --method snip --density 0.05 --data digits
      energysim prune --net digits_cnn --like mask.npz -o control.npz
      energysim prune --net digits_cnn --method magnitude --critical
    """  # noqa: D301 - click's mark is a backspace
    from energysim.catalog import load_network
    from energysim.cli import render
    from energysim.network import Scale
    from energysim.prune import STEPS, prune
    from energysim.sparsity.maskfile import mask_file

    _check_asked(context)
    if output is not None:
        options.refuse_overwriting([output], (like, weights, data))
        check_writable(output)
    network = load_network(net, pattern=pattern, scale=Scale(width, side, classes))
    found = None if like is None else _alike(network, like, settings["seed"])
    settings["batch"] = _batch(method, data, network)
    if weights is not None:
        settings["begun"] = _begun(network, weights)
    target = options.Target(print_format or "table", None)
    if critical:
        with render.progress(visible=not quiet) as bar:
            if bar is not None:
                settings["tell"] = lambda done, of, tried: bar(done, of, f"{tried:.4g}x")
            text = _critical_text(network, method, settings, target)
        click.echo(text, nl=False)
        return
    with render.progress(visible=not quiet and found is None) as bar:
        steps = settings["steps"] or STEPS[method]
        tell = None if bar is None else lambda step: bar(step, steps, "step")
        found = found or prune(network, method, density, tell=tell, **settings)
    click.echo(_text(found, target, weights), nl=False)
    _ = found.network  # refuses where a layer is emptied
    if not (found.liveness.reached or quiet):
        render.say("note: no way leads through the weights that stay from the image to the outputs,"
                   " so the network can learn nothing of it")  # fmt: skip
    if output is not None:
        write_atomically(output, mask_file(found.masks))
        if not quiet:
            render.say(f"wrote {output} (masks of {len(found.masks)} layers)")


def _alike(network: Network, path: Path, seed: int) -> Pruned:
    """Masks by chance.

    Raises
    ------
    UsageError
        If something else decides which weights stay, too.
    InputError
        If the file holds no masks of the network.
    """
    from energysim.prune import alike
    from energysim.sparsity import MaskFile

    given = click.get_current_context().get_parameter_source
    others = "method density steps schedule keep_one data weights critical"
    for name in others.split():
        if given(name) is ParameterSource.COMMANDLINE:
            option = name.replace("_", "-")
            raise click.UsageError(f"--like draws what stays: leave out --{option}")
    return alike(network, MaskFile.open(path), seed=seed)


def _check_asked(context: click.Context) -> None:
    """Refuse options that do not go together.

    Raises
    ------
    UsageError
    """
    given, source = context.params, context.get_parameter_source("density")
    if given["critical"] and given["output"] is not None:
        raise click.UsageError("--critical chooses no masks: leave out -o")
    if given["critical"] and source is not ParameterSource.DEFAULT:
        raise click.UsageError("--critical tries densities of its own: leave out --density")
    if given["weights"] is not None and given["method"] != "magnitude" and not given["like"]:
        raise click.UsageError(
            f"{given['method']} does not take weights of a file: only magnitude does"
        )


def _begun(network: Network, path: Path) -> Start:
    """Weights of a file, in place of those that are drawn.

    Raises
    ------
    InputErrors
        If they can't be read, or are of another network.
    """
    from energysim.prune import Start
    from energysim.train.weights import Weights

    vector, _ = Weights.load(path).fitted(network)
    return Start.of(network, vector)


def _batch(method: str, data: str | None, network: Network) -> Batch | None:
    """Images to look at, if the method does.

    Raises
    ------
    InputError
        If they can't be loaded, or have other classes or channels than the network.
    UsageError
        If they are given for a method that looks at none.
    """
    from energysim.prune import BY_DATA

    if method not in BY_DATA:
        if data is not None:
            raise click.UsageError(f"{method} looks at no images: leave out --data")
        return None
    from energysim import cache
    from energysim.errors import InputError
    from energysim.train.data import in_order, load

    images = load(data or "digits", cache=cache.folder())
    have, read = len(images.classes), network.layers[-1].output[0]
    if have != read:
        raise InputError(
            f"{images.name} has {have} classes and {network.name} tells {read}: give --classes"
            f" {have}",
            where="--data",
        )
    some = images.subset(per_class=PER_CLASS)
    return next(in_order(some, some.train, PER_CLASS * have, read=network.input_size[:2]))


def _text(found: Pruned, target: options.Target, weights: Path | None) -> str:
    from energysim.cli import render

    if target.form == "csv":
        return render.as_csv(found.rows())
    if target.form == "json":
        about = {
            "network": found.dense.name,
            "method": found.method,
            "density": found.density,
            "steps": found.steps,
            "schedule": found.schedule,
            "seed": found.seed if weights is None else None,
            "weights_file": None if weights is None else str(weights),
            "weights": found.weights,
            "live": found.live,
            "mac_density": found.mac_density,
            "clean_mac_density": found.clean_mac_density,
            "connected": found.liveness.reached,
            "collapsed": list(found.collapsed),
        }
        return render.as_json({"pruning": about, "layers": found.rows()})
    begun = f"seed {found.seed}" if weights is None else f"weights of {weights.name}"
    return render.grid_text(_grid(found, begun), target)


def _grid(found: Pruned, begun: str) -> Grid:
    from energysim.cli.render import Column, Grid, numbers
    from energysim.units import COUNTS

    layers = found.layers
    macs = [each.macs for each in layers]
    density = [f"{100 * each.density:.3g}" for each in layers]
    columns = [
        Column("layer", [each.layer.name for each in layers], "total", right=False, narrow="cut"),
        numbers("weights", [each.before for each in layers], COUNTS),
        numbers("live", [each.live for each in layers], COUNTS),
        Column("density [%]", density, f"{100 * found.live / found.weights:.3g}"),
        numbers("MACs", macs, COUNTS),
        numbers("effective", [each.effective_macs for each in layers], COUNTS, like=macs),
    ]
    dead = found.liveness.dead()
    if dead:
        cells = [
            f"{dead[name]}/{each.layer.output[0]}" if name in dead else "-"
            for each in layers
            for name in [each.layer.name]
        ]
        columns.append(Column("dead channels", cells, str(sum(dead.values()))))
    title = f"{found.dense.name} · {found.method} · {begun}"
    if found.steps > 1:
        title += f" · {found.steps} steps, {found.schedule}"
    times = f"{found.weights / max(found.live, 1):.3g}x fewer weights"
    footer = [f"{times}, {100 * found.mac_density:.3g} % of the MACs", *_dead(found)]
    flows = [each.flow for each in layers if each.flow is not None]
    if found.method == "synflow":
        least, most = min(flows), max(flows)
        footer.append(f"flow through a layer: largest {most / least:.7g}x the smallest")
    return Grid(tuple(columns), title, tuple(footer), shares=[each.density for each in layers])


def _dead(found: Pruned) -> Iterator[str]:
    """What of the weights that stay does nothing."""
    if not found.liveness.reached:
        yield "no way leads through what stays from the image to the outputs"
        return
    dead = sum(found.liveness.dead().values())
    if not dead:
        yield "no dead channels"
        return
    word = "channel" if dead == 1 else "channels"
    yield f"{100 * found.clean_mac_density:.3g} % of the MACs without {dead} dead {word}"


def _critical_text(
    network: Network, method: str, settings: dict[str, Any], target: options.Target
) -> str:
    """One row a compression, down to the first that empties a layer."""
    from energysim.cli import render
    from energysim.prune import critical_compression

    rows = []
    for compression, collapsed in critical_compression(network, method, **settings):
        rows.append(
            {
                "compression": compression,
                "density": 1 / compression,
                "collapsed": "+".join(collapsed),
            }
        )
        if collapsed:
            break
    if target.form == "csv":
        return render.as_csv(rows)
    if target.form == "json":
        return render.as_json({"network": network.name, "method": method, "compressions": rows})
    return render.grid_text(_critical_grid(network, method, rows), target)


def _critical_grid(network: Network, method: str, rows: Sequence[dict[str, Any]]) -> Grid:
    from energysim.cli.render import Column, Grid

    whole = [row for row in rows if not row["collapsed"]]
    best = max((row["compression"] for row in whole), default=None)
    weights = sum(layer.weights for layer in network.layers if layer.stores_weights)
    layers = sum(layer.stores_weights for layer in network.layers)
    columns = (
        Column("compression", [f"{row['compression']:.4g}" for row in rows]),
        Column("density [%]", [f"{100 * row['density']:.3g}" for row in rows]),
        Column("emptied", [row["collapsed"] or "-" for row in rows], right=False, narrow="wrap"),
    )
    said = "none: a layer is emptied at once" if best is None else f"{best:.4g}x"
    footer = (
        f"critical compression, by steps of 10^(1/4): {said}",
        f"one weight a layer is {weights / layers:.4g}x, the most that can be",
    )
    return Grid(columns, f"{network.name} · {method}", footer)
