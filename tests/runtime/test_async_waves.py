"""Async nodes run on event loops that they share: a task's for a wave, an actor's for the rest."""

from __future__ import annotations

import _thread
import asyncio
import os
import signal
import time

import psutil
import pytest

from graphorch_ray import (
    GraphExecutionError,
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    current_execution,
    node_action,
)
from graphorch_ray.runtime.on_ray.worker import _interruptible

from .nodes import gone, star

pytestmark = pytest.mark.usefixtures("ray_session")


def executor_of(graph, state, **options):
    return GraphExecutor(graph, state, backend="ray", **options)


@node_action
async def pid(state):
    await asyncio.sleep(0.05)
    return State([os.getpid()])


def test_a_wave_runs_in_a_process_that_is_there_and_leaves_it_there():
    graph = star(*[ProcessingNode(f"n{i}", pid) for i in range(50)])
    first = executor_of(graph, State([]), max_workers=50).run()
    used = {messages[0] for messages in first.messages}
    assert len(used) == 1
    assert all(psutil.pid_exists(found) for found in used)
    assert os.getpid() not in used


def test_what_the_first_wave_does_not_hold_follows_as_slots_come_free():
    graph = star(*[ProcessingNode(f"n{i}", pid) for i in range(60)])
    executor = executor_of(graph, State([]), max_workers=20)
    assert len(executor.run(superstep_timeout=60).messages) == 60
    assert executor.summary.processes <= 5  # four workers, and the one that joined


def test_E8_a_wave_that_is_cancelled_cleans_up_and_its_process_lives_on(tmp_path):
    @node_action
    async def wait(state):
        (tmp_path / f"began-{current_execution().index}").write_text(str(os.getpid()))
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.5)
            (tmp_path / f"cleaned-{current_execution().index}").touch()

    @node_action
    async def fail_soon(state):
        while len(list(tmp_path.glob("began-*"))) < 20:
            await asyncio.sleep(0.02)
        raise ValueError("enough")

    nodes = [ProcessingNode(f"n{i}", wait) for i in range(20)]
    graph = star(*nodes, ProcessingNode("fails", fail_soon))
    with pytest.raises(GraphExecutionError, match="'fails': enough"):
        executor_of(graph, State([]), max_workers=30).run(superstep_timeout=60)
    assert len(list(tmp_path.glob("cleaned-*"))) == 20
    (worker,) = {int(path.read_text()) for path in tmp_path.glob("began-*")}
    assert psutil.pid_exists(worker)


def test_E8_a_wave_hears_of_its_end_also_where_SIGINT_is_ignored():
    """As it is in the workers of a Ray that was started by what `nohup` has started."""

    @_interruptible()
    def interrupted():
        _thread.interrupt_main()  # what Ray's gentle cancel does
        time.sleep(5)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_E9_a_coroutine_that_will_not_stop_ends_with_its_process(tmp_path):
    @node_action
    async def stubborn(state):
        (tmp_path / "pid").write_text(str(os.getpid()))
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                continue

    nodes = [ProcessingNode(f"n{i}", pid) for i in range(20)]
    graph = star(*nodes, ProcessingNode("stubborn", stubborn, timeout=0.3))
    with pytest.raises(GraphExecutionError, match=r"'stubborn'.*timeout of 0\.3s"):
        executor_of(graph, State([]), max_workers=30).run(superstep_timeout=60)
    assert gone(tmp_path / "pid", seconds=10)


def test_E5_a_retry_of_one_async_node_waits_for_no_new_process(tmp_path):
    @node_action
    async def fails_once(state):
        if current_execution().running_node_id == "n7" and current_execution().attempt == 0:
            raise ValueError("once")
        await asyncio.sleep(0.3)
        return State([os.getpid()])

    graph = star(*[ProcessingNode(f"n{i}", fails_once) for i in range(20)])
    executor = executor_of(graph, State([]), max_workers=30, retry_policy=RetryPolicy(1, 0))
    assert len(executor.run(superstep_timeout=60).messages) == 20
    assert executor.summary.nodes["n7"].attempts == 2
