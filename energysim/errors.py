"""Errors a user can meet: named after who must act, formatted in one place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EnergysimError(Exception):
    """Base of all errors that are not bugs; the command line prints them without a traceback."""

    exit_code = 2


class InputError(EnergysimError):
    """Something the user wrote is wrong: a file, a name, an option.

    Parameters
    ----------
    message : str
        What is wrong, what was given, what is allowed, what to try.
    where : str
        ``file``, ``file:line:column`` or an option's name.
    """

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where


class InputErrors(InputError):  # noqa: N818 - it is several errors
    """Everything that is wrong with one file at once."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__("\n".join(self.problems) + f"\n{count} error{'s' * (count != 1)}")


class MissingExtraError(InputError, ImportError):
    """A part of the package that was asked for needs a library that is not installed."""


class DoesNotFitError(EnergysimError):
    """A layer fits no mapping; the message names the level and what is missing."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the nearest known word, or an empty string.

    Examples
    --------
    >>> did_you_mean("vgg16ps", ["vgg16", "vgg16_ps"])
    " Did you mean 'vgg16_ps'?"
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
