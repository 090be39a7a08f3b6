"""An attempt of sync code in a thread beside the event loop: one hop there, and one back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from ..errors import NodeTimeoutError
from ..model.attempt import Failure
from .attempt import Result, Work, run_here, waited_for
from .failures import capture
from .gather import Gatherer
from .threads import DaemonThreads


class ThreadedAttempt:
    """Runs the code of an attempt, and the routers beside it, in a thread.

    Args:
        work: the attempt; its code is a sync function.
        threads: where it runs.
        told: called on this event loop with what came of it; not after `cancel()`. What the code
            gave to be awaited is `Result.awaitable` then, to be gone on with on the loop.

    Attributes:
        gatherer: what gathers what the code leaves behind.
        given_up: nobody waits for the answer any more.
    """

    def __init__(self, work: Work, threads: DaemonThreads, told: Callable[[Result], None]) -> None:
        self.gatherer = Gatherer(work.trace)
        self.given_up = False
        self._work = work
        self._told: Callable[[Result], None] | None = told
        self._loop = asyncio.get_running_loop()
        self._routing: Future[str | Failure] | None = None
        self._started = time.time()
        self._timer: asyncio.TimerHandle | None = None
        if work.timeout is not None:
            self._timer = self._loop.call_later(work.timeout, self._expire)
        self._handover = threads.submit(self._settle, self._run)

    def wait(self, seconds: float) -> bool:
        """Block the event loop until it is answered; says whether that was in time."""
        return self._handover.wait(seconds)

    @property
    def routing(self) -> bool:
        """Whether the code has returned, and a router's answer is awaited on the event loop."""
        return self._routing is not None

    def cancel(self) -> None:
        """Give it up. Its thread goes on until the code returns, and nobody is told."""
        self._told, self.given_up = None, True
        self.gatherer.give_up()
        if self._timer is not None:
            self._timer.cancel()
        if self._routing is not None:
            self._routing.cancel()

    def _run(self) -> Result:
        return run_here(self._work, self.gatherer, self)

    def wait_for(self, answer: Awaitable[Any]) -> str | Failure:
        """What a router's answer gives on the event loop, whose own it may be bound to."""
        routing = self._routing = asyncio.run_coroutine_threadsafe(waited_for(answer), self._loop)
        if self.given_up:  # it was a moment ago, and has not seen this
            routing.cancel()
        try:
            return routing.result()
        finally:
            self._routing = None

    def _settle(self, result: Result | None, error: BaseException | None) -> None:
        told = self._told
        if told is None:
            return
        if result is None:
            assert error is not None
            result = Result(None, {}, capture(error), self._started, time.time())
        if self._timer is not None:
            self._timer.cancel()
        self._told = None  # it knows this attempt: what both hold is to go at once
        told(result)

    def _expire(self) -> None:
        """The attempt's time is up; what its code left behind so far is kept."""
        told = self._told
        if told is None:
            return
        abandoned = not self.routing
        self.cancel()
        work = self._work
        assert work.timeout is not None
        failure = capture(NodeTimeoutError(work.info.running_node_id, work.timeout), "timeout")
        trail = self.gatherer.trail()
        told(Result(None, {}, failure, self._started, time.time(), abandoned, trail))
