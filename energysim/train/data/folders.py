"""Image files in folders: Tiny ImageNet as published or re-arranged, and a folder for each class.

References
----------
Y. Le, X. Yang, "Tiny ImageNet Visual Recognition Challenge", Stanford CS231N, 2015.
http://cs231n.stanford.edu/tiny-imagenet-200.zip
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from energysim.errors import InputError, did_you_mean
from energysim.train.data.dataset import Dataset, Split
from energysim.train.data.pictures import Pictures, decoded
from energysim.train.data.store import entries, read_file

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".webp"))
"""Of image files, in small letters."""
TRAIN = "train"
"""Folder of what is to train on."""
TESTS = ("test", "val", "valid", "validation")
"""Folder of what is to test on, the first that has images in folders of classes."""
WNIDS = "wnids.txt"
"""List of the classes of Tiny ImageNet; its order numbers them."""

_ANNOTATIONS = "val_annotations.txt"
_WORDS = "words.txt"
_PLAIN = re.compile(r"[\w-][\w.-]*")
_LISTED = 5
_PUBLISHED = (100_000, 10_000)

Labelled = list[tuple[Path, int]]
"""Image files, and the label of each."""


def is_tiny_imagenet(folder: Path) -> bool:
    """Whether a folder has what tells Tiny ImageNet from others."""
    return (folder / WNIDS).is_file() and (folder / TRAIN).is_dir()


def read_tiny_imagenet(
    folder: Path, *, side: int | None = None, cache: Path | None = None
) -> Dataset:
    """Read Tiny ImageNet; its validation images are the test set, as those for testing lack labels.

    Parameters
    ----------
    folder : Path
        ``wnids.txt``, ``train/WNID/[images/]*``, and ``val/images/*`` with
        ``val/val_annotations.txt`` or ``val/WNID/[images/]*``.
    side, cache
        As in :func:`~energysim.train.data.pictures.decoded`.

    Raises
    ------
    InputError
        If a class has no images, or a list is wrong.
    """
    wnids = _lines(folder / WNIDS)
    odd = [wnid for wnid in wnids if not _PLAIN.fullmatch(wnid)]
    if odd or len(set(wnids)) != len(wnids) or not wnids:
        raise InputError("must name one class on each line", where=str(folder / WNIDS))
    train = _of_classes(folder / TRAIN, wnids)
    annotations = folder / "val" / _ANNOTATIONS
    test = _annotated(annotations, wnids) if annotations.is_file() else []
    test = test or _of_classes(folder / "val", wnids)
    images = len(train), len(test)
    return _read(
        _Found(folder, train, test, side, cache, colour=True),
        name="tiny_imagenet",
        classes=_words(folder / _WORDS, wnids),
        source=(
            "Y. Le, X. Yang, Tiny ImageNet Visual Recognition Challenge, Stanford CS231N, 2015;"
            " http://cs231n.stanford.edu/tiny-imagenet-200.zip; images of ImageNet"
        ),
        licence="ImageNet's terms: non-commercial research and education",
        title=f"Tiny ImageNet, {len(wnids)} classes, validation images to test",
        notes=(f"{images[0]:,} + {images[1]:,} images, published are 100,000 + 10,000",)
        if images != _PUBLISHED
        else (),
    )


def has_class_folders(folder: Path) -> bool:
    """Whether there are images in ``train/CLASS/``, or in ``CLASS/`` of what should be split."""
    return _looks_so(folder / TRAIN) or _looks_so(folder)


def read_class_folders(
    folder: Path, *, side: int | None = None, cache: Path | None = None
) -> Dataset:
    """Read ``train/CLASS/*`` and ``test/CLASS/*``, classes numbered by name.

    Parameters
    ----------
    folder : Path
        Instead of ``test`` it may have ``val``, ``valid`` or ``validation``.
    side, cache
        As in :func:`~energysim.train.data.pictures.decoded`.

    Raises
    ------
    InputError
        If one of them is missing, or a class is not in ``train``.
    """
    classes = _classes(folder / TRAIN)
    tested = next((name for name in TESTS if _classes(folder / name)), None)
    if not classes or tested is None:
        lacking = TRAIN if not classes else "test"
        raise InputError(
            f"has folders of images, but no {lacking}/CLASS/. Put what is to train on into"
            f" {TRAIN}/CLASS/ and what is to test on into test/CLASS/",
            where=str(folder),
        )
    strange = sorted(set(_classes(folder / tested)) - set(classes))
    if strange:
        raise InputError(
            f"{tested}/ has classes that {TRAIN}/ lacks: {', '.join(strange[:_LISTED])}."
            f"{did_you_mean(strange[0], classes)}",
            where=str(folder),
        )
    return _read(
        _Found(
            folder,
            _of_classes(folder / TRAIN, classes),
            _of_classes(folder / tested, classes, some=True),
            side,
            cache,
        ),
        name=folder.resolve().name,
        classes=tuple(classes),
        source=str(folder),
        licence="not known",
        title=f"a folder for each of {len(classes)} classes, {tested}/ to test",
        notes=(),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    folder: Path
    train: Labelled
    test: Labelled
    side: int | None
    cache: Path | None
    colour: bool = False


def _read(
    found: _Found,
    *,
    name: str,
    classes: tuple[str, ...],
    source: str,
    licence: str,
    title: str,
    notes: tuple[str, ...],
) -> Dataset:
    files = [path for path, _ in (*found.train, *found.test)]
    labels = np.array([label for _, label in (*found.train, *found.test)], np.int64)
    pictures = Pictures(
        names=list(map(str, files)),
        open=files.__getitem__,
        identity=["files", [_identity(path, found.folder) for path in files]],
        colour=found.colour,
    )
    images = decoded(pictures, side=found.side, cache=found.cache)
    end = len(found.train)
    _, channels, height, width = images.shape
    return Dataset(
        name=name,
        train=Split(images[:end], labels[:end]),
        test=Split(images[end:], labels[end:]),
        classes=classes,
        source=source,
        licence=licence,
        layout=f"{title}, {height}x{width} {'grey' if channels == 1 else 'colour'}",
        notes=notes,
    )


def _identity(path: Path, folder: Path) -> list[str | int]:
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", where=str(path)) from None
    return [path.relative_to(folder).as_posix(), found.st_size, found.st_mtime_ns]


def _images(folder: Path) -> list[Path]:
    """Image files of a class, which may lie in a folder of that name."""
    inner = folder / "images"
    found = entries(inner if inner.is_dir() else folder)
    return [path for path in found if path.suffix.lower() in SUFFIXES and path.is_file()]


def _classes(folder: Path) -> list[str]:
    """Names of the folders of a folder that have images in them."""
    if not folder.is_dir():
        return []
    return [path.name for path in entries(folder) if path.is_dir() and _images(path)]


def _looks_so(folder: Path) -> bool:
    """Whether a folder of a folder has images, as far as can be seen."""
    if not folder.is_dir():
        return False
    for path in entries(folder):
        with suppress(InputError):  # of a folder that can't be read, which may be none of this
            if path.is_dir() and _images(path):
                return True
    return False


def _of_classes(folder: Path, classes: Sequence[str], *, some: bool = False) -> Labelled:
    """Go through the classes in order; unless ``some`` suffice, each must have images."""
    found: Labelled = []
    for label, name in enumerate(classes):
        images = _images(folder / name) if (folder / name).is_dir() else []
        if not images and not some:
            raise InputError(f"there are no images of the class {name}", where=str(folder))
        found += [(path, label) for path in images]
    return found


def _annotated(path: Path, wnids: Sequence[str]) -> Labelled:
    number = {wnid: label for label, wnid in enumerate(wnids)}
    found: Labelled = []
    for line, text in enumerate(_lines(path), start=1):
        name, wnid, *_ = (*text.split("\t"), "")
        # A name is a name: nothing outside the folder is meant.
        if wnid not in number or not _PLAIN.fullmatch(name):
            raise InputError(
                "must be the name of an image and a class of wnids.txt, with tabs between",
                where=f"{path}:{line}",
            )
        found.append((path.parent / "images" / name, number[wnid]))
    return found if all(image.is_file() for image, _ in found[:1]) else []


def _words(path: Path, wnids: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes: the first of their words, with the number where two share it."""
    words = dict(_pairs(path)) if path.is_file() else {}
    names = [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    many = Counter(names)
    return tuple(
        name if many[name] == 1 else f"{name} ({wnid})"
        for name, wnid in zip(names, wnids, strict=True)
    )


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in _lines(path):
        wnid, _, words = line.partition("\t")
        yield wnid, words


def _lines(path: Path) -> list[str]:
    try:
        text = read_file(path).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text", where=str(path)) from None
    return [line.strip() for line in text.splitlines() if line.strip()]
