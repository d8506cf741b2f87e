"""Pages of the documentation: what they show comes out, and what they name exists.

``python tests/test_docs.py`` writes the shown outputs again. Links, anchors and the reference are
checked by ``mkdocs build --strict``.
"""

from __future__ import annotations

import csv
import re
import runpy
import shlex
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest
import shown

from energysim.catalog import names
from energysim.cli import main

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {
    str(path.relative_to(DOCS)): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
}
OUTPUTS = [(page, *each) for page, text in PAGES.items() for each in shown.outputs(text)]
SHELL = [
    (page, line)
    for page, text in PAGES.items()
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for line in re.sub(r"\\\n", " ", block).splitlines()
    if line.startswith("energysim ")
]
PYTHON = [page for page, text in PAGES.items() if "```python\n" in text]


@cache
def hooks() -> dict[str, Any]:
    """What the build runs; it needs mkdocs only where it is called by it."""
    return runpy.run_path(str(DOCS / "hooks.py"))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_files(page: str) -> None:
    for name, text in shown.files(PAGES[page]).items():
        Path(name).write_text(text, encoding="utf-8")


def test_pages_show_something() -> None:
    for text in PAGES.values():
        assert text.count("<!-- output of:") == len(shown.outputs(text))
        assert text.count("<!-- file:") == len(shown.files(text))
    assert OUTPUTS
    assert PYTHON


@pytest.mark.parametrize(("page", "command", "text"), OUTPUTS)
def test_shown_output_is_the_output(page: str, command: str, text: str) -> None:
    write_files(page)
    assert text == shown.printed(command)


@pytest.mark.parametrize(("page", "line"), SHELL)
def test_commands_are_understood(page: str, line: str) -> None:
    """Names of commands and options, and the words that they take; nothing is run."""
    write_files(page)
    for name in ("densities.csv", "sweep.yaml", "mine.yaml", "model.onnx", "runs", "weights.npz"):
        Path(name).touch()
    command, context = main, click.Context(main, info_name="energysim")
    words = shlex.split(line, comments=True)[1:]
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(context, words)
        assert command is not None
        if not isinstance(command, click.Group):
            command.make_context(name, words, context)


@pytest.mark.parametrize("page", PYTHON)
def test_python_runs(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks of a page one after the other; ``print(x)  # y`` says what it prints."""
    write_files(page)
    blocks = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    exec(compile("\n".join(blocks), page, "exec"), {})
    expected = [each for block in blocks for each in re.findall(r"print\(.*\)  # (.*)", block)]
    lines = capsys.readouterr().out.splitlines()
    for line in expected:
        assert line in lines


PUBLIC = (
    "energysim",
    "energysim.accuracy",
    "energysim.errors",
    "energysim.hardware",
    "energysim.mapping",
    "energysim.network",
    "energysim.pareto",
    "energysim.plot",
    "energysim.prune",
    "energysim.sparsity",
    "energysim.sweeps",
    "energysim.technology",
    "energysim.train",
)


@pytest.mark.parametrize("module", PUBLIC)
def test_public_modules_are_in_the_reference(module: str) -> None:
    """With what the reference can't find: functions of the same name as the file they stand in."""
    told = set(re.findall(r"^::: (\S+)$", "\n".join(PAGES.values()), re.MULTILINE))
    assert module in told
    for name in getattr(import_module(module), "__all__", ()):
        if find_spec(f"{module}.{name}"):
            assert f"{module}.{name}.{name}" in told, name


def test_reference_has_every_command_with_options_and_examples() -> None:
    page = hooks()["filled"](PAGES["reference/cli.md"])

    def check(command: click.Command, context: click.Context) -> None:
        assert f" {context.command_path}\n" in page
        for option in command.get_params(context):
            record = option.get_help_record(context)
            if record and record[1] and "--help" not in option.opts:
                assert f"`{record[0]}`\n:   " in page
        for line in (command.help or "").splitlines():
            assert not line.startswith("  energysim ") or f"\n{line.strip()}\n" in page
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                check(inner, click.Context(inner, context, info_name=name))

    check(main, click.Context(main, info_name="energysim"))


def test_reference_has_every_field_with_its_meaning() -> None:
    page = hooks()["filled"](PAGES["reference/files.md"])
    for _, _, model in hooks()["FILES"]:
        for name in model.model_fields:
            assert re.search(rf"^`{name}` <small>", page, re.MULTILINE), name
    assert "\n:   -\n" not in page, "a field without a docstring"


def test_reference_lists_what_comes_along() -> None:
    page = hooks()["filled"](PAGES["reference/bundled.md"])
    for kind in ("nets", "hw"):
        for name in names(kind):
            assert f"| {name.replace('_', chr(92) + '_')} |" in page


def test_ratios_to_other_tools_are_the_recorded_ones() -> None:
    """From the least to the largest of the rows that the benchmarks wrote, to two digits."""
    for tool, file, column in (
        ("ZigZag", "zigzag/result_refetch.csv", "ratio"),
        ("0.78 to 1.09", "zigzag/result_refetch.csv", "corrected_ratio"),
        ("AccelForge", "accelforge/result.csv", "ratio"),
        ("Timeloop", "timeloop/result.csv", "ratio"),
    ):
        with (DOCS.parent / "benchmarks" / "peers" / file).open(encoding="utf-8") as lines:
            rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
        ratios = [float(row[column]) for row in rows]
        found = re.search(
            rf"{tool}[^|\n]*(?:\| (\d+) \|)?[ ;]*(\d\.\d\d) to (\d\.\d\d)", PAGES["comparison.md"]
        )
        assert found, tool
        assert found.groups()[1:] == (f"{min(ratios):.2f}", f"{max(ratios):.2f}")
        assert found[1] in (None, str(len(rows)))


def test_links_into_the_repository_lead_somewhere() -> None:
    """They stand as ``repo:PATH#heading``; files are checked by the build too, headings here."""
    links = [
        (page, *link)
        for page, text in PAGES.items()
        for link in re.findall(r"\]\(repo:([^)#\s]+)#?([^)\s]*)\)", text)
    ]
    assert links
    for page, path, heading in links:
        found = DOCS.parent / path
        assert found.exists(), (page, path)
        if heading:
            text = found.read_text(encoding="utf-8")
            heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
            assert heading in slugs, (page, path, heading)


if __name__ == "__main__":
    import os
    import tempfile

    for each in sys.argv[1:] or PAGES:
        os.chdir(tempfile.mkdtemp())
        write_files(each)
        (DOCS / each).write_text(shown.rewritten(PAGES[each]), encoding="utf-8")
