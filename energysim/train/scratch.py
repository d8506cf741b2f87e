"""Buffers that one thread uses again and again.

A fresh array of some megabytes costs a page fault for every page that is written first, which is as
dear as the work of a kernel. So what a kernel needs only while it runs stands in buffers that stay
with the thread, one for each use and as large as the largest so far; shards of a batch that run in
threads of their own never meet.
"""

from __future__ import annotations

import threading
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
"""Of single or double precision."""

ALIGNMENT = 64
"""Of the first byte: a cache line, and the widest vector register [byte]"""

_OF_THREAD = threading.local()


def scratch(use: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Floats:
    """Lend an array with arbitrary contents, valid until the thread asks for the same use again.

    Parameters
    ----------
    use : str
        What it is for; arrays of different uses don't overlap.
    shape : tuple of int
    dtype : dtype

    Returns
    -------
    ndarray
        C-contiguous, aligned to a cache line.
    """
    kind = np.dtype(dtype)
    wanted = prod(shape) * kind.itemsize
    held: dict[str, npt.NDArray[np.uint8]] = _OF_THREAD.__dict__
    if use not in held or held[use].size < wanted:
        room = np.empty(wanted + ALIGNMENT, dtype=np.uint8)
        start = -room.ctypes.data % ALIGNMENT
        held[use] = room[start : start + wanted]
    lent: Floats = held[use][:wanted].view(kind).reshape(shape)
    return lent
