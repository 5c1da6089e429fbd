"""Library calls with progress and pictures: what the command line and the demo share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from spoco_zoo import run_folder
from spoco_zoo.beside import write_beside
from spoco_zoo.bundle.load import load_model
from spoco_zoo.config import TrainConfig
from spoco_zoo.errors import ConfigError
from spoco_zoo.nets.model import own_network
from spoco_zoo.nets.unet import SpocoUNet
from spoco_zoo.report.figures import curves, preview
from spoco_zoo.report.page import Figure, Section, html_page
from spoco_zoo.report.sections import evaluation_sections, provenance, score_bars
from spoco_zoo.segment import segment
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.segment.cluster.learn import learn_scores
from spoco_zoo.sizes import size_text
from spoco_zoo.train.checkpoint import RunFolder
from spoco_zoo.train.layouts import find_pairs
from spoco_zoo.train.remarks import remark_scale, stated_voxel_size
from spoco_zoo.train.run import Initial, train
from spoco_zoo.train.steady import FEW_OBJECTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from spoco_zoo.config import ClusteringConfig, NetConfig, SegmentConfig
    from spoco_zoo.evaluate import Evaluation
    from spoco_zoo.nets.model import Model
    from spoco_zoo.report.progress import Display
    from spoco_zoo.segment import SegmentResult
    from spoco_zoo.segment.network.models import ModelRef
    from spoco_zoo.segment.outcome import Event
    from spoco_zoo.train.data import Sample
    from spoco_zoo.train.journal import Progress
    from spoco_zoo.train.publish import TrainResult
    from spoco_zoo.train.validate import Case

__all__ = [
    "segment_with_pictures",
    "train_with_pictures",
    "write_evaluation_page",
]

REPORT = "report.html"
FOLLOWED = ("voxel_size", "learning_rate")
"""Settings that follow from images or a model to start from, where the user left them open."""
GENTLE = 0.25
"""Of the usual learning rate, where training goes on from a model."""
NETWORK = ("features", "pooling", "embedding_dim", "rotary")  # settings that shape the network
SCORES = ("ap50", "ap75", "ap90", "sbd", "dic", "arand", "n_predicted", "n_truth")


def start_from(model: Model) -> Initial:
    """What training needs of a loaded model to go on from it.

    Raises
    ------
    ConfigError
        If its network is not one of this package's.
    """
    network = own_network(model.network, "a model to start from (--init)", SpocoUNet)
    recipe = model.recipe
    return Initial(
        recipe.net, network.state_dict(), recipe.voxel_size, recipe.clustering, recipe.background
    )


def adopt_network(config: TrainConfig, net: NetConfig) -> TrainConfig:
    """Take over what the user left open about the network from a model to start from.

    Raises
    ------
    ConfigError
        If it has another number of spatial axes.
    """
    if net.ndim != config.ndim:
        raise ConfigError(
            "a model to start from (--init) must have as many spatial axes as the run",
            f"a {net.ndim}D model for {config.ndim}D images (--ndim {config.ndim})",
            f"Choose a {config.ndim}D model, or pass --ndim {net.ndim} if the images are so.",
        )
    adopted = {name: getattr(net, name) for name in left_open(config)}
    if len(config.features or ()) not in (0, len(net.features)):
        adopted.pop("pooling", None)  # of another number of levels, which training refuses
    return config.model_copy(update=adopted)


def left_open(config: TrainConfig) -> list[str]:
    """Settings of the network that the user did not name, or named as null as a run's file does."""
    named = config.model_fields_set
    return [name for name in NETWORK if name not in named or getattr(config, name) is None]


def settle_voxel_size(
    images: Path, labels: Path, config: TrainConfig, initial: Initial | None
) -> tuple[TrainConfig, list[str]]:
    """Settings with the voxel size that the user left open, and what to tell of it."""
    learned = None if initial is None else initial.voxel_size
    found = []
    if "voxel_size" not in config.model_fields_set:
        size, note = stated_voxel_size(find_pairs(images, labels, config), config.ndim)
        if size is None and not note and learned is not None:
            size = learned
            note = (
                f"No training image states a voxel size: {size_text(size)} um is taken, that of "
                "the model to start from. --voxel-size corrects it."
            )
        config = config.model_copy(update={"voxel_size": size})
        found.append(note)
    found.append(remark_scale(config.voxel_size, learned))
    return config, [text for text in found if text]


def train_with_pictures(
    images: Path,
    labels: Path,
    out: Path,
    config: TrainConfig,
    display: Display,
    *,
    resume: bool = False,
    **options: Any,
) -> TrainResult | None:
    """Train, with ``preview.png`` at every validation, ``training.png`` and a page at the end.

    Without `config.voxel_size` that of the images is taken, if all state the same; if none
    states any, that of the model to start from. With `config.init` training starts from that
    model's weights, and its network is taken where the settings do not name another. Under
    ``torchrun`` all processes but the first return None. Of a finished run nothing is written
    anew but a page that is missing.

    Parameters
    ----------
    images, labels, out, config, resume
        See `spoco_zoo.train.run.train`, as for further `options`.
    display : Display
        Shows the progress.
    """
    finished = resume and RunFolder(out).finished
    notes: list[str] = []

    def say(text: str) -> None:
        notes.append(text)
        if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
            display.note(text)

    def listen(progress: Progress) -> None:
        detail = f"loss {progress.terms['loss']:.3f}"
        if progress.ap50 is not None:
            detail += f", validation AP@0.5 {progress.ap50:.3f}"
        display.update("train", progress.step, progress.total, detail)
        if progress.case is not None and progress.sample is not None:
            draw_preview(
                out, progress.sample, progress.case, progress.clustering, progress.background
            )

    config, initial, said = settle(images, labels, out, config, resume=resume)
    for text in said:
        say(text)
    result = train(
        images,
        labels,
        out,
        config,
        clusterer=cluster,
        learner=learn_scores,
        listen=listen,
        say=say,
        resume=resume,
        initial=initial,
        **options,
    )
    if result is None or (finished and (out / REPORT).is_file()):
        return result
    recipe = result.recipe
    draw_preview(out, result.sample, result.case, recipe.clustering, recipe.background)
    curves(RunFolder(out).read_log(), out / "training.png")
    write_training_page(out, result, config, notes)
    return result


def settle(
    images: Path, labels: Path, out: Path, config: TrainConfig, *, resume: bool
) -> tuple[TrainConfig, Initial | None, list[str]]:
    """Fill in what the user left open, from the run that goes on, the model to start from, images.

    Returns
    -------
    config : TrainConfig
    initial : Initial or None
        Weights to start from.
    notes : list of str
        What to tell of it.
    """
    if resume and RunFolder(out).has_checkpoint and (out / run_folder.CONFIG).is_file():
        earlier = TrainConfig.build(out / run_folder.CONFIG)
        kept = left_open(config) if config.init is not None else []
        kept += [name for name in FOLLOWED if name not in config.model_fields_set]
        return config.model_copy(update={name: getattr(earlier, name) for name in kept}), None, []
    initial = None
    if config.init is not None:
        initial = start_from(load_model(config.init))
        config = adopt_network(config, initial.net)
    config, notes = settle_voxel_size(images, labels, config, initial)
    if initial is not None and "learning_rate" not in config.model_fields_set:
        rate = GENTLE * config.learning_rate
        config = config.model_copy(update={"learning_rate": rate})
        notes.append(f"So that what the model knows is kept, the learning rate is {rate:g}.")
    return config, initial, notes


def draw_preview(
    out: Path,
    sample: Sample,
    case: Case,
    clustering: ClusteringConfig,
    background: tuple[float, ...] | None,
) -> None:
    """Write ``preview.png``: a validation image, its truth, embeddings and labels."""
    found = cluster(case.embeddings, clustering, background, momentum=case.momentum)
    image = sample.image[(slice(None), *case.where)]
    preview(image, case.labels, case.embeddings.cpu().numpy(), found, out / "preview.png")


def write_training_page(
    out: Path, result: TrainResult, config: TrainConfig, notes: Sequence[str]
) -> None:
    """Write the page of a finished training, whose pictures lie beside it."""
    html_page(
        out / REPORT,
        f"Training {out.name}",
        [
            *([Section("Notes", tuple(notes))] if notes else []),
            _scores_section(result.metrics),
            score_bars("Validation: average precision", result.metrics["validation"]),
            provenance(),
            Section("Settings", code=config.to_yaml(), folded=True),
        ],
        [
            Figure(out / "preview.png", "A validation image, its truth, embeddings and labels."),
            Figure(out / "training.png", "Loss terms and validation AP against steps."),
        ],
    )


def _scores_section(metrics: Mapping[str, Any]) -> Section:
    """Table of validation and test scores."""
    parts = [part for part in ("validation", "test") if part in metrics]
    rows: list[tuple[str, ...]] = [("set", "images", *SCORES)]
    for part in parts:
        values = metrics[part]
        rows.append((part, str(values["n_images"]), *(_number(values[name]) for name in SCORES)))
    text = (
        "Mean over images. The clustering was tuned on the validation images, and on as many "
        f"training images where those hold fewer than {FEW_OBJECTS} objects; test images, if there "
        "are any, were used for nothing else.",
    )
    return Section("Scores", text, tuple(rows))


def segment_with_pictures(
    source: str,
    model: str | Path | Model | ModelRef,
    config: SegmentConfig,
    display: Display,
    *,
    report: bool = True,
    on_stop: Callable[[], None] | None = None,
    **options: Any,
) -> SegmentResult:
    """Segment, and draw the middle of the result beside the run's report.

    Parameters
    ----------
    source, model, config
        See `spoco_zoo.segment.segment`, as for further `options`.
    display : Display
        Shows the progress.
    report : bool
        Write ``<report>.png`` and ``<report>.html`` next to the JSON report.
    on_stop : callable, optional
        Called when an end is asked for by a signal. It may come too late for this image.
    """

    def listen(event: Event) -> None:
        if event.phase == "stop" and on_stop is not None:
            on_stop()
        if event.phase in ("plan", "stop", "workers"):
            display.note(event.message)
            return
        display.update(event.phase, event.done, event.total, event.message)

    result = segment(source, model, config, on_event=listen, **options)
    if hint := result.summary.get("hint"):  # of an earlier version there is none
        display.note(hint)
    write_beside(source, result, config, display, report=report)
    return result


def write_evaluation_page(evaluation: Evaluation, path: Path) -> None:
    """HTML page with one row of scores per image."""
    rows: list[tuple[str, ...]] = [("image", *SCORES)]
    parts = [("mean", evaluation.mean), ("pooled", evaluation.pooled)]
    parts += [(image.name, image.scores) for image in evaluation.images]
    for name, scores in parts:
        values = scores.to_dict()
        rows.append((name, *(_number(values[score]) for score in SCORES)))
    sections = evaluation_sections(
        evaluation.mean.to_dict(),
        evaluation.iou_histogram,
        {image.name: image.scores.ap50 for image in evaluation.images},
    )
    html_page(path, "Evaluation", [*sections, Section("Scores", table=tuple(rows)), provenance()])


def _number(value: float) -> str:
    """A score with three decimals, a count with none."""
    return str(value) if isinstance(value, int) else f"{value:.3f}"
