"""Runs of training: they learn, repeat to the bit, go on where they stopped, say what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import environment

from energysim.activations import load_activations
from energysim.catalog import load_network
from energysim.errors import InputError
from energysim.files import UNFINISHED
from energysim.network import Scale
from energysim.train.checkpoint import Checkpoint
from energysim.train.data import Dataset, batches, digits, in_order, shapes
from energysim.train.grid import run_all, summary
from energysim.train.job import Job
from energysim.train.recipe import Recipe
from energysim.train.record import CHECKPOINT, COLUMNS, DENSITIES, LOG, ROW, TABLE, WEIGHTS_FILE
from energysim.train.run import BusyError, DivergedError, Tick, train

LEARNT, CHANCE = 0.97, 0.1
QUICK = Recipe(epochs=2, batch=128, lr=0.05)


def few(per_class: int = 20) -> Dataset:
    return digits().subset(per_class=per_class)


def job(
    pattern: str = "PS4_P4", recipe: Recipe = QUICK, *, seed: int = 0, data: Dataset | None = None
) -> Job:
    return Job(load_network("digits_cnn", pattern=pattern), data or few(), recipe, seed)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a run but those that measure time or hold nothing."""
    return {
        each.name: each.read_bytes()
        for each in sorted(folder.iterdir())
        if each.name not in (LOG, "lock")
    }


@pytest.mark.parametrize("pattern", ["dense", "PS4_P4"])
def test_digits_are_learnt(pattern: str) -> None:
    outcome = train(job(pattern, Recipe(epochs=10, lr=0.05), data=digits()))
    assert outcome.top1 > LEARNT > 5 * CHANCE
    assert outcome.row["top5"] > outcome.top1 - 1e-12
    losses = [record["train_loss"] for record in outcome.records]
    assert losses[-1] < losses[0] / 5


def test_the_same_seed_gives_the_same_bits_whatever_the_threads(tmp_path: Path) -> None:
    recipe = QUICK.model_copy(update={"shards": 3})
    for threads in (1, 2, 3):
        train(job(recipe=recipe), tmp_path / str(threads), threads=threads)
    first = contents(tmp_path / "1")
    assert contents(tmp_path / "2") == first
    assert contents(tmp_path / "3") == first
    other = train(job(recipe=recipe, seed=1))
    with np.load(tmp_path / "1" / WEIGHTS_FILE) as weights:
        assert not np.array_equal(other.weights["conv1.weight"], weights["conv1.weight"])


class Stopped(Exception):
    """Thrown in the middle of a run."""


def stop_at(epoch: int, step: int = 2):
    def tell(tick: Tick) -> None:
        if tick.epoch == epoch and tick.step == step:
            raise Stopped

    return tell


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimiser": "adam", "lr": 0.003, "schedule": "cosine", "warmup": 1},
        {"validation": 0.2, "schedule": "plateau", "patience": 1, "augment": "crop+flip"},
    ],
    ids=["sgd", "adam", "held out"],
)
def test_an_interrupted_run_ends_as_one_that_was_not(
    changes: dict[str, object], tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(QUICK.model_dump() | {"epochs": 3, "batch": 64} | changes)
    train(job(recipe=recipe), tmp_path / "whole")
    for epoch in (1, 2, 3):
        with pytest.raises(Stopped):
            train(job(recipe=recipe), tmp_path / "parts", tell=stop_at(epoch))
        assert (tmp_path / "parts" / CHECKPOINT).exists() == (epoch > 1)
    train(job(recipe=recipe), tmp_path / "parts")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    logs = [
        [json.loads(line) for line in (tmp_path / which / LOG).read_text().splitlines()]
        for which in ("parts", "whole")
    ]
    for line in (*logs[0], *logs[1]):
        assert line.pop("images_per_second") > 0
    assert logs[0] == logs[1]


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """kill -9 at any moment: at most one epoch is lost, and the end is the same."""
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path\n"
        "from test_train_run import job, few, QUICK, train\n"
        "train(job(recipe=QUICK.model_copy(update={'epochs': 40})), Path(sys.argv[1]))\n"
    )
    recipe = QUICK.model_copy(update={"epochs": 40})
    train(job(recipe=recipe), tmp_path / "whole")
    folder = tmp_path / "killed"
    kills = 0
    for delay in (0.02, 0.11, 0.23):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(folder)],
            cwd=Path(__file__).parent.parent,
            env=environment(),
        )
        before = len(log_of(folder))
        while process.poll() is None and len(log_of(folder)) == before:
            time.sleep(0.01)
        time.sleep(delay)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills
    train(job(recipe=recipe), folder)
    assert contents(folder) == contents(tmp_path / "whole")


def log_of(folder: Path) -> list[str]:
    path = folder / LOG
    return path.read_text().splitlines() if path.exists() else []


def test_what_is_written(tmp_path: Path) -> None:
    made = job()
    outcome = train(made, tmp_path / "run")
    files = set(contents(tmp_path / "run"))
    assert files == {ROW, DENSITIES, WEIGHTS_FILE}, "the checkpoint has done its work"
    row = json.loads((tmp_path / "run" / ROW).read_text())
    assert set(row) == {*COLUMNS, "job"}
    network = made.network
    assert (row["parameters"], row["macs"]) == (network.parameters, network.macs)
    assert row["effective_macs"] == network.effective_macs
    assert row["dataset_sha256"] == made.data.sha256
    with np.load(tmp_path / "run" / WEIGHTS_FILE, allow_pickle=False) as weights:
        conv = weights["conv2.weight"]
        assert conv.shape == (16, 16, 3, 3)
        mask = network.layer("conv2").mask.array().reshape(conv.shape)
        assert not conv[~mask].any()
        assert np.count_nonzero(conv) == network.layer("conv2").weights
    densities = load_activations(tmp_path / "run" / DENSITIES, network)
    assert list(densities.layers) == [layer.name for layer in network.layers]
    assert densities.layers["conv2"].input == densities.layers["conv1"].output
    assert 0.1 < densities.layers["conv2"].input < 0.9, "ReLU leaves some zeros and not all"
    assert densities.layers["fc"].output == 1
    assert "seed 0, 360 images" in (tmp_path / "run" / DENSITIES).read_text()
    assert outcome.records[-1]["test_top1"] == outcome.top1 == row["top1"]


def test_held_out_images_choose_an_epoch_and_stop_early(tmp_path: Path) -> None:
    recipe = Recipe(epochs=30, batch=64, lr=0.05, validation=0.25, stop_after=2)
    outcome = train(job("dense", recipe, data=few(60)))
    losses = [record["validation_loss"] for record in outcome.records]
    assert len(losses) < 30
    assert min(losses[-2:]) >= min(losses[:-2])
    chosen = int(np.argmin(losses))
    assert outcome.row["chosen_epoch"] == chosen + 1
    assert outcome.row["chosen_top1"] == outcome.records[chosen]["test_top1"]
    best = max(record["test_top1"] for record in outcome.records)
    assert outcome.row["best_top1"] == best
    assert outcome.row["top1"] == outcome.records[-1]["test_top1"]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+ of epoch 1"):
        train(job(recipe=Recipe(epochs=5, batch=16, lr=1e9)), tmp_path / "run")


@pytest.mark.parametrize("lr", [1e30, 1e12])
def test_a_network_that_has_diverged_is_not_done(lr: float, tmp_path: Path) -> None:
    """The loss before the only step is fine, and what the step has left is not."""
    recipe = Recipe(epochs=1, batch=2000, lr=lr, schedule="constant")
    with pytest.raises(DivergedError, match="the loss on the test images is nan after epoch 1"):
        train(job(recipe=recipe), tmp_path / "run")
    assert not (tmp_path / "run" / ROW).exists()


def test_interrupted_after_the_last_epoch_all_epochs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("energysim.train.run.densities_of", stop)
    with pytest.raises(KeyboardInterrupt, match="2 of 2 epochs are kept in"):
        train(job(), tmp_path / "run")
    assert (tmp_path / "run" / CHECKPOINT).exists()


def test_two_processes_don_t_work_on_one_run(tmp_path: Path) -> None:
    def second(_: Tick) -> None:
        with pytest.raises(BusyError, match="another process works on this run"):
            train(job(), tmp_path / "run")

    train(job(), tmp_path / "run", tell=second)


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[: len(raw) // 2], lambda _: b"", lambda raw: b"\0" * len(raw)],
    ids=["cut", "empty", "zeros"],
)
def test_a_damaged_checkpoint_is_refused(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Stopped):
        train(job(), folder, tell=stop_at(2))
    path = folder / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"checkpoint\.npz: .*Remove it to begin the run anew"):
        train(job(), folder)


def test_a_checkpoint_of_pickles_is_refused(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    np.savez(path, meta=np.array([{"evil": print}], dtype=object))
    with pytest.raises(InputError, match="is no checkpoint"):
        Checkpoint.load(path, "")


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(job(), tmp_path, tell=stop_at(2))
    with pytest.raises(InputError, match="is of another run"):
        train(job(seed=5), tmp_path)


def test_a_grid_runs_each_job_once(tmp_path: Path) -> None:
    jobs = [job(pattern, seed=seed) for pattern in ("dense", "PS4_P4") for seed in (0, 1)]
    first = list(run_all(jobs[:3], tmp_path))
    assert [attempt.skipped for attempt in first] == [False] * 3
    second = list(run_all(jobs, tmp_path))
    assert [attempt.skipped for attempt in second] == [True, True, True, False]
    table = (tmp_path / "accuracy.csv").read_text().splitlines()
    assert table[0].split(",") == list(COLUMNS)
    assert len(table) == 1 + len(jobs)
    rows = [attempt.row for attempt in second if attempt.row is not None]
    means = summary(rows)
    assert [(row["pattern"], row["seeds"]) for row in means] == [("dense", 2), ("PS4_P4", 2)]
    assert means[0]["top1"] == pytest.approx((rows[0]["top1"] + rows[1]["top1"]) / 2)
    spread = np.std([rows[0]["top1"], rows[1]["top1"]], ddof=1)
    assert means[0]["top1_std"] == pytest.approx(spread)
    assert summary(rows[:1])[0]["top1_std"] is None


def test_what_a_kill_at_the_very_end_leaves_is_put_right(tmp_path: Path) -> None:
    """A record without its row in the table, a checkpoint of a finished run, halves of files."""
    jobs = [job(), job(seed=1)]
    list(run_all(jobs, tmp_path))
    folders = [tmp_path / each.name for each in jobs]
    table = (tmp_path / TABLE).read_bytes()
    before = [contents(folder) for folder in folders]
    half = UNFINISHED.replace("*", "0")
    (tmp_path / TABLE).write_bytes(b"".join(table.splitlines(keepends=True)[:-1]))
    (folders[0] / CHECKPOINT).write_bytes(b"")
    (tmp_path / half).touch()
    (folders[1] / ROW).unlink()  # not done, so that it runs again
    (folders[1] / half).touch()
    list(run_all(jobs, tmp_path))
    assert (tmp_path / TABLE).read_bytes() == table
    assert [contents(folder) for folder in folders] == before
    assert not (tmp_path / half).exists()
    (tmp_path / TABLE).write_bytes(b"".join(table.splitlines(keepends=True)[:-1]))
    assert all(each.skipped for each in run_all(jobs, tmp_path))
    assert (tmp_path / TABLE).read_bytes() == table


def test_networks_of_one_name_are_not_averaged() -> None:
    rows = [train(job()).row, train(job()).row | {"network_sha256": "another"}]
    assert [row["seeds"] for row in summary(rows)] == [1, 1]
    newer = rows[0] | {"seed": 1, "backend": "numpy 99", "epochs": 7}
    (both,) = summary([rows[0], newer])
    assert (both["seeds"], both["epochs_least"], both["epochs"]) == (2, 2, 7)


def test_a_damaged_checkpoint_stops_its_own_run_only(tmp_path: Path) -> None:
    jobs = [job(), job(seed=1)]
    with pytest.raises(Stopped):
        train(jobs[0], tmp_path / jobs[0].name, tell=stop_at(2))
    (tmp_path / jobs[0].name / CHECKPOINT).write_bytes(b"")
    first, second = run_all(jobs, tmp_path)
    assert isinstance(first.problem, InputError)
    assert second.row is not None


def test_a_grid_goes_on_after_a_run_that_diverges(tmp_path: Path) -> None:
    jobs = [job(recipe=QUICK.model_copy(update={"lr": 1e9})), job()]
    attempts = list(run_all(jobs, tmp_path))
    assert isinstance(attempts[0].problem, DivergedError)
    assert attempts[1].row is not None


def test_grey_images_fill_all_channels_that_a_network_reads() -> None:
    network = load_network("vgg16", scale=Scale(1 / 16))
    made = Job(network, few(2), QUICK, 0)
    assert made.read == (3, 32)
    data = made.data
    for (batch,) in batches(data, np.random.default_rng(0), 7, read=made.read):
        assert batch.x.shape[:3] == (3, 32, 32)
        assert np.array_equal(batch.x[0], batch.x[2])
    whole = next(in_order(data.resized(32), data.resized(32).test, 5)).x
    assert np.allclose(next(in_order(data, data.test, 5, read=(3, 32))).x[1], whole[0], atol=1e-6)
    assert made.described["dataset_sha256"] == few(2).sha256


@pytest.mark.parametrize(
    ("network", "data", "message"),
    [
        ("digits_cnn", shapes, "have 3 channels, and digits_cnn reads 1"),
        ("vgg16_imagenet", digits, r"digits has 10 classes, and vgg16_imagenet gives 1000 scores"),
    ],
)
def test_images_that_a_network_can_t_read(
    network: str, data: Callable[[], Dataset], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Job(load_network(network), data(), QUICK, 0)


def test_only_what_decides_the_result_is_in_the_identity() -> None:
    first = job()
    assert first.identity == job().identity
    others = [
        job(seed=1),
        job("PS2_P6"),
        job(recipe=QUICK.model_copy(update={"lr": 0.04})),
        job(data=few(19)),
        replace(first, backend="torch"),
    ]
    assert len({first.identity, *(other.identity for other in others)}) == len(others) + 1
    assert first.name.startswith("digits_cnn+PS4_P4_digits_s0_")
