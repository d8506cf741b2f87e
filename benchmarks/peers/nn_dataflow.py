"""Our best mapping word by word against the one that nn_dataflow finds.

Three energies for every layer, in multiply-accumulates: what nn_dataflow says of its mapping; what
that mapping costs word by word; our optimum word by word, of mappings in which the tensors of a
memory share their tiles. Its own count takes whole rows for reused in a processing element without
room for them (`energysim validate nn_dataflow` has the comparison by its count).

    python benchmarks/peers/nn_dataflow.py               every layer
    python benchmarks/peers/nn_dataflow.py conv1 fc      those whose names start with one of these
"""

import argparse
import time

from common import HERE, Row, record, show

from energysim import load_hardware
from energysim.hardware import Hardware
from energysim.validation.data import data_file
from energysim.validation.nn_dataflow import Case, cases, mapped, optimum_of_words

FOLDER = HERE / "nn_dataflow"


def line(case: Case, hardware: Hardware) -> Row:
    """The three energies of a layer."""
    theirs, (_, single) = int(case.row["cost"]), mapped(case, hardware)
    begin = time.process_time()
    ours = optimum_of_words(case, hardware)
    return {
        "layer": case.name,
        "nn_dataflow_mac": theirs,
        "its_mapping_mac": single,
        "optimum_mac": ours,
        "ratio": ours / theirs,
        "ratio_to_its_mapping": ours / single,
        "cpu_s": time.process_time() - begin,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[""])
    names = tuple(parser.parse_args().names)
    hardware = load_hardware(str(data_file("nn_dataflow.yaml")))
    rows = [line(case, hardware) for case in cases() if case.name.startswith(names)]
    show(rows)
    if names == ("",):
        record(FOLDER / "result.csv", rows, "written by benchmarks/peers/nn_dataflow.py")


if __name__ == "__main__":
    main()
