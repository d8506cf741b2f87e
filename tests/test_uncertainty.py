"""The energy as an interval: every effect against hardware that was really changed."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT, call
from machines import conv, looked_up, machine, memory, network, random_machine

import energysim as es
from energysim.activations import Activations, Density
from energysim.errors import DoesNotFitError
from energysim.hardware import Hardware
from energysim.mapping import MappingFile
from energysim.network import Network
from energysim.result import Result
from energysim.uncertainty import ConstantEffect, Uncertainty
from energysim.yamlio import to_yaml

NET = network(
    conv("a", 6, pattern="PS4_P4"),
    {"name": "p", "kind": "pool", "kernel": 2},
    conv("b", 4, 1),
    {"name": "f", "kind": "linear", "out": 5},
    size=(4, 6, 6),
)
DENSITIES = Activations({name: Density(0.4, 0.7) for name in ("a", "b", "f")})


def set_constant(hardware: Hardware, constant: str, value: float) -> Hardware:
    """Change one constant of a machine, as an edit of its file would."""
    plain: dict[str, Any] = hardware.model_dump(mode="json")
    block, _, field = constant.rpartition(".")
    levels = {level["name"]: level for level in plain["levels"]}
    (levels.get(block) or (plain[block] if block else plain))[field] = value
    for each in (plain, plain["mac"], plain["array"], *plain["levels"]):
        each.pop("ranges", None)
    return Hardware.model_validate_json(json.dumps(plain))


def again(result: Result, hardware: Hardware, **options: Any) -> Result:
    """The same run on other hardware, on the same mappings."""
    held = MappingFile(layers=dict(result.mappings))
    return es.simulate(result.inputs[0], hardware, mapping=held, residency=False, **options)


def run(hardware: Hardware, net: Network = NET, **options: Any) -> Result:
    return looked_up(net, hardware, residency=False, **options)


def everything(**fields: Any) -> Hardware:
    """A machine of which every constant counts."""
    return machine(
        memory("BUF", capacity_bytes=300, read_pj_per_bit=1.25, write_pj_per_bit=0.0),
        memory("RF", "regfile", per=["rows", "cols"], holds=["weight", "output"],
               capacity_bytes=24, read_pj_per_bit=0.1, write_pj_per_bit=0.3),
        array={"axes": {"rows": 2, "cols": 3}, "hop_pj_per_bit": 0.4, "source": "a test"},
        mac={"energy_pj": 2.5, "source": "a test"},
        vector={"lanes": 2, "energy_pj": 0.75, "source": "a test"},
        **({"static_mw": 3.0} | fields),
    )  # fmt: skip


@pytest.mark.parametrize("factor", [1.1, 0.5, 3.0])
@pytest.mark.parametrize(
    "options", [{}, {"activations": DENSITIES}], ids=["dense", "sparse activations"]
)
def test_every_effect_is_that_of_changed_hardware(
    factor: float, options: Mapping[str, Any]
) -> None:
    gates = {"weights": "gate", "activations": "gate", "formats": ["dense", "periodic"]}
    result = run(everything(sparsity=gates), **options)
    found = es.uncertainty(result)
    assert len(found.effects) == 9  # all but BUF.write_pj_per_bit, which is nothing
    for effect in found.effects:
        other = set_constant(result.inputs[1], effect.constant, effect.value * factor)
        change = again(result, other, **options).total_energy_pj - result.total_energy_pj
        assert change == pytest.approx((factor - 1) * effect.energy_pj, rel=1e-9), effect
        assert effect.step_pj == pytest.approx(0.1 * effect.energy_pj)


@pytest.mark.parametrize("seed", range(6))
def test_parts_sum_to_the_total(seed: int) -> None:
    hardware = random_machine(random.Random(seed))
    try:
        result = run(hardware)
    except DoesNotFitError:
        pytest.skip("too small a machine")
    found = es.uncertainty(result)
    assert sum(each.energy_pj for each in found.effects) == pytest.approx(result.total_energy_pj)
    assert found.low_pj == found.total_pj == found.high_pj
    assert found.widest is None
    effect = random.Random(seed).choice(found.effects)
    other = set_constant(hardware, effect.constant, effect.value * 1.1)
    more = again(result, other).total_energy_pj
    assert more - result.total_energy_pj == pytest.approx(effect.step_pj, rel=1e-6)


def ranged() -> Hardware:
    """Every kind of block with a range, one of a constant that is zero."""
    plain = everything(static_mw=0.0).model_dump(mode="json")
    plain["ranges"] = {"static_mw": [0, 1.5]}
    plain["mac"]["ranges"] = {"energy_pj": [1, 5]}
    plain["vector"]["ranges"] = {"energy_pj": [0.75, 0.75]}
    plain["array"]["ranges"] = {"hop_pj_per_bit": [0, 0.5]}
    plain["levels"][0]["ranges"] = {"read_pj_per_bit": [4, 22], "write_pj_per_bit": [5, 25]}
    plain["levels"][1]["ranges"] = {"write_pj_per_bit": [0, 2]}
    return Hardware.model_validate_json(json.dumps(plain))


@pytest.mark.parametrize(
    ("end", "total"),
    [(lambda each: each.low, lambda found: found.low_pj),
     (lambda each: each.high, lambda found: found.high_pj)],
)  # fmt: skip
def test_ends_of_the_interval_are_runs(
    end: Callable[[ConstantEffect], float], total: Callable[[Uncertainty], float]
) -> None:
    result = run(ranged())
    found = es.uncertainty(result)
    other = result.inputs[1]
    for effect in found.effects:
        other = set_constant(other, effect.constant, end(effect))
    assert total(found) == pytest.approx(again(result, other).total_energy_pj, rel=1e-9)
    assert found.low_pj < found.total_pj < found.high_pj


def test_the_widest_and_the_order() -> None:
    found = es.uncertainty(run(ranged()))
    by_name = {each.constant: each for each in found.effects}
    assert by_name["BUF.write_pj_per_bit"].energy_pj == 0  # and yet it may be more
    assert by_name["BUF.write_pj_per_bit"].interval_pj > 0
    assert by_name["static_mw"].unit == "mW"
    assert not by_name["BUF.read_pj_per_bit"].has_range
    assert by_name["vector.energy_pj"].has_range
    steps = [each.step_pj for each in found.effects]
    assert steps == sorted(steps, reverse=True)
    assert found.widest is not None
    assert found.widest.interval_pj == max(each.interval_pj for each in found.effects)
    shares = [row["interval_share"] for row in found.rows()]
    assert sum(shares) == pytest.approx(1)
    assert sum(row["share"] for row in found.rows()) == pytest.approx(1)


def test_training_too() -> None:
    result = run(everything(), phase="training")
    found = es.uncertainty(result)
    assert sum(each.energy_pj for each in found.effects) == pytest.approx(result.total_energy_pj)


# -- the command line -----------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chip.yaml").write_text(to_yaml(ranged()))
    Path("plain.yaml").write_text(to_yaml(everything()))
    layers = [conv("a", 6), {"name": "p", "kind": "pool", "kernel": 2}]
    net = {"name": "net", "source": "a test", "input": [4, 6, 6], "layers": layers}
    Path("net.yaml").write_text(to_yaml(net))


RUN = ("run", "--net", "net.yaml", "--hw", "chip.yaml", "--uncertainty")


@pytest.mark.usefixtures("files")
def test_the_table() -> None:
    done = call(*RUN)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("net on chip · weight_stationary")
    assert "most of the interval: DRAM.read_pj_per_bit" in done.out
    assert "3 of 10 have no range and are taken as exact (" in done.out
    assert "on the mappings of this run" in done.out
    first = done.out.splitlines()[3].split()
    assert first[:5] == ["DRAM.read_pj_per_bit", "20.0", "4.00", "22.0", "pJ/bit"]
    marked = call(*RUN, "--format", "md")
    assert "| DRAM.read_pj_per_bit | 20.0 | 4.00 | 22.0 | pJ/bit |" in marked.out


@pytest.mark.usefixtures("files")
def test_no_range_is_told() -> None:
    done = call(*RUN[:4], "plain.yaml", "--uncertainty")
    assert done.status == 0
    assert "no constant has a range, so there is no interval" in done.out
    assert "most of the interval" not in done.out


@pytest.mark.usefixtures("files")
def test_files() -> None:
    whole = json.loads(call(*RUN, "--format", "json").out)
    assert call(*RUN, "-o", "out.csv").status == 0
    records = list(csv.DictReader(io.StringIO(Path("out.csv").read_text())))
    assert [row["constant"] for row in records] == [row["constant"] for row in whole["constants"]]
    parts = sum(float(row["energy_pj"]) for row in records)
    run_of_it = json.loads(call(*RUN[:-1], "--format", "json").out)
    total = 1e9 * run_of_it["totals"]["energy_mj"]
    assert whole["energy_pj"]["value"] == pytest.approx(total)
    assert parts == pytest.approx(total)
    assert whole["energy_pj"]["low"] < total < whole["energy_pj"]["high"]
    assert whole["most_of_the_interval"] == "DRAM.read_pj_per_bit"
    assert whole["settings"] == run_of_it["settings"]
    assert whole["hardware"]["mac"]["ranges"] == {"energy_pj": [1, 5]}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--levels",), "--levels and --uncertainty ask for different answers"),
        (("--explain", "a"), "--explain and --uncertainty ask for different answers"),
        (("--dataflow", "all"), "--dataflow all and --uncertainty ask for different answers"),
        (("-o", "out.html"), "--uncertainty gives no html"),
        (("--model", "yang2019"), "leave out --hw, --uncertainty"),
    ],
)
def test_what_does_not_go_together(args: tuple[str, ...], words: str) -> None:
    done = call(*RUN, *args)
    assert (done.status, done.out) == (2, "")
    assert words in done.err


def test_readme_shows_what_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    chip = re.search(r"<!-- file: npu.yaml -->\n```yaml\n(.*?)```", readme, re.DOTALL)
    shown = re.search(r"<!-- shown by: energysim (.*) -->\n```console\n(.*?)```", readme, re.DOTALL)
    assert chip
    assert shown
    Path("npu.yaml").write_text(chip[1], encoding="utf-8")
    done = call(*shown[1].split())
    assert (done.status, done.err) == (0, "")
    lines = [line.rstrip() for line in done.out.splitlines()]
    assert shown[2].splitlines() == [f"$ energysim {shown[1]}", *lines]
