"""The same steps in PyTorch (extra ``torch``), for networks in full size and for GPUs.

Weights, masks, batches, norms of each shard, optimiser and running statistics are those of
:class:`~energysim.train.engine.Engine`; only who multiplies is another. Fixed zeros are multiplied
like all other weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from energysim.axes import Dim
from energysim.errors import InputError, MissingExtraError
from energysim.network import NETWORK_INPUT, Activation, Layer, LayerKind, Network, Over, PoolMode
from energysim.train.attacks import Adversary
from energysim.train.data import Batch
from energysim.train.engine import ANCHOR, LIVE, Score, State
from energysim.train.engine import score as count_hits
from energysim.train.job import TORCH, TORCH_BF16, refuse_mixtures
from energysim.train.model import heads_of, norm_of, product_of, refuse_untrainable
from energysim.train.ops import EPSILON, MOMENTUM
from energysim.train.optimiser import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    Method,
)
from energysim.train.parameters import (
    BETA,
    BIAS,
    GAMMA,
    MEAN,
    VARIANCE,
    WEIGHT,
    Layout,
    Slot,
    live_weights,
    running_start,
    start,
)
from energysim.train.recipe import Recipe
from energysim.train.rewire import Moved, Wiring

try:
    import torch
    import torch.nn.functional as F  # noqa: N812 - its usual name
except ImportError as _error:
    raise MissingExtraError(
        "the back-end torch needs PyTorch, which is not installed: pip install 'energysim[torch]'"
    ) from _error

Tensors = dict[str, Any]
"""PyTorch tensors by name."""

DEVICES = ("cpu", "cuda")
"""Types of device that are known to come to the same results."""


class TorchEngine:
    """Steps in PyTorch.

    Parameters
    ----------
    network : Network
    recipe : Recipe
    rng : numpy.random.Generator
        Draws the weights, as for NumPy.
    device : str
        ``cpu``, ``cuda`` or ``cuda:1``.
    dtype : str
        ``float32``, or ``float64`` to check.
    bf16 : bool
        Multiply in bfloat16, which GPUs do many times faster; weights, norms, sums and steps stay
        as they are (mixed precision, Micikevicius et al., ICLR 2018).
    wiring : numpy.random.Generator, optional
        Draws the first live weights, where the recipe rewires.

    Raises
    ------
    InputError
        If the network can't be trained or the device can't be used.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        rng: np.random.Generator,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        bf16: bool = False,
        wiring: np.random.Generator | None = None,
    ) -> None:
        self.recipe, self.rule = recipe, recipe.rule
        refuse_untrainable(network)
        refuse_mixtures(network, TORCH)
        self.network, self.layout = network, Layout.of(network)
        self.heads = heads_of(network)
        self.device = device_named(device)
        backend = TORCH_BF16 if bf16 else TORCH
        self.name = f"{backend} {torch.__version__} {self.device.type}"
        # As exact as on the CPU, and with the same kernels in every run.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        self._dtype, self._bf16 = getattr(torch, dtype), bf16
        vector = start(network, rng, recipe.init, dtype, gamma=recipe.gamma)
        self.weights = self._tensor(vector)
        self.live = self._tensor(live_weights(network).astype(vector.dtype))
        self.memory = {name: self._tensor(each) for name, each in self.rule.start(vector).items()}
        self.running = {
            name: self._tensor(each) for name, each in running_start(network, dtype).items()
        }
        self.adversary: Adversary | None = None
        """what changes the images that are learnt from, beside those as they are"""
        self.attacks = np.random.default_rng(0)
        """draws the starts of that"""
        if recipe.rewire is not None:
            self.wiring = Wiring.of(network, recipe.rewire.mode)
            live = self.wiring.start(recipe.rewire.density, wiring or np.random.default_rng(0))
            self.memory[LIVE] = self._tensor(live.astype(vector.dtype))
            self.settle()

    def step(self, shards: Sequence[Batch], lr: float) -> Score:
        """Learn from one batch; see :meth:`Engine.step`."""
        images = sum(len(shard.y) for shard in shards)
        total = torch.zeros_like(self.weights)
        scored: list[tuple[Any, Batch, Any]] = []
        slots = self.layout.slots
        # All attacks come first: they are on the network with the running statistics so far.
        for shard, attacked in zip(shards, self._attacked(shards), strict=True):
            leaves = {slot.name: _view(slot, self.weights).requires_grad_() for slot in slots}
            labels = torch.from_numpy(shard.y).to(self.device)
            learnt_from = self._learnt_from(shard, attacked)
            found = [self._forward(leaves, x, training=True) for _, x in learnt_from]
            losses = [
                share * F.cross_entropy(scores, labels, label_smoothing=self.recipe.smoothing)
                for (share, _), scores in zip(learnt_from, found, strict=True)
            ]
            loss = sum(losses[1:], losses[0])
            given = torch.autograd.grad(
                loss * (len(shard.y) / images), list(leaves.values()), allow_unused=True
            )
            for slot, each in zip(slots, given, strict=True):
                if each is not None:
                    _view(slot, total).add_(each)
            scored.append((found[0].detach(), shard, loss.detach()))
        # Only now, so that a GPU need not wait in the middle of a step.
        done = [_score(scores, shard, float(loss)) for scores, shard, loss in scored]
        total *= self.live
        self._pull(total[: self.layout.weights])
        self._learn(total, lr)
        self._mask()
        return sum(done, Score())

    def evaluate(self, batches: Iterable[Batch]) -> Score:
        """Loss and hits on images, with running statistics."""
        leaves = {slot.name: _view(slot, self.weights) for slot in self.layout.slots}
        total = Score()
        with torch.no_grad():
            for batch in batches:
                scores = self._forward(leaves, self._images(batch), training=False)
                loss = F.cross_entropy(scores, torch.from_numpy(batch.y).to(self.device))
                total += _score(scores, batch, float(loss))
        return total

    def state(self) -> State:
        """A copy of where the run stands."""
        return State(_array(self.weights), _arrays(self.memory), _arrays(self.running))

    def load(self, state: State) -> None:
        """Go on from there."""
        self.weights = self._tensor(state.weights)
        self.memory = {name: self._tensor(each) for name, each in state.memory.items()}
        self.running = {name: self._tensor(each) for name, each in state.running.items()}

    # -- live weights that move --------------------------------------------------------------------

    def settle(self) -> None:
        """Take weights that were loaded from elsewhere as those to begin with."""
        self._mask()
        if self.recipe.rewire is not None and self.recipe.rewire.rho:
            self.memory[ANCHOR] = self.weights[: self.layout.weights].clone()

    def rewire(self, share: float) -> Moved:
        """Prune and grow; see :meth:`Engine.rewire`."""
        how, many, memory = self.recipe.rewire, self.layout.weights, _arrays(self.memory)
        assert how is not None
        moved = self.wiring.rewired(
            memory[LIVE],
            _array(self.weights[:many]),
            self.rule.momentum_of(memory)[:many],
            share,
            self.wiring.target(how.density),
        )
        self.memory[LIVE] = self._tensor(moved.live)
        self.settle()
        return moved

    def _mask(self) -> None:
        """Set dead weights to 0."""
        if LIVE in self.memory:
            self.weights[: self.layout.weights].mul_(self.memory[LIVE])

    def _pull(self, g: Any) -> None:
        """Add the gradient of the dynamic L2 penalty; see :meth:`Engine._pull`."""
        if ANCHOR in self.memory:
            assert self.recipe.rewire is not None
            away = self.weights[: len(g)] - self.memory[ANCHOR]
            g.add_(away, alpha=self.recipe.rewire.rho)

    # -- images that are attacked ------------------------------------------------------------------

    def _learnt_from(self, shard: Batch, attacked: Any) -> list[tuple[float, Any]]:
        """Images of a shard, as they are and as attacked, with their shares of the loss."""
        if attacked is None:
            return [(1.0, self._images(shard))]
        assert self.recipe.adversarial is not None
        clean = self.recipe.adversarial.clean_share
        hard = (1 - clean, attacked)
        return [(clean, self._images(shard)), hard] if clean else [hard]

    def _attacked(self, shards: Sequence[Batch]) -> list[Any]:
        """Images that an adversary makes of each shard; None where there is no adversary."""
        if self.adversary is None:
            return [None] * len(shards)
        seeds = self.attacks.integers(2**63, size=len(shards)).tolist()
        return [self._stepped(shard, seed) for shard, seed in zip(shards, seeds, strict=True)]

    def _stepped(self, shard: Batch, seed: int) -> Any:
        """:func:`energysim.train.attacks.stepped` in PyTorch's words, from the same starts."""
        assert self.adversary is not None
        attack, target = self.adversary.attack, self.adversary.target
        low, high, unit = (
            torch.from_numpy(each).to(self.device, self._dtype).view(1, -1, 1, 1)
            for each in (target.low, target.high, target.unit)
        )
        x = self._images(shard)

        def kept(moved: Any) -> Any:
            reach = attack.radius * unit
            return moved.clamp(x - reach, x + reach).clamp(low, high)

        moved = x
        if attack.drawn:
            rng = np.random.default_rng(seed)
            start = rng.uniform(-attack.radius, attack.radius, shard.x.shape)
            start = torch.from_numpy(start.transpose(3, 0, 1, 2)).to(self.device, self._dtype)
            moved = kept(x + start * unit)
        labels = torch.from_numpy(shard.y).to(self.device)
        for _ in range(attack.steps):
            moved = kept(moved + self._pulled(moved, labels).sign() * (attack.step * unit))
        return moved

    def _pulled(self, x: Any, labels: Any) -> Any:
        """Gradient of images; see :meth:`energysim.train.attacks.Target.gradient`."""
        leaves = {slot.name: _view(slot, self.weights) for slot in self.layout.slots}
        x = x.detach().requires_grad_()
        scores = self._forward(leaves, x, training=False)
        places = labels[:, None]
        others = scores.detach().scatter(1, places, float("-inf"))
        (found,) = torch.autograd.grad(scores, x, others.softmax(1).scatter(1, places, -1.0))
        return found

    # -- a step ------------------------------------------------------------------------------------

    def _learn(self, g: Any, lr: float) -> None:
        """One step of the optimiser: :meth:`Optimiser.step` in PyTorch's words."""
        rule, w, memory = self.rule, self.weights, self.memory
        reach = len(w) if rule.decay_all else self.layout.weights
        g[:reach].add_(w[:reach], alpha=rule.weight_decay)
        if rule.method is Method.SGD:
            velocity = memory["velocity"]
            velocity.mul_(rule.momentum).add_(g)
            change = g.add(velocity, alpha=rule.momentum) if rule.nesterov else velocity
            w.add_(change, alpha=-lr)
            return
        memory["steps"] += 1
        steps = int(memory["steps"][0])
        first, second = memory["first"], memory["second"]
        first.mul_(ADAM_BETA1).add_(g, alpha=1 - ADAM_BETA1)
        second.mul_(ADAM_BETA2).addcmul_(g, g, value=1 - ADAM_BETA2)
        root = second.sqrt().div_((1 - ADAM_BETA2**steps) ** 0.5).add_(ADAM_EPSILON)
        w.addcdiv_(first, root, value=-lr / (1 - ADAM_BETA1**steps))

    def _forward(self, leaves: Tensors, x: Any, *, training: bool) -> Any:
        """Scores, ``[image, class]``, of images, ``[image, channel, height, width]``."""
        outputs = {NETWORK_INPUT: x}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            for layer in self.network.layers:
                y = self._computed(layer, leaves, outputs)
                y = self._normed(layer, leaves, y, training=training)
                outputs[layer.name] = _activated(layer.activation, y)
        return outputs[self.network.layers[-1].name].flatten(1).to(self._dtype)

    def _images(self, batch: Batch) -> Any:
        images = torch.from_numpy(np.ascontiguousarray(batch.x.transpose(3, 0, 1, 2)))
        # Units for bfloat16 want channels last.
        form = torch.channels_last if self._bf16 else torch.contiguous_format
        return images.to(self.device, self._dtype, memory_format=form)

    def _computed(  # noqa: PLR0911 - a line a kind
        self, layer: Layer, leaves: Tensors, outputs: Tensors
    ) -> Any:
        operands = _operands(layer, outputs)
        x = operands[0]
        match layer.kind:
            case LayerKind.POOL:
                return _pooled(layer, x)
            case LayerKind.ADD:
                return sum(operands[1:], x)
            case LayerKind.MULTIPLY:
                return x * operands[1]
            case LayerKind.MATMUL:
                return _multiplied(layer, x, operands[1])
            case LayerKind.SOFTMAX:
                heads = self.heads[layer.name]
                return x.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)
            case LayerKind.BATCH_NORM | LayerKind.LAYER_NORM:
                return x
        weight = leaves[f"{layer.name}.{WEIGHT}"].flatten(0, 1)
        bias = leaves.get(f"{layer.name}.{BIAS}") if not layer.batch_norm else None
        if layer.kind is LayerKind.LINEAR:
            return F.linear(x.flatten(1), weight.flatten(1), bias)[..., None, None]
        y = _convolved(layer, x, weight)
        if layer.kind is LayerKind.TRANSPOSED:
            channels, height, width = layer.output
            rows, columns = height // y.shape[2], width // y.shape[3]
            parted = y.unflatten(1, (channels, rows, columns)).permute(0, 1, 4, 2, 5, 3)
            y = parted.reshape(-1, channels, height, width)
        return y if bias is None else y + bias[:, None, None]

    def _normed(self, layer: Layer, leaves: Tensors, y: Any, *, training: bool) -> Any:
        name = layer.name
        if layer.kind is LayerKind.LAYER_NORM:
            gamma, beta = leaves[f"{name}.{GAMMA}"], leaves[f"{name}.{BETA}"]
            return F.layer_norm(y.movedim(1, -1), (y.shape[1],), gamma, beta, EPSILON).movedim(
                -1, 1
            )
        if not norm_of(layer):
            return y
        mean, variance = self.running[f"{name}.{MEAN}"], self.running[f"{name}.{VARIANCE}"]
        gamma, beta = leaves[f"{name}.{GAMMA}"], leaves[f"{name}.{BETA}"]
        if training and y[:, 0].numel() == 1:
            return _of_single(y, mean, variance, gamma, beta)
        return F.batch_norm(
            y, mean, variance, gamma, beta, training=training, momentum=MOMENTUM, eps=EPSILON
        )

    def _tensor(self, array: Any) -> Any:
        return torch.from_numpy(np.array(array)).to(self.device)


def device_named(name: str) -> Any:
    """Find a device of PyTorch.

    Raises
    ------
    InputError
        If there is none of this name here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in DEVICES:
        raise InputError(f"no device named {name!r}. Allowed: cpu, cuda, cuda:1")
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not found:
            raise InputError("PyTorch finds no CUDA device here. Leave --device out to use the CPU")
        if (device.index or 0) >= found:
            raise InputError(f"PyTorch finds {found} CUDA device(s), from cuda:0, and no {name}")
    return device


def _of_single(y: Any, mean: Any, variance: Any, gamma: Any, beta: Any) -> Any:
    """Batch norm of one element a channel, which PyTorch refuses: all that is left is the shift.

    Running statistics move as :meth:`Statistics.moved` moves them.
    """
    seen = y.detach().flatten()
    mean.add_(seen - mean, alpha=MOMENTUM)
    variance.mul_(1 - MOMENTUM)
    # Nothing, but a part of the graph: gradients are 0 and not missing.
    nothing = (y - y) * gamma[:, None, None]
    return nothing + beta[:, None, None]


def _view(slot: Slot, vector: Any) -> Any:
    """Numbers of a slot as PyTorch has them: of 4D weights, channels stand last in memory."""
    flat = vector[slot.start : slot.stop].detach()
    if len(slot.shape) == 1:
        return flat
    groups, filters, channels, height, width = slot.shape
    return flat.view(groups, filters, height, width, channels).permute(0, 1, 4, 2, 3)


def _operands(layer: Layer, outputs: Mapping[str, Any]) -> list[Any]:
    inputs = [outputs[name] for name in layer.inputs]
    if layer.kind in (LayerKind.ADD, LayerKind.MULTIPLY, LayerKind.MATMUL):
        return inputs
    x = inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1)
    if layer.picked is not None:
        return [x[:, torch.tensor(layer.picked, device=x.device)]]
    return [x if layer.channels is None else x[:, : layer.channels]]


def _margins(layer: Layer) -> tuple[int, int, int, int]:
    """Rows and columns beside the input that windows reach: left, right, top, bottom."""
    shape = layer.shape
    found = []
    for i, (out, kernel) in enumerate(((Dim.P, Dim.R), (Dim.Q, Dim.S))):
        reach = (shape[out] - 1) * shape.stride[i] + (shape[kernel] - 1) * shape.dilation[i] + 1
        found.append((shape.pad[i], reach - shape.pad[i] - shape.size[i]))
    (top, bottom), (left, right) = found
    return left, right, top, bottom


def _convolved(layer: Layer, x: Any, weight: Any) -> Any:
    shape = layer.shape
    settings = {"stride": shape.stride, "dilation": shape.dilation, "groups": shape[Dim.G]}
    left, right, top, bottom = _margins(layer)
    wanted = (shape[Dim.P], shape[Dim.Q])
    if right <= left and bottom <= top:
        y = F.conv2d(x, weight, padding=(top, left), **settings)
        return y[:, :, : wanted[0], : wanted[1]]
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, **settings)


def _pooled(layer: Layer, x: Any) -> Any:
    shape, margins = layer.shape, _margins(layer)
    kernel = shape[Dim.R], shape[Dim.S]
    if layer.mode is PoolMode.MAX:
        padded = F.pad(x, margins, value=float("-inf"))
        return F.max_pool2d(padded, kernel, shape.stride)
    sums = F.avg_pool2d(F.pad(x, margins), kernel, shape.stride, divisor_override=1)
    ones = F.pad(torch.ones_like(x[:1, :1]), margins)
    return sums / F.avg_pool2d(ones, kernel, shape.stride, divisor_override=1).clamp(min=1)


def _multiplied(layer: Layer, a: Any, b: Any) -> Any:
    """Product of two activations; see :func:`energysim.train.ops.matmul`."""
    how = product_of(layer)
    size = a.shape[2:]
    left = a.flatten(2).unflatten(1, (how["groups"], -1))
    right = b.flatten(2).unflatten(1, (how["groups"], -1))
    if how["over"] is Over.CHANNELS:
        right = right.transpose(2, 3)
    return (right @ left * how["factor"]).flatten(1, 2).unflatten(2, size)


def _activated(kind: Activation, x: Any) -> Any:
    functions = {
        Activation.RELU: F.relu,
        Activation.RELU6: F.relu6,
        Activation.SIGMOID: torch.sigmoid,
        Activation.SWISH: F.silu,
        Activation.GELU: F.gelu,
    }
    return functions[kind](x) if kind in functions else x


def _score(scores: Any, batch: Batch, loss: float) -> Score:
    return count_hits(_array(scores).T, batch.y, loss)


def _array(tensor: Any) -> Any:
    return tensor.detach().cpu().numpy().copy()


def _arrays(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _array(each) for name, each in tensors.items()}
