"""Which channels a layer reads: joined, split and shuffled ones, followed to where they are made.

Nothing is moved for any of it. Each channel is read where its producer put it, so which of them are
read, and in which order, makes no difference to any count; it does to what a network learns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeVar

from energysim.network.report import Place
from energysim.network.types import Shuffle, Volume

Channel = tuple[str, int]
"""A layer, or the network's input, and the number of one of its channels."""

Part = tuple[int, int]
"""The i-th, from 1, of n equal parts."""

Wanted = int | tuple[int, ...] | None
"""The first so many channels, a list of them, or all."""

Each = TypeVar("Each")


@dataclass(frozen=True, slots=True)
class Reads:
    """What a layer reads, in terms of other layers."""

    inputs: tuple[str, ...]
    """layers, in the order in which their channels first appear"""
    channels: int | None
    """how many channels it reads of them, None where that is all of them"""
    picked: tuple[int, ...] | None
    """which, numbered over all inputs; None where it is the first ones in order"""

    @classmethod
    def of(cls, channels: Sequence[Channel], sizes: Mapping[str, int]) -> Reads:
        """Find the producers of a list of channels.

        A channel that appears again is that of another copy of its layer, as in a concatenation
        that names a layer twice.

        Parameters
        ----------
        channels : sequence of (str, int)
            In the order in which they are read.
        sizes : mapping of str to int
            Channels of each producer.

        Examples
        --------
        >>> Reads.of([("a", 0), ("b", 0), ("a", 1), ("b", 1)], {"a": 3, "b": 2})
        Reads(inputs=('a', 'b'), channels=4, picked=(0, 3, 1, 4))
        >>> Reads.of([("b", 0), ("b", 1)], {"a": 3, "b": 2})
        Reads(inputs=('b',), channels=None, picked=None)
        """
        seen = Counter[Channel]()
        copies = []
        for channel in channels:
            copies.append((channel[0], seen[channel]))
            seen[channel] += 1
        inputs = tuple(dict.fromkeys(copies))
        *starts, total = accumulate((sizes[name] for name, _ in inputs), initial=0)
        start = dict(zip(inputs, starts, strict=True))
        picked = tuple(
            start[copy] + number for copy, (_, number) in zip(copies, channels, strict=True)
        )
        return cls(
            tuple(name for name, _ in inputs),
            None if len(picked) == total else len(picked),
            None if picked == tuple(range(len(picked))) else picked,
        )


@dataclass(slots=True)
class Wiring:
    """The channels that each name stands for, as far as the file has been read."""

    widths: dict[str, int]
    """channels of each layer, and of the network's input"""
    shuffles: dict[str, tuple[Channel, ...]] = field(default_factory=dict)
    """what each shuffle deals out"""

    def take_up(self, shuffle: Shuffle) -> None:
        """Know a shuffle, which must fit what it reads."""
        every = self.joined(shuffle.inputs)
        numbers = numbers_of(shuffle.channels, shuffle.part, len(every))
        found = dealt([every[number] for number in numbers], shuffle.groups)
        self.shuffles[shuffle.name] = found

    def joined(self, names: Sequence[str]) -> list[Channel]:
        """The channels of several layers and shuffles, one behind the other."""
        return [channel for name in names for channel in self._of(name)]

    def _of(self, name: str) -> Sequence[Channel]:
        if name in self.shuffles:
            return self.shuffles[name]
        return [(name, number) for number in range(self.widths[name])]


def dealt(channels: Sequence[Each], groups: int) -> tuple[Each, ...]:
    """Cut channels into groups and deal them out in turn: a channel shuffle.

    Channel j of group i becomes channel ``j * groups + i``; ``groups`` must divide them.

    References
    ----------
    X. Zhang, X. Zhou, M. Lin, J. Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural
    Network for Mobile Devices", CVPR 2018, section 3.1.

    Examples
    --------
    >>> dealt("abcdef", 2), dealt("abcdef", 3)
    (('a', 'd', 'b', 'e', 'c', 'f'), ('a', 'c', 'e', 'b', 'd', 'f'))
    """
    size = len(channels) // groups
    return tuple(channels[i * size + j] for j in range(size) for i in range(groups))


def numbers_of(wanted: Wanted, part: Part | None, total: int) -> Sequence[int]:
    """Numbers of the channels that a record reads of so many joined ones.

    Examples
    --------
    >>> numbers_of(None, (2, 3), 6), numbers_of(2, None, 6), numbers_of((5, 0), None, 6)
    (range(2, 4), range(0, 2), (5, 0))
    """
    if part is not None:
        which, parts = part
        size = total // parts
        return range((which - 1) * size, which * size)
    if isinstance(wanted, tuple):
        return wanted
    return range(total if wanted is None else wanted)


def misread(wanted: Wanted, part: Part | None, total: int) -> tuple[str, str] | None:
    """The field of a record that asks for channels that are not there, and what is wrong."""
    if part is not None:
        which, parts = part
        if wanted is not None:
            return "part", "reads a `part:` of the channels or some `channels:`, not both"
        if which > parts:
            return "part", f"[i, n] is the i-th of n parts, i from 1 to n, got {list(part)}"
        if total % parts:
            return "part", f"{total} channels can't be cut into {parts} equal parts"
    elif isinstance(wanted, tuple):
        if max(wanted) >= total:
            return "channels", f"there are channels 0 to {total - 1} to read, got {max(wanted)}"
    elif wanted is not None and wanted > total:
        return "channels", f"there are {total} channels to read, got {wanted}"
    return None


def volume_read(inputs: Sequence[str], sizes: Sequence[Volume], at: Place) -> Volume | None:
    """Size of all inputs joined; None where they have no common height and width."""
    _, height, width = sizes[0]
    if any(size[1:] != (height, width) for size in sizes):
        at.problem(
            "input",
            "height and width of layers that are read together must be equal, got"
            f" {operands(inputs, sizes)}",
        )
        return None
    return sum(size[0] for size in sizes), height, width


def operands(inputs: Sequence[str], sizes: Sequence[Volume]) -> str:
    """Layers with their sizes, as messages list them."""
    return ", ".join(f"{name!r} {list(size)}" for name, size in zip(inputs, sizes, strict=True))
