"""Steps of stochastic gradient descent on one vector of all that is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

import numpy as np

from energysim.train.parameters import Arrays
from energysim.train.scratch import Floats, scratch

BLOCK = 1 << 16
"""Numbers that are worked on together; what a step reads of them then stays in the cache."""

ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 0.9, 0.999, 1e-8
"""As in D. P. Kingma, J. Ba, "Adam", ICLR 2015, section 2."""


class Method(StrEnum):
    """Rule of a step."""

    SGD = "sgd"
    ADAM = "adam"


@dataclass(frozen=True, slots=True)
class Optimiser:
    """A rule and its constants; what it remembers stands in the arrays that :meth:`start` makes.

    Formulas are PyTorch's: velocity v = momentum v + g, step -lr v, or with Nesterov
    -lr (g + momentum v); g includes weight decay times the weight.
    """

    method: Method = Method.SGD
    momentum: float = 0.9
    """of SGD"""
    nesterov: bool = True
    """of SGD: step from where the momentum will have led (Sutskever et al., ICML 2013)"""
    weight_decay: float = 5e-4
    decay_all: bool = False
    """decay biases and norms too, and not only weights"""

    def start(self, weights: Floats) -> Arrays:
        """What is remembered before the first step."""
        if self.method is Method.SGD:
            return {"velocity": np.zeros_like(weights)}
        return {
            "first": np.zeros_like(weights),
            "second": np.zeros_like(weights),
            "steps": np.zeros(1, np.float64),
        }

    def step(
        self, weights: Floats, gradient: Floats, memory: Arrays, lr: float, *, decayed: int
    ) -> None:
        """Change weights and memory in place; the gradient is used up.

        Parameters
        ----------
        weights, gradient : ndarray, shape (total,)
        memory : dict of ndarray
            From :meth:`start`.
        lr : float
            Learning rate.
        decayed : int
            So many numbers, from the first, are weights and decay; all do with ``decay_all``.
        """
        if self.method is Method.ADAM:
            memory["steps"] += 1
        reach = len(weights) if self.decay_all else decayed
        for begin in range(0, len(weights), BLOCK):
            some = slice(begin, begin + BLOCK)
            w, g = weights[some], gradient[some]
            if self.weight_decay and begin < reach:
                inside = slice(0, reach - begin)
                decay = scratch("decay", w[inside].shape, w.dtype)
                np.multiply(w[inside], self.weight_decay, out=decay)
                g[inside] += decay
            if self.method is Method.SGD:
                self._sgd(w, g, memory["velocity"][some], lr)
            else:
                steps = int(memory["steps"][0])
                _adam(w, g, memory["first"][some], memory["second"][some], lr, steps)

    def momentum_of(self, memory: Arrays) -> Floats:
        """Where weights are pulled, shape (total,).

        It is the velocity of SGD, or Adam's mean gradient beside its spread, as in the code of
        sparse momentum.
        """
        if self.method is Method.SGD:
            return memory["velocity"]
        return np.asarray(memory["first"] / (np.sqrt(memory["second"]) + ADAM_EPSILON))

    def _sgd(self, w: Floats, g: Floats, velocity: Floats, lr: float) -> None:
        velocity *= self.momentum
        velocity += g
        change = scratch("change", w.shape, w.dtype)
        if self.nesterov:
            np.multiply(velocity, self.momentum, out=change)
            change += g
            change *= lr
        else:
            np.multiply(velocity, lr, out=change)
        w -= change


def _adam(w: Floats, g: Floats, first: Floats, second: Floats, lr: float, steps: int) -> None:
    first *= ADAM_BETA1
    part = scratch("change", w.shape, w.dtype)
    np.multiply(g, 1 - ADAM_BETA1, out=part)
    first += part
    second *= ADAM_BETA2
    np.multiply(g, g, out=g)
    g *= 1 - ADAM_BETA2
    second += g
    np.sqrt(second, out=g)
    g /= sqrt(1 - ADAM_BETA2**steps)
    g += ADAM_EPSILON
    np.divide(first, g, out=part)
    part *= lr / (1 - ADAM_BETA1**steps)
    w -= part
