"""The latest events of a hosted run, kept where it runs for whoever asks."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import deque
from itertools import islice
from typing import NamedTuple

from ..telemetry import Event, EventsDropped
from ..telemetry.events import SuperstepCompleted, SuperstepStarted

KEPT_EVENTS = 10_000
"""Events that are kept, at most; some hundred bytes each."""

EVENTS_AT_ONCE = 1_000
"""Events in one answer, at most."""


class Cursor(NamedTuple):
    """How far somebody has read.

    Attributes:
        log: which log: a driver that was replaced has a new one.
        position: events that were read or passed over.
    """

    log: str
    position: int


START = Cursor("", 0)


class EventLog:
    """Listens to a run, and keeps the latest of its events.

    Attributes:
        superstep: the superstep that the run is in, or that comes next.
        active_nodes: the nodes that are active in it.
    """

    def __init__(self, run_id: str, limit: int = KEPT_EVENTS) -> None:
        self.superstep: int | None = None
        self.active_nodes: tuple[str, ...] = ()
        self._id = uuid.uuid4().hex
        self._run_id = run_id
        self._events: deque[Event] = deque(maxlen=limit)
        self._count = 0
        self._over = False
        self._news = asyncio.Event()

    def on_event(self, event: Event) -> None:
        """Keep an event."""
        self._events.append(event)
        self._count += 1
        if isinstance(event, SuperstepStarted):
            self.superstep, self.active_nodes = event.superstep, event.active_nodes
        elif isinstance(event, SuperstepCompleted):
            self.superstep, self.active_nodes = event.superstep, event.next_active_nodes
        self._tell()

    def end(self) -> None:
        """No more events will come."""
        self._over = True
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def now(self) -> Cursor:
        """A cursor for whoever wants only what comes."""
        return Cursor(self._id, self._count)

    async def read(self, cursor: Cursor, seconds: float) -> tuple[Cursor, list[Event], bool]:
        """Events after a cursor, oldest first; waits some seconds where there are none.

        An `EventsDropped` stands for those that are kept no longer.

        Returns:
            The cursor to ask with next, the events, and whether no more will come.
        """
        start = cursor.position if cursor.log == self._id else 0
        if start >= self._count and not self._over:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), seconds)
        first = self._count - len(self._events)
        found: list[Event] = []
        if start < first:
            found.append(EventsDropped(time=time.time(), run_id=self._run_id, count=first - start))
            start = first
        found += islice(self._events, start - first, start - first + EVENTS_AT_ONCE)
        end = min(self._count, start + EVENTS_AT_ONCE)
        return Cursor(self._id, end), found, self._over and end == self._count
