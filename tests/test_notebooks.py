"""Notebooks run from top to bottom, and what they print is what they show."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def printed(notebook: Any) -> list[str]:
    return [
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream" and output.name == "stdout"
    ]


@pytest.mark.filterwarnings("ignore::ResourceWarning:zmq", "ignore::DeprecationWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_shows_what_it_prints(path: Path, tmp_path: Path) -> None:
    stored, fresh = (nbformat.read(path, as_version=4) for _ in range(2))
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(fresh, timeout=300, kernel_name="python3", resources=resources).execute()
    # A notebook may be kept without outputs; one that has them has today's.
    if printed(stored):
        assert printed(fresh) == printed(stored)


def test_there_are_notebooks_with_outputs() -> None:
    assert any(printed(nbformat.read(path, as_version=4)) for path in NOTEBOOKS)
