"""Files and addresses that a description names.

The official test opens whatever a description names as a file, also outside of
the bundle and on any server, and asks for every web link whether it is alive.
So files must lie in the bundle, and links are declared to be known.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from spoco_zoo.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["github_users", "require_local_files"]

TEXTS = {
    "authors",
    "cite",
    "config",
    "description",
    "download_url",
    "git_repo",
    "license",
    "links",
    "maintainers",
    "name",
    "packaged_by",
    "tags",
}
"""Top-level fields that hold text and links for people, but no files."""
ADDRESS = re.compile(r"https?:|[a-z][a-z0-9+.-]*:[/\\]|[/\\]", re.IGNORECASE)


def require_local_files(rdf: dict[str, Any]) -> tuple[str, ...]:
    """Refuse files outside of the bundle, and return the web links for people.

    Raises
    ------
    BundleError
        If a field that can name a file holds an address, an absolute path or
        one with parent steps.
    """
    links = []
    for where, text in _strings(rdf, ()):
        # Blanks and control characters are what readers of addresses leave out.
        plain = "".join(c for c in text if ord(c) > 32)
        is_address = ADDRESS.match(plain) is not None
        if where[0] in TEXTS or where == ("training_data", "source"):
            links += [text] if is_address else []
        elif is_address or ".." in PurePosixPath(plain.replace("\\", "/")).parts:
            raise BundleError(
                "every file of a model must be in the bundle",
                f"the address {text!r:.80} in {'.'.join(where)!r:.80}",
                "Download the packaged model and pass that file.",
            )
    return tuple(links)


def github_users(rdf: dict[str, Any]) -> tuple[str, ...]:
    """Names that the format check would otherwise look up at GitHub."""
    return tuple(text for where, text in _strings(rdf, ()) if where[-1] == "github_user")


def _strings(value: Any, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every string of a description, with the names of the fields that lead to it."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, (*where, str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, where)
