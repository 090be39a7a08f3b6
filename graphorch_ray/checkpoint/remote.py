"""Files on services and other file systems, through fsspec."""

from __future__ import annotations

import contextlib
import inspect
import secrets
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from ..errors import CheckpointError, GraphWarning
from .files import Buffer

__all__ = ["FsspecFiles", "S3Files", "open_remote"]

_EXTRAS = {"s3": "s3", "s3a": "s3"}
_PART = 50 << 20  # what s3fs sends at once; longer values go up in parts of this size


def open_remote(
    url: str, storage_options: Mapping[str, Any] | None = None, fs: AbstractFileSystem | None = None
) -> FsspecFiles:
    """Open a directory by its URL, or by its path in a file system that is given.

    Raises:
        CheckpointError: the protocol is unknown, or what it needs is not installed.
    """
    protocol = url.split("://")[0].split("::")[0]
    given = fs
    if fs is None:
        # An instance of its own: listings that others have cached are never seen.
        options = {**(storage_options or {}), "skip_instance_cache": True}
        if "::" not in url:
            options["use_listings_cache"] = False
        try:
            fs, root = fsspec.core.url_to_fs(url, **options)
        except ImportError as error:
            extra = _EXTRAS.get(protocol)
            way = f"pip install 'graphorch-ray[{extra}]'" if extra else str(error)
            raise CheckpointError(
                f"Cannot open '{url}': what reads {protocol}:// is not installed. Install it: {way}"
            ) from error
        except ValueError as error:
            raise CheckpointError(f"Cannot open '{url}': {error}") from error
        except Exception as error:
            raise CheckpointError(
                f"Cannot open '{url}': {type(error).__name__}: {error}"
            ) from error
    else:
        root = fs._strip_protocol(url)
    kind = S3Files if hasattr(fs, "call_s3") else FsspecFiles
    return kind(fs, root, url, (repr(storage_options), given))


class FsspecFiles:
    """A directory on any fsspec file system.

    A new file is created by `pipe_file(mode="create")`. Whether that is one step, or a look and
    then a write, is found out once for each place and process; where it is the latter, a warning
    says that two drivers cannot be kept apart there.
    """

    local = False
    own_disk = False

    def __init__(
        self, fs: AbstractFileSystem, root: str, url: str, client: tuple[object, ...] = ()
    ) -> None:
        self.url = url
        self._fs = fs
        self._root = root.rstrip("/")
        self._client = client  # tells file systems apart that have the same paths

    @property
    def atomic(self) -> bool:
        """Whether creating is one step."""
        key = (self._client, type(self._fs), self._bucket())
        with _probing:
            if key not in _atomic:
                _atomic[key] = self._probe()
            return _atomic[key]

    def create(self, name: str, data: bytes) -> None:
        """Write a new file."""
        path = self._path(name)
        if not self.atomic and self.size(name) is not None:
            raise FileExistsError(path)
        self._pipe(path, data, "create" if self.atomic else "overwrite")

    def put(self, folder: str, parts: Sequence[Buffer], name: Callable[[], str]) -> None:
        """Write or replace a file."""
        content = b"".join(parts) if len(parts) != 1 else bytes(parts[0])
        self._pipe(f"{self._path(folder)}/{name()}", content, "overwrite")

    def read(self, name: str, limit: int | None = None) -> tuple[bytes, bool]:
        """Return a file; nothing here vouches for whose it is."""
        path = self._path(name)
        if limit is None:
            return self._cat(path), False
        return self._fs.cat_file(path, start=0, end=limit), False

    def get(self, name: str, start: int = 0, length: int | None = None) -> memoryview:
        """Return a file, or a part of it."""
        path = self._path(name)
        if start == 0 and length is None:
            return memoryview(self._cat(path))
        end = None if length is None else start + length
        return memoryview(self._fs.cat_file(path, start=start, end=end))

    def size(self, name: str) -> int | None:
        """Return the length of a file."""
        try:
            found: dict[str, Any] = self._fs.info(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return int(found["size"]) if found["type"] == "file" else None

    def similar(self, folder: str, parts: Sequence[Buffer]) -> bool:
        """Say that it may be there: looking closer is a request of its own."""
        return True

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        path = self._path(folder)
        try:
            found = self._fs.ls(path, detail=False)
        except FileNotFoundError:
            return []
        names = {str(item).rstrip("/").rpartition("/")[2] for item in found}
        return sorted(name for name in names if not name.startswith("."))

    def leftovers(self, folder: str) -> list[str]:
        """Return nothing: services show a file when it is whole."""
        return []

    def delete(self, names: Iterable[str]) -> None:
        """Delete files, one after the other."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _bucket(self) -> str:
        return self._root

    def _cat(self, path: str) -> bytes:
        content: bytes = self._fs.cat_file(path)
        return content

    def _pipe(self, path: str, content: bytes, mode: str) -> None:
        # `memory://` looks and then writes, but all of it is in this process.
        with _memory if _in_memory(self._fs) else contextlib.nullcontext():
            try:
                self._send(path, content, mode)
            except FileNotFoundError:
                if not self._make_folder(path):
                    raise
                self._send(path, content, mode)

    def _send(self, path: str, content: bytes, mode: str) -> None:
        self._fs.pipe_file(path, content, **({"mode": mode} if mode == "create" else {}))

    def _make_folder(self, path: str) -> bool:
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        return True

    def _probe(self) -> bool:
        """Create one file twice, and see whether the second try is refused."""
        if _in_memory(self._fs):
            return True
        refused = False
        if _has_create(self._fs):
            path = self._path(f".graphorch-probe-{secrets.token_hex(8)}")
            self._pipe(path, b"1", "create")
            try:
                self._send(path, b"2", "create")
            except FileExistsError:
                refused = True
            finally:
                self._fs.rm_file(path)
        if not refused:
            warnings.warn(
                f"'{self.url}' does not support files that are created once only (a conditional "
                "write): two drivers that resume the same run there at the same time cannot be "
                "kept apart. Make sure that only one runs.",
                GraphWarning,
                stacklevel=2,
            )
        return refused


class S3Files(FsspecFiles):
    """A prefix of an S3 bucket, by the requests that are needed and no others."""

    def names(self, folder: str) -> list[str]:
        """Return the names under a prefix: one request for each thousand."""
        bucket, _, prefix = self._path(folder).partition("/")
        prefix += "/"
        query = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/"}
        found: list[str] = []
        more = True
        while more:
            page = self._fs.call_s3("list_objects_v2", **query)
            found += [item["Key"] for item in page.get("Contents", ())]
            found += [item["Prefix"].rstrip("/") for item in page.get("CommonPrefixes", ())]
            more = page.get("IsTruncated", False)
            query["ContinuationToken"] = page.get("NextContinuationToken", "")
        names = {key.removeprefix(prefix) for key in found}
        return sorted(name for name in names if name and not name.startswith("."))

    def size(self, name: str) -> int | None:
        """Return the length of a file: one request."""
        bucket, _, key = self._path(name).partition("/")
        try:
            found = self._fs.call_s3("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return None
        return int(found["ContentLength"])

    def delete(self, names: Iterable[str]) -> None:
        """Delete files: one request for each thousand."""
        bucket, _, _ = self._root.partition("/")
        keys = [{"Key": self._path(name).partition("/")[2]} for name in names]
        for start in range(0, len(keys), 1000):
            answer = self._fs.call_s3(
                "delete_objects",
                Bucket=bucket,
                Delete={"Objects": keys[start : start + 1000], "Quiet": True},
            )
            for error in answer.get("Errors", ()):
                raise OSError(f"{error.get('Code')}: {error.get('Message')} ({error.get('Key')})")

    def _bucket(self) -> str:
        return self._root.partition("/")[0]

    def _cat(self, path: str) -> bytes:
        # Newer ones ask for the length first, unless they are told to read in one piece.
        newer = "max_concurrency" in inspect.signature(self._fs._cat_file).parameters
        content: bytes = self._fs.cat_file(path, **({"max_concurrency": 1} if newer else {}))
        return content

    def _make_folder(self, path: str) -> bool:
        return False  # the bucket is not there; s3fs would create it


_atomic: dict[tuple[object, ...], bool] = {}
_probing = threading.RLock()
_memory = threading.RLock()


def _in_memory(fs: AbstractFileSystem) -> bool:
    protocol = fs.protocol
    return protocol == "memory" or "memory" in protocol


def _has_create(fs: AbstractFileSystem) -> bool:
    """Whether a file system has a way of its own to create, and not only that of the base class."""
    inner = getattr(fs, "fs", None)  # one that wraps another
    if isinstance(inner, AbstractFileSystem):
        return _has_create(inner)
    if getattr(fs, "async_impl", False):
        return "mode" in inspect.signature(fs._pipe_file).parameters
    return type(fs).pipe_file is not AbstractFileSystem.pipe_file
