"""The same bytes for any number of workers and any order of completion."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
from planted import (
    code_model,
    exact_cluster,
    read_labels,
    same_partition,
    store_bytes,
    tissue,
    write_image,
)

from spoco_zoo.config import SegmentConfig
from spoco_zoo.nets.model import Model
from spoco_zoo.segment import dry_run, segment
from spoco_zoo.segment.execute import InProcess
from spoco_zoo.segment.ledger import Ledger
from spoco_zoo.segment.network.models import (
    ModelRef,
    obtain_model,
    read_model,
    remember_model,
)
from spoco_zoo.segment.phases import Run
from spoco_zoo.segment.run import _share

SMALL = SegmentConfig(block=(64, 64), overlap=(16, 16), patch=(64, 64), halo=(12, 12))


class Shuffled(InProcess):
    """Runs items in a random order, as the workers of a busy cluster finish them."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def run(self, task, items, on_result, on_failure) -> None:
        every = list(items)
        order = [every[i] for i in self.rng.permutation(len(every))]
        super().run(task, order, on_result, on_failure)


class Fragile(InProcess):
    """Loses every row of more than one block, as when a worker dies with all that it held."""

    lost = 0

    def run(self, task, items, on_result, on_failure) -> None:
        for item in items:
            # Items of other phases are named tuples, or hold slices.
            if type(item) is tuple and len(item) > 1 and all(isinstance(i, int) for i in item):
                self.lost += 1
                on_failure(item, "its worker died every time")
            else:
                super().run(task, [item], on_result, on_failure)


def test_dask_kills_no_worker_for_its_memory(tmp_path: Path) -> None:
    import dask
    import distributed  # noqa: F401 - first, or its own settings would go when this one does

    truth = tissue((100, 150), 20, seed=1)
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    # As on a machine of many cores, of which one has a share that is soon exceeded.
    with dask.config.set({"distributed.worker.memory.terminate": 0.001}):
        segment(
            image,
            code_model(truth),
            SMALL,
            output=tmp_path / "o.zarr",
            workers=1,
            cluster=exact_cluster,
        )
    assert same_partition(read_labels(tmp_path / "o.zarr"), truth)


def test_bfloat16_that_would_be_slower_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = tissue((60, 60), 6, seed=1)
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    low = SMALL.model_copy(update={"precision": "bfloat16"})
    for has in (True, False):
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda has=has: has)
        said: list[str] = []
        segment(
            image,
            code_model(truth),
            low,
            output=tmp_path / f"{has}.zarr",
            device="cpu",
            cluster=exact_cluster,
            on_event=lambda event, said=said: said.append(event.message),
        )
        assert any("float32 would be faster" in text for text in said) == (not has)


def test_blocks_of_a_lost_row_are_tried_one_by_one(tmp_path: Path) -> None:
    truth = tissue((100, 150), 20, seed=1)
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    model = code_model(truth)
    remember_model(model)
    plan = dry_run(image, model, SMALL, output=tmp_path / "o.zarr")
    plan.folder.mkdir()
    executor = Fragile()
    with Ledger(plan.folder, {}) as ledger:
        run = Run(plan, ledger, executor, lambda event: None)
        result = run.all(ModelRef("", model.fingerprint), exact_cluster, "cpu")
    assert executor.lost == 2
    assert result.summary["blocks"]["blocks"] == 6
    assert same_partition(read_labels(tmp_path / "o.zarr"), truth)


def test_workers_and_their_order_do_not_show(tmp_path: Path) -> None:
    truth = tissue((200, 210), 60, seed=1)
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    model = code_model(truth)
    outputs = {}
    for workers in (0, 2):
        output = tmp_path / f"workers{workers}.zarr"
        segment(
            image,
            model,
            SMALL,
            output=output,
            label_name="same",
            workers=workers,
            dashboard=False,
            cluster=exact_cluster,
        )
        outputs[workers] = store_bytes(output)
    remember_model(model)
    for seed in (1, 2):
        plan = dry_run(image, model, SMALL, output=tmp_path / f"s{seed}.zarr", label_name="same")
        plan.folder.mkdir()
        with Ledger(plan.folder, {}) as ledger:
            run = Run(plan, ledger, Shuffled(seed), lambda event: None)
            run.all(ModelRef("", model.fingerprint), exact_cluster, "cpu")
        outputs[f"order {seed}"] = store_bytes(tmp_path / f"s{seed}.zarr")
    assert len(outputs[0]) > 10
    assert all(found == outputs[0] for found in outputs.values())


SCRIPT = """
import subprocess
import sys
sys.path.insert(0, {planted!r})
from planted import code_model, exact_cluster, tissue
from spoco_zoo.segment import segment
truth = tissue((40, 90), 14, seed=2)
segment({image!r}, code_model(truth), output={output!r}, workers=1, cluster=exact_cluster)
"""


def test_a_script_that_starts_workers_at_its_top_is_told_so(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.ome.zarr", tissue((40, 90), 14, seed=2), "YX")
    script = tmp_path / "script.py"
    planted = str(Path(__file__).parents[1] / "unit" / "segment")
    output = str(tmp_path / "labels.ome.zarr")
    script.write_text(SCRIPT.format(planted=planted, image=str(image), output=output))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    assert 'below `if __name__ == "__main__":`' in done.stderr
    assert "the worker processes did not start" in done.stderr.splitlines()[-1]
    assert not Path(output).exists()


def test_workers_in_another_directory_did_not_find_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = code_model(tissue((40, 90), 14, seed=2))
    image = write_image(tmp_path / "image.ome.zarr", tissue((40, 90), 14, seed=2), "YX")
    plan = dry_run(image, model)
    (tmp_path / "bundle.zip").touch()
    monkeypatch.chdir(tmp_path)
    assert _share("bundle.zip", model, plan, InProcess()).source == str(tmp_path / "bundle.zip")
    assert _share("nuclei-fluo-2d", model, plan, InProcess()).source == "nuclei-fluo-2d"
    # One that is loaded already stays out of what tasks carry to workers.
    known = ModelRef("bundle.zip", model.fingerprint, model=model)
    shared = _share(known, model, plan, InProcess())
    assert (shared.source, shared.model) == (str(tmp_path / "bundle.zip"), None)


def test_several_runs_with_one_model_make_it_ready_once() -> None:
    model, other = (code_model(tissue((40, 90), 14, seed=seed)) for seed in (2, 3))
    ref = ModelRef("bundle.zip", model.fingerprint, model=model)
    assert read_model(ref) is model

    def ready() -> Model:
        return obtain_model(ref, torch.device("cpu"), "float32", graphs=False)

    remember_model(model)
    first = ready()
    remember_model(model)
    assert ready() is first
    remember_model(other)
    assert ready() is not first
