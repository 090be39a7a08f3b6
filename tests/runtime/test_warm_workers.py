"""Warm workers: actors that are kept for a run's sync nodes, and treated as tasks are."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import psutil
import pytest

from graphorch_ray import (
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    node_action,
    routing_function,
)

from .nodes import echo, fallback, once, star
from .test_stretches import loop_of

pytestmark = pytest.mark.usefixtures("ray_session")

TURNS = 3_000  # a warm worker is there in a second or two; nobody needs as many


def actor_id():
    import ray

    return ray.get_runtime_context().get_actor_id()


@node_action
def note_actor(state):
    turn, *seen = state.messages
    return State([turn + 1, *seen, *([os.getpid()] if actor_id() else [])])


@routing_function
def until_an_actor(state):
    """In the driver, so that every turn is a round trip."""
    return "end" if len(state.messages) > 3 or state.messages[0] >= TURNS else "work"


def test_auto_starts_a_warm_worker_where_a_run_waits_for_round_trips_alone():
    executor = GraphExecutor(loop_of(note_actor, until_an_actor), State([0]), backend="ray")
    turns, *pids = executor.run(max_supersteps=TURNS + 2).messages
    assert turns > 10
    assert len(pids) == 3
    assert len(set(pids)) == 1
    psutil.wait_procs([psutil.Process(pid) for pid in set(pids) if psutil.pid_exists(pid)], 5)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_tasks_starts_none():
    @routing_function
    def enough(state):
        return "end" if state.messages[0] >= 40 else "work"

    executor = GraphExecutor(loop_of(note_actor, enough), State([0]), backend="ray", pool="tasks")
    assert executor.run(max_supersteps=100).messages == [40]


def test_an_unknown_pool_is_refused():
    with pytest.raises(ValueError, match="pool must be one of 'auto', 'tasks', 'actors'"):
        GraphExecutor(star(ProcessingNode("a", echo)), State([1]), pool="threads")


def kept(action, **options):
    """Run a loop on warm workers until its state's last message is True."""

    @routing_function
    def on(state):
        return "end" if state.messages[-1] is True else "work"

    executor = GraphExecutor(
        loop_of(action, on, **options),
        State([0, False]),
        backend="ray",
        pool="actors",
        retry_policy=RetryPolicy(1, 0),
    )
    return executor, executor.run(max_supersteps=TURNS, superstep_timeout=60)


def test_E6_a_warm_worker_that_dies_is_replaced_and_charged(tmp_path):
    @node_action
    def dies(state):
        turn = state.messages[0]
        if not actor_id():
            return State([turn + 1, False])
        if once(str(tmp_path / "died")):
            os.kill(os.getpid(), signal.SIGKILL)
        return State([turn + 1, True])

    executor, state = kept(dies)
    assert state.messages[-1] is True
    assert (tmp_path / "died").exists()
    assert executor.summary.workers_lost == 1
    assert executor.summary.infrastructure_failures == 1


def test_E9_a_timeout_kills_a_warm_worker_and_is_the_nodes_own(tmp_path):
    @node_action
    def hangs(state):
        turn = state.messages[0]
        if not actor_id():
            return State([turn + 1, False])
        if once(str(tmp_path / "hung")):
            time.sleep(600)
        return State([turn + 1, True])

    executor, state = kept(hangs, timeout=3.0)
    assert state.messages[-1] is True
    assert executor.summary.nodes["work"].timeouts == 1
    assert executor.summary.workers_lost == 0


def test_large_states_reach_warm_workers_as_references():
    @node_action
    def grow(state):
        turn = state.messages[0]
        return State([turn + 1, np.full(100_000, turn + 1.0), bool(actor_id()) and turn > 20])

    _, state = kept(grow)
    turn, array, _ = state.messages
    assert array.shape == (100_000,)
    assert float(array[0]) == turn


def test_a_wide_superstep_shares_warm_workers_with_tasks():
    nodes = [ProcessingNode(f"n{i}", note_actor) for i in range(300)]
    bad = ProcessingNode("bad", fallback)
    graph = star(*nodes, bad)
    executor = GraphExecutor(graph, State([0]), backend="ray", pool="actors", max_workers=4)
    answers = executor.run().messages
    assert len(answers) == 301
    assert all(executor.summary.nodes[node.node_id].attempts == 1 for node in nodes)
