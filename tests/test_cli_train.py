"""``energysim train`` as users call it."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import time
from pathlib import Path

import pytest
from command_line import call, call_process, start

SMALL = ("train", "--net", "digits_cnn", "--per-class", "12", "--epochs", "1")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENERGYSIM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_first_run(tmp_path: Path) -> None:
    done = call(*SMALL)
    assert done.status == 0, done.err
    assert "data: digits, bundled: 8x8 grey" in done.err
    assert "digits_cnn seed 0 epoch 1/1: loss " in done.err
    assert "1 of 1 runs in runs, table in runs/accuracy.csv" in done.err
    assert "top-1 [%]" in done.out
    assert (tmp_path / "runs" / "accuracy.csv").exists()


def test_numbers_go_to_stdout_and_repeat(tmp_path: Path) -> None:
    words = (*SMALL, "--patterns", "dense,PS4_P4", "--seeds", "0-1", "--format", "csv", "-q")
    first = call(*words)
    assert (first.status, first.err) == (0, "")
    assert [(row["pattern"], row["seed"]) for row in rows(first.out)] == [
        ("dense", "0"), ("dense", "1"), ("PS4_P4", "0"), ("PS4_P4", "1"),
    ]  # fmt: skip
    assert call(*words).out == first.out, "what is done is not run again"
    again = call(*words, "--out", "others", "--threads", "1")
    assert again.out == first.out
    assert (tmp_path / "others" / "accuracy.csv").read_bytes() == (
        tmp_path / "runs" / "accuracy.csv"
    ).read_bytes()
    table = call(*(word for word in words if word not in ("--format", "csv")))
    assert "±" in table.out
    assert "mean ± standard deviation over seeds" in table.out


def test_json_and_files(tmp_path: Path) -> None:
    done = call(*SMALL, "-o", "out.json", "-q")
    assert done.status == 0
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row["network"] == "digits_cnn"
    assert 0 <= row["top1"] <= 1
    assert call(*SMALL, "-o", "out.parquet").status == 2


def test_drawn_images_are_called_so() -> None:
    done = call("train", "--net", "vgg16", "--width", "0.0625", "--data", "shapes", "--per-class",
                "4", "--epochs", "1")  # fmt: skip
    assert done.status == 0, done.err
    assert "SYNTHETIC" in done.err
    assert "SYNTHETIC" in done.out
    assert "vgg16-x0.0625" in done.out


def test_verbose_says_how_each_layer_is_computed() -> None:
    done = call(*SMALL, "--pattern", "PS2_P6", "-v")
    assert "  conv2: " in done.err
    assert "us an image (estimates; " in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--net", "digit_cnn"), "Did you mean 'digits_cnn'?"),
        (("--net", "digits_cnn", "--pattern", "PS4P4"), "Did you mean 'PS4_P4'?"),
        (("--net", "digits_cnn", "--data", "digit"), "Did you mean 'digits'?"),
        (("--net", "digits_cnn", "--recipe", "papr"), "Did you mean 'paper'?"),
        (("--net", "digits_cnn", "--seeds", "4-1"), "is no range"),
        (("--net", "digits_cnn", "--seeds", "one"), "is no seed. Allowed: 0 or 0,3 or 0-4"),
        (("--net", "digits_cnn", "--stop-after", "2"), "needs images held out"),
        (("--net", "digits_cnn", "--device", "cuda"), "--device belongs to --backend torch"),
        (("--net", "unet"), "can't be trained to tell classes"),
        (("--net", "digits_cnn", "--data", "shapes"), "Choose a network for colour images"),
        (("--net", "digits_cnn", "--input", "1"), "2x2 kernel is larger"),
        (("--net", ","), "--net names no network"),
        (("--net", "digits_cnn", "--pattern", ","), "names no pattern"),
        (("--net", "digits_cnn", "--lr", "inf"), "lr: "),
        (("--net", "digits_cnn,other.yaml"), "two different networks are named 'digits_cnn'"),
    ],
)
def test_mistakes(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(
        "{name: digits_cnn, source: a test, input: [1, 8, 8], layers: [{name: fc, kind: linear,"
        " out: 10}]}\n"
    )
    done = call("train", *words)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "runs").exists(), "nothing is left behind"


def test_images_of_different_sizes(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for side in (20, 33):
                image.new("RGB", (side, side + 5), "red").save(folder / f"{side}.png")
    words = ("train", "--net", "vgg16", "--width", "0.0625", "--data", "pets", "--epochs", "1")
    done = call(*words)
    assert done.status == 0, done.err
    assert "3 x 32 x 32, 2 classes" in done.err
    several = call(*words, "--nets", "vgg16,resnet18_tinyimagenet")
    assert several.status == 2
    assert "--input 64" in several.err


def test_late_milestones_are_told() -> None:
    done = call(*SMALL, "--recipe", "paper")
    assert "1 epochs never reach the milestones [40, 80, 100, 115, 130, 140]" in done.err


def test_early_stops_and_what_held_out_images_choose() -> None:
    words = ("--per-class", "40", "--epochs", "25", "--validation", "0.3", "--stop-after", "1")
    done = call(*SMALL[:3], *words, "--seeds", "0-1")
    assert done.status == 0, done.err
    assert "chosen [%]" in done.out
    assert "chosen: after the epoch with the smallest loss on images held out" in done.out


def test_a_run_that_diverges() -> None:
    done = call(*SMALL, "--lr", "1e9", "--batch", "16")
    assert done.status == 3
    assert "the loss is" in done.err
    assert done.out == ""


def test_a_folder_that_can_t_be_made(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    done = call(*SMALL)
    assert done.status == 2
    assert "runs: can't be made" in done.err


def test_interrupted_it_says_what_is_kept_and_goes_on(tmp_path: Path) -> None:
    words = ("train", "--net", "digits_cnn", "--epochs", "30", "--per-class", "80")
    process = start(*words)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "of 30 epochs are kept in runs/digits_cnn_digits_s0_" in err
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    again = call_process(*words)
    assert again.status == 0
    assert "epoch 30/30" in again.err
    assert "epoch 1/30" not in again.err
