"""Batches: crop and flip as a loop would do them, layout, order, shards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import some

from energysim.errors import InputError
from energysim.train.data import (
    UNCHANGED,
    Augmentation,
    Batch,
    Dataset,
    Fill,
    Split,
    batches,
    in_order,
)
from energysim.train.data.augment import Draw, cropped, normalised


def data_of(many: int = 23, height: int = 5, width: int = 7, channels: int = 3) -> Dataset:
    return Dataset(
        name="made",
        train=Split(some(many, channels, height, width), np.arange(many) % 10),
        test=Split(some(11, channels, height, width, seed=1), np.arange(11) % 10),
        classes=tuple("0123456789"),
        source="a test",
        licence="none",
        layout="made",
    )


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def by_loop(images: np.ndarray, draw: Draw, how: Augmentation) -> np.ndarray:
    """Pad, crop and mirror one image after the other."""
    *_, height, width = images.shape
    pad = how.padding
    made = []
    for image, top, left, mirrored in zip(images, draw.top, draw.left, draw.mirrored, strict=True):
        mode: Any = "reflect" if how.fill is Fill.REFLECT else "constant"
        padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode=mode)
        crop = padded[:, top : top + height, left : left + width]
        made.append(crop[:, :, ::-1] if mirrored else crop)
    return np.stack(made, axis=-1)


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    st.integers(0, 5),
    st.sampled_from(Fill),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_equals_a_loop(
    shape: tuple[int, int, int, int], padding: int, fill: Fill, flip: bool, seed: int
) -> None:
    images = some(*shape, seed=seed)
    if fill is Fill.REFLECT:
        padding = min(padding, min(shape[2:]) - 1)
    how = Augmentation(padding, fill, flip)
    draw = Draw.of(rng(seed), how, images)
    got = cropped(images, draw, how)
    assert np.array_equal(got, by_loop(images, draw, how))
    assert got.flags.c_contiguous
    assert got.dtype == np.uint8


def test_draws_cover_everything() -> None:
    draw = Draw.of(rng(), Augmentation(padding=2), some(2000, 1, 4, 4))
    assert set(draw.top.tolist()) == set(draw.left.tolist()) == set(range(5))
    assert 0.45 < draw.mirrored.mean() < 0.55
    assert abs(np.corrcoef([draw.top, draw.left, draw.mirrored])[np.triu_indices(3, 1)]).max() < 0.1
    assert not Draw.of(rng(), Augmentation(flip=False), some(99, 1, 4, 4)).mirrored.any()


def test_wrong_padding() -> None:
    with pytest.raises(InputError, match="0 or more, got -1"):
        Augmentation(padding=-1)
    with pytest.raises(InputError, match="4 pixels can't be reflected from images of 4"):
        next(
            batches(
                data_of(height=4, width=6),
                rng(),
                8,
                changes=rng(),
                augmentation=Augmentation(4, Fill.REFLECT),
            )
        )


def test_normalised() -> None:
    data = data_of()
    pixels = np.ascontiguousarray(data.train.images.transpose(1, 2, 3, 0))
    x = normalised(pixels, data)
    assert x.dtype == np.float32
    assert x.mean(axis=(1, 2, 3)) == pytest.approx([0] * 3, abs=1e-6)
    assert x.std(axis=(1, 2, 3)) == pytest.approx([1] * 3, rel=1e-6)


def test_channel_that_never_changes() -> None:
    images = np.full((4, 1, 2, 2), 7, np.uint8)
    flat = Split(images, np.zeros(4, np.int64))
    data = Dataset("flat", flat, flat, ("a",), "a test", "none", "made")
    assert data.std == (0,)
    assert np.allclose(normalised(images.transpose(1, 2, 3, 0), data), 0)


def collect(steps: list[tuple[Batch, ...]]) -> tuple[np.ndarray, np.ndarray]:
    parts = [batch for step in steps for batch in step]
    return (
        np.concatenate([batch.x for batch in parts], axis=-1),
        np.concatenate([batch.y for batch in parts]),
    )


@given(st.integers(1, 30), st.integers(1, 6))
def test_every_image_once(size: int, shards: int) -> None:
    data = data_of()
    steps = list(batches(data, rng(5), size, shards))
    x, y = collect(steps)
    order = rng(5).permutation(23)
    want = normalised(np.ascontiguousarray(data.train.images[order].transpose(1, 2, 3, 0)), data)
    assert np.array_equal(x, want)
    assert np.array_equal(y, data.train.labels[order])
    sizes = [[len(batch.y) for batch in step] for step in steps]
    assert [sum(step) for step in sizes] == [min(size, 23 - k) for k in range(0, 23, size)]
    for step in sizes:
        assert len(step) == min(shards, sum(step))
        assert max(step) - min(step) <= 1
    assert all(batch.x.flags.c_contiguous for step in steps for batch in step)


HOW = Augmentation(padding=2, fill=Fill.REFLECT)


def test_same_seeds_same_bytes() -> None:
    data = data_of()
    one, again, other = (
        collect(list(batches(data, rng(1), 8, 2, changes=rng(seed), augmentation=HOW)))
        for seed in (2, 2, 3)
    )
    assert one[0].tobytes() == again[0].tobytes()
    assert one[0].tobytes() != other[0].tobytes()
    assert np.array_equal(one[1], other[1])


def test_shards_change_nothing() -> None:
    data = data_of()
    made = [
        collect(list(batches(data, rng(1), 8, shards, changes=rng(2), augmentation=HOW)))[0]
        for shards in (1, 2, 3, 8)
    ]
    assert len({x.tobytes() for x in made}) == 1


def test_states_of_generators_continue() -> None:
    data = data_of()
    order, changes = rng(1), rng(2)
    epochs = [
        collect(list(batches(data, order, 8, changes=changes, augmentation=HOW)))[0]
        for _ in range(2)
    ]
    later = rng(0), rng(0)
    before = rng(1), rng(2)
    collect(list(batches(data, before[0], 8, changes=before[1], augmentation=HOW)))
    for generator, state in zip(later, before, strict=True):
        generator.bit_generator.state = state.bit_generator.state
    resumed = collect(list(batches(data, later[0], 8, changes=later[1], augmentation=HOW)))[0]
    assert np.array_equal(resumed, epochs[1])
    assert not np.array_equal(resumed, epochs[0])


@pytest.mark.parametrize(("size", "shards"), [(0, 1), (4, 0), (-1, 1)])
def test_no_step(size: int, shards: int) -> None:
    with pytest.raises(InputError, match="a step needs images and shards"):
        next(batches(data_of(), rng(), size, shards))


def test_change_without_a_generator() -> None:
    for how in (Augmentation(padding=0, flip=True), Augmentation(padding=1, flip=False)):
        with pytest.raises(InputError, match="without a generator"):
            next(batches(data_of(), rng(), 4, augmentation=how))
    assert next(batches(data_of(), rng(), 4, augmentation=UNCHANGED))


def test_in_order() -> None:
    data = data_of()
    made = list(in_order(data, data.test, 4))
    assert [len(batch.y) for batch in made] == [4, 4, 3]
    x, y = collect([tuple(made)])
    assert np.array_equal(x, normalised(data.test.images.transpose(1, 2, 3, 0), data))
    assert np.array_equal(y, data.test.labels)
    assert all(batch.x.flags.c_contiguous for batch in made)
