"""The pieces of work that are compared, and each contender's way to do them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import ray

from graphorch_ray import (
    AggregatorNode,
    Graph,
    GraphBuilder,
    GraphExecutor,
    ProcessingNode,
    State,
    aggregator_action,
    node_action,
)

Contenders = dict[str, Callable[[], object]]


def star(action: Callable[..., object], count: int) -> Graph:
    """`count` nodes side by side, and an aggregator that adds up their first messages."""

    @aggregator_action
    def add_up(states: list[State]) -> State:
        return State([sum(state.messages[0] for state in states)])

    builder = GraphBuilder("benchmark")
    builder.add_aggregator(AggregatorNode("add_up", add_up))
    for i in range(count):
        builder.add_node(ProcessingNode(f"n{i}", action))
        builder.add_concrete_edge("start", f"n{i}")
        builder.add_concrete_edge(f"n{i}", "add_up")
    builder.add_concrete_edge("add_up", "end")
    return builder.build_graph()


def run(graph: Graph, max_workers: int) -> object:
    result = GraphExecutor(graph, State([1]), max_workers=max_workers, backend="ray").run()
    assert result is not None
    return result.messages[0]


def burn(seconds: float) -> int:
    """Use a core for some seconds of its time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return 1


@node_action
def burn_node(state: State) -> State:
    return State([burn(0.5)])


@node_action
def nothing_node(state: State) -> State:
    return state


@node_action
async def wait_node(state: State) -> State:
    await asyncio.sleep(1)
    return state


def cpu_bound() -> tuple[str, Contenders]:
    graph = star(burn_node, 8)

    def pool() -> object:
        with ProcessPoolExecutor(2) as executor:
            return sum(executor.map(burn, [0.5] * 8))

    return "8 CPU-bound nodes of 0.5 s, two at once", {
        "one process, one by one": lambda: sum(burn(0.5) for _ in range(8)),
        "ProcessPoolExecutor(2)": pool,
        "graphorch_ray, max_workers=2": lambda: run(graph, 2),
    }


def waiting() -> tuple[str, Contenders]:
    graph = star(wait_node, 1000)

    async def gathered() -> int:
        async def one() -> int:
            await asyncio.sleep(1)
            return 1

        return sum(await asyncio.gather(*[one() for _ in range(1000)]))

    return "1,000 async nodes that wait 1 s", {
        "asyncio.gather": lambda: asyncio.run(gathered()),
        "graphorch_ray, max_workers=1000": lambda: run(graph, 1000),
    }


def many_short() -> tuple[str, Contenders]:
    graph = star(nothing_node, 1000)

    @ray.remote
    def nothing(value: int) -> int:
        return value

    return "1,000 nodes that do nothing, and a join", {
        "raw Ray, one task each": lambda: sum(ray.get([nothing.remote(1) for _ in range(1000)])),
        "graphorch_ray, max_workers=2": lambda: run(graph, 2),
        "graphorch_ray, inline": lambda: (
            GraphExecutor(graph, State([1]), max_workers=4, backend="inline").run().messages[0]
        ),
    }


WORKS: dict[str, Callable[[], tuple[str, Contenders]]] = {
    "cpu_bound": cpu_bound,
    "waiting": waiting,
    "many_short": many_short,
}
