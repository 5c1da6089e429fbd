"""What a run tells while it goes on: JSON lines, TensorBoard, and a listener."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spoco_zoo.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spoco_zoo.config import ClusteringConfig
    from spoco_zoo.train.checkpoint import RunFolder
    from spoco_zoo.train.data import Sample
    from spoco_zoo.train.validate import Case

__all__ = ["Journal", "Progress"]


@dataclass(frozen=True)
class Progress:
    """What a listener is told.

    Attributes
    ----------
    step, total : int
    terms : dict
        Running means of the loss terms.
    ap50 : float or None
        Latest validation AP@0.5.
    clustering, background
        What validation makes labels with.
    case, sample
        First validation image, at a validation step.
    """

    step: int
    total: int
    terms: dict[str, float]
    ap50: float | None
    clustering: ClusteringConfig
    background: tuple[float, ...] | None
    case: Case | None = None
    sample: Sample | None = None


class Journal:
    """Running means of the loss terms, and the log that they go to.

    Parameters
    ----------
    folder : RunFolder
    tensorboard : bool
        Write event files to ``tensorboard/`` too.
    step : int
        Step that the run begins or goes on from.
    running : dict
        Running means so far.
    seconds : float
        Time that the run has taken so far.

    Raises
    ------
    ConfigError
        If `tensorboard` is asked for and not installed.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        tensorboard: bool,
        step: int,
        running: Mapping[str, float],
        seconds: float,
    ) -> None:
        self.folder = folder
        self.running = dict(running)
        self.started = time.monotonic() - seconds
        self.events: Any = None
        if tensorboard:
            writer = event_writer()
            self.events = writer(str(folder.path / "tensorboard"), purge_step=step + 1)

    @property
    def seconds(self) -> float:
        """Time that the run has taken, before an interruption as well."""
        return time.monotonic() - self.started

    def watch(self, terms: Mapping[str, float]) -> None:
        """Take in the terms of one step."""
        for name, value in terms.items():
            self.running[name] = 0.95 * self.running.get(name, value) + 0.05 * value

    def write(self, step: int, learning_rate: float, scores: Mapping[str, float]) -> None:
        """Log the running means, and scores where there was a validation."""
        values = {
            "learning_rate": learning_rate,
            **{name: round(value, 5) for name, value in self.running.items()},
            **{name: round(value, 4) for name, value in scores.items()},
        }
        self.folder.log({"step": step, "seconds": round(self.seconds, 1), **values})
        if self.events is not None:
            for name, value in values.items():
                group = "validation/" if name in scores else "train/"
                self.events.add_scalar(group + name.removeprefix("val_"), value, step)
            self.events.flush()

    def close(self) -> None:
        """Finish the event file."""
        if self.events is not None:
            self.events.close()


def event_writer() -> Any:
    """The class that writes TensorBoard's files.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "--tensorboard needs the package tensorboardX",
            "no such package",
            "Install it: pip install 'spoco-zoo[tensorboard]'.",
        ) from error
    return SummaryWriter
