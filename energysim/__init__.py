"""What a CNN costs on an embedded accelerator, layer by layer.

Examples
--------
>>> import energysim as es
>>> r = es.simulate(es.load_network("vgg16"), es.load_hardware("edge_tpu"))
>>> r.layers["macs"].sum() == r.total_macs
np.True_
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from energysim.activations import Activations, Density, load_activations
from energysim.catalog import load_hardware, load_network
from energysim.compare import compare
from energysim.result import Result
from energysim.simulate import simulate
from energysim.uncertainty import uncertainty
from energysim.version import VERSION

if TYPE_CHECKING:
    from energysim.sweeps import sweep
    from energysim.tradeoff import trade

__version__ = VERSION

__all__ = [
    "Activations",
    "Density",
    "Result",
    "__version__",
    "compare",
    "load_activations",
    "load_hardware",
    "load_network",
    "simulate",
    "sweep",
    "trade",
    "uncertainty",
]


def __getattr__(name: str) -> Any:
    """Import what needs numpy when it is asked for, so that small commands start fast."""
    if name == "trade":
        from energysim.tradeoff import trade

        return trade
    if name == "sweep":
        from energysim.sweeps import sweep

        return sweep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
