"""Images and labels in object stores: a real S3 server on this machine, real HTTP."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
from planted import code_model, exact_cluster, read_labels, same_partition, tissue, write_image

from spoco_zoo import ngff
from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import BlocksFailed, StoreError
from spoco_zoo.segment import dry_run, open_labels, segment

pytest.importorskip("s3fs", reason="s3:// needs the extra s3")
# s3fs leaves its connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SMALL = SegmentConfig(block=(64, 64), overlap=(12, 12), patch=(64, 64), halo=(12, 12))
BUCKET = "cells"
CALLS = [0]


def fails_once(embeddings, config, background, /, *, momentum=None):
    """The second block of the first run raises."""
    CALLS[0] += 1
    if CALLS[0] == 2:
        raise ValueError("a bad block")
    return exact_cluster(embeddings, config, background)


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty bucket, found through the environment as with a real account."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    files = s3fs.S3FileSystem()
    if files.exists(BUCKET):
        files.rm(BUCKET, recursive=True)
    files.mkdir(BUCKET)
    return f"s3://{BUCKET}"


@pytest.fixture
def truth() -> np.ndarray:
    return tissue((150, 140), 40, seed=2)


def upload(local: Path, address: str) -> str:
    files, path = ngff.remote.remote_files(address)
    files.put(str(local), path, recursive=True)
    files.invalidate_cache()
    return address


def test_an_object_store_in_and_out(bucket: str, truth: np.ndarray, tmp_path: Path) -> None:
    local = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    image = upload(local, f"{bucket}/image.ome.zarr")
    output = f"{bucket}/labels.ome.zarr"
    model = code_model(truth)
    assert dry_run(image, model, SMALL, output=output).output == output
    result = segment(image, model, SMALL, output=output, cluster=exact_cluster)
    assert result.output == output
    assert result.report.parent.parent == tmp_path
    labels = open_labels(output)
    assert same_partition(labels.values, truth)
    # The same as on a local disk.
    segment(local, model, SMALL, output=tmp_path / "local.zarr", cluster=exact_cluster)
    np.testing.assert_array_equal(labels.values, read_labels(tmp_path / "local.zarr"))
    assert ngff.open_image(output).levels == ngff.open_image(tmp_path / "local.zarr").levels
    with pytest.raises(StoreError, match="--overwrite"):
        segment(image, model, SMALL, output=output, cluster=exact_cluster)
    segment(image, model, SMALL, output=output, cluster=exact_cluster, overwrite=True)
    assert same_partition(open_labels(output).values, truth)


def test_nobody_sees_a_label_before_it_is_whole(
    bucket: str, truth: np.ndarray, tmp_path: Path
) -> None:
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    output, model, seen = f"{bucket}/labels.ome.zarr", code_model(truth), []

    def look(event) -> None:
        if event.phase == "relabel" and event.done:
            seen.append(ngff.target.state_of(output))
            with pytest.raises(StoreError):
                open_labels(output)

    CALLS[0] = 0
    with pytest.raises(BlocksFailed):
        segment(image, model, SMALL, output=output, cluster=fails_once, on_event=look)
    assert set(seen) == {"unfinished"}
    result = segment(image, model, SMALL, output=output, cluster=fails_once)
    assert result.resumed == result.blocks - 1
    assert same_partition(open_labels(output).values, truth)


def test_what_else_lies_there_is_left_alone(bucket: str, truth: np.ndarray, tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    other = upload(image, f"{bucket}/other.ome.zarr")
    with pytest.raises(StoreError, match="only labels"):
        segment(image, code_model(truth), SMALL, output=other, overwrite=True)
    with pytest.raises(StoreError, match="outside its input"):
        segment(other, code_model(truth), SMALL, output=f"{other}/inside")
    with pytest.raises(StoreError, match="takes writes"):
        segment(image, code_model(truth), SMALL, output="https://127.0.0.1:1/labels.zarr")
    with pytest.raises(StoreError, match="bucket"):
        segment(image, code_model(truth), SMALL, output="s3://no-such-bucket/labels.zarr")
