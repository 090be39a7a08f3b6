"""Spans that node code makes come home and stand beneath their attempt, wherever it ran."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from graphorch_ray import (
    AIActionBase,
    AINode,
    GraphExecutionError,
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    node_action,
)
from tests.runtime.nodes import chain, echo, star
from tests.telemetry.nodes import TRACER, async_node, fetches, fetches_async, sync_node


class Model(AIActionBase):
    def build_model(self):
        with TRACER.start_as_current_span("load weights"):
            self.model = 1
        self._model_built = True

    def process_state(self, state):
        return sync_node(state)


NODES = {
    "task": lambda: ProcessingNode("a", sync_node),
    "own loop": lambda: ProcessingNode("a", async_node),
    "model": lambda: AINode("a", "", Model({})),
}


def run(graph, backend, **options):
    executor = GraphExecutor(graph, State([1]), backend=backend, **options)
    executor.run()
    return executor


@pytest.mark.parametrize("kind", NODES)
def test_spans_of_a_node_come_home_beneath_its_attempt(spans, backend, kind):
    run(chain(NODES[kind]()), backend)
    attempt = spans.one("attempt", node_id="a")
    (outer,) = [span for span in spans.all() if span.name == "outer"]
    (inner,) = [span for span in spans.all() if span.name == "inner"]
    assert outer.parent.span_id == attempt.context.span_id
    assert inner.parent.span_id == outer.context.span_id
    assert outer.context.trace_id == attempt.context.trace_id
    assert (inner.kind, outer.attributes["k"]) == (SpanKind.CLIENT, 1)
    assert [(e.name, e.attributes["n"]) for e in outer.events] == [("seen", 2)]
    scope = outer.instrumentation_scope
    assert (scope.name, scope.version) == ("users.own", "1.2")
    assert attempt.start_time <= outer.start_time <= inner.start_time
    assert inner.end_time <= outer.end_time <= attempt.end_time
    assert attempt.attributes["gen_ai.request.model"] == "m"
    assert "own event" in [event.name for event in attempt.events]


@pytest.mark.usefixtures("ray_session")
def test_spans_of_nodes_that_run_ahead_stand_beneath_their_own_attempts(spans):
    names = [f"n{i}" for i in range(20)]
    run(chain(*(ProcessingNode(name, sync_node) for name in names)), "ray")
    above = {span.context.span_id: span for span in spans.all()}
    attempts = {span.attributes["graphorch.node_id"]: span for span in spans.of("attempt")}
    assert any(span.attributes.get("graphorch.ran_ahead") for span in attempts.values())
    outers = [span for span in spans.all() if span.name == "outer"]
    told = {above[span.parent.span_id].attributes["graphorch.node_id"] for span in outers}
    assert told == set(names)
    assert len(outers) == len(names)
    for span in above.values():
        if span.parent is not None:
            parent = above[span.parent.span_id]
            assert parent.start_time <= span.start_time
            assert span.end_time <= parent.end_time


def test_spans_of_many_async_nodes_in_shared_workers_keep_apart(spans, backend):
    nodes = [ProcessingNode(f"n{i}", async_node) for i in range(30)]
    run(star(*nodes), backend, max_workers=30)
    attempts = {s.context.span_id: s for s in spans.of("attempt")}
    outers = [span for span in spans.all() if span.name == "outer"]
    parents = {attempts[span.parent.span_id].attributes["graphorch.node_id"] for span in outers}
    assert len(outers) == 30
    assert parents == {f"n{i}" for i in range(30)}


def test_spans_of_a_failed_attempt_come_home_too(spans, backend):
    @node_action
    def breaks(state):
        with TRACER.start_as_current_span("try"):
            raise ValueError("no")

    with pytest.raises(GraphExecutionError):
        run(chain(ProcessingNode("a", breaks)), backend, retry_policy=RetryPolicy(1, 0))
    tries = [span for span in spans.all() if span.name == "try"]
    attempts = [span.context.span_id for span in spans.of("attempt", node_id="a")]
    assert [span.parent.span_id for span in tries] == attempts
    assert {span.status.status_code for span in tries} == {StatusCode.ERROR}


def test_a_span_in_a_thread_without_context_is_not_lost(spans, ray_session):
    @node_action
    def threaded(state):
        def work():
            with TRACER.start_as_current_span("in a thread"):
                pass

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return state

    run(chain(ProcessingNode("a", threaded)), "ray")
    assert [span.name for span in spans.all()].count("in a thread") == 1


def test_an_sdk_that_the_program_sets_up_in_a_worker_is_left_alone(spans, ray_session, tmp_path):
    out = str(tmp_path / "own.txt")

    def use_own_sdk():
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

        provider = TracerProvider()
        exporter = ConsoleSpanExporter(out=open(out, "a"), formatter=lambda s: s.name + "\n")  # noqa: SIM115
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)

    class Own(AIActionBase):  # a model's worker is nobody else's
        def build_model(self):
            use_own_sdk()
            self._model_built = True

        def process_state(self, state):
            with trace.get_tracer("own").start_as_current_span("mine"):
                return state

    executor = GraphExecutor(chain(AINode("a", "", Own({}))), State([1]), backend="ray")
    executor.run()
    mine = [span for span in spans.all() if span.name == "mine"]
    own = tmp_path / "own.txt"
    written = own.read_text().split() if own.exists() else []
    assert len(mine) + len(written) == 1
    assert len(written) == 1


def test_a_run_inside_a_node_is_part_of_the_trace(spans, backend):
    @node_action
    def nested(state):
        return GraphExecutor(chain(ProcessingNode("in", echo)), state, backend="inline").run()

    run(chain(ProcessingNode("a", nested)), backend)
    attempt = spans.one("attempt", node_id="a")
    inner = [span for span in spans.of("run") if span.parent is not None]
    assert [span.parent.span_id for span in inner] == [attempt.context.span_id]
    assert len(spans.of("attempt", node_id="in")) == 1
    assert {span.context.trace_id for span in spans.all()} == {attempt.context.trace_id}


def test_with_tracing_off_workers_do_not_import_opentelemetry(ray_session):
    @node_action
    def look(state):
        import sys

        return State([sorted(m for m in sys.modules if m.startswith("opentelemetry"))])

    from graphorch_ray import telemetry

    telemetry.shutdown()
    node = ProcessingNode("a", look, runtime_env={"env_vars": {"FRESH_WORKER": str(time.time())}})
    executor = GraphExecutor(chain(node), State([1]), backend="ray")
    (found,) = executor.run().messages
    assert [name for name in found if "sdk" in name] == []


class TellsTraceparent(BaseHTTPRequestHandler):
    def do_GET(self):
        body = (self.headers.get("traceparent") or "").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *about):
        pass


@pytest.mark.parametrize("action", [fetches, fetches_async])
def test_the_spans_of_an_instrumented_library_come_home(spans, backend, action):
    with ThreadingHTTPServer(("127.0.0.1", 0), TellsTraceparent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        executor = GraphExecutor(chain(ProcessingNode("a", action)), State([url]), backend=backend)
        final = executor.run()
        server.shutdown()
    attempt = spans.one("attempt", node_id="a")
    (request,) = [span for span in spans.all() if span.kind is SpanKind.CLIENT]
    assert request.instrumentation_scope.name == "opentelemetry.instrumentation.httpx"
    assert request.parent.span_id == attempt.context.span_id
    ids = f"{request.context.trace_id:032x}-{request.context.span_id:016x}"
    assert final.messages == [f"00-{ids}-01"]  # the server is told of it, too


def test_a_worker_imports_the_sdk_when_code_asks_for_a_tracer_and_not_before():
    script = """
import sys
from graphorch_ray.model.trail import TraceContext
from graphorch_ray.runtime.gather import Gatherer

with Gatherer(TraceContext(1, 2)):
    pass
assert "opentelemetry.trace" in sys.modules and "opentelemetry.sdk.trace" not in sys.modules

from opentelemetry import trace

early = trace.get_tracer("early")
with Gatherer(TraceContext(1, 3)) as gatherer:
    with early.start_as_current_span("first"):
        pass
    with trace.get_tracer_provider().get_tracer("late").start_as_current_span("second"):
        pass
print([(span.name, span.trace_id, span.parent_id) for span in gatherer.trail().spans])
from opentelemetry.sdk.trace import TracerProvider

assert isinstance(trace.get_tracer_provider(), TracerProvider)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=60, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.strip() == str([("first", 1, 3), ("second", 1, 3)])
