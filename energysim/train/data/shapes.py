"""Synthetic images: ten shapes in random colours, places, sizes and tilts, with noise.

For trying things out where no data is at hand. Nothing about photographs follows from them: every
result is marked synthetic.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError
from energysim.train.data.dataset import Dataset, Split

Field = npt.NDArray[np.float64]
"""A value at each pixel of each image, shape (N, H, W)."""
Inside = npt.NDArray[np.bool_]
"""Whether a pixel is part of the shape, shape (N, H, W)."""

SIDE = 32
"""Height and width [pixel]."""

_RADII = (6.0, 12.0)
"""Half the height of a shape [pixel]."""
_TILT = 0.15
"""Tangent of half the largest tilt: 17 degrees."""
_CONTRAST = 0.25
"""Least distance between the colours of shape and ground, as a share of the whole range."""
_GRADIENT = 0.3
"""Most by which the ground changes from edge to edge, as a share of the range."""
_BARS, _FIELDS = 2.5, 2.0
"""Stripes and squares for each radius."""
_BLOCK = 500
"""Images that are drawn at once."""


def _disk(u: Field, v: Field) -> Inside:
    return u * u + v * v <= 1


def _square(u: Field, v: Field) -> Inside:
    return np.maximum(abs(u), abs(v)) <= 0.9  # noqa: PLR2004 - about the area of the disk


def _triangle(u: Field, v: Field) -> Inside:
    return np.asarray((abs(v) <= 1) & (2 * abs(u) <= v + 1))


def _ring(u: Field, v: Field) -> Inside:
    return abs(u * u + v * v - 0.7) <= 0.3  # noqa: PLR2004 - the inner radius is 0.63


def _plus(u: Field, v: Field) -> Inside:
    near, far = np.minimum(abs(u), abs(v)), np.maximum(abs(u), abs(v))
    return (near <= 0.3) & (far <= 1)  # noqa: PLR2004 - half the width of a bar


def _cross(u: Field, v: Field) -> Inside:
    half = 0.5**0.5
    return _plus(half * (u + v), half * (u - v))


def _horizontal(u: Field, v: Field) -> Inside:
    return np.asarray((np.floor(_BARS * v) % 2 == 0) & _box(u, v))


def _vertical(u: Field, v: Field) -> Inside:
    return _horizontal(v, u)


def _diagonal(u: Field, v: Field) -> Inside:
    return np.asarray((np.floor(_BARS * 0.5**0.5 * (u + v)) % 2 == 0) & _box(u, v))


def _checker(u: Field, v: Field) -> Inside:
    return np.asarray(((np.floor(_FIELDS * u) + np.floor(_FIELDS * v)) % 2 == 0) & _box(u, v))


def _box(u: Field, v: Field) -> Inside:
    return np.maximum(abs(u), abs(v)) <= 1


SHAPES: dict[str, Callable[[Field, Field], Inside]] = {
    "disk": _disk,
    "square": _square,
    "triangle": _triangle,
    "ring": _ring,
    "cross": _cross,
    "plus": _plus,
    "horizontal stripes": _horizontal,
    "vertical stripes": _vertical,
    "diagonal stripes": _diagonal,
    "checker": _checker,
}
"""Where each class has its colour; u goes right and v down, both -1 to 1 across the shape."""


def shapes(
    count: int = 6_000, test_count: int = 2_000, *, noise: float = 0.12, seed: int = 0
) -> Dataset:
    """Draw images of ten classes.

    Parameters
    ----------
    count, test_count : int
        Images to train on and to test on; how many there are of one changes nothing of the other.
        Classes are equally frequent, but for the remainder.
    noise : float
        Standard deviation of the noise of each channel of each pixel, as a share of its range.
    seed : int
        Equal seeds give equal images.

    Returns
    -------
    Dataset
        Images of 32x32 pixels in colour, marked synthetic.

    Raises
    ------
    InputError
        If there are no images, or the noise is negative.
    """
    if min(count, test_count) < 1:
        raise InputError(f"shapes need images to train and to test, got {count} and {test_count}")
    if not 0 <= noise <= 1:
        raise InputError(f"the noise of shapes must be between 0 and 1, got {noise}")
    if seed < 0:
        raise InputError(f"the seed of shapes must be 0 or more, got {seed}")
    streams = np.random.SeedSequence(seed).spawn(2)
    train, test = (
        _split(many, noise, np.random.default_rng(stream))
        for many, stream in zip((count, test_count), streams, strict=True)
    )
    return Dataset(
        name="shapes",
        train=train,
        test=test,
        classes=tuple(SHAPES),
        source=f"drawn by energysim: {count} + {test_count} images, noise {noise}, seed {seed}",
        licence="none needed",
        layout="shapes, synthetic: 32x32 colour",
        synthetic=True,
        notes=("synthetic",),
    )


def _split(many: int, noise: float, rng: np.random.Generator) -> Split:
    labels = rng.permutation(np.arange(many) % len(SHAPES)).astype(np.int64)
    images = np.empty((many, 3, SIDE, SIDE), np.uint8)
    for first in range(0, many, _BLOCK):
        block = slice(first, min(many, first + _BLOCK))
        images[block] = _drawn(labels[block], noise, rng)
    return Split(images, labels)


def _drawn(
    labels: npt.NDArray[np.int64], noise: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    many = len(labels)
    inside = _inside(labels, rng)[:, None]
    ground, paint = _colours(many, rng)
    slope = rng.uniform(-_GRADIENT, _GRADIENT, (many, 2, 1, 1))
    line = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    shade = slope[:, :1] * line + slope[:, 1:] * line[:, None]
    light = np.where(inside, paint, ground + shade)
    light += noise * rng.standard_normal(light.shape)
    pixels: npt.NDArray[np.uint8] = np.floor(np.clip(light, 0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels


def _inside(labels: npt.NDArray[np.int64], rng: np.random.Generator) -> Inside:
    many = len(labels)
    radius = rng.uniform(*_RADII, (many, 1, 1))
    centre = rng.uniform(0, 1, (2, many, 1, 1)) * (SIDE - 2 * radius) + radius
    half = rng.uniform(-_TILT, _TILT, (many, 1, 1))
    # Sine and cosine from the tangent of half the angle: sums and products are the same everywhere.
    cos, sin = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    x = (np.arange(SIDE) + 0.5 - centre[0]) / radius
    y = (np.arange(SIDE)[:, None] + 0.5 - centre[1]) / radius
    u, v = cos * x + sin * y, cos * y - sin * x
    inside = np.zeros(u.shape, np.bool_)
    for label, shape in enumerate(SHAPES.values()):
        rows = labels == label
        inside[rows] = shape(u[rows], v[rows])
    return inside


def _colours(many: int, rng: np.random.Generator) -> tuple[Field, Field]:
    """Colours of ground and shape, at least the contrast apart on the mean of the channels."""
    ground = rng.uniform(0, 1, (many, 3, 1, 1))
    paint = rng.uniform(0, 1, (many, 3, 1, 1))
    apart = (paint - ground).mean(axis=1, keepdims=True)
    missing = np.maximum(_CONTRAST - abs(apart), 0) * np.where(apart < 0, -1, 1)
    # What is missing is added on both sides, where there is room for it on average.
    return ground - missing / 2, paint + missing / 2
