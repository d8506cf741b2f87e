"""``run --explain``: the loop nest of a layer as it is, what it holds, and what limits it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import call
from machines import conv, loops, machine, memory, network

from energysim import Result
from energysim.cli.explain import explain
from energysim.errors import InputError
from energysim.hardware import Hardware
from energysim.mapper.goal import Measure
from energysim.mapping import MappingFile
from energysim.result import RunnerUp
from energysim.simulate import simulate

NET = network(
    conv("first", 6),
    conv("second", 4, 1, stride=2),
    {"name": "pool", "kind": "pool", "kernel": 2},
    {"name": "fc", "kind": "linear", "out": 5},
    size=(4, 8, 8),
)

MINE = loops(
    {"level": "DRAM", "temporal": [("K", 3)]},
    {"level": "BUF", "temporal": [("P", 2), ("C", 2)], "spatial": [("C", 2, "rows")],
     "cuts": {"weight": 2}},
    {"level": "RF", "temporal": [("P", 4), ("Q", 8), ("R", 3), ("S", 3)],
     "spatial": [("K", 2, "cols")]},
)  # fmt: skip


def chip(**fields: object) -> Hardware:
    buffer = {"capacity_bytes": 900, "bandwidth_bits_per_cycle": 16.0, **fields}
    return machine(
        memory("BUF", **buffer),
        memory("RF", "regfile", per=["rows"], holds=["weight"], capacity_bytes=18),
        dram={"bandwidth_bits_per_cycle": 8.0},
        mac={"energy_pj": 1.0, "source": "a test"},
    )


@pytest.fixture(scope="module")
def result() -> Result:
    return simulate(NET, chip())


def drawn(result: Result, layer: str) -> list[str]:
    return explain(result, layer).splitlines()


# -- the nest --------------------------------------------------------------------------------------


def test_a_given_nest_is_drawn_as_it_is() -> None:
    given = simulate(NET, chip(), mapping=MappingFile(layers={"first": MINE}))
    text = explain(given, "first")
    nest = text.split("\n\n")[1]
    assert nest == (
        "DRAM: all\n"
        "  for k in 0..2\n"
        "  BUF: weight K2xC2xR3xS3, input C4xH8xW8, output K2xP8xQ8"
        f"  [{36 + 256 + 128 * 3} of 900 bytes, 75 %]\n"
        "    for p in 0..1\n"
        "      for c in 0..1\n"
        "        tile of weight in BUF from here\n"
        "        in parallel c in 0..1 on rows\n"
        "        RF: weight K2xR3xS3  [18 of 18 bytes, 100 %]\n"
        "          for p in 0..3\n"
        "            for q in 0..7\n"
        "              for r in 0..2\n"
        "                for s in 0..2\n"
        "                  in parallel k in 0..1 on cols\n"
        "                    multiply and add"
    )
    assert text.splitlines()[1].endswith("; the mapping was given")
    assert "Optimal" not in text, "nobody has searched"


@pytest.mark.parametrize("layer", [layer.name for layer in NET.layers])
def test_every_loop_and_level_is_there_one_step_further_in(result: Result, layer: str) -> None:
    lines = "\n".join(drawn(result, layer)).split("\n\n")[1].splitlines()
    found = [line for line in lines if re.match(r" *(for|in parallel) ", line)]
    trips = [int(re.search(r"0\.\.(\d+)", line)[1]) + 1 for line in found]  # type: ignore[index]
    expected = [
        trip for row in result.mappings[layer] for _, trip, *_ in (*row.temporal, *row.spatial)
    ]
    assert trips == expected
    depths = [len(line) - len(line.lstrip()) for line in found]
    assert depths == [2 * (i + 1) for i in range(len(found))]
    levels = [line.split(":")[0].strip() for line in lines if re.match(r" *[A-Z]+: ", line)]
    assert levels == ["DRAM", "BUF", "RF"]
    work = "vector unit" if layer == "pool" else "multiply and add"
    assert lines[-1].strip() == work


@pytest.mark.parametrize("layer", [layer.name for layer in NET.layers])
def test_memories_are_as_full_as_they_are(result: Result, layer: str) -> None:
    text = explain(result, layer)
    for room in result.rooms[layer]:
        name = result.level_names[room.level]
        if any(room.bits.values()):
            assert re.search(rf"{name}: .*\[{-(-room.used_bits // 8):,} of ", text)
        else:
            assert f"{name}: not used" in text


def test_a_capacity_for_each_tensor() -> None:
    size = {"weight": 300, "input": 300, "output": 300}
    text = explain(simulate(NET, chip(capacity_bytes=size)), "first")
    (share,) = re.findall(r"of 900 bytes in parts, fullest (\d+) %", text)
    assert 0 < int(share) <= 100


def test_what_stays_is_said() -> None:
    text = explain(simulate(NET, chip(capacity_bytes=30_000), residency=True), "second")
    assert "weight K4xC6 (stays), input C6xH7xW7 (stays), output K4xP4xQ4 (stays)" in text
    assert "bytes, " in text
    assert "of them kept across layers" in text


# -- what limits it --------------------------------------------------------------------------------


def test_energy_is_that_of_the_rows(result: Result) -> None:
    (line,) = [line for line in drawn(result, "first") if line.startswith("Energy: ")]
    parts = {
        f"{row.level} {row.tensor} {row.action}".replace("  ", " "): row.energy_pj
        for row in result.access_rows
        if row.layer == "first"
    }
    named = dict(re.findall(r"(\w+ [\w ]*?[\w]+) ([\d.]+) %", line.removeprefix("Energy: ")))
    assert named
    total = result.layer_rows[0].energy_pj
    for word, share in named.items():
        assert float(share) == pytest.approx(100 * parts[word] / total, rel=0.06)
    assert max(parts, key=lambda word: parts[word]) == next(iter(named))


def test_dram_traffic_is_compared_with_its_bound() -> None:
    roomy, tight = (
        simulate(NET, chip(capacity_bytes=size), objective="dram") for size in (20_000, 150)
    )
    row = roomy.layer_rows[0]
    line = f"DRAM traffic is at its lower bound, {row.dram_bound_bytes:,.0f} bytes."
    assert line in drawn(roomy, "first")
    row = tight.layer_rows[0]
    ratio = row.dram_bytes / row.dram_bound_bytes
    assert ratio > 1
    line = f"DRAM moves {row.dram_bytes:,.0f} bytes, {ratio:.2f}x its lower bound."
    assert line in drawn(tight, "first")


def test_memories_that_limit_are_named() -> None:
    tight = explain(simulate(NET, chip(capacity_bytes=150)), "first")
    roomy = simulate(NET, machine(memory("BUF", capacity_kib=64)))
    assert re.search(r"Tiles are limited by the size of .*BUF", tight)
    assert "No memory is full" in explain(roomy, "first")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "steps of the array"),
        ({"double_buffered": True, "bandwidth_bits_per_cycle": 0.5}, "traffic of BUF"),
    ],
)
def test_what_sets_the_time(fields: dict[str, float], word: str) -> None:
    result = simulate(NET, chip(**{"capacity_bytes": 2000, **fields}))
    (line,) = [line for line in drawn(result, "first") if line.startswith("Time: ")]
    assert line.startswith(f"Time: {word} ")
    assert line.endswith(f" of {result.layer_rows[0].cycles:,} cycles.")
    shares = [float(share) for share in re.findall(r"([\d.]+) %", line)]
    assert sum(shares) == pytest.approx(100, abs=3)
    macs = result.layer_rows[0].macs
    assert f"The array at its peak would take {-(-macs // 6):,} cycles." in drawn(result, "first")


# -- the search ------------------------------------------------------------------------------------


def test_runners_up_and_what_they_cost_more(result: Result) -> None:
    row = result.layer_rows[0]
    other = RunnerUp(MINE, Measure(1.25 * row.energy_pj, 2.0 * row.cycles, 0.0))
    asked = replace(result, runners_up={**result.runners_up, "first": (other,)})
    assert (
        "Next best: +25 % energy, +100 % cycles with DRAM K3 | BUF P2 C2 [C2@rows] weight+2 | "
        "RF P4 Q8 R3 S3 [K2@cols]"
    ) in drawn(asked, "first")
    none = replace(result, runners_up={**result.runners_up, "first": ()})
    assert not any(line.startswith("Next best") for line in drawn(none, "first"))


def test_what_the_search_says_is_of_this_layer(result: Result) -> None:
    for layer in ("first", "fc"):
        size = result.searches[layer].mapspace
        words = f"{size:,}" if size < 10_000 else f"{size:.2g}"
        assert drawn(result, layer)[-1] == f"Optimal: no mapping among {words} is better."
    stopped = replace(result.searches["first"], optimal=False, gap=0.034)
    text = explain(replace(result, searches={**result.searches, "first": stopped}), "first")
    assert text.splitlines()[-1].endswith("mappings: the best may be up to 3.4 % better.")


def test_an_unknown_layer(result: Result) -> None:
    with pytest.raises(InputError, match=r"no layer named 'frist'. Did you mean 'first'\?"):
        explain(result, "frist")
    with pytest.raises(InputError, match="known: first, second, pool, fc"):
        explain(result, "xyzzy")


# -- from the command line -------------------------------------------------------------------------

ARGS = ("run", "--net", "tiny.yaml", "--hw", "edge_tpu", "-q", "--explain")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\nsource: a test\ninput: [3, 8, 8]\nlayers:\n"
        "  - {name: first, kind: conv, out: 8, kernel: 3, pad: 1}\n"
        "  - {name: pool, kind: pool, kernel: 2}\n"
    )
    return tmp_path


def test_printed_or_written(folder: Path) -> None:
    for layer in ("first", "pool"):
        shown = call(*ARGS, layer)
        assert (shown.status, shown.err) == (0, "")
        assert shown.out.startswith(f"{layer} of tiny on edge_tpu: ")
        assert call(*ARGS, layer, "--format", "md").out == f"```text\n{shown.out}```\n"
        assert call(*ARGS, layer, "--format", "table", "-o", "out.txt").out == ""
        assert (folder / "out.txt").read_text() == shown.out


@pytest.mark.parametrize(
    "more",
    [["--format", "json"], ["--format", "csv"], ["-o", "out.json"], ["-o", "out.parquet"]],
)
@pytest.mark.usefixtures("folder")
def test_it_is_no_data(more: list[str]) -> None:
    done = call(*ARGS, "first", *more)
    assert (done.status, done.out) == (2, "")
    assert "--explain gives no " in done.err
    assert not Path(more[1]).exists()


def test_a_mistyped_layer_is_told_before_any_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("energysim.solve.search", lambda _: pytest.fail("searched"))
    done = call(*ARGS, "frist", "--no-cache")
    assert (done.status, done.out) == (2, "")
    assert "--explain: tiny has no layer named 'frist'. Did you mean 'first'?" in done.err
    assert folder.exists()
