"""What carries a call to a process: a Ray task of its own, or a warm worker that is kept.

A task costs its process nothing once it has ended, and its start 3 ms. A warm worker is an actor
that holds its resources while it waits; what it is sent is there in half the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from .items import WarmProcess, run_items
from .ray_errors import is_dead_actor
from .stream import Stream
from .wire import Job, Report

if TYPE_CHECKING:
    from .task_call import TaskCall
    from .task_lane import TaskLane


class Carrier(Protocol):
    """Brings one call to a process, and back what it says."""

    @property
    def stream(self) -> Stream | None:
        """What the process says, once there is one."""

    def send(self, call: TaskCall, job: Job | bytes, arguments: Sequence[Any]) -> None:
        """Start the call."""

    def call_id(self) -> str:
        """Ray's id of the call."""

    def kill(self) -> None:
        """End the process that the call runs in, or take it from Ray's queue."""

    def over(self) -> None:
        """The call is over: give back what it held."""


@cache
def items_task() -> Any:
    """The remote function behind every task."""
    import ray

    return ray.remote(num_returns="streaming", max_retries=0, retry_exceptions=False)(run_items)


@cache
def _actor() -> Any:
    import ray

    control = ray.method(concurrency_group="control")
    methods = {
        "submit": control(WarmProcess.submit),
        "post": ray.method(concurrency_group="control", num_returns=0)(WarmProcess.post),
        "serve": ray.method(num_returns="streaming")(WarmProcess.serve),
    }
    warm = type("WarmWorker", (WarmProcess,), {**methods, "__module__": __name__})
    make: Any = ray.remote  # its types know nothing of concurrency groups
    return make(max_restarts=0, max_task_retries=0, concurrency_groups={"control": 1})(warm)


class TaskCarrier:
    """A task for one call.

    Args:
        lane: whose resources it takes.
        task: the remote function, with its options.
    """

    def __init__(self, lane: TaskLane, task: Any) -> None:
        self.stream: Stream | None = None
        self._lane = lane
        self._task = task

    def send(self, call: TaskCall, job: Job | bytes, arguments: Sequence[Any]) -> None:
        """Start the call."""
        generator = self._task.remote(job, *arguments)
        self._lane.pool.capacity.ledger.take(self._lane.request)
        self._lane.pool.tasks += 1
        self.stream = Stream(generator, self._lane.pool.inbox, call.reported, call.ended)

    def call_id(self) -> str:
        """Ray's id of the task."""
        assert self.stream is not None
        return str(self.stream.generator._generator_ref.task_id().hex())

    def kill(self) -> None:
        """Kill the process it runs in, or take it from Ray's queue.

        Ray's gentle cancel is of no use: it reports the end at once, while the code goes on.
        """
        import ray

        assert self.stream is not None
        ray.cancel(self.stream.generator, force=True)

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
        said = self._actor.serve.remote()
        self.stream: Stream | None = Stream(said, lane.pool.inbox, self._reported, self._ended)

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

    def send(self, call: TaskCall, job: Job | bytes, arguments: Sequence[Any]) -> None:
        """Start the call."""
        if not arguments:
            self._actor.post.remote(job)  # nothing that could be lost on the way
            self._call = call
            return
        sent, inbox = self._actor.submit.remote(job, *arguments), self._lane.pool.inbox
        self._call = call
        sent._on_completed(lambda value: inbox.post(self._sent, (call, value)))

    def _sent(self, sent: tuple[TaskCall, Any]) -> None:
        """A call has arrived; or it could not, though the worker lives: a state was lost."""
        call, value = sent
        if call is self._call and isinstance(value, BaseException) and not is_dead_actor(value):
            call.ended(value)

    def call_id(self) -> str:
        """Ray's id of the call that the worker serves in."""
        assert self.stream is not None
        return str(self.stream.generator._generator_ref.task_id().hex())

    def kill(self) -> None:
        """End the process."""
        import ray

        self._lane.dismiss(self)
        ray.kill(self._actor, no_restart=True)

    def over(self) -> None:
        """It waits for the next call."""
        self._call = None

    def _reported(self, report: Report, refs: Sequence[Any]) -> None:
        self._started = True
        if self._call is not None:
            self._call.reported(report, refs)
        else:
            self._lane.pool.pump()

    def _ended(self, error: BaseException | None) -> None:
        self._lane.dismiss(self)
        if self._call is not None:
            self._call.ended(error)
        else:
            self._lane.pool.pump()
