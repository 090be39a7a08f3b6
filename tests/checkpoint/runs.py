"""Graphs, and a ledger of what they did, for tests of whole runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphorch_ray import (
    AggregatorNode,
    Graph,
    GraphBuilder,
    ProcessingNode,
    State,
    aggregator_action,
    current_execution,
    node_action,
)

ROUTES = [("start", "a"), ("a", "left"), ("a", "right"), ("left", "join"), ("right", "join")]


class Ledger:
    """What nodes did, outside of the run. Travels to workers."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def note(self, what: str = "") -> int:
        """Write down the execution that asks; gives how often this node has done so."""
        here = current_execution()
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        line = f"{here.superstep} {what or here.node_id} {here.idempotency_key}\n"
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)
        return self.nodes().count(what or here.node_id)

    def lines(self) -> list[list[str]]:
        """Superstep, node, and key of each execution."""
        path = Path(self.path)
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def nodes(self) -> list[str]:
        """The nodes that ran, in order."""
        return [node for _, node, _ in self.lines()]

    def keys(self) -> dict[str, str]:
        """The last idempotency key of each node."""
        return {node: key for _, node, key in self.lines()}

    def clear(self) -> None:
        """Forget what was done."""
        Path(self.path).unlink(missing_ok=True)


def chain_of(*functions: tuple[str, Callable[[Any], Any]], name: str = "chain") -> Graph:
    """start, one node after another, end."""
    builder = GraphBuilder(name)
    before = "start"
    for node_id, function in functions:
        builder.add_node(ProcessingNode(node_id, node_action(function)))
        builder.add_concrete_edge(before, node_id)
        before = node_id
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()


def steps(ledger: Ledger, *, count: int = 4, broken: str = "") -> Graph:
    """A chain n1, n2, ... that notes what it does; node `broken` fails until the file is there.

    Give the path of a file as `broken=f"n3:{path}"`.
    """
    broken_id, _, path = broken.partition(":")

    def step(state: State) -> State:
        here = current_execution().node_id
        ledger.note()
        if here == broken_id and not os.path.exists(path):
            raise ValueError(f"{here} is broken")
        return State([*state.messages, here])

    return chain_of(*((f"n{number}", step) for number in range(1, count + 1)))


def diamond(left: Callable[[Any], Any], right: Callable[[Any], Any]) -> Graph:
    """start, a, two nodes side by side, a join, end."""

    def first(state: State) -> State:
        return State([*state.messages, "a"])

    @aggregator_action
    def join(states: list[State]) -> State:
        return State([state.messages for state in states])

    builder = GraphBuilder("diamond")
    builder.add_node(ProcessingNode("a", node_action(first)))
    builder.add_node(ProcessingNode("left", node_action(left)))
    builder.add_node(ProcessingNode("right", node_action(right)))
    builder.add_aggregator(AggregatorNode("join", join))
    for source, sink in [*ROUTES, ("join", "end")]:
        builder.add_concrete_edge(source, sink)
    return builder.build_graph()
