"""W10: the shapes of LangGraph's own benchmarks, as equal graphs on both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.contenders import use
from benchmarks.measuring import Goal, Work

OURS = "graphorch_ray"


def _work(key: str, title: str, shape: str, sizes: tuple[int, ...]) -> Work:
    def answer(run: Callable[[], Any]) -> Callable[[], str]:
        return lambda: _plain(run())

    return Work(
        key,
        title,
        {
            OURS: answer(use("graphorch_shapes", shape, *sizes)),
            "graphorch_ray, inline": answer(
                use("graphorch_shapes", shape, *sizes, backend="inline")
            ),
            "LangGraph": answer(use("langgraph_shapes", shape, *sizes)),
            "LangGraph, async": answer(use("langgraph_shapes", shape, *sizes, awaited=True)),
        },
        [Goal(OURS, 1.0, "LangGraph"), Goal(OURS, 1.0, "LangGraph, async")],
        note="LangGraph and inline run in one process.",
    )


def _plain(value: Any) -> str:
    """What tells whether two final states are equal, in some bytes."""
    if isinstance(value, dict):
        return f"{len(value['messages'])} messages, {sorted(value)}"
    return f"{len(value)} items, {value[0]!r:.60} to {value[-1]!r:.60}"


def branches(quick: bool) -> Work:
    """W10a."""
    count = 5 if quick else 100
    return _work(
        "W10a", f"{count} branches that each loop ten times, and a join", "branches", (count,)
    )


def agent(quick: bool) -> Work:
    """W10b."""
    calls = 5 if quick else 100
    return _work("W10b", f"an agent loop of {calls} tool calls, a fake model", "agent", (calls,))


def wide(quick: bool) -> Work:
    """W10c."""
    sizes = (5, 20) if quick else (25, 300)
    title = f"15 fields, dictionaries and lists of {sizes[0]}, until {sizes[1]} messages"
    return _work("W10c", title, "wide", sizes)


WORKS: dict[str, Callable[[bool], Work]] = {"W10a": branches, "W10b": agent, "W10c": wide}
