"""Networks: what a user writes (a table of layers, or a base and a pattern) and what it means.

A :class:`NetworkSpec` is the file, field by field; :func:`build_network` infers every shape, checks
that the layers fit together and returns a :class:`Network`.
"""

from energysim.network.build import build_network
from energysim.network.norm import Mixture, Of, Operations, Work, operations, statistics_words
from energysim.network.report import Location, Positions
from energysim.network.scale import Scale
from energysim.network.spec import (
    LIMIT,
    NAME_PATTERN,
    AddSpec,
    ConvSpec,
    DepthwiseSpec,
    LayerSpec,
    LinearSpec,
    MatmulSpec,
    MixtureNormSpec,
    MultiplySpec,
    NetworkSpec,
    NormSpec,
    PatternSpec,
    PoolSpec,
    ShuffleSpec,
    SoftmaxSpec,
    TransposedSpec,
)
from energysim.network.types import (
    NETWORK_INPUT,
    WEIGHTED,
    Activation,
    Layer,
    LayerKind,
    MixtureLayer,
    Network,
    Over,
    Pair,
    PoolMode,
    Shuffle,
    Volume,
    check_layer,
)

__all__ = [
    "LIMIT",
    "NAME_PATTERN",
    "NETWORK_INPUT",
    "WEIGHTED",
    "Activation",
    "AddSpec",
    "ConvSpec",
    "DepthwiseSpec",
    "Layer",
    "LayerKind",
    "LayerSpec",
    "LinearSpec",
    "Location",
    "MatmulSpec",
    "Mixture",
    "MixtureLayer",
    "MixtureNormSpec",
    "MultiplySpec",
    "Network",
    "NetworkSpec",
    "NormSpec",
    "Of",
    "Operations",
    "Over",
    "Pair",
    "PatternSpec",
    "PoolMode",
    "PoolSpec",
    "Positions",
    "Scale",
    "Shuffle",
    "ShuffleSpec",
    "SoftmaxSpec",
    "TransposedSpec",
    "Volume",
    "Work",
    "build_network",
    "check_layer",
    "operations",
    "statistics_words",
]
