"""Cycles of one processing element that skips zero weights and zero inputs, as Eyeriss v2's does.

Weights lie in compressed sparse columns: a column holds the live weights of several filters for one
input channel and tap. The element walks the live inputs; each meets the columns of its channel, and
the live weights of a column are issued ``lanes`` at a time. Masks give exact cycles, densities give
their expectation.

References
----------
Y.-H. Chen, T.-J. Yang, J. Emer, V. Sze, "Eyeriss v2", IEEE JETCAS 9(2), 2019: the element and its
columns. Y. N. Wu, P.-A. Tsai, A. Parashar, V. Sze, J. Emer, "Sparseloop", MICRO 2022: the element's
cycles on a sparse MobileNet, which ``tests/test_eyeriss_v2_pe.py`` compares with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim, Shape
from energysim.errors import InputError
from energysim.sparsity import Mask

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PeWork:
    """What one processing element does for a layer: int from masks, float from densities."""

    macs: float
    """multiply-accumulates of a live weight and a live input"""
    lost_slots: float
    """multipliers that stood idle because a column had no weight left for them"""
    lanes: int
    """multiply-accumulates that can start in a cycle"""

    @property
    def slots(self) -> float:
        """Multipliers times cycles."""
        return self.macs + self.lost_slots

    @property
    def cycles(self) -> float:
        """Cycles in which the element issues work; see the notes of :func:`pe_work`."""
        # Exact: whole columns are issued, so masks give a multiple of the lanes.
        whole = isinstance(self.slots, int)
        return self.slots // self.lanes if whole else self.slots / self.lanes

    @property
    def utilization(self) -> float:
        """Multiply-accumulates per slot; 0 where there is no work."""
        return self.macs / self.slots if self.slots else 0.0


def pe_work(
    shape: Shape,
    weights: Mask | Bools,
    inputs: Bools | None = None,
    *,
    lanes: int = 1,
    filters: int | None = None,
) -> PeWork:
    """Count the work of one element exactly, on the masks of weights and inputs.

    Parameters
    ----------
    shape : Shape
        Geometry of a layer with weights.
    weights : Mask or bool array, shape (G, K, C, R, S)
        Live weights.
    inputs : bool array, shape (N, G, C, H, W), optional
        Live inputs. None where inputs aren't compressed: then every position of the window is
        walked, zeros and padding included.
    lanes : int
        Weights of a column that are multiplied at once, each with the same input: 2 in Eyeriss v2.
    filters : int, optional
        Filters that share a column, the most that the element holds sums for; all of them unless
        given. The last tile may have fewer.

    Returns
    -------
    PeWork
        Of int.

    Raises
    ------
    InputError
        If an array has another type or shape, or a number is less than 1.

    Notes
    -----
    With a(g, c, r, s) = live inputs that meet tap (r, s) of channel (g, c), summed over images and
    output positions, and w(t, g, c, r, s) = live weights of that column in tile t of the filters::

        macs   = sum a * w          cycles = sum a * ceil(w / lanes)

    *Load imbalance.* One element waits for nobody. What it loses are the lanes that a column leaves
    empty: half a slot a visit on average for odd columns and two lanes, and always one of two in a
    depthwise layer, whose columns hold one weight. What densities of a whole layer can't tell is
    that channels with more live weights than others also tend to have more live inputs, or fewer:
    the sum of products over the channels differs from the product of the means by their covariance.
    Masks, or densities by channel, have it.

    Not counted: filling and draining the pipeline, loading the scratchpads, looking up an empty
    column, conflicts between banks.

    Examples
    --------
    >>> shape = Shape((1, 1, 4, 1, 1, 3, 1, 1), size=(1, 3))
    >>> weights = np.array([1, 1, 0, 1], dtype=bool).reshape(1, 4, 1, 1, 1)
    >>> inputs = np.array([1, 0, 1], dtype=bool).reshape(1, 1, 1, 1, 3)
    >>> work = pe_work(shape, weights, inputs, lanes=2)
    >>> work.macs, work.lost_slots, work.cycles
    (6, 2, 4)
    """
    _refuse_below_one(lanes=lanes, filters=filters)
    live = weights.array() if isinstance(weights, Mask) else weights
    _refuse_mask("weights", live, tuple(shape[dim] for dim in (Dim.G, Dim.K, Dim.C, Dim.R, Dim.S)))
    if inputs is None:
        visits = np.broadcast_to(
            np.int64(shape[Dim.N] * shape[Dim.P] * shape[Dim.Q]), live.shape[:1] + live.shape[2:]
        )
    else:
        image = (shape[Dim.N], shape[Dim.G], shape[Dim.C], *shape.size)
        _refuse_mask("inputs", inputs, image)
        visits = _visits(shape, inputs)
    starts = np.arange(0, shape[Dim.K], filters or shape[Dim.K])
    columns = np.add.reduceat(live, starts, axis=1, dtype=np.int64)
    macs = int((visits[:, None] * columns).sum())
    lost = int((visits[:, None] * (-columns % lanes)).sum())
    return PeWork(macs, lost, lanes)


def expected_pe_work(
    shape: Shape,
    weight_density: npt.ArrayLike,
    input_density: npt.ArrayLike | None = None,
    *,
    lanes: int = 1,
    filters: int | None = None,
) -> PeWork:
    """Take the expectation of :func:`pe_work` where only densities are known.

    Each weight and each input is live by itself with the density of its channel, so expected counts
    of live ones multiply. Padding is never live.

    Parameters
    ----------
    shape : Shape
        Geometry of a layer with weights.
    weight_density : numeric
        Share of live weights, 0 to 1, one for the layer or of a shape that broadcasts to (G, C).
    input_density : numeric, optional
        Share of live inputs, likewise; None where inputs aren't compressed, as in :func:`pe_work`.
    lanes, filters
        As in :func:`pe_work`.

    Returns
    -------
    PeWork
        Of float.

    Raises
    ------
    InputError
        If a density isn't between 0 and 1 or doesn't broadcast, or a number is less than 1.

    Notes
    -----
    A column of m weights of density d has m * d live ones. The lanes that it leaves empty follow
    from the distribution of its live weights modulo ``lanes``, built up weight by weight; for two
    lanes it is ``(1 - (1 - 2 * d)**m) / 2``, the chance of an odd number.

    Examples
    --------
    >>> shape = Shape((1, 1, 64, 64, 32, 32, 1, 1), size=(32, 32))
    >>> round(expected_pe_work(shape, 0.52, 0.73).cycles)
    1592158
    """
    _refuse_below_one(lanes=lanes, filters=filters)
    channels = (shape[Dim.G], shape[Dim.C])
    weight = _densities("weight_density", weight_density, channels)
    if input_density is None:
        visits = np.float64(
            shape[Dim.N] * shape[Dim.P] * shape[Dim.Q] * shape[Dim.R] * shape[Dim.S]
        )
        arriving = np.full(channels, visits)
    else:
        ones = np.ones((1, 1, 1, *shape.size), dtype=np.bool_)
        inside = shape[Dim.N] * int(_visits(shape, ones).sum())
        arriving = _densities("input_density", input_density, channels) * inside
    tile = filters or shape[Dim.K]
    full, rest = divmod(shape[Dim.K], tile)
    lost = full * _empty_lanes(weight, tile, lanes) + _empty_lanes(weight, rest, lanes)
    macs = float((arriving * weight).sum()) * shape[Dim.K]
    return PeWork(macs, float((arriving * lost).sum()), lanes)


def _visits(shape: Shape, inputs: Bools) -> Ints:
    """Live inputs that meet each tap, over images and output positions, shape (G, C, R, S)."""
    height, width = (
        _positions(shape, along, output, tap)
        for along, (output, tap) in enumerate(((Dim.P, Dim.R), (Dim.Q, Dim.S)))
    )
    # A window's rows and columns are chosen apart, so how often each is met is a product.
    by_row = np.einsum("ngchw,rh->ngcrw", inputs.astype(np.int64), height)
    met: Ints = np.einsum("ngcrw,sw->gcrs", by_row, width)
    return met


def _positions(shape: Shape, along: int, output: Dim, tap: Dim) -> Ints:
    """Outputs in which a tap meets each row or column of the image, shape (taps, size)."""
    size = shape.size[along]
    places = (
        np.arange(shape[tap])[:, None] * shape.dilation[along]
        + np.arange(shape[output]) * shape.stride[along]
        - shape.pad[along]
    )
    met: Ints = (places[:, None, :] == np.arange(size)[:, None]).sum(axis=-1)
    return met


def _empty_lanes(density: Floats, weights: int, lanes: int) -> Floats:
    """Expected lanes that a column of so many weights leaves empty in its last cycle."""
    remainder = np.zeros((lanes, *density.shape))
    remainder[0] = 1.0
    for _ in range(weights):
        remainder = (1 - density) * remainder + density * np.roll(remainder, 1, axis=0)
    empty = (-np.arange(lanes) % lanes).astype(np.float64)
    return np.tensordot(empty, remainder, axes=1)


def _densities(name: str, given: npt.ArrayLike, channels: tuple[int, int]) -> Floats:
    """A density for every channel."""
    values = np.asarray(given, dtype=np.float64)
    if not np.all((values >= 0) & (values <= 1)):  # false for NaN too
        raise InputError(f"{name} must be between 0 and 1, got {given!r}")
    try:
        return np.broadcast_to(values, channels)
    except ValueError:
        raise InputError(
            f"{name} must be one number or broadcast to [G, C] = {list(channels)},"
            f" got the shape {list(values.shape)}"
        ) from None


def _refuse_mask(name: str, given: Bools, expected: tuple[int, ...]) -> None:
    if given.dtype != np.bool_ or given.shape != expected:
        raise InputError(
            f"{name} must be an array of bool of the shape {list(expected)},"
            f" got {given.dtype} of {list(given.shape)}"
        )


def _refuse_below_one(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise InputError(f"{name} must be at least 1, got {number}")
