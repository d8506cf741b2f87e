"""Network and hardware in, result out: map every layer, count it, price it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from math import prod
from time import monotonic
from typing import TYPE_CHECKING, Any

from energysim.activations import Activations
from energysim.axes import Shape, Tensor
from energysim.checks import collect_notes
from energysim.errors import DoesNotFitError, InputError, did_you_mean
from energysim.hardware import Hardware
from energysim.mapper.goal import Certificate, Objective, Options
from energysim.mapping import (
    LevelLoops,
    MappingFile,
    Nest,
    machine_rules,
    read_loops,
    write_line,
)
from energysim.network import Layer, MixtureLayer, Network, Of
from energysim.result import AccessRow, LayerRow, Result, RunnerUp, Timing, TrainingRow
from energysim.sparsity import DENSE, FORMATS, Activity, Mask
from energysim.training import EPOCH_IMAGES, Phase, Step, Training, training_of
from energysim.units import BITS_PER_BYTE

if TYPE_CHECKING:
    from energysim.cache import Cache
    from energysim.mapper.dataflows import Dataflow
    from energysim.mapper.problem import Problem
    from energysim.mapper.residency import Plan
    from energysim.model.capacity import Occupancy
    from energysim.model.counts import Counts
    from energysim.model.lockstep import Skipped
    from energysim.model.sparse import WeightStore
    from energysim.price import Job

PHASES = ("inference", "training")
"""What can be simulated."""

COUNTABLE = 2**52
"""Operations of a layer below which every count is exact."""

Progress = Callable[[int, int, str], None]
"""Called with layers done, layers in all, and the name of the layer that comes next."""


class InterruptedRun(KeyboardInterrupt):
    """Ctrl-C during a run.

    Parameters
    ----------
    done : tuple of LayerRow
        Layers that were finished.
    total : int
        Layers of the network.
    """

    def __init__(self, done: tuple[LayerRow, ...], total: int) -> None:
        energy = sum(row.energy_pj for row in done) / 1e6
        names = f" ({done[0].layer} to {done[-1].layer}, {energy:.4g} uJ)" if done else ""
        super().__init__(
            f"{len(done)} of {total} layers were done{names}. Nothing was written; what was found "
            "is kept, unless --no-cache was given: the same command goes on from there."
        )
        self.done, self.total = done, total


RUNNERS_UP = 3
"""How many of the next best mappings an explanation lists."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a network is simulated."""

    hardware: Hardware
    dataflow: Dataflow
    objective: Objective
    mapping: MappingFile | None
    where: Callable[[tuple[str | int, ...]], str]
    batch: int
    residency: bool
    weight_format: str
    perfect: bool
    uneven: bool
    explain: str | None
    deadline: float | None
    cache: Cache | None
    training: Training | None = None
    activations: Activations | None = None


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
    perfect: bool = False,
    uneven: bool = True,
    explain: str | None = None,
    budget_s: float | None = None,
    cache: Cache | None = None,
    phase: str = "inference",
    recompute: bool = False,
    epoch_images: int | None = None,
    activations: Activations | None = None,
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
    perfect : bool
        Search only trip counts that divide.
    uneven : bool
        Search also mappings in which tensors of one level have different cuts.
    explain : str, optional
        A layer of which the next best mappings are found as well (``result.runners_up``).
    budget_s : float, optional
        Stop the search of the layers together after this long, with what it has found [s]; by
        default it ends when it has the best mapping of each.
    cache : Cache, optional
        Where mappings found before are looked up and new ones kept (the command line uses
        ``Cache(energysim.cache.folder())``).
    phase : str
        ``inference``, or ``training`` for one iteration: forward, gradients and update.
    recompute : bool
        In training, keep only activations that cross from one segment of layers to another.
    epoch_images : int, optional
        In training, images of an epoch; 50,000 by default.
    activations : Activations, optional
        Densities of inputs and outputs (:func:`energysim.load_activations`); what follows from them
        is an expected value. Of use where ``hardware.sparsity`` gates or codes activations.
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
    InterruptedRun
        Ctrl-C came after some layers were done; says which.

    Examples
    --------
    >>> import energysim as es
    >>> r = es.simulate(es.load_network("vgg16_ps"), es.load_hardware("edge_tpu"))
    >>> r.total_macs, r.total_effective_macs
    (313201664, 161813504)
    """
    settled = settle(
        network,
        hardware,
        batch=batch,
        objective=objective,
        dataflow=dataflow,
        residency=residency,
        mapping=mapping,
        weight_format=weight_format,
        perfect=perfect,
        uneven=uneven,
        explain=explain,
        budget_s=budget_s,
        cache=cache,
        phase=phase,
        recompute=recompute,
        epoch_images=epoch_images,
        activations=activations,
        where=where,
        progress=progress,
    )
    return settled.result(settled.costs)


@dataclass(frozen=True, slots=True)
class Settled:
    """A network of which it is known what stays on chip, and what each layer costs at best."""

    network: Network
    hardware: Hardware
    """as it was asked for"""
    settings: Settings
    kept: Plan
    jobs: tuple[Job, ...]
    costs: tuple[LayerCost, ...]
    streamed: frozenset[int]
    """layers whose output leaves the chip although there was room for it"""

    def total(self, objective: Objective) -> float:
        """Cost of the network by an objective."""
        rows = [cost.layer for cost in self.costs]
        energy, cycles = sum(row.energy_pj for row in rows), sum(row.cycles for row in rows)
        figures = {
            Objective.ENERGY: energy,
            Objective.LATENCY: cycles,
            Objective.EDP: energy * cycles,
            Objective.DRAM: sum(row.dram_bytes for row in rows),
        }
        return float(figures[objective])

    def result(self, costs: Sequence[LayerCost]) -> Result:
        """Add up costs of the layers."""
        return _result((self.network, self.hardware), self.settings, self.kept, costs)


def settle(
    network: Network,
    hardware: Hardware,
    *,
    batch: int = 1,
    objective: str = "energy",
    dataflow: str | None = None,
    residency: bool | None = None,
    mapping: MappingFile | None = None,
    weight_format: str | None = None,
    perfect: bool = False,
    uneven: bool = True,
    explain: str | None = None,
    budget_s: float | None = None,
    cache: Cache | None = None,
    phase: str = "inference",
    recompute: bool = False,
    epoch_images: int | None = None,
    activations: Activations | None = None,
    where: Callable[[tuple[str | int, ...]], str] | None = None,
    progress: Progress | None = None,
    mappings_vary: bool = False,
) -> Settled:
    """Plan what stays on chip and find the best mapping of each layer; as :func:`simulate`.

    With ``mappings_vary``, layers may be given other mappings later: norms that would need all
    channels of a tile then have a pass of their own, which fits any mapping.
    """
    from energysim.mapper.dataflows import of_machine, with_dataflow
    from energysim.mapper.residency import nothing_stays, plan
    from energysim.norms import fusible, joined
    from energysim.price import Job

    if not isinstance(network, Network) or not isinstance(hardware, Hardware):
        raise InputError(
            "simulate() takes a Network and a Hardware: see load_network, load_hardware"
        )
    if type(batch) is not int or batch < 1:
        raise InputError(f"batch must be an integer of at least 1, got {batch!r}")
    if mapping is not None and not isinstance(mapping, MappingFile):
        raise InputError(f"mapping must be a MappingFile, got {type(mapping).__name__}")
    if budget_s is not None and not 0 <= budget_s < float("inf"):
        raise InputError(f"budget_s must be a time of at least 0 seconds, got {budget_s!r}")
    training = None
    if _trains(phase, residency, recompute=recompute, epoch_images=epoch_images):
        images = EPOCH_IMAGES if epoch_images is None else epoch_images
        training = training_of(network, batch, recompute=recompute, epoch_images=images)
    worked = network if training is None else replace(network, layers=training.steps)
    _check_sizes(worked, batch)
    minimised = objective_named(objective)
    asked = hardware
    hardware = with_dataflow(hardware, dataflow)
    flow = replace(of_machine(hardware), uneven=uneven)
    stays = (hardware.residency if residency is None else residency) and training is None
    options = Settings(
        hardware,
        flow,
        minimised,
        mapping,
        where or _nowhere,
        batch,
        stays,
        weight_format or "auto",
        perfect,
        uneven,
        explain,
        None if budget_s is None else monotonic() + budget_s,
        cache,
        training,
        activations,
    )
    activities = _activities(network, hardware, activations, phase)
    _check_names(worked, mapping, options.where)
    shapes = [layer.batched(batch) for layer in worked.layers]
    stores = [
        _store(layer, shape, hardware, weight_format)
        for layer, shape in zip(worked.layers, shapes, strict=True)
    ]

    costs: dict[int, tuple[Job, LayerCost]] = {}
    passes: set[int] = set()
    """norms that need a pass of their own"""

    def attempt(streamed: frozenset[int], caches: bool) -> Settled:
        """Cost of the network if some outputs leave the chip, and all weights do or may stay."""
        kept = nothing_stays(worked)
        if stays:
            kept = plan(
                hardware,
                worked,
                shapes=shapes,
                stores=stores,
                dataflow=flow,
                streamed=streamed,
                caches=caches,
            )
        fused = fusible(worked.layers, kept.layers, any_mapping=mappings_vary)
        jobs = [
            Job(
                layer,
                shape,
                store,
                joined(around) if i in fused.keys() - passes else around,
                activities.get(layer.name, DENSE),
            )
            for i, (layer, shape, store, around) in enumerate(
                zip(worked.layers, shapes, stores, kept.layers, strict=True)
            )
        ]
        failed = _cost_all(jobs, options, costs, progress)
        if failed is not None:
            # The plan leaves room for one pass over the array, which a machine that keeps wide
            # partial sums in its buffer may find too small: then this layer's output goes to DRAM.
            return attempt(streamed | {failed}, caches)
        apart = {
            norm
            for norm, producer in fused.items()
            if norm not in passes
            and not _meets_whole(jobs[norm], jobs[producer], costs[producer][1], options)
        }
        if apart:
            passes.update(apart)
            return attempt(streamed, caches)
        rows = tuple(costs[i][1] for i in range(len(jobs)))
        return Settled(network, asked, options, kept, tuple(jobs), rows, streamed)

    return _best_plan(attempt, minimised)


def _meets_whole(norm: Job, producer: Job, cost: LayerCost, options: Settings) -> bool:
    """Whether a norm finds all that its posteriors depend on in the buffer, as it is completed."""
    from energysim.norms import holds_all_channels
    from energysim.price import machine_of

    assert isinstance(norm.layer, MixtureLayer)  # nothing else is fused
    if norm.layer.mixture.of is Of.CHANNEL:
        return True
    machine = machine_of(producer.layer, options.hardware)
    nest, trips = read_loops(
        machine, producer.shape, cost.loops, has_weights=producer.layer.has_weights, where=str
    )
    return holds_all_channels(producer.shape, nest, trips)


def _best_plan(attempt: Callable[[frozenset[int], bool], Settled], objective: Objective) -> Settled:
    """Let go of what takes room that is worth more than its moves."""

    def total(each: Settled) -> float:
        return each.total(objective)

    def improved(caches: bool) -> Settled:
        best = attempt(frozenset(), caches)
        tried: set[int] = set()
        while doubtful := [
            i
            for i, job in enumerate(best.jobs)
            if i not in tried and Tensor.OUTPUT in job.residency.tensors and _crowded(best, i)
        ]:
            tried.add(doubtful[0])
            best = min(best, attempt(best.streamed | {doubtful[0]}, caches), key=total)
        return best

    best = improved(True)
    crowded = (_crowded(best, i) for i in range(len(best.jobs)))
    if best.kept.cached_weight_bits and any(crowded):
        best = min(best, improved(False), key=total)
    return best


def _crowded(plan: Settled, layer: int) -> bool:
    """Whether a layer moves more than if nothing stayed and all moved once.

    Then what stays may leave so little room that it costs more than it saves.
    """
    from energysim.price import compulsory_bits

    job, cost = plan.jobs[layer], plan.costs[layer]
    if not job.residency.tensors:
        return False
    once = sum(compulsory_bits(job, plan.settings.hardware).values())
    return cost.layer.dram_bytes * BITS_PER_BYTE > once


def objective_named(name: str) -> Objective:
    """Find an objective by its name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in list(Objective):
        raise InputError(
            f"no objective named '{name}'.{did_you_mean(name, list(Objective))}\n"
            f"  known: {', '.join(Objective)}"
        )
    return Objective(name)


def _nowhere(loc: tuple[str | int, ...]) -> str:
    return ".".join(["mapping", *map(str, loc)])


def _check_sizes(network: Network, batch: int) -> None:
    for layer in network.layers:
        operations = prod(layer.batched(batch).dims)
        if operations >= COUNTABLE:
            raise InputError(
                f"layer {layer.name} of {network.name} does {operations:,} operations with batch "
                f"{batch}; at most {COUNTABLE:,} can be counted"
            )


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


def _trains(
    phase: str, residency: bool | None, *, recompute: bool, epoch_images: int | None
) -> bool:
    """Whether the phase is training; refuses what does not go with it."""
    if phase not in PHASES:
        hint = did_you_mean(phase, PHASES)
        raise InputError(f"no phase named '{phase}'.{hint}\n  known: {', '.join(PHASES)}")
    trains = phase == "training"
    if trains and residency:
        raise InputError(
            "in training every tensor goes to and from the outermost level: weights change at each "
            "step, and activations wait for the backward pass. Leave residency out"
        )
    if not trains and (recompute or epoch_images is not None):
        word = "recompute" if recompute else "epoch_images"
        raise InputError(f"{word} is for phase 'training': inference has no epochs or gradients")
    return trains


def _activities(
    network: Network, hardware: Hardware, activations: Activations | None, phase: str
) -> dict[str, Activity]:
    """Densities of each layer, as far as the machine makes use of them."""
    if activations is None:
        return {}
    if not isinstance(activations, Activations):
        raise InputError(
            f"activations must be Activations, got {type(activations).__name__}: see "
            "load_activations"
        )
    if phase != "inference":
        raise InputError(
            "activations tell the zeros of an inference; nothing is known of those of gradients. "
            "Leave them out in training"
        )
    from energysim.model.energy import used_activity

    activations.check(network)
    known = activations.of(network)
    return {
        layer.name: used_activity(hardware, known[layer.name], has_weights=layer.has_weights)
        for layer in network.layers
    }


def _store(
    layer: Layer, shape: Shape, hardware: Hardware, weight_format: str | None
) -> WeightStore | None:
    from energysim.model.sparse import WeightStore
    from energysim.price import machine_of

    if not layer.has_weights:
        return None
    if not layer.stores_weights:
        width = machine_of(layer, hardware).bits.weight
        return WeightStore.of(Mask.of("dense", shape), width, ("dense",))
    if isinstance(layer, Step) and layer.phase is Phase.WEIGHT_GRAD:
        width = machine_of(layer, hardware).bits.weight
        dense = WeightStore.of(layer.mask, width, ("dense",))
        moved = layer.moved_outputs(skips_zeros=hardware.sparsity.weights != "none")
        return replace(dense, outputs=moved)
    if not hardware.levels[0].compressed:
        if weight_format not in (None, "auto", "dense"):
            raise InputError(
                f"{hardware.levels[0].name} of {hardware.name} holds weights uncompressed "
                f"('compressed: false'): leave out the weight format '{weight_format}'"
            )
        return WeightStore.of(layer.mask, hardware.bits.weight, ("dense",))
    if weight_format is None or weight_format == "auto":
        return WeightStore.of(
            layer.mask,
            hardware.bits.weight,
            hardware.sparsity.formats,
            run_bits=hardware.sparsity.run_bits,
        )
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
    return WeightStore.of(
        layer.mask, hardware.bits.weight, formats, run_bits=hardware.sparsity.run_bits
    )


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What one layer costs with one mapping."""

    layer: LayerRow
    accesses: tuple[AccessRow, ...]
    loops: tuple[LevelLoops, ...]
    certificate: Certificate = field(default_factory=Certificate)
    others: tuple[RunnerUp, ...] = ()
    rooms: tuple[Occupancy, ...] = ()
    """how full each level on chip is"""
    skipped: Skipped | None = None
    """array steps, where zero weights are skipped"""
    timing: Timing | None = None
    """what its cycles are made of"""


def _cost_all(
    jobs: Sequence[Job],
    options: Settings,
    costs: dict[int, tuple[Job, LayerCost]],
    progress: Progress | None,
) -> int | None:
    """Cost of every layer whose job is new; the index of a layer that must not keep its output."""
    solved = {same(job): cost for job, cost in costs.values()}
    for i, job in enumerate(jobs):
        if progress:
            progress(i, len(jobs), job.layer.name)
        if i in costs and costs[i][0] == job:
            continue
        alone = options.mapping or job.layer.name == options.explain
        twin = None if alone else solved.get(same(job))
        budget_s = None
        if options.deadline is not None:
            left = {same(each) for each in jobs[i:]} - solved.keys()
            budget_s = max(options.deadline - monotonic(), 0.0) / max(len(left), 1)
        try:
            cost = renamed(twin, job.layer) if twin else _cost(job, options, budget_s)
        except KeyboardInterrupt:
            done = [costs[j][1].layer for j in range(i) if j in costs]
            raise InterruptedRun(tuple(done), len(jobs)) from None
        except DoesNotFitError as error:
            if Tensor.OUTPUT in job.residency.tensors:
                return i
            raise DoesNotFitError(f"layer {job.layer.name}: {error}") from None
        costs[i] = (job, cost)
        solved[same(job)] = cost
    if progress:
        progress(len(jobs), len(jobs), "")
    return None


def same(job: Job) -> tuple[object, ...]:
    """Equal for layers that cost the same."""
    phase = job.layer.phase if isinstance(job.layer, Step) else None
    widths = phase if phase in (Phase.WEIGHT_GRAD, Phase.UPDATE) else None
    operand = None if job.store is None else (job.store.format, job.store.mask, job.store.outputs)
    asked = job.residency, job.activity
    kind = job.layer.kind, job.layer.operations
    return job.shape, kind, widths, job.effective_macs, operand, asked


def renamed(cost: LayerCost, layer: Layer) -> LayerCost:
    """Give a layer the cost of an equal one."""
    return replace(
        cost,
        layer=replace(cost.layer, layer=layer.name),
        accesses=tuple(replace(row, layer=layer.name) for row in cost.accesses),
        certificate=replace(cost.certificate, seconds=0.0),
    )


def _cost(job: Job, options: Settings, budget_s: float | None) -> LayerCost:
    from energysim.price import machine_of
    from energysim.solve import solve

    given = options.mapping.layers.get(job.layer.name) if options.mapping else None
    if given is None:
        found = solve(problem_of(job, options, budget_s), options.cache)
        cost = priced(job, options, found.nest, found.trips, found.loops, counts=found.counts)
        others = found.others
        others = tuple(_measured(job, options, other) for other in others)
        return replace(cost, certificate=found.certificate, others=others)
    hardware, has_weights = machine_of(job.layer, options.hardware), job.layer.has_weights
    prefix = ("layers", job.layer.name)
    nest, trips = read_loops(
        hardware,
        job.shape,
        given,
        has_weights=has_weights,
        where=lambda loc: options.where((*prefix, *loc)),
    )
    return priced(job, options, nest, trips, given, mapped=True)


def _measured(job: Job, options: Settings, other: RunnerUp) -> RunnerUp:
    """Measure a mapping as the layer's own is, with what only a finished one shows."""
    from energysim.mapper.goal import Measure
    from energysim.price import machine_of

    hardware = machine_of(job.layer, options.hardware)
    has_weights = job.layer.has_weights
    nest, trips = read_loops(hardware, job.shape, other.loops, has_weights=has_weights, where=str)
    row = priced(job, options, nest, trips, other.loops).layer
    return replace(
        other, measure=Measure(row.energy_pj, row.cycles, row.dram_bytes * BITS_PER_BYTE)
    )


def problem_of(
    job: Job, options: Settings, budget_s: float | None, other: Objective | None = None
) -> Problem:
    """State what is searched for a layer."""
    from energysim.mapper.dataflows import around
    from energysim.mapper.problem import Problem
    from energysim.price import arithmetic_pj, machine_of, static_pj_per_cycle

    hardware = machine_of(job.layer, options.hardware)
    return Problem(
        hardware,
        job.shape,
        machine_rules(hardware, has_weights=job.layer.has_weights),
        around(options.dataflow, job.residency.tensors),
        job.store,
        job.residency,
        options.objective,
        other,
        static_pj_per_cycle(hardware),
        arithmetic_pj(job, hardware),
        Options(
            options.perfect,
            budget_s,
            RUNNERS_UP if other is None and job.layer.name == options.explain else 0,
        ),
        activity=job.activity,
    )


def priced(
    job: Job,
    options: Settings,
    nest: Nest,
    trips: tuple[int, ...],
    loops: tuple[LevelLoops, ...],
    *,
    mapped: bool = False,
    counts: Counts | None = None,
) -> LayerCost:
    """Cost of a layer with one mapping, counted here unless its counts are known.

    Raises
    ------
    InputError
        A mapping that was given (``mapped``) can't be counted or is too big.
    DoesNotFitError
        One that was found does not fit.
    """
    import numpy as np

    from energysim.model.capacity import occupancy
    from energysim.model.counts import count
    from energysim.price import machine_of, price_layer, skipped_steps

    hardware = machine_of(job.layer, options.hardware)
    rules = machine_rules(hardware, has_weights=job.layer.has_weights)
    if counts is None:
        try:
            counts = count(job.shape, nest, np.array([trips], dtype=np.int64), rules)
        except ValueError as error:
            raise InputError(str(error), where=options.where(("layers", job.layer.name))) from None
    rooms = occupancy(hardware, job.shape, nest, trips, counts, job.store, job.residency)
    for room in rooms:
        if room.excess_bits > 0:
            _refuse(job, options, room, mapped=mapped)
    skipped = skipped_steps(job, hardware, nest, trips)
    line = write_line(loops)
    row, accesses, timing = price_layer(job, hardware, (nest, trips), counts, line, skipped)
    return LayerCost(row, accesses, loops, rooms=tuple(rooms), skipped=skipped, timing=timing)


def _refuse(job: Job, options: Settings, room: Occupancy, *, mapped: bool) -> None:
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
    if room.level == 1 and (room.reserved_bits or job.residency.tensors):
        message += ". Try --residency off"
    raise InputError(message, where=options.where(("layers", job.layer.name)))


def _result(
    inputs: tuple[Network, Hardware],
    options: Settings,
    kept: Plan,
    costs: Sequence[LayerCost],
) -> Result:
    network, hardware = inputs
    training = options.training
    rows: tuple[LayerRow, ...] = tuple(cost.layer for cost in costs)
    if training is not None:
        rows = tuple(
            TrainingRow(**_fields_of(row), phase=str(step.phase), of=step.of)
            for row, step in zip(rows, training.steps, strict=True)
        )
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
        layer_rows=rows,
        access_rows=tuple(
            replace(row, network=network.name) for cost in costs for row in cost.accesses
        ),
        mappings={cost.layer.layer: cost.loops for cost in costs},
        search=sum((cost.certificate for cost in costs[1:]), start=costs[0].certificate),
        runners_up={cost.layer.layer: cost.others for cost in costs},
        searches={cost.layer.layer: cost.certificate for cost in costs},
        rooms={cost.layer.layer: cost.rooms for cost in costs},
        skipped={cost.layer.layer: cost.skipped for cost in costs if cost.skipped},
        timings={cost.layer.layer: cost.timing for cost in costs if cost.timing},
        cached_weight_bytes=kept.cached_weight_bits / BITS_PER_BYTE,
        warnings=(),
        weight_format=options.weight_format,
        perfect=options.perfect,
        uneven=options.uneven,
        given_mappings=tuple(options.mapping.layers) if options.mapping else (),
        inputs=inputs,
        training=training,
        activations=options.activations,
    )
    return replace(result, warnings=collect_notes(result, network, hardware))


def _fields_of(row: LayerRow) -> dict[str, Any]:
    return {each.name: getattr(row, each.name) for each in fields(row)}
