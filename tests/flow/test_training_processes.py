"""Training in two processes, as ``torchrun`` starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

# Every process tells what it holds, under its own name.
DRIVER = """
import hashlib, os, sys
from pathlib import Path
import numpy as np
import torch
from spoco_zoo.config import TrainConfig
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.train import run
from spoco_zoo.train.loop import Trainer

held = {}
ends = Trainer.run

def listened(trainer, listen, say):
    crops = [trainer.crops[i][1] for i in trainer._indices(0)]
    ends(trainer, listen, say)
    labels = np.concatenate([s.labels.ravel() for s in trainer.split.train])
    held["labels"] = hashlib.sha256(labels.tobytes()).hexdigest()
    held["objects"] = sum(len(s.centres) for s in trainer.split.train)
    held["crops"] = hashlib.sha256(torch.stack(crops).numpy().tobytes()).hexdigest()
    held["step"] = trainer.step
    for name in ("network", "momentum"):
        state = getattr(trainer, name).state_dict().values()
        content = b"".join(t.numpy().tobytes() for t in state)
        held[name] = hashlib.sha256(content).hexdigest()

Trainer.run = listened
data, out, settings, resume = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "1"
result = run.train(data / "images", data / "labels", out, TrainConfig.model_validate_json(settings),
                   clusterer=cluster, device="cpu", resume=resume)
held["result"] = result is not None
threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
held["threads"] = sum("gloo_runloop" in name for name in threads)
import json
Path(out, f"held-{os.environ['RANK']}.json").write_text(json.dumps(held))
"""
SETTINGS = {
    "iterations": 6,
    "validate_every": 2,
    "batch_size": 4,
    "crop": [16, 16],
    "features": [4, 8],
    "embedding_dim": 4,
    "instance_ratio": 0.5,
    "warmup": 2,
    "precision": "float32",
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for n in range(6):
        labels = np.zeros((32, 32), np.uint16)
        labels[4:12, 4:12], labels[16:28, 14:26] = 1, 2
        image = labels * 60 + rng.integers(0, 20, labels.shape)
        tifffile.imwrite(tmp_path / "data/images" / f"{n}.tif", image.astype(np.float32))
        tifffile.imwrite(tmp_path / "data/labels" / f"{n}.tif", labels)
    return tmp_path / "data"


def torchrun(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    with launched(*arguments, **settings) as process:
        out, err = process.communicate(timeout=500)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def launched(*arguments: object, **settings: object) -> subprocess.Popen[str]:
    data, out, resume = arguments
    text = json.dumps({**SETTINGS, **settings})
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    driver = Path(str(data)).parent / "driver.py"
    driver.write_text(DRIVER)
    command = [*launcher, str(driver), str(data), str(out), text, str(resume)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **streams)


def test_two_processes_share_annotation_and_weights_and_one_of_them_writes(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = torchrun(data, out, 0)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((out / f"held-{rank}.json").read_text()) for rank in (0, 1))
    for name in ("labels", "objects", "network", "momentum", "step"):
        assert first[name] == second[name], name
    assert first["objects"] == 5  # half of those of the five training images
    assert first["crops"] != second["crops"]
    assert (first["result"], second["result"]) == (True, False)
    # A thread of the group that outlived it could abort a process on its way out.
    assert (first["threads"], second["threads"]) == (0, 0)
    lines = (out / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 6]
    # Once more: it is finished, for every process.
    before = (out / "model.json").stat().st_mtime_ns
    done = torchrun(data, out, 1)
    assert done.returncode == 0, done.stderr[-3000:]
    held = [json.loads((out / f"held-{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["result"] for one in held] == [True, False]
    assert (out / "model.json").stat().st_mtime_ns == before


def test_early_stop_ends_all_processes(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    still = {"learning_rate": 1e-12, "momentum": 0.0, "patience": 1, "iterations": 400}
    done = torchrun(data, out, 0, **still)
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [json.loads((out / f"held-{rank}.json").read_text())["step"] for rank in (0, 1)]
    assert steps == [4, 4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_ends_all_processes_after_the_same_step(
    data: Path, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "run"
    with launched(data, out, 0, iterations=100_000, validate_every=100_000) as process:
        while not (out / "log.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
        _, err = process.communicate(timeout=200)
    assert process.returncode != 0
    saved = torch.load(out / "last.pt", weights_only=True)
    assert saved["step"] >= 50
    assert err.count(f"stopped after step {saved['step']}, which is saved") == 2


def test_a_batch_that_cannot_be_shared_is_refused(data: Path, tmp_path: Path) -> None:
    done = torchrun(data, tmp_path / "run", 0, batch_size=3)
    assert done.returncode != 0
    assert "multiple of the number of processes; found 3 crops for 2" in done.stderr
