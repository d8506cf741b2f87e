"""Accuracies that others have published, as data with their source and how well they are known."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

SOURCE = (
    "S. Kundu, M. Nazemi, M. Pedram, K. M. Chugg, P. A. Beerel, Pre-defined Sparsity for"
    " Low-Complexity Convolutional Neural Networks, IEEE Trans. Computers 69(7), 2020: the figures"
    " of accuracy in github.com/ksouvik52/Pre-defined-sparseCNN, read by eye"
)
"""Where the values come from."""

READING_ERROR = 0.05
"""How well a value could be read off the figures, either way [%]."""

READING_ERROR_MACS = 0.01
"""The same of their multiply-accumulates, as a share."""


@dataclass(frozen=True, slots=True)
class Published:
    """Accuracy of a network with a pattern, read off a figure of the source paper.

    It is the best of all epochs on the test images, of one run as far as is told.
    """

    network: str
    """as in ``energysim list nets``"""
    dataset: str
    """``CIFAR-10`` or ``Tiny ImageNet``"""
    pattern: str
    """as in ``energysim list patterns``; ``dense`` for pSC9"""
    metric: str
    """``top1``, or ``top5`` for Tiny ImageNet (``top1`` for MobileNetV2 and ShuffleNet)"""
    percent: float
    gmacs: float
    """multiply-accumulates of non-zero weights [G]"""


@cache
def published() -> tuple[Published, ...]:
    """All 13 patterns on two networks and two data sets, and what the paper compares them with.

    Which ShuffleNet that is, the paper doesn't tell: ``shufflenet_v2`` (1.5x) comes nearest to its
    cost.

    Returns
    -------
    tuple of Published

    References
    ----------
    See :data:`SOURCE`; :data:`READING_ERROR` says how well they could be read.

    Examples
    --------
    >>> rows = published()
    >>> len(rows), rows[0].network, rows[0].pattern, rows[0].percent
    (56, 'vgg16', 'dense', 92.76)
    """
    text = files("energysim.accuracy").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(
        Published(
            row["network"],
            row["dataset"],
            row["pattern"],
            row["metric"],
            float(row["accuracy_percent"]),
            float(row["gmacs"]),
        )
        for row in csv.DictReader(text.splitlines())
    )
