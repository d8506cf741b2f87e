"""A run of training from the first step, or from where it was interrupted, to its record."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from energysim.errors import EnergysimError, InputError
from energysim.files import UNFINISHED, write_atomically
from energysim.sparsity.maskfile import mask_file
from energysim.train.attacks import Adversary, Attack
from energysim.train.checkpoint import Checkpoint, write_arrays
from energysim.train.data import Batch, Dataset, Split, batches, in_order
from energysim.train.engine import LIVE, Engine, Score, Trainer, check_zeros, one_blas_thread
from energysim.train.job import NUMPY, TORCH_BF16, Job
from energysim.train.model import Watch
from energysim.train.record import (
    CHECKPOINT,
    COLUMNS,
    DENSITIES,
    LOG,
    MASKS,
    ROBUST_COLUMNS,
    ROBUST_TABLE,
    ROW,
    TABLE,
    WEIGHTS_FILE,
    Outcome,
    Record,
    densities_csv,
    densities_of,
    epoch_record,
    finished,
    layer_records,
    log_text,
    robust_rows,
    row_of,
    rows_in,
    to_csv,
)
from energysim.train.rewire import declined
from energysim.train.weights import Weights

if TYPE_CHECKING:
    from energysim.train.engine import State
    from energysim.train.torch_engine import TorchEngine

AT_ONCE = 128
"""Images of a batch of which accuracy is measured."""

WATCHED = 1000
"""Test images, from the first, on which densities of activations are measured."""

LOCK = "lock"

SMALLER = "Try a smaller one, or warm-up"
WHICH = {"train": "training images", "validation": "images held out", "test": "test images"}


class DivergedError(EnergysimError):
    """The loss is no number any more."""

    exit_code = 3


class BusyError(EnergysimError):
    """Another process works on the same run."""


@dataclass(frozen=True, slots=True)
class Tick:
    """News of a run."""

    job: Job
    epoch: int
    """from 1"""
    step: int
    """finished steps of the epoch"""
    steps: int
    loss: float
    """of the last step [nat]"""
    speed: float
    """images a second, so far in this epoch"""
    record: Record | None = None
    """of the epoch, when it is over"""


Tell = Callable[[Tick], None]


def train(
    job: Job,
    folder: Path | None = None,
    *,
    threads: int | None = None,
    device: str = "cpu",
    tell: Tell | None = None,
) -> Outcome:
    """Train a network, or go on where the run in the folder was interrupted.

    Parameters
    ----------
    job : Job
    folder : Path, optional
        Of this run alone: holds the checkpoint of the last epoch, then the record. Without one
        nothing is written.
    threads : int, optional
        By default as many as shards and cores. Their number changes no result.
    device : str
        For the back-ends in PyTorch: ``cpu`` or ``cuda``.
    tell : callable, optional
        Is told of every step and epoch.

    Returns
    -------
    Outcome
        Bit by bit the same, however often the run was interrupted.

    Raises
    ------
    DivergedError
        If the loss is no number any more; says at which step.
    BusyError
        If another process works in the folder.
    InputError
        If network and images don't fit together, or the folder can't be used.
    KeyboardInterrupt
        When interrupted; says what is kept.
    """
    with held(folder), one_blas_thread():
        run = _Run(job, folder, threads, device, tell or (lambda _: None))
        try:
            run.go()
            outcome = run.outcome()
            if folder is not None:
                _write(folder, job, outcome)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(run.kept()) from None
        return outcome


class _Run:
    """A run on its way."""

    def __init__(
        self, job: Job, folder: Path | None, threads: int | None, device: str, tell: Tell
    ) -> None:
        self.job, self.tell = job, tell
        self.generators = job.generators()
        self.data, self.held = parted(job, self.generators["held_out"])
        self.augmentation = job.augmentation
        self.engine = _engine(job, self.generators, self.data, threads, device)
        if job.begin is not None:
            self.engine.load(_beginning(job.begin, self.engine, job))
            self.engine.settle()
        self.records: tuple[Record, ...] = ()
        self.path = folder / CHECKPOINT if folder is not None else None
        if self.path is not None and self.path.exists():
            self._resume(Checkpoint.load(self.path, job.identity))

    def go(self) -> None:
        """Train what is left of the epochs."""
        while not self._over():
            self.records += (self._epoch(len(self.records)),)
            if self.path is not None:
                self._checkpoint().save(self.path)
                write_atomically(self.path.with_name(LOG), log_text(self.records))

    def kept(self) -> str:
        """What an interruption leaves."""
        done, of = len(self.records), self.job.recipe.epochs
        if self.path is None:
            return f"epoch {done + 1} of {of} was not finished, and nothing is kept."
        if not done:
            return f"the first of {of} epochs was not finished, so nothing of this run is kept."
        return (
            f"{done} of {of} epochs are kept in {self.path.parent}; the same command goes on"
            " from there."
        )

    def outcome(self) -> Outcome:
        """What the run came to."""
        job, state = self.job, self.engine.state()
        check_zeros(job.network, state.weights, state.memory.get(LIVE))
        measure = _numpy_engine(self.engine, job, state)
        watch = Watch()
        first = Split(self.data.test.images[:WATCHED], self.data.test.labels[:WATCHED])
        measure.evaluate(self._in_order(first), watch=watch)
        views = measure.model.layout.views(state.weights)
        masks = measure.masks()
        network = job.network.with_masks(masks) if masks else job.network
        return Outcome(
            row_of(job, self.records, self.engine.name, network),
            self.records,
            densities_of(watch),
            Weights.of(job.network, views, state.running).arrays,
            masks,
            layer_records(network) if masks else (),
        )

    def _over(self) -> bool:
        """Whether all epochs are done, or the loss on held out images has stopped to fall."""
        patience = self.job.recipe.stop_after
        if len(self.records) >= self.job.recipe.epochs:
            return True
        losses = [each["validation_loss"] for each in self.records] if patience else []
        return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])

    def _epoch(self, epoch: int) -> Record:
        recipe, engine = self.job.recipe, self.engine
        watched = "train_loss" if self.held is None else "validation_loss"
        losses = tuple(each[watched] for each in self.records)
        steps = -(-len(self.data.train) // recipe.batch)
        total, lr = Score(), 0.0
        moved = self._rewired(epoch)
        began = time.perf_counter()
        for step, shards in enumerate(self._batches()):
            lr = recipe.learning_rate(epoch, step, steps, losses)
            got = engine.step(shards, lr)
            if not isfinite(got.loss):
                raise DivergedError(
                    f"{self.job.network.name}: the loss is {got.loss / got.images} at step"
                    f" {step + 1} of epoch {epoch + 1}, with a learning rate of {lr:g}. {SMALLER}"
                )
            total += got
            speed = total.images / (time.perf_counter() - began)
            self.tell(Tick(self.job, epoch + 1, step + 1, steps, got.loss / got.images, speed))
        speed = total.images / (time.perf_counter() - began)
        scores = {"train": total}
        if self.held is not None:
            scores["validation"] = engine.evaluate(self._in_order(self.held))
        scores["test"] = engine.evaluate(self._in_order(self.data.test))
        for word, score in scores.items():
            if not isfinite(score.loss):
                raise DivergedError(
                    f"{self.job.network.name}: the loss on the {WHICH[word]} is {score.loss} after"
                    f" epoch {epoch + 1}, with a learning rate of {lr:g}. {SMALLER}"
                )
        record = epoch_record(epoch + 1, lr, speed, scores) | moved
        loss = total.loss / total.images
        self.tell(Tick(self.job, epoch + 1, steps, steps, loss, speed, record))
        return record

    def _rewired(self, epoch: int) -> Record:
        """Move live weights before an epoch, but for the first; what the log has of it.

        Before, and not after the one that is over: so accuracies are of networks as they were
        trained, and the last mask is one that an epoch was trained with.
        """
        how = self.job.recipe.rewire
        if how is None:
            return {}
        share, pruned = 0.0, 0
        if epoch:
            share = declined(how.share, epoch, self.job.recipe.epochs, how.decline)
            pruned = self.engine.rewire(share).pruned
        live = int(self.engine.state().memory[LIVE].sum(dtype=np.int64))
        return {"pruned_share": share, "moved_weights": pruned, "live_weights": live}

    def _in_order(self, split: Split) -> Iterator[Batch]:
        at_once = min(AT_ONCE, self.job.recipe.batch)
        return in_order(self.data, split, at_once, read=self.job.read)

    def _batches(self) -> Iterator[Any]:
        recipe, draw = self.job.recipe, self.generators
        return batches(
            self.data,
            draw["order"],
            recipe.batch,
            recipe.shards,
            changes=draw["changes"],
            augmentation=self.augmentation,
            read=self.job.read,
        )

    def _checkpoint(self) -> Checkpoint:
        words = ("order", "changes", "attacks")
        states = {word: self.generators[word].bit_generator.state for word in words}
        return Checkpoint(self.job.identity, self.engine.state(), states, self.records)

    def _resume(self, checkpoint: Checkpoint) -> None:
        self.engine.load(checkpoint.state)
        self.records = checkpoint.records
        for word, state in checkpoint.generators.items():
            self.generators[word].bit_generator.state = state


def parted(job: Job, rng: np.random.Generator) -> tuple[Dataset, Split | None]:
    """The images, and those held out of them."""
    if not job.recipe.validation:
        return job.data, None
    return job.data.split_validation(job.recipe.validation, rng)


def _engine(
    job: Job,
    draw: Mapping[str, np.random.Generator],
    data: Dataset,
    threads: int | None,
    device: str,
) -> Trainer:
    rng, how, wiring = draw["init"], job.recipe.adversarial, draw["wiring"]
    made: Engine | TorchEngine
    if job.backend == NUMPY:
        made = Engine(job.network, job.recipe, rng, threads=threads, wiring=wiring)
        layout, numbers = made.model.layout, made.state()
    else:
        from energysim.train.torch_engine import TorchEngine

        bf16 = job.backend == TORCH_BF16
        made = TorchEngine(job.network, job.recipe, rng, device=device, bf16=bf16, wiring=wiring)
        layout, numbers = made.layout, made.state()
    if how is not None:
        attack = Attack(how.radius, how.steps, how.length)
        views = layout.views(numbers.weights)
        made.adversary = Adversary.of(job.network, views, numbers.running, data, attack)
        made.attacks = draw["attacks"]
    return made


def _beginning(begin: Weights, engine: Trainer, job: Job) -> State:
    """The weights that a run begins with in place of drawn ones."""
    weights, running = begin.fitted(job.network)
    return replace(engine.state(), weights=weights, running=running)


def _numpy_engine(engine: Trainer, job: Job, state: State) -> Engine:
    """An engine in NumPy with the same weights, to look at what stands between layers."""
    if isinstance(engine, Engine):
        return engine
    made = Engine(job.network, job.recipe, np.random.default_rng(0))
    made.load(state)
    return made


@contextmanager
def held(folder: Path | None) -> Iterator[None]:
    """Keep other processes out of a folder.

    Raises
    ------
    BusyError
        If one is in it.
    """
    if folder is None:
        yield
        return
    make_folder(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(f"{folder}: another process works on this run") from None
    try:
        _sweep_up(folder)
        yield
    finally:
        lock.release()


def _sweep_up(folder: Path) -> None:
    """Remove what a process that was killed had begun to write; no other one is at work here."""
    for path in folder.glob(UNFINISHED):
        path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder for results, and those above it.

    Raises
    ------
    InputError
        If that can't be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"can't be made: {error.strerror}", where=str(folder)) from None


def _write(folder: Path, job: Job, outcome: Outcome) -> None:
    """Write the record; what says that the run is done comes last, then the checkpoint goes."""
    row = outcome.row
    images = min(WATCHED, row["test_images"])
    source = f"{row['network']} trained on {row['dataset']}, seed {row['seed']}, {images} images"
    write_atomically(folder / LOG, log_text(outcome.records))
    write_atomically(folder / DENSITIES, densities_csv(outcome.densities, source))
    write_arrays(folder / WEIGHTS_FILE, dict(outcome.weights))
    record = row | {"job": job.described}
    if outcome.masks:
        write_atomically(folder / MASKS, mask_file(outcome.masks))
        record |= {"layers": outcome.layers}
    write_record(folder, record)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def write_record(folder: Path, record: Record) -> None:
    """Write what says that a run is done."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / ROW, f"{text}\n")


# -- many runs -------------------------------------------------------------------------------------


def write_table(out: Path) -> Path:
    """Write the table of all finished runs of a folder, and that of attacks if there were any.

    Several processes may do so at once: each writes what all have finished.
    """
    path = out / TABLE
    with FileLock(out / LOCK):
        _sweep_up(out)
        rows = rows_in(out)
        write_atomically(path, to_csv(rows, COLUMNS))
        struck = robust_rows(rows)
        if struck:
            write_atomically(out / ROBUST_TABLE, to_csv(struck, ROBUST_COLUMNS))
    return path


def row_if_done(job: Job, out: Path) -> dict[str, Any] | None:
    """Row of a job that has been run in this folder of runs; None if it has not, or not whole."""
    row = finished(out / job.name)
    if row is None or row["job"] != job.described:
        return None
    (out / job.name / CHECKPOINT).unlink(missing_ok=True)  # of a process killed at its very end
    return row
