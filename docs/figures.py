"""Make the pictures of README from what comes with the package: ``python docs/figures.py``.

The same package gives the same bytes. The numbers of a picture stand beside it as CSV, and a test
computes them again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from energysim import load_hardware
from energysim.cache import Cache, folder
from energysim.cli.render import as_csv
from energysim.compare import pattern_names
from energysim.files import write_atomically
from energysim.pareto import ParetoTable, load_accuracies, pareto
from energysim.plot.pareto import pareto_figure
from energysim.plot.style import save

NETWORKS = ("vgg16", "resnet18", "mobilenet_v2", "shufflenet_v2")
HARDWARE = "edge_tpu"
COMMAND = f"energysim pareto --nets {','.join(NETWORKS)} --patterns all --hw {HARDWARE}"
"""What shows the same table."""


def front(cache: Cache | None = None) -> ParetoTable:
    """Published accuracies against energy."""
    accuracies, chip = load_accuracies("published"), load_hardware(HARDWARE)
    return pareto(accuracies, chip, networks=NETWORKS, patterns=pattern_names(["all"]), cache=cache)


def write(where: Path, cache: Cache | None = None) -> None:
    """Write pictures and numbers into a folder."""
    table = front(cache)
    write_atomically(where / "pareto.csv", as_csv(table.rows()))
    figure = pareto_figure(table)
    for suffix in (".png", ".svg"):
        save(figure, where / f"pareto{suffix}")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent, Cache(folder()))
