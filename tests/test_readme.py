"""README shows what really comes out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_line import call
from machines import looked_up
from shown import outputs

import energysim as es
from energysim.axes import Dim, Shape
from energysim.model.lockstep import OrderChoice, Spread, lock_step
from energysim.sparsity import Mask

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_shown_output_is_the_output(tmp_path: Path) -> None:
    ((command, text),) = outputs(README)
    words = [sys.executable, "-m", "energysim", *command.split()]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert text.splitlines() == [line.rstrip() for line in done.stdout.splitlines()]


def test_shown_validation_is_what_comes_out() -> None:
    shown = re.search(
        r"<!-- validation -->\n```text\n\$ energysim (.*?)\n(.*?)```", README, re.DOTALL
    )
    assert shown
    done = call(*shown[1].split())
    assert done.status == 0
    assert [line.rstrip() for line in done.out.splitlines()] == shown[2].splitlines()


def test_chips_are_counted() -> None:
    known = call("list", "hw", "--format", "csv").out.splitlines()[1:]
    found = re.search(r"A chip is a file: (\d+) come along", README)
    assert found
    assert int(found[1]) == len(known)


def test_python_lines_run(capsys: pytest.CaptureFixture[str]) -> None:
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block
    exec(compile(block[1], "README.md", "exec"), {})
    shown = re.search(r"print\(r\)  # (.*)", block[1])
    assert shown
    assert capsys.readouterr().out.splitlines()[0] == shown[1]


def test_array_steps_are_what_is_counted() -> None:
    table = README.split("<!-- array steps -->")[1].split("\n\n")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert len(rows) == 6
    for pattern, channels, array, left, *shown in rows:
        shape = Shape((1, 1, int(channels), int(channels), 1, 1, 3, 3), size=(3, 3))
        mask, side = Mask.of(pattern, shape), int(array.split("x")[0])
        spreads = (Spread(Dim.C, side, "rows"), Spread(Dim.K, side, "cols"))
        assert f"{mask.density:.3f}" == left
        columns: dict[str, OrderChoice] = {"cols": "by_slot"}
        counted = [
            lock_step(mask, spreads),
            lock_step(mask, spreads, order=columns),
            lock_step(mask, spreads, order="by_slot"),
            lock_step(mask, spreads, order=columns, pe_queue=8),
        ]
        assert [f"{each.ratio:.3f}" for each in counted] == shown


def test_what_skipping_saves_beside_gating() -> None:
    table = README.split("<!-- skipping against gating -->")[1].split("\n\n")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert len(rows) == 2
    net, chip = es.load_network("vgg16_ps"), es.load_hardware("edge_tpu")

    def figures(words: str) -> list[float]:
        given = yaml.safe_load(words)
        sparsity = chip.sparsity.model_copy(update=given)
        result = looked_up(net, chip.model_copy(update={"sparsity": sparsity}))
        parts = [("SRAM", "input"), ("ACC", "output")]
        return [
            result.total_energy_pj,
            result.total_cycles,
            *(
                sum(row.bits for row in result.access_rows if (row.level, row.tensor) == part)
                for part in parts
            ),
        ]

    gated = figures("{weights: gate}")
    for words, *shown in rows:
        skipped = figures(words.strip("`"))
        assert [f"{a / b:.3f}" for a, b in zip(skipped, gated, strict=True)] == shown


def test_ci_runs_the_commands_of_readme() -> None:
    script = (Path(__file__).parent.parent / ".ci" / "run").read_text(encoding="utf-8")
    for name in ("main command", "test command"):
        assert re.search(rf"<!-- {name} -->\n```sh\npython3 -m venv .*\n```", README)
        assert f"$(readme '{name}')" in script
