"""What pages show: files to write first, and commands with what they print."""

from __future__ import annotations

import re

from command_line import call

_FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
_OUTPUT = re.compile(
    r"(<!-- output of: energysim (.*?) -->\n```text\n\$ energysim \2\n)(.*?)```", re.DOTALL
)


def files(page: str) -> dict[str, str]:
    """Files that a page spells, by name."""
    return dict(_FILE.findall(page))


def outputs(page: str) -> list[tuple[str, str]]:
    """Commands of a page, and what it shows of them."""
    return [(command, text) for _, command, text in _OUTPUT.findall(page)]


def printed(command: str) -> str:
    """What a command prints now, without blanks at the ends of lines."""
    done = call(*command.split())
    assert done.status == 0, done.err
    return "".join(f"{line.rstrip()}\n" for line in done.out.splitlines())


def rewritten(page: str) -> str:
    """A page with what its commands print now."""
    return _OUTPUT.sub(lambda found: f"{found[1]}{printed(found[2])}```", page)
