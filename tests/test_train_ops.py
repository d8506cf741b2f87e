"""Operations between convolutions: what they compute, and gradients by central differences."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import erf, erfc

import numpy as np
import pytest
from machines import network

from energysim.axes import Dim, Shape
from energysim.errors import InputError
from energysim.network import Activation, Over
from energysim.train import ops
from energysim.train.normal import LARGE, SMALL, normal_density, normal_distribution
from energysim.train.normal import erfc as own_erfc
from energysim.train.ops import Statistics, blocks
from energysim.train.scratch import Floats, scratch

MOST_GRADIENT_ERROR = 1e-7


def normal(*dims: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(dims)


def differences(loss: Callable[[], float], at: Floats, step: float = 1e-5) -> Floats:
    """Central differences of a scalar by every element of an array."""
    found = np.empty_like(at)
    for index in np.ndindex(at.shape):
        kept = at[index]
        at[index] = kept + step
        up = loss()
        at[index] = kept - step
        found[index] = (up - loss()) / (2 * step)
        at[index] = kept
    return found


def assert_gradient(operation: Callable[[], Floats], at: Floats, dy: Floats, found: Floats) -> None:
    wanted = differences(lambda: float((operation() * dy).sum()), at)
    assert abs(found - wanted).max() <= MOST_GRADIENT_ERROR


def pool(
    kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], size: tuple[int, int]
) -> Shape:
    out = [(size[i] + 2 * pad[i] - kernel[i]) // stride[i] + 1 for i in (0, 1)]
    return Shape((1, 3, 1, 1, *out, *kernel), stride=stride, pad=pad, size=size)


POOLS = [
    pool((2, 2), (2, 2), (0, 0), (6, 4)),
    pool((3, 3), (2, 2), (1, 1), (7, 6)),
    pool((3, 2), (1, 2), (1, 0), (5, 5)),
    pool((4, 5), (4, 5), (0, 0), (4, 5)),
    pool((2, 2), (3, 3), (0, 0), (7, 7)),
]


def windows(x: Floats, shape: Shape) -> list[list[Floats]]:
    """Elements of each window inside the image, in the order of the output."""
    found = []
    for p, q in product(range(shape[Dim.P]), range(shape[Dim.Q])):
        rows, columns = (
            [
                place * shape.stride[i] + tap - shape.pad[i]
                for tap in range(shape[kernel])
                if 0 <= place * shape.stride[i] + tap - shape.pad[i] < shape.size[i]
            ]
            for i, (place, kernel) in enumerate(((p, Dim.R), (q, Dim.S)))
        )
        found.append([x[:, h, w] for h in rows for w in columns])
    return found


# -- linear ----------------------------------------------------------------------------------------


def test_linear() -> None:
    x, w, b, dy = normal(5, 4), normal(3, 5, seed=1), normal(3, seed=2), normal(3, 4, seed=3)
    dx, dw, db = ops.linear_backward(dy, x, w)
    for at, found in ((x, dx), (w, dw), (b, db)):
        assert_gradient(lambda: ops.linear(x, w, b), at, dy, found)
    np.testing.assert_allclose(ops.linear(x, w), ops.linear(x, w, 0 * b))


def test_bias_of_images() -> None:
    y = normal(3, 2, 4, 5)
    b = normal(3)
    np.testing.assert_allclose(ops.add_bias(y, b)[1], y[1] + b[1])
    np.testing.assert_allclose(ops.bias_gradient(y), y.sum(axis=(1, 2, 3)))


# -- batch normalisation ---------------------------------------------------------------------------


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dims", [(3, 2, 3, 4), (4, 6)])
def test_batch_norm(relu: bool, dims: tuple[int, ...]) -> None:
    x, dy = normal(*dims) * 2 + 1, normal(*dims, seed=1)
    gamma, beta = normal(dims[0], seed=2), normal(dims[0], seed=3)
    y, batch = ops.batch_norm(x, gamma, beta, relu=relu)
    flat = x.reshape(dims[0], -1)
    np.testing.assert_allclose(batch.mean, flat.mean(axis=1))
    np.testing.assert_allclose(batch.variance, flat.var(axis=1))
    unit = (flat - flat.mean(axis=1)[:, None]) / np.sqrt(flat.var(axis=1) + ops.EPSILON)[:, None]
    plain = (unit * gamma[:, None] + beta[:, None]).reshape(dims)
    np.testing.assert_allclose(y, np.maximum(plain, 0) if relu else plain, atol=1e-12)
    gradients = ops.batch_norm_backward(dy, x, y, gamma, batch, relu=relu)
    for at, found in zip((x, gamma, beta), gradients, strict=True):
        assert_gradient(lambda: ops.batch_norm(x, gamma, beta, relu=relu)[0], at, dy, found)


def test_batch_norm_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, gamma, beta = normal(7, 3, 3, 2), normal(7, seed=1), normal(7, seed=2)
    whole = ops.batch_norm(x, gamma, beta)
    back = ops.batch_norm_backward(x, x, whole[0], gamma, whole[1])
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 300)
    cut = ops.batch_norm(x, gamma, beta)
    np.testing.assert_allclose(whole[0], cut[0])
    for one, other in zip(back, ops.batch_norm_backward(x, x, cut[0], gamma, cut[1]), strict=True):
        np.testing.assert_allclose(one, other)


@pytest.mark.parametrize("relu", [False, True])
def test_running_statistics_become_those_of_the_images(relu: bool) -> None:
    x = normal(3, 4, 4, 50) * 3 + 2
    gamma, beta = normal(3, seed=1), normal(3, seed=2)
    y, batch = ops.batch_norm(x, gamma, beta, relu=relu)
    running = Statistics.start(3, np.float64)
    for _ in range(200):
        running = running.moved(batch, x[0].size)
    np.testing.assert_allclose(running.variance, x.reshape(3, -1).var(axis=1, ddof=1))
    found = ops.batch_norm_inference(x, gamma, beta, running, relu=relu)
    np.testing.assert_allclose(found, y, atol=1e-2)


def test_constant_channel_has_no_nan() -> None:
    x = np.full((1, 2, 2, 3), 1e4, np.float32)
    one = np.ones(1, np.float32)
    y, batch = ops.batch_norm(x, one, 0 * one)
    dx, _, _ = ops.batch_norm_backward(np.ones_like(x), x, y, one, batch)
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()


# -- layer normalisation ---------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, blocks.BLOCK_BYTES])
@pytest.mark.parametrize("dims", [(5, 2, 3, 4), (4, 33)])
def test_layer_norm(dims: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block)
    x, dy = normal(*dims) * 2 + 1, normal(*dims, seed=1)
    gamma, beta = normal(dims[0], seed=2), normal(dims[0], seed=3)
    y = ops.layer_norm(x, gamma, beta)
    for index in np.ndindex(dims[1:]):
        token = x[:, *index]
        unit = (token - token.mean()) / np.sqrt(token.var() + ops.EPSILON)
        np.testing.assert_allclose(y[:, *index], unit * gamma + beta, rtol=1e-12, atol=1e-12)
    gradients = ops.layer_norm_backward(dy, x, gamma)
    for at, found in zip((x, gamma, beta), gradients, strict=True):
        assert_gradient(lambda: ops.layer_norm(x, gamma, beta), at, dy, found)


# -- activation functions --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Activation)
def test_activations(kind: Activation) -> None:
    x, dy = normal(3, 2, 2, 3) * 4, normal(3, 2, 2, 3, seed=1)
    y = ops.activate(kind, x)
    found = ops.activate_backward(kind, dy, x, y)
    assert_gradient(lambda: ops.activate(kind, x), x, dy, found)


def test_activations_at_the_ends() -> None:
    x = np.array([-1e4, -50.0, 0.0, 6.0, 50.0, 1e4], np.float32)
    assert ops.sigmoid(x).tolist()[-1] == 1
    np.testing.assert_allclose(ops.sigmoid(x)[1], np.exp(-50), rtol=1e-5)
    assert ops.sigmoid(x).dtype == np.float32
    np.testing.assert_allclose(ops.swish(x), [0, -50 * np.exp(-50), 0, 5.98516, 50, 1e4], rtol=1e-5)
    assert ops.relu6(x).tolist() == [0, 0, 0, 6, 6, 6]
    assert ops.relu_backward(np.ones_like(x), ops.relu(x)).tolist() == [0, 0, 0, 1, 1, 1]
    assert not ops.relu6_backward(np.ones_like(x), ops.relu6(x)).any()
    assert ops.gelu(x).tolist() == [0, 0, 0, 6, 50, 1e4]
    assert ops.gelu_backward(np.ones_like(x), x).round(5).tolist() == [0, 0, 0.5, 1, 1, 1]
    assert ops.gelu(x).dtype == ops.gelu_backward(x, x).dtype == np.float32


def test_no_activation_changes_nothing() -> None:
    x, dy = normal(3, 2), normal(3, 2, seed=1)
    assert ops.activate(Activation.NONE, x) is x
    assert ops.activate_backward(Activation.NONE, dy, x, x) is dy


def test_complementary_error_function() -> None:
    """Beside that of the standard library, also where its three approximations meet."""
    ends = [np.nextafter(each, side) for each in (SMALL, LARGE) for side in (0, 10)]
    y = np.concatenate([np.linspace(0, 26, 20011), ends, [SMALL, LARGE, 5e-324]])
    wanted = [erfc(each) for each in y]
    np.testing.assert_allclose(own_erfc(y), wanted, rtol=2e-13)
    near = y < 2
    np.testing.assert_allclose(own_erfc(y)[near], np.array(wanted)[near], rtol=2e-15)
    single = own_erfc(y.astype(np.float32))
    assert single.dtype == np.float32
    assert abs(single - wanted).max() <= 2e-7
    assert not own_erfc(np.array([28.0, 1e30], np.float32)).any()


def test_normal_distribution() -> None:
    x = np.linspace(-12, 12, 4801)
    wanted = np.array([(1 + erf(each / 2**0.5)) / 2 for each in x])
    assert abs(normal_distribution(x) - wanted).max() <= 4e-16
    tail = np.linspace(-30, -5, 101)
    wanted = np.array([erfc(-each / 2**0.5) / 2 for each in tail])
    np.testing.assert_allclose(normal_distribution(tail), wanted, rtol=2e-13)
    step = 1e-5
    slope = (normal_distribution(x + step) - normal_distribution(x - step)) / (2 * step)
    assert abs(normal_density(x) - slope).max() <= 1e-10


# -- pooling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", POOLS, ids=str)
def test_pools(shape: Shape) -> None:
    x = normal(3, *shape.size, 2)
    y = ops.max_pool(x, shape)
    dy = normal(*y.shape, seed=1)
    seen = windows(x, shape)
    largest = np.stack([np.max(each, axis=0) for each in seen], axis=1)
    np.testing.assert_array_equal(y, largest.reshape(y.shape))
    found = ops.max_pool_backward(dy, x, y, shape)
    assert_gradient(lambda: ops.max_pool(x, shape), x, dy, found)
    np.testing.assert_array_equal(ops.max_pool_at(x, x, y, shape), y)
    # taking elements and sending gradients to them are each other's transpose
    other = np.random.default_rng(1).standard_normal(x.shape)
    taken = ops.max_pool_at(other, x, y, shape)
    assert (taken * dy).sum() == pytest.approx((other * found).sum())
    for count_padding in (False, True):
        size = shape[Dim.R] * shape[Dim.S]
        means = [np.sum(each, axis=0) / (size if count_padding else len(each)) for each in seen]
        mean = ops.average_pool(x, shape, count_padding=count_padding)
        np.testing.assert_allclose(mean, np.stack(means, axis=1).reshape(y.shape))
        found = ops.average_pool_backward(dy, shape, count_padding=count_padding)
        assert_gradient(
            lambda flag=count_padding: ops.average_pool(x, shape, count_padding=flag), x, dy, found
        )


def test_equal_largest_elements_share_nothing() -> None:
    """All of the gradient goes to the first: what enters is what leaves."""
    shape = pool((3, 3), (2, 2), (1, 1), (7, 7))
    x = np.random.default_rng(0).integers(0, 2, (3, 7, 7, 4)).astype(np.float32)
    y = ops.max_pool(x, shape)
    dy = normal(*y.shape).astype(np.float32)
    dx = ops.max_pool_backward(dy, x, y, shape)
    np.testing.assert_allclose(dx.sum(axis=(1, 2)), dy.sum(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    single = pool((2, 2), (2, 2), (0, 0), (2, 2))
    equal = ops.max_pool_backward(
        np.ones((1, 1, 1, 1)), np.zeros((1, 2, 2, 1)), np.zeros((1, 1, 1, 1)), single
    )
    assert equal.ravel().tolist() == [1, 0, 0, 0]


# -- joining and reordering ------------------------------------------------------------------------


def test_add() -> None:
    a, b, c = normal(2, 3), normal(2, 3, seed=1), normal(2, 3, seed=2)
    kept = a.copy()
    np.testing.assert_allclose(ops.add([a, b, c]), a + b + c)
    np.testing.assert_allclose(ops.add([a]), a)
    assert ops.add([a]) is not a
    np.testing.assert_array_equal(a, kept)


def test_concat() -> None:
    a, b = normal(2, 2, 2, 3), normal(5, 2, 2, 3)
    y = ops.concat([a, b])
    assert y.shape == (7, 2, 2, 3)
    first, second = ops.concat_backward(y, [2, 5])
    np.testing.assert_array_equal(first, a)
    np.testing.assert_array_equal(second, b)


@pytest.mark.parametrize("channels", [[3, 1, 0], [2, 2, 0, 2], [], list(range(5))])
def test_pick(channels: list[int]) -> None:
    x, wanted = normal(5, 2, 1, 3), np.array(channels, dtype=np.int64)
    y = ops.pick(x, wanted)
    assert y.shape == (len(channels), 2, 1, 3)
    for mine, channel in zip(y, channels, strict=True):
        np.testing.assert_array_equal(mine, x[channel])
    dy = normal(*y.shape, seed=1)
    found = ops.pick_backward(dy, wanted, 5)
    assert_gradient(lambda: ops.pick(x, wanted), x, dy, found)


@pytest.mark.parametrize("channel", [-1, 4])
def test_pick_needs_channels_that_are_there(channel: int) -> None:
    message = f"channels to pick must be 0 to 3, got {channel}"
    with pytest.raises(InputError, match=message):
        ops.pick(normal(4, 1), np.array([0, channel]))
    with pytest.raises(InputError, match=message):
        ops.pick_backward(normal(2, 1), np.array([0, channel]), 4)


# -- attention -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, blocks.BLOCK_BYTES])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_channel_softmax(groups: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block)
    x, dy = normal(6, 4, 3, 2) * 3, normal(6, 4, 3, 2, seed=1)
    y = ops.channel_softmax(x, groups)
    each = 6 // groups
    for g, h, w, n in product(range(groups), range(4), range(3), range(2)):
        powers = np.exp(x[g * each : (g + 1) * each, h, w, n])
        np.testing.assert_allclose(y[g * each : (g + 1) * each, h, w, n], powers / powers.sum())
    found = ops.channel_softmax_backward(dy, y, groups)
    assert_gradient(lambda: ops.channel_softmax(x, groups), x, dy, found)


def test_channel_softmax_of_large_scores() -> None:
    x = np.array([1e4, -1e4, 1e4, 1e4], np.float32).reshape(4, 1, 1, 1)
    assert ops.channel_softmax(x, 2).ravel().tolist() == [1, 0, 0.5, 0.5]


def test_channel_softmax_needs_groups_that_divide() -> None:
    with pytest.raises(InputError, match="must divide the 6 channels, got 4"):
        ops.channel_softmax(normal(6, 1, 1, 1), 4)
    with pytest.raises(InputError, match="must divide the 6 channels, got 0"):
        ops.channel_softmax_backward(normal(6, 1, 1, 1), normal(6, 1, 1, 1), 0)


def products(a: Floats, b: Floats, over: Over, groups: int) -> Floats:
    """What a matmul layer means, multiplication by multiplication."""
    (_, height, width, batch), (second, rows, columns, _) = a.shape, b.shape
    positions, depth = rows * columns, second // groups
    wide, deep = (positions, depth) if over is Over.CHANNELS else (depth, positions)
    y = np.zeros((groups * wide, height, width, batch))
    for g, k, c in product(range(groups), range(wide), range(deep)):
        channel, position = (c, k) if over is Over.CHANNELS else (k, c)
        weight = b[g * depth + channel, position // columns, position % columns]
        y[g * wide + k] += a[g * deep + c] * weight
    return y


@pytest.mark.parametrize("over", Over)
@pytest.mark.parametrize("groups", [1, 3])
def test_matmul(over: Over, groups: int) -> None:
    second = (6, 2, 2, 3)
    summed = second[0] if over is Over.CHANNELS else groups * 4
    a, b = normal(summed, 5, 1, 3), normal(*second, seed=1)
    y = ops.matmul(a, b, over=over, groups=groups, factor=0.5)
    np.testing.assert_allclose(y, products(a, b, over, groups) / 2, atol=1e-12)
    np.testing.assert_allclose(ops.matmul(a, b, over=over, groups=groups), 2 * y)
    dy = normal(*y.shape, seed=2)
    da, db = ops.matmul_backward(dy, a, b, over=over, groups=groups, factor=0.5)
    for at, found in ((a, da), (b, db)):
        assert_gradient(
            lambda: ops.matmul(a, b, over=over, groups=groups, factor=0.5), at, dy, found
        )


@pytest.mark.parametrize("over", Over)
def test_matmul_has_the_size_that_its_layer_says(over: Over) -> None:
    summed = {Over.CHANNELS: 6, Over.POSITIONS: 8}[over]
    net = network(
        {"name": "first", "kind": "conv", "out": summed, "kernel": 1},
        {"name": "narrow", "kind": "conv", "input": "input", "out": 6, "kernel": 1},
        {"name": "second", "kind": "pool", "kernel": [3, 2], "stride": [2, 2]},
        {"name": "y", "kind": "matmul", "input": ["first", "second"], "over": over.value}
        | {"groups": 2},
        size=(3, 5, 4),
    )
    first, second, layer = (net.layer(name) for name in ("first", "second", "y"))
    a, b = (normal(*each.output, 2) for each in (first, second))
    y = ops.matmul(a, b, over=over, groups=layer.shape[Dim.G])
    assert y.shape == (*layer.output, 2)


def test_matmul_needs_operands_that_fit() -> None:
    a, b = normal(6, 2, 2, 3), normal(6, 2, 2, 3)
    with pytest.raises(InputError, match=r"no product over positions in 3 group"):
        ops.matmul(a, b, over=Over.POSITIONS, groups=3)
    with pytest.raises(InputError, match=r"\[6, 2, 2, 3\] and \[4, 2, 2, 3\] have no product"):
        ops.matmul(a, b[:4], over=Over.CHANNELS, groups=2)
    with pytest.raises(InputError, match=r"\[6, 2, 2, 3\] and \[6, 2, 2, 2\] have no product"):
        ops.matmul(a, b[..., :2], over=Over.CHANNELS)
    with pytest.raises(InputError, match="must divide the 6 channels, got 4"):
        ops.matmul(a, b, over=Over.CHANNELS, groups=4)


# -- loss ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing: float) -> None:
    logits, labels = normal(5, 6) * 3, np.array([0, 4, 2, 2, 1, 3])
    loss, found = ops.cross_entropy(logits, labels, smoothing=smoothing)
    target = np.full((5, 6), smoothing / 5)
    target[labels, range(6)] += 1 - smoothing
    wanted = -(target * np.log(ops.softmax(logits))).sum(axis=0).mean()
    assert loss == pytest.approx(wanted)
    by_logits = differences(
        lambda: ops.cross_entropy(logits, labels, smoothing=smoothing)[0], logits
    )
    assert abs(found - by_logits).max() <= MOST_GRADIENT_ERROR


def test_cross_entropy_of_large_logits() -> None:
    logits = np.array([[1e4], [-1e4]], np.float32)
    loss, dlogits = ops.cross_entropy(logits, np.array([1]), smoothing=0.0)
    assert loss == pytest.approx(2e4)
    assert dlogits.dtype == np.float32
    assert dlogits.ravel().tolist() == [1, -1]
    np.testing.assert_allclose(ops.softmax(logits).sum(axis=0), 1)


def test_scratch_is_lent_again() -> None:
    first = scratch("test", (4, 5), np.float32)
    second = scratch("test", (2, 3), np.float64)
    assert np.shares_memory(first, second)
    assert not np.shares_memory(first, scratch("test of another use", (4, 5), np.float32))
    assert first.ctypes.data % 64 == 0


# -- against torch ---------------------------------------------------------------------------------


def test_as_torch() -> None:
    torch = pytest.importorskip("torch")
    function = torch.nn.functional
    x = normal(6, 8, 8, 5).astype(np.float32)
    gamma, beta = np.ones(6, np.float32), np.zeros(6, np.float32)
    images = torch.tensor(x.transpose(3, 0, 1, 2).copy(), requires_grad=True)

    def assert_same(found: Floats, given: Floats, y: object, dy: Floats) -> None:
        images.grad = None
        y.backward(torch.tensor(dy.transpose(3, 0, 1, 2).copy()))  # type: ignore[attr-defined]
        pairs = ((found, y.detach()), (given, images.grad))  # type: ignore[attr-defined]
        for mine, theirs in pairs:
            wanted = theirs.numpy().transpose(1, 2, 3, 0)
            assert abs(mine - wanted).max() <= 1e-4 * max(1, abs(wanted).max())

    y, batch = ops.batch_norm(x, gamma, beta, relu=True)
    dx, _, _ = ops.batch_norm_backward(x, x, y, gamma, batch, relu=True)
    assert_same(y, dx, function.batch_norm(images, None, None, training=True).relu(), x)
    shape = pool((3, 3), (2, 2), (1, 1), (8, 8))
    y = ops.max_pool(x, shape)
    dx = ops.max_pool_backward(y, x, y, shape)
    assert_same(y, dx, function.max_pool2d(images, 3, 2, 1), y)
    y = ops.average_pool(x, shape, count_padding=True)
    dx = ops.average_pool_backward(y, shape, count_padding=True)
    assert_same(y, dx, function.avg_pool2d(images, 3, 2, 1), y)


def test_attention_as_torch() -> None:
    """Norm, heads of scaled dot products and GELU, together and backward."""
    torch = pytest.importorskip("torch")
    function = torch.nn.functional
    heads, depth, tokens, images = 3, 4, 7, 5
    channels = heads * depth
    given = [normal(channels, tokens, 1, images, seed=i).astype(np.float32) for i in range(3)]
    gamma, beta = (normal(channels, seed=i).astype(np.float32) for i in (3, 4))
    dy = normal(channels, tokens, 1, images, seed=5).astype(np.float32)

    def theirs(x: Floats) -> Floats:
        return np.ascontiguousarray(x[:, :, 0].transpose(2, 1, 0))  # image, token, channel

    leaves = [torch.tensor(theirs(x), requires_grad=True) for x in given]
    shared = [torch.tensor(each, requires_grad=True) for each in (gamma, beta)]
    normed = function.layer_norm(leaves[0], (channels,), *shared)
    query, key, value = (
        each.reshape(images, tokens, heads, depth).transpose(1, 2) for each in (normed, *leaves[1:])
    )
    attended = function.scaled_dot_product_attention(query, key, value)
    wanted = function.gelu(attended.transpose(1, 2).reshape(images, tokens, channels))
    wanted.backward(torch.tensor(theirs(dy)))

    x, key_, value_ = given
    unit = ops.layer_norm(x, gamma, beta)
    scores = ops.matmul(unit, key_, over=Over.CHANNELS, groups=heads, factor=depth**-0.5)
    weights = ops.channel_softmax(scores, heads)
    found = ops.matmul(weights, value_, over=Over.POSITIONS, groups=heads)
    y = ops.gelu(found)
    dfound = ops.gelu_backward(dy, found)
    dweights, dvalue = ops.matmul_backward(
        dfound, weights, value_, over=Over.POSITIONS, groups=heads
    )
    dscores = ops.channel_softmax_backward(dweights, weights, heads)
    dunit, dkey = ops.matmul_backward(
        dscores, unit, key_, over=Over.CHANNELS, groups=heads, factor=depth**-0.5
    )
    dx, dgamma, dbeta = ops.layer_norm_backward(dunit, x, gamma)
    pairs = [(theirs(y), wanted.detach()), (dgamma, shared[0].grad), (dbeta, shared[1].grad)]
    pairs += [(theirs(d), leaf.grad) for d, leaf in zip((dx, dkey, dvalue), leaves, strict=True)]
    for mine, other in pairs:
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, other.numpy(), rtol=1e-4, atol=1e-5)
