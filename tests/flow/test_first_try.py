"""The first thing a newcomer tries: an image of their own, and no flag."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "bundle"))
from bundle_runs import disks, make_run
from planted import code_model, exact_cluster, read_labels, same_partition, tissue
from typer.testing import CliRunner

from spoco_zoo import ngff
from spoco_zoo.cli import app
from spoco_zoo.config import ClusteringConfig, SegmentConfig
from spoco_zoo.nets.model import Model
from spoco_zoo.segment import Event, dry_run, segment

FACTOR = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("first") / "run", 2)


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    image, _ = disks(2)
    values = image[0] - image.min()
    return np.rint(values / values.max() * 250).astype(np.uint8)


VARIANTS = {
    "uint16": lambda g: (g.astype(np.uint16) * 200 + 1000, {}),
    "twelve bits": lambda g: (g.astype(np.uint16) * 16, {}),
    "negative": lambda g: (g.astype(np.int16) - 125, {}),
    "float 0 to 1": lambda g: (g.astype(np.float32) / 255, {}),
    "double": lambda g: (g * 1e4, {}),
    "photograph": lambda g: (np.stack([g] * 3, -1), {"photometric": "rgb"}),
    "with alpha": lambda g: (np.stack([g, g, g, g * 0 + 255], -1), {"photometric": "rgb"}),
    "blue": lambda g: (np.stack([g * 0, g * 0, g], -1), {"photometric": "rgb"}),
    "planar": lambda g: (np.stack([g] * 3), {"photometric": "rgb", "planarconfig": "separate"}),
    "one channel first": lambda g: (g[None], {"metadata": {"axes": "CYX"}}),
    "one channel last": lambda g: (g[..., None], {}),
    "big-endian": lambda g: (g.astype(">u2"), {"byteorder": ">"}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_labels_do_not_depend_on_how_grey_values_are_stored(
    name: str, grey: np.ndarray, run: Path, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", grey)
    values, options = VARIANTS[name](grey)
    options = {"photometric": "minisblack", **options}
    tifffile.imwrite(tmp_path / "mine.tif", values, **options)
    plain = segment(tmp_path / "plain.tif", run)
    mine = segment(tmp_path / "mine.tif", run)
    assert mine.output == str(tmp_path / "mine.spoco.tif")
    a, b = tifffile.imread(plain.output), np.squeeze(tifffile.imread(mine.output))
    assert plain.objects > 3
    # The same intensities up to rounding of float32.
    assert (a == b).mean() > 0.999


def test_dark_objects_are_noticed_and_inverted(grey: np.ndarray, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    recipe = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps({**recipe, "lean": -0.4}))
    tifffile.imwrite(tmp_path / "plain.tif", grey)
    tifffile.imwrite(tmp_path / "dark.tif", 255 - grey)
    plain = segment(tmp_path / "plain.tif", run)
    assert "--invert" not in plain.summary["hint"]
    asis = segment(tmp_path / "dark.tif", run)
    assert "--invert" in asis.summary["hint"]
    command = ["segment", str(tmp_path / "dark.tif"), "--model", str(run), "--invert"]
    done = CliRunner().invoke(app, [*command, "--overwrite"])
    assert done.exit_code == 0, done.output
    assert "--invert" not in done.output.replace(" ".join(command), "")
    dark, bright = tifffile.imread(asis.output), tifffile.imread(plain.output)
    assert (dark == bright).mean() > 0.999


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return tissue((150, 140), 60, seed=4)


@pytest.fixture(scope="module")
def coarse_model(truth: np.ndarray) -> Model:
    """A model that was trained at 0.6 um and reads off what an object is."""
    model = code_model(truth)
    recipe = model.recipe.model_copy(update={"voxel_size": (0.6, 0.6)})
    return dataclasses.replace(model, recipe=recipe)


@pytest.fixture(scope="module")
def fine_truth(truth: np.ndarray) -> np.ndarray:
    return truth.repeat(FACTOR, 0).repeat(FACTOR, 1)


@pytest.fixture
def fine_image(fine_truth: np.ndarray, tmp_path: Path) -> Path:
    """The same tissue at 0.2 um."""
    size = {f"PhysicalSize{axis}": 0.2 for axis in "XY"}
    tifffile.imwrite(tmp_path / "fine.tif", fine_truth, ome=True, metadata={"axes": "YX", **size})
    return tmp_path / "fine.tif"


SMALL = SegmentConfig(block=(64, 64), overlap=(16, 16), patch=(64, 64), halo=(12, 12))


def test_finer_pixels_give_labels_of_full_size(
    fine_image: Path, fine_truth: np.ndarray, coarse_model: Model
) -> None:
    events: list[Event] = []
    result = segment(fine_image, coarse_model, SMALL, cluster=exact_cluster, on_event=events.append)
    labels = tifffile.imread(result.output)
    assert labels.shape == fine_truth.shape
    assert same_partition(labels, fine_truth)
    notes = [event.message for event in events if event.phase == "plan"]
    assert len(notes) == 1
    assert "factor of 1/3" in notes[0]
    assert {e.phase for e in events if e.done == e.total} >= {"blocks", "relabel", "full size"}
    assert ngff.open_image(result.output).voxel_size() == pytest.approx((0.2, 0.2))


def test_rescaled_labels_lie_in_their_image_with_all_levels(
    fine_image: Path, fine_truth: np.ndarray, coarse_model: Model, tmp_path: Path
) -> None:
    ngff.convert(fine_image, tmp_path / "fine.ome.zarr")
    segment(tmp_path / "fine.ome.zarr", coarse_model, SMALL, cluster=exact_cluster)
    image = ngff.open_image(tmp_path / "fine.ome.zarr")
    label = tmp_path / "fine.ome.zarr/labels/spoco"
    assert ngff.open_image(label).levels == image.levels
    assert same_partition(read_labels(label), fine_truth)


def test_a_region_of_a_rescaled_image_is_that_of_the_whole(
    fine_image: Path, coarse_model: Model, tmp_path: Path
) -> None:
    whole = segment(fine_image, coarse_model, SMALL, cluster=exact_cluster)
    roi = ((31, 292), (100, 400))
    config = SMALL.model_copy(update={"roi": roi})
    part = segment(
        fine_image, coarse_model, config, output=tmp_path / "part.tif", cluster=exact_cluster
    )
    expected = tifffile.imread(whole.output)[31:292, 100:400]
    found = tifffile.imread(part.output)
    assert found.shape == expected.shape
    # An object of which the region shows two parts is two objects there: compare what is not 0.
    assert np.array_equal(found > 0, expected > 0)
    for label in np.unique(found[found > 0]):
        assert len(np.unique(expected[found == label])) == 1


def test_blocks_do_not_show_in_rescaled_labels(
    fine_image: Path, coarse_model: Model, tmp_path: Path
) -> None:
    one = segment(fine_image, coarse_model, SMALL, cluster=exact_cluster)
    other = segment(
        fine_image,
        coarse_model,
        SMALL.model_copy(update={"block": (150, 48)}),
        output=tmp_path / "other.tif",
        cluster=exact_cluster,
    )
    assert same_partition(tifffile.imread(one.output), tifffile.imread(other.output))


def test_the_plan_says_what_will_be_resampled(fine_image: Path, coarse_model: Model) -> None:
    plan = dry_run(fine_image, coarse_model)
    assert plan.grid.shape == (150, 140)
    shown = plan.summary()
    assert shown["resampled"].startswith("to 150 x 140 voxels of 0.6 x 0.6")
    assert "--no-rescale" in shown["notes"]
    taken = dry_run(fine_image, coarse_model, SegmentConfig(rescale=False))
    assert taken.summary()["resampled"] == "no"
    told = dry_run(fine_image, coarse_model, SegmentConfig(voxel_size=(0.6, 0.6)))
    assert told.summary()["resampled"] == "no"
    assert told.notes == ()


def test_the_voxel_size_that_a_user_gives_was_not_in_the_label_tiff(
    grey: np.ndarray, run: Path, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "mine.tif", grey)
    result = segment(tmp_path / "mine.tif", run, SegmentConfig(voxel_size=(0.25, 0.2)))
    assert ngff.open_image(result.output).voxel_size() == pytest.approx((0.25, 0.2))


def test_all_settings_lie_beside_the_result_and_can_be_used_again(
    grey: np.ndarray, run: Path, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "mine.tif", grey)
    done = CliRunner().invoke(
        app, ["segment", str(tmp_path / "mine.tif"), "--model", str(run), "--min-size", "7"]
    )
    assert done.exit_code == 0, done.output
    assert "spoco-zoo view" in done.stderr
    folder = tmp_path / "mine.spoco.tif.spoco-run"
    settings = SegmentConfig.build(folder / "config.yaml")
    assert settings.clustering is not None
    assert settings.clustering.min_size == 7
    assert settings.patch is not None
    again = segment(tmp_path / "mine.tif", run, settings, output=tmp_path / "again.tif")
    first = tifffile.imread(tmp_path / "mine.spoco.tif")
    assert np.array_equal(first, tifffile.imread(again.output))
    page = (folder / "segment.html").read_text()
    assert "Sizes" in page
    assert "spoco-zoo view" in page


def test_a_size_asked_for_beside_a_config_file_with_scores_is_given(
    grey: np.ndarray, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", grey)

    def resolved(*options: str) -> ClusteringConfig:
        command = ["segment", str(tmp_path / "a.tif"), "--model", "nuclei-fluo-2d", "--overwrite"]
        result = CliRunner().invoke(app, [*command, "--no-report", *options])
        assert result.exit_code == 0, result.output
        found = SegmentConfig.build(tmp_path / "a.spoco.tif.spoco-run" / "config.yaml").clustering
        assert found is not None
        return found

    assert resolved().scoring is not None
    shutil.copy(tmp_path / "a.spoco.tif.spoco-run" / "config.yaml", tmp_path / "before.yaml")
    again = ["--config", str(tmp_path / "before.yaml")]
    assert resolved(*again).scoring is not None
    asked = resolved(*again, "--min-size", "7")
    assert (asked.scoring, asked.min_size) == (None, 7)
