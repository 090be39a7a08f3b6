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

Settle = Callable[[Any, BaseException | None], None]
"""Told what a function gave, or what it raised."""

_Job = tuple[Callable[[], Any], Settle]


class Handover:
    """Brings what a function gave from its thread to the event loop that asked for it.

    Args:
        settle: called on the event loop, once, in the context of whoever asked.
    """

    def __init__(self, settle: Settle) -> None:
        self._settle: Settle | None = settle
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._given: tuple[Any, BaseException | None] | None = None
        self._waiter: threading.Lock | None = None

    def give(self, value: Any, error: BaseException | None) -> None:
        """In the thread: hand it over."""
        with self._lock:
            self._given = (value, error)
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.release()
            return
        with contextlib.suppress(RuntimeError):  # a closed loop: nobody waits any more
            self._loop.call_soon_threadsafe(self._take, context=self._context)

    def wait(self, seconds: float) -> bool:
        """On the event loop: block it until it is handed over; says whether that was in time.

        A thread that waits for another is woken in half of the time that an event loop takes.
        """
        with self._lock:
            waiter = None
            if self._given is None:
                waiter = self._waiter = threading.Lock()
                waiter.acquire()
        if waiter is not None and not waiter.acquire(timeout=seconds):
            with self._lock:
                if self._given is None:
                    self._waiter = None
                    return False
        self._take()
        return True

    def _take(self) -> None:
        settle, given, self._settle, self._given = self._settle, self._given, None, None
        if settle is not None and given is not None:
            settle(*given)


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

    def submit(self, settle: Settle, function: Callable[..., Any], *args: Any) -> Handover:
        """Call `function(*args)` in a thread; on this event loop `settle` is told what it gave."""
        handover = Handover(settle)
        context = contextvars.copy_context()
        job: _Job = (lambda: context.run(function, *args), handover.give)
        with self._lock:
            if self._free > 0:
                self._free -= 1
                self._jobs.put(job)
                return handover
        try:
            threading.Thread(target=self._work, args=(job,), name=self._name, daemon=True).start()
        except RuntimeError as error:  # the system has no more threads to give
            handover.give(None, error)
        return handover

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
