"""What lies beside finished labels: settings, picture and page, and the table of objects.

They are made after the labels are published, so a stop may leave them out. Then the same command
makes them, and leaves the labels alone.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import InputError
from spoco_zoo.folder_rows import labels_at
from spoco_zoo.measure import measure
from spoco_zoo.ngff import open_image
from spoco_zoo.pictures import write_segmentation_page
from spoco_zoo.replacing import replacing
from spoco_zoo.segment import dry_run
from spoco_zoo.segment.checks import is_same_image
from spoco_zoo.segment.network.models import read_model
from spoco_zoo.segment.output.target import default_output
from spoco_zoo.tables import write_table

if TYPE_CHECKING:
    from pathlib import Path

    from spoco_zoo.nets.model import Model
    from spoco_zoo.report.progress import Display
    from spoco_zoo.segment import SegmentResult
    from spoco_zoo.segment.network.models import ModelRef

__all__ = ["OBJECTS", "is_of", "lacks_page", "measure_result", "stopped_behind", "write_beside"]

OBJECTS = "objects.csv"
SETTINGS = "config.yaml"
INCOMPLETE = "The labels are complete, but not the page and settings beside: {}"
PASSING = ("disk free", "notes")
"""Of a plan's summary, what the next run of the same command may find otherwise."""


def write_beside(
    source: str, result: SegmentResult, config: SegmentConfig, display: Display, *, report: bool
) -> None:
    """Settings of a run beside its report, and picture and page if they are asked for."""
    try:
        write_settings(result)
        if report:
            write_segmentation_page(source, result, config)
    except (InputError, OSError) as error:
        # Not worth the result.
        display.note(INCOMPLETE.format(error))
    except (KeyError, TypeError) as error:  # that of another version, or damaged
        display.note(INCOMPLETE.format(f"{error} is missing or damaged in {result.report}"))


def write_settings(result: SegmentResult) -> None:
    """``config.yaml`` beside a report: all settings of the run, which `--config` reads back."""
    path = result.report.with_name(SETTINGS)
    with replacing(path) as partial:
        partial.write_text(SegmentConfig.checked(result.summary["config"]).to_yaml())


def lacks_page(report: Path, *, page: bool) -> bool:
    """Whether what `write_beside` writes is not all there; the page is the last of it."""
    there = report.with_name(SETTINGS).is_file()
    return not (there and (not page or report.with_suffix(".html").is_file()))


def measure_result(
    source: str, output: str, report: Path, config: SegmentConfig, display: Display
) -> Path:
    """Table of the objects of a finished run, ``objects.csv`` beside its report."""
    table = measure(
        output,
        source,
        level=config.level,
        start=[a for a, _ in config.roi] if config.roi else None,
        voxel_size=config.voxel_size,
        on_block=lambda done, total: display.update("measure", done, total),
    )
    path = report.with_name(OBJECTS)
    write_table(table, path)
    return path


def stopped_behind(
    source: str,
    model: str | Path | Model,
    config: SegmentConfig,
    *,
    page: bool,
    table: bool,
    output: str | None = None,
    label_name: str = "spoco",
    version: str | None = None,
) -> SegmentResult | None:
    """The run of labels that are there, if the same command lacks only what lies beside them.

    Parameters
    ----------
    source, model, config, output, label_name, version
        See `spoco_zoo.segment.segment`.
    page, table : bool
        Whether page and table of objects are asked for.

    Returns
    -------
    SegmentResult or None
        None if there are no such labels, if nothing is missing beside them, or if other settings,
        another model or another image made them.

    Raises
    ------
    InputError
        If the image or the model cannot be opened.
    """
    image = open_image(source)
    place = default_output(image, label_name) if output is None else output
    done = labels_at(image, place, label_name).done
    if done is None:
        return None
    lacking = lacks_page(done.report, page=page)
    if not lacking and not (table and not done.report.with_name(OBJECTS).is_file()):
        return None
    loaded = read_model(model, config.clustering)
    where = dict(output=output, label_name=label_name, version=version)
    return done if is_of(done, source, loaded, config, where) else None


def is_of(
    done: SegmentResult,
    source: str,
    model: Model | ModelRef,
    config: SegmentConfig,
    where: dict[str, Any],
) -> bool:
    """Whether a finished run did what is asked for now.

    Parameters
    ----------
    done : SegmentResult
    source, model, config
        See `spoco_zoo.segment.segment`.
    where : dict
        Its output, label name and version.
    """
    made, settings, planned = (done.summary.get(name) for name in ("model", "config", "plan"))
    if not (isinstance(made, dict) and isinstance(settings, dict) and isinstance(planned, dict)):
        return False  # of another version, or damaged
    if made.get("fingerprint") != model.fingerprint:
        return False
    with suppress(InputError):
        plan = dry_run(source, model, config, **where, overwrite=True)
        asked = plan.config.model_dump(mode="json")
        if config.precision == "auto":  # settled by the device of whoever ran it
            asked["precision"] = settings.get("precision")
        if asked == settings and _settled(plan.summary()) == _settled(planned):
            known = done.summary.get("checksums", [])  # of an earlier version there are none
            return isinstance(known, list) and all(
                is_same_image(plan, when, checksum) for when, checksum in enumerate(known)
            )
    return False


def _settled(plan: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in plan.items() if name not in PASSING}
