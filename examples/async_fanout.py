"""500 HTTP calls, a hundred at a time, by async nodes that share a few worker processes.

    python examples/async_fanout.py

An `async def` node waits without keeping a process or a core to itself, so `max_workers` may be
as large as the other side can bear; here it bears a hundred calls at once. The server is started
by this program, on this machine, and takes a tenth of a second over each answer.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from graphorch_ray import (
    AggregatorNode,
    Graph,
    GraphBuilder,
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    aggregator_action,
    node_action,
)

ANSWER_SECONDS = 0.1


def fetch(number: int) -> Callable[[State], Coroutine[Any, Any, State]]:
    """Make the action of one call. State: the server's address in; its answer out."""

    @node_action(timeout=30)
    async def fetch_one(state: State) -> State:
        # Plain HTTP: loading certificates for each call would cost more than all the rest.
        async with httpx.AsyncClient(verify=False) as client:
            answer = await client.get(f"{state.messages[0]}/square/{number}")
        answer.raise_for_status()
        return State([int(answer.text)])

    return fetch_one


@aggregator_action
def add_up(states: list[State]) -> State:
    return State([sum(state.messages[0] for state in states)])


def build_graph(calls: int) -> Graph:
    builder = GraphBuilder("async_fanout")
    builder.add_aggregator(AggregatorNode("add_up", add_up))
    for number in range(calls):
        builder.add_node(ProcessingNode(f"fetch_{number}", fetch(number)))
        builder.add_concrete_edge("start", f"fetch_{number}")
        builder.add_concrete_edge(f"fetch_{number}", "add_up")
    builder.add_concrete_edge("add_up", "end")
    return builder.build_graph()


def main(calls: int = 500, at_once: int = 100) -> None:
    graph = build_graph(calls)
    with server() as address:
        executor = GraphExecutor(
            graph,
            State([address]),
            max_workers=at_once,
            retry_policy=RetryPolicy(max_retries=2, delay=0.1),  # a call may fail by chance
        )
        result = executor.run()
    assert result is not None
    assert result.messages == [sum(n * n for n in range(calls))]
    seconds = executor.summary.superstep_seconds[1]
    print(f"{calls} calls in {seconds:.2f} s; one after another, {calls * ANSWER_SECONDS:.1f} s")
    where = f"{executor.summary.processes} worker processes"
    print(f"in {where if executor.backend == 'ray' else 'this process'}")
    print(f"sum of squares: {result.messages[0]:,}")


# --- the other side: a small HTTP server on asyncio ---------------------------------------------


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await reader.readuntil(b"\r\n\r\n")
    number = int(request.split(b" ")[1].rpartition(b"/")[2])
    await asyncio.sleep(ANSWER_SECONDS)
    body = str(number * number).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    writer.close()


@contextmanager
def server() -> Iterator[str]:
    """Serve in a thread of this process; gives the address."""
    loop = asyncio.new_event_loop()
    started = threading.Event()
    address: list[str] = []

    async def serve() -> None:
        listening = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
        host, port = listening.sockets[0].getsockname()
        address.append(f"http://{host}:{port}")
        started.set()
        async with listening:
            await done.wait()

    done = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    started.wait()
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    print(f"the whole program, Ray's start included: {time.perf_counter() - began:.1f} s")
