"""A bundled chip in another size, as vendors offer it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energysim.hardware import Hardware


def variant(
    hardware: Hardware,
    *,
    axes: Mapping[str, int] | None = None,
    unroll: Mapping[str, tuple[str, ...]] | None = None,
    levels: Mapping[str, Mapping[str, Any]] | None = None,
    **fields: Any,
) -> Hardware:
    """Change the size of an array, what memories can do, and fields of the machine itself.

    Parameters
    ----------
    hardware : Hardware
    axes : mapping, optional
        Lengths of array axes by name; others stay.
    unroll : mapping, optional
        Dims that may be spread along an axis, by its name.
    levels : mapping, optional
        Fields by the name of the level.
    **fields
        Of the hardware, such as ``clock_mhz``.

    Returns
    -------
    Hardware
        Energies stay those of the machine that is changed.
    """
    array = hardware.array.model_copy(
        update={
            "axes": hardware.array.axes | dict(axes or {}),
            "unroll": hardware.array.unroll | dict(unroll or {}),
        }
    )
    changes = dict(levels or {})
    memories = tuple(
        level.model_copy(update=dict(changes.pop(level.name, {}))) for level in hardware.levels
    )
    if changes:
        raise ValueError(f"{hardware.name} has no level named {', '.join(changes)}")
    return hardware.model_copy(update={"array": array, "levels": memories} | fields)
