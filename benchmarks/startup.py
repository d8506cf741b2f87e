"""The main command from process start to exit, against ``import numpy, pandas`` in the same run.

Runs the two in turn and prints the ratio of each pair's wall times, their median, and the main
command's peak memory:

    python benchmarks/startup.py [runs]
"""

import os
import statistics
import subprocess
import sys
import time

YARDSTICK = [sys.executable, "-c", "import numpy, pandas"]
COMMANDS = {
    "run vgg16_ps on edge_tpu": ["run", "--net", "vgg16_ps", "--hw", "edge_tpu.yaml"],
    "run resnet18_ps on eyeriss": ["run", "--net", "resnet18_ps", "--hw", "eyeriss"],
    "run vgg16_imagenet on edge_tpu": ["run", "--net", "vgg16_imagenet", "--hw", "edge_tpu"],
    "--help": ["--help"],
    "list": ["list"],
}


def run(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak MB of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} failed")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    run(YARDSTICK)
    for name, words in COMMANDS.items():
        command = [sys.executable, "-m", "energysim", *words]
        run(command)
        pairs = [(run(command), run(YARDSTICK)[0]) for _ in range(runs)]
        ratios = [mine[0] / yardstick for mine, yardstick in pairs]
        print(
            f"{name:<32} {statistics.median(ratios):5.2f} x the imports "
            f"(min {min(ratios):.2f}, max {max(ratios):.2f}); "
            f"median {statistics.median(mine[0] for mine, _ in pairs):.2f} s, "
            f"peak {max(mine[1] for mine, _ in pairs):.0f} MB"
        )


if __name__ == "__main__":
    main()
