"""CPU seconds of ZigZag and of ours for whole networks on its edge_tpu_like, in the same run.

    python benchmarks/peers/zigzag_cpu.py ENVIRONMENT/bin/python [NETWORK ...]

ENVIRONMENT is one that ZigZag is installed in (README.md says how); networks are VGG16 and ResNet18
at 224x224 unless given. Both sides are child processes from start to exit, one after the other,
and nothing is cached. ZigZag gets the convolutions and linear layers only; so does ours, whose
energy is that of these layers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from common import HERE, Row, show

from energysim import load_network
from energysim.network import Layer, Network

NETWORKS = ("vgg16_imagenet", "resnet18_imagenet")
ARCH = "edge_tpu_like"
RUNS = 5


def workload(network: Network) -> list[dict[str, Any]]:
    """The layers with weights as ZigZag describes them, each on its own."""
    return [_words(i, layer) for i, layer in enumerate(network.layers) if layer.has_weights]


def _words(i: int, layer: Layer) -> dict[str, Any]:
    shape = layer.shape
    return {
        "id": i,
        "name": layer.name,
        "operator_type": "Conv",
        "equation": "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]",
        "dimension_relations": [
            f"iy={shape.stride[0]}*oy+1*fy",
            f"ix={shape.stride[1]}*ox+1*fx",
        ],
        "loop_dims": ["B", "G", "K", "C", "OY", "OX", "FY", "FX"],  # in the order of Dim
        "loop_sizes": list(shape.dims),
        "pr_loop_dims": ["IY", "IX"],
        "pr_loop_sizes": list(shape.size),
        "padding": [[pad, pad] for pad in shape.pad],
        "operand_precision": {"W": 8, "I": 8, "O": 16, "O_final": 8},
        "operand_source": {"W": i, "I": i},
    }


def seconds_of(*command: str) -> tuple[float, str]:
    """CPU user seconds of a child process and what it prints."""
    # both sides may keep their compiled modules, as installed packages do
    setting = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before = os.times().children_user
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=setting)
    return os.times().children_user - before, done.stdout


def theirs(python: str, network: Network) -> tuple[float, float]:
    """CPU seconds and energy of ZigZag."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "workload.json"
        file.write_text(json.dumps(workload(network)))
        script = str(HERE / "zigzag" / "run.py")
        seconds, text = seconds_of(python, script, str(file), ARCH)
    return seconds, json.loads(text.splitlines()[-1])["energy_pj"]


def ours(name: str) -> tuple[float, float]:
    """CPU seconds (median of some runs) and energy of ours, on the command line."""
    hardware = str(HERE / "zigzag" / f"{ARCH}.yaml")
    command = ["-m", "energysim", "run", "--net", name, "--hw", hardware, "--format", "json"]
    command += ["--no-cache", "--residency", "off", "--quiet"]
    runs = [seconds_of(sys.executable, *command) for _ in range(RUNS)]
    seconds, text = median(seconds for seconds, _ in runs), runs[0][1]
    weighted = {layer.name for layer in load_network(name).layers if layer.has_weights}
    rows = json.loads(text)["layers"]
    return seconds, sum(row["energy_pj"] for row in rows if row["layer"] in weighted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", help="of the environment that ZigZag is installed in")
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    asked = parser.parse_args()
    rows: list[Row] = []
    for name in asked.networks:
        slow, energy = theirs(asked.python, load_network(name))
        fast, less = ours(name)
        rows.append(
            {
                "network": name,
                "zigzag_cpu_s": slow,
                "our_cpu_s": fast,
                "times_faster": slow / fast,
                "zigzag_pj": energy,
                "our_pj": less,
                "energy_ratio": less / energy,
            }
        )
        show(rows[-1:])


if __name__ == "__main__":
    main()
