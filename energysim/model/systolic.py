"""A layer on a systolic array in closed form: folds, cycles and reads of the array's buffers.

The array is rows x columns of multiply-accumulate units, and data ripples through it one unit a
cycle. A layer is a matrix product of M output pixels, T = C R S taps and K filters; one of its
three matrices stays in the units while the others pass through, one *fold* of the array after the
other. It is a second opinion on cycles: no mapping is sought, buffers are read in the order of the
folds, and each fold fills and drains the whole array. The counting rule of this package finds its
cycles by mapping instead (:func:`energysim.model.latency.latency`), where weights of the next fold
come in while the array works.

References
----------
A. Samajdar, J. M. Joseph, Y. Zhu, P. Whatmough, M. Mattina, T. Krishna, "A Systematic Methodology
for Characterizing Scalability of DNN Accelerators using SCALE-Sim", ISPASS 2020. The forms were
found from the counts of its release 3.0.0, which they give exactly; ``tests/test_systolic.py`` has
the rows and what that release counts wrongly.
"""

from __future__ import annotations

from dataclasses import dataclass

from energysim.axes import Dim, Shape
from energysim.errors import InputError, did_you_mean
from energysim.hardware import Hardware
from energysim.sparsity import Mask

DATAFLOWS = ("output_stationary", "weight_stationary", "input_stationary")
"""Which of the three matrices stays in the units."""


@dataclass(frozen=True, slots=True)
class Systolic:
    """A layer on a systolic array."""

    folds: int
    """times that the array is filled"""
    cycles: int
    """of all folds, filling and draining the array in each"""
    input_reads: int
    """elements read into the array; an input under several taps is read for each"""
    weight_reads: int
    """elements read into the array"""
    output_writes: int
    """sums that leave the array; where T does not stay in it, once for each fold over T"""
    macs: int
    """multiply-accumulates that are done"""
    utilization: float
    """of the units, over all cycles; filling and draining counts as idle"""


def systolic(
    shape: Shape, rows: int, columns: int, dataflow: str, *, mask: Mask | None = None
) -> Systolic:
    """Run a layer on a systolic array.

    Parameters
    ----------
    shape : Shape
        With the batch; its groups run one after the other.
    rows, columns : int
        Of the array. Output stationary lays pixels along the rows and filters along the columns,
        weight stationary taps and filters, input stationary taps and pixels.
    dataflow : str
        One of :data:`DATAFLOWS`.
    mask : Mask, optional
        Of the weights. Weight stationary, N:M masks are packed: of each M taps along C only N take
        rows of the array, and its inputs are read all the same. No other zeros are skipped.

    Returns
    -------
    Systolic

    Raises
    ------
    InputError
        If there is no such dataflow, or the array has no units.

    Notes
    -----
    With A rows, B columns::

        output stationary: ceil(M/A) ceil(K/B) folds of T + A + B - 2 cycles
        weight stationary: ceil(T/A) ceil(K/B) folds of M + 2A + B - 2 cycles
        input stationary:  ceil(T/A) ceil(M/B) folds of K + 2A + B - 2 cycles

    The A cycles more are those in which a stationary matrix is put in place, row by row.

    Examples
    --------
    >>> layer = Shape((1, 1, 16, 8, 16, 16, 3, 3), pad=(1, 1), size=(16, 16))
    >>> systolic(layer, 8, 8, "output_stationary").cycles
    5504
    """
    if dataflow not in DATAFLOWS:
        raise InputError(
            f"no systolic dataflow named '{dataflow}'.{did_you_mean(dataflow, DATAFLOWS)}\n"
            f"  known: {', '.join(DATAFLOWS)}"
        )
    if rows < 1 or columns < 1:
        raise InputError(f"an array has 1 row and column or more, got {rows}x{columns}")
    groups, filters = shape[Dim.G], shape[Dim.K]
    pixels = shape[Dim.N] * shape[Dim.P] * shape[Dim.Q]
    taps = every = shape[Dim.C] * shape[Dim.R] * shape[Dim.S]
    if dataflow == "weight_stationary" and mask is not None and mask.pattern.blocks is not None:
        taps = mask.nonzeros // (groups * filters)  # as many in each filter
    if dataflow == "output_stationary":
        over = _parts(pixels, rows), _parts(filters, columns)
        each = taps + rows + columns - 2
        reads = pixels * taps * over[1], filters * taps * over[0]
        writes = pixels * filters
    elif dataflow == "weight_stationary":
        over = _parts(taps, rows), _parts(filters, columns)
        each = pixels + 2 * rows + columns - 2
        reads = pixels * every * over[1], filters * taps
        writes = pixels * filters * over[0]
    else:
        over = _parts(taps, rows), _parts(pixels, columns)
        each = filters + 2 * rows + columns - 2
        reads = pixels * taps, filters * taps * over[1]
        writes = pixels * filters * over[0]
    folds = groups * over[0] * over[1]
    macs = groups * pixels * filters * taps
    return Systolic(
        folds,
        folds * each,
        groups * reads[0],
        groups * reads[1],
        groups * writes,
        macs,
        macs / (folds * each * rows * columns),
    )


def systolic_array(hardware: Hardware) -> tuple[int, int]:
    """Rows and columns of a machine's array.

    Raises
    ------
    InputError
        If it has not two axes.
    """
    if len(hardware.axis_sizes) != 2:  # noqa: PLR2004 - rows and columns
        raise InputError(
            f"{hardware.name} has {len(hardware.axis_sizes)} array axes; a systolic array has two, "
            "rows and columns"
        )
    rows, columns = hardware.axis_sizes
    return rows, columns


def _parts(extent: int, length: int) -> int:
    return -(-extent // length)
