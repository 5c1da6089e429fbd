"""The whole of spoco-zoo for a notebook: eight functions.

They are there as ``spoco_zoo.train``, ``spoco_zoo.export``, ``spoco_zoo.segment``,
``spoco_zoo.evaluate``, ``spoco_zoo.measure``, ``spoco_zoo.load_model`` and
``spoco_zoo.open_labels``, and do what the commands of the same names do, pages and pictures
included. ``spoco_zoo.segment_array`` gives the labels of an array as an array, and
``spoco_zoo.segment.segment`` takes GPUs and dask schedulers besides.

>>> import spoco_zoo
>>> spoco_zoo.load_model.__module__
'spoco_zoo.bundle.load'
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoco_zoo.arrays import array_axes, labels_of, write_array
from spoco_zoo.bundle.load import load_model
from spoco_zoo.config import SegmentConfig, TrainConfig
from spoco_zoo.errors import ConfigError, described
from spoco_zoo.measure import measure
from spoco_zoo.ngff import open_labels
from spoco_zoo.report.progress import progress as shown_progress
from spoco_zoo.values import at_home
from spoco_zoo.wording import InKeywords, in_keywords, path_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spoco_zoo.bundle.export import ExportResult
    from spoco_zoo.evaluate import Evaluation
    from spoco_zoo.nets.model import Model
    from spoco_zoo.segment import SegmentResult
    from spoco_zoo.train.publish import TrainResult

__all__ = [
    "evaluate",
    "export",
    "load_model",
    "measure",
    "open_labels",
    "segment",
    "segment_array",
    "train",
]


@in_keywords
def train(
    images: str | Path,
    labels: str | Path,
    out: str | Path,
    *,
    val_images: str | Path | None = None,
    val_labels: str | Path | None = None,
    device: str = "auto",
    resume: bool = False,
    progress: bool = True,
    **settings: Any,
) -> TrainResult | None:
    """Train a model from images and object masks.

    Parameters
    ----------
    images, labels : path
        Folders of files paired by name, or two files.
    out : path
        New folder for the run: model, scores, pictures and ``report.html``.
    val_images, val_labels : path, optional
        Validation data; otherwise a share of the training data is set aside.
    device : {"auto", "cpu", "cuda", "cuda:I"}
    resume : bool
        Go on with the run in `out`.
    progress : bool
        Show how far it is, on stderr.
    **settings
        Of `spoco_zoo.config.TrainConfig`, as ``ndim=3, annotation="sparse"``.

    Returns
    -------
    TrainResult or None
        ``metrics`` holds the scores on validation and test images. Under ``torchrun`` the first
        process alone has a result.

    Raises
    ------
    InputError
        If data or settings cannot be used.
    Interrupted
        On Ctrl-C, SIGTERM or SIGHUP, after the step that is under way. With ``resume=True`` it
        goes on.
    """
    from spoco_zoo.workflow import train_with_pictures

    config = TrainConfig.build(None, **settings)
    with shown_progress(quiet=not progress) as display:
        return train_with_pictures(
            _path(images, "images"),
            _path(labels, "labels"),
            _path(out, "out"),
            config,
            InKeywords(display),
            val_images=None if val_images is None else _path(val_images, "val_images"),
            val_labels=None if val_labels is None else _path(val_labels, "val_labels"),
            device=device,
            resume=resume,
        )


@in_keywords
def export(
    run: str | Path, out: str | Path, *, name: str, authors: str | Sequence[str], **options: Any
) -> ExportResult:
    """Export a run as a bioimage.io bundle that has passed the official test.

    Parameters
    ----------
    run : path
        Folder of a finished run.
    out : path
        ``BUNDLE.zip``, or a new folder.
    name : str
    authors : str or sequence of str
        Names, or ``"Name; affiliation"``.
    **options
        Of `spoco_zoo.bundle.options.ExportOptions`, as ``license="CC-BY-4.0"``. `formats` may
        be text with commas between, and `card` the folder of a model card.

    Returns
    -------
    ExportResult

    Raises
    ------
    InputError
        If the run or an option cannot be used.
    ExportError
        If the bundle does not pass.
    """
    from spoco_zoo.bundle.export import ExportOptions
    from spoco_zoo.bundle.export import export as export_run
    from spoco_zoo.bundle.model_card import read_card

    if not isinstance(name, str):
        raise ConfigError("name must be text", described(name), "Name the model in a few words.")
    given = [authors] if isinstance(authors, str) or not hasattr(authors, "__iter__") else authors
    people: tuple[Any, ...] = tuple(given)
    if odd := [one for one in people if not isinstance(one, str)]:
        raise ConfigError(
            "authors must be texts", described(odd[0]), 'As in "Name" or "Name; affiliation".'
        )
    if isinstance(formats := options.get("formats"), str):
        options["formats"] = tuple(map(str.strip, formats.split(",")))
    if isinstance(card := options.get("card"), str | Path):
        options["card"] = read_card(_path(card, "card"))
    known = [field.name for field in dataclasses.fields(ExportOptions)]
    for option in options:
        if option not in known:
            raise ConfigError(
                f"option {option!r} must be one that there is",
                f"{options[option]!r:.80}",
                f"There are {', '.join(known)}.",
            )
    chosen = ExportOptions(name=name, authors=people, **options)
    return export_run(_path(run, "run"), _path(out, "out"), chosen)


@in_keywords
def segment(
    image: str | Path,
    model: str | Path | Model,
    *,
    output: str | Path | None = None,
    label_name: str = "spoco",
    workers: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
    **settings: Any,
) -> SegmentResult:
    """Segment an image of any size into one consistent label image.

    Parameters
    ----------
    image : str or path
        OME-Zarr, TIFF, PNG or JPEG.
    model : str, path or Model
        Bundle, run, id of a shipped model, or what `load_model` gave.
    output : str or path, optional
        New OME-Zarr, or ``.tif``; by default inside of an OME-Zarr, and beside a
        TIFF.
    label_name : str
        Of labels inside of an OME-Zarr.
    workers : int
        Worker processes; 0 for none.
    device : {"auto", "cpu", "cuda", "cuda:I"}
    overwrite : bool
        Replace labels that are there.
    progress : bool
        Show how far it is, on stderr.
    **settings
        Of `spoco_zoo.config.SegmentConfig`, as ``channel="DAPI"``. Entries of
        `clustering` replace those of the model.

    Returns
    -------
    SegmentResult
        ``output`` is where the labels are; `spoco_zoo.segment.open_labels` opens
        them lazily.

    Raises
    ------
    InputError
        If input, model or settings cannot be used. Nothing has been written, unless a store
        fails or a staged file is damaged under way.
    BlocksFailed
        If the run is complete but for some blocks.
    Interrupted
        On Ctrl-C, SIGTERM or SIGHUP, after the blocks in flight. Called again, it goes on.
    """
    from spoco_zoo.workflow import segment_with_pictures

    with shown_progress(quiet=not progress) as display:
        return segment_with_pictures(
            at_home(path_text(image, "image", "`spoco_zoo.segment_array` takes arrays.")),
            model,
            SegmentConfig.build(None, **settings),
            InKeywords(display),
            output=None if output is None else at_home(path_text(output, "output")),
            label_name=label_name,
            workers=workers,
            device=device,
            overwrite=overwrite,
        )


@in_keywords
def segment_array(
    array: Any,
    model: str | Path | Model,
    *,
    axes: str | None = None,
    device: str = "auto",
    progress: bool = True,
    **settings: Any,
) -> NDArray[Any]:
    """Segment an image in memory; no file is left.

    The labels are those that `segment` makes of the same values in a file. For images that take
    long use that: it goes on after a stop, and tells of its work on a page.

    Parameters
    ----------
    array : array_like
        Numpy, xarray, dask, zarr, torch; finite real numbers of any type.
    model : str, path or Model
        Bundle, run, id of a shipped model, or what `load_model` gave.
    axes : str, optional
        A letter of ``tczyx`` per dimension, in any order, as ``"zyx"`` or ``"yxc"``; by default
        the dimensions' names of an xarray.DataArray, and ``"yx"`` for two dimensions.
    device : {"auto", "cpu", "cuda", "cuda:I"}
    progress : bool
        Show how far it is, on stderr.
    **settings
        Of `spoco_zoo.config.SegmentConfig`, as ``voxel_size=(0.5, 0.2, 0.2)`` in micrometres;
        coordinates of a DataArray are not read.

    Returns
    -------
    ndarray
        Unsigned integers, 0 for background. Of the shape of `array` without its channels, or
        that of the region asked for.

    Raises
    ------
    InputError
        If array, model or settings cannot be used.
    Interrupted
        On Ctrl-C, SIGTERM or SIGHUP, after the blocks in flight.
    """
    import tempfile

    from spoco_zoo.ngff import read_tiff
    from spoco_zoo.workflow import segment_with_pictures

    config = SegmentConfig.build(None, **settings)
    named = array_axes(array, axes)
    with tempfile.TemporaryDirectory(prefix="spoco-zoo-") as folder:
        place, labels = Path(folder, "array.tif"), Path(folder, "labels.tif")
        write_array(array, named, place)
        with shown_progress(quiet=not progress) as display:
            segment_with_pictures(
                str(place),
                model,
                config,
                InKeywords(display),
                output=str(labels),
                device=device,
                report=False,
            )
        return labels_of(read_tiff(labels)[0], array.shape, named, config.roi)


@in_keywords
def evaluate(prediction: str | Path, truth: str | Path, *, ignore: int | None = None) -> Evaluation:
    """Compare labels with the truth.

    Parameters
    ----------
    prediction, truth : path
        Two files, two folders of files of the same names, or two OME-Zarr label
        images.
    ignore : int, optional
        Value of the truth to leave out.

    Returns
    -------
    Evaluation
        ``mean.ap50`` is the average precision at IoU 0.5, mean over images.

    Raises
    ------
    InputError
        If files are missing, unreadable or of different shapes.
    """
    from spoco_zoo.evaluate import evaluate as compare

    places = (at_home(path_text(p, n)) for p, n in ((prediction, "prediction"), (truth, "truth")))
    return compare(*places, ignore=ignore)


def _path(value: object, name: str) -> Path:
    """A path as one, the home folder in place of ``~``."""
    return Path(at_home(path_text(value, name)))
