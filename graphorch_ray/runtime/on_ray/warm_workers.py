"""Warm workers: processes that are kept for calls to come, which reach them by a connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from .connections import CONNECT_SECONDS, Address, Connection
from .lanes import Pending
from .serving import WarmProcess, framed
from .stream import Answer, Stream
from .wire import Report, unpacked

if TYPE_CHECKING:
    from .task_call import TaskCall
    from .task_lane import TaskLane

IDLE_SECONDS = 0.25
"""How long a warm worker that is a task waits for its next call, before its process is free.

Where calls are further apart, the 3 ms that it saves are little."""

LAST_WORDS_SECONDS = 0.3
"""How long a process that is gone may still be heard over its connection."""

LONE_CALLS = 2
"""Short calls one after another, with nothing beside them, after which a warm worker is kept."""


@cache
def _actor() -> Any:
    import ray

    methods = {"serve": ray.method(num_returns="streaming")(WarmProcess.serve)}
    warm = type("WarmWorker", (WarmProcess,), {**methods, "__module__": __name__})
    return ray.remote(max_restarts=0, max_task_retries=0)(warm)


class WarmWorker:
    """A process that takes one call after another.

    It is a task that the first call starts, in a process that Ray has already; or an actor, which
    is there a second later and nobody else's.

    Args:
        lane: whose resources it holds.
        address: where it connects to.
    """

    def __init__(self, lane: TaskLane, address: Address) -> None:
        self.known: set[str] = set()
        """Keys of the code that it has been sent."""
        self._lane = lane
        self._address = address
        self._call: TaskCall | None = None
        self._by_stream = False  # what is said of the call comes by the stream from now on
        self._held: list[tuple[Report, Sequence[Any]]] = []  # it has said that too early
        self._end: tuple[BaseException | None] | None = None  # so has Ray that it is gone
        self._began = time.monotonic()
        self._connection: Connection | None = None
        self._stream: Stream | None = None
        self._actor: Any = None
        self._came = False
        self._dismissed = False
        self._idle_since = 0.0
        self._patience: asyncio.TimerHandle | None = None
        lane.pool.capacity.ledger.take(lane.request)

    def start_actor(self, options: dict[str, Any]) -> None:
        """Start as an actor, with these keywords of Ray's `.options()`."""
        self._actor = _actor().options(**options).remote()
        self._follow(self._actor.serve.remote(self._address))

    @property
    def answer(self) -> Answer | Stream | None:
        """What Ray says of the process, once it has been started."""
        return self._stream

    @property
    def starts(self) -> bool:
        """Whether it is not there yet."""
        return not self._came

    @property
    def ready(self) -> bool:
        """Whether it can take a call now."""
        return self._connection is not None and self._call is None

    @property
    def idle(self) -> bool:
        """Whether it runs nothing."""
        return self._call is None

    def send(self, call: TaskCall, job: Any, arguments: Sequence[Any]) -> None:
        """Start the call; the first one of a task starts that too."""
        self._call, self._by_stream = call, False
        frame = framed(job, arguments, single=call.says_one_thing)
        if self._connection is not None:
            self._connection.send(frame)
        else:
            self._follow(self._lane.tasks.many.remote(self._address, frame))

    def kill(self) -> None:
        """End the process."""
        import ray

        if not self._came and time.monotonic() - self._began > CONNECT_SECONDS:
            self._lane.pool.exchange.usable = False  # it may have tried to connect all the time
        self._dismiss()
        if self._actor is not None:
            ray.kill(self._actor, no_restart=True)
        elif self._stream is not None:
            ray.cancel(self._stream.source, force=True)

    def release(self) -> None:
        """Let the process go, which runs nothing; a task's is free for others at once."""
        if self._actor is not None:
            self.kill()
        else:
            self._dismiss()

    def over(self) -> None:
        """It waits for the next call."""
        self._call = None
        if self._actor is None and not self._dismissed:
            self._idle_since = time.monotonic()
            if self._patience is None:
                self._patience = self._lane.pool.later(IDLE_SECONDS, self._tire)

    def _tire(self) -> None:
        """Let it go, if it has been idle since the last look."""
        self._patience = None
        if not self.idle:
            return
        left = self._idle_since + IDLE_SECONDS - time.monotonic()
        if left > 0:
            self._patience = self._lane.pool.later(left, self._tire)
            return
        self.release()
        self._lane.pool.pump()

    def _dismiss(self) -> None:
        """Take no more calls, and hang up."""
        if self._dismissed:
            return
        self._dismissed = True
        self._lane.warm.remove(self)
        self._lane.pool.exchange.forget(self._address)
        if self._patience is not None:
            self._patience.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # --- what it says -------------------------------------------------------------------------

    def _follow(self, generator: Any) -> None:
        self._stream = Stream(generator, self._lane.pool.inbox, self._reported, self._ended)

    def connected(self, connection: Connection) -> None:
        """The process is there."""
        self._came, self._connection = True, connection
        self._lane.pool.pump()

    def received(self, frame: bytes) -> None:
        """It says something of its call, or that it says the rest in the stream."""
        if not frame:
            self._turn_to_stream()
        elif self._call is not None:
            self._call.reported(unpacked(frame), ())

    def hung_up(self) -> None:
        """It may be dead; Ray will tell, or it says in the stream what is left to say."""
        self._connection = None
        if self._call is None:
            self._dismiss()
        else:
            self._call.lost_sight()
        self._turn_to_stream()

    def _turn_to_stream(self) -> None:
        """Nothing more of the call comes over the connection: what has overtaken it counts now."""
        self._by_stream = True
        held, self._held = self._held, []
        for report, refs in held:
            self._reported(report, refs)
        if self._end is not None:
            self._finish(*self._end)

    def _reported(self, report: Report, refs: Sequence[Any]) -> None:
        """It says something in the stream, the first time perhaps that it could not connect."""
        if not report.messages:
            self._lane.pool.exchange.usable = False
            self._turn_to_stream()
        elif not self._by_stream:
            self._held.append((report, refs))
        elif self._call is not None:
            self._call.reported(report, refs)

    def _ended(self, error: BaseException | None) -> None:
        """The process is gone; what it said last may still be on its way."""
        if self._by_stream or self._dismissed or self._call is None:
            self._finish(error)
        elif self._end is None:
            self._end = (error,)
            self._lane.pool.later(LAST_WORDS_SECONDS, self._turn_to_stream)

    def _finish(self, error: BaseException | None) -> None:
        self._end = None
        self._dismiss()
        if self._call is not None:
            self._call.ended(error)
        self._lane.pool.pump()


class WarmWorkers:
    """Those of one lane, and when it pays to keep one.

    It pays behind a batch, where nothing is waited for but round trips, and for a function that is
    not known yet: if it is short, there is more to come. A task in its place would say what came of
    it before its process is free, and Ray would start another process for the next call. With
    ``pool="actors"`` there is an actor for each slot that has a core.

    Args:
        lane: whose calls they take.
        options: its resources, as keywords of Ray's `.options()`.
    """

    def __init__(self, lane: TaskLane, options: dict[str, Any]) -> None:
        self._lane = lane
        self._options = options
        self._workers: list[WarmWorker] = []
        self._lone = 0
        self._in_the_way = False  # actors hold what calls need that they cannot take

    @property
    def ready(self) -> bool:
        """Whether one can take a call now."""
        return any(worker.ready for worker in self._workers)

    def to_take(self, batch: Sequence[Pending]) -> WarmWorker | None:
        """One for a call; where a process has just broken, not the next that may be dead."""
        if not _may_share(batch):
            return None
        return next((worker for worker in self._workers if worker.ready), None)

    def begin(self, batch: Sequence[Pending]) -> WarmWorker | None:
        """One that a call is to start, where that pays; or start an actor beside it."""
        lane, pool, node = self._lane, self._lane.pool, batch[0].node
        alone = not lane.calls and not lane.queue and pool.timings.is_short(node)
        self._lone = self._lone + 1 if alone else 0
        if pool.blocking or not _may_share(batch) or not pool.timings.may_be_short(node):
            return None
        match pool.context.pool:
            case "tasks":
                return None
            case "actors":
                # One at a time: as long as it starts, what it holds does nothing.
                if not any(worker.starts for worker in self._workers):
                    self._begin_actor()
                return None
            case _:
                if not pool.capacity.ledger.fits(lane.request):
                    return None
                many = len(batch) > 1 or pool.timings.is_unknown(node)
                return self._another(lane.slots if many else int(self._lone > LONE_CALLS))

    def _begin_actor(self) -> None:
        """Start an actor, if there is room for it and for a call beside it."""
        twice = {name: 2 * amount for name, amount in self._lane.request.items()}
        if self._in_the_way or not self._lane.pool.capacity.ledger.fits(twice):
            return
        worker = self._another(self._lane.slots)
        if worker is not None:
            try:
                worker.start_actor(self._options)
            except BaseException:
                worker.kill()
                raise

    def _another(self, limit: int) -> WarmWorker | None:
        pool = self._lane.pool
        if len(self._workers) >= limit or pool.tasks >= pool.capacity.process_limit:
            return None
        address = pool.exchange.address()
        if address is None:
            return None
        worker = WarmWorker(self._lane, address)
        pool.exchange.expect(address, worker)
        pool.tasks += 1
        self._workers.append(worker)
        return worker

    def make_room(self) -> None:
        """Let one go: a task needs what it holds, for a call that it cannot take."""
        worker = next((worker for worker in self._workers if worker.idle), None)
        if worker is not None:
            self._in_the_way = True
            worker.release()

    def remove(self, worker: WarmWorker) -> None:
        """One is gone, and what it held is free."""
        self._workers.remove(worker)
        self._lane.pool.tasks -= 1
        self._lane.pool.capacity.ledger.give(self._lane.request)

    def release_idle(self) -> bool:
        """Let those go that have nothing to do but hold resources; says whether there were any."""
        idle = [worker for worker in self._workers if worker.idle and self._lane.request]
        for worker in idle:
            worker.release()
        return bool(idle)

    def close(self) -> None:
        """Let all go."""
        for worker in list(self._workers):
            if worker.idle:
                worker.release()
            else:
                worker.kill()


def _may_share(batch: Sequence[Pending]) -> bool:
    """Whether a call may run where others do: it wants no process to itself, and is no suspect."""
    first = batch[0]
    apart = first.node.is_async or not first.node.options.batch
    return not (apart or first.launch.key.rerun or first.quarantined)
