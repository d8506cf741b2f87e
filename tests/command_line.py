"""Running the command line in tests: inside this process, or as a user does."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from energysim.cli import main

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str


def call(*args: str) -> Done:
    """Run a command inside this process."""
    # Older versions of click mix the two streams unless told not to.
    apart = "mix_stderr" in inspect.signature(CliRunner).parameters
    runner = CliRunner(mix_stderr=False) if apart else CliRunner()  # type: ignore[call-arg]
    result = runner.invoke(main, args, prog_name="energysim")
    return Done(result.exit_code, result.stdout, result.stderr)


def environment(**variables: str) -> dict[str, str]:
    """Variables for a process of its own that finds this package."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    found = os.pathsep.join(filter(None, paths))
    return {**os.environ, "PYTHONPATH": found, "PYTHONWARNINGS": "error", **variables}


def start(*args: str, **variables: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "energysim", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment(**variables),
    )


def call_process(*args: str, **variables: str) -> Done:
    """Run a command in a process of its own."""
    process = start(*args, **variables)
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err)
