"""Threads for blocking code beside an event loop, that never keep a process from ending."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

IDLE_SECONDS = 5.0
"""How long a thread waits for more work before it ends."""

_Job = tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]


class DaemonThreads:
    """Runs blocking functions in daemon threads, as many at once as are asked for.

    Unlike `concurrent.futures.ThreadPoolExecutor`, a function that never returns is given up
    by cancelling the await: its thread is lost, but neither the next job nor the end of the
    process waits for it. Admission is the caller's business.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0
        self._closed = False

    def close(self) -> None:
        """End the threads that have nothing to do, and each other one when its function returns."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, 0
        for _ in range(free):
            self._jobs.put(None)

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function(*args)` in a thread, in a copy of the current context.

        Whatever it raises is raised here, `BaseException`s included.
        """
        value, error = await self.attempt(function, *args)
        if error is not None:
            raise error
        return value

    async def attempt(
        self, function: Callable[..., Any], *args: Any
    ) -> tuple[Any, BaseException | None]:
        """The same, giving what was raised instead: a coroutine cannot raise `StopIteration`."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if not done.done():
                done.set_result((value, error))

        self.submit(settle, function, *args)
        return await done

    def submit(
        self,
        settle: Callable[[Any, BaseException | None], None],
        function: Callable[..., Any],
        *args: Any,
    ) -> None:
        """Call `function(*args)` in a thread; on this event loop `settle` is told what it gave."""
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()

        def finish(value: Any, error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # a closed loop: nobody waits any more
                loop.call_soon_threadsafe(settle, value, error)

        job: _Job = (lambda: context.run(function, *args), finish)
        with self._lock:
            if self._free > 0:
                self._free -= 1
                self._jobs.put(job)
                return
        threading.Thread(target=self._work, args=(job,), name=self._name, daemon=True).start()

    def _work(self, first: _Job) -> None:
        job: _Job | None = first
        del first
        while job is not None:
            call, finish = job
            try:
                value, error = call(), None
            except BaseException as raised:
                value, error = None, raised
            with self._lock:
                closed = self._closed
                self._free += not closed
            finish(value, error)
            del call, finish, job, value, error
            if closed:
                return
            try:
                job = self._jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._free > 0:
                        self._free -= 1
                        return
                job = self._jobs.get()  # a job was promised to this thread just now
