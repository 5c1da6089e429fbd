"""A bundle's description, read from untrusted YAML of format 0.4 or 0.5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from spoco_zoo.bundle import layout
from spoco_zoo.errors import BundleError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spoco_zoo.bundle.archive import BundleFiles

__all__ = ["Description", "FileEntry", "check_hashes", "parse_yaml", "read_description"]

MAX_BYTES, MAX_NODES = 2 * 2**20, 200_000
REMEDY = "Ask the author for a bundle that passes `bioimageio test`."


@dataclass(frozen=True)
class FileEntry:
    """A file that the description names; `sha256` is None where it gives no hash."""

    source: str
    sha256: str | None


@dataclass(frozen=True)
class Description:
    """What loading and checking need of a description.

    Attributes
    ----------
    name : str
        Of the file.
    format_version : str
        As ``0.5.4``.
    weights : dict of str to FileEntry
        By weight format.
    attachments : dict of str to FileEntry
        By name.
    spoco : dict or None
        ``config.spoco``, if it is there.
    rdf : dict
        The whole description.
    """

    name: str
    format_version: str
    weights: dict[str, FileEntry]
    attachments: dict[str, FileEntry]
    spoco: dict[str, Any] | None
    rdf: dict[str, Any]


def read_description(files: BundleFiles) -> Description:
    """Parse the description of a bundle.

    Raises
    ------
    BundleError
        If there is none, or more than one, or it does not describe a model of
        format 0.4 or 0.5 whose weights are in the bundle.
    """
    name = _description_name(files)
    rdf = parse_yaml(files.read(name))
    version = str(rdf.get("format_version", ""))
    if rdf.get("type") != "model" or version.split(".")[:2] not in (["0", "4"], ["0", "5"]):
        found = f"type {rdf.get('type')!r:.40}, format_version {version!r:.20}"
        raise BundleError(
            "a bundle must be a bioimage.io model of format 0.4 or 0.5", found, REMEDY
        )
    weights = rdf.get("weights")
    if not isinstance(weights, dict) or not any(weights.values()):
        raise BundleError("a model must come with weights", "none in the description", REMEDY)
    bare = [value for value in weights.values() if value and not isinstance(value, dict)]
    if bare:
        raise BundleError("weights must be named by their `source`", f"{bare[0]!r:.80}", REMEDY)
    entries = {key: file_entry(value) for key, value in weights.items() if value}
    config = rdf.get("config")
    spoco = config.get("spoco") if isinstance(config, dict) else None
    return Description(
        name=name,
        format_version=version,
        weights=entries,
        attachments={entry.source: entry for entry in _attachments(rdf.get("attachments"))},
        spoco=spoco if isinstance(spoco, dict) else None,
        rdf=rdf,
    )


def _description_name(files: BundleFiles) -> str:
    """The one description; of two, other programs could read the one that we have not checked."""
    names = sorted(name for name in files.names if layout.is_description(name))
    if len(names) > 1:
        found = f"{', '.join(names[:5])}"[:200]
        raise BundleError("a bundle must hold one description", found, REMEDY)
    if not names or names[0] not in layout.DESCRIPTION_NAMES:
        found = ", ".join(sorted(files.names)[:5]) or "nothing"
        raise BundleError(f"a bundle must hold {layout.DESCRIPTION} at its root", found, REMEDY)
    return names[0]


def parse_yaml(content: bytes) -> dict[str, Any]:
    """Parse YAML with plain types only, bounded also where aliases multiply it.

    Raises
    ------
    BundleError
        If it is too large, damaged, or no mapping.
    """
    if len(content) > MAX_BYTES:
        raise BundleError(
            f"a description must not exceed {MAX_BYTES:,} bytes", f"{len(content):,}", REMEDY
        )
    try:
        node = yaml.compose(content.decode("utf-8"), Loader=yaml.SafeLoader)
        if node is not None and _expanded(node, {}) > MAX_NODES:
            raise BundleError(f"a description must not exceed {MAX_NODES:,} values", "more", REMEDY)
        loaded = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, BundleError):
            raise
        reason = one_line(error)[:150]
        raise BundleError("a description must be plain YAML", reason, REMEDY) from error
    if not isinstance(loaded, dict):
        raise BundleError("a description must be a mapping", type(loaded).__name__, REMEDY)
    return loaded


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of values of a node with aliases written out; loops count as too many."""
    key = id(node)
    if key in known:
        return known[key]
    known[key] = MAX_NODES + 1
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    known[key] = 1 + sum(_expanded(child, known) for child in children)
    return known[key]


def file_entry(value: Any) -> FileEntry:
    """A file named by a string, or by a mapping with `source` and perhaps `sha256`.

    Raises
    ------
    BundleError
        If it is neither, or lies outside of the bundle.
    """
    source = value.get("source") if isinstance(value, dict) else value
    sha256 = value.get("sha256") if isinstance(value, dict) else None
    if not isinstance(source, str) or not isinstance(sha256, str | None):
        raise BundleError("a file must be named by its `source`", f"{value!r:.80}", REMEDY)
    if "://" in source:
        raise BundleError(
            "every file of a model must be in the bundle",
            f"the address {source!r:.80}",
            "Download the packaged model and pass that file.",
        )
    return FileEntry(source.removeprefix("./"), sha256)


def _attachments(value: Any) -> Iterator[FileEntry]:
    """Attachments of format 0.5 (a list) and 0.4 (a mapping with `files`)."""
    items = value.get("files", []) if isinstance(value, dict) else value
    for item in items if isinstance(items, list) else []:
        yield file_entry(item)


def check_hashes(files: BundleFiles, rdf: Any) -> int:
    """Check every hash that a description gives, and return how many there are.

    Raises
    ------
    BundleError
        If a hashed file is missing or differs.
    """
    if isinstance(rdf, list):
        return sum(check_hashes(files, item) for item in rdf)
    if not isinstance(rdf, dict):
        return 0
    count = 0
    if isinstance(rdf.get("source"), str) and isinstance(rdf.get("sha256"), str):
        entry = file_entry(rdf)
        files.read(entry.source, entry.sha256)
        count = 1
    return count + sum(check_hashes(files, value) for value in rdf.values())
