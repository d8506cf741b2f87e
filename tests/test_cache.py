"""What was found before: looked up if it is the same question, searched again in doubt."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from command_line import call, environment
from machines import conv, machine, memory, network

from energysim import cache as module
from energysim.axes import Dim, Shape, Tensor
from energysim.cache import Cache, folder, key_of
from energysim.hardware import Hardware
from energysim.mapper import search as search_module
from energysim.mapper.dataflows import of_machine
from energysim.mapper.goal import Objective, Options
from energysim.mapper.problem import Problem
from energysim.mapping import machine_rules
from energysim.model.capacity import Residency
from energysim.model.sparse import WeightStore
from energysim.simulate import simulate
from energysim.solve import SHOWING, _parts, program_files, solve, solve_front
from energysim.sparsity import Activity, Mask

CHIP = machine(
    memory("BUF", capacity_bytes=600, bandwidth_bits_per_cycle=64.0),
    memory("RF", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=2),
    vector={"lanes": 4, "energy_pj": 0.5, "source": "a test"},
)
SHAPE = Shape((1, 1, 6, 4, 5, 5, 3, 3), pad=(1, 1), size=(5, 5))


def problem(hardware: Hardware = CHIP, shape: Shape = SHAPE, **given: Any) -> Problem:
    """State a search."""
    mask = Mask.of("PS4_P4", shape)
    asked: dict[str, Any] = {
        "hardware": hardware,
        "shape": shape,
        "rules": machine_rules(hardware, has_weights=True),
        "dataflow": of_machine(hardware),
        "store": WeightStore.of(mask, 8, ["dense", "periodic"]),
        "residency": Residency(),
        "objective": Objective.ENERGY,
    }
    return Problem(**asked | given)


def key(asked: Problem) -> str:
    return key_of(_parts(asked))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """Every problem that is searched."""
    seen: list[Problem] = []

    def spy(asked: Problem) -> search_module.Found:
        seen.append(asked)
        return search_module.search(asked)

    monkeypatch.setattr("energysim.solve.search", spy)
    return seen


def entries(cache: Cache) -> list[Path]:
    return sorted(cache.folder.rglob("*.json"))


# -- the key ---------------------------------------------------------------------------------------

FLOW = of_machine(CHIP)
STORE = problem().store
assert STORE is not None
OTHER_PROBLEMS: dict[str, list[Problem]] = {
    "hardware": [problem(CHIP.model_copy(update={"padding": "count"}))],
    "shape": [
        problem(shape=replace(SHAPE, dims=(2, *SHAPE.dims[1:]))),
        problem(shape=replace(SHAPE, stride=(2, 1))),
        problem(shape=replace(SHAPE, dilation=(1, 2))),
        problem(shape=replace(SHAPE, pad=(0, 1))),
        problem(shape=replace(SHAPE, size=(6, 5))),
    ],
    "rules": [
        problem(rules=replace(problem().rules, **changed))
        for changed in (
            {"multicast": False},
            {"reduce": False},
            {"refetch": frozenset({1})},
            {"count_padding": True},
            {"latch": frozenset({Tensor.WEIGHT})},
        )
    ],
    "dataflow": [
        problem(dataflow=replace(FLOW, **changed))
        for changed in (
            {"unroll": ((Dim.P,), (Dim.K,))},
            {"stationary": None},
            {"whole": frozenset({Dim.S})},
            {"order": (Dim.K,)},
            {"local_reuse": False},
        )
    ],
    "store": [
        problem(store=None),
        *(
            problem(store=replace(STORE, **changed))
            for changed in (
                {"format": "dense"},
                {"elements": 7},
                {"values_bits": 7},
                {"metadata_bits": 7},
                {"mask": Mask.of("PS2_P6", SHAPE)},
                {"mask": replace(STORE.mask, seed=1)},
                {"mask": replace(STORE.mask, dims=(1, 6, 5, 3, 3))},
            )
        ),
    ],
    "residency": [
        problem(residency=Residency(frozenset({Tensor.INPUT}))),
        problem(residency=Residency(reserved_bits=8)),
    ],
    "objective": [problem(objective=each) for each in Objective if each != "energy"],
    "other": [problem(other=Objective.LATENCY)],
    "static_pj_per_cycle": [problem(static_pj_per_cycle=1.0)],
    "compute_pj": [problem(compute_pj=1.0)],
    "activity": [
        problem(activity=Activity(input_density=0.5)),
        problem(activity=Activity(output_density=0.5)),
    ],
    "options": [problem(options=Options(perfect=True)), problem(options=Options(prune=False))],
}


@pytest.mark.parametrize("name", [each.name for each in fields(Problem)])
def test_every_field_of_a_problem_is_in_the_key(name: str) -> None:
    keys = [key(problem()), *map(key, OTHER_PROBLEMS[name])]
    assert len(set(keys)) == len(keys) > 1


@pytest.mark.parametrize("name", [each.name for each in fields(Options)])
def test_every_option_is_in_the_key_but_the_time(name: str) -> None:
    other = {True: False, False: True, None: 5.0}[getattr(Options(), name)]
    changed = problem(options=replace(Options(), **{name: other}))
    assert (key(changed) == key(problem())) == (name == "budget_s")


LABELS = ("source", "note", "assumed", "name")
"""Words about the numbers."""
APART = ("clock_mhz", "static_mw")
"""They reach the search as the static energy of a cycle."""


def other_value(value: Any) -> Any:
    """Something else of the same kind."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    return (*value, "K")


def changes(plain: Any, where: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in nested plain data that holds a value."""
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain)
    for name, value in inner:
        nested = isinstance(value, dict) or (isinstance(value, list) and name == "levels")
        yield from changes(value, (*where, name)) if nested and value else [(*where, name)]


def changed_at(hardware: Hardware, where: tuple[str | int, ...]) -> Hardware:
    """The machine with another value at one place, whether or not it makes sense."""

    def change(value: Any, rest: tuple[str | int, ...]) -> Any:
        if not rest:
            return other_value(value)
        first, *more = rest
        if isinstance(value, tuple):
            assert isinstance(first, int)
            return (*value[:first], change(value[first], tuple(more)), *value[first + 1 :])
        if isinstance(value, dict):
            return value | {first: change(value[first], tuple(more))}
        inner = change(getattr(value, str(first)), tuple(more))
        return value.model_copy(update={first: inner})

    found = change(hardware, where)
    assert isinstance(found, Hardware)
    return found


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # values of another kind
@pytest.mark.parametrize(
    "where", [*changes(CHIP.model_dump(mode="json"))], ids=lambda where: ".".join(map(str, where))
)
def test_every_number_of_the_hardware_is_in_the_key(where: tuple[str | int, ...]) -> None:
    same = key(replace(problem(), hardware=changed_at(CHIP, where))) == key(problem())
    in_a_level = where[0] == "levels"
    labels = where[-1] in LABELS and not (in_a_level and where[-1] == "name")
    assert same == (labels or where[0] in APART)


def test_an_axis_may_have_any_name() -> None:
    long, short = (
        machine(memory("BUF", capacity_kib=1), array={"axes": {"source": size}, "unroll": {}})
        for size in (2, 3)
    )
    assert key(problem(long)) != key(problem(short))


def test_a_program_is_all_that_counts_and_searches() -> None:
    package = Path(module.__file__).parent
    named = {path.relative_to(package).as_posix() for path in program_files()}
    for name in ("solve.py", "axes.py", "mapper/tree.py", "model/counts.py", "sparsity/masks.py"):
        assert name in named
    assert not any(name.partition("/")[0] in SHOWING for name in named)
    code = "import sys, energysim.sweeps; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used = {name.split(".")[1] for name in done.stdout.split() if name.startswith("energysim.")}
    assert "model" in used
    assert not used & set(SHOWING)


def test_another_program_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(problem())
    monkeypatch.setattr("energysim.solve.VERSION", "0.0.0")
    other_version = key(problem())
    monkeypatch.undo()
    monkeypatch.setattr("energysim.solve.program", lambda: "other lines")
    other_lines = key(problem())
    monkeypatch.undo()
    monkeypatch.setattr(module, "FORMAT", 0)
    assert len({before, other_version, other_lines, key(problem())}) == 4


def test_keys_are_the_same_in_every_process() -> None:
    code = "from test_cache import key, problem; print(key(problem()))"
    path = os.pathsep.join([str(Path(__file__).parent), environment()["PYTHONPATH"]])
    keys = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment(PYTHONHASHSEED=seed) | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "77")
    }
    assert keys == {key(problem())}


# -- found again -----------------------------------------------------------------------------------


def test_the_same_is_searched_once(cache: Cache, searched: list[Problem]) -> None:
    first, again = solve(problem(), cache), solve(problem(), cache)
    assert len(searched) == 1
    assert (again.loops, again.certificate) == (first.loops, first.certificate)
    assert again.others == first.others
    assert len(entries(cache)) == 1
    solve(problem(objective=Objective.DRAM), cache)
    assert len(searched) == 2
    solve(problem(), None)
    assert len(searched) == 3
    assert len(entries(cache)) == 2


def test_a_front_is_searched_once(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = problem(other=Objective.LATENCY)
    first = solve_front(asked, cache)
    monkeypatch.setattr("energysim.solve.front", lambda _: pytest.fail("searched again"))
    again = solve_front(asked, cache)
    assert [each.loops for each in again.points] == [each.loops for each in first.points]
    assert again.certificate == first.certificate


def test_a_network_comes_out_the_same(cache: Cache) -> None:
    pool = {"name": "pool", "kind": "pool", "kernel": 2}
    net = network(conv("a", 6), pool, conv("b", 4, 1), size=(3, 6, 6))
    first, again = (simulate(net, CHIP, cache=cache) for _ in range(2))
    assert again.to_json() == first.to_json() == simulate(net, CHIP).to_json()
    assert again.runners_up == first.runners_up
    assert again.search.seconds == 0


def test_what_a_budget_stopped_is_not_kept(cache: Cache) -> None:
    stopped = solve(problem(options=Options(budget_s=0.0)), cache)
    if not stopped.certificate.optimal:
        assert entries(cache) == []
    solve(problem(), cache)
    assert solve(problem(options=Options(budget_s=0.0)), cache).certificate.optimal


# -- entries that can't be trusted -----------------------------------------------------------------


def written(cache: Cache) -> Path:
    solve(problem(), cache)
    (path,) = entries(cache)
    return path


def resealed(path: Path, change: Callable[[Any], Any]) -> None:
    """Change what an entry says, with a checksum that is right."""
    entry = json.loads(path.read_text())
    payload = change(entry["payload"])
    Cache(path.parent.parent).put(entry["key"], payload)


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda payload: {word: value for word, value in payload.items() if word != name}


def with_(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda payload: payload | changed


def certified(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda payload: payload | {"certificate": payload["certificate"] | changed}


WHOLE = [
    {"level": "BUF", "spatial": [["C", 2, "rows"], ["K", 3, "cols"]]},
    {"level": "RF", "temporal": [["P", 5], ["Q", 5], ["R", 3], ["S", 3], ["K", 2], ["C", 2]]},
]
"""Covers the layer, but puts more weights into a register file than it holds."""

DAMAGED: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "no text": lambda path: path.write_bytes(random.Random(1).randbytes(500)),
    "no object": lambda path: path.write_text("[1, 2]"),
    "only a number": lambda path: path.write_text("7"),
    "nested without end": lambda path: path.write_text("[" * 100_000),
    "a digit changed": lambda path: path.write_text(path.read_text().replace('"K", 3', '"K", 2')),
    "of another key": lambda path: path.write_text(
        path.read_text().replace(path.stem, "0" * len(path.stem))
    ),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "no list": lambda path: resealed(path, lambda _: 3),
    "nothing": lambda path: resealed(path, lambda _: None),
    "a list": lambda path: resealed(path, lambda payload: [payload]),
    "loops missing": lambda path: resealed(path, without("loops")),
    "certificate missing": lambda path: resealed(path, without("certificate")),
    "others missing": lambda path: resealed(path, without("others")),
    "loops of another kind": lambda path: resealed(path, with_(loops="DRAM K4")),
    "loops that cover too little": lambda path: resealed(path, with_(loops=[{"level": "BUF"}])),
    "a level that is not there": lambda path: resealed(path, with_(loops=[{"level": "L2"}])),
    "too large for a level": lambda path: resealed(path, with_(loops=WHOLE)),
    "certificate of another kind": lambda path: resealed(path, with_(certificate=[1, 2])),
    "not optimal": lambda path: resealed(path, certified(optimal=False)),
    "optimal as text": lambda path: resealed(path, certified(optimal="yes")),
    "a tally as text": lambda path: resealed(path, certified(evaluated="many")),
    "a tally below zero": lambda path: resealed(path, certified(mapspace=-1)),
    "a certificate without a tally": lambda path: resealed(
        path, lambda payload: payload | {"certificate": {"optimal": True}}
    ),
    "others of another kind": lambda path: resealed(path, with_(others=[{"loops": 5}])),
    "others without a cost": lambda path: resealed(
        path, with_(others=[{"loops": [], "measure": {"energy": "low"}}])
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_broken_entry_is_searched_again(
    cache: Cache, searched: list[Problem], damage: str
) -> None:
    path = written(cache)
    before = path.read_bytes()
    DAMAGED[damage](path)
    assert path.is_dir() or path.read_bytes() != before, "nothing was damaged"
    found = solve(problem(), cache)
    assert len(searched) == 2
    assert found.loops == solve(problem(), None).loops
    if damage != "a folder":  # which nobody but the user may remove
        assert path.read_bytes() == before, "the entry is whole again"


@pytest.mark.parametrize("change", [with_(points=[]), with_(points=[{}]), with_(points=3)])
def test_a_broken_front_is_searched_again(cache: Cache, change: Callable[[Any], Any]) -> None:
    asked = problem(other=Objective.LATENCY)
    solve_front(asked, cache)
    (path,) = entries(cache)
    before = path.read_bytes()
    resealed(path, change)
    solve_front(asked, cache)
    assert path.read_bytes() == before


def test_what_is_shown_is_what_the_mapping_costs(cache: Cache) -> None:
    """An entry made up with a checksum of its own can't lie about costs."""
    net = network(conv("c", 6), size=(4, 5, 5))
    best = simulate(net, CHIP, cache=cache)
    (path,) = entries(cache)
    worse = [
        {"level": "DRAM", "temporal": [["P", 5], ["Q", 5], ["K", 2], ["C", 2], ["R", 3], ["S", 3]]},
        {"level": "BUF", "spatial": [["C", 2, "rows"], ["K", 3, "cols"]]},
    ]
    resealed(path, with_(loops=worse))
    fooled = simulate(net, CHIP, cache=cache)
    assert fooled.total_energy_pj > best.total_energy_pj
    assert fooled.layer_rows[0].mapping.startswith("DRAM P5 Q5")


# -- the folder ------------------------------------------------------------------------------------


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENERGYSIM_CACHE", str(tmp_path / "own"))
    assert folder() == tmp_path / "own"
    monkeypatch.setenv("ENERGYSIM_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for platform, variable, value, expected in (
        ("linux", "XDG_CACHE_HOME", str(tmp_path / "xdg"), tmp_path / "xdg" / "energysim"),
        ("linux", "XDG_CACHE_HOME", "", tmp_path / ".cache" / "energysim"),
        ("darwin", "XDG_CACHE_HOME", "", tmp_path / "Library" / "Caches" / "energysim"),
        ("win32", "LOCALAPPDATA", str(tmp_path / "L"), tmp_path / "L" / "energysim" / "cache"),
        ("win32", "LOCALAPPDATA", "", tmp_path / "AppData" / "Local" / "energysim" / "cache"),
    ):
        monkeypatch.setattr("energysim.cache.sys.platform", platform)
        monkeypatch.setenv(variable, value)
        assert folder() == expected


@pytest.mark.parametrize("kind", ["a file", "below a file", "read only", "null"])
def test_a_folder_that_cannot_be_used_stops_nothing(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "a file":
        place.write_text("mine")
    elif kind == "below a file":
        place.write_text("mine")
        place /= "cache"
    elif kind == "read only":
        place.mkdir(mode=0o500)
    else:
        place = Path("/dev/null/cache")
    found = solve(problem(), Cache(place))
    assert found.loops == solve(problem(), None).loops
    assert Cache(place).usage()[0] == (1 if kind == "read only" and os.geteuid() == 0 else 0)
    Cache(place).clear()


def test_clear_removes_entries_and_nothing_else(cache: Cache) -> None:
    path = written(cache)
    left = path.parent / module.UNFINISHED.replace("*", "0123")
    left.write_text("of a process that was killed")
    mine = [cache.folder / "notes.txt", cache.folder / "aa" / "mine.json"]
    for each in mine:
        each.parent.mkdir(exist_ok=True)
        each.write_text("{}")
    assert cache.clear()[0] == 1
    assert not path.exists()
    assert not left.exists()
    assert all(each.exists() for each in mine)
    assert cache.usage() == (0, 0)


# -- many at once ----------------------------------------------------------------------------------

KEY = "ab" * 32


def _write(place: str, own: int) -> None:
    for i in range(30):
        Cache(Path(place)).put(KEY, {"from": own, "round": i, "more": list(range(2000))})


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(str(tmp_path), own)) for own in (1, 2)]
    for each in writers:
        each.start()
    seen = 0
    while any(each.is_alive() for each in writers):
        found = Cache(tmp_path).get(KEY)
        path = tmp_path / KEY[:2] / f"{KEY}.json"
        assert found is not None or not path.exists() or Cache(tmp_path).get(KEY) is not None
        seen += found is not None
    assert [each.exitcode for each in writers] == [0, 0]
    assert seen
    assert Cache(tmp_path).get(KEY)["more"] == list(range(2000))  # type: ignore[index]
    assert [each.name for each in (tmp_path / KEY[:2]).iterdir()] == [f"{KEY}.json"]


ENDLESS = f"""
import itertools, sys
from pathlib import Path
from energysim.cache import Cache
print("ready", flush=True)
for i in itertools.count():
    Cache(Path(sys.argv[1])).put({KEY!r}, {{"round": i, "more": list(range(20000))}})
"""


def test_killed_in_the_middle_of_writing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for wait in (0.02, 0.09):
        process = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(tmp_path)],
            stdout=subprocess.PIPE,
            env=environment(),
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = cache.get(KEY)
        assert found is None or found["more"] == list(range(20000))
        assert cache.put(KEY, {"round": -1})
        assert cache.get(KEY) == {"round": -1}
    cache.clear()
    assert list(tmp_path.iterdir()) == []


# -- from the command line -------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENERGYSIM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\nsource: a test\ninput: [3, 6, 6]\n"
        "layers: [{name: a, kind: conv, out: 8, kernel: 3}, {name: fc, kind: linear, out: 4}]\n"
    )
    return ("run", "--net", "tiny.yaml", "--hw", "edge_tpu", "-q")


def test_commands(tiny: tuple[str, ...], tmp_path: Path, searched: list[Problem]) -> None:
    assert call("cache", "show").out == f"{tmp_path / 'cache'}: 0 entries, 0.00 MB\n"
    first = call(*tiny)
    assert (first.status, len(searched)) == (0, 2)
    assert call(*tiny) == first
    assert len(searched) == 2
    assert call("cache", "show").out.startswith(f"{tmp_path / 'cache'}: 2 entries, ")
    assert call("cache", "clear").out.startswith("removed 2 entries, ")
    assert call("cache", "clear").out.startswith("removed 0 entries, ")
    assert call(*tiny) == first
    assert len(searched) == 4


def test_no_cache_neither_reads_nor_writes(
    tiny: tuple[str, ...], tmp_path: Path, searched: list[Problem]
) -> None:
    first = call(*tiny, "--no-cache")
    assert not (tmp_path / "cache").exists()
    call(*tiny)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    assert call(*tiny, "--no-cache") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == before
    assert len(searched) == 6


def test_a_mistyped_word() -> None:
    done = call("cache", "clera")
    assert done.status == 2
    assert "No such command 'clera'" in done.err
