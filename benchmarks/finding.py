"""When do periodic kernels pay? On-chip room, array steps and storage formats of whole networks.

Room: edge_tpu with an SRAM of any size. A network *fits* where DRAM moves nothing but its input and
its result: all weights and all activations stay. Steps: all layers that a pattern makes sparse, on
their exact masks, relative to the same layers dense on the same array.

    python benchmarks/finding.py                writes finding_room.csv, _steps.csv, the plot
    python benchmarks/finding.py --plot         draws the plot only, again
"""

import argparse
import csv
import functools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from energysim import Result, load_hardware, load_network, simulate
from energysim.axes import Dim, Tensor
from energysim.cache import Cache
from energysim.hardware import Hardware
from energysim.model.lockstep import LockStep, OrderChoice, Spread, lock_step
from energysim.network import Layer, Network
from energysim.sparsity import PATTERNS, Mask, cheapest
from energysim.units import BITS_PER_BYTE, BITS_PER_KIB

HERE = Path(__file__).parent
NETWORKS = ("vgg16", "resnet18")
SIDES = (8, 16, 32, 64)
ORDERS: dict[str, OrderChoice | Mapping[str, OrderChoice]] = {
    "natural": "natural",
    "columns": {"cols": "by_slot"},
    "both": "by_slot",
    "best": "auto",
}
"""Channel order of every layer; ``best`` chooses for each layer by itself."""
FORMATS = ("periodic", "csr", "bitmap")
IN_ALL_FORMATS = ("PSD4_P8", "PS4_P4", "PS2_P6", "PS1_P9")
"""The other patterns are taken in their smallest format only."""
STREAMED_KIB, CHIP_KIB, LARGE_KIB = 1024, 8192, 16384
"""Nothing fits; edge_tpu as it is; the dense networks fit too."""
LARGEST_KIB = 32768
CURVES = {
    "dense": "#000000",
    "PSD4_P8": "#D55E00",
    "PS4_P4": "#E69F00",
    "PS2_P6": "#009E73",
    "PS1_P9": "#0072B2",
}
"""Patterns of the plot, and their colours (Okabe and Ito)."""
ENLARGED = "PSD4_P8"

Row = dict[str, object]


# -- room on chip --------------------------------------------------------------------------------


def with_room(hardware: Hardware, kib: int) -> Hardware:
    """Give the outermost memory on chip another size."""
    dram, buffer, *inner = hardware.levels
    resized = buffer.model_copy(update={"capacity_kib": float(kib)})
    return hardware.model_copy(update={"levels": (dram, resized, *inner)})


def variant(network: str, pattern: str) -> Network:
    """A network with a pattern; ``dense`` without one."""
    return load_network(network, pattern=None if pattern == "dense" else pattern)


def run(
    network: Network, kib: int, weight_format: str | None = None, cache: Cache | None = None
) -> Result:
    """Simulate a network on edge_tpu with an SRAM of another size."""
    machine = with_room(load_hardware("edge_tpu"), kib)
    return simulate(network, machine, weight_format=weight_format, cache=cache)


def ends_bytes(network: Network) -> int:
    """Input and result of a network: what must cross [byte], for data of 8 bits."""
    first, last = network.layers[0].shape, network.layers[-1].shape
    return first.elements(Tensor.INPUT) + last.elements(Tensor.OUTPUT)


def fits(result: Result) -> bool:
    """Whether DRAM moves nothing but the input and the result."""
    return result.total_dram_bytes == ends_bytes(result.inputs[0])


def stored_bits(network: Network, weight_format: str | None = None) -> int:
    """Weights in a storage format, metadata included; the smallest that edge_tpu decodes."""
    chip = load_hardware("edge_tpu")
    allowed = chip.sparsity.formats if weight_format is None else (weight_format,)
    masks = [each.mask for each in network.layers if each.has_weights]
    return sum(
        cheapest(mask, chip.bits.weight, allowed if mask.density < 1 else ("dense",))[1].total
        for mask in masks
    )


def fits_from_kib(
    network: Network, weight_format: str | None = None, cache: Cache | None = None
) -> int:
    """Smallest SRAM in which all weights and activations stay [KiB]."""
    # Right below the guess it is too small and there it is enough, or else it is sought.
    stored = stored_bits(network, weight_format)
    guess = -(-(stored + activations_bytes(network) * BITS_PER_BYTE) // BITS_PER_KIB)

    def enough(kib: int) -> bool:
        return fits(run(network, kib, weight_format, cache))

    if enough(guess) and not enough(guess - 1):
        return guess
    low, high = stored // BITS_PER_KIB - 1, LARGEST_KIB
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def activations_bytes(network: Network) -> int:
    """Most activations that are needed at once, layer after layer, for data of 8 bits [byte].

    What a layer writes, what it reads, and what later layers still wait for; the network's input
    comes from DRAM and its result goes there.
    """
    layers = network.layers
    last = dict.fromkeys((layer.name for layer in layers), 0)
    for now, layer in enumerate(layers):
        last |= dict.fromkeys(layer.inputs, now)
    return max(
        sum(
            layer.shape.elements(Tensor.OUTPUT)
            for made, layer in enumerate(layers)
            if made <= now <= last[layer.name]
        )
        for now in range(len(layers))
    )


def room(network: str, pattern: str, weight_format: str | None, cache: Cache) -> Row:
    """Where a pattern in a storage format begins to fit, and what it costs before and after."""
    made, base = variant(network, pattern), variant(network, "dense")
    at = {
        kib: (run(made, kib, weight_format, cache), run(base, kib, None, cache))
        for kib in (STREAMED_KIB, CHIP_KIB, LARGE_KIB)
    }
    stored = sum(row.weight_bits for row in at[CHIP_KIB][0].layer_rows)
    row: Row = {
        "network": network,
        "pattern": pattern,
        "format": _format_of(at[CHIP_KIB][0]),
        "stored_bits": stored,
        "activations_bytes": activations_bytes(made),
        "fits_from_kib": fits_from_kib(made, weight_format, cache),
    }
    for kib, (own, dense) in at.items():
        row |= {
            f"dram_bytes_{kib}": own.total_dram_bytes,
            f"dram_{kib}": round(own.total_dram_bytes / dense.total_dram_bytes, 6),
            f"energy_{kib}": round(own.total_energy_pj / dense.total_energy_pj, 4),
            f"energy_uj_{kib}": round(own.total_energy_pj / 1e6, 2),
        }
    return row


def _format_of(result: Result) -> str:
    sparse = {layer.name for layer in sparse_layers(result.inputs[0])}
    found = {row.weight_format for row in result.layer_rows if row.layer in sparse}
    return "+".join(sorted(found)) or "dense"


def rooms(cache: Cache) -> Iterator[Row]:
    """Every pattern, and some in every format."""
    for network in NETWORKS:
        for pattern in PATTERNS:
            formats = FORMATS if pattern in IN_ALL_FORMATS else (None,)
            for weight_format in formats:
                yield room(network, pattern, weight_format, cache)


# -- array steps ---------------------------------------------------------------------------------


def sparse_layers(network: Network) -> list[Layer]:
    """Layers that the pattern makes sparse."""
    return [each for each in network.layers if each.has_weights and each.mask.density < 1]


def spreads(dataflow: str, side: int) -> tuple[Spread, Spread]:
    """What stands along the rows and columns of a square array."""
    rows, columns = {
        "weight_stationary": (Dim.C, Dim.K),
        "output_stationary": (Dim.P, Dim.K),
        "pixels_only": (Dim.P, Dim.Q),
    }[dataflow]
    return Spread(rows, side, "rows"), Spread(columns, side, "cols")


DATAFLOWS = ("weight_stationary", "output_stationary", "pixels_only")


def positions(layer: Layer, dataflow: str, side: int) -> int:
    """Steps of the temporal loops over output pixels; along the rows, pixels stand in one line."""
    height, width = layer.shape[Dim.P], layer.shape[Dim.Q]
    if dataflow == "weight_stationary":
        return height * width
    if dataflow == "output_stationary":
        return -(-height * width // side)
    return -(-height // side) * -(-width // side)


@functools.cache
def mask_steps(mask: Mask, dataflow: str, side: int, order: str) -> LockStep:
    """Array steps of one layer for one position; a random mask has no slots to sort by."""
    chosen = ORDERS[order] if mask.periodic else "natural"
    return lock_step(mask, spreads(dataflow, side), order=chosen)


def steps_ratio(network: Network, dataflow: str, side: int, order: str) -> float:
    """Array steps of all sparse layers relative to the same layers dense."""
    steps = dense = 0
    for layer in sparse_layers(network):
        found = mask_steps(layer.mask, dataflow, side, order)
        times = positions(layer, dataflow, side)
        steps += found.steps * times
        dense += found.dense_steps * times
    return steps / dense


def macs_left(network: Network) -> float:
    """Multiply-accumulates that the sparse layers keep."""
    layers = sparse_layers(network)
    return sum(each.effective_macs for each in layers) / sum(each.macs for each in layers)


def steps(network: str, pattern: str, dataflow: str, side: int) -> Row:
    """Steps of one network on one array, by channel order."""
    made = variant(network, pattern)
    # A random mask has no slots to sort by, and pixels no channels.
    sorts = not PATTERNS[pattern].random and dataflow != "pixels_only"
    own = {
        order: round(steps_ratio(made, dataflow, side, order), 4)
        for order in (ORDERS if sorts else ("natural",))
    }
    return {
        "network": network,
        "pattern": pattern,
        "dataflow": dataflow,
        "array": f"{side}x{side}",
        "macs_left": round(macs_left(made), 4),
        **{order: own.get(order, own["natural"]) for order in ORDERS},
    }


def all_steps() -> Iterator[Row]:
    """Every pattern on every array."""
    for network in NETWORKS:
        for dataflow in DATAFLOWS:
            for pattern in PATTERNS:
                if pattern != "dense":
                    yield from (steps(network, pattern, dataflow, side) for side in SIDES)


# -- record and picture --------------------------------------------------------------------------


def record(name: str, rows: Iterator[Row]) -> None:
    """Print rows as they come and write them beside this file."""
    kept: list[Row] = []
    for row in rows:
        kept.append(row)
        print(*row.values(), sep="  ", flush=True)
    with (HERE / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(kept[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


def curve(pattern: str, cache: Cache) -> tuple[list[int], list[float], int]:
    """SRAM sizes of 1 to 16 MiB, the energy of vgg16 there, where it fits [KiB, uJ, KiB]."""
    made = variant("vgg16", pattern)
    step = fits_from_kib(made, cache=cache)
    # In the band before the step the weights fit, but not with all activations.
    band = range(step - 1, step - activations_bytes(made) * BITS_PER_BYTE // BITS_PER_KIB - 1, -8)
    sizes = sorted({1024, *range(2048, 16385, 2048), *band, step})
    return sizes, [run(made, kib, cache=cache).total_energy_pj / 1e6 for kib in sizes], step


def plot(cache: Cache) -> plt.Figure:
    """Energy of an inference over the size of the SRAM."""
    style = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 9,
        "svg.fonttype": "none",
        "svg.hashsalt": "energysim",
    }
    with mpl.rc_context(style):
        figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
        for pattern, colour in CURVES.items():
            sizes, energies, step = curve(pattern, cache)
            mib = [kib / 1024 for kib in sizes]
            axes.plot(mib, energies, color=colour, drawstyle="steps-post", linewidth=1.4)
            below = pattern == "PS4_P4"  # PSD4_P8 is right above it
            left = pattern != "PS1_P9"  # no room
            if pattern == ENLARGED:
                _enlarge(axes, sizes, energies, step)
            axes.annotate(
                pattern,
                (step / 1024, energies[0]),
                xytext=(-8 if left else 3, -3 if below else 3),
                textcoords="offset points",
                color=colour,
                ha="right" if left else "left",
                va="top" if below else "bottom",
            )
        axes.axvline(CHIP_KIB / 1024, color="#999999", linewidth=0.8, linestyle=":")
        axes.annotate(
            "edge_tpu", (CHIP_KIB / 1024, 0.83), xycoords=("data", "axes fraction"),
            xytext=(3, 0), textcoords="offset points", color="#666666", va="top",
        )  # fmt: skip
        axes.set(xlabel="SRAM [MiB]", ylabel="energy per image [uJ]", ylim=(0, 1350))
        axes.set_xlim(1, 16)
        axes.set_xticks([1, *range(2, 17, 2)])
        axes.grid(visible=True, axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure


def _enlarge(axes: Axes, sizes: list[int], energies: list[float], step: int) -> None:
    """Draw the last KiB before all fits again, large enough to see."""
    inset = axes.inset_axes((0.57, 0.3, 0.26, 0.42))
    inset.plot(
        sizes, energies, color=CURVES[ENLARGED], drawstyle="steps-post", linewidth=1.4,
    )  # fmt: skip
    inset.set(xlim=(step - 80, step + 16), ylim=(0, 700), yticks=(0, 200, 400, 600))
    inset.set_xticks((step - 57, step), (f"{step - 57:,}", f"{step:,} KiB"))
    inset.set_title(f"{ENLARGED}, just before it fits", fontsize="small", color=CURVES[ENLARGED])
    inset.grid(visible=True, axis="y", color="#dddddd", linewidth=0.6)
    inset.tick_params(labelsize="small")
    inset.set_axisbelow(True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", action="store_true", help="draw the plot only")
    only_plot = parser.parse_args().plot
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder))
        if not only_plot:
            record("finding_steps.csv", all_steps())
            record("finding_room.csv", rooms(cache))
        figure = plot(cache)
    figure.savefig(HERE / "finding.svg", metadata={"Date": None})
    figure.savefig(HERE / "finding.png", dpi=150)


if __name__ == "__main__":
    main()
