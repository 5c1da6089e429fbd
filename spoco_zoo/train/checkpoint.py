"""The files of a training run, each written to a temporary name and renamed."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spoco_zoo import run_folder
from spoco_zoo.errors import BundleError, LedgerError, StoreError, one_line
from spoco_zoo.locking import LOCK
from spoco_zoo.nets.device import OUT_OF_MEMORY
from spoco_zoo.nets.model import load_tensors, save_tensors
from spoco_zoo.replacing import replacing
from spoco_zoo.train.data import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch
    from torch import Tensor

    from spoco_zoo.config import TrainConfig
    from spoco_zoo.train.data import Split

__all__ = ["Checkpoint", "RunFolder"]


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on: tensors and plain numbers only."""

    step: int
    best: float
    network: dict[str, Tensor]
    momentum: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any] = field(default_factory=dict)
    stale: int = 0
    """Validations in a row without a better score."""
    setup: dict[str, Any] = field(default_factory=dict)
    """What was resolved from settings and images; empty in checkpoints of before it was kept."""
    running: dict[str, float] = field(default_factory=dict)
    """Running means of the loss terms, which the log goes on with; empty as `setup` may be."""
    seconds: float = 0.0
    """Time that the run had taken."""
    clustering: dict[str, Any] = field(default_factory=dict)
    """What validation last made labels with: of settings that are as good it is taken first."""
    start: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the model that the run started from, if it is to keep what that knows."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder.

    Attributes
    ----------
    path : Path
    check : callable
        Raises if the folder is no longer this process's own, before a checkpoint is replaced.
    """

    path: Path
    check: Callable[[], None] = lambda: None

    @classmethod
    def open(cls, path: Path, config: TrainConfig, *, resume: bool) -> RunFolder:
        """Create the folder, or check that it holds this very run; `begin` comes after the lock.

        A run that was stopped before its first checkpoint is resumed from its beginning.

        Raises
        ------
        StoreError
            If it exists and `resume` is not set, or there is nothing to resume.
        LedgerError
            If it holds a run with other settings.
        """
        folder = cls(path)
        stored = path / run_folder.CONFIG
        if resume:
            begun = stored.is_file() and not (path / run_folder.RECIPE).is_file()
            if not (begun or folder.has_checkpoint):
                raise StoreError(
                    "--resume needs a run with a checkpoint",
                    f"no {run_folder.LAST} in {path}",
                    "Start the run without --resume.",
                )
            earlier = type(config).build(stored).model_dump()
            changed = [k for k, v in config.model_dump().items() if earlier[k] != v]
            if changed:
                raise LedgerError(
                    "a resumed run must have the settings that it began with",
                    f"another {', '.join(changed)} in {stored}",
                    "Repeat the first command and add --resume, or choose another --out.",
                )
            return folder
        folder._check_empty()
        try:
            path.mkdir(parents=True, exist_ok=True)
            with path.joinpath(LOCK).open("a"):  # not touched: its holder may be gone
                pass
        except OSError as error:
            raise StoreError(
                "--out must be writable", f"{error.strerror}: {path}", "Choose another folder."
            ) from error
        return folder

    def begin(self, config: TrainConfig) -> None:
        """Write the settings into a new folder, which this process has locked.

        Raises
        ------
        StoreError
            If another process has begun a run there in between.
        """
        self._check_empty()
        self.write_text(run_folder.CONFIG, config.to_yaml())

    def _check_empty(self) -> None:
        """Refuse to begin a run where anything is but a lock."""
        path = self.path
        if path.exists() and (not path.is_dir() or {p.name for p in path.iterdir()} - {LOCK}):
            begun = (path / run_folder.CONFIG).is_file()
            raise StoreError(
                "--out must be a new or empty folder",
                f"{path}",
                "Choose another name"
                + (", or add --resume to go on with that run." if begun else "."),
            )

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a state to go on from."""
        return (self.path / run_folder.LAST).is_file()

    @property
    def finished(self) -> bool:
        """Whether it holds a model with its scores: the recipe is the last file to be written."""
        files = (run_folder.LAST, run_folder.MODEL, run_folder.METRICS, run_folder.RECIPE)
        return all((self.path / name).is_file() for name in files)

    def settle_split(self, split: Split, *, resume: bool) -> None:
        """Write ``split.json`` and ``digests.json``, or check that they list what is used now.

        The digests cover every intensity and label of the images in the three parts, as they
        were read; not what the files hold beside them. Runs of before have none: of these the
        names alone are compared.

        Raises
        ------
        LedgerError
            If a resumed run had other images in its parts: what it learned from
            could become what it is judged on. Or if it had the same images with
            other content.
        """
        samples = {part: getattr(split, part) for part in PARTS}
        names = {part: [s.name for s in samples[part]] for part in PARTS}
        digests = {
            what: {f"{part}/{s.name}": s.digest[index] for part in PARTS for s in samples[part]}
            for index, what in enumerate(("intensities", "labels"))
        }
        if resume:
            self._check_names(names)
            self._check_digests(digests)
        else:
            self.write_json(run_folder.SPLIT, names)
            self.write_json(run_folder.DIGESTS, digests)

    def _check_names(self, names: dict[str, list[str]]) -> None:
        path = self.path / run_folder.SPLIT
        try:
            earlier = json.loads(path.read_text())
        except (OSError, ValueError):
            found = f"no readable {path}"
        else:
            if earlier == names:
                return
            kept = earlier if isinstance(earlier, dict) else {}
            changed = [part for part in names if kept.get(part) != names[part]]
            found = f"other images for {', '.join(changed)} than in {path}"
        raise LedgerError(
            "a resumed run must have the images that it began with, in the same parts",
            found,
            "Bring them back as they were, or start a new run in another --out.",
        )

    def _check_digests(self, digests: dict[str, dict[str, int]]) -> None:
        path = self.path / run_folder.DIGESTS
        if not path.is_file():
            return
        earlier, found = self.read_json(run_folder.DIGESTS), []
        for what, own in digests.items():
            kept = dict(earlier.get(what) or {})
            odd = [name for name, digest in own.items() if kept.get(name) != digest]
            if odd:
                more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
                found.append(f"other {what} in {', '.join(odd[:3])}{more}")
        if found:
            raise LedgerError(
                "a resumed run must have the images and labels that it began with",
                f"{'; '.join(found)} than when {path} was written",
                "Bring them back as they were, or start a new run in another --out.",
            )

    def write_text(self, name: str, text: str) -> None:
        """Write a text file by temporary name and rename."""
        with replacing(self.path / name) as partial:
            partial.write_text(text)

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON by temporary name and rename."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a mapping.

        Raises
        ------
        BundleError
            If the file is damaged.
        """
        try:
            values = json.loads((self.path / name).read_text())
            if not isinstance(values, dict):
                raise TypeError("no mapping")
        except (OSError, ValueError, TypeError) as error:
            raise BundleError(
                "files of a run must be as training wrote them",
                f"{one_line(error)[:100]} ({self.path / name})",
                "Copy the run again.",
            ) from error
        return values

    def log(self, row: dict[str, Any]) -> None:
        """Append a row to ``log.jsonl``."""
        with (self.path / run_folder.LOG).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """All whole rows of the log; a cut last line is left out.

        Raises
        ------
        StoreError
            If it is no text.
        """
        path = self.path / run_folder.LOG
        rows = []
        try:
            lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        except UnicodeDecodeError as error:
            raise StoreError(
                "the log of a run must be text",
                f"{one_line(error)[:100]} ({path})",
                "Remove the file: the curves then begin where the run goes on.",
            ) from error
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                break
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                break
            rows.append(row)
        return rows

    def trim_log(self, step: int) -> None:
        """Drop rows after `step`: a resumed run writes them again."""
        rows = [row for row in self.read_log() if row["step"] <= step]
        self.write_text(run_folder.LOG, "".join(json.dumps(row) + "\n" for row in rows))

    def save_last(self, checkpoint: Checkpoint) -> None:
        """Write ``last.pt``."""
        self._save(run_folder.LAST, checkpoint)

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Write ``best.pt``."""
        self._save(run_folder.BEST, checkpoint)

    def load_last(self, device: torch.device) -> Checkpoint:
        """Read ``last.pt``."""
        return self._load(run_folder.LAST, device)

    def load_best(self, device: torch.device) -> Checkpoint:
        """Read ``best.pt``."""
        return self._load(run_folder.BEST, device)

    @contextmanager
    def fitting(self, name: str) -> Iterator[None]:
        """While the content of a checkpoint is taken over: it may lack what the run needs.

        Raises
        ------
        StoreError
        """
        try:
            yield
        except OUT_OF_MEMORY:
            raise
        except Exception as error:  # torch raises many kinds for states that do not fit
            raise StoreError(
                "a checkpoint must hold all that the run needs to go on",
                f"{type(error).__name__}: {one_line(error)[:120]} ({self.path / name})",
                "Start the run again in a new folder.",
            ) from error

    def _save(self, name: str, checkpoint: Checkpoint) -> None:
        self.check()
        values = {k: getattr(checkpoint, k) for k in Checkpoint.__dataclass_fields__}
        save_tensors(values, self.path / name)

    def _load(self, name: str, device: torch.device) -> Checkpoint:
        try:
            values = dict(load_tensors(self.path / name, device))
        except OUT_OF_MEMORY:
            raise
        except Exception as error:  # torch raises many kinds for a damaged file
            raise StoreError(
                "a checkpoint must be readable",
                f"{type(error).__name__} in {self.path / name}",
                "Start the run again in a new folder.",
            ) from error
        if unknown := sorted(map(str, values.keys() - Checkpoint.__dataclass_fields__.keys())):
            raise StoreError(
                "a checkpoint must be of this version, or of an earlier one",
                f"{', '.join(unknown)[:80]} in {self.path / name}",
                "Install the version that wrote it, or a newer one; the run goes on with it.",
            )
        with self.fitting(name):
            return Checkpoint(**values)
