"""What a run gives: one row a layer, one row a level, tensor and action, and their totals."""

from __future__ import annotations

import csv
import hashlib
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energysim.activations import Activations
from energysim.axes import Tensor
from energysim.files import write_atomically
from energysim.hardware import Hardware
from energysim.mapper.goal import Certificate, Measure
from energysim.mapping import LevelLoops
from energysim.network import Network
from energysim.training import Phase, Training
from energysim.units import BITS_PER_BYTE, pj_to_mj, si
from energysim.version import VERSION

if TYPE_CHECKING:
    import pandas as pd

    from energysim.model.capacity import Occupancy
    from energysim.model.lockstep import Skipped


class NoteKind(StrEnum):
    """What a run can have to say beside its numbers."""

    WEIGHTS_CACHED = "weights_cached"
    WEIGHTS_STREAMED = "weights_streamed"
    LOW_UTILIZATION = "low_utilization"
    DENSE_STORED = "dense_stored"
    SKIP_NOT_SOUGHT = "skip_not_sought"
    IMBALANCE = "imbalance"
    VECTOR_FREE = "vector_free"
    ASSUMED = "assumed"
    SUMS_SPILLED = "sums_spilled"
    ACTIVATIONS_UNUSED = "activations_unused"
    ACTIVATIONS_LEFT_OUT = "activations_left_out"
    TRAINING = "training"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Note:
    """Something a reader of the numbers should know, with advice."""

    kind: NoteKind
    text: str


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer; all figures are for the whole batch."""

    layer: str
    kind: str
    macs: int
    effective_macs: int
    cycles: int
    time_ms: float
    utilization: float
    dram_bytes: float
    sram_bytes: float
    energy_pj: float
    dram_bound_bytes: float
    weight_format: str
    weight_bits: int
    resident: str
    mapping: str


@dataclass(frozen=True, slots=True)
class Timing:
    """What the cycles of one layer are made of.

    Notes
    -----
    The cycles of a layer are ``max(max(compute, buses) + waiting, levels that overlap) + the other
    levels + exposed``, where DRAM, if it overlaps, does so without what is exposed of it.
    """

    compute_cycles: float
    """array steps, filling and draining a systolic array; or those of the vector unit"""
    bus_cycles: float
    """of the busiest bus of the array"""
    waiting_cycles: float
    """the array waits for the weights and first inputs of a pass"""
    exposed_cycles: float
    """first tiles in and last out"""
    level_cycles: Mapping[str, float]
    """traffic of each level over its bandwidth"""
    overlapping: tuple[str, ...]
    """levels whose traffic hides behind other work"""


@dataclass(frozen=True, slots=True)
class TrainingRow(LayerRow):
    """One step of a training iteration."""

    phase: str
    """a :class:`energysim.training.Phase`"""
    of: str
    """the layer of the network that it belongs to"""


@dataclass(frozen=True, slots=True)
class PhaseCost:
    """All steps of one phase of a training iteration together."""

    energy_mj: float
    time_ms: float
    cycles: int
    macs: int
    effective_macs: int
    dram_bytes: float


@dataclass(frozen=True, slots=True)
class AccessRow:
    """What is done to one tensor at one level in one layer."""

    network: str
    hardware: str
    layer: str
    level: str
    tensor: str
    action: str
    elements: int
    bits: float
    energy_pj: float


_ACCESS_COLUMNS = tuple(each.name for each in fields(AccessRow))


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """A mapping that is not the best, and what it costs."""

    loops: tuple[LevelLoops, ...]
    measure: Measure


@dataclass(frozen=True, slots=True)
class Result:
    """Cost of one network on one accelerator.

    Notes
    -----
    The energy of a layer is the sum of its access rows, and the total the sum over layers.
    """

    network: str
    hardware: str
    base: str | None
    """name of the dense network, of a variant"""
    pattern: str
    """name of the sparsity pattern, ``dense`` without one"""
    dataflow: str
    objective: str
    batch: int
    residency: bool
    """whether data that fits stays on chip between layers and inferences"""
    bits: str
    """width of weights, such as ``int8``"""
    level_names: tuple[str, ...]
    """memory levels, outermost first"""
    layer_rows: tuple[LayerRow, ...]
    access_rows: tuple[AccessRow, ...]
    mappings: Mapping[str, tuple[LevelLoops, ...]]
    """of each layer, as a mapping file states them"""
    search: Certificate
    """of all layers together; equal layers are searched once and counted each time"""
    runners_up: Mapping[str, tuple[RunnerUp, ...]] = field(repr=False)
    """of the layer to be explained, the next best mappings; of others none"""
    searches: Mapping[str, Certificate] = field(repr=False)
    """of each layer by itself"""
    rooms: Mapping[str, tuple[Occupancy, ...]] = field(repr=False)
    """how full each level on chip is in each layer"""
    skipped: Mapping[str, Skipped] = field(repr=False)
    """array steps of each layer whose zero weights are skipped"""
    timings: Mapping[str, Timing] = field(repr=False)
    """of each layer, what its cycles are made of"""
    cached_weight_bytes: float
    """weights that stay on chip from one inference to the next [byte]"""
    warnings: tuple[Note, ...]
    weight_format: str
    """storage format asked for, ``auto`` = the smallest that the hardware can decode"""
    perfect: bool
    """whether only trip counts that divide were searched"""
    uneven: bool
    """whether tensors of one level could have different cuts"""
    given_mappings: tuple[str, ...]
    """layers whose mapping was given; the others were searched"""
    inputs: tuple[Network, Hardware] = field(repr=False)
    """what was simulated"""
    training: Training | None = field(default=None, repr=False)
    """the steps, one for each row, where an iteration of training was simulated"""
    activations: Activations | None = field(default=None, repr=False)
    """densities of inputs and outputs, where they were given"""

    # -- totals --------------------------------------------------------------------------------

    @property
    def total_energy_pj(self) -> float:
        """Energy of the batch [pJ]."""
        return sum(row.energy_pj for row in self.layer_rows)

    @property
    def total_energy_mj(self) -> float:
        """Energy of the batch [mJ]."""
        return pj_to_mj(self.total_energy_pj)

    @property
    def total_cycles(self) -> int:
        """Cycles of the batch, layer after layer."""
        return sum(row.cycles for row in self.layer_rows)

    @property
    def total_time_ms(self) -> float:
        """Time of the batch [ms]."""
        return sum(row.time_ms for row in self.layer_rows)

    @property
    def total_macs(self) -> int:
        """Multiply-accumulates, zeros included."""
        return sum(row.macs for row in self.layer_rows)

    @property
    def total_effective_macs(self) -> int:
        """Multiply-accumulates with weights that may differ from zero."""
        return sum(row.effective_macs for row in self.layer_rows)

    @property
    def total_dram_bytes(self) -> float:
        """Bytes to and from DRAM."""
        return sum(row.dram_bytes for row in self.layer_rows)

    @property
    def total_dram_bound_bytes(self) -> float:
        """Lower bound of the bytes to and from DRAM."""
        return sum(row.dram_bound_bytes for row in self.layer_rows)

    def energy_by_level(self) -> dict[str, float]:
        """Energy of each memory level and other part, outermost first; sums to the total [pJ]."""
        parts: dict[str, float] = dict.fromkeys(
            (*self.level_names, "NoC", "vector", "MAC", "static"), 0.0
        )
        for row in self.access_rows:
            parts[row.level] += row.energy_pj
        return {name: energy for name, energy in parts.items() if energy}

    def level_bytes(self, name: str) -> list[float]:
        """Bytes that each layer moves at one memory level."""
        moved = dict.fromkeys((row.layer for row in self.layer_rows), 0.0)
        for row in self.access_rows:
            if row.level == name:
                moved[row.layer] += row.bits / BITS_PER_BYTE
        return list(moved.values())

    # -- training ------------------------------------------------------------------------------

    def by_phase(self) -> dict[str, PhaseCost]:
        """Cost of each phase of a training iteration, in order; nothing for inference."""
        rows = [row for row in self.layer_rows if isinstance(row, TrainingRow)]
        return {
            str(phase): _together([row for row in rows if row.phase == phase])
            for phase in Phase
            if any(row.phase == phase for row in rows)
        }

    @property
    def epoch_iterations(self) -> float:
        """Iterations of an epoch, a last smaller one as part of one; 0 for inference."""
        return self.training.epoch_images / self.batch if self.training else 0.0

    @property
    def recompute_energy_mj(self) -> float:
        """Energy that computing activations again takes, or would take [mJ]."""
        again = self.training.repeated if self.training else ()
        rows = (row for row in self.layer_rows if row.layer in again)
        return pj_to_mj(sum(row.energy_pj for row in rows))

    def activation_bytes(self) -> dict[str, float]:
        """Peak of activations that wait for the backward pass, ``kept`` and ``recomputed`` [byte].

        Nothing for inference.
        """
        if self.training is None:
            return {}
        width = self.inputs[1].bits.input / BITS_PER_BYTE
        waiting = self.training.activations
        return {"kept": waiting.kept * width, "recomputed": waiting.recomputed * width}

    # -- densities of activations -------------------------------------------------------------

    def activation_rows(self) -> list[dict[str, Any]]:
        """Densities of each layer, and bits of an element in DRAM; nothing if none were given."""
        from energysim.model.energy import stored_in_dram

        network, hardware = self.inputs
        if self.activations is None:
            return []
        return [
            {
                "layer": name,
                "input_density": each.input_density,
                "output_density": each.output_density,
                "dram_bits_per_input": stored_in_dram(hardware, Tensor.INPUT, each).bits,
                "dram_bits_per_output": stored_in_dram(hardware, Tensor.OUTPUT, each).bits,
            }
            for name, each in self.activations.of(network).items()
        ]

    # -- tables --------------------------------------------------------------------------------

    @property
    def _row_kind(self) -> type:
        return LayerRow if self.training is None else TrainingRow

    @property
    def layers(self) -> pd.DataFrame:
        """One row a layer, columns as in :class:`LayerRow` (in training :class:`TrainingRow`)."""
        return _frame(self.layer_rows, self._row_kind)

    @property
    def accesses(self) -> pd.DataFrame:
        """One row a layer, level, tensor and action, columns as in :class:`AccessRow`."""
        return _frame(self.access_rows, AccessRow)

    def to_csv(self, path: str | Path | None = None, *, levels: bool = False) -> str:
        """Write the layer table, or with ``levels`` the access table, as CSV; also returned."""
        rows, kind = (self.access_rows, AccessRow) if levels else (self.layer_rows, self._row_kind)
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        names = [each.name for each in fields(kind)]
        writer.writerow(names)
        writer.writerows([getattr(row, name) for name in names] for row in rows)
        return _deliver(text.getvalue(), path)

    def to_json(self, path: str | Path | None = None) -> str:
        """Write everything, with all that is needed to repeat the run, as JSON; also returned."""
        return _deliver(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", path)

    def to_parquet(self, path: str | Path, *, levels: bool = False) -> None:
        """Write a table as Parquet, with the run's settings in its metadata (needs pyarrow)."""
        frame = self.accesses if levels else self.layers
        frame.attrs.update(self.settings())
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        write_atomically(Path(path), buffer.getvalue())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        network, hardware = self.inputs
        return {
            "settings": self.settings(),
            "totals": {
                "macs": self.total_macs,
                "effective_macs": self.total_effective_macs,
                "cycles": self.total_cycles,
                "time_ms": self.total_time_ms,
                "dram_bytes": self.total_dram_bytes,
                "dram_bound_bytes": self.total_dram_bound_bytes,
                "energy_mj": self.total_energy_mj,
                "energy_pj_by_level": self.energy_by_level(),
                "parameters": network.parameters,
                "cached_weight_bytes": self.cached_weight_bytes,
            },
            **self._training_dict(),
            "search": certificate_dict(self.search),
            "notes": [asdict(note) for note in self.warnings],
            "layers": [asdict(row) for row in self.layer_rows],
            "accesses": [
                {name: getattr(row, name) for name in _ACCESS_COLUMNS} for row in self.access_rows
            ],
            "timing": [{"layer": name, **asdict(each)} for name, each in self.timings.items()],
            "skipping": [{"layer": name, **each.to_dict()} for name, each in self.skipped.items()],
            **({"activations": self.activation_rows()} if self.activations else {}),
            "mapping": {
                "layers": {
                    name: [row.model_dump(mode="json") for row in loops]
                    for name, loops in self.mappings.items()
                }
            },
            "hardware": hardware.model_dump(mode="json"),
            "network": _plain(network.counted()),
        }

    def settings(self) -> dict[str, Any]:
        """All that the result depends on, by name and hash."""
        network, hardware = self.inputs
        return {
            "energysim": VERSION,
            "network": self.network,
            "network_sha256": _digest(_plain(network.counted())),
            "hardware": self.hardware,
            "hardware_sha256": _digest(hardware.model_dump(mode="json")),
            "pattern": self.pattern,
            "dataflow": self.dataflow,
            "objective": self.objective,
            "batch": self.batch,
            "residency": self.residency,
            "weight_format": self.weight_format,
            "perfect": self.perfect,
            "uneven": self.uneven,
            "given_mappings": list(self.given_mappings),
            **self._training_settings(),
            **({"activations": self.activations.settings()} if self.activations else {}),
        }

    def _training_settings(self) -> dict[str, Any]:
        if self.training is None:
            return {}
        return {
            "phase": "training",
            "recompute": self.training.recompute,
            "epoch_images": self.training.epoch_images,
        }

    def _training_dict(self) -> dict[str, Any]:
        if self.training is None:
            return {}
        iterations = self.epoch_iterations
        return {
            "training": {
                "phases": {name: asdict(cost) for name, cost in self.by_phase().items()},
                "image": {
                    "energy_mj": self.total_energy_mj / self.batch,
                    "time_ms": self.total_time_ms / self.batch,
                    "dram_bytes": self.total_dram_bytes / self.batch,
                },
                "epoch": {
                    "images": self.training.epoch_images,
                    "iterations": iterations,
                    "energy_mj": self.total_energy_mj * iterations,
                    "time_ms": self.total_time_ms * iterations,
                    "dram_bytes": self.total_dram_bytes * iterations,
                },
                "activations": {
                    "recompute": self.training.recompute,
                    "peak_bytes": self.activation_bytes(),
                    "segments": list(self.training.activations.segments),
                    "repeated": list(self.training.repeated),
                    "repeated_energy_mj": self.recompute_energy_mj,
                },
            }
        }

    # -- for people ----------------------------------------------------------------------------

    def __repr__(self) -> str:
        return (
            f"<{self.network} on {self.hardware}: {si(self.total_energy_mj)} mJ, "
            f"{si(self.total_time_ms)} ms, {si(self.total_dram_bytes / 1e6)} MB DRAM, "
            f"{len(self.layer_rows)} layers>"
        )

    def _repr_html_(self) -> str:
        """Return the layer table for notebooks."""
        heads = (
            "layer", "kind", "MACs [M]", "effective [M]", "DRAM [MB]", "energy [uJ]", "time [ms]",
            "share [%]",
        )  # fmt: skip
        total = self.total_energy_pj or 1.0
        rows = [
            [
                row.layer,
                row.kind,
                si(row.macs / 1e6),
                si(row.effective_macs / 1e6),
                si(row.dram_bytes / 1e6),
                si(row.energy_pj / 1e6),
                si(row.time_ms),
                si(100 * row.energy_pj / total),
            ]
            for row in self.layer_rows
        ]
        totals = (
            self.total_macs / 1e6,
            self.total_effective_macs / 1e6,
            self.total_dram_bytes / 1e6,
            self.total_energy_pj / 1e6,
            self.total_time_ms,
            100.0,
        )
        rows.append(["total", "", *map(si, totals)])
        return html_table(repr(self)[1:-1], heads, rows)


def html_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for notebooks, with a line above it."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f"<p><b>{html.escape(title)}</b></p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def certificate_dict(search: Certificate) -> dict[str, Any]:
    """What a file says of the search: not the time, for the same run to give the same bytes."""
    return {
        each.name: getattr(search, each.name) for each in fields(search) if each.name != "seconds"
    }


def _together(rows: Sequence[LayerRow]) -> PhaseCost:
    return PhaseCost(
        pj_to_mj(sum(row.energy_pj for row in rows)),
        sum(row.time_ms for row in rows),
        sum(row.cycles for row in rows),
        sum(row.macs for row in rows),
        sum(row.effective_macs for row in rows),
        sum(row.dram_bytes for row in rows),
    )


def _frame(rows: Sequence[object], kind: type) -> pd.DataFrame:
    import pandas as pd

    names = [each.name for each in fields(kind)]
    return pd.DataFrame([[getattr(row, name) for name in names] for row in rows], columns=names)


def _deliver(text: str, path: str | Path | None) -> str:
    if path is not None:
        write_atomically(Path(path), text)
    return text


def _plain(data: Any) -> Any:
    return json.loads(json.dumps(data))


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
