"""What a run has done, in one append-only file, so that it can go on after any end.

``progress.jsonl`` in the run folder holds one JSON object per line. The first
names everything that the result depends on; each other one says that one item of
one phase is done, and is written after the item's data. Only the driver writes.
A process killed while writing leaves a cut last line, which is dropped: that
item is done again.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

from spoco_zoo.errors import LedgerError
from spoco_zoo.replacing import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "DOUBTS",
    "PROGRESS",
    "REPORT",
    "Ledger",
    "began_overwriting",
    "began_with",
    "entries_of",
    "has_blocks",
    "is_unfinished",
    "was_published",
]

PROGRESS = "progress.jsonl"
REPORT, DOUBTS = "segment.json", "doubts.npz"
"""What a run folder holds of a finished run."""
OVERWRITES = "overwrites"
"""In the first line of a run that was told to replace what is there."""
VERSIONS = ("spoco-zoo", "format")
"""Of a fingerprint, what no setting can bring back."""
DIGESTS = {
    "model": "another model",
    "source": "another image, or one that was moved, or its size, kind of values or levels changed",
}
"""What differs where a fingerprint holds checksums, which say nothing to people."""


def is_unfinished(folder: Path) -> bool:
    """Whether a run folder holds a run that can be resumed."""
    return (folder / PROGRESS).is_file()


def was_published(folder: Path) -> bool:
    """Whether an unfinished run has shown its label, or was about to.

    The label then lacks some blocks, or the run was killed in its last moments.
    """
    return is_unfinished(folder) and _holds(folder, '"phase":"publish')


def has_blocks(folder: Path) -> bool:
    """Whether the ledger of an unfinished run tells of a block that is done."""
    return _holds(folder, '"phase":"block"')


def began_with(folder: Path, key: str) -> str | None:
    """What the fingerprint of an unfinished run says of a key; None if there is no such run."""
    if not is_unfinished(folder):
        return None
    with (folder / PROGRESS).open(errors="replace") as file:
        line = file.readline()
    # A damaged ledger is refused where it is opened, with a better message.
    with contextlib.suppress(ValueError, AttributeError):
        value = json.loads(line).get("fingerprint", {}).get(key)
        return None if value is None else str(value)
    return None


def began_overwriting(folder: Path) -> bool:
    """Whether an unfinished run was told to replace what is there when it began."""
    if not is_unfinished(folder):
        return False
    with (folder / PROGRESS).open(errors="replace") as file:
        return f'"{OVERWRITES}": true' in file.readline()


def entries_of(folder: Path, fingerprint: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What an unfinished run has noted, if one with this fingerprint would go on with it.

    Nothing is written; none if the run came to nothing.

    Raises
    ------
    LedgerError
        As `Ledger`.
    """
    path = folder / PROGRESS
    lines = _lines(path)
    for first in islice(lines, 1):
        _compare(path, first, fingerprint)
        yield from lines


def _holds(folder: Path, text: str) -> bool:
    with (folder / PROGRESS).open(errors="replace") as file:
        return any(text in line for line in file)


class Ledger:
    """The ledger of one run, opened for appending. A context manager.

    Parameters
    ----------
    folder : Path
        The run folder; must exist.
    fingerprint : mapping of str to str
        Everything that the result depends on. A ledger that is there already
        must have the same.
    check : callable, optional
        Raises if the run folder is no longer this process's own, before anything is added.
    overwrites : bool
        Noted where a run begins; see `began_overwriting`.

    Raises
    ------
    LedgerError
        If an earlier run differs, naming the first key that does, or if the
        file is damaged elsewhere than in its last line.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, str],
        check: Callable[[], None] = lambda: None,
        *,
        overwrites: bool = False,
    ) -> None:
        self.path, self._check = folder / PROGRESS, check
        if self.path.is_file():
            _drop_cut_line(self.path)
        if not self.path.is_file() or not self.path.stat().st_size:
            with replacing(self.path) as partial:
                first: dict[str, Any] = {"run": uuid4().hex, "fingerprint": dict(fingerprint)}
                if overwrites:
                    first[OVERWRITES] = True
                partial.write_text(json.dumps(first) + "\n")
        first = next(_lines(self.path))
        _compare(self.path, first, fingerprint)
        self.run = str(first.get("run", ""))
        """What tells this run from others, in whatever process it goes on."""
        self._file: IO[str] = self.path.open("a")

    def entries(self) -> Iterator[dict[str, Any]]:
        """Everything that was appended, in that order; read from the file as it goes."""
        yield from islice(_lines(self.path), 1, None)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line and hand it to the operating system, the last ones to the disk."""
        self._check()
        self._file.write(json.dumps(dict(entry), separators=(",", ":")) + "\n")
        self._file.flush()
        if str(entry.get("phase", "")).startswith("publish"):
            # What follows cannot be undone: showing the label, and clearing the run folder.
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        # On a full disk the rest of a line is tried again here; `append` has raised for it.
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return  # cut; whoever appends drops it
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if not isinstance(entry, dict):
                raise LedgerError(
                    "a ledger must hold one JSON object per line",
                    f"something else in line {number} of {path}",
                    "Start again with --overwrite.",
                )
            yield entry


def _compare(path: Path, first: Mapping[str, Any], fingerprint: Mapping[str, str]) -> None:
    earlier = first.get("fingerprint", {})
    if not isinstance(earlier, dict):
        raise LedgerError(
            "a ledger must begin with what its run depends on",
            f"{earlier!r:.40} in {path}",
            "Start again with --overwrite.",
        )
    versions = [
        f"{key} was {earlier.get(key, 'not noted')!s:.40} and is now {fingerprint.get(key)}"
        for key in VERSIONS
        if earlier.get(key) != fingerprint.get(key)
    ]
    if versions:
        raise LedgerError(
            "an unfinished run can only go on with the version that began it",
            f"{', '.join(versions)} ({path.parent})",
            "Install that version to go on, or start again with --overwrite.",
        )
    # What a setting is by default may follow from the model.
    for key in sorted({*earlier, *fingerprint}, key=lambda key: (key != "model", key)):
        was, now = str(earlier.get(key, "absent")), fingerprint.get(key, "absent")
        if was != now:
            other = f"{key} was {_differing(was, now)} and is now {_differing(now, was)}"
            raise LedgerError(
                "an unfinished run can only go on as it began",
                f"{DIGESTS.get(key, other)} ({path.parent})",
                "Repeat the earlier command, or start again with --overwrite.",
            )


def _differing(text: str, other: str) -> str:
    """What of a text is not in another's, cut at 60 characters: of mappings the entries."""
    try:
        own, others = ast.literal_eval(text), ast.literal_eval(other)
    except (ValueError, SyntaxError):
        return text[:60]
    if not (isinstance(own, dict) and isinstance(others, dict)):
        return text[:60]
    odd = [name for name in {**own, **others} if own.get(name) != others.get(name)]
    # Learned numbers follow from another setting, and say nothing to people.
    odd = [name for name in odd if not isinstance(own.get(name) or others.get(name), dict)] or odd
    return ", ".join(f"{name} {own.get(name)}" for name in odd)[:60]


def _drop_cut_line(path: Path) -> None:
    """Cut the file behind its last newline."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        tail = b""
        position = end
        while position and b"\n" not in tail:
            position = max(position - 4096, 0)
            file.seek(position)
            tail = file.read(end - position)
        keep = position + tail.rfind(b"\n") + 1
        if keep < end:
            file.truncate(keep)
