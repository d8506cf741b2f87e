"""Work of an element that skips zeros: against walking it, and densities against all masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest

from energysim.axes import Dim, Shape
from energysim.errors import InputError
from energysim.model.csc_pe import Bools, Floats, PeWork, expected_pe_work, pe_work
from energysim.sparsity import Mask

POINTWISE = Shape((1, 1, 3, 2, 1, 2, 1, 1), size=(1, 2))
PADDED = Shape((1, 1, 3, 1, 1, 2, 1, 2), stride=(1, 2), pad=(0, 1), size=(1, 2))
GROUPED = Shape((1, 2, 2, 1, 2, 1, 2, 1), pad=(1, 0), size=(1, 1))
CONV = Shape((2, 2, 5, 3, 4, 3, 3, 2), stride=(2, 1), dilation=(1, 2), pad=(1, 2), size=(7, 5))


def walked(
    shape: Shape, weights: Bools, inputs: Bools | None, lanes: int, filters: int | None
) -> tuple[int, int]:
    """Macs and cycles of an element that goes through every window and column by itself."""
    n, g, k, c, p, q, r, s = (range(shape[dim]) for dim in Dim)
    tile = filters or len(k)
    macs = cycles = 0
    for image, group, channel, row, column, y, x in product(n, g, c, p, q, r, s):
        h = row * shape.stride[0] + y * shape.dilation[0] - shape.pad[0]
        w = column * shape.stride[1] + x * shape.dilation[1] - shape.pad[1]
        if inputs is not None:
            inside = 0 <= h < shape.size[0] and 0 <= w < shape.size[1]
            if not (inside and inputs[image, group, channel, h, w]):
                continue
        for first in range(0, len(k), tile):
            waiting = sum(
                bool(weights[group, each, channel, y, x]) for each in k[first : first + tile]
            )
            macs += waiting
            while waiting > 0:
                waiting -= lanes
                cycles += 1
    return macs, cycles


def random_masks(shape: Shape, seed: int, density: float) -> tuple[Bools, Bools]:
    rng = np.random.default_rng(seed)
    weights = rng.random([shape[dim] for dim in (Dim.G, Dim.K, Dim.C, Dim.R, Dim.S)]) < density
    inputs = rng.random((shape[Dim.N], shape[Dim.G], shape[Dim.C], *shape.size)) < density
    return weights, inputs


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("filters", [None, 1, 2, 5, 9])
@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_masks_are_what_a_walk_counts(lanes: int, filters: int | None, *, compressed: bool) -> None:
    for seed, density in enumerate((0.0, 0.3, 0.7, 1.0)):
        weights, inputs = random_masks(CONV, seed, density)
        given = inputs if compressed else None
        work = pe_work(CONV, weights, given, lanes=lanes, filters=filters)
        assert (work.macs, work.cycles) == walked(CONV, weights, given, lanes, filters)
        assert all(isinstance(each, int) for each in (work.macs, work.lost_slots, work.cycles))
        assert work.slots == work.cycles * lanes


def all_masks(shape: tuple[int, ...], density: Floats) -> Iterator[tuple[Bools, float]]:
    """Every mask with the chance that it comes up, where each element is live by itself."""
    chance = np.broadcast_to(density, shape)
    for bits in product([False, True], repeat=chance.size):
        mask = np.array(bits).reshape(shape)
        yield mask, float(np.where(mask, chance, 1 - chance).prod())


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize("shape", [POINTWISE, PADDED, GROUPED])
def test_densities_are_the_mean_over_all_masks(
    shape: Shape, lanes: int, *, compressed: bool
) -> None:
    """Every mask of a small layer with its chance, so that no sampling error hides another."""
    channels = (shape[Dim.G], shape[Dim.C])
    weight = np.resize([0.3, 0.8], channels)
    image = np.resize([0.6, 0.25], channels)
    weights = list(
        all_masks(
            tuple(shape[dim] for dim in (Dim.G, Dim.K, Dim.C, Dim.R, Dim.S)),
            weight[:, None, :, None, None],
        )
    )
    inputs = list(
        all_masks((1, shape[Dim.G], shape[Dim.C], *shape.size), image[None, ..., None, None])
    )
    macs = cycles = lost = 0.0
    for (one, chance), (other, odds) in product(weights, inputs if compressed else [(None, 1.0)]):
        work = pe_work(shape, one, other, lanes=lanes, filters=2)
        macs += chance * odds * work.macs
        lost += chance * odds * work.lost_slots
        cycles += chance * odds * work.cycles
    expected = expected_pe_work(
        shape, weight, image if compressed else None, lanes=lanes, filters=2
    )
    assert expected.macs == pytest.approx(macs, rel=1e-12)
    assert expected.lost_slots == pytest.approx(lost, rel=1e-12)
    assert expected.cycles == pytest.approx(cycles, rel=1e-12)


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_density_one_is_a_dense_mask(lanes: int) -> None:
    weights, inputs = random_masks(CONV, 0, 2.0)
    for live, share in ((inputs, 1.0), (None, None)):
        exact = pe_work(CONV, weights, live, lanes=lanes, filters=3)
        assert expected_pe_work(CONV, 1.0, share, lanes=lanes, filters=3) == exact
        assert exact.macs == CONV.macs or live is not None
    nothing = expected_pe_work(CONV, 0.0, 0.0, lanes=lanes)
    assert (nothing.cycles, nothing.utilization) == (0, 0)


def test_an_odd_column_leaves_a_lane_empty() -> None:
    shape = Shape((1, 1, 7, 1, 1, 1, 1, 1))
    density = 0.35
    expected = expected_pe_work(shape, density, lanes=2)
    assert expected.lost_slots == pytest.approx((1 - (1 - 2 * density) ** 7) / 2, rel=1e-12)
    depthwise = Shape((1, 16, 1, 1, 8, 8, 3, 3), pad=(1, 1), size=(8, 8))
    assert expected_pe_work(depthwise, 1.0, lanes=2).utilization == 0.5


def test_channels_that_are_rich_in_both_cost_more_than_means_tell() -> None:
    """The sum of products is the product of means plus the covariance over the channels."""
    rng = np.random.default_rng(3)
    shape = Shape((1, 1, 64, 32, 4, 4, 1, 1), size=(4, 4))
    weight, image = rng.random((2, 1, 32))
    by_channel = expected_pe_work(shape, weight, image).macs
    means = expected_pe_work(shape, weight.mean(), image.mean()).macs
    covariance = np.cov(weight, image, bias=True)[0, 1]
    assert by_channel - means == pytest.approx(covariance * shape.macs, rel=1e-9)
    alike = expected_pe_work(shape, np.sort(weight), np.sort(image)).macs
    unlike = expected_pe_work(shape, np.sort(weight), np.sort(image)[:, ::-1]).macs
    assert unlike < means < alike


def test_a_pattern_goes_in_as_a_mask() -> None:
    shape = Shape((1, 1, 8, 8, 6, 6, 3, 3), pad=(1, 1), size=(6, 6))
    mask = Mask.of("PS4_P4", shape)
    inputs = np.random.default_rng(1).random((1, 1, 8, 6, 6)) < 0.5
    assert pe_work(shape, mask, inputs) == pe_work(shape, mask.array(), inputs)
    assert pe_work(shape, mask).macs == mask.nonzeros * 36


GOOD = random_masks(CONV, 0, 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pe_work(CONV, GOOD[0].astype(int)), r"weights must be .* bool"),
        (lambda: pe_work(CONV, GOOD[0][:1]), r"weights .* \[2, 5, 3, 3, 2\]"),
        (lambda: pe_work(CONV, GOOD[0], GOOD[1][..., :4]), r"inputs .* \[2, 2, 3, 7, 5\]"),
        (lambda: pe_work(CONV, *GOOD, lanes=0), "lanes must be at least 1, got 0"),
        (lambda: pe_work(CONV, *GOOD, filters=0), "filters must be at least 1, got 0"),
        (lambda: expected_pe_work(CONV, 1.1), r"weight_density must be between 0 and 1, got 1\.1"),
        (lambda: expected_pe_work(CONV, 0.5, float("nan")), "input_density must be between"),
        (lambda: expected_pe_work(CONV, [0.1] * 4), r"broadcast to \[G, C\] = \[2, 3\]"),
        (lambda: expected_pe_work(CONV, 0.5, lanes=0), "lanes must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_refused(call: Callable[[], PeWork], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()
