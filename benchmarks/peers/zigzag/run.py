"""Run ZigZag itself; in an environment of its own, see ../README.md.

    ENVIRONMENT/bin/python benchmarks/peers/zigzag/run.py WORKLOAD.json edge_tpu_like

The workload is a list of layers in ZigZag's own words. The last line of the answer is JSON: energy
[pJ] and latency [cycle].
"""

import json
import sys
import tempfile
from pathlib import Path

import zigzag
from zigzag.api import get_hardware_performance_zigzag


def main() -> None:
    workload, arch = sys.argv[1:]
    inputs = Path(zigzag.__file__).parent / "inputs"
    with tempfile.TemporaryDirectory() as folder:
        energy, latency, _ = get_hardware_performance_zigzag(
            workload=json.loads(Path(workload).read_text()),
            accelerator=str(inputs / "hardware" / f"{arch}.yaml"),
            mapping=str(inputs / "mapping" / f"{arch}.yaml"),
            opt="energy",
            lpf_limit=6,
            dump_folder=folder,
            loma_show_progress_bar=False,
        )
    print(json.dumps({"energy_pj": float(energy), "latency_cycles": float(latency)}))


if __name__ == "__main__":
    main()
