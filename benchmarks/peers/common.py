"""What the comparisons share: layers without a network around them, tables, seconds."""

import csv
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from energysim import Result, simulate
from energysim.hardware import Hardware
from energysim.mapping import LevelLoops, MappingFile
from energysim.network import Network, NetworkSpec, build_network

HERE = Path(__file__).parent

Row = Mapping[str, object]


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a table; lines that start with # say where it comes from."""
    with path.open(newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def network_of(
    name: str,
    sizes: Mapping[str, int],
    *,
    stride: int = 1,
    pad: int = 0,
    image: tuple[int, int] | None = None,
) -> Network:
    """One convolution as a network; sizes of K, C, P, Q, R, S.

    The image has the rows and columns that the windows reach, unless it is given.
    """
    height, width = image or (
        (sizes[out] - 1) * stride + sizes[tap] - 2 * pad for out, tap in (("P", "R"), ("Q", "S"))
    )
    layer = {
        "name": name,
        "kind": "conv",
        "out": sizes["K"],
        "kernel": [sizes["R"], sizes["S"]],
        "stride": stride,
        "pad": pad,
        "bias": False,
    }
    spec = {
        "name": name,
        "source": "a layer of benchmarks/peers",
        "input": [sizes["C"], height, width],
        "layers": [layer],
    }
    return build_network(NetworkSpec.model_validate_json(json.dumps(spec)), None, _no_base)


def _no_base(name: str) -> Network:
    raise LookupError(name)


def given(network: Network, hardware: Hardware, loops: Iterable[LevelLoops], **options) -> Result:
    """Cost of a layer with a mapping that is given."""
    mapping = MappingFile(layers={network.layers[0].name: tuple(loops)})
    return simulate(network, hardware, mapping=mapping, residency=False, **options)


def optimum(network: Network, hardware: Hardware, **options) -> tuple[Result, float]:
    """The best mapping of a layer, and the CPU seconds that it took to find."""
    begin = time.process_time()
    result = simulate(network, hardware, residency=False, **options)
    return result, time.process_time() - begin


def show(rows: Sequence[Row]) -> None:
    """Print a table: words to the left, numbers to the right."""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numbers = [not isinstance(value, str) for value in rows[0].values()]
    for line in cells:
        each = zip(line, widths, numbers, strict=True)
        print("  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in each).rstrip())


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def record(path: Path, rows: Sequence[Row], note: str) -> None:
    """Keep a table as CSV, with one line above it that says what it is."""
    with path.open("w", newline="") as file:
        file.write(f"# {note}\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)


def _plain(value: object) -> object:
    return f"{value:.9g}" if isinstance(value, float) else value
