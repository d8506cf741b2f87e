"""Many patterns, networks and machines side by side, each relative to its dense network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from energysim.errors import DoesNotFitError, InputError, InputErrors
from energysim.hardware import Hardware
from energysim.network import Layer, Network
from energysim.result import Result, html_table
from energysim.simulate import Progress, simulate
from energysim.sparsity import PATTERNS, Format, Mask, StoredBits, get_format, get_pattern
from energysim.units import si

if TYPE_CHECKING:
    import pandas as pd

    from energysim.cache import Cache

ALL = "all"
"""Stands for every pattern of the papers."""


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """Size of the weights of a network in one storage format."""

    format: str
    values_bits: int
    """bits of the stored weights"""
    metadata_bits: int
    """bits that say where they stand"""

    @property
    def total_bits(self) -> int:
        """All bits."""
        return self.values_bits + self.metadata_bits


@dataclass(frozen=True, slots=True)
class Figures:
    """What is compared of one network on one machine; what it costs is for the whole batch."""

    parameters: int
    """weights that the pattern leaves, biases and batch-norm parameters"""
    values_bits: int
    """stored weights, each layer in the format that was chosen for it"""
    metadata_bits: int
    """what says where these weights stand"""
    macs: int
    """multiply-accumulates, zeros included"""
    effective_macs: int
    """multiply-accumulates with weights that may differ from zero"""
    cycles: int
    dram_bytes: float
    energy_pj: float

    @property
    def stored_bits(self) -> int:
        """Values and metadata."""
        return self.values_bits + self.metadata_bits


@dataclass(frozen=True, slots=True)
class Ratios:
    """Figures over those of the dense network; None over zero."""

    parameters: float | None
    stored_bits: float | None
    macs: float | None
    effective_macs: float | None
    cycles: float | None
    dram_bytes: float | None
    energy_pj: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One network with one pattern on one machine."""

    network: str
    """as it was simulated: a variant has a name of its own"""
    base: str
    """name of the dense network"""
    hardware: str
    pattern: str
    """``dense``, the name of a pattern, or ``mixed`` where layers have different ones"""
    weight_format: str
    """storage formats of the sparse layers, joined by ``+``; ``dense`` without any"""
    figures: Figures
    dense: Figures
    """of the dense network on the same machine"""
    formats: tuple[StoredWeights, ...]
    """in each format that the machine decodes and that can hold the pattern; dense layers stay
    dense"""
    result: Result = field(repr=False, compare=False)
    """layer by layer"""

    @property
    def ratios(self) -> Ratios:
        """Each figure over that of the dense network."""
        names = [each.name for each in fields(Ratios)]
        return Ratios(*(_over(getattr(self.figures, name), getattr(self.dense, name))
                        for name in names))  # fmt: skip

    def record(self) -> dict[str, Any]:
        """All but what formats take, as one flat row of a file."""
        own = self.figures
        return {
            "network": self.network,
            "base": self.base,
            "hardware": self.hardware,
            "pattern": self.pattern,
            "weight_format": self.weight_format,
            "parameters": own.parameters,
            "stored_bits": own.stored_bits,
            **asdict(own),
            **{f"{name}_ratio": ratio for name, ratio in asdict(self.ratios).items()},
        }


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A pattern that a network can't take, or that fits no mapping."""

    network: str
    hardware: str | None
    """None where no machine could help"""
    pattern: str
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """Networks side by side: by network, then machine, the dense one first."""

    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """One row a network, columns as in :meth:`Row.record`."""
        import pandas as pd

        return pd.DataFrame([row.record() for row in self.rows])

    def __repr__(self) -> str:
        names = dict.fromkeys(f"{row.network} on {row.hardware}" for row in self.rows)
        return f"<{', '.join(names)}>"

    def _repr_html_(self) -> str:
        """Return the rows for notebooks, each figure with its ratio to the dense network."""
        heads = (
            "network", "hardware", "pattern", "format", "stored [Mbit]", "effective MACs [M]",
            "cycles [k]", "DRAM [MB]", "energy [uJ]",
        )  # fmt: skip
        title = f"{len(self.rows)} networks, in brackets relative to the dense one"
        return html_table(title, heads, map(_html_cells, self.rows))


def compare(
    networks: Sequence[Network],
    hardware: Sequence[Hardware],
    *,
    patterns: Sequence[str] = (),
    batch: int = 1,
    objective: str = "energy",
    dataflow: str | None = None,
    residency: bool | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Cost of networks with patterns on accelerators, relative to the dense networks.

    Parameters
    ----------
    networks : sequence of Network
        A variant is compared with the dense network it is made of; one whose layers have patterns
        of their own with the same layers dense.
    hardware : sequence of Hardware
    patterns : sequence of str
        Names for :func:`energysim.sparsity.get_pattern`, laid over each dense network; ``all`` is
        every pattern of the papers.
    batch, objective, dataflow, residency, cache
        As for :func:`energysim.simulate`.
    progress : callable, optional
        Called before each layer with layers done, layers in all of all networks, and what comes
        next.

    Returns
    -------
    Comparison
        What occurs twice is in it once.

    Raises
    ------
    InputErrors
        Patterns have no such names; with everything that is wrong.
    InputError
        An option is wrong, or patterns were asked for by name and no network takes any of them.
    DoesNotFitError
        No network fits a mapping on any machine.
    KeyboardInterrupt
        Ctrl-C came; says how many networks were done.

    Notes
    -----
    A ratio is the figure of a network divided by that of its dense network on the same machine with
    the same options, each with the best mappings of its own.

    Examples
    --------
    >>> import energysim as es
    >>> vgg, tpu = es.load_network("vgg16"), es.load_hardware("edge_tpu")
    >>> dense, sparse = es.compare([vgg], [tpu], patterns=["PS4_P4"]).rows
    >>> sparse.pattern, sparse.figures.parameters, round(sparse.ratios.parameters, 3)
    ('PS4_P4', 6556746, 0.445)
    """
    if not networks or not hardware:
        raise InputError("a comparison needs at least one network and one hardware")
    families, left_out = _families(networks, pattern_names(patterns))
    taken = any(variant for _, *variant in families)
    if left_out and not taken and ALL not in patterns:
        raise InputErrors(dict.fromkeys(f"{each.network}: {each.reason}" for each in left_out))
    machines = [each for i, each in enumerate(hardware) if each not in hardware[:i]]
    jobs = [
        (network, machine, network is family[0])
        for family in families
        for machine in machines
        for network in family
    ]
    total = sum(len(network.layers) for network, *_ in jobs)
    rows: list[Row] = []
    failures: list[DoesNotFitError] = []
    dense: Row | None = None
    before = 0
    for done, (network, machine, is_dense) in enumerate(jobs):
        if is_dense:
            dense = None
        if is_dense or dense is not None:
            try:
                found = simulate(
                    network,
                    machine,
                    batch=batch,
                    objective=objective,
                    dataflow=dataflow,
                    residency=residency,
                    cache=cache,
                    progress=progress and _part(progress, before, total, network, machine),
                )
            except DoesNotFitError as error:
                failures.append(error)
                reason = str(error)
                left_out.append(LeftOut(network.name, machine.name, network.pattern, reason))
            except KeyboardInterrupt:
                raise _interrupted(done, len(jobs)) from None
            else:
                rows.append(_row(found, dense))
                dense = dense or rows[-1]
        before += len(network.layers)
    if not rows:
        raise failures[0]
    return Comparison(tuple(rows), tuple(left_out))


def pattern_names(given: Sequence[str]) -> list[str]:
    """Proper names of patterns, each once; ``all`` is every pattern of the papers.

    Raises
    ------
    InputError
        There are none of these names; with everything that is wrong.

    Examples
    --------
    >>> pattern_names(["ps4_p4", "2:4", "PS4_P4"])
    ['PS4_P4', '2:4']
    """
    names: dict[str, None] = {}
    errors: list[InputError] = []
    for word in given:
        try:
            names |= dict.fromkeys(PATTERNS if word == ALL else [get_pattern(word).name])
        except InputError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise InputErrors(map(str, errors))
    return list(names)


def _families(
    networks: Sequence[Network], patterns: Sequence[str]
) -> tuple[list[tuple[Network, ...]], list[LeftOut]]:
    """Each dense network with all that is made of it, and what can't be made."""
    families: dict[object, tuple[Network, dict[object, Network]]] = {}
    left_out: dict[LeftOut, None] = {}
    for network in networks:
        dense = _dense(network)
        dense, variants = families.setdefault(_identity(dense), (dense, {}))
        if network.pattern != "dense":
            variants.setdefault(_identity(network), network)
        for name in patterns:
            try:
                made = dense.with_pattern(name)
            except InputErrors as error:
                reason = error.problems[0].removeprefix(f"{dense.name}: ")
                left_out[LeftOut(dense.name, None, name, reason)] = None
            else:
                if made.pattern != "dense":
                    variants.setdefault(_identity(made), made)
    return [(dense, *variants.values()) for dense, variants in families.values()], list(left_out)


def _dense(network: Network) -> Network:
    """The network without any pattern or mask, wherever it came from."""
    layers = tuple(replace(layer, pattern="dense", live="") for layer in network.layers)
    name = network.base or network.name
    return replace(network, name=name, layers=layers, base=None, pattern="dense", masks=None)


def _identity(network: Network) -> object:
    """Tell networks apart by what they are: the same may come from a file and from a pattern."""
    return network.base or network.name, network.input_size, network.layers


def _part(
    progress: Progress, before: int, total: int, network: Network, machine: Hardware
) -> Progress:
    """Progress of one network among several."""

    def tell(done: int, _total: int, layer: str) -> None:
        progress(before + done, total, f"{network.name} on {machine.name} {layer}".rstrip())

    return tell


def _interrupted(done: int, total: int) -> KeyboardInterrupt:
    return KeyboardInterrupt(
        f"{done} of {total} networks were done. Nothing was written; what was found is kept, "
        "unless --no-cache was given: the same command goes on from there."
    )


def _row(result: Result, dense: Row | None) -> Row:
    """Row of a network; without a dense one it is the dense one itself."""
    figures = _figures(result)
    return Row(
        result.network,
        dense.network if dense else result.network,
        result.hardware,
        result.pattern,
        "+".join(_chosen(result)) or "dense",
        figures,
        dense.figures if dense else figures,
        _stored(result),
        result,
    )


def _chosen(result: Result) -> list[str]:
    """Storage formats of the sparse layers."""
    network, _ = result.inputs
    sparse = {layer.name for layer in network.layers if layer.stores_weights and _is_sparse(layer)}
    return list(dict.fromkeys(r.weight_format for r in result.layer_rows if r.layer in sparse))


def _is_sparse(layer: Layer) -> bool:
    return layer.mask.density < 1


def _figures(result: Result) -> Figures:
    network, hardware = result.inputs
    stored = [
        _bits(get_format(row.weight_format), layer.mask, hardware)
        for layer, row in zip(network.layers, result.layer_rows, strict=True)
        if layer.stores_weights
    ]
    return Figures(
        parameters=network.parameters,
        values_bits=sum(each.values for each in stored),
        metadata_bits=sum(each.metadata for each in stored),
        macs=result.total_macs,
        effective_macs=result.total_effective_macs,
        cycles=result.total_cycles,
        dram_bytes=result.total_dram_bytes,
        energy_pj=result.total_energy_pj,
    )


def _stored(result: Result) -> tuple[StoredWeights, ...]:
    """Bits of all weights in each format of the machine that can hold them."""
    network, hardware = result.inputs
    weighted = [layer for layer in network.layers if layer.stores_weights]
    found: list[StoredWeights] = []
    for name in hardware.sparsity.formats:
        own, dense = get_format(name), get_format("dense")
        pairs = [(layer.mask, own if _is_sparse(layer) else dense) for layer in weighted]
        if all(each.holds(mask) for mask, each in pairs):
            bits = [_bits(each, mask, hardware) for mask, each in pairs]
            values, metadata = sum(b.values for b in bits), sum(b.metadata for b in bits)
            found.append(StoredWeights(name, values, metadata))
    return tuple(found)


def _bits(stored_as: Format, mask: Mask, hardware: Hardware) -> StoredBits:
    return stored_as(mask, hardware.bits.weight, run_bits=hardware.sparsity.run_bits)


def _html_cells(row: Row) -> list[str]:
    own, ratios = row.figures, row.ratios
    figures = (
        (own.stored_bits / 1e6, ratios.stored_bits),
        (own.effective_macs / 1e6, ratios.effective_macs),
        (own.cycles / 1e3, ratios.cycles),
        (own.dram_bytes / 1e6, ratios.dram_bytes),
        (own.energy_pj / 1e6, ratios.energy_pj),
    )
    cells = [si(value) if ratio is None else f"{si(value)} ({si(ratio)})"
             for value, ratio in figures]  # fmt: skip
    return [row.base, row.hardware, row.pattern, row.weight_format, *cells]


def _over(value: float, base: float) -> float | None:
    return value / base if base else None
