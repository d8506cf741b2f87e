"""What stands between convolutions, forward and backward: pure functions of arrays.

Activations are ``[channel, row, column, image]``, vectors ``[channel, image]``. A gradient has the
name of what it is the gradient of, with a ``d`` in front: ``dy`` is d(loss) / d(y). Nothing is
changed in place but what a function has made itself.

Functions of many passes work on a few channels at a time, which stay in the cache from the first
pass to the last.
"""

from energysim.train.ops.activations import (
    RELU6_TOP,
    activate,
    activate_backward,
    gelu,
    gelu_backward,
    positive,
    relu,
    relu6,
    relu6_backward,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    swish,
    swish_backward,
)
from energysim.train.ops.attention import (
    channel_softmax,
    channel_softmax_backward,
    matmul,
    matmul_backward,
)
from energysim.train.ops.blocks import channel_blocks
from energysim.train.ops.joins import (
    add,
    concat,
    concat_backward,
    multiply,
    multiply_backward,
    pick,
    pick_backward,
)
from energysim.train.ops.linear import add_bias, bias_gradient, linear, linear_backward
from energysim.train.ops.loss import cross_entropy, softmax
from energysim.train.ops.norms import (
    EPSILON,
    MOMENTUM,
    Statistics,
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    dots,
    layer_norm,
    layer_norm_backward,
)
from energysim.train.ops.pools import (
    average_pool,
    average_pool_backward,
    max_pool,
    max_pool_at,
    max_pool_backward,
)

__all__ = [
    "EPSILON",
    "MOMENTUM",
    "RELU6_TOP",
    "Statistics",
    "activate",
    "activate_backward",
    "add",
    "add_bias",
    "average_pool",
    "average_pool_backward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_inference",
    "bias_gradient",
    "channel_blocks",
    "channel_softmax",
    "channel_softmax_backward",
    "concat",
    "concat_backward",
    "cross_entropy",
    "dots",
    "gelu",
    "gelu_backward",
    "layer_norm",
    "layer_norm_backward",
    "linear",
    "linear_backward",
    "matmul",
    "matmul_backward",
    "max_pool",
    "max_pool_at",
    "max_pool_backward",
    "multiply",
    "multiply_backward",
    "pick",
    "pick_backward",
    "positive",
    "relu",
    "relu6",
    "relu6_backward",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "swish",
    "swish_backward",
]
