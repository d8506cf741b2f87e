"""50 times kill -9 at random moments: whatever is resumed ends as what was never interrupted.

python benchmarks/kills.py sweep      # the table, byte for byte
python benchmarks/kills.py train      # a grid of trainings: all that it keeps but the speed
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

KILLS = 50
SWEEP = ("sweep", "--net", "digits_cnn", "--hw", "edge_tpu", "--scan", "clock_mhz=100:400:+100",
         "--scan", "batch=1:24:+1", "--check", "0", "--no-cache", "-q")  # fmt: skip
TRAIN = ("train", "--net", "digits_cnn", "--patterns", "dense,PS4_P4,PSD2_P8", "--seeds", "0-1",
         "--epochs", "4", "--per-class", "100", "-q")  # fmt: skip
SPEED = "images_per_second"

Kept = dict[str, bytes]
"""Bytes by file."""


def sweep(folder: Path) -> list[str]:
    return [*SWEEP, "--store", str(folder / "store"), "-o", str(folder / "table.csv")]


def table(folder: Path) -> Kept:
    return {"table.csv": (folder / "table.csv").read_bytes()}


def train(folder: Path) -> list[str]:
    return [*TRAIN, "--out", str(folder / "runs"), "-o", str(folder / "table.csv")]


def runs(folder: Path) -> Kept:
    """Every file of the grid; of the logs all but the images a second, which no clock repeats."""
    kept = table(folder)
    for path in sorted(folder.glob("runs/**/*")):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".jsonl":
                lines = [json.loads(line) for line in data.splitlines()]
                told = [{k: v for k, v in line.items() if k != SPEED} for line in lines]
                data = json.dumps(told).encode()
            kept[str(path.relative_to(folder))] = data
    return kept


def killed(name: str, command: Callable[[Path], list[str]], kept: Callable[[Path], Kept]) -> None:
    def started(folder: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "energysim", *command(folder)]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL)

    with tempfile.TemporaryDirectory() as place:
        first = Path(place) / "0"
        first.mkdir()
        began = time.perf_counter()
        assert started(first).wait() == 0
        whole = time.perf_counter() - began
        expected = kept(first)
        rng = random.Random(0)
        kills = rounds = 0
        while kills < KILLS:
            rounds += 1
            folder = Path(place) / str(rounds)
            folder.mkdir()
            while kills < KILLS:
                with started(folder) as process:
                    try:
                        assert process.wait(timeout=whole * rng.random()) == 0
                        break
                    except subprocess.TimeoutExpired:
                        process.kill()
                        kills += 1
            assert started(folder).wait() == 0
            found = kept(folder)
            assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
            for file, data in expected.items():
                assert found[file] == data, f"{folder / file} differs"
    print(
        f"{name}: {kills} kills in {rounds} rounds: {len(expected)} file(s) equal to the"
        " uninterrupted ones, bytewise"
    )


if __name__ == "__main__":
    if sys.argv[1] == "sweep":
        killed("sweep", sweep, table)
    elif sys.argv[1] == "train":
        killed("train", train, runs)
