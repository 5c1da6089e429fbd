"""Object stores and web servers: asked again when they falter, one line when they stay away.

Every request, of Zarr or of this package, is made by one loop of tries with growing pauses. The
file systems below have loops of their own or none: s3fs and botocore multiply theirs (up to 25
tries of 15 seconds), that for HTTP never tries again. Theirs are switched off.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zarr.storage import FsspecStore

from spoco_zoo.errors import RemoteError, StoreError, one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["RemoteStore", "ask", "is_remote", "meet", "place_of", "remote_files"]

Answer = TypeVar("Answer")

PATIENCE, FIRST = 60.0, 5.0
"""Seconds from the first failure of a request to the last try; for an address that has never
answered, which may be mistyped, the second."""
PAUSE, LONGEST = 0.25, 8.0
"""Seconds before the second try, doubled each time up to the second."""
ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
PASSING = {408, 425, 429, 500, 502, 503, 504}
PASSING_CODES = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"}
REFUSED = {401, 403}
# S3 sends some of these with status 400.
REFUSED_CODES = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "NoCredentialsError"}

_known: dict[str, bool] = {}
"""Buckets and servers whose answer somebody waits for, and whether they have ever answered."""
_epoch = 0
"""How often credentials were refused in this process."""


def is_remote(uri: str) -> bool:
    """Whether `uri` names a store behind fsspec, such as ``s3://`` or ``https://``."""
    return "://" in uri and not uri.startswith("file://")


def remote_files(uri: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The fsspec file system of a remote `uri` and the path in it, nothing remembered.

    Raises
    ------
    StoreError
        If the package for that kind of address is not installed.
    """
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(uri, **_options(uri, options))
    except (ImportError, ValueError) as error:
        raise StoreError(
            "remote stores need their fsspec package",
            f"{one_line(error)} ({uri})",
            "For s3:// install spoco-zoo[s3].",
        ) from error
    # Listings are cached for ever, and other processes write there too.
    files.invalidate_cache()
    files.retries = 1
    return files, str(path)


def place_of(uri: str, options: Mapping[str, Any] | None = None) -> Any:
    """What Zarr opens for a path or an address: the path itself, or a `RemoteStore`."""
    if not is_remote(uri):
        return Path(uri)  # of a text with "::" Zarr would make a chain of file systems
    remote_files(uri, options)  # says what is not installed
    return RemoteStore.from_url(uri, storage_options=_options(uri, options))


def ask(uri: str, call: Callable[[Any, str], Answer]) -> Answer:
    """Call a function of a remote address's file system and path, again if it falters.

    Parameters
    ----------
    uri : str
    call : callable
        May be called more than once.

    Raises
    ------
    RemoteError
        If the store refuses, or does not answer for long.
    FileNotFoundError
        If nothing is there.
    """
    files, path = remote_files(uri)
    tries = _Tries(uri)
    while True:
        try:
            return tries.over(call(files, path))
        except Exception as error:
            pause = tries.pause_after(error)
        time.sleep(pause)


def meet(uri: str) -> None:
    """Do not wait for long if a remote address that is asked for the first time is silent."""
    if is_remote(uri):
        _known.setdefault(_root(uri), False)


class RemoteStore(FsspecStore):
    """A Zarr store whose requests are tried again, and whose errors are those of this package.

    Only what the server says is not there is absent: Zarr reads that as zeros.
    """

    def __init__(
        self, fs: Any, read_only: bool = False, path: str = "/", allowed_exceptions: Any = ()
    ) -> None:
        super().__init__(fs, read_only, path, allowed_exceptions=())
        self.fs.retries = 1

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Switch off the other loop of tries in a worker, too."""
        self.__dict__.update(state)
        self.fs.retries = 1

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """See `zarr.abc.store.Store`."""
        try:
            found = await self._again(key, partial(super().get, key, prototype, byte_range))
        except ABSENT:
            return None
        if found is not None and len(found) == 0:
            raise StoreError(
                "stored objects must not be empty",
                f"nothing in {self._address(key)}",
                "Copy the image again from its origin.",
            )
        return found

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """See `zarr.abc.store.Store`."""
        return await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """See `zarr.abc.store.Store`."""
        await self._again(key, partial(super().set, key, value, byte_range))

    async def exists(self, key: str) -> bool:
        """See `zarr.abc.store.Store`."""
        return await self._again(key, partial(super().exists, key))

    async def delete(self, key: str) -> None:
        """See `zarr.abc.store.Store`."""
        await self._again(key, partial(super().delete, key))

    async def delete_dir(self, prefix: str) -> None:
        """See `zarr.abc.store.Store`."""
        try:
            await self._again(prefix, partial(super().delete_dir, prefix))
        except ABSENT:
            return

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """See `zarr.abc.store.Store`."""
        listed = super().list_dir

        async def whole() -> list[str]:
            return [name async for name in listed(prefix)]

        for name in await self._again(prefix, whole):
            yield name

    async def getsize(self, key: str) -> int:
        """See `zarr.abc.store.Store`."""
        return await self._again(key, partial(super().getsize, key))

    async def _again(self, key: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Await a request of `key`, again if it falters."""
        tries = _Tries(self._address(key))
        while True:
            try:
                return tries.over(await call())
            except Exception as error:
                pause = tries.pause_after(error)
            await asyncio.sleep(pause)

    def _address(self, key: str) -> str:
        return f"{self.fs.unstrip_protocol(self.path)}/{key}".rstrip("/")


class _Tries:
    """The tries of one request."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.began, self.count = time.monotonic(), 0

    def over(self, answer: Answer) -> Answer:
        """The request is done."""
        _known[_root(self.address)] = True
        return answer

    def pause_after(self, error: Exception) -> float:
        """Seconds to wait before the next try.

        Raises
        ------
        RemoteError
            If there is to be none.
        """
        if isinstance(error, StoreError):
            raise error
        status, code, text = _answer_in(error)
        if status is not None:
            _known[_root(self.address)] = True
        if isinstance(error, ABSENT) and code != "NoSuchBucket":
            raise error
        if status in REFUSED or code in REFUSED_CODES or isinstance(error, PermissionError):
            _look_again()
            raise RemoteError(
                "a remote store must accept the credentials",
                f"{text} at {self.address}",
                "Renew them, or check access; then the same command goes on.",
            ) from error
        if not (status in PASSING or code in PASSING_CODES or _is_network(status, error)):
            raise RemoteError(
                "a remote store must do what it is asked for",
                f"{text} at {self.address}",
                "Check address, endpoint and access.",
            ) from error
        return self._pause(error, text)

    def _pause(self, error: Exception, text: str) -> float:
        """Seconds to wait after a failure that may pass."""
        self.count += 1
        waited = time.monotonic() - self.began
        # Workers do not all come back at the same moment.
        pause: float = min(PAUSE * 2 ** (self.count - 1), LONGEST) * random.uniform(0.8, 1.2)
        if waited + pause > (PATIENCE if _known.get(_root(self.address), True) else FIRST):
            raise RemoteError(
                "a remote store must answer",
                f"{text}, {self.count} times in {waited:.0f} s, at {self.address}",
                "Check connection and endpoint; the same command goes on.",
            ) from error
        return pause


def _look_again() -> None:
    """Have the next file system read its credentials anew: they are read once, and it is kept."""
    global _epoch
    _epoch += 1


def _options(uri: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options of a file system, those for S3 completed."""
    found = dict(options or {})
    if uri.startswith(("s3://", "s3a://")):
        from fsspec.config import conf

        kept = {"mode": "standard", "total_max_attempts": 1}
        given = found.get("config_kwargs", conf.get("s3", {}).get("config_kwargs", {}))
        # File systems are kept by their options; this one differs after a refusal.
        agent = f"spoco-zoo/{_epoch}"
        found["config_kwargs"] = {**given, "retries": kept, "user_agent_extra": agent}
        # Otherwise each read of a whole object asks for its size first, and an error in answer
        # to that has no text that says why. Zarr reads many objects at once as it is.
        found.setdefault("max_concurrency", 1)
    return found


def _root(uri: str) -> str:
    """Bucket or server of an address."""
    return "/".join(uri.split("/")[:3])


def _answer_in(error: BaseException) -> tuple[int | None, str, str]:
    """Status and code with which a server refused, as far as an error knows, and one line."""
    link: BaseException | None = error
    while link is not None:
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            said = response.get("Error", {})
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            code = str(said.get("Code", ""))
            return status, code, " ".join(f"{code}: {said.get('Message', '')}".split())
        if isinstance(status := getattr(link, "status", None), int):
            return status, "", f"{status} {getattr(link, 'message', '')}".strip()
        link = link.__cause__ or link.__context__
    name = type(error).__name__
    return None, name, one_line(error)


def _is_network(status: int | None, error: Exception) -> bool:
    """Whether there was no answer, or only a part of one."""
    kinds: list[type[BaseException]] = [OSError, TimeoutError]
    try:
        from aiohttp import ClientError

        kinds.append(ClientError)
        from botocore.exceptions import ConnectionError as NotConnected
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        kinds += [NotConnected, HTTPClientError, IncompleteReadError]
    except ImportError:
        pass
    return status is None and isinstance(error, tuple(kinds))
