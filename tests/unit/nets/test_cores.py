"""A container that may use a part of a machine started a thread for each of its cores."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spoco_zoo.nets import cores

if TYPE_CHECKING:
    from collections.abc import Iterator

SAID = (
    "import torch; from spoco_zoo.nets.cores import keep_to_share; torch.set_num_threads(8); "
    "keep_to_share(); print(torch.get_num_threads())"
)
STARTED = """
import os
from spoco_zoo.segment.execute import make_executor

def threads(item):
    return os.environ["OMP_NUM_THREADS"]

if __name__ == "__main__":
    executor = make_executor(1, dashboard=False)
    executor.run(threads, [0], lambda _, said: print(said), lambda *why: print(why))
    executor.close()
"""


def remove(group: Path) -> None:
    """Remove a control group, which is busy until the last process has left it."""
    end = time.monotonic() + 60
    while True:
        try:
            group.rmdir()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@pytest.fixture
def limited() -> Iterator[Path]:
    """A real control group that may use half a core."""
    group = cores.GROUPS / "cpu" / f"spoco-test-{os.getpid()}"
    group = group if group.parent.is_dir() else cores.GROUPS / group.name
    old = (group.parent / "cpu.cfs_quota_us").exists()
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        (group / ("cpu.cfs_quota_us" if old else "cpu.max")).write_text("50000")
        yield group
    except OSError as error:
        pytest.skip(f"no limit can be set here: {error}")
    finally:
        remove(group)


def threads(group: Path, script: str = SAID, **environ: str) -> int:
    """What a script says in a process of a group: threads of torch, which asked for eight."""

    def enter() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**env, **environ},
        preexec_fn=enter,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


def test_torch_has_as_many_threads_as_the_group_has_cores(limited: Path) -> None:
    assert threads(limited) == 1


def test_who_says_how_many_threads_gets_them(limited: Path) -> None:
    assert threads(limited, OMP_NUM_THREADS="3") == 8


def test_a_worker_that_is_started_has_no_more_either(limited: Path) -> None:
    assert threads(limited, STARTED) == 1


@pytest.mark.parametrize(
    ("mine", "files", "share"),
    [
        pytest.param("0::/", {"cpu.max": "max 100000"}, math.inf, id="no limit"),
        pytest.param("0::/", {"cpu.max": "150000 100000"}, 1.5, id="container"),
        pytest.param(
            "0::/job/step",
            {"job/cpu.max": "400000 100000", "job/step/cpu.max": "max 100000"},
            4,
            id="the group around it",
        ),
        pytest.param(
            "3:cpuset:/\n2:cpu,cpuacct:/docker/1f",
            {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            2,
            id="version 1, path of the host",
        ),
        pytest.param(
            "1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf
        ),
        pytest.param("0::/gone", {}, math.inf, id="nothing to be seen"),
    ],
)
def test_limits_of_groups(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mine: str,
    files: dict[str, str],
    share: float,
) -> None:
    (tmp_path / "mine").write_text(mine)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    monkeypatch.setattr(cores, "MINE", tmp_path / "mine")
    monkeypatch.setattr(cores, "GROUPS", tmp_path / "groups")
    assert cores.share_of_cores() == share


def test_a_system_without_groups_has_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "MINE", tmp_path / "none")
    assert cores.share_of_cores() == math.inf
