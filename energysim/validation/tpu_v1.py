"""TPU v1: throughput that its bandwidth allows, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import inf, prod, sqrt

from energysim.axes import Shape
from energysim.catalog import load_hardware
from energysim.hardware import Hardware
from energysim.model.systolic import systolic
from energysim.network import Network, NetworkSpec, build_network
from energysim.result import Result
from energysim.simulate import simulate
from energysim.units import BITS_PER_BYTE
from energysim.validation.check import Check, Study, between, exact, shown, within
from energysim.validation.data import read_rows

OPERATIONS = 2
"""of a multiply-accumulate, a multiplication and an addition"""

MATRIX = 600
"""Rows and columns of the matrix of LSTM1 that section 7 takes as its example."""

REPEATS = 20
"""Matrices of the example run one after the other, so that the image's way in and out is small."""

BELOW_ROOF = (
    "each of our layers waits for its first tile of weights, and inputs and outputs share the "
    "bandwidth; the chip's stalls by dependences, PCIe and the host, which we do not model, are "
    "the likely rest"
)
WHY_LSTM = {
    "LSTM0": "the counters show a matrix unit that is active twice as long as the operations need,"
    " likely for activations of 16 bits, which halve the speed: a guess, the paper does not say so,"
    " nor the shapes of layers",
    "LSTM1": "tiles of its matrices are partly empty (4.2 of 10.5 % of the active time hold no "
    "useful weight) and the chip loads them whole: likely a large part of it, but layer shapes are "
    "unpublished",
}
ACTIVE = (
    "ours: operations over peak. The paper says that its counters and its TOPS are not consistent; "
    "LSTMs are likely active for longer as activations have 16 bits or tiles are partly empty: a "
    "guess"
)
WAITING = (
    "ours: all time that is not computing; theirs: stalled for weights or shifting them in. The "
    "rest of their time, 10 to 32 %, are dependences, PCIe and vectors, which are not modelled"
)
NO_LAYERS = "the layers of this network are unpublished: ours is the lower of its two roofs"


def _tera_ops(per_s: float) -> float:
    return OPERATIONS * per_s / 1e12


def _peak(hardware: Hardware) -> float:
    """Return the operations of a full array [10^12/s]."""
    return _tera_ops(prod(hardware.axis_sizes) * hardware.clock_mhz * 1e6)


def _bytes_per_s(hardware: Hardware) -> float:
    bits = hardware.levels[0].bandwidth_bits_per_cycle or inf
    return bits * hardware.clock_mhz * 1e6 / BITS_PER_BYTE


def _roof(hardware: Hardware, intensity: float) -> float:
    """Return what the bandwidth allows at some multiply-accumulates a byte of weights [10^12/s]."""
    return _tera_ops(intensity * _bytes_per_s(hardware))


def _linear(name: str, side: int, count: int) -> Network:
    """Return square matrices, one after the other."""
    layers = [{"name": f"fc{i}", "kind": "linear", "out": side} for i in range(count)]
    plain = {"name": name, "source": "square layers", "input": [side, 1, 1], "layers": layers}
    spec = NetworkSpec.model_validate_json(json.dumps(plain))
    return build_network(spec, None, lambda base: _linear(base, side, count))


def _run(hardware: Hardware, row: Mapping[str, str]) -> Result:
    """Run as many square matrices as there are, with all its weights."""
    count = int(row["matrices"])
    side = round(sqrt(float(row["weights_million"]) * 1e6 / count))
    network = _linear(row["app"], side, count)
    return simulate(network, hardware, batch=int(row["batch"]), objective="latency")


def _matrices(hardware: Hardware, row: Mapping[str, str]) -> Iterator[Check]:
    """Yield the checks of an application of fully connected layers."""
    app, measured = row["app"], float(row["tera_ops"])
    roof, result = _roof(hardware, float(row["ops_per_weight_byte"])), _run(hardware, row)
    seconds = result.total_time_ms / 1e3
    ours = _tera_ops(result.total_macs / seconds)
    reason = "; ".join(filter(None, (BELOW_ROOF, WHY_LSTM.get(app))))
    yield between(
        app,
        "bandwidth roof",
        measured,
        roof,
        low=measured,
        high=inf,
        unit="TOPS",
        reason="the file's bandwidth times the paper's operations for each byte of weights",
    )
    yield between(
        app, "throughput", measured, ours, low=measured, high=roof, unit="TOPS", reason=reason
    )
    busy = 100 * ours / _peak(hardware)
    theirs = float(row["active_percent"])
    yield shown(app, "array active", theirs, busy, unit="% of time", reason=ACTIVE)
    waiting = float(row["weight_stall_percent"]) + float(row["weight_shift_percent"])
    yield shown(app, "waiting for weights", waiting, 100 - busy, unit="% of time", reason=WAITING)


def _example(hardware: Hardware, batch: int) -> Iterator[Check]:
    """Yield the checks of section 7: one matrix of LSTM1 takes 9 steps and 18 us."""
    what = f"{MATRIX}x{MATRIX} matrix"
    rows, cols = hardware.axis_sizes
    layer = Shape((batch, 1, MATRIX, MATRIX, 1, 1, 1, 1), size=(1, 1))
    folds = systolic(layer, rows, cols, "weight_stationary").folds
    yield exact(what, "tiles of weights", 9, folds)
    whole = _linear("example", -(-MATRIX // rows) * rows, REPEATS)
    result = simulate(whole, hardware, batch=batch, objective="latency")
    yield within(
        what,
        "time",
        18,
        1e3 * result.total_time_ms / REPEATS,
        low=-0.1,
        high=0.1,
        unit="us",
        reason="tiles are loaded whole, as on the chip; ours waits for the first of each matrix",
    )


def _checks() -> Iterator[Check]:
    hardware, rows = load_hardware("tpu_v1"), read_rows("tpu_v1.csv")
    peak = _peak(hardware)
    yield between("TPU", "peak", 92, peak, low=91.5, high=92.5, unit="TOPS")
    ridge = peak * 1e12 / OPERATIONS / _bytes_per_s(hardware)
    yield between("TPU", "ridge", 1350, ridge, low=1345, high=1355, unit="MACs/byte")
    for row in rows:
        if row["matrices"]:
            yield from _matrices(hardware, row)
        else:
            roof = min(peak, _roof(hardware, float(row["ops_per_weight_byte"])))
            measured = float(row["tera_ops"])
            yield shown(row["app"], "throughput", measured, roof, unit="TOPS", reason=NO_LAYERS)
    (lstm1,) = (row for row in rows if row["app"] == "LSTM1")
    yield from _example(hardware, int(lstm1["batch"]))


STUDIES = (
    Study(
        name="tpu_v1",
        title="TPU v1, throughput under its bandwidth",
        kind="silicon",
        source="Jouppi et al., ISCA 2017, tables 1 to 3 and section 7",
        method=(
            "`hw_configs/tpu_v1.yaml`, fastest mappings. MLPs and LSTMs as square matrices of "
            "equal size with the published weights and batch: their throughput must be at least "
            "what was measured and at most what 34 GB/s allow. Into how many matrices the weights "
            "are split hardly matters."
        ),
        compute=_checks,
    ),
)
