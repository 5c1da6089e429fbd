"""Untrusted folders and zip files, opened without extracting anything.

Nothing is read before every name, kind and size has been checked, and nothing
is ever written: members are handed out as bytes. So a name that points out of
the bundle, a link, or a member that unpacks to far more than its size can do
no harm, and is refused with one line.
"""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Protocol

from spoco_zoo.bundle.zip_layout import find_second_reading
from spoco_zoo.errors import BundleError, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BundleFiles", "Limits", "open_bundle", "vet_zip"]

DISTRUST = "Get the bundle again from a source that you trust."


@dataclass(frozen=True)
class Limits:
    """What a bundle may hold.

    Attributes
    ----------
    members : int
        Files, folders included.
    member_bytes, total_bytes : int
        Unpacked size of one file, and of all.
    ratio : int
        Unpacked to packed size, for files of more than `ratio_from` bytes.
    """

    members: int = 1000
    member_bytes: int = 8 * 2**30
    total_bytes: int = 16 * 2**30
    ratio: int = 100
    ratio_from: int = 32 * 2**20


class BundleFiles(Protocol):
    """The files of one bundle, which have been vetted."""

    @property
    def names(self) -> frozenset[str]:
        """Names relative to the bundle's root, with forward slashes."""
        ...

    def read(self, name: str, sha256: str | None = None) -> bytes:
        """Content of a file, checked against its hash where one is given."""
        ...


@dataclass(frozen=True)
class _Entry:
    """One file as its container describes it; `packed` is its compressed size."""

    name: str
    size: int
    packed: int
    is_plain: bool


def open_bundle(path: Path, limits: Limits | None = None) -> BundleFiles:
    """Open a zip file or a folder.

    Raises
    ------
    BundleError
        If there is no such file, it is no zip, or its content breaks a limit
        or points outside.
    """
    limits = limits or Limits()
    if path.is_dir():
        return _Folder(path, limits)
    if not path.is_file():
        raise BundleError(
            "a model must be a file or folder", f"nothing at {path}", "Check the path."
        )
    return _Zip(path, limits)


def vet_zip(content: IO[bytes], label: str, limits: Limits | None = None) -> list[str]:
    """Check every member of a zip file and return the names of its files.

    Parameters
    ----------
    content : binary file
    label : str
        What to call the file in an error.
    limits : Limits, optional

    Raises
    ------
    BundleError
        If the file is damaged, encrypted, breaks a limit or points outside, or
        if other programs could find other members in it.
    """
    try:
        with zipfile.ZipFile(content) as archive:
            infos = archive.infolist()
        second = find_second_reading(content)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise BundleError(
            "a bundle must be a readable zip file", f"{error} ({label})", DISTRUST
        ) from error
    if second:
        raise BundleError(
            "a zip file must read the same in every program", f"{second} ({label})", DISTRUST
        )
    encrypted = [info.filename for info in infos if info.flag_bits & 0x1]
    if encrypted:
        raise BundleError(
            "a bundle must not be encrypted", f"{encrypted[0]!r} in {label}", DISTRUST
        )
    _vet([_zip_entry(info) for info in infos], label, limits or Limits())
    return [info.filename for info in infos if not info.is_dir()]


def _zip_entry(info: zipfile.ZipInfo) -> _Entry:
    kind = stat.S_IFMT(info.external_attr >> 16)
    plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
    # `orig_filename` is what the archive says; ZipInfo itself cuts names at a NUL byte.
    return _Entry(info.orig_filename, info.file_size, info.compress_size, plain)


def _vet(entries: list[_Entry], label: str, limits: Limits) -> None:
    """Refuse names that leave the bundle, links and devices, doubles, and sizes over a limit."""
    if len(entries) > limits.members:
        found = f"{len(entries)} in {label}"
        raise BundleError(f"a bundle must not hold over {limits.members} files", found, DISTRUST)
    for entry in entries:
        where = f"{entry.name!r:.100} in {label}"
        if not _is_contained(entry.name):
            raise BundleError("names in a bundle must stay inside of it", where, DISTRUST)
        if not entry.is_plain:
            raise BundleError("a bundle must hold plain files only, no links", where, DISTRUST)
        bomb = entry.size > limits.ratio_from and entry.size > limits.ratio * entry.packed
        if entry.size > limits.member_bytes or bomb:
            found = f"{entry.size:,} bytes out of {entry.packed:,}, {where}"
            raise BundleError("files in a bundle must have a plausible size", found, DISTRUST)
    names = [entry.name.rstrip("/").casefold() for entry in entries]
    if len(set(names)) < len(names):
        raise BundleError("names in a bundle must differ", f"a name twice in {label}", DISTRUST)
    total = sum(entry.size for entry in entries)
    if total > limits.total_bytes:
        found = f"{total:,} bytes in {label}"
        raise BundleError(f"a bundle must not exceed {limits.total_bytes:,} bytes", found, DISTRUST)


def _is_contained(name: str) -> bool:
    """A relative name without parent steps, drive letters, backslashes or control characters."""
    path = PurePosixPath(name)
    odd = "\\" in name or ":" in name or any(ord(c) < 32 for c in name)
    return bool(path.parts) and not (odd or path.is_absolute() or ".." in path.parts)


class _Zip:
    """A zip file."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        with path.open("rb") as content:
            self.names = frozenset(vet_zip(content, path.name, limits))

    def read(self, name: str, sha256: str | None = None) -> bytes:
        _require(name, self.names, self.path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                content = archive.read(name)
        except Exception as error:  # zipfile, zlib, lzma and bz2 each raise their own kinds
            raise _unreadable(error, f"{name} in {self.path.name}") from error
        return _matching(content, name, sha256)


class _Folder:
    """A folder; links are refused wherever they point."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        entries = []
        for file in path.rglob("*"):
            status = file.lstat()
            plain = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            name = file.relative_to(path).as_posix()
            entries.append(_Entry(name, size, size, plain))
            if len(entries) > limits.members:
                break
        _vet(entries, str(path), limits)
        self.names = frozenset(entry.name for entry in entries if (path / entry.name).is_file())

    def read(self, name: str, sha256: str | None = None) -> bytes:
        _require(name, self.names, self.path)
        try:
            content = (self.path / name).read_bytes()
        except OSError as error:
            raise _unreadable(error, f"{name} in {self.path.name}") from error
        return _matching(content, name, sha256)


def _unreadable(error: Exception, where: str) -> BundleError:
    reason = one_line(error)[:150]
    return BundleError("files in a bundle must be readable", f"{reason} ({where})", DISTRUST)


def _require(name: str, names: frozenset[str], path: Path) -> None:
    if name not in names:
        found = f"no {name!r:.100} in {path}"
        raise BundleError(
            "every file that a description names must be in the bundle", found, DISTRUST
        )


def _matching(content: bytes, name: str, sha256: str | None) -> bytes:
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256.lower():
        raise BundleError("a file must match the hash in the description", name, DISTRUST)
    return content


def read_members(content: bytes, label: str) -> Mapping[str, bytes]:
    """All members of a zip file in memory, by name.

    Raises
    ------
    BundleError
        As `vet_zip`, and if a member is damaged.
    """
    vet_zip(io.BytesIO(content), label)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception as error:  # as in `_Zip.read`
        raise _unreadable(error, label) from error
