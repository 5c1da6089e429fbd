"""Zip files that all programs read alike.

Readers differ in what they forgive: Python's corrects offsets where something
was put before the archive, torch's takes them as they are stated, and some know
other names for a member. So one file can show two sets of members, one to the
program that vets it and another to the one that uses it. Only the plain form
is allowed, which has a single reading::

    local headers and data | central directory | [zip64 end, locator] | end
    ^ offset 0             ^ stated offset      ^ stated offset + size      ^ end of file
"""

from __future__ import annotations

import struct
from typing import IO

__all__ = ["find_second_reading"]

CENTRAL, END = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s4H2LH")
END_64, LOCATOR = struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
SIZES_64, UNICODE_PATH = 0x0001, 0x7075


def find_second_reading(content: IO[bytes]) -> str:
    """Why programs could read a zip file differently; empty if they cannot.

    Parameters
    ----------
    content : binary file
        Python's `zipfile` has opened it without an error.
    """
    try:
        _check_start(_read(content, 0, 6))
        offset, size, count = _directory(content)
        _check_entries(_read(content, offset, size), count)
    except (ValueError, struct.error) as error:
        return str(error)
    return ""


def _read(content: IO[bytes], offset: int, size: int) -> bytes:
    content.seek(max(offset, 0))
    return content.read(size)


def _check_start(start: bytes) -> None:
    # A high byte here is none of a version: it is how torch's other format can begin.
    if start[:4] != b"PK\x03\x04" or start[5] != 0:
        raise ValueError("something stands before the first member")


def _directory(content: IO[bytes]) -> tuple[int, int, int]:
    """Offset, size and entries of the central directory, which must fill its place exactly."""
    end = content.seek(0, 2) - END.size
    mark, disk, first_disk, here, count, size, offset, comment = END.unpack(
        _read(content, end, END.size)
    )
    if mark != b"PK\x05\x06" or comment or disk or first_disk or here != count:
        raise ValueError("something stands behind the end of the archive")
    stated = (offset, size, count)
    locator = _read(content, end - LOCATOR.size, LOCATOR.size)
    if locator.startswith(b"PK\x06\x07"):
        end -= LOCATOR.size + END_64.size
        mark, length, _, _, disk, first_disk, here, count, size, offset = END_64.unpack(
            _read(content, end, END_64.size)
        )
        wide = (offset, size, count)
        full = (2**32 - 1, 2**32 - 1, 2**16 - 1)
        same = all(n in (w, f) for n, w, f in zip(stated, wide, full, strict=True))
        found = (mark, length, disk, first_disk, here, LOCATOR.unpack(locator)[1:])
        if not same or found != (b"PK\x06\x06", END_64.size - 12, 0, 0, count, (0, end, 1)):
            raise ValueError("two ends of the archive that differ")
        stated = wide
    if stated[0] + stated[1] != end:
        raise ValueError("a central directory that is not where the end says")
    return stated


def _check_entries(central: bytes, count: int) -> None:
    position = 0
    for _ in range(count):
        fields = CENTRAL.unpack_from(central, position)
        if fields[0] != b"PK\x01\x02":
            raise ValueError("a damaged central directory")
        name, extra, comment = fields[10:13]
        begin = position + CENTRAL.size + name
        _check_extra(central[begin : begin + extra])
        position = begin + extra + comment
    if position != len(central):
        raise ValueError("more entries than the end says")


def _check_extra(extra: bytes) -> None:
    tags = []
    while extra:
        tag, length = struct.unpack_from("<2H", extra)
        tags.append(tag)
        extra = extra[4 + length :]
    if UNICODE_PATH in tags or tags.count(SIZES_64) > 1:
        raise ValueError("a member with two names or sizes")
