"""Nodes and helpers for the tests of hosted runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from graphorch_ray import Graph, ProcessingNode, RunHandle, State, current_execution, node_action
from tests.runtime.nodes import chain

SECONDS = 60.0


@node_action
def step(state: State) -> State:
    """Write down the superstep, and wait there while a file named after it is missing.

    Messages are a folder and the supersteps so far. Only supersteps with a ``gate-N`` wait.
    """
    folder, *done = state.messages
    superstep = current_execution().superstep
    with Path(folder, "ledger").open("a") as ledger:
        ledger.write(f"{superstep}\n")
    end = time.monotonic() + SECONDS
    while Path(folder, f"gate-{superstep}").exists() and time.monotonic() < end:
        time.sleep(0.02)
    return State([folder, *done, superstep])


def steps(count: int = 4) -> Graph:
    return chain(*(ProcessingNode(f"step{i}", step) for i in range(1, count + 1)))


def ledger(folder: Path) -> list[int]:
    path = folder / "ledger"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def kill_driver(handle: RunHandle) -> int:
    """Kill the process of a hosted run's driver; gives how often it had been replaced before."""
    from ray._private.state import actors

    driver = actors(handle._actor_id)
    os.kill(driver["Pid"], signal.SIGKILL)
    return driver["NumRestarts"]
