"""The campaign and the fuzz in short: the same runs every time, so that what fails can be repeated.

The long forms are ``python -m tests.faults.campaign`` and ``python -m tests.faults.fuzz``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from campaign import campaign
from fuzz import KINDS, fuzz


def test_no_random_fault_loses_or_changes_a_byte(capfd: pytest.CaptureFixture[str]) -> None:
    found = campaign(8, 100, 10, lambda text: None)
    assert found["replay"] == [], capfd.readouterr().err
    assert sum(found["faults"].values()) > 0


def test_no_random_input_crashes() -> None:
    told: list[str] = []
    found = fuzz(3 * len(KINDS), 100, told.append)
    assert found["crashes"] == 0, "\n".join(told)
    assert all(sum(outcomes.values()) == 3 for outcomes in found["by_kind"].values())
