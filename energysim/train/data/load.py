"""Data by name, or whatever form of it lies at a path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from energysim.errors import InputError, did_you_mean
from energysim.train.data import cifar, folders, idx, npz
from energysim.train.data.bundled import digits
from energysim.train.data.dataset import Dataset
from energysim.train.data.shapes import shapes
from energysim.train.data.store import Store, entries, folder_store, is_tar, tar_store

BUNDLED: dict[str, Callable[[], Dataset]] = {"digits": digits, "shapes": shapes}
"""What needs no files of the user, by name."""

_ZIP = b"PK"
_PACKED = (".npz", ".tar", ".tar.gz", ".tgz")
_RAW = "raw"
"""Where torchvision puts the files of MNIST's form."""
_MAX_INNER = 100
"""Folders of a folder that are looked into."""
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder or an archive, and how to read from it."""

    store: Store
    folder: Path | None
    side: int | None
    cache: Path | None


@dataclass(frozen=True, slots=True)
class Layout:
    """A form that data may have on disk."""

    title: str
    """what it is"""
    files: str
    """what is looked for"""
    read: Callable[[_Place], Callable[[], Dataset] | None]
    """how to read it, or None where it is something else"""


def load(name: str | Path, *, side: int | None = None, cache: Path | None = None) -> Dataset:
    """Load data.

    Parameters
    ----------
    name : str or Path
        ``digits``, ``shapes``, or a path. A folder of one of these names is ``./digits``.
    side : int, optional
        Bring all images to squares of so many pixels; see :func:`~energysim.train.data.fit.fit`.
    cache : Path, optional
        Folder where the pixels of image files are kept once they are decoded.

    Returns
    -------
    Dataset
        Its ``layout`` says what was found.

    Raises
    ------
    InputError
        If nothing is there, or in no known form, or damaged, or hostile.
    """
    bundled = BUNDLED.get(str(name))
    data = bundled() if bundled else _at(Path(name), side, cache)
    return data if side is None else data.resized(side)


def _at(path: Path, side: int | None, cache: Path | None) -> Dataset:
    try:
        if path.is_dir():
            return _in_folder(path, side, cache)
        if path.is_file():
            return _in_file(path, side, cache)
    except (OSError, ValueError) as error:
        raise InputError(f"can't be read: {error}", where=str(path)) from None
    hint = did_you_mean(str(path), [*BUNDLED, *_siblings(path)])
    raise InputError(
        f"no data named {str(path)!r}, and no such file or folder.{hint} Known are"
        f" {' and '.join(BUNDLED)}; or give a path"
    )


def _siblings(path: Path) -> list[str]:
    if not path.parent.is_dir():
        return []
    return [str(path.parent / other.name) for other in entries(path.parent)]


def _in_file(path: Path, side: int | None, cache: Path | None) -> Dataset:
    with path.open("rb") as file:
        start = file.read(len(_ZIP))
    if start == _ZIP:
        if path.suffix.lower() == ".zip":
            raise InputError("is a zip archive: unpack it and give the folder", where=str(path))
        return npz.read_npz(path, side=side, cache=cache)
    if is_tar(path):
        reader = _reader(_Place(tar_store(path), None, side, cache))
        if reader is None:
            raise InputError(
                "is an archive, but not one of CIFAR. Unpack it and give the folder",
                where=str(path),
            )
        return reader()
    if path.name in _known_names():
        raise InputError(f"is one file of several. Give its folder: {path.parent}", where=str(path))
    raise InputError(
        f"is no data in a form that is known. Looked for:\n{_looked_for()}", where=str(path)
    )


def _in_folder(path: Path, side: int | None, cache: Path | None) -> Dataset:
    reader = _reader(_Place(folder_store(path), path, side, cache))
    if reader is not None:
        return reader()
    inner = [
        (folder, found)
        for folder in _inner(path)
        if (found := _inner_reader(folder, side, cache)) is not None
    ]
    if len(inner) > 1:
        names = ", ".join(str(folder) for folder, _ in inner)
        raise InputError(f"holds more than one set of data: {names}. Give one", where=str(path))
    if inner:
        return inner[0][1]()
    packed = [
        file for file in entries(path) if file.name.lower().endswith(_PACKED) and file.is_file()
    ]
    if len(packed) == 1:
        return _in_file(packed[0], side, cache)
    raise InputError(
        f"holds no data in a form that is known. Looked for:\n{_looked_for()}\n"
        f"found: {_found(path)}",
        where=str(path),
    )


def _inner(path: Path) -> Iterator[Path]:
    for folder in [inner for inner in entries(path) if inner.is_dir()][:_MAX_INNER]:
        yield folder
        if (folder / _RAW).is_dir():
            yield folder / _RAW


def _inner_reader(
    folder: Path, side: int | None, cache: Path | None
) -> Callable[[], Dataset] | None:
    try:
        return _reader(_Place(folder_store(folder), folder, side, cache))
    except InputError:  # a folder that can't be looked into, and that nobody asked for
        return None


def _reader(place: _Place) -> Callable[[], Dataset] | None:
    for layout in LAYOUTS:
        reader = layout.read(place)
        if reader is not None:
            return reader
    return None


def _cifar(form: str) -> Callable[[_Place], Callable[[], Dataset] | None]:
    def read(place: _Place) -> Callable[[], Dataset] | None:
        version = cifar.version_of(place.store, form)
        if version is None:
            return None
        return lambda: cifar.read_cifar(place.store, version)

    return read


def _tiny_imagenet(place: _Place) -> Callable[[], Dataset] | None:
    folder = place.folder
    if folder is None or not folders.is_tiny_imagenet(folder):
        return None
    return lambda: folders.read_tiny_imagenet(folder, side=place.side, cache=place.cache)


def _class_folders(place: _Place) -> Callable[[], Dataset] | None:
    folder = place.folder
    if folder is None or not folders.has_class_folders(folder):
        return None
    return lambda: folders.read_class_folders(folder, side=place.side, cache=place.cache)


def _idx(place: _Place) -> Callable[[], Dataset] | None:
    if not idx.files_of(place.store):
        return None
    return lambda: idx.read_idx(place.store)


LAYOUTS = (
    Layout(
        "CIFAR-10 or CIFAR-100, python version",
        "data_batch_1 ... 5, test_batch, batches.meta, or train, test, meta; or the .tar.gz",
        _cifar("python"),
    ),
    Layout(
        "CIFAR-10 or CIFAR-100, binary version",
        "data_batch_1.bin ... 5, test_batch.bin, batches.meta.txt, or train.bin, test.bin,"
        " fine_label_names.txt; or the .tar.gz",
        _cifar("binary"),
    ),
    Layout(
        "Tiny ImageNet",
        "wnids.txt, train/WNID/, val/",
        _tiny_imagenet,
    ),
    Layout(
        "a folder for each class",
        "train/CLASS/*.png and test/CLASS/*.png, or other image files",
        _class_folders,
    ),
    Layout(
        "MNIST, Fashion-MNIST and the like (IDX)",
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte,"
        " t10k-labels-idx1-ubyte, with or without .gz",
        _idx,
    ),
)
"""In the order in which they are looked for."""

_NPZ = f"arrays in an .npz: {', '.join(npz.ARRAYS)}, or a pack of JPEG files: {', '.join(npz.PACK)}"


def _looked_for() -> str:
    return "\n".join([*(f"  {layout.title}: {layout.files}" for layout in LAYOUTS), f"  {_NPZ}"])


def _known_names() -> frozenset[str]:
    return frozenset(
        [
            *(name for version in cifar.VERSIONS for name in (*version.files, version.meta)),
            *(f"{start}-{end}{pack}" for start, end in idx.PARTS for pack in ("", ".gz")),
            *(folders.WNIDS, folders.TRAIN, *folders.TESTS),
        ]
    )


def _found(path: Path) -> str:
    there = [f"{entry.name}{'/' * entry.is_dir()}" for entry in entries(path)]
    if not there:
        return "nothing"
    more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    known = sorted(_known_names())
    hints = (
        f". {name} is not one of these names.{hint}"
        for name in there[:_SHOWN]
        if name.rstrip("/") not in known and (hint := did_you_mean(name.rstrip("/"), known))
    )
    return f"{', '.join(there[:_SHOWN])}{more}{next(hints, '')}"
