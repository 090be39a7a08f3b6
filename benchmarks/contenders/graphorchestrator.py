"""GraphOrchestrator, whose programs run here with other imports. It needs Python 3.12."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any

if sys.hexversion < 0x030C0000:
    raise ImportError("it needs Python 3.12 or newer")

from graphorchestrator.core.state import State
from graphorchestrator.decorators.actions import (
    aggregator_action,
    node_action,
    routing_function,
)
from graphorchestrator.graph.builder import GraphBuilder
from graphorchestrator.graph.executor import GraphExecutor
from graphorchestrator.nodes.nodes import AggregatorNode, ProcessingNode


def _node(function: Callable[[Any], Any]) -> Any:
    return node_action(lambda state: State([function(state.messages[0])]))


def _run(builder: Any, value: Any, workers: int = 4) -> Callable[[], Any]:
    graph = builder.build_graph()

    def run() -> Any:
        executor = GraphExecutor(graph, State([value]), max_workers=workers)
        return asyncio.run(executor.execute(max_supersteps=1_000_000)).messages[0]

    return run


def fan_out(function: Callable[[Any], int], inputs: Sequence[Any]) -> Callable[[], int]:
    builder = GraphBuilder("star")

    @aggregator_action
    def add_up(states: list[Any]) -> Any:
        return State([sum(state.messages[0] for state in states)])

    builder.add_aggregator(AggregatorNode("add_up", add_up))
    for number, value in enumerate(inputs):
        action = node_action(lambda state, value=value: State([function(value)]))
        builder.add_node(ProcessingNode(f"n{number}", action))
        builder.add_concrete_edge("start", f"n{number}")
        builder.add_concrete_edge(f"n{number}", "add_up")
    builder.add_concrete_edge("add_up", "end")
    return _run(builder, 0)


def chain(function: Callable[[Any], Any], value: Any, length: int) -> Callable[[], Any]:
    builder = GraphBuilder("chain")
    before = "start"
    for number in range(length):
        builder.add_node(ProcessingNode(f"n{number}", _node(function)))
        builder.add_concrete_edge(before, f"n{number}")
        before = f"n{number}"
    builder.add_concrete_edge(before, "end")
    return _run(builder, value)


def loop(function: Callable[[Any], Any], value: Any, times: int) -> Callable[[], Any]:
    @routing_function
    def again(state: Any) -> str:
        return "end" if state.messages[0] >= times else "work"

    builder = GraphBuilder("loop")
    builder.add_node(ProcessingNode("work", _node(function)))
    builder.add_concrete_edge("start", "work")
    builder.add_conditional_edge("work", ["work", "end"], again)
    return _run(builder, value)
