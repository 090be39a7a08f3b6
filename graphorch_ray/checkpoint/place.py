"""Where a store is, as a value that travels, and how its faults are met.

A `Place` can be pickled and opens its files in each process when they are first needed.
`PatientFiles` stands between a store and its files: what is transient is tried again, what is
ambiguous is settled by looking, and what is final becomes a `CheckpointError` in plain words.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import CheckpointError
from ..policies import RetryPolicy
from .files import Buffer, Files, LocalFiles, local_path

__all__ = ["RETRY", "PatientFiles", "Place"]

RETRY = RetryPolicy(max_retries=5, delay=0.2, backoff=2.0, max_delay=5.0, jitter=0.5)
"""How transient faults of a store are met: 5 more tries within about 6 seconds."""

T = TypeVar("T")

_FINAL = frozenset(
    {
        *(errno.ENOENT, errno.EEXIST, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT),
        *(errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG),
        *(errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EFBIG, errno.ELOOP),
    }
)
# On a local disk an input or output error is no hiccup.
_PASSING_ON_DISK = frozenset({errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT})
# Clients of services have errors of their own that are no OSError.
_CLIENTS = frozenset({"aiohttp", "azure", "botocore", "gcsfs", "google", "requests", "urllib3"})
_FINAL_OF_CLIENTS = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "ParamValidationError"),
        *("NoRegionError", "InvalidEndpointURLError", "ProfileNotFound"),
    }
)


def is_transient(error: BaseException, *, local: bool) -> bool:
    """Say whether an error of a file operation may be gone a moment later."""
    if isinstance(error, OSError):
        if local:
            return error.errno in _PASSING_ON_DISK
        final = (FileNotFoundError, FileExistsError, PermissionError)
        return not isinstance(error, final) and error.errno not in _FINAL
    kind = type(error)
    return kind.__module__.split(".")[0] in _CLIENTS and kind.__name__ not in _FINAL_OF_CLIENTS


@dataclass(frozen=True)
class Place:
    """A directory by its URL, on any file system that fsspec knows.

    Attributes:
        url: a path, or any fsspec URL.
        storage_options: for fsspec, such as `endpoint_url` and credentials for S3.
        fs: a file system object to use instead of the URL's own; `url` is then a path in it.
        retry: how transient faults are met.
        sleep: what waits between tries; does not travel.
    """

    url: str
    storage_options: Mapping[str, Any] | None = None
    fs: Any = None
    retry: RetryPolicy = RETRY
    sleep: Callable[[float], object] = field(default=time.sleep, compare=False)

    @property
    def local(self) -> bool:
        """Whether it is on local disk."""
        return self.fs is None and local_path(self.url) is not None

    def files(self) -> PatientFiles:
        """Return its files, opened once in each process.

        Raises:
            CheckpointError: nothing that is installed can open such a URL.
        """
        where = (local_path(self.url) if self.fs is None else None) or self.url
        key = (os.getpid(), where, repr(self.storage_options), id(self.fs), id(self.sleep))
        with _opening:
            if key not in _opened:
                if len(_opened) >= _MOST_OPENED:
                    del _opened[next(iter(_opened))]
                # The place is kept with its files, so that the ids in the key stay its own.
                _opened[key] = self, PatientFiles(self._open(), self.retry, self.sleep)
            return _opened[key][1]

    def _open(self) -> Files:
        path = None if self.fs is not None else local_path(self.url)
        if path is not None:
            return LocalFiles(path)
        from .remote import open_remote  # fsspec takes a tenth of a second to import

        return open_remote(self.url, self.storage_options, self.fs)

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process may have another working directory.
        path = local_path(self.url) if self.local else None
        return Place, (path or self.url, self.storage_options, self.fs, self.retry)


_opened: dict[tuple[object, ...], tuple[Place, PatientFiles]] = {}
_opening = threading.Lock()
_MOST_OPENED = 16


class PatientFiles:
    """Files whose transient faults are waited out, and whose final ones are told clearly.

    Operations are those of `Files`. They raise `CheckpointError` naming the file, but for what
    callers decide by: `FileNotFoundError` of reads, `FileExistsError` of `create`.
    """

    def __init__(
        self,
        files: Files,
        retry: RetryPolicy = RETRY,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._files = files
        self._retry = retry
        self._sleep = sleep
        self.url = files.url
        self.local = files.local

    @property
    def atomic(self) -> bool:
        """As in `Files`."""
        return self._files.atomic

    @property
    def own_disk(self) -> bool:
        """As in `Files`."""
        return self._files.own_disk

    def create(self, name: str, data: bytes) -> None:
        """Write a new file; that it is there with this very content is success.

        A write whose answer was lost may have landed. Content that only this caller can have
        written tells it from somebody else's.
        """
        try:
            self._there("write", name, lambda: self._files.create(name, data))
        except FileExistsError:
            try:
                there, _ = self.read(name)
            except FileNotFoundError:
                there = b""
            if there != data:
                raise

    def put(self, folder: str, parts: Sequence[Buffer], name: Callable[[], str]) -> None:
        """Write or replace a file."""
        self._there("write into", folder, lambda: self._files.put(folder, parts, name))

    def read(self, name: str, limit: int | None = None) -> tuple[bytes, bool]:
        """Return a small file, or its beginning, and whether it is this user's own."""
        return self._try("read", name, lambda: self._files.read(name, limit))

    def get(self, name: str, start: int = 0, length: int | None = None) -> memoryview:
        """Return a large file, or part of it."""
        return self._try("read", name, lambda: self._files.get(name, start, length))

    def size(self, name: str) -> int | None:
        """Return the length of a file, or None."""
        return self._try("look for", name, lambda: self._files.size(name))

    def similar(self, folder: str, parts: Sequence[Buffer]) -> bool:
        """Say whether such a file may be there already."""
        return self._try("look into", folder, lambda: self._files.similar(folder, parts))

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        return self._there("list", folder, lambda: self._files.names(folder))

    def leftovers(self, folder: str) -> list[str]:
        """Return what a crash left in a folder."""
        return self._try("list", folder, lambda: self._files.leftovers(folder))

    def delete(self, names: Iterable[str]) -> None:
        """Delete files."""
        gone = list(names)
        if gone:
            self._try("delete from", gone[0].rpartition("/")[0], lambda: self._files.delete(gone))

    def where(self, name: str) -> str:
        """Return a file's place, for messages."""
        return f"{self.url}/{name}" if name else self.url

    def _there(self, doing: str, name: str, call: Callable[[], T]) -> T:
        """Try what needs no file to be there: then it is the bucket that is not there."""
        try:
            return self._try(doing, name, call)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"Cannot {doing} '{self.where(name)}': {reason(error)}"
            ) from error

    def _try(self, doing: str, name: str, call: Callable[[], T]) -> T:
        for retry in itertools.count():
            try:
                return call()
            except (FileNotFoundError, FileExistsError, CheckpointError):
                raise
            except Exception as error:
                if retry >= self._retry.max_retries or not is_transient(error, local=self.local):
                    tries = f", {retry + 1} times" if retry else ""
                    raise CheckpointError(
                        f"Cannot {doing} '{self.where(name)}'{tries}: {reason(error)}"
                    ) from error
                wait = self._retry.delay_before(retry)
                self._sleep(wait * (1 - self._retry.jitter * random.random()))
        raise AssertionError("unreachable")


def reason(error: BaseException) -> str:
    """Say in plain words why a file operation failed."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOSPC:
        return "the disk is full"
    if number == errno.EDQUOT:
        return "the quota is used up"
    if number == errno.ENOTDIR or isinstance(error, NotADirectoryError):
        return f"a part of the path is a file, not a directory ({error})"
    if number == errno.EROFS:
        return "the file system is read-only"
    if isinstance(error, PermissionError):
        return f"permission denied ({error})"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
