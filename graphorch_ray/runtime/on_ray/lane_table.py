"""Which lane a node's attempts go through, and which lane may start one next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ...model.nodes import Node
from .lanes import DriverLane, Lane, Pending
from .resources import ray_options, request_of
from .task_lane import TaskLane
from .worker_lane import WorkerLane
from .workers import Worker

if TYPE_CHECKING:
    from .ray_pool import RayPool

SHARED_WORKERS = 4
"""Worker processes that async nodes share, at most."""

SHARED_WORKER_LOAD = 1000
"""Async executions at once in one shared worker before another is started."""


class LaneTable:
    """The lanes of one pool, made as they are needed."""

    def __init__(self, pool: RayPool) -> None:
        self._pool = pool
        self._lanes: dict[Any, Lane] = {}
        self._by_node: dict[str, Lane] = {}
        self._by_options: dict[tuple[float, int], Lane] = {}  # nodes of a function share theirs
        self._few_async = False
        self._own_task: set[int] = set()  # async functions seen blocking an event loop

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    @property
    def waiting(self) -> bool:
        """Whether anything is queued."""
        return any(lane.queue for lane in self._lanes.values())

    @property
    def workers(self) -> list[Worker]:
        """Every worker actor there is."""
        lanes = (lane for lane in self if isinstance(lane, WorkerLane))
        return [worker for lane in lanes for worker in lane.workers]

    def close(self) -> None:
        """End every worker, and forget the lanes."""
        for lane in self:
            lane.close()
        self._lanes.clear()
        self._by_node.clear()
        self._by_options.clear()

    # --- which lane ---------------------------------------------------------------------------

    def expect(self, nodes: Iterable[Node]) -> None:
        """Attempts at these nodes are coming.

        Async ones that are few go to Ray's idle processes, which is quicker than a new worker.
        """
        coming = sum(1 for node in nodes if node.is_async and node.placement == "async")
        lane = self._lanes.get("async")
        kept = isinstance(lane, WorkerLane) and (
            lane.queue or any(worker.takes_more for worker in lane.workers)
        )
        self._few_async = not kept and coming + self._pool.tasks <= SHARED_WORKERS

    def has(self, node: Node) -> bool:
        """Whether it is known already which lane of tasks a node's attempts go through."""
        return node.node_id in self._by_node

    def of(self, node: Node) -> Lane:
        """The lane that a node's attempts go through."""
        if (known := self._by_node.get(node.node_id)) is not None:
            return known
        placement = node.placement
        if placement == "task":
            lane = self._by_node[node.node_id] = self.tasks_of(node)
            return lane
        if placement == "model":
            return self._model(node)
        if placement == "driver":
            return self._lanes.setdefault("driver", DriverLane(self._pool))
        if self._few_async or self.has_own_task(node):
            return self.tasks_of(node)
        if "async" not in self._lanes:
            self._lanes["async"] = WorkerLane(
                self._pool,
                {},
                {"num_cpus": 0},
                limit=SHARED_WORKERS,
                load=SHARED_WORKER_LOAD,
                exclusive=False,
                replace_blocked=True,
                warm=True,
            )
        return self._lanes["async"]

    def tasks_of(self, node: Node) -> Lane:
        """The lane of tasks with the resources that a node asks for."""
        default = self._pool.capacity.share if node.placement == "task" else 0.0
        known = self._by_options.get((default, id(node.options)))
        if known is not None:
            return known
        options = ray_options(node.options, default)
        key = ("task", repr(sorted(options.items(), key=lambda item: item[0])))
        if key not in self._lanes:
            self._lanes[key] = TaskLane(self._pool, request_of(node.options, default), options)
        lane = self._by_options[default, id(node.options)] = self._lanes[key]
        return lane

    def share_anew(self) -> None:
        """The cluster has changed: what waits asks for the share that nodes have in it now."""
        self._by_node.clear()
        waiting: list[Pending] = []
        for lane in self:
            if isinstance(lane, TaskLane):
                waiting.extend(lane.queue)
                lane.queue.clear()
        for pending in sorted(waiting, key=lambda pending: pending.order):
            pending.lane = self.tasks_of(pending.node)
            pending.lane.queue.append(pending)

    def _model(self, node: Node) -> Lane:
        key = ("model", node.node_id)
        if key not in self._lanes:
            self._lanes[key] = WorkerLane(
                self._pool,
                request_of(node.options, 0.0),
                {**ray_options(node.options, 0.0), "name": None},
                limit=node.options.replicas or 1,
                load=1,
                exclusive=not node.is_async,
                replace_blocked=False,
            )
        return self._lanes[key]

    # --- functions that block -----------------------------------------------------------------

    def has_own_task(self, node: Node) -> bool:
        """Whether an async node was seen blocking an event loop."""
        return bool(self._own_task) and _function(node) in self._own_task

    def give_own_task(self, node: Node) -> None:
        """Give a function tasks of its own from now on, those that wait included."""
        function = _function(node)
        self._own_task.add(function)
        shared = self._lanes["async"]
        moved = [pending for pending in shared.queue if _function(pending.node) == function]
        shared.queue = deque(p for p in shared.queue if _function(p.node) != function)
        for pending in moved:
            pending.lane = self.tasks_of(pending.node)
            pending.lane.queue.append(pending)

    # --- which next ---------------------------------------------------------------------------

    def next(self, *, idle: bool) -> Lane | None:
        """The lane that starts the oldest attempt that may start now.

        Args:
            idle: nothing runs at all.
        """
        waiting = [lane for lane in self if lane.queue]
        ready = [lane for lane in waiting if lane.ready()]
        if (not ready or self._pool.capacity.grows) and any(lane.starved() for lane in waiting):
            unused = [lane for lane in self if not lane.queue]
            if any([lane.release_idle() for lane in unused]):  # noqa: C419 - all of them
                ready = [lane for lane in waiting if lane.ready()]
        if not ready and waiting and idle:
            ready = waiting[:1]  # the cluster has changed since we looked: Ray will know
        return min(ready, key=lambda lane: lane.queue[0].order) if ready else None


def _function(node: Node) -> int:
    """What tells a node's function from others; several nodes may share one."""
    return id(node.callables()[0])
