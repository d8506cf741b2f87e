"""Image files to pixels, once: what is decoded is kept in a folder and mapped from there.

A kept file is an ``.npy`` with the sha256 of its pixels behind it. It is written to the side and
then put in place, and one that is broken in any way is made again. A folder that can't be written
to never stops a run.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from energysim.errors import InputError
from energysim.files import UNFINISHED
from energysim.train.data.dataset import Images
from energysim.train.data.fit import fit

FORMAT = 1
"""Number of the way pixels are made and kept: another one finds nothing of the old."""
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP")
"""What is decoded, by Pillow's names."""

_KEPT = "images"
"""Folder of the kept files."""
_MAX_PIXELS = 1 << 24
"""Larger images are refused."""
_BLOCK = 256
"""Images that are decoded before they are written."""
_GREY = ("1", "L", "LA")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_SHA256_BYTES = 32
_AXES = 4


@dataclass(frozen=True, slots=True)
class Pictures:
    """Image files, not yet decoded."""

    names: Sequence[str]
    """of each, for messages"""
    open: Callable[[int], Path | io.BytesIO]
    """where each is"""
    identity: object
    """plain data that differs where the files differ"""
    colour: bool = False
    """whether grey ones become colour even where all are grey"""
    formats: tuple[str, ...] = FORMATS
    """what they may be"""


def decoded(pictures: Pictures, *, side: int | None = None, cache: Path | None = None) -> Images:
    """Decode images, or map what was decoded before.

    Parameters
    ----------
    pictures : Pictures
        The files. Grey ones give one channel if all are grey.
    side : int, optional
        Make each a square of so many pixels; see :func:`~energysim.train.data.fit.fit`. Without
        it they must be of one size.
    cache : Path, optional
        Folder to keep the pixels in.

    Returns
    -------
    array of uint8
        Shape (N, C, H, W), mapped from the kept file if there is one.

    Raises
    ------
    InputError
        If Pillow is not there, or a file is damaged or no image, or sizes differ.
    """
    kept = cache and cache / _KEPT / f"{_key(pictures, side)}.npy"
    if kept and (found := _mapped(kept, len(pictures.names))) is not None:
        return found
    if find_spec("PIL") is None:
        raise InputError(
            "image files need the package Pillow. Try: pip install 'energysim[images]'"
        )
    with warnings.catch_warnings():
        # The sizes in the heads of the files are looked at here, and refused with the file's name.
        warnings.simplefilter("ignore")
        channels, size = _looked_at(pictures, side)
        shape = (len(pictures.names), channels, *size)
        if kept and _keep(kept, shape, _blocks(pictures, channels, side)):
            found = _mapped(kept, len(pictures.names))
            if found is not None:
                return found
        images = np.empty(shape, np.uint8)
        first = 0
        for block in _blocks(pictures, channels, side):
            images[first : first + len(block)] = block
            first += len(block)
    return images


def _key(pictures: Pictures, side: int | None) -> str:
    parts = [FORMAT, pictures.identity, side, pictures.colour]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class SizesError(InputError):
    """Images differ in size, and none to bring them to was given."""


def _looked_at(pictures: Pictures, side: int | None) -> tuple[int, tuple[int, int]]:
    """Channels, height and width that will come out, from the heads of the files."""
    from PIL import Image

    sizes: dict[tuple[int, int], str] = {}
    grey = not pictures.colour
    for index, name in enumerate(pictures.names):
        with _naming(name), Image.open(pictures.open(index), formats=pictures.formats) as image:
            width, height = image.size
            mode = image.mode
        if width * height > _MAX_PIXELS:
            raise InputError(f"is too large: {width}x{height} pixels", where=name)
        if mode not in (*_GREY, *_COLOUR):
            raise InputError(
                f"has pixels of type {mode}; 8 bits for each channel are read", where=name
            )
        grey &= mode in _GREY
        sizes.setdefault((height, width), name)
    if side is not None:
        return (1 if grey else 3), (side, side)
    if len(sizes) > 1:
        ((first, one), (second, other), *_) = sizes.items()
        raise SizesError(
            f"images differ in size: {one} is {first[1]}x{first[0]}, {other} {second[1]}x"
            f"{second[0]}. Give the size to bring all of them to"
        )
    return (1 if grey else 3), next(iter(sizes))


def _blocks(pictures: Pictures, channels: int, side: int | None) -> Iterator[Images]:
    for first in range(0, len(pictures.names), _BLOCK):
        rows = range(first, min(len(pictures.names), first + _BLOCK))
        block = [_pixels(pictures, index, channels) for index in rows]
        if side is not None:
            block = [fit(pixels[None], side)[0] for pixels in block]
        yield np.stack(block)


def _pixels(pictures: Pictures, index: int, channels: int) -> Images:
    from PIL import Image

    with (
        _naming(pictures.names[index]),
        Image.open(pictures.open(index), formats=pictures.formats) as image,
    ):
        if channels == 1:
            return np.asarray(image.convert("L"))[None]
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


class _naming:  # noqa: N801 - reads as a word in a with statement
    """Says which file it is that can't be decoded; a context manager without a generator's cost."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from PIL import Image, UnidentifiedImageError

        if isinstance(error, UnidentifiedImageError):
            raise InputError("is no image that can be read", where=self.name) from None
        damage = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError)
        if isinstance(error, (*damage, Image.DecompressionBombError)):
            brief = str(error).split("\n", maxsplit=1)[0]
            raise InputError(f"is a damaged image ({brief})", where=self.name) from None


def _mapped(path: Path, many: int) -> Images | None:
    """What was kept, or None if there is nothing that can be trusted."""
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        if images.dtype != np.uint8 or images.ndim != _AXES or len(images) != many:
            return None
        with path.open("rb") as file:
            file.seek(-_SHA256_BYTES, os.SEEK_END)
            if file.tell() != images.offset + images.nbytes:
                return None
            written = file.read()
    except (OSError, ValueError, EOFError, AttributeError):
        return None
    digest = hashlib.sha256()
    for first in range(0, many, _BLOCK):
        digest.update(np.ascontiguousarray(images[first : first + _BLOCK]).data)
    return np.asarray(images) if digest.digest() == written else None


def _keep(path: Path, shape: tuple[int, ...], blocks: Iterator[Images]) -> bool:
    """Write pixels as they are decoded; whether that was possible.

    They are written, not mapped: a full disk is then an error that can be met.
    """
    temporary = path.with_name(UNFINISHED.replace("*", secrets.token_hex(6)))
    head = {"descr": "|u1", "fortran_order": False, "shape": shape}
    digest = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            np.lib.format.write_array_header_1_0(file, head)
            for block in blocks:
                pixels = np.ascontiguousarray(block).data
                digest.update(pixels)
                file.write(pixels)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        return False
    finally:
        # A file that has its name is no longer there under this one.
        _remove(temporary)
    return True


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
