"""Settings: frozen, validated in one line, the same from file and flags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoco_zoo.config import (
    ClusteringConfig,
    ModelRecipe,
    NetConfig,
    SegmentConfig,
    TrainConfig,
)
from spoco_zoo.errors import ConfigError


def recipe(**changes):
    values = {
        "net": NetConfig(),
        "delta_var": 0.5,
        "delta_dist": 2.0,
        "kernel_threshold": 0.5,
        "background": (0.0,) * 8,
        "clustering": ClusteringConfig(),
        "channel_names": ("nuclei",),
        "patch": (256, 256),
    }
    return ModelRecipe.checked({**values, **changes})


def test_flags_win_over_the_file_and_none_means_not_given(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("iterations: 10\nseed: 4\nloss:\n  push: 2\n")
    config = TrainConfig.build(file, iterations=20, seed=None)
    assert (config.iterations, config.seed, config.loss.push) == (20, 4, 2)
    assert config.loss.pull == TrainConfig().loss.pull


@given(
    st.builds(
        SegmentConfig,
        block=st.none() | st.tuples(st.integers(1, 512), st.integers(1, 512)),
        blend=st.sampled_from(["crop", "linear", "gaussian"]),
        channel=st.none() | st.integers(0, 9) | st.sampled_from(["DAPI", "1", "null", "a: b"]),
        roi=st.none() | st.just(((0, 5), (3, 9))),
        stitch_iou=st.floats(0.01, 1),
    )
)
def test_yaml_round_trip(tmp_path_factory, config):
    file = tmp_path_factory.mktemp("config") / "config.yaml"
    file.write_text(config.to_yaml())
    again = SegmentConfig.build(file)
    assert again == config
    assert again.fingerprint() == config.fingerprint()


def test_the_fingerprint_changes_with_any_setting():
    prints = {
        TrainConfig().fingerprint(),
        TrainConfig(seed=1).fingerprint(),
        TrainConfig(loss={"push": 0.5}).fingerprint(),
    }
    assert len(prints) == 3


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().seed = 3


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"iterations": 0}, "iterations"),
        ({"val_fraction": 1.5}, "val_fraction"),
        ({"loss": {"push": -1}}, "loss.push"),
        ({"unknown_setting": 1}, "unknown_setting"),
        ({"annotation": "both"}, "annotation"),
        ({"voxel_size": (1e31, 1e31)}, "voxel_size.0"),
        ({"voxel_size": (1e-320, 1)}, "voxel_size.0"),
        ({"learning_rate": 1e308}, "learning_rate"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(flags, named):
    with pytest.raises(ConfigError) as caught:
        TrainConfig.build(**flags)
    assert f"'{named}'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "a: [1, 2\n", "\x00", "just text", "seed: 1\nndim: 2\nseed: 2\n"]
)
def test_a_broken_file_is_named_in_one_line(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml") as caught:
        TrainConfig.build(file)
    assert "\n" not in str(caught.value)


def test_lists_in_lists_ended_in_a_traceback(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(f"crop: {'[' * 5000}{']' * 5000}")
    with pytest.raises(ConfigError, match=r"readable YAML.*config\.yaml"):
        TrainConfig.build(file)


def test_a_date_of_no_calendar_ended_in_a_traceback(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("label_name: 2020-13-45\n")
    with pytest.raises(ConfigError, match=r"readable YAML.*config\.yaml"):
        TrainConfig.build(file)


def test_a_wrong_value_of_a_file_names_the_file(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("loss:\n  push: -2\n")
    with pytest.raises(ConfigError, match=r"'loss\.push'.*found -2 in .*config\.yaml"):
        TrainConfig.build(file)
    with pytest.raises(ConfigError) as caught:
        TrainConfig.build(file, iterations=-1, loss={"push": 1})
    assert "config.yaml" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        TrainConfig.build(tmp_path / "absent.yaml")


def test_a_network_must_be_consistent():
    with pytest.raises(ConfigError, match="one entry less"):
        NetConfig.checked({"features": (8, 16), "pooling": ()})
    with pytest.raises(ConfigError, match="one factor per spatial axis"):
        NetConfig.checked({"ndim": 3})


def test_a_recipe_must_fit_its_network():
    assert recipe().background == (0.0,) * 8
    assert recipe(background=None).background is None
    with pytest.raises(ConfigError, match="embedding_dim"):
        recipe(background=(0.0, 0.0))
    with pytest.raises(ConfigError, match="in_channels"):
        recipe(channel_names=("a", "b"))
    with pytest.raises(ConfigError, match="spatial axis"):
        recipe(patch=(32, 32, 32))


def test_a_recipe_survives_json():
    again = ModelRecipe.model_validate_json(recipe().model_dump_json())
    assert again == recipe()
    assert again.fingerprint() == recipe().fingerprint()


def test_names_in_a_file_may_have_hyphens(tmp_path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("voxel-size: [0.5, 0.2]")
    assert SegmentConfig.build(file).voxel_size == (0.5, 0.2)
    file.write_text("voxel-size: [0.5, 0.2]\nvoxel_size: [0.5, 0.2]")
    with pytest.raises(ConfigError, match="each name once"):
        SegmentConfig.build(file)


@pytest.mark.parametrize("kind", [TrainConfig, ClusteringConfig])
def test_a_negative_seed_passed_and_ended_in_a_traceback_later(kind):
    with pytest.raises(ConfigError, match="'seed'"):
        kind.build(seed=-1)


def test_a_seed_that_nothing_reads_was_taken_without_a_word() -> None:
    """It is one of the clustering, where the command puts it."""
    with pytest.raises(ConfigError, match="'seed'"):
        SegmentConfig.build(seed=3)
    assert SegmentConfig.build(clustering={"seed": 3}).clustering == ClusteringConfig(seed=3)
