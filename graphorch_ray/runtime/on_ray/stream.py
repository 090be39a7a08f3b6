"""Ray's answers, driven by callbacks: no thread, no polling, no wait per reference.

Ray offers two ways to follow many generators: a blocking wait, or one asyncio task for each.
This module takes the callbacks that those are made of. Like `lending` it reaches below Ray's public
interface, and it was checked against Ray 2.60. A call that says one thing only gives
a plain answer, in two thirds of the time that a generator takes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .wire import Report, unpacked

OnReport = Callable[[Report, Sequence[Any]], None]
"""Told a report, and references to the payloads that follow it."""

OnEnd = Callable[[BaseException | None], None]
"""Told that the stream is over: None after a clean end, else what Ray says broke."""


BLOCKING_SLICE_SECONDS = 0.05
"""How long a driver inside a Ray task waits in Ray before it looks after its timers."""

DRIVER_SLICE_SECONDS = 0.01
"""The same while something runs in the driver itself, and wants its event loop."""


async def wait_in_ray(
    mailbox: asyncio.Event, awaited: Callable[[], list[Any]], busy: Callable[[], bool]
) -> None:
    """Wait until `mailbox` is set, in a Ray task: its CPU is others' while it waits in Ray.

    Args:
        mailbox: set on the event loop.
        awaited: gives references to what comes next.
        busy: whether something runs in this process.
    """
    import ray

    never: Any = ray.ObjectRef.from_random()  # to wait in Ray even where nothing is out
    while not mailbox.is_set():
        await asyncio.sleep(0)
        refs = awaited()
        if mailbox.is_set():
            return
        seconds = DRIVER_SLICE_SECONDS if busy() else BLOCKING_SLICE_SECONDS
        ready, _ = ray.wait([*refs, never], timeout=seconds, fetch_local=False)
        if ready:
            await asyncio.sleep(0.001)


class Inbox:
    """Carries what Ray's callback threads say to the event loop, waking it once for many."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._woken = False

    def post(self, callback: Callable[[Any], None], value: Any) -> None:
        """From any thread: have `callback(value)` called on the loop."""
        self._waiting.append((callback, value))
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                self._waiting.clear()  # the loop is closed: the run is over

    def _drain(self) -> None:
        self._woken = False
        while self._waiting:
            callback, value = self._waiting.popleft()
            try:
                callback(value)
            except Exception as error:  # one stream's trouble must not hold up the others
                context = {"message": "a worker's report was not understood", "exception": error}
                self._loop.call_exception_handler(context)


def _read(ref: Any) -> None:
    """Look at what a call has left: an error that nobody reads, Ray prints."""
    import ray

    with contextlib.suppress(Exception):
        ray.get(ref, timeout=0)


def _ignore(*_: Any) -> None:
    """Take what comes after the end."""


class Answer:
    """Waits for the one report of a plain call.

    Args:
        refs: references to the report, and to the payload that may follow it.
        inbox: where its answer goes through.
        on_report: told the report.
        on_end: told what broke, where the call gave none.
    """

    def __init__(
        self, refs: Sequence[Any], inbox: Inbox, on_report: OnReport, on_end: OnEnd
    ) -> None:
        self.source = self.waiting_for = refs[0]
        self._refs = refs
        self._on_report = on_report
        self._on_end = on_end
        refs[0]._on_completed(lambda value: inbox.post(self._arrived, value))

    def task_id(self) -> str:
        """Ray's id of the call."""
        return str(self.source.task_id().hex())

    def _arrived(self, value: Any) -> None:
        value, self.waiting_for = unpacked(value), None
        refs, on_report, on_end = self._refs, self._on_report, self._on_end
        self._refs, self._on_report, self._on_end = (), _ignore, _ignore
        if isinstance(value, Report):
            on_report(value, refs[1 : 1 + value.follow])
            return
        for ref in refs[1:]:
            _read(ref)
        on_end(value)


class Stream:
    """Follows one streaming generator until it ends."""

    def __init__(self, generator: Any, inbox: Inbox, on_report: OnReport, on_end: OnEnd) -> None:
        self.source = self.generator = generator
        self.waiting_for: Any = None
        self._inbox = inbox
        self._on_report = on_report
        self._on_end = on_end
        self._report: Report | None = None
        self._listen()

    def task_id(self) -> str:
        """Ray's id of the call."""
        return str(self.generator._generator_ref.task_id().hex())

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call back once the code behind it has ended.

        After a gentle cancel that is later than what the stream says: it is cut off at once.
        """
        completed = self.generator.completed()
        completed._on_completed(lambda _: self._inbox.post(lambda _: callback(), None))

    def _listen(self) -> None:
        """Ask to be told the next report: a small object, fetched along the way."""
        (ref,) = self.generator._get_next_ref_n(1)
        self.waiting_for = ref
        ref._on_completed(lambda value: self._inbox.post(self._arrived, value))

    def _arrived(self, value: Any) -> None:
        value = unpacked(value)
        if not isinstance(value, Report):
            self._end(value)
            return
        self.generator._consume_next_ref_n(1)
        if not value.follow:
            self._listen()
            self._on_report(value, ())
            return
        self._report = value
        refs = self.generator._get_next_ref_n(value.follow)
        self.waiting_for = refs[-1]
        refs[-1]._on_ready(lambda error: self._inbox.post(self._followed, (refs, error)))

    def _followed(self, arrived: tuple[Sequence[Any], BaseException | None]) -> None:
        refs, error = arrived
        report, self._report = self._report, None
        if error is not None:
            self._end(error)
            return
        assert report is not None
        self.generator._consume_next_ref_n(len(refs))
        self._listen()
        self._on_report(report, refs)

    def _end(self, value: Any) -> None:
        from ray.exceptions import ObjectRefStreamEndOfStreamError

        self.waiting_for = None
        _read(self.generator.completed())
        clean = isinstance(value, ObjectRefStreamEndOfStreamError)
        if not clean and not isinstance(value, BaseException):
            value = RuntimeError(f"unexpected item in a worker's stream: {type(value).__name__}")
        on_end = self._on_end
        self._on_report, self._on_end = _ignore, _ignore  # no cycle: states are freed at once
        on_end(None if clean else value)
