"""Workers killed at random moments: every run still ends right, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time

import psutil
import pytest

from graphorch_ray import (
    AIActionBase,
    AINode,
    GraphBuilder,
    GraphExecutor,
    GraphWarning,
    ProcessingNode,
    State,
    node_action,
    routing_function,
)
from tests.runtime.nodes import gather

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("ray_session")]

ROUNDS = 2
RUNS = 15


@node_action
def sync_work(state):
    end = time.perf_counter() + 0.02
    while time.perf_counter() < end:
        pass
    return State([*state.messages, "sync"])


@node_action
async def async_work(state):
    await asyncio.sleep(0.05)
    return State([*state.messages, "async"])


class Model(AIActionBase):
    def build_model(self):
        self.model = "model"

    def process_state(self, state):
        time.sleep(0.01)
        return State([*state.messages, self.model])


@node_action
def flatten(state):
    return State([len(state.messages), *sorted(str(message) for message in state.messages)])


@routing_function
def again(state):
    return "end" if len(str(state.messages)) > 2500 else "spread"


def graph():
    from graphorch_ray import AggregatorNode, pass_through

    builder = GraphBuilder("chaos")
    builder.add_node(ProcessingNode("spread", pass_through))
    builder.add_aggregator(AggregatorNode("join", gather))
    builder.add_node(ProcessingNode("flatten", flatten))
    builder.add_concrete_edge("start", "spread")
    nodes = [ProcessingNode(f"s{i}", sync_work) for i in range(4)]
    nodes += [ProcessingNode(f"a{i}", async_work) for i in range(8)]
    nodes += [AINode("m", "a model", Model({}))]
    for node in nodes:
        builder.add_node(node)
        builder.add_concrete_edge("spread", node.node_id)
        builder.add_concrete_edge(node.node_id, "join")
    builder.add_concrete_edge("join", "flatten")
    builder.add_conditional_edge("flatten", ["spread", "end"], again)
    return builder.build_graph()


class Killer:
    """Kills a random worker process of this Ray now and then."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go)
        self.killed = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._thread.join()

    def _go(self):
        while not self._over.wait(self._random.uniform(0.5, 2.5)):
            workers = busy_workers()
            if workers:
                try:
                    os.kill(self._random.choice(workers), signal.SIGKILL)
                    self.killed += 1
                except ProcessLookupError:
                    continue


def busy_workers() -> list[int]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline()).strip()
        except psutil.Error:
            continue
        if title.startswith("ray::") and not title.startswith(
            ("ray::IDLE", "ray::Dash", "ray::Run")
        ):
            found.append(process.pid)
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_E6_runs_survive_workers_killed_at_random(seed):
    expected = GraphExecutor(graph(), State(["x"]), backend="inline").run()
    lost = 0
    with Killer(seed) as killer:
        for _ in range(RUNS):
            executor = GraphExecutor(
                graph(), State(["x"]), max_workers=4, backend="ray", infrastructure_retries=50
            )
            assert executor.run(superstep_timeout=120) == expected
            lost += executor.summary.workers_lost
    assert killer.killed > 0
    assert lost > 0


@pytest.mark.timeout(300)
def test_E9_superstep_timeouts_at_random_instants_leave_nothing_running():
    from graphorch_ray import GraphExecutionError

    source = random.Random(7)
    timed_out = 0
    for _ in range(40):
        executor = GraphExecutor(graph(), State(["x"]), max_workers=16, backend="ray")
        try:
            executor.run(superstep_timeout=source.uniform(0.02, 0.5))
        except GraphExecutionError as error:
            timed_out += "timed out" in str(error)
    assert timed_out > 5
    end = time.monotonic() + 10
    while busy_workers() and time.monotonic() < end:
        time.sleep(0.1)
    assert busy_workers() == []


@pytest.fixture(autouse=True)
def _slow_machine():
    """A busy machine may make a node look as if it blocked its loop: only a warning."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraphWarning)
        yield
