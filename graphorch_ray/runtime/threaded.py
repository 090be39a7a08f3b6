"""An attempt of sync code in a thread beside the event loop: one hop there, and one back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from ..errors import NodeTimeoutError
from .attempt import Result, Work, awaited, run_here
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
    """

    def __init__(self, work: Work, threads: DaemonThreads, told: Callable[[Result], None]) -> None:
        self.gatherer = Gatherer(work.trace)
        self._work = work
        self._told: Callable[[Result], None] | None = told
        self._loop = asyncio.get_running_loop()
        self._routing: Future[Any] | None = None
        self._started = time.time()
        self._timer: asyncio.TimerHandle | None = None
        if work.timeout is not None:
            self._timer = self._loop.call_later(work.timeout, self._expire)
        threads.submit(self._settle, self._run)

    @property
    def routing(self) -> bool:
        """Whether the code has returned, and a router's answer is awaited on the event loop."""
        return self._routing is not None

    def cancel(self) -> None:
        """Give it up. Its thread goes on until the code returns, and nobody is told."""
        self._told = None
        self.gatherer.give_up()
        if self._timer is not None:
            self._timer.cancel()
        if self._routing is not None:
            self._routing.cancel()

    def _run(self) -> Result:
        return run_here(self._work, self.gatherer, self._await)

    def _await(self, awaitable: Awaitable[Any]) -> Any:
        """What a router's answer gives on the event loop, whose own it may be bound to."""
        self._routing = asyncio.run_coroutine_threadsafe(awaited(awaitable), self._loop)
        return self._routing.result()

    def _settle(self, result: Result | None, error: BaseException | None) -> None:
        told = self._told
        if told is None:
            return
        if result is None:
            assert error is not None
            result = Result(None, {}, capture(error), self._started, time.time())
        if self._timer is not None:
            self._timer.cancel()
        told(result)

    def _expire(self) -> None:
        """The attempt's time is up; what its code left behind so far is kept."""
        told = self._told
        if told is None:
            return
        self.cancel()
        work = self._work
        assert work.timeout is not None
        failure = capture(NodeTimeoutError(work.info.running_node_id, work.timeout), "timeout")
        trail = self.gatherer.trail()
        told(Result(None, {}, failure, self._started, time.time(), abandoned=True, trail=trail))
