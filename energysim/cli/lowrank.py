"""``energysim lowrank``: three small convolutions in place of each large one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from energysim.cli import options
from energysim.files import check_writable

if TYPE_CHECKING:
    from energysim.cli.render import Grid
    from energysim.lowrank import Learning, Lowered
    from energysim.network import Network

WAYS = ("error", "singular", "uniform", "random", "search")
COSTS = ("macs", "parameters", "energy", "latency")
WORDS = {each: each for each in COSTS} | {"macs": "MACs"}
WEIGHTS = ".weights.npz"
"""Ends the name of the file of weights beside a network file."""

ONLY_LEARNT = ("data", "recipe", "epochs", "lr", "keep")
"""Options of a search alone."""


@click.command("lowrank")
@options.network
@options.width
@options.side
@options.classes
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Of the cost of the dense network, to be kept at most.",
)
@click.option(
    "--cost",
    type=click.Choice(COSTS),
    help="Of what it is a share; energy and latency are those of the best mappings on --hw.  "
    "[default: energy with --hw, else macs]",
)
@click.option(
    "--by",
    "way",
    type=click.Choice(WAYS),
    default="error",
    show_default=True,
    help="How ranks are spread over layers: so that all kernels together are hit best (error), by "
    "singular values, the same share for all (uniform), by chance, or learnt with the weights on "
    "images, with the cost in the loss (search).",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Of the network, such as weights.npz of a run.  [default: as training with --seed begins]",
)
@click.option(
    "--options",
    "many",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Ranks to choose from, in even steps up to the smaller number of channels.",
)
@click.option(
    "--multiple",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Round ranks up to multiples.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of weights where none are given, of random, and of search.",
)
@click.option(
    "--hw",
    metavar="NAME|FILE",
    shell_complete=options.complete_names("hw"),
    help="Hardware for energy and latency: a name ('energysim list hw') or a .yaml file.",
)
@options.batch
@options.one_dataflow
@options.residency
@options.no_cache
@click.option("--data", metavar="NAME|PATH", help="Images for search, as for 'energysim train'.  "
              "[default: digits]")  # fmt: skip
@click.option("--recipe", metavar="NAME|FILE", help="Of search, as for 'energysim train'.  "
              "[default: default]")  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), help="Of search.  [default: the recipe's]")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Largest learning rate of the "
              "weights in a search.  [default: the recipe's]")  # fmt: skip
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the search in this file after each epoch, and go on from there.",
)
@options.print_format
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.yaml",
    help="Write the network of low rank; with --weights or after a search its weights go beside "
    f"it, as FILE{WEIGHTS}, for 'energysim train --begin'.  [default: write nothing]",
)
@options.quiet
def command(
    net: str,
    width: float,
    side: int | None,
    classes: int | None,
    share: float,
    cost: str | None,
    way: str,
    weights: Path | None,
    many: int,
    multiple: int,
    seed: int,
    hw: str | None,
    print_format: str | None,
    output: Path | None,
    *,
    no_cache: bool,
    quiet: bool,
    **own: Any,
) -> None:
    """Put convolutions of low rank in place of those of a network (Tucker-2).

    A convolution becomes three: a 1x1 to fewer channels, one of its own size there, and a 1x1 back.
    That saves weights and MACs, but not always energy: two more feature maps are moved. --share
    says how much of a cost may stay, --by how ranks are spread over the layers.

    \b
    Example:
      energysim lowrank --net digits_cnn --share 0.5 -o low.yaml
      energysim lowrank --net digits_cnn --share 0.7 --hw edge_tpu --by uniform
      energysim lowrank --net digits_cnn --share 0.5 --by search --data digits --epochs 3
    """  # noqa: D301 - click's mark is a backspace
    from energysim.cache import Cache, folder
    from energysim.catalog import load_hardware, load_network
    from energysim.cli import render
    from energysim.lowrank import lower
    from energysim.network import Scale
    from energysim.train.weights import Weights

    cost = cost or ("macs" if hw is None else "energy")
    settings = _settings(cost, hw, own)
    _check_learnt(way, own)
    _check_output(output, weights, own["keep"], net)
    if own["keep"] is not None:
        check_writable(own["keep"])
    network = load_network(net, scale=Scale(width, side, classes))
    found = None if weights is None else Weights.load(weights)
    learning = _learning(network, own) if way == "search" else None
    with render.progress(visible=not quiet) as bar:
        tell = None if bar is None else lambda done, of, loss: bar(done, of, f"loss {loss:.3f}")
        low = lower(
            network,
            share,
            way,
            cost=cost,
            weights=found,
            options=many,
            multiple=multiple,
            seed=seed,
            learning=learning,
            hardware=None if hw is None else load_hardware(hw),
            cache=None if no_cache else Cache(folder()),
            tell=tell,
            **settings,
        )
    drawn = weights is None and way != "search"
    click.echo(
        _text(
            low, options.Target(print_format or "table", None), _where(hw, settings), drawn=drawn
        ),
        nl=False,
    )
    if output is not None:
        _write(low, output, quiet=quiet, drawn=drawn)


def _settings(cost: str, hw: str | None, own: dict[str, Any]) -> dict[str, Any]:
    """Settings of the mapper, if it is asked.

    Raises
    ------
    UsageError
        If hardware is missing, or given where it counts nothing.
    """
    settings = {word: own.pop(word) for word in ("batch", "dataflow", "residency")}
    if settings["dataflow"] == "all":
        raise click.UsageError("ranks are chosen for one dataflow")
    if cost in ("energy", "latency"):
        if hw is None:
            raise click.UsageError(f"--cost {cost} needs --hw, such as --hw edge_tpu")
        return settings | {"objective": cost}
    for word, usual in (("batch", 1), ("dataflow", None), ("residency", None)):
        if settings[word] != usual:
            raise click.UsageError(f"--{word} needs --hw: {cost} are the same on any")
    if hw is not None:
        raise click.UsageError(f"--cost {cost} needs no --hw: leave it out, or take --cost energy")
    return {}


def _check_learnt(way: str, own: dict[str, Any]) -> None:
    """Refuse options that nothing reads.

    Raises
    ------
    UsageError
    """
    given = [word for word in ONLY_LEARNT if own[word] is not None]
    if way != "search" and given:
        raise click.UsageError(f"--{given[0]} belongs to --by search")


def _check_output(output: Path | None, *read: Path | str | None) -> None:
    if output is None:
        return
    if output.suffix not in (".yaml", ".yml"):
        raise click.BadParameter(
            f"'{output}' is no .yaml file, as those of networks are", param_hint="'-o'"
        )
    options.refuse_overwriting((output, _beside(output)), read)
    for path in (output, _beside(output)):
        check_writable(path)


def _beside(output: Path) -> Path:
    return output.with_name(output.stem + WEIGHTS)


def _learning(network: Network, own: dict[str, Any]) -> Learning:
    """Images and recipe of a search.

    Raises
    ------
    InputError
        If the images have other classes than the network tells.
    """
    from energysim import cache
    from energysim.cli.train import recipe_named
    from energysim.lowrank import Learning
    from energysim.train.data import load
    from energysim.train.job import Job

    data = load(own["data"] or "digits", cache=cache.folder())
    given = {word: own[word] for word in ("epochs", "lr") if own[word] is not None}
    recipe = recipe_named(own["recipe"] or "default", given)
    Job(network, data, recipe, 0)  # refuses images that the network can't read
    return Learning(data, recipe, path=own["keep"])


def _write(low: Lowered, output: Path, *, quiet: bool, drawn: bool) -> None:
    from energysim.cli import render
    from energysim.cli.describe import network_yaml
    from energysim.files import write_atomically
    from energysim.train.checkpoint import write_arrays

    beside = _beside(output)
    if not drawn:
        write_arrays(beside, dict(low.weights.arrays))
    write_atomically(output, network_yaml(low.network))
    if not quiet:
        more = "" if drawn else f", weights in {beside}"
        render.say(f"wrote {output} ({len(low.network.layers)} layers{more})")


def _where(hw: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    """What a cost is that of."""
    return {"hardware": hw} | settings if hw is not None else {}


def _text(low: Lowered, target: options.Target, where: dict[str, Any], *, drawn: bool) -> str:
    from energysim.cli import render
    from energysim.lowrank.ranks import COSTS as COSTS_IN

    rows = low.rows()
    if target.form == "csv":
        return render.as_csv(rows)
    if target.form == "json":
        about = {
            "network": low.dense.name,
            "by": low.way,
            "cost": low.cost,
            "cost_unit": COSTS_IN[low.cost] or "1",
            **where,
            "share": low.share,
            "kept": low.kept,
            "drawn_weights": drawn,
            **low.totals(),
        }
        return render.as_json({"lowrank": about, "layers": rows})
    return render.grid_text(_grid(low, where, drawn=drawn), target)


def _grid(low: Lowered, where: dict[str, Any], *, drawn: bool) -> Grid:
    from energysim.cli.render import Column, Grid, numbers
    from energysim.units import COUNTS

    rows, totals = low.rows(), low.totals()
    macs = [row["macs_before"] for row in rows]
    before = sum(row["cost_before"] for row in rows)
    columns = [
        Column("layer", [row["layer"] for row in rows], "total", right=False, narrow="cut"),
        Column("channels", [f"{row['in_channels']} > {row['out_channels']}" for row in rows]),
        Column("rank", ["-" if row["r1"] is None else str(row["r1"]) for row in rows]),
        Column("kept [%]", [f"{100 * row['kept']:.3g}" for row in rows]),
        numbers("weights", [row["weights"] for row in rows], COUNTS),
        numbers("MACs", [row["macs"] for row in rows], COUNTS, like=macs),
        numbers("map words", [row["map_words"] for row in rows], COUNTS),
        Column(
            f"{WORDS[low.cost]} [%]",
            [f"{100 * row['cost'] / row['cost_before']:.3g}" for row in rows],
            f"{100 * sum(row['cost'] for row in rows) / before:.3g}",
        ),
    ]
    if low.probabilities is not None:
        columns.append(Column("sure [%]", [f"{100 * row['probability']:.3g}" for row in rows]))
    changed = ", ".join(
        f"{_percent(totals[f'low_{word}'], totals[f'dense_{word}'])} {name}"
        for word, name in (
            ("parameters", "parameters"),
            ("macs", "MACs"),
            ("map_words", "map words"),
        )
    )
    footer = [f"whole network: {changed}; {100 * low.kept:.3g} % of {WORDS[low.cost]}"]
    given = "given kernel's" if low.probabilities is not None else "kernel's"
    footer.append(f"kept: share of the {given} squared length; map words: each map once a layer")
    if drawn:
        footer.append("kernels as before training: give --weights of a trained network")
    title = f"{low.dense.name} · Tucker-2 · by {low.way}"
    if where:
        title += f" · {low.cost} on {where['hardware']}, batch {where['batch']}"
    return Grid(tuple(columns), title, tuple(footer))


def _percent(now: int, before: int) -> str:
    return f"{100 * (now / before - 1):+.1f} %"
