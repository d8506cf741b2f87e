"""Cost of mixture norms (M8): arithmetic counted one by one, traffic walked, and shown as rows."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from command_line import ROOT, call

from energysim.cache import Cache
from energysim.catalog import load_hardware, load_network
from energysim.mapping import MappingFile
from energysim.network import (
    Mixture,
    Network,
    NetworkSpec,
    Of,
    Operations,
    Work,
    build_network,
    operations,
    statistics_words,
)
from energysim.network.norm import EXPONENTIAL_MACS, RECIPROCAL_MACS, STATISTIC_BITS
from energysim.result import Result
from energysim.simulate import simulate
from energysim.tradeoff import trade
from energysim.train.mixture import (
    Fit,
    Seen,
    gains_of,
    mixture_norm_backward,
    mixture_norm_inference,
    moments,
    posteriors,
)
from energysim.train.ops import EPSILON
from energysim.train.scratch import Floats
from energysim.training import Phase, training_of

BOTH = pytest.mark.parametrize("of", list(Of))


# -- arithmetic ------------------------------------------------------------------------------------


class Number:
    """A number that counts what is done with it."""

    done: ClassVar[Counter[str]] = Counter()

    def __init__(self, value: float) -> None:
        self.value = float(value)

    def _made(self, word: str, value: float) -> Number:
        Number.done[word] += 1
        return Number(value)

    def __add__(self, other: Number) -> Number:
        return self._made("additions", self.value + other.value)

    def __sub__(self, other: Number) -> Number:
        return self._made("additions", self.value - other.value)

    def __mul__(self, other: Number) -> Number:
        return self._made("multiplications", self.value * other.value)

    def larger(self, other: Number) -> Number:
        return self._made("additions", max(self.value, other.value))

    def exp(self) -> Number:
        return self._made("exponentials", math.exp(self.value))

    def inverse(self) -> Number:
        return self._made("reciprocals", 1 / self.value)


def numbers(values: Floats) -> list[list[Number]]:
    return [[Number(each) for each in row] for row in values]


class Case:
    """A mixture over few channels, with constants worked out beforehand, and one position."""

    def __init__(self, how: Mixture, channels: int) -> None:
        rng = np.random.default_rng(how.components)
        self.how, self.channels = how, channels
        many = channels if how.of is Of.CHANNEL else 1
        share = rng.uniform(1, 2, (how.components, many))
        self.fit = Fit(
            share / share.sum(axis=0),
            rng.standard_normal((how.components, channels)),
            rng.uniform(0.5, 2, (how.components, channels)),
        )
        self.points = rng.standard_normal((channels, 6))
        self.dy = rng.standard_normal((channels, 6))
        self.gamma, self.beta = rng.uniform(0.5, 2, channels), rng.standard_normal(channels)
        spread = self.fit.variance + EPSILON
        half = -0.5 / spread
        logs = -0.5 * np.log(spread)
        if how.of is Of.VECTOR:
            logs = logs.sum(axis=1, keepdims=True)
        self.constants = numbers(np.log(self.fit.proportion) + logs)
        self.half, self.mean = numbers(half), numbers(self.fit.mean)
        self.scale = numbers(self.gamma * gains_of(self.fit, how) / np.sqrt(spread))

    def away(self, at: int) -> list[list[Number]]:
        x = [Number(each) for each in self.points[:, at]]
        return [[x[c] - mean for c, mean in enumerate(row)] for row in self.mean]

    def posteriors(self, away: list[list[Number]]) -> list[list[Number]]:
        """Of each component, and of each channel where these have mixtures of their own."""
        alone = self.how.of is Of.CHANNEL
        groups = [[c] for c in range(self.channels)] if alone else [list(range(self.channels))]
        found: list[list[Number]] = [[] for _ in away]
        for group, members in enumerate(groups):
            logs = []
            for k, row in enumerate(away):
                total = self.constants[k][group]
                for c in members:
                    total = total + row[c] * row[c] * self.half[k][c]
                logs.append(total)
            highest = logs[0]
            for each in logs[1:]:
                highest = highest.larger(each)
            powers = [(each - highest).exp() for each in logs]
            total = powers[0]
            for each in powers[1:]:
                total = total + each
            inverse = total.inverse()
            for k, each in enumerate(powers):
                found[k].append(each * inverse)
        return found

    def posterior(self, found: list[list[Number]], k: int, c: int) -> Number:
        return found[k][c if self.how.of is Of.CHANNEL else 0]


def normalise(case: Case, at: int, *, again: bool = False) -> list[float]:
    """Results of one position; ``again`` takes distances apart from those of the posteriors."""
    away = case.away(at)
    found = case.posteriors(away)
    away = case.away(at) if again else away
    y = [Number(each) for each in case.beta]
    for k, row in enumerate(away):
        for c, each in enumerate(row):
            y[c] = y[c] + case.posterior(found, k, c) * each * case.scale[k][c]
    return [each.value for each in y]


@cache
def _case(how: Mixture, channels: int) -> Case:
    return Case(how, channels)


@BOTH
@pytest.mark.parametrize(("components", "channels"), [(2, 1), (2, 5), (3, 4), (5, 3)])
def test_operations_of_inference_are_those_that_are_done(
    of: Of, components: int, channels: int
) -> None:
    case = _case(Mixture(components, of), channels)
    Number.done = Counter()
    y = normalise(case, 0)
    assert Number.done == Counter(counts(operations(case.how, channels)))
    wanted = mixture_norm_inference(case.points[:, :1], case.gamma, case.beta, case.how, case.fit)
    assert np.allclose(y, wanted[:, 0], rtol=1e-12)
    Number.done = Counter()
    normalise(case, 0, again=True)
    assert Number.done == Counter(counts(operations(case.how, channels, Work.APPLY)))


def counts(done: Operations) -> dict[str, int]:
    words = ("multiplications", "additions", "exponentials", "reciprocals")
    return {word: getattr(done, word) for word in words if getattr(done, word)}


@BOTH
@pytest.mark.parametrize(("components", "channels"), [(2, 5), (3, 4)])
def test_operations_of_a_sweep_are_those_that_are_done(
    of: Of, components: int, channels: int
) -> None:
    case = _case(Mixture(components, of), channels)
    many = channels if of is Of.CHANNEL else 1
    totals = [
        [[Number(0) for _ in range(each)] for each in (many, channels, channels)]
        for _ in range(components)
    ]
    Number.done = Counter()
    elements = case.points.shape[1]
    for at in range(elements):
        found = case.posteriors(case.away(at))
        for k, (shares, firsts, seconds) in enumerate(totals):
            for group in range(many):
                shares[group] = shares[group] + found[k][group]
            for c in range(channels):
                x = Number(case.points[c, at])
                part = case.posterior(found, k, c) * x
                firsts[c] = firsts[c] + part
                seconds[c] = seconds[c] + part * x
    assert Number.done == Counter(counts(operations(case.how, channels, Work.SWEEP) * elements))
    fit = moments(case.points, posteriors(case.points, case.fit)[0], case.fit)
    for k, (shares, firsts, seconds) in enumerate(totals):
        share = np.array([each.value for each in shares])
        mean = np.array([each.value for each in firsts]) / share
        square = np.array([each.value for each in seconds]) / share
        assert np.allclose(fit.proportion[k], share / elements)
        assert np.allclose(fit.mean[k], mean)
        assert np.allclose(fit.variance[k], square - mean**2)


@BOTH
@pytest.mark.parametrize(("components", "channels"), [(2, 5), (3, 4)])
def test_operations_of_the_way_back_are_those_that_are_done(
    of: Of, components: int, channels: int
) -> None:
    case = _case(Mixture(components, of), channels)
    weights, _ = posteriors(case.points, case.fit)
    fit = moments(case.points, weights, case.fit)
    elements = case.points.shape[1]
    given = Seen(weights, fit)
    wanted, *_ = mixture_norm_backward(
        case.dy, case.points, case.points, case.gamma, case.how, given
    )
    zero = [[Number(0) for _ in range(channels)] for _ in range(components)]
    first, second = zero, [row.copy() for row in zero]
    mean = numbers(fit.mean)

    def passed(at: int) -> Iterator[tuple[int, int, Number, Number, Number]]:
        """Component, channel, posterior, gradient and distance: of the fit that was found."""
        found = case.posteriors(case.away(at))
        for k in range(components):
            for c in range(channels):
                away = Number(case.points[c, at]) - mean[k][c]
                yield k, c, case.posterior(found, k, c), Number(case.dy[c, at]), away

    Number.done = Counter()
    for at in range(elements):
        for k, c, share, dy, away in passed(at):
            part = share * dy
            first[k][c] = first[k][c] + part
            second[k][c] = second[k][c] + part * away
    assert Number.done == Counter(counts(operations(case.how, channels, Work.SUMS) * elements))
    # Constants of the last pass: what belongs to no single element.
    many = fit.proportion * elements * np.ones((1, channels))
    rates = 1 / np.sqrt(fit.variance + EPSILON)
    sums = [np.array([[each.value for each in row] for row in rows]) for rows in (first, second)]
    less = numbers(sums[0] / many)
    slope = numbers(sums[1] / many * rates**2)
    factor = numbers(case.gamma * gains_of(fit, case.how) * rates)
    Number.done = Counter()
    for at in range(elements):
        totals: list[Number | None] = [None] * channels
        for k, c, share, dy, away in passed(at):
            part = share * (dy - less[k][c] - away * slope[k][c]) * factor[k][c]
            before = totals[c]
            totals[c] = part if before is None else before + part
        assert np.allclose([each.value for each in totals if each], wanted[:, at])
    assert Number.done == Counter(counts(operations(case.how, channels, Work.GRADIENT) * elements))


def test_counts_are_those_of_the_method() -> None:
    for k, c in ((3, 64), (5, 512)):
        vector = operations(Mixture(k, Of.VECTOR), c)
        assert vector.multiplications == 4 * k * c + k
        assert (vector.exponentials, vector.reciprocals) == (k, 1)
        assert statistics_words(Mixture(k, Of.VECTOR), c) == k * (2 * c + 1) + 2 * c
        channel = operations(Mixture(k), c)
        assert channel.multiplications == 5 * k * c
        assert (channel.exponentials, channel.reciprocals) == (k * c, c)
    # 8.3 % and 1.0 % of the MACs of a square 3x3 layer, but for the products with the reciprocal.
    shares = [4 * 3 * c / (9 * c * c) for c in (16, 128)]
    assert shares == pytest.approx([0.083, 0.0104], abs=5e-4)
    some = Operations(2, 3, exponentials=1, reciprocals=1)
    assert some.macs == 2 + EXPONENTIAL_MACS + RECIPROCAL_MACS
    assert (some + some) == some * 2
    assert some.steps == some.macs + 3


# -- traffic ---------------------------------------------------------------------------------------


def small_network() -> Network:
    record = "kind: conv, kernel: 3, pad: 1, bias: false, batch_norm: true"
    text = (
        "name: small\nsource: a test\ninput: [2, 5, 4]\nlayers:\n"
        f"  - {{name: first, out: 6, {record}}}\n  - {{name: second, out: 6, {record}}}\n"
        "  - {name: pool, kind: pool, kernel: global, mode: average}\n"
        "  - {name: fc, kind: linear, out: 3}\n"
    )
    return build_network(NetworkSpec.model_validate_json(json.dumps(yaml.safe_load(text))), None,
                         load_network)  # fmt: skip


def tiled(parts: int, batch: int) -> MappingFile:
    """A mapping whose tiles on chip hold a part of the filters."""
    levels = [
        {"level": "DRAM", "temporal": [["N", batch], ["K", parts]]},
        {"level": "SRAM", "temporal": [], "spatial": [["K", 6 // parts, "cols"]]},
        {"level": "ACC", "temporal": [["R", 3], ["S", 3]], "spatial": [["C", 6, "rows"]]},
        {"level": "RF", "temporal": [["P", 5], ["Q", 4]]},
    ]
    return MappingFile.model_validate_json(json.dumps({"layers": {"second": levels}}))


class Runs:
    """Simulations that share what was searched, and are not repeated."""

    def __init__(self, folder: Path) -> None:
        self.chip, self.cache = load_hardware("edge_tpu"), Cache(folder)
        self.done: dict[object, Result] = {}

    def of(
        self, norm: str | Mixture | None, *, parts: int | None = None, batch: int = 1,
        **settings: Any,
    ) -> Result:  # fmt: skip
        key = str(norm), parts, batch, tuple(settings.items())
        if key not in self.done:
            network = small_network() if norm is None else small_network().with_norm(norm)
            mapping = None if parts is None else tiled(parts, batch)
            settings = {"residency": False} | settings if "phase" not in settings else settings
            self.done[key] = simulate(
                network, self.chip, mapping=mapping, batch=batch, cache=self.cache, **settings
            )
        return self.done[key]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("cache"))


def moved(result: Result, layer: str) -> dict[tuple[str, str, str], int]:
    rows = (row for row in result.access_rows if row.layer == layer)
    return {(row.level, row.tensor, row.action): row.elements for row in rows}


def walked(shape: tuple[int, int, int], parts: int, batch: int, of: Of) -> Counter[str]:
    """Elements that cross between chip and DRAM for a norm, one by one.

    The map is completed part by part of its channels; a part that is complete leaves the chip. A
    pixel can be normalised once all that its posteriors depend on is on chip.
    """
    channels, height, width = shape
    done: Counter[str] = Counter()
    for _ in range(batch):
        written: set[tuple[int, int, int]] = set()
        for part in range(parts):
            some = range(part * channels // parts, (part + 1) * channels // parts)
            for c in some:
                for y in range(height):
                    for x in range(width):
                        needed = {c} if of is Of.CHANNEL else set(range(channels))
                        if not needed <= set(some):  # the others are not here: it leaves raw
                            written.add((c, y, x))
        for _ in written:
            done["read"] += 1
            done["written"] += 1
    return done


@BOTH
@pytest.mark.parametrize(("parts", "batch"), [(1, 1), (2, 1), (3, 3)])
def test_traffic_is_that_of_a_walk(runs: Runs, of: Of, parts: int, batch: int) -> None:
    result = runs.of(Mixture(3, of), parts=parts, batch=batch)
    wanted = walked((6, 5, 4), parts, batch, of)
    found = moved(result, "second.norm")
    assert found.get(("DRAM", "input", "read"), 0) == wanted["read"]
    assert found.get(("DRAM", "output", "update"), 0) == wanted["written"]
    whole = 6 * 5 * 4 * batch
    assert wanted["read"] in (0, whole)
    assert found["SRAM", "input", "read"] == found["SRAM", "output", "update"] == whole
    assert found["DRAM", "weight", "read"] == statistics_words(Mixture(3, of), 6)
    # What the layer before moves does not depend on the norm behind it.
    plain = runs.of(None, parts=parts, batch=batch)
    assert moved(result, "second") == moved(plain, "second")


@BOTH
def test_a_norm_adds_its_own_rows_and_nothing_else(runs: Runs, of: Of) -> None:
    how = Mixture(3, of)
    result, plain = runs.of(how), runs.of(None)
    own = [row for row in result.layer_rows if row.kind == "mixture_norm"]
    rest = [row for row in result.layer_rows if row.kind != "mixture_norm"]
    assert [row.energy_pj for row in rest] == [row.energy_pj for row in plain.layer_rows]
    assert result.total_energy_pj == pytest.approx(
        plain.total_energy_pj + sum(row.energy_pj for row in own), rel=1e-12
    )
    chip = runs.chip
    assert chip.vector is not None
    for row in own:
        channels, height, width = small_network().with_norm(how).layer(row.layer).output
        done = operations(how, channels) * (height * width)
        rows = {
            (each.level, each.action): each
            for each in result.access_rows
            if each.layer == row.layer and each.action == "compute"
        }
        assert rows["MAC", "compute"].elements == done.macs
        assert rows["MAC", "compute"].energy_pj == pytest.approx(done.macs * chip.mac.energy_pj)
        assert rows["vector", "compute"].elements == done.additions
        assert result.timings[row.layer].compute_cycles == -(-done.steps // chip.vector.lanes)
        assert row.dram_bytes == statistics_words(how, channels) * STATISTIC_BITS / 8


def test_statistics_stay_where_weights_stay(runs: Runs) -> None:
    result = runs.of("mixture:3", residency=True)
    found = moved(result, "second.norm")
    assert ("DRAM", "weight", "read") not in found
    assert found["SRAM", "weight", "read"] == statistics_words(Mixture(3), 6)
    plain = runs.of(None, residency=True)
    bits = 2 * statistics_words(Mixture(3), 6) * STATISTIC_BITS
    assert result.cached_weight_bytes == plain.cached_weight_bytes + bits / 8


@BOTH
def test_trade_offs_hold_for_any_mapping_of_the_layer_before(runs: Runs, of: Of) -> None:
    found = trade(small_network().with_norm(Mixture(3, of)), runs.chip, residency=False)
    whole = 6 * 5 * 4
    for at in range(len(found.points)):
        own = moved(found.result(at), "second.norm")
        assert own.get(("DRAM", "input", "read"), 0) == (whole if of is Of.VECTOR else 0)


def test_like_norms_cost_alike_and_others_do_not(runs: Runs) -> None:
    few, more = runs.of("mixture:2"), runs.of("mixture:4")
    row = {each.layer: each for each in few.layer_rows}
    assert row["first.norm"].energy_pj == row["second.norm"].energy_pj
    other = {each.layer: each for each in more.layer_rows}
    assert other["first.norm"].energy_pj > row["first.norm"].energy_pj


def test_the_command_shows_norms_as_rows() -> None:
    done = call("run", "--net", "digits_cnn", "--hw", "edge_tpu", "--norm", "mixture:3", "-q")
    assert done.status == 0, done.err
    assert " conv1.norm " in done.out
    assert "digits_cnn+mixture:3 on edge_tpu" in done.out
    assert call("run", "--net", "digits_cnn", "--hw", "edge_tpu", "--norm", "none").status == 2


# -- training --------------------------------------------------------------------------------------


def test_every_pass_of_training_is_a_step(runs: Runs) -> None:
    how, batch = Mixture(2, Of.VECTOR, sweeps=2), 3
    network = small_network().with_norm(how)
    own = [step for step in training_of(network, batch).steps if step.of == "second.norm"]
    assert [step.name.removeprefix("second.norm") for step in own] == [
        ".sweep1", ".sweep2", "", ".sums", ".dx", ".update"
    ]  # fmt: skip
    assert [str(step.phase) for step in own] == ["forward"] * 3 + ["input_grad"] * 2 + ["update"]
    whole = batch * 6 * 5 * 4
    moves = {".sweep1": (1, 0), ".sweep2": (1, 0), "": (1, 1), ".sums": (2, 0), ".dx": (2, 1)}
    result = runs.of(how, batch=batch, phase="training")
    for step in own[:-1]:
        word = step.name.removeprefix("second.norm")
        reads, writes = moves[word]
        found = moved(result, step.name)
        assert found["DRAM", "input", "read"] == reads * whole
        # Sums are given for each channel and image.
        assert found["DRAM", "output", "update"] == (writes * whole or batch * 6)
        done = step.operations
        assert done is not None
        assert found["MAC", "", "compute"] == done.macs * (batch * 5 * 4)
        assert found["vector", "", "compute"] == done.additions * (batch * 5 * 4)


def test_each_sweep_costs_what_its_step_does(runs: Runs) -> None:
    once, thrice = (runs.of(Mixture(3, sweeps=each), batch=3, phase="training") for each in (1, 3))
    rows = {row.layer: row.energy_pj for row in thrice.layer_rows}
    both = rows["first.norm.sweep1"] + rows["second.norm.sweep1"]
    assert thrice.total_energy_pj - once.total_energy_pj == pytest.approx(2 * both, rel=1e-9)


def test_components_cost_arithmetic_and_no_traffic(runs: Runs) -> None:
    one, three = (runs.of(Mixture(k), batch=3, phase="training") for k in (1, 3))
    assert one.total_dram_bytes == three.total_dram_bytes
    assert one.total_energy_pj < three.total_energy_pj
    assert one.activation_bytes() == three.activation_bytes()
    # The input of a norm waits for the way back, beside that of the layer before it.
    plain = runs.of(None, batch=3, phase="training").activation_bytes()
    assert one.activation_bytes()["kept"] == plain["kept"] + 3 * 2 * 6 * 5 * 4


def test_what_is_computed_again_needs_no_new_fit() -> None:
    steps = training_of(small_network().with_norm("mixture:3"), 2, recompute=True).steps
    again = [step.name for step in steps if step.phase is Phase.RECOMPUTE]
    assert "first.norm.again" in again
    assert not [name for name in again if "sweep" in name]


# -- what is recorded ------------------------------------------------------------------------------


def test_the_recorded_experiment_is_what_is_told() -> None:
    """The table of the page is that of the summary, and this that of the runs."""
    folder = ROOT / "experiments"
    with (folder / "mixture_digits" / "summary.csv").open(newline="") as file:
        means = list(csv.DictReader(file))
    with (folder / "mixture_digits" / "updates.csv").open(newline="") as file:
        every = list(csv.DictReader(file))
    page = (folder / "README.md").read_text(encoding="utf-8")
    words = ("norm", "gamma", "lr")
    for row in means:
        alike = [each for each in every if all(each[word] == row[word] for word in words)]
        updates = [int(each["updates"]) for each in alike if each["updates"]]
        assert (len(alike), len(updates)) == (int(row["seeds"]), int(row["reached"]))
        assert row["updates"] == f"{np.mean(updates):.0f}"
        (line,) = re.findall(rf"^\| `{row['norm']}` \| {row['gamma']} \|.*$", page, re.MULTILINE)
        if row["reached"] == row["seeds"]:
            assert f" {row['updates']} ± {row['updates_std']} |" in line
            assert f" {row['energy_to_batch']} |" in line
        else:
            assert f"{row['reached']} of {row['seeds']} reached it" in line
