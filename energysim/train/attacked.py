"""Accuracy of finished runs under attack: measured once each, added to the record of the run.

Of whatever was trained, by whichever back-end: the attack is computed in NumPy, on the weights that
the run has left. An interrupted measurement goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

from energysim.errors import InputError
from energysim.files import write_atomically
from energysim.train.attacks import Attack, Target, robust_batch
from energysim.train.data import Batch, Split, in_order
from energysim.train.engine import Score, cores, in_turn, one_blas_thread
from energysim.train.job import Job
from energysim.train.parameters import Layout
from energysim.train.record import WEIGHTS_FILE, Record, finished
from energysim.train.run import held, parted, write_record
from energysim.train.weights import Weights

AT_ONCE = 128
"""Images of a batch. Where restarts begin depends on it, so it is the same for all."""

UNFINISHED_ATTACK = "attack.json"
"""What is known so far of the attack that a run is under."""


@dataclass(frozen=True, slots=True)
class Strike:
    """News of a measurement."""

    job: Job
    attack: Attack
    done: int
    """images that were attacked"""
    images: int
    record: Record | None = None
    """when it is over"""


def accuracy_under_attack(
    job: Job,
    folder: Path,
    attacks: Sequence[Attack],
    *,
    images: int | None = None,
    threads: int | None = None,
    tell: Callable[[Strike], None] | None = None,
) -> Record:
    """Measure accuracy under attacks, as far as the record does not have it.

    Parameters
    ----------
    job : Job
    folder : Path
        Of the finished run.
    attacks : sequence of Attack
    images : int, optional
        The first so many test images; by default all.
    threads : int, optional
        By default as many as cores. Their number changes no result.
    tell : callable, optional
        Is told of every batch.

    Returns
    -------
    dict
        The record, with a line an attack under ``robust``: its settings, how many images, the share
        of them that is told right as they are (``clean_top1``) and after the attack
        (``robust_top1``). Where attacks begin is drawn from the seed of the run.

    Raises
    ------
    BusyError
        If another process works in the folder.
    InputError
        If the run is not finished, or its weights can't be read.
    KeyboardInterrupt
        When interrupted; says what is kept.
    """
    row = finished(folder)
    if row is None or row["job"] != job.described:
        raise InputError("is no finished run of this job", where=str(folder))
    known = {_key(each): each for each in row.get("robust", ())}
    many = min(images or len(job.data.test), len(job.data.test))
    wanted = {_key(settings(each, many)): each for each in attacks}
    missing = {key: attack for key, attack in wanted.items() if key not in known}
    if not missing:
        return row
    with held(folder), one_blas_thread():
        target, batches = _target(job, folder, many)
        for key, attack in missing.items():
            measurement = _Measurement(job, folder, attack, many, threads, tell)
            try:
                found = measurement.go(target, batches)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"{attack.name}: {measurement.done} of {many} images are kept in {folder}; the"
                    " same command goes on from there."
                ) from None
            known[key] = found
            row = row | {"robust": [known[each] for each in sorted(known)]}
            write_record(folder, row)
            (folder / UNFINISHED_ATTACK).unlink(missing_ok=True)
            if tell is not None:
                tell(Strike(job, attack, many, many, found))
    return row


def settings(attack: Attack, images: int) -> Record:
    """What decides the result of an attack on a run."""
    return {
        "attack": attack.name,
        "radius": attack.radius,
        "steps": attack.steps,
        "length": attack.step,
        "restarts": attack.restarts,
        "random_start": attack.drawn,
        "images": images,
    }


def _key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    words = ("radius", "steps", "length", "restarts", "random_start", "images")
    return tuple(record[word] for word in words)


class _Measurement:
    """An attack on a run, on its way."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        attack: Attack,
        images: int,
        threads: int | None,
        tell: Callable[[Strike], None] | None,
    ) -> None:
        self.job, self.attack, self.images, self.tell = job, attack, images, tell
        self.path = folder / UNFINISHED_ATTACK
        self.own = settings(attack, images) | {"run": job.name}
        self.threads = threads or cores()
        self.done = 0
        """images"""

    def go(self, target: Target, batches: Callable[[], Iterator[Batch]]) -> Record:
        """Attack what is left of the images."""
        begun, (clean, struck) = self._before()

        def strike(work: tuple[int, Batch]) -> tuple[Score, Score]:
            number, batch = work
            seed = self.job.seed
            still = robust_batch(target, batch, Attack(0.0), seed, number)
            return still, robust_batch(target, batch, self.attack, seed, number)

        works = islice(enumerate(batches()), begun, None)
        with ThreadPoolExecutor(self.threads) as pool:
            scores = in_turn(pool, self.threads, strike, works)
            try:
                for number, (still, hit) in enumerate(scores, start=begun + 1):
                    clean, struck = clean + still, struck + hit
                    self._keep(number, clean, struck)
                    self.done = struck.images
                    if self.tell is not None:
                        self.tell(Strike(self.job, self.attack, struck.images, self.images))
            except BaseException:
                target.stop.set()  # the pool waits for its threads, which may be at it for minutes
                raise
        loss = struck.loss / struck.images
        return settings(self.attack, self.images) | {
            "clean_top1": clean.first / clean.images,
            "robust_top1": struck.first / struck.images,
            "robust_loss": loss if isfinite(loss) else None,
        }

    def _before(self) -> tuple[int, tuple[Score, Score]]:
        """Batches that were attacked before an interruption, and their scores."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found["attack"] == self.own:
                return found["batches"], (Score(**found["clean"]), Score(**found["struck"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none, or of an earlier format: from the first on
        return 0, (Score(), Score())

    def _keep(self, batches: int, clean: Score, struck: Score) -> None:
        scores = {"clean": asdict(clean), "struck": asdict(struck)}
        text = json.dumps({"attack": self.own, "batches": batches} | scores)
        write_atomically(self.path, text)


def _target(job: Job, folder: Path, images: int) -> tuple[Target, Callable[[], Iterator[Batch]]]:
    """The trained network, and the images in batches."""
    data, _ = parted(job, job.generators()["held_out"])
    vector, running = Weights.load(folder / WEIGHTS_FILE).fitted(job.network)
    weights = Layout.of(job.network).views(vector)
    some = Split(data.test.images[:images], data.test.labels[:images])
    target = Target.of(job.network, weights, running, data)
    return target, lambda: in_order(data, some, AT_ONCE, read=job.read)
