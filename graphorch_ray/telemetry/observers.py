"""Handing events to code outside the library, at that code's own pace.

The run never waits for a reader. Each reader has a buffer of limited size; what does not fit is
dropped, newest first, and an `EventsDropped` stands in the gap. The last event of a run always
fits.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol

from .event import Event
from .events import EventsDropped, RunFailed, RunFinished
from .report_once import Once

BUFFERED_EVENTS = 10_000
"""Events that wait for one reader, at most; some hundred bytes each."""


class EventBuffer:
    """A queue of limited length between a run and one reader.

    Args:
        limit: events at most.
        wake: called after each `put`, in the thread of the run.
    """

    def __init__(self, limit: int, wake: Callable[[], None]) -> None:
        self._limit = limit
        self._wake = wake
        self._events: deque[Event] = deque()
        self._lock = threading.Lock()
        self._missing: EventsDropped | None = None

    def put(self, event: Event) -> bool:
        """Add an event; false where there was no room for it."""
        with self._lock:
            fits = len(self._events) < self._limit or isinstance(event, RunFinished | RunFailed)
            if fits:
                self._close_gap()
                self._events.append(event)
            else:
                before = self._missing.count if self._missing is not None else 0
                self._missing = EventsDropped(
                    time=event.time, run_id=event.run_id, count=before + 1
                )
        self._wake()
        return fits

    def take(self) -> list[Event]:
        """Everything that waits, oldest first."""
        with self._lock:
            self._close_gap()
            taken = list(self._events)
            self._events.clear()
        return taken

    def _close_gap(self) -> None:
        if self._missing is not None:
            self._events.append(self._missing)
            self._missing = None


class Observer:
    """A function that is told every event, in a thread of its own; `remove()` ends that.

    Made by `GraphExecutor.add_observer`.
    """

    def __init__(
        self,
        function: Callable[[Event], Any],
        remove: Callable[[Observer], None],
        limit: int = BUFFERED_EVENTS,
    ) -> None:
        given: object = function
        if not callable(given) or inspect.iscoroutinefunction(given):
            raise TypeError(
                f"an observer must be a function that takes an event, not {function!r}; for a "
                "coroutine use `async for event in executor.stream(...)`"
            )
        self._function = function
        self._remove = remove
        self._limit = limit
        self._failed = Once()
        self._overrun = Once()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._buffer = EventBuffer(limit, self._wake.set)

    @property
    def _name(self) -> str:
        return getattr(self._function, "__qualname__", None) or repr(self._function)

    def remove(self) -> None:
        """Be told nothing more."""
        self._remove(self)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, for `timeout` seconds at most, until it has taken all events of an ended run."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
            return not thread.is_alive()
        return True

    def on_event(self, event: Event) -> None:
        """Queue an event; the thread lives from the first event of a run to its last."""
        if not self._buffer.put(event):
            self._overrun.say(
                f"The observer {self._name} is slower than the run: with {self._limit} events "
                "waiting, further ones are dropped. It gets an EventsDropped in their place."
            )
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="graphorch-observer", daemon=True
                )
                self._thread.start()

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            events = self._buffer.take()
            for event in events:
                self._tell(event)
            over = bool(events) and isinstance(events[-1], RunFinished | RunFailed)
            with self._lock:
                if over and not self._wake.is_set():
                    self._thread = None
                    return

    def _tell(self, event: Event) -> None:
        try:
            self._function(event)
        except Exception as error:
            self._failed.say(
                f"The observer {self._name} failed at {event.name!r}: "
                f"{type(error).__name__}: {error}. The run goes on, and so do its events; "
                "further failures of this observer are not reported."
            )


class StreamReader:
    """The events of one run for one coroutine."""

    def __init__(self, limit: int = BUFFERED_EVENTS) -> None:
        self._arrived = asyncio.Event()
        self._buffer = EventBuffer(limit, self._arrived.set)

    def on_event(self, event: Event) -> None:
        """Queue an event."""
        self._buffer.put(event)

    async def next_events(self) -> list[Event]:
        """Wait for more."""
        await self._arrived.wait()
        self._arrived.clear()
        return self._buffer.take()

    def wake(self) -> None:
        """Have `next_events` return, with nothing if need be."""
        self._arrived.set()

    def take(self) -> list[Event]:
        """What waits, without waiting."""
        return self._buffer.take()


class Hub(Protocol):
    """What listeners join and leave."""

    def add(self, listener: StreamReader, /) -> object:
        """Tell it what happens from now on."""

    def remove(self, listener: StreamReader, /) -> object:
        """Tell it no more."""


async def follow(
    hub: Hub, work: Callable[[], Coroutine[Any, Any, Any]], buffer: int
) -> AsyncIterator[Event]:
    """Do the work of a run, and give its events; to stop reading is to cancel it.

    What the work raises is raised after its last event.
    """
    reader = StreamReader(buffer)
    hub.add(reader)
    run = asyncio.ensure_future(work())
    run.add_done_callback(lambda _: reader.wake())
    try:
        while not run.done():
            for event in await reader.next_events():
                yield event
        for event in reader.take():
            yield event
        run.result()
    finally:
        hub.remove(reader)
        run.cancel()
        await asyncio.wait((run,))
