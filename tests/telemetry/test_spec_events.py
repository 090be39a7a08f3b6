"""Every event and attribute of spec section 4, in the trace of a run that really produced it."""

from __future__ import annotations

import getpass
import http.server
import json
import os
import socket
import threading
import time

import pytest
from opentelemetry.trace import StatusCode

from graphorch_ray import (
    AIActionBase,
    AINode,
    CheckpointData,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    ToolSetNode,
    node_action,
    routing_function,
)
from tests.runtime.nodes import chain, echo, fail, fallback, killed_once, once, sleep_forever, star
from tests.telemetry.conftest import bare, events

POLICY = RetryPolicy(2, 0.01, 3.0)


def executor(graph, backend, state=None, **options):
    return GraphExecutor(graph, state or State([1]), backend=backend, **options)


def fails(run, **options):
    with pytest.raises(GraphExecutionError) as caught:
        run.run(**options)
    return caught.value


@node_action
def fails_once(state):
    if once(state.messages[0]):
        raise ValueError("first time")
    return state


class Model(AIActionBase):
    def build_model(self):
        self.model = 1
        self._model_built = True

    def process_state(self, state):
        return state


@routing_function
def to_left(state):
    return "left"


def test_executor_init(spans, backend, tmp_path):
    path = str(tmp_path / "c")
    executor(
        chain(ProcessingNode("a", echo)),
        backend,
        max_workers=3,
        retry_policy=POLICY,
        checkpoint_path=path,
        checkpoint_every=2,
        allow_fallback_from_checkpoint=True,
    ).run()
    (told,) = events(spans.one("run"), "executor_init")
    assert told == {
        "max_workers": 3,
        "checkpoint_enabled": True,
        "checkpoint_every": 2,
        "allow_fallback_from_checkpoint": True,
        "retry_policy.max_retries": 2,
        "retry_policy.delay": 0.01,
        "retry_policy.backoff": 3.0,
    }


def test_executor_init_comes_before_executor_init_failed(spans):
    graph = chain(ProcessingNode("a", echo))
    with pytest.raises(GraphExecutionError):
        executor(graph, "inline", allow_fallback_from_checkpoint=True)
    span = spans.one("executor")
    assert [event.name for event in span.events] == ["executor_init", "executor_init_failed"]
    (told,) = events(span, "executor_init_failed")
    assert "checkpoint_path" in told["reason"]
    assert span.status.status_code is StatusCode.ERROR


def test_execution_start_and_what_the_run_span_has_of_the_log_context(spans, backend):
    run = executor(chain(ProcessingNode("a", echo)), backend)
    run.run(max_supersteps=7, superstep_timeout=60.0)
    span = spans.one("run")
    (told,) = events(span, "execution_start")
    assert (told["max_supersteps"], told["timeout_per_superstep"]) == (7, 60.0)
    found = bare(span.attributes)
    assert found["run_id"] == run.run_id
    assert found["graph"] == "chain"
    assert found["user"] == getpass.getuser()
    assert found["host"] == found["host.name"] == socket.gethostname()
    assert found["process.pid"] == os.getpid()
    assert found["backend"] == backend
    definition = json.loads(found["graph.definition"])
    assert [node["id"] for node in definition["nodes"]] == ["start", "end", "a"]
    assert len(definition["edges"]) == 2


def test_superstep_started_and_complete_are_the_superstep_span(spans, backend):
    executor(star(ProcessingNode("a", echo), ProcessingNode("b", echo)), backend).run()
    span = spans.one("superstep", superstep=1)
    found = bare(span.attributes)
    assert found["active_nodes"] == ("a", "b")
    assert found["advanced_superstep"] == 2
    assert found["next_active_nodes"] == ("join",)


def test_node_execution_attempt_retry_scheduled_and_failed(spans, backend, tmp_path):
    graph = chain(ProcessingNode("a", fails_once))
    state = State([str(tmp_path / "once")])
    executor(graph, backend, state, retry_policy=POLICY).run()
    first, second = (bare(span.attributes) for span in spans.of("attempt", node_id="a"))
    for number, found in enumerate((first, second)):
        assert found["node_type"] == "ProcessingNode"
        assert found["superstep"] == 1
        assert found["retry_count"] == number
        assert found["max_retries"] == 2
        assert found["retry_delay"] == pytest.approx(0.01 * 3**number)
    assert (first["outcome"], second["outcome"]) == ("failed", "ok")
    assert (first["error"], first["reason"]) == ("first time", "error")
    failed = spans.of("attempt", node_id="a")[0]
    assert len(events(failed, "node_execution_failed")) == 1
    (told,) = events(spans.one("execution", node_id="a"), "node_retry_scheduled")
    assert told == {
        "node_id": "a",
        "owner_id": "a",
        "node_type": "ProcessingNode",
        "superstep": 1,
        "execution": 0,
        "role": "node",
        "retry_count": 0,
        "rerun": 0,
        "max_retries": 2,
        "retry_delay": 0.01,
        "error": "first time",
    }


def test_execute_start_execute_end_and_node_execution_complete(spans, backend):
    graph = star(ProcessingNode("a", echo), ProcessingNode("b", echo))
    executor(graph, backend, State([1, 2, 3])).run()
    for node_id, into, out in (("a", 3, 3), ("join", 2, 2)):
        attempt = spans.one("attempt", node_id=node_id)
        (started,) = events(attempt, "execute_start")
        (ended,) = events(attempt, "execute_end")
        assert started["input_size"] == into
        assert ended["output_size"] == out
        execution = bare(spans.one("execution", node_id=node_id).attributes)
        assert execution["node_type"] == (
            "AggregatorNode" if node_id == "join" else "ProcessingNode"
        )
        assert (execution["input_size"], execution["output_size"]) == (into, out)
        assert execution["outcome"] == "ok"


def test_an_attempt_says_where_when_and_with_how_much_it_ran(spans, backend):
    executor(chain(ProcessingNode("a", echo)), backend).run()
    attempt = spans.one("attempt", node_id="a")
    found = bare(attempt.attributes)
    assert found["queue_wait"] >= 0
    assert 0 <= found["run_time"] <= (attempt.end_time - attempt.start_time) / 1e9
    assert found["input_bytes"] > 0
    assert found["output_bytes"] > 0
    assert found["batch_size"] == 1
    assert found["code.function.name"] == "tests.runtime.nodes.echo"
    assert found["code.file.path"].endswith("nodes.py")
    assert found["code.line.number"] > 0
    if backend == "ray":
        assert found["worker_pid"] != os.getpid()
        assert found["placement"] == "task"
        assert len(found["ray_node"]) == 56
        assert len(found["task_id"]) == 48
    else:
        assert found["worker_pid"] == os.getpid()
        assert found["placement"] == "driver"


def test_build_model(spans, backend):
    executor(chain(AINode("a", "", Model({}))), backend).run()
    (told,) = events(spans.one("attempt", node_id="a"), "build_model")
    assert told["seconds"] >= 0
    found = bare(spans.one("attempt", node_id="a").attributes)
    assert (found["node_id"], found["node_type"]) == ("a", "AINode")


class Tools(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def test_tool_http_start_and_success(spans, backend):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tools) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        node = ToolSetNode("a", f"http://user:secret@127.0.0.1:{port}", "double")
        executor(chain(node), backend).run()
        server.shutdown()
    attempt = spans.one("attempt", node_id="a")
    url = f"http://127.0.0.1:{port}/tools/double"
    assert events(attempt, "tool_http_start") == [{"tool_name": "double", "url": url}]
    (told,) = events(attempt, "tool_http_success")
    assert told == {"tool_name": "double", "url": url, "status_code": 201}


@node_action
async def waits(state):
    import asyncio

    await asyncio.sleep(600)
    return state


def test_timeout_and_no_fallback(spans, backend):
    run = executor(chain(ProcessingNode("a", waits)), backend)
    fails(run, superstep_timeout=0.5)
    superstep = spans.one("superstep", superstep=1)
    for name in ("timeout", "no_fallback"):
        (told,) = events(superstep, name)
        assert told == {"node_id": "a", "superstep": 1, "timeout": 0.5}
    attempt = spans.one("attempt", node_id="a")
    assert attempt.attributes["graphorch.outcome"] == "cancelled"
    assert attempt.attributes["graphorch.reason"] == "the superstep timed out"
    assert attempt.status.status_code is StatusCode.ERROR


def test_fallback_to_checkpoint_and_checkpoint_load(spans, backend, tmp_path):
    path = str(tmp_path / "c")
    run = executor(
        chain(ProcessingNode("a", waits)),
        backend,
        checkpoint_path=path,
        allow_fallback_from_checkpoint=True,
    )
    fails(run, superstep_timeout=0.5)
    span = spans.one("run")
    (told,) = events(span, "fallback_to_checkpoint")
    assert (told["checkpoint"], told["superstep"]) == (path, 0)
    assert len(events(span, "checkpoint_load")) == 1
    first, second = spans.of("superstep", superstep=1)
    assert len(events(first, "timeout")) == len(events(second, "timeout")) == 1
    assert (len(events(first, "no_fallback")), len(events(second, "no_fallback"))) == (0, 1)


def test_fallback_invoked_and_success(spans, backend):
    graph = star(ProcessingNode("a", fail), fallbacks={"a": ProcessingNode("f", fallback)})
    executor(graph, backend).run()
    execution = spans.one("execution", node_id="a")
    (invoked,) = events(execution, "fallback_invoked")
    assert invoked == {
        "source_node": "a",
        "fallback_node": "f",
        "reason": "no luck",
        "superstep": 1,
        "execution": 0,
    }
    (success,) = events(execution, "fallback_success")
    assert (success["source_node"], success["fallback_node"]) == ("a", "f")
    assert execution.attributes["graphorch.fallback_node"] == "f"
    assert bare(spans.one("attempt", role="fallback").attributes)["owner_id"] == "a"


def test_fallback_failed(spans, backend):
    graph = star(ProcessingNode("a", fail), fallbacks={"a": ProcessingNode("f", fail)})
    fails(executor(graph, backend))
    (told,) = events(spans.one("execution", node_id="a"), "fallback_failed")
    assert (told["source_node"], told["fallback_node"]) == ("a", "f")
    assert told["reason"] == "no luck"


def test_concrete_and_conditional_edge_transition(spans, backend):
    builder = GraphBuilder("branch")
    for node_id in ("a", "left", "right"):
        builder.add_node(ProcessingNode(node_id, echo))
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["left", "right"], to_left)
    builder.add_concrete_edge("left", "end")
    builder.add_concrete_edge("right", "end")
    executor(builder.build_graph(), backend).run()
    (plain,) = events(spans.one("superstep", superstep=0), "concrete_edge_transition")
    assert (plain["source_node"], plain["sink_node"]) == ("start", "a")
    (chosen,) = events(spans.one("superstep", superstep=1), "conditional_edge_transition")
    assert (chosen["source_node"], chosen["sink_node"]) == ("a", "left")
    assert chosen["router_func"] == "to_left"


def test_create_checkpoint_auto_checkpoint_and_checkpoint_save(spans, backend, tmp_path):
    path = str(tmp_path / "c")
    executor(
        chain(ProcessingNode("a", echo)),
        backend,
        max_workers=2,
        retry_policy=POLICY,
        checkpoint_path=path,
        checkpoint_every=1,
    ).run()
    span = spans.one("run")
    made = events(span, "create_checkpoint")
    assert made[1] == {
        "active_node_ids": ("a",),
        "max_workers": 2,
        "superstep": 1,
        "retry_policy.max_retries": 2,
        "retry_policy.delay": 0.01,
        "retry_policy.backoff": 3.0,
    }
    assert made[-1]["final_state_message_count"] == 1
    automatic = events(span, "auto_checkpoint")
    assert [told["superstep"] for told in automatic] == [1, 2]
    assert (automatic[0]["path"], automatic[0]["active_nodes"]) == (path, ("a",))
    saved = events(span, "checkpoint_save")
    assert [told["superstep"] for told in saved] == [0, 1, 2, 3]
    for told in saved:
        assert told["path"] == path
        assert told["seconds"] > 0
    assert saved[1]["active_nodes"] == ("a",)


def test_restore_from_checkpoint(spans, backend, tmp_path):
    path = str(tmp_path / "c")
    first = executor(
        chain(ProcessingNode("a", fail)), backend, checkpoint_path=path, checkpoint_every=1
    )
    fails(first)
    second = GraphExecutor.from_checkpoint(
        CheckpointData.load(path), str(tmp_path / "d"), 5, backend=backend
    )
    fails(second)
    (told,) = events(spans.of("run")[1], "restore_from_checkpoint")
    assert told == {
        "active_node_ids": ("a",),
        "max_workers": 4,
        "superstep": 1,
        "path": str(tmp_path / "d"),
        "interval": 5,
    }


def test_max_supersteps_exceeded(spans, backend):
    fails(executor(chain(ProcessingNode("a", echo)), backend), max_supersteps=2)
    (told,) = events(spans.one("run"), "max_supersteps_exceeded")
    assert told["superstep"] == 2


def test_execution_complete_and_final_state(spans, backend):
    executor(chain(ProcessingNode("a", echo)), backend, State([1, 2])).run()
    for name in ("execution_complete", "final_state"):
        (told,) = events(spans.one("run"), name)
        assert told == {"superstep": 3, "message_count": 2}
    assert spans.one("run").attributes["graphorch.status"] == "finished"


def test_a_killed_worker_has_an_ended_span_with_the_reason(spans, ray_session, tmp_path):
    state = State([str(tmp_path / "once")])
    executor(chain(ProcessingNode("a", killed_once)), "ray", state).run()
    lost, good = spans.of("attempt", node_id="a")
    assert lost.attributes["graphorch.outcome"] == "infrastructure"
    assert lost.attributes["graphorch.reason"] == "worker_crashed"
    assert lost.attributes["graphorch.task_id"]
    assert lost.end_time >= lost.start_time
    assert good.attributes["graphorch.rerun"] == 1
    assert len(events(lost, "exception")) == 1


def test_an_attempt_that_exceeds_its_nodes_timeout_has_the_reason(spans, ray_session, tmp_path):
    node = ProcessingNode("a", node_action(sleep_forever), timeout=0.5)
    started = time.time()
    fails(executor(chain(node), "ray", State([str(tmp_path / "pids")])))
    attempt = spans.one("attempt", node_id="a")
    found = bare(attempt.attributes)
    assert (found["outcome"], found["reason"]) == ("timeout", "timeout")
    assert found["worker_pid"] == int((tmp_path / "pids").read_text())
    assert attempt.start_time / 1e9 >= started - 1
    assert len(events(attempt, "execute_start")) == 1
