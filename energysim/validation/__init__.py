"""Our numbers beside those of chips, vendors and other tools.

Each module next to this one holds the studies of one source: it reads the reference numbers from
``data/``, runs the model under the same conventions, and gives one :class:`Check` a number.
"""

from __future__ import annotations

from importlib import import_module

from energysim.errors import InputError, did_you_mean
from energysim.validation.check import (
    KINDS,
    Check,
    Study,
    Verdict,
    at_most,
    between,
    exact,
    shown,
    within,
)

MODULES = (
    "eyeriss",
    "eyeriss_v2_pe",
    "isca16",
    "tpu_v1",
    "edge_tpu",
    "nvdla",
    "vela",
    "scalesim",
    "nn_dataflow",
    "maestro",
    "timeloop",
    "networks",
)
"""Modules with studies, in the order of the table."""

__all__ = [
    "KINDS",
    "MODULES",
    "Check",
    "Study",
    "Verdict",
    "at_most",
    "between",
    "exact",
    "shown",
    "studies",
    "within",
]


def studies(names: tuple[str, ...] = ()) -> tuple[Study, ...]:
    """Studies by name, all without one; nothing is computed until their checks are asked for.

    Raises
    ------
    InputError
        If there is no study of a name.
    """
    every = [
        study
        for module in MODULES
        for study in import_module(f"energysim.validation.{module}").STUDIES
    ]
    known = {study.name: study for study in every}
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f" Studies: {', '.join(known)}"
            raise InputError(f"no study named '{name}'.{hint}")
    return tuple(study for study in every if not names or study.name in names)
