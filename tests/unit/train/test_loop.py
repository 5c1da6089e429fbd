"""Options of the loop, on runs of a few steps with a tiny network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from spoco_zoo.cli import app
from spoco_zoo.config import Scoring, TrainConfig
from spoco_zoo.errors import ConfigError, LedgerError, TrainingError
from spoco_zoo.nets.model import load_run
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.segment.cluster import cluster, learn
from spoco_zoo.train.data import load_samples
from spoco_zoo.train.files import pair_files
from spoco_zoo.train.publish import TrainResult
from spoco_zoo.train.run import Initial, train
from spoco_zoo.train.validate import embed_cases, score_cases
from spoco_zoo.workflow import adopt_network, start_from

from .pictures import TINY


def run(
    data: Path,
    out: Path,
    initial: Initial | None = None,
    *,
    resume: bool = False,
    say: Callable[[str], None] = lambda text: None,
    **changes: Any,
) -> TrainResult:
    result = train(
        data / "images",
        data / "labels",
        out,
        TINY.model_copy(update=changes),
        clusterer=cluster,
        initial=initial,
        resume=resume,
        say=say,
    )
    assert result is not None
    return result


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    run(data, out)
    return out


def test_scores_are_taken_only_where_validation_images_are_better_with_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "ENOUGH", 1)
    asked: list[Scoring | None] = []

    def learner(*args: Any, **settings: Any) -> Scoring | None:
        asked.append(learn.learn_scores(*args, **settings))
        return asked[-1]

    def trained(out: str, **changes: Any) -> TrainResult:
        result = train(
            data / "images",
            data / "labels",
            tmp_path / out,
            TINY.model_copy(update=changes),
            clusterer=cluster,
            learner=learner,
        )
        assert result is not None
        return result

    without = trained("without", scoring=False, iterations=80)
    assert not asked
    scored = trained("with", iterations=80)
    assert asked != [None]
    merits = [
        sum(result.metrics["validation"][name] for name in ("ap50", "ap75", "ap90"))
        for result in (without, scored)
    ]
    used = scored.recipe.clustering.scoring
    assert merits[1] > merits[0] if used else merits[1] == merits[0]


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_patience_ends_a_run_that_gets_no_better(data: Path, tmp_path: Path) -> None:
    # So small a step moves nothing: the first validation is the best for good.
    changes = {"iterations": 40, "patience": 2, "learning_rate": 1e-12, "momentum": 0.0}
    result = run(data, tmp_path / "run", **changes)
    assert result.metrics["iterations"] == 6
    assert result.metrics["stopped_early"]
    assert log(tmp_path / "run")[-1]["step"] == 6
    (tmp_path / "run/model.json").unlink()  # it was stopped before its end
    resumed = run(data, tmp_path / "run", resume=True, **changes)
    assert resumed.metrics["iterations"] == 6


def test_of_networks_that_validate_alike_the_first_was_published(
    data: Path, tmp_path: Path
) -> None:
    """A few annotated objects are all found long before a network has learned to outline others."""
    result = run(data, tmp_path / "run", learning_rate=1e-12, momentum=0.0)
    assert len({entry["val_ap50"] for entry in log(tmp_path / "run") if "val_ap50" in entry}) == 1
    last, best, model = (
        torch.load(tmp_path / "run" / name, weights_only=True)
        for name in ("last.pt", "best.pt", "model.pt")
    )
    assert best["step"] == last["step"] == result.metrics["iterations"]
    published, trained = model["network"], last["momentum"]
    assert all(torch.equal(published[name], trained[name]) for name in published)


def test_figures_of_an_image_that_was_trained_on_as_a_whole_say_so(
    data: Path, tmp_path: Path
) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        shutil.copy(data / name / "0.tif", tmp_path / name)
    labels = tifffile.imread(data / "labels" / "0.tif")
    tifffile.imwrite(tmp_path / "labels" / "0.tif", np.where(labels == 1, labels, 0))
    for name, thinned in (("run", {}), ("thin", {"max_objects": 1})):
        result = run(tmp_path, tmp_path / name, **thinned)
        assert result.metrics["validation"]["n_trained_on"] == result.metrics["n_train"] == 1
    assert "n_trained_on" not in run(data, tmp_path / "three").metrics["validation"]


def test_a_run_goes_on_with_its_network_or_not_at_all(data: Path, tmp_path: Path) -> None:
    """Periods follow the objects' size: mended labels changed them, and the network under way."""
    for folder in ("images", "labels"):
        shutil.copytree(data / folder, tmp_path / folder)
    changes = {"rotary": None, "features": (4, 8)}
    run(tmp_path, tmp_path / "run", **changes)
    # Not finished, and without digests, as a run of before.
    for name in ("model.json", "best.pt", "digests.json"):
        (tmp_path / "run" / name).unlink()

    for path in (tmp_path / "labels").iterdir():
        labels = tifffile.imread(path)
        tifffile.imwrite(path, np.where(labels == 2, 0, labels)[:, ::-1])
    with pytest.raises(LedgerError, match=r"ask for rotary .* instead of .*Bring them back"):
        run(tmp_path, tmp_path / "run", resume=True, **changes)
    for path in (data / "labels").iterdir():
        shutil.copy(path, tmp_path / "labels")
    for path in (tmp_path / "images").iterdir():
        tifffile.imwrite(path, np.stack([tifffile.imread(path)] * 2))
    with pytest.raises(LedgerError, match="in_channels 2 instead of 1"):
        run(tmp_path, tmp_path / "run", resume=True, **changes)


def test_a_loss_that_is_not_finite_names_the_images(data: Path, tmp_path: Path) -> None:
    """A network that was ruined: its weights are not numbers."""
    state = load_ruined(data, tmp_path)
    with pytest.raises(TrainingError, match=r"step 0, with crops of [012]") as caught:
        run(data, tmp_path / "run", initial=state)
    assert "\n" not in str(caught.value)


def load_ruined(data: Path, tmp_path: Path) -> Initial:
    run(data, tmp_path / "good", iterations=1)
    initial = start_from(load_run(tmp_path / "good"))
    for tensor in initial.state.values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
    return initial


def test_a_3d_model_to_start_from_in_2d_ended_in_a_traceback(data: Path, tmp_path: Path) -> None:
    command = ["train", "--images", str(data / "images"), "--labels", str(data / "labels")]
    out = ["--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*command, *out, "--init", "nuclei-confocal-3d"])
    assert done.exit_code == 2
    assert "a 3D model for 2D images" in done.stderr
    assert not (tmp_path / "run").exists()
    (tmp_path / "c.yaml").write_text("features: [4, 8]\npooling: [[2, 2], [2, 2]]\n")
    done = CliRunner().invoke(app, [*command, *out, "--config", str(tmp_path / "c.yaml")])
    assert done.exit_code == 2
    assert "one entry less than features" in done.stderr


def test_fine_tuning_starts_from_the_weights_given(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    initial = start_from(load_run(finished))
    run(data, tmp_path / "run", initial=initial, learning_rate=1e-12, momentum=0.0, iterations=1)
    last = torch.load(tmp_path / "run/last.pt", weights_only=True)["network"]
    for name, tensor in initial.state.items():
        if "running" not in name and tensor.is_floating_point():
            torch.testing.assert_close(last[name], tensor, rtol=0, atol=1e-9)


def test_another_network_is_refused_in_one_line(data: Path, finished: Path, tmp_path: Path) -> None:
    initial = start_from(load_run(finished))
    with pytest.raises(ConfigError, match=r"features \(4, 8\) instead of \(4, 6\)") as caught:
        run(data, tmp_path / "run", initial=initial, features=(4, 6))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_training_does_not_better_is_said(data: Path, finished: Path, tmp_path: Path) -> None:
    """Of a few objects a good model may be worse after it, with a score as good as before."""
    said: list[str] = []
    initial = start_from(load_run(finished))
    still = {"learning_rate": 1e-12, "iterations": 1, "momentum": 0.0, "scoring": False}
    run(data, tmp_path / "same", initial=initial, say=said.append, **still)
    before = next(text for text in said if "as it is" in text)
    assert any("has not made the model better" in text for text in said) == (
        float(before.split(" of ")[1].split()[0])
        >= round(json.loads((tmp_path / "same/metrics.json").read_text())["validation"]["ap50"], 3)
    )
    said.clear()
    wider = {**still, "features": (4, 16)}
    run(data, tmp_path / "wider", initial=initial, say=said.append, **wider)
    assert not any("as it is" in text for text in said)  # it is another network


def test_a_wider_network_goes_on_from_what_was_learned(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    initial = start_from(load_run(finished))
    changes = {"features": (4, 16), "learning_rate": 1e-12, "momentum": 0.0, "iterations": 1}
    run(data, tmp_path / "run", initial=initial, **changes)
    wide = load_run(tmp_path / "run")
    assert wide.recipe.net.features == (4, 16)
    image = torch.randn(1, 1, 32, 32)
    state = torch.load(tmp_path / "run/last.pt", weights_only=True)["network"]
    first = initial.state["encoders.1.layers.0.weight"]
    kept = state["encoders.1.layers.0.weight"]
    torch.testing.assert_close(kept[:8], first, rtol=0, atol=1e-9)
    assert kept.shape[0] == 16
    assert wide.network(image).shape[1] == 4


def test_the_network_is_adopted_where_the_user_left_it_open(finished: Path) -> None:
    net = load_run(finished).recipe.net
    assert adopt_network(TrainConfig(), net).features == (4, 8)
    assert adopt_network(TrainConfig(features=(4, 16)), net).features == (4, 16)


def test_a_model_with_other_levels_was_refused_without_naming_it(finished: Path) -> None:
    """The factors of its levels were taken over, which then did not go with the others."""
    net = load_run(finished).recipe.net
    adopted = adopt_network(TrainConfig(features=(4, 8, 16)), net)
    assert (adopted.features, adopted.pooling) == ((4, 8, 16), None)


def test_a_config_file_of_a_run_kept_the_network_from_being_adopted(
    finished: Path, tmp_path: Path
) -> None:
    """All settings are named in it, those that the user left open as null."""
    file = tmp_path / "config.yaml"
    file.write_text(TrainConfig(embedding_dim=4).to_yaml())
    adopted = adopt_network(TrainConfig.build(file), load_run(finished).recipe.net)
    assert (adopted.features, adopted.pooling) == ((4, 8), ((2, 2),))


def test_fine_tuning_from_the_command_line(data: Path, finished: Path, tmp_path: Path) -> None:
    flags = ["--iterations", "2", "--batch-size", "2", "--crop", "16,16", "--init", str(finished)]
    places = ["--images", str(data / "images"), "--labels", str(data / "labels")]
    command = ["train", *places, *flags, "--loss", "push=0.5", "--loss", "window=4"]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    written = TrainConfig.build(tmp_path / "run/config.yaml")
    assert (written.features, written.embedding_dim) == ((4, 8), 4)
    assert (written.loss.push, written.loss.window) == (0.5, 4)
    assert written.learning_rate == TrainConfig().learning_rate / 4
    assert "the learning rate is 0.0005" in done.stderr
    assert "The model to start from has a validation AP@0.5 of " in done.stderr
    (tmp_path / "run/model.json").unlink()
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "run"), "--resume"])
    assert done.exit_code == 0, done.output
    assert load_run(tmp_path / "run").recipe.net.features == (4, 8)
    given = ["--learning-rate", "0.003", "--out", str(tmp_path / "given")]
    done = CliRunner().invoke(app, [*command, *given])
    assert TrainConfig.build(tmp_path / "given/config.yaml").learning_rate == 0.003
    assert "the learning rate is" not in done.stderr
    done = CliRunner().invoke(app, [*command[:-1], "windw=4", "--out", str(tmp_path / "other")])
    assert done.exit_code == 2
    done = CliRunner().invoke(
        app, [*command, "--init", "nothing", "--out", str(tmp_path / "other")]
    )
    assert done.exit_code == 2


def test_tensorboard_holds_what_the_log_holds(data: Path, tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter  # noqa: F401  # the reader below is ours

    run(data, tmp_path / "run", tensorboard=True)
    (file,) = (tmp_path / "run/tensorboard").iterdir()
    content, at, scalars = file.read_bytes(), 0, {}
    while at < len(content):  # length, its checksum, record, its checksum
        length = int.from_bytes(content[at : at + 8], "little")
        event = Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length
        for value in event.summary.value:
            scalars[value.tag, event.step] = value.simple_value
    row = log(tmp_path / "run")[-1]
    assert scalars["train/loss", 4] == pytest.approx(row["loss"], rel=1e-5)
    assert scalars["validation/ap50", 4] == pytest.approx(row["val_ap50"], abs=1e-5)


def test_half_precision_trains_with_scaled_gradients(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", precision="float16")
    saved = torch.load(tmp_path / "run/last.pt", weights_only=True)
    assert saved["scaler"]["scale"] > 1
    assert all(bool(torch.isfinite(t).all()) for t in saved["network"].values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # within torch
def test_a_compiled_network_trains_to_the_same_loss(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    run(data, tmp_path / "run", compile=True)
    assert log(tmp_path / "run")[-1]["loss"] == pytest.approx(log(finished)[-1]["loss"], rel=1e-3)


def test_consistency_was_judged_by_another_momentum_network_than_the_one_published(
    data: Path, tmp_path: Path
) -> None:
    """The scores of a run are those of its published pair of networks, which are two."""
    # The first validation stays the best: its momentum network is not the last one's.
    changes = {"iterations": 30, "validate_every": 10, "learning_rate": 0.02}
    result = run(data, tmp_path / "run", clustering="consistency", **changes)
    model = load_run(tmp_path / "run")
    states = torch.load(tmp_path / "run/model.pt", weights_only=True)
    weight = "encoders.0.layers.0.weight"
    assert not torch.equal(states["network"][weight], states["momentum"][weight])
    names = json.loads((tmp_path / "run/split.json").read_text())["val"]
    pairs = [pair for pair in pair_files(data / "images", data / "labels") if pair.name in names]
    factor = pooling_factor(model.recipe.net)
    cases = embed_cases(model.network, load_samples(pairs, TINY), factor, momentum=model.momentum)
    scores = score_cases(cases, cluster, model.recipe.clustering, model.recipe.background)
    assert result.metrics["validation"] == {"n_images": len(names), **scores.to_dict()}
    assert result.case.momentum is not None
    torch.testing.assert_close(result.case.momentum, cases[0].momentum, rtol=0, atol=1e-5)


def test_a_finite_loss_with_infinite_gradients_left_weights_that_are_no_numbers(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    """Embeddings so large that their squares are numbers, but those of the gradients not."""
    initial = start_from(load_run(finished))
    initial.state["head.weight"].mul_(1e14)
    with pytest.raises(TrainingError, match="the gradients are not finite at step 0") as caught:
        run(data, tmp_path / "run", initial=initial, iterations=1, validate_every=1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run/last.pt").exists()
