"""What would be done with a folder of images, or a plate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoco_zoo.errors import InputError
from spoco_zoo.folder_rows import Overwriting, find_place
from spoco_zoo.folders import done_before, folder_for, folder_of
from spoco_zoo.image_folder import find_images
from spoco_zoo.segment import check_machines, dry_run, foretell
from spoco_zoo.segment.network.models import ModelRef, read_model
from spoco_zoo.sizes import bytes_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.config import SegmentConfig
    from spoco_zoo.report.progress import Display

__all__ = ["list_pending", "plan_folder"]


def list_pending(
    source: str,
    *,
    only: str | None = None,
    output: str | None = None,
    label_name: str = "spoco",
    overwrite: bool = False,
) -> tuple[dict[str, tuple[Path, str | None]], list[str], dict[str, str]]:
    """Which images `spoco_zoo.folders.segment_folder` would segment; writes nothing.

    Returns
    -------
    pending : dict of str to (Path, str or None)
        Images to be segmented, and where their labels go (None: into the image), by name.
    left : list of str
        Names of those that have their labels.
    refused : dict of str to str
        Why images cannot be opened.

    Raises
    ------
    InputError
        As `segment_folder`.
    """
    target = folder_for(output)
    pending: dict[str, tuple[Path, str | None]] = {}
    left: list[str] = []
    refused: dict[str, str] = {}
    for name, image in find_images(Path(source), only)[0].items():
        try:
            place = find_place(name, image, target, label_name, overwrite=overwrite)
        except InputError as error:
            refused[name] = str(error)
            continue
        if place.labels:
            left.append(name)
        else:
            pending[name] = image, place.output
    return pending, left, refused


def plan_folder(
    source: str,
    model: str,
    config: SegmentConfig,
    display: Display,
    *,
    only: str | None = None,
    output: str | None = None,
    label_name: str = "spoco",
    version: str | None = None,
    overwrite: bool = False,
    workers: int = 0,
    gpus: Sequence[str | int] = (),
    scheduler: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """What `spoco_zoo.folders.segment_folder` would do with the same arguments; writes nothing.

    Returns
    -------
    dict
        Of each image that would be segmented a line, and the disk that all may need.

    Raises
    ------
    InputError
        As `segment_folder`.
    """
    pending, left, refused = list_pending(
        source, only=only, output=output, label_name=label_name, overwrite=overwrite
    )
    check_machines(workers, gpus, scheduler, device)
    loaded = read_model(model, config.clustering)
    known = ModelRef(model, loaded.fingerprint, model=loaded)
    before = Overwriting(folder_of(source, output), wanted=overwrite).names
    folder, lines, disk = folder_for(output), dict[str, str](), 0
    named: dict[str, Any] = dict(label_name=label_name, version=version)
    for done, (name, (image, target)) in enumerate(pending.items()):
        display.update("plan", done, len(pending), name)
        try:
            if name in before and done_before(name, image, folder, known, config, **named):
                left.append(name)
                continue
            plan = dry_run(image, known, config, output=target, overwrite=overwrite, **named)
            standing = foretell(plan, known, device, overwrite=overwrite)
        except InputError as error:
            refused[name] = str(error)
            continue
        lines[name] = f"{plan.short()}; {standing}"
        disk += plan.disk_bytes
    return {
        "input": source,
        "output": output or source,
        "images": list(lines),
        "plans": lines,
        "disk needed": f"at most {bytes_text(disk)}",
        "have_labels": left,
        "refused": refused,
    }
