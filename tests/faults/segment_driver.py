"""A process that segments and may die on the way.

`kill_after` is the number of finished items after which the driver kills itself.
`cluster` names one of the functions below, which may kill the worker they run in;
the folder SPOCO_FAULTS holds the marks that tell them whether to.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
from planted import code_model, exact_cluster

from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import SpocoError
from spoco_zoo.segment import segment

POISON = 7
"""Blocks that see this object are the bad ones."""
CONFIG = SegmentConfig(block=(64, 64), overlap=(12, 12), patch=(64, 64), halo=(12, 12))


def _faults() -> Path:
    return Path(os.environ["SPOCO_FAULTS"])


def _sees_poison(embeddings) -> bool:
    digits = [round(4.0 * (POISON // 16**k % 16)) for k in range(3)]
    wanted = embeddings.new_tensor(digits).reshape(-1, 1, 1)
    return bool((embeddings == wanted).all(0).any())


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dies_once(embeddings, config, background, /, *, momentum=None):
    """The first worker that gets here dies; the mark keeps the others alive."""
    try:
        (_faults() / "died").touch(exist_ok=False)
    except FileExistsError:
        return exact_cluster(embeddings, config, background)
    _die()


def poisonous(embeddings, config, background, /, *, momentum=None):
    """Every worker that touches a bad block dies, until somebody mends it."""
    if _sees_poison(embeddings) and not (_faults() / "mended").exists():
        _die()
    return exact_cluster(embeddings, config, background)


def fails(embeddings, config, background, /, *, momentum=None):
    """A bad block raises, until somebody mends it."""
    if _sees_poison(embeddings) and not (_faults() / "mended").exists():
        raise ValueError("a bad block")
    return exact_cluster(embeddings, config, background)


def slow(embeddings, config, background, /, *, momentum=None):
    """A block takes its time, and leaves a mark when it begins."""
    (_faults() / f"{os.getpid()}-{time.monotonic_ns()}").touch()
    time.sleep(1)
    return exact_cluster(embeddings, config, background)


def plain(embeddings, config, background, /, *, momentum=None):
    """Nothing goes wrong."""
    return exact_cluster(embeddings, config, background)


def child(streams: tuple[Path, Path], env: dict[str, str], arguments: list[str]) -> None:
    """Where a forked process begins: its own streams and environment, then the run."""
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(env)
    run(*arguments)


def run(image: str, output: str, truth: str, workers: str, cluster: str, kill_after: str) -> None:
    """Segment as the command line does."""
    if "SPOCO_FILE_LIMIT" in os.environ:
        limit = int(os.environ["SPOCO_FILE_LIMIT"])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    countdown = int(kill_after)

    def on_event(event) -> None:
        nonlocal countdown
        if event.done == 0 or event.message:
            return
        countdown -= 1
        if countdown == 0:
            _die()

    try:
        result = segment(
            image,
            code_model(np.load(truth)),
            CONFIG,
            output=output,
            label_name="label",
            workers=int(workers),
            dashboard=False,
            cluster=globals()[cluster],
            on_event=on_event,
        )
    except SpocoError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    print(result.objects, result.resumed, flush=True)
