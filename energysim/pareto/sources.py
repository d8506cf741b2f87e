"""Where accuracies come from: published ones, runs of the trainer, or a table of the user's.

Each row says which network it was measured on, so far as its source tells; :mod:`.join` refuses to
put it beside the cost of another.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from energysim import accuracy
from energysim.errors import InputError, InputErrors, did_you_mean
from energysim.files import read_text
from energysim.sparsity import get_pattern
from energysim.train.grid import summary
from energysim.train.record import COLUMNS, TABLE

PUBLISHED = "published"
"""Stands for the values of the source paper."""

METRICS = ("top1", "top5")

CIFAR10 = "CIFAR-10"

NEEDED, OPTIONAL = ("network", "pattern", "accuracy_percent"), ("std_percent",)
"""Columns of a table of the user's."""

FORM = f"Give a CSV with columns {', '.join(NEEDED)} and, if known, {OPTIONAL[0]}"

TINY_IMAGENET_NETWORKS = {
    "vgg16": "vgg16_tinyimagenet",
    "resnet18": "resnet18_tinyimagenet",
    "mobilenet_v2": "mobilenet_v2-64px-c200",
    "shufflenet_v2": "shufflenet_v2-64px-c200",
}
"""What the paper's networks are called where they read 64x64 pixels and tell 200 classes apart."""

_WHOLE = ("seed", "epochs", "parameters", "macs", "effective_macs", "classes")
_SHARES = ("top1", "top5", "best_top1", "chosen_top1")


@dataclass(frozen=True, slots=True)
class Measured:
    """What the network must be like that an accuracy was measured on; None where nobody tells."""

    parameters: int | None = None
    macs: int | None = None
    effective_macs: int | None = None
    effective_macs_about: float | None = None
    """the same as a figure of a paper gives it"""
    sha256: str | None = None
    """of its layers"""
    version: str = ""
    """of energysim, by which the hash was made"""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy of a network with a pattern."""

    network: str
    """to be loaded: a name or a path, with what differs from its file (``-x0.25``) behind it"""
    pattern: str
    percent: float
    std: float | None = None
    """over seeds, or as the user gives it [%]"""
    either_way: float | None = None
    """how far off it may be at most [%]"""
    seeds: int | None = None
    also: str = ""
    """another name that the network goes by"""
    where: str = ""
    """file and line, or run"""
    measured: Measured = field(default_factory=Measured)


@dataclass(frozen=True, slots=True)
class Accuracies:
    """Accuracies that can be put beside one another: of one data set and by one metric."""

    source: str
    """in words, with how well they are known"""
    name: str
    """of the source, in messages"""
    rows: tuple[Accuracy, ...]
    dataset: str = ""
    """empty where nobody tells"""
    metric: str = ""
    """``top1`` or ``top5``; empty where nobody tells"""
    others: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """why a network and pattern that the source knows is not among the rows"""
    notes: tuple[str, ...] = ()
    """what a reader should know about them"""

    @property
    def label(self) -> str:
        """Name of the axis, without its unit."""
        words = {"": "accuracy", "top1": "top-1 accuracy", "top5": "top-5 accuracy"}
        return words[self.metric]


def load_accuracies(
    source: str | Path, *, dataset: str | None = None, metric: str | None = None
) -> Accuracies:
    """Load accuracies.

    Parameters
    ----------
    source : str or Path
        ``published`` for those of the source paper, a folder of runs (``energysim train --out``) or
        its table of accuracies, or a CSV with a row a network and pattern.
    dataset : str, optional
        Of several that the source has; of the published ones CIFAR-10 by default.
    metric : str, optional
        ``top1`` or ``top5``; by default the one that most of the rows have.

    Raises
    ------
    InputError
        If there is no such source, data set or metric, or rows can't be told apart.
    InputErrors
        With everything that is wrong in a file.

    Examples
    --------
    >>> found = load_accuracies("published", dataset="tiny-imagenet")
    >>> found.metric, len(found.rows), found.rows[0].network
    ('top5', 26, 'vgg16_tinyimagenet')
    """
    if metric is not None and metric not in METRICS:
        raise InputError(f"the metric must be {' or '.join(METRICS)}, got {metric!r}")
    if str(source) == PUBLISHED:
        return _published(dataset, metric)
    path = Path(source)
    if path.is_dir():
        return _of_runs(path / TABLE, dataset, metric)
    if not path.exists():
        raise InputError(
            f"there is no {str(source)!r}. Accuracies are '{PUBLISHED}', a folder of runs "
            "(energysim train --out) or a CSV"
        )
    text = read_text(path)
    header = next((line for line in text.splitlines() if line.strip()), "")
    if {"top1", "recipe_sha256"} <= set(header.split(",")):
        return _of_runs(path, dataset, metric)
    for option, given in (("data set", dataset), ("metric", metric)):
        if given is not None:
            raise InputError(f"{path} says nothing of a {option}; leave it out")
    return _of_table(path, text)


def same_words(one: str, other: str) -> bool:
    """Whether two names of a data set are the same but for case, blanks and hyphens.

    Examples
    --------
    >>> same_words("Tiny ImageNet", "tiny-imagenet"), same_words("CIFAR-10", "CIFAR-100")
    (True, False)
    """
    return _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


def _of_dataset(asked: str, known: Iterable[str]) -> str:
    names = list(dict.fromkeys(known))
    found = [name for name in names if same_words(name, asked)]
    if not found:
        hint = did_you_mean(asked, names)
        raise InputError(f"no accuracy on a data set {asked!r}.{hint} Known: {', '.join(names)}")
    return found[0]


def _usual(metrics: Sequence[str]) -> str:
    """The metric that most have."""
    return max(METRICS, key=metrics.count)


# -- of the source paper ---------------------------------------------------------------------------


def _published(dataset: str | None, metric: str | None) -> Accuracies:
    every = accuracy.published()
    name = _of_dataset(dataset or CIFAR10, (row.dataset for row in every))
    rows = [row for row in every if row.dataset == name]
    chosen = metric or _usual([row.metric for row in rows])
    names = TINY_IMAGENET_NETWORKS if name != CIFAR10 else {}
    others = {
        (network, row.pattern): f"published as {row.metric} only, which can't stand beside {chosen}"
        f"; --metric {row.metric} shows it"
        for row in rows
        if row.metric != chosen
        for network in (row.network, names.get(row.network, row.network))
    }
    return Accuracies(
        f"published (Kundu et al. 2020, read off figures to {accuracy.READING_ERROR} %)",
        "the published results",
        tuple(
            Accuracy(
                names.get(row.network, row.network),
                row.pattern,
                row.percent,
                either_way=accuracy.READING_ERROR,
                also=row.network,
                measured=Measured(effective_macs_about=row.gmacs * 1e9),
            )
            for row in rows
            if row.metric == chosen
        ),
        name,
        chosen,
        others,
        ("published accuracies are of the best epoch on the test images, of one run each",),
    )


# -- of the trainer --------------------------------------------------------------------------------


def _of_runs(table: Path, dataset: str | None, metric: str | None) -> Accuracies:
    if not table.exists():
        raise InputError(
            f"there is no {TABLE} in it: no folder of runs (energysim train --out)",
            where=str(table.parent),
        )
    rows = _run_rows(table)
    known = list(dict.fromkeys(row["dataset"] for row in rows))
    if dataset is None and len(known) > 1:
        raise InputError(
            f"has accuracies on {len(known)} data sets, which can't be compared: "
            f"{', '.join(known)}. Choose one with --dataset",
            where=str(table),
        )
    name = _of_dataset(dataset, known) if dataset else known[0]
    rows = [row for row in rows if row["dataset"] == name]
    _one_kind(table, rows)
    chosen = metric or "top1"
    means = [each for each in summary(rows) if each[chosen] is not None]
    if not means:
        raise InputError(f"no run tells its {chosen}: there are too few classes", where=str(table))
    return Accuracies(
        f"runs of energysim train in {table.parent.name or table.parent}",
        str(table),
        tuple(_of_run(each, chosen, table) for each in means),
        name,
        chosen,
        notes=tuple(_run_notes(means, rows)),
    )


def _of_run(row: Mapping[str, Any], metric: str, table: Path) -> Accuracy:
    spread = row[f"{metric}_std"]
    return Accuracy(
        row["network"].removesuffix(f"+{row['pattern']}"),
        row["pattern"],
        100 * row[metric],
        None if spread is None else 100 * spread,
        seeds=row["seeds"],
        where=f"{table}: {row['run']}",
        measured=Measured(
            row["parameters"],
            row["macs"],
            row["effective_macs"],
            sha256=row["network_sha256"],
            version=row["energysim"],
        ),
    )


def _one_kind(table: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs that differ in more than the seed but can't be told apart in a plot."""
    kinds: dict[tuple[str, str], dict[tuple[str, ...], None]] = {}
    words = ("network_sha256", "dataset_sha256", "recipe_sha256")
    for row in rows:
        identity = (*(row[word] for word in words), row["backend"].split()[0])
        kinds.setdefault((row["network"], row["pattern"]), {})[identity] = None
    names = ("network", "images", "recipe", "back-end")
    problems = []
    for (network, _), found in kinds.items():
        if len(found) > 1:
            differ = [
                name for name, each in zip(names, zip(*found, strict=True), strict=True)
                if len(set(each)) > 1
            ]  # fmt: skip
            problems.append(
                f"{table}: {network} was trained in {len(found)} ways (they differ in "
                f"{', '.join(differ)}), whose mean would mean nothing. Keep them in folders of "
                "their own"
            )
    if problems:
        raise InputErrors(problems)


def _run_notes(means: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    recipes = {(row["recipe_sha256"], row["epochs"], row["backend"].split()[0]) for row in rows}
    if len(recipes) > 1:
        notes.append("networks were trained in different ways (recipe, epochs or back-end)")
    if any(row["synthetic"] for row in rows):
        notes.append("the images are synthetic: they tell nothing of real ones")
    single = sum(row["seeds"] == 1 for row in means)
    if single:
        notes.append(
            f"{single} of {len(means)} accuracies are of one seed, so that their spread is not "
            "known and they are taken as exact"
        )
    return notes


def _run_rows(table: Path) -> list[dict[str, Any]]:
    """Rows of ``accuracy.csv`` as the trainer had them."""
    lines = list(csv.reader(read_text(table).splitlines()))
    columns = lines[0] if lines else []
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise InputError(
            f"has no column {', '.join(missing)}: no table of energysim train", where=f"{table}:1"
        )
    rows, problems = [], []
    for number, cells in enumerate(lines[1:], start=2):
        try:
            rows.append(_typed(dict(zip(columns, cells, strict=True))))
        except ValueError as error:
            problems.append(f"{table}:{number}: {error}")
    if problems:
        raise InputErrors(problems)
    if not rows:
        raise InputError("has no finished run yet", where=str(table))
    return rows


def _typed(cells: Mapping[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = dict(cells)
    for name in _WHOLE:
        row[name] = int(cells[name])
    for name in _SHARES:
        row[name] = float(cells[name]) if cells[name] else None
        if row[name] is not None and not 0 <= row[name] <= 1:
            raise ValueError(f"{name} must be a share from 0 to 1, got {cells[name]!r}")
    row["synthetic"] = cells["synthetic"] == "True"
    return row


# -- of the user -----------------------------------------------------------------------------------


def _of_table(path: Path, text: str) -> Accuracies:
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise InputError(f"is empty. {FORM}", where=str(path))
    (first, header), *others = lines
    columns = _cells(header)
    _check_columns(columns, f"{path}:{first}")
    rows: list[Accuracy] = []
    problems: list[str] = []
    places: dict[tuple[str, str], str] = {}
    for number, line in others:
        where = f"{path}:{number}"
        try:
            row = _own_row(columns, _cells(line), where)
        except InputErrors as error:
            problems += error.problems
            continue
        key = row.network, row.pattern
        if key in places:
            problems.append(f"{where}: {' with '.join(key)} stands at {places[key]} already")
        places.setdefault(key, where)
        rows.append(row)
    if problems:
        raise InputErrors(problems)
    if not rows:
        raise InputError(f"has no row. {FORM}", where=str(path))
    return Accuracies(path.name, str(path), tuple(rows), notes=tuple(_table_notes(rows)))


def _table_notes(rows: Sequence[Accuracy]) -> Iterator[str]:
    best = max(row.percent for row in rows)
    if best <= 1:
        yield (
            f"no accuracy is above {best:g} %: if these are shares of 1, multiply them by 100, as "
            f"{NEEDED[-1]} is in percent"
        )


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line]))]


def _check_columns(columns: Sequence[str], where: str) -> None:
    allowed = (*NEEDED, *OPTIONAL)
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(columns) == 1 and mark in columns[0]:
            raise InputErrors([f"{where}: columns stand between {word}, not commas. {FORM}"])
    known = f" Allowed: {', '.join(allowed)}"
    problems = [
        f"{where}: no column named {name!r}.{did_you_mean(name, allowed) or known}"
        for name in columns
        if name not in allowed
    ]
    problems += [f"{where}: column {name!r} stands here twice" for name in allowed
                 if columns.count(name) > 1]  # fmt: skip
    missing = [name for name in NEEDED if name not in columns]
    if missing and not problems:
        problems.append(f"{where}: column {' and '.join(missing)} is missing. {FORM}")
    if problems:
        raise InputErrors(problems)


def _own_row(columns: Sequence[str], cells: Sequence[str], where: str) -> Accuracy:
    if len(cells) != len(columns):
        raise InputErrors([f"{where}: has {len(cells)} values for {len(columns)} columns"])
    row = dict(zip(columns, cells, strict=True))
    problems: list[str] = []
    if not row["network"]:
        problems.append(f"{where} network: must not be empty")
    pattern = row["pattern"] or "dense"
    try:
        pattern = get_pattern(pattern).name
    except InputError as error:
        problems.append(f"{where} pattern: {error}")
    percent = _percent(row["accuracy_percent"], f"{where} accuracy_percent", problems)
    spread = row.get("std_percent", "")
    std = _percent(spread, f"{where} std_percent", problems) if spread else None
    if problems:
        raise InputErrors(problems)
    return Accuracy(row["network"], pattern, percent, std, where=where)


def _percent(text: str, where: str, problems: list[str]) -> float:
    """Read a percentage; what is wrong with it goes to the problems."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:  # noqa: PLR2004 - percent
        given = repr(text) if text else "nothing"
        problems.append(f"{where}: must be a number from 0 to 100, got {given}")
    return value
