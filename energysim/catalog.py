"""Names to files: networks and hardware by name or path, from the user's folders and the package.

A name is looked for in the current folder, in the folders of the environment variable
``ENERGYSIM_PATH`` (and in their ``networks`` or ``hw_configs`` folders), and among the files that
come with the package, in this order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from energysim.errors import InputError, did_you_mean
from energysim.hardware import Hardware
from energysim.network import Network, NetworkSpec, Scale, build_network
from energysim.network.norm import BATCH
from energysim.sparsity import MaskFile
from energysim.yamlio import load_model

Kind = Literal["nets", "hw"]

PATH_VARIABLE = "ENERGYSIM_PATH"
"""Environment variable with further folders, separated as in ``PATH``."""

_SUFFIXES = (".yaml", ".yml")
_MODEL_SUFFIX = ".onnx"
_FOLDERS: dict[Kind, str] = {"nets": "networks", "hw": "hw_configs"}
_WORDS: dict[Kind, str] = {"nets": "network", "hw": "hardware"}
# A field that every file of the kind has and no file of the other: enough to tell them apart.
_MARKS: dict[Kind, re.Pattern[bytes]] = {
    "nets": re.compile(rb"^(?:layers|base)\s*:", re.MULTILINE),
    "hw": re.compile(rb"^levels\s*:", re.MULTILINE),
}
_SNIFFED_BYTES = 200_000
FILE_SIZE = Scale()
"""As the network file says."""
_LONGEST_NAME = 60
"""Longer names are cut in messages [characters]."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file, and why this one."""

    path: Path
    """the file"""
    origin: str
    """``path``, ``current folder``, ``bundled`` or the folder of ``ENERGYSIM_PATH``"""


def find(kind: Kind, name: str | Path) -> Found:
    """Find the file of a network (``nets``) or of hardware (``hw``).

    Parameters
    ----------
    kind : {"nets", "hw"}
        What the file describes.
    name : str or Path
        A path, or a name with or without ``.yaml``; a ``Path`` is always one.

    Raises
    ------
    InputError
        If there is none; names the nearest one and all that are known.
    """
    path, is_path = Path(name), isinstance(name, Path)
    name = str(name)
    is_path = is_path or "/" in name or os.sep in name
    if is_path or (path.suffix in (*_SUFFIXES, _MODEL_SUFFIX) and _exists(path)):
        _refuse_other_kind(kind, path)
        return Found(path, "path")
    stem = path.stem if path.suffix in _SUFFIXES else name
    for folder, origin in _folders(kind):
        for suffix in _SUFFIXES:
            candidate = folder / f"{stem}{suffix}"
            if stem and _is_file(candidate) and _kind_of(candidate) in (kind, None):
                return Found(candidate, origin)
    known = names(kind)
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
    files = f".yaml or {_MODEL_SUFFIX}" if kind == "nets" else ".yaml"
    raise InputError(
        f"no {_WORDS[kind]} named '{shown}'.{did_you_mean(stem, known)}\n"
        f"  known: {', '.join(known)}   - or give a path to a {files} file"
    )


def is_model(path: Path) -> bool:
    """Whether a file is a model of another tool, by its name."""
    return path.suffix.lower() == _MODEL_SUFFIX


def names(kind: Kind) -> list[str]:
    """All names that :func:`find` knows, sorted."""
    found = set()
    for folder, _ in _folders(kind):
        if folder.is_dir() and os.access(folder, os.R_OK):
            files = [path for path in folder.iterdir() if path.suffix in _SUFFIXES]
            found |= {path.stem for path in files if path.is_file() and _kind_of(path) == kind}
    return sorted(found)


def load_hardware(name_or_path: str | Path) -> Hardware:
    """Load hardware by name or path.

    Raises
    ------
    InputError
        If there is no such file, or something is wrong in it.
    """
    hardware, _ = load_model(find("hw", name_or_path).path, Hardware)
    return hardware


def load_network(
    name_or_path: str | Path,
    *,
    pattern: str | None = None,
    scale: Scale = FILE_SIZE,
    masks: Path | str | None = None,
    norm: str | None = None,
) -> Network:
    """Load a network by name or path.

    Parameters
    ----------
    name_or_path : str or Path
        Which network; an ``.onnx`` file is imported.
    pattern : str, optional
        Pre-defined sparsity pattern to lay over a dense network.
    scale : Scale
        How it differs from its file: narrower, for other images, for other classes.
    masks : path, optional
        Of an ``.npz`` with masks of layers, such as ``energysim prune`` writes; they take the place
        of the pattern in the layers that it names.
    norm : str, optional
        In the place of batch norms, such as ``mixture:3``; ``batch`` leaves them.

    Raises
    ------
    InputError
        If there is no such file, something is wrong in it, or the layers don't fit together at
        this scale.
    """
    network, _ = _load_network(find("nets", name_or_path).path, scale, readers=())
    network = network if norm in (None, BATCH) else network.with_norm(norm)
    network = network if pattern is None else network.with_pattern(pattern)
    return network if masks is None else network.with_masks(MaskFile.open(masks))


def _load_network(path: Path, scale: Scale, *, readers: tuple[Path, ...]) -> tuple[Network, str]:
    """Load a network file, with what the scale adds to its name.

    ``readers`` are the files whose ``base:`` led here.
    """
    if is_model(path):
        return _import(path, scale), ""
    resolved = path.resolve()
    if resolved in readers:
        raise InputError("this file is its own base, by way of others", where=str(path))
    spec, source = load_model(path, NetworkSpec)
    added = [scale.suffix(spec)]

    def resolve_base(name: str) -> Network:
        base, suffix = _load_network(
            _find_base(name, beside=path), scale, readers=(*readers, resolved)
        )
        added.append(suffix)
        return base

    def open_masks(name: str) -> MaskFile:
        return MaskFile.open(path.parent / name)

    network = build_network(scale.applied(spec), source, resolve_base, open_masks=open_masks)
    if spec.layers is None:
        network = replace(network, name=f"{network.name}{added[-1]}")
    return network, added[-1]


def _import(path: Path, scale: Scale) -> Network:
    from energysim.importers.onnx import import_onnx

    if scale != FILE_SIZE:
        raise InputError(
            "a model has the sizes that it was exported with. Make a network file of it with"
            " 'energysim import', which can be scaled",
            where=str(path),
        )
    return import_onnx(path).network


def _find_base(name: str, *, beside: Path) -> Path:
    """Look for a base next to the file that names it before anywhere else."""
    neighbours = [beside.with_name(f"{name}{suffix}") for suffix in _SUFFIXES]
    return next((path for path in neighbours if _is_file(path)), None) or find("nets", name).path


def _folders(kind: Kind) -> Iterator[tuple[Path, str]]:
    yield Path(), "current folder"
    for entry in os.environ.get(PATH_VARIABLE, "").split(os.pathsep):
        if entry:
            folder = Path(entry)
            yield folder, str(folder)
            yield folder / _FOLDERS[kind], str(folder / _FOLDERS[kind])
    yield _bundled(kind), "bundled"


def _bundled(kind: Kind) -> Path:
    """Find the files that come with the package: inside it in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "_bundled" / _FOLDERS[kind]
    return inside if inside.is_dir() else package.parent / _FOLDERS[kind]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _is_file(path: Path) -> bool:
    return _exists(path) and path.is_file()


def _kind_of(path: Path) -> Kind | None:
    """Tell from its first lines what a file describes; None if that can't be told."""
    if is_model(path):
        return "nets"
    try:
        with path.open("rb") as file:
            head = file.read(_SNIFFED_BYTES)
    except OSError:
        return None
    kinds: list[Kind] = [kind for kind, mark in _MARKS.items() if mark.search(head)]
    return kinds[0] if len(kinds) == 1 else None


def _refuse_other_kind(kind: Kind, path: Path) -> None:
    other = _kind_of(path) if _is_file(path) else kind
    if other not in (kind, None):
        words = {"nets": "a network", "hw": "hardware"}
        raise InputError(
            f"describes {words[other]}, and {words[kind]} is asked for here", where=str(path)
        )
