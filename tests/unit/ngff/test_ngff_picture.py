"""PNG and JPEG read like any other image: colours, depths, labels, damage."""

from __future__ import annotations

import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff import convert, find_labels, open_image

from .conftest import ramp


def _write(path: Path, array: np.ndarray) -> Path:
    encode = imagecodecs.png_encode if path.suffix == ".png" else imagecodecs.jpeg_encode
    path.write_bytes(encode(array))
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_depth_and_colour_is_read_without_transparency(
    tmp_path: Path, dtype: type, channels: int
) -> None:
    data = ramp((9, 7, channels), dtype)
    path = _write(tmp_path / "image.png", data if channels > 1 else data[..., 0])
    image = open_image(path)
    colours = 3 if channels > 2 else 1
    assert image.kind == "picture"
    assert image.axes == (("c", "y", "x") if colours == 3 else ("y", "x"))
    assert image.colour == (colours == 3)
    assert image.dtype == dtype
    assert image.voxel_size() is None
    got = image.read(0, 0, None, (slice(2, 8), slice(1, 7)))
    np.testing.assert_array_equal(got, np.moveaxis(data, -1, 0)[:colours, 2:8, 1:7])


def test_a_jpeg_is_an_image_and_no_labels(tmp_path: Path) -> None:
    plane = np.broadcast_to(np.arange(0, 240, 5, dtype=np.uint8), (32, 48))
    path = _write(tmp_path / "image.jpg", plane)
    got = open_image(path).read(0, 0, None, (slice(0, 32), slice(0, 48)))[0]
    assert np.abs(got.astype(int) - plane).max() < 4
    with pytest.raises(StoreError, match="without loss; found a JPEG"):
        find_labels(path)


def test_an_indexed_png_holds_colours_as_image_and_numbers_as_labels(tmp_path: Path) -> None:
    numbers = ramp((9, 7), np.uint8) % 5
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    picture = Pillow.new("P", (7, 9))
    picture.putdata(numbers.ravel().tolist())
    picture.putpalette(colours.ravel().tolist())
    picture.save(tmp_path / "indexed.png")
    where = (slice(0, 9), slice(0, 7))
    seen = open_image(tmp_path / "indexed.png").read(0, 0, None, where)
    np.testing.assert_array_equal(np.moveaxis(seen, 0, -1), colours[numbers])
    labels = find_labels(tmp_path / "indexed.png")
    np.testing.assert_array_equal(labels.read(0, 0, None, where)[0], numbers)


def test_a_cut_jpeg_was_filled_up_without_a_word(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Pillow.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match="a picture must be readable"):
        open_image(tmp_path / "a.jpg")


def test_labels_are_converted_as_they_are_compared(tmp_path: Path) -> None:
    numbers = np.arange(64, dtype=np.uint8).reshape(8, 8)
    indexed = Pillow.fromarray(numbers, "P")
    indexed.putpalette(list(np.random.default_rng(0).integers(0, 255, 768)))
    indexed.save(tmp_path / "l.png")
    convert(tmp_path / "l.png", tmp_path / "l.ome.zarr", labels=True)
    found = open_image(tmp_path / "l.ome.zarr").read_region(0, (slice(0, 8),) * 2)
    np.testing.assert_array_equal(found, numbers)
    Pillow.fromarray(numbers).save(tmp_path / "l.jpg")
    with pytest.raises(StoreError, match="without loss"):
        convert(tmp_path / "l.jpg", tmp_path / "j.ome.zarr", labels=True)
    tifffile.imwrite(tmp_path / "n.tif", numbers.astype(np.int16) - 1)
    with pytest.raises(StoreError, match="positive for objects; found -1"):
        convert(tmp_path / "n.tif", tmp_path / "n.ome.zarr", labels=True)
    assert not (tmp_path / "n.ome.zarr").exists()


def test_black_and_white_is_read(tmp_path: Path) -> None:
    mask = ramp((9, 7)) % 2 == 0
    Pillow.fromarray(mask).save(tmp_path / "mask.png")
    image = open_image(tmp_path / "mask.png")
    np.testing.assert_array_equal(image.read(0, 0, None, (slice(0, 9), slice(0, 7)))[0], mask)


def test_damage_and_absurd_size_get_one_line(tmp_path: Path) -> None:
    whole = _write(tmp_path / "image.png", ramp((64, 64), np.uint16)).read_bytes()
    for length in (9, 40, len(whole) // 2):
        (tmp_path / "cut.png").write_bytes(whole[:length])
        with pytest.raises(StoreError, match="a picture must be readable") as caught:
            open_image(tmp_path / "cut.png")
        assert len(str(caught.value)) < 300
    # Width and height stand at bytes 16 to 24 of the header, whose checksum follows.
    header = b"IHDR" + (2**15).to_bytes(4, "big") * 2 + whole[24:29]
    claimed = whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:]
    (tmp_path / "vast.png").write_bytes(claimed)
    with pytest.raises(StoreError, match="of moderate size"):
        open_image(tmp_path / "vast.png")
