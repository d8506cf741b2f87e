"""Images with labels for the trainer: bundled, drawn, or from what lies on disk."""

from energysim.train.data.augment import (
    UNCHANGED,
    Augmentation,
    Batch,
    Fill,
    batches,
    in_order,
)
from energysim.train.data.dataset import Dataset, Split

__all__ = [
    "UNCHANGED",
    "Augmentation",
    "Batch",
    "Dataset",
    "Fill",
    "Split",
    "batches",
    "in_order",
]
