"""Every kind of plan against plain loops, and gradients against central differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energysim.axes import Dim, Shape
from energysim.errors import InputError
from energysim.sparsity import PATTERNS, Mask
from energysim.train.conv import USUAL_BATCH, ConvPlan, Kind, _least_ns, lowered_ns
from energysim.train.lowered import Axis, Lowered, valid_range
from energysim.train.scratch import Floats
from energysim.train.winograd import Winograd

EXACT = 1e-10
"""Of double precision, relative to results of about 1 to 100."""
MOST_GRADIENT_ERROR = 1e-7


def square(
    groups: int,
    filters: int,
    channels: int,
    size: int,
    kernel: int = 3,
    stride: int = 1,
    pad: int = 1,
    dilation: int = 1,
) -> Shape:
    out = (size + 2 * pad - (kernel - 1) * dilation - 1) // stride + 1
    return Shape(
        (1, groups, filters, channels, out, out, kernel, kernel),
        stride=(stride, stride),
        dilation=(dilation, dilation),
        pad=(pad, pad),
        size=(size, size),
    )


def meetings(shape: Shape) -> Iterator[tuple[int, ...]]:
    """Output and input positions and taps that meet, one by one."""
    for p, q, r, s in product(*(range(shape[dim]) for dim in (Dim.P, Dim.Q, Dim.R, Dim.S))):
        h = p * shape.stride[0] + r * shape.dilation[0] - shape.pad[0]
        w = q * shape.stride[1] + s * shape.dilation[1] - shape.pad[1]
        if 0 <= h < shape.size[0] and 0 <= w < shape.size[1]:
            yield p, q, r, s, h, w


def naive(x: Floats, w: Floats, dy: Floats, shape: Shape) -> tuple[Floats, Floats, Floats]:
    """y, dx and dw by loops over positions and taps."""
    groups, filters, channels = w.shape[:3]
    y = np.zeros_like(dy)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for g in range(groups):
        ins, outs = slice(g * channels, (g + 1) * channels), slice(g * filters, (g + 1) * filters)
        for p, q, r, s, h, v in meetings(shape):
            y[outs, p, q] += w[g, :, :, r, s] @ x[ins, h, v]
            dx[ins, h, v] += w[g, :, :, r, s].T @ dy[outs, p, q]
            dw[g, :, :, r, s] += dy[outs, p, q] @ x[ins, h, v].T
    return y, dx, dw


def data(plan: ConvPlan, batch: int = 2, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Images, weights and gradients of outputs."""
    rng = np.random.default_rng(seed)
    groups, filters, channels, _, _ = plan.weight_dims
    shape = plan.shape
    x = rng.standard_normal((groups * channels, *shape.size, batch)).astype(plan.dtype)
    w = plan.stored(rng.standard_normal(plan.weight_dims))
    out = (groups * filters, shape[Dim.P], shape[Dim.Q], batch)
    return x, w, rng.standard_normal(out).astype(plan.dtype)


def every_kind(shape: Shape, mask: Mask | None = None, dtype: type = np.float64) -> list[ConvPlan]:
    plans = []
    for kind in Kind:
        with suppress(InputError):  # of kinds that don't compute this layer
            plans.append(ConvPlan.of(shape, mask, dtype=dtype, kind=kind))
    return plans


def assert_as_loops(plan: ConvPlan, batch: int = 2) -> None:
    x, w, dy = data(plan, batch)
    y, dx, dw = naive(x, w, dy, plan.shape)
    if plan.live is not None:
        dw = dw * plan.live
    np.testing.assert_allclose(plan.forward(x, w), y, atol=EXACT)
    np.testing.assert_allclose(plan.backward_input(dy, w), dx, atol=EXACT)
    found = plan.backward_weight(dy, x)
    np.testing.assert_allclose(found, dw, atol=EXACT)
    if plan.live is not None:
        assert not found[~plan.live].any()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_all_patterns(pattern: str) -> None:
    shape = square(1, 19, 18, 5)
    plans = every_kind(shape, Mask.of(pattern, shape, 3))
    assert {plan.kind for plan in plans} >= {Kind.WINOGRAD}
    assert (len(plans) == 3) == (pattern != "dense")
    for plan in plans:
        assert_as_loops(plan)


@pytest.mark.parametrize(
    "shape",
    [
        square(1, 7, 5, 6),
        square(2, 3, 5, 7, stride=2),
        square(3, 2, 4, 8, kernel=5, pad=2, stride=3),
        square(1, 4, 4, 9, dilation=2, pad=2),
        square(1, 4, 6, 5, kernel=1, pad=0),
        square(2, 4, 6, 5, kernel=1, pad=0, stride=2),
        square(1, 4, 6, 5, kernel=1, pad=1),
        square(6, 1, 1, 7),
        square(6, 1, 1, 7, stride=2, kernel=5, pad=2),
        square(4, 3, 1, 6),
        square(1, 3, 4, 1, kernel=7, pad=3),
        square(1, 8, 8, 2),
        Shape((1, 1, 5, 12, 1, 1, 1, 1)),
    ],
    ids=str,
)
def test_shapes(shape: Shape) -> None:
    rng = np.random.default_rng(1)
    dims = tuple(shape[dim] for dim in (Dim.G, Dim.K, Dim.C, Dim.R, Dim.S))
    some = Mask.from_array(rng.random(dims) < 0.5)
    for plan in every_kind(shape) + every_kind(shape, some):
        assert_as_loops(plan)


@st.composite
def geometries(draw: st.DrawFn) -> Shape:
    kernel, stride, dilation, pad = (
        draw(st.tuples(st.integers(low, high), st.integers(low, high)))
        for low, high in ((1, 4), (1, 3), (1, 2), (0, 3))
    )
    span = [(kernel[i] - 1) * dilation[i] + 1 for i in (0, 1)]
    # More than the padding before: what is needed behind follows from the outputs.
    size = tuple(draw(st.integers(max(1, span[i] - 2 * pad[i]), 9)) for i in (0, 1))
    out = [draw(st.integers(1, (size[i] + 2 * pad[i] - span[i]) // stride[i] + 1)) for i in (0, 1)]
    groups, filters, channels = (draw(st.integers(1, high)) for high in (3, 7, 7))
    dims = (1, groups, filters, channels, *out, *kernel)
    return Shape(dims, stride=stride, dilation=dilation, pad=pad, size=size)


@settings(max_examples=60, deadline=None)
@given(geometries(), st.integers(0, 9), st.integers(1, 3))
def test_random_geometries(shape: Shape, seed: int, batch: int) -> None:
    rng = np.random.default_rng(seed)
    dims = tuple(shape[dim] for dim in (Dim.G, Dim.K, Dim.C, Dim.R, Dim.S))
    mask = Mask.from_array(rng.random(dims) < rng.random()) if seed % 3 else None
    for plan in every_kind(shape, mask):
        assert_as_loops(plan, batch)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 7), (9, 6)])
def test_both_winograd_tiles(tile: int, size: tuple[int, int]) -> None:
    shape = Shape((1, 1, 5, 4, *size, 3, 3), pad=(1, 1), size=size)
    kernel = Winograd(tile, 5, 4, size, size, (-1, -1))
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((4, *size, 3)), rng.standard_normal((1, 5, 4, 3, 3))
    dy = rng.standard_normal((5, *size, 3))
    y, _, dw = naive(x, w, dy, shape)
    found, gradient = np.empty_like(y), np.empty_like(w[0])
    kernel.apply(x, w[0], found)
    kernel.weight_gradient(x, dy, gradient)
    np.testing.assert_allclose(found, y, atol=EXACT)
    np.testing.assert_allclose(gradient, dw[0], atol=EXACT)


def test_blocks_of_rows_and_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small buffers cut a layer into many blocks, with the same result."""
    monkeypatch.setattr("energysim.train.lowered.BUFFER_BYTES", 1 << 10)
    monkeypatch.setattr("energysim.train.winograd.TILE_BYTES", 1 << 12)
    monkeypatch.setattr("energysim.train.depthwise.CACHE_BYTES", 1 << 14)
    monkeypatch.setattr("energysim.train.depthwise.BUFFER_BYTES", 1 << 12)
    shape = square(1, 8, 8, 11)
    for mask in (None, Mask.of("PSD4_P8", shape)):
        for plan in every_kind(shape, mask):
            assert_as_loops(plan)
    for depthwise in (
        square(8, 1, 1, 7),
        square(3, 2, 1, 9, stride=2, dilation=2, pad=2),
        square(5, 1, 1, 4),
        square(7, 2, 1, 5, kernel=5, pad=2, stride=2),
    ):
        assert_as_loops(ConvPlan.of(depthwise, dtype=np.float64))


# -- gradients -------------------------------------------------------------------------------------


def differences(loss: Callable[[], float], at: Floats, step: float = 1e-5) -> Floats:
    """Central differences of a scalar by every element of an array."""
    found = np.empty_like(at)
    for index in np.ndindex(at.shape):
        kept = at[index]
        at[index] = kept + step
        up = loss()
        at[index] = kept - step
        found[index] = (up - loss()) / (2 * step)
        at[index] = kept
    return found


@pytest.mark.parametrize("pattern", ["dense", "PS4_P4", "PSD2_P8", "PS1_P9", "pSC4"])
def test_central_differences(pattern: str) -> None:
    shape = square(1, 5, 4, 4)
    for plan in every_kind(shape, Mask.of(pattern, shape, 1)):
        assert_gradients(plan)


@pytest.mark.parametrize(
    "shape",
    [
        square(4, 1, 1, 4, stride=2),
        square(2, 3, 2, 3, kernel=1, pad=0, stride=2),
        square(2, 2, 3, 5, stride=2),
    ],
    ids=["depthwise", "pointwise", "strided"],
)
def test_central_differences_of_other_kinds(shape: Shape) -> None:
    for plan in every_kind(shape):
        assert_gradients(plan)


def assert_gradients(plan: ConvPlan) -> None:
    x, w, dy = data(plan)

    def loss() -> float:
        return float((plan.forward(x, w) * dy).sum())

    by_input, by_weight = differences(loss, x), differences(loss, w)
    if plan.live is not None:  # a fixed zero has no gradient, whatever the loss
        by_weight[~plan.live] = 0
    assert abs(plan.backward_input(dy, w) - by_input).max() <= MOST_GRADIENT_ERROR
    assert abs(plan.backward_weight(dy, x) - by_weight).max() <= MOST_GRADIENT_ERROR


# -- what a plan promises --------------------------------------------------------------------------


def test_single_precision_stays_close() -> None:
    shape = square(1, 64, 256, 8)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((256, 8, 8, 2)), rng.standard_normal((1, 64, 256, 3, 3))
    dy = rng.standard_normal((64, 8, 8, 2))
    exact = ConvPlan.of(shape, dtype=np.float64, kind="dense")
    for plan in every_kind(shape, dtype=np.float32):
        x32, w32, dy32 = x.astype(np.float32), plan.stored(w), dy.astype(np.float32)
        for found, wanted in (
            (plan.forward(x32, w32), exact.forward(x, w)),
            (plan.backward_input(dy32, w32), exact.backward_input(dy, w)),
            (plan.backward_weight(dy32, x32), exact.backward_weight(dy, x)),
        ):
            assert found.dtype == np.float32
            assert abs(found - wanted).max() <= 1e-4 * abs(wanted).max()


def test_threads_do_not_meet() -> None:
    shape = square(1, 16, 16, 8)
    for plan in every_kind(shape, Mask.of("PS4_P4", shape), dtype=np.float32):
        shards = [data(plan, batch=4, seed=seed) for seed in range(8)]

        def step(
            shard: tuple[Floats, Floats, Floats], plan: ConvPlan = plan
        ) -> tuple[Floats, Floats, Floats]:
            x, w, dy = shard
            return plan.forward(x, w), plan.backward_input(dy, w), plan.backward_weight(dy, x)

        alone = [step(shard) for shard in shards]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(step, shards))
        for one, other in zip(alone, together, strict=True):
            for first, second in zip(one, other, strict=True):
                np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "shape",
    [square(1, 16, 16, 8), square(1, 12, 10, 9, stride=2), square(8, 1, 1, 9), square(8, 1, 1, 4)],
    ids=["plain", "strided", "depthwise", "small depthwise"],
)
def test_results_do_not_depend_on_what_ran_before(shape: Shape) -> None:
    mask = Mask.of("PS2_P6", shape) if shape[Dim.G] == 1 else None
    for fresh, used in zip(
        every_kind(shape, mask, np.float32), every_kind(shape, mask, np.float32), strict=True
    ):
        for batch in (5, 1, 8):
            assert_finite(used, batch)
        x, w, dy = data(fresh, batch=3)
        for first, second in (
            (fresh.forward(x, w), used.forward(x, w)),
            (fresh.backward_input(dy, w), used.backward_input(dy, w)),
            (fresh.backward_weight(dy, x), used.backward_weight(dy, x)),
        ):
            np.testing.assert_array_equal(first, second)


def assert_finite(plan: ConvPlan, batch: int) -> None:
    x, w, dy = data(plan, batch)
    for found in plan.forward(x, w), plan.backward_input(dy, w), plan.backward_weight(dy, x):
        assert np.isfinite(found).all()


def test_weights_in_any_arrangement() -> None:
    shape = square(1, 12, 12, 6)
    for plan in every_kind(shape, Mask.of("PS2_P6", shape)):
        x, w, dy = data(plan)
        plain = np.ascontiguousarray(w)
        assert plain.strides != w.strides
        np.testing.assert_allclose(plan.forward(x, plain), plan.forward(x, w), atol=EXACT)
        np.testing.assert_allclose(
            plan.backward_input(dy, plain), plan.backward_input(dy, w), atol=EXACT
        )
        assert plan.backward_weight(dy, x).strides == w.strides


def test_overflow_does_not_reach_fixed_zeros() -> None:
    shape = square(1, 8, 8, 4)
    for plan in every_kind(shape, Mask.of("PS1_P9", shape), dtype=np.float32):
        x, _, dy = data(plan)
        x[...] = np.inf
        with np.errstate(all="ignore"):
            found = plan.backward_weight(dy, x)
        assert not found[~plan.live].any()


def test_periods_are_found_in_the_mask() -> None:
    """Equal supports are merged: PSD4_P8 has eight kinds of filters, PS4_P4 written twice four."""
    shape = square(1, 32, 32, 8)
    rows = Axis(8, 8, 1, (-1, 0, 1))
    kinds = {
        name: len(Lowered.of(Mask.of(name, shape).array()[0], rows, rows).parts)
        for name in ("dense", "PS4_P4", "PSD4_P8", "PS2_P6", "PS1_P9")
    }
    assert kinds == {"dense": 1, "PS4_P4": 4, "PSD4_P8": 8, "PS2_P6": 6, "PS1_P9": 9}
    twice = np.tile(Mask.of("PS4_P4", shape).array()[0], (1, 1, 1, 1))
    again = Mask.from_array(twice[None])
    assert len(Lowered.of(again.array()[0], rows, rows).parts) == 4


def test_lowering_leaves_out_fixed_zeros() -> None:
    shape = square(1, 32, 32, 8)
    rows = Axis(8, 8, 1, (-1, 0, 1))
    for name in PATTERNS:
        mask = Mask.of(name, shape, 2)
        assert Lowered.of(mask.array()[0], rows, rows).products == mask.nonzeros


def test_boxes_copy_less() -> None:
    rows = Axis(8, 8, 1, (-1, 0, 1))
    mask = np.ones((32, 32, 3, 3), bool)
    boxes, taps = (Lowered.of(mask, rows, rows, boxes=boxes) for boxes in (True, False))
    assert (boxes.copied, taps.copied) == (3 * 32, 9 * 32)
    assert lowered_ns(boxes, 64) < lowered_ns(taps, 64)


def test_choice() -> None:
    """Wide dense layers by minimal filtering, sparse ones without their zeros, irregular masked."""
    wide = square(1, 512, 512, 4)
    assert ConvPlan.of(wide).kind is Kind.WINOGRAD
    assert ConvPlan.of(wide, Mask.of("dense", wide)).live is None
    assert ConvPlan.of(wide, Mask.of("PS2_P6", wide)).kind is Kind.GROUPED
    first = square(1, 64, 3, 32)
    assert ConvPlan.of(first).kind is Kind.DENSE
    tiny = square(1, 512, 512, 2)
    assert ConvPlan.of(tiny).kind is Kind.DENSE
    irregular = square(1, 64, 64, 8, stride=2)
    assert ConvPlan.of(irregular, Mask.of("pSC4", irregular)).kind is Kind.MASKED
    assert ConvPlan.of(square(8, 1, 1, 8)).kind is Kind.DEPTHWISE
    assert ConvPlan.of(square(2, 8, 8, 8, kernel=1, pad=0)).kind is Kind.POINTWISE


def test_narrow_sparse_layers_leave_out_their_zeros() -> None:
    """Grouped was measured to be quicker than masked, by 1.3 to 2.3 times."""
    for filters, channels, size, pattern in (
        (32, 32, 32, "PS1_P9"),
        (64, 64, 16, "PS2_P6"),
        (64, 64, 16, "PS1_P9"),
        (128, 64, 8, "PS2_P6"),
    ):
        shape = square(1, filters, channels, size)
        plan = ConvPlan.of(shape, Mask.of(pattern, shape), batch=32)
        assert plan.kind is Kind.GROUPED
        assert plan.estimates[Kind.GROUPED] < plan.estimates[Kind.MASKED]


def test_choice_is_printed() -> None:
    shape = square(1, 64, 64, 8)
    said = str(ConvPlan.of(shape, Mask.of("PS1_P9", shape)))
    assert said.startswith("grouped, ")
    assert "us an image (estimates; masked " in said
    assert str(ConvPlan.of(square(8, 1, 1, 8))) == "depthwise"


def test_what_can_not_be() -> None:
    shape = square(1, 8, 8, 8, stride=2)
    with pytest.raises(InputError, match="it can as dense"):
        ConvPlan.of(shape, kind="winograd")
    with pytest.raises(InputError, match="float32 or float64, got int64"):
        ConvPlan.of(shape, dtype=np.int64)
    with pytest.raises(InputError, match="the mask has the dims"):
        ConvPlan.of(shape, Mask.of("dense", square(1, 8, 9, 8)))


def test_valid_range_is_every_position_inside() -> None:
    for out, size, stride, offset in product((1, 3, 5), (1, 4), (1, 2, 3), range(-6, 7)):
        inside = [p for p in range(out) if 0 <= stride * p + offset < size]
        low, high = valid_range(out, size, stride, offset)
        assert list(range(low, high)) == inside


@pytest.mark.parametrize("pattern", ["dense", "PS4_P4"])
@pytest.mark.parametrize(
    "shape",
    [square(1, 32, 24, 8), square(1, 16, 12, 9, stride=2), square(2, 8, 6, 6)],
    ids=["plain", "strided", "groups"],
)
def test_as_torch(pattern: str, shape: Shape) -> None:
    torch = pytest.importorskip("torch")
    for plan in every_kind(shape, Mask.of(pattern, shape), dtype=np.float32):
        x, w, dy = data(plan, batch=4)
        images = torch.tensor(x.transpose(3, 0, 1, 2).copy(), requires_grad=True)
        weights = torch.tensor(w.reshape(-1, *w.shape[2:]).copy(), requires_grad=True)
        y = torch.nn.functional.conv2d(
            images, weights, stride=shape.stride, padding=shape.pad, groups=shape[Dim.G]
        )
        y.backward(torch.tensor(dy.transpose(3, 0, 1, 2).copy()))
        dw = weights.grad.numpy().reshape(w.shape)
        if plan.live is not None:
            dw = dw * plan.live
        for found, wanted in (
            (plan.forward(x, w), y.detach().numpy().transpose(1, 2, 3, 0)),
            (plan.backward_input(dy, w), images.grad.numpy().transpose(1, 2, 3, 0)),
            (plan.backward_weight(dy, x), dw),
        ):
            assert abs(found - wanted).max() <= 1e-4 * abs(wanted).max()


def test_irregular_masks_are_not_laid_out_by_filter() -> None:
    """Where no two filters are alike, copies and small products alone take longer than zeros do."""
    shape = square(1, 512, 512, 4)
    plan = ConvPlan.of(shape, Mask.of("pSC4", shape))
    assert set(plan.estimates) == {Kind.MASKED, Kind.WINOGRAD}


@pytest.mark.parametrize("pattern", [name for name in PATTERNS if name != "dense"])
def test_least_time_of_grouped_kernels(pattern: str) -> None:
    for shape in (square(1, 40, 24, 4), square(1, 8, 9, 7, stride=2), square(2, 12, 12, 5, pad=0)):
        mask = Mask.of(pattern, shape, 1)
        plan = ConvPlan.of(shape, mask, kind=Kind.GROUPED)
        least = sum(_least_ns(one, shape, USUAL_BATCH) for one in mask.array())
        assert 0 < least <= plan.estimates[Kind.GROUPED] * USUAL_BATCH * 1000
