"""The door for files: YAML text to validated types and back, with the position of every mistake.

The loader knows a small YAML: plain data, no tags, anchors' aliases or merge keys. Scalars follow
the core schema of YAML 1.2 with decimal numbers only, so ``1e-12`` is a number and ``no``, ``on``
and ``12:30`` are text. ``010`` (octal to some, decimal to others), ``.nan`` and ``.inf`` are
refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from energysim.errors import InputError, InputErrors
from energysim.files import read_text
from energysim.mistakes import Loc, Place, Source, explained, position, shown

T = TypeVar("T", bound=BaseModel)
MAX_DEPTH = 32
"""Deepest nesting of lists and mappings."""
TOO_DEEP = f"lists and mappings are nested deeper than {MAX_DEPTH} levels"
MAX_VALUES = 250_000
"""Most values in one file."""

_LONGEST_LINE = 70
"""Longer lists are written one entry a line [characters]."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_CONSTANTS: dict[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "True": True,
    "false": False,
    "False": False,
}
_LARGEST = 2**63
_LARGEST_DIGITS = len(f"-{_LARGEST}")


def load_model(path: Path, model: type[T]) -> tuple[T, Source]:
    """Read a YAML file into a validated type.

    Parameters
    ----------
    path : Path
        The file.
    model : type
        A pydantic type.

    Returns
    -------
    (object, Source)
        The validated object, and where each of its values stands in the file.

    Raises
    ------
    InputError
        If the file can't be read or is no YAML.
    InputErrors
        With everything else that is wrong, in file order.
    """
    return parse_model(read_text(path), model, name=str(path), path=path)


def parse_model(
    text: str, model: type[T], *, name: str, path: Path | None = None
) -> tuple[T, Source]:
    """Read YAML text into a validated type; see :func:`load_model`."""
    builder = _Builder(name, text)
    data = builder.read()
    source = Source(name, path, builder.values, builder.keys)
    if not builder.unreadable and not isinstance(data, dict):
        place = source.where(())
        raise InputError(f"must be a mapping (field: value), got {shown(data)}", where=place)
    problems = builder.problems
    try:
        loaded = model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        problems += explained(error, model, source, skip=builder.unreadable)
    if problems:
        problems.sort(key=lambda problem: problem[0])
        raise InputErrors(line for _, line in problems)
    return loaded, source


def validated(data: object, model: type[T], *, name: str) -> T:
    """Read plain data, as JSON has it, into a validated type.

    Raises
    ------
    InputErrors
        With everything that is wrong, under the name.
    """
    try:
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        # known places without a line: there is no file
        source = Source(name, None, dict.fromkeys(_places(data)))
        problems = explained(error, model, source, skip=set())
        raise InputErrors(line for _, line in problems) from None


def _places(data: object, loc: Loc = ()) -> Iterator[Loc]:
    """Where each value stands in plain data."""
    yield loc
    if isinstance(data, dict | list):
        for step, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _places(value, (*loc, step))


class _Builder:
    """Plain data and its positions from the events of the YAML parser.

    Events rather than PyYAML's node tree: the size and depth of hostile text are checked before
    anything is kept, and a duplicate field has both its positions.
    """

    def __init__(self, name: str, text: str) -> None:
        self.values: dict[Loc, Place] = {}
        self.keys: dict[Loc, Place] = {}
        self.unreadable: set[Loc] = set()
        """values that could not be read and stand as None: validation must not judge them"""
        self.problems: list[tuple[Place, str]] = []
        self._name = name
        self._text = text
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)

    def read(self) -> object:
        self._refuse_control_characters()
        try:
            self._next()
            if isinstance(self._next(), yaml.StreamEndEvent):
                raise InputError("the file has no fields, only comments", where=self._name)
            data = self._value(self._next(), (), depth=0)
            self._next()
            extra = self._next()
        except yaml.MarkedYAMLError as error:
            raise self._syntax_error(error) from None
        except yaml.YAMLError as error:
            raise InputError(f"not valid YAML: {error}", where=self._name) from None
        if not isinstance(extra, yaml.StreamEndEvent):
            message = "a second document starts here ('---'); a file has one"
            raise InputError(message, where=position(self._name, _place(extra.start_mark)))
        return data

    def _next(self) -> Any:
        return next(self._events)

    def _refuse(self, place: Place, loc: Loc, message: str) -> None:
        dotted = ".".join(str(step) for step in loc)
        where = position(self._name, place)
        self.problems.append((place, f"{where}{' ' * bool(dotted)}{dotted}: {message}"))

    def _value(self, event: Any, loc: Loc, *, depth: int) -> object:
        place = _place(event.start_mark)
        if depth > MAX_DEPTH:
            raise InputError(TOO_DEEP, where=position(self._name, place))
        if len(self.values) >= MAX_VALUES:
            message = f"the file has more than {MAX_VALUES} values"
            raise InputError(message, where=position(self._name, place))
        self.values[loc] = place
        if isinstance(event, yaml.AliasEvent):
            self._unreadable(place, loc, "aliases are not supported. Write the value again")
            return None
        if event.tag is not None and event.tag != "!":
            message = f"tags are not supported ({event.tag}). Write a plain value"
            self._unreadable(place, loc, message)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(loc, depth=depth + 1)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(loc, depth=depth + 1)
        try:
            return _scalar(event)
        except ValueError as error:
            self._unreadable(place, loc, str(error))
            return None

    def _unreadable(self, place: Place, loc: Loc, message: str) -> None:
        self.unreadable.add(loc)
        self._refuse(place, loc, message)

    def _list(self, loc: Loc, *, depth: int) -> list[object]:
        entries: list[object] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            entries.append(self._value(event, (*loc, len(entries)), depth=depth))
        return entries

    def _mapping(self, loc: Loc, *, depth: int) -> dict[str, object]:
        fields: dict[str, object] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            place = _place(event.start_mark)
            key = self._key(event, loc)
            if key is None or key in fields:
                if key is not None:
                    first = self.keys[*loc, key]
                    message = f"given twice, first at line {first[0]}, column {first[1]}"
                    self._refuse(place, (*loc, key), message)
                self._skip(self._next())
                continue
            self.keys[*loc, key] = place
            fields[key] = self._value(self._next(), (*loc, key), depth=depth)
        return fields

    def _skip(self, event: Any) -> None:
        """Leave out a value, however deep."""
        depth = 0
        while True:
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth == 0:
                return
            event = self._next()

    def _key(self, event: Any, loc: Loc) -> str | None:
        """Read the name of a field; None if it can't be one."""
        place = _place(event.start_mark)
        if isinstance(event, yaml.ScalarEvent) and event.tag is None:
            try:
                key = _scalar(event)
            except ValueError:
                key = None
            if isinstance(key, str):
                return key
            self._refuse(place, loc, f"the name of a field must be text, got {event.value!r}")
            return None
        self._refuse(place, loc, "the name of a field must be plain text")
        self._skip(event)
        return None

    def _refuse_control_characters(self) -> None:
        found = yaml.reader.Reader.NON_PRINTABLE.search(self._text)
        if found:
            start = found.start()
            line_start = self._text.rfind("\n", 0, start) + 1
            place = (self._text.count("\n", 0, start) + 1, start - line_start + 1)
            message = f"the control character U+{ord(found[0]):04X} is not allowed"
            raise InputError(message, where=position(self._name, place))

    def _syntax_error(self, error: yaml.MarkedYAMLError) -> InputError:
        mark = error.problem_mark or error.context_mark
        if mark is None:
            return InputError(f"not valid YAML: {error.problem}", where=self._name)
        lines = self._text.splitlines()
        line = lines[mark.line] if mark.line < len(lines) else ""
        character = line[mark.column : mark.column + 1]
        message = f"not valid YAML: {error.problem or error.context}"
        if character == "\t":
            message = "not valid YAML: a tab stands here. Indent with spaces"
        elif "maximum nesting depth" in message:  # of libyaml, from 0.2.6 on
            message = TOO_DEEP
        elif "mapping values are not allowed" in message:
            message = (
                "not valid YAML: ':' is not expected here. "
                "Check the indentation, or quote the text that contains it"
            )
        elif "cannot start any token" in message:
            message = f"not valid YAML: a value can't start with '{character}'. Quote it"
        elif error.context and error.context_mark and error.problem:
            message += f", {error.context} that starts at line {error.context_mark.line + 1}"
        return InputError(message, where=position(self._name, _place(mark)))


def _place(mark: Any) -> Place:
    return mark.line + 1, mark.column + 1


def _scalar(event: yaml.ScalarEvent) -> object:
    """Read a scalar; ValueError if it looks like a number and is none we accept."""
    text: str = event.value
    if event.style not in (None, ""):
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > _LARGEST_DIGITS or abs(int(text)) >= _LARGEST:
            raise ValueError(f"{shown(text)} is too large a number")
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if number in (float("inf"), float("-inf")):
            raise ValueError(f"{shown(text)} is too large a number")
        return number
    if _LEADING_ZERO.fullmatch(text):
        stripped = re.sub(r"^([-+]?)0+(?=[0-9])", r"\1", text)
        raise ValueError(
            f"{shown(text)} has a leading zero. Write {stripped}, or quote it if it is text"
        )
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"must be a finite number, got {text}")
    return text


class _Dumper(yaml.SafeDumper):
    """Writes what the loader above reads back: block style, short plain collections in a line."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True

    def represent_float_shortest(self, data: float) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:float", repr(data))

    def represent_sequence(
        self,
        tag: str,
        sequence: Iterable[Any],
        flow_style: bool | None = None,
    ) -> yaml.SequenceNode:
        node = super().represent_sequence(tag, sequence, flow_style)
        node.flow_style = _fits_a_line(node.value)
        return node

    def represent_mapping(
        self,
        tag: str,
        mapping: Any,
        flow_style: bool | None = None,
    ) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        values = [value for _, value in node.value]
        numbers = all(value.tag.endswith((":int", ":float")) for value in values)
        node.flow_style = numbers and _fits_a_line([each for pair in node.value for each in pair])
        return node


def _fits_a_line(nodes: list[yaml.Node]) -> bool:
    return all(isinstance(node, yaml.ScalarNode) for node in nodes) and (
        sum(len(node.value) + 2 for node in nodes) <= _LONGEST_LINE
    )


_Dumper.add_representer(float, _Dumper.represent_float_shortest)
# PyYAML quotes text that YAML 1.1 would not read as text; these are what our reader adds to that.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{_FLOAT.pattern})$"), None)
_Dumper.add_implicit_resolver("tag:energysim,2026:refused", _LEADING_ZERO, None)


def to_yaml(data: object) -> str:
    """Write plain data (or a pydantic object) as YAML that :func:`load_model` reads back.

    Fields of an object that are null are left out.

    Examples
    --------
    >>> print(to_yaml({"name": "chip", "bits": {"weight": 8}, "per": ["rows"]}), end="")
    name: chip
    bits: {weight: 8}
    per: [rows]
    """
    plain = data.model_dump(mode="json", exclude_none=True) if isinstance(data, BaseModel) else data
    text: str = yaml.dump(
        plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, indent=2
    )
    return text
