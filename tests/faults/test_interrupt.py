"""Ctrl-C and SIGTERM: what is in flight is finished and kept, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
sys.path.insert(0, str(Path(__file__).parent))
import segment_driver
from hearing import all_ears
from planted import code_model, exact_cluster, read_labels, same_partition, tissue, write_image

from spoco_zoo.errors import Interrupted
from spoco_zoo.segment import Event, segment
from spoco_zoo.segment.execute import make_executor
from spoco_zoo.stopping import Stop


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupt")
    truth = tissue((256, 180), 80, seed=5)
    np.save(folder / "truth.npy", truth)
    write_image(folder / "image.ome.zarr", truth, "YX")
    return folder


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("blocks", signal.SIGINT),
        ("faces", signal.SIGINT),
        ("relabel", signal.SIGINT),
        ("blocks", signal.SIGTERM),
    ],
)
def test_the_first_signal_keeps_all_that_is_done(
    place: Path, tmp_path: Path, phase: str, number: int
) -> None:
    truth, seen = np.load(place / "truth.npy"), []

    def interrupt(event: Event) -> None:
        seen.append(event)
        if event.phase == phase and event.done == 3:
            signal.raise_signal(number)

    arguments = (place / "image.ome.zarr", code_model(truth), segment_driver.CONFIG)
    options = {"output": tmp_path / "o.zarr", "cluster": exact_cluster}
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="same command"):
        segment(*arguments, **options, on_event=interrupt)
    assert signal.getsignal(number) is before
    assert any("Ctrl-C again" in event.message for event in seen)
    # Nothing began after the request.
    assert max(event.done for event in seen if event.phase == phase) == 3
    result = segment(*arguments, **options)
    assert result.resumed == (3 if phase == "blocks" else 12)
    assert same_partition(read_labels(tmp_path / "o.zarr"), truth)


def test_ctrl_c_waited_for_a_whole_row_of_blocks(tmp_path: Path) -> None:
    truth = tissue((32, 640), 40, seed=5)
    image, seen = write_image(tmp_path / "image.ome.zarr", truth, "YX"), []
    config = segment_driver.CONFIG.model_copy(update={"block": (32, 32), "overlap": (8, 8)})

    def interrupt(event: Event) -> None:
        seen.append(event)
        if event.phase == "blocks" and event.done == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        segment(image, code_model(truth), config, cluster=exact_cluster, on_event=interrupt)
    # With several threads a block or two are in flight.
    assert max(event.done for event in seen if event.phase == "blocks") <= 4


def test_the_second_ctrl_c_ends_at_once(place: Path, tmp_path: Path) -> None:
    truth = np.load(place / "truth.npy")

    def impatient(embeddings, config, background, /, *, momentum=None):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")

    with pytest.raises(Interrupted):
        segment(
            place / "image.ome.zarr",
            code_model(truth),
            segment_driver.CONFIG,
            output=tmp_path / "o.zarr",
            cluster=impatient,
        )


def test_ctrl_c_was_not_heard_while_items_of_dead_workers_were_tried_again() -> None:
    executor, stop, failed = make_executor(1, dashboard=False), Stop(), []

    def failure(item: int, reason: str) -> None:
        failed.append((item, reason))
        stop.ask()

    executor.stop = stop
    try:
        with pytest.raises(Interrupted):
            executor.run(os._exit, [5, 6], lambda item, result: None, failure)
    finally:
        executor.close()
    assert len(failed) == 1
    assert "died every time" in failed[0][1]


@pytest.mark.parametrize(
    ("number", "send"),
    [
        (signal.SIGINT, os.killpg),
        (signal.SIGTERM, os.killpg),
        (signal.SIGHUP, os.killpg),
        (signal.SIGTERM, os.kill),
    ],
)
def test_workers_finish_what_they_have_begun(
    place: Path, tmp_path: Path, number: int, send: Callable[[int, int], None]
) -> None:
    """A terminal sends Ctrl-C to every process of the group, SLURM SIGTERM; others the driver's."""
    output, marks = tmp_path / "o.zarr", tmp_path / "marks"
    marks.mkdir()
    here = Path(__file__).parent
    code = (
        f"import sys; sys.path.insert(0, {str(here)!r}); import segment_driver\n"
        "if __name__ == '__main__':\n    segment_driver.run(*sys.argv[1:])\n"
    )
    (tmp_path / "driver.py").write_text(code)
    arguments = [str(place / "image.ome.zarr"), str(output), str(place / "truth.npy")]
    command = [sys.executable, str(tmp_path / "driver.py"), *arguments, "2", "slow", "-1"]
    env = {**os.environ, "SPOCO_FAULTS": str(marks)}
    driver = subprocess.Popen(
        command,
        env=env,
        start_new_session=True,
        preexec_fn=all_ears,
        stderr=subprocess.PIPE,
        text=True,
    )
    began = time.monotonic()
    while not any(marks.iterdir()) and time.monotonic() - began < 600:
        assert driver.poll() is None, driver.communicate()[1]
        time.sleep(0.1)
    send(driver.pid, number)
    _, errors = driver.communicate(timeout=600)
    assert driver.returncode == 130, errors
    assert "same command" in errors
    begun = len(list(marks.iterdir()))
    assert 0 < begun < 12
    done = subprocess.run(
        [*command[:-3], "0", "slow", "-1"], env=env, capture_output=True, text=True, check=True
    )
    objects, resumed = map(int, done.stdout.split())
    assert objects == len(np.unique(np.load(place / "truth.npy")))
    # Every block that a worker had begun was finished and kept.
    assert resumed == begun
