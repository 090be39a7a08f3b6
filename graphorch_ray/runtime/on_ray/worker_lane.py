"""Where many attempts share an event loop: for async nodes, and for the replicas of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .lanes import Lane, Pending
from .stream import Answer, Stream
from .workers import ActorWorker, TaskWorker, Worker

if TYPE_CHECKING:
    from .ray_pool import RayPool


class WorkerLane(Lane):
    """Workers for async nodes (shared), or for one model (its replicas).

    Args:
        pool: the pool.
        request: resources that each worker holds.
        options: the same, as keywords of Ray's `.options()`.
        limit: workers at most.
        load: attempts at once in one worker that call for another worker, while there may be
            more; with `exclusive`, one attempt at a time is all a worker takes.
        exclusive: a worker runs one attempt at a time.
        replace_blocked: a worker whose event loop is held does not count among `limit`.
        warm: start in processes that Ray has already, rather than wait for one of its own.
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
        warm: bool = False,
    ) -> None:
        super().__init__(pool)
        self._request = request
        self._options = options
        self._limit = limit
        self._load = load
        self._exclusive = exclusive
        self._replace_blocked = replace_blocked
        self._warm = warm
        self.workers: list[Worker] = []
        self._begun: list[Worker] = []  # tasks of the wave that is being started

    def ready(self) -> bool:
        """Whether the first of the queue could start now."""
        return self._choose(self.queue[0]) is not None or self._may_grow()

    def starved(self) -> bool:
        """Whether it has no worker, for want of resources that are taken."""
        return not self.workers and not self.pool.capacity.ledger.fits_now(self._request)

    def _may_grow(self) -> bool:
        usable = sum(1 for w in self.workers if not (w.blocked and self._replace_blocked))
        return usable < self._limit and self.pool.capacity.ledger.fits(self._request)

    def _may_spread(self) -> bool:
        """Whether another worker may take some of the load; event loops want a core each."""
        return self._may_grow() and (not self._warm or len(self.workers) < self.pool.capacity.cores)

    def _choose(self, pending: Pending) -> Worker | None:
        """The least busy worker that may take this attempt."""
        free = [worker for worker in self.workers if worker.takes_more]
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
        if worker is None or (len(worker.active) >= worker.share and self._may_spread()):
            if worker is not None and not worker.is_kept:
                worker.flush()  # it begins while the others' share is still launched
                self._begun.append(worker)
            if self._may_grow():
                worker = self._grow()
            assert worker is not None
        worker.reserved = pending.quarantined
        worker.take(pending)

    def _grow(self) -> Worker:
        """Start a worker.

        A task is there at once, and takes what is started with it; an actor is a new process,
        and takes more as it goes. There is always room left for one of those.
        """
        warm = self._warm and len(self.workers) < self._limit - 1
        if warm and all(worker.takes_more or worker in self._begun for worker in self.workers):
            coming = min(len(self.queue) + 1, self.pool.vacant)
            over = max(1, self.pool.capacity.cores - len(self.workers))
            worker: Worker = TaskWorker(self, self._options, max(self._load, -(-coming // over)))
        else:
            worker = ActorWorker(self, self._options, self._load)
        self.pool.capacity.ledger.take(self._request)
        self.workers.append(worker)
        return worker

    def flush(self) -> None:
        """Send what the workers took."""
        self._begun.clear()
        for worker in self.workers:
            worker.flush()

    def unsent(self) -> Sequence[Pending]:
        """Take back what the workers were not sent."""
        taken_back = [pending for worker in self.workers for pending in worker.unsent()]
        for worker in [worker for worker in self.workers if worker.stream is None]:
            self.gone(worker)
        return taken_back

    def give_up(self, pending: Pending) -> None:
        """End an attempt that is out and has not begun, because of its `doom`."""
        for worker in list(self.workers):
            if pending.token in worker.active:
                worker.replace()

    def gone(self, worker: Worker) -> None:
        """A worker has ended."""
        if worker in self.workers:
            self.workers.remove(worker)
            self.pool.capacity.ledger.give(self._request)

    def release_idle(self) -> bool:
        """End the workers that hold resources and have nothing to do."""
        idle = [worker for worker in self.workers if not worker.active and self._request]
        for worker in idle:
            worker.kill()
            self.gone(worker)
        return bool(idle)

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.release()

    def answers(self) -> Sequence[Answer | Stream]:
        """What is listened to."""
        return [worker.stream for worker in self.workers if worker.stream is not None]
