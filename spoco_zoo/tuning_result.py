"""What tuning found: a page, settings for ``segment --config``, and the run's new recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import yaml

from spoco_zoo import run_folder
from spoco_zoo.config import SegmentConfig
from spoco_zoo.report.page import Figure, Section, html_page
from spoco_zoo.report.trials import SEARCHED, draw_trials, sections
from spoco_zoo.train.checkpoint import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

    from spoco_zoo.config import ModelRecipe
    from spoco_zoo.train.validate import Tuning

__all__ = ["SETTINGS_FILE", "MethodResult", "TuneResult", "store_winner", "write_files"]

SETTINGS_FILE = "segment.yaml"
SHOWN = ("ap50", "ap75", "ap90", "sbd", "arand", "dic")


@dataclass(frozen=True)
class MethodResult:
    """The best settings of one method, their scores, and every AP that was tried on the way."""

    method: str
    tuning: Tuning

    @property
    def objective(self) -> float:
        """Mean of AP at 0.5, 0.75 and 0.9."""
        return self.tuning.scores.merit

    def to_dict(self) -> dict[str, Any]:
        """Settings and scores in plain values."""
        return {
            "settings": self.tuning.best.model_dump(mode="json"),
            "scores": {name: asdict(self.tuning.scores)[name] for name in SHOWN},
            "tried": len(self.tuning.tried),
        }


@dataclass(frozen=True)
class TuneResult:
    """Outcome of `tune_model`.

    Attributes
    ----------
    methods : tuple of MethodResult
        Best first; of equals the one that was asked for first.
    before : float
        Mean of AP at 0.5, 0.75 and 0.9 with the settings that the model came with.
    n_images : int
    page, settings : Path
        HTML page; YAML for ``segment --config``.
    stored : bool
        Whether the run's recipe now holds the winner.
    warnings : tuple of str
    """

    methods: tuple[MethodResult, ...]
    before: float
    n_images: int
    page: Path
    settings: Path
    stored: bool
    warnings: tuple[str, ...]

    @property
    def best(self) -> MethodResult:
        """The winner."""
        return self.methods[0]

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain values."""
        return {
            "best": self.best.method,
            "objective": self.best.objective,
            "objective_before": self.before,
            "n_images": self.n_images,
            "methods": {result.method: result.to_dict() for result in self.methods},
            "page": str(self.page),
            "settings": str(self.settings),
            "stored": self.stored,
            "warnings": list(self.warnings),
        }


def write_files(result: TuneResult, folder: Path, source: str) -> None:
    """Settings for ``segment --config``, the plot, and the page with the table."""
    files = RunFolder(folder)
    best = result.best.tuning
    settings = SegmentConfig(clustering=best.best).model_dump(mode="json", include={"clustering"})
    files.write_text(SETTINGS_FILE, yaml.safe_dump(settings, sort_keys=False))
    files.write_json("tuning.json", result.to_dict())
    rows: list[tuple[str, ...]] = [("method", "tried", *SHOWN, "settings")]
    for one in result.methods:
        values = asdict(one.tuning.scores)
        settings_text = ", ".join(
            f"{name} {getattr(one.tuning.best, name):.4g}" for name in SEARCHED
        )
        rows.append(
            (
                one.method,
                str(len(one.tuning.tried)),
                *(f"{values[name]:.3f}" for name in SHOWN),
                settings_text,
            )
        )
    plot = folder / "tuning.png"
    draw_trials(
        {one.method: (one.tuning.scores.ap50, one.tuning.scores.ap75) for one in result.methods},
        sections(
            best.best.model_dump(),
            ((config.model_dump(), scores.merit) for config, scores in best.tried),
        ),
        plot,
    )
    text = (
        f"Means over {result.n_images} images, sorted by the mean of AP at IoU 0.5, 0.75, 0.9; the "
        f"model's own settings had {result.before:.3f}. These images chose the settings: report "
        "on others.",
        *result.warnings,
    )
    html_page(
        result.page,
        f"Clustering of {source.rstrip('/').rsplit('/', 1)[-1]}",
        [Section("Methods", text, tuple(rows)), Section("Winner", code=best.best.to_yaml())],
        [Figure(plot, "AP of each method's best settings; the winner's parameters one by one.")],
    )


def store_winner(
    run: Path, recipe: ModelRecipe, result: TuneResult, shared: dict[str, int]
) -> None:
    """Put the winner into the run's recipe, and its scores in place of the older ones.

    The figures of test images were taken with the settings of before, or on images that have
    now chosen the settings; they are kept under a name that says so, and no longer travel with
    an export. How many of the images the network was trained on travels with the figures.
    """
    folder = RunFolder(run)
    known = (run / run_folder.METRICS).is_file()
    metrics = folder.read_json(run_folder.METRICS) if known else {}
    changed = result.best.tuning.best != recipe.clustering
    if (changed or shared.get("test")) and "test" in metrics:
        metrics["test_before_tuning"] = metrics.pop("test")
    if changed:
        # A kill in between leaves a run without figures, not with those of other settings.
        metrics.pop("validation", None)
        folder.write_json(run_folder.METRICS, metrics)
        tuned = recipe.model_copy(update={"clustering": result.best.tuning.best})
        folder.write_text(run_folder.RECIPE, tuned.model_dump_json(indent=2) + "\n")
    metrics["validation"] = {
        "n_images": result.n_images,
        **({"n_trained_on": shared["train"]} if shared.get("train") else {}),
        **result.best.tuning.scores.to_dict(),
    }
    folder.write_json(run_folder.METRICS, metrics)
