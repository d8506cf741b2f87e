"""Published accuracies: complete, and of the networks that go by their names."""

from __future__ import annotations

from collections import Counter

import pytest

from energysim.accuracy import READING_ERROR, Published, published
from energysim.pareto import MACS_TOLERANCE, load_accuracies, network_named
from energysim.sparsity import PATTERNS

BIG, SMALL = ("vgg16", "resnet18"), ("mobilenet_v2", "shufflenet_v2")


def test_every_pattern_on_both_networks_and_data_sets() -> None:
    rows = published()
    counted = Counter((row.network, row.dataset) for row in rows)
    datasets = ("CIFAR-10", "Tiny ImageNet")
    assert counted == {
        **{(network, dataset): 13 for network in BIG for dataset in datasets},
        **{(network, dataset): 1 for network in SMALL for dataset in datasets},
    }
    assert len({(row.network, row.dataset, row.pattern) for row in rows}) == len(rows)
    for network in BIG:
        for dataset in datasets:
            own = [row.pattern for row in rows if (row.network, row.dataset) == (network, dataset)]
            assert sorted(own) == sorted(PATTERNS)


def test_fully_dense_kernels_win_back_accuracy() -> None:
    def of(network: str, pattern: str) -> float:
        (row,) = [row for row in published() if row.dataset == "CIFAR-10"
                  and (row.network, row.pattern) == (network, pattern)]  # fmt: skip
        return row.percent

    for network in BIG:
        assert of(network, "PSD4_P8") > of(network, "dense") - 0.3
        assert of(network, "PSD1_P8") > of(network, "PS1_P9") + 2
    assert 0 < READING_ERROR < 0.1


@pytest.mark.parametrize("row", published(), ids=lambda r: f"{r.network}-{r.dataset}-{r.pattern}")
def test_networks_are_those_of_the_paper(row: Published) -> None:
    found = load_accuracies("published", dataset=row.dataset, metric=row.metric)
    (own,) = [
        each for each in found.rows if (each.also, each.pattern) == (row.network, row.pattern)
    ]
    assert (own.percent, own.either_way) == (row.percent, READING_ERROR)
    network = network_named(own.network).with_pattern(row.pattern)
    assert network.effective_macs == pytest.approx(row.gmacs * 1e9, rel=MACS_TOLERANCE)
    assert network.layers[-1].output[0] == {"CIFAR-10": 10, "Tiny ImageNet": 200}[row.dataset]
    if row.network in BIG and row.pattern == "dense":
        assert network.effective_macs == pytest.approx(row.gmacs * 1e9, rel=0.007)
