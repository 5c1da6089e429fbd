"""Random inputs of every kind through the command line, each judged.

::

    python -m tests.faults.fuzz --runs 300 --seed 0      one line of JSON
    python -m tests.faults.fuzz --replay 0:zarr-metadata:17

An input ends well if the command gives the right result, or ends with exit code
2 and one line. Whatever else happens counts as a crash and is printed with the
command that repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "bundle"))

import numpy as np
import tifffile
import zarr
from bundle_runs import make_run
from drawn import damaged_picture, drawn
from inputs import Case, old_or_new_zarr, tiff_image, zarr_image
from PIL import Image as Pillow
from spoil import damaged_tiff, damaged_zarr, labels_pair, odd_values, spoilt_array, spoilt_group
from typer.testing import CliRunner

from spoco_zoo import ngff
from spoco_zoo.cli import app
from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import SpocoError
from spoco_zoo.metrics import Contingency, score_counts
from spoco_zoo.nets.model import load_run
from spoco_zoo.ngff.image import UNREADABLE
from spoco_zoo.segment import segment
from spoco_zoo.segment.channels import choose_channels
from spoco_zoo.segment.scale.colours import with_colour

SECONDS = 400
LARGE = 2**22
"""Voxels beyond which an input is only opened: its metadata may claim any size."""

KINDS: dict[str, Callable[[np.random.Generator, Path], Case]] = {
    "zarr-layout": zarr_image,
    "zarr-versions": old_or_new_zarr,
    "zarr-metadata": spoilt_group,
    "zarr-array-metadata": spoilt_array,
    "zarr-damage": damaged_zarr,
    "tiff-layout": tiff_image,
    "tiff-damage": damaged_tiff,
    "picture-layout": drawn,
    "picture-damage": damaged_picture,
    "values": odd_values,
    "labels": labels_pair,
}


PARTLY = "labels of what can be read"


class CrashError(AssertionError):
    """An input that ended neither in the right result nor in one line."""


class Fuzzer:
    """Makes and judges inputs in a scratch folder, with tiny untrained models for 2D and 3D."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = {n: make_run(folder / f"model{n}", n) for n in (2, 3)}
        self.runner = CliRunner()
        self.references: dict[int, np.ndarray] = {}

    def one(self, seed: int, kind: str, number: int) -> tuple[str, str]:
        """Outcome ("correct" or "refused") and description of one input."""
        place = self.folder / "case"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case = KINDS[kind](rng, place / "input")
        self.note = case.note
        judge = self._labels if kind == "labels" else self._image
        with time_limit(SECONDS):
            outcome = judge(case, place, rng)
        if case.must_work and outcome == "refused":
            raise CrashError(f"a sound input was refused: {self.line}")
        return outcome, case.note

    def command(self, *arguments: object) -> Any:
        """Run a command; None if it ended with exit code 2 and one line."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", module="zarr")
            done = self.runner.invoke(app, [str(a) for a in arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            trace = "".join(traceback.format_exception(done.exception))
            raise CrashError(f"{arguments[0]}: {trace}")
        errors = [x for x in done.stderr.splitlines() if x.startswith("spoco-zoo: ")]
        if done.exit_code == 2:
            if len(errors) != 1 or not done.stderr.rstrip().splitlines()[-1] == errors[0]:
                raise CrashError(f"{arguments[0]}: not one line: {done.stderr!r}")
            self.line = errors[0]
            return None
        if done.exit_code == 3 and UNREADABLE in errors[0]:
            return PARTLY
        if done.exit_code != 0:
            raise CrashError(f"{arguments[0]}: exit code {done.exit_code}: {done.stderr}")
        return done.stdout

    def _image(self, case: Case, place: Path, rng: np.random.Generator) -> str:
        """Convert it to OME-Zarr or TIFF, and segment it."""
        try:
            image = ngff.open_image(case.path)
        except SpocoError as error:
            image = None
            if error.exit_code != 2:
                raise CrashError(f"exit code {error.exit_code}") from error
        if image is not None and np.prod([float(n) for n in image.levels[0].shape]) > LARGE:
            return self._only_opened(case, place)
        target = place / ("out.ome.zarr" if rng.random() < 0.6 else "out.tif")
        done = self.command("convert", case.path, target)
        outcome = "refused"
        if done is not None:
            if image is None:
                raise CrashError("converted what cannot be opened")
            self._check_values(case, image, target)
            outcome = "correct"
        elif target.exists() or [p.name for p in place.iterdir() if "partial" in p.name]:
            raise CrashError("something was left behind")
        ndim = 2 if image is None else min(len(image.spatial), int(rng.choice([2, 3])))
        labels = place / "labels.ome.zarr"
        report = "--report" if rng.random() < 0.2 else "--no-report"
        done = self.command(
            *("segment", case.path, "--model", self.models[ndim], "--output", labels, report)
        )
        if done is None:
            if labels.exists():
                raise CrashError("a label was left behind")
            return outcome if target.suffix == ".zarr" or outcome == "refused" else "correct"
        if image is None:
            raise CrashError("segmented what cannot be opened")
        if done == PARTLY:
            return "in part"
        self._check_labels(case, image, labels, ndim)
        return "correct"

    def _only_opened(self, case: Case, place: Path) -> str:
        plan = ("segment", case.path, "--model", self.models[2], "--output", place / "o.zarr")
        return "refused" if self.command(*plan, "--dry-run") is None else "correct"

    def _values(self, case: Case, image: ngff.Image) -> np.ndarray:
        """What the finest level holds, by the case or by an independent reader."""
        if case.expected is not None:
            found = case.expected
        elif image.kind == "tiff":
            with tifffile.TiffFile(case.path) as tiff:
                found = np.asarray(tiff.series[0].asarray())
                letters = tiff.series[0].axes
            named = {"Q": "Z", "I": "Z", "S": "C"}
            order = sorted(
                range(found.ndim),
                key=lambda i: "TCZYX".find(named.get(letters[i], letters[i])),
            )
            found = found.transpose(order)
        elif image.kind == "picture":
            with Pillow.open(case.path) as picture:
                picture = picture.convert("RGB") if picture.mode in ("P", "RGBA") else picture
                found = np.asarray(picture.convert("L") if picture.mode == "LA" else picture)
            found = np.moveaxis(found, -1, 0) if found.ndim == 3 else found
        else:
            found = np.asarray(zarr.open_array(case.path / image.levels[0].path, mode="r")[...])
        shape = image.levels[0].shape
        if [n for n in found.shape if n > 1] != [n for n in shape if n > 1]:
            raise CrashError(f"shape {shape} for values of {found.shape}")
        return found.reshape(shape)

    def _check_values(self, case: Case, image: ngff.Image, target: Path) -> None:
        if target.suffix == ".tif":
            found = tifffile.imread(target)
        else:
            found = np.asarray(zarr.open_array(target / "0", mode="r")[...])
        wanted = self._values(case, image)
        same = np.array_equal(
            np.squeeze(found), np.squeeze(wanted), equal_nan=found.dtype.kind == "f"
        )
        if not same:
            raise CrashError(f"converted values differ ({found.dtype}, {wanted.dtype})")

    def _check_labels(self, case: Case, image: ngff.Image, labels: Path, ndim: int) -> None:
        """The labels are those of the same values in the plainest of stores."""
        values = self._values(case, image)
        if not np.isfinite(values.astype(np.float64)).all():
            raise CrashError("segmented values that are not finite")
        wide = np.float64 if values.dtype.kind in "fb" else np.dtype(values.dtype.str)
        plain = np.ascontiguousarray(values, wide)
        key = zlib.crc32(
            repr((ndim, image.axes, image.units, image.colour, plain.shape, str(wide))).encode()
            + plain.tobytes()
        )
        if key not in self.references:
            self.references[key] = self._reference(image, plain, ndim)
        found = np.asarray(zarr.open_array(labels / "0", mode="r")[...])
        if not np.array_equal(np.squeeze(found), np.squeeze(self.references[key])):
            raise CrashError("the labels are not those of the same values in a plain store")

    def _reference(self, image: ngff.Image, values: np.ndarray, ndim: int) -> np.ndarray:
        place = self.folder / "reference"
        shutil.rmtree(place, ignore_errors=True)
        group = zarr.open_group(place / "image", mode="w", zarr_format=3)
        group.create_array("0", shape=values.shape, dtype=values.dtype)[...] = values
        kinds = {"t": "time", "c": "channel"}
        entries = [
            {"name": a, "type": kinds.get(a, "space")} | ({"unit": unit} if unit else {})
            for a, unit in zip(image.axes, image.units, strict=True)
        ]
        scale = [{"type": "scale", "scale": list(image.levels[0].scale)}]
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        block = {"version": "0.5", "multiscales": [{"axes": entries, "datasets": datasets}]}
        group.attrs["ome"] = block
        # A plain store does not say that its channels are colours: the choice is made for it.
        model = load_run(self.models[ndim])
        config, _ = with_colour(image, model, SegmentConfig())
        if image.colour and config.channel is None:
            channels = choose_channels(image, 0, None, model.recipe)[0]
            config = SegmentConfig(channel=channels[0] if channels else None)
        segment(place / "image", self.models[ndim], config, output=place / "labels")
        return np.asarray(zarr.open_array(place / "labels" / "0", mode="r")[...])

    def _labels(self, case: Case, place: Path, rng: np.random.Generator) -> str:
        scores = place / "scores.json"
        done = self.command("evaluate", case.path / "found", case.path / "truth", "--json", scores)
        if done is None:
            return "refused"
        if case.expected is None:
            raise CrashError("scored images that do not fit each other")
        found, truth = case.expected
        if found.dtype.kind == "f" or (found.dtype.kind == "i" and found.min() < 0):
            raise CrashError("scored what are no labels")
        table = Contingency()
        table.update(found.astype(np.int64), truth.astype(np.int64))
        wanted = json.loads(json.dumps(score_counts(table).to_dict()))
        values = json.loads(scores.read_text())["images"][0]
        if case.note != "wrong axes" and any(values[k] != v for k, v in wanted.items() if v == v):
            raise CrashError("scores differ")
        return "correct"


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise after so many seconds, wherever the code is."""

    def late(*_: object) -> None:
        raise CrashError(f"no end within {seconds} s")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def fuzz(
    runs: int,
    seed: int,
    show: Callable[[str], None],
    kinds: tuple[str, ...] = (),
    minutes: float = 1e6,
) -> dict[str, Any]:
    """Judge `runs` inputs, the kinds in turn; counts by kind and outcome."""
    names = kinds or tuple(KINDS)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in names}
    crashes = []
    with tempfile.TemporaryDirectory() as folder:
        fuzzer, began = Fuzzer(Path(folder)), time.perf_counter()
        for number in range(runs):
            if time.perf_counter() - began > 60 * minutes:
                break
            kind = names[number % len(names)]
            try:
                outcome, _ = fuzzer.one(seed, kind, number)
            except Exception as error:
                outcome = "crash"
                crashes.append(f"{seed}:{kind}:{number}")
                trace = str(error) if isinstance(error, CrashError) else traceback.format_exc()
                show(f"--replay {crashes[-1]}\n  {fuzzer.note}\n  {trace}")
            counts[kind][outcome] += 1
    return {
        "fuzz": "bad input",
        "seed": seed,
        "inputs": sum(sum(count.values()) for count in counts.values()),
        "by_kind": {kind: dict(count) for kind, count in counts.items()},
        "crashes": len(crashes),
        "replay": crashes,
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=90)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no input after these")
    parser.add_argument("--replay", help="SEED:KIND:NUMBER of one input")
    parser.add_argument("--kinds", help="some of: " + ",".join(KINDS))
    asked = parser.parse_args()
    if asked.replay:
        seed, kind, number = asked.replay.split(":")
        with tempfile.TemporaryDirectory() as folder:
            print(*Fuzzer(Path(folder)).one(int(seed), kind, int(number)))
        return 0
    kinds = tuple(asked.kinds.split(",")) if asked.kinds else ()

    def show(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    result = fuzz(asked.runs, asked.seed, show, kinds, asked.minutes)
    print(json.dumps(result))
    return 1 if result["crashes"] else 0


if __name__ == "__main__":
    sys.exit(main())
