"""The notes on a result: each where it belongs and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from machines import bundled, conv, machine, memory, network

import energysim as es
from energysim.hardware import Hardware
from energysim.mapping import MappingFile
from energysim.network import Network
from energysim.result import NoteKind
from energysim.simulate import simulate

NET = network(conv("a", 6), conv("b", 6), size=(6, 6, 6))


def notes(net: Network, hardware: Hardware, **options: Any) -> dict[NoteKind, str]:
    found = simulate(net, hardware, **options).warnings
    assert len({note.kind for note in found}) == len(found)
    return {note.kind: note.text for note in found}


def chip(**fields: Any) -> Hardware:
    return machine(memory("BUF", capacity_kib=fields.pop("kib", 8)), **fields)


def test_nothing_to_say() -> None:
    assert notes(NET, chip()) == {}


def test_cached_weights() -> None:
    found = notes(NET, chip(), residency=True)
    # 648 weights of 8 bits, 20 pJ/bit
    assert set(found) == {NoteKind.WEIGHTS_CACHED}
    text = found[NoteKind.WEIGHTS_CACHED]
    assert "all weights (0.000648 MB) stay in BUF" in text
    assert "0.000104 mJ" in text
    assert NoteKind.WEIGHTS_CACHED not in notes(NET, chip(), residency=False)


def test_streamed_weights() -> None:
    found = notes(NET, chip(kib=0.5), residency=True)
    assert "(0.000648 MB stored) do not fit BUF all at once" in found[NoteKind.WEIGHTS_STREAMED]
    assert "Try --batch 8" in found[NoteKind.WEIGHTS_STREAMED]
    batched = notes(NET, chip(kib=0.5), residency=True, batch=4)
    assert "Try --batch 8" not in batched[NoteKind.WEIGHTS_STREAMED]


def test_weights_that_would_fit_alone() -> None:
    found = notes(NET, chip(kib=0.7), residency=True)  # 717 bytes, 648 of them weights
    assert "would fit BUF, but leave the rest too little room" in found[NoteKind.WEIGHTS_STREAMED]


def test_an_idle_array() -> None:
    wide = {"axes": {"rows": 64, "cols": 64}}
    text = notes(NET, chip(array=wide))[NoteKind.LOW_UTILIZATION]
    assert text.startswith("the array does 0.879 % of the MACs it could")  # 6 * 6 of 4096


def test_waiting_for_the_slowest() -> None:
    sparse = NET.with_pattern("PS4_P4")
    for word, told in (("none", False), ("gate", False), ("skip", True)):
        hardware = chip(sparsity={"weights": word})
        assert (NoteKind.IMBALANCE in notes(sparse, hardware)) is told
        assert NoteKind.IMBALANCE not in notes(NET, hardware)
    text = notes(sparse, chip(sparsity={"weights": "skip"}))[NoteKind.IMBALANCE]
    assert "Try 'sparsity: {order: auto}'" in text
    best = notes(sparse, chip(sparsity={"weights": "skip", "order": "auto"}))
    assert "Try" not in best.get(NoteKind.IMBALANCE, "")


def test_skipping_is_not_sought() -> None:
    sparse, hardware = NET.with_pattern("PS4_P4"), chip(sparsity={"weights": "skip"})
    assert NoteKind.SKIP_NOT_SOUGHT in notes(sparse, hardware)
    assert NoteKind.SKIP_NOT_SOUGHT not in notes(NET, hardware)
    assert NoteKind.SKIP_NOT_SOUGHT not in notes(sparse, chip(sparsity={"weights": "gate"}))
    given = MappingFile(layers=dict(simulate(sparse, hardware).mappings))
    assert NoteKind.SKIP_NOT_SOUGHT not in notes(sparse, hardware, mapping=given)


def test_a_free_vector_unit() -> None:
    net = network(conv("a", 6), {"name": "p", "kind": "pool", "kernel": 2}, size=(6, 6, 6))
    assert NoteKind.VECTOR_FREE in notes(net, chip())
    vector = {"lanes": 4, "energy_pj": 0.1, "source": "a test"}
    assert NoteKind.VECTOR_FREE not in notes(net, chip(vector=vector))


def test_assumed_values_are_counted() -> None:
    hardware = chip(assumed=["clock_mhz", "padding"])
    assert notes(NET, hardware)[NoteKind.ASSUMED].startswith("2 values of chip are assumed")
    edge = es.load_hardware("edge_tpu")
    assert NoteKind.ASSUMED in {note.kind for note in simulate(NET, edge).warnings}


def test_spilled_sums() -> None:
    """No buffer for outputs: every partial sum but the first of a pixel comes from DRAM."""
    net = network(conv("a", 12, 1), size=(12, 8, 8))
    buffer = memory("BUF", capacity_kib=8, holds=["weight", "input"])
    found = notes(net, machine(buffer, sparsity={"weights": "none"}))
    assert found[NoteKind.SUMS_SPILLED].startswith("partial sums of a go to DRAM and back")


@pytest.mark.parametrize("name", ["edge_tpu", "eyeriss"])
def test_notes_stand_in_a_fixed_order(name: str) -> None:
    kinds = [note.kind for note in bundled("vgg16_ps", name).warnings]
    assert kinds[-1] is NoteKind.ASSUMED
    assert len(kinds) == len(set(kinds))


def test_weights_that_never_pass_the_buffer_are_not_said_to_overflow_it() -> None:
    hardware = machine(memory("BUF", capacity_kib=0.5, holds=["input", "output"]))
    assert NoteKind.WEIGHTS_STREAMED not in notes(NET, hardware, residency=True)


def test_pools_alone_leave_no_array_idle() -> None:
    net = network({"name": "p", "kind": "pool", "kernel": 2}, size=(6, 6, 6))
    assert NoteKind.LOW_UTILIZATION not in notes(net, chip())


def test_advice_is_what_was_not_tried() -> None:
    wide = chip(array={"axes": {"rows": 64, "cols": 64}})
    text = notes(NET, wide, batch=2)[NoteKind.LOW_UTILIZATION]
    assert "--objective latency" in text
    assert "--batch" not in text
    assert "Try" not in notes(NET, wide, batch=2, objective="latency")[NoteKind.LOW_UTILIZATION]


def test_sparse_weights_stored_densely() -> None:
    sparse = NET.with_pattern("PS4_P4")
    assert NoteKind.DENSE_STORED in notes(sparse, chip())
    assert NoteKind.DENSE_STORED not in notes(NET, chip())
    decoding = chip(sparsity={"formats": ["dense", "periodic"]})
    assert NoteKind.DENSE_STORED not in notes(sparse, decoding)
