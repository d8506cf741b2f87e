"""Files by name, out of a folder or a tar archive, that are looked at without trusting them.

Nothing is ever unpacked to disk. An archive that leads out of itself, links, or unpacks to more
than any known data set is refused.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from energysim.errors import InputError

MAX_BYTES = 400_000_000
"""Larger files are not read, larger archives not unpacked; CIFAR is 186 MB [byte]."""

_MAX_MEMBERS = 1_000
_MAX_READ = 1 << 22
"""Most that is asked for at once: what describes a member needs less [byte]."""
_BACK = 1 << 14
"""How far an archive that is read once may be gone back in [byte]."""
_GZIP = b"\x1f\x8b"
_TAR_MARK = slice(257, 262)
_TAR_BLOCK = 512
_DAMAGE = (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, OverflowError)


@dataclass(frozen=True, slots=True)
class Store:
    """Files of one folder."""

    where: str
    """as the user knows it"""
    names: frozenset[str]
    """of its files"""
    read: Callable[[str], bytes]
    """the contents of one"""


def folder_store(folder: Path) -> Store:
    """Files that lie in a folder, not below it."""

    def read(name: str) -> bytes:
        return read_file(folder / name)

    return Store(str(folder), frozenset(p.name for p in entries(folder) if p.is_file()), read)


def entries(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden, sorted by name.

    Raises
    ------
    InputError
        If the folder can't be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", where=str(folder)) from None


def read_file(path: Path) -> bytes:
    """Read a file of reasonable size.

    Raises
    ------
    InputError
        If it can't be read or is too large.
    """
    try:
        with path.open("rb") as file:
            raw = read_some(file, MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", where=str(path)) from None
    if len(raw) > MAX_BYTES:
        raise InputError(f"is larger than {MAX_BYTES / 1e6:.0f} MB", where=str(path))
    return raw


def read_some(file: IO[bytes], most: int) -> bytes:
    """Read up to so many bytes, taking memory only for what is there."""
    raw = bytearray()
    while len(raw) < most and (part := file.read(min(_MAX_READ, most - len(raw)))):
        raw += part
    return bytes(raw)


def is_tar(path: Path) -> bool:
    """Whether a file is a tar archive, packed with gzip or not."""
    try:
        with _unpacked(path) as file:
            return file.read(_TAR_BLOCK)[_TAR_MARK] == b"ustar"
    except (OSError, EOFError, zlib.error):
        return False


def tar_store(path: Path) -> Store:
    """Read the files of a tar archive, whatever folder of it they are in.

    Raises
    ------
    InputError
        If the archive is damaged, or holds anything but files and folders inside itself, or more
        than is reasonable, or two files of one name.
    """
    where = str(path)
    try:
        with _unpacked(path) as file, tarfile.open(fileobj=_Limited(file), mode="r:") as archive:
            files = dict(_members(archive))
    except InputError as error:
        raise InputError(str(error), where=where) from None
    except _DAMAGE as error:
        brief = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"is truncated or damaged ({brief})", where=where) from None
    return Store(where, frozenset(files), files.__getitem__)


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    seen: set[str] = set()
    for many, member in enumerate(archive):
        name = PurePosixPath(member.name)
        shown = ascii(member.name[:60])
        if many >= _MAX_MEMBERS:
            raise InputError(f"holds more than {_MAX_MEMBERS} files")
        if name.is_absolute() or ".." in name.parts or "\\" in member.name:
            raise InputError(f"holds {shown}, which leads out of it")
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise InputError(f"holds {shown}, which is a link or no ordinary file")
        if member.size > MAX_BYTES:
            raise InputError(f"holds {shown} of more than {MAX_BYTES / 1e6:.0f} MB")
        if name.name.startswith("."):  # what macOS adds
            continue
        if name.name in seen:
            raise InputError(f"holds two files named {name.name[:60]!r}")
        seen.add(name.name)
        yield name.name, _content(archive, member)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    content = read_some(file, member.size) if file else b""
    if len(content) != member.size:
        raise EOFError(f"it ends within {member.name[:60]!r}")
    return content


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.open(file) as unpacked:
            yield cast("IO[bytes]", unpacked)


class _Limited(io.RawIOBase):
    """A file that is read once, forwards, up to a limit, and not much of it at a time.

    So no size that an archive claims, of a file or of a description of one, is believed.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._furthest = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._furthest - _BACK:
            raise tarfile.ReadError("its parts overlap")
        self._allow(offset)
        return self._file.seek(offset)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_READ:
            raise tarfile.ReadError("the description of a file is too long")
        self._allow(self._file.tell() + size)
        return self._file.read(size)

    def _allow(self, end: int) -> None:
        if end > MAX_BYTES:
            raise InputError(f"unpacks to more than {MAX_BYTES / 1e6:.0f} MB")
        self._furthest = max(self._furthest, end)
