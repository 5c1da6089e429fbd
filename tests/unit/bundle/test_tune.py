"""`spoco-zoo tune`: methods and parameters searched on embeddings made once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from bundle_runs import disks, make_run

from spoco_zoo.bundle.export import export
from spoco_zoo.bundle.load import load_model
from spoco_zoo.bundle.options import ExportOptions
from spoco_zoo.complete import complete_annotation
from spoco_zoo.config import ClusteringConfig, SegmentConfig, TrainConfig
from spoco_zoo.errors import BundleError, ConfigError, LedgerError, StoreError
from spoco_zoo.locking import LOCK, RunLock
from spoco_zoo.metrics import score
from spoco_zoo.train.validate import Tuning
from spoco_zoo.tuning import tune_model
from spoco_zoo.tuning_result import MethodResult, TuneResult, store_winner


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two annotated images."""
    folder = tmp_path_factory.mktemp("data")
    for seed in range(2):
        image, labels = disks(2, seed)
        for kind, array in (("images", image[0]), ("labels", labels.astype(np.uint16))):
            (folder / kind).mkdir(exist_ok=True)
            tifffile.imwrite(folder / kind / f"{seed}.tif", array)
    return folder


def test_the_winner_is_stored_in_the_run(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    command = [sys.executable, "-m", "spoco_zoo", "tune", run, "--images", data / "images"]
    command += ["--labels", data / "labels", "--methods", "instance, meanshift"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["methods"]) == {"instance", "meanshift"}
    assert found["stored"]
    assert found["objective"] >= found["objective_before"]
    best = max(
        found["methods"].values(), key=lambda m: sum(m["scores"][f"ap{n}"] for n in (50, 75, 90))
    )
    assert found["methods"][found["best"]] == best
    clustering = load_model(run).recipe.clustering
    assert clustering.model_dump(mode="json") == best["settings"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["validation"]["ap50"] == best["scores"]["ap50"]
    assert metrics["validation"]["n_images"] == 2
    page = (run / "tuning" / "report.html").read_text()
    assert "meanshift" in page
    assert SegmentConfig.build(run / "tuning" / "segment.yaml").clustering == clustering
    assert not list(run.rglob("*.partial"))


def test_new_settings_make_older_test_scores_void(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    recipe = load_model(run).recipe
    original = shutil.copy(run / "metrics.json", tmp_path)
    scores = score(np.ones((4, 4), np.int32), np.ones((4, 4), np.int32))
    for method, shared, kept in (
        ("instance", {"test": 0}, True),
        ("instance", {"test": 1}, False),
        ("hdbscan", {}, False),
    ):
        shutil.copy(original, run / "metrics.json")
        best = recipe.clustering.model_copy(update={"method": method})
        found = MethodResult(method, Tuning(best, scores, ((best, scores),)))
        result = TuneResult((found,), 0.5, 3, run, run, True, ())
        store_winner(run, recipe, result, shared)
        metrics = json.loads((run / "metrics.json").read_text())
        assert ("test" in metrics) == kept
        assert ("test_before_tuning" in metrics) != kept
        assert metrics["validation"]["n_images"] == 3
        assert load_model(run).recipe.clustering == best


@pytest.mark.parametrize("cut", ["metrics.json", "model.json"])
def test_a_kill_left_new_scores_beside_the_old_clustering(cut: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    before = {name: (run / name).read_bytes() for name in ("metrics.json", "model.json")}
    recipe = load_model(run).recipe
    scores = score(np.ones((4, 4), np.int32), np.ones((4, 4), np.int32))
    best = recipe.clustering.model_copy(update={"bandwidth": 0.123})
    found = MethodResult("instance", Tuning(best, scores, ((best, scores),)))
    (run / f"{cut}.partial").mkdir()  # this file cannot be written, and the work ends there
    with pytest.raises(OSError, match=cut):
        store_winner(run, recipe, TuneResult((found,), 0.5, 3, run, run, True, ()), {})
    assert (run / "model.json").read_bytes() == before["model.json"]
    if cut == "metrics.json":
        assert (run / cut).read_bytes() == before[cut]
    else:
        metrics = json.loads((run / "metrics.json").read_text())
        assert not {"validation", "test"} & metrics.keys()
        assert "test_before_tuning" in metrics


def test_a_run_was_tuned_while_another_process_wrote_to_it(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    places = (data / "images", data / "labels")
    before = sorted(path.name for path in run.iterdir())
    with RunLock(run):
        with pytest.raises(LedgerError, match="one run at a time"):
            tune_model(str(run), *places, methods=["instance"])
        with pytest.raises(LedgerError, match="one run at a time"):
            tune_model(str(run), *places, methods=["instance"], store=False)
        tune_model(str(run), *places, methods=["instance"], store=False, out=tmp_path / "tuned")
    assert sorted(path.name for path in run.iterdir()) == before
    assert tune_model(str(run), *places, methods=["instance"]).stored
    assert not (run / LOCK).exists()


def test_figures_of_training_images_say_so_in_a_bundle(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    names = sorted(path.stem for path in (data / "images").iterdir())
    (run / "split.json").write_text(json.dumps({"train": names[:1], "val": names[1:], "test": []}))
    result = tune_model(str(run), data / "images", data / "labels", methods=["instance"])
    assert "trained on 1 of these images" in result.warnings[0]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["validation"]["n_trained_on"] == 1
    options = ExportOptions("Disks of noise", ("Jane Doe",), formats=("pytorch_state_dict",))
    export(run, tmp_path / "bundle", options)
    assert "trained on 1 of these" in (tmp_path / "bundle" / "README.md").read_text()


@pytest.mark.parametrize("name", ["split.json", "metrics.json"])
def test_damaged_files_of_a_run_are_named_before_the_work(
    name: str, tmp_path: Path, data: Path
) -> None:
    run = make_run(tmp_path / "run", 2)
    (run / name).write_text('{"train": [')
    with pytest.raises(BundleError, match=rf"as training wrote them.*{name}"):
        tune_model(str(run), data / "images", data / "labels", methods=["instance"])
    assert not (run / "tuning").exists()


def test_a_run_can_be_left_as_it_is(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    result = tune_model(
        str(run),
        data / "images",
        data / "labels",
        out=tmp_path / "out",
        methods=["instance"],
        store=False,
    )
    assert not result.stored
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_bundle_is_never_changed(tmp_path: Path, data: Path) -> None:
    bundle = tmp_path / "disks.zip"
    export(make_run(tmp_path / "run", 2), bundle, ExportOptions("Disks of noise", ("Jane Doe",)))
    before = bundle.read_bytes()
    with pytest.raises(ConfigError, match="needs --out"):
        tune_model(str(bundle), data / "images", data / "labels")
    result = tune_model(
        str(bundle), data / "images", data / "labels", out=tmp_path / "out", methods=["instance"]
    )
    assert bundle.read_bytes() == before
    assert not result.stored
    stored = yaml.safe_load(result.settings.read_text())
    assert stored["clustering"] == result.best.tuning.best.model_dump(mode="json")


def test_images_of_the_training_and_the_test_are_named(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    (run / "split.json").write_text(json.dumps({"train": ["0"], "val": [], "test": ["1"]}))
    result = tune_model(str(run), data / "images", data / "labels", methods=["instance"])
    assert [text.split(" of these images")[0][-1] for text in result.warnings] == ["1", "1"]


def test_methods_that_the_model_cannot_run_are_refused(tmp_path: Path, data: Path) -> None:
    run = str(make_run(tmp_path / "run", 2))
    for methods in (["watershed"], ["consistency"]):
        with pytest.raises(ConfigError):
            tune_model(run, data / "images", data / "labels", methods=methods)
    with pytest.raises(BundleError):
        tune_model(str(tmp_path), data / "images", data / "labels", out=tmp_path / "out")


def test_the_report_of_the_training_was_replaced(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    (run / "report.html").write_text("training")
    with pytest.raises(ConfigError, match="neither a run"):
        tune_model(str(run), data / "images", data / "labels", out=run)
    assert (run / "report.html").read_text() == "training"
    before = sorted((data / "images").iterdir())
    with pytest.raises(ConfigError, match="a folder of its own"):
        tune_model(str(run), data / "images", data / "labels", out=data / "images")
    assert sorted((data / "images").iterdir()) == before


def test_a_file_in_the_way_was_noticed_after_the_search(tmp_path: Path, data: Path) -> None:
    run, file = make_run(tmp_path / "run", 2), tmp_path / "file"
    file.touch()
    told: list[str] = []
    for out in (file, file / "below"):
        with pytest.raises(StoreError, match="--out must be a folder"):
            tune_model(
                str(run), data / "images", data / "labels", out=out,
                listen=lambda what, done, total: told.append(what),
            )  # fmt: skip
    assert told == []


@pytest.mark.parametrize("work", ["tune", "complete"])
def test_a_folder_that_was_made_stayed_empty_after_ctrl_c(
    tmp_path: Path, data: Path, work: str
) -> None:
    run = make_run(tmp_path / "run", 2)
    before = sorted(tmp_path.rglob("*"))

    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    does: Any = {
        "tune": partial(tune_model, store=False),
        "complete": partial(complete_annotation, background_label=99),
    }[work]
    pairs = data / "images", data / "labels"
    with pytest.raises(KeyboardInterrupt):
        does(str(run), *pairs, out=tmp_path / "new" / "one", listen=interrupt)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_of_the_method_consistency_was_searched_for_no_other(
    tmp_path: Path, data: Path
) -> None:
    own = ClusteringConfig(method="consistency")
    run = make_run(tmp_path / "run", 2, momentum=True, clustering=own)
    result = tune_model(str(run), data / "images", data / "labels", methods=["instance"])
    assert result.best.method == load_model(run).recipe.clustering.method == "instance"


@pytest.fixture(scope="module")
def stroked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of which two disks are annotated, and a stroke of background."""
    folder = tmp_path_factory.mktemp("stroked")
    image, labels = disks(2)
    sparse = np.where(labels <= 2, labels, 0)
    sparse[tuple(np.argwhere(labels == 0)[:60].T)] = 255
    for kind, array in (("images", image[0]), ("labels", sparse.astype(np.uint16))):
        (folder / kind).mkdir()
        tifffile.imwrite(folder / kind / "a.tif", array)
    return folder


def tuned(run: Path, data: Path, **flags: object) -> tuple[int, int, float]:
    """Objects of the truth and of the winner that count, and the score of before."""
    result = tune_model(
        str(run),
        data / "images",
        data / "labels",
        methods=["instance"],
        out=run.with_name(f"{run.name}-tuned"),
        **flags,
    )
    scores = result.best.tuning.scores
    return scores.n_truth, scores.n_predicted, result.before


def test_strokes_of_background_were_tuned_on_as_an_object(tmp_path: Path, stroked: Path) -> None:
    run = make_run(tmp_path / "run", 2, annotation="sparse")
    strokes = {"annotation": "sparse", "background_label": 255}
    (run / "config.yaml").write_text(TrainConfig.checked({"ndim": 2, **strokes}).to_yaml())
    n_truth, _, before = tuned(run, stroked)
    assert n_truth == 2
    assert json.loads((run / "metrics.json").read_text())["validation"]["n_truth"] == 2
    run = make_run(tmp_path / "dense", 2)
    assert tuned(run, stroked, **strokes)[::2] == (2, before)


def test_false_objects_did_not_count_for_a_run_with_fewer_objects(
    tmp_path: Path, stroked: Path
) -> None:
    """Dense labels of which `--instance-ratio` took a part are judged as dense ones."""
    run = make_run(tmp_path / "run", 2, annotation="sparse", annotated_fraction=0.5)
    (run / "config.yaml").write_text(TrainConfig(instance_ratio=0.5).to_yaml())
    dense = make_run(tmp_path / "dense", 2)
    assert tuned(run, stroked, store=False) == tuned(dense, stroked, store=False)


def test_a_bundle_from_sparse_labels_is_told_what_labels_mean(
    tmp_path: Path, stroked: Path
) -> None:
    run = make_run(tmp_path / "run", 2, annotation="sparse")
    (run / "config.yaml").unlink()
    with pytest.raises(ConfigError, match="--annotation must say"):
        tuned(run, stroked)
    assert tuned(run, stroked, annotation="sparse", background_label=255)[0] == 2
