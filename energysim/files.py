"""Files as wholes: text that is read, and what is written entirely or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from energysim.errors import InputError, did_you_mean

MAX_BYTES = 10_000_000
"""Larger files are not read [byte]."""
UNFINISHED = ".energysim-*.tmp"
"""Names of files that are being written; one stays behind where a process was killed."""


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
