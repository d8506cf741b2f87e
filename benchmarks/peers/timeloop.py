"""Our best mapping against nests that Timeloop has priced, on the same machine and dataflow.

For every case three energies: Timeloop's of its nest, ours of the same nest, and our optimum.

    python benchmarks/peers/timeloop.py              every case
    python benchmarks/peers/timeloop.py ey           those whose name starts so
    python benchmarks/peers/timeloop.py --mapped     without searching
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import yaml
from common import HERE, Row, given, network_of, optimum, record, show

from energysim import load_hardware
from energysim.mapping import LevelLoops

FOLDER = HERE / "timeloop"

Case = dict[str, Any]
"""A record of cases.yaml."""


def cases(words: Sequence[str] = ()) -> list[Case]:
    """Nests that Timeloop has priced, or those whose name starts with every word."""
    every = yaml.safe_load((FOLDER / "cases.yaml").read_text())["cases"]
    return [case for case in every if all(case["name"].startswith(word) for word in words)]


def line(case: Case, *, search: bool) -> Row:
    """Three energies of one case."""
    sizes, theirs = case["layer"], float(case["energy_pj"])
    network = network_of(case["name"], sizes, stride=case["stride"])
    hardware = load_hardware(str(FOLDER / f"{case['machine']}.yaml"))
    nest = [LevelLoops.model_validate_json(json.dumps(level)) for level in case["nest"]]
    same = given(network, hardware, nest, batch=sizes["N"]).total_energy_pj
    row = {
        "case": case["name"],
        "timeloop_pj": theirs,
        "same_loops_pj": same,
        "same_loops_ratio": same / theirs,
    }
    if search:
        best, seconds = optimum(network, hardware, batch=sizes["N"])
        energy = best.total_energy_pj
        row |= {
            "optimum_pj": energy,
            "ratio": energy / theirs,
            "optimal": str(best.search.optimal),
            "cpu_s": seconds,
            "mapping": best.layer_rows[0].mapping,
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--mapped", action="store_true", help="do not search")
    asked = parser.parse_args()
    chosen = cases(asked.words)
    rows = [line(case, search=not asked.mapped) for case in chosen]
    show(rows)
    if chosen == cases() and not asked.mapped:
        record(FOLDER / "result.csv", rows, "python benchmarks/peers/timeloop.py")


if __name__ == "__main__":
    main()
