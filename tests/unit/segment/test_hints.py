"""What a finished run tells its user of sizes, light, noise and what was dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_fit import planned, recipe

from spoco_zoo.intensities import Statistics, statistics_of
from spoco_zoo.segment.review.audit import BlockTally
from spoco_zoo.segment.review.hints import hint, hint_nothing, hint_sizes
from spoco_zoo.segment.review.light import hint_even, hint_few, hint_light


def test_objects_of_unusual_size_are_told() -> None:
    known = recipe().model_copy(update={"object_size": (40.0, 400.0, 2000.0)})
    assert hint_sizes({"256": 100, "512": 50}, known) == ""
    assert "try --zoom 0.3" in hint_sizes({"2048": 5, "4096": 100}, known)
    assert hint_sizes({"512": 100, "4096": 4}, known) == "", "a few clumps"
    assert hint_sizes({"4096": 9}, known) == ""
    assert "--zoom 0.2" in hint_sizes({"8192": 30}, known)
    assert "--zoom 4" in hint_sizes({"16": 30}, known)
    assert "--zoom 20." in hint_sizes({"1": 30}, known), "not 2e+01"
    debris = {"16": 60, "4096": 30}
    assert "--zoom 0.3" in hint_sizes(debris, known), "the median is that of the debris"
    narrow = known.model_copy(update={"object_size": (380.0, 400.0, 420.0)})
    assert hint_sizes({"256": 30}, narrow, 1.0) == "", "--zoom 1 is what it was"
    assert hint_sizes({"8192": 30}, recipe()) == ""
    assert "--zoom 0.2" in hint_sizes({"8192": 10**13}, known)  # more than any memory could list


@pytest.mark.parametrize(
    ("trained", "leans", "inverted", "said"),
    [
        (-0.4, [0.3], False, "objects are dark"),
        (-0.4, [0.3], False, "try --invert"),
        (-0.4, [-0.3], True, "try --no-invert"),
        (0.4, [-0.3, -0.2, 0.5], False, "objects are bright"),
        (-0.4, [-0.3], False, ""),
        (-0.4, [0.3], True, ""),
        (-0.4, [0.05], False, ""),
        (0.02, [-0.9], False, ""),
        (None, [0.9], False, ""),
    ],
)
def test_light_the_other_way_round_is_told(trained, leans, inverted, said) -> None:
    known = recipe().model_copy(update={"lean": trained})
    seen = [Statistics(0, 1, lean=lean, inverted=inverted) for lean in leans]
    found = hint_light(seen, known)
    assert said in found
    assert bool(found) == bool(said)


def test_a_model_that_does_not_know_its_light_advised_to_zoom_an_inverted_image(tmp_path) -> None:
    """Nuclei of nuclei-confocal-3d, dark on bright: five objects, none of them right."""
    known = recipe().model_copy(update={"lean": None, "object_size": (40.0, 400.0, 2000.0)})
    plan = planned(tmp_path / "a.tif", known)
    lost = BlockTally(dropped=49, dropped_voxels=2814, kept_voxels=1500)
    for lean, tally, said in ((0.2, lost, True), (-0.2, lost, False), (0.2, BlockTally(), False)):
        found = hint(plan, {"256": 5}, [Statistics(0, 20, lean=lean)], tally)
        assert ("try --invert" in found) is said
    turned = hint_light([Statistics(0, 20, lean=-0.2, inverted=True)], known, odd=True)
    assert "try --no-invert" in turned


def test_rounding_and_ground_that_was_left_out_say_nothing_of_light() -> None:
    known = recipe().model_copy(update={"lean": -0.4})
    rounded = Statistics(99.5, 2, lean=0.25)  # of a ground of 100 with noise of 2, cut to integers
    assert hint_light([rounded], known)
    assert hint_light([rounded], known, step=1) == ""
    assert hint_light([Statistics(99.5, 2, lean=0.5)], known, step=1)
    disk = Statistics(180, 20, low=60.0, lean=0.3)  # on flat ground, which was left out
    assert hint_light([disk], known) == ""


def test_objects_in_a_mere_ground_are_doubted(tmp_path: Path) -> None:
    """Of 25 kinds of ground without nuclei 17 had objects, some hundreds, mostly without a word."""
    known = recipe().model_copy(update={"lean": -0.4, "object_size": (40.0, 400.0, 2000.0)})
    ground = np.random.default_rng(0).normal(100, 5, (1, 90, 90))
    bright = ground.copy()
    bright[0, 20:40, 30:50] += 200
    plain, nuclei = (statistics_of(lambda image=image: [image]) for image in (ground, bright))
    assert "these objects may be none" in hint_even([plain], known)
    assert hint_even([nuclei], known) == hint_even([], known) == ""
    assert hint_even([nuclei._replace(rise=1 / 7, inverted=True)], known) == ""
    for lean in (None, 0.0, 0.4):
        assert hint_even([plain], known.model_copy(update={"lean": lean})) == ""
    plan = planned(tmp_path / "a.tif", known)
    assert "may be none" in hint(plan, {"256": 5}, [plain], BlockTally())
    assert "may be none" not in hint(plan, {}, [plain], BlockTally())


def test_few_voxels_that_take_all_contrast_are_told() -> None:
    assert hint_few([Statistics(0, 1)]) == ""
    said = hint_few([Statistics(0, 1), Statistics(0, 1, apart=0.003)])
    assert "0.3 % of all voxels are so much brighter" in said
    assert "crop the image" in said
    assert "darker" in hint_few([Statistics(0, 1, apart=-0.01)])


def test_all_hints_are_said(tmp_path: Path) -> None:
    known = recipe().model_copy(update={"lean": -0.4, "object_size": (40.0, 400.0, 2000.0)})
    plan = planned(tmp_path / "a.tif", known)
    found = hint(plan, {"8192": 30}, [Statistics(0, 20, lean=0.3)], BlockTally())
    assert "--zoom 0.2" in found
    assert "--invert" in found
    assert hint(plan, {"256": 30}, [Statistics(0, 1, lean=-0.3)], BlockTally()) == ""
    # What is asked of the user is a zoom of the image, not of what the network saw of it.
    doubled = planned(tmp_path / "b.tif", known, zoom=2.0)
    assert "--zoom 0.4" in hint(doubled, {"8192": 30}, [Statistics(0, 1)], BlockTally())


def test_objects_too_small_for_the_model_were_missed_without_a_word(tmp_path: Path) -> None:
    """Of nuclei at half their size most were dropped, and the others are of a usual size."""
    known = recipe().model_copy(update={"object_size": (40.0, 400.0, 2000.0)})
    lost = BlockTally(kept_voxels=600, dropped=20, dropped_voxels=400)
    bins, seen = {"32": 5, "64": 3}, [Statistics(0, 1)]
    assert hint_sizes(bins, known) == ""
    plan = planned(tmp_path / "a.tif", known)
    said = hint(plan, bins, seen, lost)
    assert "20 regions of some 20 voxels were dropped" in said
    assert "--zoom 4" in said
    assert "pieces of objects, these are larger: try --zoom 0.5" in said
    crumbs = BlockTally(kept_voxels=6000, dropped=20, dropped_voxels=400)
    assert hint(plan, bins, seen, crumbs) == ""
    large = planned(tmp_path / "b.tif", known, clustering={"min_size": 100})
    assert hint(large, bins, seen, lost) == ""  # as asked
    assert hint(plan, {"512": 9}, seen, lost) == ""  # crumbs of large objects
    # Enlarged eight times, as was advised, noise became 80,000 objects.
    noise = BlockTally(kept_voxels=0, dropped=12, dropped_voxels=60)
    assert "were dropped" not in hint(plan, {}, seen, noise)
    tiny = BlockTally(kept_voxels=0, dropped=900, dropped_voxels=9000)
    assert "--zoom 4." in hint(plan, {}, seen, tiny)


def test_an_image_without_objects_was_left_without_a_word() -> None:
    assert "--channel" in hint_nothing({}, [Statistics(0, 0), Statistics(3, 1)])
    assert "same value" in hint_nothing({}, [Statistics(7, 0)])
    assert hint_nothing({"64": 1}, [Statistics(3, 1)]) == ""
