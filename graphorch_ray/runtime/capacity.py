"""What the cluster can take from one run, as it was when the run began."""

from __future__ import annotations

from collections.abc import Sequence

from ..model.nodes import Node
from .pool import RunContext
from .resources import (
    Ledger,
    check_possible,
    default_share,
    machines,
    machines_to_come,
    process_limit,
)

MACHINE_WAIT_SECONDS = 600.0
"""How long an attempt waits for a machine that an autoscaler could add."""


class Capacity:
    """The machines that there are, and what a run makes of them.

    Args:
        context: the run.
        held: CPUs that this process holds itself, if it is a Ray task.

    Attributes:
        alone: there is one machine.
        cores: CPUs in all, at least 1.
        process_limit: worker processes that there is memory for.
        share: CPUs that a sync node asks for where it does not say.
        ledger: what is free.
        awaits_machine: some node can only run on a machine that is still to come.

    Raises:
        ResourceRequestError: no machine could ever run some node.
    """

    def __init__(self, context: RunContext, held: float) -> None:
        self._held = held
        cluster, to_come = machines(held), machines_to_come()
        nodes = list(context.graph.nodes.values())
        self.alone = len(cluster) == 1
        self.cores = max(1, int(sum(m.resources.get("CPU", 0.0) for m in cluster)))
        self.process_limit = process_limit(cluster)
        self.share = default_share(cluster, context.max_workers * context.sharing)
        waiting = check_possible(nodes, cluster, self.share, to_come)
        self.awaits_machine = bool(waiting)
        self.ledger = Ledger([*cluster, *to_come])
        if waiting:
            context.warn(
                f"No machine of the cluster can run {waiting} yet. The autoscaler may add one; the "
                f"nodes wait for it, {MACHINE_WAIT_SECONDS:g} s at most, and no longer than their "
                "superstep's time."
            )
        self._warn_of_many(nodes, context)

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
