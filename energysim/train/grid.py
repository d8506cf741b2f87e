"""Many runs of training in one folder: each once, whoever works on it and however often."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from energysim.errors import EnergysimError, InputError
from energysim.train.attacked import Strike, accuracy_under_attack
from energysim.train.attacks import Attack
from energysim.train.job import Job
from energysim.train.run import (
    BusyError,
    DivergedError,
    Tell,
    make_folder,
    row_if_done,
    train,
    write_table,
)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of a job."""

    job: Job
    row: Row | None
    """of the finished run"""
    problem: EnergysimError | None = None
    """why there is none"""
    skipped: bool = False
    """whether it had been run before"""


def run_all(
    jobs: Iterable[Job],
    out: Path,
    *,
    threads: int | None = None,
    device: str = "cpu",
    tell: Tell | None = None,
    begin: Callable[[Job], None] | None = None,
    attacks: Sequence[Attack] = (),
    attacked: int | None = None,
    struck: Callable[[Strike], None] | None = None,
) -> Iterator[Attempt]:
    """Run what has not been run, one after another, and keep the table of all up to date.

    Parameters
    ----------
    jobs : iterable of Job
    out : Path
        Folder of runs; each gets a folder of its own in it.
    threads, device, tell
        As for :func:`~energysim.train.run.train`.
    begin : callable, optional
        Is told of each job before it runs.
    attacks : sequence of Attack
        Accuracy under each is measured where the record of a run does not have it.
    attacked : int, optional
        On the first so many test images; by default on all.
    struck : callable, optional
        Is told of attacks.

    Yields
    ------
    Attempt
        In the order of the jobs. Runs that diverge, that another process works on or whose
        checkpoint is damaged are told and left out.

    Raises
    ------
    InputError
        If the folder can't be used.
    KeyboardInterrupt
        When interrupted; says what is kept.
    """
    make_folder(out)
    for job in jobs:
        row = row_if_done(job, out)
        if row is not None:
            attempt = Attempt(job, row, skipped=True)
        else:
            if begin is not None:
                begin(job)
            attempt = _attempt(job, out, threads, device, tell)
        if attacks and attempt.row is not None:
            attempt = _struck(attempt, out, attacks, attacked, threads, struck)
        yield attempt
        if attacks or not attempt.skipped:
            write_table(out)
    write_table(out)  # a process may have been killed between the end of a run and its table


def _attempt(job: Job, out: Path, threads: int | None, device: str, tell: Tell | None) -> Attempt:
    """Run a job."""
    try:
        train(job, out / job.name, threads=threads, device=device, tell=tell)
    except BusyError as error:
        row = row_if_done(job, out)  # in the meantime, by the other process
        return Attempt(job, row, None if row else error, skipped=row is not None)
    except (DivergedError, InputError) as error:
        return Attempt(job, None, error)
    return Attempt(job, row_if_done(job, out))


def _struck(
    attempt: Attempt,
    out: Path,
    attacks: Sequence[Attack],
    images: int | None,
    threads: int | None,
    tell: Callable[[Strike], None] | None,
) -> Attempt:
    """Measure accuracy of a finished run under attacks."""
    job = attempt.job
    try:
        row = accuracy_under_attack(
            job, out / job.name, attacks, images=images, threads=threads, tell=tell
        )
    except (BusyError, InputError) as error:
        return replace(attempt, problem=error)
    return replace(attempt, row=row)


def summary(rows: Iterable[Row]) -> list[Row]:
    """Mean and spread over seeds, a row a network, pattern, data set and recipe.

    Returns
    -------
    list of dict
        ``top1`` is the mean, ``top1_std`` the standard deviation (of a sample, n - 1; None for one
        seed), ``seeds`` their number; what is the same in all rows of a group stays.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    keys = ("network", "network_sha256", "dataset_sha256", "recipe_sha256")
    for row in rows:
        backend = row["backend"].split()[0]  # its version makes no other network
        groups.setdefault((backend, *(row[key] for key in keys)), []).append(row)
    return [_averaged(group) for group in groups.values()]


def _averaged(group: list[Row]) -> Row:
    found = dict(group[0]) | {"seeds": len(group)}
    found["epochs_least"] = min(row["epochs"] for row in group)
    found["epochs"] = max(row["epochs"] for row in group)
    # where masks are drawn or learnt, they differ from seed to seed
    for word in ("parameters", "effective_macs"):
        found[word] = round(mean(row[word] for row in group))
    for word in ("top1", "top5", "best_top1", "chosen_top1"):
        values = [row[word] for row in group if row[word] is not None]
        found[word] = mean(values) if values else None
        found[f"{word}_std"] = stdev(values) if len(values) > 1 else None
    return found
