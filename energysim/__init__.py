"""What a CNN costs on an embedded accelerator, layer by layer.

Examples
--------
>>> import energysim as es
>>> r = es.simulate(es.load_network("vgg16"), es.load_hardware("edge_tpu"))
>>> r.layers["macs"].sum() == r.total_macs
np.True_
"""

from energysim.catalog import load_hardware, load_network
from energysim.result import VERSION, Result
from energysim.simulate import simulate

__version__ = VERSION

__all__ = ["Result", "__version__", "load_hardware", "load_network", "simulate"]
