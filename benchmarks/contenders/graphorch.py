"""graphorch_ray itself, and the graphs that the works are made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.measuring import Measured
from graphorch_ray import (
    AggregatorNode,
    Graph,
    GraphBuilder,
    GraphExecutor,
    ProcessingNode,
    State,
    aggregator_action,
    current_execution,
    node_action,
    routing_function,
)

NAME = "graphorch_ray"
PROCESSES = "processes"
MANY = 1_000_000
"""Supersteps at most: more than any work has."""


@aggregator_action
def add_up(states: list[State]) -> State:
    """The sum of the first messages."""
    return State([sum(state.messages[0] for state in states)])


def star_of(action: Callable[..., Any], count: int, join: Callable[..., Any] = add_up) -> Graph:
    """Nodes side by side, and an aggregator of what they give."""
    builder = GraphBuilder("star")
    builder.add_aggregator(AggregatorNode("add_up", join))
    for number in range(count):
        builder.add_node(ProcessingNode(f"n{number}", action))
        builder.add_concrete_edge("start", f"n{number}")
        builder.add_concrete_edge(f"n{number}", "add_up")
    builder.add_concrete_edge("add_up", "end")
    return builder.build_graph()


def chain_of(actions: Sequence[Callable[..., Any]]) -> Graph:
    """Nodes one after another."""
    builder = GraphBuilder("chain")
    before = "start"
    for number, action in enumerate(actions):
        builder.add_node(ProcessingNode(f"n{number}", action))
        builder.add_concrete_edge(before, f"n{number}")
        before = f"n{number}"
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()


def loop_of(action: Callable[..., Any], times: int, placement: str) -> Graph:
    """A node that is repeated until its first message has reached a number."""

    @routing_function(placement=placement)  # type: ignore[call-overload]
    def again(state: State) -> str:
        return "end" if state.messages[0] >= times else "work"

    builder = GraphBuilder("loop")
    builder.add_node(ProcessingNode("work", action))
    builder.add_concrete_edge("start", "work")
    builder.add_conditional_edge("work", ["work", "end"], again)
    return builder.build_graph()


def run(graph: Graph, state: State, **options: Any) -> State:
    """Run a graph to its end, on Ray unless another backend is named."""
    executor = GraphExecutor(graph, state, **{"backend": "ray", **options})
    result = executor.run(max_supersteps=MANY)
    assert result is not None
    return result


def node_of(function: Callable[[Any], Any]) -> Callable[..., Any]:
    """A node that calls a function with its first message."""

    @node_action
    def call(state: State) -> State:
        return State([function(state.messages[0])])

    return call


def fan_out(
    function: Callable[[Any], int], inputs: Sequence[Any], **options: Any
) -> Callable[[], int]:
    """One function for all nodes; where their inputs differ, a node's number tells its own."""
    if len(set(inputs)) == 1:
        return share(function, inputs[0], len(inputs), **options)

    @node_action
    def call(state: State) -> State:
        return State([function(inputs[int(current_execution().node_id[1:])])])

    return _prepared(star_of(call, len(inputs)), 0, options)


def fan_out_async(
    function: Callable[[Any], Any], inputs: Sequence[Any], **options: Any
) -> Callable[[], Measured]:
    """It also tells in how many processes the nodes ran."""

    @node_action
    async def call(state: State) -> State:
        return State([await function(state.messages[0]), os.getpid()])

    @aggregator_action
    def join(states: list[State]) -> State:
        counts, processes = zip(*(state.messages for state in states), strict=True)
        return State([sum(counts), len(set(processes))])

    graph = star_of(call, len(inputs), join)

    def once() -> Measured:
        total, processes = run(graph, State([inputs[0]]), **options).messages
        return Measured(total, {PROCESSES: processes})

    return once


def share(
    function: Callable[[Any], int], value: Any, count: int, **options: Any
) -> Callable[[], int]:
    return _prepared(star_of(node_of(function), count), value, options)


def chain(
    function: Callable[[Any], Any], value: Any, length: int, **options: Any
) -> Callable[[], Any]:
    return _prepared(chain_of([node_of(function)] * length), value, options)


def loop(
    function: Callable[[Any], Any], value: Any, times: int, placement: str, **options: Any
) -> Callable[[], Any]:
    return _prepared(loop_of(node_of(function), times, placement), value, options)


def _prepared(graph: Graph, value: Any, options: dict[str, Any]) -> Callable[[], Any]:
    return lambda: run(graph, State([value]), **options).messages[0]
