"""What can happen in a run, as typed and frozen values.

Observers and `executor.stream()` get these, and so do spans, metrics, logs and the progress
display: one source for all. `name` is the event's name in traces; `attributes()` are its facts
as they stand there, all under ``graphorch.``.

```
Event
├── ExecutorInit, ExecutorInitFailed, RunStarted, EventsDropped
├── SuperstepEvent
│   ├── RunFinished, RunFailed, FinalState, MaxSuperstepsExceeded
│   ├── SuperstepStarted, SuperstepCompleted, StatesDropped, EdgeTaken
│   ├── SuperstepTimedOut ── NoFallback
│   ├── FallbackInvoked ── FallbackSucceeded, FallbackFailed
│   ├── RunCaptured ── CheckpointCreated, CheckpointRestored
│   ├── CheckpointEvent ── AutoCheckpoint, CheckpointSaved ── CheckpointLoaded
│   └── FallbackToCheckpoint
└── AttemptEvent
    ├── AttemptStarted, CodeStarted, CodeEnded, AttemptFailed, AttemptCancelled
    ├── RetryScheduled, NodeCompleted
    └── ModelBuilt, ToolRequested, ToolAnswered
```
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..model.attempt import NO_FACTS, AttemptFacts
from ..policies import RetryPolicy
from .event import AttemptEvent, Event

# --- what many have in common ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperstepEvent(Event):
    """Base of what happens at a certain superstep, counted from 0."""

    superstep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCaptured(SuperstepEvent):
    """Base of what is told of a checkpoint in memory.

    Attributes:
        active_node_ids: nodes that wait in it.
        final_state_message_count: None where there is no final state yet.
        max_workers: of the executor.
    """

    active_node_ids: tuple[str, ...]
    final_state_message_count: int | None
    max_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointEvent(SuperstepEvent):
    """Base of what is told of a checkpoint in a store; its superstep is the one that comes next.

    Attributes:
        path: where it is.
        active_nodes: node ids that wait in it.
    """

    path: str
    active_nodes: tuple[str, ...]


# --- the executor and the run ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorInit(Event):
    """An executor was made. `checkpoint_every` counts supersteps."""

    name: ClassVar[str] = "executor_init"

    max_workers: int
    checkpoint_enabled: bool
    checkpoint_every: int | None
    allow_fallback_from_checkpoint: bool
    retry_policy: RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorInitFailed(Event):
    """An executor was refused, for this reason."""

    name: ClassVar[str] = "executor_init_failed"

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """`execute()` was called. `timeout_per_superstep` is seconds, or None for no limit."""

    name: ClassVar[str] = "execution_start"

    graph: str
    backend: str
    max_supersteps: int
    timeout_per_superstep: float | None
    max_workers: int
    user: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(SuperstepEvent):
    """Nothing is active any more. `message_count` is the final state's, None where there is none.

    The last event of a run that finished.
    """

    name: ClassVar[str] = "execution_complete"

    message_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed(SuperstepEvent):
    """The run ended without finishing. The last event of such a run.

    Attributes:
        status: ``"failed"`` or ``"cancelled"``.
        error: the text of what is raised.
        error_type: its class.
        node_id: the node named, where there is one.
    """

    name: ClassVar[str] = "execution_failed"

    status: str
    error: str
    error_type: str
    node_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalState(SuperstepEvent):
    """The run has a result: a state with so many messages."""

    name: ClassVar[str] = "final_state"

    message_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxSuperstepsExceeded(SuperstepEvent):
    """Work was left when the supersteps were used up."""

    name: ClassVar[str] = "max_supersteps_exceeded"

    message_count: int | None


# --- supersteps -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperstepStarted(SuperstepEvent):
    """A superstep begins. `active_nodes` are in launch order.

    `epoch` counts how often the run was started anew, after a failure or from a checkpoint.
    """

    name: ClassVar[str] = "superstep_started"

    active_nodes: tuple[str, ...]
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperstepCompleted(SuperstepEvent):
    """The barrier has passed, and the counter advanced to `superstep`."""

    name: ClassVar[str] = "superstep_complete"

    next_active_nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperstepTimedOut(SuperstepEvent):
    """A superstep took longer than `timeout` seconds; the node is the first unfinished one."""

    name: ClassVar[str] = "timeout"

    node_id: str
    timeout: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoFallback(SuperstepTimedOut):
    """A time-out ends the run: there is no checkpoint to go back to, or there was one before."""

    name: ClassVar[str] = "no_fallback"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatesDropped(SuperstepEvent):
    """Several states arrived at a node that takes one; all but the first were dropped."""

    name: ClassVar[str] = "states_dropped"

    node_id: str
    arrived: int
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTaken(SuperstepEvent):
    """Results of this superstep, `count` of them, went along an edge.

    Attributes:
        source_node, sink_node: node ids.
        router_func: name of the router that chose the sink; None for a concrete edge.
        executions: the source's places in launch order, in the order of the results.
    """

    not_attributes: ClassVar[frozenset[str]] = frozenset({"time", "run_id", "executions"})

    source_node: str
    sink_node: str
    router_func: str | None = None
    count: int = 1
    executions: tuple[int, ...] = ()

    @property
    def name(self) -> str:  # type: ignore[override]
        """``concrete_edge_transition`` or ``conditional_edge_transition``."""
        return edge_event_name(self.router_func)


def edge_event_name(router_func: str | None) -> str:
    """The name of what happens when an edge is taken, by its router (None: it has none)."""
    return "concrete_edge_transition" if router_func is None else "conditional_edge_transition"


# --- attempts -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted(AttemptEvent):
    """An attempt was handed to the pool; it may wait for a slot before it runs.

    `retry_delay` is the wait, in seconds, that follows if it fails and may be tried again.
    """

    name: ClassVar[str] = "node_execution_attempt"

    max_retries: int
    retry_delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeStarted(AttemptEvent):
    """Node code began to run; told with the attempt's answer, `time` is the worker's clock's.

    `input_size` counts messages, or states where the node is an aggregator.
    """

    name: ClassVar[str] = "execute_start"

    input_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeEnded(AttemptEvent):
    """Node code returned a state of `output_size` messages; `time` is the worker's clock's."""

    name: ClassVar[str] = "execute_end"

    output_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed(AttemptEvent):
    """An attempt failed, or was lost.

    Attributes:
        max_retries, retry_delay: as in `AttemptStarted`.
        error: the text of what was raised.
        error_type: its class, with its module unless that is Python's own.
        reason: ``"error"``, ``"timeout"``, ``"not_loaded"``, or the kind of infrastructure failure.
        infrastructure: it was not the node's fault.
        traceback: formatted where it was raised; may be empty.
        facts: where and when it ran, as far as it is known.
    """

    name: ClassVar[str] = "node_execution_failed"
    not_attributes: ClassVar[frozenset[str]] = frozenset(
        {"time", "run_id", "key", "traceback", "facts"}
    )

    max_retries: int
    retry_delay: float
    error: str
    error_type: str
    reason: str = "error"
    infrastructure: bool = False
    traceback: str = field(default="", repr=False)
    facts: AttemptFacts = field(default=NO_FACTS, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptCancelled(AttemptEvent):
    """An attempt was given up: its superstep timed out, another node failed, or the run ended."""

    name: ClassVar[str] = "node_execution_cancelled"

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(AttemptEvent):
    """A failed attempt will be tried again in `retry_delay` seconds.

    `retry_count` is that of the attempt that failed.
    """

    name: ClassVar[str] = "node_retry_scheduled"

    max_retries: int
    retry_delay: float
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCompleted(AttemptEvent):
    """A node execution has its result. Sizes count messages (states into an aggregator)."""

    name: ClassVar[str] = "node_execution_complete"
    not_attributes: ClassVar[frozenset[str]] = frozenset({"time", "run_id", "key", "facts"})

    input_size: int
    output_size: int
    facts: AttemptFacts = field(default=NO_FACTS, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBuilt(AttemptEvent):
    """A model worker built its model, in `seconds`; `time` is the worker's clock's."""

    name: ClassVar[str] = "build_model"

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRequested(AttemptEvent):
    """A `ToolSetNode` is about to call its server."""

    name: ClassVar[str] = "tool_http_start"

    tool_name: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolAnswered(AttemptEvent):
    """A tool server answered with a good status."""

    name: ClassVar[str] = "tool_http_success"

    tool_name: str
    url: str
    status_code: int


# --- fallbacks ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackInvoked(SuperstepEvent):
    """A node failed for good, and its fallback takes over. `reason` is the last error's text."""

    name: ClassVar[str] = "fallback_invoked"

    source_node: str
    fallback_node: str
    reason: str
    execution: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackSucceeded(FallbackInvoked):
    """The fallback gave a result."""

    name: ClassVar[str] = "fallback_success"


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackFailed(FallbackInvoked):
    """The fallback failed for good, too; `reason` is its error's text."""

    name: ClassVar[str] = "fallback_failed"


# --- checkpoints ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCreated(RunCaptured):
    """A checkpoint was made of the run (in memory)."""

    name: ClassVar[str] = "create_checkpoint"

    retry_policy: RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRestored(RunCaptured):
    """The run stands where a checkpoint was taken; `path` and `interval` are for further ones."""

    name: ClassVar[str] = "restore_from_checkpoint"

    path: str | None
    interval: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackToCheckpoint(SuperstepEvent):
    """A superstep timed out, and the run goes on from its newest checkpoint."""

    name: ClassVar[str] = "fallback_to_checkpoint"

    checkpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoCheckpoint(CheckpointEvent):
    """A checkpoint is due by the interval, and will be written."""

    name: ClassVar[str] = "auto_checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved(CheckpointEvent):
    """A checkpoint is durable.

    Attributes:
        bytes: written for it; None where unknown.
        seconds: writing took.
        lag: seconds between the barrier and the end of writing; None where unknown.
    """

    name: ClassVar[str] = "checkpoint_save"

    bytes: int | None = None
    seconds: float | None = None
    lag: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointLoaded(CheckpointSaved):
    """A checkpoint was read."""

    name: ClassVar[str] = "checkpoint_load"


# --- about the events themselves ------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsDropped(Event):
    """So many events are missing here: whoever reads was too slow for the buffer."""

    name: ClassVar[str] = "events_dropped"

    count: int
