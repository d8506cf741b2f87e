"""A network whose kinks stay where they are, so that its gradient can be differentiated.

The gradient of a network with ReLU jumps wherever a unit passes 0. Over a step of the weights, so
small as may be, a share of the many units passes, and a difference of gradients is mostly made of
their jumps. With every unit on the side where it was, what is left is smooth: differences give the
product of the Hessian and the step that automatic differentiation gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energysim.network import Activation, Layer, LayerKind, PoolMode
from energysim.train import ops
from energysim.train.model import Model, Trace, operands_of
from energysim.train.parameters import Arrays
from energysim.train.scratch import Floats

TOPS = {Activation.RELU: np.inf, Activation.RELU6: ops.RELU6_TOP}
"""Activation functions with kinks: linear between 0 and this, constant outside."""


@dataclass(frozen=True)
class Held(Model):
    """A model with the kinks of one pass forward; of layers without norms."""

    at: Trace
    """that pass; stays as it is"""

    @classmethod
    def of_pass(cls, model: Model, trace: Trace) -> Held:
        """Hold a model at what a pass forward left, which must not have been used up."""
        return cls(model.network, model.layout, model.plans, model.dtype, trace)

    def _computed(self, layer: Layer, weights: Arrays, outputs: Mapping[str, Floats]) -> Floats:
        if not _picks(layer):
            return super()._computed(layer, weights, outputs)
        (x,) = operands_of(layer, outputs)
        return ops.max_pool_at(x, *self._met(layer), layer.shape)

    def _learn(self, layer: Layer, weights: Arrays, trace: Trace) -> Floats:
        if layer.activation not in TOPS:
            return super()._learn(layer, weights, trace)
        y = self._computed(layer, weights, trace.outputs)
        held: Floats = np.where(self._slopes(layer), y, self.at.outputs[layer.name])
        return held

    def _before(
        self, layer: Layer, weights: Arrays, trace: Trace, dy: Floats, into: Arrays
    ) -> Floats:
        if layer.activation not in TOPS:
            return super()._before(layer, weights, trace, dy, into)
        return dy * self._slopes(layer)

    def _operand_gradients(
        self,
        layer: Layer,
        weights: Arrays,
        trace: Trace,
        dy: Floats,
        into: Arrays,
        *,
        wanted: bool,
    ) -> list[Floats]:
        if not _picks(layer):
            return super()._operand_gradients(layer, weights, trace, dy, into, wanted=wanted)
        return [ops.max_pool_backward(dy, *self._met(layer), layer.shape)]

    def _slopes(self, layer: Layer) -> npt.NDArray[np.bool_]:
        """Where the activation function passes on what it is given."""
        y = self.at.outputs[layer.name]
        return (y > 0) & (y < TOPS[layer.activation])

    def _met(self, layer: Layer) -> tuple[Floats, Floats]:
        """What a pool was given in the pass, and what it gave."""
        (x,) = operands_of(layer, self.at.outputs)
        # before its activation function, if it has one
        return x, self.at.between.get(layer.name, self.at.outputs[layer.name])


def _picks(layer: Layer) -> bool:
    return layer.kind is LayerKind.POOL and layer.mode is PoolMode.MAX
