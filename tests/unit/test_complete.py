"""Sparse annotation, completed with what a model is sure of."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parent / "bundle"))
from bundle_runs import disks, make_run, trained_run
from torch import Tensor, nn
from typer.testing import CliRunner

from spoco_zoo import complete, ngff
from spoco_zoo.cli import app
from spoco_zoo.complete import (
    SOLID,
    complete_annotation,
    completed,
    least_solidity,
    refuse_if_poor,
    solidity,
    with_background,
)
from spoco_zoo.config import ClusteringConfig, TrainConfig
from spoco_zoo.errors import BundleError, ConfigError, DataError, StoreError
from spoco_zoo.nets.model import Model, load_run
from spoco_zoo.train.data import BACKGROUND, UNKNOWN
from spoco_zoo.tuning import tune_model


def squares(*places: tuple[int, int], side: int = 10) -> np.ndarray:
    """Labels (60, 60) with a square at each place."""
    labels = np.zeros((60, 60), np.int32)
    for number, (y, x) in enumerate(places, start=1):
        labels[y : y + side, x : x + side] = number
    return labels


def test_objects_that_all_agree_about_are_added_and_others_are_not() -> None:
    first = squares((5, 5), (5, 40), (40, 5))
    other = squares((40, 6), (5, 5))  # one is a little off, one is missing
    labels, added = completed(np.zeros((60, 60), np.int32), [first, other])
    assert added == 2
    assert set(labels[first == 1]) == {1}
    assert set(labels[first == 3]) == {2}
    assert set(labels[first == 2]) == {UNKNOWN}


def test_what_a_person_annotated_stays() -> None:
    annotation = squares((5, 5), (40, 40), side=6) * 7
    annotation[20:25] = BACKGROUND
    found = squares((4, 4), (18, 30), (30, 5), side=8)
    labels, added = completed(annotation, [found, found])
    known = annotation != UNKNOWN
    assert np.array_equal(labels[known], annotation[known])
    # The first is an annotated object, the second lies over annotated background.
    assert added == 1
    assert set(labels[((found == 1) | (found == 2)) & ~known]) == {UNKNOWN}
    assert set(labels[found == 3]) == {annotation.max() + 1}


def test_joined_objects_are_not_believed() -> None:
    dumbbell = ndimage.binary_dilation(squares((10, 5), (10, 25)) > 0).astype(np.int32)
    dumbbell[15, 10:30] = 1
    labels, added = completed(np.zeros_like(dumbbell), [dumbbell])
    assert added == 0
    assert set(labels[dumbbell > 0]) == {UNKNOWN}


def test_bent_objects_were_never_added() -> None:
    """Worms and rings that are open: annotated ones say how convex others may be."""
    bent = np.ones((12, 12), np.int32)
    bent[3:, 3:] = 0
    annotation = np.full((40, 60), UNKNOWN, np.int32)
    annotation[2:14, 2:14] = bent
    found = annotation.copy()
    found[22:34, 32:44] = 2 * bent
    assert completed(annotation, [found])[1] == 0
    assert completed(annotation, [found], least_solidity([annotation]))[1] == 1
    convex = squares((2, 2), (2, 20))
    assert least_solidity([convex]) == least_solidity([convex * 0]) == SOLID


def test_background_keeps_its_distance_from_every_object() -> None:
    annotation, found, other = squares((2, 2)), squares((30, 30)), squares((50, 5), side=4)
    labels, _ = completed(annotation, [found, other])
    objects = (annotation > 0) | (found > 0) | (other > 0)
    distance = ndimage.distance_transform_cdt(~objects, "taxicab")
    assert np.array_equal(labels == BACKGROUND, distance > 2)


def test_solidity() -> None:
    assert solidity(np.ones((5, 8), bool)) == 1
    assert solidity(np.ones((2, 8), bool)) == 1
    assert solidity(np.ones((6, 5, 8), bool)) == 1
    corner = np.ones((20, 20), bool)
    corner[5:, 5:] = False
    assert solidity(corner) < 0.75


def test_no_object_gets_the_value_of_background() -> None:
    labels = np.array([BACKGROUND, UNKNOWN, 1, 2, 3, 4], np.int32)
    assert with_background(labels, 3).tolist() == [3, 0, 1, 2, 4, 5]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, an image, and masks with one of its disks and a stroke of background."""
    folder = tmp_path_factory.mktemp("complete")
    trained_run(folder / "run")
    image, truth = disks(2)
    sparse = np.where(truth == truth.max(), 1, 0).astype(np.uint8)
    background = np.argwhere(ndimage.binary_erosion(truth == 0, iterations=3))[:40]
    sparse[tuple(background.T)] = 255
    for name, values in (("images", image[0]), ("labels", sparse)):
        (folder / name).mkdir()
        tifffile.imwrite(folder / name / "a.tif", values)
    return folder


def command(data: Path, out: Path) -> list[str]:
    places = ["--images", str(data / "images"), "--labels", str(data / "labels")]
    return ["complete", str(data / "run"), *places, "--background-label", "255", "--out", str(out)]


def test_the_command_completes_masks_that_training_takes(data: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, command(data, tmp_path / "more"))
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    labels, before = (
        tifffile.imread(folder / "a.tif") for folder in (tmp_path / "more", data / "labels")
    )
    assert (result["annotated"], result["found"]) == (1, 1)
    assert len(np.unique(labels[(labels > 0) & (labels != 255)])) == 1 + result["added"]
    assert (labels[before == 255] == 255).all()
    assert (labels == 255).sum() == (before == 255).sum()
    assert "Fewer than 10 objects are annotated" in done.stderr
    places = ["--images", str(data / "images"), "--labels", str(tmp_path / "more")]
    places += ["--val-images", str(data / "images"), "--val-labels", str(tmp_path / "more")]
    flags = ["--annotation", "sparse", "--background-label", "255", "--iterations", "1"]
    flags += ["--batch-size", "2", "--crop", "32,32", "--out", str(tmp_path / "again")]
    done = CliRunner().invoke(app, ["train", *places, *flags, "--init", str(data / "run")])
    assert done.exit_code == 0, done.output


class Bright(nn.Module):
    """Embeds bright voxels far from the origin and dark ones there."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([4.0 * (x > 0), torch.zeros_like(x)], dim=1)


@pytest.mark.parametrize(("few", "far"), [(1, 2), (2, 0)])
def test_what_a_good_model_finds_is_added_and_of_enough_objects_background(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int, far: int
) -> None:
    """Of three objects a model found all three, and made background of half of the others."""
    monkeypatch.setattr(complete, "FEW", few)
    recipe = load_run(data / "run").recipe
    net = recipe.net.model_copy(update={"embedding_dim": 2})
    clustering = ClusteringConfig(foreground=2.0, min_size=4)
    changes = {"net": net, "background": (0.0, 0.0), "clustering": clustering}
    model = Model(recipe.model_copy(update=changes), Bright(), None, "")
    image = np.pad(np.full((8, 8), 200, np.uint8), 12)
    for name, values in (("images", np.tile(image, 3)), ("labels", np.tile(image // 200, 3))):
        (tmp_path / name).mkdir()
        values[:, 40:] *= name == "images"  # the first square is annotated
        tifffile.imwrite(tmp_path / name / "b.tif", values)
    out = tmp_path / "more"
    result = complete_annotation(
        model, tmp_path / "images", tmp_path / "labels", out, background_label=2
    )
    labels = tifffile.imread(out / "b.tif")
    assert (result.annotated, result.found, result.added) == (1, 1, 2)
    assert [int(labels[16, x]) for x in (16, 16 + 32, 16 + 64, 0)] == [1, 3, 4, far]


def test_a_model_that_misses_the_objects_made_background_of_them(
    data: Path, tmp_path: Path
) -> None:
    untrained = make_run(tmp_path / "run", 2)
    done = CliRunner().invoke(app, ["complete", str(untrained), *command(data, tmp_path / "o")[2:]])
    assert done.exit_code == 2
    text = "at least 50% of the annotated objects; found 0 of 1. Train longer"
    assert text in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_half_of_the_objects_must_be_found() -> None:
    for found, annotated in ((1, 2), (2, 3), (5, 5)):
        refuse_if_poor(found, annotated)
    for found, annotated in ((0, 1), (1, 3), (49, 100)):
        with pytest.raises(BundleError):
            refuse_if_poor(found, annotated)


def test_nothing_is_replaced(data: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    done = CliRunner().invoke(app, command(data, tmp_path / "more"))
    assert done.exit_code == 2
    assert "new folder" in done.output
    with pytest.raises(StoreError):
        complete_annotation(
            data / "run", data / "images", data / "labels", data / "run", background_label=255
        )


def test_a_folder_of_a_similar_name_was_deleted_whatever_it_held(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "more.partial").mkdir()
    (tmp_path / "more.partial" / "thesis.txt").write_text("text")
    places = (data / "images", data / "labels", tmp_path / "more")
    complete_annotation(data / "run", *places, background_label=255)
    assert (tmp_path / "more.partial" / "thesis.txt").read_text() == "text"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_place_that_cannot_be_written_was_noticed_after_the_work_began(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(app, command(data, tmp_path / "file" / "more"))
    assert done.exit_code == 2
    text = "spoco-zoo: --out must lie in a folder that can be written; found"
    assert done.stderr.splitlines()[-1].startswith(text)


def test_a_network_of_others_is_refused(data: Path, tmp_path: Path) -> None:
    known = load_run(data / "run")
    foreign = Model(known.recipe, lambda x: x, None, "")
    with pytest.raises(ConfigError, match="network of this package"):
        complete_annotation(
            foreign, data / "images", data / "labels", tmp_path / "o", background_label=255
        )


def test_a_model_with_consistency_clustering_could_not_complete(data: Path, tmp_path: Path) -> None:
    clustering = load_run(data / "run").recipe.clustering
    changes = {"method": "consistency", "iou": 0.0, "scoring": None}
    clustering = clustering.model_copy(update=changes)
    run = trained_run(tmp_path / "run", momentum=True, clustering=clustering)
    places = (data / "images", data / "labels", tmp_path / "more")
    result = complete_annotation(run, *places, background_label=255)
    assert result.annotated == 1


@pytest.mark.parametrize("value", [0, -1])
def test_a_background_label_of_0_made_an_object_of_what_nobody_annotated(
    data: Path, tmp_path: Path, value: int
) -> None:
    places = (data / "images", data / "labels", tmp_path / "more")
    with pytest.raises(ConfigError, match="--background-label must be a number above 0"):
        complete_annotation(data / "run", *places, background_label=value)
    assert not (tmp_path / "more").exists()


def test_images_of_other_channels_than_the_models_are_refused(data: Path, tmp_path: Path) -> None:
    image = tifffile.imread(data / "images" / "a.tif")
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", np.stack([image, image]))
    places = (tmp_path / "images", data / "labels")
    with pytest.raises(DataError, match=r"as many channels as the model \(1\); found 2 in a"):
        complete_annotation(data / "run", *places, tmp_path / "more", background_label=255)
    with pytest.raises(DataError, match=r"as many channels as the model \(1\); found 2 in a"):
        tune_model(str(data / "run"), *places, out=tmp_path / "tuned")


def sparse_run(data: Path, folder: Path, **settings: object) -> Path:
    """The run, as trained on sparse labels with these settings."""
    shutil.copytree(data / "run", folder)
    config = TrainConfig(annotation="sparse", **settings)
    (folder / "config.yaml").write_text(config.to_yaml())
    return folder


def test_another_background_label_than_the_runs_made_objects_of_strokes(
    data: Path, tmp_path: Path
) -> None:
    run = sparse_run(data, tmp_path / "run", background_label=255)
    places = (data / "images", data / "labels")
    with pytest.raises(ConfigError, match=r"in the training.*found 3, and 255 in"):
        complete_annotation(run, *places, tmp_path / "wrong", background_label=3)
    result = complete_annotation(run, *places, tmp_path / "own")
    assert result.annotated == 1
    given = complete_annotation(run, *places, tmp_path / "given", background_label=255)
    assert given.added == result.added
    own, same = (tifffile.imread(tmp_path / name / "a.tif") for name in ("own", "given"))
    assert np.array_equal(own, same)
    assert not (tmp_path / "wrong").exists()


def test_a_background_label_is_asked_for_where_no_run_knows_it(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must name the value of known background; found none"):
        complete_annotation("nuclei-fluo-2d", data / "images", data / "labels", tmp_path / "more")


def test_three_planes_were_written_as_a_colour_picture(tmp_path: Path) -> None:
    labels = np.zeros((3, 40, 50), np.int32)
    labels[1:, 5:20, 5:20] = 4
    complete.write_label_tiff(tmp_path / "v.tif", labels)
    with tifffile.TiffFile(tmp_path / "v.tif") as file:
        assert (file.series[0].axes, len(file.pages)) == ("ZYX", 3)
    assert ngff.open_image(tmp_path / "v.tif").spatial_shape() == labels.shape
    assert np.array_equal(tifffile.imread(tmp_path / "v.tif"), labels)


def test_a_stroke_value_that_completed_labels_cannot_have_is_refused_once(
    data: Path, tmp_path: Path
) -> None:
    run = sparse_run(data, tmp_path / "run", background_label=-1)
    places = (data / "images", data / "labels")
    for value in (None, 65535):
        with pytest.raises(ConfigError, match=r"found -1 in .*train again"):
            complete_annotation(run, *places, tmp_path / "more", background_label=value)


def test_labels_in_an_ome_zarr_with_several_could_not_be_completed_or_tuned_on(
    data: Path, tmp_path: Path
) -> None:
    store = tmp_path / "stores" / "a.ome.zarr"
    store.parent.mkdir()
    ngff.convert(data / "images" / "a.tif", store)
    labels = tifffile.imread(data / "labels" / "a.tif").astype(np.uint32)
    for name, values in (("mine", labels), ("other", labels * 0 + 1)):
        target = ngff.plan_label(ngff.open_image(store), name=name)
        ngff.create_label(target, dtype=np.uint32, shard=labels.shape, chunk=labels.shape)
        ngff.open_label_array(target, 0)[...] = values
        ngff.publish_label(target)
    places = ["--images", str(store.parent), "--labels", str(store.parent)]
    complete = ["complete", str(data / "run"), *places, "--background-label", "255"]
    done = CliRunner().invoke(app, [*complete, "--out", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "--label-name in train, tune, complete and measure" in done.stderr
    done = CliRunner().invoke(
        app, [*complete, "--out", str(tmp_path / "more"), "--label-name", "mine"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["annotated"] == 1
    run = sparse_run(data, tmp_path / "run", background_label=255, label_name="mine")
    result = complete_annotation(run, store.parent, store.parent, tmp_path / "own")
    assert (result.annotated, result.out) == (1, str(tmp_path / "own"))
    tune = ["tune", "nuclei-fluo-2d", *places, "--annotation", "sparse", "--methods", "instance"]
    tune += ["--background-label", "255", "--label-name", "mine", "--out", str(tmp_path / "tuned")]
    done = CliRunner().invoke(app, tune)
    assert done.exit_code == 0, done.output
