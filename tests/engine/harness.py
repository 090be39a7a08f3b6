"""A pool of a few lines, to drive the superstep machine without Ray, asyncio or time."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphorch_ray import (
    AggregatorNode,
    Graph,
    GraphBuilder,
    GraphWarning,
    ProcessingNode,
    RetryPolicy,
    State,
    aggregator_action,
    node_action,
    routing_function,
)
from graphorch_ray.engine import (
    AskRouter,
    CancelRest,
    DeadlineExpired,
    EngineOptions,
    FallbackInvoked,
    Phase,
    RestoreCheckpoint,
    RetryDue,
    RouterAnswered,
    RunFailed,
    RunFinished,
    ScheduleRetry,
    StatesDropped,
    SuperstepEnded,
    SuperstepMachine,
    SuperstepStarted,
)
from graphorch_ray.model.attempt import AttemptFailed, AttemptSucceeded, Failure, Launch


@node_action
def nothing(state: State) -> State:
    return state


@aggregator_action
def merge(states: list[State]) -> State:
    return states[0]


@routing_function
def somewhere(state: State) -> str:
    return "end"


@routing_function(placement="worker")
def on_worker(state: State) -> str:
    return "end"


def graph_of(
    nodes: Sequence[str],
    edges: Sequence[tuple[str, str | Sequence[str]]],
    *,
    aggregators: Sequence[str] = (),
    fallbacks: dict[str, str] | None = None,
    policies: dict[str, RetryPolicy] | None = None,
    router: Any = somewhere,
) -> Graph:
    """Build a graph; an edge with a list of sinks is conditional."""
    builder = GraphBuilder("test")
    for node_id in nodes:
        if node_id in aggregators:
            builder.add_aggregator(AggregatorNode(node_id, merge))
        else:
            builder.add_node(ProcessingNode(node_id, nothing))
    for source, sink in edges:
        if isinstance(sink, str):
            builder.add_concrete_edge(source, sink)
        else:
            builder.add_conditional_edge(source, list(sink), router)
    for node_id, fallback in (fallbacks or {}).items():
        builder.set_fallback_node(node_id, fallback)
    for node_id, policy in (policies or {}).items():
        builder.set_node_retry_policy(node_id, policy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraphWarning)  # these graphs are odd on purpose
        return builder.build_graph()


def failure(text: str = "boom", error: BaseException | None = None) -> Failure:
    error = error or ValueError(text)
    names = tuple(f"{c.__module__}.{c.__qualname__}" for c in type(error).__mro__)
    return Failure(type(error).__name__, names, str(error), "", error)


class Broken(Exception):
    """What a test's node raises to stand for an infrastructure failure."""


Behave = Callable[[Launch], Any]
Route = Callable[[str, Any], str]


@dataclass
class Driven:
    """What happened to a machine that was driven to its end."""

    machine: SuperstepMachine
    launches: list[Launch] = field(default_factory=list)
    supersteps: list[list[str]] = field(default_factory=list)
    retries: list[ScheduleRetry] = field(default_factory=list)
    fallbacks: list[FallbackInvoked] = field(default_factory=list)
    dropped: list[StatesDropped] = field(default_factory=list)
    ended: list[SuperstepEnded] = field(default_factory=list)
    cancelled: int = 0
    result: Any = None
    failed: RunFailed | None = None
    restore: RestoreCheckpoint | None = None

    def inputs(self, node_id: str) -> list[tuple[Any, ...]]:
        return [launch.states for launch in self.launches if launch.node_id == node_id]


def drive(
    graph: Graph,
    behave: Behave = lambda launch: f"{launch.node_id}({','.join(map(str, launch.states))})",
    *,
    route: Route = lambda node_id, state: "end",
    initial: Any = "i",
    rng: random.Random | None = None,
    machine: SuperstepMachine | None = None,
    **options: Any,
) -> Driven:
    """Run a machine to its end. With `rng`, events come in random order and random batches."""
    if machine is None:
        machine = SuperstepMachine(graph, EngineOptions(**options))
        machine.begin(initial)
    out = Driven(machine)
    pending: list[Any] = []
    commands = machine.proceed()
    while True:
        for command in commands:
            match command:
                case Launch():
                    out.launches.append(command)
                    pending.append(_answer(command, behave))
                case SuperstepStarted():
                    out.supersteps.append([a.node_id for a in command.active])
                case ScheduleRetry():
                    out.retries.append(command)
                    pending.append(RetryDue(command.key))
                case FallbackInvoked():
                    out.fallbacks.append(command)
                case StatesDropped():
                    out.dropped.append(command)
                case AskRouter():
                    answer = route(command.node_id, command.state)
                    pending.append(
                        RouterAnswered(
                            command.epoch, command.superstep, command.index, command.edge, answer
                        )
                    )
                case SuperstepEnded():
                    out.ended.append(command)
                case CancelRest():
                    out.cancelled += 1
                    pending.clear()
                case RunFinished():
                    out.result = command.state
                    return out
                case RunFailed():
                    out.failed = command
                    return out
                case RestoreCheckpoint():
                    out.restore = command
                    return out
        if machine.phase is Phase.READY:
            commands = machine.proceed()
            continue
        assert pending, "the machine waits for nothing"
        if rng is None:
            batch, pending = pending, []
        else:
            rng.shuffle(pending)
            cut = rng.randint(1, len(pending))
            batch, pending = pending[:cut], pending[cut:]
        commands = machine.handle(batch)


def _answer(launch: Launch, behave: Behave) -> Any:
    try:
        value = behave(launch)
    except Broken as error:
        return AttemptFailed(launch.key, failure(str(error)), infrastructure=True)
    except Exception as error:
        return AttemptFailed(launch.key, failure(error=error))
    if isinstance(value, AttemptSucceeded | AttemptFailed | DeadlineExpired):
        return value
    return AttemptSucceeded(launch.key, value)
