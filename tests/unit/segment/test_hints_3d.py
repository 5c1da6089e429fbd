"""What a finished run tells of stacks, whose objects are volumes and may be cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from test_fit import recipe

from spoco_zoo import ngff
from spoco_zoo.config import ModelRecipe, SegmentConfig
from spoco_zoo.intensities import Statistics
from spoco_zoo.segment.plan import Plan, make_plan
from spoco_zoo.segment.review.audit import BlockTally
from spoco_zoo.segment.review.hints import hint, hint_merged, hint_thin

NUCLEI = (0.284, 0.127, 0.127)
SEEN = [Statistics(0, 1)]
LOST = BlockTally(kept_voxels=84000, dropped=71, dropped_voxels=7300)
KEPT = {"512": 5, "1024": 9, "2048": 13, "4096": 5}


def stack(
    path: Path, known: ModelRecipe, size: tuple[float, ...] | None, z: int = 40, **asked: object
) -> Plan:
    """The plan for a stack of `z` planes that states a voxel size."""
    metadata = {"axes": "ZYX"}
    if size is not None:
        metadata |= {f"PhysicalSize{axis}": str(s) for axis, s in zip("ZYX", size, strict=True)}
    image = np.zeros((z, 32, 32), np.uint8)
    tifffile.imwrite(path, image, ome=True, photometric="minisblack", metadata=metadata)
    return make_plan(
        ngff.open_image(path), known, SegmentConfig.checked(asked), output=path.with_suffix(".zarr")
    )


def nuclei(size: tuple[float, ...] | None = NUCLEI) -> ModelRecipe:
    known = recipe(size=size or (1, 1, 1))
    return known.model_copy(update={"object_size": (1268.0, 4391.0, 10773.0), "voxel_size": size})


def test_volumes_of_a_stack_were_compared_with_areas(tmp_path: Path) -> None:
    """And --zoom 0.3 advised, which halved the AP of nuclei-fluo-2d on a stack."""
    flat = recipe(size=None).model_copy(update={"object_size": (48.0, 366.0, 1979.0)})
    bins = {"2048": 20, "4096": 10}
    assert hint(stack(tmp_path / "a.ome.tif", flat, None), bins, SEEN, LOST) == ""
    # One plane is one: objects there are areas.
    one = stack(tmp_path / "b.ome.tif", flat, None, z=1)
    assert "--zoom 0.3" in hint(one, bins, SEEN, BlockTally())


@pytest.mark.parametrize(
    "stated", [(0.568, 0.254, 0.254), NUCLEI], ids=["half the size", "the size"]
)
def test_a_zoom_was_advised_where_voxel_sizes_are_known(tmp_path: Path, stated) -> None:
    """--zoom 4 on a noisy volume at half the size: AP@0.5 of 0.01 for 0.46."""
    plan = stack(tmp_path / "a.ome.tif", nuclei(), stated)
    said = hint(plan, KEPT, SEEN, LOST)
    assert "71 regions of some 103 voxels were dropped" in said
    assert "--zoom" not in said
    assert "train --init" in said
    assert hint(plan, {"2048": 80}, SEEN, LOST) == "", "fewer than are found"


def test_planes_that_are_1_um_apart_for_want_of_a_better_number_were_called_stated(
    tmp_path: Path,
) -> None:
    """Half of the stack's nuclei were dropped, and a training was advised."""
    said = hint(stack(tmp_path / "a.ome.tif", nuclei(), (1.0, 0.254, 0.254)), KEPT, SEEN, LOST)
    assert "planes as 1 um apart" in said
    assert "--voxel-size" in said
    assert "train --init" not in said
    given = {"voxel_size": (1.0, 0.254, 0.254)}
    sure = stack(tmp_path / "b.ome.tif", nuclei(), (1.0, 0.254, 0.254), **given)
    assert "train --init" in hint(sure, KEPT, SEEN, LOST)


def test_a_zoom_is_advised_where_nothing_is_known_of_sizes(tmp_path: Path) -> None:
    for name, known, stated, asked in (
        ("a", nuclei(), None, {}),
        ("b", nuclei(None), NUCLEI, {}),
        ("c", nuclei(), NUCLEI, {"zoom": 1.0}),
        ("d", nuclei(), (0.568, 0.254, 0.254), {"rescale": False}),
    ):
        plan = stack(tmp_path / f"{name}.ome.tif", known, stated, **asked)
        assert "try --zoom" in hint(plan, KEPT, SEEN, LOST)


def test_objects_cut_off_by_a_thin_stack_were_called_too_small(tmp_path: Path) -> None:
    plan = stack(tmp_path / "a.ome.tif", nuclei(), None, z=3)
    lost = BlockTally(kept_voxels=2000, dropped=11, dropped_voxels=1700)
    said = hint(plan, {"256": 5}, SEEN, lost)
    assert "a stack of 3 planes; an object of its training has some 12" in said
    assert "--zoom" not in said
    assert hint(plan, {"2048": 20}, SEEN, BlockTally()) == "", "nothing is odd"
    assert hint_thin((12, 30, 30), nuclei()) == ""
    # Of cubes, where no voxel size is known, 20.
    assert "some 20" in hint_thin((12, 30, 30), nuclei(None))
    assert hint_thin((1, 9, 9), recipe()) == ""


def test_a_narrow_part_was_told_to_zoom(tmp_path: Path) -> None:
    """Of 100 x 8 x 8 voxels of volume 1135: --zoom 4."""
    said = hint_thin((100, 8, 8), nuclei())
    assert (
        "saw 100 x 8 x 8 voxels; an object of its training is some 12 planes thick and 27" in said
    )
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.zeros((30, 8, 8), np.uint8), metadata={"axes": "ZYX"}, ome=True)
    plan = make_plan(
        ngff.open_image(path), nuclei(), SegmentConfig(), output=path.with_suffix(".zarr")
    )
    lost = BlockTally(kept_voxels=700, dropped=14, dropped_voxels=530)
    assert hint(plan, {"256": 2}, SEEN, lost) == hint_thin((30, 8, 8), nuclei())
    nothing = hint(plan, {}, SEEN, BlockTally())
    assert "No objects were found" in nothing
    assert "segment a larger part" in nothing


def test_pieces_of_noise_were_told_to_be_small_nuclei(tmp_path: Path) -> None:
    """Of noise alone: 26 regions of some 21 voxels, and --zoom 4."""
    plan = stack(tmp_path / "a.ome.tif", nuclei(), None)
    said = hint(plan, {}, SEEN, BlockTally(dropped=26, dropped_voxels=546))
    assert "No objects were found" in said
    assert "--zoom 4" not in said
    assert "--zoom 4" in hint(plan, {}, SEEN, BlockTally(dropped=26, dropped_voxels=26 * 40))


@pytest.mark.parametrize(
    ("seen", "bins", "lost", "said"),
    [
        # Dark nuclei on a bright ground; a speck that takes all contrast, sharp or with a halo;
        # blobs of smooth noise. Of all of them a --zoom was advised.
        (Statistics(0, 20, lean=0.2), {"256": 5}, LOST, "--invert"),
        (Statistics(0, 20, apart=0.0012), {}, BlockTally(dropped=6, dropped_voxels=570), "0.12 %"),
        (Statistics(0, 20, rest=0.5), {}, BlockTally(dropped=3, dropped_voxels=290), "debris"),
        (Statistics(0, 20, rise=1.0), {"512": 9}, LOST, "these objects may be none"),
    ],
)
def test_a_zoom_was_advised_of_images_that_are_wrong_in_other_ways(
    tmp_path: Path, seen: Statistics, bins: dict[str, int], lost: BlockTally, said: str
) -> None:
    plan = stack(tmp_path / "a.ome.tif", nuclei(), None)
    told = hint(plan, bins, [seen], lost)
    assert said in told
    assert "try --zoom" not in told
    # Where many regions were seen, or the labels are as they should be, none of it is said.
    assert said == "0.12 %" or hint(plan, {"4096": 30}, [seen], BlockTally()) == ""


def test_cells_that_were_all_one_were_left_without_a_word(tmp_path: Path) -> None:
    """As of dark membranes: 2 cells for 32; too few objects to judge their sizes by."""
    known = nuclei().model_copy(update={"object_size": (100.0, 500.0, 1000.0)})
    plan = stack(tmp_path / "a.ome.tif", known, NUCLEI)  # 40,960 voxels
    said = hint(plan, {"256": 1, "32768": 1}, SEEN, BlockTally())
    assert "One object holds some 100% of the image, 2 objects all of it" in said
    assert "--invert" in said
    assert "around a tissue" in said
    assert "around" not in hint_merged({"32768": 1}, 40960, turned(known))
    assert hint_merged({"16384": 1}, 60000, known) == "", "less than half"
    assert hint_merged({"32768": 3}, 40960, known, times=3)
    assert hint_merged({"2048": 2}, 4000, known) == "", "some objects are as large"
    assert hint_merged({}, 4000, known) == ""


def turned(known: ModelRecipe) -> ModelRecipe:
    """The same with a background."""
    return known.model_copy(update={"background": (1.0, 0.0)})
