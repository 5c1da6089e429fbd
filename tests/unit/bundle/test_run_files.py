"""What of a run may leave the machine that it was trained on."""

from __future__ import annotations

import pytest

from spoco_zoo.bundle.run_files import public_settings
from spoco_zoo.config import TrainConfig


@pytest.mark.parametrize(
    ("init", "shown"), [("/lab/ann/runs/first", "first"), ("nuclei-fluo-2d", "nuclei-fluo-2d")]
)
def test_folders_of_the_machine_are_left_out_of_the_settings(init: str, shown: str) -> None:
    config = TrainConfig(init=init, split="splits/a.json", iterations=7)
    text = public_settings(config)
    assert f"init: {shown}\n" in text
    assert "split: splits/a.json\n" in text
    assert "ann" not in text.replace("annotation", "")
    assert config.init == init
