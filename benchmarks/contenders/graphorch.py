"""graphorch_ray: the graphs that the works are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphorch_ray import (
    AggregatorNode,
    Graph,
    GraphBuilder,
    GraphExecutor,
    ProcessingNode,
    State,
    aggregator_action,
    routing_function,
)

NAME = "graphorch_ray"
MANY = 1_000_000
"""Supersteps at most: more than any work has."""


@aggregator_action
def add_up(states: list[State]) -> State:
    """The sum of the first messages."""
    return State([sum(state.messages[0] for state in states)])


def star(actions: Sequence[Callable[..., Any]], first: Callable[..., Any] | None = None) -> Graph:
    """Nodes side by side, after a first one if there is one, and the sum of what they give."""
    builder = GraphBuilder("star")
    builder.add_aggregator(AggregatorNode("add_up", add_up))
    origin = "start"
    if first is not None:
        origin = "first"
        builder.add_node(ProcessingNode(origin, first))
        builder.add_concrete_edge("start", origin)
    for number, action in enumerate(actions):
        builder.add_node(ProcessingNode(f"n{number}", action))
        builder.add_concrete_edge(origin, f"n{number}")
        builder.add_concrete_edge(f"n{number}", "add_up")
    builder.add_concrete_edge("add_up", "end")
    return builder.build_graph()


def chain(actions: Sequence[Callable[..., Any]]) -> Graph:
    """Nodes one after another."""
    builder = GraphBuilder("chain")
    before = "start"
    for number, action in enumerate(actions):
        builder.add_node(ProcessingNode(f"n{number}", action))
        builder.add_concrete_edge(before, f"n{number}")
        before = f"n{number}"
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()


def loop(action: Callable[..., Any], times: int, placement: str) -> Graph:
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
