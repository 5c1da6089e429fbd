"""Threads of torch where a container may use fewer cores than it sees.

``docker --cpus 4`` and limits of Kubernetes leave all cores of a machine in sight and stop a
process that has used its share of them for the rest of every tenth of a second. torch starts a
thread for each core that it sees; those that were stopped then keep the others waiting.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

__all__ = ["keep_to_share", "share_of_cores"]

GROUPS = Path("/sys/fs/cgroup")
MINE = Path("/proc/self/cgroup")


def keep_to_share() -> None:
    """Let torch use no more threads than this process has cores, unless ``OMP_NUM_THREADS`` is set.

    The cores that a process is bound to (affinity) torch knows by itself.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        share = share_of_cores()
        if share < torch.get_num_threads():
            torch.set_num_threads(max(math.ceil(share), 1))


def share_of_cores() -> float:
    """Cores' worth of time that the control groups (cgroup, 1 and 2) of this process allow.

    Returns
    -------
    float
        The least of the limits of its groups and of those around them; infinite without any, and
        on a system that has no such groups.
    """
    try:
        lines = MINE.read_text().splitlines()
    except OSError:
        return math.inf
    least = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = GROUPS / controllers
        # Inside of a container the path may be that outside of it, where nothing is: only its
        # own group is then to be seen, at the top.
        group = base / path.strip("/")
        while True:
            least = min(least, _limit(group))
            if group == base:
                break
            group = group.parent
    return least


def _limit(group: Path) -> float:
    """Cores that one group may use; infinite where no limit is set, or none can be read."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = ((group / name).read_text() for name in names)
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # "max", or a group that has no such file
        return math.inf
