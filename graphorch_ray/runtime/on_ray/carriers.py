"""What carries a call to a process: a Ray task of its own, or a warm worker that is kept.

A task costs its process nothing once it has ended, and its start 2 to 3 ms. A warm worker holds
its resources while it waits; what it is sent is there in a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol

from .serving import run_task
from .stream import Answer, Stream
from .wire import Job

if TYPE_CHECKING:
    from .task_call import TaskCall
    from .task_lane import TaskLane


NAMES = 256
"""Nodes of a lane that Ray shows by name; the first ones."""


class Carrier(Protocol):
    """Brings one call to a process, and back what it says."""

    @property
    def answer(self) -> Answer | Stream | None:
        """What the process says, once there is a call."""

    def send(self, call: TaskCall, job: Job | bytes, arguments: Sequence[Any]) -> None:
        """Start the call."""

    def kill(self) -> None:
        """End the process that the call runs in, or take it from Ray's queue."""

    def over(self) -> None:
        """The call is over: give back what it held."""


class Tasks:
    """The remote functions behind the tasks of a lane: for jobs that say much, and for one attempt.

    It is one function for Ray, whose leases of processes are by function and resources. A task that
    is one attempt has its node's name, where Ray shows tasks. Those of a wide superstep share one
    name: Ray takes half a millisecond and 10 KB to give a function another.

    Args:
        options: resources and the like, as keywords of Ray's `.options()`.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._single: dict[str, Any] = {}

    @cached_property
    def many(self) -> Any:
        """What runs the items of a job, follows its track, or serves as a warm worker."""
        return _remote().options(name="short nodes", num_returns="streaming", **self._options)

    def single(self, node_id: str) -> Any:
        """What runs one attempt of a node."""
        task = self._single.get(node_id)
        if task is None and len(self._single) < NAMES:
            name = node_id.encode(errors="replace").decode()
            task = self._single[node_id] = self._named(name)
        return task or self._nameless

    @cached_property
    def _nameless(self) -> Any:
        return self._named("one of many nodes")

    def _named(self, name: str) -> Any:
        return _remote().options(name=name, num_returns=2, **self._options)


@cache
def _remote() -> Any:
    import ray

    return ray.remote(num_returns=2, max_retries=0, retry_exceptions=False)(run_task)


class TaskCarrier:
    """A task for one call.

    Args:
        lane: whose resources it takes.
        node_id: the first node of the call.
    """

    def __init__(self, lane: TaskLane, node_id: str) -> None:
        self.answer: Answer | Stream | None = None
        self._lane = lane
        self._node_id = node_id

    def send(self, call: TaskCall, job: Job | bytes, arguments: Sequence[Any]) -> None:
        """Start the call."""
        single, tasks = call.says_one_thing, self._lane.tasks
        task = tasks.single(self._node_id) if single else tasks.many
        given = task.remote(single, job, *arguments)
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
