"""The door for files: YAML text to validated types and back, with the position of every mistake.

The loader knows a small YAML: plain data, no tags, anchors' aliases or merge keys. Scalars follow
the core schema of YAML 1.2 with decimal numbers only, so ``1e-12`` is a number and ``no``, ``on``
and ``12:30`` are text. ``010`` (octal to some, decimal to others), ``.nan`` and ``.inf`` are
refused.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from energysim.errors import InputError, InputErrors, did_you_mean

T = TypeVar("T", bound=BaseModel)
Loc = tuple[str | int, ...]
"""Field names and list indices that lead to a value."""
Place = tuple[int, int]
"""Line and column, both from 1."""
_Steps = tuple[tuple[str | int, bool], ...]
"""A location whose steps say whether they lead to a value of the file; see ``Source.steps``."""

MAX_BYTES = 10_000_000
"""Larger files are not read [byte]."""
MAX_DEPTH = 32
"""Deepest nesting of lists and mappings."""
TOO_DEEP = f"lists and mappings are nested deeper than {MAX_DEPTH} levels"
MAX_VALUES = 250_000
"""Most values in one file."""

_LONGEST_SHOWN = 60
"""Longer values are cut in messages [characters]."""
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


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from, for messages about it.

    Parameters
    ----------
    name : str
        As the user knows it: the file as given, or words where there is no file.
    path : Path or None
        The file.
    values, keys : mapping of loc to (line, column)
        Where each value starts, and each field's name.
    """

    name: str
    path: Path | None = None
    values: Mapping[Loc, Place | None] = field(default_factory=dict, repr=False)
    keys: Mapping[Loc, Place] = field(default_factory=dict, repr=False)

    @classmethod
    def none(cls, name: str) -> Source:
        """For values that come from no file.

        Examples
        --------
        >>> Source.none("--scan").problem(("levels", 0), "no such level")
        '--scan levels.0: no such level'
        """
        return cls(name)

    def steps(self, loc: Loc) -> Iterator[tuple[str | int, bool]]:
        """Each step of a location, and whether it leads to a value of the file.

        Validation errors have steps that lead nowhere: the tags of unions.
        """
        path: Loc = ()
        for step in loc:
            exists = (*path, step) in self.values
            if exists:
                path = (*path, step)
            yield step, exists

    def nearest(self, loc: Loc) -> Loc:
        """Leave out the steps that lead nowhere."""
        return tuple(step for step, exists in self.steps(loc) if exists)

    def place(self, loc: Loc, *, key: bool = False) -> Place | None:
        """Line and column of the nearest existing value, or of the name of the field."""
        nearest = self.nearest(loc)
        return (self.keys if key and nearest in self.keys else self.values).get(nearest)

    def where(self, loc: Loc, *, key: bool = False) -> str:
        """``file:line:column`` of the nearest existing value, or of the name of the field."""
        return _at(self.name, self.place(loc, key=key))

    def problem(self, loc: Loc, message: str, *, key: bool = False) -> str:
        """One line of an error message: where, which field, what is wrong."""
        dotted = ".".join(str(step) for step in loc)
        return f"{self.where(loc, key=key)}{' ' * bool(dotted)}{dotted}: {message}"


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
        raise InputError(f"must be a mapping (field: value), got {_given(data)}", where=place)
    problems = builder.problems
    try:
        loaded = model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        problems += _explain(error, model, source, skip=builder.unreadable)
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
        problems = _explain(error, model, source, skip=set())
        raise InputErrors(line for _, line in problems) from None


def _places(data: object, loc: Loc = ()) -> Iterator[Loc]:
    """Where each value stands in plain data."""
    yield loc
    if isinstance(data, dict | list):
        for step, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _places(value, (*loc, step))


def read_text(path: Path) -> str:
    """Read a text file of reasonable size.

    Raises
    ------
    InputError
        If it is missing, a folder, not readable, too large, empty or not text.
    """
    where = str(path)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise InputError("is a folder, not a file", where=where)
        if size <= MAX_BYTES:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
            size = len(raw)
    except FileNotFoundError:
        raise InputError(f"no such file.{_sibling_hint(path)}", where=where) from None
    except PermissionError:
        raise InputError("no permission to read it", where=where) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"can't be read: {reason}", where=where) from None
    if size > MAX_BYTES:
        limit = f"{MAX_BYTES / 1e6:.0f} MB"
        raise InputError(f"larger than {limit}, so it is not read", where=where)
    if b"\0" in raw:
        raise InputError("is not a text file (it has zero bytes)", where=where)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError("is not UTF-8 text", where=f"{where}:{line}") from None
    if not text.strip():
        raise InputError("the file is empty", where=where)
    return text


def _sibling_hint(path: Path) -> str:
    try:
        return did_you_mean(path.name, sorted(other.name for other in path.parent.iterdir()))
    except OSError:
        return f" There is no folder {path.parent} either" if not path.parent.exists() else ""


def _at(name: str, place: Place | None) -> str:
    return f"{name}:{place[0]}:{place[1]}" if place else name


def _given(value: object) -> str:
    """Show a value as the user wrote it, short enough for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…{text[-1]}"


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
            raise InputError(message, where=_at(self._name, _place(extra.start_mark)))
        return data

    def _next(self) -> Any:
        return next(self._events)

    def _refuse(self, place: Place, loc: Loc, message: str) -> None:
        dotted = ".".join(str(step) for step in loc)
        where = _at(self._name, place)
        self.problems.append((place, f"{where}{' ' * bool(dotted)}{dotted}: {message}"))

    def _value(self, event: Any, loc: Loc, *, depth: int) -> object:
        place = _place(event.start_mark)
        if depth > MAX_DEPTH:
            raise InputError(TOO_DEEP, where=_at(self._name, place))
        if len(self.values) >= MAX_VALUES:
            message = f"the file has more than {MAX_VALUES} values"
            raise InputError(message, where=_at(self._name, place))
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
            raise InputError(message, where=_at(self._name, place))

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
        return InputError(message, where=_at(self._name, _place(mark)))


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
            raise ValueError(f"{_given(text)} is too large a number")
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if number in (float("inf"), float("-inf")):
            raise ValueError(f"{_given(text)} is too large a number")
        return number
    if _LEADING_ZERO.fullmatch(text):
        stripped = re.sub(r"^([-+]?)0+(?=[0-9])", r"\1", text)
        raise ValueError(
            f"{_given(text)} has a leading zero. Write {stripped}, or quote it if it is text"
        )
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"must be a finite number, got {text}")
    return text


# What a value must be, by pydantic's name of the mistake: the cases where its type is wrong.
_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "nothing",
}
# The sign of a limit, and where pydantic keeps its value.
_LIMITS = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}


@dataclass(frozen=True, slots=True)
class _Mistake:
    """One validation error; ``steps`` say which parts of its location exist in the file."""

    steps: _Steps
    type: str
    context: Mapping[str, Any]
    input: object
    message: str

    @property
    def loc(self) -> Loc:
        return tuple(step for step, exists in self.steps if exists)

    @property
    def expected(self) -> str | None:
        """What the type of the value must be, None if that is not what is wrong."""
        if self.type in ("literal_error", "enum"):
            return " or ".join(f"'{word}'" for word in _words(self.context["expected"]))
        return _EXPECTED.get(self.type)

    @property
    def length(self) -> int | None:
        """The length that a list of fixed length must have, None if that is not what is wrong."""
        if self.type == "too_long":
            return int(self.context["max_length"])
        last = self.steps[-1][0] if self.steps else None
        return last + 1 if self.type == "missing" and isinstance(last, int) else None


def _explain(
    error: ValidationError, model: type[BaseModel], source: Source, *, skip: set[Loc]
) -> list[tuple[Place, str]]:
    """Turn pydantic's errors into lines with positions."""
    mistakes = [
        _Mistake(
            steps=tuple(source.steps(each["loc"])),
            type=each["type"],
            context=each.get("ctx", {}),
            input=each["input"],
            message=each["msg"],
        )
        for each in error.errors(include_url=False)
        if not _follows_from_others(each["type"], each.get("ctx", {}), each["input"])
    ]
    schema = _Schema(model)
    lines: list[tuple[Place, str]] = []
    for mistake in _one_branch(mistakes):
        if any(mistake.loc[: len(loc)] == loc for loc in skip):
            continue
        for loc, message, key in _sentences(mistake, schema):
            place = source.place(loc, key=key) or (0, 0)
            lines.append((place, source.problem(loc, message, key=key)))
    return lines


def _follows_from_others(type_: str, context: Mapping[str, Any], given: object) -> bool:
    """Tell whether pydantic reports a mistake only because of others inside the same value.

    It counts the valid entries of a list, and calls no default that needs the other fields.
    """
    if type_ == "too_short":
        return _length(given) >= int(context["min_length"])
    return type_ == "default_factory_not_called"


def _one_branch(mistakes: list[_Mistake]) -> list[_Mistake]:
    """Keep, of the mistakes that pydantic lists for each form of a union, those of one form.

    A step that leads nowhere names the form. If only one form has the type of what was given, its
    mistakes stay; if none has, one mistake that names them all takes their place.
    """
    alive = {id(mistake): mistake for mistake in mistakes}
    unions: dict[_Steps, dict[str | int, list[_Mistake]]] = {}

    def register(mistake: _Mistake) -> None:
        for i, (step, exists) in enumerate(mistake.steps):
            last = i == len(mistake.steps) - 1
            if not exists and step != "[key]" and not (last and mistake.type == "missing"):
                unions.setdefault(mistake.steps[:i], {}).setdefault(step, []).append(mistake)

    for mistake in mistakes:
        register(mistake)
    # Innermost unions first: what is left of them counts in the unions around them.
    for prefix in sorted(unions, key=len, reverse=True):
        forms = [
            [mistake for mistake in each if id(mistake) in alive]
            for each in unions[prefix].values()
        ]
        forms = [each for each in forms if each]
        if len(forms) <= 1:
            continue
        loc = tuple(step for step, exists in prefix if exists)
        fitting = [
            each
            for each in forms
            if not any(mistake.loc == loc and mistake.expected for mistake in each)
        ]
        for mistake in chain.from_iterable(forms):
            del alive[id(mistake)]
        if len(fitting) == 1:
            alive |= {id(mistake): mistake for mistake in fitting[0]}
        else:
            merged = _merged(prefix, list(chain.from_iterable(fitting or forms)))
            alive[id(merged)] = merged
            register(merged)
    return list(alive.values())


def _merged(prefix: _Steps, mistakes: list[_Mistake]) -> _Mistake:
    given = next((each.input for each in mistakes if each.length is None), mistakes[0].input)
    phrases: Iterable[str]
    lengths = sorted({each.length for each in mistakes if each.length is not None})
    if lengths and all(each.length is not None for each in mistakes):
        phrases = [f"must have {' or '.join(map(str, lengths))} entries, got {_length(given)}"]
    elif all(each.expected for each in mistakes):
        expected = dict.fromkeys(each.expected for each in mistakes if each.expected)
        phrases = [f"must be {' or '.join(expected)}, got {_given(given)}"]
    else:
        phrases = dict.fromkeys(_plain_sentence(each) for each in mistakes)
    return _Mistake(prefix, "merged", {}, given, ", or ".join(phrases))


def _length(value: object) -> int:
    return len(value) if isinstance(value, list | dict) else 0


def _sentences(mistake: _Mistake, schema: _Schema) -> Iterator[tuple[Loc, str, bool]]:
    """Location, sentence, and whether the position is that of the field's name."""
    loc = mistake.loc
    if mistake.type == "problems":
        for inner, message in mistake.context["problems"]:
            yield (*loc, *inner), message, False
    elif mistake.type == "missing":
        last = mistake.steps[-1][0]
        if isinstance(last, int):
            yield loc, f"must have more entries: entry {last + 1} is missing", False
        else:
            yield loc, f"missing field '{last}'", False
    elif mistake.type == "extra_forbidden":
        allowed = schema.fields(mistake.steps[:-1])
        hint = did_you_mean(str(loc[-1]), allowed) or f" Allowed: {', '.join(allowed)}"
        yield loc, f"unknown field.{hint}", True
    elif mistake.type == "union_tag_not_found":
        yield loc, f"missing field {mistake.context['discriminator']}", False
    elif mistake.type == "union_tag_invalid":
        field_name = str(mistake.context["discriminator"]).strip("'")
        words = _words(mistake.context["expected_tags"])
        yield (*loc, field_name), _choice(words, mistake.context["tag"]), False
    else:
        is_key = any(step == "[key]" for step, _ in mistake.steps)
        yield loc, _plain_sentence(mistake), is_key


def _plain_sentence(mistake: _Mistake) -> str:
    if mistake.type == "merged":
        return mistake.message
    if mistake.type in ("literal_error", "enum"):
        return _choice(_words(mistake.context["expected"]), mistake.input)
    given = _given(mistake.input)
    if mistake.expected:
        return f"must be {mistake.expected}, got {given}"
    limits = _limit_sentence(mistake)
    if limits:
        return limits
    message = mistake.message.removeprefix("Value error, ").replace("Input should be", "must be")
    # Fields that don't go together: what was given is all of them.
    whole = mistake.type == "value_error" and isinstance(mistake.input, dict)
    if whole or "got " in message:
        return message
    return f"{message[:1].lower()}{message[1:]}, got {given}"


def _limit_sentence(mistake: _Mistake) -> str:
    """Say which limit of a number, a list or a text was passed; nothing if none was."""
    given, context = _given(mistake.input), mistake.context
    match mistake.type:
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            sign, key = _LIMITS[mistake.type]
            limit = context[key]
            number = int(limit) if float(limit).is_integer() else limit
            return f"must be {sign} {number}, got {given}"
        case "too_short" | "too_long":
            bound, key = ("least", "min") if mistake.type == "too_short" else ("most", "max")
            count = context[f"{key}_length"]
            entries = "entry" if count == 1 else "entries"
            return f"must have at {bound} {count} {entries}, got {_length(mistake.input)}"
        case "string_too_short" if context["min_length"] == 1:
            return "must not be empty"
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}, got {given}"
    return ""


def _words(listed: str) -> list[str]:
    return re.findall(r"'([^']*)'", listed)


def _choice(words: list[str], given: object) -> str:
    listed = ", ".join(f"'{word}'" for word in words)
    hint = did_you_mean(given, words) if isinstance(given, str) else ""
    one_of = "one of " if len(words) > 1 else ""
    return f"must be {one_of}{listed}, got {_given(given)}{'.' if hint else ''}{hint}"


class _Schema:
    """Looks up the fields that are allowed at a location, in the JSON Schema of the type."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    @cached_property
    def _root(self) -> dict[str, Any]:
        return self._model.model_json_schema()

    def fields(self, steps: _Steps) -> list[str]:
        here = list(self._forms(self._root))
        for step, exists in steps:
            follow = self._inner if exists else self._tagged
            here = [form for node in here for form in follow(node, step)]
        return list(dict.fromkeys(name for node in here for name in node.get("properties", {})))

    def _forms(self, node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the node, with references followed, and the forms of a union."""
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            yield from self._forms(self._root["$defs"][name])
            return
        yield node
        if "discriminator" not in node:
            for form in [*node.get("anyOf", ()), *node.get("oneOf", ())]:
                yield from self._forms(form)

    def _inner(self, node: dict[str, Any], step: str | int) -> Iterator[dict[str, Any]]:
        if isinstance(step, int):
            inner = node.get("items")
        else:
            inner = node.get("properties", {}).get(step, node.get("additionalProperties"))
        if isinstance(inner, dict):
            yield from self._forms(inner)

    def _tagged(self, node: dict[str, Any], step: str | int) -> Iterator[dict[str, Any]]:
        chosen = node.get("discriminator", {}).get("mapping", {}).get(step)
        yield from self._forms({"$ref": chosen}) if chosen else (node,)


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


UNFINISHED = ".energysim-*.tmp"
"""Names of files that are being written; one stays behind where a process was killed."""


def check_writable(path: Path) -> None:
    """Refuse, before any work, a file that can't be written.

    Raises
    ------
    InputError
        If the name is that of a folder, its folder is missing, or writing is not permitted.
    """
    where = str(path)
    if path.is_dir():
        raise InputError("is a folder, not a file to write", where=where)
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist", where=where)
    touched = [path] if path.exists() else []
    if not path.exists() or path.is_file():  # files are replaced, which changes the folder
        touched.append(path.parent)
    if not all(os.access(each, os.W_OK) for each in touched):
        raise InputError("no permission to write it", where=where)


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write a whole file or nothing: to a neighbour first, which then takes the name.

    A name that stands for a device or a pipe (``/dev/stdout``) is written to directly.

    Raises
    ------
    InputError
        If the folder is missing or can't be written to, or the name is that of a folder.
    """
    raw = data.encode() if isinstance(data, str) else data
    try:
        path.exists()  # a name that can't be one, such as with a zero byte
    except (ValueError, RuntimeError) as error:
        raise InputError(f"can't be written: {error}", where=str(path)) from None
    with atomic_file(path) as file:
        file.write(raw)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name when all is written; see `write_atomically`.

    Raises
    ------
    InputError
        As :func:`write_atomically`.
    """
    where = str(path)
    try:
        if path.is_dir():
            raise InputError("is a folder, not a file to write", where=where)
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        with _replacing(path.resolve()) as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"the folder {path.parent} does not exist", where=where) from None
    except PermissionError:
        raise InputError(f"no permission to write in {path.parent}", where=where) from None
    except OSError as error:
        raise InputError(f"can't be written: {error.strerror}", where=where) from None


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    temporary = target.with_name(UNFINISHED.replace("*", secrets.token_hex(6)))
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
