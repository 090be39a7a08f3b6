"""A run that writes down all it does, to be killed anywhere: a loop, a diamond, a join, a fallback.

Started as a program: ``python -m tests.chaos.sweep BACKEND URL LEDGER [GRANULARITY DURABILITY]``.
It begins a run, or goes on with the one in the place, and prints the final state.
"""

from __future__ import annotations

import os
import random
import sys
import time
from typing import Any

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

ROUNDS = 4


def note(ledger: str) -> None:
    """Write down, in one step, that this node runs in this superstep."""
    here = current_execution()
    line = f"{here.superstep} {here.node_id} {here.role} {here.idempotency_key}\n"
    handle = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def build(ledger: str, *, pause: float = 0.0) -> Graph:
    """The graph; each node takes `pause` seconds at most."""

    def wait() -> None:
        if pause:
            time.sleep(random.random() * pause)

    @node_action
    def begin(state: State) -> State:
        note(ledger)
        wait()
        return State([*state.messages, len(state.messages)])

    @node_action
    def left(state: State) -> State:
        note(ledger)
        wait()
        return State([*state.messages, "left", b"x" * 100_000])

    @node_action
    async def right(state: State) -> State:
        note(ledger)
        raise ValueError("right never works")

    @node_action
    def instead(state: State) -> State:
        note(ledger)
        wait()
        return State([*state.messages, "instead"])

    @aggregator_action
    def join(states: list[State]) -> State:
        note(ledger)
        wait()
        parts: list[Any] = [[m for m in s.messages if not isinstance(m, bytes)] for s in states]
        return State([sum(len(part) for part in parts), *parts[0][:3], parts[1][-1]])

    @routing_function
    def again(state: State) -> str:
        return "begin" if state.messages[0] < 12 * ROUNDS else "end"

    builder = GraphBuilder("sweep")
    builder.add_node(ProcessingNode("begin", begin))
    builder.add_node(ProcessingNode("left", left))
    builder.add_node(ProcessingNode("right", right))
    builder.add_node(ProcessingNode("instead", instead))
    builder.add_aggregator(AggregatorNode("join", join))
    builder.add_node(ProcessingNode("count", node_action(lambda state: count(state, ledger))))
    builder.add_concrete_edge("start", "begin")
    for sink in ("left", "right"):
        builder.add_concrete_edge("begin", sink)
        builder.add_concrete_edge(sink, "join")
    builder.add_concrete_edge("join", "count")
    builder.add_conditional_edge("count", ["begin", "end"], again)
    builder.set_fallback_node("right", "instead")
    return builder.build_graph()


def count(state: State, ledger: str) -> State:
    """Add a round's length to what is counted."""
    note(ledger)
    total = state.messages[0] + sum(isinstance(m, int) and m for m in state.messages[1:])
    return State([total + 6, *state.messages[1:]])


def go(backend: Any, url: str, ledger: str, settings: dict[str, Any], pause: float) -> State | None:
    """Go on with the run in the place, or begin one."""
    graph = build(ledger, pause=pause)
    try:
        executor = GraphExecutor.resume(url, graph, backend=backend, **settings)
    except FileNotFoundError:
        executor = GraphExecutor(
            graph, State([1]), checkpoint_path=url, checkpoint_every=1, backend=backend, **settings
        )
    return executor.run()


if __name__ == "__main__":
    backend, url, ledger, granularity, durability, pause = sys.argv[1:7]
    how = {"checkpoint_granularity": granularity, "checkpoint_durability": durability}
    print("FINAL", go(backend, url, ledger, how, float(pause)), flush=True)
