"""A process that was held up comes back, and another one has taken over its run."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from campaign import Campaign
from planted import code_model, exact_cluster
from struck import Run

from spoco_zoo import locking, run_folder
from spoco_zoo.config import TrainConfig
from spoco_zoo.errors import SpocoError
from spoco_zoo.locking import LOCK
from spoco_zoo.segment import segment
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.segment.ledger import PROGRESS
from spoco_zoo.segment.outcome import Event
from spoco_zoo.train.journal import Progress
from spoco_zoo.train.run import train

SETTINGS = TrainConfig(
    iterations=40, validate_every=5, batch_size=2, crop=(32, 32), features=(4, 8),
    embedding_dim=4, instance_ratio=0.5, warmup=5, precision="float32", clustering="consistency",
)  # fmt: skip


def hand_over(folder: Path) -> str:
    """Put another process's name into a lock, and wait until this one has seen it."""
    other = {**json.loads((folder / LOCK).read_text()), "host": "elsewhere", "boot": "other"}
    (folder / LOCK).write_text(json.dumps(other))
    for thread in threading.enumerate():
        if thread.name == "lock":
            thread.join(60)
    return json.dumps(other)


def test_a_segmentation_went_on_beside_the_one_that_took_it_over(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locking, "BEAT", 0.01)
        control = Campaign(tmp_path, lambda text: None)
        run = Run(control, control.worlds[0], np.random.default_rng(0), tmp_path / "run")
        said: list[str] = []

        def listen(event: Event) -> None:
            if event.phase == "blocks" and event.done == 2:
                said.append(hand_over(run.scratch))

        begin = partial(
            segment, run.image, code_model(np.load(run.world.truth)), run.world.config,
            output=run.output, label_name="label", cluster=exact_cluster,
        )  # fmt: skip
        with pytest.raises(SpocoError, match="taken over by another process") as caught:
            begin(on_event=listen)
    assert caught.value.exit_code == 1
    assert (run.scratch / LOCK).read_text() == said[0]
    assert (run.scratch / PROGRESS).read_text().count('"phase":"block"') == 2
    (run.scratch / LOCK).unlink()
    assert begin().resumed == 2


def test_a_training_replaced_the_checkpoints_of_the_one_that_took_it_over(
    tmp_path: Path, draw_pairs: Callable[[Path, int, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "BEAT", 0.01)
    data, out = draw_pairs(tmp_path, 4, 48), tmp_path / "run"
    files: list[bytes] = []

    def listen(progress: Progress) -> None:
        if progress.step >= 12 and not files:
            files.extend([hand_over(out).encode(), (out / run_folder.LAST).read_bytes()])

    begin = partial(train, data / "images", data / "labels", out, SETTINGS, clusterer=cluster)
    with pytest.raises(SpocoError, match="taken over by another process"):
        begin(listen=listen)
    assert [(out / name).read_bytes() for name in (LOCK, run_folder.LAST)] == files
    (out / LOCK).unlink()
    assert begin(resume=True) is not None


def test_a_training_published_in_the_folder_of_the_one_that_took_it_over(
    tmp_path: Path, draw_pairs: Callable[[Path, int, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last checkpoint was saved before."""
    monkeypatch.setattr(locking, "BEAT", 0.01)
    data, out = draw_pairs(tmp_path, 4, 48), tmp_path / "run"

    def listen(progress: Progress) -> None:
        if progress.step == progress.total:
            hand_over(out)

    begin = partial(train, data / "images", data / "labels", out, SETTINGS, clusterer=cluster)
    with pytest.raises(SpocoError, match="taken over by another process"):
        begin(listen=listen)
    assert not (out / run_folder.METRICS).exists()
    assert not (out / run_folder.MODEL).exists()
    (out / LOCK).unlink()
    assert begin(resume=True) is not None
