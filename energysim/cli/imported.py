"""An imported network written out: its text, its masks beside it, and what to know of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from energysim.cli.describe import network_yaml
from energysim.files import write_atomically
from energysim.importers.onnx import Imported, import_onnx
from energysim.sparsity.maskfile import mask_file

MASKS = ".npz"
"""Suffix of the file of masks, which else has the name of the network's file."""

read = import_onnx


def text(found: Imported, masks: str | None = None) -> str:
    """The network file, which names a file of masks where there are any."""
    network = found.network
    if masks is not None:
        live = network.with_masks(found.masks)
        network = replace(live, name=network.name, base=None, masks=masks)
    return network_yaml(network)


def write(found: Imported, path: Path) -> None:
    """Write the network's file, and its masks before that; both or neither.

    Raises
    ------
    InputError
        If a file can't be written.
    """
    if not found.masks:
        write_atomically(path, text(found))
        return
    beside = path.with_suffix(MASKS)
    before = beside.read_bytes() if beside.is_file() else None
    written = text(found, beside.name)
    write_atomically(beside, mask_file(found.masks))
    try:
        write_atomically(path, written)
    except BaseException:
        if before is None:
            beside.unlink()
        else:
            write_atomically(beside, before)
        raise


def notes(found: Imported) -> Iterator[str]:
    """What to know of it, one line each."""
    for line in found.missing:
        yield f"note: no layer for {line}"
    for line in found.notes:
        yield f"note: {line}"
