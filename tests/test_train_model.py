"""Networks as functions: gradients of whole losses, sizes, what can be trained and what can't."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from machines import looked_up
from trainable import (
    ATTENTION,
    CONVOLUTIONS,
    EVERY_KIND,
    JOINED,
    PATTERNED,
    PLAIN,
    images_for,
    network_of,
    own_masks,
)

from energysim.axes import Dim
from energysim.catalog import load_hardware, load_network, names
from energysim.errors import InputErrors
from energysim.network import Activation, LayerKind, Network, PoolMode, Scale
from energysim.sparsity import PATTERNS
from energysim.train import ops
from energysim.train.conv import Kind
from energysim.train.engine import Engine, check_zeros
from energysim.train.model import Model, Trace, Watch, heads_of, operands_of, untrainable
from energysim.train.optimiser import Method
from energysim.train.parameters import (
    WEIGHT,
    Init,
    Layout,
    live_weights,
    running_start,
    start,
)
from energysim.train.recipe import Recipe
from energysim.train.scratch import Floats

MOST_GRADIENT_ERROR = 1e-7
STEPS = (1e-3, 1e-4, 1e-5, 1e-6)
"""Of differences; a smaller one where kinks lie nearer."""

WITHOUT_CLASSES = ("unet", "vit_b_16_block")
"""Bundled networks that give no scores of classes."""


# -- gradients -------------------------------------------------------------------------------------


class Loss:
    """The loss of a network on some images, as a function of all that it learns."""

    def __init__(self, network: Network, *, images: int = 5, kind: Kind | None = None) -> None:
        self.model = Model.of(network, dtype=np.float64, batch=images, kind=kind)
        self.batch = images_for(network, images, dtype=np.float64)
        rng = np.random.default_rng(1)
        self.at = start(network, rng, dtype=np.float64)
        self.live = live_weights(network)
        # Biases and norms do not stay where they begin.
        self.at += 0.2 * rng.standard_normal(len(self.at)) * self.live

    def __call__(self, vector: Floats) -> tuple[float, Trace, Floats]:
        scores, trace = self.model.forward(self.model.layout.views(vector), self.batch.x)
        loss, dscores = ops.cross_entropy(scores, self.batch.y, smoothing=0.1)
        return loss, trace, dscores

    def gradient(self) -> Floats:
        _, trace, dscores = self(self.at)
        found = np.full_like(self.at, np.nan)
        self.model.backward(self.model.layout.views(self.at), trace, dscores, found)
        return found

    def slope(self, direction: Floats) -> float:
        """Derivative along a direction by central differences of fourth order.

        Points at which a ReLU or a maximum has changed sides are not compared: a kink between them
        is no error of a gradient. The step is made so small that there is none.
        """
        _, trace, _ = self(self.at)
        sides = list(self.sides(trace))
        for step in STEPS:
            seen = {each: self(self.at + each * step * direction) for each in (-2, -1, 1, 2)}
            if all(list(self.sides(trace)) == sides for _, trace, _ in seen.values()):
                loss = {each: found[0] for each, found in seen.items()}
                return (8 * (loss[1] - loss[-1]) - (loss[2] - loss[-2])) / (12 * step)
        pytest.fail(f"a kink nearer than {step}")

    def sides(self, trace: Trace) -> Iterator[bytes]:
        """On which side of each kink a pass stands."""
        for layer in self.model.network.layers:
            y = trace.outputs[layer.name]
            if layer.activation in (Activation.RELU, Activation.RELU6):
                yield ((y > 0) & (y < ops.RELU6_TOP)).tobytes()
            if layer.mode is PoolMode.MAX:
                (x,) = operands_of(layer, trace.outputs)
                yield ops.max_pool_backward(np.ones_like(y), x, y, layer.shape).tobytes()


def assert_gradients(loss: Loss, each: int = 3) -> None:
    """Compare some numbers of every array, and all of them at once along random directions."""
    found, rng = loss.gradient(), np.random.default_rng(2)
    assert not found[~loss.live].any()
    largest = abs(found).max()
    for slot in loss.model.layout.slots:
        some = np.arange(slot.start, slot.stop)[loss.live[slot.start : slot.stop]]
        # Where all of an array must be 0 (a bias before a batch norm), rounding is compared with
        # the gradients of the network.
        scale = max(abs(found[some]).max(), largest / 1000)
        for index in rng.choice(some, min(each, len(some)), replace=False):
            wanted = loss.slope(np.eye(1, len(found), index)[0])
            assert abs(found[index] - wanted) <= MOST_GRADIENT_ERROR * scale, slot.name
    for _ in range(2):
        direction = rng.standard_normal(len(found)) * loss.live
        wanted = loss.slope(direction / np.linalg.norm(direction))
        along = found @ direction / np.linalg.norm(direction)
        assert along == pytest.approx(wanted, rel=MOST_GRADIENT_ERROR, abs=largest * 1e-8)


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("text", [*EVERY_KIND, PLAIN], ids=lambda text: text.split()[1])
def test_gradients_of_every_kind_of_layer(text: str, images: int) -> None:
    """One image too: what is then laid out like its transpose must not be the same memory."""
    assert_gradients(Loss(network_of(text), images=images))


def test_small_networks_have_every_kind_of_layer_and_activation() -> None:
    layers = [layer for text in EVERY_KIND for layer in network_of(text).layers]
    # An update is no layer of a network, and a mixture norm has its own tests: its gradients hold
    # the posteriors as they are, which differences do not.
    others = {LayerKind.UPDATE, LayerKind.MIXTURE_NORM}
    assert {layer.kind for layer in layers} == set(LayerKind) - others
    assert {layer.activation for layer in layers} == set(Activation)
    assert any(layer.picked and layer.channels for layer in layers)
    assert any(layer.channels and not layer.picked for layer in layers)
    assert any(layer.bias and layer.batch_norm for layer in layers)


MASKS: dict[str, Callable[[Network], Network]] = {
    "dense": lambda net: net,
    **{
        name: lambda net, name=name: net.with_pattern(name)
        for name in ("PS4_P4", "PSD4_P8", "PS2_P6", "PS1_P9", "2:4")
    },
    "own masks": own_masks,
}


KERNELS = [
    (masks, kind)
    for masks in MASKS
    for kind in (Kind.DENSE, Kind.MASKED, Kind.GROUPED, Kind.WINOGRAD)
    if kind is Kind.WINOGRAD or (kind is Kind.DENSE) == (masks == "dense")
]


@pytest.mark.parametrize(("masks", "kind"), KERNELS)
def test_gradients_of_masks_by_every_kernel(masks: str, kind: Kind) -> None:
    network = MASKS[masks](network_of(PATTERNED))
    loss = Loss(network, images=3, kind=kind)
    assert loss.model.plans["square"].kind is kind
    assert_gradients(loss, each=2)


def test_heads_of_a_softmax() -> None:
    """Scores of an attention are summed head by head, even where something was added to them."""
    assert heads_of(network_of(ATTENTION)) == {"softmax": 2}
    text = PLAIN.replace("kind: pool", "kind: softmax").replace("kernel: global", "channels: 4")
    assert heads_of(network_of(text)) == {"pool": 1}
    model = Model.of(network_of(ATTENTION), dtype=np.float64)
    weights = model.layout.views(Loss(network_of(ATTENTION)).at)
    _, trace = model.forward(weights, images_for(model.network, 3).x.astype(np.float64))
    sums = trace.outputs["softmax"].reshape(2, 4, -1).sum(axis=1)
    np.testing.assert_allclose(sums, 1)


def test_attention_by_its_formula() -> None:
    network = network_of(ATTENTION)
    model = Model.of(network, dtype=np.float64)
    weights = model.layout.views(Loss(network).at)
    _, trace = model.forward(weights, images_for(network, 2, dtype=np.float64).x)
    query, key, value, places, attend = (
        trace.outputs[name].reshape(2, -1, 4, 2)  # head, channel, token, image
        for name in ("query", "key", "value", "places", "attend")
    )
    for head in range(2):
        for image in range(2):
            q, k, v = (each[head, :, :, image] for each in (query, key, value))
            scores = q.T @ k / np.sqrt(3) + places[head, :, :, image].T
            share = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            np.testing.assert_allclose(attend[head, :, :, image], (share @ v.T).T)


def test_transposed_by_its_definition() -> None:
    """Each input pixel becomes a patch of its own, as in a convolution's gradient."""
    network = network_of(JOINED)
    model = Model.of(network, dtype=np.float64)
    weights = model.layout.views(Loss(network).at)
    _, trace = model.forward(weights, images_for(network, 2, dtype=np.float64).x)
    x = trace.outputs["gated"]
    w = weights["grown.weight"].reshape(3, 2, 2, 8)  # channel, row and column of the patch, input
    y = np.zeros((3, 12, 12, 2))
    for row in range(2):
        for column in range(2):
            y[:, row::2, column::2] = np.einsum("kc,chwn->khwn", w[:, row, column], x)
    np.testing.assert_allclose(trace.before["grown"], y)


# -- inference -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", EVERY_KIND, ids=lambda text: text.split()[1])
def test_inference_is_forward_with_the_statistics_of_the_batch(text: str) -> None:
    loss = Loss(network_of(text))
    weights = loss.model.layout.views(loss.at)
    scores, trace = loss.model.forward(weights, loss.batch.x)
    running = running_start(loss.model.network, np.float64)
    before = loss.model.infer(weights, running, loss.batch.x)
    for name, seen in trace.statistics.items():
        running[f"{name}.mean"], running[f"{name}.variance"] = seen.mean, seen.variance
    after = loss.model.infer(weights, running, loss.batch.x)
    np.testing.assert_allclose(after, scores, rtol=1e-12, atol=1e-12)
    assert np.allclose(before, after) == (not trace.statistics)


def test_inference_of_an_image_does_not_depend_on_others() -> None:
    loss = Loss(network_of(JOINED))
    weights = loss.model.layout.views(loss.at)
    running = running_start(loss.model.network, np.float64)
    together = loss.model.infer(weights, running, loss.batch.x)
    alone = loss.model.infer(weights, running, loss.batch.x[..., 2:3])
    np.testing.assert_allclose(alone[:, 0], together[:, 2], rtol=1e-12, atol=1e-12)


def test_elements_that_are_not_zero_are_counted() -> None:
    network = network_of(PATTERNED)
    loss = Loss(network)
    watch, running = Watch(), running_start(network, np.float64)
    weights = loss.model.layout.views(loss.at)
    x = loss.batch.x.copy()
    x[:, 0] = 0
    loss.model.infer(weights, running, x, watch=watch)
    loss.model.infer(weights, running, x, watch=watch)
    assert watch.read["first"] == (2 * 3 * 5 * 6 * 5, 2 * 3 * 6 * 6 * 5)
    assert watch.read["square"] == watch.given["first"]
    live, total = watch.given["first"]
    assert total == 2 * 8 * 6 * 6 * 5
    assert 0 < live < total
    assert watch.given["scores"] == (2 * 4 * 5, 2 * 4 * 5)


# -- what a network learns -------------------------------------------------------------------------


def test_layout_has_every_number_once() -> None:
    for text in EVERY_KIND:
        network = network_of(text)
        layout = Layout.of(network)
        vector = np.arange(layout.total, dtype=np.float64)
        seen = np.concatenate([view.ravel() for view in layout.views(vector).values()])
        assert sorted(seen) == vector.tolist()
        assert layout.total == network.parameters
        weights = [slot for slot in layout.slots if slot.name.endswith(WEIGHT)]
        assert sum(slot.stop - slot.start for slot in weights) == layout.weights
        assert weights[-1].stop == layout.weights


def test_weights_are_stored_as_kernels_read_them() -> None:
    network = network_of(PATTERNED)
    model = Model.of(network)
    views = model.layout.views(start(network, np.random.default_rng(0)))
    for name, plan in model.plans.items():
        stored = plan.stored(views[f"{name}.weight"])
        held = [view.strides for view in (views[f"{name}.weight"], stored)]
        long = [axis for axis in range(5) if stored.shape[axis] > 1]
        assert [held[0][axis] for axis in long] == [held[1][axis] for axis in long]


@pytest.mark.parametrize("pattern", ["dense", "PS4_P4", "PSD2_P8"])
def test_weights_begin_with_the_variance_of_he(pattern: str) -> None:
    network = load_network("vgg16", scale=Scale(0.25)).with_pattern(pattern)
    views = Layout.of(network).views(start(network, np.random.default_rng(0), dtype=np.float64))
    for layer in network.layers:
        if layer.kind is LayerKind.CONV:
            w = views[f"{layer.name}.weight"]
            live = w[layer.mask.array()]
            wanted = 2 / (layer.weights / layer.output[0])
            assert live.var() == pytest.approx(wanted, rel=5 / np.sqrt(live.size))
            assert abs(live.mean()) <= 5 * np.sqrt(wanted / live.size)
            np.testing.assert_array_equal(views[f"{layer.name}.gamma"], 1)
            np.testing.assert_array_equal(views[f"{layer.name}.beta"], 0)
    fc = views[f"{network.layers[-1].name}.weight"]
    assert 0.9 < abs(fc).max() * np.sqrt(fc.shape[2]) <= 1


def test_weights_begin_as_the_authors_of_the_patterns_have_them() -> None:
    network = load_network("vgg16", scale=Scale(0.25)).with_pattern("PS4_P4")
    views = Layout.of(network).views(start(network, np.random.default_rng(0), Init.XAVIER))
    layer = network.layer("conv3_1")
    groups, filters, channels, height, width = views["conv3_1.weight"].shape
    bound = np.sqrt(6 / ((channels + filters) * height * width)) / 2
    live = views["conv3_1.weight"][layer.mask.array()]
    assert 0.98 * bound < abs(live).max() <= bound
    assert groups == 1
    np.testing.assert_array_equal(views["conv3_1.gamma"], 0.5)


def test_the_same_seed_starts_all_patterns_alike() -> None:
    dense = network_of(PATTERNED)
    sparse = dense.with_pattern("PS4_P4")
    plain, thin = (
        start(net, np.random.default_rng(3), dtype=np.float64) for net in (dense, sparse)
    )
    live = live_weights(sparse)
    layout = Layout.of(dense)
    for slot in layout.slots:
        some = slice(slot.start, slot.stop)
        kept = live[some]
        ratio = thin[some][kept & (plain[some] != 0)] / plain[some][kept & (plain[some] != 0)]
        if len(ratio):
            np.testing.assert_allclose(ratio, ratio[0])
            assert not thin[some][~kept].any()


# -- counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", ["vgg16", "resnet18"])
def test_as_many_parameters_and_products_as_the_simulator_counts(name: str, pattern: str) -> None:
    network = load_network(name).with_pattern(pattern)
    assert live_weights(network).sum() == network.parameters
    narrow = load_network(name, scale=Scale(0.03)).with_pattern(pattern)
    recipe = Recipe(batch=4, shards=1)
    engine = Engine(narrow, recipe, np.random.default_rng(0))
    assert counts(engine) == (narrow.parameters, narrow.effective_macs)
    engine.step([images_for(narrow, 4)], 0.1)
    assert counts(engine) == (narrow.parameters, narrow.effective_macs)


def counts(engine: Engine) -> tuple[int, int]:
    """Numbers that a network has learnt, and products with them for one image."""
    views = engine.model.layout.views(engine.weights)
    weights = {name: np.count_nonzero(views[f"{name}.weight"]) for name in engine.model.plans}
    others = sum(view.size for name, view in views.items() if not name.endswith(WEIGHT))
    products = sum(
        weights[name] * plan.shape[Dim.P] * plan.shape[Dim.Q]
        for name, plan in engine.model.plans.items()
    )
    return sum(weights.values()) + others, products


@pytest.mark.parametrize(
    ("name", "pattern"), [("vgg16", "PS4_P4"), ("resnet18", "dense"), ("vgg16", "PSD1_P16")]
)
def test_as_many_parameters_and_products_as_a_result_has(name: str, pattern: str) -> None:
    network = load_network(name, scale=Scale(0.03)).with_pattern(pattern)
    result = looked_up(network, load_hardware("edge_tpu")).to_dict()["totals"]
    engine = Engine(network, Recipe(), np.random.default_rng(0))
    assert counts(engine) == (result["parameters"], result["effective_macs"])


# -- every bundled network -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in names("nets") if name not in WITHOUT_CLASSES])
def test_every_bundled_network_learns(name: str) -> None:
    network = smallest(name)
    batch = images_for(network, 4)
    for method in Method:
        recipe = Recipe(batch=4, shards=1, optimiser=method, weight_decay=1e-3, decay_all=True)
        engine = Engine(network, recipe, np.random.default_rng(0))
        begun = engine.weights.copy()
        losses = [engine.step([batch], 1e-3).loss for _ in range(2)]
        assert np.isfinite(losses).all()
        assert np.isfinite(engine.weights).all()
        check_zeros(network, engine.weights)
        assert not np.array_equal(engine.weights, begun)
        assert np.isfinite(engine.evaluate([batch]).loss)


def smallest(name: str) -> Network:
    """A bundled network as narrow and for images as small as it can be."""
    for side in (16, 32):
        try:
            return load_network(name, scale=Scale(0.05, side, 10))
        except InputErrors:
            continue
    return load_network(name, scale=Scale(0.05, 96, 10))


@pytest.mark.parametrize("name", WITHOUT_CLASSES)
def test_networks_without_scores_of_classes_are_refused(name: str) -> None:
    with pytest.raises(InputErrors, match=r"not one score a class\. End it with a global pool"):
        Model.of(load_network(name))


def test_what_else_is_refused() -> None:
    two = PLAIN.replace("{name: scores,", "{name: aside, kind: linear, out: 2}\n  - {name: scores,")
    two = two.replace("scores, kind", "scores, input: pool, kind")
    assert "more than one output: nobody reads 'aside'" in untrainable(network_of(two))[0]
    ended = PLAIN + "  - {name: shares, kind: softmax}\n"
    with pytest.raises(InputErrors, match="ends with a softmax, 'shares'"):
        Model.of(network_of(ended))
    single = PLAIN.replace("out: 6}", "out: 1}")
    assert "gives 1 x 1 x 1 numbers" in untrainable(network_of(single))[0]
    assert untrainable(network_of(PLAIN)) == []


@pytest.mark.parametrize(
    "text", [ATTENTION, CONVOLUTIONS, JOINED, PATTERNED], ids=lambda text: text.split()[1]
)
def test_small_networks_learn_their_images_by_heart(text: str) -> None:
    network = network_of(text)
    recipe = Recipe(batch=12, shards=1, optimiser=Method.ADAM, weight_decay=0)
    engine = Engine(network, recipe, np.random.default_rng(0))
    batch = images_for(network, 12)
    losses = [engine.step([batch], 0.02).loss / 12 for _ in range(60)]
    assert losses[0] > 1
    assert losses[-1] < 0.1
    assert engine.step([batch], 0.0).first == 12


def test_a_linear_layer_reads_one_long_vector() -> None:
    """Channels first, then rows, then columns, as frameworks flatten."""
    network = network_of(PLAIN.replace("kind: pool, kernel: global", "kind: pool, kernel: 1"))
    model = Model.of(network, dtype=np.float64)
    weights = model.layout.views(Loss(network).at)
    scores, trace = model.forward(weights, images_for(network, 2, dtype=np.float64).x)
    for image in range(2):
        flat = trace.outputs["pool"][..., image].ravel()
        wanted = weights["scores.weight"].reshape(6, -1) @ flat + weights["scores.bias"]
        np.testing.assert_allclose(scores[:, image], wanted)
