"""The single-file form: one file that holds the newest checkpoint and all that it needs.

The file is replaced as a whole by every commit, so there is no history, and large values are
written again each time. It is for small states, and for a checkpoint that is to be sent somewhere.
Owners are kept apart by files in a directory beside it, ``<file>.claims``.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgpack

from .. import failpoints
from ..errors import CheckpointConflictError, CheckpointError
from ..policies import RetryPolicy
from .blobs import checked, digest_of
from .files import Buffer, local_path
from .line import said, writer_id
from .manifest import Blob, Header, Manifest, seal, unseal
from .place import RETRY, PatientFiles, Place
from .store import CheckpointInfo, info_of, signing_key

__all__ = ["SingleBlobs", "SingleLine", "SingleStore", "is_single"]

_MAGIC = b"GORCKPT\n"
_PREFIX = struct.Struct(">8sQ")  # magic, length of the index that follows
_ALIGN = 64  # what arrays want to be mapped at
_FIRST_READ = 64 << 10
_LARGEST_INDEX = 1 << 32
_LINE = "000001"


def is_single(url: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint path means a single file: it ends in .ckpt or .pkl."""
    return os.fspath(url).endswith((".ckpt", ".pkl"))


class SingleStore:
    """A store that is one file; arguments and methods are those of `Store` that mean something.

    Example:
        ```python
        line = SingleStore("run.ckpt").create_line(Header(run_id="7"))
        line.commit(Manifest(kind="start", status="running", superstep=0))
        ```
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        storage_options: Mapping[str, Any] | None = None,
        fs: Any = None,
        key: bytes | str | None = None,
        allow_pickle: bool = False,
        retry: RetryPolicy = RETRY,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.url = os.fspath(url)
        folder, name = _split(self.url if fs is not None else local_path(self.url) or self.url)
        self.place = Place(folder, storage_options, fs, retry, sleep)
        self.name = name
        self.key = signing_key(key)
        self.allow_pickle = allow_pickle
        self.clock = clock

    keeps_history = False
    """As `Store.keeps_history`."""

    @property
    def local(self) -> bool:
        """Whether it is on local disk."""
        return self.place.local

    @property
    def shared(self) -> bool:
        """Never: what is put waits in this process for the next commit."""
        return False

    def trusted(self, item: Manifest | Header) -> bool:
        """As `Store.trusted`."""
        in_memory = self.url.startswith("memory:")
        return self.allow_pickle or item.trusted or in_memory

    def lines(self) -> list[str]:
        """Return one name, or none where there is no file."""
        return [] if self.place.files().size(self.name) is None else [_LINE]

    def newest_line(self) -> SingleLine | None:
        """Return the line in the file, or None where there is no file.

        Raises:
            CheckpointError: the file is no checkpoint, or damaged.
        """
        content = _Content.read(self.place.files(), self.name, self.key)
        return None if content is None else SingleLine(self, content.header, content)

    def line(self, name: str = _LINE) -> SingleLine:
        """Return the line in the file.

        Raises:
            CheckpointError: there is no file, it is no checkpoint, or damaged.
        """
        line = self.newest_line() if name == _LINE else None
        if line is None:
            raise CheckpointError(f"There is no checkpoint in '{self.url}'.")
        return line

    readable = line
    """As `line`: there is no other line to go on from."""

    def create_line(self, header: Header | Callable[[SingleBlobs], Header]) -> SingleLine:
        """Begin a run in the file, in place of the one that is there: the first commit replaces it.

        Raises:
            CheckpointConflictError: another process is doing so at the same time.
        """
        writer = writer_id()
        blobs = SingleBlobs(self.place, self.name)
        made = header(blobs) if callable(header) else header
        made = replace(
            made, writer=writer, created=self.clock(), nonce=os.urandom(8).hex(), trusted=True
        )
        line = SingleLine(self, made, None, blobs)
        with contextlib.suppress(CheckpointError):  # what is there may be anything
            blobs.content = _Content.read(self.place.files(), self.name, self.key)
        line.take(writer)
        blobs.content = None
        return line

    def checkpoints(self) -> list[CheckpointInfo]:
        """List the checkpoint in the file."""
        line = self.newest_line()
        manifest = line.newest() if line else None
        return [] if manifest is None else [info_of(_LINE, manifest.seq, manifest, ())]


class SingleLine:
    """The line in a single file; methods are those of `Line`."""

    def __init__(
        self,
        store: SingleStore,
        header: Header,
        content: _Content | None,
        blobs: SingleBlobs | None = None,
    ) -> None:
        self._store = store
        self._files = store.place.files()
        self._claims = f"{store.name}.claims"
        self.name = _LINE
        self.header = header
        self.blobs = blobs or SingleBlobs(store.place, store.name)
        self.blobs.content = content
        self.writer = header.writer if content is None else ""
        self.epoch = 0
        self._seq = 0
        self._released = False
        self._lost: CheckpointConflictError | None = None

    def newest(self, *, before: int | None = None) -> Manifest | None:
        """Return the checkpoint in the file.

        Raises:
            CheckpointError: the file is no checkpoint, or damaged.
        """
        content = _Content.read(self._files, self._store.name, self._store.key)
        self.blobs.content = content
        if content is None or (before is not None and content.manifest.seq >= before):
            return None
        return content.manifest

    def at(self, superstep: int) -> Manifest:
        """Return the checkpoint in the file, if it is of this superstep."""
        newest = self.newest()
        if newest is None or newest.superstep != superstep:
            there = "none" if newest is None else f"that of {newest.superstep} only"
            raise CheckpointError(
                f"'{self._store.url}' has no checkpoint of superstep {superstep}, but {there}: a "
                "single file keeps the newest. Give a directory as the path to keep more."
            )
        return newest

    def manifests(self) -> list[tuple[int, Manifest | None]]:
        """Return the one manifest."""
        newest = self.newest()
        return [] if newest is None else [(newest.seq, newest)]

    def pins(self) -> dict[str, int]:
        """Return nothing: a single file has no savepoints."""
        return {}

    def pin(self, name: str, seq: int) -> None:
        """Refuse.

        Raises:
            CheckpointError: always.
        """
        raise CheckpointError(
            f"'{self._store.url}' is a single file, which keeps the newest checkpoint only. Give a "
            "directory as the path to keep savepoints."
        )

    def unpin(self, name: str) -> None:
        """Do nothing: there are none."""

    def take(self, writer: str) -> None:
        """Become the owner by creating the next claim.

        Raises:
            CheckpointConflictError: another process has created it at the same time.
        """
        taken = [int(name) for name in self._files.names(self._claims) if name.isdecimal()]
        there = self.blobs.content
        epoch = max([0, *taken, there.manifest.epoch if there else 0]) + 1
        try:
            self._files.create(self._claim(epoch), writer.encode())
        except FileExistsError:
            raise CheckpointConflictError(
                f"Another process has taken over '{self._store.url}' at the same time: "
                f"{self._owner(epoch)}. If that one is not running any more, try again."
            ) from None
        self.writer, self.epoch = writer, epoch

    def claim(self, wanted: Callable[[Manifest], bool] | None = None) -> Manifest:
        """Become the owner, and go on from the checkpoint in the file; see `Line.claim`.

        The owner before may replace the file at the very moment at which it is claimed, so what is
        returned may be another one than was wanted, and claimed.

        Raises:
            CheckpointError: there is none.
            CheckpointConflictError: another process is doing so at the same time.
        """
        failpoints.reach("claim.before")
        there = self.newest() if wanted is not None else None
        if there is not None and wanted is not None and not wanted(there):
            return there
        self.take(writer_id())
        newest = self.newest()
        if newest is None:
            raise CheckpointError(f"There is no checkpoint in '{self._store.url}'.")
        self._seq = newest.seq
        failpoints.reach("claim.after")
        return replace(newest, epoch=self.epoch, writer=self.writer, kind="claim")

    def commit(self, manifest: Manifest) -> Manifest:
        """Replace the file. Arguments and errors are those of `Line.commit`."""
        if self._lost is not None:
            raise CheckpointConflictError(*self._lost.args)
        if self._released:
            self._take_again()
        if not self.epoch:
            raise CheckpointError(f"'{self._store.url}' must be claimed before it is written to.")
        failpoints.reach("manifest.before")
        made = replace(
            manifest,
            line=self.name,
            seq=self._seq + 1,
            epoch=self.epoch,
            writer=self.writer,
            created=self._store.clock(),
            trusted=True,
        )
        self._check_owner(made)
        wanted = dict.fromkeys((*self.header.blobs(), *made.blobs()))
        parts = _layout(self.header, made, self._store.key, self.blobs.collect(wanted))
        self._files.put("", parts, lambda: self._store.name)
        # A new owner may have read the file just before it was replaced.
        self._check_owner(made)
        self._seq = made.seq
        self.blobs.content = _Content.read(self._files, self._store.name, self._store.key)
        self.blobs.forget(wanted)
        failpoints.reach("manifest.after")
        return made

    def release(self) -> None:
        """Take the claims away: nobody else wants to write here, and this run is at rest.

        Whoever comes next begins after the epoch that the file names, so that an owner from
        before finds its claim gone, and stops.
        """
        if self._lost is None and self.epoch:
            claims = self._files.names(self._claims)
            self._files.delete(
                f"{self._claims}/{name}"
                for name in claims
                if name.isdecimal() and int(name) <= self.epoch
            )
            self.epoch, self._released = 0, True

    def _take_again(self) -> None:
        """Become the owner once more, if nobody was meanwhile."""
        writer, self._released = self.writer, False
        newest = self.newest()
        self.take(writer)
        if newest is None or (newest.seq, newest.writer) != (self._seq, writer):
            self._lost = CheckpointConflictError(
                f"Another process has written to '{self._store.url}' since this run was there last."
            )
            raise self._lost

    def missing(self, blobs: Iterable[Blob]) -> list[Blob]:
        """Return nothing: the file holds what its manifest names."""
        return []

    def prune(self, keep: Iterable[Blob] = (), *, lazily: bool = False) -> None:
        """Do nothing: there is no history."""

    def _claim(self, epoch: int) -> str:
        return f"{self._claims}/{epoch:09d}"

    def _owner(self, epoch: int) -> str:
        try:
            return self._files.read(self._claim(epoch))[0].decode(errors="replace")
        except FileNotFoundError:
            return "unknown"

    def _check_owner(self, ours: Manifest) -> None:
        later = self._files.size(self._claim(self.epoch + 1)) is not None
        if later or self._files.size(self._claim(self.epoch)) is None:
            self._lost = CheckpointConflictError(
                f"Another process has taken over '{self._store.url}': epoch {self.epoch + 1}, "
                f"{self._owner(self.epoch + 1)}. This one ({said(ours)}) stops here."
            )
            raise self._lost


class SingleBlobs:
    """The values of a single file: kept in memory until a commit writes them.

    Attributes:
        content: the file as it was last read or written; None where there is none.
    """

    def __init__(self, place: Place, name: str) -> None:
        self._place = place
        self._name = name
        self._held: dict[Blob, tuple[tuple[Buffer, ...], int]] = {}
        self._commits = 0
        self._lock = threading.Lock()
        self.content: _Content | None = None

    def put(self, parts: Sequence[Buffer], *, force: bool = False) -> tuple[Blob, bool]:
        """Keep a value, which must not change, for the next two commits.

        Returns:
            Its name, and whether it was there already.
        """
        failpoints.reach("blob.before")
        nbytes = sum(map(len, parts))
        blob = Blob("", digest_of(parts), nbytes, nbytes)
        with self._lock:
            there = blob in self._held or (self.content is not None and blob in self.content.places)
            self._held[blob] = tuple(parts), self._commits
        failpoints.reach("blob.after")
        return blob, there and not force

    def get(self, blob: Blob) -> memoryview:
        """Return a value, read-only; from a local file it is mapped.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        with self._lock:
            held = self._held.get(blob)
        if held is not None:
            parts, _ = held
            return memoryview(parts[0] if len(parts) == 1 else b"".join(parts)).toreadonly()
        if self.content is None:
            self.content = _Content.read(self._place.files(), self._name, None)
        if self.content is None or blob not in self.content.places:
            raise CheckpointError(f"A value of {blob.nbytes:,} bytes is not in '{self._name}'.")
        return self.content.get(blob)

    def visible(self) -> bool:
        """Return False: the driver alone writes the file."""
        return False

    def collect(self, blobs: Iterable[Blob]) -> dict[Blob, tuple[Buffer, ...]]:
        """Return the contents of values, for the next file."""
        found: dict[Blob, tuple[Buffer, ...]] = {}
        for blob in blobs:
            with self._lock:
                held = self._held.get(blob)
            found[blob] = held[0] if held is not None else (self.get(blob),)
        return found

    def forget(self, written: Iterable[Blob]) -> None:
        """A commit has written some values: let them go, and those that no commit has wanted."""
        with self._lock:
            self._commits += 1
            for blob in written:
                self._held.pop(blob, None)
            for blob, (_, since) in list(self._held.items()):
                if self._commits - since > 2:
                    del self._held[blob]

    def __reduce__(self) -> tuple[Any, ...]:
        return SingleBlobs, (self._place, self._name)


class _Content:
    """What is in a file: header, manifest, and where its values are."""

    def __init__(
        self,
        files: PatientFiles,
        name: str,
        header: Header,
        manifest: Manifest,
        places: dict[Blob, int],
    ) -> None:
        self._files = files
        self._name = name
        self._mapped = files.get(name) if files.local else None
        self.header = header
        self.manifest = manifest
        self.places = places

    @classmethod
    def read(cls, files: PatientFiles, name: str, key: bytes | None) -> _Content | None:
        where = files.where(name)
        try:
            data, own = files.read(name, _FIRST_READ)
            magic, length = _PREFIX.unpack_from(data.ljust(_PREFIX.size, b"\0"))
            if magic != _MAGIC or length > _LARGEST_INDEX:
                raise CheckpointError("it does not begin as one does")
            end = _PREFIX.size + length
            if end > len(data) == _FIRST_READ:
                data, own = files.read(name, end)
            body, _ = unseal(b"S", data[_PREFIX.size : end], None, "")
            header_data, manifest_data, table = msgpack.unpackb(body)
            header = Header.from_bytes(header_data, key, own=own)
            manifest = Manifest.from_bytes(manifest_data, key, header.nonce, own=own)
            places, start = {}, _aligned(end)
            for digest, nbytes in table:
                places[Blob("", digest.hex(), nbytes, nbytes)] = start
                start = _aligned(start + nbytes)
            return cls(files, name, header, manifest, places)
        except FileNotFoundError:
            return None
        except (
            CheckpointError,
            ValueError,
            TypeError,
            AttributeError,
            msgpack.UnpackException,
        ) as e:
            raise CheckpointError(f"'{where}' is not a checkpoint that can be read: {e}.") from e

    def get(self, blob: Blob) -> memoryview:
        start = self.places[blob]
        if self._mapped is not None:
            stored = self._mapped[start : start + blob.stored]
        else:
            stored = self._files.get(self._name, start, blob.stored)
        return checked(blob, stored, self._files.where(self._name), once=False)


def _layout(
    header: Header, manifest: Manifest, key: bytes | None, blobs: dict[Blob, tuple[Buffer, ...]]
) -> list[Buffer]:
    """Return the file in parts."""
    table = [[bytes.fromhex(blob.digest), blob.nbytes] for blob in blobs]
    sealed = [header.to_bytes(key), manifest.to_bytes(key, header.nonce), table]
    index = seal(b"S", msgpack.packb(sealed), None, "")
    parts: list[Buffer] = [_PREFIX.pack(_MAGIC, len(index)), index]
    end = _PREFIX.size + len(index)
    for blob, content in blobs.items():
        parts += [bytes(_aligned(end) - end), *content]
        end = _aligned(end) + blob.nbytes
    return parts


def _aligned(place: int) -> int:
    return -(-place // _ALIGN) * _ALIGN


def _split(url: str) -> tuple[str, str]:
    """Return the folder, and the file's name in it."""
    folder, slash, name = url.rpartition("/")
    if folder.endswith(":/") or not folder:  # a protocol, or the root
        folder += slash
    return folder, name
