"""Networks of low rank: three small convolutions in place of a large one (Tucker-2)."""

from energysim.lowrank.tucker import (
    CORE,
    REDUCE,
    Chain,
    Factors,
    Ranks,
    factorable,
    map_words,
    singular_values,
    tucker2,
    with_ranks,
)

__all__ = [
    "CORE",
    "REDUCE",
    "Chain",
    "Factors",
    "Ranks",
    "factorable",
    "map_words",
    "singular_values",
    "tucker2",
    "with_ranks",
]
