"""Masks in a file: an ``.npz`` of NumPy with an array of bool for each layer.

The heads of the arrays (type and shape) are read apart from what they hold, so that an array that
fits no layer is refused before any memory is taken for it.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO, TYPE_CHECKING

from energysim.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SUFFIX = ".npy"
_REMEDY = "Write it with numpy.savez(FILE, LAYER=mask, ...)"
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError, MemoryError)
"""What a damaged or hostile archive makes the zip and array readers raise."""

_UNREADABLE = (ValueError, KeyError, TypeError, SyntaxError, TokenError)
"""The head of an array is a Python literal: what parsing another text raises."""


@dataclass(frozen=True, slots=True)
class Head:
    """What an array says of itself."""

    dtype: str
    """name of its type"""
    shape: tuple[int, ...]
    """extents"""


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A file of masks that has been looked into; the masks themselves are read one by one."""

    path: Path
    """the file"""
    heads: Mapping[str, Head]
    """of the array of each layer, by name"""

    @classmethod
    def open(cls, path: Path | str) -> MaskFile:
        """Look into a file of masks.

        Parameters
        ----------
        path : Path or str
            An ``.npz``: layer name -> array.

        Raises
        ------
        InputError
            If it can't be read, is no ``.npz``, or holds something else than arrays.
        """
        path = Path(path)
        try:
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
                heads = [(info.filename, _head(archive, info)) for info in infos]
        except FileNotFoundError:
            raise InputError("no such file", where=str(path)) from None
        except IsADirectoryError:
            raise InputError("is a folder, not a file of masks", where=str(path)) from None
        except PermissionError:
            raise InputError("no permission to read it", where=str(path)) from None
        except _DAMAGE as error:
            raise InputError(
                f"is no .npz file of arrays, or damaged ({_brief(error)}). {_REMEDY}",
                where=str(path),
            ) from None
        found: dict[str, Head] = {}
        for filename, head in heads:
            name = filename.removesuffix(_SUFFIX)
            if name in found:
                raise InputError(f"holds two arrays named {name!r}", where=str(path))
            found[name] = head
        if not found:
            raise InputError(f"holds no masks. {_REMEDY}", where=str(path))
        return cls(path, found)

    def read(self, name: str) -> npt.NDArray[np.generic]:
        """Read the array of one layer.

        Parameters
        ----------
        name : str
            A key of ``heads``.

        Raises
        ------
        InputError
            If the array is damaged.
        """
        import numpy as np

        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                array: npt.NDArray[np.generic] = arrays[name]
        except (*_DAMAGE, *_UNREADABLE) as error:
            raise InputError(f"the array of its mask is damaged ({_brief(error)})") from None
        return array


def mask_file(masks: Mapping[str, npt.NDArray[np.bool_]]) -> bytes:
    """Write masks as :meth:`MaskFile.open` reads them; equal masks give equal bytes.

    Parameters
    ----------
    masks : mapping of str to array of bool
        Layer name -> mask.

    Returns
    -------
    bytes
        Of an ``.npz``.
    """
    import numpy as np

    packed = io.BytesIO()
    # Not numpy.savez: it takes names as keywords, of which it has some of its own.
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mask in masks.items():
            array = io.BytesIO()
            np.lib.format.write_array(array, mask, allow_pickle=False)
            # The default time of an entry is a fixed one.
            entry = zipfile.ZipInfo(f"{name}{_SUFFIX}")
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, array.getvalue())
    return packed.getvalue()


def _head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Head:
    if not info.filename.endswith(_SUFFIX):
        raise ValueError(f"{info.filename!r} in it is no array")
    with archive.open(info) as file:
        head, used = _head_of(file, info.filename)
    # An array that claims more than the archive holds would take that much memory first.
    if head.dtype == "bool" and used + prod(head.shape) != info.file_size:
        raise ValueError(
            f"{info.filename!r} in it has the shape {list(head.shape)} and"
            f" {info.file_size - used} bytes"
        )
    return head


def _head_of(file: IO[bytes], name: str) -> tuple[Head, int]:
    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    try:
        shape, _, dtype = readers[npy.read_magic(file)](file)
    except _UNREADABLE:  # their texts name objects of the parser
        raise ValueError(f"{name!r} in it does not begin as an array does") from None
    return Head(str(dtype), tuple(map(int, shape))), file.tell()


def _brief(error: BaseException) -> str:
    return str(error).split("\n", maxsplit=1)[0] or type(error).__name__
