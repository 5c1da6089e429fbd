"""Labels beside what others write and own: other runs' labels, and folders of the user's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff import find_labels, label_names, open_image, plan_label

from .conftest import ramp
from .test_ngff_write import write

Make = Callable[..., Path]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_that_are_published_at_once_are_all_listed(make_image: Make, version: str) -> None:
    path = make_image([ramp((20, 20))], "yx", version=version)
    names = [f"cells{i}" for i in range(8)]
    targets = [plan_label(open_image(path), name=name) for name in names]
    with ThreadPoolExecutor(len(targets)) as pool:
        list(pool.map(write, targets))
    assert sorted(label_names(open_image(path))) == names


def test_a_damaged_list_of_labels_is_not_taken_for_none(make_image: Make) -> None:
    path = make_image([ramp((20, 20))], "yx", version="0.5")
    assert label_names(open_image(path)) == ()
    write(plan_label(open_image(path), name="cells"))
    listed = path / "labels" / "zarr.json"
    listed.write_text(listed.read_text()[:40])
    with pytest.raises(StoreError, match=r"valid JSON.*labels"):
        label_names(open_image(path))


def test_a_list_of_labels_leads_nowhere_else(make_image: Make, tmp_path: Path) -> None:
    path = make_image([ramp((20, 20))], "yx", version="0.4")
    write(plan_label(open_image(path), name="cells"))
    (path / "labels" / "cells").rename(tmp_path / "private")
    (path / "labels" / ".zattrs").write_text('{"labels": ["../../private"]}')
    assert open_image(tmp_path / "private").is_label
    with pytest.raises(StoreError, match="labels must lie inside of their image"):
        find_labels(path)


def test_a_folder_that_only_sounds_like_a_removed_label_is_kept(
    make_image: Make, tmp_path: Path
) -> None:
    image = open_image(make_image([ramp((20, 20))], "yx"))
    for name in ("out.removed", "out.old.spoco-removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("text")
    left = tmp_path / f"out.{'0f' * 16}.spoco-removed"
    left.mkdir()
    write(plan_label(image, name="cells", output=tmp_path / "out"))
    write(plan_label(image, name="cells", output=tmp_path / "out", overwrite=True))
    assert not left.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "image.ome.zarr", "out", "out.old.spoco-removed", "out.removed",
    ]  # fmt: skip
    assert (tmp_path / "out.removed" / "thesis.txt").exists()
