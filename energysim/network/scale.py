"""The same network narrower, for other images or for other classes, from its file."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import Any

from energysim.errors import InputError, InputErrors
from energysim.network.spec import (
    LIMIT,
    ConvSpec,
    LayerSpec,
    LinearSpec,
    NetworkSpec,
    TransposedSpec,
)

MULTIPLE = 8
"""Numbers of channels are rounded to multiples of this, as MobileNets are."""

LEAST_SHARE = 0.9
"""Rounding never takes away more than the rest of this share."""

Filters = ConvSpec | TransposedSpec | LinearSpec
"""Records of layers that say how many channels they produce."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How a network differs from its file; by default not at all.

    Raises
    ------
    InputError
        If the width is not positive, or there is not a pixel or a class.
    """

    width: float = 1.0
    """factor of all output channels but those of the last layer with weights"""
    side: int | None = None
    """height and width of the image, by default the file's [pixel]"""
    classes: int | None = None
    """outputs of the last layer with weights, by default the file's"""

    def __post_init__(self) -> None:
        if not 0 < self.width < float("inf"):
            raise InputError(f"the width must be a positive number, got {self.width}")
        for what, given in (("side", self.side), ("number of classes", self.classes)):
            if given is not None and not 1 <= given < LIMIT:
                raise InputError(f"the {what} must be 1 to {LIMIT - 1}, got {given}")

    def applied(self, spec: NetworkSpec) -> NetworkSpec:
        """The file as if its layers and input had the new sizes; a variant as it is.

        The name says what is different: ``vgg16-x0.25-64px-c100``.

        Raises
        ------
        InputErrors
            If layers read channels by number, which mean others at another width.
        """
        if spec.layers is None or self == Scale():
            return spec
        problems = self._misread(spec.layers)
        if problems:
            raise InputErrors(f"{spec.name}: {problem}" for problem in problems)
        return spec.model_copy(
            update={
                "name": f"{spec.name}{self.suffix(spec)}",
                "layers": self._layers(spec.layers),
                "input": self._input(spec),
            }
        )

    def suffix(self, spec: NetworkSpec) -> str:
        """What the name of a network gets behind it; nothing where nothing is different."""
        parts = []
        if self.width != 1:
            parts.append(f"-x{self.width:g}")
        if self._input(spec) != spec.input:
            parts.append(f"-{self.side}px")
        last = _last(spec.layers or ())
        if self.classes is not None and last is not None and last.out != self.classes:
            parts.append(f"-c{self.classes}")
        return "".join(parts)

    def _input(self, spec: NetworkSpec) -> tuple[int, int, int] | None:
        if spec.input is None or self.side is None:
            return spec.input
        return spec.input[0], self.side, self.side

    def _misread(self, layers: tuple[LayerSpec, ...]) -> list[str]:
        if self.width == 1:
            return []
        return [
            f"layer {layer.name!r} reads channels by number, which are others in a network of width"
            f" {self.width:g}. Give it a `part:` of them in place of `channels:`"
            for layer in layers
            if getattr(layer, "channels", None) is not None
        ]

    def _layers(self, layers: tuple[LayerSpec, ...]) -> tuple[LayerSpec, ...]:
        last = _last(layers)
        return tuple(self._layer(layer, is_last=layer is last) for layer in layers)

    def _layer(self, layer: LayerSpec, *, is_last: bool) -> LayerSpec:
        if not isinstance(layer, Filters):
            return layer
        changes: dict[str, Any] = {}
        if is_last:
            changes["out"] = self.classes or layer.out
        else:
            changes["out"] = narrowed(layer.out, self.width, getattr(layer, "groups", 1))
        return layer.model_copy(update=changes)


def _last(layers: tuple[LayerSpec, ...]) -> Filters | None:
    filters = [layer for layer in layers if isinstance(layer, Filters)]
    return filters[-1] if filters else None


def narrowed(channels: int, width: float, groups: int = 1) -> int:
    """Channels of a narrower or wider layer: a multiple of 8 and of the groups.

    References
    ----------
    Rounding as in the published code of M. Sandler et al., "MobileNetV2", CVPR 2018: to the nearest
    multiple, at least one, and one more where that would be below 90 % of what is wanted.

    Examples
    --------
    >>> [narrowed(channels, 0.25) for channels in (64, 24, 144, 8, 4)]
    [16, 8, 40, 8, 1]
    >>> narrowed(24, 1.0)
    24
    """
    if width == 1:
        return channels
    step = lcm(MULTIPLE, groups) if channels % MULTIPLE == 0 else groups
    wanted = channels * width
    found = max(step, int(wanted + step / 2) // step * step)
    return found + step if found < LEAST_SHARE * wanted else found
