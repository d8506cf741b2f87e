"""``energysim compare-methods``: ways to make a network cheap, trained alike, counted alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from energysim.cli import options
from energysim.cli.pareto import PICTURES, TABLES
from energysim.cli.robustness import adversarial, attack_images, attacks_of
from energysim.cli.train import OWN, backend_options, check_backend, recipe_options, seeds_named
from energysim.cli.train import per_class as per_class_option
from energysim.errors import InputError
from energysim.units import COUNTS, PICOJOULES, heading, number, unit_for

if TYPE_CHECKING:
    from energysim.cli.render import Column, Grid
    from energysim.methods import Comparison, Failed, Method, Setting, Trained
    from energysim.train.data import Dataset
    from energysim.train.job import Job

X = ("energy", "latency", "training-energy", "parameters", "macs")
"""What accuracy can be set against; as the library has them, which takes long to import."""

METHODS = "dense,narrow,periodic,2:4,synflow,magnitude,random,tucker2"
FAILED = 3
"""Exit status where some method came to nothing."""


def _numbers(kind: type, what: str) -> Any:
    """Make a reader of numbers with commas between."""

    def read(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[Any, ...]:
        try:
            found = tuple(kind(word) for word in text.split(",") if word.strip())
        except ValueError:
            found = ()
        if not found or any(not 0 < each < float("inf") for each in found):
            raise click.BadParameter(
                f"'{text}' gives no {what}, such as {'1,8' if kind is int else '0.1,0.3'}"
            )
        return tuple(dict.fromkeys(found))

    return read


def _axes(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[str, ...]:
    """Read what accuracy is set against.

    Raises
    ------
    BadParameter
        If one is none.
    """
    from energysim.errors import did_you_mean

    words = options.names_given(_ctx, _param, text)
    for word in words:
        if word not in X:
            raise click.BadParameter(
                f"accuracy is set against no '{word}'.{did_you_mean(word, X)} Known: {', '.join(X)}"
            )
    return tuple(dict.fromkeys(words))


@click.command("compare-methods")
@options.network
@click.option(
    "--data",
    default="digits",
    show_default=True,
    metavar="NAME|PATH",
    help="Images to train on, as for 'energysim train'.",
)
@click.option(
    "--methods",
    default=METHODS,
    show_default=True,
    callback=options.names_given,
    metavar="NAME,...",
    help="dense, narrow (fewer channels), patterns (names, N:M, or periodic and psc for those of "
    "the papers), pruning before training (names as for 'energysim prune', or pruning for all), "
    "dnr and dnr_channels (rewired in training), tucker2 (low rank), other networks by name, or "
    "all. NAME@0.1 has a density of its own, of another network a width.",
)
@click.option(
    "--densities",
    default="0.1,0.3",
    show_default=True,
    callback=_numbers(float, "densities"),
    metavar="SHARE,...",
    help="Shares of the weights (of narrow and tucker2: of the parameters) that stay, for each "
    "method that needs one.",
)
@click.option(
    "--seed",
    "--seeds",
    "seeds",
    default="0-2",
    show_default=True,
    metavar="0|0,3|0-4",
    callback=seeds_named,
    help="A run each, for all methods.",
)
@click.option(
    "--hw",
    "machines",
    multiple=True,
    required=True,
    metavar="NAME|FILE",
    shell_complete=options.complete_names("hw"),
    help="Hardware, once for each: a name ('energysim list hw') or a .yaml file.",
)
@click.option(
    "--batches",
    default="1",
    show_default=True,
    callback=_numbers(int, "batches"),
    metavar="COUNT,...",
    help="Images processed together in use; costs are for one of them.",
)
@click.option(
    "--x",
    "axes",
    default="energy",
    show_default=True,
    callback=_axes,
    metavar="NAME,...",
    help=f"What accuracy is drawn against: {', '.join(X)}. training-energy, of the runs as they "
    "were, takes long to count.",
)
@click.option(
    "--first-seed",
    is_flag=True,
    help="Count the costs of the first seed's network alone, where those of other seeds differ.",
)
@click.option(
    "--shrink",
    is_flag=True,
    help="Count networks in use without the channels that do nothing, as 'energysim shrink' makes "
    "them; what they tell is the same.",
)
@options.width
@options.side
@click.option(
    "--recipe",
    "recipe_name",
    default="default",
    show_default=True,
    metavar="NAME|FILE",
    help="How to train, as for 'energysim train'. Options below override it.",
)
@recipe_options
@adversarial
@click.option(
    "--attack",
    "attack_word",
    metavar="fgsm:RADIUS|pgd:RADIUS",
    help="Measure accuracy on changed test images too, and draw it below. More behind it: "
    "pgd:8/255,steps=50,restarts=5,length=0.01",
)
@attack_images
@per_class_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    metavar="FOLDER",
    help="Where runs are kept, as of 'energysim train': what is done there is not run again, what "
    "was interrupted goes on.",
)
@click.option("--threads", type=click.IntRange(1), metavar="COUNT",
              help="Cores to use; changes no result.  [default: a core a shard]")  # fmt: skip
@backend_options
@options.one_objective
@options.one_dataflow
@options.residency
@options.no_cache
@options.print_format
@click.option(
    "-o",
    "--output",
    "outputs",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help=f"Draw ({', '.join(PICTURES)}) or write the table ({', '.join(TABLES)}) into a file; may "
    "be given more than once.",
)
@options.quiet
@click.pass_context
def command(
    context: click.Context,
    /,
    net: str,
    data: str,
    methods: tuple[str, ...],
    densities: tuple[float, ...],
    seeds: tuple[int, ...],
    machines: tuple[str, ...],
    batches: tuple[int, ...],
    axes: tuple[str, ...],
    width: float,
    side: int | None,
    recipe_name: str,
    adversarial: str | None,
    attack_word: str | None,
    attack_images: int | None,
    per_class: int | None,
    out: Path,
    threads: int | None,
    backend: str,
    device: str,
    objectives: tuple[str, ...],
    dataflow: str | None,
    residency: bool | None,
    print_format: str | None,
    outputs: tuple[Path, ...],
    *,
    first_seed: bool,
    shrink: bool,
    no_cache: bool,
    quiet: bool,
    **own: Any,
) -> None:
    """Compare ways to make a network cheap: accuracy against energy, all trained alike.

    Each method makes its network (SynFlow's masks, a periodic pattern, Tucker-2 ranks ...), which
    is trained by the same recipe and seeds and then counted by the same model on each --hw. Parameter
    count is not energy: the table has both, and MACs.

    \b
    Example:
      energysim compare-methods --net digits_cnn --hw edge_tpu --epochs 2 --seeds 0-1 --methods dense,PS2_P6,synflow@0.2
      energysim compare-methods --net digits_cnn --hw edge_tpu --epochs 2 --seed 0 --methods dense,2:4 --x energy,parameters -o methods.png -o methods.csv
    """  # noqa: D301, E501 - click's mark is a backspace
    from energysim.cache import Cache, folder
    from energysim.catalog import load_hardware
    from energysim.cli import render
    from energysim.methods import compare_trained, methods_named

    target, pictures = _targets(outputs, print_format)
    if len(objectives) > 1:
        raise click.UsageError("mappings take one objective")
    if dataflow == "all":
        raise click.UsageError("mappings have one dataflow")
    hardware = [load_hardware(name) for name in machines]
    _check_names(hardware)
    check_backend(backend, device, threads)
    asked = methods_named(methods, densities)
    own["adversarial"] = adversarial
    given = {key: own[key] for key in (*OWN, "adversarial") if own[key] is not None}
    attacks = attacks_of(() if attack_word is None else (attack_word,), attack_images)
    setting = _setting(net, data, per_class, (width, side), recipe_name, given, seeds, out, threads)
    setting = replace(setting, backend=backend, device=device, shrink=shrink)
    if attacks:
        setting = replace(setting, attack=attacks[0], attacked=attack_images)
    _refuse(asked, setting)
    found = _trained(asked, setting, quiet=quiet)
    with render.progress(visible=not quiet) as tell:
        comparison = compare_trained(
            found,
            setting.network,
            hardware,
            batches,
            training="training-energy" in axes,
            all_seeds=not first_seed,
            attack=setting.attack,
            cache=None if no_cache else Cache(folder()),
            progress=tell,
            objective=objectives[0],
            dataflow=dataflow,
            residency=residency,
        )
    for each in target:
        render.print_text(_text(comparison, each), each)
    for path in pictures:
        from energysim.plot.methods import methods_figure
        from energysim.plot.style import save

        save(methods_figure(comparison, axes), path)
    if not quiet:
        for path in (*(each.path for each in target if each.path is not None), *pictures):
            render.say(f"wrote {path} ({len(comparison.points)} methods)")
    for line in failed_lines(comparison.failed):
        render.say(f"left out: {line}")
    if comparison.failed:
        context.exit(FAILED)


def _trained(methods: Sequence[Method], setting: Setting, *, quiet: bool) -> list[Trained | Failed]:
    """Train all, with news of it on stderr."""
    from energysim.cli.train import progress_of_runs
    from energysim.methods import train_all

    found = []
    with progress_of_runs((), quiet=quiet) as show:

        def begin(method: Method, job: Job) -> None:
            show.called = method.label
            show.begin(job)

        for each in train_all(methods, setting, tell=show.tell, begin=begin, struck=show.strike):
            show.over()
            found.append(each)
    return found


def _targets(
    outputs: Sequence[Path], print_format: str | None
) -> tuple[list[options.Target], list[Path]]:
    """Where tables go, stdout if to no file, and where pictures do.

    Raises
    ------
    UsageError
        If a file can't be written, or has no suffix of one.
    """
    from energysim.plot.style import check_form

    pictures = [each for each in outputs if each.suffix.lower() in PICTURES]
    tables = [each for each in outputs if each not in pictures]
    for picture in pictures:
        check_form(picture)
    target = [options.target(each, None, (*TABLES, *PICTURES)) for each in tables]
    if not tables or print_format:
        target.insert(0, options.target(None, print_format))
    for each in target:
        if each.form not in options.FORMATS:
            allowed = ", ".join((*options.FORMATS, *PICTURES))
            raise click.UsageError(f"compare-methods gives no {each.form}; choose one of {allowed}")
    return target, pictures


def _check_names(hardware: Sequence[Any]) -> None:
    names = [each.name for each in hardware]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"two machines are named {name}: give one another name")


def _setting(
    net: str,
    data: str,
    per_class: int | None,
    size: tuple[float, int | None],
    recipe_name: str,
    given: dict[str, Any],
    seeds: tuple[int, ...],
    out: Path,
    threads: int | None,
) -> Setting:
    """What all methods have in common."""
    from energysim.cli.train import images_named, recipe_named
    from energysim.methods import Setting
    from energysim.network import Scale

    recipe = recipe_named(recipe_name, given)
    factor, side = size
    images: Dataset = images_named(data, [net], Scale(factor, side))
    if per_class is not None:
        images = images.subset(per_class=per_class)
    return Setting.of(
        net, images, recipe, seeds=seeds, out=out, scale=Scale(factor, side), threads=threads
    )


def _refuse(methods: Sequence[Method], setting: Setting) -> None:
    """Refuse what can't be, before anything is trained.

    Raises
    ------
    InputError
        If the network has a pattern, or can't be trained on the images.
    """
    from energysim.network import LayerKind
    from energysim.train.job import Job
    from energysim.train.model import refuse_untrainable

    network = setting.network
    if setting.recipe.rewire is not None and all(each.family != "rewiring" for each in methods):
        raise InputError(
            "the recipe rewires: only dnr and dnr_channels do that, each at densities of its own"
        )
    if setting.attack is not None and any(
        layer.kind == LayerKind.MIXTURE_NORM for layer in network.layers
    ):
        raise InputError(f"{network.name} has mixture norms: they can't be attacked")
    if network.pattern != "dense":
        raise InputError(
            f"{network.name} has pattern {network.pattern}: methods begin with a dense network"
        )
    others = [
        setting.load(each.name, each.width)
        for each in methods
        if each.family == "dense networks" and each.name not in ("dense", "narrow")
    ]
    for network in (setting.network, *others):
        refuse_untrainable(network)
        Job(network, setting.data, setting.recipe, 0, setting.backend)


# -- the table -------------------------------------------------------------------------------------


def failed_lines(failed: Sequence[Failed]) -> Iterator[str]:
    """One line for all seeds of a method that came to nothing for the same reason."""
    alike: dict[tuple[str, str], list[int]] = {}
    for each in failed:
        alike.setdefault((each.method.label, each.why), []).append(each.seed)
    for (label, why), seeds in alike.items():
        word = "seed" if len(seeds) == 1 else "seeds"
        yield f"{label}, {word} {', '.join(map(str, seeds))}: {why}"


def _text(found: Comparison, target: options.Target) -> str:
    from energysim.cli import render

    if target.form == "csv":
        return render.as_csv(found.rows())
    if target.form == "json":
        job = found.job
        about = {
            "network": found.network.name,
            "dataset": job.data.name,
            "synthetic": job.data.synthetic,
            "recipe": job.recipe.model_dump(mode="json") | {"rewire": None},
            "costs": "of the networks of all seeds, mean"
            if found.all_seeds
            else "of the first seed",
            "shrunk": _shrunk(found),
            "failed": list(failed_lines(found.failed)),
        }
        return render.as_json({"comparison": about, "methods": found.rows()})
    return render.grid_text(grid(found), target)


def grid(found: Comparison) -> Grid:
    """One row a method, by falling accuracy; an energy a machine and batch."""
    from energysim.cli.render import Column, Grid

    order = sorted(range(len(found.points)), key=lambda i: -found.points[i].percent)
    points = [found.points[i] for i in order]
    columns = [
        Column("method", [each.method.label for each in points], right=False, narrow="cut"),
        Column("top-1 [%]", [f"{each.percent:.2f}" for each in points]),
    ]
    if any(each.std is not None for each in points):
        columns.append(
            Column("±", ["-" if each.std is None else f"{each.std:.2f}" for each in points])
        )
    if found.attack:
        columns.append(Column("attacked [%]", [f"{each.robust_percent:.2f}" for each in points]))
    columns += [
        _figures("parameters", [each.parameters for each in points], COUNTS),
        _figures("effective MACs", [each.effective_macs for each in points], COUNTS),
        *_energies(found, order),
    ]
    return Grid(tuple(columns), _title(found), tuple(_footer(found)))


def _figures(name: str, values: Sequence[float], units: Any) -> Column:
    from energysim.cli.render import Column

    scale, unit = unit_for(values, units)
    return Column(heading(name, unit), [number(each, scale) for each in values])


def _energies(found: Comparison, order: Sequence[int]) -> Iterator[Column]:
    from energysim.cli.render import Column
    from energysim.methods import AXES

    many = len(found.hardware) * len(found.batches) > 1
    names = ["energy", *(["training-energy"] if found.trains else [])]
    for panel in found.panels([AXES[name] for name in names]):
        if panel.robust:
            continue
        costs = found.costs(panel)
        scale, unit = unit_for([each * 1e9 for each in costs], PICOJOULES)
        front = found.front(panel)
        cells = [f"{number(costs[i] * 1e9, scale)}{'*' if front[i] else ' '}" for i in order]
        word = panel.axis.name if panel.axis.name == "training-energy" else "energy"
        where = f" {panel.hardware}" if len(found.hardware) > 1 else ""
        batch = f" b{panel.batch}" if panel.batch and len(found.batches) > 1 else ""
        yield Column(heading(f"{word}{where}{batch}" if many else word, unit), cells)


def _title(found: Comparison) -> str:
    job = found.job
    batches = ", ".join(map(str, found.batches))
    return " · ".join(
        (
            f"{found.network.name} made cheap",
            job.data.name,
            f"{job.recipe.epochs} epochs",
            ", ".join(found.hardware),
            f"batch {batches}",
        )
    )


def _shrunk(found: Comparison) -> bool:
    """Whether channels that do nothing were left out of some network."""
    return any(run.small is not None for point in found.points for run in point.runs)


def _footer(found: Comparison) -> Iterator[str]:
    yield "* on the front of accuracy and that cost: nothing is as good by both and better by one"
    yield "accuracy: after the last epoch, on test images; energy: per image, best mappings"
    if found.attack:
        yield f"attacked: {found.attack}"
    if any(len(each.runs[0].jobs) > 1 for each in found.points):
        yield "tucker2: ranks and first weights are those of the dense network, trained before"
    if not found.all_seeds:
        yield "energy: of the first seed's network"
    if _shrunk(found):
        yield "costs in use: without channels that do nothing"
    if found.job.data.synthetic:
        yield "SYNTHETIC images, drawn by a program: no evidence of real ones"
    if max(len(each.runs) for each in found.points) == 1:
        yield "one seed: differences may be chance"
