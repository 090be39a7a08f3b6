"""Large values in files named by their content.

A value that is there already is not written again, whoever wrote it. A `Blobs` is small and can be
pickled: workers write the values that they hold themselves.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from .. import failpoints
from ..errors import CheckpointError
from .files import Buffer
from .manifest import Blob, Header
from .place import PatientFiles, Place

__all__ = ["Blobs", "ReadsBlobs", "digest_of"]

_OVERLAP = 4 << 20  # bytes from which hashing while writing is worth a thread
_SUFFIX = {"": "", "zstd": ".zst"}
_MOST_VERIFIED = 10_000


class ReadsBlobs(Protocol):
    """What loading a checkpoint asks of a store."""

    def get(self, blob: Blob) -> memoryview:
        """Return a value, read-only."""


class Blobs:
    """The blobs of one line; reads those of every line of its store.

    Args:
        place: the store's.
        line: the line to write to.
        nonce: the line's, by which another process knows that it sees the same store.
        compression: None, or "zstd".
    """

    def __init__(
        self, place: Place, line: str, nonce: str = "", compression: str | None = None
    ) -> None:
        self._place = place
        self._line = line
        self._nonce = nonce
        self._codec = compression or ""

    def put(self, parts: Sequence[Buffer], *, force: bool = False) -> tuple[Blob, bool]:
        """Store a value, unless it is there already.

        Args:
            parts: the value, in parts that follow one another; each one-dimensional, of bytes.
            force: write it in any case, over one that is damaged.

        Returns:
            Its name, and whether it was there already. One that was may be pruned before a
            manifest names it: see `Line.missing`.

        Raises:
            CheckpointError: it could not be written.
        """
        files = self._place.files()
        nbytes = sum(map(len, parts))
        failpoints.reach("blob.before")
        digest = _Digest(parts)
        overlap = files.local and not self._codec and nbytes >= _OVERLAP
        if overlap and (force or not files.similar(self._folder, parts)):
            digest.start()
            files.put(self._folder, parts, digest.result)
            failpoints.reach("blob.after")
            return Blob(self._line, digest.result(), nbytes, nbytes), False
        if not force:
            found = self._find(files, digest.result(), nbytes)
            if found is not None:
                return found, True
        blob = self._write(files, parts, Blob(self._line, digest.result(), nbytes, nbytes))
        failpoints.reach("blob.after")
        return blob, False

    def get(self, blob: Blob) -> memoryview:
        """Return a value, read-only; on local disk it is mapped into memory, not read.

        Its content is compared with its name when this process reads it for the first time.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        files = self._place.files()
        name = blob_name(blob)
        try:
            stored = files.get(name)
        except FileNotFoundError:
            raise CheckpointError(
                f"The value '{files.where(name)}' of a checkpoint is missing ({blob.nbytes:,} "
                "bytes): the checkpoint was pruned, or the file was deleted."
            ) from None
        return checked(blob, stored, files.where(name), once=files.local)

    def visible(self) -> bool:
        """Whether this process sees the store that the driver wrote to, and not one like it."""
        try:
            data, _ = self._place.files().read(f"lines/{self._line}/line")
            return Header.from_bytes(data).nonce == self._nonce
        except (FileNotFoundError, CheckpointError):
            return False

    @property
    def _folder(self) -> str:
        return f"lines/{self._line}/b"

    def _find(self, files: PatientFiles, digest: str, nbytes: int) -> Blob | None:
        """Look for a value under the names that it may have; one of a wrong length is damaged."""
        blob = Blob(self._line, digest, nbytes, nbytes)
        if files.size(blob_name(blob)) == nbytes:
            return blob
        if self._codec:
            blob = blob._replace(codec=self._codec)
            stored = files.size(blob_name(blob))
            if stored:
                return blob._replace(stored=stored)
        return None

    def _write(self, files: PatientFiles, parts: Sequence[Buffer], blob: Blob) -> Blob:
        if self._codec:
            packed = _compress(parts, self._codec)
            if len(packed) < 0.9 * blob.nbytes:  # else mapping it is worth more
                parts = (packed,)
                blob = blob._replace(stored=len(packed), codec=self._codec)
        name = blob_name(blob).rpartition("/")[2]
        files.put(self._folder, parts, lambda: name)
        return blob


class _Digest:
    """The digest of a value, computed when it is asked for, or meanwhile."""

    def __init__(self, parts: Iterable[Buffer]) -> None:
        self._parts = parts
        self._found: str | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Compute it in a thread; hashing holds no lock that writing needs."""
        self._thread = threading.Thread(target=self._compute, name="graphorch-digest", daemon=True)
        self._thread.start()

    def result(self) -> str:
        """Return it, as hexadecimal digits."""
        if self._thread is not None:
            self._thread.join()
        elif self._found is None:
            self._compute()
        assert self._found is not None
        return self._found

    def _compute(self) -> None:
        self._found = digest_of(self._parts)


def digest_of(parts: Iterable[Buffer]) -> str:
    """Return the digest by which a value is named: SHA-256, which processors have built in."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return state.hexdigest()


def blob_name(blob: Blob) -> str:
    """Return the name of a blob's file in the store."""
    return f"lines/{blob.line}/b/{blob.digest}{_SUFFIX[blob.codec]}"


def checked(blob: Blob, stored: memoryview, where: str, *, once: bool) -> memoryview:
    """Return the value in a blob's file, read-only, when it is known to be whole.

    Args:
        blob: its name.
        stored: what the file holds.
        where: the file, for messages.
        once: a mapped file need not be read through again when it has been found whole here.

    Raises:
        CheckpointError: it is not what its name says.
    """
    damaged = CheckpointError(
        f"The value '{where}' of a checkpoint is damaged: it is not what its name says."
    )
    if len(stored) != blob.stored:
        raise damaged
    if blob.codec:
        try:
            value = _decompress(stored, blob.nbytes, blob.codec)
        except Exception as error:
            raise damaged from error
        if len(value) != blob.nbytes or digest_of((value,)) != blob.digest:
            raise damaged
        return value
    key = (where, blob.digest)
    with _verified_lock:
        known = once and key in _verified
    if not known:
        if digest_of((stored,)) != blob.digest:
            raise damaged
        if once:
            with _verified_lock:
                _verified[key] = None
                if len(_verified) > _MOST_VERIFIED:
                    _verified.popitem(last=False)
    return stored.toreadonly()


_verified: OrderedDict[tuple[str, str], None] = OrderedDict()
_verified_lock = threading.Lock()


def _compress(parts: Iterable[Buffer], codec: str) -> memoryview:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as out:
        for part in parts:
            out.write(pa.py_buffer(part))
    return memoryview(sink.getvalue()).cast("B")


def _decompress(stored: memoryview, nbytes: int, codec: str) -> memoryview:
    """Unpack no more than it should hold, and a byte to tell."""
    import pyarrow as pa

    with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(stored)), codec) as source:
        value: Any = source.read_buffer(nbytes + 1)
    return memoryview(value).cast("B").toreadonly()
