"""How a network is trained: everything that decides the result but network, images and seed."""

from __future__ import annotations

from enum import StrEnum
from math import cos, pi
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from energysim.train.data import UNCHANGED, Augmentation, Dataset, Fill
from energysim.train.optimiser import Method, Optimiser
from energysim.train.parameters import Init, scale_of
from energysim.train.rewire import Decline, Mode

COLOURS = 3

RISE = 0.2
"""Share of the steps of a triangle in which the learning rate rises."""

PATIENCE = 4
"""Epochs without a better loss before a plateau ends, as in the authors' code."""


class Schedule(StrEnum):
    """How the learning rate changes."""

    CONSTANT = "constant"
    MULTISTEP = "multistep"
    """times ``factor`` at each of the ``milestones``"""
    PLATEAU = "plateau"
    """times ``factor`` when the loss has not become smaller for ``patience`` epochs"""
    COSINE = "cosine"
    """from ``lr`` to 0 along half a cosine (Loshchilov, Hutter, ICLR 2017)"""
    TRIANGLE = "triangle"
    """up to ``lr`` over the first fifth of all steps, then down to 0: for few epochs"""


class Augment(StrEnum):
    """How training images are changed at random."""

    AUTO = "auto"
    """crop and flip colour images, leave grey ones (digits, letters) as they are"""
    NONE = "none"
    CROP = "crop"
    CROP_FLIP = "crop+flip"


Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Rewire(BaseModel):
    """Sparse from the first step on: dynamic network rewiring moves the live weights."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )

    mode: Annotated[Mode, Field(strict=False)] = Mode.IRREGULAR
    """what is pruned and grows: ``irregular``, single weights, or ``channel``, all weights that
    read an input channel"""
    density: Annotated[float, Field(gt=0, le=1)] = 0.1
    """share of the weights that are live, in every layer at first and in all layers together ever
    after"""
    share: Share = 0.5
    """of the live weights of each layer that is pruned between two epochs, at first"""
    decline: Annotated[Decline, Field(strict=False)] = Decline.LINEAR
    """how that share goes to 0 at the end: ``linear`` or ``cosine``"""
    rho: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    """strength of the dynamic L2 penalty, rho / 2 times the squared distance of the live weights
    from what they were after the last rewiring; 0 = none"""


class Adversarial(BaseModel):
    """Learn from images and from what PGD makes of them, at once."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )

    radius: Annotated[float, Field(gt=0, le=1)]
    """largest change of a pixel, as a share of its range"""
    steps: Count = 7
    """of PGD, from a random point of the ball"""
    length: Annotated[float, Field(gt=0, le=1)] | None = None
    """of a step, as a share of a pixel's range; by default 2.5 radii in all"""
    clean_share: Share = 0.5
    """of the loss that is of images as they are; the rest is of changed ones"""


class Recipe(BaseModel):
    """A recipe file (YAML), or the options of the command; every field has a default."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )

    epochs: Count = 20
    """passes over the training images"""
    batch: Count = 64
    """images of a step"""
    shards: Count = 2
    """parts that a batch is cut into: each is computed by one core and normalised by itself. It
    changes the result a little; the number of cores doesn't"""
    optimiser: Annotated[Method, Field(strict=False)] = Method.SGD
    """``sgd`` or ``adam``"""
    lr: Positive = 0.1
    """largest learning rate"""
    momentum: Share = 0.9
    """of SGD"""
    nesterov: bool = True
    """of SGD"""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    """share of each weight that is added to its gradient"""
    decay_all: bool = False
    """decay biases and the parameters of norms too"""
    schedule: Annotated[Schedule, Field(strict=False)] = Schedule.TRIANGLE
    """how the learning rate changes: constant, multistep, plateau, cosine or triangle"""
    milestones: tuple[Count, ...] = ()
    """of multistep: finished epochs after which the learning rate gets smaller"""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """of multistep and plateau"""
    patience: Count = PATIENCE
    """of plateau [epoch]"""
    warmup: Annotated[int, Field(ge=0)] = 0
    """epochs in which the learning rate rises from 0, times what the schedule says"""
    smoothing: Share = 0.0
    """label smoothing"""
    init: Annotated[Init, Field(strict=False)] = Init.HE
    """of weights: ``he`` or ``xavier``"""
    gamma: Positive | None = None
    """that batch and mixture norms scale by at first; by default 1, with xavier 0.5"""
    augment: Annotated[Augment, Field(strict=False)] = Augment.AUTO
    """auto, none, crop or crop+flip"""
    padding: Annotated[int, Field(ge=0, le=64)] = 4
    """of crops, on each side [pixel]"""
    fill: Annotated[Fill, Field(strict=False)] = Fill.ZERO
    """what crops show beyond the edge: ``zero`` or ``reflect``"""
    validation: Share = 0.0
    """share of the training images held out, to choose by"""
    stop_after: Annotated[int, Field(ge=0)] = 0
    """stop when the loss on held out images has not become smaller for so many epochs; 0 = never"""
    rewire: Rewire | None = None
    """train a sparse network whose live weights move"""
    adversarial: Adversarial | None = None
    """learn from changed images too"""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.stop_after and not self.validation:
            raise ValueError(
                "stop_after needs images held out to look at: give validation, such as 0.1"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, got {list(self.milestones)}")
        if self.schedule is Schedule.MULTISTEP and not self.milestones:
            raise ValueError(
                "schedule: multistep needs milestones, the epochs after which the learning rate"
                " gets smaller"
            )
        if self.milestones and self.schedule is not Schedule.MULTISTEP:
            raise ValueError(f"milestones belong to schedule: multistep, got {self.schedule}")
        if self.shards > self.batch:
            raise ValueError(f"a batch of {self.batch} can't be cut into {self.shards} shards")
        return self

    def described(self) -> dict[str, Any]:
        """All that decides the result, as plain data; what is not used is left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def control(self, gain: float) -> Recipe:
        """How a batch norm is trained beside a norm whose results are ``gain`` times as wide."""
        if gain == 1:
            return self
        return self.model_copy(update={"gamma": scale_of(self.init, self.gamma) * gain})

    @property
    def rule(self) -> Optimiser:
        """What makes a step of a gradient."""
        return Optimiser(
            self.optimiser, self.momentum, self.nesterov, self.weight_decay, self.decay_all
        )

    def augmentation(self, data: Dataset) -> Augmentation:
        """How images of these data are changed."""
        how = self.augment
        if how is Augment.AUTO:
            how = Augment.CROP_FLIP if data.shape[0] == COLOURS else Augment.NONE
        if how is Augment.NONE:
            return UNCHANGED
        return Augmentation(self.padding, self.fill, flip=how is Augment.CROP_FLIP)

    def learning_rate(
        self, epoch: int, step: int, steps: int, losses: tuple[float, ...] = ()
    ) -> float:
        """Learning rate of one step.

        Parameters
        ----------
        epoch : int
            Epochs finished before.
        step, steps : int
            Number of the step in its epoch, from 0, and how many there are.
        losses : tuple of float
            Of the finished epochs, on held out images where there are any, for plateau.

        Examples
        --------
        >>> paper = RECIPES["paper"]
        >>> [round(paper.learning_rate(epoch, 0, 391), 4) for epoch in (0, 39, 40, 149)]
        [0.1, 0.1, 0.02, 0.0]
        """
        done = epoch + step / steps
        rate = self.lr * self._share(epoch, done, (epoch * steps + step + 1, self.epochs * steps))
        if self.schedule is Schedule.PLATEAU:
            rate *= self.factor ** plateaus(losses, self.patience)
        if epoch < self.warmup:
            rate *= (epoch * steps + step + 1) / (self.warmup * steps)
        return rate

    def _share(self, epoch: int, done: float, steps: tuple[int, int]) -> float:
        match self.schedule:
            case Schedule.MULTISTEP:
                return float(self.factor ** sum(each <= epoch for each in self.milestones))
            case Schedule.COSINE:
                return (1 + cos(pi * min(1.0, done / self.epochs))) / 2
            case Schedule.TRIANGLE:
                number, total = steps
                peak = max(1, round(RISE * total))
                return min(number / peak, (total - number + 1) / (total - peak + 1))
        return 1.0


def plateaus(losses: tuple[float, ...], patience: int) -> int:
    """How often a loss had not become smaller for more than ``patience`` epochs.

    As PyTorch's ReduceLROnPlateau counts them, with its threshold of 1e-4 of the best.

    Examples
    --------
    >>> plateaus((1.0, 0.5, 0.6, 0.6, 0.6, 0.4), patience=2), plateaus((1.0,) * 8, patience=2)
    (1, 2)
    """
    best, waited, found = float("inf"), 0, 0
    for loss in losses:
        if loss < best * (1 - 1e-4):
            best, waited = loss, 0
        else:
            waited += 1
        if waited > patience:
            found, waited = found + 1, 0
    return found


RECIPES = {
    "default": Recipe(),
    "paper": Recipe(
        epochs=150,
        batch=128,
        shards=1,
        nesterov=False,
        decay_all=True,
        schedule=Schedule.MULTISTEP,
        milestones=(40, 80, 100, 115, 130, 140),
        init=Init.XAVIER,
        augment=Augment.CROP_FLIP,
    ),
}
"""By name. ``paper`` is that of S. Kundu et al., IEEE Trans. Computers 2020, with what it leaves
open as in the authors' code (github.com/ksouvik52/Pre-defined-sparseCNN)."""
