"""Accuracy of runs under attack: read, measured once, gone on with, told with its strength."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from test_train_run import Stopped, contents, few

from energysim.catalog import load_network
from energysim.errors import InputError
from energysim.train import attacked
from energysim.train.attacked import UNFINISHED_ATTACK, Strike, accuracy_under_attack
from energysim.train.attacks import Attack, Target, changed
from energysim.train.data import in_order
from energysim.train.engine import Engine
from energysim.train.grid import run_all
from energysim.train.job import Job
from energysim.train.parameters import Layout
from energysim.train.recipe import Recipe
from energysim.train.record import LOG, ROBUST_TABLE, ROW, WEIGHTS_FILE
from energysim.train.run import parted, train, write_record
from energysim.train.weights import Weights

QUICK = Recipe(epochs=1, batch=128, lr=0.05, validation=0.2)
WEAK, STRONG = Attack.fgsm(0.1), Attack(0.1, steps=3, restarts=2)
SMALL = ("train", "--net", "digits_cnn", "--per-class", "12", "--epochs", "1")


def job(seed: int = 0) -> Job:
    return Job(load_network("digits_cnn", pattern="PS4_P4"), few(5), QUICK, seed)


def trained(folder: Path, made: Job | None = None) -> None:
    train(made or job(), folder)


@pytest.mark.parametrize(
    ("text", "attack"),
    [
        ("fgsm:0.031", Attack.fgsm(0.031)),
        ("pgd:0.1", Attack(0.1)),
        ("PGD:8/255, steps=50,restarts=5", Attack(8 / 255, steps=50, restarts=5)),
        ("pgd:0.1,length=1/100", Attack(0.1, length=0.01)),
    ],
)
def test_attacks_are_read(text: str, attack: Attack) -> None:
    assert Attack.named(text) == attack


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pdg:0.1", "no attack. Did you mean 'pgd'"),
        ("pgd", "'' is no number"),
        ("pgd:a/b", "'a/b' is no number"),
        ("pgd:1/0", "'1/0' is no number"),
        ("pgd:0.1,step=3", "no setting of pgd. Did you mean 'steps'"),
        ("pgd:0.1,steps=2.5", "'2.5' is no number that can stand there"),
        ("fgsm:0.1,steps=2", "FGSM has a radius only"),
        ("pgd:8", "0 to 1, got 8"),
    ],
)
def test_what_is_no_attack(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Attack.named(text)


def test_what_is_measured(tmp_path: Path) -> None:
    """The first images of the test, on the normalisation that was learnt with."""
    recipe = Recipe(epochs=2, batch=32, validation=0.2)
    made = Job(load_network("digits_cnn"), few(60), recipe, 0)
    trained(tmp_path, made)
    row = accuracy_under_attack(made, tmp_path, (STRONG, WEAK), images=100)
    assert json.loads((tmp_path / ROW).read_text()) == row
    assert not (tmp_path / UNFINISHED_ATTACK).exists()
    weak, strong = row["robust"]
    assert (weak["attack"], strong["attack"]) == (WEAK.name, STRONG.name)
    data, _ = parted(made, made.generators()["held_out"])
    assert data.mean != made.data.mean
    vector, running = Weights.load(tmp_path / WEIGHTS_FILE).fitted(made.network)
    engine = Engine(made.network, recipe, np.random.default_rng(0))
    engine.weights, engine.running = vector, running
    batch = next(in_order(data, data.test, 100))
    assert weak["clean_top1"] == strong["clean_top1"] == engine.evaluate([batch]).first / 100
    target = Target.of(made.network, Layout.of(made.network).views(vector), running, data)
    moved = batch._replace(x=changed(target, batch, WEAK, np.random.default_rng(0)))
    assert weak["robust_top1"] == engine.evaluate([moved]).first / 100
    assert strong["robust_top1"] <= weak["robust_top1"] < weak["clean_top1"]
    assert strong["length"] == pytest.approx(2.5 * 0.1 / 3)


def test_interrupted_or_not_and_whatever_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacked, "AT_ONCE", 60)
    attacks = (WEAK, STRONG)
    trained(tmp_path / "whole")
    accuracy_under_attack(job(), tmp_path / "whole", attacks, threads=3)

    def stop(news: Strike) -> None:
        if news.attack == STRONG and news.done == 180 and news.record is None:
            raise Stopped

    trained(tmp_path / "parts")
    with pytest.raises(Stopped):
        accuracy_under_attack(job(), tmp_path / "parts", attacks, threads=1, tell=stop)
    assert (tmp_path / "parts" / UNFINISHED_ATTACK).exists()
    row = json.loads((tmp_path / "parts" / ROW).read_text())
    assert [each["attack"] for each in row["robust"]] == [WEAK.name]
    told: list[int] = []
    accuracy_under_attack(
        job(), tmp_path / "parts", attacks, threads=2, tell=lambda news: told.append(news.done)
    )
    assert told == [240, 300, 360, 360], "goes on behind the third batch"
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_what_is_left_of_another_attack_is_not_gone_on_with(tmp_path: Path) -> None:
    trained(tmp_path)
    for text in ("", "[]", '{"attack": {"radius": 0.1}, "batches": 2}'):
        (tmp_path / UNFINISHED_ATTACK).write_text(text)
        row = accuracy_under_attack(job(), tmp_path, (WEAK,), images=100)
        assert row["robust"][0]["images"] == 100
        write_record(tmp_path, {name: each for name, each in row.items() if name != "robust"})
    with pytest.raises(InputError, match="is no finished run of this job"):
        accuracy_under_attack(job(1), tmp_path, (WEAK,))


def test_runs_that_are_done_are_only_attacked(tmp_path: Path) -> None:
    jobs = [job(), job(1)]
    list(run_all(jobs[:1], tmp_path))
    assert not (tmp_path / ROBUST_TABLE).exists()
    weights = (tmp_path / jobs[0].name / WEIGHTS_FILE).stat().st_mtime_ns
    for attempt in run_all(jobs, tmp_path, attacks=(WEAK,), attacked=90):
        assert attempt.row is not None
    assert (tmp_path / jobs[0].name / WEIGHTS_FILE).stat().st_mtime_ns == weights
    with (tmp_path / ROBUST_TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["attack"], row["images"]) for row in rows] == [
        ("0", "FGSM, radius 0.1", "90"), ("1", "FGSM, radius 0.1", "90"),
    ]  # fmt: skip
    log = (tmp_path / jobs[0].name / LOG).read_bytes()
    news: list[Strike] = []
    list(run_all(jobs, tmp_path, attacks=(WEAK,), attacked=90, struck=news.append))
    assert not news, "nothing is measured twice"
    assert (tmp_path / jobs[0].name / LOG).read_bytes() == log
    (tmp_path / jobs[1].name / WEIGHTS_FILE).write_bytes(b"")
    first, second = run_all(jobs, tmp_path, attacks=(STRONG,), attacked=90)
    assert first.problem is None
    assert isinstance(second.problem, InputError)


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENERGYSIM_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("_in_folder")
def test_the_command_tells_the_strength(tmp_path: Path) -> None:
    words = (*SMALL, "--rewire", "channel,decline=cosine", "--density", "0.3", "--adversarial",
             "0.1,steps=2", "--attack", "fgsm:0.1", "--attack-images", "50")  # fmt: skip
    done = call(*words)
    assert done.status == 0, done.err
    assert "digits_cnn seed 0 FGSM, radius 0.1: " in done.err
    assert "table in runs/accuracy.csv and runs/robust.csv" in done.err
    assert "accuracy under attack" in done.out
    assert "digits_cnn+masks  channels  FGSM, radius 0.1" in done.out
    again = call(*words)
    assert again.out == done.out
    (row,) = json.loads(call(*words, "--format", "json", "-q").out)
    assert [each["layer"] for each in row["layers"]][-1] == "fc"
    assert row["robust"][0]["images"] == 50
    assert row["pattern"] == "channels"
    more = call(*words, "--attack", "pgd:0.1,steps=2", "--seeds", "0-1", "-q")
    assert more.out.count("PGD-2, radius 0.1") == 1
    assert "±" in more.out.split("accuracy under attack")[1]


@pytest.mark.usefixtures("_in_folder")
def test_steps_of_other_lengths_are_other_attacks() -> None:
    words = ("--attack", "pgd:0.1,steps=2", "--attack", "pgd:0.1,steps=2,length=0.01")
    done = call(*SMALL, *words, "--attack-images", "30", "-q")
    assert done.status == 0, done.err
    table = done.out.split("accuracy under attack")[1]
    assert "PGD-2, radius 0.1, steps of 0.01" in table
    assert "±" not in table


@pytest.mark.usefixtures("_in_folder")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--density", "0.1"), "--density belongs to --rewire"),
        (("--rewire", "irregulr"), "got 'irregulr'. Did you mean 'irregular'"),
        (("--rewire", "channel,shar=0.5"), "rewire.shar: unknown field. Did you mean 'share'"),
        (("--rewire", "channel,0.5"), "'0.5' is no setting, such as share=0.5"),
        (("--rewire", "channel", "--pattern", "PS4_P4"), "is sparse in itself"),
        (("--adversarial", "3"), "recipe adversarial.radius: must be <= 1, got 3"),
        (("--stop-after", "2"), "to look at: give validation, such as 0.1\n"),
        (("--attack", "pgd:0.1,length=inf"), "at most 1, as a share of a pixel's range, got inf"),
        (("--attack", "fgsm"), "Allowed: fgsm:RADIUS or pgd:RADIUS"),
        (("--attack-images", "3"), "--attack-images belongs to --attack"),
    ],
)
def test_mistakes(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = call(*SMALL, *words)
    assert (done.status, message in done.err) == (2, True), done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("_in_folder")
def test_options_stand_over_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "epochs: 1\nbatch: 32\nrewire: {mode: channel, density: 0.5, rho: 0}\n"
        "adversarial: {radius: 0.2, steps: 1, clean_share: 0.25}\n"
    )
    words = (*SMALL[:-2], "--recipe", "own.yaml", "--density", "0.25", "--adversarial", "1/10")
    assert call(*words, "-q").status == 0
    (path,) = tmp_path.glob(f"runs/*/{ROW}")
    recipe = json.loads(path.read_text())["job"]["recipe"]
    assert recipe["rewire"] == {
        "mode": "channel", "density": 0.25, "share": 0.5, "decline": "linear", "rho": 0.0,
    }  # fmt: skip
    assert recipe["adversarial"] == {"radius": 0.1, "steps": 1, "clean_share": 0.25}
