"""Writes small data sets in the forms in which people have them."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TEN = [
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
]


def some(many: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (many, *shape), dtype=np.uint8)


def python2(value: object) -> bytes:
    """Pickle as cPickle of Python 2 did with protocol 2: text is bytes, arrays are of NumPy 1."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: object) -> bytes:  # noqa: PLR0911 - a case for each type
    match value:
        case bytes() if len(value) < 256:
            return b"U" + bytes([len(value)]) + value + b"q\x01"
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value + b"r\x00\x01\x00\x00"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if 0 <= value < 256:
            return b"K" + bytes([value])
        case int():
            return b"J" + struct.pack("<i", value)
        case list():
            return b"]q\x02(" + b"".join(map(_python2, value)) + b"e"
        case dict():
            pairs = b"".join(_python2(k) + _python2(v) for k, v in value.items())
            return b"}q\x03(" + pairs + b"u"
        case np.ndarray():
            shape = b"(" + b"".join(_python2(extent) for extent in value.shape) + b"t"
            kind = _python2(value.dtype.str[1:].encode())
            return (
                b"cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nq\x05K\x00\x85U\x01b"
                b"\x87Rq\x06(K\x01" + shape + b"cnumpy\ndtype\n" + kind + b"K\x00K\x01\x87R"
                b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
                b"\x89" + _python2(value.tobytes()) + b"tb"
            )
    raise TypeError(value)


def numpy1(value: object, protocol: int = 2) -> bytes:
    """Pickle as Python 3 with NumPy 1 does."""
    raw = pickle.dumps(value, protocol)
    return raw.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")


def numpy2(value: object) -> bytes:
    """Pickle as Python 3 with NumPy 2 does."""
    return pickle.dumps(value, 2)


def cifar(kind: int, many: int = 12) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[str]]:
    """Images and labels of each file of CIFAR-10 or CIFAR-100, and the names of the classes."""
    parts = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    parts = parts if kind == 10 else ["train", "test"]
    files = {
        part: (some(many, 3, 32, 32, seed=k), (np.arange(many) * (k + 1)) % kind)
        for k, part in enumerate(parts)
    }
    return files, TEN if kind == 10 else [f"class{k}" for k in range(100)]


def cifar_python(kind: int, dumps: Any = python2) -> dict[str, bytes]:
    """Contents of the files of the python version."""
    files, names = cifar(kind)
    labels = b"labels" if kind == 10 else b"fine_labels"
    raw = {
        name: dumps(
            {
                b"batch_label": b"x" * 300,
                labels: y.tolist(),
                b"data": x.reshape(len(x), -1),
                b"filenames": [f"{k}.png".encode() for k in range(len(x))],
            }
        )
        for name, (x, y) in files.items()
    }
    meta, key = ("batches.meta", b"label_names") if kind == 10 else ("meta", b"fine_label_names")
    raw[meta] = dumps({key: [name.encode() for name in names]})
    return raw


def cifar_binary(kind: int) -> dict[str, bytes]:
    """Contents of the files of the binary version."""
    files, names = cifar(kind)
    raw = {}
    for name, (x, y) in files.items():
        head = y[:, None] if kind == 10 else np.stack([y // 5, y], 1)
        raw[f"{name}.bin"] = np.hstack([head, x.reshape(len(x), -1)]).astype(np.uint8).tobytes()
    meta = "batches.meta.txt" if kind == 10 else "fine_label_names.txt"
    raw[meta] = ("\n".join(names) + "\n\n").encode()
    return raw


def idx(array: np.ndarray) -> bytes:
    """Bytes along any number of axes."""
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def mnist(*, packed: bool = False, dot: str = "-") -> dict[str, bytes]:
    """Contents of the four files."""
    files = {
        f"train-images{dot}idx3-ubyte": idx(some(20, 28, 28)),
        f"train-labels{dot}idx1-ubyte": idx(np.arange(20) % 10),
        f"t10k-images{dot}idx3-ubyte": idx(some(10, 28, 28, seed=1)),
        f"t10k-labels{dot}idx1-ubyte": idx(np.arange(10)),
    }
    return {f"{n}.gz": gzip.compress(raw) for n, raw in files.items()} if packed else files


def picture(pixels: np.ndarray, form: str = "PNG", **how: Any) -> bytes:
    """An image file of pixels (C, H, W)."""
    from PIL import Image

    raw = io.BytesIO()
    shown = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(shown)).save(raw, form, **how)
    return raw.getvalue()


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files, and the folders they are in."""
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    return folder


def tar(
    path: Path, files: Mapping[str, bytes], others: Sequence[tarfile.TarInfo] = (), mode: str = "gz"
) -> Path:
    """Write an archive of files, and of members that hold nothing."""
    with tarfile.open(path, f"w:{mode}") as archive:
        for name, raw in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
        for member in others:
            archive.addfile(member)
    return path


def jpeg_pack(path: Path, many: int = 12, **changed: Any) -> Path:
    """Write a pack of JPEG files whose first 20 bytes are the same."""
    files = [picture(some(1, 3, 16, 16, seed=k)[0], "JPEG", quality=90) for k in range(many)]
    header = files[0][:20]
    assert all(file.startswith(header) for file in files)
    bodies = [file[20:] for file in files]
    arrays = {
        "header": np.frombuffer(header, np.uint8),
        "payload": np.frombuffer(b"".join(bodies), np.uint8),
        "offsets": np.cumsum([0, *map(len, bodies)]).astype(np.uint32),
        "labels": (np.arange(many) % 3).astype(np.uint8),
        "train": np.arange(many) >= many // 3,
    }
    np.savez(path, **{name: a for name, a in (arrays | changed).items() if a is not None})
    return path
