"""The model of Yang et al. 2019: by hand, by brute force, and a table that was made from it."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energysim.axes import Shape, Tensor
from energysim.catalog import load_network
from energysim.errors import DoesNotFitError
from energysim.model.yang2019 import LayerEnergy, Machine, layer_energy
from energysim.network import Layer, LayerKind
from energysim.sparsity import FORMATS

SMALL = Shape((1, 1, 20, 3, 4, 4, 3, 3), pad=(1, 1), size=(4, 4))
"""20 filters of 3x3x3 over 4x4 pixels: two groups of 12 pixels, two of 14 filters."""


# --- by hand --------------------------------------------------------------------------------------


def test_a_small_convolution_by_hand() -> None:
    """Along an axis of 4, the taps meet 2 + 3 + 3 + 2 = 10 inputs, so U = 3 x 10 x 10."""
    energy = layer_energy(SMALL, 540)
    assert energy.dram_input == 200 * 3 * 16
    assert energy.dram_output == 200 * 20 * 16
    assert energy.dram_weight == 200 * 540
    assert energy.dram_index == 0
    assert energy.cache == 6 * (300 * 2 + 2 * 540)
    assert energy.register == 300 * 20 + 16 * 540
    assert energy.compute == 3 * 16 * 540
    assert energy.dram == 200 * (48 + 320 + 540)
    assert energy.total == energy.dram + energy.cache + energy.register + energy.compute


def test_weights_beyond_their_cache_are_loaded_for_every_group_of_pixels() -> None:
    shape = Shape((1, 1, 64, 64, 5, 5, 3, 3), pad=(1, 1), size=(5, 5))
    energy = layer_energy(shape, 5000)
    assert energy.dram_weight == 200 * (4096 + 3 * (5000 - 4096))
    assert layer_energy(shape, 4096).dram_weight == 200 * 4096


def test_rows_that_windows_share_are_read_again() -> None:
    """10 rows of 30 words, 5 of which fit: parts of 3 new rows each, 4 parts, 2 rows shared."""
    shape = Shape((1, 1, 2, 3, 10, 10, 3, 3), pad=(1, 1), size=(10, 10))
    energy = layer_energy(shape, 54, machine=Machine(input_words=150))
    assert energy.dram_input == 200 * (300 + 2 * 30 * 3)
    assert layer_energy(shape, 54, machine=Machine(input_words=300)).dram_input == 200 * 300
    # A window of one row shares none, even where steps leave rows out.
    for stride, side in ((1, 10), (2, 5)):
        point = Shape((1, 1, 2, 3, side, side, 1, 1), stride=(stride, stride), size=(10, 10))
        assert layer_energy(point, 6, machine=Machine(input_words=150)).dram_input == 200 * 300


def test_a_linear_layer_by_hand() -> None:
    shape = Shape((1, 1, 30, 1000, 1, 1, 1, 1))
    energy = layer_energy(shape, 7000)
    assert energy.dram_input == 200 * 1000
    assert energy.dram_weight == 200 * 7000
    assert energy.dram_output == 200 * 30
    assert energy.cache == 6 * (3 * 1000 + 7000)
    assert energy.register == 30 * 1000 + 7000
    assert energy.compute == 3 * 7000
    beyond = layer_energy(shape, 7000, machine=Machine(input_words=600))
    assert beyond.dram_input == 200 * (600 + 3 * 400)


def test_groups_work_on_their_own_filters() -> None:
    """A depthwise layer has one filter a group: each input goes into the array once a window."""
    shape = Shape((1, 8, 1, 1, 4, 4, 3, 3), pad=(1, 1), size=(4, 4))
    energy = layer_energy(shape, 72)
    assert energy.cache == 6 * (8 * 100 + 2 * 72)
    assert energy.register == 8 * 100 + 16 * 72


def test_index_words() -> None:
    """Once: as it is. With the weights: as often as they are loaded, here 5904 / 5000 times."""
    shape = Shape((1, 1, 64, 64, 5, 5, 3, 3), pad=(1, 1), size=(5, 5))
    once = layer_energy(shape, 5000, index_bits=800)
    assert once.dram_index == 200 * 50
    again = layer_energy(shape, 5000, index_bits=800, index_once=False)
    assert again.dram_index == pytest.approx(200 * 50 * (4096 + 3 * 904) / 5000)
    assert replace(again, dram_index=0.0) == replace(once, dram_index=0.0)
    assert layer_energy(shape, 0, index_bits=800, index_once=False).dram_index == 200 * 50


# --- by brute force -------------------------------------------------------------------------------


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    groups, filters, channels = (draw(st.integers(1, 4)) for _ in range(3))
    size, kernel, stride, dilation, pad, count = [], [], [], [], [], []
    for _ in range(2):
        extent, taps, step, apart, before = (
            draw(st.integers(low, high)) for low, high in ((2, 9), (1, 3), (1, 3), (1, 2), (0, 2))
        )
        span = (taps - 1) * apart + 1
        extent = max(extent, span)
        size.append(extent)
        kernel.append(taps)
        stride.append(step)
        dilation.append(apart)
        pad.append(before)
        count.append((extent + 2 * before - span) // step + 1)
    return Shape(
        (1, groups, filters, channels, count[0], count[1], kernel[0], kernel[1]),
        stride=(stride[0], stride[1]),
        dilation=(dilation[0], dilation[1]),
        pad=(pad[0], pad[1]),
        size=(size[0], size[1]),
    )


@given(shapes())
def test_unfolded_input_equals_brute_force(shape: Shape) -> None:
    """With all else free, what is left is each live entry of the unfolded input, once a filter."""
    _, groups, filters, channels, rows, columns, height, width = shape.dims
    unfolded = 0
    for p, q, r, s in product(range(rows), range(columns), range(height), range(width)):
        h = p * shape.stride[0] + r * shape.dilation[0] - shape.pad[0]
        w = q * shape.stride[1] + s * shape.dilation[1] - shape.pad[1]
        unfolded += 0 <= h < shape.size[0] and 0 <= w < shape.size[1]
    free = Machine(dram=0.0, cache=0.0, register=1.0, mac=0.0)
    weights = shape.elements(Tensor.WEIGHT)
    energy = layer_energy(shape, weights, machine=free)
    assert energy.total == groups * channels * unfolded * filters + weights * rows * columns


@given(shapes(), st.integers(1, 50))
def test_fewer_weights_never_cost_more(shape: Shape, room: int) -> None:
    machine = Machine(weight_words=room)
    most = shape.elements(Tensor.WEIGHT)
    totals = [layer_energy(shape, count, machine=machine).total for count in range(most + 1)]
    assert totals == sorted(set(totals))


@pytest.mark.parametrize(
    ("price", "parts"),
    [
        ("dram", {"dram_input", "dram_output", "dram_weight", "dram_index"}),
        ("cache", {"cache"}),
        ("register", {"register"}),
        ("mac", {"compute"}),
    ],
)
def test_each_price_has_its_parts(price: str, parts: set[str]) -> None:
    machine = Machine()
    dearer = replace(machine, **{price: 2 * getattr(machine, price)})
    plain = layer_energy(SMALL, 200, index_bits=160)
    found = layer_energy(SMALL, 200, index_bits=160, machine=dearer)
    for part in (each.name for each in fields(LayerEnergy)):
        factor = 2 if part in parts else 1
        assert getattr(found, part) == factor * getattr(plain, part) > 0


# --- what it can't do -----------------------------------------------------------------------------


def test_a_window_that_does_not_fit() -> None:
    with pytest.raises(DoesNotFitError, match="words holds 2 rows of 12 words; a window covers 3"):
        layer_energy(SMALL, 540, machine=Machine(input_words=30))
    # A kernel higher than the map needs no more rows than there are.
    tall = Shape((1, 1, 2, 3, 2, 4, 3, 1), pad=(1, 0), size=(2, 4))
    layer_energy(tall, 18, machine=Machine(input_words=24))


@pytest.mark.parametrize("weights", [-1, 541])
def test_weights_that_can_not_be(weights: int) -> None:
    with pytest.raises(ValueError, match=f"of 540 weights, {weights} can't be live"):
        layer_energy(SMALL, weights)


def test_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="for one image, got a batch of 2"):
        layer_energy(replace(SMALL, dims=(2, *SMALL.dims[1:])), 540)


# --- whole networks -------------------------------------------------------------------------------


def sums(name: str, pattern: str, form: str) -> tuple[float, float, float]:
    """(words that cross DRAM once, DRAM energy, total energy) of the convolutions, 16 bits.

    Layers that stay dense (the first, and 1x1 ones) are stored dense, whatever the others are.
    """
    once = dram = total = 0.0
    for layer in load_network(name, pattern=pattern).layers:
        if layer.kind is not LayerKind.CONV:
            continue
        bits = index_bits(layer, form)
        energy = layer_energy(
            layer.shape, layer.weights, index_bits=bits, index_once=form == "periodic"
        )
        once += layer.shape.elements(Tensor.INPUT) + layer.shape.elements(Tensor.OUTPUT)
        once += layer.weights + bits / 16
        dram += energy.dram
        total += energy.total
    return once, dram, total


def index_bits(layer: Layer, form: str) -> int:
    return 0 if layer.pattern == "dense" else FORMATS[form](layer.mask, 16).metadata


TABLE = """
vgg16                  PSD4_P8   0.529 0.926  0.512 0.890  0.532 0.834
vgg16                  PSD2_P8   0.340 0.587  0.317 0.548  0.345 0.529
vgg16                  PSD1_P16  0.192 0.321  0.164 0.279  0.198 0.290
resnet18               PSD4_P8   0.571 0.927  0.514 0.862  0.540 0.806
resnet18               PSD2_P8   0.399 0.620  0.319 0.528  0.356 0.515
resnet18               PSD1_P16  0.264 0.380  0.167 0.265  0.211 0.286
vgg16_tinyimagenet     PSD1_P16  0.260 0.378  0.163 0.274  0.210 0.293
resnet18_tinyimagenet  PSD1_P16  0.438 0.526  0.166 0.260  0.218 0.288
"""
"""Ratios to dense, periodic and CSR each: words moved once, DRAM energy, total energy."""


@pytest.mark.parametrize("row", TABLE.split("\n")[1:-1])
def test_ratios_to_dense(row: str) -> None:
    name, pattern, *printed = row.split()
    dense = sums(name, "dense", "periodic")
    found = [
        f"{sparse / whole:.3f}"
        for sparse_pair, whole in zip(
            zip(sums(name, pattern, "periodic"), sums(name, pattern, "csr"), strict=True),
            dense,
            strict=True,
        )
        for sparse in sparse_pair
    ]
    assert found == printed


@pytest.mark.parametrize(
    ("name", "weights", "inputs", "outputs"),
    [("vgg16", 14_710_464, 185_344, 276_480), ("resnet18", 11_159_232, 666_624, 614_400)],
)
def test_words_of_the_dense_networks(name: str, weights: int, inputs: int, outputs: int) -> None:
    assert sums(name, "dense", "csr")[0] == weights + inputs + outputs
    larger = sums(f"{name}_tinyimagenet", "dense", "csr")[0]
    assert larger == weights + 4 * (inputs + outputs)
