"""The bundled networks: parameters and multiply-accumulates as others have published them."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from energysim.catalog import load_network
from energysim.network import Network
from energysim.validation.check import Check, Study
from energysim.validation.data import read_rows

UNITS = {"k": 10**3, "M": 10**6, "G": 10**9}

WORDS = {"parameters": "parameters", "macs": "MACs"}

VIT = "vit_b_16"
"""Published as a whole; bundled is one of its encoder blocks, which are all equal."""

VIT_BLOCKS = 12


class Totals(NamedTuple):
    """Of a whole network."""

    parameters: int
    macs: int


class Published(NamedTuple):
    """A number as printed, and between which others are rounded to it."""

    value: float
    low: float
    high: float


def parse_published(text: str) -> Published:
    """Read a number such as ``1.498G``.

    Examples
    --------
    >>> parse_published("4.2M")
    Published(value=4200000.0, low=4150000.0, high=4250000.0)
    """
    unit = UNITS.get(text[-1], 1)
    figure = Decimal(text.rstrip("kMG"))
    half = Decimal(1).scaleb(int(figure.as_tuple().exponent)) / 2
    return Published(*(float(each * unit) for each in (figure, figure - half, figure + half)))


def whole_vit(block: Network) -> Totals:
    """Totals of ViT-B/16: patches, class token, positions, blocks, norm and head."""
    width, tokens, _ = block.input_size
    patch, classes = 3 * 16 * 16, 1000
    parameters = (patch + 1) * width + width + tokens * width + VIT_BLOCKS * block.parameters
    parameters += 2 * width + (width + 1) * classes
    macs = (tokens - 1) * patch * width + VIT_BLOCKS * block.macs + width * classes
    return Totals(parameters, macs)


def totals(name: str) -> Totals:
    """Totals of a network by its name in the file of published ones."""
    if name == VIT:
        return whole_vit(load_network(f"{VIT}_block"))
    network = load_network(name)
    return Totals(network.parameters, network.macs)


def _checks() -> Iterator[Check]:
    for row in read_rows("networks.csv"):
        for quantity, ours in totals(row["network"])._asdict().items():
            if row[quantity]:
                value, low, high = parse_published(row[quantity])
                yield Check(
                    row["network"], WORDS[quantity], value, ours, "", low, high, "rounds to theirs",
                    row["source"],
                )  # fmt: skip


STUDIES = (
    Study(
        name="networks",
        title="The bundled networks, parameters and MACs",
        kind="paper",
        source="papers, torchvision, Keras: named with each number",
        method=(
            "Parameters with biases, two for each channel of a batch norm and the classifier; "
            "multiply-accumulates without biases, norms, activations and pools. Ours must round to"
            " what is printed. Of ViT-B/16, published as a whole, one block is bundled: what stands"
            " around twelve of them is added. The last column says who printed the number."
        ),
        compute=_checks,
    ),
)
