"""Ray tasks: one for each long execution, one for a batch of short ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from .items import run_items
from .lanes import Lane, Pending
from .stream import Stream
from .stretch import Stretch
from .task_call import TaskCall

if TYPE_CHECKING:
    from .ray_pool import RayPool


@cache
def _task() -> Any:
    import ray

    return ray.remote(num_returns="streaming", max_retries=0, retry_exceptions=False)(run_items)


class TaskLane(Lane):
    """Attempts that run in Ray tasks of one shape.

    Args:
        pool: the pool.
        request: resources that each task holds.
        options: the same, as keywords of Ray's `.options()`.
    """

    def __init__(self, pool: RayPool, request: dict[str, float], options: dict[str, Any]) -> None:
        super().__init__(pool)
        self._request = request
        self._options = options
        self._named: dict[str, Any] = {}
        self.calls: set[TaskCall] = set()

    def ready(self) -> bool:
        """Whether the first of the queue could start now.

        Short work gains nothing from more processes than there are cores, and starting one costs
        a second or two.
        """
        pool = self.pool
        if pool.tasks >= pool.process_limit or not pool.ledger.fits(self._request):
            return False
        node = self.queue[0].node
        if pool.fresh_tasks < pool.cores or node.is_async:
            return True
        return not pool.timings.may_be_short(node)

    def starved(self) -> bool:
        """Whether what it waits for is a resource that is taken."""
        return not self.pool.ledger.fits(self._request)

    def take(self) -> list[Pending]:
        """What starts next, out of the queue: one attempt, or a batch of short ones."""
        slots = min(self.pool.context.max_workers, self.pool.process_limit, self.pool.cores)
        return self.pool.timings.take(self.queue, slots)

    def start(self, batch: Sequence[Pending]) -> None:
        """Start attempts, one after another in one task."""
        node_id = batch[0].launch.node_id
        task = self._named.get(node_id)
        if task is None:
            task = self._named[node_id] = _task().options(name=node_id, **self._options)
        track = self.pool.stretches.track(batch, self)
        job, arguments = self.pool.job_of(batch, track)
        generator = task.remote(job, *arguments)
        self.pool.ledger.take(self._request)
        self.pool.tasks += 1
        for pending in batch:
            pending.batch_size = len(batch)
            if pending.launch.trace is not None:
                pending.call_id = lambda: str(generator._generator_ref.task_id().hex())
        if track is None:
            self.calls.add(TaskCall(self, batch, generator))
        else:
            self.calls.add(Stretch(self, batch[0], generator))

    def give_up(self, pending: Pending) -> None:
        """End an attempt that is out and has not begun, because of its `doom`."""
        for call in list(self.calls):
            if call.carries(pending):
                call.kill()

    def over(self, call: TaskCall) -> None:
        """A call's process is free or gone."""
        if call in self.calls:
            self.calls.remove(call)
            self.pool.ledger.give(self._request)
            self.pool.tasks -= 1
            call.settle()

    def streams(self) -> Sequence[Stream]:
        """The streams that are being followed."""
        return [call.stream for call in self.calls]
