"""The walkthroughs of CONTRIBUTING work as written."""

import re
from pathlib import Path

import pytest
import shown
from click.testing import CliRunner

from energysim.cli import main

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = shown.files(TEXT)
COMMANDS = re.findall(r"`energysim ([^`]+)`", TEXT)

ELSEWHERE = ("validate",)
"""Run whole by tests of their own."""


def test_there_is_something_to_try() -> None:
    assert set(FILES) == {"my_chip.yaml", "my_net.yaml", "my_net_ps.yaml", "my_flow.yaml"}
    assert len(COMMANDS) >= 9


@pytest.mark.parametrize("command", [each for each in COMMANDS if each not in ELSEWHERE])
def test_command_works(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = CliRunner().invoke(main, command.split())
    assert done.exit_code == 0, done.output
