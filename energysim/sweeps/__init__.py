"""Many designs at once: any field of hardware, network and run, as one tidy table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from energysim.cache import Cache
from energysim.hardware import Hardware
from energysim.network import Network
from energysim.solve import program
from energysim.sweeps.plan import Plan, SweepSpec, load_plan, plan_of
from energysim.sweeps.run import Tell, check, compute
from energysim.sweeps.store import Memory, Store
from energysim.sweeps.table import Sweep
from energysim.version import VERSION
from energysim.yamlio import validated

__all__ = ["Plan", "Store", "Sweep", "SweepSpec", "load_plan", "plan_of", "sweep", "swept"]


def sweep(
    network: str | Network | None,
    hardware: str | Hardware | None,
    scan: Mapping[str, Any],
    *,
    store: str | Path | None = None,
    cache: Cache | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    tell: Tell | None = None,
    **settings: Any,
) -> Sweep:
    """Cost of a network on an accelerator with many values of any fields.

    Parameters
    ----------
    network : str or Network
        None if it is scanned.
    hardware : str or Hardware
        None if it is scanned.
    scan : mapping
        Values by field: ``"64:1024:x2"``, ``[1, 8]``, ``"dense,PS4_P4"``; fields of the hardware
        by their path (``levels.SRAM.capacity_kib``), and ``network``, ``hardware``, ``pattern``,
        ``batch``, ``objective``, ``dataflow``, ``residency``, ``phase``, ``width``, ``input``,
        ``classes``. Fields joined by ``+`` change together.
    store : path, optional
        Keeps what is finished and goes on from there; without one nothing is kept.
    cache, workers, scheduler, tell
        As for :func:`energysim.sweeps.run.compute`.
    **settings
        Other fields of :class:`SweepSpec`.

    Returns
    -------
    Sweep
        A row a point: ``.table``, ``.to_csv(path)``, ``.to_xarray()``.

    Raises
    ------
    InputErrors
        Something is wrong; with all of it. A point that can't be is a row with a note.

    Examples
    --------
    >>> import energysim as es
    >>> s = es.sweep("digits_cnn", "edge_tpu", {"batch": [1, 8], "clock_mhz": "200:400:+100"})
    >>> s.table[["batch", "clock_mhz", "cycles"]].shape
    (6, 3)
    """
    networks = {network.name: network} if isinstance(network, Network) else {}
    machines = {hardware.name: hardware} if isinstance(hardware, Hardware) else {}
    given = {
        "network": network.name if isinstance(network, Network) else network,
        "hardware": hardware.name if isinstance(hardware, Hardware) else hardware,
        "scan": {name: _plain(each) for name, each in scan.items()},
    }
    spec = validated(given | settings, SweepSpec, name="sweep")
    plan = plan_of(spec, networks=networks, machines=machines)
    path = None if store is None else Path(store)
    return swept(plan, path, cache=cache, workers=workers, scheduler=scheduler, tell=tell)


def _plain(given: Any) -> Any:
    """Values as a file has them: of arrays, tuples and ranges a list."""
    if hasattr(given, "tolist"):
        return given.tolist()
    return [_plain(each) for each in given] if isinstance(given, list | tuple | range) else given


def swept(
    plan: Plan,
    path: Path | None,
    *,
    cache: Cache | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    checked: int = 0,
    tell: Tell | None = None,
) -> Sweep:
    """Compute what a store lacks of a plan.

    Parameters
    ----------
    plan : Plan
    path : Path, optional
        Of the store, which may hold a part of it; without one nothing is kept.
    checked : int
        Points that are searched anew afterwards, to see how good the others are, unless nothing
        was to compute.
    cache, workers, scheduler, tell
        As for :func:`~energysim.sweeps.run.compute`.
    """
    store = Memory() if path is None else Store(path, identity(plan))
    new = len(store.done()) < plan.blocks
    compute(plan, store, cache=cache, workers=workers, scheduler=scheduler, tell=tell)
    found = None
    if new and checked and plan.numbers > 1:
        found = check(plan, store, checked, cache=cache)
    return Sweep(plan, store, found)


def identity(plan: Plan) -> dict[str, Any]:
    """All that decides the result, the program too."""
    return plan.described() | {"energysim": VERSION, "program": program()}
