"""Images with labels: what a run trains on and is tested on, and where they are from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError, did_you_mean
from energysim.train.data.fit import fit

Images = npt.NDArray[np.uint8]
"""Pixels, shape (N, C, H, W)."""
Labels = npt.NDArray[np.int64]
"""Indices of classes, shape (N,)."""

_BLOCK_BYTES = 1 << 22
"""Images are gone through in blocks, so that those on disk needn't fit into memory [byte]."""
_LEVELS = 256
"""Values of a pixel."""
PIXEL_MAX = 255
"""Of white, as pictures hold it."""
_AXES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images and their labels."""

    images: Images
    """shape (N, C, H, W), of uint8; may be mapped from a file"""
    labels: Labels
    """shape (N,), of int64"""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.intp]) -> Split:
        """Copy the images of some rows."""
        return Split(np.asarray(self.images[rows]), self.labels[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images to train on and to test on.

    Raises
    ------
    InputError
        If the parts don't belong together.
    """

    name: str
    """short, as in result files"""
    train: Split
    """what weights are fitted to"""
    test: Split
    """what is never trained on"""
    classes: tuple[str, ...]
    """name of each label"""
    source: str
    """who made the images, and where"""
    licence: str
    """terms of use, or that none are stated"""
    layout: str
    """what was found on disk, in words"""
    synthetic: bool = False
    """whether a program drew the images"""
    notes: tuple[str, ...] = ()
    """what belongs beside every figure made from it"""
    sha256: str = field(init=False)
    """of all images, labels and class names; the same from every layout on disk"""
    mean: tuple[float, ...] = field(init=False)
    """of each channel of the training images, as a share of 255"""
    std: tuple[float, ...] = field(init=False)
    """standard deviation, likewise"""

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise InputError(f"the images of {self.name} are wrong: {'; '.join(problems)}")
        mean, std = _moments(self.train.images)
        for name, value in (("sha256", _digest(self)), ("mean", mean), ("std", std)):
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    def subset(
        self,
        *,
        classes: int | Sequence[str] | None = None,
        per_class: int | None = None,
        test_per_class: int | None = None,
    ) -> Dataset:
        """Some classes only, or the first images of each class only.

        Parameters
        ----------
        classes : int or sequence of str, optional
            How many of the first classes, or their names. Labels are numbered anew, in this order.
        per_class, test_per_class : int, optional
            At most so many images of each class.

        Raises
        ------
        InputError
            If a class is not known, or nothing is left.
        """
        chosen = _chosen_classes(self.classes, classes)
        return replace(
            self,
            train=_of_classes(self.train, chosen, per_class),
            test=_of_classes(self.test, chosen, test_per_class),
            classes=tuple(self.classes[label] for label in chosen),
        )

    def split_validation(self, fraction: float, rng: np.random.Generator) -> tuple[Dataset, Split]:
        """Hold out a share of the training images of every class.

        Parameters
        ----------
        fraction : float
            Share of the training images. Classes get their parts by largest remainder.
        rng : numpy.random.Generator
            What chooses.

        Returns
        -------
        (Dataset, Split)
            The data without the images held out, and these. Both are copies in the old order.

        Raises
        ------
        InputError
            If the fraction leaves no image on one of the sides.
        """
        if not 0 < fraction < 1:
            raise InputError(f"the share held out must be between 0 and 1, got {fraction}")
        held = _stratified(self.train.labels, fraction, len(self.classes), rng)
        if not 0 < held.sum() < len(held):
            raise InputError(
                f"a share of {fraction} of {len(held)} training images leaves"
                f" {'none to train on' if held.all() else 'none for validation'}"
            )
        kept = replace(self, train=self.train.take(np.flatnonzero(~held)))
        return kept, self.train.take(np.flatnonzero(held))

    def resized(self, side: int) -> Dataset:
        """Make all images squares of ``side`` pixels; see :func:`~energysim.train.data.fit.fit`."""
        train, test = (Split(fit(s.images, side), s.labels) for s in (self.train, self.test))
        return replace(self, train=train, test=test)


def _problems(data: Dataset) -> Iterator[str]:
    for name, split in (("train", data.train), ("test", data.test)):
        if split.images.dtype != np.uint8 or split.images.ndim != _AXES:
            yield f"{name} images are {split.images.dtype} with {split.images.ndim} axes, not 4"
        elif not split.images.size:
            yield f"there are no {name} images"
        if split.labels.dtype != np.int64 or split.labels.shape != split.images.shape[:1]:
            yield f"{len(split.images)} {name} images, labels of shape {split.labels.shape}"
        elif len(split) and not 0 <= split.labels.min() <= split.labels.max() < len(data.classes):
            yield (
                f"{name} labels go from {split.labels.min()} to {split.labels.max()}, with"
                f" {len(data.classes)} classes"
            )
    if data.train.images.shape[1:] != data.test.images.shape[1:]:
        yield (
            f"train images are {list(data.train.images.shape[1:])}, test images"
            f" {list(data.test.images.shape[1:])} [channels, height, width]"
        )


def _blocks(images: Images) -> Iterator[Images]:
    rows = max(1, _BLOCK_BYTES // max(1, images[0].size))
    for first in range(0, len(images), rows):
        yield images[first : first + rows]


def _digest(data: Dataset) -> str:
    digest = hashlib.sha256(json.dumps(list(data.classes)).encode())
    for split in (data.train, data.test):
        digest.update(json.dumps(list(split.images.shape)).encode())
        for block in _blocks(split.images):
            digest.update(np.ascontiguousarray(block).data)
        digest.update(split.labels.astype("<i8").data)
    return digest.hexdigest()


def _moments(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, from whole numbers: no order of summing."""
    counts = np.zeros((images.shape[1], _LEVELS), np.int64)
    for block in _blocks(images):
        for channel in range(len(counts)):
            counts[channel] += np.bincount(block[:, channel].ravel(), minlength=_LEVELS)
    mean, std = [], []
    for count in counts.tolist():
        pixels = sum(count)
        total = sum(value * many for value, many in enumerate(count))
        squares = sum(value * value * many for value, many in enumerate(count))
        mean.append(total / pixels / PIXEL_MAX)
        std.append((pixels * squares - total * total) ** 0.5 / pixels / PIXEL_MAX)
    return tuple(mean), tuple(std)


def _chosen_classes(known: tuple[str, ...], asked: int | Sequence[str] | None) -> list[int]:
    if asked is None:
        return list(range(len(known)))
    if isinstance(asked, int):
        if not 1 <= asked <= len(known):
            raise InputError(f"there are {len(known)} classes, {asked} were asked for")
        return list(range(asked))
    for name in asked:
        if name not in known:
            raise InputError(f"no class named {name!r}.{did_you_mean(name, known)}")
    return [known.index(name) for name in asked]


def _of_classes(split: Split, chosen: list[int], most: int | None) -> Split:
    if most is not None and most < 1:
        raise InputError(f"at least one image of each class is needed, {most} were asked for")
    rows = np.sort(
        np.concatenate([np.flatnonzero(split.labels == label)[:most] for label in chosen])
    )
    if len(rows) == len(split) and chosen == list(range(len(chosen))):
        return split
    return _numbered(split.take(rows), chosen)


def _numbered(split: Split, chosen: list[int]) -> Split:
    number = np.full(max(chosen) + 1, -1)
    number[chosen] = np.arange(len(chosen))
    return Split(split.images, number[split.labels].astype(np.int64))


def _stratified(
    labels: Labels, fraction: float, classes: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Which rows are held out."""
    quota = fraction * np.bincount(labels, minlength=classes)
    many = np.floor(quota).astype(np.int64)
    missing = round(fraction * len(labels)) - int(many.sum())
    many[np.argsort(many - quota, kind="stable")[:missing]] += 1
    held = np.zeros(len(labels), np.bool_)
    for label in range(classes):
        held[rng.permutation(np.flatnonzero(labels == label))[: many[label]]] = True
    return held
