"""A queue and a thread between a run and whatever takes its spans or logs away.

Nothing here blocks or raises into the run: an exporter that is slow, hangs or fails costs what
it was to export, and one warning.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry import context

from .report_once import Once

QUEUED = 100_000
"""Items that wait for one exporter, at most; of a span, about a kilobyte each."""

BATCH = 512
"""Items in one call of an exporter, at most; so many are taken away together."""

LINGER_SECONDS = 0.2
"""How long the thread gathers items before it takes them away."""

HURRY = 8_192
"""Items at which it lingers no longer. While a run makes many at once, taking them away beside it
would cost both: they would wait for each other, and spoil each other's caches."""

HANG_SECONDS = 10.0
"""A call of an exporter that takes longer than this is reported as hanging."""


class Outlet:
    """Takes items away in a thread of its own.

    Args:
        what: names the exporter in warnings.
        deliver: takes a batch; may block, may raise, may return False for a failure.
    """

    def __init__(self, what: str, deliver: Callable[[Sequence[Any]], object]) -> None:
        self._what = what
        self._deliver = deliver
        self._items: deque[Any] = deque()
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._idle = threading.Condition()
        self._busy_since: float | None = None
        self._failed = Once()
        self._dropped = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()

    def put(self, item: Any) -> None:
        """Queue an item; where the queue is full it is lost, and that is reported."""
        if len(self._items) >= QUEUED or self._closed:
            self._dropped += 1
            if not self._closed:
                self._report_stall()
            return
        self._items.append(item)
        if len(self._items) == HURRY:
            self._hurry.set()
        since = self._busy_since
        if since is not None and time.monotonic() - since > HANG_SECONDS:
            self._report_stall()
        if not self._work.is_set():
            self._work.set()
            if self._thread is None:
                self._run_thread()

    def _run_thread(self) -> None:
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._carry, name="graphorch-telemetry", daemon=True
                )
                self._thread.start()

    def _report_stall(self) -> None:
        self._failed.say(
            f"{self._what} does not answer or is too slow; what it should export waits, and is "
            f"dropped above {QUEUED} items. The run is not held up."
        )

    def flush(self, timeout: float) -> bool:
        """Wait, for `timeout` seconds at most, until everything queued so far is away."""
        end = time.monotonic() + timeout
        self._hurry.set()
        self._work.set()
        with self._idle:
            while (self._items or self._busy_since is not None) and self._thread is not None:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._idle.wait(min(left, 0.05))
        return True

    def close(self, timeout: float) -> bool:
        """Flush and end; false where that took too long, and what was left is lost."""
        done = self.flush(timeout)
        self._closed = True
        self._hurry.set()
        self._work.set()
        if not done:
            self._failed.say(
                f"{self._what} did not take {len(self._items)} items away within {timeout} s; "
                "they are lost."
            )
        return done

    # --- in the thread ------------------------------------------------------------------------

    def _carry(self) -> None:
        # An instrumented HTTP library must not make spans of what carries spans.
        context.attach(context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, True))
        while True:
            self._work.wait()
            self._hurry.wait(LINGER_SECONDS)
            self._hurry.clear()
            self._work.clear()
            self._busy_since = time.monotonic()
            while self._items:
                batch = [self._items.popleft() for _ in range(min(BATCH, len(self._items)))]
                self._busy_since = time.monotonic()
                self._take_away(batch)
            with self._idle:
                self._busy_since = None
                self._idle.notify_all()
            if self._closed:
                return

    def _take_away(self, batch: Sequence[Any]) -> None:
        try:
            if self._deliver(batch) is False:
                self._failed.say(
                    f"{self._what} failed to export {len(batch)} items, which are lost. Further "
                    "failures of it are not reported."
                )
        except Exception as error:
            self._failed.say(
                f"{self._what} failed: {type(error).__name__}: {error}. {len(batch)} items are "
                "lost. Further failures of it are not reported."
            )
