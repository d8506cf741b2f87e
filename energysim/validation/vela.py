"""Arm Vela: weights, feature maps and cycles of Ethos-U55 and Ethos-U65, under its own blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file
from itertools import combinations
from math import ceil

from energysim.axes import Dim, Tensor
from energysim.catalog import load_hardware, load_network
from energysim.hardware import DimWord, Hardware
from energysim.mapping import LevelLoops, MappingFile
from energysim.network import Layer, LayerKind, Network
from energysim.result import Result
from energysim.simulate import simulate
from energysim.validation.check import Check, Study, exact, shown, within
from energysim.validation.data import data_file, read_rows
from energysim.validation.variant import variant

BYTES_PER_KIB = 1024


@dataclass(frozen=True, slots=True)
class Config:
    """One size of the machine, as ethos-u-vela 5.2.0 has it (architecture_features.py)."""

    base: str
    """the bundled chip that it is a size of"""
    height: int
    """of the positions that are computed at once"""
    width: int
    filters: int
    shram_kib: int
    """for input blocks and accumulators [KiB]"""
    lanes: int
    """additions in a cycle, at least one"""
    burst_bytes: int
    """of the memory that the network's input is in [byte]"""


CONFIGS = {
    "u55_32": Config("ethos_u55_128", 1, 1, 4, 14, 1, 32),
    "u55_64": Config("ethos_u55_128", 1, 1, 8, 14, 1, 32),
    "u55_128": Config("ethos_u55_128", 1, 2, 8, 20, 1, 32),
    "u55_256": Config("ethos_u55_128", 2, 2, 8, 44, 2, 32),
    "u65_256": Config("ethos_u65_512", 2, 2, 8, 44, 2, 128),
    "u65_512": Config("ethos_u65_512", 2, 2, 16, 88, 4, 128),
}
SRAM_KIB = 2048
"""The runs of ethos-u-vela had no limit and took 1475 KiB at most [KiB]."""

WHY_MORE = (
    "it also counts padding in a window, blocks at the edge as whole ones, channels in sixteens"
)

PIXEL_BYTES = 8
"""ethos-u-vela takes a burst for each position of a layer's input of 8 channels or fewer [byte]."""

Block = Mapping[str, str]
"""A row of ``vela_blocks.csv``."""


def _hardware(config: Config, network: Network, padding: str) -> Hardware:
    chip = load_hardware(config.base)
    # Weights come anew with each inference: an SRAM that all of them fit would keep them.
    sram_kib = min(SRAM_KIB, _weights(network) // BYTES_PER_KIB)
    lanes = None if chip.vector is None else chip.vector.model_copy(update={"lanes": config.lanes})
    return variant(
        chip,
        axes={"pixels": config.height * config.width, "filters": config.filters},
        levels={"SRAM": {"capacity_kib": sram_kib}, "SHRAM": {"capacity_kib": config.shram_kib}},
        vector=lanes,
        padding=padding,
    )


def _weights(network: Network) -> int:
    return sum(layer.shape.elements(Tensor.WEIGHT) for layer in network.layers if layer.weights)


def _network(name: str) -> Network:
    if not name.startswith("vela_"):
        return load_network(name)
    with as_file(data_file(f"{name}.yaml")) as path:
        return load_network(str(path))


def _pieces(extent: int, size: int) -> tuple[int, int]:
    """How many pieces of at most a size there are, and how large the largest of equal ones is."""
    count = ceil(extent / size)
    return count, ceil(extent / count)


def _loops(layer: Layer, block: Block, config: Config, outermost: str) -> tuple[LevelLoops, ...]:
    """Blocks of outputs one after the other, each with its weights and its window of inputs."""
    shape = layer.shape
    wide: DimWord = "G" if layer.kind is LayerKind.DEPTHWISE else "K"
    blocks_k, k = _pieces(shape[Dim[wide]], int(block["block_depth"]))
    blocks_p, p = _pieces(shape[Dim.P], int(block["block_h"]))
    blocks_q, q = _pieces(shape[Dim.Q], int(block["block_w"]))
    chunks_c, c = _pieces(shape[Dim.C], int(block["input_depth"]))
    steps_k, filters = _pieces(k, config.filters)
    steps_p, height = _pieces(p, config.height)
    steps_q, width = _pieces(q, config.width)
    steps_c, lanes = _pieces(c, 8)
    # Weights that are used for one window only are not kept for another: they pass in chunks.
    once = blocks_p == blocks_q == 1
    return (
        LevelLoops(level=outermost, temporal=((wide, blocks_k),)),
        LevelLoops(
            level="SRAM",
            temporal=(("P", blocks_p), ("Q", blocks_q), ("C", chunks_c)),
            cuts={"weight": 3} if once else {},
        ),
        LevelLoops(
            level="SHRAM",
            temporal=(
                (wide, steps_k),
                ("R", shape[Dim.R]),
                ("S", shape[Dim.S]),
                ("P", steps_p),
                ("Q", steps_q),
            ),
            spatial=((wide, filters, "filters"), ("C", lanes, "lanes")),
        ),
        LevelLoops(
            level="WEIGHTS",
            temporal=(("C", steps_c),),
            spatial=(("P", height, "pixels"), ("Q", width, "pixels")),
        ),
    )


@cache
def _blocks() -> Mapping[tuple[str, str], Mapping[str, Block]]:
    table: dict[tuple[str, str], dict[str, Block]] = {}
    for row in read_rows("vela_blocks.csv"):
        table.setdefault((row["network"], row["accelerator"]), {})[row["layer"]] = row
    return table


@cache
def _simulated(network_name: str, accelerator: str, padding: str = "clip") -> Result:
    config, blocks = CONFIGS[accelerator], _blocks()[network_name, accelerator]
    network = _network(network_name)
    hardware = _hardware(config, network, padding)
    mapped = {
        layer.name: _loops(layer, blocks[layer.name], config, hardware.levels[0].name)
        for layer in network.layers
        if layer.weights
    }
    return simulate(network, hardware, objective="latency", mapping=MappingFile(layers=mapped))


def _windows(layer: Layer, block: Block) -> tuple[int, int, int]:
    """How often a window of inputs is loaded, its height and its width."""
    shape = layer.shape
    blocks = ceil(shape[Dim.P] / int(block["block_h"])) * ceil(shape[Dim.Q] / int(block["block_w"]))
    if layer.kind is LayerKind.CONV:
        blocks *= ceil(shape[Dim.K] / int(block["block_depth"]))
    height, width = shape.size
    return blocks, min(height, int(block["input_h"])), min(width, int(block["input_w"]))


def _theirs(row: Block, network: Network, config: Config) -> int:
    """Feature maps that ethos-u-vela moves, without bursts of the image and gaps of a stride."""
    total = int(row["read_bytes"]) + int(row["write_bytes"])
    blocks = _blocks()[row["network"], row["accelerator"]]
    first, *others = (layer for layer in network.layers if layer.weights)
    loads, height, width = _windows(first, blocks[first.name])
    image = loads * height * width * first.shape[Dim.C]
    total -= image * (config.burst_bytes // PIXEL_BYTES - 1)
    for layer in others:
        if layer.shape.stride[0] > layer.shape[Dim.R]:
            block = blocks[layer.name]
            loads, height, width = _windows(layer, block)
            used = int(block["block_h"]) * int(block["block_w"])
            total -= loads * (height * width - used) * layer.shape[Dim.C]
    return total


def _ours(network: Network, row: Block) -> int:
    """Feature maps that we move in and out of the SRAM.

    Padding is counted as ethos-u-vela does it: in a window, but not beyond a whole map.
    """
    key = row["network"], row["accelerator"]
    moved = {padding: _moved(_simulated(*key, padding)) for padding in ("clip", "count")}
    total = 0
    for layer in network.layers:
        _, height, width = _windows(layer, _blocks()[key][layer.name])
        whole = (height, width) == layer.shape.size
        total += moved["clip" if whole else "count"][layer.name]
    return total


MOVES = (("input", "read"), ("output", "update"))


def _moved(result: Result) -> Mapping[str, int]:
    """Elements of feature maps in and out of the SRAM by layer: bytes, as all have 8 bits."""
    total: dict[str, int] = {}
    for each in result.access_rows:
        if each.level == "SRAM" and (each.tensor, each.action) in MOVES:
            total[each.layer] = total.get(each.layer, 0) + each.elements
    return total


def _traffic() -> Iterator[Check]:
    for row in read_rows("vela.csv"):
        network = _network(row["network"])
        what = f"{row['network']} {row['accelerator']}"
        weights = _weights_read(_simulated(row["network"], row["accelerator"]))
        theirs = int(row["weight_bytes"]) - int(row["pool_weight_bytes"])
        yield exact(what, "weights read", theirs, weights, unit="B")
        printed = int(row["read_bytes"]) + int(row["write_bytes"])
        common = _theirs(row, network, CONFIGS[row["accelerator"]])
        yield within(
            what,
            "feature maps, its bursts and strides taken off, padding as it counts it",
            common,
            _ours(network, row),
            low=-0.1,
            high=0.1,
            unit="B",
        )
        yield shown(
            what,
            "feature maps, as printed",
            printed,
            sum(_moved(_simulated(row["network"], row["accelerator"])).values()),
            unit="B",
            reason=f"{printed - common:,} B of it are bursts of the image and inputs that a stride "
            f"passes over; {WHY_MORE}",
        )


def _weights_read(result: Result) -> int:
    """From the outermost memory; elements, which are bytes here."""
    read = (result.level_names[0], "weight", "read")
    return sum(
        each.elements
        for each in result.access_rows
        if (each.level, each.tensor, each.action) == read
    )


def _cycles() -> Iterator[Check]:
    rows: dict[str, list[Block]] = {}
    for row in read_rows("vela.csv"):
        rows.setdefault(row["network"], []).append(row)
    for network, sizes in rows.items():
        results = {row["accelerator"]: _simulated(network, row["accelerator"]) for row in sizes}
        theirs = {row["accelerator"]: int(row["cycles"]) for row in sizes}
        for size, result in results.items():
            errors = _layer_errors(result, _blocks()[network, size])
            what = f"{network} {size}"
            yield shown(what, "cycles", theirs[size], result.total_cycles, reason=errors)
        # U55 runs at 500 MHz and U65 at 1 GHz: in order of time, not of cycles.
        clocks = {size: result.inputs[1].clock_mhz for size, result in results.items()}
        yield exact(
            network,
            "pairs of sizes in the same order of time",
            len(sizes) * (len(sizes) - 1) // 2,
            _same_order(
                {size: cycles / clocks[size] for size, cycles in theirs.items()},
                {size: result.total_cycles / clocks[size] for size, result in results.items()},
            ),
        )
        ours = {size: result.total_cycles for size, result in results.items()}
        off = [abs(ours[size] / theirs[size] - 1) for size in theirs]
        yield shown(
            network,
            "cycles of all sizes",
            sum(theirs.values()),
            sum(ours.values()),
            reason=f"the {len(off)} sizes are {100 * sum(off) / len(off):.0f} % off in the mean, "
            f"{100 * max(off):.0f} % at most",
        )


def _same_order(theirs: Mapping[str, float], ours: Mapping[str, float]) -> int:
    """Count the pairs of which the same one is faster."""
    return sum(
        (theirs[one] < theirs[two]) == (ours[one] < ours[two])
        for one, two in combinations(theirs, 2)
    )


def _layer_errors(result: Result, blocks: Mapping[str, Block]) -> str:
    errors = {
        row.layer: row.cycles / int(blocks[row.layer]["cycles"]) - 1 for row in result.layer_rows
    }
    mean = sum(map(abs, errors.values())) / len(errors)
    worst = max(errors, key=lambda layer: abs(errors[layer]))
    return f"layers {100 * mean:.0f} % off in the mean, {worst} {100 * errors[worst]:+.0f} %"


def _checks() -> Iterator[Check]:
    yield from _traffic()
    yield from _cycles()


STUDIES = (
    Study(
        name="vela",
        title="Arm Ethos-U55 and U65, from 32 to 512 multiply-accumulates",
        kind="vendor",
        source="ethos-u-vela 5.2.0, Arm's compiler: its estimates, no silicon",
        method=(
            "Four int8 networks on six sizes of the machine, with 2 MiB of SRAM, as theirs had no"
            " limit, or less where that would keep all weights from one inference to the next; "
            "each layer is mapped onto the block of outputs that the compiler chose: every block "
            "loads its window of inputs, once more for each group of output channels. Weights are"
            " compared before coding, without those that the compiler makes for the mean. Feature"
            " maps: off its figures we take that each position of the image costs a burst (32 "
            "bytes of SRAM, 128 of DRAM, for 3), and inputs that a stride passes over; ours count"
            " padding as it does, in a window but not beyond a whole map. The rest is that it "
            "counts blocks at the edge as whole ones, and channels in sixteens; beside that the "
            "bytes as both print them are shown. Cycles: it also "
            "counts kernels in steps of 4 taps and channels in steps of 8 to 32, an eighth of a "
            "cycle to 2 for each output, up to 6 for an addition (ours: 1 at most), and the "
            "bursts of the image, a fifth of the time on U65; it loads the weights of a layer "
            "during the one before, ours begin with the layer. Our image comes from flash on U55,"
            " theirs is in the SRAM."
        ),
        compute=_checks,
    ),
)
