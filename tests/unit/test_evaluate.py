"""Evaluation of label images on disk, whatever they are stored in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from spoco_zoo import evaluate as module
from spoco_zoo.cli import app
from spoco_zoo.demo.synth import crowded_cells
from spoco_zoo.errors import DataError, StoreError
from spoco_zoo.evaluate import evaluate
from spoco_zoo.measure import measure
from spoco_zoo.metrics import Contingency, mean, pooled, score
from spoco_zoo.ngff import convert


@pytest.fixture(scope="module")
def images():
    """Three (prediction, truth) pairs: perfect, shifted by two voxels, half of it lost."""
    truths = [crowded_cells((70, 90), seed, diameter=14)[1] for seed in range(3)]
    kept = np.arange(truths[2].max() + 1) % 2 == 0
    predictions = [
        truths[0],
        np.roll(truths[1], 2, axis=1),
        np.where(kept[truths[2]], truths[2], 0),
    ]
    return list(zip(predictions, truths, strict=True))


@pytest.fixture
def folders(tmp_path, images):
    for number, pair in enumerate(images):
        for folder, labels in zip(("predicted", "true"), pair, strict=True):
            (tmp_path / folder).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / folder / f"image{number}.tif", labels.astype(np.uint16))
    return tmp_path / "predicted", tmp_path / "true"


def write(path, labels, **options):
    tifffile.imwrite(path, labels, **options)
    return path


def test_labels_in_an_ome_zarr_that_does_not_call_them_so_were_refused(tmp_path, images):
    prediction, truth = (labels.astype(np.uint16) for labels in images[2])
    write(tmp_path / "p.tif", prediction)
    write(tmp_path / "t.tif", truth)
    convert(str(tmp_path / "p.tif"), str(tmp_path / "p.ome.zarr"))  # without --labels
    found = evaluate(tmp_path / "p.ome.zarr", tmp_path / "t.tif")
    assert found.mean == evaluate(tmp_path / "p.tif", tmp_path / "t.tif").mean
    # Measured, and refused where they are grey values.
    noise = np.random.default_rng(0).integers(1, 999, truth.shape).astype(np.uint16)
    convert(str(write(tmp_path / "i.tif", noise)), str(tmp_path / "i.ome.zarr"))
    table = measure(tmp_path / "p.ome.zarr", tmp_path / "i.tif")
    assert set(table["label"]) == set(np.unique(prediction)) - {0}
    for work in (evaluate, measure):
        with pytest.raises(DataError, match="one number per object"):
            work(tmp_path / "i.ome.zarr", tmp_path / "t.tif")
    depths = truth.astype(np.float32)
    convert(str(write(tmp_path / "f.tif", depths)), str(tmp_path / "f.ome.zarr"))
    with pytest.raises(StoreError, match="without labels"):
        evaluate(tmp_path / "f.ome.zarr", tmp_path / "t.tif")


def test_of_a_large_image_nothing_was_told_before_its_end(tmp_path, images, monkeypatch):
    monkeypatch.setattr(module, "REGION", 1000)
    for name, labels in zip(("a", "b"), images[1], strict=True):
        tiff = write(tmp_path / f"{name}.tif", labels.astype(np.uint16))
        convert(tiff, tmp_path / f"{name}.zarr", chunk=(20, 20), labels=True)
    told = []
    evaluate(tmp_path / "a.zarr", tmp_path / "b.zarr", on_region=lambda *call: told.append(call))
    assert told == [(n, len(told)) for n in range(1, len(told) + 1)]
    assert len(told) > 5


def test_folders_are_matched_by_name(folders, images):
    found = evaluate(*folders)
    expected = [score(*pair) for pair in images]
    assert [image.name for image in found.images] == ["image0", "image1", "image2"]
    assert [image.scores for image in found.images] == expected
    assert found.mean == mean(expected)
    tables = []
    for pair in images:
        tables.append(Contingency())
        tables[-1].update(*pair)
    assert found.pooled == pooled(tables)
    assert sum(found.iou_histogram) == found.pooled.n_truth
    assert found.iou_histogram[-1] >= expected[0].n_truth
    assert 0 < found.mean.ap50 < 1


def test_the_result_is_json(folders):
    found = evaluate(*folders).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["n_images"] == 3
    assert found["images"][0]["ap50"] == 1


def test_progress_is_told(folders):
    calls = []
    evaluate(*folders, on_image=lambda *call: calls.append(call))
    assert calls == [("image0", 1, 3), ("image1", 2, 3), ("image2", 3, 3)]


def test_files_may_have_different_suffixes_and_types(tmp_path, images):
    prediction, truth = images[1]
    for folder in ("predicted", "true"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "predicted" / "a.ome.tiff", prediction.astype(np.uint8), compression="zlib")
    write(tmp_path / "true" / "a.TIF", truth.astype(np.uint32))
    (tmp_path / "true" / "notes.txt").write_text("no image")
    assert evaluate(tmp_path / "predicted", tmp_path / "true").mean == score(prediction, truth)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_is_counted_region_by_region(tmp_path, monkeypatch, version):
    truth = crowded_cells((20, 60, 50), 1, diameter=12)[1]
    prediction = np.roll(truth, 1, axis=2)
    for name, labels in (("predicted", prediction), ("true", truth)):
        file = write(tmp_path / f"{name}.tif", labels, metadata={"axes": "ZYX"})
        convert(file, tmp_path / name, labels=True, chunk=(8, 16, 16), version=version)
    regions = []
    count = Contingency.update

    def counted(self, one, other):
        regions.append(one.shape)
        count(self, one, other)

    monkeypatch.setattr(module, "REGION", 4000)
    monkeypatch.setattr(Contingency, "update", counted)
    found = evaluate(tmp_path / "predicted", tmp_path / "true.tif")
    assert found.mean == score(prediction, truth)
    regions.clear()
    assert evaluate(tmp_path / "predicted", tmp_path / "true").mean == found.mean
    assert len(regions) > 8
    assert max(map(np.prod, regions)) <= 2 * 4000


def test_time_points_are_images_of_their_own(tmp_path, images):
    stacks = [np.stack([pair[which] for pair in images]) for which in (0, 1)]
    files = [
        write(tmp_path / f"{n}.tif", stack.astype(np.uint16), imagej=True, metadata={"axes": "TYX"})
        for n, stack in enumerate(stacks)
    ]
    found = evaluate(*files)
    assert [image.name for image in found.images] == ["1, t=0", "1, t=1", "1, t=2"]
    assert [image.scores for image in found.images] == [score(*pair) for pair in images]


def test_a_time_series_is_not_scored_as_a_volume(tmp_path):
    labels = np.ones((5, 20, 30), np.uint16)
    series = write(tmp_path / "a.ome.tif", labels, metadata={"axes": "TYX"}, ome=True)
    unnamed = write(tmp_path / "b.tif", labels)
    for pair in ((series, unnamed), (unnamed, series)):
        with pytest.raises(DataError, match=r"axes [tz],y,x and [tz],y,x for"):
            evaluate(*pair)


def test_ignored_voxels(tmp_path):
    truth = np.array([[1, 1, 9, 9]] * 4, np.uint8)
    prediction = np.array([[1, 1, 2, 2]] * 4, np.uint8)
    files = write(tmp_path / "p.tif", prediction), write(tmp_path / "t.tif", truth)
    assert evaluate(*files, ignore=9).mean.n_predicted == 1


def test_a_prediction_without_truth_is_named_and_left_out(folders):
    (folders[1] / "image1.tif").unlink()
    found = evaluate(*folders)
    assert found.without_truth == ("image1",)
    assert [image.name for image in found.images] == ["image0", "image2"]
    done = CliRunner().invoke(app, ["evaluate", *map(str, folders)])
    assert done.exit_code == 0
    assert "without a truth are left out: 1, such as 'image1'" in done.stderr


def test_a_missing_prediction_is_an_error(folders):
    (folders[0] / "image1.tif").unlink()
    with pytest.raises(DataError, match=r"1 of 3 without .* 'image1'"):
        evaluate(*folders)


def test_unequal_shapes_are_an_error(folders):
    write(folders[0] / "image1.tif", np.zeros((70, 91), np.uint16))
    with pytest.raises(DataError, match=r"\(70, 91\) and \(70, 90\) for 'image1'"):
        evaluate(*folders)


def test_other_mismatches_are_errors(folders, tmp_path):
    with pytest.raises(DataError, match="both"):
        evaluate(folders[0], folders[1] / "image0.tif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="none in"):
        evaluate(folders[0], tmp_path / "empty")
    with pytest.raises(StoreError):
        evaluate(tmp_path / "absent.tif", folders[1] / "image0.tif")
    write(folders[1] / "image0.tiff", np.zeros((4, 4), np.uint16))
    with pytest.raises(DataError, match="unique"):
        evaluate(*folders)


def test_numbers_that_are_no_labels_did_not_say_in_which_image(folders) -> None:
    truth = tifffile.imread(folders[1] / "image1.tif").astype(np.int32)
    write(folders[1] / "image1.tif", truth - 1)
    with pytest.raises(DataError, match=r"-1 in the truth of 'image1'.*--ignore"):
        evaluate(*folders)
    evaluate(*folders, ignore=-1)


def test_pictures_of_labels_are_no_labels(tmp_path):
    truth = write(tmp_path / "t.tif", np.ones((30, 40), np.uint8))
    picture = write(tmp_path / "p.tif", np.ones((30, 40, 3), np.uint8), photometric="rgb")
    with pytest.raises(DataError, match="one channel"):
        evaluate(picture, truth)
    probabilities = write(tmp_path / "f.tif", np.ones((30, 40), np.float32))
    with pytest.raises(StoreError, match="integers"):
        evaluate(probabilities, truth)


def test_axes_of_one_entry_do_not_count(tmp_path: Path) -> None:
    labels = np.zeros((20, 24), np.uint16)
    labels[3:9, 4:12] = 1
    tifffile.imwrite(tmp_path / "flat.tif", labels)
    tifffile.imwrite(
        tmp_path / "deep.ome.tif", labels[None, None], metadata={"axes": "TZYX"}, ome=True
    )
    convert(tmp_path / "deep.ome.tif", tmp_path / "deep.ome.zarr", labels=True)
    for one, other in (("flat.tif", "deep.ome.zarr"), ("deep.ome.zarr", "flat.tif")):
        assert evaluate(tmp_path / one, tmp_path / other).mean.ap50 == 1


def test_a_truth_of_some_objects_is_told_of(tmp_path: Path, images) -> None:
    whole = images[0][1].astype(np.uint16)
    some = np.where(whole % 4 == 1, whole, 0)
    for name, labels in (("whole", whole), ("some", some), ("none", np.zeros_like(whole))):
        write(tmp_path / f"{name}.tif", labels)
    told = []
    pairs = ("whole", "some"), ("whole", "whole"), ("some", "whole"), ("none", "none")
    for prediction, truth in pairs:
        done = CliRunner().invoke(
            app, ["evaluate", *(str(tmp_path / f"{name}.tif") for name in (prediction, truth))]
        )
        assert done.exit_code == 0
        told.append("of which 100% are found" in " ".join(done.stderr.split()))
    assert told == [True, False, False, False]
