"""Whose an unfinished label is.

The lock in a run folder keeps out whoever sees that folder. Drivers elsewhere may see an object
store alone, so a run says there who it is before its work begins, until the label is published::

    attributes    "spoco_zoo": {"state": "unfinished", "run": "5f0c...", "host": "node7",
                                "since": "2026-11-27T18:00:00+00:00"}
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import Any, Literal

import zarr

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff.remote import is_remote, place_of
from spoco_zoo.ngff.target import MARK, LabelTarget, state_of

__all__ = ["check_claim", "claim_label", "is_claimed", "make_group"]


def claim_label(target: LabelTarget) -> None:
    """Mark a label in an object store as that of the run ``target.run``.

    A finished label is left as it is: it is replaced once all blocks are done.

    Raises
    ------
    StoreError
        If another run has marked it, unless the target is to overwrite it.
    """
    if not is_remote(target.path):
        return
    state = state_of(target.path)
    if state == "unfinished" and not target.overwrite:
        check_claim(target, "Wait for it; if it is gone for good, add --overwrite.")
    if state in ("absent", "unfinished"):
        group = make_group(target)
        if _mark_in(group).get("run") != target.run:
            group.attrs[MARK] = _mark(target)


def check_claim(target: LabelTarget, remedy: str) -> None:
    """Raise if a label in an object store is marked as that of another run."""
    mark = _read(target) if is_remote(target.path) else {}
    if mark.get("run", target.run) != target.run:
        raise StoreError(
            "one run at a time may write to an output",
            f"one on {mark.get('host')} that began {mark.get('since')}, at {target.path}",
            remedy,
        )


def is_claimed(target: LabelTarget) -> bool:
    """Whether an unfinished label in an object store is marked as that of ``target.run``."""
    if not is_remote(target.path) or state_of(target.path) != "unfinished":
        return False
    return bool(_read(target).get("run") == target.run)


def make_group(target: LabelTarget) -> zarr.Group:
    """The group of a label, made and marked as unfinished if it is not there."""
    zarr_format: Literal[2, 3] = 2 if target.version == "0.4" else 3
    mark: dict[str, Any] = {MARK: _mark(target)}
    group = zarr.open_group(
        place_of(target.path), mode="a", zarr_format=zarr_format, attributes=mark
    )
    if MARK not in group.attrs:
        group.attrs.update(mark)
    return group


def _mark(target: LabelTarget) -> dict[str, str]:
    if not is_remote(target.path):
        return {"state": "unfinished"}
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "state": "unfinished",
        "run": target.run,
        "host": socket.gethostname(),
        "since": since,
    }


def _read(target: LabelTarget) -> dict[str, Any]:
    """The mark of a label; empty if there is none."""
    return _mark_in(zarr.open_group(place_of(target.path), mode="r", use_consolidated=False))


def _mark_in(group: zarr.Group) -> dict[str, Any]:
    mark = group.attrs.get(MARK)
    return mark if isinstance(mark, dict) else {}
