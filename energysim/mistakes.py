"""What is wrong with a value, as a sentence with its place, from what pydantic says of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from energysim.errors import did_you_mean

Loc = tuple[str | int, ...]
"""Field names and list indices that lead to a value."""
Place = tuple[int, int]
"""Line and column, both from 1."""
_Steps = tuple[tuple[str | int, bool], ...]
"""A location whose steps say whether they lead to a value of the file; see ``Source.steps``."""

_LONGEST_SHOWN = 60
"""Longer values are cut in messages [characters]."""


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
        return position(self.name, self.place(loc, key=key))

    def problem(self, loc: Loc, message: str, *, key: bool = False) -> str:
        """One line of an error message: where, which field, what is wrong."""
        dotted = ".".join(str(step) for step in loc)
        return f"{self.where(loc, key=key)}{' ' * bool(dotted)}{dotted}: {message}"


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


def explained(
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
        phrases = [f"must be {' or '.join(expected)}, got {shown(given)}"]
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
    given = shown(mistake.input)
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
    given, context = shown(mistake.input), mistake.context
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
    return f"must be {one_of}{listed}, got {shown(given)}{'.' if hint else ''}{hint}"


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


def position(name: str, place: Place | None) -> str:
    """``file:line:column``, or the file alone."""
    return f"{name}:{place[0]}:{place[1]}" if place else name


def shown(value: object) -> str:
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
