"""The store of a run's checkpoints: a directory of lines.

A line is one run, or one branch of it, from where it began. It has a header and numbered
manifests; the newest valid manifest is where the run stands. `Line` writes them.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import CheckpointError, GraphWarning
from ..policies import RetryPolicy
from .blobs import Blobs
from .line import Line, writer_id
from .manifest import DamagedError, Header, Manifest, NewerVersionError
from .place import RETRY, Place

__all__ = ["KEY_VARIABLE", "CheckpointInfo", "Line", "Store", "info_of", "signing_key"]

KEY_VARIABLE = "GRAPHORCH_CHECKPOINT_KEY"
"""The environment variable that holds the key of signatures, where none is given."""

_MOST_RACES = 100


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What a list of checkpoints says of one.

    Attributes:
        line, seq: where it is.
        superstep: the superstep that comes next.
        kind, status: as in `Manifest`.
        created: Unix time, in seconds.
        active: the ids of the active nodes.
        nbytes: bytes of its states, as they are stored.
        savepoints: the names by which it is pinned.
        valid: whether it can be read; where not, only `line`, `seq` and `savepoints` are known.
    """

    line: str
    seq: int
    superstep: int = -1
    kind: str = ""
    status: str = ""
    created: float = 0.0
    active: tuple[str, ...] = ()
    nbytes: int = 0
    savepoints: tuple[str, ...] = ()
    valid: bool = True


class Store:
    """A directory of lines, on local disk or at any URL that fsspec knows.

    Nothing is read or written before it is needed.

    Args:
        url: a path, or a URL such as ``s3://bucket/runs/7``.
        storage_options: for fsspec.
        fs: a file system object to use in place of the URL's own; `url` is then a path in it.
        key: the secret of signatures; None takes `GRAPHORCH_CHECKPOINT_KEY` where it is set. With
            a key everything is signed, and what is signed with another key is not read.
        allow_pickle: trust what is here, whoever wrote it.
        compression: None, or ``"zstd"``, for values in blobs.
        keep_last: how many supersteps `Line.prune` keeps, 1 or more; None keeps all.
        grace: seconds for which a blob that nothing refers to is left alone, unless this line's
            owner itself has just pruned what named it.
        retry: how transient faults are met.
        clock: Unix time in seconds.
        sleep: what waits.

    Raises:
        CheckpointError: an argument is not one of the above.

    Example:
        ```python
        store = Store("runs/7")
        line = store.create_line(Header(run_id="7"))
        line.commit(Manifest(kind="start", status="running", superstep=0))
        assert store.newest_line().newest().superstep == 0
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
        compression: str | None = None,
        keep_last: int | None = 3,
        grace: float = 600.0,
        retry: RetryPolicy = RETRY,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if compression not in (None, "zstd"):
            raise CheckpointError(f"compression must be None or 'zstd', not {compression!r}")
        if keep_last is not None and (type(keep_last) is not int or keep_last < 1):
            raise CheckpointError(
                f"keep_last must be a whole number of 1 or more, or None, not {keep_last!r}"
            )
        self.place = Place(os.fspath(url).rstrip("/") or "/", storage_options, fs, retry, sleep)
        self.url = self.place.url
        self.key = signing_key(key)
        self.allow_pickle = allow_pickle
        self.compression = compression
        self.keep_last = keep_last
        self.grace = grace
        self.clock = clock

    keeps_history = True
    """Whether older checkpoints stay, to be gone back to."""

    @property
    def local(self) -> bool:
        """Whether it is on local disk."""
        return self.place.local

    @property
    def shared(self) -> bool:
        """Whether another process could see it at all."""
        return not self.url.startswith("memory:")

    def trusted(self, item: Manifest | Header) -> bool:
        """Whether what a manifest or header names may be unpickled.

        It may where its file is this user's own, on local disk, and nobody else can write to it;
        where it is signed with the key of this store; in this process's own memory; and
        everywhere with `allow_pickle`.
        """
        return self.allow_pickle or item.trusted or not self.shared

    def lines(self) -> list[str]:
        """Return the names of the lines, oldest first."""
        return [name for name in self.place.files().names("lines") if name.isdecimal()]

    def newest_line(self) -> Line | None:
        """Return the line that was begun last, or None; those without a readable header are passed.

        A line has no header for a moment while it is being created. One whose header is damaged is
        passed over with a warning.

        Raises:
            CheckpointError: reading failed, or it was written by a newer version.
        """
        for name in reversed(self.lines()):
            line = self.readable(name)
            if line is not None:
                return line
        return None

    def line(self, name: str) -> Line:
        """Open a line.

        Raises:
            CheckpointError: there is no such line, or its header cannot be read.
        """
        if not name.isdecimal():
            raise CheckpointError(f"{name!r} is no name of a line; lines are {self._said_lines()}")
        try:
            return self._line(name)
        except FileNotFoundError:
            raise CheckpointError(
                f"'{self.url}' has no line {name}; lines are {self._said_lines()}"
            ) from None
        except DamagedError as error:
            where = self.place.files().where(f"lines/{name}/line")
            raise CheckpointError(f"Cannot read '{where}': {error}") from error

    def holds_checkpoints(self, name: str) -> bool:
        """Whether a line has manifests; where it has none, its creation was broken off."""
        return bool(self.place.files().names(f"lines/{name}/m"))

    def readable(self, name: str) -> Line | None:
        """Open a line; None where it has no header yet, or, with a warning, a damaged one.

        Raises:
            CheckpointError: reading failed, or it was written by a newer version.
        """
        try:
            return self._line(name)
        except FileNotFoundError:  # it is being created, or its creation was broken off
            return None
        except DamagedError as error:
            warnings.warn(
                f"Line {name} of '{self.url}' is passed over; of its header: {error}.",
                GraphWarning,
                stacklevel=3,
            )
            return None

    def create_line(self, header: Header | Callable[[Blobs], Header]) -> Line:
        """Begin a line under the next free number. This process is its first owner.

        Args:
            header: what it says of itself, or a function that makes it. The function is given the
                line's blobs, to store a large graph there first, and is called again where
                another process has taken the number meanwhile.

        Raises:
            CheckpointError: it could not be written.
        """
        files = self.place.files()
        number = int((self.lines() or ["0"])[-1])
        nonce, writer = os.urandom(8).hex(), writer_id()
        for _ in range(_MOST_RACES):
            number += 1
            name = f"{number:06d}"
            blobs = Blobs(self.place, name, nonce, self.compression)
            made = header(blobs) if callable(header) else header
            made = replace(made, writer=writer, created=self.clock(), nonce=nonce)
            try:
                files.create(f"lines/{name}/line", made.to_bytes(self.key))
            except FileExistsError:
                continue
            return Line(self, name, replace(made, trusted=True), created=True)
        raise CheckpointError(
            f"Cannot begin a line in '{self.url}': {_MOST_RACES} numbers in a row were taken."
        )

    def checkpoints(self) -> list[CheckpointInfo]:
        """List every checkpoint of every line, oldest first. Each manifest is read."""
        found: list[CheckpointInfo] = []
        for name in self.lines():
            line = self.readable(name)
            if line is None:
                continue
            pins: dict[int, list[str]] = {}
            for pin, seq in line.pins().items():
                pins.setdefault(seq, []).append(pin)
            for seq, manifest in line.manifests():
                if manifest is None or manifest.kind != "claim":
                    found.append(info_of(name, seq, manifest, tuple(pins.get(seq, ()))))
        return found

    def _line(self, name: str) -> Line:
        files, where = self.place.files(), f"lines/{name}/line"
        data, own = files.read(where)
        try:
            header = Header.from_bytes(data, self.key, own=own)
        except NewerVersionError as error:
            raise CheckpointError(f"Cannot read '{files.where(where)}': {error}") from error
        return Line(self, name, header, created=False)

    def _said_lines(self) -> str:
        return ", ".join(self.lines()) or "none"


def signing_key(key: bytes | str | None) -> bytes | None:
    """Return the key as bytes; None takes the environment's, and where it has none there is none.

    Raises:
        CheckpointError: it is neither bytes nor text.
    """
    given = os.environ.get(KEY_VARIABLE) if key is None else key
    if isinstance(given, str):
        given = given.encode()
    if given is not None and not isinstance(given, bytes):
        raise CheckpointError(f"key must be bytes or str, not {type(given).__name__}")
    return given or None


def info_of(
    line: str, seq: int, manifest: Manifest | None, pins: tuple[str, ...]
) -> CheckpointInfo:
    """Describe a manifest; None is one that cannot be read."""
    if manifest is None:
        return CheckpointInfo(line=line, seq=seq, savepoints=pins, valid=False)
    inline = sum(len(s.document) for s in manifest.states if isinstance(s.document, bytes))
    return CheckpointInfo(
        line=line,
        seq=seq,
        superstep=manifest.superstep,
        kind=manifest.kind,
        status=manifest.status,
        created=manifest.created,
        active=tuple(active.node_id for active in manifest.active),
        nbytes=inline + sum(blob.stored for blob in set(manifest.blobs())),
        savepoints=pins,
    )
