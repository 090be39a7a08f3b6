"""Worker actors: a few that async nodes share, or the replicas of a model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from .attempt import CLEANUP_SECONDS
from .lanes import BLOCKED_GRACE_SECONDS, Lane, Pending
from .ray_errors import is_dead_actor
from .stream import Stream
from .wire import Blocked, Cancelled, Done, Failed, Report, Started, Where
from .worker import WorkerProcess

if TYPE_CHECKING:
    from .ray_pool import RayPool


@cache
def _actor() -> Any:
    import ray

    control = ray.method(concurrency_group="control")
    quiet = ray.method(concurrency_group="control", num_returns=0)
    methods = {name: quiet(getattr(WorkerProcess, name)) for name in ("cancel", "close")}
    methods["submit"] = control(WorkerProcess.submit)
    methods["serve"] = ray.method(num_returns="streaming")(WorkerProcess.serve)
    hosted = type("GraphWorker", (WorkerProcess,), {**methods, "__module__": __name__})
    make: Any = ray.remote  # its types know nothing of concurrency groups
    return make(max_restarts=0, max_task_retries=0, concurrency_groups={"control": 1})(hosted)


class WorkerLane(Lane):
    """Worker actors for async nodes (shared), or for one model (its replicas).

    Args:
        pool: the pool.
        request: resources that each worker holds.
        options: the same, as keywords of Ray's `.options()`.
        limit: workers at most.
        load: attempts at once in one worker that call for another worker, while there may be
            more; with `exclusive`, one attempt at a time is all a worker takes.
        exclusive: a worker runs one attempt at a time.
        replace_blocked: a worker whose event loop is held does not count among `limit`.
    """

    def __init__(
        self,
        pool: RayPool,
        request: dict[str, float],
        options: dict[str, Any],
        *,
        limit: int,
        load: int,
        exclusive: bool,
        replace_blocked: bool,
    ) -> None:
        super().__init__(pool)
        self._request = request
        self._options = options
        self._limit = limit
        self._load = load
        self._exclusive = exclusive
        self._replace_blocked = replace_blocked
        self.workers: list[Worker] = []

    def ready(self) -> bool:
        """Whether the first of the queue could start now."""
        return self._choose(self.queue[0]) is not None or self._may_grow()

    def starved(self) -> bool:
        """Whether it has no worker, for want of resources that are taken."""
        return not self.workers and not self.pool.ledger.fits(self._request)

    def _may_grow(self) -> bool:
        usable = sum(1 for w in self.workers if not (w.blocked and self._replace_blocked))
        return usable < self._limit and self.pool.ledger.fits(self._request)

    def _choose(self, pending: Pending) -> Worker | None:
        """The least busy worker that may take this attempt."""
        free = [worker for worker in self.workers if not worker.blocked and not worker.reserved]
        if not free:
            return None
        worker = min(free, key=lambda candidate: len(candidate.active))
        if (self._exclusive or pending.quarantined) and worker.active:
            return None
        return worker

    def start(self, batch: Sequence[Pending]) -> None:
        """Start an attempt."""
        (pending,) = batch
        worker = self._choose(pending)
        if worker is None or (len(worker.active) >= self._load and self._may_grow()):
            if self._may_grow():
                worker = Worker(self, _actor().options(**self._options).remote())
                self.pool.ledger.take(self._request)
                self.workers.append(worker)
            assert worker is not None
        worker.reserved = pending.quarantined
        worker.take(pending)

    def flush(self) -> None:
        """Send what the workers took."""
        for worker in self.workers:
            worker.flush()

    def unsent(self) -> Sequence[Pending]:
        """Take back what the workers were not sent."""
        return [pending for worker in self.workers for pending in worker.unsent()]

    def give_up(self, pending: Pending) -> None:
        """End an attempt that is out and has not begun, because of its `doom`."""
        for worker in list(self.workers):
            if pending.token in worker.active:
                worker.replace()

    def gone(self, worker: Worker) -> None:
        """A worker has ended."""
        if worker in self.workers:
            self.workers.remove(worker)
            self.pool.ledger.give(self._request)

    def release_idle(self) -> bool:
        """End the workers that hold resources and have nothing to do."""
        idle = [worker for worker in self.workers if not worker.active and self._request]
        for worker in idle:
            worker.kill()
            self.gone(worker)
        return bool(idle)

    def streams(self) -> Sequence[Stream]:
        """The streams that are being followed."""
        return [worker.stream for worker in self.workers]


class Worker:
    """One worker actor, and what it is running."""

    def __init__(self, lane: WorkerLane, actor: Any) -> None:
        self.lane = lane
        self.actor = actor
        self.active: dict[int, Pending] = {}
        self.blocked = False
        self.reserved = False
        self.heard = False
        self.cancel_heard = False
        self.cancel_finished = False
        self.dead = False
        self.where: Where | None = None
        self._holder: int | None = None
        self._waiting: list[Pending] = []
        self.stream = Stream(actor.serve.remote(), lane.pool.inbox, self._reported, self._ended)

    def take(self, pending: Pending) -> None:
        """Have it run with the next `flush`."""
        self.active[pending.token] = pending
        pending.worker = self
        self._waiting.append(pending)

    def flush(self) -> None:
        """Send what was taken, in one call."""
        if self._waiting:
            job, arguments = self.lane.pool.job_of(self._waiting)
            tokens = [pending.token for pending in self._waiting]
            sent = self.actor.submit.remote(job, *arguments)
            for pending in self._waiting:
                pending.batch_size = len(tokens)
                if pending.launch.trace is not None:
                    pending.call_id = lambda: str(sent.task_id().hex())
            self._waiting = []
            inbox = self.lane.pool.inbox
            sent._on_completed(lambda value: inbox.post(self._submitted, (tokens, value)))

    def unsent(self) -> Sequence[Pending]:
        """Take back what `flush` could not send."""
        waiting, self._waiting = self._waiting, []
        return [self.active.pop(pending.token) for pending in waiting]

    def _submitted(self, sent: tuple[Sequence[int], Any]) -> None:
        """A call has arrived; or it could not, though the worker lives: a state was lost."""
        tokens, value = sent
        if self.dead or not isinstance(value, BaseException) or is_dead_actor(value):
            return
        for token in tokens:
            pending = self.active.pop(token, None)
            if pending is not None:
                self.reserved = False
                self.lane.pool.broken(pending, value)

    # --- what it says -------------------------------------------------------------------------

    def _reported(self, report: Report, refs: Sequence[Any]) -> None:
        self.heard = True
        self.where = report.where
        following = iter(refs)
        for message in report.messages:
            match message:
                case Started():
                    self._started(message)
                case Blocked():
                    self._block(message)
                case Cancelled():
                    self.cancel_heard = True
                    self.cancel_finished = message.finished
                    self.lane.pool.wake()
                case Done() | Failed():
                    own = message.payload is None if isinstance(message, Done) else False
                    self._answered(message, report, (next(following),) if own else ())
        self.lane.pool.pump()

    def _started(self, message: Started) -> None:
        pending = self.active.get(message.token)
        if pending is not None:
            pending.began = message.started
        if pending is not None and pending.node.options.timeout is not None:
            wait = pending.node.options.timeout + BLOCKED_GRACE_SECONDS
            pending.timer = self.lane.pool.later(wait, lambda: self._overdue(pending))

    def _block(self, message: Blocked) -> None:
        self.blocked = message.blocked
        self._holder = message.token
        holder = self.active.get(message.token) if message.token is not None else None
        if holder is not None:
            self.lane.pool.blocks_loop(holder.node)

    def _answered(self, message: Done | Failed, report: Report, refs: Sequence[Any]) -> None:
        pending = self.active.pop(message.token, None)
        self.reserved = False
        if pending is None:
            return
        self.lane.pool.answer(pending, message, report, refs)
        if isinstance(message, Failed) and message.abandoned:
            self.replace()

    def _overdue(self, pending: Pending) -> None:
        """An attempt's time is up, and the worker has not said that it stopped it."""
        pending.timer = None
        if pending.token not in self.active:
            return
        if self.blocked and self._holder not in (None, pending.token):
            # Held up by another attempt: this one has failed, that one may go on.
            del self.active[pending.token]
            self.actor.cancel.remote([pending.token])
            self.lane.pool.fail(pending, self.lane.pool.timed_out(pending))
            self.lane.pool.pump()
        elif self.blocked:
            pending.doom = self.lane.pool.timed_out(pending)
            self.replace()
        else:
            pending.timer = self.lane.pool.later(CLEANUP_SECONDS, lambda: self._stuck(pending))

    def _stuck(self, pending: Pending) -> None:
        pending.timer = None
        if pending.token in self.active:
            pending.doom = self.lane.pool.timed_out(pending)
            self.replace()

    # --- its end ------------------------------------------------------------------------------

    def cancel_all(self) -> None:
        """Ask it to cancel all that it runs."""
        self.cancel_heard = self.cancel_finished = False
        self.actor.cancel.remote(None)

    def kill(self) -> None:
        """End the process at once."""
        import ray

        if not self.dead:
            self.dead = True
            ray.kill(self.actor, no_restart=True)

    def replace(self) -> None:
        """Kill it because of one attempt. The others are no suspects: they start again."""
        self.kill()
        self.lane.gone(self)
        others, self.active = self.active, {}
        for pending in others.values():
            if pending.doom is not None:
                self.lane.pool.fail(pending, pending.doom)
        self.lane.pool.again([pending for pending in others.values() if pending.doom is None])
        self.lane.pool.pump()

    def _ended(self, error: BaseException | None) -> None:
        """The process is gone, and nobody here wanted that."""
        self.lane.gone(self)
        if self.dead:
            return
        self.dead = True
        pool = self.lane.pool
        pool.facts.workers_lost += 1
        lost, self.active = self.active, {}
        # One attempt alone is charged with it, and so is each where no work could begin;
        # of many, nobody knows which it was: each runs alone next, and is charged if it dies.
        alone = len(lost) == 1 or not self.heard
        if not alone:
            pool.again(list(lost.values()), suspect=True)
            return
        for pending in lost.values():
            pending.quarantined = True
            pool.broken(pending, error)
