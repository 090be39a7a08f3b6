"""Node functions for the tests of the runtime, importable by workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import psutil

from graphorch_ray import (
    AggregatorNode,
    Graph,
    GraphBuilder,
    Node,
    RetryPolicy,
    State,
    aggregator_action,
    current_execution,
    node_action,
)


@aggregator_action
def gather(states: list[State]) -> State:
    return State([state.messages for state in states])


@node_action
def echo(state: State) -> State:
    return state


@node_action
def label(state: State) -> State:
    return State([*state.messages, current_execution().node_id])


@node_action
async def alabel(state: State) -> State:
    return State([*state.messages, current_execution().node_id])


@node_action
def fallback(state: State) -> State:
    return State(["fallback"])


@node_action
def fail(state: State) -> State:
    raise ValueError("no luck")


def sleep_forever(state: State) -> State:
    _pid(state)
    time.sleep(600)
    return state


def stubborn(state: State) -> State:
    _pid(state)
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.05)


def c_call(state: State) -> State:
    _pid(state)
    re.match(r"(a+)+$", "a" * 64 + "b")
    return state


async def block_loop(state: State) -> State:
    _pid(state)
    time.sleep(600)
    return state


STUCK = [sleep_forever, stubborn, c_call, block_loop]


def _pid(state: State) -> None:
    """Write down which process is about to be stuck; the state's first message says where."""
    with open(state.messages[0], "a") as file:
        file.write(f"{os.getpid()}\n")


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def gone(path: Path, seconds: float = 2.0) -> bool:
    """Whether every process that was stuck has ended, waiting a moment for the kernel."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(psutil.pid_exists(pid) for pid in pids(path)):
            return True
        time.sleep(0.02)
    return False


def once(path: str) -> bool:
    """True the first time it is asked about a path, over all processes."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


@node_action
def exit_once(state: State) -> State:
    if once(state.messages[0]):
        os._exit(3)
    return State(["survived"])


@node_action
def killed_once(state: State) -> State:
    if once(state.messages[0]):
        os.kill(os.getpid(), signal.SIGKILL)
    return State(["survived"])


@node_action
async def async_killed_once(state: State) -> State:
    if once(state.messages[0]):
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(0.2)
    return State(["survived"])


@node_action
def always_killed(state: State) -> State:
    os.kill(os.getpid(), signal.SIGKILL)
    return state


def star(
    *nodes: Node,
    fallbacks: dict[str, Node] | None = None,
    policies: dict[str, RetryPolicy] | None = None,
    join: Any = gather,
) -> Graph:
    """start, all nodes side by side, a join, end."""
    builder = GraphBuilder("star")
    builder.add_aggregator(AggregatorNode("join", join))
    for node in nodes:
        builder.add_node(node)
        builder.add_concrete_edge("start", node.node_id)
        builder.add_concrete_edge(node.node_id, "join")
    for node_id, node in (fallbacks or {}).items():
        builder.add_node(node)
        builder.set_fallback_node(node_id, node.node_id)
    for node_id, policy in (policies or {}).items():
        builder.set_node_retry_policy(node_id, policy)
    builder.add_concrete_edge("join", "end")
    return builder.build_graph()


def chain(*nodes: Node) -> Graph:
    """start, one node after another, end."""
    builder = GraphBuilder("chain")
    before = "start"
    for node in nodes:
        builder.add_node(node)
        builder.add_concrete_edge(before, node.node_id)
        before = node.node_id
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()
