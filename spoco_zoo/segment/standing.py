"""What a run depends on besides its settings, and what it would do with what is there."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from spoco_zoo import ngff
from spoco_zoo.errors import LedgerError, StoreError
from spoco_zoo.nets.device import find_device
from spoco_zoo.segment.cluster import cluster as own_cluster
from spoco_zoo.segment.ledger import began_overwriting, entries_of, is_unfinished
from spoco_zoo.segment.network.inference import uses_bfloat16
from spoco_zoo.segment.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from spoco_zoo.nets.model import Model
    from spoco_zoo.segment.network.models import ModelRef
    from spoco_zoo.segment.plan import Plan

__all__ = ["WRITABLE", "foretell", "name_of", "with_precision"]

WRITABLE = "the output folder must be writable"
"""Rule for the folder in which a run keeps its own files, beside the output."""


def foretell(plan: Plan, model: Model | ModelRef, device: str, *, overwrite: bool) -> str:
    """What a run would do with what is there; writes nothing, and looks at no pixel.

    Parameters
    ----------
    plan : Plan
    model : Model or ModelRef
    device, overwrite
        See `spoco_zoo.segment.segment`.

    Raises
    ------
    LedgerError
        If it would be refused, because an unfinished run is another.
    StoreError
        If it would be, because its folder could not be made or written.
    """
    _check_writable(plan.folder)
    if is_unfinished(plan.folder) and (began_overwriting(plan.folder) or not overwrite):
        fingerprint = with_precision(plan, device).fingerprint(
            model.fingerprint, name_of(own_cluster)
        )
        progress = Progress(plan.grid.total)
        try:
            for entry in entries_of(plan.folder, fingerprint):
                progress.add(entry)
        except LedgerError as error:
            if not overwrite:
                raise
            return f"begins again: {error.rule}; found {error.found}"
        return f"goes on: {progress.blocks_done} of {plan.grid.total} blocks are done"
    free = ngff.state_of(plan.output) in ("absent", "unfinished")
    return "begins" if free else "replaces what is there"


def _check_writable(folder: Path) -> None:
    """Raise unless a folder can be written, or made; makes nothing."""
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "no rights to write" if there.is_dir() else "no folder"
        raise StoreError(WRITABLE, f"{what} at {there}", "Choose another with --output.")


def name_of(cluster: object) -> str:
    """What tells a clustering from others, with the settings that are bound to it."""
    if isinstance(cluster, partial):
        # Its own text holds an address, which is another one in the process that goes on.
        return f"{name_of(cluster.func)}{cluster.args}{sorted(cluster.keywords.items())}"
    return f"{getattr(cluster, '__module__', '')}.{getattr(cluster, '__qualname__', cluster)}"


def with_precision(plan: Plan, device: str) -> Plan:
    """The plan with a precision that no longer depends on the device of whoever goes on with it."""
    low = uses_bfloat16(find_device(device), plan.config.precision)
    precision = "bfloat16" if low else "float32"
    return replace(plan, config=plan.config.model_copy(update={"precision": precision}))
