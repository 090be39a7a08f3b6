"""Where the files of a store are: the few things it asks of a disk or a service, and local disk.

A store needs little: files that are created once and never changed, files named by their content,
listings, deletion. `LocalFiles` does it with the calls of the operating system, durably;
`graphorch_ray.checkpoint.remote` does it through fsspec.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from mmap import ACCESS_READ, mmap
from typing import Protocol, TypeAlias

__all__ = ["Buffer", "Files", "LocalFiles", "local_path"]

Buffer: TypeAlias = bytes | bytearray | memoryview

_TEMPORARY = ".tmp-"
_SAMPLES, _SAMPLE = 16, 4096  # how many places of a large file are compared, and bytes at each
# What file systems say that have no hard links: FAT, some FUSE and network ones.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class Files(Protocol):
    """What a store asks of the place it is in. Names are relative, with "/" between parts.

    Operations raise what Python's own raise: `FileNotFoundError`, `FileExistsError`, `OSError`.
    """

    @property
    def url(self) -> str:
        """The place, for messages."""

    @property
    def local(self) -> bool:
        """Whether files are on this machine's disk, or on one mounted here."""

    @property
    def atomic(self) -> bool:
        """Whether a created file appears whole, and of racing writers all but one fail."""

    @property
    def own_disk(self) -> bool:
        """Whether files are known to be on a disk of this machine's own."""

    def create(self, name: str, data: bytes) -> None:
        """Write a new file; `FileExistsError` where there is one. It is durable on return."""

    def put(self, folder: str, parts: Sequence[Buffer], name: Callable[[], str]) -> None:
        """Write a file, replacing one of the same name in one step. It is durable on return.

        Its name in the folder is asked for as late as possible: it may still be being computed.
        """

    def read(self, name: str, limit: int | None = None) -> tuple[bytes, bool]:
        """Return a small file, and whether it is this user's own and nobody else can change it.

        With a limit no more than its first `limit` bytes are read.
        """

    def get(self, name: str, start: int = 0, length: int | None = None) -> memoryview:
        """Return a large file, or a part of it, read-only; on local disk mapped, not read."""

    def size(self, name: str) -> int | None:
        """Return the length of a file, or None where there is none."""

    def similar(self, folder: str, parts: Sequence[Buffer]) -> bool:
        """Say whether a file with this content may be in a folder already; False is certain."""

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, in order; none where there is no folder."""

    def leftovers(self, folder: str) -> list[str]:
        """Return the names in a folder of files that a crash left half written."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there are passed over."""


def local_path(url: str | os.PathLike[str]) -> str | None:
    """Return the path that a URL means on local disk, or None where it is somewhere else."""
    text = os.fspath(url)
    for prefix in ("file://", "local://"):
        if text.startswith(prefix):
            text = text.removeprefix(prefix)
            break
    else:
        if "://" in text or "::" in text:
            return None
    return os.path.abspath(os.path.expanduser(text))


class LocalFiles:
    """A directory on local disk.

    Every file is written beside its place under another name and synced, then given its name, and
    the directory is synced: it is there whole, or not at all. On a disk of this machine `create`
    gives the name first and syncs then, which the journal does in one go: no process sees a file
    that is not whole, and one that a power cut tears has not been reported yet. Where the file
    system refuses hard links, `create` writes in place instead, and `atomic` is False from then on.
    """

    local = True
    own_disk = False

    def __init__(self, root: str) -> None:
        self.url = self.root = root
        self._linkless = False

    @property
    def atomic(self) -> bool:
        """Whether created files appear whole; known after the first one."""
        return not self._linkless

    def create(self, name: str, data: bytes) -> None:
        """Write a new file."""
        path = self._path(name)
        folder = os.path.dirname(path)
        if not self._linkless:
            beside = self._beside(folder)
            with _new_file(beside) as file:
                _write(file, (data,))
                names_first = self.own_disk = _is_own_disk(file)
                if not names_first:
                    _sync(file)
                try:
                    os.link(beside, path)
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    self._linkless = True
                os.unlink(beside)
                if names_first and not self._linkless:
                    try:
                        _sync(file)
                    except BaseException:
                        os.unlink(path)  # the checkpoint before stays the newest
                        raise
        if self._linkless:
            with _new_file(path) as file:
                _write(file, (data,))
                _sync(file)
        _sync_folder(folder)

    def put(self, folder: str, parts: Sequence[Buffer], name: Callable[[], str]) -> None:
        """Write a file that gets its name once it is written."""
        inside = self._path(folder)
        beside = self._beside(inside)
        with _new_file(beside) as file:
            _write(file, parts)
            _sync(file)
            os.replace(beside, os.path.join(inside, name()))
        _sync_folder(inside)

    def read(self, name: str, limit: int | None = None) -> tuple[bytes, bool]:
        """Return a file; whose it is, is asked of what is read, not of the name."""
        with open(self._path(name), "rb") as file:
            about = os.fstat(file.fileno())
            own = about.st_uid == os.geteuid() and not about.st_mode & 0o022
            return file.read(limit), own

    def get(self, name: str, start: int = 0, length: int | None = None) -> memoryview:
        """Map a file."""
        with open(self._path(name), "rb") as file:
            nbytes = os.fstat(file.fileno()).st_size
            if nbytes == 0:
                return memoryview(b"")
            whole = memoryview(mmap(file.fileno(), nbytes, access=ACCESS_READ))
        return whole[start : None if length is None else start + length]

    def size(self, name: str) -> int | None:
        """Return the length of a file."""
        try:
            about = os.stat(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return about.st_size if stat.S_ISREG(about.st_mode) else None

    def similar(self, folder: str, parts: Sequence[Buffer]) -> bool:
        """Compare lengths, and then a few places, with the files that are there."""
        nbytes = sum(map(len, parts))
        try:
            with os.scandir(self._path(folder)) as entries:
                paths = [entry.path for entry in entries if entry.stat().st_size == nbytes]
        except FileNotFoundError:
            return False
        if not paths:
            return False
        step = max(1, (nbytes - _SAMPLE) // (_SAMPLES - 1))
        places = [min(step * i, max(0, nbytes - _SAMPLE)) for i in range(_SAMPLES)]
        ours = [_section(parts, place, _SAMPLE) for place in places]
        return any(_matches(path, places, ours) for path in paths)

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, without those that are being written."""
        return [name for name in self._listed(folder) if not name.startswith(".")]

    def leftovers(self, folder: str) -> list[str]:
        """Return the names that are being written, or never will be."""
        return [name for name in self._listed(folder) if name.startswith(_TEMPORARY)]

    def delete(self, names: Iterable[str]) -> None:
        """Delete files, and then folders that are left empty."""
        folders = set()
        for name in names:
            path = self._path(name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                folders.add(os.path.dirname(path))
        for folder in folders:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(folder)

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name) if name else self.root

    def _listed(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self._path(folder)))
        except FileNotFoundError:
            return []

    def _beside(self, folder: str) -> str:
        return f"{folder}/{_TEMPORARY}{os.getpid()}-{secrets.token_hex(6)}"


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[int]:
    """Open a new file, in a folder that is made if need be; it is removed where writing fails."""
    # Not writable by the group, whatever the umask: such a file could not be trusted later.
    flags, mode = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o644
    try:
        file = os.open(path, flags, mode)
    except FileNotFoundError:
        _make_folder(os.path.dirname(path))
        file = os.open(path, flags, mode)
    try:
        yield file
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(file)


def _write(file: int, parts: Iterable[Buffer]) -> None:
    for part in parts:
        left = memoryview(part)
        while left:
            left = left[os.write(file, left) :]


def _is_own_disk(file: int) -> bool:
    """Whether it is on a block device of this machine, where all processes see the same bytes.

    Elsewhere (network file systems, FUSE, overlays) a name may be seen before what it names.
    """
    return sys.platform == "linux" and os.major(os.fstat(file).st_dev) != 0


def _make_folder(folder: str) -> None:
    """Make a folder and those above it, each durable in the one above."""
    above = os.path.dirname(folder)
    # Somebody who makes the same folder at this moment may not have synced it yet.
    with contextlib.suppress(FileExistsError):
        try:
            os.mkdir(folder)
        except FileNotFoundError:
            _make_folder(above)
            os.mkdir(folder)
    _sync_folder(above)


def _sync(file: int) -> None:
    """Wait until what was written is on the disk itself."""
    if sys.platform == "darwin":  # fsync() stops at the drive's cache there
        fcntl.fcntl(file, fcntl.F_FULLFSYNC)
    else:
        os.fsync(file)


def _sync_folder(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _section(parts: Sequence[Buffer], start: int, length: int) -> bytes:
    """Return some bytes of what the parts are together."""
    found = b""
    for part in parts:
        if start < len(part):
            found += bytes(memoryview(part)[start : start + length - len(found)])
            if len(found) == length:
                break
        start = max(0, start - len(part))
    return found


def _matches(path: str, places: Sequence[int], contents: Sequence[bytes]) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            return all(
                os.pread(file.fileno(), len(content), place) == content
                for place, content in zip(places, contents, strict=True)
            )
    except FileNotFoundError:  # it has just been given its name, or deleted
        return True


def walk_down(files: Files, folder: str) -> Iterator[str]:
    """Yield the names two levels below a folder, last first, listing no more than is asked for."""
    for group in reversed(files.names(folder)):
        for name in reversed(files.names(f"{folder}/{group}")):
            yield f"{group}/{name}"
