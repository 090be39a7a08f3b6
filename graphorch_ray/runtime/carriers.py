"""What carries a call to a process: a Ray task of its own, or a warm worker that is kept.

A task costs its process nothing once it has ended, and its start 3 ms. A warm worker is an actor
that holds its resources while it waits; what it is sent is there in half the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .items import WarmProcess, run_item, run_items
from .ray_errors import is_dead_actor
from .stream import Answer, Stream
from .wire import Job, Report

if TYPE_CHECKING:
    from .task_call import TaskCall
    from .task_lane import TaskLane


class Carrier(Protocol):
    """Brings one call to a process, and back what it says."""

    @property
    def answer(self) -> Answer | Stream | None:
        """What the process says, once there is a call."""

    def send(
        self, call: TaskCall, job: Job | bytes, arguments: Sequence[Any], *, single: bool
    ) -> None:
        """Start the call; a single attempt says one thing only."""

    def kill(self) -> None:
        """End the process that the call runs in, or take it from Ray's queue."""

    def over(self) -> None:
        """The call is over: give back what it held."""


class Tasks(NamedTuple):
    """The remote functions behind every task: for a job that says much, and for one attempt."""

    many: Any
    single: Any

    def with_options(self, **options: Any) -> Tasks:
        """The same, with Ray's options."""
        return Tasks(self.many.options(**options), self.single.options(**options))


@cache
def item_tasks() -> Tasks:
    """The remote functions, without options."""
    import ray

    return Tasks(
        ray.remote(num_returns="streaming", max_retries=0, retry_exceptions=False)(run_items),
        ray.remote(num_returns=2, max_retries=0, retry_exceptions=False)(run_item),
    )


@cache
def _actor() -> Any:
    import ray

    methods = {
        "run_items": ray.method(num_returns="streaming")(WarmProcess.run_items),
        "run_item": ray.method(num_returns=2)(WarmProcess.run_item),
    }
    warm = type("WarmWorker", (WarmProcess,), {**methods, "__module__": __name__})
    return ray.remote(max_restarts=0, max_task_retries=0)(warm)


class TaskCarrier:
    """A task for one call.

    Args:
        lane: whose resources it takes.
        tasks: the remote functions, with their options.
    """

    def __init__(self, lane: TaskLane, tasks: Tasks) -> None:
        self.answer: Answer | Stream | None = None
        self._lane = lane
        self._tasks = tasks

    def send(
        self, call: TaskCall, job: Job | bytes, arguments: Sequence[Any], *, single: bool
    ) -> None:
        """Start the call."""
        task = self._tasks.single if single else self._tasks.many
        given = task.remote(job, *arguments)
        self._lane.pool.capacity.ledger.take(self._lane.request)
        self._lane.pool.tasks += 1
        kind = Answer if single else Stream
        self.answer = kind(given, self._lane.pool.inbox, call.reported, call.ended)

    def kill(self) -> None:
        """Kill the process it runs in, or take it from Ray's queue.

        Ray's gentle cancel is of no use: it reports the end at once, while the code goes on.
        """
        import ray

        assert self.answer is not None
        ray.cancel(self.answer.source, force=True)

    def over(self) -> None:
        """The process is free or gone."""
        self._lane.pool.capacity.ledger.give(self._lane.request)
        self._lane.pool.tasks -= 1


class WarmWorker:
    """An actor that takes one call after another.

    Args:
        lane: whose resources it holds.
        options: the same, as keywords of Ray's `.options()`.
    """

    def __init__(self, lane: TaskLane, options: dict[str, Any]) -> None:
        self._lane = lane
        self._call: TaskCall | None = None
        self._started = False
        self._actor = _actor().options(**options).remote()
        lane.pool.capacity.ledger.take(lane.request)
        hello = self._actor.hello.remote()
        self.answer: Answer | Stream | None = Answer(
            (hello,), lane.pool.inbox, self._lives, self._gone
        )

    @property
    def starts(self) -> bool:
        """Whether it is not there yet."""
        return not self._started

    @property
    def ready(self) -> bool:
        """Whether it can take a call now."""
        return self._started and self._call is None

    @property
    def idle(self) -> bool:
        """Whether it runs nothing."""
        return self._call is None

    def send(
        self, call: TaskCall, job: Job | bytes, arguments: Sequence[Any], *, single: bool
    ) -> None:
        """Start the call."""
        method = self._actor.run_item if single else self._actor.run_items
        given = method.remote(job, *arguments)
        self._call = call

        def ended(error: BaseException | None) -> None:
            if error is not None and is_dead_actor(error):
                self._lane.dismiss(self)
            call.ended(error)

        kind = Answer if single else Stream
        self.answer = kind(given, self._lane.pool.inbox, call.reported, ended)

    def kill(self) -> None:
        """End the process."""
        import ray

        self._lane.dismiss(self)
        ray.kill(self._actor, no_restart=True)

    def over(self) -> None:
        """It waits for the next call."""
        self._call = self.answer = None

    def _lives(self, report: Report, refs: Sequence[Any]) -> None:
        self._started = True
        self._lane.pool.pump()

    def _gone(self, error: BaseException | None) -> None:
        self._lane.dismiss(self)
        self._lane.pool.pump()
