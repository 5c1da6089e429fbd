"""The whole tool on data of its own: make, train, export, check, segment, evaluate, report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import tifffile

from spoco_zoo import ngff
from spoco_zoo.bundle.export import export
from spoco_zoo.bundle.options import ExportOptions
from spoco_zoo.bundle.verify import check_bundle
from spoco_zoo.config import SegmentConfig, TrainConfig
from spoco_zoo.demo.cells import Tissue
from spoco_zoo.demo.synth import draw, write_volume
from spoco_zoo.errors import ConfigError, ExportError, StoreError
from spoco_zoo.evaluate import evaluate
from spoco_zoo.report.page import Figure, Section, html_page
from spoco_zoo.workflow import segment_with_pictures, train_with_pictures

if TYPE_CHECKING:
    from pathlib import Path

    from spoco_zoo.report.progress import Display

__all__ = ["run_demo"]

IMAGES = {2: 16, 3: 6}
TRAINING_SHAPE = {2: (192, 192), 3: (40, 96, 96)}
SIDE = {2: 1024, 3: 128}
LEAST_SIDE = 32
ITERATIONS = {2: 600, 3: 800}
BATCH = {2: 4, 3: 1}
DIAMETER = {2: 24.0, 3: 20.0}
BLOCK = {2: 512, 3: 96}
# The made-up cells of volumes are small, and three levels see all of one.
FEATURES = {2: (16, 32, 64, 128), 3: (16, 32, 64)}


def run_demo(
    out: Path,
    display: Display,
    *,
    ndim: int = 2,
    size: int | None = None,
    iterations: int | None = None,
    workers: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """Run the main job from nothing to a report.

    Parameters
    ----------
    out : Path
        New folder. Gets ``data/``, ``run/``, ``model.zip``, ``big.ome.zarr`` with
        the labels in it, and ``report.html`` with its pictures.
    display : Display
    ndim : {2, 3}
    size : int, optional
        Side of the segmented image in voxels.
    iterations : int, optional
        Training steps.
    workers : int
        Worker processes of the segmentation; 0 for none.
    seed : int
        The training images have seeds of their own that follow it, and so has
        the segmented image: it shows cells that the network never saw.

    Returns
    -------
    dict
        Figures and places, ready for JSON.

    Raises
    ------
    ConfigError
        If `ndim` is not 2 or 3.
    StoreError
        If `out` exists, but as an empty folder.
    """
    if ndim not in (2, 3):
        raise ConfigError("--ndim must be 2 or 3", str(ndim), "Choose one of them.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError("--out must be a new or empty folder", str(out), "Choose another name.")
    began = time.monotonic()
    side = SIDE[ndim] if size is None else size
    if side < LEAST_SIDE:
        raise ConfigError(f"--size must be at least {LEAST_SIDE}", str(side), "Enlarge it.")
    config = TrainConfig.build(
        ndim=ndim,
        iterations=ITERATIONS[ndim] if iterations is None else iterations,
        batch_size=BATCH[ndim],
        features=FEATURES[ndim],
        seed=seed,
    )
    make_training_data(out / "data", ndim, seed)
    big, truth = make_big_image(out, ndim, side, seed, display)
    train_with_pictures(out / "data/images", out / "data/labels", out / "run", config, display)
    display.note("exporting the model and running the official test")
    bundle, formats = export_and_check(out, ndim)
    result = segment_with_pictures(
        str(big),
        str(bundle),
        SegmentConfig(block=(min(BLOCK[ndim], side),) * ndim),
        display,
        workers=workers,
        dashboard=False,
    )
    scores = evaluate(result.output, truth).mean
    summary = {
        "ap50": round(scores.ap50, 4),
        "ap75": round(scores.ap75, 4),
        "objects": result.objects,
        "true_objects": scores.n_truth,
        "blocks": result.blocks,
        "bundle_formats": formats,
        "seconds": round(time.monotonic() - began, 1),
        "labels": result.output,
        "bundle": str(bundle),
        "report": str(out / "report.html"),
        "picture": str(result.report.with_suffix(".png")),
    }
    write_report(out, summary, result.report.with_suffix(".png"))
    display.note(f"AP@0.5 {scores.ap50:.3f} against the truth; open {out / 'report.html'}")
    return summary


def export_and_check(out: Path, ndim: int) -> tuple[Path, list[str]]:
    """Make a bundle of the run and try it: where it is, and its weight formats."""
    options = ExportOptions(
        name=f"Demo cells {ndim}D",
        authors=("spoco-zoo demo",),
        description="Crowded synthetic cells with membranes, trained for minutes.",
        training_data="Images drawn by the demo itself; no real cell was seen.",
        limits="It is a demonstration: do not use it on real data.",
    )
    exported = export(out / "run", out / "model.zip", options)
    checked = check_bundle(exported.path, trust_code=False)
    if not checked.passed:
        raise ExportError(f"the exported bundle fails its check: {checked.error}")
    return exported.path, [item.name for item in checked.formats]


def make_training_data(folder: Path, ndim: int, seed: int) -> None:
    """Write small images and labels as TIFF pairs."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    shape = TRAINING_SHAPE[ndim]
    for number in range(IMAGES[ndim]):
        # Cut out of a larger tissue, as one annotates parts of an image: cells at the edge of
        # a tissue of its own would lie along that edge, which no cell inside of the big one does.
        tissue = Tissue(
            tuple(3 * n for n in shape), seed * 1000 + number + 1, diameter=DIAMETER[ndim]
        )
        image, labels = draw(tissue, tuple(slice(n, 2 * n) for n in shape))
        tifffile.imwrite(folder / "images" / f"{number:03}.tif", image, compression="zlib")
        tifffile.imwrite(folder / "labels" / f"{number:03}.tif", labels, compression="zlib")


def make_big_image(
    out: Path, ndim: int, side: int, seed: int, display: Display
) -> tuple[Path, Path]:
    """Draw the image to segment block by block, and its truth, both as OME-Zarr."""
    tissue = Tissue((side,) * ndim, seed * 1000, diameter=DIAMETER[ndim])
    drawn = write_volume(
        out / "data", tissue, on_block=lambda done, total: display.update("draw", done, total)
    )
    big, truth = out / "big.ome.zarr", out / "truth.ome.zarr"
    ngff.convert(drawn.image, big)
    ngff.convert(drawn.labels, truth, labels=True)
    drawn.image.unlink()
    drawn.labels.unlink()
    return big, truth


def write_report(out: Path, summary: dict[str, Any], picture: Path) -> None:
    """One page with the figures and pictures of the demo."""
    rows = tuple((name, str(value)) for name, value in summary.items())
    sections = [
        Section(
            "What happened",
            (
                "A SPOCO model was trained on synthetic cells, exported as a bioimage.io bundle, "
                "checked by the official test in every weight format, and applied block by block "
                "to an image that it had not seen. The labels of all blocks were stitched into one "
                "label image inside the OME-Zarr.",
            ),
            (("what", "value"), *rows),
        ),
        Section("Look at it", code=f"napari --plugin napari-ome-zarr {out / 'big.ome.zarr'}"),
    ]
    figures = [
        Figure(picture, "The segmented image and the outlines of its labels."),
        Figure(out / "run" / "preview.png", "A validation image: truth, embeddings, labels."),
        Figure(out / "run" / "training.png", "Loss terms and validation AP while training."),
    ]
    html_page(out / "report.html", "spoco-zoo demo", sections, figures)
