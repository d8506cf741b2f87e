"""The data that comes with the package: 1,797 handwritten digits.

References
----------
E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998. https://doi.org/10.24432/C50P49
"""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np

from energysim.train.data.dataset import Dataset, Split


def digits() -> Dataset:
    """1,797 handwritten digits of 8x8 pixels, with grey levels from 0 to 16.

    They are the test part of the UCI set in the form that scikit-learn 1.9.1 ships
    (``digits.csv.gz``). Which are for testing is fixed: with the classes laid end to end, each in
    the order of the file, every fifth, so 360 against 1,437 to train on. Who wrote a digit is not
    recorded: the same hands may be on both sides.

    It is enough to see that training works. Nothing about large networks follows from it.
    """
    with (
        as_file(files("energysim.train.data") / "digits.npz") as path,
        np.load(path, allow_pickle=False) as arrays,
    ):
        images, labels, test = (arrays[name] for name in ("images", "labels", "test"))
    whole = Split(images, labels.astype(np.int64))
    return Dataset(
        name="digits",
        train=whole.take(np.flatnonzero(~test)),
        test=whole.take(np.flatnonzero(test)),
        classes=tuple("0123456789"),
        source=(
            "E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine"
            " Learning Repository, 1998, doi:10.24432/C50P49; as in scikit-learn 1.9.1"
        ),
        licence="CC BY 4.0",
        layout="digits, bundled: 8x8 grey",
        notes=("grey levels from 0 to 16",),
    )
