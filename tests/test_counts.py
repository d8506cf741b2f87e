"""The closed form equals the walk on every count of every case."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from oracle import walk
from strategies import cases

from energysim.axes import Shape, Tensor
from energysim.mapping import Nest, Rules
from energysim.model.counts import count

WALKED = ("fill", "read", "update", "drain", "update_complete", "drain_complete", "hop")


def differences(shape: Shape, nest: Nest, trips: list[int], rules: Rules) -> list[str]:
    """Every count where the closed form and the walk differ."""
    walked = walk(shape, nest, trips, rules)
    ours = count(shape, nest, np.array([trips]), rules)
    found = []
    if int(ours.steps[0]) != walked.steps:
        found.append(f"steps: {int(ours.steps[0])} != {walked.steps}")
    keys = {key for key in ours.values if key[2] in WALKED} | set(walked.counts)
    for key in sorted(keys):
        mine, theirs = int(ours(*key)[0]), walked.counts.get(key, 0)
        if mine != theirs:
            found.append(f"{key}: {mine} != {theirs}")
    for level, tensor, name in ours.values:
        # Outputs are stored in their final width only where no partial sum arrives.
        if name == "final" and tensor is Tensor.OUTPUT and int(ours(level, tensor, name)[0]):
            arrived, complete = (
                walked.counts.get((level, tensor, each), 0)
                for each in ("update", "update_complete")
            )
            if arrived != complete:
                found.append(f"level {level} final, but {arrived - complete} partial sums arrive")
    return found


@settings(max_examples=6 * settings.default.max_examples)  # `many_cases.py` tries any number
@given(cases())
def test_counts_equal_the_walk(case: tuple[Shape, Nest, list[int], Rules]) -> None:
    assert differences(*case) == []
