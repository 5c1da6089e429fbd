from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

from spoco_zoo import ngff
from spoco_zoo.config import SegmentConfig
from spoco_zoo.pictures import draw_middle


def film(folder: Path, axes: str, filled: tuple[int, ...]) -> tuple[ngff.Image, ngff.Image]:
    """Two channels, of which the second alone has an object, and its label, at one place of five.

    The first channel is bright where the object is not.
    """
    image = np.zeros((5, 2, 40, 60), np.uint8)
    labels = np.zeros((5, 40, 60), np.uint16)
    for place in filled:
        image[place, 1, 10:30, 40:55], labels[place, 10:30, 40:55] = 200, 7
    image[:, 0, :, :20] = 250
    image = image if axes == "T" else np.moveaxis(image, 1, 0)
    named = {"axes": "TCYX" if axes == "T" else "CZYX"}
    tifffile.imwrite(folder / "i.ome.tif", image, metadata=named, photometric="minisblack")
    tifffile.imwrite(
        folder / "l.ome.tif", labels, metadata={"axes": f"{axes}YX"}, photometric="minisblack"
    )
    return ngff.open_image(folder / "i.ome.tif"), ngff.open_image(folder / "l.ome.tif")


@pytest.mark.parametrize(("axes", "named"), [("T", "time 4 of 5"), ("Z", "plane 4 of 5")])
def test_an_empty_frame_and_another_channel_were_shown(
    tmp_path: Path, axes: str, named: str
) -> None:
    image, labels = film(tmp_path, axes, (3,))
    caption = draw_middle(image, labels, [1], SegmentConfig(), tmp_path / "a.png")
    assert named in caption
    picture = np.asarray(Picture.open(tmp_path / "a.png").convert("RGB")).astype(int)
    left = picture[60:, : picture.shape[1] // 2]
    third = left.shape[1] // 3
    # The object of the channel that was segmented is bright, what lies in the other one is not.
    assert left[:, -third:].mean() > left[:, :third].mean() + 60
    right = picture[60:, picture.shape[1] // 2 :]
    assert (np.ptp(right, axis=-1) > 60).sum() > 100


def test_a_film_without_labels_is_shown_in_its_middle(tmp_path: Path) -> None:
    image, labels = film(tmp_path, "T", ())
    caption = draw_middle(image, labels, None, SegmentConfig(), tmp_path / "a.png")
    assert "time 3 of 5" in caption
