"""One call that runs attempts, as the driver sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..attempt import CLEANUP_SECONDS
from .lanes import BLOCKED_GRACE_SECONDS, KILL_SECONDS, Pending
from .ray_errors import infrastructure_failure, is_configuration
from .wire import Done, Failed, Report, Started, Stopped, Unstarted

if TYPE_CHECKING:
    import asyncio

    from .carriers import Carrier
    from .task_lane import TaskLane

PROBE_SECONDS = 0.2
"""How long a function that is not known may run before it counts as long."""

START_SECONDS = 5.0
"""How long Ray may take to have a process for it, before it counts as long all the same."""

PATIENCE_SECONDS = 1.0
"""How long a batch may run before a core more is sought: starting a process takes that long."""


def _own(message: Done | Failed, following: Iterator[Any]) -> Sequence[Any]:
    """The reference to its large state, of those that follow a report."""
    if isinstance(message, Failed) or message.payload is not None or message.left_behind:
        return ()
    return (next(following),)


class TaskCall:
    """One running (or queued) call, and the attempts in it that have no answer yet.

    Attributes:
        says_one_thing: it is one attempt, whose start need not be told.
        task_id: tells Ray's id of it, once it is sent.
    """

    def __init__(self, lane: TaskLane, batch: Sequence[Pending], carrier: Carrier) -> None:
        self.lane = lane
        self.carrier = carrier
        self.task_id: Callable[[], str] | None = None
        node = batch[0].node
        self.is_async = node.is_async
        self._killed = False
        self._probes = lane.pool.timings.is_unknown(node)
        alone = len(batch) == 1 and node.options.timeout is None
        self.says_one_thing = alone and not self._probes
        self._open = {pending.token: pending for pending in batch}
        self._timing = lane.pool.timings.of(node)
        lane.pool.riders += len(batch) - 1
        lane.pool.fresh_tasks += 1
        self._patience: asyncio.TimerHandle | None = lane.pool.later(
            START_SECONDS if self._probes else PATIENCE_SECONDS, self._takes_long
        )

    def reported(self, report: Report, refs: Sequence[Any]) -> None:
        """Take in what the worker says."""
        following = iter(refs)
        for message in report.messages:
            match message:
                case Started():
                    self._started(message, report)
                case Done() | Failed():
                    self._answered(message, report, _own(message, following))
                case Unstarted():
                    self._handed_back(message)
                case Stopped():
                    self._stop(message)
        if self._is_over():
            self.lane.over(self)
        self.lane.pool.pump()

    def _is_over(self) -> bool:
        """Whether the last thing was said of it: its process is free now."""
        return not self._open

    def _stop(self, message: Stopped) -> None:
        """A track is followed no further."""

    def _started(self, message: Started, report: Report) -> None:
        pending = self._open.get(message.token)
        if pending is None:
            return
        pending.where, pending.began = report.where, message.started
        pending.disarm()
        if self._probes and self._patience is not None:
            self._patience.cancel()
            self._patience = self.lane.pool.later(PROBE_SECONDS, self._takes_long)
        self._arm(pending)

    def _arm(self, pending: Pending) -> None:
        """Have its time run from now."""
        timeout = pending.node.options.timeout
        if timeout is not None:
            if pending.node.is_async:  # it stops itself; this is for when it cannot
                timeout += CLEANUP_SECONDS + BLOCKED_GRACE_SECONDS
            pending.timer = self.lane.pool.later(timeout, lambda: self._time_out(pending))

    def lost_sight(self) -> None:
        """Something that was said may be lost: that the first attempt has begun, at worst."""
        first = next(iter(self._open.values()), None)
        if first is not None and first.timer is None:
            self._arm(first)

    def _answered(self, message: Done | Failed, report: Report, refs: Sequence[Any]) -> None:
        pending = self._close(message.token)
        if pending is None:
            return
        pool = self.lane.pool
        pool.timings.of(pending.node).note(message.ended - message.started)
        if pending.doom is not None:
            pool.fail(pending, pending.doom)
        else:
            pool.answer(pending, message, report, refs)

    def _handed_back(self, message: Unstarted) -> None:
        """The batch took longer than was thought: these wait in the queue again."""
        back = [self._close(token) for token in message.tokens]
        self.lane.pool.put_back([pending for pending in back if pending is not None])

    def _close(self, token: int) -> Pending | None:
        """Take an attempt out of the call."""
        pending = self._open.pop(token, None)
        if pending is not None and self._open:
            self.lane.pool.riders -= 1
        return pending

    @property
    def has_open(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self._open)

    def carries(self, pending: Pending) -> bool:
        """Whether an attempt is in it and has no answer yet."""
        return pending.token in self._open

    def settle(self) -> None:
        """It counts no longer among those that may soon be over."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
            self.lane.pool.fresh_tasks -= 1

    def _takes_long(self) -> None:
        """Its work is not short: do not wait for it any longer."""
        self.settle()
        if not self._timing.count:
            self._timing.note(PROBE_SECONDS)
        self.lane.pool.pump()

    def _time_out(self, pending: Pending) -> None:
        pending.timer = None
        pending.doom = self.lane.pool.timed_out(pending)
        self.lane.pool.timings.of(pending.node).note(pending.node.options.timeout or 0.0)
        self.kill()

    def kill(self) -> None:
        """Kill the process it runs in, or take it from Ray's queue."""
        if self in self.lane.calls:
            self._killed = True
            self.carrier.kill()
            self.lane.pool.later(KILL_SECONDS, lambda: self.ended(None))

    def abandon(self) -> None:
        """Nobody waits for the answers any more."""
        for token in list(self._open):
            self._close(token)

    def withdraw(self) -> None:
        """It could not be sent: nothing of it is out."""
        self.abandon()
        self.settle()

    def _blame_is_clear(self, lost: Sequence[Pending]) -> bool:
        """Whether it was one of these that broke the process, if anything in it did."""
        return len(lost) <= 1

    def ended(self, error: BaseException | None) -> None:
        """The process is gone, or nothing more will be heard of it."""
        if self not in self.lane.calls:
            return
        self.lane.over(self)
        pool, lost = self.lane.pool, list(self._open.values())
        self.abandon()
        if self._killed:  # because of one attempt: the others are no suspects
            for pending in lost:
                if pending.doom is not None:
                    pool.broken(pending, error)
            pool.again([pending for pending in lost if pending.doom is None])
        elif self._blame_is_clear(lost) or is_configuration(error):
            for pending in lost:
                pool.broken(pending, error)
        else:
            # Nobody knows which of them it was: each runs alone next, and is charged if it dies.
            pool.facts.workers_lost += infrastructure_failure(error).reason != "object_lost"
            pool.again(lost, suspect=True)
        pool.pump()
