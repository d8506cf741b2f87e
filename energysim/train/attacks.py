"""Images changed so little that no one sees it, so that a network errs: FGSM and PGD.

Radius and steps are shares of the range of a pixel, in the maximum norm. The range goes from 0 to
the largest value in the training images: 255 of photographs, 16 of the bundled digits. The network
is attacked as it stands in use: with the running statistics of its norms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError, did_you_mean
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


FORM = "Allowed: fgsm:RADIUS or pgd:RADIUS[,steps=7][,restarts=1][,length=L], as shares of a pixel"


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
        if self.length is not None and not 0 < self.length <= 1:
            raise InputError(
                "a step has a length above 0 and at most 1, as a share of a pixel's range, got"
                f" {self.length:g}"
            )

    @classmethod
    def fgsm(cls, radius: float) -> Attack:
        """Take one step to the edge of the ball (Goodfellow et al., ICLR 2015, section 4)."""
        return cls(radius, steps=1, length=radius or None, drawn=False)

    @classmethod
    def named(cls, text: str) -> Attack:
        """Read an attack such as ``fgsm:0.031`` or ``pgd:8/255,steps=50,restarts=5,length=0.01``.

        Raises
        ------
        InputError
            If it is none; says what may stand there.
        """
        kind, _, rest = text.partition(":")
        radius, *others = (word.strip() for word in rest.split(","))
        kind = kind.strip().lower()
        if kind not in ("fgsm", "pgd"):
            hint = did_you_mean(kind, ("fgsm", "pgd"))
            raise InputError(f"'{text}' is no attack.{hint} {FORM}")
        given: dict[str, Any] = {}
        for word in others:
            key, _, value = word.partition("=")
            if kind == "fgsm" or key not in _READ:
                hint = did_you_mean(key, _READ) if kind == "pgd" else " FGSM has a radius only."
                raise InputError(f"'{text}': '{word}' is no setting of {kind}.{hint} {FORM}")
            given[key] = _number(_READ[key], value, text)
        size = _number(share, radius, text)
        return cls.fgsm(size) if kind == "fgsm" else cls(size, **given)

    @property
    def step(self) -> float:
        """Length of a step."""
        return self.length or self._usual

    @property
    def _usual(self) -> float:
        """Length of a step where none is given."""
        return REACH * self.radius / self.steps

    @property
    def name(self) -> str:
        """Its strength in words, to stand beside every accuracy; different for different ones."""
        if not self.drawn and self.steps == 1:
            return f"FGSM, radius {self.radius:.3g}"
        words = [f"PGD-{self.steps}", f"radius {self.radius:.3g}"]
        words += [f"steps of {self.step:.3g}"] if self.step != self._usual else []
        words += [f"{self.restarts} restarts"] if self.restarts > 1 else []
        return ", ".join(words)


def share(text: str) -> float:
    """Read a number, or two with a stroke between.

    Examples
    --------
    >>> share("0.25"), share("8/32")
    (0.25, 0.25)
    """
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)


_READ: Mapping[str, Callable[[str], float]] = {"steps": int, "restarts": int, "length": share}
"""Settings of PGD beside its radius, and what reads each."""


def _number(read: Callable[[str], float], value: str, text: str) -> float:
    try:
        return read(value)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"'{text}': '{value}' is no number that can stand there. {FORM}") from None


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
    stop: Event = field(default_factory=Event, repr=False)
    """set to give up attacks that other threads are at"""

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
        margin: Floats = _wrong(scores, labels).max(axis=0) - scores[labels, np.arange(len(labels))]
        return margin

    def gradient(self, x: Floats, labels: npt.NDArray[np.integer]) -> Floats:
        """Gradient of the loss by the images, up to a factor for each, shape (C, H, W, N).

        Raises
        ------
        CancelledError
            If attacks are given up.

        Notes
        -----
        With p the probabilities of the classes and y the right one, the gradient of the
        cross-entropy by the scores is 1 - p_y times that of the mean score of the wrong classes,
        weighted by p, less the right one. Attacks need its sign only. The factor is left out:
        where a network is sure, rounding makes it 0, and an attack would find nothing to follow.
        """
        if self.stop.is_set():
            raise CancelledError
        scores, trace = self.model.forward(self.weights, x)
        others = _wrong(scores, labels)
        dscores = np.exp(others - others.max(axis=0))
        dscores /= dscores.sum(axis=0)
        dscores[labels, np.arange(len(labels))] = -1
        found = self.model.backward(self.weights, trace, dscores, None, of_images=True)
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
    with no_warnings():
        worst, margins = x.copy(), target.margins(x, batch.y)
        for _ in range(attack.restarts):
            moved = stepped(target, x, batch.y, attack, rng)
            found = target.margins(moved, batch.y)
            better = found > margins  # not where it is no number
            worst[..., better], margins = moved[..., better], np.where(better, found, margins)
    return worst


def stepped(
    target: Target,
    x: Floats,
    labels: npt.NDArray[np.integer],
    attack: Attack,
    rng: np.random.Generator,
) -> Floats:
    """Images after the steps of an attack from one start, better for it or not.

    Parameters
    ----------
    target : Target
    x : ndarray, shape (C, H, W, N)
    labels : ndarray of int, shape (N,)
    attack : Attack
    rng : numpy.random.Generator
        Draws where it begins.

    Returns
    -------
    ndarray, shape (C, H, W, N)
    """
    moved = x
    if attack.drawn:
        start = rng.uniform(-attack.radius, attack.radius, x.shape).astype(x.dtype)
        moved = target.kept(x + start * target.unit, x, attack.radius)
    for _ in range(attack.steps):
        step = np.sign(target.gradient(moved, labels)) * (attack.step * target.unit)
        moved = target.kept(moved + step, x, attack.radius)
    return moved


@dataclass(frozen=True)
class Adversary:
    """What changes the images that a network learns from, so that it errs as it stands.

    It attacks the network as it is used, with the running statistics of its norms: so the change of
    one image depends on no other image of the batch, and what is learnt against is what accuracy
    under attack is measured with.
    """

    network: Network
    target: Target
    """with weights of an earlier step"""
    attack: Attack

    @classmethod
    def of(
        cls, network: Network, weights: Arrays, running: Arrays, data: Dataset, attack: Attack
    ) -> Adversary:
        """Take a network and the images that it learns from, as :meth:`Target.of` does."""
        return cls(network, Target.of(network, weights, running, data), attack)

    def against(
        self, weights: Arrays, running: Arrays
    ) -> Callable[[Floats, npt.NDArray[np.integer], np.random.Generator], Floats]:
        """Change images, by what has been learnt so far.

        Parameters
        ----------
        weights, running : dict of ndarray
            By name.

        Returns
        -------
        callable
            From images, classes and a source of chance to changed images; may run in threads.
        """
        _, found = folded(self.network, weights, running)
        target = replace(self.target, weights=found)

        def change(x: Floats, labels: npt.NDArray[np.integer], rng: np.random.Generator) -> Floats:
            return stepped(target, x, labels, self.attack, rng)

        return change


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
        found += robust_batch(target, batch, attack, seed, number)
    return found


def robust_batch(target: Target, batch: Batch, attack: Attack, seed: int, number: int) -> Score:
    """Loss and hits on one batch of images that were changed; see :func:`robust`."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, number]))
    x = changed(target, batch, attack, rng)
    with no_warnings():
        scores, _ = target.model.forward(target.weights, x)
        loss, _ = ops.cross_entropy(scores, batch.y)
    return score(scores, batch.y, loss)


def _wrong(scores: Floats, labels: npt.NDArray[np.integer]) -> Floats:
    """Scores of all classes but the right one, which has none above minus infinity."""
    others = scores.copy()
    others[labels, np.arange(len(labels))] = -np.inf
    return others


def _spread(values: tuple[float, ...], channels: int, dtype: npt.DTypeLike) -> Floats:
    """A number a channel; a grey image has the same in all channels that are read."""
    many = values if len(values) == channels else values * channels
    return np.array(many, dtype)[:, None, None, None]
