"""The words in which engine and pools talk about one attempt at one node execution.

An *execution* is one run of a node inside one superstep; it is tried in one or more *attempts*.
The engine asks for attempts with `Launch`; a pool answers each with `AttemptSucceeded` or
`AttemptFailed`. Both sides know an attempt by its `AttemptKey`, and whatever arrives under a key
that is no longer current is a late twin, and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from .trail import TraceContext, Trail

Role = Literal["node", "fallback"]

StateHandle = Any
"""A state as the engine sees it: opaque. Pools decide what stands behind it."""


class AttemptKey(NamedTuple):
    """Which attempt this is; unique within a run.

    Attributes:
        epoch: how often the run was started anew (after a failure or from a checkpoint).
        superstep: counted from 0.
        execution: place in the superstep's launch order, from 0.
        role: ``"node"``, or ``"fallback"`` once the fallback stands in for it.
        attempt: counted from 0; a node's own failures advance it.
        rerun: counted from 0; infrastructure failures advance it.
    """

    epoch: int
    superstep: int
    execution: int
    role: Role
    attempt: int
    rerun: int


class Launch(NamedTuple):
    """A request to run one attempt.

    Attributes:
        key: the attempt.
        node_id: the node whose code is to run (the fallback's id in that role).
        owner_id: the node whose place in the graph this is; differs only for a fallback.
        states: the input states, one unless `as_list`.
        as_list: the node takes the list of states (an aggregator).
        worker_edges: positions, in the owner's outgoing edges, of conditional edges whose
            router is to be asked beside the node.
        trace: the span that the attempt runs in; None where nothing is traced.
    """

    key: AttemptKey
    node_id: str
    owner_id: str
    states: tuple[StateHandle, ...]
    as_list: bool
    worker_edges: tuple[int, ...] = ()
    trace: TraceContext | None = None


NOT_LOADED = "not_loaded"
"""The reason of a failure to load a node's code where it was to run: trying again is no use."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong in an attempt or a router, in a form that always travels.

    Attributes:
        type_name: the exception's class name, unqualified.
        mro_names: ``module.qualname`` of the class and its bases, most derived first.
        message: ``str(exception)``.
        traceback: formatted where it was raised; may be empty.
        exception: the original exception, where it could travel.
        reason: ``"error"`` for what code raised, ``"timeout"`` for an attempt's time-out,
            ``"not_loaded"`` for code that its worker could not load, which is not retried, else
            the kind of infrastructure failure (``"worker_crashed"``, ``"node_died"``,
            ``"out_of_memory"``, ``"object_lost"``, …).
    """

    type_name: str
    mro_names: tuple[str, ...]
    message: str
    traceback: str = ""
    exception: BaseException | None = None
    reason: str = "error"


class AttemptFacts(NamedTuple):
    """Where and when an attempt ran, as far as it is known.

    Attributes:
        started, ended: when its code ran, in Unix seconds by the clock of its machine.
        worker_pid: the process.
        ray_node: id of the machine, in Ray.
        placement: ``"driver"``, ``"task"`` or ``"worker"``.
        input_bytes, output_bytes: size of the states.
        input_size, output_size: messages in the states; states, for an aggregator's input.
        task_id: Ray's id of the task or call; known where the attempt is traced.
        batch_size: attempts that travelled in the same call.
        ran_ahead: its worker ran it on its own, behind the node before it.
        span_id: the span that its code ran in, where that is not the launch's: it ran ahead.
        trail: spans, logs and notes that its code left; None where there are none.
    """

    started: float | None = None
    ended: float | None = None
    worker_pid: int | None = None
    ray_node: str | None = None
    placement: str = "driver"
    input_bytes: int = 0
    output_bytes: int = 0
    input_size: int = 0
    output_size: int = 0
    task_id: str | None = None
    batch_size: int = 1
    ran_ahead: bool = False
    span_id: int | None = None
    trail: Trail | None = None


NO_FACTS = AttemptFacts()

NO_ROUTES: Mapping[int, str | Failure] = {}


class AttemptSucceeded(NamedTuple):
    """A node ran and gave a state. `routes` maps an edge's position to its router's answer."""

    key: AttemptKey
    state: StateHandle
    routes: Mapping[int, str | Failure] = NO_ROUTES
    facts: AttemptFacts = NO_FACTS


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """A node raised or timed out, or (with `infrastructure`) what it ran on broke."""

    key: AttemptKey
    failure: Failure
    infrastructure: bool = False
    facts: AttemptFacts = NO_FACTS


AttemptEvent = AttemptSucceeded | AttemptFailed
