"""Images with labels for the trainer: bundled, drawn, or from what lies on disk."""

from energysim.train.data.augment import (
    UNCHANGED,
    Augmentation,
    Batch,
    Fill,
    batches,
    in_order,
)
from energysim.train.data.bundled import digits
from energysim.train.data.dataset import Dataset, Split
from energysim.train.data.load import BUNDLED, LAYOUTS, load
from energysim.train.data.pictures import SizesError
from energysim.train.data.shapes import shapes

__all__ = [
    "BUNDLED",
    "LAYOUTS",
    "UNCHANGED",
    "Augmentation",
    "Batch",
    "Dataset",
    "Fill",
    "SizesError",
    "Split",
    "batches",
    "digits",
    "in_order",
    "load",
    "shapes",
]
