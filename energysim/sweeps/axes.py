"""What is varied in a sweep: names of fields and the values that they take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, log

from energysim.errors import InputError

Value = int | float | str | bool
"""One value of a field."""

MOST_VALUES = 10_000_000
"""Values of one axis."""

HOW = "64:1024:x2 (times 2), 4:40:+4 (plus 4), 4:40:#10 (10 values, evenly) or 1,8,64"
"""Ways to write values, for messages."""

WORDS: dict[str, bool] = {"true": True, "false": False, "on": True, "off": False}
"""Of yes and no, in any case of letters."""

LARGEST = 2**53
"""Whole numbers up to this are exact in a table."""

SLACK = 1e-9
"""Share of a step by which the last value may miss the end for rounding alone."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A field, or several that change together, and the values it takes.

    Examples
    --------
    >>> Axis.read("levels.SRAM.capacity_kib", "64:512:x2").values
    (64, 128, 256, 512)
    """

    name: str
    """as given; the column of the table"""
    values: tuple[Value, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that the values are put into."""
        return tuple(self.name.split("+"))

    @classmethod
    def read(cls, name: str, given: object) -> Axis:
        """Read the values of an axis from text, or from what stands in a file.

        Raises
        ------
        InputError
            If they are no values, or the same value occurs twice.
        """
        parts = [part.strip() for part in name.split("+")]
        name = "+".join(parts)
        if not all(parts):
            raise InputError(f"'{name}' names no field. Allowed: batch, levels.SRAM.capacity_kib")
        values = values_of(given, name)
        seen: set[tuple[bool, Value]] = set()
        for value in values:
            own = isinstance(value, bool), value
            if own in seen:
                raise InputError(f"{name}: {value} stands there twice")
            seen.add(own)
        return cls(name, values)


def values_of(given: object, name: str) -> tuple[Value, ...]:
    """Values as a scan gives them: a range, words with commas between, a list or one value.

    Parameters
    ----------
    given : str, number, bool or list of them
    name : str
        Of the axis, for messages.

    Raises
    ------
    InputError
        If it is none of these.

    Examples
    --------
    >>> values_of("4:40:#4", "x"), values_of("PS4_P4,dense", "x"), values_of([1, 8], "x")
    ((4, 16, 28, 40), ('PS4_P4', 'dense'), (1, 8))
    """
    if isinstance(given, str):
        values = tuple(_range(given, name)) if _is_range(given) else tuple(_words(given, name))
    elif isinstance(given, bool | int | float):
        values = (given,)
    elif isinstance(given, Sequence):
        values = tuple(each for item in given for each in values_of(item, name))
    else:
        raise InputError(f"{name}: needs values. Allowed: {HOW}")
    if not values:
        raise InputError(f"{name}: has no values. Allowed: {HOW}")
    for value in values:
        if isinstance(value, float) and not isfinite(value):
            raise InputError(f"{name}: {value} is no finite number")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise InputError(f"{name}: whole numbers go up to {LARGEST:,}")
    return values


def _is_range(text: str) -> bool:
    """Tell a range from a word with colons, such as the pattern 2:4."""
    return text.count(":") == 2  # noqa: PLR2004 - first, last, step


def _words(text: str, name: str) -> Iterator[Value]:
    for word in text.split(","):
        if not word.strip():
            raise InputError(f"{name}: a value is missing in '{text}'. Allowed: {HOW}")
        yield value_of(word.strip())


def value_of(word: str) -> Value:
    """Read a number, true or false, or a word.

    Examples
    --------
    >>> value_of("8"), value_of("0.5"), value_of("off"), value_of("vgg16")
    (8, 0.5, False, 'vgg16')
    """
    for read in (int, float):
        try:
            return read(word)
        except ValueError:
            continue
    return WORDS.get(word.lower(), word)


def _range(text: str, name: str) -> Iterator[Value]:
    """Values from the first to the last, both included where the steps meet it."""
    words = [word.strip() for word in text.split(":")]
    how, amount = words[2][:1], words[2][1:]
    numbers = [value_of(word) for word in (*words[:2], amount)]
    if how not in ("x", "+", "#") or any(type(each) not in (int, float) for each in numbers):
        raise InputError(f"{name}: '{text}' is no range. Allowed: {HOW}")
    low, high, by = (_number(each) for each in numbers)
    many = _count(low, high, how, by)
    if many is None or not 1 <= many <= MOST_VALUES:
        raise InputError(
            f"{name}: '{text}' has {'no end' if many is None else f'{many:,} values'}; allowed are"
            f" 1 to {MOST_VALUES:,}, from the smaller to the larger number"
        )
    for i in range(many):
        if how == "#":
            yield _between(low, high, i, many)
        else:
            yield _plain(low * by**i if how == "x" else low + i * by)


def _between(low: float, high: float, place: int, many: int) -> int | float:
    """One of so many values, evenly from the first to the last; whole where all of them are."""
    if place in (0, many - 1):
        return high if place else low
    if isinstance(low, int) and isinstance(high, int) and (high - low) % (many - 1) == 0:
        return low + place * (high - low) // (many - 1)
    return _plain(low + place * (high - low) / (many - 1))


def _number(value: Value) -> int | float:
    return value if isinstance(value, int | float) else float(value)


def _plain(value: int | float) -> int | float:  # noqa: PYI041 - as above
    """Leave out what rounding adds: 0.3, not 0.30000000000000004."""
    return value if isinstance(value, int) else float(f"{value:.12g}")


def _count(low: float, high: float, how: str, by: float) -> int | None:
    """How many values a range has; None if it never ends, one too many if it has too many."""
    try:
        if not all(map(isfinite, (low, high, by))):
            return None
        if how == "#":
            return by if isinstance(by, int) and (by != 1 or low == high) else 0
        if high < low:
            return 0
        if how == "+":
            steps = (high - low) / by if by > 0 else None
        else:
            steps = log(high / low) / log(by) if by > 1 and low > 0 else None
        if steps is None:
            return None
        return int(min(steps, MOST_VALUES) + SLACK) + 1
    except OverflowError:
        return MOST_VALUES + 1
