"""What goes into the superstep machine (events) and what comes out of it (commands)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..model.attempt import AttemptEvent, AttemptKey, Failure, Launch, Role, StateHandle


class Activation(NamedTuple):
    """A node that is active in a superstep, with every state that arrived at it, in order."""

    node_id: str
    states: tuple[StateHandle, ...]
    sources: tuple[str, ...]


class Finished(NamedTuple):
    """The result of one execution of a superstep whose barrier has not passed yet."""

    execution: int
    role: Role
    output: StateHandle
    routes: Mapping[int, str | Failure]


# --- events ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The wait that `ScheduleRetry` asked for is over."""

    key: AttemptKey


@dataclass(frozen=True, slots=True)
class RouterAnswered:
    """A router in the driver answered `AskRouter` with a sink's id, or failed."""

    epoch: int
    superstep: int
    index: int
    edge: int
    answer: str | Failure


@dataclass(frozen=True, slots=True)
class DeadlineExpired:
    """The superstep's time is up."""

    epoch: int
    superstep: int


Event = AttemptEvent | RetryDue | RouterAnswered | DeadlineExpired


# --- commands -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SuperstepStarted:
    """A superstep begins: arm its deadline. Its launches follow."""

    epoch: int
    superstep: int
    active: tuple[Activation, ...]


@dataclass(frozen=True, slots=True)
class ScheduleRetry:
    """Send `RetryDue(key)` after `delay` seconds; until then the execution holds no slot."""

    key: AttemptKey
    node_id: str
    delay: float
    max_retries: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class FallbackInvoked:
    """The last attempt failed; the fallback's launch follows."""

    superstep: int
    index: int
    node_id: str
    fallback_id: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class StatesDropped:
    """Several states arrived at one node that takes one; all but the first are dropped."""

    superstep: int
    node_id: str
    arrived: int
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskRouter:
    """Run the router of the node's outgoing edge number `edge` on `state`, in the driver."""

    epoch: int
    superstep: int
    index: int
    node_id: str
    edge: int
    state: StateHandle


class Transition(NamedTuple):
    """An edge that fired: from the node launched as number `execution`, to `sink`."""

    execution: int
    source: str
    sink: str
    conditional: bool


@dataclass(frozen=True, slots=True)
class SuperstepEnded:
    """The barrier has passed and the counter advanced to `superstep`.

    Whoever drives the machine may write a checkpoint now, then calls `proceed()`.
    """

    superstep: int
    frontier: tuple[Activation, ...]
    transitions: tuple[Transition, ...]


@dataclass(frozen=True, slots=True)
class CancelRest:
    """Stop whatever still runs; its results will be ignored."""


@dataclass(frozen=True, slots=True)
class RestoreCheckpoint:
    """A superstep timed out and may go on from the newest checkpoint: call `restore()`."""

    node_id: str
    superstep: int
    message: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """Nothing is active any more. `state` is what `end` produced last, or None."""

    superstep: int
    state: StateHandle | None


@dataclass(frozen=True, slots=True)
class RunFailed:
    """The run cannot go on. `others` are the other nodes known to have failed.

    `limit` says which limit of the run was reached, where that is the reason.
    """

    node_id: str
    message: str
    superstep: int
    attempt: int | None = None
    failure: Failure | None = None
    others: tuple[tuple[str, str], ...] = ()
    limit: Literal["supersteps", "time"] | None = None


Command = (
    Launch
    | SuperstepStarted
    | ScheduleRetry
    | FallbackInvoked
    | StatesDropped
    | AskRouter
    | SuperstepEnded
    | CancelRest
    | RestoreCheckpoint
    | RunFinished
    | RunFailed
)
