"""Notebooks are complete, kept without outputs, and run from top to bottom by nbmake.

Each is copied to a folder of its own first: what it writes, it writes there, and it needs nothing
but the package.
"""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbmake.nb_run import NotebookRun

import energysim as es
from energysim import train
from energysim.plot import gallery_figure
from energysim.sparsity import get_pattern

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [
    "01_first_run",
    "02_dataflows_and_mappings",
    "03_periodic_sparsity",
    "04_sweeping_patterns",
    "05_pareto_front",
    "06_train_your_own_accuracy",
    "07_your_own_chip_and_network",
    "08_methods",
]
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any) -> set[str]:
    """Forms of what a cell has shown, such as ``image/png``."""
    return {form for output in cell.outputs for form in output.get("data", ())}


def test_all_are_there_in_order() -> None:
    assert [path.stem for path in NOTEBOOKS] == NAMES


def test_the_list_beside_them_names_each() -> None:
    linked = re.findall(r"\]\((\w+)\.ipynb\)", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert linked == NAMES


@each_notebook
def test_kept_without_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata == METADATA
    for cell in notebook.cells:
        assert not cell.metadata
        assert cell.source.strip()
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@each_notebook
def test_begins_with_its_title(path: Path) -> None:
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    title = first.source.splitlines()[0]
    assert title.startswith("# ")
    words = set(re.findall(r"\w+", title.lower()))
    assert words & set(path.stem.split("_")[1:])


@pytest.mark.filterwarnings("ignore::ResourceWarning:zmq", "ignore::DeprecationWarning")
@each_notebook
def test_runs_and_shows_its_pictures(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    outcome = NotebookRun(copy, default_timeout=300).execute()
    assert outcome.error is None, outcome.error.summary if outcome.error else ""
    for cell in code(outcome.nb):
        assert not any(each.get("name") == "stderr" for each in cell.outputs), cell.outputs
        last = cell.source.splitlines()[-1]
        if re.match(r"(plot\.\w+_figure\(|figure$)", last):
            assert "image/png" in shown(cell)
    assert any("image/png" in shown(cell) for cell in code(outcome.nb))


def test_a_cell_that_fails_is_told(tmp_path: Path) -> None:
    """The runner itself: an error must not pass for success."""
    copy = tmp_path / "broken.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 == 2")])
    nbformat.write(notebook, copy)
    outcome = NotebookRun(copy, default_timeout=60).execute()
    assert outcome.error is not None


def test_a_picture_shows_itself_as_it_is_written() -> None:
    figure = gallery_figure([get_pattern("PS4_P4")], width=5.0)
    data, size = figure._repr_png_()
    assert data.startswith(b"\x89PNG")
    pixels = [int.from_bytes(data[at : at + 4], "big") for at in (16, 20)]
    width, height = figure.get_size_inches()
    assert pixels == [round(200 * width), int(200 * height)]
    assert size == {"width": 480, "height": round(96 * height)}


def test_a_comparison_shows_itself_as_a_table() -> None:
    network, chip = es.load_network("digits_cnn"), es.load_hardware("edge_tpu")
    comparison = es.compare([network], [chip], patterns=["PS4_P4"])
    dense, sparse = comparison.rows
    assert list(comparison.table["pattern"]) == ["dense", "PS4_P4"]
    assert list(comparison.table["energy_pj"]) == [row.figures.energy_pj for row in (dense, sparse)]
    assert repr(comparison) == "<digits_cnn on edge_tpu, digits_cnn+PS4_P4 on edge_tpu>"
    page = comparison._repr_html_()
    assert page.count("<tr>") == 3
    assert "(1.00)" in page
    assert f"({sparse.ratios.energy_pj:.3f})" in page


def test_constants_as_a_table_add_up() -> None:
    result = es.simulate(es.load_network("digits_cnn"), es.load_hardware("edge_tpu"))
    table = es.uncertainty(result).table
    assert table["energy_pj"].sum() == pytest.approx(result.total_energy_pj)


def test_names_of_the_trainer() -> None:
    assert all(getattr(train, name) is not None for name in train.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = train.trian
