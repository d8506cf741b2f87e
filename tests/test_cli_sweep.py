"""``energysim sweep`` as it is called: where tables go, what is said, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
from command_line import Done, call

SCAN = ("--scan", "pattern=dense,PS4_P4", "--scan", "clock_mhz=100:400:+100")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENERGYSIM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def swept(*more: str) -> Done:
    return call("sweep", "--net", "digits_cnn", "--hw", "edge_tpu", *more)


def refused(done: Done) -> str:
    assert done.status == 2, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    return done.err


def test_table() -> None:
    done = swept(*SCAN)
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0] == "digits_cnn on edge_tpu · batch 1 · objective energy · 8 points"
    assert lines[2].split()[:4] == ["pattern", "clock_mhz", "energy", "[nJ]"]
    assert [line.split()[:2] for line in lines[3:5]] == [["dense", "100"], ["dense", "200"]]
    assert len(lines) == 3 + 8
    assert "mappings were sought at 1 of 4 combinations" in done.err


def test_of_many_points_the_best_are_shown() -> None:
    done = swept("--scan", "static_mw=1:100:#50")
    assert "50 points, the 20 with the least energy" in done.out
    powers = [float(line.split()[0]) for line in done.out.splitlines()[3:]]
    assert powers == sorted(powers)
    assert len(powers) == 20
    assert powers[0] == 1


def test_forms_agree(folder: Path) -> None:
    for form in ("csv", "json", "parquet"):
        assert swept(*SCAN, "-o", f"t.{form}", "-q").out == ""
    rows = pd.read_csv("t.csv", keep_default_na=False)
    assert rows["searched"].dtype == bool
    plain = json.loads((folder / "t.json").read_text())
    assert [each["energy_mj"] for each in plain["points"]] == rows["energy_mj"].tolist()
    assert plain["sweep"]["axes"][0] == ["pattern", ["dense", "PS4_P4"]]
    pd.testing.assert_frame_equal(
        pd.read_parquet("t.parquet"), rows, check_dtype=False, check_column_type=False
    )
    printed = swept(*SCAN, "--format", "csv", "-q").out
    assert printed == (folder / "t.csv").read_text()
    assert len(list(csv.DictReader(printed.splitlines()))) == 8


def test_a_file_says_the_same(folder: Path) -> None:
    (folder / "s.yaml").write_text(
        "network: digits_cnn\nhardware: edge_tpu\n"
        "scan:\n  pattern: [dense, PS4_P4]\n  clock_mhz: 100:400:+100\n"
    )
    assert call("sweep", "s.yaml").out == swept(*SCAN).out


def test_what_does_not_fit_is_told() -> None:
    done = swept("--scan", "levels.SRAM.capacity_kib=0.1,64")
    assert done.status == 0
    assert "1 points can't be: layer conv2: level SRAM is too small" in done.err
    assert "-" in done.out.splitlines()[3].split()


def test_where_nothing_fits_the_exit_status_says_so() -> None:
    done = swept("--scan", "levels.SRAM.capacity_kib=0.1,0.2")
    assert done.status == 3
    assert "can't be: layer conv2: level SRAM is too small" in done.err


def test_energies_that_do_not_follow_a_size_are_told() -> None:
    done = swept("--scan", "levels.SRAM.capacity_kib=64,128")
    assert "energies of SRAM of edge_tpu are those of its file at every size" in done.err


def test_quiet() -> None:
    assert swept(*SCAN, "-q").err == ""


def test_the_same_again_is_read_from_the_cache_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = swept(*SCAN).out
    (store,) = (folder / "cache" / "sweeps").iterdir()
    monkeypatch.setattr("energysim.sweeps.run.Worker.block", None)
    assert swept(*SCAN, "--check", "0").out == first
    assert call("cache", "clear").status == 0
    assert not store.exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "nothing is varied: give --scan"),
        (("--scan", "batch"), "'batch' is no scan"),
        (("--scan", "batch=1", "--scan", "batch=2"), "scanned twice"),
        (("--scan", "batch=1:2:3"), "is no range. Allowed: 64:1024:x2"),
        (("--scan", "levels.SRAM.capcity_kib=1"), "Did you mean 'capacity_kib'"),
        (("--scan", "batch=1", "-o", "t.html"), "sweep gives no html"),
        (("--scan", "batch=1", "-o", "t.xlsx"), "names no format"),
        (("--scan", "batch=1", "-o", "no/t.csv"), "does not exist"),
        (("--scan", "batch=1", "--workers", "0"), "--workers"),
        (("--scan", "batch=1", "--workers", "2", "--scheduler", "tcp://x:1"), "with --scheduler"),
        (("--scan", "clock_mhz=1:200001:+1", "-o", "t.json"), "too many for json"),
        (("--scan", "batch=1", "--objective", "energy,latency"), "one objective"),
        (("--scan", "batch=1", "--batch", "4"), "and scanned too"),
        (("--scan", "phase=training", "--residency", "maybe"), "--residency"),
        (("s.yaml",), "--net and s.yaml: say it in the file"),
    ],
)
def test_refused(args: tuple[str, ...], message: str) -> None:
    assert message in refused(swept(*args))


def test_network_or_hardware_missing() -> None:
    assert "network is needed" in refused(call("sweep", "--hw", "edge_tpu", "--scan", "batch=1"))
    assert "hardware is needed" in refused(call("sweep", "--net", "vgg16", "--scan", "batch=1"))


def test_a_file_with_mistakes(folder: Path) -> None:
    (folder / "s.yaml").write_text("network: digits_cnn\nhardwre: edge_tpu\nscan: {}\n")
    said = refused(call("sweep", "s.yaml"))
    assert "s.yaml:2:1" in said
    assert "Did you mean 'hardware'" in said
