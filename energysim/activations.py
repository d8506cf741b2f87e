"""Densities of activations from a file: which share of each layer's input and output is not zero.

The file is CSV with a line of column names, ``layer,input_density`` and, if known,
``output_density``; ``source`` and ``note`` may stand behind. Empty lines and lines that begin with
``#`` are left out.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from energysim.errors import InputErrors, did_you_mean
from energysim.files import read_text
from energysim.network import Layer, Network
from energysim.sparsity import Activity

NEEDED, OPTIONAL = ("layer", "input_density"), ("output_density", "source", "note")
"""Columns of the file."""

_LONGEST_SHOWN = 40
"""Longer values are cut in messages [characters]."""

_FORM = "Begin with the line 'layer,input_density', then one line a layer, such as 'conv1,0.6'"
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Density:
    """What is known of one layer."""

    input: float
    """share of the elements of its input that are not zero, 0 to 1"""
    output: float | None = None
    """the same of its output; None = not known"""


@dataclass(frozen=True, slots=True)
class Activations:
    """Densities of activations by layer."""

    layers: Mapping[str, Density]
    file: str | None = None
    """name of the file that they are from"""
    sha256: str | None = None
    """of the text of the file"""
    places: Mapping[str, str] = field(default_factory=dict, repr=False)
    """where each layer stands in the file, for messages"""

    def check(self, network: Network) -> None:
        """Refuse layers that a network does not have, and shares that are none.

        Raises
        ------
        InputErrors
            With all of them.
        """
        problems = []
        for name, density in self.layers.items():
            where = self.places.get(name, "activations")
            stranger = _stranger(name, network)
            if stranger:
                problems.append(f"{where} layer: {stranger}")
            for word, share in (("input", density.input), ("output", density.output)):
                if share is not None and not _is_share(share):
                    problems.append(
                        f"{where} {word}_density: layer {_shown(name)}: must be a number from 0 "
                        f"to 1, got {share!r}"
                    )
        if problems:
            raise InputErrors(problems)

    def of(self, network: Network) -> dict[str, Activity]:
        """Densities of all layers of a network.

        Parameters
        ----------
        network : Network
            One that :meth:`check` accepts.

        Returns
        -------
        dict of Activity
            By layer. A tensor that is not given is taken from its other end, if the file names that
            and one reads all of what the other writes and nothing else: an output has the density
            of the input of its readers, if these agree, and the input of a layer that the file
            leaves out that of the output it reads. What is not known after that is dense.
        """
        return {layer.name: self._activity(layer, network) for layer in network.layers}

    def _activity(self, layer: Layer, network: Network) -> Activity:
        given = self.layers.get(layer.name)
        output = given.output if given else None
        if output is None:
            read = {
                self.layers[reader.name].input
                for reader in network.layers
                if reader.name in self.layers and _reads_all_of(reader, layer.name)
            }
            output = read.pop() if len(read) == 1 else None
        if given:
            return Activity(given.input, 1.0 if output is None else output)
        (first, *_) = layer.inputs
        source = self.layers.get(first) if _reads_all_of(layer, first) else None
        known = source.output if source else None
        return Activity(1.0 if known is None else known, 1.0 if output is None else output)

    def left_out(self, network: Network) -> tuple[str, ...]:
        """Layers of a network that are not named, in its order."""
        return tuple(layer.name for layer in network.layers if layer.name not in self.layers)

    def settings(self) -> dict[str, Any]:
        """What to record of a run: the file and its hash, or of densities without one theirs."""
        plain = [[name, each.input, each.output] for name, each in sorted(self.layers.items())]
        own = hashlib.sha256(json.dumps(plain).encode()).hexdigest()
        return {"file": self.file, "sha256": self.sha256 or own}


def _reads_all_of(reader: Layer, name: str) -> bool:
    """Whether a layer reads all channels of another one and nothing else."""
    return reader.inputs == (name,) and reader.channels is None


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _stranger(name: str, network: Network) -> str:
    """What to say of a name that no layer of the network has; else nothing."""
    known = [layer.name for layer in network.layers]
    if name in known:
        return ""
    hint = did_you_mean(name, known) or f" It has: {', '.join(known)}"
    return f"{network.name} has no layer named {_shown(name)}.{hint}"


def _shown(text: str) -> str:
    """Show a cell as it stands in the file, short enough for a message."""
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…")


def load_activations(path: Path | str, network: Network | None = None) -> Activations:
    """Read a file of densities.

    Parameters
    ----------
    path : Path or str
        CSV, as the module says.
    network : Network, optional
        The one to be run, so that names of layers are checked together with the rest.

    Raises
    ------
    InputError
        If the file can't be read.
    InputErrors
        With everything that is wrong in it, in file order.
    """
    path = Path(path)
    text = read_text(path)
    table = _Table(str(path), network)
    table.read(text)
    if table.problems:
        raise InputErrors(table.problems)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Activations(table.layers, path.name, digest, table.places)


class _Table:
    """A file on its way to densities, with everything that is wrong in it.

    Parameters
    ----------
    name : str
        Of the file, for messages.
    network : Network or None
        Whose layers may be named; None = any.
    """

    def __init__(self, name: str, network: Network | None) -> None:
        self.name, self.network = name, network
        self.columns: tuple[str, ...] | None = None
        self.layers: dict[str, Density] = {}
        self.places: dict[str, str] = {}
        self.problems: list[str] = []

    def read(self, text: str) -> None:
        """Read the lines one by one, so that each mistake has the number of its line."""
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            where = f"{self.name}:{number}"
            try:
                cells = [cell.strip() for cell in next(csv.reader([line], strict=True))]
            except csv.Error as error:
                self.problems.append(f"{where}: is no line of CSV ({error})")
                if self.columns is None:
                    return
                continue
            if self.columns is None:
                self.columns = tuple(cells)
                if not self._check_columns(where):
                    return
            else:
                self._row(where, cells)
        if self.columns is None or not (self.layers or self.problems):
            self.problems.append(f"{self.name}: names no layer. {_FORM}")

    def _check_columns(self, where: str) -> bool:
        """Check the line of column names; without them no other line can be read."""
        columns, allowed = self.columns or (), (*NEEDED, *OPTIONAL)
        before = len(self.problems)
        for i, word in enumerate(columns):
            if word in columns[:i]:
                self.problems.append(f"{where}: column {_shown(word)} stands here twice")
            elif word not in allowed:
                hint = did_you_mean(word, allowed)
                known = f" Allowed: {', '.join(allowed)}, with commas between"
                self.problems.append(f"{where}: no column named {_shown(word)}.{hint or known}")
        missing = [word for word in NEEDED if word not in columns]
        if missing and len(self.problems) == before:
            self.problems.append(f"{where}: column {' and '.join(missing)} is missing. {_FORM}")
        return len(self.problems) == before

    def _row(self, where: str, cells: Sequence[str]) -> None:
        columns = self.columns or ()
        if len(cells) != len(columns):
            self.problems.append(
                f"{where}: has {len(cells)} values for {len(columns)} columns "
                f"({', '.join(columns)})"
            )
            return
        row = dict(zip(columns, cells, strict=True))
        name = row["layer"]
        before = len(self.problems)
        if not name:
            self.problems.append(f"{where} layer: must not be empty")
        elif name in self.places:
            self.problems.append(
                f"{where} layer: {_shown(name)} stands at {self.places[name]} already"
            )
        elif self.network is not None and (stranger := _stranger(name, self.network)):
            self.problems.append(f"{where} layer: {stranger}")
        self.places.setdefault(name, where)
        shares = [
            self._share(where, column, row.get(column, ""), needed=column in NEEDED)
            for column in ("input_density", "output_density")
        ]
        if len(self.problems) == before and shares[0] is not None:
            self.layers[name] = Density(shares[0], shares[1])

    def _share(self, where: str, column: str, text: str, *, needed: bool) -> float | None:
        """Read a share; an empty cell is no mistake where the share may be unknown."""
        if not text and not needed:
            return None
        if _NUMBER.fullmatch(text) and _is_share(float(text)):
            return float(text)
        given = _shown(text) if text else "nothing"
        self.problems.append(f"{where} {column}: must be a number from 0 to 1, got {given}")
        return None
