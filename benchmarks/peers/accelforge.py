"""Our best mapping against the one that AccelForge finds on its two-level architecture `simple`.

Compared are words to and from DRAM, of the mapping of least energy on both sides.

    python benchmarks/peers/accelforge.py                every layer
    python benchmarks/peers/accelforge.py vgg16_conv3    those whose name starts so
"""

import argparse
from collections.abc import Sequence

from common import HERE, Row, network_of, optimum, record, rows_of, show

from energysim import Result, load_hardware
from energysim.hardware import Hardware

FOLDER = HERE / "accelforge"
DIMS = ("K", "C", "P", "Q", "R", "S")


def cases(words: Sequence[str] = ()) -> list[dict[str, str]]:
    """Layers that AccelForge has mapped, or those whose name starts with every word."""
    rows = rows_of(FOLDER / "optimum.csv")
    return [row for row in rows if all(row["layer"].startswith(word) for word in words)]


def machine(buffer_kib: float) -> Hardware:
    """`simple` with a buffer of a size."""
    hardware = load_hardware(str(FOLDER / "simple.yaml"))
    memory, buffer = hardware.levels
    levels = (memory, buffer.model_copy(update={"capacity_kib": buffer_kib}))
    return hardware.model_copy(update={"levels": levels})


def dram_words(result: Result) -> int:
    """Elements read and written in DRAM."""
    return sum(row.elements for row in result.access_rows if row.level == "DRAM")


def line(case: dict[str, str]) -> Row:
    """DRAM words of one layer on both sides."""
    network = network_of(case["layer"], {dim: int(case[dim]) for dim in DIMS})
    best, seconds = optimum(network, machine(float(case["buffer_kib"])))
    words, theirs = dram_words(best), int(case["total"])
    return {
        "layer": case["layer"],
        "buffer_kib": int(case["buffer_kib"]),
        "accelforge_words": theirs,
        "our_words": words,
        "ratio": words / theirs,
        "optimal": str(best.search.optimal),
        "cpu_s": seconds,
        "mapping": best.layer_rows[0].mapping,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*")
    chosen = cases(parser.parse_args().words)
    rows = [line(case) for case in chosen]
    show(rows)
    if chosen == cases():
        record(FOLDER / "result.csv", rows, "python benchmarks/peers/accelforge.py")


if __name__ == "__main__":
    main()
