"""Our best mapping against the one that ZigZag finds, on five of its architectures.

For every layer four energies: what ZigZag says its own mapping costs; that with each count which
is below the exact one put right; what the same loop nest costs by our exact counts; our optimum.
The third shows what the two ways to count differ in, and the fourth can never be above it.

    python benchmarks/peers/zigzag.py                      every layer
    python benchmarks/peers/zigzag.py tesla_npu_like L8    those whose names start so
    python benchmarks/peers/zigzag.py --mapped             without searching
    python benchmarks/peers/zigzag.py --counts L8_toy      every count of both, in bits
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise

from common import HERE, Row, given, network_of, optimum, record, rows_of, show

from energysim import Result, load_hardware
from energysim.axes import Dim, Tensor
from energysim.hardware import Hardware
from energysim.mapping import LevelLoops
from energysim.network import Network

FOLDER = HERE / "zigzag"
ACTIONS = ("fill", "read", "update", "drain")
WRITES = ("fill", "update")
DIMS = ("K", "C", "P", "Q", "R", "S")
SIZES = (*DIMS, "stride", "pad")

NAMES = ("arch", "net", "layer")

Case = dict[str, str]
"""A row of layers.csv."""


def cases(words: Sequence[str] = ()) -> list[Case]:
    """Layers that ZigZag has mapped, or those with a name that starts so, for every word."""
    return [
        case
        for case in rows_of(FOLDER / "layers.csv")
        if all(any(case[key].startswith(word) for key in NAMES) for word in words)
    ]


def machine(arch: str, halo: str) -> Hardware:
    """An architecture of ZigZag, with its rule for input tiles that overlap or the better one."""
    hardware = load_hardware(str(FOLDER / f"{arch}.yaml"))
    levels = tuple(level.model_copy(update={"halo": halo}) for level in hardware.levels)
    return hardware.model_copy(update={"levels": levels})


def layer(case: Case) -> Network:
    """The layer of a row, alone in a network."""
    sizes = {dim: int(case[dim]) for dim in DIMS}
    stride, pad = int(case["stride"]), int(case["pad"])
    image = (sizes["P"] * stride, sizes["Q"] * stride)
    return network_of(case["layer"], sizes, stride=stride, pad=pad, image=image)


@cache
def accesses() -> dict[tuple[str, str, str], list[dict[str, str]]]:
    """What ZigZag counts for each layer."""
    found = defaultdict(list)
    for row in rows_of(FOLDER / "accesses.csv"):
        found[row["arch"], row["net"], row["layer"]].append(row)
    return found


def loops_of(case: Case, network: Network, hardware: Hardware) -> tuple[LevelLoops, ...]:
    """ZigZag's mapping: all its temporal loops, then the array; each tensor with its own cuts."""
    inside: dict[Tensor, list[str]] = {tensor: [] for tensor in Tensor}
    depth: dict[tuple[str, Tensor], int] = {}
    for row in accesses()[case["arch"], case["net"], case["layer"]]:  # innermost memory first
        tensor = Tensor[row["tensor"].upper()]
        inside[tensor] += row["loops"].replace("-", "").split()
        depth[row["memory"], tensor] = len(inside[tensor])
    words = inside[Tensor.OUTPUT][::-1]
    assert all(loops[::-1] == words for loops in inside.values())
    temporal = [(word[0], int(word[1:])) for word in words]
    cuts = [
        {tensor: len(words) - depth[level.name, tensor] for tensor in level.tensors}
        for level in hardware.levels
    ]
    cuts[0] = dict.fromkeys(Tensor, 0)
    starts = [min(min(own.values()) for own in cuts[level:]) for level in range(len(cuts))]
    rows = []
    for level, (own, (start, stop)) in enumerate(
        zip(cuts, pairwise([*starts, len(words)]), strict=True)
    ):
        row = {
            "level": hardware.levels[level].name,
            "temporal": tuple(temporal[start:stop]),
            "spatial": tuple(_fans(network, hardware, temporal, level)),
            "cuts": {tensor.label: cut - start for tensor, cut in own.items()},
        }
        rows.append(LevelLoops.model_validate(row))
    return tuple(rows)


def _fans(
    network: Network, hardware: Hardware, temporal: Iterable[tuple[str, int]], level: int
) -> Iterator[tuple[str, int, str]]:
    """What is spread along the array axes that fan out behind a level."""
    left = dict(zip(Dim, network.layers[0].shape.dims, strict=True))
    for dim, trip in temporal:
        left[Dim[dim]] = -(-left[Dim[dim]] // trip)
    for name in hardware.axis_names:
        own = [i for i, memory in enumerate(hardware.levels) if name in memory.per]
        (dim,) = hardware.unroll_dims(name) or ()
        if left[dim] > 1 and min(own, default=len(hardware.levels)) == level + 1:
            yield dim.name, left[dim], name


def word_bits() -> dict[tuple[str, str], int]:
    """Bits of one counted access of each memory."""
    return {
        (row["arch"], row["memory"]): int(row["word_bits"]) for row in rows_of(FOLDER / "words.csv")
    }


def compare(case: Case, ours: Result) -> list[Row]:
    """Every count of ZigZag's mapping beside ours of the same loops [bit]."""
    counted = {(row.level, row.tensor, row.action): row.bits for row in ours.access_rows}
    width = word_bits()
    rows = []
    for row in accesses()[case["arch"], case["net"], case["layer"]]:
        for action in ACTIONS:
            theirs = int(row[action]) * width[case["arch"], row["memory"]]
            bits = int(counted.get((row["memory"], row["tensor"], action), 0))
            if theirs or bits:
                rows.append(
                    {
                        "layer": f"{case['arch']}/{case['net']}/{case['layer']}",
                        "memory": row["memory"],
                        "tensor": row["tensor"],
                        "action": action,
                        "zigzag_bits": theirs,
                        "our_bits": bits,
                        "ratio": bits / theirs if theirs else float("inf"),
                    }
                )
    return rows


def undercounted(case: Case, hardware: Hardware, ours: Result) -> float:
    """Energy of what ZigZag leaves out: counts below the exact ones of the same loops [pJ]."""
    price = {
        level.name: {
            action: level.write_pj_per_bit if action in WRITES else level.read_pj_per_bit
            for action in ACTIONS
        }
        for level in hardware.levels
    }
    return sum(
        max(int(str(row["our_bits"])) - int(str(row["zigzag_bits"])), 0)
        * price[str(row["memory"])][str(row["action"])]
        for row in compare(case, ours)
    )


@cache
def _search(arch: str, halo: str, sizes: tuple[str, ...]) -> tuple[Result, float]:
    """Equal layers are searched once."""
    case = dict(zip(SIZES, sizes, strict=True)) | {"layer": "layer"}
    return optimum(layer(case), machine(arch, halo))


def line(case: Case, halo: str, *, search: bool) -> Row:
    """Four energies of one layer."""
    network, hardware = layer(case), machine(case["arch"], halo)
    theirs = float(case["energy_pj"])
    same = given(network, hardware, loops_of(case, network, hardware))
    corrected = theirs + undercounted(case, hardware, same)
    row = {
        "arch": case["arch"],
        "layer": f"{case['net']}/{case['layer']}",
        "zigzag_pj": theirs,
        "corrected_pj": corrected,
        "same_loops_pj": same.total_energy_pj,
        "same_loops_ratio": same.total_energy_pj / theirs,
    }
    if search:
        best, seconds = _search(case["arch"], halo, tuple(case[key] for key in SIZES))
        energy = best.total_energy_pj
        row |= {
            "optimum_pj": energy,
            "ratio": energy / theirs,
            "corrected_ratio": energy / corrected,
            "optimal": str(best.search.optimal),
            "cpu_s": seconds,
            "mapping": best.layer_rows[0].mapping,
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--mapped", action="store_true", help="do not search")
    parser.add_argument("--counts", action="store_true", help="every count of ZigZag's mapping")
    parser.add_argument("--halo", choices=("refetch", "keep"), default="refetch")
    asked = parser.parse_args()
    chosen = cases(asked.words)
    if asked.counts:
        rows = []
        for case in chosen:
            network, hardware = layer(case), machine(case["arch"], asked.halo)
            rows += compare(case, given(network, hardware, loops_of(case, network, hardware)))
        show(rows)
        return
    rows = []
    for case in chosen:
        print(*(case[key] for key in NAMES), file=sys.stderr)
        rows.append(line(case, asked.halo, search=not asked.mapped))
    show([{key: value for key, value in row.items() if key != "mapping"} for row in rows])
    if not asked.words and not asked.mapped:
        note = f"python benchmarks/peers/zigzag.py --halo {asked.halo}"
        record(FOLDER / f"result_{asked.halo}.csv", rows, note)


if __name__ == "__main__":
    main()
