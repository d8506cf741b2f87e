"""The accelerator as a user describes it: arithmetic, array, memory levels, and their sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import prod
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from energysim.axes import Dim, Tensor
from energysim.errors import InputError, did_you_mean
from energysim.sparsity import RUN_BITS
from energysim.units import BITS_PER_BYTE, BITS_PER_KIB

Problem = tuple[tuple[str | int, ...], str]
"""Where in a block (field names and list indices), and what is wrong there."""

TensorWord = Literal["weight", "input", "output"]
DimWord = Literal["N", "G", "K", "C", "P", "Q", "R", "S"]
FormatWord = Literal["dense", "csr", "periodic", "bitmap", "rle", "cp", "nm"]
OrderWord = Literal["natural", "by_slot", "auto"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
AxisName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]
Energy = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Width = Annotated[int, Field(ge=1, le=64)]
# The limits below keep every product of sizes inside 64-bit integers.
AxisSize = Annotated[int, Field(ge=1, le=2**15)]
Kib = Annotated[float, Field(gt=0, le=2**40)]
Bytes = Annotated[int, Field(ge=1, le=2**50)]

RESERVED_LEVELS = ("MAC", "vector", "NoC", "static")
"""Words that stand in the ``level`` column for parts that are no memory."""


def _one_or_each(value: object) -> str:
    return "per_tensor" if isinstance(value, dict) else "number"


class _Block(BaseModel):
    """A part of the description; what fields say together is checked after each of them."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _refuse_problems(self) -> Self:
        problems = list(self._problems())
        if problems:
            text = "; ".join(f"{'.'.join(map(str, loc))}: {message}" for loc, message in problems)
            raise PydanticCustomError("problems", "{text}", {"text": text, "problems": problems})
        return self

    def _problems(self) -> Iterator[Problem]:
        words = [name for name in type(self).model_fields if name not in _NOT_VALUES]
        for i, word in enumerate(getattr(self, "assumed", ())):
            if word not in words:
                hint = did_you_mean(word, words) or f" Allowed: {', '.join(words)}"
                yield ("assumed", i), f"no field named '{word}' here.{hint}"


_NOT_VALUES = frozenset({"name", "source", "note", "assumed"})


def _repeated(field: str, words: Iterable[str]) -> Iterator[Problem]:
    seen: set[str] = set()
    for i, word in enumerate(words):
        if word in seen:
            yield (field, i), f"'{word}' stands here twice"
        seen.add(word)


class Bits(_Block):
    """Widths of the numbers."""

    weight: Width
    """of a weight [bit]"""
    input: Width
    """of an input activation [bit]"""
    output: Width
    """of a complete output activation [bit]"""
    psum: Width
    """of a partial sum [bit]"""

    def of(self, tensor: Tensor) -> int:
        """Width of a complete element of one tensor [bit]."""
        return (self.weight, self.input, self.output)[tensor]


class Mac(_Block):
    """One multiply-accumulate unit; the array has one at every position."""

    energy_pj: Energy
    """of one multiply-accumulate [pJ]"""
    latch: tuple[TensorWord, ...] = ()
    """operands that the unit keeps while they stay the same, instead of reading them every cycle"""
    source: Text
    """where the values come from"""
    assumed: tuple[str, ...] = ()
    """fields above whose values are not published"""

    @property
    def latched(self) -> frozenset[Tensor]:
        """The operands of ``latch``."""
        return frozenset(Tensor[word.upper()] for word in self.latch)


class Vector(_Block):
    """The unit that does pooling and additions."""

    lanes: Annotated[int, Field(ge=1, le=2**20)]
    """operations per cycle"""
    energy_pj: Energy
    """of one operation [pJ]"""
    source: Text
    """where the values come from"""
    assumed: tuple[str, ...] = ()
    """fields above whose values are not published"""


class Array(_Block):
    """The array of processing elements and the network that feeds it."""

    axes: Annotated[dict[AxisName, AxisSize], Field(min_length=1, max_length=4)]
    """name and length of each axis, 1 to 4 of them"""
    unroll: dict[str, tuple[DimWord, ...]] = Field(default_factory=dict)
    """dims that may be spread along each axis; an axis left out takes what the dataflow gives it"""
    multicast: bool = True
    """one read of a memory serves every processing element that needs the element in that cycle"""
    reduce: bool = True
    """partial sums of several processing elements are added on their way out"""
    systolic: bool = False
    """operands ripple through the array: filling and draining it costs cycles"""
    hop_pj_per_bit: Energy = 0.0
    """of moving one bit between neighbouring processing elements [pJ/bit]"""
    source: Text
    """where the values come from"""
    assumed: tuple[str, ...] = ()
    """fields above whose values are not published"""

    def _problems(self) -> Iterator[Problem]:
        yield from super()._problems()
        for axis, dims in self.unroll.items():
            if axis not in self.axes:
                yield ("unroll", axis), _unknown_axis(axis, self.axes)
            for loc, message in _repeated(axis, dims):
                yield ("unroll", *loc), message


class Sparsity(_Block):
    """What the machine does with weights that are fixed at zero, and with activations that are."""

    weights: Literal["none", "gate", "skip"] = "none"
    """MACs with a zero weight: ``none`` does them, ``gate`` saves their energy, ``skip`` their
    energy and cycles"""
    formats: Annotated[tuple[FormatWord, ...], Field(min_length=1)] = ("dense",)
    """storage formats of weights that the machine can decode; one that can't hold the mask of a
    layer is passed over there"""
    run_bits: Annotated[int, Field(ge=1, le=16)] = RUN_BITS
    """with format ``rle``: width of the field that counts the zeros before a weight [bit]"""
    order: Annotated[
        Annotated[OrderWord, Tag("number")] | Annotated[dict[str, OrderWord], Tag("per_tensor")],
        Discriminator(_one_or_each),
    ] = "natural"
    """with ``skip``: which channels stand side by side, one word or one for each array axis:
    ``natural`` as numbered, ``by_slot`` those with like kernels together, ``auto`` what takes the
    fewest steps"""
    pe_queue: Annotated[int, Field(ge=1, le=4096)] = 1
    """with ``skip``: kernels that a processing element holds at once, before it waits for others"""
    activations: Literal["none", "gate"] = "none"
    """MACs with a zero input: ``none`` does them, ``gate`` saves their energy and that of their
    weight and partial sum in memories of the processing element; cycles stay"""
    activation_format: Literal["dense", "rlc"] = "dense"
    """inputs and complete outputs in DRAM: ``rlc`` codes runs of zeros, as many pairs of run and
    value in a 64-bit word as there is room for; a tensor that it would make larger stays ``dense``
    """
    activation_run_bits: Annotated[int, Field(ge=1, le=16)] = RUN_BITS
    """with ``rlc``: width of the field that counts the zeros before a value [bit]"""
    source: str = ""
    """where the values come from"""
    assumed: tuple[str, ...] = ()
    """fields above whose values are not published"""

    def _problems(self) -> Iterator[Problem]:
        yield from super()._problems()
        yield from _repeated("formats", self.formats)


class Level(_Block):
    """One level of the memory hierarchy; energies and bandwidth are those of one instance."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    """unique; the word in the ``level`` column"""
    kind: Literal["dram", "sram", "regfile"]
    """what it is made of; the first level and only that one is ``dram``"""
    per: tuple[str, ...] = ()
    """array axes along which the level has instances of its own; none = one instance"""
    holds: Annotated[tuple[TensorWord, ...], Field(min_length=1)] = ("weight", "input", "output")
    """tensors that it holds; the others pass by"""
    bypass: tuple[TensorWord, ...] = ()
    """tensors of ``holds`` that may pass by too, where the mapper finds that cheaper"""
    capacity_kib: (
        Annotated[
            Annotated[Kib, Tag("number")] | Annotated[dict[TensorWord, Kib], Tag("per_tensor")],
            Discriminator(_one_or_each),
        ]
        | None
    ) = None
    """of one instance, shared by what it holds or one number per tensor [KiB]"""
    capacity_bytes: (
        Annotated[
            Annotated[Bytes, Tag("number")] | Annotated[dict[TensorWord, Bytes], Tag("per_tensor")],
            Discriminator(_one_or_each),
        ]
        | None
    ) = None
    """the same in bytes; give one of the two [byte]"""
    read_pj_per_bit: Energy
    """of reading one bit [pJ/bit]"""
    write_pj_per_bit: Energy
    """of writing one bit [pJ/bit]"""
    bandwidth_bits_per_cycle: Positive | None = None
    """of one instance, reads and writes together; null = never the limit [bit/cycle]"""
    double_buffered: bool = False
    """the next tile is loaded while the present one is used; both must fit"""
    halo: Literal["keep", "refetch"] = "keep"
    """input tiles that overlap: ``keep`` loads what is new, ``refetch`` the whole tile again"""
    compressed: bool = Field(default_factory=lambda fields: fields.get("kind") == "dram")
    """weights stay in their storage format here; true for DRAM and false elsewhere if left out"""
    source: Text
    """where the values come from"""
    assumed: tuple[str, ...] = ()
    """fields above whose values are not published"""

    @property
    def tensors(self) -> frozenset[Tensor]:
        """The tensors of ``holds``."""
        return frozenset(Tensor[word.upper()] for word in self.holds)

    @property
    def optional(self) -> frozenset[Tensor]:
        """The tensors of ``bypass``."""
        return frozenset(Tensor[word.upper()] for word in self.bypass)

    def capacity_bits(self) -> int | dict[Tensor, int] | None:
        """Size of one instance [bit]: shared, or for each tensor; None = unlimited."""
        size: float | dict[TensorWord, float] | dict[TensorWord, int] | None
        size, unit = self.capacity_kib, BITS_PER_KIB
        if size is None:
            size, unit = self.capacity_bytes, BITS_PER_BYTE
        if size is None:
            return None
        if isinstance(size, dict):
            return {Tensor[word.upper()]: int(each * unit) for word, each in size.items()}
        return int(size * unit)

    def _problems(self) -> Iterator[Problem]:
        yield from super()._problems()
        yield from _repeated("per", self.per)
        yield from _repeated("holds", self.holds)
        yield from _repeated("bypass", self.bypass)
        for i, word in enumerate(self.bypass):
            if word not in self.holds:
                known = ", ".join(self.holds)
                yield ("bypass", i), f"'{self.name}' does not hold {word}. It holds: {known}"
        if self.name in RESERVED_LEVELS:
            yield ("name",), f"'{self.name}' is a word of the result tables. Choose another name"
        if self.capacity_kib is not None and self.capacity_bytes is not None:
            yield ("capacity_bytes",), "capacity_kib is given already. Give one of the two"
        for field in ("capacity_kib", "capacity_bytes"):
            size = getattr(self, field)
            if isinstance(size, dict) and set(size) != set(self.holds):
                yield (
                    (field,),
                    (
                        f"must give a size for each tensor it holds ({', '.join(self.holds)}), "
                        f"got {', '.join(size) or 'none'}"
                    ),
                )
        if self.compressed and "weight" not in self.holds:
            yield ("compressed",), f"'{self.name}' holds no weights"


class Hardware(_Block):
    """An accelerator: everything the cost of a network depends on but the network."""

    name: Name
    """the word in the ``hardware`` column"""
    source: Text
    """what is described, and where it is published"""
    note: str = ""
    """what a reader of the results should know"""
    clock_mhz: Positive
    """frequency of the array; every per-cycle number refers to it [MHz]"""
    bits: Bits
    """widths of the numbers"""
    mac: Mac
    """the multiply-accumulate unit"""
    vector: Vector | None = None
    """the unit for pooling and additions; null = their arithmetic is free, only moves count"""
    array: Array
    """the processing elements"""
    sparsity: Sparsity = Sparsity()
    """what is done with zeros: weights fixed at zero, and activations"""
    levels: Annotated[tuple[Level, ...], Field(min_length=2, max_length=8)]
    """memories, outermost first"""
    padding: Literal["clip", "count"] = "clip"
    """zero padding of a convolution: ``clip`` never moves it, ``count`` moves it like data"""
    dataflow: Text = "custom"
    """name of the dataflow that a run uses unless told otherwise; ``custom``, also if left out, is
    what this file spells: ``array.unroll``, ``stationary``, ``order``"""
    stationary: TensorWord | None = None
    """the tensor that stays: while a tile of it is in its outermost on-chip memory, each of its
    elements goes to its innermost memory once. Goes before the named dataflow's own"""
    order: tuple[DimWord, ...] = ()
    """loops inside the outermost on-chip memories, outermost first; dims that are left out stand
    anywhere. Goes before the named dataflow's own"""
    residency: bool = False
    """activations and weights that fit stay on chip between layers and inferences"""
    static_mw: Energy = 0.0
    """power drawn whatever is done [mW]"""
    assumed: tuple[str, ...] = ()
    """fields of this block whose values are not published"""

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the array axes, in file order."""
        return tuple(self.array.axes)

    @property
    def axis_sizes(self) -> tuple[int, ...]:
        """Lengths of the array axes, in file order."""
        return tuple(self.array.axes.values())

    def axis_index(self, name: str) -> int:
        """Position of an array axis in ``axis_names``."""
        if name not in self.array.axes:
            raise InputError(_unknown_axis(name, self.array.axes))
        return self.axis_names.index(name)

    def unroll_dims(self, axis: str) -> tuple[Dim, ...] | None:
        """Dims that may be spread along an axis, in turn; None where the file leaves it open."""
        words = self.array.unroll.get(axis)
        return None if words is None else tuple(Dim[word] for word in words)

    @property
    def stationary_tensor(self) -> Tensor | None:
        """The tensor of ``stationary``."""
        return None if self.stationary is None else Tensor[self.stationary.upper()]

    @property
    def loop_order(self) -> tuple[Dim, ...]:
        """The dims of ``order``."""
        return tuple(Dim[word] for word in self.order)

    def level_axes(self, level: int) -> frozenset[int]:
        """Array axes along which a level has instances of its own."""
        return frozenset(self.axis_index(name) for name in self.levels[level].per)

    def instances(self, level: int) -> int:
        """How many instances a level has."""
        return prod(self.array.axes[name] for name in self.levels[level].per)

    def holders(self, tensor: Tensor) -> tuple[int, ...]:
        """Levels that hold a tensor, outermost first."""
        return tuple(i for i, level in enumerate(self.levels) if tensor in level.tensors)

    def innermost(self, tensor: Tensor) -> int:
        """Index of the level in which the MACs read (or update) a tensor."""
        return self.holders(tensor)[-1]

    def _problems(self) -> Iterator[Problem]:
        yield from super()._problems()
        yield from self._outermost_problems()
        yield from _repeated("order", self.order)
        if not isinstance(self.sparsity.order, str):
            for axis in self.sparsity.order:
                if axis not in self.array.axes:
                    yield ("sparsity", "order", axis), _unknown_axis(axis, self.array.axes)
        first_use: dict[str, int] = {}
        for i, level in enumerate(self.levels):
            if level.name in first_use:
                yield (
                    ("levels", i, "name"),
                    f"'{level.name}' is the name of level {first_use[level.name]} already",
                )
            first_use.setdefault(level.name, i)
            for j, axis in enumerate(level.per):
                if axis not in self.array.axes:
                    yield ("levels", i, "per", j), _unknown_axis(axis, self.array.axes)
        yield from self._chain_problems()

    def _outermost_problems(self) -> Iterator[Problem]:
        first, *inner = self.levels
        if first.kind != "dram":
            yield ("levels", 0, "kind"), f"the first level must be dram, got {first.kind}"
        if len(first.tensors) < len(Tensor):
            yield ("levels", 0, "holds"), "the first level must hold weight, input and output"
        if first.bypass:
            yield ("levels", 0, "bypass"), "nothing can pass the first level by: leave it out"
        if first.per:
            yield ("levels", 0, "per"), "the first level has one instance: leave 'per' out"
        for field in ("capacity_kib", "capacity_bytes"):
            if getattr(first, field) is not None:
                yield ("levels", 0, field), f"the first level has no limit: leave '{field}' out"
        for i, level in enumerate(inner, start=1):
            if level.kind == "dram":
                yield ("levels", i, "kind"), "only the first level can be dram"
            if level.capacity_bits() is None:
                yield ("levels", i), f"'{level.name}' needs capacity_kib or capacity_bytes"

    def _chain_problems(self) -> Iterator[Problem]:
        """Check what the levels that hold the same tensor must agree on."""
        told: set[tuple[int, str]] = set()
        for tensor in Tensor:
            chain = self.holders(tensor)
            for outer, inner in pairwise(chain):
                above, below = self.levels[outer], self.levels[inner]
                for axis in above.per:
                    if axis not in below.per and (inner, axis) not in told:
                        told.add((inner, axis))
                        yield (
                            ("levels", inner, "per"),
                            (
                                f"must include '{axis}': '{above.name}' outside it has instances "
                                f"along it, and both hold {tensor.label}"
                            ),
                        )
                if tensor is Tensor.WEIGHT and below.compressed and not above.compressed:
                    yield (
                        ("levels", inner, "compressed"),
                        f"must be false: '{above.name}' outside it holds weights uncompressed",
                    )


def _unknown_axis(name: str, axes: Iterable[str]) -> str:
    known = list(axes)
    hint = did_you_mean(name, known) or f" Axes of the array: {', '.join(known)}"
    return f"no array axis named '{name}'.{hint}"
