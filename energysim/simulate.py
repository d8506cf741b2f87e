"""Network and hardware in, result out: map every layer, count it, price it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from energysim.axes import Action, Dim, Shape, Tensor
from energysim.checks import collect_notes
from energysim.errors import DoesNotFitError, InputError, did_you_mean
from energysim.hardware import Hardware
from energysim.mapping import LevelLoops, MappingFile, Nest, machine_rules, read_loops, write_loops
from energysim.network import Layer, Network
from energysim.result import AccessRow, LayerRow, Result
from energysim.sparsity import FORMATS
from energysim.units import BITS_PER_BYTE, cycles_to_ms

if TYPE_CHECKING:
    from energysim.mapper.dataflows import Dataflow
    from energysim.mapper.residency import Plan
    from energysim.mapper.search import Objective
    from energysim.model.capacity import Occupancy, Residency
    from energysim.model.counts import Counts
    from energysim.model.energy import Tariff
    from energysim.model.sparse import WeightStore

Progress = Callable[[int, int, str], None]
"""Called with layers done, layers in all, and the name of the layer that comes next."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One layer with all that its cost depends on."""

    layer: Layer
    shape: Shape
    store: WeightStore | None
    residency: Residency


@dataclass(frozen=True, slots=True)
class _Options:
    hardware: Hardware
    dataflow: Dataflow
    objective: Objective
    mapping: MappingFile | None
    where: Callable[[tuple[str | int, ...]], str]
    batch: int
    residency: bool


def simulate(
    network: Network,
    hardware: Hardware,
    *,
    batch: int = 1,
    objective: str = "energy",
    dataflow: str | None = None,
    residency: bool | None = None,
    mapping: MappingFile | None = None,
    weight_format: str | None = None,
    where: Callable[[tuple[str | int, ...]], str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Cost of a network on an accelerator.

    Parameters
    ----------
    network : Network
    hardware : Hardware
    batch : int
        Images processed together; all figures are for the whole batch.
    objective : str
        What the mapping of each layer minimises: energy, dram, latency or edp.
    dataflow : str, optional
        Instead of the one in the hardware file.
    residency : bool, optional
        Whether activations and weights that fit stay on chip; else as the hardware file says.
    mapping : MappingFile, optional
        Loop nests for some layers; the others are searched.
    weight_format : str, optional
        Storage format of weights, instead of the smallest that the hardware can decode.
    where : callable, optional
        From a place in the mapping to ``file:line:column``, for messages.
    progress : callable, optional
        Called before each layer and at the end.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        An option or the mapping is wrong.
    DoesNotFitError
        A layer fits no mapping.

    Examples
    --------
    >>> import energysim as es
    >>> r = es.simulate(es.load_network("vgg16_ps"), es.load_hardware("edge_tpu"))
    >>> r.total_macs, r.total_effective_macs
    (313201664, 161813504)
    """
    from energysim.mapper.dataflows import get_dataflow
    from energysim.mapper.residency import nothing_stays, plan
    from energysim.mapper.search import Objective

    if batch < 1:
        raise InputError(f"batch must be at least 1, got {batch}")
    if objective not in list(Objective):
        known = ", ".join(Objective)
        raise InputError(
            f"no objective named '{objective}'.{did_you_mean(objective, list(Objective))}\n"
            f"  known: {known}"
        )
    flow = get_dataflow(dataflow or hardware.dataflow)
    stays = hardware.residency if residency is None else residency
    options = _Options(
        hardware, flow, Objective(objective), mapping, where or _nowhere, batch, stays
    )
    _check_names(network, mapping, options.where)
    shapes = [_with_batch(layer.shape, batch) for layer in network.layers]
    stores = [_store(layer, hardware, weight_format) for layer in network.layers]

    streamed: set[int] = set()
    costs: dict[int, tuple[_Job, _Cost]] = {}
    while True:
        kept = nothing_stays(network)
        if stays:
            kept = plan(
                hardware,
                network,
                shapes=shapes,
                stores=stores,
                dataflow=flow,
                streamed=frozenset(streamed),
            )
        jobs = [
            _Job(layer, shape, store, around)
            for layer, shape, store, around in zip(
                network.layers, shapes, stores, kept.layers, strict=True
            )
        ]
        failed = _cost_all(jobs, options, costs, progress)
        if failed is None:
            break
        # The plan leaves room for one pass over the array, which a machine that keeps wide partial
        # sums in its buffer may find too small: then this layer's output goes to DRAM.
        streamed.add(failed)
    rows = [costs[i][1] for i in range(len(jobs))]
    return _result(network, options, kept, rows)


def _nowhere(loc: tuple[str | int, ...]) -> str:
    return ".".join(["mapping", *map(str, loc)])


def _check_names(
    network: Network,
    mapping: MappingFile | None,
    where: Callable[[tuple[str | int, ...]], str],
) -> None:
    known = [layer.name for layer in network.layers]
    for name in mapping.layers if mapping else ():
        if name not in known:
            raise InputError(
                f"{network.name} has no layer named '{name}'.{did_you_mean(name, known)}",
                where=where(("layers", name)),
            )


def _with_batch(shape: Shape, batch: int) -> Shape:
    return replace(shape, dims=(batch, *shape.dims[1:]))


def _store(layer: Layer, hardware: Hardware, weight_format: str | None) -> WeightStore | None:
    from energysim.model.sparse import WeightStore

    if not layer.has_weights:
        return None
    if weight_format is None or weight_format == "auto":
        return WeightStore.of(layer.mask, hardware.bits.weight, hardware.sparsity.formats)
    if weight_format not in FORMATS:
        raise InputError(
            f"no weight format named '{weight_format}'.{did_you_mean(weight_format, FORMATS)}\n"
            f"  known: auto, {', '.join(FORMATS)}"
        )
    if weight_format not in hardware.sparsity.formats:
        raise InputError(
            f"{hardware.name} cannot decode the weight format '{weight_format}'; "
            f"sparsity.formats of its file lists {', '.join(hardware.sparsity.formats)}"
        )
    # A dense layer gains nothing from an index, and every format can hold it as it is.
    formats = ("dense",) if layer.mask.density == 1 else (weight_format,)
    return WeightStore.of(layer.mask, hardware.bits.weight, formats)


@dataclass(frozen=True, slots=True)
class _Cost:
    """What one layer costs."""

    layer: LayerRow
    accesses: tuple[AccessRow, ...]
    loops: tuple[LevelLoops, ...]
    occupancy: tuple[Occupancy, ...]
    mapspace: int
    evaluated: int


def _cost_all(
    jobs: Sequence[_Job],
    options: _Options,
    costs: dict[int, tuple[_Job, _Cost]],
    progress: Progress | None,
) -> int | None:
    """Cost of every layer whose job is new; the index of a layer that must not keep its output."""
    solved = {_same(job): cost for job, cost in costs.values()}
    for i, job in enumerate(jobs):
        if progress:
            progress(i, len(jobs), job.layer.name)
        if i in costs and costs[i][0] == job:
            continue
        twin = solved.get(_same(job)) if not options.mapping else None
        try:
            cost = _rename(twin, job.layer) if twin else _cost(job, options)
        except DoesNotFitError as error:
            if Tensor.OUTPUT in job.residency.tensors:
                return i
            raise DoesNotFitError(f"layer {job.layer.name}: {error}") from None
        costs[i] = (job, cost)
        solved[_same(job)] = cost
    if progress:
        progress(len(jobs), len(jobs), "")
    return None


def _same(job: _Job) -> tuple[object, ...]:
    """Equal for layers that cost the same."""
    mask = None if job.store is None else (job.store.format, job.store.mask)
    return job.shape, job.layer.kind, mask, job.residency


def _rename(cost: _Cost, layer: Layer) -> _Cost:
    return replace(
        cost,
        layer=replace(cost.layer, layer=layer.name),
        accesses=tuple(replace(row, layer=layer.name) for row in cost.accesses),
    )


def _cost(job: _Job, options: _Options) -> _Cost:
    import numpy as np

    from energysim.mapper.search import Problem, search
    from energysim.model.capacity import occupancy
    from energysim.model.counts import count

    hardware, has_weights = _as_seen_by(job.layer, options.hardware), job.layer.has_weights
    rules = machine_rules(hardware, has_weights=has_weights)
    given = options.mapping.layers.get(job.layer.name) if options.mapping else None
    mapspace = evaluated = 1
    if given is not None:
        prefix = ("layers", job.layer.name)
        nest, trips = read_loops(
            hardware,
            job.shape,
            given,
            has_weights=has_weights,
            where=lambda loc: options.where((*prefix, *loc)),
        )
        loops = given
    else:
        found = search(
            Problem(
                hardware,
                job.shape,
                rules,
                options.dataflow,
                job.store,
                job.residency,
                options.objective,
                _static_pj_per_cycle(hardware),
                _compute_pj(job, hardware),
            )
        )
        nest, trips = found.nest, found.trips
        loops = write_loops(hardware, found.segments, trips)
        mapspace, evaluated = found.mapspace, found.feasible
    try:
        counts = count(job.shape, nest, np.array([trips], dtype=np.int64), rules)
    except ValueError as error:
        raise InputError(str(error), where=options.where(("layers", job.layer.name))) from None
    filled = occupancy(hardware, job.shape, nest, trips, counts, job.store, job.residency)
    for room in filled:
        if room.excess_bits > 0:
            _refuse(job, options, room, mapped=given is not None)
    return _price(job, options, nest, counts, loops, tuple(filled), (mapspace, evaluated))


def _as_seen_by(layer: Layer, hardware: Hardware) -> Hardware:
    """The machine with the widths of one layer: the vector unit hands over finished outputs."""
    if layer.has_weights:
        return hardware
    bits = hardware.bits.model_copy(update={"psum": hardware.bits.output})
    return hardware.model_copy(update={"bits": bits})


def _static_pj_per_cycle(hardware: Hardware) -> float:
    # 1 mW for 1 us is 1000 pJ
    return hardware.static_mw * 1000 / hardware.clock_mhz


def _compute_pj(job: _Job, hardware: Hardware) -> float:
    from energysim.model.energy import compute_pj

    effective = job.layer.effective_macs * job.shape[Dim.N]
    has_weights = job.layer.has_weights
    return compute_pj(hardware, job.shape.macs, effective, has_weights=has_weights)


def _refuse(job: _Job, options: _Options, room: Occupancy, *, mapped: bool) -> None:
    name = options.hardware.levels[room.level].name
    parts = ", ".join(
        f"{tensor.label} {-(-bits // BITS_PER_BYTE):,}"
        for tensor, bits in room.bits.items()
        if bits
    )
    if room.reserved_bits:
        parts += f", kept for other layers {-(-room.reserved_bits // BITS_PER_BYTE):,}"
    message = (
        f"level {name} is too small by {-(-room.excess_bits // BITS_PER_BYTE):,} bytes: "
        f"the tiles need {-(-room.used_bits // BITS_PER_BYTE):,} bytes ({parts})"
    )
    if not mapped or Tensor.OUTPUT in job.residency.tensors:
        raise DoesNotFitError(message)
    if room.reserved_bits or job.residency.tensors:
        message += ". Try --residency off"
    raise InputError(message, where=options.where(("layers", job.layer.name)))


def _price(
    job: _Job,
    options: _Options,
    nest: Nest,
    counts: Counts,
    loops: tuple[LevelLoops, ...],
    filled: tuple[Occupancy, ...],
    searched: tuple[int, int],
) -> _Cost:
    from energysim.model.energy import tariff
    from energysim.model.latency import latency

    hardware, layer, shape = _as_seen_by(job.layer, options.hardware), job.layer, job.shape
    prices = tariff(hardware, nest, job.store, job.residency.tensors)
    time = latency(
        hardware,
        nest,
        prices,
        steps=counts.steps,
        value=counts.values.get,
        used=counts.used,
        vector=not layer.has_weights,
    )
    cycles = int(time.total[0])
    accesses = _memory_rows(job, hardware, counts, prices)
    accesses += _network_rows(job, hardware, counts, prices)
    operations, effective = shape.macs, layer.effective_macs * shape[Dim.N]
    arithmetic = _compute_pj(job, hardware)
    gated = layer.has_weights and hardware.sparsity.weights != "none"
    unit, done = "MAC" if layer.has_weights else "vector", effective if gated else operations
    accesses.append(_row(job, hardware, (unit, "", "compute"), (done, 0.0, arithmetic)))
    if hardware.static_mw:
        static = cycles * _static_pj_per_cycle(hardware)
        accesses.append(_row(job, hardware, ("static", "", "static"), (0, 0.0, static)))
    macs = operations if layer.has_weights else 0
    places = prod(hardware.axis_sizes)
    of_kind = {kind: {level.name for level in hardware.levels if level.kind == kind}
               for kind in ("dram", "sram")}  # fmt: skip
    moved = {
        kind: sum(row.bits for row in accesses if row.level in names) / BITS_PER_BYTE
        for kind, names in of_kind.items()
    }
    row = LayerRow(
        layer=layer.name,
        kind=str(layer.kind),
        macs=macs,
        effective_macs=effective if layer.has_weights else 0,
        cycles=cycles,
        time_ms=cycles_to_ms(cycles, hardware.clock_mhz),
        utilization=macs / (cycles * places) if cycles else 0.0,
        dram_bytes=moved["dram"],
        sram_bytes=moved["sram"],
        energy_pj=sum(each.energy_pj for each in accesses),
        dram_bound_bytes=_bound_bits(job, options) / BITS_PER_BYTE,
        weight_format=job.store.format if job.store else "",
        weight_bits=job.store.total_bits if job.store else 0,
        resident=" ".join(tensor.label for tensor in sorted(job.residency.tensors)),
        mapping=write_line(loops),
    )
    return _Cost(row, tuple(accesses), loops, filled, *searched)


def _row(
    job: _Job,
    hardware: Hardware,
    what: tuple[str, str, str],
    figures: tuple[int, float, float],
) -> AccessRow:
    return AccessRow("", hardware.name, job.layer.name, *what, *figures)


def _memory_rows(job: _Job, hardware: Hardware, counts: Counts, prices: Tariff) -> list[AccessRow]:
    """What is read and written at each memory level."""
    rows = []
    for (index, memory), tensor, action in product(enumerate(hardware.levels), Tensor, Action):
        key = (index, tensor, action.label)
        elements = int(counts(*key)[0]) if key in prices.bits else 0
        if not elements:
            continue
        done = (index, tensor, f"{action.label}_complete")
        bits = elements * prices.bits[key] + prices.once_bits.get(key, 0)
        bits += int(counts(*done)[0]) * prices.bits.get(done, 0.0)
        write = action in (Action.FILL, Action.UPDATE)
        per_bit = memory.write_pj_per_bit if write else memory.read_pj_per_bit
        if tensor is Tensor.WEIGHT and memory.compressed and job.store is not None:
            elements = job.store.stored_elements(elements)
        what = (memory.name, tensor.label, action.label)
        rows.append(_row(job, hardware, what, (elements, bits, bits * per_bit)))
    return rows


def _network_rows(job: _Job, hardware: Hardware, counts: Counts, prices: Tariff) -> list[AccessRow]:
    """What crosses the network between a level and the instances it fans out to."""
    rows = []
    for tensor in Tensor:
        own = [(key, each) for key, each in prices.hop_bits.items() if key[1] is tensor]
        hops = sum(int(counts(*key)[0]) for key, _ in own if key[2] == "hop")
        bits = sum(int(counts(*key)[0]) * each for key, each in own)
        if hops:
            figures = (hops, bits, bits * prices.hop_pj)
            rows.append(_row(job, hardware, ("NoC", tensor.label, "hop"), figures))
    return rows


def write_line(loops: Iterable[LevelLoops]) -> str:
    """A mapping in one line: ``DRAM K4 | SRAM C2 P7 [K64@cols]``.

    Examples
    --------
    >>> write_line([LevelLoops(level="DRAM", temporal=(("K", 4),), spatial=(("C", 8, "rows"),))])
    'DRAM K4 [C8@rows]'
    """
    rows = []
    for row in loops:
        words = [row.level, *(f"{dim}{trip}" for dim, trip in row.temporal)]
        words += [f"[{dim}{trip}@{axis}]" for dim, trip, axis in row.spatial]
        words += [f"{tensor}+{shift}" for tensor, shift in row.cuts.items()]
        rows.append(" ".join(words))
    return " | ".join(rows)


def _bound_bits(job: _Job, options: _Options) -> float:
    """Least traffic to and from DRAM: what must move once, or what the on-chip memory forces."""
    from energysim.model.bounds import (
        communication_bound,
        compulsory_elements,
        real_macs,
        window_reuse,
    )

    hardware, layer = options.hardware, job.layer
    elements = compulsory_elements(job.shape, count_padding=hardware.padding == "count")
    bits: dict[Tensor, float] = {
        tensor: each * hardware.bits.of(tensor) for tensor, each in elements.items()
    }
    bits[Tensor.WEIGHT] = job.store.total_bits if job.store else 0
    once = sum(each for tensor, each in bits.items() if tensor not in job.residency.tensors)
    if job.residency.tensors or not layer.has_weights:
        return once
    narrowest = min(hardware.bits.of(tensor) for tensor in Tensor)
    room = sum(
        _all_bits(level.capacity_bits()) * hardware.instances(i)
        for i, level in enumerate(hardware.levels)
    )
    room += sum(hardware.bits.of(tensor) for tensor in Tensor) * prod(hardware.axis_sizes)
    # MACs on padding need no input; at most all of them are among those with live weights
    macs = layer.effective_macs * job.shape[Dim.N] - (job.shape.macs - real_macs(job.shape))
    forced = communication_bound(max(macs, 0), window_reuse(job.shape), -(-room // narrowest))
    return max(once, forced * narrowest)


def _all_bits(capacity: int | Mapping[Tensor, int] | None) -> int:
    if capacity is None or isinstance(capacity, int):
        return capacity or 0
    return sum(capacity.values())


def _result(
    network: Network,
    options: _Options,
    kept: Plan,
    costs: Sequence[_Cost],
) -> Result:
    hardware = options.hardware
    result = Result(
        network=network.name,
        hardware=hardware.name,
        base=network.base,
        pattern=network.pattern,
        dataflow=options.dataflow.name,
        objective=str(options.objective),
        batch=options.batch,
        residency=options.residency,
        bits=f"int{hardware.bits.weight}",
        level_names=tuple(level.name for level in hardware.levels),
        layer_rows=tuple(cost.layer for cost in costs),
        access_rows=tuple(
            replace(row, network=network.name) for cost in costs for row in cost.accesses
        ),
        mappings={cost.layer.layer: cost.loops for cost in costs},
        mapspace=sum(cost.mapspace for cost in costs),
        evaluated=sum(cost.evaluated for cost in costs),
        cached_weight_bytes=kept.cached_weight_bits / BITS_PER_BYTE,
        warnings=(),
        inputs=(network, hardware),
    )
    return replace(result, warnings=collect_notes(result, network, hardware))
