"""The official bioimage.io test, run in a way that its answer can be trusted.

Three traps are handled here and nowhere else: the test reports ``valid-format``
rather than ``failed`` for a model that gives wrong results, so only ``passed``
counts; it asks GitHub about an unknown maintainer and fails without a network;
and a too new pydantic makes every model invalid.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spoco_zoo.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bioimageio.core.common import SupportedWeightsFormat

__all__ = [
    "FormatCheck",
    "OfficialResult",
    "official_test",
    "quietly",
    "require_supported_pydantic",
]


@dataclass(frozen=True)
class FormatCheck:
    """What the official test found for one weight format.

    Attributes
    ----------
    name : str
    reproduced : bool
        The test output was reproduced from the test input.
    sizes, sizes_passed : int
        Combinations of batch and image size that were tried, and that passed.
    error : str
        First error in one line; empty if there is none.
    """

    name: str
    reproduced: bool
    sizes: int
    sizes_passed: int
    error: str

    @property
    def passed(self) -> bool:
        """Reproduced, and every size passed."""
        return self.reproduced and self.sizes_passed == self.sizes and not self.error


@dataclass(frozen=True)
class OfficialResult:
    """The official test's status, per format, and the first error outside of formats."""

    status: str
    formats: tuple[FormatCheck, ...]
    error: str

    @property
    def passed(self) -> bool:
        """Status ``passed``, and at least one format, each of which passed."""
        formats = bool(self.formats) and all(check.passed for check in self.formats)
        return self.status == "passed" and formats


def require_supported_pydantic() -> None:
    """Refuse a pydantic with which every bundle looks invalid.

    Raises
    ------
    ExportError
        If pydantic is 2.14 or newer.
    """
    import pydantic

    major, minor = (int(part) for part in pydantic.VERSION.split(".")[:2])
    if (major, minor) >= (2, 14):
        raise ExportError(
            f"bioimageio.spec 0.5.12 needs pydantic < 2.14; found {pydantic.VERSION}. "
            'Run: pip install "pydantic<2.14".'
        )


def official_test(
    source: Path,
    formats: Sequence[SupportedWeightsFormat],
    *,
    known_users: Sequence[str] = (),
    known_links: Sequence[str] = (),
) -> OfficialResult:
    """Run the official test of a model bundle for each of `formats`.

    For ``pytorch_state_dict`` this imports the architecture file of the bundle.

    Parameters
    ----------
    source : Path
        Zip file, or folder.
    formats : sequence of str
        Weight formats to test.
    known_users : sequence of str
        GitHub users to take as existing rather than to look up.
    known_links : sequence of str
        Web links to take as alive rather than to open.
    """
    require_supported_pydantic()
    with quietly(known_users), _little_garbage():
        known = _known_files(known_links)
        results = [_test_format(source, name, known) for name in formats]
    failed = [result for result in results if not result.passed]
    return OfficialResult(
        status=(failed or results)[0].status if results else "no weights",
        formats=tuple(check for result in results for check in result.formats),
        error=failed[0].error if failed else "",
    )


def _test_format(
    source: Path, name: SupportedWeightsFormat, known: dict[str, Any]
) -> OfficialResult:
    from bioimageio.core import load_description_and_test
    from bioimageio.spec import InvalidDescr, load_description

    # Loaded for each format, because the object collects what its test finds.
    model = load_description(source, known_files={**known}, perform_io_checks=True)
    if isinstance(model, InvalidDescr):
        return _digest(model, name)
    return _digest(load_description_and_test(model, weight_format=name), name)


def _known_files(links: Sequence[str]) -> dict[str, Any]:
    """The links as the format check writes them; others are no links to it either."""
    from pydantic import HttpUrl, TypeAdapter, ValidationError

    adapter = TypeAdapter(HttpUrl)
    known: dict[str, Any] = {}
    for link in links:
        with contextlib.suppress(ValidationError):
            known[str(adapter.validate_python(link))] = None
    return known


def _digest(descr: object, name: str) -> OfficialResult:
    """Sort the details of one summary: those of the format, and the rest."""
    summary = descr.validation_summary  # type: ignore[attr-defined]
    own = [d for d in summary.details if tuple(d.loc[:2]) == ("weights", name)]
    reproduction = [d for d in own if d.name.startswith("Reproduce test outputs")]
    sizes = [d for d in own if d not in reproduction]
    errors = [" ".join(e.msg.split()) for d in summary.details for e in d.errors]
    check = FormatCheck(
        name=name,
        reproduced=bool(reproduction) and all(d.status == "passed" for d in reproduction),
        sizes=len(sizes),
        sizes_passed=sum(d.status == "passed" for d in sizes),
        error=errors[0][:300] if errors else "",
    )
    return OfficialResult(summary.status, (check,), check.error)


@contextlib.contextmanager
def _little_garbage() -> Iterator[None]:
    """Spare collections of garbage the objects that are there already.

    The test collects each time that it lets a network go, of which it has many; to go through all
    of torch's objects takes longer than the rest of it.
    """
    import bioimageio.core  # noqa: F401

    if gc.get_freeze_count():  # by whoever calls: it stays so
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def quietly(known_users: Sequence[str] = ()) -> Iterator[None]:
    """Run bioimageio's code as a library: nothing printed, some GitHub users taken as given."""
    with _as_library(), _known(known_users):
        yield


@contextlib.contextmanager
def _known(users: Sequence[str]) -> Iterator[None]:
    """Let the format check take GitHub users as existing."""
    from bioimageio.spec._internal.constants import KNOWN_GITHUB_USERS

    added = {user.lower() for user in users} - KNOWN_GITHUB_USERS
    KNOWN_GITHUB_USERS.update(added)
    try:
        yield
    finally:
        KNOWN_GITHUB_USERS.difference_update(added)


@contextlib.contextmanager
def _as_library() -> Iterator[None]:
    """Keep third-party warnings and prints off stdout, and put back what the test seeds.

    The test seeds numpy and torch for the whole process and switches torch's
    deterministic mode. Its findings come back in the summary.
    """
    import numpy as np
    import torch

    deterministic = torch.are_deterministic_algorithms_enabled()
    generators = torch.get_rng_state(), np.random.get_state()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_rng_state(generators[0])
        np.random.set_state(generators[1])
