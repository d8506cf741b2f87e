"""``energysim show``: what is printed can be read back and means the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from command_line import ROOT, call

from energysim.catalog import load_hardware, load_network
from energysim.cli.locate import RECIPE_NAMES
from energysim.network import Layer
from energysim.train.recipe import RECIPES, Recipe
from energysim.yamlio import load_model

NETS = sorted(path.stem for path in (ROOT / "networks").glob("*.yaml"))
HARDWARE = sorted(path.stem for path in (ROOT / "hw_configs").glob("*.yaml"))

ODD = """\
name: odd
source: a test of every field that a layer can have
input: [6, 15, 17]
layers:
  - {name: same, kind: conv, out: 8, kernel: [3, 2], stride: 2, pad: same, bias: false}
  - {name: lopsided, kind: conv, out: 8, kernel: 3, pad: [0, 2, 1, 1], groups: 2, input: input}
  - {name: dilated, kind: depthwise, kernel: 3, pad: [2, 1], dilation: 2, input: same}
  - {name: periodic, kind: conv, out: 8, kernel: 3, pad: 1, pattern: PS2_P6, input: same}
  - {name: random, kind: conv, out: 8, kernel: 3, pad: 1, pattern: pSC1, batch_norm: true}
  - {name: sum, kind: add, input: [random, periodic, same]}
  - {name: small, kind: pool, kernel: 3, stride: 2, pad: 1, mode: average}
  - {name: "12.5", kind: pool, kernel: [2, 1]}
  - {name: all, kind: pool, kernel: global, mode: average}
  - {name: "null", kind: linear, out: 3, bias: false}
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENERGYSIM_PATH", raising=False)
    return tmp_path


def shown(*args: str) -> str:
    done = call("show", *args)
    assert (done.status, done.err) == (0, "")
    return done.out


def same_layers(text: str, layers: tuple[Layer, ...]) -> None:
    again = Path("again.yaml")
    again.write_text(text)
    assert load_network("again.yaml").layers == layers
    done = call("check", "nets", "again.yaml")
    assert done.status == 0, done.out


@pytest.mark.parametrize("name", NETS)
def test_networks_are_read_back(name: str) -> None:
    network = load_network(name)
    text = shown(name)
    same_layers(text, network.layers)
    assert text.startswith(f"# {ROOT / 'networks' / name}.yaml (bundled)\nname: {name}\nsource: ")


def test_every_field_of_a_layer_is_read_back() -> None:
    Path("odd.yaml").write_text(ODD)
    same_layers(shown("odd.yaml"), load_network("odd").layers)


def test_a_variant_has_its_layers_written_out() -> None:
    lines = shown("vgg16_ps").splitlines()
    assert "# variant of vgg16: pattern PSD4_P8, written out" in lines
    (line,) = [each for each in lines if "name: conv1_2," in each]
    assert "pattern: PSD4_P8" in line
    assert line.endswith("# -> 64x32x32, 18.9 k of 36.9 k weights, 19.4 M MACs")
    assert "pattern" not in next(each for each in lines if "name: conv1_1," in each)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_read_back(name: str) -> None:
    assert set(RECIPE_NAMES) == set(RECIPES)
    Path("again.yaml").write_text(shown(name))
    assert load_model(Path("again.yaml"), Recipe)[0] == RECIPES[name]


@pytest.mark.parametrize("name", HARDWARE)
def test_hardware_is_read_back(name: str) -> None:
    text = shown(name)
    Path("again.yaml").write_text(text)
    assert load_hardware("again.yaml") == load_hardware(name)
    assert text.startswith(f"# {ROOT / 'hw_configs' / name}.yaml (bundled)\n")
    assert "clock_mhz:" in text
    assert "assumed:" in text
    assert text.count("source:") > len(load_hardware(name).levels)


def test_paths() -> None:
    shutil.copy(ROOT / "hw_configs" / "edge_tpu.yaml", "chip.txt")
    assert shown("./chip.txt").startswith("# chip.txt (path)\n")
    assert shown("./chip.txt") == shown("./chip.txt", "--kind", "hw")


def test_one_name_for_two_things() -> None:
    Path("networks").mkdir()
    shutil.copy(ROOT / "networks" / "vgg16.yaml", "edge_tpu.yaml")
    done = call("show", "edge_tpu")
    assert done.status == 2
    assert "both a network and hardware: edge_tpu.yaml and " in done.err
    assert "Say --kind nets or hw" in done.err
    assert "64x32x32" in shown("edge_tpu", "--kind", "nets")
    assert "clock_mhz" in shown("edge_tpu", "--kind", "hw")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["vgg16ps"], "no network or hardware named 'vgg16ps'. Did you mean 'vgg16_ps'?"),
        (["edge_tpu", "--kind", "nets"], "no network named 'edge_tpu'"),
        (["./gone.yaml"], "gone.yaml: no such file"),
        (["."], "no network or hardware named '.'"),
        (["../"], "is a folder, not a file"),
    ],
)
def test_what_is_not_there(args: list[str], words: str) -> None:
    done = call("show", *args)
    assert (done.status, done.out) == (2, "")
    assert words in done.err


def test_a_mapping_has_nothing_to_resolve() -> None:
    Path("mapping.yaml").write_text("layers:\n  fc: []\n")
    done = call("show", "mapping.yaml")
    assert done.status == 2
    assert "mapping.yaml: describes a mapping" in done.err


def test_a_pattern_shows_what_it_covers() -> None:
    text = shown("PSD1_P8")
    data = yaml.safe_load(text)
    assert (data["period"], data["mean_kss"], data["variants"], data["dense_kernels"]) == (
        8, 2, 7, 1,
    )  # fmt: skip
    assert data["live"] == [2, 2, 2, 2, 2, 2, 2, 1, 1]
    assert len(data["supports"]) == 8
    assert data["unused"] == [[7], [8]]
    assert "never_live" not in data
    assert "2 of 4 neighbouring input channels" in shown("2:4")
    assert "4 taps of each kernel, drawn" in shown("pSC4")
    done = call("show", "PSD4_P9x")
    assert done.status == 2
    assert "no network or hardware named 'PSD4_P9x'" in done.err
