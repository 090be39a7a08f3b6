"""A clock for tests: it stands still while nodes run, and jumps when everything waits."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

__all__ = ["FakeClock", "FakeTimer"]


class FakeClock:
    """A clock that stands still while nodes run, and jumps ahead when everything waits.

    It governs the waits of retries and the deadlines of supersteps, not the `timeout` of a node,
    which its worker keeps.

    Args:
        now: the Unix time it begins with, in seconds.

    Attributes:
        now: the Unix time it shows.
        slept: the jumps it made, in seconds, in order.
    """

    real = False

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self.now = now
        self.slept: list[float] = []
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._count = itertools.count()

    def time(self) -> float:
        """The Unix time it shows."""
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> FakeTimer:
        """Call back once the clock has moved on by so many seconds."""
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self.now + seconds, next(self._count), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move on, calling back what falls due on the way."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._timers)
            timer.fire()
        self.now = end

    def idle(self) -> None:
        """Everything waits: jump to what falls due next."""
        while self._timers:
            due, _, timer = heapq.heappop(self._timers)
            if timer.cancelled:
                continue
            self.slept.append(due - self.now)
            self.now = due
            asyncio.get_running_loop().call_soon(timer.fire)
            return


class FakeTimer:
    """A call that a `FakeClock` will make, unless it is called off."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Call it off."""
        self.cancelled = True

    def fire(self) -> None:
        """Make the call."""
        if not self.cancelled:
            self.cancelled = True
            self._callback()
