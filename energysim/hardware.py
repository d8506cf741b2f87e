"""The accelerator as a user describes it: arithmetic, array, memory levels, and their sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from math import isnan, nan, prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from energysim.axes import Dim, Tensor
from energysim.errors import InputError, did_you_mean
from energysim.sparsity import RUN_BITS
from energysim.units import BITS_PER_BYTE, BITS_PER_KIB

if TYPE_CHECKING:
    from energysim.technology import Constant

Problem = tuple[tuple[str | int, ...], str]
"""Where in a block (field names and list indices), and what is wrong there."""

TensorWord = Literal["weight", "input", "output"]
DimWord = Literal["N", "G", "K", "C", "P", "Q", "R", "S"]
FormatWord = Literal["dense", "csr", "periodic", "bitmap", "rle", "cp", "nm"]
OrderWord = Literal["natural", "by_slot", "auto"]
KindWord = Literal[
    "dram",
    "lpddr2",
    "lpddr3",
    "lpddr4",
    "lpddr4x",
    "lpddr5",
    "ddr3",
    "ddr4",
    "gddr5",
    "gddr6",
    "hbm2",
    "hbm2e",
    "hmc",
    "sram",
    "regfile",
]
"""``dram`` is any DRAM, of which no energy is known; those of the kinds after it are in the tables.
"""
SourceWord = Literal["horowitz_jouppi", "cacti", "interstellar", "aladdin", "eyeriss_fit"]

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

ACCESS_BITS = 64
"""Width of one access to an SRAM unless a file says otherwise [bit]."""


def _left_out() -> float:
    """Stand for an energy that is not given, until the tables tell it."""
    return nan


DRAM_WORDS: tuple[str, ...] = get_args(KindWord)[:-2]
"""Kinds of DRAM."""


def _one_or_each(value: object) -> str:
    return "per_tensor" if isinstance(value, dict) else "number"


class _Block(BaseModel):
    """A part of the description; what fields say together is checked after each of them."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    _only_if_given: ClassVar[frozenset[str]] = frozenset()
    """fields that are written only where they say something"""

    @model_serializer(mode="wrap")
    def _without_unused(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what says nothing, so that files without it keep their hash."""
        plain: dict[str, Any] = write(self)
        last = {name: plain.pop(name) for name in _WRITTEN_LAST if name in plain}
        return {
            name: value
            for name, value in (plain | last).items()
            if value or name not in self._only_if_given
        }

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


_WRITTEN_LAST = ("ranges", "from_tables")
"""Fields of a part that stand behind its own."""


class _Priced(_Block):
    """A part whose energies may have a range, and may come from the tables of technologies."""

    _only_if_given = frozenset({"ranges", "from_tables"})
    _constants: ClassVar[tuple[str, ...]]
    """fields that are energies or powers"""

    ranges: dict[str, tuple[Energy, Energy]] = Field(default_factory=dict)
    """least and most that an energy may be, for the interval of the total; one that is left out is
    taken as exact (``run --uncertainty``)"""
    from_tables: dict[str, str] = Field(default_factory=dict)
    """where energies come from that were left out and looked up; filled in, not to be written"""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Energies that are not given."""
        return tuple(name for name in self._constants if isnan(getattr(self, name)))

    def _problems(self) -> Iterator[Problem]:
        yield from super()._problems()
        for name, (low, high) in self.ranges.items():
            value = getattr(self, name, nan) if name in self._constants else nan
            if name not in self._constants:
                hint = did_you_mean(name, self._constants)
                hint = hint or f" Allowed: {', '.join(self._constants)}"
                yield ("ranges", name), f"no energy named '{name}' here.{hint}"
            elif low > high:
                yield ("ranges", name), f"the low end {low:g} is above the high end {high:g}"
            elif value < low or value > high:
                yield ("ranges", name), f"{name} is {value:g}, outside {low:g} to {high:g}"
        for name in self.from_tables:
            if name not in self._constants or name in self.left_out:
                yield ("from_tables", name), "is no energy given here: leave this line out"


_PricedBlock = TypeVar("_PricedBlock", bound=_Priced)

_NOT_VALUES = frozenset({"name", "source", "note", "assumed", "ranges", "from_tables"})


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


class Mac(_Priced):
    """One multiply-accumulate unit; the array has one at every position."""

    _constants = ("energy_pj",)

    energy_pj: Energy = Field(default_factory=_left_out)
    """of one multiply-accumulate [pJ]; left out, ``technology`` tells it"""
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


class Vector(_Priced):
    """The unit that does pooling and additions."""

    _constants = ("energy_pj",)

    lanes: Annotated[int, Field(ge=1, le=2**20)]
    """operations per cycle"""
    energy_pj: Energy = Field(default_factory=_left_out)
    """of one operation [pJ]; left out, it is an addition as ``technology`` tells it"""
    source: Text
    """where the values come from"""
    assumed: tuple[str, ...] = ()
    """fields above whose values are not published"""


class Array(_Priced):
    """The array of processing elements and the network that feeds it."""

    _constants = ("hop_pj_per_bit",)
    _only_if_given = frozenset({"ranges", "from_tables", "link_bits_per_cycle"})

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
    link_bits_per_cycle: dict[TensorWord, Positive] = Field(default_factory=dict)
    """width of the bus that a tensor has to itself between the memories and the array, each way;
    with it each pass waits for its weights and first inputs. One left out is no limit [bit/cycle]
    """
    hop_pj_per_bit: Energy = 0.0
    """of moving one bit between neighbouring processing elements [pJ/bit]"""
    source: Text
    """where the values come from"""
    assumed: tuple[str, ...] = ()
    """fields above whose values are not published"""

    @property
    def links(self) -> dict[Tensor, float]:
        """The buses of ``link_bits_per_cycle``."""
        return {Tensor[word.upper()]: width for word, width in self.link_bits_per_cycle.items()}

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


class Technology(_Block):
    """What energies that the file leaves out are looked up for."""

    _only_if_given = frozenset({"mac", "sram", "regfile", "source", "assumed"})

    node_nm: Positive
    """technology node [nm]"""
    mac: SourceWord | None = None
    """source of the energies of ``mac`` and ``vector``; null = the first that knows"""
    sram: SourceWord | None = None
    """source of the energies of SRAM"""
    regfile: SourceWord | None = None
    """source of the energies of register files"""
    source: str = ""
    """where the node is published"""
    assumed: tuple[str, ...] = ()
    """fields above whose values are not published"""


class Level(_Priced):
    """One level of the memory hierarchy; energies and bandwidth are those of one instance."""

    _constants = ("read_pj_per_bit", "write_pj_per_bit")
    _only_if_given = frozenset({"ranges", "from_tables", "bank_kib", "access_bits", "burst_bits"})

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    """unique; the word in the ``level`` column"""
    kind: KindWord
    """what it is made of; the first level and only that one is ``dram``, or one of its kinds"""
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
    bank_kib: Kib | None = None
    """of the bank that one access goes to, where the level has several; only for looking up
    energies that are left out [KiB]"""
    access_bits: Annotated[int, Field(ge=1, le=2**16)] | None = None
    """read or written at once, 64 unless given; only for looking up energies of SRAM that are left
    out [bit]"""
    read_pj_per_bit: Energy = Field(default_factory=_left_out)
    """of reading one bit [pJ/bit]; left out, the kind of DRAM or ``technology`` tells it"""
    write_pj_per_bit: Energy = Field(default_factory=_left_out)
    """of writing one bit [pJ/bit]; left out, the kind of DRAM or ``technology`` tells it"""
    bandwidth_bits_per_cycle: Positive | None = None
    """of one instance, reads and writes together; null = never the limit [bit/cycle]"""
    burst_bits: Annotated[int, Field(ge=1, le=2**20)] | None = None
    """of DRAM: what lies in a row takes the time of whole bursts, tensors being stored dense in the
    order of their dims; null = any number of bits takes its own time [bit]"""
    double_buffered: bool = False
    """the next tile is loaded while the present one is used; both must fit"""
    halo: Literal["keep", "refetch"] = "keep"
    """input tiles that overlap: ``keep`` loads what is new, ``refetch`` the whole tile again"""
    compressed: bool = Field(default_factory=lambda fields: fields.get("kind") in DRAM_WORDS)
    """weights stay in their storage format here; true for DRAM and false elsewhere if left out"""
    source: Text
    """where the values come from"""
    assumed: tuple[str, ...] = ()
    """fields above whose values are not published"""

    @property
    def is_dram(self) -> bool:
        """Whether it is DRAM, of whatever kind."""
        return self.kind in DRAM_WORDS

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

    def bank_bytes(self) -> float:
        """Size of the part that one access goes to, for looking up its energy [byte].

        Raises
        ------
        InputError
            The file does not tell.
        """
        if self.bank_kib is not None:
            return self.bank_kib * BITS_PER_KIB / BITS_PER_BYTE
        bits = self.capacity_bits()
        if isinstance(bits, int):
            return bits / BITS_PER_BYTE
        raise InputError(
            "give it, or bank_kib, the size it is to be looked up for: the level has "
            + ("a capacity for each tensor" if bits else "no capacity")
        )

    def _problems(self) -> Iterator[Problem]:
        yield from super()._problems()
        bits = self.capacity_bits()
        whole = sum(bits.values()) if isinstance(bits, dict) else bits
        if self.bank_kib is not None and whole and self.bank_kib * BITS_PER_KIB > whole:
            yield ("bank_kib",), f"is larger than the level, {whole / BITS_PER_KIB:g} KiB"
        yield from self._misplaced()
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

    def _misplaced(self) -> Iterator[Problem]:
        """Fields that mean nothing for this kind of memory."""
        if self.burst_bits is not None and not self.is_dram:
            yield ("burst_bits",), f"is for DRAM only, got kind {self.kind}: leave it out"
        if self.access_bits is not None and self.kind != "sram":
            yield ("access_bits",), f"is for sram only: nothing is looked up by it for {self.kind}"


class Hardware(_Priced):
    """An accelerator: everything the cost of a network depends on but the network."""

    _constants = ("static_mw",)
    _only_if_given = frozenset({"ranges", "from_tables", "technology"})

    name: Name
    """the word in the ``hardware`` column"""
    source: Text
    """what is described, and where it is published"""
    note: str = ""
    """what a reader of the results should know"""
    clock_mhz: Positive
    """frequency of the array; every per-cycle number refers to it [MHz]"""
    technology: Technology | None = None
    """for energies that the file leaves out; those it gives always win"""
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
    elements goes to its innermost memory once. Weights and inputs that are on chip all the time may
    come again for each tile of outputs. Goes before the named dataflow's own"""
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
        yield from self._look_up()
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

    def _look_up(self) -> Iterator[Problem]:
        """Fill in the energies that the file leaves out, and tell which can't be."""
        found: dict[str, Any] = {}
        problems: list[Problem] = []
        for word, energy in (("mac", _mac_energy), ("vector", _vector_energy)):
            block = getattr(self, word)
            if block is not None:
                found[word], own = _with_energies(block, partial(energy, self))
                problems += [((word, *loc), message) for loc, message in own]
        levels = []
        for i, level in enumerate(self.levels):
            priced, own = _with_energies(level, partial(_level_energy, self, level))
            levels.append(priced)
            problems += [(("levels", i, *loc), message) for loc, message in own]
        for word, block in (found | {"levels": tuple(levels)}).items():
            # frozen for everyone else: this is still part of its making
            object.__setattr__(self, word, block)
        yield from problems

    def _outermost_problems(self) -> Iterator[Problem]:
        first, *inner = self.levels
        if not first.is_dram:
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
            if level.is_dram:
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


_NO_NODE = "or have it looked up, by a line such as 'technology: {node_nm: 28}'"


def _with_energies(
    block: _PricedBlock, energy: Callable[[str], Constant]
) -> tuple[_PricedBlock, list[Problem]]:
    """A part with energies that it leaves out looked up, and what can't be, or goes against it.

    Ranges that sources give come along, unless the file has its own.
    """
    found: dict[str, Constant] = {}
    problems: list[Problem] = []
    for name in block.left_out:
        try:
            found[name] = energy(name)
        except InputError as error:
            problems.append(((), f"missing field '{name}': {error}"))
    if not found:
        return block, problems
    ranges = {name: (each.low, each.high) for name, each in found.items() if each.is_disputed}
    for name, (low, high) in block.ranges.items():
        value = found[name].value if name in found else low
        if not low <= value <= high:
            message = f"{name} is {value:g} as looked up, outside {low:g} to {high:g}"
            problems.append((("ranges", name), message))
    update = {name: each.value for name, each in found.items()} | {
        "ranges": ranges | block.ranges,
        "from_tables": {name: each.origin for name, each in found.items()},
    }
    return block.model_copy(update=update), problems


def _node_of(hardware: Hardware) -> Technology:
    if hardware.technology is None:
        raise InputError(f"give it, {_NO_NODE}")
    return hardware.technology


def _mac_energy(hardware: Hardware, name: str) -> Constant:  # noqa: ARG001 - there is but one
    from energysim import technology

    asked, bits = _node_of(hardware), hardware.bits
    operand = max(bits.weight, bits.input)
    return _or_by_hand(lambda: technology.mac(operand, bits.psum, asked.node_nm, source=asked.mac))


def _vector_energy(hardware: Hardware, name: str) -> Constant:  # noqa: ARG001 - there is but one
    from energysim import technology

    asked, bits = _node_of(hardware), hardware.bits
    width = max(bits.input, bits.output)
    return _or_by_hand(lambda: technology.add(width, asked.node_nm, source=asked.mac))


def _level_energy(hardware: Hardware, level: Level, name: str) -> Constant:
    from energysim import technology

    if level.kind == "dram":
        kinds = ", ".join(technology.DRAM_KINDS)
        raise InputError(f"give it, or in place of 'dram' the kind of DRAM, one of {kinds}")
    if level.is_dram:
        return technology.dram(level.kind).pj_per_bit
    asked = _node_of(hardware)
    size = level.bank_bytes()
    use: technology.Use = "read" if name == "read_pj_per_bit" else "write"
    if level.kind == "regfile":
        return _or_by_hand(
            lambda: technology.regfile(size, asked.node_nm, use, source=asked.regfile)
        )
    width = level.access_bits or ACCESS_BITS
    return _or_by_hand(
        lambda: technology.sram(
            size * BITS_PER_BYTE / BITS_PER_KIB,
            asked.node_nm,
            use,
            access_bits=width,
            source=asked.sram,
        ),
        advice="Give it, or bank_kib, the size of the part that one access goes to",
    )


def _or_by_hand(look_up: Callable[[], Constant], advice: str = "Give it") -> Constant:
    try:
        return look_up()
    except InputError as error:
        raise InputError(f"{error}. {advice}") from None


def _unknown_axis(name: str, axes: Iterable[str]) -> str:
    known = list(axes)
    hint = did_you_mean(name, known) or f" Axes of the array: {', '.join(known)}"
    return f"no array axis named '{name}'.{hint}"
