"""The back-end in PyTorch beside the one in NumPy, and both beside PyTorch's own optimisers."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_train_run import Stopped, stop_at
from trainable import (
    ATTENTION,
    EVERY_KIND,
    JOINED,
    PATTERNED,
    PLAIN,
    cut,
    images_for,
    network_of,
    own_masks,
)

from energysim.catalog import load_network
from energysim.errors import InputError, InputErrors
from energysim.network import Network, Scale
from energysim.train import ops
from energysim.train.attacks import Adversary, Attack
from energysim.train.data import Batch, digits, shapes
from energysim.train.engine import ANCHOR, LIVE, Engine, check_zeros
from energysim.train.job import Job
from energysim.train.model import Model
from energysim.train.optimiser import Method, Optimiser
from energysim.train.parameters import start
from energysim.train.recipe import Adversarial, Recipe, Rewire, Schedule, plateaus
from energysim.train.rewire import Mode
from energysim.train.run import train


def test_without_pytorch_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "energysim.train.torch_engine", raising=False)
    with pytest.raises(InputError, match=r"needs PyTorch.*pip install 'energysim\[torch\]'"):
        builtins.__import__("energysim.train.torch_engine")


# -- the two back-ends -----------------------------------------------------------------------------


def engines(
    network: Network, recipe: Recipe, dtype: str = "float64", device: str = "cpu", **settings: bool
) -> tuple[Engine, Any]:
    """Both, from the same seed."""
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from energysim.train.torch_engine import TorchEngine

    return (
        Engine(network, recipe, np.random.default_rng(0), dtype=np.dtype(dtype)),
        TorchEngine(
            network, recipe, np.random.default_rng(0), dtype=dtype, device=device, **settings
        ),
    )


def assert_alike(numpy: Engine, torch: Any, most: float) -> None:
    """Weights, what the optimiser remembers and running statistics, relative to the largest."""
    ours, theirs = numpy.state(), torch.state()
    assert theirs.weights.dtype == ours.weights.dtype
    pairs = [(ours.weights, theirs.weights)]
    for one, other in ((ours.memory, theirs.memory), (ours.running, theirs.running)):
        assert one.keys() == other.keys()
        pairs += [(one[name], other[name]) for name in one]
    for one, other in pairs:
        assert abs(one - other).max() <= most * max(1, abs(one).max())


def steps(network: Network, many: int, images: int = 9) -> list[Sequence[Batch]]:
    """Shards of so many batches; unequal ones."""
    return [
        cut(images_for(network, images, seed=seed, dtype=np.float64), images // 2)
        for seed in range(many)
    ]


NETWORKS = {
    **{text.split()[1]: network_of(text) for text in (*EVERY_KIND, PLAIN)},
    "PS4_P4": network_of(PATTERNED).with_pattern("PS4_P4"),
    "own masks": own_masks(network_of(PATTERNED)),
}

RECIPES = {
    "sgd": Recipe(batch=9, weight_decay=1e-2),
    "plain": Recipe(batch=9, momentum=0.0, nesterov=False, weight_decay=0.0, smoothing=0.1),
    "momentum": Recipe(batch=9, nesterov=False, decay_all=True),
    "adam": Recipe(batch=9, optimiser=Method.ADAM, weight_decay=1e-2, smoothing=0.1),
}


devices = pytest.mark.parametrize("device", ["cpu", "cuda"])


@devices
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_ten_steps_in_double_precision(name: str, recipe: str, device: str) -> None:
    network = NETWORKS[name]
    ours, theirs = engines(network, RECIPES[recipe], device=device)
    begun = ours.weights.copy()
    np.testing.assert_array_equal(begun, theirs.state().weights)
    for step, shards in enumerate(steps(network, 10)):
        lr = 0.01 / (1 + step % 3)
        one, other = ours.step(shards, lr), theirs.step(shards, lr)
        assert one.loss == pytest.approx(other.loss, rel=1e-9)
        assert (one.images, one.first, one.among) == (other.images, other.first, other.among)
    assert_alike(ours, theirs, 1e-9)
    assert abs(ours.weights - begun).max() > 1e-3
    check_zeros(network, theirs.state().weights)
    batches = steps(network, 2)[1]
    one, other = ours.evaluate(batches), theirs.evaluate(batches)
    assert one.loss == pytest.approx(other.loss, rel=1e-9)
    assert (one.images, one.first, one.among) == (other.images, other.first, other.among)


@devices
@pytest.mark.parametrize("name", [PLAIN.split()[1], "PS4_P4"])
@pytest.mark.parametrize("recipe", ["sgd", "adam"])
@pytest.mark.parametrize("mode", list(Mode))
def test_rewired_alike(name: str, recipe: str, mode: Mode, device: str) -> None:
    """The same weights live, from the first draw to the last rewiring, and learn the same."""
    if mode is Mode.CHANNEL and name == "PS4_P4":
        pytest.skip("whole channels of a sparse network are not rewired")
    network, how = NETWORKS[name], Rewire(density=0.3, mode=mode, rho=1e-2)
    ours, theirs = engines(
        network, RECIPES[recipe].model_copy(update={"rewire": how}), device=device
    )
    many = ours.memory[LIVE].sum()
    moved = 0
    for shards in steps(network, 6):
        for engine in (ours, theirs):
            for _ in range(2):
                engine.step(shards, 0.01)
        one, other = ours.rewire(0.3), theirs.rewire(0.3)
        np.testing.assert_array_equal(one.live, other.live)
        assert one.pruned == other.pruned
        moved += one.pruned
        assert_alike(ours, theirs, 1e-9)
        state = theirs.state()
        check_zeros(network, state.weights, state.memory[LIVE])
        assert {LIVE, ANCHOR} <= state.memory.keys()
        assert mode is Mode.CHANNEL or state.memory[LIVE].sum() == many
    assert moved


@devices
@pytest.mark.parametrize("clean_share", [0.0, 0.5])
@pytest.mark.parametrize("name", ["digits_cnn", "resnet18"])
def test_attacked_alike(name: str, clean_share: float, device: str) -> None:
    """Hybrid loss: the same starts, and images after steps along the same signs."""
    scale = Scale(classes=10) if name == "digits_cnn" else Scale(0.1, 32, 10)
    network = load_network(name, scale=scale)
    how = Adversarial(radius=0.1, steps=3, clean_share=clean_share)
    recipe = RECIPES["sgd"].model_copy(update={"adversarial": how})
    ours, theirs = engines(network, recipe, device=device)
    images = digits() if network.input_size[0] == 1 else shapes()
    for engine in (ours, theirs):
        attack = Attack(how.radius, how.steps, how.length)
        state = ours.state()
        views = ours.model.layout.views(state.weights)
        engine.adversary = Adversary.of(network, views, state.running, images, attack)
        engine.attacks = np.random.default_rng(5)
    plain, _ = engines(network, RECIPES["sgd"])
    for step, shards in enumerate(steps(network, 6)):
        one, other = ours.step(shards, 0.01), theirs.step(shards, 0.01)
        assert one.loss == pytest.approx(other.loss, rel=1e-9)
        assert (one.images, one.first, one.among) == (other.images, other.first, other.among)
        assert plain.step(shards, 0.01).loss != one.loss, step
    assert_alike(ours, theirs, 1e-9)


def test_a_run_is_attacked_and_resumed(tmp_path: Path) -> None:
    """DNR's robust training in PyTorch: bit by bit the same, interrupted or not."""
    pytest.importorskip("torch")
    recipe = Recipe(
        epochs=3, batch=64, rewire=Rewire(density=0.2), adversarial=Adversarial(radius=0.1, steps=2)
    )
    job = Job(load_network("digits_cnn"), digits().subset(per_class=7), recipe, 0, "torch")
    whole = train(job, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(job, tmp_path / "parts", tell=stop_at(2))
    parts = train(job, tmp_path / "parts")
    assert whole.row == parts.row
    for name, each in whole.weights.items():
        np.testing.assert_array_equal(each, parts.weights[name])
    clean = recipe.model_copy(update={"adversarial": None})
    other = train(Job(job.network, job.data, clean, 0, "torch"))
    assert other.row["test_loss"] != whole.row["test_loss"]


@devices
@pytest.mark.parametrize("name", ["shufflenet_v2", "efficientnet_b0", "densenet121", "googlenet"])
def test_bundled_networks(name: str, device: str) -> None:
    network = load_network(name, scale=Scale(0.05, 32, 10))
    ours, theirs = engines(network, RECIPES["sgd"], device=device)
    # Deep in the network an image is one pixel: norms over a few of them would amplify rounding.
    for shards in steps(network, 3, images=24):
        one, other = ours.step(shards, 1e-3), theirs.step(shards, 1e-3)
        assert one.loss == pytest.approx(other.loss, rel=1e-9)
    assert_alike(ours, theirs, 1e-9)


@devices
@pytest.mark.parametrize("pattern", ["dense", "PS4_P4", "PSD2_P8"])
def test_ten_steps_in_single_precision(pattern: str, device: str) -> None:
    """Of a network that doesn't amplify rounding, as deep ones with small shards do."""
    network = load_network("digits_cnn").with_pattern(pattern)
    ours, theirs = engines(network, Recipe(batch=64), "float32", device)
    for seed in range(10):
        shards = cut(images_for(network, 64, seed=seed), 32)
        one, other = ours.step(shards, 0.01), theirs.step(shards, 0.01)
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
    assert_alike(ours, theirs, 1e-4)


@devices
@pytest.mark.parametrize("name", ["digits_cnn+PS4_P4", "mobilenet_v2", "densenet121"])
def test_products_in_bfloat16(name: str, device: str) -> None:
    """Eight bits of mantissa: losses agree to a few thousandths, fixed zeros stay zeros."""
    name, _, pattern = name.partition("+")
    network = load_network(name, pattern=pattern or None, scale=Scale(0.25, 32, 10))
    ours, theirs = engines(network, Recipe(batch=64), "float32", device, bf16=True)
    again = engines(network, Recipe(batch=64), "float32", device, bf16=True)[1]
    for seed in range(5):
        shards = [images_for(network, 64, seed=seed)]
        one, other = ours.step(shards, 0.01), theirs.step(shards, 0.01)
        assert one.loss != other.loss
        assert one.loss == pytest.approx(other.loss, rel=0.02)
        again.step(shards, 0.01)
    state = theirs.state()
    assert state.weights.dtype == np.float32
    check_zeros(network, state.weights)
    np.testing.assert_array_equal(state.weights, again.state().weights)
    assert theirs.evaluate(shards).loss == pytest.approx(ours.evaluate(shards).loss, rel=0.05)
    assert theirs.name.startswith("torch-bf16 ")


@devices
def test_same_bits_again(device: str) -> None:
    network = load_network("resnet18", pattern="PS4_P4", scale=Scale(0.25, 32, 10))
    first, second = (engines(network, Recipe(batch=64), "float32", device)[1] for _ in range(2))
    for shards in steps(network, 3, images=64):
        assert first.step(shards, 0.01) == second.step(shards, 0.01)
    np.testing.assert_array_equal(first.state().weights, second.state().weights)


def test_twenty_steps_of_one_batch() -> None:
    network = load_network("digits_cnn").with_pattern("PS4_P4")
    ours, theirs = engines(network, Recipe(batch=64), "float32")
    shards = cut(images_for(network, 64), 32)
    pairs = [(ours.step(shards, 0.01).loss, theirs.step(shards, 0.01).loss) for _ in range(20)]
    np.testing.assert_allclose(*zip(*pairs, strict=True), rtol=1e-3)
    assert pairs[-1][0] < 0.95 * pairs[0][0]


def test_a_run_can_change_its_back_end() -> None:
    network = network_of(JOINED)
    ours, theirs = engines(network, RECIPES["adam"])
    again, _ = engines(network, RECIPES["adam"])
    batches = steps(network, 6)
    for shards in batches[:3]:
        ours.step(shards, 0.01)
        theirs.step(shards, 0.01)
    again.load(theirs.state())
    theirs.load(ours.state())
    for shards in batches[3:]:
        for engine in (ours, theirs, again):
            engine.step(shards, 0.01)
    assert_alike(ours, theirs, 1e-9)
    assert_alike(again, theirs, 1e-9)


def test_a_state_is_a_copy() -> None:
    network = network_of(PLAIN)
    _, engine = engines(network, RECIPES["sgd"])
    state = engine.state()
    kept = state.weights.copy()
    engine.step(steps(network, 1)[0], 0.1)
    np.testing.assert_array_equal(state.weights, kept)
    engine.load(state)
    engine.step(steps(network, 1)[0], 0.1)
    np.testing.assert_array_equal(state.weights, kept)


def test_a_shard_of_one_element_a_channel() -> None:
    """PyTorch refuses to normalise it; a last batch may have it all the same."""
    text = PATTERNED.replace("out: 8, kernel: 3, pad: 1", "out: 8, kernel: 6")
    network = network_of(text)
    ours, theirs = engines(network, RECIPES["sgd"])
    shards = cut(images_for(network, 3, dtype=np.float64), 1)
    for _ in range(3):
        one, other = ours.step(shards, 0.05), theirs.step(shards, 0.05)
        assert one.loss == pytest.approx(other.loss, rel=1e-9)
    assert_alike(ours, theirs, 1e-9)


@pytest.mark.parametrize("text", [ATTENTION, JOINED], ids=lambda text: text.split()[1])
def test_gradients_in_single_precision(text: str) -> None:
    """Of all that is learnt at once, relative to the largest."""
    network = network_of(text)
    recipe = Recipe(batch=8, shards=1, momentum=0.0, nesterov=False, weight_decay=0.0)
    ours, theirs = engines(network, recipe, "float32")
    begun = start(network, np.random.default_rng(0), dtype=np.float32)
    batch = images_for(network, 8)
    ours.step([batch], 1.0)
    theirs.step([batch], 1.0)
    one, other = ours.weights - begun, theirs.state().weights - begun
    assert abs(one).max() > 0.01
    assert abs(one - other).max() <= 1e-4 * abs(one).max()


# -- devices and networks --------------------------------------------------------------------------


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from energysim.train.torch_engine import TorchEngine

    network = network_of(PLAIN)

    def made(device: str) -> Any:
        return TorchEngine(network, Recipe(), np.random.default_rng(0), device=device)

    for name in ("gpu", "meta", "", "cuda:x"):
        with pytest.raises(InputError, match=f"no device named '{name}'. Allowed: cpu, cuda"):
            made(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:1"):
        with pytest.raises(InputError, match=r"finds no CUDA device here\. Leave --device out"):
            made(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"finds 2 CUDA device\(s\), from cuda:0, and no cuda:2"):
        made("cuda:2")
    assert made("cpu").name == f"torch {torch.__version__} cpu"


def test_networks_that_can_not_be_trained() -> None:
    pytest.importorskip("torch")
    from energysim.train.torch_engine import TorchEngine

    with pytest.raises(InputErrors, match="not one score a class"):
        TorchEngine(load_network("unet"), Recipe(), np.random.default_rng(0))


# -- PyTorch's own optimisers and schedules --------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        Optimiser(momentum=0.0, nesterov=False, weight_decay=0.0),
        Optimiser(momentum=0.9, nesterov=False, weight_decay=1e-2),
        Optimiser(momentum=0.9, nesterov=True, weight_decay=1e-2),
        Optimiser(momentum=0.9, nesterov=True, weight_decay=1e-2, decay_all=True),
        Optimiser(Method.ADAM, weight_decay=0.0),
        Optimiser(Method.ADAM, weight_decay=1e-2),
        Optimiser(Method.ADAM, weight_decay=1e-2, decay_all=True),
    ],
    ids=str,
)
def test_steps_of_the_optimisers(rule: Optimiser) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    weights, decayed = rng.standard_normal(23), 13
    parts = [torch.tensor(each) for each in (weights[:decayed], weights[decayed:])]
    groups = [
        {"params": [parts[0]], "weight_decay": rule.weight_decay},
        {"params": [parts[1]], "weight_decay": rule.weight_decay if rule.decay_all else 0.0},
    ]
    if rule.method is Method.SGD:
        theirs = torch.optim.SGD(groups, lr=0.1, momentum=rule.momentum, nesterov=rule.nesterov)
    else:
        theirs = torch.optim.Adam(groups, lr=0.1)
    memory = rule.start(weights)
    for step in range(20):
        gradient, lr = rng.standard_normal(23), 0.1 / (1 + step % 4)
        for group in theirs.param_groups:
            group["lr"] = lr
        parts[0].grad, parts[1].grad = (
            torch.tensor(each) for each in (gradient[:decayed], gradient[decayed:])
        )
        theirs.step()
        rule.step(weights, gradient, memory, lr, decayed=decayed)
    np.testing.assert_allclose(weights, np.concatenate(parts), rtol=1e-12, atol=1e-12)


def scheduled(scheduler: type, steps: int, **options: Any) -> list[float]:
    """Learning rates of PyTorch's schedule, from 0.4."""
    torch = pytest.importorskip("torch")
    rule = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    schedule = scheduler(rule, **options)
    found = []
    for _ in range(steps):
        found.append(rule.param_groups[0]["lr"])
        rule.step()
        schedule.step()
    return found


def test_multistep() -> None:
    torch = pytest.importorskip("torch")
    recipe = Recipe(epochs=9, lr=0.4, schedule=Schedule.MULTISTEP, milestones=(2, 3, 7))
    wanted = scheduled(
        torch.optim.lr_scheduler.MultiStepLR, 9, milestones=[2, 3, 7], gamma=recipe.factor
    )
    found = [recipe.learning_rate(epoch, 3, 4) for epoch in range(9)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_cosine() -> None:
    torch = pytest.importorskip("torch")
    recipe = Recipe(epochs=5, lr=0.4, schedule=Schedule.COSINE)
    wanted = scheduled(torch.optim.lr_scheduler.CosineAnnealingLR, 35, T_max=35)
    found = [recipe.learning_rate(epoch, step, 7) for epoch in range(5) for step in range(7)]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_plateau(patience: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(patience)
    losses = np.exp(-np.arange(60) / 30) + 0.05 * rng.standard_normal(60)
    losses[30:40] = losses[:30].min() * (1 - 1e-4 * np.linspace(0, 2, 10))
    rule = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        rule, factor=0.5, patience=patience, eps=0.0
    )
    recipe = Recipe(epochs=60, lr=0.4, schedule=Schedule.PLATEAU, factor=0.5, patience=patience)
    for epoch, loss in enumerate(losses):
        seen = tuple(losses[:epoch].tolist())
        assert recipe.learning_rate(epoch, 0, 1, seen) == pytest.approx(
            rule.param_groups[0]["lr"], rel=1e-12
        )
        schedule.step(loss)
    assert plateaus(tuple(losses.tolist()), patience) >= 2


def test_cross_entropy() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    scores, labels = 5 * rng.standard_normal((7, 6)), rng.integers(0, 7, 6)
    for smoothing in (0.0, 0.1, 0.5):
        theirs = torch.tensor(scores.T.copy(), requires_grad=True)
        wanted = torch.nn.functional.cross_entropy(
            theirs, torch.tensor(labels), label_smoothing=smoothing
        )
        wanted.backward()
        loss, dscores = ops.cross_entropy(scores, labels, smoothing=smoothing)
        assert loss == pytest.approx(wanted.item(), rel=1e-12)
        np.testing.assert_allclose(dscores, theirs.grad.numpy().T, atol=1e-14)


def test_a_network_written_in_pytorch() -> None:
    """Independently of both engines: scores and gradients of digits_cnn by modules of torch.nn."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    network = load_network("digits_cnn")
    model = Model.of(network, dtype=np.float64)
    vector = start(network, np.random.default_rng(0), dtype=np.float64)
    views = model.layout.views(vector)
    blocks: list[Any] = []
    for name, c_in, out in (
        ("conv1", 1, 16),
        ("conv2", 16, 16),
        ("conv3", 16, 32),
        ("conv4", 32, 32),
    ):
        conv = nn.Conv2d(c_in, out, 3, padding=1, bias=False)
        conv.weight.data = torch.tensor(views[f"{name}.weight"][0].copy())
        blocks += [conv, nn.BatchNorm2d(out), nn.ReLU()]
        if name == "conv2":
            blocks.append(nn.MaxPool2d(2))
    fc = nn.Linear(32, 10)
    fc.weight.data = torch.tensor(views["fc.weight"][0, :, :, 0, 0].copy())
    fc.bias.data = torch.tensor(views["fc.bias"].copy())
    theirs = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), fc).double()
    batch = images_for(network, 16, dtype=np.float64)
    scores, trace = model.forward(views, batch.x)
    wanted = theirs(torch.tensor(batch.x.transpose(3, 0, 1, 2).copy()))
    np.testing.assert_allclose(scores, wanted.detach().numpy().T, rtol=1e-10, atol=1e-12)
    nn.functional.cross_entropy(wanted, torch.tensor(batch.y)).backward()
    _, dscores = ops.cross_entropy(scores, batch.y)
    gradient = np.empty_like(vector)
    model.backward(views, trace, dscores, gradient)
    found = model.layout.views(gradient)
    convolutions = [each for each in blocks if isinstance(each, nn.Conv2d)]
    norms = [each for each in blocks if isinstance(each, nn.BatchNorm2d)]
    for number, (conv, norm) in enumerate(zip(convolutions, norms, strict=True), start=1):
        for mine, other in (
            (found[f"conv{number}.weight"][0], conv.weight),
            (found[f"conv{number}.gamma"], norm.weight),
            (found[f"conv{number}.beta"], norm.bias),
        ):
            np.testing.assert_allclose(mine, other.grad.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["fc.weight"][0, :, :, 0, 0], fc.weight.grad, atol=1e-12)
    np.testing.assert_allclose(found["fc.bias"], fc.bias.grad, atol=1e-12)
