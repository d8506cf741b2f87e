"""Computing the blocks of a sweep, on one machine or many."""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any

import numpy as np

from energysim.cache import Cache
from energysim.errors import EnergysimError, InputError, MissingExtraError
from energysim.solve import program
from energysim.sweeps.evaluate import Block, Found, block_of, found_or_why, goal_of, run_at
from energysim.sweeps.plan import Plan
from energysim.sweeps.store import Blocks

Tell = Callable[[int], None]
"""Called with the number of points that were just finished."""

Finished = Iterator[tuple[int, Block]]
"""Numbers of finished blocks, and what is in them."""

TOGETHER = 8
"""Blocks of a design that one worker does after one search."""

AHEAD = 2
"""Tasks that wait for each worker, beside the one it works on."""

DEATHS = 5
"""Workers that may die one after the other without a task finished between."""


class WorkersError(EnergysimError):
    """Worker processes keep dying, or a cluster is lost."""


class InterruptedSweep(KeyboardInterrupt):
    """Ctrl-C during a sweep; says how much is kept."""


class Worker:
    """Computes blocks; remembers the design of the last one, whose search it need not repeat."""

    def __init__(self, plan: Plan, cache: Cache | None) -> None:
        self.plan, self.cache = plan, cache
        self._last: tuple[int, Found | str] | None = None

    def block(self, number: int) -> Block:
        """Figures of a block."""
        design = number // self.plan.parts
        if self._last is None or self._last[0] != design:
            self._last = (design, found_or_why(self.plan, design, self.cache))
        return block_of(self.plan, number, self._last[1])


def compute(
    plan: Plan,
    store: Blocks,
    *,
    cache: Cache | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    tell: Tell | None = None,
) -> None:
    """Compute the blocks that the store lacks.

    Parameters
    ----------
    plan : Plan
    store : Blocks
        Gets each block when it is finished; several processes may work on one.
    cache : Cache, optional
        Of mappings; not used on a cluster.
    workers : int
        Processes. Their number changes no result.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers are used instead.
    tell : callable, optional
        Is told of points that are finished, those found in the store first.

    Raises
    ------
    StoreError
        If a block can't be kept.
    WorkersError
        If workers keep dying.
    InterruptedSweep
        When interrupted.
    """
    say = tell or (lambda _: None)
    done = store.done()
    say(sum(len(plan.rows(number)) for number in sorted(done)))
    tasks = _tasks(plan, done)
    source: Any
    try:
        if scheduler is not None:
            source = _by_dask(plan, tasks, scheduler)
        elif workers > 1 and len(tasks) > 1:
            source = _by_processes(plan, cache, tasks, min(workers, len(tasks)))
        else:
            source = _alone(plan, store, cache, tasks)
        with closing(source):
            for number, block in source:
                store.put(number, block)
                say(len(plan.rows(number)))
    except KeyboardInterrupt:
        kept = sum(len(plan.rows(number)) for number in store.done())
        there = (
            f"kept in {store.where}; the same command goes on from there"
            if store.where
            else "lost: no store was named"
        )
        raise InterruptedSweep(f"{kept:,} of {plan.points:,} points are {there}.") from None


def _tasks(plan: Plan, done: set[int]) -> list[list[int]]:
    """Missing blocks, some of the same design together, since they share its search."""
    tasks: list[list[int]] = []
    for number in range(plan.blocks):
        if number in done:
            continue
        last = tasks[-1] if tasks else [number - plan.parts]
        if last[0] // plan.parts == number // plan.parts and len(last) < TOGETHER and tasks:
            last.append(number)
        else:
            tasks.append([number])
    return tasks


def _alone(plan: Plan, store: Blocks, cache: Cache | None, tasks: Sequence[list[int]]) -> Finished:
    """Blocks one after the other; what another process did meanwhile is not done again.

    Whoever comes second begins elsewhere, so that two on one store seldom do the same.
    """
    start = random.SystemRandom().randrange(len(tasks)) if tasks and store.done() else 0
    worker = Worker(plan, cache)
    for task in [*tasks[start:], *tasks[:start]]:
        done = store.done(task[0], task[-1])
        for number in task:
            yield number, store.get(number) if number in done else worker.block(number)


# -- processes -------------------------------------------------------------------------------------

_worker: Worker | None = None


def _begin(plan: Plan, cache: Cache | None) -> None:
    global _worker  # noqa: PLW0603 - one a process, as the pool has it
    Thread(target=_leave_with_parent, daemon=True).start()
    _worker = Worker(plan, cache)


def _leave_with_parent() -> None:
    """End this process when the one that began it was killed: no one else would."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(task: list[int]) -> list[Block]:
    assert _worker is not None
    return [_worker.block(number) for number in task]


def _by_processes(
    plan: Plan, cache: Cache | None, tasks: Sequence[list[int]], workers: int
) -> Finished:
    """Blocks as they are finished; a worker that dies is replaced and its blocks done again."""
    left, deaths = deque(tasks), 0
    while left:
        flying: dict[Future[list[Block]], list[int]] = {}
        pool = ProcessPoolExecutor(
            workers, get_context("spawn"), initializer=_begin, initargs=(plan, cache)
        )
        try:
            while left or flying:
                while left and len(flying) < workers * (1 + AHEAD):
                    # taken off only when it is under way: a broken pool refuses it
                    flying[pool.submit(_work, left[0])] = left[0]
                    left.popleft()
                finished, _ = wait(flying, return_when=FIRST_COMPLETED)
                for future in sorted(finished, key=lambda each: flying[each]):
                    blocks = future.result()
                    yield from zip(flying.pop(future), blocks, strict=True)
                    deaths = 0
        except BrokenProcessPool:
            left.extendleft(sorted(flying.values(), reverse=True))
            deaths += 1
            if deaths > DEATHS:
                raise WorkersError(
                    f"worker processes died {deaths} times in a row, such as for want of memory."
                    " What was computed is kept; try fewer --workers. (A script that calls sweep()"
                    " with workers does so under: if __name__ == '__main__')"
                ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


# -- a cluster -------------------------------------------------------------------------------------


def _remote(plan: Plan, task: list[int], ours: str) -> list[Block]:
    """Blocks of one design on a machine of a cluster; its folder of mappings is not ours.

    Raises
    ------
    WorkersError
        If the machine has another energysim, which may count otherwise.
    """
    if program() != ours:
        raise WorkersError("a worker has another version of energysim than this machine")
    worker = Worker(plan, None)
    return [worker.block(number) for number in task]


def _by_dask(plan: Plan, tasks: Sequence[list[int]], address: str) -> Finished:
    """Blocks as a cluster finishes them; what a lost worker had is done by another."""
    try:
        distributed: Any = import_module("distributed")
    except ImportError:
        raise MissingExtraError(
            "--scheduler needs Dask, which is not installed: pip install 'energysim[distributed]'"
        ) from None
    try:
        client = distributed.Client(address, timeout=10)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}). Start one with"
            " 'dask scheduler', and workers with 'dask worker ADDRESS'"
        ) from None
    with closing(client):
        threads = sum(client.nthreads().values())
        if not threads:
            raise InputError(
                f"the Dask scheduler at {address} has no workers. Start some with"
                f" 'dask worker {address}', where energysim is installed"
            )
        there = client.scatter(plan, broadcast=True)
        left, flying = deque(tasks), dict[Any, list[int]]()
        running = distributed.as_completed()
        while left or flying:
            while left and len(flying) < threads * (1 + AHEAD):
                task = left.popleft()
                # not pure: who asks again wants it computed again
                future = client.submit(_remote, there, task, program(), pure=False, retries=DEATHS)
                flying[future] = task
                running.add(future)
            future = next(running)
            try:
                blocks = future.result()
            except Exception as error:  # noqa: BLE001 - whatever happened on another machine
                raise WorkersError(
                    f"the cluster at {address} failed: {type(error).__name__}: {error}. What was"
                    " computed is kept"
                ) from None
            yield from zip(flying.pop(future), blocks, strict=True)


# -- how good the kept mappings are ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """Points that were searched anew."""

    points: int
    worst: float
    """largest excess of the table by the objective, as a share"""


def check(plan: Plan, store: Blocks, many: int, *, cache: Cache | None = None) -> Check:
    """Search some points anew and see how far the table is above.

    Parameters
    ----------
    plan : Plan
    store : Blocks
        All of them.
    many : int
        Points, drawn with a fixed seed among those that were not searched.
    """
    worst, found = 0.0, 0
    drawn = np.random.default_rng(0).integers(0, plan.points, 10 * many)
    for point in dict.fromkeys(drawn.tolist()):
        if found == many:
            break
        design, within = divmod(point, plan.numbers)
        if np.isin(plan.settled(np.array([within])), plan.anchors()).all():
            continue
        block = plan.block(point)
        figures = store.get(block).values[point - plan.rows(block).start]
        if np.isnan(figures[0]):
            continue
        here = run_at(plan.design(design, within), cache)
        objective = here.settings.objective
        best = here.total(objective)
        worst = max(worst, goal_of(figures, objective) / best - 1 if best else 0.0)
        found += 1
    return Check(found, worst)
