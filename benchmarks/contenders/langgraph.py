"""LangGraph: `StateGraph` with reducers, `Send` for map-reduce, as its guides show them."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from . import saver

CONFIG: Any = {"recursion_limit": 1_000_000}


class Collected(TypedDict, total=False):
    """What nodes side by side give, and the join of it."""

    value: Any
    results: Annotated[list[int], operator.add]
    total: int


def _join(state: Collected) -> Collected:
    return {"total": sum(state["results"])}


def _caller(function: Callable[[Any], int], value: Any) -> Any:
    return lambda state: {"results": [function(value)]}


def _run(graph: Any, given: Any, key: str) -> Callable[[], Any]:
    return lambda: graph.invoke(given, CONFIG)[key]


def _run_async(graph: Any, given: Any, key: str) -> Callable[[], Any]:
    return lambda: asyncio.run(graph.ainvoke(given, CONFIG))[key]


def fan_out(function: Callable[[Any], int], inputs: Sequence[Any]) -> Callable[[], int]:
    """One node for each input: the same graph as ours."""
    builder: Any = StateGraph(Collected)
    builder.add_node("join", _join)
    for number, value in enumerate(inputs):
        builder.add_node(f"n{number}", _caller(function, value))
        builder.add_edge(START, f"n{number}")
    builder.add_edge([f"n{number}" for number in range(len(inputs))], "join")
    builder.add_edge("join", END)
    return _run(builder.compile(), {"results": []}, "total")


def fan_out_send(function: Callable[[Any], int], inputs: Sequence[Any]) -> Callable[[], int]:
    """One node that is sent each input."""
    return _run(_mapped(lambda state: {"results": [function(state["value"])]}, inputs), {}, "total")


def fan_out_async(function: Callable[[Any], Any], inputs: Sequence[Any]) -> Callable[[], int]:
    """One async node that is sent each input."""

    async def call(state: Collected) -> Collected:
        return {"results": [await function(state["value"])]}

    return _run_async(_mapped(call, inputs), {}, "total")


def _mapped(node: Any, inputs: Sequence[Any]) -> Any:
    builder: Any = StateGraph(Collected)
    builder.add_node("work", node)
    builder.add_node("join", _join)
    builder.add_conditional_edges(
        START, lambda state: [Send("work", {"value": value}) for value in inputs], ["work"]
    )
    builder.add_edge("work", "join")
    builder.add_edge("join", END)
    return builder.compile()


def chain(function: Callable[[Any], Any], value: Any, length: int) -> Callable[[], Any]:
    return _run(saver.chain(function, length).compile(), {"value": value}, "value")


def chain_async(function: Callable[[Any], Any], value: Any, length: int) -> Callable[[], Any]:
    graph = saver.chain(_as_coroutine(function), length).compile()
    return _run_async(graph, {"value": value}, "value")


def loop(function: Callable[[Any], Any], value: Any, times: int) -> Callable[[], Any]:
    return _run(saver.loop(function, times).compile(), {"value": value}, "value")


def loop_async(function: Callable[[Any], Any], value: Any, times: int) -> Callable[[], Any]:
    graph = saver.loop(_as_coroutine(function), times).compile()
    return _run_async(graph, {"value": value}, "value")


def _as_coroutine(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def call(value: Any) -> Any:
        return function(value)

    return call
