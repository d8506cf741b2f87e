"""Help, version and completion: complete, with examples that run, and without heavy imports."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from command_line import ROOT, call, call_process, environment

from energysim.cli import main, options
from energysim.hardware import FormatWord
from energysim.mapper.goal import Objective
from energysim.sparsity.maskfile import mask_file

COMMANDS = [
    "run",
    "train",
    "prune",
    "shrink",
    "lowrank",
    "list",
    "show",
    "check",
    "cache",
    "formats",
    "compare",
    "sweep",
    "search",
    "pareto",
    "compare-methods",
    "plot",
    "import",
    "report",
    "validate",
]
HEAVY = ("numpy", "pandas", "matplotlib", "rich")


def help_of(*words: str) -> str:
    done = call(*words, "--help")
    assert done.status == 0
    return done.out


def examples(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line.startswith("energysim ")]


ALL_EXAMPLES = [line for words in ([], *([each] for each in COMMANDS)) for line in
                examples(help_of(*words))]  # fmt: skip


def command_named(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


def test_all_commands_are_listed() -> None:
    assert main.list_commands(click.Context(main)) == COMMANDS
    text = help_of()
    for name in COMMANDS:
        (line,) = [each for each in text.splitlines() if each.startswith(f"  {name} ")]
        assert line.endswith("."), "the summary must not be cut"


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)], ids=str)
def test_every_help_has_examples(words: list[str]) -> None:
    assert "Example:" in help_of(*words)
    assert examples(help_of(*words))
    assert call(*words, "-h").out == help_of(*words)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    for parameter in command_named(name).params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("line", dict.fromkeys(ALL_EXAMPLES))
def test_examples_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "densities.csv").write_text("layer,input_density\nconv2,0.6\n")
    (tmp_path / "sweep.yaml").write_text(
        "network: digits_cnn\nhardware: edge_tpu\nscan: {batch: [1, 2]}\n"
    )
    (tmp_path / "mask.npz").write_bytes(mask_file({"conv2": np.arange(16) % 4 > 0}))
    (tmp_path / "small.yaml").write_text((ROOT / "networks" / "digits_cnn.yaml").read_text())
    if line.startswith("energysim import"):
        pytest.importorskip("onnx")
        from onnx_models import model, node, ones, save

        weights = ones("w", 8, 3, 3, 3)
        weights.raw_data = weights.raw_data[:-4] + bytes(4)
        made = model([node("Conv", "image w", "y")], [weights], image=(1, 3, 224, 224))
        made.graph.input[0].name = "image"
        save(made, tmp_path)
    words = shlex.split(line)[1:]
    if words[0] == "train":  # as it stands it takes minutes
        words += ["--width", "0.0625", "--epochs", "1", "--seed", "0"]
    done = call(*words)
    assert done.status == 0, done.err
    assert done.out or len(list(tmp_path.iterdir())) > 1


def test_words_of_the_options_are_those_of_the_library() -> None:
    assert list(options.OBJECTIVES) == [each.value for each in Objective]
    (choice,) = [each for each in command_named("run").params if each.name == "weight_format"]
    assert isinstance(choice.type, click.Choice)
    assert list(choice.type.choices) == ["auto", *FormatWord.__args__]  # type: ignore[attr-defined]


def test_version() -> None:
    from energysim import __version__

    assert call("--version").out == f"energysim {__version__}\n"


@pytest.mark.parametrize(
    "args",
    [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS), ["list", "--format",
     "json"], ["show", "vgg16_ps"], ["check", "vgg16", "edge_tpu"]],
    ids=" ".join,
)  # fmt: skip
def test_imports_nothing_heavy(args: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from energysim.cli import main\n"
        "try:\n"
        f"    main({args!r}, prog_name='energysim')\n"
        "except SystemExit as end:\n"
        f"    found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    print('END', end.code, found)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "END 0 []"


def test_table_of_names_imports_no_numbers(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from energysim.cli import main\n"
        "main(['list'], standalone_mode=False)\n"
        "print([name for name in ('numpy', 'pandas', 'matplotlib') if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment(), check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# -- completion ------------------------------------------------------------------------------------


def completed(*words: str) -> list[str]:
    done = call_process(
        _ENERGYSIM_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(["energysim", *words]),
        COMP_CWORD=str(len(words)),
    )
    assert done.err == ""
    return done.out.splitlines()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ru"], ["plain,run"]),
        (["run", "--net", "vgg16_p"], ["plain,vgg16_ps"]),
        (["run", "--hw", "edge"], ["plain,edge_tpu"]),
        (["run", "--hw", "./my"], ["file,./my"]),
        (["run", "--dataflow", "out"], ["plain,output_stationary"]),
        (["run", "--pattern", "psd4"], ["plain,PSD4_P8", "plain,PSD4_P16"]),
        (["run", "--objective", "e"], ["plain,energy", "plain,edp"]),
        (["show", "eyeriss_a"], ["plain,eyeriss_absolute"]),
        (["list", "d"], ["plain,dataflows"]),
    ],
)
def test_completion(words: list[str], expected: list[str]) -> None:
    assert completed(*words) == expected


def test_completion_survives_unreadable_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(kind: str) -> list[str]:
        raise PermissionError(kind)

    monkeypatch.setattr("energysim.catalog.names", fail)
    complete = options.complete_names("nets")
    items = complete(click.Context(main), click.Option(["--net"]), "vgg")
    assert [item.type for item in items] == ["file"]


# -- what is mistyped ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["rnu"], "no command named 'rnu'. Did you mean 'run'?"),
        (["xyzzy"], "no command named 'xyzzy'. Commands: run, train, prune, shrink, lowrank"),
        (["--nonsense"], "No such option"),
        (["list", "networks"], "'networks' is not one of"),
        (["run", "--net", "vgg16"], "Missing option '--hw'"),
        (["run", "--net", "vgg16", "--hw", "edge_tpu", "--objective", "speed"], "'speed' is not"),
        (["run", "--net", "vgg16", "--hw", "edge_tpu", "--batch", "0"], "0 is not in the range"),
        (["run", "--net", "vgg16", "--hw", "edge_tpu", "--batch", "two"], "'two' is not a valid"),
        (["check", "nets"], "Give at least one after 'nets'"),
        (["list", "--format", "csv"], "CSV holds one table"),
    ],
)
def test_usage_errors(args: list[str], words: str) -> None:
    done = call(*args)
    assert done.status == 2
    assert done.out == ""
    assert words in done.err
    assert "Traceback" not in done.err
