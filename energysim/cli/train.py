"""``energysim train``: how well networks with sparse kernels tell images apart."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from energysim.cli import options
from energysim.cli.robustness import NESTED, attack_options, nested_fields, nested_options
from energysim.errors import did_you_mean
from energysim.sparsity import PATTERNS

if TYPE_CHECKING:
    from energysim.cli.render import Grid
    from energysim.network import Network, Scale
    from energysim.train.attacked import Strike
    from energysim.train.data import Dataset
    from energysim.train.grid import Attempt, Row
    from energysim.train.job import Job
    from energysim.train.recipe import Recipe
    from energysim.train.run import Tick

ALL = "all"
MOST_SEEDS = 1000
ASIDE = 3
"""Exit status where some run came to nothing."""

OWN = (
    "epochs", "batch", "shards", "lr", "optimiser", "schedule", "warmup", "smoothing",
    "augment", "validation", "stop_after", "gamma",
)  # fmt: skip
"""Fields of a recipe that have an option."""


def _words(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Words with commas between."""
    return tuple(word.strip() for word in text.split(",") if word.strip()) if text else ()


def _patterns(
    ctx: click.Context, param: click.Parameter, text: str | None
) -> tuple[str | None, ...]:
    """Names of patterns, or all of them; None = as the network file says."""
    words = _words(ctx, param, text)
    if text is not None and not words:
        raise click.BadParameter("names no pattern. Allowed: PS4_P4 or dense,PS4_P4 or all")
    if ALL in words:
        return tuple(PATTERNS)
    return words or (None,)


def seeds_named(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[int, ...]:
    """Read seeds such as ``0``, ``0,3`` or ``0-4``.

    Raises
    ------
    BadParameter
        If it is something else.
    """
    found: list[int] = []
    for word in text.split(","):
        first, dash, last = word.strip().partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(each.isascii() and each.isdigit() for each in ends):
            raise click.BadParameter(f"'{word}' is no seed. Allowed: 0 or 0,3 or 0-4")
        low, high = map(int, ends)
        if not low <= high < low + MOST_SEEDS:
            raise click.BadParameter(f"'{word}' is no range of up to {MOST_SEEDS} seeds")
        found += range(low, high + 1)
    return tuple(dict.fromkeys(found))


def _choice(*names: str, **settings: Any) -> Callable[[options.Decorated], options.Decorated]:
    """Option of a recipe."""
    return click.option(*names, default=None, **settings)


recipe_options = options.together(
    _choice("--epochs", type=click.IntRange(1), help="Passes over the training images."),
    _choice("--batch", type=click.IntRange(1, options.MOST_IMAGES), help="Images of a step."),
    _choice(
        "--shards",
        type=click.IntRange(1, 1024),
        help="Parts of a batch, each normalised by itself and computed by a core. The number of "
        "cores changes no result, this does.",
    ),
    _choice("--lr", type=click.FloatRange(0, min_open=True), help="Largest learning rate."),
    _choice("--optimiser", type=click.Choice(("sgd", "adam")), help="Rule of a step."),
    _choice(
        "--schedule",
        type=click.Choice(("constant", "plateau", "cosine", "triangle")),
        help="How the learning rate changes; multistep needs a recipe with milestones.",
    ),
    _choice("--warmup", type=click.IntRange(0), metavar="EPOCHS", help="Rise from 0 in these."),
    _choice("--smoothing", type=click.FloatRange(0, 1, max_open=True), help="Label smoothing."),
    _choice(
        "--augment",
        type=click.Choice(("auto", "none", "crop", "crop+flip")),
        help="Change training images at random; auto does so with colour images.",
    ),
    _choice(
        "--validation",
        type=click.FloatRange(0, 1, max_open=True),
        metavar="SHARE",
        help="Share of the training images held out.",
    ),
    _choice(
        "--stop-after",
        type=click.IntRange(0),
        metavar="EPOCHS",
        help="Stop when the loss on images held out has not become smaller for so many.",
    ),
    _choice(
        "--gamma",
        type=click.FloatRange(0, min_open=True),
        metavar="FACTOR",
        help="What batch and mixture norms scale by at first.",
    ),
)


per_class = click.option(
    "--per-class",
    type=click.IntRange(1),
    metavar="COUNT",
    help="Train on the first so many images of each class only.",
)


_backend = click.option(
    "--backend",
    type=click.Choice(("numpy", "torch", "torch-bf16")),
    default="numpy",
    show_default=True,
    help="What computes; torch is an extra, for full size and GPUs, and torch-bf16 the same with "
    "products in bfloat16, less exact and on GPUs many times faster.",
)
_device = click.option(
    "--device", default="cpu", show_default=True, help="Of torch: cpu, cuda, cuda:1."
)


def backend_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command --backend and --device."""
    return _backend(_device(function))


@click.command("train")
@click.option(
    "--net",
    "--nets",
    "nets",
    required=True,
    metavar="NAME[,NAME]",
    callback=_words,
    shell_complete=options.complete_names("nets"),
    help="Networks: names ('energysim list nets') or .yaml files.",
)
@click.option(
    "--data",
    default="digits",
    show_default=True,
    metavar="NAME|PATH",
    help="Images: digits (bundled), shapes (drawn by a program), or a folder or file of CIFAR-10, "
    "CIFAR-100, MNIST's form, Tiny ImageNet, a folder a class, or .npz; what it is, is found out.",
)
@click.option(
    "--pattern",
    "--patterns",
    "patterns",
    metavar="NAME[,NAME]|all",
    callback=_patterns,
    shell_complete=options.complete_words((*PATTERNS, ALL)),
    help="Lay patterns of sparse kernels over the networks ('energysim list patterns').",
)
@click.option(
    "--seed",
    "--seeds",
    "seeds",
    default="0",
    show_default=True,
    metavar="0|0,3|0-4",
    callback=seeds_named,
    help="Of weights, order and augmentation; a run each.",
)
@options.norm
@options.masks
@click.option(
    "--begin",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Begin with the weights in a file, such as weights.npz of a run.  [default: draw them]",
)
@options.width
@options.side
@click.option(
    "--recipe",
    "recipe_name",
    default="default",
    show_default=True,
    metavar="NAME|FILE",
    help="How to train: default, paper (150 epochs, as the authors of pre-defined periodic "
    "sparsity), or a .yaml file. Options below override it.",
)
@recipe_options
@nested_options
@attack_options
@per_class
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    metavar="FOLDER",
    help="Where runs are kept: checkpoint, log, weights, masks that were learnt, densities of "
    "activations, accuracy.csv and, of attacks, robust.csv. "
    "What is done there is not run again, what was interrupted goes on.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    metavar="COUNT",
    help="Cores to use; changes no result.  [default: a core a shard]",
)
@backend_options
@options.print_format
@options.output
@options.quiet
@click.option("-v", "--verbose", is_flag=True, help="Say how each layer is computed.")
@click.pass_context
def command(
    context: click.Context,
    /,
    nets: tuple[str, ...],
    data: str,
    patterns: tuple[str | None, ...],
    seeds: tuple[int, ...],
    norm: str | None,
    masks: Path | None,
    begin: Path | None,
    width: float,
    side: int | None,
    recipe_name: str,
    per_class: int | None,
    out: Path,
    threads: int | None,
    backend: str,
    device: str,
    print_format: str | None,
    output: Path | None,
    attack_words: tuple[str, ...],
    attack_images: int | None,
    *,
    quiet: bool,
    verbose: bool,
    **own: Any,
) -> None:
    """Train networks, with the same masks that 'run' counts, and measure their accuracy.

    Every network, pattern and seed is a run of its own, kept in --out. The same command again goes
    on where it was interrupted, skips what is done, and gives the same numbers.
    Beside each network with mixture norms, one with batch norms as wide at first runs as a control.

    \b
    Example:
      energysim train --net vgg16_ps --data digits --epochs 5 --seed 0
      energysim train --net digits_cnn --patterns dense,PS4_P4,PS1_P9 --seeds 0-2 --out runs
      energysim train --net resnet18 --width 0.25 --data shapes --epochs 1 --per-class 20
      energysim train --net digits_cnn --norm mixture:3 --seeds 0-2
      energysim train --net digits_cnn --attack fgsm:0.1 --attack pgd:0.1,steps=20,restarts=2
      energysim train --net digits_cnn --rewire irregular --density 0.1 --adversarial 0.1
    """  # noqa: D301 - click's mark is a backspace
    from energysim import catalog
    from energysim.cli import render, robustness
    from energysim.network import Scale
    from energysim.train.grid import run_all

    target = options.target(output, print_format)
    if target.form in ("parquet", "html"):
        raise click.UsageError(f"train gives no {target.form}; choose one of table, csv, json, md")
    attacks = robustness.attacks_of(attack_words, attack_images)
    fields = {key: own[key] for key in (*OWN, *NESTED) if own[key] is not None}
    recipe = recipe_named(recipe_name, fields)
    check_backend(backend, device, threads)
    _refuse(nets)
    if masks is not None and (len(nets) > 1 or patterns != (None,)):
        raise click.UsageError("--mask is for one network, and without --pattern")
    images = images_named(data, nets, Scale(width, side))
    if per_class is not None:
        images = images.subset(per_class=per_class)
    scale = Scale(width, side, len(images.classes))
    load = partial(catalog.load_network, scale=scale, masks=masks)
    named = [(net, pattern) for net in nets for pattern in patterns]
    networks = [load(net, pattern=pattern, norm=norm) for net, pattern in named]
    controls = _controls(networks, [load(net, pattern=pattern) for net, pattern in named], recipe)
    _refuse_beside(controls, begin, attacks)
    planned = [(recipe, networks), *((each, [network]) for each, network in controls)]
    jobs = [job for how, some in planned for job in _jobs(some, images, how, seeds, backend, begin)]
    if not quiet:
        _say_data(images, recipe)
        _say_controls(controls)
    if verbose and backend == "numpy":
        _say_plans(jobs)
    with progress_of_runs(jobs, quiet=quiet) as show:
        attempts = []
        for attempt in run_all(
            jobs, out, threads=threads, device=device, tell=show.tell, begin=show.begin,
            attacks=attacks, attacked=attack_images, struck=show.strike,
        ):  # fmt: skip
            show.end(attempt)
            attempts.append(attempt)
    rows = _rows_of(attempts)
    if rows:
        struck = robustness.robust_text(rows, attacks, attack_images, target)
        render.print_text(_text(rows, target) + struck, target)
    if not quiet:
        tables = f"{out / 'accuracy.csv'}" + (f" and {out / 'robust.csv'}" if attacks else "")
        render.say(f"{len(rows)} of {len(jobs)} runs in {out}, table in {tables}")
    if any(attempt.row is None or attempt.problem is not None for attempt in attempts):
        context.exit(ASIDE)


def check_backend(backend: str, device: str, threads: int | None) -> None:
    """Refuse what a back-end can't do, before any images are loaded.

    Raises
    ------
    UsageError
        If an option belongs to the other one.
    InputError
        If PyTorch or the device is missing.
    """
    if backend == "numpy":
        if device != "cpu":
            raise click.UsageError("--device belongs to --backend torch")
        return
    if threads is not None:
        raise click.UsageError("--threads belongs to --backend numpy")
    from energysim.train.torch_engine import device_named

    device_named(device)


def recipe_named(name: str, own: dict[str, Any]) -> Recipe:
    """The recipe of a name or a file, with what the options say otherwise.

    Raises
    ------
    BadParameter
        If there is none.
    InputErrors
        With all that is wrong in it or in the options, or does not go together.
    """
    from energysim.train.recipe import RECIPES, Recipe
    from energysim.yamlio import load_model, validated

    if name in RECIPES:
        recipe = RECIPES[name]
    elif Path(name).suffix in (".yaml", ".yml"):
        recipe, _ = load_model(Path(name), Recipe)
    else:
        hint = did_you_mean(name, RECIPES) or f" Known: {', '.join(RECIPES)}, or a .yaml file"
        raise click.BadParameter(f"no recipe named '{name}'.{hint}", param_hint="'--recipe'")
    given = recipe.model_dump()
    nested = {word: own.pop(word, None) for word in NESTED}
    given |= own | nested_fields(given, **nested)
    if "schedule" in own:
        given["milestones"] = ()
    return validated(given, Recipe, name="recipe")


def images_named(data: str, nets: Sequence[str], scale: Scale) -> Dataset:
    """Load images; those of different sizes in the size that the networks read.

    Raises
    ------
    InputError
        If they can't be loaded, or differ in size and the networks don't read one size.
    """
    from energysim import cache
    from energysim.catalog import load_network
    from energysim.errors import InputError
    from energysim.train.data import SizesError, load

    try:
        return load(data, cache=cache.folder())
    except SizesError as error:
        sides = {load_network(net, scale=scale).input_size[1] for net in nets}
        if len(sides) > 1:
            raise InputError(f"{error} with --input, such as --input 64") from None
        return load(data, side=sides.pop(), cache=cache.folder())


def _refuse(nets: Sequence[str]) -> None:
    """Refuse networks that can't be trained, before any is changed or runs.

    Raises
    ------
    InputErrors
        With all of them.
    """
    from energysim.catalog import load_network
    from energysim.errors import InputErrors
    from energysim.train.model import untrainable

    if not nets:
        raise click.UsageError("--net names no network")
    problems = [problem for net in nets for problem in untrainable(load_network(net))]
    if problems:
        raise InputErrors(problems)


def _jobs(
    networks: Sequence[Any],
    images: Dataset,
    recipe: Recipe,
    seeds: Sequence[int],
    backend: str,
    begin: Path | None,
) -> list[Job]:
    """All runs, without repeats."""
    from energysim.errors import InputError
    from energysim.train.job import Job
    from energysim.train.weights import Weights

    weights = None if begin is None else Weights.load(begin)
    jobs = [
        Job(network, images, recipe, seed, backend, weights)
        for network in networks
        for seed in seeds
    ]
    hashes: dict[str, str] = {}
    for job in jobs:
        own = job.described["network_sha256"]
        if hashes.setdefault(job.network.name, own) != own:
            raise InputError(
                f"two different networks are named {job.network.name!r}, so that nobody can tell"
                " their rows apart. Give one another name"
            )
    return list({job.name: job for job in jobs}.values())


def _controls(
    networks: Sequence[Network], plain: Sequence[Network], recipe: Recipe
) -> list[tuple[Recipe, Network]]:
    """Batch norms to run beside mixture norms, which widen what they give: as wide at first.

    How much of what a mixture norm gains comes from that alone, nobody can tell without.
    """
    from energysim.network import MixtureLayer

    found = []
    for network, other in zip(networks, plain, strict=True):
        norms = [layer.mixture for layer in network.layers if isinstance(layer, MixtureLayer)]
        if norms:
            gain = max(norm.gain for norm in norms)
            found.append((recipe.control(gain), other.with_batch_norm()))
    return found


def _refuse_beside(
    controls: Sequence[object], begin: Path | None, attacks: Sequence[object]
) -> None:
    """Refuse what can't be done with mixture norms and their controls, before anything runs.

    Raises
    ------
    UsageError
        If weights to begin with, or attacks, are asked for.
    """
    if controls and begin is not None:
        raise click.UsageError(
            "--begin is for networks with batch norms: the control that runs beside mixture norms"
            " has other weights. Leave it out"
        )
    if controls and attacks:
        raise click.UsageError(
            "--attack is for networks with batch norms: posteriors of mixture norms depend on the"
            " image, and no gradient passes through them. Leave it out"
        )


def _rows_of(attempts: Sequence[Attempt]) -> list[Row]:
    """Rows of the runs that came to something, with the first scale of their norms."""
    return [
        each.row | {"gamma": each.job.recipe.gamma} for each in attempts if each.row is not None
    ]


# -- what is said ----------------------------------------------------------------------------------


def _say_data(images: Dataset, recipe: Recipe) -> None:
    from energysim.cli.render import say
    from energysim.train.recipe import Augment

    drawn = ", SYNTHETIC: drawn by a program, tells nothing of real images"
    size = " x ".join(map(str, images.shape))
    say(
        f"data: {images.layout}; {len(images.train):,} images to train on, {len(images.test):,} to"
        f" test, {size}, {len(images.classes)} classes{drawn if images.synthetic else ''}"
    )
    for note in images.notes:
        say(f"  {note}")
    late = [each for each in recipe.milestones if each >= recipe.epochs]
    if late:
        say(f"  {recipe.epochs} epochs never reach the milestones {late}")
    changed = recipe.augmentation(images)
    if recipe.augment is Augment.AUTO:
        how = "cropped and flipped at random" if changed.padding else "not changed"
        say(f"  training images are {how} (--augment)")


def _say_controls(controls: Sequence[tuple[Recipe, Network]]) -> None:
    from energysim.cli.render import say

    for recipe, network in controls:
        how = "" if recipe.gamma is None else f" that scale by {recipe.gamma:.4g} at first"
        say(f"control beside the mixture norms: {network.name} with batch norms{how}")


def _say_plans(jobs: Sequence[Job]) -> None:
    """Say how each layer of each network is computed."""
    from energysim.cli.render import say
    from energysim.train.model import Model

    for network in {job.network.name: job.network for job in jobs}.values():
        say(f"{network.name}:")
        batch = max(1, jobs[0].recipe.batch // jobs[0].recipe.shards)
        for name, plan in Model.of(network, batch=batch).plans.items():
            say(f"  {name}: {plan}")


class _Show:
    """What a user sees of runs on their way: a line an epoch, and on a terminal a bar.

    Parameters
    ----------
    jobs : sequence of Job
    bar : rich.progress.Progress or None
    quiet : bool
    """

    def __init__(self, jobs: Sequence[Job], bar: Any, *, quiet: bool) -> None:
        self.many, self.bar, self.quiet = len(jobs), bar, quiet
        self.number = 0
        self.called = ""
        """what a run is called, in place of its network"""
        self.task: Any = None

    def begin(self, job: Job) -> None:
        """A run begins."""
        if self.bar is not None:
            self.task = self.bar.add_task(self._words(job), total=None)

    def tell(self, tick: Tick) -> None:
        """A step or an epoch is over."""
        if self.bar is not None:
            done = (tick.epoch - 1) * tick.steps + tick.step
            total = tick.job.recipe.epochs * tick.steps
            words = f"{self._words(tick.job)} epoch {tick.epoch}, {tick.speed:,.0f} images/s"
            self.bar.update(self.task, completed=done, total=total, description=words)
        if tick.record is None or self.quiet:
            return
        record = tick.record
        held = record.get("validation_top1")
        checked = "" if held is None else f"held out {held:.2%}, "
        self._say(
            f"{self._words(tick.job)} epoch {tick.epoch}/{tick.job.recipe.epochs}: loss"
            f" {record['train_loss']:.3f}, train {record['train_top1']:.2%}, {checked}"
            f"test {record['test_top1']:.2%}, {record['images_per_second']:,.0f} images/s"
        )

    def strike(self, news: Strike) -> None:
        """A batch of images was attacked, or all of them were."""
        from energysim.cli.robustness import struck_words

        words = f"{self._words(news.job)} {struck_words(news)}"
        if self.bar is not None:
            if self.task is None:
                self.task = self.bar.add_task("", total=None)
            self.bar.update(self.task, completed=news.done, total=news.images, description=words)
        if news.record is not None and not self.quiet:
            self._say(words)

    def end(self, attempt: Attempt) -> None:
        """A run is over, or needed none."""
        from energysim.train.run import BusyError

        self.number += 1
        if self.bar is not None and self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
        if isinstance(attempt.problem, BusyError):
            self._say(f"note: {attempt.problem}; the same command again shows what it finds")
        elif attempt.problem is not None:
            self._say(f"Error: {attempt.problem}")
        elif attempt.skipped and not self.quiet:
            self._say(f"{attempt.job.network.name} seed {attempt.job.seed}: done before")

    def over(self) -> None:
        """A run is over that others tell of."""
        if self.bar is not None and self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None

    def _words(self, job: Job) -> str:
        place = f"[{self.number + 1}/{self.many}] " if self.many > 1 else ""
        return f"{place}{self.called or job.network.name} seed {job.seed}"

    def _say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            click.echo(text, err=True)


@contextmanager
def progress_of_runs(jobs: Sequence[Job], *, quiet: bool) -> Iterator[_Show]:
    """Show runs on their way: a line an epoch, and on a terminal a bar."""
    if quiet or not sys.stderr.isatty():
        yield _Show(jobs, None, quiet=quiet)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    words = TextColumn("{task.description}", markup=False)
    bar = Progress(
        words, BarColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True,
        get_time=time.monotonic,
    )  # fmt: skip
    with bar:
        yield _Show(jobs, bar, quiet=quiet)


def _text(rows: Sequence[Row], target: options.Target) -> str:
    from energysim.cli.render import as_json, grid_text
    from energysim.train.record import COLUMNS, to_csv

    if target.form == "csv":
        return to_csv(rows, COLUMNS)
    if target.form == "json":
        more = ("layers", "robust")
        return as_json([{name: row[name] for name in (*COLUMNS, *more) if name in row}
                        for row in rows])  # fmt: skip
    return grid_text(_grid(rows), target)


def _grid(rows: Sequence[Row]) -> Grid:
    """One row a network and pattern; several seeds as mean and spread."""
    from energysim.cli.render import Column, Grid, numbers
    from energysim.train.grid import summary
    from energysim.units import COUNTS

    found = summary(rows)

    def figures(name: str, values: Sequence[float]) -> Column:
        column = numbers(name, values, COUNTS)
        return Column(column.heading, column.cells)

    columns = [
        Column("network", [row["network"] for row in found], right=False, narrow="cut"),
        Column("pattern", [row["pattern"] for row in found], right=False),
        Column("top-1 [%]", [_share(row, "top1") for row in found]),
    ]
    if any(row["top5"] is not None for row in found):
        columns.append(Column("top-5 [%]", [_share(row, "top5") for row in found]))
    if any(row["chosen_top1"] is not None for row in found):
        columns.append(Column("chosen [%]", [_share(row, "chosen_top1") for row in found]))
    if any(row["gamma"] is not None for row in found):
        scales = ["-" if row["gamma"] is None else f"{row['gamma']:.4g}" for row in found]
        columns.append(Column("gamma", scales))
    columns += [
        Column("seeds", [str(row["seeds"]) for row in found]),
        Column("epochs", [_range(row["epochs_least"], row["epochs"]) for row in found]),
        figures("parameters", [row["parameters"] for row in found]),
        figures("MACs", [row["macs"] for row in found]),
        figures("effective", [row["effective_macs"] for row in found]),
    ]
    first = found[0]
    footer = [f"after the last epoch, on {first['test_images']:,} test images"]
    if any(row["chosen_top1"] is not None for row in found):
        footer.append("chosen: after the epoch with the smallest loss on images held out")
    if any(row["seeds"] > 1 for row in found):
        footer.append("mean ± standard deviation over seeds")
    if any(row["gamma"] is not None for row in found):
        footer.append("gamma: what norms scale by at first")
    if first["synthetic"]:
        footer.append("SYNTHETIC images, drawn by a program: no evidence of real ones")
    notes = first["dataset_notes"]
    return Grid(
        tuple(columns),
        f"accuracy on {first['dataset']}" + (f" ({notes})" if notes else ""),
        tuple(footer),
    )


def _range(least: int, most: int) -> str:
    return str(most) if least == most else f"{least}-{most}"


def _share(row: Row, word: str) -> str:
    value, spread = row[word], row[f"{word}_std"]
    if value is None:
        return "-"
    return f"{100 * value:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")
