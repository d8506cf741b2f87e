"""The reference trainer in NumPy: accuracy of the networks and masks whose costs are counted.

It reads the same networks and the same masks as the cost model and knows nothing else of it.

Examples
--------
>>> import energysim as es
>>> from energysim.train import Job, Recipe, load_images, train
>>> net = es.load_network("digits_cnn", pattern="PS4_P4")
>>> outcome = train(Job(net, load_images("digits"), Recipe(epochs=1), seed=0))
>>> outcome.row["pattern"], 0 < outcome.row["top1"] < 1
('PS4_P4', True)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from energysim.train.attacked import accuracy_under_attack
    from energysim.train.attacks import Attack
    from energysim.train.data import Dataset
    from energysim.train.data import load as load_images
    from energysim.train.grid import Attempt, run_all, summary
    from energysim.train.job import Job
    from energysim.train.recipe import RECIPES, Adversarial, Recipe, Rewire
    from energysim.train.record import Outcome
    from energysim.train.run import train

_PLACES = {
    "Adversarial": ("recipe", "Adversarial"),
    "Attack": ("attacks", "Attack"),
    "Attempt": ("grid", "Attempt"),
    "Dataset": ("data", "Dataset"),
    "Job": ("job", "Job"),
    "Outcome": ("record", "Outcome"),
    "RECIPES": ("recipe", "RECIPES"),
    "Recipe": ("recipe", "Recipe"),
    "Rewire": ("recipe", "Rewire"),
    "accuracy_under_attack": ("attacked", "accuracy_under_attack"),
    "load_images": ("data", "load"),
    "run_all": ("grid", "run_all"),
    "summary": ("grid", "summary"),
    "train": ("run", "train"),
}

__all__ = [
    "RECIPES",
    "Adversarial",
    "Attack",
    "Attempt",
    "Dataset",
    "Job",
    "Outcome",
    "Recipe",
    "Rewire",
    "accuracy_under_attack",
    "load_images",
    "run_all",
    "summary",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for: the parts of the trainer import each other by this package."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own = _PLACES[name]
    return getattr(import_module(f"{__name__}.{module}"), own)
