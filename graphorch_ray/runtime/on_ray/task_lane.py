"""Attempts that run in Ray tasks, or in warm workers: long ones singly, short ones together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .carriers import TaskCarrier, Tasks
from .lanes import Lane, Pending
from .stream import Answer, Stream
from .stretch import Stretch
from .task_call import TaskCall
from .warm_workers import WarmWorkers
from .wire import packed

if TYPE_CHECKING:
    from .ray_pool import RayPool


class TaskLane(Lane):
    """Attempts that run in processes of one shape.

    Args:
        pool: the pool.
        request: resources that each process holds.
        options: the same, as keywords of Ray's `.options()`.

    Attributes:
        request: as given.
        calls: what runs.
        tasks: the remote functions, with its resources.
        warm: processes that are kept.
    """

    def __init__(self, pool: RayPool, request: dict[str, float], options: dict[str, Any]) -> None:
        super().__init__(pool)
        self.request = request
        self.calls: set[TaskCall] = set()
        self.tasks = Tasks(options)
        self.warm = WarmWorkers(self, options)

    def ready(self) -> bool:
        """Whether the first of the queue could start now.

        Short work gains nothing from more processes than there are cores, and starting one costs
        a second or two.
        """
        pool = self.pool
        node = self.queue[0].node
        if (
            pool.fresh_tasks >= pool.capacity.cores
            and not node.is_async
            and pool.timings.may_be_short(node)
        ):
            return False
        if self.warm.ready:
            return True
        return pool.tasks < pool.capacity.process_limit and pool.capacity.ledger.fits(self.request)

    def starved(self) -> bool:
        """Whether what it waits for is a resource that is taken."""
        return not self.pool.capacity.ledger.fits_now(self.request)

    def take(self) -> list[Pending]:
        """What starts next, out of the queue: one attempt, or a batch of short ones."""
        return self.pool.timings.take(self.queue, self.slots)

    @property
    def slots(self) -> int:
        """Processes at once that short work is worth."""
        capacity = self.pool.capacity
        return min(self.pool.context.max_workers, capacity.process_limit, capacity.cores)

    def start(self, batch: Sequence[Pending]) -> None:
        """Start attempts, one after another in one process."""
        pool, track = self.pool, self.pool.stretches.track(batch, self)
        probes = pool.timings.is_unknown(batch[0].node)
        worker = self.warm.to_take(batch)
        known = worker.known if worker is not None else ()
        job, arguments = pool.job_of(batch, track, announce=probes, known=known)
        sent = packed(job)
        # Large states of several machines go by way of Ray, which looks where each of them is.
        if isinstance(sent, bytes) and (pool.capacity.alone or not arguments):
            worker = worker or self.warm.begin(batch)
        elif worker is not None:
            worker = None
            job, arguments = pool.job_of(batch, track, announce=probes)
            sent = packed(job)
        if worker is None and not pool.capacity.ledger.fits(self.request):
            self.warm.make_room()
        carrier = worker or TaskCarrier(self, batch[0].launch.node_id)
        call = Stretch(self, batch[0], carrier) if track else TaskCall(self, batch, carrier)
        try:
            carrier.send(call, sent, arguments)
        except BaseException:
            call.withdraw()
            if worker is not None:
                worker.kill()
            raise
        if worker is not None:
            worker.known.update(job.codes)
        if carrier.answer is not None:
            call.task_id = carrier.answer.task_id
        for pending in batch:
            pending.batch_size = len(batch)
            if pending.launch.trace is not None:
                pending.call_id = call.task_id
        self.calls.add(call)

    def give_up(self, pending: Pending) -> None:
        """End an attempt that is out and has not begun, because of its `doom`."""
        for call in list(self.calls):
            if call.carries(pending):
                call.kill()

    def over(self, call: TaskCall) -> None:
        """A call's process is free or gone."""
        if call in self.calls:
            self.calls.remove(call)
            call.carrier.over()
            call.settle()

    def release_idle(self) -> bool:
        """Let the warm workers go that have nothing to do."""
        return self.warm.release_idle()

    def close(self) -> None:
        """Let every warm worker go."""
        self.warm.close()

    def answers(self) -> Sequence[Answer | Stream]:
        """What is listened to."""
        answers = (call.carrier.answer for call in self.calls)
        return [answer for answer in answers if answer is not None]
