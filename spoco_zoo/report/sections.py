"""The parts that reports share: what made them, sizes, scores, times."""

from __future__ import annotations

import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoco_zoo.report.page import Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "command_line",
    "evaluation_sections",
    "provenance",
    "score_bars",
    "segment_sections",
]

PACKAGES = ("spoco-zoo", "torch", "numpy", "scipy", "zarr", "bioimageio.core")
LISTED = 1000
"""Failures on a page: of a large image there may be 100,000, and a browser would take minutes."""
THRESHOLDS = {"ap50": "IoU 0.5", "ap75": "IoU 0.75", "ap90": "IoU 0.9"}


def command_line() -> str:
    """The command that this process was started with, empty if it is not ours."""
    program = Path(sys.argv[0])
    ours = program.name == "spoco-zoo" or program.parts[-2:] == ("spoco_zoo", "__main__.py")
    return shlex.join(["spoco-zoo", *sys.argv[1:]]) if ours else ""


def provenance() -> Section:
    """What made a page: command, versions, machine, time."""
    rows = [("what", "value"), ("date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))]
    for name in PACKAGES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            continue
    rows += [("Python", platform.python_version()), ("system", platform.platform())]
    command = command_line()
    text = () if command else ("Called from Python.",)
    return Section("Made by", text, tuple(rows), code=command, folded=not command)


def segment_sections(summary: Mapping[str, Any], look: Sequence[str]) -> list[Section]:
    """Everything about a segmentation.

    Parameters
    ----------
    summary : mapping
        Content of ``segment.json``.
    look : sequence of str
        Commands that show the result.
    """
    plan, sizes, blocks = summary["plan"], summary["sizes"], summary["blocks"]
    seconds = summary["seconds"]
    facts = {
        "labels": plan["output"],
        "objects": f"{summary['objects']:,}",
        "image": f"{plan['shape']}, {plan['voxel size']}",
        "resampled": plan.get("resampled", "no"),
        **_contrast(summary.get("filled", [])),
        "blocks": plan["blocks"],
        "time": _duration(sum(seconds.values())),
        "blocks without result": str(len(summary["failures"])),
    }
    table = (("what", "value"), *facts.items())
    notes = tuple(n for n in (plan.get("notes"), summary.get("hint")) if n and n != "none")
    sections = [
        Section("Result", notes, table),
        Section("Look at it", code="\n".join(look)),
    ]
    if summary["failures"]:
        failures = summary["failures"]
        rows = [(f["phase"], f["place"], f["reason"]) for f in failures[:LISTED]]
        more = len(failures) - len(rows)
        text = (f"And {more:,} more, which segment.json lists.",) if more else ()
        head = ("phase", "where", "why")
        sections.append(Section("Blocks without result", text, (head, *rows)))
    if sizes["objects"]:
        what = (
            f"{sizes['objects']:,} objects of {sizes['smallest']:,} to {sizes['largest']:,} voxels"
        )
        unit = " of the network's size" if facts["resampled"] != "no" else ""
        bars = tuple(
            (f"{int(low):,} to {2 * int(low) - 1:,}", float(count))
            for low, count in sizes["histogram"].items()
        )
        sections.append(Section("Sizes", (f"{what}{unit}; objects by voxel count.",), bars=bars))
    per_block = summary["objects_per_block"]["histogram"]
    if len(per_block) > 1:
        bars = tuple((f"from {low}", float(count)) for low, count in per_block.items())
        sections.append(Section("Blocks by objects", bars=bars))
    if summary["faces"]["faces"]:
        text = (
            "Objects of neighbouring blocks are one if they overlap enough where both blocks look, "
            "and if their mean embeddings are near.",
        )
        sections.append(Section("Seams", text, (("what", "count"), *_flat(summary["faces"]))))
    work = {name.removesuffix("_seconds"): value for name, value in blocks.items()
            if name.endswith("_seconds")}  # fmt: skip
    measured = {**summary, "failures": len(summary["failures"])}
    sections += [
        Section("Time by phase, in seconds", bars=tuple(seconds.items())),
        Section("Work in the blocks, in seconds of all workers", bars=tuple(work.items())),
        provenance(),
        Section("Everything measured", table=(("what", "value"), *_flat(measured)), folded=True),
    ]
    return sections


def _contrast(filled: Sequence[float]) -> dict[str, str]:
    """By what parts of a volume it was normalised, if not by all of it."""
    if all(share == 1 for share in filled):
        return {}
    low, high = (f"{share:.1%}" for share in (min(filled), max(filled)))
    share = low if low == high else f"{low} to {high}"
    return {"contrast": f"of the {share} of the volume that hold something"}


def evaluation_sections(
    mean: Mapping[str, float], iou_histogram: Sequence[int], per_image: Mapping[str, float]
) -> list[Section]:
    """Histograms of a comparison with the truth.

    Parameters
    ----------
    mean : mapping
        Scores by name.
    iou_histogram : sequence of int
        True objects by their best IoU, in bins of equal width from 0 to 1.
    per_image : mapping
        AP at IoU 0.5 by name of the image.
    """
    width = 1 / max(len(iou_histogram), 1)
    ious = tuple(
        (f"{i * width:.2f} to {(i + 1) * width:.2f}", float(count))
        for i, count in enumerate(iou_histogram)
    )
    sections = [score_bars("Average precision", mean)]
    sections.append(
        Section("True objects by their best IoU", ("0: nothing was found there.",), bars=ious)
    )
    if len(per_image) > 1:
        worst = sorted(per_image.items(), key=lambda item: item[1])[:10]
        text = ("The images to look at first.",)
        sections.append(Section("Lowest AP at IoU 0.5", text, bars=tuple(worst), largest=1.0))
    return sections


def score_bars(heading: str, scores: Mapping[str, float]) -> Section:
    """Average precision by threshold, on a scale from 0 to 1."""
    bars = tuple((label, scores[name]) for name, label in THRESHOLDS.items() if name in scores)
    return Section(heading, bars=bars, largest=1.0)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as rows of (dotted name, text)."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append(
                (f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else str(value))
            )
    return rows


def _duration(seconds: float) -> str:
    """A time span for people."""
    whole = round(seconds)
    parts = [(whole // 3600, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    shown = [f"{n} {unit}" for n, unit in parts if n]
    return " ".join(shown) or f"{seconds:.1f} s"
