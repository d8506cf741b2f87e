"""Images of any size as squares of one size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError

_BLOCK_PIXELS = 1 << 20
"""Pixels that are scaled at once."""


def fit(images: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Scale and pad images to squares.

    Smaller images are enlarged by the largest whole factor that fits, by repeating pixels, which
    makes up no values. Larger ones are reduced until their longer edge fits; a new pixel is the
    mean of the area it covers, rounded half up. What is then left of the square is zero, the
    same on both sides or one pixel more on the right and below.

    Parameters
    ----------
    images : array of uint8
        Shape (N, C, H, W).
    side : int
        Height and width to come out.

    Returns
    -------
    array of uint8
        Shape (N, C, side, side); the array itself if there is nothing to do.

    Examples
    --------
    >>> fit(np.array([[[[1, 2], [3, 4]]]], np.uint8), 5)[0, 0]
    array([[1, 1, 2, 2, 0],
           [1, 1, 2, 2, 0],
           [3, 3, 4, 4, 0],
           [3, 3, 4, 4, 0],
           [0, 0, 0, 0, 0]], dtype=uint8)
    >>> fit(np.array([[[[1, 2], [3, 4]]]], np.uint8), 1)[0, 0]
    array([[3]], dtype=uint8)
    """
    if side < 1:
        raise InputError(f"images need at least one pixel on each side, got {side}")
    many, channels, height, width = images.shape
    if height == width == side:
        return images
    longest = max(height, width)
    if side >= longest:
        factor = side // longest
        size = (height * factor, width * factor)
    else:
        size = (_share(height, side, longest), _share(width, side, longest))
    fitted = np.zeros((many, channels, side, side), np.uint8)
    top, left = ((side - edge) // 2 for edge in size)
    inside = fitted[:, :, top : top + size[0], left : left + size[1]]
    rows = max(1, _BLOCK_PIXELS // (channels * height * width))
    for first in range(0, many, rows):
        block = images[first : first + rows]
        if side >= longest:
            scaled = block.repeat(factor, axis=2).repeat(factor, axis=3)
        else:
            scaled = _area(block, size)
        inside[first : first + rows] = scaled
    return fitted


def _share(edge: int, side: int, longest: int) -> int:
    return max(1, (2 * edge * side + longest) // (2 * longest))


def _area(images: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    height, width = images.shape[2:]
    # Whole numbers below 2**53: the products are exact, in whatever order they are summed.
    sums = _overlaps(height, size[0]) @ images @ _overlaps(width, size[1]).T
    covered = height * width
    means: npt.NDArray[np.uint8] = np.floor((2 * sums + covered) / (2 * covered)).astype(np.uint8)
    return means


def _overlaps(old: int, new: int) -> npt.NDArray[np.float64]:
    """How much each new pixel covers of each old one, in units of 1/new of an old pixel."""
    ends = np.minimum(np.arange(1, new + 1)[:, None] * old, np.arange(1, old + 1) * new)
    starts = np.maximum(np.arange(new)[:, None] * old, np.arange(old) * new)
    overlaps: npt.NDArray[np.float64] = np.maximum(ends - starts, 0).astype(np.float64)
    return overlaps
