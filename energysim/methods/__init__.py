"""Ways to make a network cheap, side by side: trained alike, counted by one model."""

from energysim.methods.compared import (
    AXES,
    Axis,
    Comparison,
    Figures,
    Panel,
    Point,
    compare_trained,
)
from energysim.methods.named import (
    GROUPS,
    PERIODIC,
    Family,
    Method,
    known,
    methods_named,
    narrowed,
)
from energysim.methods.trained import (
    Failed,
    Setting,
    Trained,
    by_method,
    network_of,
    train_all,
)

__all__ = [
    "AXES",
    "GROUPS",
    "PERIODIC",
    "Axis",
    "Comparison",
    "Failed",
    "Family",
    "Figures",
    "Method",
    "Panel",
    "Point",
    "Setting",
    "Trained",
    "by_method",
    "compare_trained",
    "known",
    "methods_named",
    "narrowed",
    "network_of",
    "train_all",
]
