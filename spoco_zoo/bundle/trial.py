"""The first run of a stranger's network: in a process of its own, with limits.

TorchScript and ONNX are programs. They may loop for ever or ask for any amount
of memory, on their first voxel or while they are loaded. So they are loaded and
run once where the operating system ends them, before this process opens them.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from spoco_zoo.bundle.archive import DISTRUST
from spoco_zoo.errors import BundleError, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["try_network"]

CPU_SECONDS, WALL_SECONDS = 120, 1800
"""Computing time, and the clock's on a machine that has other things to do."""
BYTES = 8 * 2**30


def try_network(
    content: bytes,
    kind: str,
    name: str,
    shape: Sequence[int],
    output: int,
    *,
    seconds: int = CPU_SECONDS,
    memory: int = BYTES,
) -> None:
    """Load a network and run it on zeros, within limits of time and memory.

    Parameters
    ----------
    content : bytes
        The weight file.
    kind : {"torchscript", "onnx"}
    name : str
        What to call the file in an error.
    shape : sequence of int
        Of the input (N, C, [Z,] Y, X).
    output : int
        Which output is wanted.
    seconds, memory : int
        Computing time and bytes that the process may take, its libraries included.

    Raises
    ------
    BundleError
        If it does not run, or not within the limits.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights"
        file.write_bytes(content)
        asked = [str(file), kind, name, json.dumps([*shape]), str(output)]
        asked += [str(seconds), str(memory)]
        command = [sys.executable, "-m", "spoco_zoo.bundle.trial", *asked]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=WALL_SECONDS, env=environment
            )
        except subprocess.TimeoutExpired:
            code, reason = -1, f"still at work after {WALL_SECONDS} s"
        else:
            lines = done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"]
            code, reason = done.returncode, lines[-1]
    if code:
        raise BundleError(
            f"a network must run on its smallest input within {seconds} s and "
            f"{memory // 2**20} MiB",
            f"{reason[-150:]} ({name})",
            DISTRUST,
        )


def _run(
    file: str, kind: str, name: str, shape: str, output: str, seconds: str, memory: str
) -> None:
    """What the process of its own does."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds),) * 2)
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import torch

    from spoco_zoo.bundle.weights import read_onnx, read_torchscript

    content = Path(file).read_bytes()
    try:
        network = (
            read_torchscript(content, name)
            if kind == "torchscript"
            else read_onnx(content, name, int(output))
        )
        with torch.inference_mode():
            network(torch.zeros(json.loads(shape)))
    except Exception as error:  # whatever the foreign network raises
        sys.exit(one_line(error))


if __name__ == "__main__":
    _run(*sys.argv[1:])
