"""Options that commands share, with what a shell completes for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.shell_completion import CompletionItem

from energysim import catalog
from energysim.errors import EnergysimError, InputError, did_you_mean
from energysim.files import check_writable
from energysim.hardware import FormatWord
from energysim.mapper.dataflows import DATAFLOWS
from energysim.sparsity import PATTERNS

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

OBJECTIVES = ("energy", "dram", "latency", "edp")
"""What a search can minimise."""

PAIR = ("energy", "latency")
"""Two that can be traded for each other."""

FORMATS = ("table", "csv", "json", "md")
"""What can be printed."""

FILE_FORMATS = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".md": "md", ".html": "html"}
"""What can be written to a file, by the suffix of its name."""

SCAN = "levels.SRAM.capacity_kib=64:1024:x2 or pattern=dense,PS4_P4"
"""How a scan is written, for messages."""

MOST_IMAGES = 65_536
"""Largest batch."""


# -- completion -----------------------------------------------------------------------------------


def _starting(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    start = incomplete.lower()
    return [CompletionItem(word) for word in words if word.lower().startswith(start)]


def complete_words(words: Iterable[str]) -> Completer:
    """Complete one of a fixed list of words."""
    return lambda _ctx, _param, incomplete: _starting(words, incomplete)


def complete_names(*kinds: catalog.Kind) -> Completer:
    """Complete names of networks or hardware, or else paths."""

    def complete(
        _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        try:
            found = [item for kind in kinds for item in _starting(catalog.names(kind), incomplete)]
        except (EnergysimError, OSError):  # a broken file must not spill over the user's prompt
            found = []
        return found or [CompletionItem(incomplete, type="file")]

    return complete


# -- options --------------------------------------------------------------------------------------

network = click.option(
    "--net",
    "net",
    required=True,
    metavar="NAME",
    shell_complete=complete_names("nets"),
    help="Network: a name ('energysim list nets') or a .yaml or .onnx file.",
)
hardware = click.option(
    "--hw",
    "hw",
    required=True,
    metavar="NAME",
    shell_complete=complete_names("hw"),
    help="Hardware: a name ('energysim list hw') or a .yaml file.",
)
run_hardware = click.option(
    "--hw",
    "hw",
    metavar="NAME",
    shell_complete=complete_names("hw"),
    help="Hardware: a name ('energysim list hw') or a .yaml file.  [required but for --model]",
)
model = click.option(
    "--model",
    type=click.Choice(("counts", "yang2019", "systolic")),
    default="counts",
    show_default=True,
    help="Exact counts of the best mapping on --hw, or, for comparison, a closed form: the energy "
    "of Yang et al. 2019, with a machine of its own, or the cycles of SCALE-Sim on --hw's array.",
)
pattern = click.option(
    "--pattern",
    metavar="NAME",
    shell_complete=complete_words(PATTERNS),
    help="Lay a pattern of sparse kernels over a dense network ('energysim list patterns').",
)


masks = click.option(
    "--mask",
    "masks",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Give layers masks of their own, such as 'energysim prune' writes.",
)


norm = click.option(
    "--norm",
    metavar="batch|mixture:K",
    help="Put mixture norms of K Gaussians in the place of batch norms: mixture:3, or with one "
    "mixture of all channels mixture:3:vector.  [default: as the network file says]",
)


def names_given(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Read names with commas between, none if the option is not given.

    Raises
    ------
    BadParameter
        If there is nothing but commas.
    """
    if text is None:
        return ()
    words = tuple(filter(None, (word.strip() for word in text.split(","))))
    if not words:
        raise click.BadParameter(f"'{text}' gives no name")
    return words


patterns = click.option(
    "--patterns",
    callback=names_given,
    metavar="all|NAME,...",
    shell_complete=complete_words(("all", *PATTERNS)),
    help="Patterns of sparse kernels to lay over each dense network: names ('energysim list "
    "patterns'), N:M, or all of the papers.",
)
width = click.option(
    "--width",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="FACTOR",
    help="Make the network narrower or wider: a factor of the channels of all layers but the last, "
    "rounded to multiples of 8.",
)
side = click.option(
    "--input",
    "side",
    type=click.IntRange(1),
    metavar="PIXELS",
    help="Height and width of the image, in place of the network file's.",
)

classes = click.option(
    "--classes",
    type=click.IntRange(1),
    metavar="COUNT",
    help="Outputs of the last layer with weights, in place of the network file's.",
)


def _objective(metavar: str, more: str) -> Callable[[Decorated], Decorated]:
    return click.option(
        "--objective",
        "objectives",
        callback=lambda _ctx, _param, text: objectives_named(text),
        default="energy",
        show_default=True,
        metavar=metavar,
        shell_complete=complete_words(OBJECTIVES),
        help=f"What the mapping of each layer minimises: {', '.join(OBJECTIVES)} (energy times "
        f"delay).{more}",
    )


def _dataflow(more: str) -> Callable[[Decorated], Decorated]:
    return click.option(
        "--dataflow",
        metavar="NAME",
        shell_complete=complete_words(DATAFLOWS),
        help=f"Dataflow in place of the hardware's own ('energysim list dataflows'){more}.",
    )


objective = _objective(
    "NAME[,NAME]", " Two of the first three: every trade-off that no other beats."
)
one_objective = _objective("NAME", "")
dataflow = _dataflow("; all compares them")
one_dataflow = _dataflow("")
mapping = click.option(
    "--mapping",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Loop nests for some layers (YAML); the others are searched.",
)
residency = click.option(
    "--residency",
    type=click.Choice(("on", "off")),
    callback=lambda _ctx, _param, word: {"on": True, "off": False, None: None}[word],
    help="Keep what fits on chip between layers and inferences; else as the hardware file says.",
)
perfect = click.option(
    "--perfect",
    is_flag=True,
    help="Search only trip counts that divide, so that no piece is short.",
)
uneven = click.option(
    "--uneven/--no-uneven",
    default=True,
    show_default=True,
    help="Let each tensor of a level have its tile cut at a loop of its own.",
)
budget = click.option(
    "--budget",
    "budget_s",
    callback=lambda _ctx, _param, text: seconds(text),
    metavar="TIME",
    help="Stop the search after this long (10s, 2m) with the best found so far, and say how far "
    "from the optimum it may be; else it ends when the best is proved.",
)
no_cache = click.option(
    "--no-cache", is_flag=True, help="Search again what has been searched before, and keep nothing."
)
explain = click.option(
    "--explain",
    metavar="LAYER",
    help="Show the loop nest of one layer, what limits it, and the next best mappings.",
)
uncertainty = click.option(
    "--uncertainty",
    is_flag=True,
    help="Show the energy as an interval, from the ranges of the hardware's constants, and what "
    "each constant does to it; on the mappings found, not searched again.",
)
batch = click.option(
    "--batch",
    type=click.IntRange(1, MOST_IMAGES),
    default=1,
    show_default=True,
    help="Images processed together; figures are for all of them.",
)
activations = click.option(
    "--activations",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Densities of activations, CSV with columns layer, input_density and, if known, "
    "output_density: the shares that are not zero, for hardware that gates or codes them.",
)
phase = click.option(
    "--phase",
    type=click.Choice(("inference", "training")),
    default="inference",
    show_default=True,
    help="What to run: inference, or one iteration of training with momentum SGD (forward, "
    "gradients of inputs and weights, update).",
)
recompute = click.option(
    "--recompute-activations/--keep-activations",
    "recompute",
    default=False,
    help="In training, keep only what crosses from one segment of about sqrt(layers) layers to the "
    "next, and compute the rest again; else keep all that the backward pass reads.",
)
epoch_images = click.option(
    "--epoch-images",
    type=click.IntRange(1),
    metavar="COUNT",
    help="In training, images of an epoch.  [default: 50000, as CIFAR-10]",
)
weight_format = click.option(
    "--weight-format",
    type=click.Choice(("auto", *get_args(FormatWord))),
    default="auto",
    show_default=True,
    help="How weights are stored; auto takes the smallest that the hardware can decode.",
)
levels = click.option(
    "--levels",
    is_flag=True,
    help="Show memory levels, tensors and actions in place of layers.",
)
print_format = click.option(
    "--format",
    "print_format",
    type=click.Choice(FORMATS),
    help="What to print.  [default: table]",
)
output = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Write to a file; its suffix chooses the format: {' '.join(FILE_FORMATS)}.",
)
quiet = click.option("-q", "--quiet", is_flag=True, help="No notes and no progress bar.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Say which file each name stands for.")


network_file = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    callback=lambda _ctx, _param, path: network_path(path),
    metavar="FILE.yaml",
    help="Write the network to a file; masks go beside it, as FILE.npz.  [default: print it]",
)
open_batch = click.option(
    "--batch",
    type=click.IntRange(1, MOST_IMAGES),
    help="Images where the model leaves its batch open.  [default: 1]",
)
input_shapes = click.option(
    "--input-shape",
    "sizes",
    multiple=True,
    callback=lambda _ctx, _param, texts: dict(map(input_shape, texts)),
    metavar="NAME=1x3x224x224",
    help="Shape of an input of which the model leaves dimensions open.",
)
weights_sparsity = click.option(
    "--weights-sparsity", is_flag=True, help="Take the zeros of the weights as masks."
)
strict = click.option(
    "--strict", is_flag=True, help="Refuse a model of which anything that costs has no layer."
)


def network_path(path: Path | None) -> Path | None:
    """Take a path that a network file can have.

    Raises
    ------
    BadParameter
        If its suffix is another.
    """
    if path is not None and path.suffix not in (".yaml", ".yml"):
        raise click.BadParameter(f"'{path}' is no .yaml file, as those of networks are")
    return path


def input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read the shape of an input, such as ``image=1x3x224x224``.

    Raises
    ------
    BadParameter
        If it is none.
    """
    name, _, sizes = text.rpartition("=")
    numbers = sizes.split("x")
    if not name or not all(each.isascii() and each.isdigit() and int(each) for each in numbers):
        raise click.BadParameter(f"'{text}' is no shape. Allowed: image=1x3x224x224")
    return name, tuple(map(int, numbers))


def objectives_named(text: str) -> tuple[str, ...]:
    """Read one objective, or two with a comma between.

    Raises
    ------
    BadParameter
        If it is neither.
    """
    words = tuple(word.strip() for word in text.split(","))
    for word in words:
        if word not in OBJECTIVES:
            hint = did_you_mean(word, OBJECTIVES)
            raise click.BadParameter(f"'{word}' is not one of {', '.join(OBJECTIVES)}.{hint}")
    if len(words) > len(PAIR):
        raise click.BadParameter(f"{len(words)} objectives given; at most two can be traded")
    return words


def seconds(text: str | None) -> float | None:
    """Read a time such as ``10s``, ``1.5m`` or ``2h``; a bare number is seconds.

    Raises
    ------
    BadParameter
        If it is none.
    """
    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    digits, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        value = float(digits)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise click.BadParameter(f"'{text}' is no time. Allowed: 10s, 2m, 1.5h")
    return value * units[unit]


def refuse_overwriting(written: Iterable[Path], read: Iterable[Path | str | None]) -> None:
    """Refuse to write over what a command reads.

    Raises
    ------
    UsageError
        If a file is among both.
    """
    given = {Path(each).resolve() for each in read if each is not None}
    for path in written:
        if path.resolve() in given:
            raise click.UsageError(f"{path} is read by the same command: write to another file")


def together(*decorators: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """One decorator for several options, in the order of the help."""

    def decorate(function: Decorated) -> Decorated:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


run_options = together(
    network,
    run_hardware,
    objective,
    pattern,
    norm,
    masks,
    width,
    side,
    classes,
    mapping,
    dataflow,
    residency,
    batch,
    phase,
    recompute,
    epoch_images,
    weight_format,
    activations,
    perfect,
    uneven,
    budget,
    no_cache,
    explain,
    uncertainty,
    levels,
    model,
    print_format,
    output,
    quiet,
    verbose,
)
"""All options of ``run``."""


# -- where the output goes ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """Where the numbers go, and in which form."""

    form: str
    """one of ``FORMATS``, ``parquet`` or ``html``"""
    path: Path | None
    """a file, or None for stdout"""


def target(path: Path | None, given: str | None, suffixes: Iterable[str] = FILE_FORMATS) -> Target:
    """Find the format from ``-o`` and ``--format``; refuse, before any work, what can't be written.

    Parameters
    ----------
    path : Path or None
        Of ``-o``.
    given : str or None
        Of ``--format``.
    suffixes : iterable of str
        That the command can write, for the message where another one is given.

    Raises
    ------
    UsageError
        If the two disagree, the suffix says nothing, or the file can't be written.
    """
    if path is None:
        return Target(given or "table", None)
    refuse = partial(click.BadParameter, param_hint="'-o'")
    form = FILE_FORMATS.get(path.suffix.lower(), given)
    if form is None:
        known = ", ".join(suffixes)
        raise refuse(f"the suffix of '{path}' names no format. Known: {known}")
    if given is not None and given != form:
        raise refuse(f"'{path}' is written as {form}, but --format says {given}. Give one of them.")
    try:
        check_writable(path)
    except InputError as error:
        raise refuse(str(error)) from None
    return Target(form, path)
