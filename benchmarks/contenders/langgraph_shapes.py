"""LangGraph: the shapes of its own benchmarks."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from benchmarks import agents

from .langgraph import CONFIG


class Branch(TypedDict, total=False):
    """One branch."""

    subject: str
    text: str


class BranchOut(TypedDict):
    """What a branch gives to the whole."""

    texts: list[str]


class Whole(TypedDict, total=False):
    """All branches."""

    subjects: list[str]
    texts: Annotated[list[str], operator.add]


class Conversation(TypedDict):
    """An agent's messages."""

    messages: Annotated[list[Any], operator.add]


def _way(graph: Any, given: Any, awaited: bool) -> Callable[[], Any]:
    if awaited:
        return lambda: asyncio.run(graph.ainvoke(given, CONFIG))
    return lambda: graph.invoke(given, CONFIG)


def _node(function: Callable[[Any], Any], awaited: bool) -> Any:
    """A node of the kind that the graph is called by."""
    if not awaited:
        return function

    async def call(state: Any) -> Any:
        return function(state)

    # LangGraph takes a node's input from its annotations; there, as without them, the whole state.
    del call.__annotations__["state"]
    return call


def _update(step: str, state: Any) -> agents.Fields:
    return agents.update_of(step, state)


def branches(count: int, awaited: bool = False) -> Callable[[], list[str]]:
    """A subgraph that is sent each subject."""
    inner: Any = StateGraph(Branch, output_schema=BranchOut)
    steps = {
        "edit": lambda state: {"subject": agents.edit(state["subject"])},
        "generate": lambda state: {"text": agents.generate(state["subject"])},
        "bump": lambda state: {"text": agents.bump(state["text"])},
        "give": lambda state: {"texts": [state["text"]]},
    }
    for name, function in steps.items():
        inner.add_node(name, _node(function, awaited))
    inner.add_edge(START, "edit")
    inner.add_edge("edit", "generate")
    inner.add_edge("generate", "bump")
    inner.add_conditional_edges(
        "bump", lambda state: "give" if agents.bumped_enough(state["text"]) else "bump"
    )
    inner.add_edge("give", END)
    whole: Any = StateGraph(Whole)
    whole.add_node("branch", inner.compile())
    whole.add_conditional_edges(
        START,
        lambda state: [Send("branch", {"subject": subject}) for subject in state["subjects"]],
        ["branch"],
    )
    whole.add_edge("branch", END)
    given = {"subjects": [f"subject {number}" for number in range(count)]}
    run = _way(whole.compile(), given, awaited)
    return lambda: run()["texts"]


def agent(calls: int, awaited: bool = False) -> Callable[[], list[agents.Fields]]:
    builder: Any = StateGraph(Conversation)
    steps = {
        "model": lambda state: {"messages": [agents.fake_model(state["messages"], calls)]},
        "tool": lambda state: {"messages": [agents.fake_tool(state["messages"])]},
    }
    for name, function in steps.items():
        builder.add_node(name, _node(function, awaited))
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda state: "tool" if state["messages"][-1]["call"] else END
    )
    builder.add_edge("tool", "model")
    given = {"messages": [{"role": "user", "content": "hi", "call": None}]}
    run = _way(builder.compile(), given, awaited)
    return lambda: run()["messages"]


def wide(width: int, messages: int, awaited: bool = False) -> Callable[[], Any]:
    fields = {name: Annotated[Any, reducer] for name, reducer in agents.REDUCERS.items()}
    builder: Any = StateGraph(TypedDict("Wide", fields, total=False))  # type: ignore[operator]
    for name in agents.STEPS:
        builder.add_node(name, _node(partial(_update, name), awaited))
    for source, sink in [(START, "one"), ("one", "two"), ("two", "three"), ("two", "four")]:
        builder.add_edge(source, sink)
    builder.add_edge(["three", "four"], "five")
    builder.add_edge("five", "six")
    builder.add_conditional_edges(
        "six", lambda state: END if len(state["messages"]) > messages else "one"
    )
    return _way(builder.compile(), agents.first_fields(width), awaited)
