"""Numbers of Kundu et al. (IEEE Trans. Computers 69(7), 2020; Allerton 2019), recomputed.

The abstracts give rounded figures; the longer ones here follow from the shapes of the networks and
the mask rule of the authors' code. A FLOP of theirs is one multiply-accumulate.
"""

from __future__ import annotations

from fractions import Fraction

import pytest

from energysim.catalog import load_network
from energysim.network import LayerKind, Network
from energysim.sparsity import FORMATS, PATTERNS


def conv_weights(network: Network) -> int:
    return sum(layer.weights for layer in network.layers if layer.kind is LayerKind.CONV)


# --- cuts of parameters and of multiply-accumulates -----------------------------------------------


@pytest.mark.parametrize(
    ("name", "cut", "ratio", "claimed_cut", "claimed_ratio"),
    [
        ("resnet18", "82.04", "5.594", 82, 5.6),
        ("vgg16_tinyimagenet", "83.32", "5.826", 83.3, 5.8),
    ],
)
def test_savings_of_psd1_p16(
    name: str, cut: str, ratio: str, claimed_cut: float, claimed_ratio: float
) -> None:
    """Abstract of 2020: 82 % and 5.6x (ResNet18, CIFAR-10), 83.3 % and 5.8x (VGG16, Tiny ImageNet).

    "Parameters" are the weights of the convolutions; the multiply-accumulates include the
    classifier, which for VGG16 is what makes 5.826 of 5.835.
    """
    dense, sparse = load_network(name), load_network(name, pattern="PSD1_P16")
    found_cut = 100 * (1 - conv_weights(sparse) / conv_weights(dense))
    found_ratio = dense.effective_macs / sparse.effective_macs
    assert (f"{found_cut:.2f}", f"{found_ratio:.3f}") == (cut, ratio)
    assert round(found_cut, 1) == pytest.approx(claimed_cut, abs=0.05)
    assert round(found_ratio, 1) == claimed_ratio


@pytest.mark.parametrize(
    ("name", "cut"), [("resnet18", "81.93"), ("vgg16_tinyimagenet", "81.00"), ("vgg16", "83.22")]
)
def test_cut_of_all_parameters_is_smaller(name: str, cut: str) -> None:
    """With biases, batch norm and the 2048-wide classifier, VGG16 does not reach 83.3 %."""
    dense, sparse = load_network(name), load_network(name, pattern="PSD1_P16")
    assert f"{100 * (1 - sparse.parameters / dense.parameters):.2f}" == cut


def test_ratio_without_the_classifier() -> None:
    """The width of the classifier is assumed, but whatever it is, the ratio rounds to 5.8."""
    dense = load_network("vgg16_tinyimagenet")
    sparse = load_network("vgg16_tinyimagenet", pattern="PSD1_P16")
    classifier = dense.layers[-1].macs
    assert classifier == 2048 * 200
    ratio = (dense.macs - classifier) / (sparse.effective_macs - classifier)
    assert f"{ratio:.3f}" == "5.835"


@pytest.mark.parametrize("pattern", ["pSC2", "PS2_P6", "PSD1_P8"])
def test_cut_of_resnet18_with_two_taps(pattern: str) -> None:
    """Abstract of 2019: up to 4.24x fewer parameters. All of them, classifier and batch norm too.

    4.249 is 4.24 cut off, not rounded. The weights of the convolutions alone would give 4.267.
    """
    dense, sparse = load_network("resnet18"), load_network("resnet18", pattern=pattern)
    ratio = dense.parameters / sparse.parameters
    assert f"{ratio:.3f}" == "4.249"
    assert int(100 * ratio) == 424
    assert f"{conv_weights(dense) / conv_weights(sparse):.3f}" == "4.267"


# --- storage --------------------------------------------------------------------------------------

BITS = 16

VGG16 = [(3, 64, 9), (64, 64, 9), (64, 128, 9), (128, 128, 9), (128, 256, 9), *[(256, 256, 9)] * 2,
         (256, 512, 9), *[(512, 512, 9)] * 5]  # fmt: skip
"""Input channels, filters and taps of every convolution."""

RESNET18 = [(3, 64, 9), *[(64, 64, 9)] * 4]
for _into, _out in ((64, 128), (128, 256), (256, 512)):
    RESNET18 += [(_into, _out, 9), *[(_out, _out, 9)] * 3, (_into, _out, 1)]

SPARSE = [name for name, pattern in PATTERNS.items() if not (pattern.dense or pattern.random)]


def ceil_log2(count: int) -> int:
    bits = 0
    while 2**bits < count:
        bits += 1
    return bits


def taps_per_period(name: str) -> tuple[int, int]:
    """(P, taps per period) from the name alone: PSDn_Pp has (P - 1) n + 9, PSn_Pp has P n."""
    kind, period = name.split("_P")
    size, taps = int(period), int(kind[-1])
    return size, (size - 1) * taps + 9 if "D" in kind else size * taps


def by_formula(layers: list[tuple[int, int, int]], name: str) -> dict[str, int]:
    """Bits of all convolutions by the formulas, the first and 1x1 ones stored dense.

    With N live weights, C input channels, K filters and n_P taps per period: CSR has N indices of
    c(9 C) bits and K + 1 starts of c(N + 1) bits, c(x) = ceil(log2(x)); a periodic format has one
    table a layer, which as CSR takes n_P c(9 P) + (P + 1) c(n_P + 1) bits and as a bitmap 9 P.
    """
    period, live = taps_per_period(name)
    totals = {"csr": 0, "periodic csr": 0, "periodic": 0}
    for index, (into, out, taps) in enumerate(layers):
        if index == 0 or taps == 1:
            totals = {key: bits + BITS * into * out * taps for key, bits in totals.items()}
            continue
        count = Fraction(live, period) * into * out
        weights = int(count)
        assert weights == count
        totals["csr"] += BITS * weights + weights * ceil_log2(9 * into)
        totals["csr"] += (out + 1) * ceil_log2(weights + 1)
        totals["periodic csr"] += BITS * weights + live * ceil_log2(9 * period)
        totals["periodic csr"] += (period + 1) * ceil_log2(live + 1)
        totals["periodic"] += BITS * weights + 9 * period
    return totals


def stored(network: Network, form: str) -> int:
    return sum(
        FORMATS["dense" if layer.pattern == "dense" else form](layer.mask, BITS).total
        for layer in network.layers
        if layer.kind is LayerKind.CONV
    )


@pytest.mark.parametrize("pattern", SPARSE)
@pytest.mark.parametrize(("name", "layers"), [("vgg16", VGG16), ("resnet18", RESNET18)])
def test_storage_equals_the_formulas_to_the_bit(
    name: str, layers: list[tuple[int, int, int]], pattern: str
) -> None:
    network = load_network(name, pattern=pattern)
    expected = by_formula(layers, pattern)
    assert stored(network, "csr") == expected["csr"]
    assert stored(network, "periodic") == expected["periodic"]


@pytest.mark.parametrize(("name", "bits"), [("vgg16", 235_367_424), ("resnet18", 178_547_712)])
def test_dense_storage_to_the_bit(name: str, bits: int) -> None:
    assert stored(load_network(name), "dense") == bits == BITS * conv_weights(load_network(name))


def test_the_index_of_one_period_is_next_to_nothing() -> None:
    """1200 to 10736 bits for a network as CSR of a period (ours as bitmap: 432 to 2304).

    CSR of all weights takes 15 to 97 Mbit, so that the periodic form is 41 to 44 % smaller in all.
    """
    periods, bitmaps, rows, cuts = [], [], [], []
    for name, layers in (("vgg16", VGG16), ("resnet18", RESNET18)):
        for pattern in SPARSE:
            network = load_network(name, pattern=pattern)
            values = BITS * conv_weights(network)
            totals = by_formula(layers, pattern)
            periods.append(totals["periodic csr"] - values)
            bitmaps.append(stored(network, "periodic") - values)
            rows.append(stored(network, "csr") - values)
            cuts.append(1 - totals["periodic csr"] / stored(network, "csr"))
    assert (min(periods), max(periods)) == (1200, 10_736)
    assert (min(bitmaps), max(bitmaps)) == (432, 2304)
    assert (min(rows), max(rows)) == (15_369_341, 96_508_709)
    assert (f"{min(cuts):.2f}", f"{max(cuts):.2f}") == ("0.41", "0.44")
