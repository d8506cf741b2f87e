"""Reads pickles that hold plain data and arrays of numbers, and runs nothing that they ask for.

A pickle is a program, and the usual loader runs it: whoever made the file decides what happens.
Here its instructions are taken one by one (:func:`pickletools.genops`) and only those that build
numbers, strings, lists, tuples, mappings and NumPy arrays mean anything. The five functions that
the pickle of an array names are not called either, they stand for what they would do:

- ``numpy.core.multiarray._reconstruct`` (NumPy 1) or ``numpy._core.multiarray._reconstruct``
  (NumPy 2), ``numpy.ndarray`` and ``numpy.dtype`` for an array,
- ``_codecs.encode`` for bytes, which Python 3 writes so for the sake of Python 2.

So nothing can be called, and no more memory is taken than the file has.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError

_MAX_STEPS = 2_000_000
"""Instructions; a file of CIFAR-100 has about 250,000."""
_MAX_AXES = 8
_LONGEST_SHOWN = 60


class _Name(Enum):
    """What a pickle may name."""

    RECONSTRUCT = auto()
    ARRAY = auto()
    TYPE = auto()
    ENCODE = auto()


_NAMES = {
    "numpy.core.multiarray _reconstruct": _Name.RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _Name.RECONSTRUCT,
    "numpy ndarray": _Name.ARRAY,
    "numpy dtype": _Name.TYPE,
    "_codecs encode": _Name.ENCODE,
}
_TYPES = frozenset(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)) | {"b1"}


@dataclass(slots=True)
class _Type:
    code: str
    order: str = "|"


@dataclass(slots=True)
class _Array:
    """An array to be: filled in by a later instruction."""

    array: npt.NDArray[np.generic] | None = None


@dataclass(slots=True)
class _State:
    room: int
    """bytes that may still be made out of text: each letter of the file can be one once"""
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark off the stack."""
        first = self.marks.pop()
        taken = self.stack[first:]
        del self.stack[first:]
        return taken

    def pop(self, many: int) -> list[Any]:
        """Take so many values off the stack."""
        if len(self.stack) < many:
            raise IndexError("the stack is empty")
        taken = self.stack[len(self.stack) - many :]
        del self.stack[len(self.stack) - many :]
        return taken


def unpickle(raw: bytes, *, where: str) -> dict[str, Any]:
    """Read a pickled mapping.

    Parameters
    ----------
    raw : bytes
        A pickle of protocol 0 to 4.
    where : str
        The file, for messages.

    Returns
    -------
    dict
        Names to plain data or arrays; names that were bytes are text.

    Raises
    ------
    InputError
        If the file is damaged, is not a mapping, or asks for anything but plain data and arrays.
    """
    try:
        return _mapping(_run(raw))
    except InputError as error:
        raise InputError(str(error), where=where) from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError):
        raise InputError("is a damaged pickle, or none at all", where=where) from None


def _mapping(data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError("holds no mapping of names to data")
    return {_text(name): _plain(value) for name, value in data.items()}


def _run(raw: bytes) -> object:
    state = _State(room=len(raw))
    for count, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
        if count >= _MAX_STEPS:
            raise InputError(f"has more than {_MAX_STEPS:,} instructions")
        name = opcode.name
        if name in _VALUES:
            state.stack.append(argument)
        elif name in _STEPS:
            _STEPS[name](state, argument)
        elif name == "STOP":
            return state.stack[-1]
        else:
            raise InputError(
                f"is refused: its instruction {name} is not needed for plain data and arrays"
            )
    raise ValueError("no end")


def _text(name: object) -> str:
    if isinstance(name, bytes):
        return name.decode("ascii")
    if isinstance(name, str):
        return name
    raise TypeError("names are text")


def _plain(value: object) -> object:
    return value.array if isinstance(value, _Array) else value


def _set_items(state: _State, pairs: list[Any]) -> None:
    mapping = state.stack[-1]
    if not isinstance(mapping, dict):
        raise TypeError("no mapping")
    for name, value in zip(pairs[::2], pairs[1::2], strict=True):
        # Text only: to look up a nest of tuples can take longer than anyone lives.
        if not isinstance(name, str | bytes):
            raise TypeError("names are text")
        mapping[name] = value


def _dict(state: _State, _: object) -> None:
    pairs = state.since_mark()
    state.stack.append({})
    _set_items(state, pairs)


def _extend(state: _State, values: list[Any]) -> None:
    if not isinstance(state.stack[-1], list):
        raise TypeError("no list")
    state.stack[-1].extend(values)


def _name(state: _State, name: object) -> None:
    known = _NAMES.get(str(name))
    if known is None:
        raise InputError(
            f"is refused: it asks for {str(name)[:_LONGEST_SHOWN].replace(' ', '.')!r}. Only plain"
            " data and arrays are read: a pickle can run any program"
        )
    state.stack.append(known)


def _stack_name(state: _State, _: object) -> None:
    module, name = state.pop(2)
    if not isinstance(module, str) or not isinstance(name, str):
        raise TypeError("names are text")
    _name(state, f"{module} {name}")


def _call(state: _State, _: object) -> None:
    name, given = state.pop(2)
    match name, given:
        case _Name.ENCODE, (str(text), str("latin1" | "latin-1")):
            state.room -= len(text)
            if state.room < 0:
                raise InputError("is refused: it makes more data than it holds")
            state.stack.append(text.encode("latin-1"))
        case _Name.TYPE, (str() | bytes() as code, *_):
            state.stack.append(_Type(_text(code)))
        case _Name.RECONSTRUCT, (_Name.ARRAY, (0,), b"b" | "b"):
            state.stack.append(_Array())
        case _:
            raise InputError("is refused: it calls what it names in no way that an array needs")


def _build(state: _State, _: object) -> None:
    (given,) = state.pop(1)
    made = state.stack[-1]
    match made, given:
        case _Type(), (int(), str() | bytes() as order, *_):
            made.order = _text(order)
        case _Array(array=None), (1, tuple(shape), _Type() as kind, bool(columns), bytes(raw)):
            made.array = _array(shape, kind, raw, columns_first=columns)
        case _:
            raise InputError("is refused: it sets up something that is no array of numbers")


def _array(
    shape: tuple[Any, ...], kind: _Type, raw: bytes, *, columns_first: bool
) -> npt.NDArray[np.generic]:
    if kind.code not in _TYPES or kind.order not in ("<", ">", "|", "="):
        raise InputError("is refused: it has an array of something else than whole numbers")
    dtype = np.dtype(kind.order + kind.code)
    if len(shape) > _MAX_AXES or not all(isinstance(extent, int) for extent in shape):
        raise TypeError("no shape")
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(raw):
        raise ValueError("the shape of an array is not that of its data")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if columns_first else "C")


def _push(make: Callable[[], object]) -> Callable[[_State, Any], None]:
    return lambda state, _: state.stack.append(make())


def _tuple(many: int) -> Callable[[_State, Any], None]:
    return lambda state, _: state.stack.append(tuple(state.pop(many)))


def _store(state: _State, place: int) -> None:
    state.memo[place] = state.stack[-1]


def _memoize(state: _State, _: object) -> None:
    state.memo[len(state.memo)] = state.stack[-1]


def _fetch(state: _State, place: int) -> None:
    state.stack.append(state.memo[place])


def _nothing(_: _State, __: object) -> None:
    """Skip the instruction."""


_VALUES = frozenset(
    (
        *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE"),
        *("BINBYTES", "BINBYTES8", "SHORT_BINBYTES"),
    )
)
"""Instructions whose argument is the value."""

_STEPS: dict[str, Callable[[_State, Any], None]] = {
    # The parser gives the byte strings of Python 2 as text, a letter a byte.
    **dict.fromkeys(
        ("STRING", "BINSTRING", "SHORT_BINSTRING"),
        lambda state, text: state.stack.append(text.encode("latin-1")),
    ),
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    "EMPTY_LIST": _push(list),
    "EMPTY_DICT": _push(dict),
    "EMPTY_TUPLE": _push(tuple),
    "MARK": lambda state, _: state.marks.append(len(state.stack)),
    "LIST": lambda state, _: state.stack.append(state.since_mark()),
    "TUPLE": lambda state, _: state.stack.append(tuple(state.since_mark())),
    "DICT": _dict,
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": lambda state, _: _extend(state, state.pop(1)),
    "APPENDS": lambda state, _: _extend(state, state.since_mark()),
    "SETITEM": lambda state, _: _set_items(state, state.pop(2)),
    "SETITEMS": lambda state, _: _set_items(state, state.since_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _store),
    "MEMOIZE": _memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _fetch),
    "GLOBAL": _name,
    "STACK_GLOBAL": _stack_name,
    "REDUCE": _call,
    "BUILD": _build,
    **dict.fromkeys(("PROTO", "FRAME"), _nothing),
}
"""What the other instructions do."""
