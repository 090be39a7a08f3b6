"""A file system that fails as it is told to."""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from fsspec.spec import AbstractFileSystem

__all__ = ["FAULTS", "FaultyFileSystem"]

_ANY = frozenset({"before", "unavailable", "throttled", "slow"})
FAULTS: dict[str, frozenset[str]] = {
    "write": _ANY | {"after", "torn"},
    "read": _ANY,
    "list": _ANY | {"stale"},
    "delete": _ANY | {"after"},
}
"""Which faults each kind of operation can have."""


class FaultyFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Wraps a file system, and puts faults into its operations by a schedule.

    The faults are ``"before"`` (the connection breaks before anything happens), ``"after"`` (it
    happens, and then the connection breaks), ``"torn"`` (half of a file is written, and then the
    connection breaks), ``"unavailable"`` (an answer of 503), ``"throttled"`` (told to slow down),
    ``"slow"`` and ``"stale"`` (a listing as it was the last time).

    Args:
        fs: the file system to wrap.
        schedule: one fault for each operation, or None for an operation that goes well. A fault
            that an operation cannot have is passed over. After the last all goes well.
        seconds: how long a slow operation takes.
        sleep: what makes it slow.

    Attributes:
        injected: how many faults of each kind there were.
        writes: what was written and deleted, in order: path and content, or None for a deletion.

    Example:
        ```python
        fs = FaultyFileSystem(fsspec.filesystem("memory"), ["unavailable", None, "after"])
        Store("/run", fs=fs, sleep=FakeClock().advance).create_line(Header(run_id="7"))
        assert fs.injected == {"unavailable": 1, "after": 1}
        ```
    """

    cachable = False

    def __init__(
        self,
        fs: AbstractFileSystem,
        schedule: Iterable[str | None] = (),
        *,
        seconds: float = 0.01,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__()
        self.fs = fs
        self.protocol = fs.protocol
        self.root_marker = fs.root_marker
        self._strip_protocol = fs._strip_protocol
        self._schedule = iter(schedule)
        self._seconds = seconds
        self._sleep = sleep
        self._lock = threading.Lock()
        self._listings: dict[str, Any] = {}
        self.injected: Counter[str] = Counter()
        self.writes: list[tuple[str, bytes | None]] = []

    def plan(self, schedule: Iterable[str | None]) -> None:
        """Replace what is left of the schedule."""
        self._schedule = iter(schedule)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write a file."""
        kwargs |= {"mode": mode} if mode != "overwrite" else {}
        fault = self._before("write")
        if fault == "torn":
            self._piped(path, value[: len(value) // 2], kwargs)
            raise ConnectionResetError(errno.ECONNRESET, "injected: torn write")
        self._piped(path, value, kwargs)
        self._after(fault)

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        """Read a file."""
        self._before("read")
        content: bytes = self.fs.cat_file(path, start=start, end=end, **kwargs)
        return content

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Describe a file."""
        self._before("read")
        found: dict[str, Any] = self.fs.info(path, **kwargs)
        return found

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """List a folder."""
        fault = self._before("list")
        before = self._listings.get(path)
        try:
            self._listings[path] = self.fs.ls(path, detail=True, **kwargs)
        except FileNotFoundError:
            self._listings[path] = None
        found = before if fault == "stale" else self._listings[path]
        if found is None:
            raise FileNotFoundError(path)
        return list(found) if detail else [item["name"] for item in found]

    def rm_file(self, path: str) -> None:
        """Delete a file."""
        fault = self._before("delete")
        self.fs.rm_file(path)
        self.writes.append((path, None))
        self._after(fault)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder."""
        self.fs.makedirs(path, exist_ok=exist_ok)

    def _piped(self, path: str, value: bytes, kwargs: dict[str, Any]) -> None:
        self.fs.pipe_file(path, value, **kwargs)
        self.writes.append((path, bytes(value)))

    def _before(self, operation: str) -> str | None:
        with self._lock:
            fault = next(self._schedule, None)
            if fault not in FAULTS[operation]:
                return None
            self.injected[fault] += 1
        if fault == "before":
            raise ConnectionResetError(errno.ECONNRESET, "injected: connection reset")
        if fault == "unavailable":
            raise OSError(errno.EBUSY, "injected: 503 Service Unavailable")
        if fault == "throttled":
            raise OSError(errno.EBUSY, "injected: SlowDown, reduce your request rate")
        if fault == "slow":
            self._sleep(self._seconds)
        return fault

    def _after(self, fault: str | None) -> None:
        if fault == "after":
            raise TimeoutError(errno.ETIMEDOUT, "injected: no answer")
