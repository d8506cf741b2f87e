"""How the search grows with the mapspace: one 3x3 layer of 14x14 outputs, K = C = 64 ... 4096.

CPU seconds of a search from nothing (no cache), and the mappings that it chooses from.

    python benchmarks/growth.py                 64, 128, ... 4096, and the table and the plots
    python benchmarks/growth.py 64 128          some of them, and no more than their table
"""

import argparse
import csv
import time
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from energysim import load_hardware, simulate
from energysim.network import ConvSpec, LayerKind, NetworkSpec, build_network

HERE = Path(__file__).parent
CHANNELS = (64, 128, 256, 512, 1024, 2048, 4096)
MACHINES = {"edge_tpu": "#0072B2", "eyeriss": "#D55E00"}
"""Hardware and its colour (Okabe and Ito)."""

Row = dict[str, object]


def measure(hardware: str, channels: int) -> Row:
    """Search one layer."""
    layer = ConvSpec(name="conv", kind=LayerKind.CONV, out=channels, kernel=3, pad=1)
    spec = NetworkSpec(
        name="growth", source="benchmarks/growth.py", input=(channels, 14, 14), layers=(layer,)
    )
    network, machine = build_network(spec, None, _no_base), load_hardware(hardware)
    begin = time.process_time()
    found = simulate(network, machine, residency=False).search
    return {
        "hardware": hardware,
        "channels": channels,
        "mapspace": found.mapspace,
        "evaluated": found.evaluated,
        "optimal": found.optimal,
        "cpu_s": round(time.process_time() - begin, 4),
    }


def _no_base(name: str) -> None:
    raise LookupError(name)


def plot(rows: list[Row]) -> plt.Figure:
    """Seconds and mappings over the channels, both axes logarithmic."""
    style = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 9,
        "svg.fonttype": "none",
        "svg.hashsalt": "energysim",
    }
    with mpl.rc_context(style):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(8, 3.4), layout="constrained", sharey=True
        )
        for name, colour in MACHINES.items():
            own = [row for row in rows if row["hardware"] == name]
            for axes, x, y in ((left, "channels", "cpu_s"), (right, "mapspace", "cpu_s")):
                across, up = ([row[key] for row in own] for key in (x, y))
                axes.plot(across, up, "o-", color=colour, markersize=4, linewidth=1.4)
                axes.annotate(
                    name,
                    (across[0], max(up)),
                    xytext=(0, 6),
                    textcoords="offset points",
                    ha="left",
                    va="bottom",
                    color=colour,
                )
        for axes in (left, right):
            axes.set(xscale="log", yscale="log")
            axes.margins(x=0.06, y=0.14)
            axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
        left.set_ylabel("time of the search [CPU s]")
        left.set_xscale("log", base=2)
        channels = sorted({int(str(row["channels"])) for row in rows})
        left.set_xticks(channels, [str(each) for each in channels])
        left.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        left.set_xlabel("input and output channels (3x3, 14x14)")
        right.set_xlabel("mappings to choose from")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("channels", nargs="*", type=int, help="K and C (default: all, recorded)")
    asked = parser.parse_args().channels
    for name in MACHINES:
        measure(name, 16)  # imports and first uses are not the search's
    rows = []
    for channels in asked or CHANNELS:
        for name in MACHINES:
            rows.append(measure(name, channels))
            print(*rows[-1].values(), sep="  ", flush=True)
    if asked:
        return
    with (HERE / "growth.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    figure = plot(rows)
    figure.savefig(HERE / "growth.svg", metadata={"Date": None})
    figure.savefig(HERE / "growth.png", dpi=150)


if __name__ == "__main__":
    main()
