"""Going on from a model with few annotated objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from spoco_zoo.config import ClusteringConfig, TrainConfig
from spoco_zoo.nets.model import load_run
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.train.journal import Progress
from spoco_zoo.train.parallel import Ranks
from spoco_zoo.train.publish import TrainResult
from spoco_zoo.train.run import Initial, train
from spoco_zoo.train.steady import choose_steady, halfway, known_clustering
from spoco_zoo.workflow import start_from

from .pictures import TINY

KNOWN = ClusteringConfig(foreground=2.6, bandwidth=1.7, smoothness=0.6, min_size=9)


def run(data: Path, out: Path, initial: Initial | None = None, **options: Any) -> TrainResult:
    settings = {k: options.pop(k) for k in list(options) if k in TrainConfig.model_fields}
    config = TINY.model_copy(update=settings)
    folders = data / "images", data / "labels"
    result = train(*folders, out, config, clusterer=cluster, initial=initial, **options)
    assert result is not None
    return result


@pytest.fixture(scope="module")
def initial(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Initial:
    """A model, with a clustering of its own, whose statistics are those of other images."""
    out = tmp_path_factory.mktemp("runs") / "first"
    run(data, out, iterations=150, validate_every=150)
    found = replace(start_from(load_run(out)), clustering=KNOWN)
    for name, tensor in found.state.items():
        if "running_mean" in name:
            tensor += 0.01
    return found


def moved(out: Path, initial: Initial, which: str) -> float:
    """How far the statistics, or weights, of a run's last network are from the first ones."""
    last = torch.load(out / "last.pt", weights_only=True)
    states = [last[which][name] - start for name, start in initial.state.items() if "run" in name]
    return max(float(difference.abs().max()) for difference in states)


def test_few_objects_changed_the_statistics_of_the_normalisation(
    data: Path, initial: Initial, tmp_path: Path
) -> None:
    """Which alone made a model lose what it knew, with no weight changed at all."""
    said: list[str] = []
    run(data, tmp_path / "few", initial, annotation="sparse", say=said.append)
    assert moved(tmp_path / "few", initial, "network") == 0
    assert moved(tmp_path / "few", initial, "momentum") < 1e-6
    assert any("Fewer than 50 objects" in text for text in said)
    weight = "encoders.1.layers.0.weight"
    last = torch.load(tmp_path / "few/last.pt", weights_only=True)["network"][weight]
    assert float((last - initial.state[weight]).abs().max()) > 0


@pytest.mark.parametrize("how", ["dense", "anew"])
def test_dense_annotation_and_training_from_nothing_take_statistics_over(
    data: Path, initial: Initial, tmp_path: Path, how: str
) -> None:
    start = initial if how == "dense" else None
    annotation = "dense" if how == "dense" else "sparse"
    run(data, tmp_path / "run", start, annotation=annotation)
    assert moved(tmp_path / "run", initial, "network") > 0.001


def test_a_run_that_was_stopped_keeps_the_statistics_when_it_goes_on(
    data: Path, initial: Initial, tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        raise RuntimeError("stopped")

    whole = run(data, tmp_path / "whole", initial, annotation="sparse")
    with pytest.raises(RuntimeError, match="stopped"):
        run(data, tmp_path / "run", initial, annotation="sparse", listen=stop)
    again = run(data, tmp_path / "run", annotation="sparse", resume=True)
    assert moved(tmp_path / "run", initial, "network") == 0
    assert again.recipe == whole.recipe
    both = [torch.load(tmp_path / n / "last.pt", weights_only=True) for n in ("whole", "run")]
    for first, second in zip(both[0]["network"].values(), both[1]["network"].values(), strict=True):
        assert torch.equal(first, second)


def test_what_training_makes_worse_is_not_published(
    data: Path, initial: Initial, tmp_path: Path
) -> None:
    """The weights that the model came with are among those to choose from."""
    said: list[str] = []
    ruin = {"learning_rate": 0.1, "warmup": 0, "annotation": "sparse", "say": said.append}
    result = run(data, tmp_path / "run", initial, **ruin)
    assert any("given back unchanged" in text for text in said)
    assert result.recipe.clustering.foreground == KNOWN.foreground
    assert result.metrics["validation"]["ap50"] > 0.5
    model = load_run(tmp_path / "run").network
    assert isinstance(model, torch.nn.Module)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, initial.state[name]), name


@pytest.mark.parametrize(
    ("found", "objects", "place"),
    [
        ([0.9, 0.9, 0.9, 1.0, 1.0], 40, 0),
        ([0.6, 0.7, 0.8, 0.95, 1.0], 40, 2),
        ([0.0, 0.2, 0.1, 0.9, 0.8], 40, 3),
        ([0.5, 0.8, 0.6], 40, 1),
        ([0.1, 0.2, 0.9], 40, 2),
        ([0.3, 0.6, 0.85], 40, 1),
        ([0.0, 0.0, 0.0], 40, 0),
        ([0.5, 0.53, 0.6], 40, 0),  # one more is chance
        ([0.5, 0.55, 0.6], 40, 1),
        ([0.0, 0.33, 0.33], 3, 0),
        ([0.0, 0.33, 0.67], 3, 0),
        ([0.0, 0.33, 1.0], 3, 0),
        ([0.1, 0.3, 0.9], 19, 1),
        ([0.1, 0.3, 0.9], 20, 2),
        ([0.0, 0.67, 1.0], 3, 1),
    ],
)
def test_a_model_changes_no_more_than_it_must(found: list[float], objects: int, place: int) -> None:
    assert choose_steady(found, objects) == place


def blind(initial: Initial) -> Initial:
    """A model of which nothing is far enough from the background for its clustering."""
    state = {name: tensor.clone() for name, tensor in initial.state.items()}
    head = [name for name in state if name.startswith("head") and name.endswith("weight")][-1]
    state[head] *= 0.5
    return replace(initial, state=state)


def test_a_model_that_finds_none_of_the_objects_keeps_its_statistics(
    data: Path, initial: Initial, tmp_path: Path
) -> None:
    """People annotate what it misses, so these say nothing of its other images."""
    said: list[str] = []
    run(data, tmp_path / "run", blind(initial), annotation="sparse", say=said.append)
    assert moved(tmp_path / "run", initial, "network") == 0
    assert any("AP@0.5 of 0.000 as it is" in text for text in said)
    assert any(text.startswith("Fewer than 50 objects") for text in said)


def test_a_model_that_changes_is_not_published_without_a_line(
    data: Path, initial: Initial, tmp_path: Path
) -> None:
    """And its clustering, which a handful of objects cannot tune, is the one that it had."""
    said, steps = list[str](), {"iterations": 60, "validate_every": 60, "learning_rate": 0.01}
    start = blind(initial)
    result = run(data, tmp_path / "run", start, annotation="sparse", say=said.append, **steps)
    assert any("finds more than it did (AP@0.5 0.000 before, 1.000 now)" in text for text in said)
    assert not any("weights changed freely" in text for text in said)
    assert result.recipe.clustering.foreground == KNOWN.foreground


def test_half_way_is_the_mean_of_weights_and_counters_are_the_later() -> None:
    first = {"w": torch.tensor([1.0, 3.0]), "n": torch.tensor(4)}
    last = {"w": torch.tensor([2.0, 1.0]), "n": torch.tensor(9)}
    found = halfway(first, last)
    assert found["w"].tolist() == [1.5, 2.0]
    assert int(found["n"]) == 9


def test_the_clustering_of_a_model_stays_for_objects_as_small_as_are_annotated() -> None:
    first = ClusteringConfig(foreground=3.0, bandwidth=1.0, min_size=4, fill_holes=True)
    small = known_clustering(KNOWN, first, smallest=8, scoring=True)
    assert small == KNOWN.model_copy(update={"min_size": 4, "fill_holes": True})
    assert known_clustering(KNOWN, first, smallest=12, scoring=True).min_size == KNOWN.min_size
    assert known_clustering(None, first, smallest=12, scoring=True) == first
    other = first.model_copy(update={"method": "hdbscan"})
    assert known_clustering(KNOWN, other, smallest=12, scoring=True) == other


def test_another_method_of_clustering_is_tuned(
    data: Path, initial: Initial, tmp_path: Path
) -> None:
    """What a model knows of the distances of one method says nothing of another's."""
    said: list[str] = []
    options = {"annotation": "sparse", "clustering": "meanshift", "say": said.append}
    result = run(data, tmp_path / "run", initial, **options)
    assert moved(tmp_path / "run", initial, "network") == 0
    assert result.metrics["validation"]["ap50"] > 0.5
    assert any(text.endswith("normalisation stays.") for text in said)


def test_a_model_without_background_is_trained_wholly_where_there_is_one(
    data: Path, initial: Initial, tmp_path: Path
) -> None:
    """Its clustering has no border, as that of ``cells-confocal-3d``."""
    start, said = replace(initial, background=None), list[str]()
    result = run(data, tmp_path / "run", start, annotation="sparse", say=said.append)
    assert moved(tmp_path / "run", initial, "network") > 0.001
    assert result.recipe.clustering.foreground != KNOWN.foreground
    assert any("weights changed freely" in text for text in said)


def test_what_the_first_process_found_counts_for_all(
    data: Path, initial: Initial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices may compute otherwise, and half of the processes hold the statistics then."""
    asked: list[bool] = []

    def agree(ranks: Ranks, flag: bool, device: torch.device) -> bool:
        asked.append(flag)
        return False if len(asked) == 1 else flag

    monkeypatch.setattr(Ranks, "agree", agree)
    run(data, tmp_path / "run", initial, annotation="sparse")
    assert asked[0]
    assert moved(tmp_path / "run", initial, "network") > 0.001
