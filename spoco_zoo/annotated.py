"""Annotated images for a finished model: what their labels mean, and how it sees them.

What `spoco_zoo.complete` and `spoco_zoo.tuning` share. Images are resampled to the model's voxel
size by the rule of `segment`, so that what is found out here holds there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo import run_folder
from spoco_zoo.config import TrainConfig
from spoco_zoo.errors import ConfigError, DataError
from spoco_zoo.ngff import mixed_lines, resampled
from spoco_zoo.segment.scale.fit import choose_zoom, doubt, stated_size
from spoco_zoo.segment.scale.resize import Stretch
from spoco_zoo.train.data import check_channels, load_samples, make_sample
from spoco_zoo.train.remarks import described

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spoco_zoo.config import ModelRecipe
    from spoco_zoo.segment.scale.fit import Zoom
    from spoco_zoo.train.data import Sample
    from spoco_zoo.train.files import Pair

__all__ = [
    "Annotated",
    "at_shape",
    "load_annotated",
    "meaning_of_labels",
    "meaning_of_sparse_labels",
    "run_at",
]

LABELS = ("annotation", "background_label", "label_name", "layout", "classes")  # what labels mean
INSTEAD = {
    2: "This model is 2D: take a 3D one, or save each plane, and its labels, as a file of its own.",
    3: "This model is 3D: take a 2D one, or save volumes, and labels of all of each.",
}


@dataclass(frozen=True)
class Annotated:
    """An annotated image."""

    sample: Sample
    """As in its files."""
    seen: Sample
    """As the network sees it: the same, or at the model's voxel size."""


def load_annotated(
    pairs: Sequence[Pair],
    meaning: TrainConfig,
    recipe: ModelRecipe,
    *,
    voxel_size: tuple[float, ...] | None = None,
    rescale: bool = True,
) -> tuple[list[Annotated], tuple[str, ...]]:
    """Read and check annotated images, and resample those of another voxel size than the model's.

    Parameters
    ----------
    pairs : sequence of Pair
    meaning : TrainConfig
        How to read the labels.
    recipe : ModelRecipe
    voxel_size : tuple of float, optional
        ([Z,] Y, X) in micrometres, in place of what images state.
    rescale : bool
        False: never resample, but say what is off.

    Returns
    -------
    images : list of Annotated
    notes : tuple of str
        What was resampled, or could not be, and why.

    Raises
    ------
    InputError
        With the file's name, for anything that cannot be used.
    """
    try:
        samples = load_samples(pairs, meaning)
    except DataError as error:
        if "--ndim" not in error.remedy:
            raise
        raise DataError(error.rule, error.found, INSTEAD[recipe.net.ndim]) from error
    check_channels(samples, recipe.net.in_channels, "the model")
    zooms, axes = [], "zyx"[-recipe.net.ndim :]
    for pair in pairs:
        size = voxel_size or stated(pair.image, recipe)
        zoom = choose_zoom(size, recipe, axes, rescale=rescale, stated=not voxel_size)
        odd = "" if voxel_size else doubt(size, zoom)
        zooms.append(replace(zoom, note=f"{zoom.note} {odd}".strip()))
    found = [Annotated(s, zoomed(s, zoom)) for s, zoom in zip(samples, zooms, strict=True)]
    return found, notes_on(pairs, zooms)


def stated(path: Path, recipe: ModelRecipe) -> tuple[float, ...] | None:
    """Voxel size ([Z,] Y, X) that an image file states along the axes of the model, if it does."""
    image = described(path)
    size = None if image is None else stated_size(image, 0, recipe)
    ndim = recipe.net.ndim
    return None if size is None or len(size) < ndim else size[-ndim:]


def zoomed(sample: Sample, zoom: Zoom) -> Sample:
    """An annotated image with voxels that are larger by the factors."""
    if not zoom.needed:
        return sample
    pairs = zip(sample.labels.shape, zoom.factors, strict=True)
    shape = tuple(max(round(n / factor), 1) for n, factor in pairs)
    labels = at_shape(sample.labels, shape)
    mixed = mixed_lines(sample.labels.shape, shape)
    return make_sample(sample.name, resampled(sample.raw, shape), labels, mixed=mixed)


def at_shape(labels: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Labels of the same image with other voxels: each takes the one that its centre lies in."""
    for axis, (old, new) in enumerate(zip(labels.shape, shape, strict=True)):
        if old != new:
            step = Stretch(old, new, None, whole=new, whole_fine=old)
            labels = labels.take(step.picks(0, new), axis=axis)
    return labels


def notes_on(pairs: Sequence[Pair], zooms: Sequence[Zoom]) -> tuple[str, ...]:
    """What is to be told of images that are not of the model's voxel size, once for all alike."""
    alike: dict[str, list[str]] = {}
    for pair, zoom in zip(pairs, zooms, strict=True):
        alike.setdefault(zoom.note, []).append(pair.image.name)
    return tuple(
        f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: {note}"
        for note, names in alike.items()
        if note
    )


def run_at(source: object) -> Path | None:
    """The folder of a finished run, if that is what a model was asked for by."""
    run = Path(source) if isinstance(source, (str, Path)) else None
    return run if run is not None and (run / run_folder.RECIPE).is_file() else None


def trained_with(run: Path | None) -> TrainConfig | None:
    """Settings of a run's training, if they are there."""
    path = None if run is None else run / run_folder.CONFIG
    return TrainConfig.build(path) if path is not None and path.is_file() else None


def meaning_of_labels(
    run: Path | None,
    recipe: ModelRecipe,
    annotation: str | None,
    background_label: int | None,
    label_name: str | None = None,
) -> TrainConfig:
    """How to read labels: as those of the run, unless something else was said.

    Dense labels that a run thinned out are dense here: false objects count.

    Raises
    ------
    ConfigError
        If nothing says what the labels of a model from sparse annotation mean.
    """
    values: dict[str, Any] = {"ndim": recipe.net.ndim, "annotation": "dense"}
    if (own := trained_with(run)) is not None:
        values |= {name: getattr(own, name) for name in LABELS}
    elif annotation is None and recipe.annotation == "sparse":
        raise ConfigError(
            "--annotation must say what 0 means in the labels, as the model was trained on sparse "
            "ones",
            "nothing that says so",
            "Pass --annotation dense, or --annotation sparse with --background-label.",
        )
    if annotation is not None and annotation != values["annotation"]:
        values |= {"annotation": annotation, "background_label": None}
    if background_label is not None:
        values["background_label"] = background_label
    if label_name is not None:
        values["label_name"] = label_name
    return TrainConfig.checked(values)


def meaning_of_sparse_labels(
    run: Path | None, recipe: ModelRecipe, background_label: int | None, label_name: str | None
) -> TrainConfig:
    """How to read sparse labels that are to be completed: known background has one value.

    Raises
    ------
    ConfigError
        If nothing says which, the run says another, or it cannot be one.
    """
    own = trained_with(run)
    known = own.background_label if own is not None and own.annotation == "sparse" else None
    value = known if background_label is None else background_label
    remedy = "Choose one that no object has, such as 65535; --labels need not hold it."
    if known is not None and known < 1:
        raise ConfigError(
            "a model whose annotation is completed must know background by a number above 0",
            f"{known} in {run}",
            "Save the labels with another number for it, such as 65535, and train again.",
        )
    if value is None:
        raise ConfigError(
            "--background-label must name the value of known background",
            "none, and none that the model was trained with",
            remedy,
        )
    if not 1 <= value < 2**32:
        raise ConfigError(
            "--background-label must be a number above 0, which stands for not annotated, and "
            "below 2^32",
            f"{value}",
            remedy,
        )
    if known is not None and value != known:
        raise ConfigError(
            "--background-label must be what it was in the training, or its strokes become objects",
            f"{value}, and {known} in {run}",
            f"Leave it out; save labels that have another value for background with {known}.",
        )
    name = label_name or (own.label_name if own is not None else None)
    return TrainConfig(
        ndim=recipe.net.ndim, annotation="sparse", background_label=value, label_name=name
    )
