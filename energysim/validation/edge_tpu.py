"""Edge TPU: time of one inference as its vendor measured it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from energysim.catalog import find, load_hardware
from energysim.hardware import Hardware
from energysim.network import Network, NetworkSpec, build_network
from energysim.simulate import simulate
from energysim.units import BITS_PER_BYTE
from energysim.validation.check import Check, Study, between, shown
from energysim.validation.data import read_rows
from energysim.validation.variant import variant
from energysim.yamlio import load_model

LINK_BYTES_PER_S = 500e6
"""USB 3.0 (5 Gbit/s) and one lane of PCIe 2.0 (5 GT/s), both less their 8b/10b code [byte/s]."""

OTHER_VERSION = "squeezenet"
"""The network of which the vendor doesn't say the version, where versions differ most."""

LEAST_CORRELATION = 0.8

SMALL = (
    "weights stay on chip. The chip's inside is unpublished: array, clock, memory and mapping are "
    "assumed; driver and host are not modelled"
)
STREAMED = (
    "weights come over the link in every inference. The vendor's compiler keeps a part of them on "
    "chip, ours keeps all or none; how fast the link really is depends on the host"
)
LINK_ONLY = (
    "a lower bound, no simulation: weights beyond the memory on chip over the full speed of the "
    "link. It holds for any chip behind this link"
)
REASONS = {
    "squeezenet": "ours is version 1.0. The vendor does not say which theirs is; 1.1 has 2.4 times "
    "fewer multiply-accumulates. " + SMALL,
    "densenet121": "the vendor does not say how deep theirs is. The weights are as large as the "
    "memory: those that it keeps and what activations need decide. " + STREAMED,
}


@dataclass(frozen=True, slots=True)
class Timing:
    """One network, theirs and ours."""

    network: str
    what: str
    measured_ms: float
    ours_ms: float
    weight_bytes: float
    """of all weights"""


def _hardware() -> Hardware:
    """Return the bundled chip behind the link of the products that were measured.

    The bundled file has the memory of Boroumand et al. The products have none: what does not fit on
    chip crosses USB or PCIe. Sums stay in the accumulators until they are complete, since weights
    that stay on chip are walked more than once.
    """
    chip = load_hardware("edge_tpu")
    width = LINK_BYTES_PER_S * BITS_PER_BYTE / (chip.clock_mhz * 1e6)
    return variant(
        chip,
        levels={"DRAM": {"bandwidth_bits_per_cycle": width}},
        dataflow="custom",
        stationary="output",
    )


def _network(name: str, pixels: int) -> Network:
    """Load a bundled network and give it square images of another size."""
    spec, source = load_model(find("nets", name).path, NetworkSpec)
    sized = spec.model_copy(update={"input": (3, pixels, pixels)})
    return build_network(sized, source, lambda base: _network(base, pixels))


def _timing(row: Mapping[str, str], hardware: Hardware) -> Timing:
    # Trip counts that divide: within a few percent of all of them, in a fraction of the search.
    result = simulate(
        _network(row["network"], int(row["pixels"])),
        hardware,
        objective="latency",
        perfect=True,
        uneven=False,
    )
    weights = sum(layer.weight_bits for layer in result.layer_rows) / BITS_PER_BYTE
    what = f"{row['model']}, {row['pixels']}x{row['pixels']}"
    return Timing(row["network"], what, float(row["usb_ms"]), result.total_time_ms, weights)


def _ranks(values: Sequence[float]) -> list[int]:
    """Place of each value in ascending order; no two are equal."""
    order = sorted(values)
    return [order.index(value) for value in values]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation of values without ties.

    Examples
    --------
    >>> rank_correlation([1, 2, 3], [10, 30, 20])
    0.5
    """
    count = len(first)
    apart = sum((a - b) ** 2 for a, b in zip(_ranks(first), _ranks(second), strict=True))
    return 1 - 6 * apart / (count * (count**2 - 1))


def _correlation(timings: Sequence[Timing]) -> float:
    return rank_correlation([t.measured_ms for t in timings], [t.ours_ms for t in timings])


def _checks() -> Iterator[Check]:
    hardware = _hardware()
    timings = [_timing(row, hardware) for row in read_rows("edge_tpu.csv")]
    capacity_bits = hardware.levels[1].capacity_bits()
    if not isinstance(capacity_bits, int):
        raise TypeError("the chip has one memory for all tensors")  # as its file says
    capacity = capacity_bits / BITS_PER_BYTE
    for timing in timings:
        excess = timing.weight_bytes - capacity
        reason = REASONS.get(timing.network, STREAMED if excess > 0 else SMALL)
        yield shown(
            timing.what, "time", timing.measured_ms, timing.ours_ms, unit="ms", reason=reason
        )
        if excess > 0:
            link_ms = 1e3 * excess / LINK_BYTES_PER_S
            yield shown(
                timing.what, "link time", timing.measured_ms, link_ms, unit="ms", reason=LINK_ONLY
            )
    yield between(
        f"all {len(timings)} networks",
        "rank correlation",
        1.0,
        _correlation(timings),
        low=LEAST_CORRELATION,
        high=1.0,
        reason="with SqueezeNet as version 1.0, though the vendor does not say which theirs is",
    )
    others = [timing for timing in timings if timing.network != OTHER_VERSION]
    yield shown(
        f"{len(others)} networks",
        "rank correlation",
        1.0,
        _correlation(others),
        reason="without SqueezeNet: left out after seeing that it is the one out of order",
    )


STUDIES = (
    Study(
        name="edge_tpu",
        title="Edge TPU, time of an inference",
        kind="silicon",
        source="coral.ai, Edge TPU performance benchmarks, table 1 (USB Accelerator)",
        method=(
            "`hw_configs/edge_tpu.yaml` behind 500 MB/s, what USB 3.0 and a lane of PCIe 2.0 "
            "carry, fastest mappings with trip counts that divide, sums in the accumulators until "
            "they are complete. That is another machine than the bundled file describes, which has"
            " a DRAM at 32 GB/s: its own times are not compared with anything here. The chip is a "
            "black box, so the order of the networks is all that is claimed. Of SqueezeNet and "
            "DenseNet the vendor does not say the version; ours are 1.0 and 121. Without "
            "SqueezeNet the order is the same."
        ),
        compute=_checks,
    ),
)
