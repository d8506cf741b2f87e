"""CIFAR-10 and CIFAR-100 as their authors publish them: pickled for Python, or plain records.

References
----------
A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report,
University of Toronto, 2009. https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from energysim.errors import InputError
from energysim.train.data.dataset import Dataset, Split
from energysim.train.data.store import Store
from energysim.train.data.unpickle import unpickle

SOURCE = (
    "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report,"
    " University of Toronto, 2009; https://www.cs.toronto.edu/~kriz/cifar.html"
)
LICENCE = "none stated by the authors; cite the source"
CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
"""Class names of CIFAR-10, by label."""

_IMAGE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True, slots=True)
class Version:
    """One of the four forms."""

    name: str
    """of the data set"""
    form: str
    """``python`` or ``binary``"""
    train: tuple[str, ...]
    """files to train on, in order"""
    test: str
    """file to test on"""
    meta: str
    """file with the names of the classes"""
    classes: int
    """how many there are"""
    labels: str
    """field of the labels in the pickles"""
    names: str
    """field of the class names in the pickles"""
    label_bytes: int
    """bytes before the pixels of a record, the label last"""
    md5: tuple[str, ...] = ()
    """published, of the files in order, the test file last"""

    @property
    def files(self) -> tuple[str, ...]:
        """All that hold images."""
        return (*self.train, self.test)


_TEN = tuple(f"data_batch_{part}" for part in range(1, 6))
VERSIONS = (
    Version(
        name="cifar10",
        form="python",
        train=_TEN,
        test="test_batch",
        meta="batches.meta",
        classes=10,
        labels="labels",
        names="label_names",
        label_bytes=1,
        # The lists of files in torchvision/datasets/cifar.py (pytorch/vision).
        md5=(
            "c99cafc152244af753f735de768cd75f",
            "d4bba439e000b95fd0a9bffe97cbabec",
            "54ebc095f3ab1f0389bbae665268c751",
            "634d18415352ddfa80567beed471001a",
            "482c414d41f54cd18b22e5b47cb7c3cb",
            "40351d587109b95175f43aff81a1287e",
        ),
    ),
    Version(
        name="cifar100",
        form="python",
        train=("train",),
        test="test",
        meta="meta",
        classes=100,
        labels="fine_labels",
        names="fine_label_names",
        label_bytes=2,
        md5=("16019d7e3df5f24257cddd939b257f8d", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
    ),
    Version(
        name="cifar10",
        form="binary",
        train=tuple(f"{name}.bin" for name in _TEN),
        test="test_batch.bin",
        meta="batches.meta.txt",
        classes=10,
        labels="",
        names="",
        label_bytes=1,
    ),
    Version(
        name="cifar100",
        form="binary",
        train=("train.bin",),
        test="test.bin",
        meta="fine_label_names.txt",
        classes=100,
        labels="",
        names="",
        label_bytes=2,
    ),
)
"""In the order in which they are looked for."""

_PUBLISHED_IMAGES = (50_000, 10_000)


def version_of(store: Store, form: str) -> Version | None:
    """Which data set of a form it is: two of the names of its files are enough to be meant."""
    for version in VERSIONS:
        if version.form == form and len(store.names & {*version.files, version.meta}) > 1:
            return version
    return None


def read_cifar(store: Store, version: Version) -> Dataset:
    """Read one of the four forms.

    Raises
    ------
    InputError
        If a file is missing, damaged, cut short, or a pickle that asks for more than plain data.
    """
    missing = [name for name in (*version.files, version.meta) if name not in store.names]
    if missing:
        raise InputError(
            f"looks like {version.name} ({version.form} version), but lacks {', '.join(missing)}",
            where=store.where,
        )
    sums: list[str] = []
    parts = [_part(store, name, version, sums) for name in version.files]
    train = Split(
        np.concatenate([part.images for part in parts[:-1]]),
        np.concatenate([part.labels for part in parts[:-1]]),
    )
    return Dataset(
        name=version.name,
        train=train,
        test=parts[-1],
        classes=_classes(store, version),
        source=SOURCE,
        licence=LICENCE,
        layout=f"{version.name.replace('cifar', 'CIFAR-')}, {version.form} version",
        notes=tuple(_notes(version, sums, (len(train), len(parts[-1])))),
    )


def _notes(version: Version, sums: list[str], images: tuple[int, int]) -> Iterator[str]:
    odd = [
        name
        for name, found, published in zip(version.files, sums, version.md5, strict=False)
        if found != published
    ]
    if odd:
        yield f"not the published files: the checksums of {', '.join(odd)} differ"
    if images != _PUBLISHED_IMAGES:
        yield f"{images[0]:,} + {images[1]:,} images, published are 50,000 + 10,000"


def _part(store: Store, name: str, version: Version, sums: list[str]) -> Split:
    where = f"{store.where}: {name}"
    raw = store.read(name)
    if version.form == "binary":
        return _records(raw, version, where)
    sums.append(hashlib.md5(raw, usedforsecurity=False).hexdigest())
    return _pickled(unpickle(raw, where=where), version, where)


def _pickled(fields: dict[str, Any], version: Version, where: str) -> Split:
    data, labels = fields.get("data"), fields.get(version.labels)
    if not isinstance(data, np.ndarray) or not isinstance(labels, list):
        raise InputError(
            f"holds {_listed(fields)}; an array data and a list {version.labels} are needed",
            where=where,
        )
    if data.dtype != np.uint8 or data.shape != (len(labels), _PIXELS):
        raise InputError(
            f"data is {data.dtype} of shape {list(data.shape)}, and there are {len(labels)} labels;"
            f" {_PIXELS} bytes for each label are needed",
            where=where,
        )
    if not all(type(label) is int and 0 <= label < version.classes for label in labels):
        raise InputError(
            f"{version.labels} must be whole numbers from 0 to {version.classes - 1}", where=where
        )
    return Split(data.reshape(-1, *_IMAGE), np.array(labels, np.int64))


def _records(raw: bytes, version: Version, where: str) -> Split:
    size = version.label_bytes + _PIXELS
    if not raw or len(raw) % size:
        raise InputError(
            f"has {len(raw):,} bytes, no whole number of records of {size:,}: it is truncated, or"
            " something else",
            where=where,
        )
    records = np.frombuffer(raw, np.uint8).reshape(-1, size)
    labels = records[:, version.label_bytes - 1].astype(np.int64)
    if labels.max() >= version.classes:
        raise InputError(
            f"has a label {labels.max()}; {version.name} has {version.classes} classes", where=where
        )
    return Split(records[:, version.label_bytes :].reshape(-1, *_IMAGE), labels)


def _classes(store: Store, version: Version) -> tuple[str, ...]:
    where = f"{store.where}: {version.meta}"
    raw = store.read(version.meta)
    if version.form == "binary":
        names: list[Any] = [line for line in raw.decode("ascii", "replace").split("\n") if line]
    else:
        names = unpickle(raw, where=where).get(version.names, [])
    texts = [name.decode("ascii", "replace") if isinstance(name, bytes) else name for name in names]
    if len(texts) != version.classes or not all(isinstance(text, str) for text in texts):
        raise InputError(f"does not name {version.classes} classes", where=where)
    return tuple(text.strip() for text in texts)


def _listed(fields: dict[str, Any]) -> str:
    return ", ".join(sorted(name[:20] for name in fields)[:8]) or "nothing"
