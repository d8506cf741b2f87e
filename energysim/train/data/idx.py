"""MNIST and whatever has its form: Fashion-MNIST, KMNIST and others, in IDX files.

References
----------
Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document
Recognition", Proceedings of the IEEE, 1998.
H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", 2017. https://arxiv.org/abs/1708.07747
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from dataclasses import dataclass
from math import prod
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError
from energysim.train.data.dataset import Dataset, Split
from energysim.train.data.store import MAX_BYTES, Store, read_some

PARTS = (
    ("train-images", "idx3-ubyte"),
    ("train-labels", "idx1-ubyte"),
    ("t10k-images", "idx3-ubyte"),
    ("t10k-labels", "idx1-ubyte"),
)
"""Beginning and end of the names of the four files."""

_OTHER = "not the published files: the checksums are not those of MNIST and Fashion-MNIST"
_GZIP = b"\x1f\x8b"
_HEAD = 4
_UBYTE = 8


@dataclass(frozen=True, slots=True)
class _Known:
    name: str
    title: str
    classes: tuple[str, ...]
    source: str
    licence: str
    sha256: tuple[str, ...]
    """of the four files, unpacked, in the order of PARTS"""


_MNIST = _Known(
    "mnist",
    "MNIST",
    tuple("0123456789"),
    "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-Based Learning Applied to Document"
    " Recognition, Proceedings of the IEEE, 1998",
    "none stated by the authors; cite the source",
    (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
_FASHION = _Known(
    "fashion_mnist",
    "Fashion-MNIST",
    (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine"
    " Learning Algorithms, 2017, arXiv:1708.07747",
    "MIT (Zalando SE)",
    (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)


def files_of(store: Store) -> dict[str, str]:
    """The file of each part that is there, unpacked ones first, by its name in ``PARTS``."""
    found = {}
    for start, end in PARTS:
        for name in (f"{start}{dot}{end}{pack}" for pack in ("", ".gz") for dot in "-."):
            if name in store.names:
                found[start] = name
                break
    return found


def read_idx(store: Store) -> Dataset:
    """Read the four files.

    Raises
    ------
    InputError
        If one is missing, damaged, or shorter or longer than it says.
    """
    files = files_of(store)
    missing = [f"{start}-{end}[.gz]" for start, end in PARTS if start not in files]
    if missing:
        raise InputError(
            f"has files of MNIST's form (IDX), but lacks {', '.join(missing)}", where=store.where
        )
    sums, arrays = [], []
    for start, end in PARTS:
        where = f"{store.where}: {files[start]}"
        raw = _unpacked(store.read(files[start]), where)
        sums.append(hashlib.sha256(raw).hexdigest())
        arrays.append(_array(raw, int(end[3]), where))
    train, test = (
        Split(arrays[first][:, None], arrays[first + 1].astype(np.int64)) for first in (0, 2)
    )
    known = next((known for known in (_MNIST, _FASHION) if known.sha256 == tuple(sums)), None)
    size = "x".join(map(str, train.images.shape[2:]))
    if known is None:
        highest = max(int(labels.max(initial=0)) for labels in (train.labels, test.labels))
        return Dataset(
            name="idx",
            train=train,
            test=test,
            classes=tuple(map(str, range(highest + 1))),
            source=store.where,
            licence="not known",
            layout=f"files of MNIST's form (IDX), {size} grey",
            notes=(_OTHER,),
        )
    return Dataset(
        name=known.name,
        train=train,
        test=test,
        classes=known.classes,
        source=known.source,
        licence=known.licence,
        layout=f"{known.title} (IDX), {size} grey",
    )


def _unpacked(raw: bytes, where: str) -> bytes:
    if not raw.startswith(_GZIP):
        return raw
    try:
        with gzip.open(io.BytesIO(raw)) as file:
            unpacked = read_some(cast("IO[bytes]", file), MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"is truncated or damaged ({error})", where=where) from None
    if len(unpacked) > MAX_BYTES:
        raise InputError(f"unpacks to more than {MAX_BYTES / 1e6:.0f} MB", where=where)
    return unpacked


def _array(raw: bytes, axes: int, where: str) -> npt.NDArray[np.uint8]:
    start = bytes((0, 0, _UBYTE, axes))
    head = _HEAD * (1 + axes)
    if raw[:_HEAD] != start or len(raw) < head:
        raise InputError(
            f"begins with {raw[:_HEAD].hex()}; bytes along {axes} axes (IDX) begin with"
            f" {start.hex()}",
            where=where,
        )
    shape = tuple(np.frombuffer(raw, ">u4", axes, _HEAD).tolist())
    if prod(shape) != len(raw) - head:
        short = "truncated" if prod(shape) > len(raw) - head else "longer than it says"
        raise InputError(
            f"is {short}: its head says {list(shape)}, which is {prod(shape):,} bytes, and"
            f" {len(raw) - head:,} follow",
            where=where,
        )
    return np.frombuffer(raw, np.uint8, offset=head).reshape(shape)
