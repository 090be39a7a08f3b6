"""One node execution of the current superstep, as the machine keeps it."""

from __future__ import annotations

from collections.abc import Mapping

from ..model.attempt import Failure, Role, StateHandle
from .topology import NodePlan


class Execution:
    """Where one execution stands: its attempt, and what came of it."""

    __slots__ = (
        "attempt",
        "failure",
        "index",
        "output",
        "plan",
        "rerun",
        "role",
        "routes",
        "states",
        "waiting",
    )

    def __init__(self, index: int, plan: NodePlan, states: tuple[StateHandle, ...]) -> None:
        self.index = index
        self.plan = plan
        self.states = states
        self.role: Role = "node"
        self.attempt = 0
        self.rerun = 0
        self.waiting = False
        self.failure: Failure | None = None
        self.output: StateHandle = None
        self.routes: Mapping[int, str | Failure] | None = None

    @property
    def done(self) -> bool:
        """Whether it has a result."""
        return self.routes is not None
