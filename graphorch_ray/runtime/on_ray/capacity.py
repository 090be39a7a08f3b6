"""What the cluster can take from one run, reckoned anew as machines come and go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...model.nodes import Node
from ..pool import RunContext
from ..threads import DaemonThreads
from .resources import (
    Ledger,
    Machine,
    check_possible,
    default_share,
    machines,
    machines_to_come,
    process_limit,
    request_of,
)

MACHINE_WAIT_SECONDS = 600.0
"""How long an attempt waits for a machine that an autoscaler could add."""

LOOK_SECONDS = 1.0
"""How long what is known of the cluster's machines is good for."""


@dataclass(frozen=True, slots=True)
class Machines:
    """The machines of a cluster at one moment: those that are there, and those to come."""

    present: list[Machine]
    to_come: list[Machine]


class Capacity:
    """The machines that there are, and what a run makes of them.

    Args:
        context: the run.
        held: CPUs that this process holds itself, if it is a Ray task.

    Attributes:
        alone: there is one machine, and has been since the run began.
        cores: CPUs in all that are there, at least 1.
        process_limit: worker processes that there is memory for.
        share: CPUs that a sync node asks for where it does not say.
        ledger: what is free. Machines to come count as free: what is sent to Ray and waits there
            is how an autoscaler learns that they are wanted.
        grows: there is an autoscaler that could add machines.
        awaits_machine: some node can only run on a machine that is still to come.

    Raises:
        ResourceRequestError: no machine could ever run some node.
    """

    def __init__(self, context: RunContext, held: float) -> None:
        self._held = held
        self._wanted = context.max_workers * context.sharing
        nodes = list(context.graph.nodes.values())
        kinds = {(node.placement, id(node.options)): node.options for node in nodes}
        self._requests = [
            request_of(options, 1.0 if placement == "task" else 0.0)
            for (placement, _), options in kinds.items()
            if placement != "driver"
        ]
        self.alone = True
        self.ledger = Ledger()
        found = self.look()
        self._reckon(found)
        waiting = check_possible(nodes, found.present, self.share, found.to_come)
        self.awaits_machine = bool(waiting)
        if waiting:
            context.warn(
                f"No machine of the cluster can run {waiting} yet. The autoscaler may add one; the "
                f"nodes wait for it, {MACHINE_WAIT_SECONDS:g} s at most, and no longer than their "
                "superstep's time."
            )
        self._warn_of_many(nodes, context)

    def look(self) -> Machines:
        """Ask Ray for the machines. Takes about a millisecond; may be called in any thread."""
        present = machines(self._held)
        return Machines(present, machines_to_come(present, self._requests))

    def take_in(self, found: Machines) -> bool:
        """Reckon with what was found; says whether that is anything new."""
        if found == self._known:
            return False
        self._reckon(found)
        return True

    def _reckon(self, found: Machines) -> None:
        self._known = found
        in_all = [*found.present, *found.to_come]
        self.alone = self.alone and len(found.present) == 1
        self.cores = max(1, int(sum(m.resources.get("CPU", 0.0) for m in found.present)))
        self.grows = bool(found.to_come)
        self.process_limit = process_limit(in_all)
        self.share = default_share(in_all, self._wanted)
        if self.grows and self.share:
            self.share = 1.0  # cores are added where they are asked for
        self.ledger.resize(found.present, found.to_come)

    def _warn_of_many(self, nodes: Sequence[Node], context: RunContext) -> None:
        tasks = sum(1 for node in nodes if node.placement == "task")
        if min(tasks, context.max_workers) > self.process_limit:
            context.warn(
                f"max_workers={context.max_workers} could need as many processes at once, "
                f"and the cluster's memory is good for about {self.process_limit}; sync nodes "
                "are held to that. Waiting is cheaper in async nodes: they share a few processes."
            )

    def check_now(self, node: Node) -> None:
        """Make sure that a machine that is there now could run a node.

        Raises:
            ResourceRequestError: none could.
        """
        check_possible([node], machines(self._held), self.share)


class ClusterWatch:
    """Looks for machines that came or went, when asked to, and no more than once a second.

    Args:
        on_look: called after each look with whether there was anything new.
    """

    def __init__(self, on_look: Callable[[bool], None]) -> None:
        self._on_look = on_look
        self._capacity: Capacity | None = None
        self._looked = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._threads = DaemonThreads("graphorch-watch")

    def begin(self, capacity: Capacity) -> None:
        """Keep this capacity, which was reckoned just now, up to date."""
        self._capacity = capacity
        self._loop = asyncio.get_running_loop()
        self._looked = self._loop.time()

    def look_soon(self) -> None:
        """Look again as soon as the last look is a second old."""
        if self._timer is None and self._task is None:
            self._timer = self._loop.call_at(self._looked + LOOK_SECONDS, self._begin_look)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
        self._threads.close()

    def _begin_look(self) -> None:
        self._timer = None
        self._task = self._loop.create_task(self._look())

    async def _look(self) -> None:
        assert self._capacity is not None
        news = False
        with contextlib.suppress(Exception):  # Ray cannot tell: what is known is the best there is
            # In a thread, so that nothing waits where Ray's control service does not answer.
            news = self._capacity.take_in(await self._threads.run(self._capacity.look))
        self._task, self._looked = None, self._loop.time()
        self._on_look(news)
