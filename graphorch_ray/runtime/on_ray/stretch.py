"""Stretches: supersteps of one node each that a worker runs on its own, ahead of the driver.

The driver still takes every superstep by itself, in order, and launches each node; an attempt
that the worker has run already is answered at once. So whatever a superstep does in the driver
(its events, limits, spans) is the same, and only the waiting is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...model.attempt import AttemptKey, Launch
from ...model.nodes import Node
from .lanes import Pending
from .task_call import TaskCall
from .tracks import Tracks
from .wire import Done, Failed, Report, Started, Stopped, Track

if TYPE_CHECKING:
    from .carriers import Carrier
    from .ray_pool import RayPool
    from .task_lane import TaskLane

STEPS_AHEAD = 500
"""Supersteps that a worker runs ahead of the driver, at most."""

Answer = tuple[Done | Failed, Report, Sequence[Any]]


class Stretch(TaskCall):
    """A call that runs an attempt, and what follows it.

    Messages name the attempts by tokens that follow the first one's; they are this call's own.
    """

    def __init__(self, lane: TaskLane, first: Pending, carrier: Carrier) -> None:
        self._first = first.launch
        self._base = first.token
        self._newest = 0
        self._answers: dict[int, Answer] = {}
        self._begun: dict[int, tuple[Started, Report]] = {}
        self._goes_on = True
        lane.pool.stretches.current = self
        super().__init__(lane, [first], carrier)
        self.says_one_thing = False

    # --- what the driver launches -------------------------------------------------------------

    def takes(self, launch: Launch) -> bool:
        """Whether a launch is the next on the track, and has been run here, or will be."""
        first, position = self._first.key, self._newest + 1
        expected = AttemptKey(first.epoch, first.superstep + position, 0, "node", 0, 0)
        return launch.key == expected and (self._goes_on or self._base + position in self._answers)

    def join(self, pending: Pending) -> None:
        """Wait for the answer to the next on the track."""
        self._newest += 1
        token = self._base + self._newest
        pending.ran_ahead = True
        trace = self._first.trace
        if trace is not None and pending.launch.trace is not None:
            pending.span_id = trace.next(self._newest).span_id
        if trace is not None:
            pending.call_id = self.task_id
        self._open[token] = pending
        if (begun := self._begun.pop(token, None)) is not None:
            self._started(*begun)
        if (answer := self._answers.pop(token, None)) is not None:
            self._answered(*answer)

    # --- what the worker says -----------------------------------------------------------------

    def reported(self, report: Report, refs: Sequence[Any]) -> None:
        """Take in what the worker says, also of attempts that the driver has not come to."""
        self.settle()
        super().reported(report, refs)

    def _started(self, message: Started, report: Report) -> None:
        if message.token in self._open:
            super()._started(message, report)
        else:
            self._begun[message.token] = (message, report)

    def _answered(self, message: Done | Failed, report: Report, refs: Sequence[Any]) -> None:
        if message.token in self._open:
            super()._answered(message, report, refs)
        else:
            self._answers[message.token] = (message, report, refs)

    def _is_over(self) -> bool:
        return False  # it is when the worker says so: see `_stop`

    def _stop(self, message: Stopped) -> None:
        """The process is free now. What was launched meanwhile goes elsewhere."""
        self._goes_on = False
        back = [self._close(token) for token in list(self._open)]
        self.lane.over(self)
        self.lane.pool.put_back([pending for pending in back if pending is not None])

    def carries(self, pending: Pending) -> bool:
        """Whether an attempt is in it and has no answer yet."""
        return pending in self._open.values()

    def abandon(self) -> None:
        """Nobody waits for the answers any more."""
        super().abandon()
        self._goes_on = False
        self._answers.clear()

    def _blame_is_clear(self, lost: Sequence[Pending]) -> bool:
        """It may have been one that the driver has not come to."""
        return False

    def ended(self, error: BaseException | None) -> None:
        """The process is gone; what it had said before still counts."""
        answers = dict(self._answers)
        self._goes_on = False
        super().ended(error)
        self._answers.update(answers)


class Stretches:
    """Begins stretches, and leads launches to the one that runs.

    Attributes:
        current: the stretch whose answers come next, if any.
    """

    def __init__(self, pool: RayPool) -> None:
        self.current: Stretch | None = None
        self._pool = pool
        self._ahead = 0
        self._tracks: Tracks

    def prepare(self, tracks: Tracks) -> None:
        """The run begins."""
        self._tracks = tracks

    def begin_superstep(self, ahead: int) -> None:
        """Remember how many supersteps may be run ahead of the one that begins."""
        self._ahead = ahead

    def take(self, launches: Sequence[Launch]) -> bool:
        """Lead what is launched to the stretch that runs, if it is the next on its track."""
        stretch = self.current
        if stretch is None:
            return False
        if len(launches) != 1 or not stretch.takes(launches[0]):
            self.current = None
            if stretch in stretch.lane.calls and not stretch.has_open:
                stretch.abandon()
                stretch.kill()
            return False
        pending = self._pool.pending(launches[0], stretch.lane)
        self._pool.carry([pending])
        stretch.join(pending)
        return True

    def track(self, batch: Sequence[Pending], lane: TaskLane) -> Track | None:
        """The track that a worker may follow after this, if there is one."""
        first = batch[0]
        launch = first.launch
        if not self._ahead or len(batch) > 1 or first.quarantined or first.made is not None:
            return None
        if launch.key.role != "node" or first.node.is_async or not first.node.options.batch:
            return None
        if not self._pool.timings.is_short(first.node):
            return None  # alone the first time, so that it is clear who broke the process

        def may_follow(node: Node) -> bool:
            return (
                node.placement == "task"
                and not node.is_passthrough
                and not node.is_async
                and self._is_short(node)
                and self._pool.lane_of(node) is lane
            )

        steps = self._tracks.of(first.node, may_follow)
        if steps is None:
            return None
        limit = min(self._ahead, STEPS_AHEAD)
        return Track(steps, limit, self._pool.context.superstep_timeout)

    def _is_short(self, node: Node) -> bool:
        return node.options.batch and self._pool.timings.may_be_short(node)
