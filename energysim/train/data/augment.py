"""Batches for training: random crop and flip, normalisation, channels first and images last.

A batch is [C, H, W, N]: rows of all images side by side, which the convolutions of the trainer
want (the layout of cuda-convnet).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from energysim.errors import InputError
from energysim.train.data.dataset import PIXEL_MAX, Dataset, Images, Labels, Split
from energysim.train.data.fit import fit

Size = tuple[int, int]
"""Channels, and height and width, that a network reads."""


class Fill(StrEnum):
    """What stands beside an image when a crop reaches over its edge."""

    ZERO = "zero"
    """black"""
    REFLECT = "reflect"
    """the image mirrored, its edge not repeated"""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How training images are changed at random.

    Raises
    ------
    InputError
        If the padding is negative.
    """

    padding: int = 4
    """pixels on each side; the crop has the size of the image [pixel]"""
    fill: Fill = Fill.ZERO
    """what they show"""
    flip: bool = True
    """whether half of the images are mirrored left to right"""

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise InputError(f"padding must be 0 or more, got {self.padding}")


UNCHANGED = Augmentation(padding=0, flip=False)
"""No change at all."""


class Batch(NamedTuple):
    """Images of one step, or of one shard of it."""

    x: npt.NDArray[np.float32]
    """normalised pixels, shape (C, H, W, N), contiguous"""
    y: Labels
    """labels, shape (N,)"""


def batches(
    data: Dataset,
    order: np.random.Generator,
    size: int,
    shards: int = 1,
    *,
    changes: np.random.Generator | None = None,
    augmentation: Augmentation = UNCHANGED,
    read: Size | None = None,
) -> Iterator[tuple[Batch, ...]]:
    """All training images once, in random order.

    Parameters
    ----------
    data : Dataset
        Mean and standard deviation are those of its training images.
    order : numpy.random.Generator
        What shuffles; asked once.
    size : int
        Images of a step. The last step has what is left.
    shards : int
        Parts of a step, for threads, as equal as possible and in order. Their number changes
        nothing but how the images of a step are divided.
    changes : numpy.random.Generator, optional
        What crops and flips; needed with an augmentation that does either.
    augmentation : Augmentation
        How images are changed, in the size that is read.
    read : (channels, height), optional
        What a network reads, see :func:`as_read`; by default the images as they are.

    Yields
    ------
    tuple of Batch
        The shards of a step: one each, fewer if there are fewer images.
    """
    if size < 1 or shards < 1:
        raise InputError(f"a step needs images and shards, got {size} and {shards}")
    if changes is None and augmentation.padding + augmentation.flip:
        raise InputError("images can't be changed at random without a generator for it")
    rows = order.permutation(len(data.train))
    for first in range(0, len(rows), size):
        step = rows[first : first + size]
        images, labels = _sized(data.train.images[step], read), data.train.labels[step]
        draw = Draw.none(len(step)) if changes is None else Draw.of(changes, augmentation, images)
        yield tuple(
            Batch(
                _filled(
                    normalised(cropped(images[part], draw.part(part), augmentation), data), read
                ),
                labels[part],
            )
            for part in _parts(len(step), shards)
        )


def in_order(
    data: Dataset, split: Split, size: int, *, read: Size | None = None
) -> Iterator[Batch]:
    """All images of a split as they stand, to measure accuracy.

    Parameters
    ----------
    data : Dataset
        Whose mean and standard deviation the training had.
    split : Split
        ``data.test``, or what was held out.
    size : int
        Images at once.
    read : (channels, height), optional
        As for :func:`batches`.
    """
    for first in range(0, len(split), size):
        images = _sized(np.asarray(split.images[first : first + size]), read)
        pixels = np.ascontiguousarray(images.transpose(1, 2, 3, 0))
        yield Batch(_filled(normalised(pixels, data), read), split.labels[first : first + size])


def _sized(images: Images, read: Size | None) -> Images:
    """Images in the size that is read, a batch at a time: all at once may not fit into memory."""
    return images if read is None else fit(images, read[1])


def _filled(x: npt.NDArray[np.float32], read: Size | None) -> npt.NDArray[np.float32]:
    """Grey images the same in all channels that are read."""
    return x if read is None or len(x) == read[0] else np.repeat(x, read[0], axis=0)


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """What was drawn for each image of a step."""

    top: npt.NDArray[np.int64]
    """first row of the crop in the padded image"""
    left: npt.NDArray[np.int64]
    """first column"""
    mirrored: npt.NDArray[np.bool_]
    """whether left and right change places"""

    @classmethod
    def none(cls, many: int) -> Draw:
        """Nothing, for so many images."""
        zeros = np.zeros(many, np.int64)
        return cls(zeros, zeros, np.zeros(many, np.bool_))

    @classmethod
    def of(cls, rng: np.random.Generator, how: Augmentation, images: Images) -> Draw:
        """Draw for each of the images; the same number of draws whatever is switched on."""
        many = len(images)
        top, left = rng.integers(0, 2 * how.padding + 1, (2, many))
        return cls(top, left, (rng.random(many) < 1 / 2) & how.flip)

    def part(self, rows: slice) -> Draw:
        """What was drawn for some of the images."""
        return Draw(self.top[rows], self.left[rows], self.mirrored[rows])


def cropped(images: Images, draw: Draw, how: Augmentation) -> Images:
    """Pad, crop and mirror images, all at once.

    Parameters
    ----------
    images : array of uint8
        Shape (N, C, H, W).
    draw : Draw
        Where to crop, and which to mirror.
    how : Augmentation
        Width and look of the padding.

    Returns
    -------
    array of uint8
        Shape (C, H, W, N), contiguous.
    """
    windows = sliding_window_view(_padded(images, how), images.shape[2:], axis=(2, 3))
    crops = windows[np.arange(len(images)), :, draw.top, draw.left]
    crops[draw.mirrored] = crops[draw.mirrored][..., ::-1]
    return np.ascontiguousarray(crops.transpose(1, 2, 3, 0))


def normalised(pixels: npt.NDArray[np.uint8], data: Dataset) -> npt.NDArray[np.float32]:
    """Subtract the mean of the training images and divide by their standard deviation.

    Parameters
    ----------
    pixels : array of uint8
        Shape (C, H, W, N).
    data : Dataset
        Whose mean and deviation; a channel that never changes is only shifted.
    """
    scale = [1 / (PIXEL_MAX * (std or 1.0)) for std in data.std]
    shift = [-mean / (std or 1.0) for mean, std in zip(data.mean, data.std, strict=True)]
    x = np.multiply(pixels, _per_channel(scale), dtype=np.float32)
    x += _per_channel(shift)
    return x


def _per_channel(values: Sequence[float]) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)[:, None, None, None]


def _padded(images: Images, how: Augmentation) -> Images:
    """Pad the last two axes."""
    pad = how.padding
    edge = min(images.shape[2:])
    if how.fill is Fill.REFLECT and pad >= edge:
        raise InputError(f"{pad} pixels can't be reflected from images of {edge}")
    if not pad:
        return images
    margins = ((0, 0), (0, 0), (pad, pad), (pad, pad))
    if how.fill is Fill.REFLECT:
        return np.pad(images, margins, mode="reflect")
    return np.pad(images, margins)


def _parts(many: int, shards: int) -> list[slice]:
    shards = min(many, shards)
    ends = [many * part // shards for part in range(shards + 1)]
    return [slice(*pair) for pair in pairwise(ends)]
