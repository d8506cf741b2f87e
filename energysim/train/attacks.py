"""Images changed so little that no one sees it, so that a network errs: FGSM and PGD.

Radius and steps are shares of the range of a pixel, in the maximum norm. The range goes from 0 to
the largest value in the training images: 255 of photographs, 16 of the bundled digits. The network
is attacked as it stands in use: with the running statistics of its norms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError
from energysim.network import Network
from energysim.train import ops
from energysim.train.data import Batch, Dataset
from energysim.train.data.dataset import PIXEL_MAX
from energysim.train.engine import Score, no_warnings, score
from energysim.train.fold import folded
from energysim.train.model import Model
from energysim.train.parameters import Arrays
from energysim.train.scratch import Floats

REACH = 2.5
"""Length of all steps together, in radii, where the length of one is not given (Madry et al., ICLR
2018, as in their code)."""


@dataclass(frozen=True, slots=True)
class Attack:
    """How images are changed.

    Raises
    ------
    InputError
        If a number is out of its range.

    Examples
    --------
    >>> Attack.fgsm(8 / 255).name, Attack(8 / 255, steps=50, restarts=5).name
    ('FGSM, radius 0.0314', 'PGD-50, radius 0.0314, 5 restarts')
    """

    radius: float
    """largest change of a pixel"""
    steps: int = 7
    length: float | None = None
    """of a step; by default :data:`REACH` radii in all"""
    restarts: int = 1
    """from other points of the ball; the worst of them counts for each image"""
    drawn: bool = True
    """begin at a random point of the ball, not at the image"""

    def __post_init__(self) -> None:
        if not 0 <= self.radius <= 1:
            raise InputError(
                f"the radius is a share of a pixel's range, 0 to 1, got {self.radius:g}"
            )
        if self.steps < 1 or self.restarts < 1:
            raise InputError("an attack has at least one step and one start")
        if self.length is not None and not self.length > 0:
            raise InputError(f"a step has a length above 0, got {self.length:g}")

    @classmethod
    def fgsm(cls, radius: float) -> Attack:
        """Take one step to the edge of the ball (Goodfellow et al., ICLR 2015, section 4)."""
        return cls(radius, steps=1, length=radius or None, drawn=False)

    @property
    def name(self) -> str:
        """Its strength in words, to stand beside every accuracy."""
        if not self.drawn and self.steps == 1:
            return f"FGSM, radius {self.radius:.3g}"
        more = f", {self.restarts} restarts" if self.restarts > 1 else ""
        return f"PGD-{self.steps}, radius {self.radius:.3g}{more}"


@dataclass(frozen=True)
class Target:
    """A trained network, and what its images may be."""

    model: Model
    """without batch norms"""
    weights: Arrays
    low: Floats
    """that black pixels are normalised to, shape (C, 1, 1, 1)"""
    high: Floats
    """the same of white ones"""

    @classmethod
    def of(cls, network: Network, weights: Arrays, running: Arrays, data: Dataset) -> Target:
        """Take a network with its running statistics.

        Parameters
        ----------
        network : Network
        weights, running : dict of ndarray
            By name, as of :class:`~energysim.train.model.Model`.
        data : Dataset
            Whose mean and deviation its images are normalised by.
        """
        plain, found = folded(network, weights, running)
        dtype = next(iter(found.values())).dtype
        channels = network.input_size[0]
        mean, std = (_spread(each, channels, dtype) for each in (data.mean, data.std))
        std = np.where(std > 0, std, 1).astype(dtype)
        white = dtype.type(int(np.max(data.train.images)) / PIXEL_MAX)
        return cls(Model.of(plain, dtype=dtype), found, -mean / std, (white - mean) / std)

    @cached_property
    def unit(self) -> Floats:
        """That the whole range of a pixel is normalised to, shape (C, 1, 1, 1)."""
        return np.asarray(self.high - self.low)

    def margins(self, x: Floats, labels: npt.NDArray[np.integer]) -> Floats:
        """How far the best wrong class is above the right one, shape (N,); not below 0 is an error.

        Of equal scores the class with the smaller number is taken, so that a tie can be right; it
        counts as an error here.
        """
        scores, _ = self.model.forward(self.weights, x)
        places = np.arange(len(labels))
        right = scores[labels, places]
        others = scores.copy()
        others[labels, places] = -np.inf
        margin: Floats = others.max(axis=0) - right
        return margin

    def gradient(self, x: Floats, labels: npt.NDArray[np.integer]) -> Floats:
        """Gradient of the loss by the images, shape (C, H, W, N)."""
        scores, trace = self.model.forward(self.weights, x)
        _, dscores = ops.cross_entropy(scores, labels)
        unused = np.empty(self.model.layout.total, x.dtype)
        found = self.model.backward(self.weights, trace, dscores, unused, of_images=True)
        assert found is not None  # was asked for
        return found

    def kept(self, moved: Floats, x: Floats, radius: float) -> Floats:
        """Bring images back into the ball around others, and into what pixels can be."""
        reach = radius * self.unit
        inside = np.clip(moved, x - reach, x + reach)
        return np.clip(inside, self.low, self.high, out=inside)


def changed(target: Target, batch: Batch, attack: Attack, rng: np.random.Generator) -> Floats:
    """Images of a batch, changed so that the network errs where the attack can make it.

    Parameters
    ----------
    target : Target
    batch : Batch
    attack : Attack
    rng : numpy.random.Generator
        Draws where restarts begin.

    Returns
    -------
    ndarray, shape (C, H, W, N)
        Each is the worst that was found, the image itself included: with the largest margin of a
        wrong class.

    Notes
    -----
    PGD: Madry et al., ICLR 2018, equation 4: steps along the sign of the gradient, each projected
    onto the ball.
    """
    x = np.asarray(batch.x, target.low.dtype)
    if attack.radius == 0:
        return x
    length = attack.length or REACH * attack.radius / attack.steps
    with no_warnings():
        worst, margins = x.copy(), target.margins(x, batch.y)
        for _ in range(attack.restarts):
            moved = x
            if attack.drawn:
                start = rng.uniform(-attack.radius, attack.radius, x.shape).astype(x.dtype)
                moved = target.kept(x + start * target.unit, x, attack.radius)
            for _ in range(attack.steps):
                step = np.sign(target.gradient(moved, batch.y)) * (length * target.unit)
                moved = target.kept(moved + step, x, attack.radius)
            found = target.margins(moved, batch.y)
            better = found > margins
            worst[..., better], margins = moved[..., better], np.maximum(found, margins)
    return worst


def robust(target: Target, batches: Iterable[Batch], attack: Attack, *, seed: int = 0) -> Score:
    """Loss and hits on images that were changed.

    Parameters
    ----------
    target : Target
    batches : iterable of Batch
    attack : Attack
    seed : int
        Of where restarts begin: one source of chance for each batch.

    Returns
    -------
    Score
        An image that is wrong as it stands is wrong here too.
    """
    found = Score()
    for number, batch in enumerate(batches):
        rng = np.random.default_rng(np.random.SeedSequence([seed, number]))
        x = changed(target, batch, attack, rng)
        with no_warnings():
            scores, _ = target.model.forward(target.weights, x)
            loss, _ = ops.cross_entropy(scores, batch.y)
        found += score(scores, batch.y, loss)
    return found


def _spread(values: tuple[float, ...], channels: int, dtype: npt.DTypeLike) -> Floats:
    """A number a channel; a grey image has the same in all channels that are read."""
    many = values if len(values) == channels else values * channels
    return np.array(many, dtype)[:, None, None, None]
