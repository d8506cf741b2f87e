"""Systolic arrays in closed form: against SCALE-Sim, and against stepping the array."""

from __future__ import annotations

import json
from math import ceil

import pytest
from command_line import call
from hypothesis import given
from hypothesis import strategies as st

from energysim.axes import Shape
from energysim.errors import InputError
from energysim.model.systolic import DATAFLOWS, systolic
from energysim.sparsity import Mask


def stepped(pixels: int, taps: int, filters: int, rows: int, columns: int, flow: str) -> int:
    """Cycle after the last in which a value leaves the array, fold by fold, unit by unit."""
    extents = {
        "output_stationary": (pixels, filters, taps),
        "weight_stationary": (taps, filters, pixels),
        "input_stationary": (taps, pixels, filters),
    }[flow]
    along_rows, along_columns, streamed = extents
    cycles = 0
    for _ in range(ceil(along_rows / rows)):
        for _ in range(ceil(along_columns / columns)):
            # a stationary matrix is shifted in, a row each cycle
            ready = 0 if flow == "output_stationary" else rows
            last = 0
            for i in range(rows):
                for j in range(columns):
                    for step in range(streamed):
                        last = max(last, ready + step + i + j)
            cycles += last + 1
    return cycles


@given(
    p=st.integers(1, 5),
    c=st.integers(1, 4),
    k=st.integers(1, 6),
    r=st.integers(1, 3),
    array=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    flow=st.sampled_from(DATAFLOWS),
)
def test_cycles_equal_stepping_the_array(
    p: int, c: int, k: int, r: int, array: tuple[int, int], flow: str
) -> None:
    shape = Shape((2, 1, k, c, p, 1, r, 1), size=(p + r - 1, 1))
    found = systolic(shape, *array, flow)
    assert found.cycles == stepped(2 * p, c * r, k, *array, flow)
    assert found.macs == shape.macs
    assert 0 < found.utilization <= 1


def test_groups_run_one_after_the_other() -> None:
    one = Shape((1, 1, 4, 3, 5, 5, 3, 3), pad=(1, 1), size=(5, 5))
    four = Shape((1, 4, 4, 3, 5, 5, 3, 3), pad=(1, 1), size=(5, 5))
    for flow in DATAFLOWS:
        alone, together = (systolic(shape, 4, 4, flow) for shape in (one, four))
        assert together.cycles == 4 * alone.cycles
        assert together.input_reads == 4 * alone.input_reads
        assert together.utilization == alone.utilization


def test_other_zeros_are_not_skipped() -> None:
    shape = Shape((1, 1, 8, 8, 5, 5, 3, 3), pad=(1, 1), size=(5, 5))
    for flow in DATAFLOWS:
        plain = systolic(shape, 4, 4, flow)
        assert systolic(shape, 4, 4, flow, mask=Mask.of("PS4_P4", shape)) == plain
    packed = systolic(shape, 4, 4, "weight_stationary", mask=Mask.of("2:4", shape))
    assert packed.macs == shape.macs // 2


@pytest.mark.parametrize(
    ("rows", "flow", "message"),
    [(0, "weight_stationary", "1 row and column"), (4, "weight_stationery", "Did you mean")],
)
def test_what_is_refused(rows: int, flow: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        systolic(Shape((1, 1, 1, 1, 1, 1, 1, 1)), rows, 4, flow)


def test_command() -> None:
    done = call("run", "--net", "vgg16", "--hw", "edge_tpu", "--model", "systolic")
    assert done.status == 0, done.err
    assert "64x64" in done.out
    assert "weight_stationary" in done.out
    flow = ("--dataflow", "output_stationary")
    common = ("run", "--net", "vgg16", "--hw", "edge_tpu", "--model", "systolic")
    rows = json.loads(call(*common, *flow, "--format", "json").out)
    first = rows[0]
    assert (first["layer"], first["dataflow"]) == ("conv1_1", "output_stationary")
    assert first["cycles"] == 16 * 1 * (27 + 64 + 64 - 2)
    wrong = call(*common, "--dataflow", "row_stationary")
    assert wrong.status == 2
    assert "row_stationary" in wrong.err
    alone = call("run", "--net", "vgg16", "--model", "systolic")
    assert alone.status == 2
    assert "--hw" in alone.err
