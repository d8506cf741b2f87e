"""Activation functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from energysim.network import Activation
from energysim.train.normal import normal_density, normal_distribution
from energysim.train.scratch import Floats

RELU6_TOP = 6
"""Where ReLU6 ends."""


def relu(x: Floats) -> Floats:
    """Positive part."""
    return positive(x, np.empty_like(x))


def positive(x: Floats, into: Floats) -> Floats:
    """Positive part, NaN where it was; np.clip is twice as fast as np.maximum with a number."""
    return np.clip(x, 0, np.inf, out=into)


def relu_backward(dy: Floats, y: Floats) -> Floats:
    """Gradient of :func:`relu`, from what it gave; 0 at 0."""
    return dy * (y > 0)


def relu6(x: Floats) -> Floats:
    """Positive part, at most 6."""
    clipped: Floats = np.clip(x, 0, RELU6_TOP)
    return clipped


def relu6_backward(dy: Floats, y: Floats) -> Floats:
    """Gradient of :func:`relu6`, from what it gave; 0 at both ends."""
    return dy * ((y > 0) & (y < RELU6_TOP))


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), for any x without overflow."""
    # exp of what is not positive only; tanh would lose the small values.
    small = np.exp(-np.abs(x))
    y: Floats = np.where(x >= 0, 1, small) / (1 + small)
    return y


def sigmoid_backward(dy: Floats, y: Floats) -> Floats:
    """Gradient of :func:`sigmoid`, from what it gave."""
    return dy * y * (1 - y)


def swish(x: Floats) -> Floats:
    """X times its sigmoid."""
    return x * sigmoid(x)


def swish_backward(dy: Floats, x: Floats) -> Floats:
    """Gradient of :func:`swish`, from what it was given."""
    gate = sigmoid(x)
    return dy * gate * (1 + x * (1 - gate))


def gelu(x: Floats) -> Floats:
    """X times the normal distribution function of x.

    References
    ----------
    D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units (GELUs)", arXiv 1606.08415, section 2: the
    exact one, not its approximation by tanh.
    """
    return x * normal_distribution(x)


def gelu_backward(dy: Floats, x: Floats) -> Floats:
    """Gradient of :func:`gelu`, from what it was given."""
    return dy * (normal_distribution(x) + x * normal_density(x))


def activate(kind: Activation, x: Floats) -> Floats:
    """Apply an activation function; without one, what it is given comes back, not a copy."""
    functions: dict[Activation, Callable[[Floats], Floats]] = {
        Activation.NONE: lambda each: each,
        Activation.RELU: relu,
        Activation.RELU6: relu6,
        Activation.SIGMOID: sigmoid,
        Activation.SWISH: swish,
        Activation.GELU: gelu,
    }
    return functions[kind](x)


def activate_backward(kind: Activation, dy: Floats, x: Floats, y: Floats) -> Floats:
    """Gradient of an activation function, from what it was given and what it gave."""
    match kind:
        case Activation.NONE:
            return dy
        case Activation.RELU:
            return relu_backward(dy, y)
        case Activation.RELU6:
            return relu6_backward(dy, y)
        case Activation.SIGMOID:
            return sigmoid_backward(dy, y)
        case Activation.SWISH:
            return swish_backward(dy, x)
        case Activation.GELU:
            return gelu_backward(dy, x)
