"""The seam between the executor and whatever runs its nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..model.attempt import AttemptEvent, Failure, Launch, StateHandle
from ..model.edges import ConditionalEdge
from ..model.graph import Graph
from ..state import State
from .stored import Stored, StoredPayload, Vault

PoolKind = Literal["auto", "tasks", "actors"]
"""What sync nodes run in: Ray tasks, actors that are kept, or whatever is quickest."""

Deliver = Callable[[Sequence[AttemptEvent]], None]
"""Called in the event loop's thread with attempts that started or ended."""


def router_of(graph: Graph, node_id: str, edge: int) -> Callable[..., Any]:
    """The router of a node's outgoing edge number `edge`."""
    found = graph.edges_from(node_id)[edge]
    assert isinstance(found, ConditionalEdge)
    return found.routing_function


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What a pool needs to know of the run it works for.

    Attributes:
        graph: the graph; nodes are looked up in it.
        run_id: the run.
        branch: gives the branch of the run, known once it has its line of checkpoints.
        max_workers: node executions at once, at most.
        deliver: where attempts are reported.
        warn: where a sentence goes that the user should read.
        superstep_timeout: seconds for each superstep, where it is kept by the real clock.
        pool: what sync nodes run in.
        sharing: how many runs like this one share the cluster, each with as many workers.
    """

    graph: Graph
    run_id: str
    branch: Callable[[], str]
    max_workers: int
    deliver: Deliver
    warn: Callable[[str], None]
    superstep_timeout: float | None = None
    pool: PoolKind = "auto"
    sharing: int = 1


@dataclass(slots=True)
class PoolFacts:
    """What a pool counts over a run, for the summary."""

    workers_lost: int = 0
    states_remade: int = 0
    uncharged_reruns: int = 0
    processes: set[int] = field(default_factory=set)


class Pool(Protocol):
    """Carries out launches. One pool serves one run; all calls come from one event loop.

    A pool promises: at most `max_workers` executions run at any moment; each launch is answered
    once, under its key; after `stop()` nothing runs any more, and nothing is answered.

    Attributes:
        facts: what it counts.
        vault: where `save` keeps states; None until the run has a place for them.
    """

    facts: PoolFacts
    vault: Vault | None

    async def start(self, context: RunContext) -> None:
        """Get ready. Finds requests that can never be met and code that cannot be shipped."""

    def begin_superstep(self, deadline: float | None, ahead: int) -> None:
        """A superstep begins.

        Args:
            deadline: Unix time in seconds.
            ahead: supersteps after it that may run before the driver has seen its end.
        """

    def launch(self, launches: Sequence[Launch]) -> None:
        """Run these attempts as soon as slots and resources allow, in this order."""

    def ask(
        self, owner_id: str, edge: int, state: StateHandle, told: Callable[[str | Failure], None]
    ) -> None:
        """Ask the router of a node's outgoing edge, in the driver; `told` is told its answer."""

    async def wait(self, mailbox: asyncio.Event) -> bool:
        """Wait until `mailbox` is set, in the way that is right where the driver runs.

        Returns:
            Whether the rest of the event loop could run meanwhile.
        """

    async def stop(self) -> None:
        """Stop every attempt, running or not; return when none runs any more."""

    async def close(self) -> None:
        """`stop()`, and give back everything that the pool holds."""

    def put(self, state: State) -> StateHandle:
        """Take a private copy of a state."""

    def get(self, handle: StateHandle) -> Any:
        """A private copy of the state behind a handle. Blocks while it is fetched."""

    async def fetch(self, handle: StateHandle) -> Any:
        """`get`, without blocking the event loop for a large state."""

    def has(self, handle: StateHandle) -> bool:
        """Whether the state can be had. Where one is passed over, the run must not rest."""

    async def save(self, handles: Sequence[StateHandle], *, anew: bool = False) -> list[Stored]:
        """Keep states in the vault, where they are not kept already (or `anew`)."""

    def restore(self, state: StoredPayload) -> StateHandle:
        """A handle for a state in a vault; it is read where and when it is needed."""
