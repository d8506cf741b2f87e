"""Small networks that together have every kind of layer, and images for them."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from energysim.network import Network, NetworkSpec, build_network
from energysim.train.data import Batch

CONVOLUTIONS = """
name: convolutions
source: a test
input: [3, 9, 8]
layers:
  - {name: strided, kind: conv, out: 6, kernel: [3, 2], stride: [2, 1], pad: [1, 0, 0, 1],
     activation: swish}
  - {name: dilated, kind: conv, out: 6, kernel: 3, dilation: 2, pad: 2, groups: 3, batch_norm: true}
  - {name: depthwise, kind: depthwise, kernel: 3, stride: 2, pad: same, activation: relu6}
  - {name: pool, kind: pool, kernel: 2, stride: 1}
  - {name: hidden, kind: linear, out: 7, activation: sigmoid}
  - {name: scores, kind: linear, out: 4, bias: false}
"""

JOINED = """
name: joined
source: a test
input: [4, 6, 6]
layers:
  - {name: stem, kind: conv, out: 8, kernel: 3, pad: 1, bias: false, batch_norm: true,
     activation: none}
  - {name: norm, kind: batch_norm}
  - {name: average, kind: pool, kernel: 3, stride: 1, pad: 1, mode: average}
  - {name: shuffled, kind: shuffle, input: [norm, average], groups: 2}
  - {name: left, kind: conv, input: shuffled, part: [1, 2], out: 8, kernel: 1, activation: gelu}
  - {name: right, kind: depthwise, input: shuffled, part: [2, 2], kernel: 3, pad: 1, bias: false}
  - {name: first, kind: conv, input: [left, stem], channels: 12, out: 8, kernel: 3, pad: 1}
  - {name: listed, kind: conv, input: norm, channels: [5, 0, 0, 2], out: 8, kernel: 1}
  - {name: sum, kind: add, input: [right, first, listed]}
  - {name: squeeze, kind: pool, kernel: global, mode: average}
  - {name: excite, kind: conv, out: 8, kernel: 1, activation: sigmoid}
  - {name: scaled, kind: multiply, input: [sum, excite]}
  - {name: gated, kind: multiply, input: [scaled, left], activation: swish}
  - {name: grown, kind: transposed, out: 3, kernel: 2, stride: 2, batch_norm: true}
  - {name: again, kind: conv, out: 5, kernel: 3, stride: 2, pad: [0, 1, 0, 1]}
  - {name: peak, kind: pool, kernel: global}
  - {name: scores, kind: linear, out: 5}
"""

ATTENTION = """
name: attention
source: a test
input: [2, 4, 4]
activation: none
layers:
  - {name: patches, kind: conv, out: 6, kernel: 2, stride: 2}
  - {name: norm1, kind: layer_norm}
  - {name: query, kind: conv, out: 6, kernel: 1}
  - {name: key, kind: conv, input: norm1, out: 6, kernel: 1}
  - {name: value, kind: conv, input: norm1, out: 6, kernel: 1}
  - {name: places, kind: conv, input: norm1, out: 8, kernel: 1}
  - {name: products, kind: matmul, input: [query, key], over: channels, groups: 2}
  - {name: placed, kind: add, input: [products, places]}
  - {name: softmax, kind: softmax}
  - {name: attend, kind: matmul, input: [softmax, value], over: positions, groups: 2}
  - {name: project, kind: conv, out: 6, kernel: 1}
  - {name: add1, kind: add, input: [project, patches]}
  - {name: norm2, kind: layer_norm}
  - {name: mlp1, kind: conv, out: 12, kernel: 1, activation: gelu}
  - {name: mlp2, kind: conv, out: 6, kernel: 1}
  - {name: add2, kind: add, input: [mlp2, add1]}
  - {name: mean, kind: pool, kernel: global, mode: average}
  - {name: scores, kind: linear, out: 3}
"""

PATTERNED = """
name: patterned
source: a test
input: [3, 6, 6]
layers:
  - {name: first, kind: conv, out: 8, kernel: 3, pad: 1, bias: false, batch_norm: true}
  - {name: square, kind: conv, out: 12, kernel: 3, pad: 1, bias: false, batch_norm: true}
  - {name: strided, kind: conv, out: 9, kernel: 3, stride: 2, pad: 1}
  - {name: pool, kind: pool, kernel: global, mode: average}
  - {name: scores, kind: linear, out: 4}
"""

PLAIN = """
name: plain
source: a test
input: [2, 5, 5]
layers:
  - {name: conv1, kind: conv, out: 8, kernel: 3, pad: 1}
  - {name: conv2, kind: conv, out: 6, kernel: 3}
  - {name: pool, kind: pool, kernel: global}
  - {name: scores, kind: linear, out: 6}
"""

EVERY_KIND = (CONVOLUTIONS, JOINED, ATTENTION)


def network_of(text: str) -> Network:
    """Build a network from the text of its file."""
    spec = NetworkSpec.model_validate_json(json.dumps(yaml.safe_load(text)))
    return build_network(spec, None, lambda name: pytest.fail(f"no base asked for, got {name}"))


def own_masks(network: Network) -> Network:
    """Give each convolution but the first a mask as pruning leaves it."""
    rng = np.random.default_rng(0)
    some = [layer for layer in network.layers if layer.stores_weights][1:]
    return network.with_masks(
        {layer.name: rng.random(layer.mask.array().shape) < 0.4 for layer in some}
    )


def images_for(
    network: Network, images: int, *, seed: int = 0, dtype: npt.DTypeLike = np.float32
) -> Batch:
    """Draw images and labels."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*network.input_size, images)).astype(dtype)
    return Batch(x, rng.integers(0, network.layers[-1].output[0], images))


def cut(batch: Batch, *ends: int) -> list[Batch]:
    """Shards of a batch, up to each of the ends and then to the last image."""
    starts = (0, *ends)
    return [
        Batch(np.ascontiguousarray(batch.x[..., start:end]), batch.y[start:end])
        for start, end in zip(starts, (*ends, len(batch.y)), strict=True)
    ]
