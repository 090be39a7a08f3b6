"""LangGraph with its own checkpoint savers, as its persistence guide shows them."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

SQLITE = "LangGraph, SQLite"
MEMORY = "LangGraph, in memory"
CONFIG: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": 1_000_000}


class Value(TypedDict):
    """A state of one value."""

    value: Any


def chain(action: Callable[[Any], Any], length: int) -> StateGraph[Any]:
    """Nodes one after another, each giving a new value."""
    builder = StateGraph(Value)
    builder.add_sequence([(f"n{i}", _node(action)) for i in range(length)])
    builder.add_edge(START, "n0")
    builder.add_edge(f"n{length - 1}", END)
    return builder


def loop(action: Callable[[Any], Any], times: int) -> StateGraph[Any]:
    """A node that is repeated until its value has reached a number."""
    builder = StateGraph(Value)
    builder.add_node("work", _node(action))
    builder.add_edge(START, "work")
    builder.add_conditional_edges("work", lambda state: END if state["value"] >= times else "work")
    return builder


def _node(action: Callable[[Any], Any]) -> Any:
    if not asyncio.iscoroutinefunction(action):
        return lambda state: {"value": action(state["value"])}

    async def call(state: Value) -> Value:
        return {"value": await action(state["value"])}

    return call


def run(builder: StateGraph[Any], value: Any, saver: BaseCheckpointSaver[Any] | None) -> Any:
    """Run a graph, each superstep saved before the next one begins."""
    durability: Any = {} if saver is None else {"durability": "sync"}
    return builder.compile(checkpointer=saver).invoke({"value": value}, CONFIG, **durability)[
        "value"
    ]


@contextmanager
def sqlite_saver(folder: Path) -> Iterator[SqliteSaver]:
    """A saver on a new database."""
    with closing(sqlite3.connect(folder / "saver.sqlite", check_same_thread=False)) as connection:
        yield SqliteSaver(connection)


def memory_saver() -> InMemorySaver:
    """A saver that keeps everything in this process."""
    return InMemorySaver()


def held_by(saver: InMemorySaver) -> int:
    """Bytes of all that an in-memory saver keeps."""
    return _bytes_in((dict(saver.storage), dict(saver.writes), dict(saver.blobs)))


def _bytes_in(value: Any) -> int:
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, dict):
        return sum(_bytes_in(key) + _bytes_in(item) for key, item in value.items())
    if isinstance(value, tuple | list):
        return sum(map(_bytes_in, value))
    return sys.getsizeof(value)
