"""The code Ray runs for async nodes and models: many attempts at once on an event loop.

It answers in the stream of `Report`s that `wire` describes, and never raises what node code
raised, so an error that Ray reports is always about the machinery.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

from ...model.ai import AIActionBase, ensure_model
from ...model.nodes import AINode
from ..attempt import Work, run_on_loop
from ..gather import Gatherer, import_tracing, settle_in
from ..payload import Payload
from ..threads import DaemonThreads
from .items import codes, where
from .wire import (
    MESSAGES_PER_REPORT,
    Blocked,
    Cancelled,
    Item,
    Job,
    Message,
    Started,
    not_loaded,
    report,
    tell,
    unpacked,
    work_of,
)

LOOP_CHECK_SECONDS = 0.2
"""How often a worker with attempts in flight looks whether its event loop still answers."""

UNKNOWN_HOLDER_CHECKS = 10
"""Checks that a loop may miss while nobody can be named before it counts as blocked."""

STARTED_TOGETHER = 64
"""Items that an event loop starts before it goes on with those that have started."""

_TASK = "graphorch-attempt-"
"""How the tasks of attempts are named; the token follows."""

_WAKE: tuple[Message, Payload | None] = (Cancelled(False), None)
"""Not a message: it only makes `serve` look after the event loop from now on."""


def host_items(job: Job | bytes, *arguments: Payload) -> Iterator[bytes | Payload]:
    """Run items all at once on an event loop, each reported as soon as it is done."""
    yield from WorkerProcess().host(job, *arguments)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ray's gentle cancel interrupt this thread.

    It does nothing where SIGINT is ignored, as in what `nohup` or a script's ``&`` has started,
    and in the workers of the Ray that such a program starts.
    """
    before = signal.getsignal(signal.SIGINT)
    if (
        before is None
        or callable(before)
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class WorkerProcess:
    """Runs many attempts at once on an event loop, in a Ray actor or in a task.

    Node code has its own thread and loop. Reports leave from the thread of `serve`, so they
    leave even while a function blocks the loop, and `serve` notices that it does.
    """

    def __init__(self) -> None:
        self._out: queue.SimpleQueue[tuple[Message, Payload | None] | None] = queue.SimpleQueue()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._coming: deque[tuple[Item, Job, Sequence[Payload]]] = deque()
        self._cancelled: set[int] = set()
        self._threads = DaemonThreads("graphorch-node")
        self._loop = asyncio.new_event_loop()
        self._answered = True
        self._told_blocked = False
        self._unanswered = 0
        self._suspect: int | None = None
        self._starting = False
        self._ends_when_done = False
        self._abandoned = False
        settle_in()
        self._thread = threading.Thread(target=self._work, name="graphorch-loop", daemon=True)
        self._thread.start()

    # --- called by the driver -----------------------------------------------------------------

    def serve(self) -> Iterator[bytes | Payload]:
        """The stream of reports; ends after `close()`."""
        yield report((), 0, where())  # it lives: from here on, a death is somebody's doing
        while True:
            batch = self._next_batch()
            messages = tuple(message for message, _ in batch)
            payloads = [payload for _, payload in batch if payload is not None]
            del batch
            if messages:
                yield report(messages, len(payloads), where())
                while payloads:
                    yield payloads.pop(0)
            else:
                return

    def submit(self, sent: Job | bytes, *arguments: Payload) -> None:
        """Start items."""
        job: Job = unpacked(sent)
        if any(item.trace is not None for item in job.items):
            import_tracing()  # takes long enough to look like a blocked event loop, over there
        self._starting = True
        self._out.put(_WAKE)
        self._loop.call_soon_threadsafe(self._start, job, arguments)

    def cancel(self, tokens: Sequence[int] | None) -> None:
        """Cancel these attempts (None: all) and report when they have stopped."""
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._cancel(tokens)))

    def close(self) -> None:
        """End the stream."""
        self._out.put(None)

    def host(self, job: Job | bytes, *arguments: Payload) -> Iterator[bytes | Payload]:
        """Run items and no others; the stream of reports ends when they have ended.

        Whatever interrupts it, they are cancelled and have their clean-up time first. Where code
        was abandoned, it stays until the process is killed.
        """
        self._ends_when_done = True
        with _interruptible():
            try:
                self.submit(job, *arguments)
                yield from self.serve()
            finally:
                asyncio.run_coroutine_threadsafe(self._cancel(None), self._loop).result()
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()

    # --- in the thread of `serve` -------------------------------------------------------------

    def _next_batch(self) -> list[tuple[Message, Payload | None]]:
        """All that is to be told now, at least one; empty when the worker is closed."""
        batch: list[tuple[Message, Payload | None]] = []
        while not batch:
            try:
                busy = self._tasks or self._coming or self._starting
                first = self._out.get(timeout=LOOP_CHECK_SECONDS if busy else None)
            except queue.Empty:
                if self._is_held():
                    return [(Blocked(self._suspect, True), None)]
                continue
            if first is None:
                return []
            if first is not _WAKE:
                batch.append(first)
        while len(batch) < MESSAGES_PER_REPORT:
            try:
                more = self._out.get_nowait()
            except queue.Empty:
                break
            if more is None:
                self._out.put(None)
                break
            if more is not _WAKE:
                batch.append(more)
        return batch

    def _is_held(self) -> bool:
        """Look after the event loop; true once it is found to be held by one attempt.

        A loop that is merely busy shows another attempt each time it is looked at.
        """
        if self._answered:
            self._answered = False
            self._unanswered = 0
            self._suspect = self._holder()
            self._loop.call_soon_threadsafe(self._answer)
            return False
        if self._told_blocked:
            return False
        self._unanswered += 1
        before, self._suspect = self._suspect, self._holder()
        known = self._suspect is not None and self._suspect == before
        self._told_blocked = known or self._unanswered >= UNKNOWN_HOLDER_CHECKS
        return self._told_blocked

    def _holder(self) -> int | None:
        """Which attempt holds the event loop right now, told by the name of its task."""
        task = asyncio.current_task(self._loop)
        name = task.get_name() if task is not None else ""
        return int(name.removeprefix(_TASK)) if name.startswith(_TASK) else None

    # --- the event loop --------------------------------------------------------------------

    def _work(self) -> None:
        """Run the event loop, until it is stopped."""
        self._loop.run_forever()
        if not asyncio.all_tasks(self._loop):  # what was abandoned may not go on
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _answer(self) -> None:
        self._answered = True
        if self._told_blocked:
            self._told_blocked = False
            self._out.put((Blocked(None, False), None))

    def _start(self, job: Job, arguments: Sequence[Payload]) -> None:
        self._coming.extend((item, job, arguments) for item in job.items)
        self._starting = False
        self._start_some()

    def _start_some(self) -> None:
        """Start items, and let them come to where they wait before the next ones start."""
        for _ in range(min(len(self._coming), STARTED_TOGETHER)):
            item, job, arguments = self._coming.popleft()
            task = self._loop.create_task(
                self._run(item, job, arguments), name=f"{_TASK}{item.token}"
            )
            self._tasks[item.token] = task
        if self._coming:
            self._loop.call_soon(self._start_some)

    async def _run(self, item: Item, job: Job, arguments: Sequence[Payload]) -> None:
        kind = job.kinds[item.kind]
        try:
            with Gatherer(item.trace) as gatherer:
                try:
                    work = work_of(item, kind, job, arguments, codes)
                    await self._build_model(work)
                except asyncio.CancelledError:
                    raise
                except BaseException as error:
                    result = not_loaded(error, time.time())
                else:
                    if kind.timeout is not None:
                        self._out.put((Started(item.token, time.time()), None))
                    result = await run_on_loop(work, self._threads, gatherer=gatherer)
            self._abandoned |= result.abandoned
            self._out.put(tell(item.token, result))
        except asyncio.CancelledError as error:
            if item.token not in self._cancelled:  # node code did that, not the driver
                self._out.put(tell(item.token, not_loaded(error, time.time())))
        finally:
            self._tasks.pop(item.token, None)
            self._cancelled.discard(item.token)
            left = self._tasks or self._coming
            if self._ends_when_done and not left and not self._abandoned:
                self.close()

    async def _build_model(self, work: Work) -> None:
        """Build a model before its first attempt starts: building is not on the attempt's clock."""
        action = getattr(work.code, "__self__", work.code)
        if isinstance(action, AINode):
            action = action.func
        if isinstance(action, AIActionBase) and not getattr(action, "_model_built", False):
            await self._threads.run(ensure_model, action)

    async def _cancel(self, tokens: Sequence[int] | None) -> None:
        chosen = list(self._tasks) if tokens is None else tokens
        kept = () if tokens is None else [c for c in self._coming if c[0].token not in tokens]
        self._coming = deque(kept)
        tasks = [self._tasks[token] for token in chosen if token in self._tasks]
        self._cancelled.update(token for token in chosen if token in self._tasks)
        for task in tasks:
            task.cancel()
        self._out.put((Cancelled(False), None))
        if tasks:
            await asyncio.wait(tasks)
        self._out.put((Cancelled(True), None))
