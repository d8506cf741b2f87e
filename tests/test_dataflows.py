"""The named dataflows: known by name, and each does what its name says."""

from __future__ import annotations

import pytest
from machines import bundled, conv, machine, memory, network

import energysim as es
from energysim.errors import InputError
from energysim.mapper.dataflows import DATAFLOWS, get_dataflow
from energysim.simulate import simulate


@pytest.mark.parametrize("name", DATAFLOWS)
def test_entries_are_complete(name: str) -> None:
    flow = get_dataflow(name)
    assert flow.name == name
    assert flow.meaning
    assert all(len(set(dims)) == len(dims) for dims in flow.unroll)


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        get_dataflow("weight_stationery")
    assert "Did you mean 'weight_stationary'?" in str(caught.value)
    assert all(name in str(caught.value) for name in DATAFLOWS)


@pytest.mark.parametrize("name", ["edge_tpu", "eyeriss"])
@pytest.mark.parametrize("flow", DATAFLOWS)
def test_every_dataflow_runs_on_every_machine(flow: str, name: str) -> None:
    # the mapspace of `free` on the many levels of eyeriss grows fast with the layer
    net = network(conv("a", 3), conv("b", 5, 1), size=(2, 4, 3))
    result = simulate(net, es.load_hardware(name), dataflow=flow)
    assert result.dataflow == flow
    assert result.total_macs == net.macs


def elements(flow: str, tensor: str, action: str) -> int:
    """Accesses at memories of one word in each processing element."""
    size = {"weight": 1, "output": 3}[tensor]
    levels = [
        memory("BUF", capacity_kib=64),
        memory("RF", "regfile", per=["rows", "cols"], holds=[tensor], capacity_bytes=size),
    ]
    net = network(conv("c", 6), size=(4, 6, 6))
    result = simulate(net, machine(*levels), dataflow=flow)
    return sum(
        row.elements
        for row in result.access_rows
        if (row.level, row.tensor, row.action) == ("RF", tensor, action)
    )


def test_weights_stay() -> None:
    weights = 6 * 4 * 9
    assert elements("weight_stationary", "weight", "fill") == weights
    # one of the two pixels that the rows work on at once needs each weight anew
    assert elements("output_stationary", "weight", "fill") > weights


def test_sums_stay() -> None:
    outputs = 6 * 36
    assert elements("output_stationary", "output", "drain") == outputs
    assert elements("output_stationary", "output", "fill") == 0


def test_rows_stay() -> None:
    """On Eyeriss a processing element takes kernel rows whole: only inner loops cut them."""
    result = bundled("alexnet", "eyeriss")
    for name, loops in result.mappings.items():
        if name.startswith("conv") and name != "conv1":  # a row of 11 inputs leaves no choice
            for row in loops[:-1]:
                assert "S" not in [dim for dim, *_ in (*row.temporal, *row.spatial)]
