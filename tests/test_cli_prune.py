"""The command that prunes before training, and masks of files in others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import Done, call

import energysim as es
from energysim.cli.prune import METHODS as NAMED
from energysim.prune import METHODS, prune


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pruned(*more: str) -> Done:
    return call("prune", "--net", "digits_cnn", *more)


def test_all_methods_are_named() -> None:
    assert set(NAMED) == set(METHODS)


def test_table_json_and_csv_say_the_same() -> None:
    done = pruned("--density", "0.2")
    assert done.status == 0
    assert "digits_cnn · synflow · seed 0 · 100 steps, exponential" in done.out
    assert "5x fewer weights" in done.out
    assert "largest 1x the smallest" in done.out
    plain = json.loads(pruned("--density", "0.2", "--format", "json").out)
    table = pruned("--density", "0.2", "--format", "csv").out.splitlines()
    found = prune(es.load_network("digits_cnn"), "synflow", 0.2)
    assert plain["layers"] == found.rows()
    assert plain["pruning"]["live"] == found.live
    assert len(table) == 1 + len(found.layers)


def test_methods_without_scores_give_valid_json() -> None:
    layers = json.loads(
        pruned("--method", "uniform", "--format", "json").out, parse_constant=pytest.fail
    )["layers"]
    assert [layer["score_sum"] for layer in layers] == [None] * 5


def test_a_file_that_can_not_be_written_is_told_before_the_work() -> None:
    done = pruned("-o", "nowhere/mask.npz")
    assert done.status == 2
    assert "the folder nowhere does not exist" in done.err
    assert done.out == ""


def test_masks_are_written_run_and_trained() -> None:
    done = pruned("--density", "0.1", "--seed", "3", "-o", "mask.npz")
    assert done.status == 0
    assert "wrote mask.npz (masks of 5 layers)" in done.err
    found = prune(es.load_network("digits_cnn"), "synflow", 0.1, seed=3)
    with np.load("mask.npz") as masks:
        assert {name: masks[name].sum() for name in masks} == {
            name: mask.sum() for name, mask in found.masks.items()
        }
    run = call("run", "--net", "digits_cnn", "--hw", "edge_tpu", "--mask", "mask.npz", "--format",
               "json")  # fmt: skip
    total = sum(layer["effective_macs"] for layer in json.loads(run.out)["layers"])
    assert total == sum(each.effective_macs for each in found.layers)
    yang = call("run", "--net", "digits_cnn", "--model", "yang2019", "--mask", "mask.npz")
    assert yang.status == 0
    done = call("train", "--net", "digits_cnn", "--mask", "mask.npz", "--epochs", "1",
                "--per-class", "10", "-q")  # fmt: skip
    assert done.status == 0
    row = pd.read_csv("runs/accuracy.csv").loc[0]
    assert row["effective_macs"] == total


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_images_are_looked_at(method: str) -> None:
    one, two = (pruned("--method", method, "--density", "0.3", "--format", "json", *more)
                for more in ((), ("--data", "digits")))  # fmt: skip
    assert one.status == 0
    assert one.out == two.out


def test_critical_compression() -> None:
    done = pruned("--method", "magnitude", "--critical", "--format", "json")
    rows = json.loads(done.out)["compressions"]
    assert [bool(row["collapsed"]) for row in rows] == [False] * (len(rows) - 1) + [True]
    said = pruned("--method", "magnitude", "--critical").out
    assert f"critical compression, by steps of 10^(1/4): {rows[-2]['compression']:.4g}x" in said


def test_an_emptied_layer_is_an_error_and_writes_nothing() -> None:
    done = pruned("--method", "magnitude", "--density", "0.01", "-o", "mask.npz")
    assert done.status == 3
    assert "nothing is left of" in done.err
    assert not Path("mask.npz").exists()
    kept = pruned("--method", "magnitude", "--density", "0.01", "--keep-one", "-o", "mask.npz")
    assert kept.status == 0
    assert Path("mask.npz").exists()


def test_dead_channels_are_told_and_counted() -> None:
    few = ("--density", "0.05", "--steps", "5")
    done = pruned(*few)
    assert "dead channels" in done.out.splitlines()[2]
    assert "6.44 % of the MACs without 33 dead channels" in done.out
    plain = json.loads(pruned(*few, "--format", "json").out)
    found = prune(es.load_network("digits_cnn"), "synflow", 0.05, steps=5)
    assert [layer["dead_channels"] for layer in plain["layers"]] == [1, 2, 23, 7, 0]
    assert plain["pruning"]["clean_mac_density"] == found.clean_mac_density
    assert sum(layer["clean_macs"] for layer in plain["layers"]) == found.liveness.macs
    assert "no dead channels" in pruned("--density", "0.9", "--method", "magnitude").out


def test_no_way_through_is_told() -> None:
    done = pruned("--method", "magnitude", "--density", "0.01", "--keep-one", "-o", "mask.npz")
    assert done.status == 0
    assert "note: no way leads through the weights that stay" in done.err
    assert "no way leads through what stays" in done.out
    done = call("shrink", "--net", "digits_cnn", "--mask", "mask.npz", "-o", "small.yaml")
    assert done.status == 3
    assert "no way leads from the image" in done.err
    assert not Path("small.yaml").exists()


def test_masks_like_others_have_other_dead_channels() -> None:
    """S8: as many weights of each layer, at places of chance."""
    few = ("--density", "0.05", "--steps", "5")
    one = json.loads(pruned(*few, "--format", "json", "-o", "mask.npz").out)
    two = json.loads(pruned("--like", "mask.npz", "--format", "json").out)
    for before, after in zip(one["layers"], two["layers"], strict=True):
        assert before["live"] == after["live"]
    assert one["layers"][2]["dead_channels"] > two["layers"][2]["dead_channels"]


def test_a_trained_network_is_pruned_shrunken_and_trained_on() -> None:
    """By magnitude after training; then the smaller network goes on where the masked one would."""
    train = ("train", "--epochs", "1", "--per-class", "10", "-q")
    assert call(*train, "--net", "digits_cnn", "--out", "dense").status == 0
    (weights,) = Path("dense").glob("*/weights.npz")
    done = pruned("--method", "magnitude", "--density", "0.3", "--keep-one", "--weights",
                  str(weights), "-o", "mask.npz")  # fmt: skip
    assert done.status == 0, done.err
    assert "magnitude · weights of weights.npz" in done.out
    with np.load(weights) as arrays, np.load("mask.npz") as masks:
        kept = np.concatenate([np.abs(arrays[f"{each}.weight"]).ravel()[masks[each].ravel()]
                               for each in masks])  # fmt: skip
        gone = np.concatenate([np.abs(arrays[f"{each}.weight"]).ravel()[~masks[each].ravel()]
                               for each in masks])  # fmt: skip
    assert np.sort(kept)[5] >= gone.max()  # but for the last ones of layers
    done = call("shrink", "--net", "digits_cnn", "--mask", "mask.npz", "--weights", str(weights),
                "-o", "small.yaml")  # fmt: skip
    assert done.status == 0, done.err
    assert "wrote small.yaml, small.npz, small.weights.npz" in done.err
    done = call(*train, "--net", "small.yaml", "--begin", "small.weights.npz", "--out", "small")
    assert done.status == 0, done.err


def test_shrunken_networks_are_written_and_run() -> None:
    pruned("--density", "0.05", "-o", "mask.npz", "-q")
    shrink = ("shrink", "--net", "digits_cnn", "--mask", "mask.npz")
    done = call(*shrink, "-o", "small.yaml")
    assert done.status == 0
    assert "13.8 % of the weights and 20.2 % of the MACs" in done.out
    rows = json.loads(call(*shrink, "--format", "json").out)["layers"]
    table = call(*shrink, "--format", "csv").out.splitlines()
    assert len(table) == 1 + len(rows) == 6
    small = es.load_network("small.yaml")
    assert [row["channels"] for row in rows] == [14, 6, 6, 17, 10]
    assert [row["live"] for row in rows] == [
        layer.weights for layer in small.layers if layer.stores_weights
    ]
    run = call("run", "--net", "small.yaml", "--hw", "edge_tpu", "--format", "json")
    total = sum(layer["macs"] for layer in json.loads(run.out)["layers"])
    assert total == small.macs == sum(row["macs"] for row in rows)
    assert "no dead channels" in call("shrink", "--net", "small.yaml").out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-o", "small.txt"), "is no .yaml file"),
        (("-o", "nowhere/small.yaml"), "the folder nowhere does not exist"),
        (("--mask", "none.npz"), "no such file"),
        (("--weights", "none.npz"), "none.npz: can't be read"),
    ],
)
def test_shrinking_refused(args: tuple[str, ...], message: str) -> None:
    done = call("shrink", "--net", "digits_cnn", *args)
    assert done.status == 2
    assert message in done.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--method", "synflo"), "--method"),
        (("--density", "0"), "--density"),
        (("--density", "2"), "--density"),
        (("-o", "mask.txt"), "is no .npz file"),
        (("--data", "digits"), "looks at no images"),
        (("--critical", "-o", "m.npz"), "chooses no masks"),
        (("--critical", "--density", "0.5"), "densities of its own"),
        (("--like", "mask.npz", "--weights", "w.npz"), "leave out --weights"),
        (("--weights", "w.npz"), "synflow does not take weights of a file"),
        (("--method", "magnitude", "--weights", "w.npz"), "w.npz: can't be read"),
        (("--method", "uniform", "--steps", "4"), "one step is all there is"),
        (("--method", "snip", "--classes", "7"), "digits has 10 classes and"),
    ],
)
def test_refused(args: tuple[str, ...], message: str) -> None:
    done = pruned(*args)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_masks_that_do_not_fit_are_refused() -> None:
    pruned("--density", "0.5", "-o", "mask.npz", "-q")
    done = call("run", "--net", "vgg16", "--hw", "edge_tpu", "--mask", "mask.npz")
    assert done.status == 2
    assert "mask.npz: vgg16: there is no layer named 'conv1'" in done.err
    done = call("train", "--nets", "digits_cnn,vgg16", "--mask", "mask.npz")
    assert done.status == 2
    assert "--mask is for one network" in done.err
    assert call("run", "--net", "vgg16", "--hw", "edge_tpu", "--mask", "none.npz").status == 2
