"""Data for the trainer: every form that people have, and what pretends to be one."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import (
    TEN,
    cifar,
    cifar_binary,
    cifar_python,
    idx,
    jpeg_pack,
    mnist,
    numpy1,
    numpy2,
    picture,
    python2,
    some,
    tar,
    write,
)

from energysim.errors import InputError
from energysim.train.data import LAYOUTS, Dataset, Split, digits, load, shapes
from energysim.train.data import idx as idx_module
from energysim.train.data import npz as npz_module
from energysim.train.data import pictures as pictures_module
from energysim.train.data import store as store_module
from energysim.train.data.fit import fit
from energysim.train.data.unpickle import unpickle


def data_of(many: int = 30, **given_: Any) -> Dataset:
    labels = np.arange(many) % 3
    parts: dict[str, Any] = {
        "name": "made",
        "train": Split(some(many, 3, 6, 6), labels),
        "test": Split(some(9, 3, 6, 6, seed=1), labels[:9]),
        "classes": tuple("abc"),
        "source": "a test",
        "licence": "none",
        "layout": "made",
    }
    return Dataset(**parts | given_)


def is_mapped(array: np.ndarray) -> bool:
    base: Any = array
    while base is not None and not isinstance(base, np.memmap):
        base = base.base if isinstance(base, np.ndarray) else None
    return base is not None


def refused(path: Path | str, match: str, **how: Any) -> str:
    with pytest.raises(InputError, match=match) as caught:
        load(path, **how)
    return str(caught.value)


class TestDataset:
    def test_moments_are_those_of_the_training_images(self) -> None:
        data = data_of()
        share = data.train.images / 255
        assert data.mean == pytest.approx(share.mean(axis=(0, 2, 3)))
        assert data.std == pytest.approx(share.std(axis=(0, 2, 3)))

    def test_moments_and_hash_do_not_depend_on_blocks(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = data_of()
        monkeypatch.setattr("energysim.train.data.dataset._BLOCK_BYTES", 300)
        again = data_of()
        assert (again.sha256, again.mean, again.std) == (whole.sha256, whole.mean, whole.std)

    def test_hash_is_of_the_content(self) -> None:
        data = data_of()
        assert data_of(name="other", source="elsewhere", notes=("x",)).sha256 == data.sha256
        pixels = data.train.images.copy()
        pixels[3, 1, 2, 3] ^= 1
        labels = data.train.labels.copy()
        labels[0] = 1
        others = [
            data_of(train=Split(pixels, data.train.labels)),
            data_of(train=Split(data.train.images, labels)),
            data_of(classes=("a", "b", "d")),
            data_of(train=data.test, test=data.train),
        ]
        assert len({data.sha256, *(other.sha256 for other in others)}) == 5

    @pytest.mark.parametrize(
        ("given_", "match"),
        [
            ({"train": Split(some(4, 3, 6, 6).astype(float), np.arange(4))}, "float64"),
            ({"train": Split(some(4, 6, 6), np.arange(4))}, "3 axes"),
            ({"train": Split(some(0, 3, 6, 6), np.arange(0))}, "no train images"),
            ({"train": Split(some(4, 3, 6, 6), np.arange(3))}, r"4 train images, .*\(3,\)"),
            ({"train": Split(some(4, 3, 6, 6), np.arange(4))}, "from 0 to 3, with 3 classes"),
            ({"test": Split(some(4, 3, 6, 6), np.arange(4) - 1)}, "from -1"),
            ({"test": Split(some(2, 1, 6, 6), np.arange(2))}, r"test images \[1, 6, 6\]"),
        ],
    )
    def test_parts_that_do_not_belong_together(self, given_: Any, match: str) -> None:
        with pytest.raises(InputError, match=match):
            data_of(**given_)

    @given(
        st.lists(st.integers(0, 4), min_size=2, max_size=60),
        st.floats(0.01, 0.99),
        st.integers(0, 2**32),
    )
    def test_validation_is_a_share_of_each_class(
        self, labels: list[int], fraction: float, seed: int
    ) -> None:
        many = len(labels)
        images = np.arange(many, dtype=np.uint8).reshape(many, 1, 1, 1)
        data = data_of(
            train=Split(images, np.array(labels)),
            test=Split(images, np.array(labels)),
            classes=tuple("abcde"),
        )
        if not 0 < round(fraction * many) < many:
            with pytest.raises(InputError, match=r"leaves none (to train on|for validation)"):
                data.split_validation(fraction, np.random.default_rng(seed))
            return
        kept, held = data.split_validation(fraction, np.random.default_rng(seed))
        assert len(held) == round(fraction * many)
        both = np.concatenate([kept.train.images, held.images]).ravel()
        assert sorted(both) == list(range(many))
        assert all(
            np.diff(part.images.ravel().astype(int)).min(initial=1) > 0
            for part in (kept.train, held)
        )
        for label in range(5):
            exact = fraction * labels.count(label)
            assert abs((held.labels == label).sum() - exact) < 1 + 1e-9
        again = data.split_validation(fraction, np.random.default_rng(seed))[1]
        assert np.array_equal(again.images, held.images)
        assert kept.test is data.test

    def test_validation_depends_on_the_generator(self) -> None:
        one, other = (
            data_of(300).split_validation(0.2, np.random.default_rng(s))[1] for s in (0, 1)
        )
        assert not np.array_equal(one.images, other.images)

    @pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
    def test_validation_of_no_share(self, fraction: float) -> None:
        with pytest.raises(InputError, match="between 0 and 1"):
            data_of().split_validation(fraction, np.random.default_rng(0))

    def test_subset_by_name_numbers_anew(self) -> None:
        data = data_of()
        part = data.subset(classes=["c", "a"], per_class=4, test_per_class=2)
        assert part.classes == ("c", "a")
        assert part.train.labels.tolist() == [1, 0] * 4
        assert np.array_equal(part.train.images, data.train.images[[0, 2, 3, 5, 6, 8, 9, 11]])
        assert len(part.test) == 4

    def test_subset_by_number(self) -> None:
        part = data_of().subset(classes=2)
        assert part.classes == ("a", "b")
        assert len(part.train) == 20
        assert data_of().subset().sha256 == data_of().sha256

    @pytest.mark.parametrize(
        ("how", "match"),
        [
            ({"classes": 0}, "3 classes, 0"),
            ({"classes": 4}, "3 classes, 4"),
            ({"classes": ["b", "z"]}, "'z'"),
            ({"per_class": 0}, "at least one"),
        ],
    )
    def test_subset_of_nothing(self, how: Any, match: str) -> None:
        with pytest.raises(InputError, match=match):
            data_of().subset(**how)


class TestFit:
    def test_mnist_is_padded(self) -> None:
        images = some(3, 1, 28, 28)
        assert np.array_equal(fit(images, 32), np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))))

    def test_digits_are_enlarged(self) -> None:
        images = some(3, 1, 8, 8)
        assert np.array_equal(fit(images, 32), images.repeat(4, 2).repeat(4, 3))

    @given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 8), st.integers(0, 9))
    def test_reduced_pixels_are_means_of_areas(
        self, height: int, width: int, side: int, seed: int
    ) -> None:
        longest = max(height, width)
        if side >= longest:
            side = max(1, longest - 1)
        images = some(2, 2, height, width, seed=seed)
        new = [
            max(1, round(Fraction(edge * side, longest) + Fraction(1, 10**9)))
            for edge in (height, width)
        ]
        if longest == 1:
            assert fit(images, 1) is images
            return
        got = fit(images, side)
        assert got.shape == (2, 2, side, side)
        top, left = (side - new[0]) // 2, (side - new[1]) // 2
        want = np.zeros_like(got)
        for y in range(new[0]):
            for x in range(new[1]):
                total = [[Fraction(0)] * 2, [Fraction(0)] * 2]
                for i in range(height):
                    for j in range(width):
                        share = overlap(y, new[0], i, height) * overlap(x, new[1], j, width)
                        for n in range(2):
                            for c in range(2):
                                total[n][c] += share * int(images[n, c, i, j])
                want[:, :, top + y, left + x] = [
                    [int(v + Fraction(1, 2)) for v in row] for row in total
                ]
        assert np.array_equal(got, want)

    def test_blocks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        images = some(7, 3, 10, 8)
        whole = fit(images, 5), fit(images, 23)
        monkeypatch.setattr("energysim.train.data.fit._BLOCK_PIXELS", 300)
        assert all(map(np.array_equal, whole, (fit(images, 5), fit(images, 23))))

    def test_no_pixel(self) -> None:
        with pytest.raises(InputError, match="at least one pixel"):
            fit(some(1, 1, 2, 2), 0)

    def test_of_a_dataset(self) -> None:
        data = data_of().resized(8)
        assert data.shape == (3, 8, 8)
        assert data.mean == pytest.approx(np.mean(data.train.images, axis=(0, 2, 3)) / 255)


def overlap(new: int, news: int, old: int, olds: int) -> Fraction:
    """Share of a new pixel that an old one gives."""
    size = Fraction(olds, news)
    covered = min((new + 1) * size, Fraction(old + 1)) - max(new * size, Fraction(old))
    return max(covered, Fraction(0)) / size


class TestDigits:
    def test_content(self) -> None:
        data = load("digits")
        whole = np.concatenate([data.train.labels, data.test.labels])
        # Counts of each digit as UCI's description of the file gives them.
        assert np.bincount(whole).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
        assert (len(data.train), len(data.test), data.shape) == (1437, 360, (1, 8, 8))
        assert np.bincount(data.test.labels).tolist() == [36, 36, 36, 36, 37, 36, 36, 36, 35, 36]
        assert (data.train.images.min(), data.train.images.max()) == (0, 16)
        assert data.sha256 == "87a1f537210ca96c03f36c2db8133380b7c871bb51f1d34cfb101f1a5268c793"
        assert not data.synthetic
        assert "CC BY 4.0" in data.licence
        assert "10.24432/C50P49" in data.source

    def test_first_image_is_the_zero_that_everyone_shows(self) -> None:
        data = digits()
        rows = data.test.images[data.test.labels == 0][0, 0]  # the first of a class is for testing
        assert rows[0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]

    def test_no_image_is_on_both_sides(self) -> None:
        data = digits()
        train, test = ({i.tobytes() for i in s.images} for s in (data.train, data.test))
        assert not train & test

    def test_resized(self) -> None:
        assert load("digits", side=32).shape == (1, 32, 32)


class TestShapes:
    def test_same_seed_same_images(self) -> None:
        one, again = shapes(60, 20, seed=3), shapes(60, 20, seed=3)
        assert one.sha256 == again.sha256
        assert shapes(60, 20, seed=4).sha256 != one.sha256
        assert shapes(60, 20, seed=3, noise=0.2).sha256 != one.sha256

    def test_count_of_one_changes_nothing_of_the_other(self) -> None:
        one, other = shapes(60, 20), shapes(90, 20)
        assert np.array_equal(one.test.images, other.test.images)

    def test_is_flagged(self) -> None:
        data = shapes(10, 10)
        assert data.synthetic
        assert "synthetic" in data.layout
        assert data.notes == ("synthetic",)
        assert data.subset(per_class=1).synthetic

    def test_default(self) -> None:
        data = load("shapes")
        assert (len(data.train), len(data.test), data.shape) == (6000, 2000, (3, 32, 32))
        assert np.bincount(data.train.labels).tolist() == [600] * 10
        assert np.bincount(data.test.labels).tolist() == [200] * 10

    def test_can_be_learnt_but_not_from_single_pixels(self) -> None:
        data = shapes(2000, 500)
        assert nearest_centroid(data, lambda x: x.reshape(len(x), -1)) < 0.2
        assert nearest_centroid(data, spectrum) > 0.4

    @pytest.mark.parametrize(
        "how",
        [{"count": 0}, {"test_count": 0}, {"noise": -0.1}, {"noise": float("nan")}, {"seed": -1}],
    )
    def test_nonsense(self, how: Any) -> None:
        with pytest.raises(InputError, match="shapes"):
            shapes(**how)


def spectrum(images: np.ndarray) -> np.ndarray:
    """Amplitudes of the grey image, which don't know where something is."""
    grey = images.astype(float).mean(axis=1)
    amplitudes = abs(np.fft.rfft2(grey - grey.mean(axis=(1, 2), keepdims=True)))
    return (amplitudes / amplitudes.sum(axis=(1, 2), keepdims=True)).reshape(len(images), -1)


def nearest_centroid(data: Dataset, features: Callable[[np.ndarray], np.ndarray]) -> float:
    train, test = features(data.train.images).astype(float), features(data.test.images)
    centres = np.stack([train[data.train.labels == k].mean(0) for k in range(len(data.classes))])
    distance = ((test[:, None] - centres) ** 2).sum(2)
    return float((distance.argmin(1) == data.test.labels).mean())


def check_cifar(data: Dataset, kind: int, form: str) -> None:
    files, names = cifar(kind)
    *train, test = files.values()
    assert np.array_equal(data.train.images, np.concatenate([x for x, _ in train]))
    assert np.array_equal(data.train.labels, np.concatenate([y for _, y in train]))
    assert np.array_equal(data.test.images, test[0])
    assert np.array_equal(data.test.labels, test[1])
    assert data.classes == tuple(names)
    assert data.name == f"cifar{kind}"
    assert data.layout == f"CIFAR-{kind}, {form} version"
    assert any("published are 50,000 + 10,000" in note for note in data.notes)


class TestCifar:
    @pytest.mark.parametrize("kind", [10, 100])
    @pytest.mark.parametrize("dumps", [python2, numpy1, numpy2])
    def test_python_version(self, tmp_path: Path, kind: int, dumps: Any) -> None:
        data = load(write(tmp_path, cifar_python(kind, dumps)))
        check_cifar(data, kind, "python")
        assert any("checksums of" in note for note in data.notes)

    @pytest.mark.parametrize("protocol", [0, 1, 3, 4])
    def test_other_protocols(self, protocol: int) -> None:
        # What Python 3 wrote with protocols 0 and 1 has no bytes; arrays are encoded text.
        array = some(2, 3)
        got = unpickle(pickle.dumps({"data": array, "labels": [1, 700, -3]}, protocol), where="x")
        assert np.array_equal(got["data"], array)
        assert got["labels"] == [1, 700, -3]

    @pytest.mark.parametrize("kind", [10, 100])
    def test_binary_version(self, tmp_path: Path, kind: int) -> None:
        check_cifar(load(write(tmp_path, cifar_binary(kind))), kind, "binary")

    @pytest.mark.parametrize("kind", [10, 100])
    @pytest.mark.parametrize("form", ["python", "binary"])
    @pytest.mark.parametrize("mode", ["gz", ""])
    def test_archive(self, tmp_path: Path, kind: int, form: str, mode: str) -> None:
        files = cifar_python(kind) if form == "python" else cifar_binary(kind)
        inside = {f"cifar/{name}": raw for name, raw in files.items()} | {"cifar/readme.html": b""}
        path = tar(tmp_path / "data.any", inside, mode=mode)
        check_cifar(load(path), kind, form)

    def test_all_forms_have_one_hash(self, tmp_path: Path) -> None:
        files = cifar_python(10), cifar_binary(10)
        sums = {load(write(tmp_path / str(k), raw)).sha256 for k, raw in enumerate(files)}
        assert len(sums) == 1

    def test_folder_above(self, tmp_path: Path) -> None:
        write(tmp_path / "cifar-10-batches-py", cifar_python(10))
        (tmp_path / "notes").mkdir()
        check_cifar(load(tmp_path), 10, "python")
        write(tmp_path / "cifar-100-python", cifar_python(100))
        refused(tmp_path, "more than one set of data: .*cifar-10-.*cifar-100.*Give one")

    def test_folder_of_the_archive(self, tmp_path: Path) -> None:
        tar(tmp_path / "cifar-10-python.tar.gz", cifar_python(10))
        check_cifar(load(tmp_path), 10, "python")

    def test_published_checksums_leave_no_note(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from dataclasses import replace

        from energysim.train.data import cifar as module

        files = cifar_python(10)
        version = module.VERSIONS[0]
        sums = tuple(hashlib.md5(files[name]).hexdigest() for name in version.files)
        monkeypatch.setattr(module, "VERSIONS", (replace(version, md5=sums),))
        monkeypatch.setattr(module, "_PUBLISHED_IMAGES", (60, 12))
        assert load(write(tmp_path, files)).notes == ()

    @pytest.mark.parametrize("kind", [10, 100])
    def test_missing_file(self, tmp_path: Path, kind: int) -> None:
        files = cifar_python(kind)
        gone = sorted(files)[1]
        del files[gone]
        refused(write(tmp_path, files), f"looks like cifar{kind} .*lacks {gone}")

    @pytest.mark.parametrize("form", ["python", "binary"])
    def test_truncated(self, tmp_path: Path, form: str) -> None:
        files = cifar_python(10) if form == "python" else cifar_binary(10)
        name = sorted(files)[2]
        files[name] = files[name][:-7]
        refused(write(tmp_path, files), rf"{name}: (is a damaged pickle|has .*it is truncated)")

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({b"labels": [10] * 12}, "from 0 to 9"),
            ({b"labels": [True] * 12}, "from 0 to 9"),
            ({b"labels": [[0]] * 12}, "from 0 to 9"),
            ({b"labels": [0] * 11}, "11 labels"),
            ({b"data": some(12, 3071)}, "3072 bytes"),
            ({b"data": some(12, 3072).astype("<i4")}, "int32"),
            ({b"data": 3}, "array data"),
        ],
    )
    def test_wrong_content(self, tmp_path: Path, change: Any, match: str) -> None:
        files = cifar_python(10)
        fields = {b"labels": [0] * 12, b"data": some(12, 3072)} | change
        files["data_batch_2"] = python2(fields)
        refused(write(tmp_path, files), f"data_batch_2: .*{match}")

    def test_binary_label_too_high(self, tmp_path: Path) -> None:
        files = cifar_binary(10)
        files["test_batch.bin"] = b"\x0a" + files["test_batch.bin"][1:]
        refused(write(tmp_path, files), "label 10; cifar10 has 10 classes")

    @pytest.mark.parametrize("form", ["python", "binary"])
    def test_wrong_class_names(self, tmp_path: Path, form: str) -> None:
        files = cifar_python(10) if form == "python" else cifar_binary(10)
        if form == "python":
            files["batches.meta"] = python2({b"label_names": [b"one"]})
        else:
            files["batches.meta.txt"] = b"one\ntwo\n"
        refused(write(tmp_path, files), "does not name 10 classes")


class Asks:
    """Pickles as a call of something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.asks = function, arguments

    def __reduce__(self) -> Any:
        return self.asks


def array_pickle(reconstruct: bytes, state: bytes = b"") -> bytes:
    head = b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    return head + reconstruct + state + b"s."


HUGE = b"\x8a\x06" + (10**13).to_bytes(6, "little")
TYPE = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
EMPTY = b"K\x00\x85U\x01b\x87R"
HOSTILE = {
    "os.system": (pickle.dumps({"data": Asks(os.system, "touch hit")}, 2), "system"),
    "eval": (pickle.dumps({"data": Asks(eval, "open('hit', 'w')")}, 2), "eval"),
    "protocol 4": (pickle.dumps({"data": Asks(os.system, "touch hit")}, 4), "system"),
    "protocol 5": (pickle.dumps({"data": Asks(eval, "1")}, 5), "eval"),
    "nested": (
        pickle.dumps(
            {"data": Asks(bytes, [Asks(Asks, Asks(subprocess.run, ["touch", "hit"]))])}, 2
        ),
        "refused",
    ),
    "in a list": (pickle.dumps({"labels": [1, [2, Asks(os.system, "touch hit")]]}, 2), "system"),
    "as a name": (b"\x80\x02}cos\nsystem\nU\x09touch hit\x85RK\x01s.", "os.system"),
    "INST": (b"(S'touch hit'\nios\nsystem\n.", "INST"),
    "OBJ": (b"(cos\nsystem\nS'touch hit'\no.", "os.system"),
    "OBJ of an array": (b"(cnumpy\nndarray\n" + HUGE + b"o.", "OBJ"),
    "NEWOBJ": (b"\x80\x02cnumpy\nndarray\n" + HUGE + b"\x85\x81.", "NEWOBJ"),
    "persistent": (b"\x80\x02U\x01xQ.", "BINPERSID"),
    "registry": (b"\x80\x02\x82\x01.", "EXT1"),
    "getattr": (b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.", "ndarray.__new__"),
    "other of numpy": (b"cnumpy\nload\n.", "numpy.load"),
    "array of any size": (b"\x80\x02cnumpy\nndarray\n" + HUGE + b"\x85R.", "no way"),
    "reconstruct any size": (array_pickle(HUGE + b"\x85U\x01b\x87R"), "no way"),
    "reconstruct of no array": (
        b"cnumpy.core.multiarray\n_reconstruct\nN" + EMPTY + b".",
        "no way",
    ),
    "array larger than its data": (
        array_pickle(EMPTY, b"(K\x01" + HUGE + b"\x85" + TYPE + b"\x89U\x01xtb"),
        "damaged",
    ),
    "array of objects": (
        array_pickle(
            EMPTY, b"(K\x01K\x01\x85" + TYPE.replace(b"u1", b"O8") + b"\x89U\x08xxxxxxxxtb"
        ),
        "whole numbers",
    ),
    "set up twice": (
        array_pickle(EMPTY, (b"(K\x01K\x01\x85" + TYPE + b"\x89U\x01xtb") * 2),
        "no array",
    ),
    "set up a function": (b"c_codecs\nencode\n}U\x08__call__K\x01sb.", "no array"),
    "another codec": (
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
        "no way",
    ),
    "more than it holds": (
        b"\x80\x02]X\xe8\x03\x00\x00"
        + b"x" * 1000
        + b"q\x00ac_codecs\nencode\nq\x01a"
        + b"h\x01h\x00X\x06\x00\x00\x00latin1\x86Ra" * 200
        + b".",
        "more data than it holds",
    ),
    "bytearray": (b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.", "damaged|BYTEARRAY8"),
    "bytes that are not there": (b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00x.", "damaged"),
    "number that is not there": (b"\x80\x02\x8b\xff\xff\xff\x7fx.", "damaged"),
    "empty": (b"", "damaged"),
    "no end": (b"\x80\x02}", "damaged"),
    "nothing on the stack": (b"\x80\x02\x87.", "damaged"),
    "no mark": (b"\x80\x02t.", "damaged"),
    "no such place": (b"\x80\x02h\x07.", "damaged"),
    "no mapping": (pickle.dumps([1, 2], 2), "no mapping"),
    "items of a number": (b"\x80\x02K\x01K\x02K\x03s.", "damaged"),
    "append to a number": (b"\x80\x02K\x01K\x02a.", "damaged"),
    "half a pair": (b"\x80\x02}(U\x01xu.", "damaged"),
    "text": (b"<!DOCTYPE html><html>", "damaged|refused"),
    "tuples as name": (b"\x80\x02})" + b"q\x00h\x00\x86" * 200 + b"K\x01s.", "damaged"),
}


class TestHostilePickle:
    @pytest.mark.parametrize("case", HOSTILE)
    def test_is_refused(self, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        raw, match = HOSTILE[case]
        monkeypatch.chdir(tmp_path)
        files = cifar_python(10)
        files["data_batch_3"] = raw
        write(tmp_path / "cifar", files)
        tracemalloc.start()
        refused("cifar", f"data_batch_3: .*({match})")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert not Path("hit").exists()
        assert peak < 5_000_000

    def test_place_far_away_takes_no_memory(self) -> None:
        assert unpickle(b"\x80\x02}r\xff\xff\xff\x7f.", where="x") == {}

    def test_too_many_instructions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("energysim.train.data.unpickle._MAX_STEPS", 50)
        with pytest.raises(InputError, match="more than 50 instructions"):
            unpickle(python2({b"labels": [1] * 60}), where="x")

    def test_column_major_array(self) -> None:
        array = np.asfortranarray(some(3, 4))
        assert np.array_equal(unpickle(numpy2({"data": array}), where="x")["data"], array)

    @given(st.data())
    def test_no_change_of_bytes_makes_another_error(self, data: st.DataObject) -> None:
        raw = bytearray(python2({b"labels": [3, 700], b"data": some(2, 2), b"x": b"y" * 300}))
        for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
            raw[place] = data.draw(st.integers(0, 255))
        with suppress(InputError):
            unpickle(bytes(raw), where="x")

    @given(st.binary(max_size=60))
    def test_no_bytes_make_another_error(self, raw: bytes) -> None:
        with suppress(InputError):
            unpickle(b"\x80\x02" + raw, where="x")


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


class TestHostileArchive:
    @pytest.mark.parametrize(
        ("other", "match"),
        [
            (member("../../hit"), "leads out of it"),
            (member("/elsewhere/hit"), "leads out of it"),
            (member("a/../../hit"), "leads out of it"),
            (member("..\\hit"), "leads out of it"),
            (member("data_batch_9", tarfile.SYMTYPE, "/etc/passwd"), "link"),
            (member("data_batch_9", tarfile.LNKTYPE, "data_batch_1"), "link"),
            (member("pipe", tarfile.FIFOTYPE), "no ordinary file"),
            (member("disk", tarfile.BLKTYPE), "no ordinary file"),
            (member("b/data_batch_1"), "two files named 'data_batch_1'"),
        ],
    )
    def test_member(self, tmp_path: Path, other: tarfile.TarInfo, match: str) -> None:
        path = tar(tmp_path / "a.tar.gz", cifar_python(10), [other])
        refused(path, f"a.tar.gz: .*{match}")
        assert sorted(tmp_path.iterdir()) == [path]

    def test_link_in_place_of_a_file(self, tmp_path: Path) -> None:
        files = cifar_python(10)
        del files["data_batch_3"]
        link = member("data_batch_3", tarfile.SYMTYPE, "/etc/passwd")
        refused(tar(tmp_path / "a.tar.gz", files, [link]), "link")

    @pytest.mark.parametrize("mode", ["gz", ""])
    def test_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
        path = tar(
            tmp_path / "a.tar", {"zeros": bytes(3_000_000), "more": bytes(3_000_000)}, mode=mode
        )
        monkeypatch.setattr(store_module, "MAX_BYTES", 4_000_000)
        refused(path, "unpacks to more than 4 MB")

    def test_size_that_is_claimed(self, tmp_path: Path) -> None:
        head = tarfile.TarInfo("data_batch_1")
        head.size = 1 << 40
        path = tmp_path / "a.tar.gz"
        path.write_bytes(gzip.compress(head.tobuf() + bytes(10_000)))
        tracemalloc.start()
        refused(path, "data_batch_1.*more than 400 MB")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()

    def test_long_description(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tar.gz"
        with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
            info = tarfile.TarInfo("a")
            info.pax_headers = {"comment": "x" * 6_000_000}
            archive.addfile(info)
        refused(path, "description of a file is too long|damaged")

    def test_many_members(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store_module, "_MAX_MEMBERS", 3)
        refused(tar(tmp_path / "a.tar", cifar_python(10), mode=""), "more than 3 files")

    def test_negative_size_ends(self, tmp_path: Path) -> None:
        head = bytearray(tarfile.TarInfo("a").tobuf())
        head[124:136] = b"\xff" * 8 + (-1536 & 0xFFFFFFFF).to_bytes(4, "big")
        head[148:156] = b"        "
        head[148:156] = b"%06o\0 " % sum(head)
        path = tmp_path / "a.tar"
        path.write_bytes(bytes(head) * 3 + bytes(10_240))
        refused(path, "a.tar: ")

    @pytest.mark.parametrize("cut", [100, 2_000, 20_000])
    @pytest.mark.parametrize("mode", ["gz", ""])
    def test_truncated(self, tmp_path: Path, cut: int, mode: str) -> None:
        path = tar(tmp_path / "a.tar.gz", cifar_python(10), mode=mode)
        path.write_bytes(path.read_bytes()[:cut])
        refused(path, "truncated or damaged|lacks|no data in a form")

    def test_damaged(self, tmp_path: Path) -> None:
        path = tar(tmp_path / "a.tar.gz", cifar_python(10))
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2 : len(raw) // 2 + 50] = bytes(50)
        path.write_bytes(raw)
        refused(path, "a.tar.gz: ")

    def test_something_else(self, tmp_path: Path) -> None:
        refused(tar(tmp_path / "a.tar.gz", {"a": b"x"}), "not one of CIFAR")


class TestIdx:
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("dot", ["-", "."])
    def test_reads(self, tmp_path: Path, packed: bool, dot: str) -> None:
        data = load(write(tmp_path, mnist(packed=packed, dot=dot)))
        assert np.array_equal(data.train.images[:, 0], some(20, 28, 28))
        assert data.test.labels.tolist() == list(range(10))
        assert data.classes == tuple("0123456789")
        assert "28x28 grey" in data.layout
        assert "not the published files" in data.notes[0]

    def test_folder_of_torchvision(self, tmp_path: Path) -> None:
        write(tmp_path / "FashionMNIST" / "raw", mnist())
        assert len(load(tmp_path).train) == 20
        assert len(load(tmp_path / "FashionMNIST").train) == 20

    def test_known_by_its_checksums(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from dataclasses import replace

        files = mnist()
        sums = tuple(hashlib.sha256(raw).hexdigest() for raw in files.values())
        monkeypatch.setattr(idx_module, "_FASHION", replace(idx_module._FASHION, sha256=sums))
        data = load(write(tmp_path, files))
        assert (data.name, data.classes[9], data.notes) == ("fashion_mnist", "Ankle boot", ())
        assert "MIT" in data.licence

    @pytest.mark.parametrize("packed", [False, True])
    def test_missing(self, tmp_path: Path, packed: bool) -> None:
        files = mnist(packed=packed)
        del files[f"t10k-labels-idx1-ubyte{'.gz' * packed}"]
        refused(write(tmp_path, files), "lacks t10k-labels-idx1-ubyte")

    @pytest.mark.parametrize(
        ("raw", "match"),
        [
            (idx(some(20, 28, 28))[:-5], "truncated: its head says .*15,680 bytes"),
            (idx(some(20, 28, 28)) + b"x", "longer than it says"),
            (idx(some(20, 28)), "begins with 00000802"),
            (b"\0\0\x08\x03\0", "begins with"),
            (bytes((0, 0, 8, 3)) + b"\xff" * 12, "truncated"),
            (b"", "begins with"),
            (gzip.compress(idx(some(20, 28, 28)))[:-9], "truncated or damaged"),
            (b"\x1f\x8bhello", "truncated or damaged"),
            (idx(some(19, 28, 28)), "19 train images"),
        ],
    )
    def test_damaged(self, tmp_path: Path, raw: bytes, match: str) -> None:
        refused(write(tmp_path, mnist() | {"train-images-idx3-ubyte": raw}), match)

    def test_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(idx_module, "MAX_BYTES", 100_000)
        bomb = {"train-images-idx3-ubyte": gzip.compress(bytes(200_000))}
        refused(write(tmp_path, mnist() | bomb), "unpacks to more than")

    def test_one_file(self, tmp_path: Path) -> None:
        write(tmp_path, mnist())
        refused(tmp_path / "train-images-idx3-ubyte", "Give its folder")


def tiny_imagenet(folder: Path, *, arranged: bool, form: str = "JPEG") -> Path:
    files = {
        "wnids.txt": b"n02\nn01\nn03\n",
        "words.txt": b"n01\tmaillot\nn02\tmaillot, swimsuit\nn03\tegg, ovum\nn04\tother\n",
        "test/images/test_0.JPEG": picture(some(1, 3, 64, 64)[0], form),
    }
    lines = []
    for label, wnid in enumerate(("n02", "n01", "n03")):
        for k in range(4):
            raw = picture(some(1, 1 if k == 3 else 3, 64, 64, seed=10 * label + k)[0], form)
            files[f"train/{wnid}/images/{wnid}_{k}.JPEG"] = raw
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b""
        for k in range(2):
            number = 2 - label + 3 * k
            raw = picture(some(1, 3, 64, 64, seed=100 + number)[0], form)
            inner = f"{wnid}" if arranged else "images"
            files[f"val/{inner}/val_{number}.JPEG"] = raw
            lines.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    if not arranged:
        files["val/val_annotations.txt"] = "".join(sorted(lines)).encode()
    return write(folder, files)


class TestTinyImagenet:
    @pytest.mark.parametrize("arranged", [False, True])
    def test_both_arrangements(self, tmp_path: Path, arranged: bool) -> None:
        data = load(tiny_imagenet(tmp_path, arranged=arranged, form="PNG"))
        assert data.classes == ("maillot (n02)", "maillot (n01)", "egg")
        assert data.shape == (3, 64, 64)
        assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        for label in range(3):
            images = data.test.images[data.test.labels == label]
            want = [some(1, 3, 64, 64, seed=100 + n)[0] for n in (2 - label, 5 - label)]
            assert sorted(i.tobytes() for i in images) == sorted(i.tobytes() for i in want)
        grey = some(1, 1, 64, 64, seed=3)[0]
        assert np.array_equal(data.train.images[3], np.repeat(grey, 3, axis=0))
        assert "12 + 6 images, published are 100,000 + 10,000" in data.notes[0]
        assert "validation images to test" in data.layout

    def test_reduced(self, tmp_path: Path) -> None:
        folder = tiny_imagenet(tmp_path, arranged=False)
        assert load(folder, side=32).sha256 == load(folder).resized(32).sha256

    def test_some_classes(self, tmp_path: Path) -> None:
        data = load(tiny_imagenet(tmp_path, arranged=True)).subset(classes=["egg"], per_class=2)
        assert (len(data.train), len(data.test)) == (2, 2)

    @pytest.mark.parametrize(
        ("files", "match"),
        [
            ({"val/val_annotations.txt": b"../../x.JPEG\tn01\n"}, "annotations.txt:1: must be"),
            ({"val/val_annotations.txt": b"val_0.JPEG\tn09\n"}, "annotations.txt:1: must be"),
            ({"val/val_annotations.txt": b"val_0.JPEG\n"}, "annotations.txt:1: must be"),
            ({"val/val_annotations.txt": b"val_0.JPEG\tn01\nval_9.JPEG\tn01\n"}, "val_9.*No such"),
            ({"wnids.txt": b"n01\n../n02\n"}, "one class on each line"),
            ({"wnids.txt": b"n01\nn01\n"}, "one class on each line"),
            ({"wnids.txt": b"\xff\xfe"}, "not UTF-8"),
            ({"wnids.txt": b"n01\nn02\nn03\nn77\n"}, "no images of the class n77"),
            ({"train/n01/images/n01_1.JPEG": b"no image"}, "n01_1.JPEG: is no image"),
        ],
    )
    def test_wrong(self, tmp_path: Path, files: dict[str, bytes], match: str) -> None:
        refused(write(tiny_imagenet(tmp_path, arranged=False), files), match)


def class_folders(folder: Path, test: str = "test", channels: int = 3) -> Path:
    files = {}
    for part, many in (("train", 3), (test, 2)):
        for label, name in enumerate(("cat", "dog")):
            for k in range(many):
                pixels = some(1, channels, 10, 12, seed=100 * (part == "train") + 10 * label + k)
                files[f"{part}/{name}/{k}.png"] = picture(pixels[0])
    return write(folder, files)


class TestClassFolders:
    @pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_reads(self, tmp_path: Path, test: str, channels: int) -> None:
        data = load(class_folders(tmp_path / "pets", test, channels))
        assert (data.name, data.classes) == ("pets", ("cat", "dog"))
        assert data.shape == (channels, 10, 12)
        assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert np.array_equal(data.test.images[3], some(1, channels, 10, 12, seed=11)[0])
        assert f"{test}/ to test" in data.layout

    def test_other_files_are_left(self, tmp_path: Path) -> None:
        folder = class_folders(tmp_path)
        write(
            folder, {"train/cat/.hidden.png": b"", "train/cat/Thumbs.db": b"", "train/x.txt": b""}
        )
        assert len(load(folder).train) == 6

    def test_sizes_differ(self, tmp_path: Path) -> None:
        folder = class_folders(tmp_path)
        write(folder, {"train/dog/9.png": picture(some(1, 3, 9, 9)[0])})
        refused(folder, r"differ in size: .*12x10, .*9\.png 9x9")
        assert load(folder, side=8).shape == (3, 8, 8)

    def test_no_test(self, tmp_path: Path) -> None:
        folder = class_folders(tmp_path)
        (folder / "test").rename(folder / "others")
        refused(folder, "no test/CLASS/. Put")
        refused(folder / "train", "no train/CLASS/. Put")

    def test_strange_class(self, tmp_path: Path) -> None:
        folder = class_folders(tmp_path)
        (folder / "test" / "dog").rename(folder / "test" / "dogs")
        refused(folder, "train/ lacks: dogs. Did you mean 'dog'")

    @pytest.mark.parametrize(
        ("raw", "match"),
        [
            (b"", "is no image"),
            (b"GIF89a", "is no image|damaged"),
            (picture(some(1, 3, 10, 12)[0])[:200], "damaged image"),
            (picture(some(1, 3, 10, 12)[0], "TIFF"), "is no image"),
            (picture(some(1, 3, 10, 12)[0], "EPS"), "is no image"),
        ],
    )
    def test_damaged(self, tmp_path: Path, raw: bytes, match: str) -> None:
        folder = class_folders(tmp_path)
        refused(write(folder, {"train/dog/1.png": raw}), f"1.png: .*({match})")

    def test_bomb(self, tmp_path: Path) -> None:
        raw = bytearray(picture(some(1, 3, 10, 12)[0]))
        for size in (10_000, 2_000_000):  # below and above where Pillow itself stops
            raw[16:24] = struct.pack(">II", size, size)
            raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
            folder = write(class_folders(tmp_path), {"train/dog/1.png": bytes(raw)})
            refused(folder, "1.png: .*(too large|damaged)")

    def test_16_bits(self, tmp_path: Path) -> None:
        from PIL import Image

        raw = io.BytesIO()
        Image.fromarray(np.full((10, 12), 40_000, np.uint16)).save(raw, "PNG")
        refused(write(class_folders(tmp_path), {"train/dog/1.png": raw.getvalue()}), "8 bits")

    def test_without_pillow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = class_folders(tmp_path)
        monkeypatch.setattr(pictures_module, "find_spec", lambda _: None)
        refused(folder, r"pip install 'energysim\[images\]'")


class TestKeptPixels:
    def test_second_time_nothing_is_decoded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, cache = class_folders(tmp_path / "pets"), tmp_path / "cache"
        fresh = load(folder)
        first = load(folder, cache=cache)
        monkeypatch.setattr(pictures_module, "find_spec", lambda _: None)
        second = load(folder, cache=cache)
        assert fresh.sha256 == first.sha256 == second.sha256
        assert is_mapped(second.train.images)
        assert not second.train.images.flags.writeable
        assert len(list(cache.rglob("*"))) == 2

    def test_changed_file_is_decoded_again(self, tmp_path: Path) -> None:
        folder, cache = class_folders(tmp_path / "pets"), tmp_path / "cache"
        old = load(folder, cache=cache)
        write(folder, {"train/cat/0.png": picture(some(1, 3, 10, 12, seed=77)[0])})
        new = load(folder, cache=cache)
        assert new.sha256 == load(folder).sha256 != old.sha256
        assert load(folder, cache=cache, side=5).shape == (3, 5, 5)

    @pytest.mark.parametrize(
        "harm",
        [
            lambda raw: raw[:-1],
            lambda raw: raw[: len(raw) // 2],
            lambda raw: raw + b"x",
            lambda raw: raw[:200] + bytes([raw[200] ^ 1]) + raw[201:],
            lambda _: b"",
            lambda _: b"\x93NUMPY\x01\x00",
            lambda _: pickle.dumps(Asks(os.system, "touch hit")),
            lambda raw: raw.replace(b"|u1", b"|O8"),
        ],
    )
    def test_broken_one_is_made_again(
        self, tmp_path: Path, harm: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        folder, cache = class_folders(tmp_path / "pets"), tmp_path / "cache"
        want = load(folder, cache=cache).sha256
        (kept,) = (cache / "images").iterdir()
        kept.write_bytes(harm(kept.read_bytes()))
        assert load(folder, cache=cache).sha256 == want
        assert load(folder, cache=cache).sha256 == want
        assert not Path("hit").exists()

    def test_folder_that_can_not_be_used(self, tmp_path: Path) -> None:
        folder, cache = class_folders(tmp_path / "pets"), tmp_path / "cache"
        cache.write_text("a file")
        assert load(folder, cache=cache).sha256 == load(folder).sha256

    def test_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder, cache = class_folders(tmp_path / "pets"), tmp_path / "cache"

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "no space left")

        monkeypatch.setattr(pictures_module.os, "fsync", full)
        assert load(folder, cache=cache).sha256 == load(folder).sha256
        assert list((cache / "images").iterdir()) == []

    def test_damaged_image_leaves_nothing(self, tmp_path: Path) -> None:
        folder, cache = class_folders(tmp_path / "pets"), tmp_path / "cache"
        raw = picture(some(1, 3, 10, 12)[0])
        refused(write(folder, {"train/dog/1.png": raw[:200]}), "damaged", cache=cache)
        assert list((cache / "images").iterdir()) == []


class TestNpz:
    def arrays(self, **changed: Any) -> dict[str, Any]:
        arrays = {
            "x_train": some(6, 3, 8, 8),
            "y_train": np.arange(6),
            "x_test": some(4, 3, 8, 8, seed=1),
            "y_test": np.arange(4).astype(np.uint8),
        }
        return {k: v for k, v in (arrays | changed).items() if v is not None}

    def save(self, path: Path, **changed: Any) -> Path:
        np.savez(path, **self.arrays(**changed))
        return path

    def test_channels_first(self, tmp_path: Path) -> None:
        data = load(self.save(tmp_path / "mine.npz"))
        assert (data.name, data.shape, data.classes) == ("mine", (3, 8, 8), tuple("012345"))
        assert np.array_equal(data.train.images, some(6, 3, 8, 8))
        assert data.layout == "arrays of an .npz, 8x8 colour"

    def test_channels_last_and_labels_in_a_column(self, tmp_path: Path) -> None:
        first = load(self.save(tmp_path / "a.npz"))
        last = load(
            self.save(
                tmp_path / "b.npz",
                x_train=some(6, 3, 8, 8).transpose(0, 2, 3, 1),
                x_test=some(4, 3, 8, 8, seed=1).transpose(0, 2, 3, 1),
                y_train=np.arange(6)[:, None],
            )
        )
        assert last.sha256 == first.sha256

    def test_no_channels(self, tmp_path: Path) -> None:
        data = load(self.save(tmp_path / "a.npz", x_train=some(6, 8, 8), x_test=some(4, 8, 8)))
        assert data.shape == (1, 8, 8)

    def test_names(self, tmp_path: Path) -> None:
        names = np.array(list("uvwxyz"))
        assert load(self.save(tmp_path / "a.npz", classes=names)).classes == tuple("uvwxyz")
        refused(self.save(tmp_path / "b.npz", classes=names[:3]), "with 3 classes")
        refused(self.save(tmp_path / "c.npz", classes=np.arange(6)), "list of names")

    def test_packed_and_in_a_folder(self, tmp_path: Path) -> None:
        np.savez_compressed(tmp_path / "a.npz", **self.arrays())
        assert len(load(tmp_path).train) == 6

    @pytest.mark.parametrize(
        ("changed", "match"),
        [
            ({"x_train": some(6, 3, 8, 8) / 255}, "x_train is of float64; pixels must be uint8"),
            ({"x_train": some(6, 3, 8, 3)}, r"\[6, 3, 8, 3\]"),
            ({"x_train": some(6, 64)}, r"\[6, 64\]"),
            ({"y_train": np.eye(6)}, "y_train is of float64"),
            ({"y_train": np.eye(6, dtype=int)}, r"\[6, 6\]"),
            ({"y_train": np.arange(6) - 1}, "labels start at 0"),
            ({"y_train": np.arange(6) + 10**12}, "labels start at 0"),
            ({"y_train": np.arange(5)}, "6 train images"),
            ({"y_test": None}, "holds x_test, x_train, y_train; needed are x_train"),
            ({"y_test": np.array([{}] * 4)}, "holds objects"),
            ({"extra": np.array([{}])}, "holds objects"),
        ],
    )
    def test_wrong(self, tmp_path: Path, changed: Any, match: str) -> None:
        refused(self.save(tmp_path / "a.npz", **changed), f"a.npz: .*{match}")

    def test_pickle_in_it_is_not_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        np.savez("a.npz", **self.arrays(extra=np.array([Asks(os.system, "touch hit")])))
        refused("a.npz", "holds objects")
        with zipfile.ZipFile("b.npz", "w") as archive:
            archive.writestr("x_train.npy", pickle.dumps(Asks(os.system, "touch hit")))
        refused("b.npz", "damaged")
        assert not Path("hit").exists()

    def test_claims_more_than_there_is(self, tmp_path: Path) -> None:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {"descr": "|u1", "fortran_order": False, "shape": (10**12,)}
        )
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("x_train.npy", head.getvalue())
        refused(tmp_path / "a.npz", "not as long as its shape says")

    def test_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        np.savez_compressed(tmp_path / "a.npz", **self.arrays(extra=np.zeros(3_000_000)))
        monkeypatch.setattr(npz_module, "MAX_BYTES", 1_000_000)
        refused(tmp_path / "a.npz", "unpacks to more than")
        monkeypatch.setattr(npz_module, "_MAX_ARRAYS", 3)
        refused(tmp_path / "a.npz", "more than 3 arrays")

    def test_damaged(self, tmp_path: Path) -> None:
        path = self.save(tmp_path / "a.npz")
        raw = path.read_bytes()
        for harmed in (raw[:-30], raw[:500], raw[:40] + bytes(90) + raw[130:], b"PK"):
            path.write_bytes(harmed)
            refused(path, "a.npz: is no .npz of arrays, or damaged")


class TestJpegPack:
    def test_reads(self, tmp_path: Path) -> None:
        from PIL import Image

        data = load(jpeg_pack(tmp_path / "pack.npz"))
        assert (len(data.train), len(data.test), data.shape) == (8, 4, (3, 16, 16))
        assert data.test.labels.tolist() == [0, 1, 2, 0]
        for k in range(4):
            raw = picture(some(1, 3, 16, 16, seed=k)[0], "JPEG", quality=90)
            want = np.asarray(Image.open(io.BytesIO(raw))).transpose(2, 0, 1)
            assert np.array_equal(data.test.images[k], want)
        assert data.layout == "pack of JPEG files, 16x16 colour"
        assert data.notes == ("JPEG files",)

    def test_mixed_order_no_header_and_names(self, tmp_path: Path) -> None:
        files = [picture(some(1, 3, 8, 8, seed=k)[0], "JPEG") for k in range(6)]
        path = tmp_path / "pack.npz"
        np.savez(
            path,
            payload=np.frombuffer(b"".join(files), np.uint8),
            offsets=np.cumsum([0, *map(len, files)]),
            labels=np.array([0, 1, 0, 1, 0, 1]),
            train=np.array([True, False, True, True, False, True]),
            classes=np.array(["cat", "dog"]),
        )
        data = load(path)
        assert data.train.labels.tolist() == [0, 0, 1, 1]
        assert data.classes == ("cat", "dog")
        assert load(path, side=4).shape == (3, 4, 4)

    def test_the_one_that_is_known(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = jpeg_pack(tmp_path / "pack.npz")
        monkeypatch.setattr(
            npz_module, "_CIFAR10_JPEG", hashlib.sha256(path.read_bytes()).hexdigest()
        )
        data = load(path)
        assert data.notes == ("CIFAR-10 (JPEG re-encoding)",)
        assert data.classes == tuple(TEN)
        assert "Krizhevsky" in data.source

    def test_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, cache = jpeg_pack(tmp_path / "pack.npz"), tmp_path / "cache"
        first = load(path, cache=cache)
        monkeypatch.setattr(pictures_module, "find_spec", lambda _: None)
        second = load(path, cache=cache)
        assert first.sha256 == second.sha256
        assert is_mapped(second.train.images)

    @pytest.mark.parametrize(
        ("changed", "match"),
        [
            ({"train": np.arange(12)}, "train is of int64"),
            ({"train": np.ones(11, bool)}, r"shape \[11\]"),
            ({"train": np.ones(12, bool)}, "no test images"),
            ({"offsets": np.arange(12)}, "13 whole numbers"),
            ({"offsets": np.arange(13)[::-1].copy()}, "do not rise"),
            ({"offsets": np.arange(13) - 1}, "do not rise"),
            ({"offsets": np.arange(13) * 10**6}, "do not rise"),
            ({"offsets": np.arange(13)}, "image 0: is (no|a damaged) image"),
            ({"offsets": np.arange(13) / 2}, "offsets is of float64"),
            ({"payload": np.zeros(9)}, "payload is of float64"),
            ({"header": np.zeros((2, 2), np.uint8)}, "header is of uint8 with 2 axes"),
            ({"header": None}, "is no image"),
            ({"labels": np.zeros(12)}, "labels is of float64"),
            ({"payload": None}, "for a pack of JPEG files payload"),
        ],
    )
    def test_wrong(self, tmp_path: Path, changed: Any, match: str) -> None:
        refused(jpeg_pack(tmp_path / "a.npz", **changed), f"a.npz.*{match}")

    def test_png_is_no_jpeg(self, tmp_path: Path) -> None:
        raw = picture(some(1, 3, 8, 8)[0])
        path = jpeg_pack(
            tmp_path / "a.npz",
            many=2,
            header=None,
            payload=np.frombuffer(raw * 2, np.uint8),
            offsets=np.array([0, len(raw), 2 * len(raw)]),
            train=np.array([True, False]),
        )
        refused(path, "image 0: is no image")


class TestNothingKnown:
    def test_no_such_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        refused(
            "digit", "no data named 'digit'.* Did you mean 'digits'.*Known are digits and shapes"
        )
        refused("nowhere/at/all", "no such file or folder")
        (tmp_path / "cifar10").mkdir()
        refused("cifar-10", "Did you mean 'cifar10'")
        refused("a\0b", "can't be read|no such file")

    def test_name_before_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "digits", mnist())
        assert load("digits").name == "digits"
        assert load("./digits").name == "idx"
        assert load(Path("digits").absolute()).name == "idx"

    def test_says_what_was_looked_for_and_found(self, tmp_path: Path) -> None:
        files = {f"file{k}": b"" for k in range(12)}
        text = refused(write(tmp_path, files | {"data_batch1": b""}), "form that is known")
        for layout in LAYOUTS:
            assert f"  {layout.title}: {layout.files}" in text
        assert "x_train" in text
        assert "payload" in text
        assert "found: data_batch1, file0, " in text
        assert "and 5 more" in text
        assert "data_batch1 is not one of these names. Did you mean 'data_batch_1'?" in text

    def test_empty_folder(self, tmp_path: Path) -> None:
        refused(tmp_path, "found: nothing")

    def test_folder_with_a_capital(self, tmp_path: Path) -> None:
        (tmp_path / "Train").mkdir()
        refused(tmp_path, "Train/ is not one of these names. Did you mean 'train'")

    def test_file(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.bin": b"xyz", "b.zip": b"PK\3\4", "c.gz": gzip.compress(b"hello")})
        refused(tmp_path / "a.bin", "Looked for")
        refused(tmp_path / "b.zip", "unpack it and give the folder")
        refused(tmp_path / "c.gz", "Looked for")

    @pytest.mark.skipif(
        sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything"
    )
    def test_no_permission(self, tmp_path: Path) -> None:
        tmp_path.chmod(0)
        refused(tmp_path, "can't be read")
        tmp_path.chmod(0o700)

    def test_inner_folder_that_can_not_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path / "mnist", mnist())
        (tmp_path / "locked").mkdir()
        whole = Path.iterdir

        def locked(self: Path) -> Any:
            if self.name == "locked":
                raise PermissionError(errno.EACCES, "no permission")
            return whole(self)

        monkeypatch.setattr(Path, "iterdir", locked)
        assert load(tmp_path).name == "idx"
        refused(tmp_path / "locked", "can't be read: no permission")

    def test_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store_module, "MAX_BYTES", 1000)
        refused(write(tmp_path, cifar_python(10)), "larger than 0 MB")
