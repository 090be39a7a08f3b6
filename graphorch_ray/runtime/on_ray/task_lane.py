"""Attempts that run in Ray tasks, or in warm workers: long ones singly, short ones together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .carriers import Carrier, TaskCarrier, Tasks, WarmWorker
from .lanes import Lane, Pending
from .stream import Answer, Stream
from .stretch import Stretch
from .task_call import TaskCall

if TYPE_CHECKING:
    from .ray_pool import RayPool

LONE_CALLS = 10
"""Short calls one after another, with nothing beside them, that make a warm worker worth it."""


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
    """

    def __init__(self, pool: RayPool, request: dict[str, float], options: dict[str, Any]) -> None:
        super().__init__(pool)
        self.request = request
        self.calls: set[TaskCall] = set()
        self.tasks = Tasks(options)
        self._options = options
        self._warm: list[WarmWorker] = []
        self._lone = 0

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
        if any(worker.ready for worker in self._warm):
            return True
        return pool.tasks < pool.capacity.process_limit and pool.capacity.ledger.fits(self.request)

    def starved(self) -> bool:
        """Whether what it waits for is a resource that is taken."""
        return not self.pool.capacity.ledger.fits_now(self.request)

    def take(self) -> list[Pending]:
        """What starts next, out of the queue: one attempt, or a batch of short ones."""
        return self.pool.timings.take(self.queue, self._slots)

    @property
    def _slots(self) -> int:
        """Processes at once that short work is worth."""
        capacity = self.pool.capacity
        return min(self.pool.context.max_workers, capacity.process_limit, capacity.cores)

    def start(self, batch: Sequence[Pending]) -> None:
        """Start attempts, one after another in one process."""
        track = self.pool.stretches.track(batch, self)
        probes = self.pool.timings.is_unknown(batch[0].node)
        job, arguments = self.pool.job_of(batch, track, announce=probes)
        carrier = self._carrier(batch[0])
        call = Stretch(self, batch[0], carrier) if track else TaskCall(self, batch, carrier)
        try:
            carrier.send(call, job, arguments)
        except BaseException:
            call.withdraw()
            raise
        if carrier.answer is not None:
            call.task_id = carrier.answer.task_id
        for pending in batch:
            pending.batch_size = len(batch)
            if pending.launch.trace is not None:
                pending.call_id = call.task_id
        self._consider_warm(batch[0])
        self.calls.add(call)

    def _carrier(self, first: Pending) -> Carrier:
        """What is to carry a call; where one has just broken, not the next that may be dead."""
        if not first.launch.key.rerun:
            for worker in self._warm:
                if worker.ready:
                    return worker
        return TaskCarrier(self, first.launch.node_id)

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

    # --- warm workers -------------------------------------------------------------------------

    def _consider_warm(self, first: Pending) -> None:
        """Start a warm worker where it pays: where nothing is waited for but round trips.

        With ``pool="actors"``, start one for each slot that has a core.
        """
        pool = self.pool
        if first.node.is_async or pool.context.pool == "tasks":
            return
        if pool.context.pool == "actors":
            wanted = self._slots
        else:
            lone = not self.calls and not self.queue and pool.timings.is_short(first.node)
            self._lone = self._lone + 1 if lone else 0
            wanted = int(self._lone >= LONE_CALLS)
        # One at a time: as long as it starts, what it holds does nothing.
        starting = any(worker.starts for worker in self._warm)
        if len(self._warm) < wanted and not starting and pool.capacity.ledger.fits(self.request):
            self._warm.append(WarmWorker(self, self._options))

    def dismiss(self, worker: WarmWorker) -> None:
        """A warm worker is gone."""
        if worker in self._warm:
            self._warm.remove(worker)
            self.pool.capacity.ledger.give(self.request)

    def release_idle(self) -> bool:
        """End the warm workers that have nothing to do."""
        idle = [worker for worker in self._warm if worker.idle and self.request]
        for worker in idle:
            worker.kill()
        return bool(idle)

    def close(self) -> None:
        """End every warm worker."""
        for worker in list(self._warm):
            worker.kill()

    def answers(self) -> Sequence[Answer | Stream]:
        """What is listened to."""
        carriers: set[Carrier] = {*(call.carrier for call in self.calls), *self._warm}
        return [carrier.answer for carrier in carriers if carrier.answer is not None]
