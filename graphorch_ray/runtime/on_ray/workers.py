"""The workers behind a lane: an actor that is kept, or a task that runs one wave of attempts.

An actor is a process of its own, which Ray takes a second to start; a task gets one that is
there. Both run a `WorkerProcess`, and say the same things.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ..attempt import CLEANUP_SECONDS
from .lanes import BLOCKED_GRACE_SECONDS, Pending
from .ray_errors import is_dead_actor
from .stream import Stream
from .wire import Blocked, Cancelled, Done, Failed, Job, Report, Started, Where, packed
from .worker import LOOP_CHECK_SECONDS, WorkerProcess, host_items

if TYPE_CHECKING:
    from .worker_lane import WorkerLane

ANSWER_SECONDS = 0.3
"""How long a worker has to say that it heard a cancel."""


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


@cache
def _host() -> Any:
    import ray

    options: Any = {"num_returns": "streaming", "max_retries": 0, "retry_exceptions": False}
    return ray.remote(**options)(host_items)


class Worker(ABC):
    """One worker, and what it is running.

    Args:
        lane: whose attempts it runs.
        share: attempts at once that call for another worker, while there may be more.

    Attributes:
        is_kept: it takes more as it goes.
    """

    is_kept = True

    def __init__(self, lane: WorkerLane, share: int) -> None:
        self.lane = lane
        self.share = share
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
        self.stream: Stream | None = None

    @property
    def takes_more(self) -> bool:
        """Whether it can be given an attempt now."""
        return not self.blocked and not self.reserved

    def _follow(self, generator: Any) -> None:
        self.stream = Stream(generator, self.lane.pool.inbox, self._reported, self._ended)

    def take(self, pending: Pending) -> None:
        """Have it run with the next `flush`."""
        self.active[pending.token] = pending
        pending.worker = self
        self._waiting.append(pending)

    def flush(self) -> None:
        """Send what was taken, in one call."""
        if not self._waiting:
            return
        waiting = self._waiting
        job, arguments = self.lane.pool.job_of(waiting)
        call_id = self._send([pending.token for pending in waiting], packed(job), arguments)
        self._waiting = []
        for pending in waiting:
            pending.batch_size = len(waiting)
            if pending.launch.trace is not None:
                pending.call_id = call_id

    @abstractmethod
    def _send(
        self, tokens: Sequence[int], job: Job | bytes, arguments: Sequence[Any]
    ) -> Callable[[], str]:
        """Send a job; gives what tells Ray's id of the call."""

    def unsent(self) -> Sequence[Pending]:
        """Take back what `flush` could not send."""
        waiting, self._waiting = self._waiting, []
        return [self.active.pop(pending.token) for pending in waiting]

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
            self._cancel(pending.token)
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

    @abstractmethod
    def cancel_all(self) -> None:
        """Ask it to cancel all that it runs."""

    @abstractmethod
    def _cancel(self, token: int) -> None:
        """Ask it to cancel one attempt, which nobody waits for any more."""

    def may_still_clean_up(self, seconds: float) -> bool:
        """Whether what it was asked to cancel, some seconds ago, may need more time."""
        if self.dead or self.blocked or not self.active or self.cancel_finished:
            return False
        return seconds < (CLEANUP_SECONDS if self.cancel_heard else ANSWER_SECONDS)

    def kill(self) -> None:
        """End the process at once."""
        if not self.dead:
            self.dead = True
            self._kill()

    @abstractmethod
    def _kill(self) -> None: ...

    def release(self) -> None:
        """It is not needed any more."""
        self.kill()

    def _ended_well(self, error: BaseException | None) -> bool:
        """Whether this is how it was to end."""
        return False

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
        """The stream is over: where nobody here wanted that, the process is gone."""
        self.lane.gone(self)
        if self.dead:
            return
        self.dead = True
        if self._ended_well(error):
            self.lane.pool.pump()
            return
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


class ActorWorker(Worker):
    """An actor, which takes attempts as they come."""

    def __init__(self, lane: WorkerLane, options: dict[str, Any], share: int) -> None:
        super().__init__(lane, share)
        self._actor = _actor().options(**options).remote()
        self._follow(self._actor.serve.remote())

    def _send(
        self, tokens: Sequence[int], job: Job | bytes, arguments: Sequence[Any]
    ) -> Callable[[], str]:
        sent = self._actor.submit.remote(job, *arguments)
        inbox = self.lane.pool.inbox
        sent._on_completed(lambda value: inbox.post(self._submitted, (tokens, value)))
        return lambda: str(sent.task_id().hex())

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

    def cancel_all(self) -> None:
        """Ask it to cancel all that it runs."""
        self.cancel_heard = self.cancel_finished = False
        self._actor.cancel.remote(None)

    def _cancel(self, token: int) -> None:
        self._actor.cancel.remote([token])

    def _kill(self) -> None:
        import ray

        ray.kill(self._actor, no_restart=True)


class TaskWorker(Worker):
    """A task that runs one wave of attempts, and ends with them."""

    is_kept = False

    def __init__(self, lane: WorkerLane, options: dict[str, Any], share: int) -> None:
        super().__init__(lane, share)
        self._options = options
        self._cancelled = False
        self.heard = True  # its work begins before it can say a word

    @property
    def takes_more(self) -> bool:
        """Whether it can be given an attempt now."""
        return self.stream is None

    def _send(
        self, tokens: Sequence[int], job: Job | bytes, arguments: Sequence[Any]
    ) -> Callable[[], str]:
        generator = _host().options(name="async nodes", **self._options).remote(job, *arguments)
        self._follow(generator)
        return lambda: str(generator._generator_ref.task_id().hex())

    def cancel_all(self) -> None:
        """Interrupt it: it then cancels all that it runs, waits for that, and ends."""
        assert self.stream is not None
        self._cancelled = True
        self.stream.when_over(self._over)
        self._stop(force=False)

    def _over(self) -> None:
        self.dead = True
        self.lane.gone(self)
        self.lane.pool.wake()

    def may_still_clean_up(self, seconds: float) -> bool:
        """Whether what it was asked to cancel, some seconds ago, may need more time."""
        if self.dead or self.blocked or not self.active:
            return False
        return seconds < CLEANUP_SECONDS + LOOP_CHECK_SECONDS + ANSWER_SECONDS

    def _cancel(self, token: int) -> None:
        """Nothing can be said to a task; the attempt stops by itself, its time is up there too."""

    def _kill(self) -> None:
        self._stop(force=True)

    def _stop(self, *, force: bool) -> None:
        import ray

        if self.stream is not None:
            ray.cancel(self.stream.generator, force=force)

    def release(self) -> None:
        """Nothing to do where it has answered all: it is about to end, and its process stays."""
        if self.active:
            self.kill()

    def _ended(self, error: BaseException | None) -> None:
        if not self._cancelled:  # else it is over when its clean-up is
            super()._ended(error)

    def _ended_well(self, error: BaseException | None) -> bool:
        return error is None and not self.active
