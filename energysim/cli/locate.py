"""Which file a word on the command line means, where it may be of any kind."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

from energysim import catalog
from energysim.catalog import Found, Kind
from energysim.errors import InputError, did_you_mean
from energysim.files import read_text
from energysim.sparsity import Pattern, get_pattern

if TYPE_CHECKING:
    from energysim.train.recipe import Recipe

NAMED: tuple[Kind, ...] = ("nets", "hw")
"""Kinds of file that have a name."""

RECIPE_NAMES = ("default", "paper")
"""Of recipes, to be told apart without the trainer and NumPy."""

# Fields that only one kind of file has; a mapping's layers are named, a network's stand in a list.
_MARKS = {
    "hw": re.compile(r"^levels\s*:", re.MULTILINE),
    "nets": re.compile(r"^base\s*:|^layers\s*:(?:\s|#[^\n]*\n)*[-\[]", re.MULTILINE),
    "mapping": re.compile(r"^layers\s*:", re.MULTILINE),
}


def kind_of(path: Path) -> str:
    """Tell from its fields what a file describes.

    Raises
    ------
    InputError
        If that can't be told, or the file can't be read.
    """
    if catalog.is_model(path):
        return "nets"
    text = read_text(path)
    for kind, mark in _MARKS.items():
        if mark.search(text):
            return kind
    raise InputError(
        "has neither 'levels:' (hardware) nor 'layers:' or 'base:' (a network). Say what it is: "
        "nets, hw or mapping",
        where=str(path),
    )


def as_path(path: Path) -> str:
    """Text that the catalog takes for a path, not for a name."""
    return str(path) if os.sep in str(path) else f".{os.sep}{path}"


def any_file(name: str, kind: str | None) -> Path:
    """Find a file by path, or by the name of a network or hardware."""
    path = Path(name)
    if kind == "mapping" or path.suffix or os.sep in name or path.exists():
        return path
    return named(name, cast(Kind | None, kind))[1].path


def recipe(name: str) -> Recipe | None:
    """Find a recipe of training by a name that is no file's."""
    if name not in RECIPE_NAMES or Path(name).exists():
        return None
    from energysim.train.recipe import RECIPES

    return RECIPES[name]


def pattern(name: str) -> Pattern | None:
    """Find a pattern by a name that is no network's, hardware's or file's."""
    known = (known for kind in NAMED for known in catalog.names(kind))
    if Path(name).exists() or name in known:
        return None
    try:
        return get_pattern(name)
    except InputError:
        return None


def named(name: str, kind: Kind | None) -> tuple[Kind, Found]:
    """Find a network or hardware by name or path.

    Raises
    ------
    InputError
        If there is none, or one of each.
    """
    if kind is None and Path(name).is_file():
        told = kind_of(Path(name))
        if told == "mapping":
            raise InputError("describes a mapping: there is nothing to resolve", where=name)
        kind = cast(Kind, told)
    found: list[tuple[Kind, Found]] = []
    for each in (kind,) if kind else NAMED:
        try:
            found.append((each, catalog.find(each, name)))
        except InputError:
            if kind:
                raise
    if len(found) == 1:
        return found[0]
    if len({each.path for _, each in found}) > 1:
        files = " and ".join(str(each.path) for _, each in found)
        raise InputError(f"'{name}' is both a network and hardware: {files}. Say --kind nets or hw")
    if found:
        return found[0]
    known = {each: catalog.names(each) for each in NAMED}
    hint = did_you_mean(name, [word for words in known.values() for word in words])
    raise InputError(
        f"no network or hardware named '{name}'.{hint}\n"
        f"  networks: {', '.join(known['nets'])}\n"
        f"  hardware: {', '.join(known['hw'])}   - or give a path to a .yaml or .onnx file"
    )
