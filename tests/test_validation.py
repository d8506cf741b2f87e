"""Our numbers beside those of chips, vendors and other tools."""

from __future__ import annotations

import pytest

from energysim.validation import KINDS, studies


@pytest.mark.parametrize("name", [study.name for study in studies()])
def test_every_study_holds(name: str) -> None:
    (study,) = studies((name,))
    assert study.kind in KINDS
    assert study.checks
    assert any(check.claimed for check in study.checks)
    assert [f"{check.what}, {check.quantity}" for check in study.failed] == []
