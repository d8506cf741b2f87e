"""Energy constants by technology: multiply-accumulates, SRAM, register files and DRAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from energysim.errors import InputError, did_you_mean
from energysim.technology.tables import Axis, Point, Read, Table, ends, outside, rows, tables

Use = Literal["read", "write"]

_NODE = Axis("node_nm", "nm")
_BITS = Axis("bits", "bit")
_ACCESS = Axis("access_bits", "bit")
_KIB = Axis("capacity_kib", "KiB")
_BYTES = Axis("capacity_bytes", "bytes")

_PREFERRED: dict[str, tuple[str, ...]] = {
    # published figures before a tool's, where both are known
    "arithmetic": ("horowitz_jouppi", "aladdin"),
    # the one that knows most capacities, and reads and writes apart, before single figures
    "sram": ("cacti", "horowitz_jouppi", "interstellar"),
    "regfile": ("interstellar", "eyeriss_fit", "aladdin"),
}
"""Sources by file, the one to be taken first at the head; the others give the range."""


@dataclass(frozen=True, slots=True)
class Constant:
    """An energy, the range of what sources say of it, and where it comes from."""

    value: float
    """[pJ] or [pJ/bit]"""
    low: float
    """least of all sources that know it, in the same unit"""
    high: float
    """most of all sources that know it, in the same unit"""
    origin: str
    """source, status, and the points between which it was interpolated"""

    @property
    def is_disputed(self) -> bool:
        """Whether sources disagree."""
        return self.low < self.high


@dataclass(frozen=True, slots=True)
class Dram:
    """What is known of a kind of DRAM."""

    kind: str
    pj_per_bit: Constant
    """of an access, read or written; sources do not tell them apart [pJ/bit]"""
    megatransfers_per_s: float
    """of one pin, of the speed grade in ``channel_origin`` [10^6/s]"""
    channel_bits: int
    """width of one channel [bit]"""
    burst_length: int
    """transfers of one access"""
    channel_origin: str
    """source and status of the channel's figures"""

    @property
    def gb_per_s(self) -> float:
        """Peak bandwidth of one channel [10^9 byte/s]."""
        return self.megatransfers_per_s * self.channel_bits / 8 / 1000

    @property
    def burst_bytes(self) -> int:
        """Bytes of one access, the least that can be moved [byte]."""
        return self.burst_length * self.channel_bits // 8

    def bits_per_cycle(self, clock_mhz: float, channels: int = 1) -> float:
        """Peak bandwidth as a hardware file gives it, of some channels [bit/cycle].

        Examples
        --------
        >>> dram("lpddr4").bits_per_cycle(clock_mhz=800, channels=2)
        128.0
        """
        return self.megatransfers_per_s * self.channel_bits * channels / clock_mhz


SOURCES: dict[str, str] = {row["source"]: row["citation"] for row in rows("sources")}
"""Citation of each source, by the word that the tables and hardware files use."""

DRAM_KINDS: tuple[str, ...] = tuple(dict.fromkeys(row["kind"] for row in rows("dram")))
"""Kinds of DRAM with a known energy."""


def mac(operand_bits: int, sum_bits: int, node_nm: float, *, source: str | None = None) -> Constant:
    """Energy of an integer multiply-accumulate: a multiplication and an addition [pJ].

    Parameters
    ----------
    operand_bits : int
        Width of the wider operand [bit].
    sum_bits : int
        Width of the sum [bit].
    node_nm : float
        Technology node [nm].
    source : str, optional
        One of ``SOURCES`` instead of the first that knows it.

    Raises
    ------
    OutsideError
        No source covers it.

    Examples
    --------
    >>> round(mac(8, 32, 45).value, 6)
    0.3
    """
    what = f"a multiply-accumulate of {operand_bits} and {sum_bits} bit at {node_nm:g} nm"
    multiply, plus = _operations("multiply"), _operations("add")
    found = []
    for one, other in zip(multiply, plus, strict=True):
        product, total = one.at((node_nm, operand_bits)), other.at((node_nm, sum_bits))
        if product is not None and total is not None:
            parts = f"multiplication {_where(one, product)}, addition {_where(other, total)}"
            found.append((one.source, product.value + total.value, parts))
    return _constant(found, what, multiply, source)


def add(bits: int, node_nm: float, *, source: str | None = None) -> Constant:
    """Energy of an integer addition [pJ], as :func:`mac`."""
    what = f"an addition of {bits} bit at {node_nm:g} nm"
    return _looked_up(_operations("add"), (node_nm, bits), what, source)


def sram(
    capacity_kib: float,
    node_nm: float,
    use: Use,
    *,
    access_bits: float = 64,
    source: str | None = None,
) -> Constant:
    """Energy of reading or writing one bit of an SRAM [pJ/bit].

    Parameters
    ----------
    capacity_kib : float
        Of the bank that an access goes to [KiB].
    node_nm : float
        Technology node [nm].
    use : {"read", "write"}
    access_bits : float
        Read or written at once [bit].
    source : str, optional
        One of ``SOURCES`` instead of the first that knows it.

    Raises
    ------
    OutsideError
        No source covers it.

    Examples
    --------
    >>> sram(32, 45, "read").value * 64
    17.0418
    """
    what = f"a {access_bits:g}-bit access to an SRAM of {capacity_kib:g} KiB at {node_nm:g} nm"
    known = _ordered("sram", tables("sram", f"{use}_pj", (_NODE, _ACCESS, _KIB)))
    return _looked_up(known, (node_nm, access_bits, capacity_kib), what, source, per=access_bits)


def regfile(
    capacity_bytes: float, node_nm: float, use: Use, *, source: str | None = None
) -> Constant:
    """Energy of reading or writing one bit of a register file, or of one register [pJ/bit].

    Parameters
    ----------
    capacity_bytes : float
        Of one register file [byte].
    node_nm : float
        Technology node [nm].
    use : {"read", "write"}
    source : str, optional
        One of ``SOURCES`` instead of the first that knows it.

    Raises
    ------
    OutsideError
        No source covers it.

    Examples
    --------
    >>> regfile(64, 28, "read").value
    0.0075
    """
    what = f"a register file of {capacity_bytes:g} bytes at {node_nm:g} nm"
    known = _ordered("regfile", _per_bit(tables("regfile", f"{use}_pj", (_NODE, _BYTES))))
    return _looked_up(known, (node_nm, capacity_bytes), what, source)


def dram(kind: str) -> Dram:
    """Energy and channel of a kind of DRAM.

    Raises
    ------
    InputError
        The kind is not known.

    Examples
    --------
    >>> found = dram("ddr3")
    >>> found.pj_per_bit.low, found.pj_per_bit.high, found.burst_bytes
    (20.0, 70.0, 64)
    """
    if kind not in DRAM_KINDS:
        hint = did_you_mean(kind, DRAM_KINDS)
        raise InputError(f"no DRAM named '{kind}'.{hint}\n  known: {', '.join(DRAM_KINDS)}")
    said = [row for row in rows("dram") if row["kind"] == kind]
    (chosen,) = (row for row in said if row["chosen"] == "yes")
    (channel,) = (row for row in rows("dram_channels") if row["kind"] == kind)
    figures = [float(row["pj_per_bit"]) for row in said]
    others = [
        f"{row['pj_per_bit']} {row['source']} ({row['status']})"
        for row in said
        if float(row["pj_per_bit"]) in (min(figures), max(figures)) and row is not chosen
    ]
    origin = f"{kind}: {chosen['source']}, {chosen['scope']} ({chosen['status']})"
    return Dram(
        kind,
        Constant(
            float(chosen["pj_per_bit"]),
            min(figures),
            max(figures),
            "; others: ".join([origin, *filter(None, ["; ".join(others)])]),
        ),
        float(channel["megatransfers_per_s"]),
        int(channel["channel_bits"]),
        int(channel["burst_length"]),
        f"{channel['source']} ({channel['status']})",
    )


def _operations(name: str) -> tuple[Table, ...]:
    only = (("operation", name),)
    return _ordered("arithmetic", tables("arithmetic", "pj", (_NODE, _BITS), only))


def _ordered(name: str, found: Sequence[Table]) -> tuple[Table, ...]:
    return tuple(sorted(found, key=lambda table: _PREFERRED[name].index(table.source)))


def _per_bit(found: Sequence[Table]) -> tuple[Table, ...]:
    """Energies per bit, of tables whose words have one width each."""
    widths: dict[tuple[str, Point], int] = {}
    for row in rows("regfile"):
        point = float(row["node_nm"]), float(row["capacity_bytes"])
        widths[row["source"], point] = int(row["access_bits"])
    return tuple(
        Table(
            table.source,
            table.axes,
            {point: pj / widths[table.source, point] for point, pj in table.points.items()},
            table.status,
        )
        for table in found
    )


def _looked_up(
    known: Sequence[Table], point: Point, what: str, source: str | None, *, per: float = 1
) -> Constant:
    reads = [(table, table.at(point)) for table in known]
    found = [
        (table.source, read.value / per, _where(table, read))
        for table, read in reads
        if read is not None
    ]
    return _constant(found, what, known, source)


def _constant(
    found: Sequence[tuple[str, float, str]],
    what: str,
    known: Sequence[Table],
    source: str | None,
) -> Constant:
    """The value of the first source (or of the one asked for), with the range of them all."""
    taken = [each for each in found if source in (None, each[0])]
    if not taken:
        asked = [table for table in known if source in (None, table.source)]
        raise outside(what, asked or known)
    (name, value, where), values = taken[0], [each[1] for each in found]
    others = [f"{each[1]:.4g} {SOURCES[each[0]]}" for each in found if each[0] != name]
    origin = f"{where}: {SOURCES[name]}"
    if others:
        origin += f"; others: {'; '.join(others)}"
    return Constant(value, min(values), max(values), origin)


def _where(table: Table, read: Read) -> str:
    """Say which points of a table a value comes from, and what they are worth."""
    worth = "/".join(dict.fromkeys(table.status[corner] for corner in read.corners))
    names = []
    for i, axis in enumerate(table.axes):
        names.append(f"{ends(corner[i] for corner in read.corners)} {axis.unit}")
    how = "interpolated, " if len(read.corners) > 1 else ""
    return f"{table.source} {', '.join(names)} ({how}{worth})"
