"""How attempts get to Ray: a lane queues those of one kind and knows what may start.

`task_lane` sends attempts to Ray tasks, short ones together. `worker_lane` keeps worker actors:
a few shared ones for async nodes, or the replicas of a model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...model.attempt import Failure, Launch
from ...model.nodes import Node
from .handles import StateHandle
from .stream import Answer, Stream
from .wire import Where

if TYPE_CHECKING:
    import asyncio

    from .ray_pool import RayPool
    from .workers import Worker

KILL_SECONDS = 2.0
"""How long to wait for word that a killed attempt is gone, before going on without."""

BLOCKED_GRACE_SECONDS = 0.3
"""How long after an attempt's time-out its worker may take to say that it stopped it."""


class Pending:
    """An attempt from its launch to its answer."""

    __slots__ = (
        "batch_size",
        "began",
        "call_id",
        "doom",
        "lane",
        "launch",
        "made",
        "node",
        "order",
        "quarantined",
        "ran_ahead",
        "span_id",
        "timer",
        "token",
        "where",
        "worker",
    )

    def __init__(self, token: int, launch: Launch, node: Node, lane: Lane) -> None:
        self.token = token
        self.order = token
        self.launch = launch
        self.node = node
        self.lane = lane
        self.quarantined = False
        self.timer: asyncio.TimerHandle | None = None
        self.made: asyncio.Future[StateHandle] | None = None
        """Who waits for the state, where the engine does not: it makes good what was lost."""
        self.doom: Failure | None = None
        """The failure it is charged with once the process that it was killed in is gone."""
        self.where: Where | None = None
        self.began: float | None = None
        self.worker: Worker | None = None
        self.call_id: Callable[[], str] | None = None
        """Gives Ray's id of the call that it travelled in, where the attempt is traced."""
        self.batch_size = 1
        self.ran_ahead = False
        self.span_id: int | None = None
        """The span that it ran in, where that is not the launch's: it ran ahead."""

    def anew(self, token: int) -> Pending:
        """The same attempt, to be sent once more: what was sent before is known by its token."""
        pending = Pending(token, self.launch, self.node, self.lane)
        pending.order, pending.made = self.order, self.made
        pending.quarantined = self.quarantined
        return pending

    def disarm(self) -> None:
        """Forget the attempt's timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Lane(ABC):
    """Attempts that start in the same way."""

    def __init__(self, pool: RayPool) -> None:
        self.pool = pool
        self.queue: deque[Pending] = deque()

    @abstractmethod
    def ready(self) -> bool:
        """Whether the first of the queue could start now, as far as this lane knows."""

    def starved(self) -> bool:
        """Whether what it waits for is a resource that is taken."""
        return False

    def take(self) -> list[Pending]:
        """What starts next, out of the queue: attempts that take one slot together."""
        return [self.queue.popleft()]

    @abstractmethod
    def start(self, batch: Sequence[Pending]) -> None:
        """Start what was taken; it may leave only with `flush`."""

    def flush(self) -> None:  # noqa: B027 - most lanes gather nothing
        """Send what `start` gathered."""

    def unsent(self) -> Sequence[Pending]:
        """Take back what `flush` could not send."""
        return ()

    def release_idle(self) -> bool:
        """Give back what is held but not in use; say whether that was anything."""
        return False

    def close(self) -> None:  # noqa: B027 - most lanes keep nothing
        """End what is kept for later."""

    def give_up(self, pending: Pending) -> None:  # noqa: B027 - what runs in the driver, runs
        """End an attempt that is out and has not begun, because of its `doom`."""

    @abstractmethod
    def answers(self) -> Sequence[Answer | Stream]:
        """What is listened to."""


class DriverLane(Lane):
    """Attempts that run in the driver and hold a slot there."""

    def ready(self) -> bool:
        """Whether the first of the queue could start now."""
        return True

    def start(self, batch: Sequence[Pending]) -> None:
        """Start an attempt."""
        self.pool.start_here(batch[0])

    def answers(self) -> Sequence[Answer | Stream]:
        """What is listened to."""
        return ()
