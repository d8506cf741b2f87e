"""Names to files: where they are looked for, and what is said when there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from energysim import catalog
from energysim.catalog import Found, Kind, find, load_hardware, load_network, names
from energysim.errors import InputError, InputErrors

ROOT = Path(__file__).parent.parent
CHIP = (ROOT / "hw_configs" / "edge_tpu.yaml").read_text()
BUNDLED = sorted(path.stem for path in (ROOT / "hw_configs").glob("*.yaml"))
NET = "name: tiny\nsource: a test\ninput: [3, 8, 8]\nlayers:\n  - {name: a, kind: linear, out: 4}\n"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with no further ones."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv(catalog.PATH_VARIABLE, raising=False)
    return folder


def refusal(kind: Kind, name: str) -> str:
    with pytest.raises(InputError) as caught:
        find(kind, name)
    return str(caught.value)


@pytest.mark.parametrize("name", ["edge_tpu", "edge_tpu.yaml", "edge_tpu.yml"])
def test_bundled_with_and_without_suffix(name: str) -> None:
    assert find("hw", name) == Found(ROOT / "hw_configs" / "edge_tpu.yaml", "bundled")


def test_bundled_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "site" / "energysim" / "_bundled" / "hw_configs"
    inside.mkdir(parents=True)
    shutil.copy(ROOT / "hw_configs" / "edge_tpu.yaml", inside / "other.yaml")
    monkeypatch.setattr(catalog, "__file__", str(inside.parent.parent / "catalog.py"))
    assert find("hw", "other") == Found(inside / "other.yaml", "bundled")
    assert names("hw") == ["other"]


def test_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second / "hw_configs"):
        folder.mkdir(parents=True)
    gone = str(tmp_path / "gone")
    entries = os.pathsep.join([str(first), "", gone, str(second)])
    monkeypatch.setenv(catalog.PATH_VARIABLE, entries)

    assert find("hw", "edge_tpu").origin == "bundled"
    in_second = second / "hw_configs" / "edge_tpu.yaml"
    in_second.write_text(CHIP)
    assert find("hw", "edge_tpu") == Found(in_second, str(in_second.parent))
    (first / "edge_tpu.yml").write_text(CHIP)
    assert find("hw", "edge_tpu") == Found(first / "edge_tpu.yml", str(first))
    Path("edge_tpu.yaml").write_text(CHIP)
    assert find("hw", "edge_tpu") == Found(Path("edge_tpu.yaml"), "current folder")
    assert find("hw", "edge_tpu.yaml") == Found(Path("edge_tpu.yaml"), "path")
    assert find("hw", str(first / "edge_tpu.yml")) == Found(first / "edge_tpu.yml", "path")


def test_names_come_from_all_places_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = names("hw")
    assert bundled == BUNDLED
    assert {"vgg16", "vgg16_ps", "resnet18"} <= set(names("nets"))
    more = tmp_path / "more"
    more.mkdir()
    monkeypatch.setenv(catalog.PATH_VARIABLE, str(more))
    (more / "aaa.yaml").write_text(CHIP)
    (more / "tiny.yaml").write_text(NET)
    Path("zzz.yml").write_text(CHIP)
    Path("mkdocs.yml").write_text("site_name: x\n")
    Path("folder.yaml").mkdir()
    assert names("hw") == ["aaa", *bundled, "zzz"]
    assert "tiny" in names("nets")
    assert not {"aaa", "mkdocs", "folder"} & set(names("nets"))


def test_unknown_name_lists_the_nearest_and_all() -> None:
    assert refusal("hw", "edgetpu") == (
        "no hardware named 'edgetpu'. Did you mean 'edge_tpu'?\n"
        f"  known: {', '.join(BUNDLED)}   - or give a path to a .yaml file"
    )
    assert refusal("nets", "vgg16ps").startswith(
        "no network named 'vgg16ps'. Did you mean 'vgg16_ps'?\n  known: alexnet, "
    )
    assert "Did you mean 'vgg16_ps'?" in refusal("nets", "vgg16_pss.yaml")


@pytest.mark.parametrize("name", ["", ".yaml", "x" * 5000, "x" * 5000 + ".yaml", "a\0b", "a b"])
def test_impossible_names(name: str) -> None:
    message = refusal("nets", name)
    assert message.startswith("no network named")
    assert "known:" in message


def test_folder_of_the_name_is_skipped_but_refused_as_a_path() -> None:
    Path("edge_tpu.yaml").mkdir()
    assert find("hw", "edge_tpu").origin == "bundled"
    for name in ("edge_tpu.yaml", "./edge_tpu.yaml"):
        with pytest.raises(InputError, match=r"edge_tpu\.yaml: is a folder, not a file"):
            load_hardware(name)


def test_file_of_the_other_kind_is_skipped_but_refused_as_a_path() -> None:
    Path("edge_tpu.yaml").write_text(NET)
    assert find("hw", "edge_tpu").origin == "bundled"
    assert refusal("hw", "edge_tpu.yaml") == (
        "edge_tpu.yaml: describes a network, and hardware is asked for here"
    )
    Path("vgg16.yaml").write_text(CHIP)
    assert refusal("nets", "./vgg16.yaml") == (
        "vgg16.yaml: describes hardware, and a network is asked for here"
    )


def test_unfinished_file_is_found_and_its_mistakes_told() -> None:
    Path("mine.yaml").write_text("name: mine\n")
    with pytest.raises(InputErrors, match=r"mine.yaml:1:1: missing field 'levels'"):
        load_hardware("mine")


def test_unreadable_file_is_found_and_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.yaml").write_text(CHIP)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # tests may run as root, who may read everything
    with pytest.raises(InputError, match=r"^mine\.yaml: no permission to read it"):
        load_hardware("mine")


def test_path_to_no_file() -> None:
    with pytest.raises(InputError, match=r"^gone/chip.yaml: no such file"):
        load_hardware("gone/chip.yaml")


@pytest.mark.parametrize("name", BUNDLED)
def test_load_hardware(name: str) -> None:
    assert load_hardware(name).name == name


@pytest.mark.parametrize("path", sorted((ROOT / "networks").glob("*.yaml")), ids=lambda p: p.stem)
def test_load_network(path: Path) -> None:
    network = load_network(path.stem)
    assert network.name == path.stem
    assert network.layers


def test_load_network_with_a_pattern() -> None:
    network = load_network("vgg16", pattern="PS4_P4")
    assert network.pattern == "PS4_P4"
    assert network.base == "vgg16"
    assert network.effective_macs < load_network("vgg16").effective_macs


VARIANT = "name: {}\nsource: a test\nbase: {}\npattern: PS4_P4\n"


def test_base_beside_the_variant_is_found_from_anywhere(tmp_path: Path) -> None:
    vgg16 = (ROOT / "networks" / "vgg16.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(vgg16.replace("name: vgg16", "name: mine", 1))
    (tmp_path / "mine_ps.yaml").write_text(VARIANT.format("mine_ps", "mine"))
    assert load_network(str(tmp_path / "mine_ps.yaml")).base == "mine"


def test_base_that_leads_back_is_refused() -> None:
    Path("a.yaml").write_text(VARIANT.format("a", "b"))
    Path("b.yaml").write_text(VARIANT.format("b", "a"))
    with pytest.raises(InputErrors, match="this file is its own base, by way of others"):
        load_network("a")


def test_unknown_base_is_told_at_its_place() -> None:
    Path("a.yaml").write_text(VARIANT.format("a", "resnet81"))
    with pytest.raises(InputErrors) as caught:
        load_network("a")
    assert "a.yaml:3:7" in caught.value.problems[0]
    assert "Did you mean 'resnet18'?" in caught.value.problems[0]


def test_names_need_no_heavy_imports() -> None:
    code = (
        "import sys; from energysim import catalog; catalog.names('nets'); catalog.names('hw'); "
        "catalog.load_hardware('edge_tpu'); "
        "heavy = {'numpy', 'pandas', 'rich', 'matplotlib'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or None)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_path_is_always_one(tmp_path: Path) -> None:
    """Even where it has the name of a bundled network."""
    own = tmp_path / "own.yaml"
    own.write_text(NET)
    assert load_network(own) == load_network(str(own))
    with pytest.raises((InputError, InputErrors), match="no such file"):
        load_network(Path("digits_cnn"))
