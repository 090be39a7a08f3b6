"""Wrong input gets one clear error that names the thing, the place and the way out."""

from __future__ import annotations

import importlib
import socket
import sys
import threading
import time

import pytest

from graphorch_ray import (
    CheckpointError,
    ClusterConnectionError,
    GraphExecutionError,
    GraphExecutor,
    GraphWarning,
    ProcessingNode,
    RetryPolicy,
    SerializationError,
    State,
    node_action,
)
from graphorch_ray.runtime.on_ray.ray_connect import probe

from .nodes import chain, echo, label, star


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"initial_state": [1]}, TypeError, "initial_state must be a State"),
        ({"graph": "g"}, TypeError, "graph must be a Graph"),
        ({"max_workers": 0}, ValueError, "max_workers must be at least 1, not 0"),
        ({"max_workers": 2.5}, TypeError, "max_workers must be a whole number"),
        ({"retry_policy": 3}, TypeError, "retry_policy must be a RetryPolicy"),
        ({"checkpoint_every": -1}, ValueError, "checkpoint_every must be at least 0"),
        ({"backend": "spark"}, ValueError, "must be one of 'ray', 'inline', not 'spark'"),
        ({"on_multiple_states": "last"}, ValueError, "'first', 'each', 'error', not 'last'"),
        ({"allow_fallback_from_checkpoint": True}, GraphExecutionError, "no checkpoint_path"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, text):
    given = {"graph": chain(ProcessingNode("a", echo)), "initial_state": State(), **arguments}
    with pytest.raises(error, match=text):
        GraphExecutor(**given)


@pytest.mark.parametrize("limits", [{"max_supersteps": -1}, {"superstep_timeout": 0}])
def test_wrong_limits_are_named(limits):
    executor = GraphExecutor(chain(ProcessingNode("a", echo)), State(), backend="inline")
    (name,) = limits
    with pytest.raises(ValueError, match=name):
        executor.run(**limits)


def test_a_negative_retry_count_is_refused_where_it_is_written():
    with pytest.raises(ValueError, match="max_retries"):
        RetryPolicy(max_retries=-1)


async def test_run_inside_an_event_loop_says_what_to_write():
    executor = GraphExecutor(chain(ProcessingNode("a", echo)), State(), backend="inline")
    with pytest.raises(RuntimeError, match=r"await executor\.execute\(\)"):
        executor.run()


async def test_an_executor_runs_once_at_a_time():
    import asyncio

    @node_action
    async def slow(state):
        await asyncio.sleep(0.2)
        return state

    executor = GraphExecutor(chain(ProcessingNode("a", slow)), State(), backend="inline")
    first = asyncio.ensure_future(executor.execute())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="running already"):
        await executor.execute()
    await first


def test_backend_from_the_environment(monkeypatch):
    monkeypatch.setenv("GRAPHORCH_BACKEND", "inline")
    assert GraphExecutor(chain(ProcessingNode("a", echo)), State()).backend == "inline"
    monkeypatch.setenv("GRAPHORCH_BACKEND", "sprak")
    with pytest.raises(ValueError, match="GRAPHORCH_BACKEND"):
        GraphExecutor(chain(ProcessingNode("a", echo)), State())


def test_code_that_cannot_be_pickled_is_named_before_anything_runs(ray_session, tmp_path):
    lock = threading.Lock()

    @node_action
    def first(state):
        (tmp_path / "ran").touch()
        return state

    locked = node_action(lambda state: State([lock]))
    graph = chain(ProcessingNode("first", first), ProcessingNode("locked", locked))
    with pytest.raises(SerializationError, match=r"node 'locked'.*<lambda>.*'lock'.*_thread.lock"):
        GraphExecutor(graph, State(), backend="ray").run()
    assert not (tmp_path / "ran").exists()


NOT_LOADED = (
    (
        None,
        r"node 'second' \(it needs the module '{name}', which is not on this worker\. Install it",
    ),
    ("", r"node 'second' \(it does not load on this worker: AttributeError: .* another version"),
)


@pytest.mark.parametrize(("left", "told"), NOT_LOADED, ids=["no module", "another version"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_code_that_a_worker_cannot_load_fails_at_once_and_says_what_to_do(
    ray_session, tmp_path, monkeypatch, left, told, kind
):
    name = f"gone_{kind}_{left is None}"
    module = tmp_path / f"{name}.py"
    prefix = "async " if kind == "async" else ""
    module.write_text(f"{prefix}def work(state):\n    return state\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    work = importlib.import_module(name).work
    path = str(module)

    @node_action
    def first(state):
        from pathlib import Path

        Path(path).unlink() if left is None else Path(path).write_text(left)
        return state

    graph = chain(ProcessingNode("first", first), ProcessingNode("second", node_action(work)))
    executor = GraphExecutor(
        graph, State(), backend="ray", retry_policy=RetryPolicy(max_retries=5, delay=600)
    )
    with pytest.raises(GraphExecutionError, match=told.format(name=name)):
        executor.run(superstep_timeout=30)
    assert not module.exists() or not module.read_text(), "the first node has run"
    second = executor.summary.nodes["second"]
    assert (second.attempts, executor.summary.infrastructure_failures) == (1, 0)


def test_a_node_that_changes_a_driver_variable_is_warned_of_at_build():
    seen: list[int] = []

    @node_action
    def remember(state):
        seen.append(1)
        return state

    with pytest.warns(GraphWarning, match=r"'remember'.*'seen'"):
        chain(ProcessingNode("remember", remember))


def test_where_warnings_are_errors_one_ends_the_run_wherever_it_came_up():
    import warnings

    graph = star(ProcessingNode("a", label))
    from graphorch_ray import GraphBuilder

    builder = GraphBuilder()
    for node_id in "ab":
        builder.add_node(ProcessingNode(node_id, label))
        builder.add_concrete_edge("start", node_id)
        builder.add_concrete_edge(node_id, "end")
    graph = builder.build_graph()
    with warnings.catch_warnings():
        warnings.simplefilter("error", GraphWarning)
        with pytest.raises(GraphWarning, match="2 states arrived"):
            GraphExecutor(graph, State(), backend="inline").run()


def test_an_object_reference_cannot_be_checkpointed(ray_session, tmp_path):
    import ray

    executor = GraphExecutor(
        chain(ProcessingNode("a", echo)),
        State([1, ray.put(2)]),
        backend="ray",
        checkpoint_path=str(tmp_path / "run.ckpt"),
    )
    with pytest.raises(CheckpointError, match=r"messages\[1\].*ObjectRef"):
        executor.run()


def test_an_address_where_nothing_listens_is_refused_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(ClusterConnectionError, match=f"127.0.0.1:{port}.*nothing answers"):
        probe(f"127.0.0.1:{port}")
    assert time.monotonic() - began < 10


def test_an_address_where_something_else_listens_is_refused_in_time():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        began = time.monotonic()
        with pytest.raises(ClusterConnectionError, match="not a Ray head"):
            probe(f"127.0.0.1:{server.getsockname()[1]}")
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("address", "text"),
    [("auto", "host:port"), ("ray://head:10001", "graphorch-ray submit"), ("head", "host:port")],
)
def test_an_address_of_the_wrong_kind_says_which_is_right(address, text):
    with pytest.raises(ClusterConnectionError, match=text):
        probe(address)


def test_an_address_that_does_not_answer_is_what_the_run_raises(monkeypatch, tmp_path):
    import os
    import subprocess
    import sys

    script = """
from graphorch_ray import *
builder = GraphBuilder()
builder.add_concrete_edge("start", "end")
executor = GraphExecutor(builder.build_graph(), State())
try:
    executor.run()
except ClusterConnectionError as error:
    print(executor.summary.status, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("failed Cannot connect to '127.0.0.1:1': nothing answers")
