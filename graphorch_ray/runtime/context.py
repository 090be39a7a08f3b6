"""What node code may know about itself while it runs."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionInfo:
    """Which execution this is.

    Attributes:
        run_id: the run, the same after a resume.
        graph_name: the graph's name.
        branch: the line of checkpoints the run writes; a fork starts a new one.
        superstep: counted from 0.
        index: place in the superstep's launch order, from 0.
        node_id: the node whose place this is.
        running_node_id: the node whose code runs; differs only where a fallback stands in.
        role: ``"node"`` or ``"fallback"``.
        attempt: counted from 0, over node failures.
        rerun: counted from 0, over infrastructure failures of this execution.
        deadline: Unix time (seconds) at which this attempt's time is up, or None.
    """

    run_id: str
    graph_name: str
    branch: str
    superstep: int
    index: int
    node_id: str
    running_node_id: str
    role: Literal["node", "fallback"]
    attempt: int
    rerun: int
    deadline: float | None = None

    @property
    def idempotency_key(self) -> str:
        """A text that is the same for every attempt at this execution, also after a resume.

        Hand it to a service that takes such keys, and an effect that is asked for twice
        happens once. A fork from an older checkpoint gets new keys.
        """
        return f"{self.run_id}/{self.branch}/{self.superstep}/{self.index}/{self.role}"

    def remaining(self) -> float | None:
        """Seconds left before the node's or the superstep's time-out; None where neither is set.

        Counted with this machine's clock against a deadline set by the driver's or the worker's.
        """
        return None if self.deadline is None else max(0.0, self.deadline - time.time())


current: ContextVar[ExecutionInfo | None] = ContextVar("graphorch_ray_execution", default=None)


def current_execution() -> ExecutionInfo:
    """Tell node code which run, superstep, node and attempt it is.

    Works in every node, on both backends, and in threads started with a copied context.

    Raises:
        RuntimeError: called outside a node.

    Example:
        ```python
        @node_action
        def charge(state):
            key = current_execution().idempotency_key
            payments.charge(state.messages[0], idempotency_key=key)
            return state
        ```
    """
    info = current.get()
    if info is None:
        raise RuntimeError(
            "current_execution() was called outside a node. It answers only in code that an "
            "executor runs; node.execute(state) by itself is no execution."
        )
    return info
