"""Where telemetry goes, and that no exporter can hurt a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from graphorch_ray import (
    GraphExecutor,
    GraphWarning,
    ProcessingNode,
    RetryPolicy,
    State,
    telemetry,
)
from tests.runtime.nodes import chain, echo, fail, fallback, star
from tests.telemetry.nodes import async_node, killed, logs, retried, too_long
from tests.telemetry.receiver import PROTOCOLS, receiving


@pytest.fixture(params=PROTOCOLS)
def receiver(request):
    with receiving(request.param) as got:
        yield got
        telemetry.shutdown()


def test_one_complete_trace_reaches_a_real_receiver(receiver, ray_session, tmp_path):
    telemetry.configure(**receiver.where, headers={"x-key": "k"}, logs=True)
    graph = star(
        ProcessingNode("retried", retried),
        ProcessingNode("falls", fail),
        ProcessingNode("killed", killed),
        ProcessingNode("long", too_long, timeout=0.5),
        ProcessingNode("logs", logs),
        *(ProcessingNode(f"async{i}", async_node) for i in range(20)),
        fallbacks={"falls": ProcessingNode("fallback", fallback)},
    )
    state = State([str(tmp_path / "once")])
    run = GraphExecutor(
        graph, state, max_workers=30, backend="ray", retry_policy=RetryPolicy(1, 0.01)
    )
    run.run()
    assert telemetry.flush(20)
    spans = receiver.one_whole_trace()
    summary = run.summary
    attempts = sum(node.attempts for node in summary.nodes.values())
    executions = sum(node.executions for node in summary.nodes.values())
    own = 2 * 20
    assert len(spans) == 1 + summary.supersteps + executions + attempts + own
    assert (summary.nodes["retried"].attempts, summary.nodes["killed"].attempts) == (2, 2)
    assert summary.nodes["long"].timeouts == 1
    assert summary.nodes["falls"].fallbacks == 1
    assert {h.get("x-key") for h in receiver.headers} == {"k"}

    metrics = {
        metric.name: metric
        for request in receiver.requests["metrics"]
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    counted = sum(point.as_int for point in metrics["graphorch.attempts"].sum.data_points)
    assert counted >= attempts  # counters go on over the runs of a process
    records = [
        record
        for request in receiver.requests["logs"]
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    (hello,) = [r for r in records if r.body.string_value == "hello from a node"]
    (attempt,) = [span for span in spans if span.name == "attempt logs"]
    assert (hello.trace_id, hello.span_id) == (attempt.trace_id, attempt.span_id)
    assert hello.severity_text == "INFO"


def test_the_environment_alone_sets_up_otlp(receiver, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        "from graphorch_ray import GraphBuilder, GraphExecutor, State\n"
        "builder = GraphBuilder()\n"
        "builder.add_concrete_edge('start', 'end')\n"
        "GraphExecutor(builder.build_graph(), State(), backend='inline').run()\n"
    )
    env = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.where["otlp"],
        "OTEL_EXPORTER_OTLP_PROTOCOL": receiver.protocol,
        "OTEL_SERVICE_NAME": "my-service",
    }
    done = subprocess.run(
        [sys.executable, str(script)], env=env, timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(receiver.spans) == 1 + 2 * 3
    resource = receiver.requests["traces"][0].resource_spans[0].resource
    values = {item.key: item.value.string_value for item in resource.attributes}
    assert values["service.name"] == "my-service"


class LooksTwice(SpanExporter):
    def __init__(self):
        self.looks = []

    def export(self, spans):
        self.looks.append(([*spans], [*spans], spans[0], spans[-2:], len(spans)))
        return SpanExportResult.SUCCESS


def test_spans_that_an_exporter_looks_at_twice_say_the_same_twice():
    exporter = LooksTwice()
    telemetry.configure(exporters=[exporter])
    try:
        nodes = (ProcessingNode(f"n{i}", echo) for i in range(3))
        GraphExecutor(star(*nodes), State([1]), backend="inline").run()
        assert telemetry.flush(5)
    finally:
        telemetry.shutdown()
    for first, second, one, last, length in exporter.looks:
        assert len(first) == length
        assert [span.to_json() for span in first] == [span.to_json() for span in second]
        assert one.to_json() == first[0].to_json()
        assert [span.context for span in last] == [span.context for span in first[-2:]]


# --- exporters that misbehave ---------------------------------------------------------------


class Hangs(SpanExporter):
    def __init__(self):
        self.release = threading.Event()
        self.called = threading.Event()

    def export(self, spans):
        self.called.set()
        self.release.wait(60)
        return SpanExportResult.SUCCESS

    def shutdown(self):
        self.release.set()


class Throws(SpanExporter):
    def __init__(self):
        self.calls = 0

    def export(self, spans):
        self.calls += 1
        raise RuntimeError("no disk")


class Fails(SpanExporter):
    def export(self, spans):
        return SpanExportResult.FAILURE


def test_an_exporter_that_hangs_holds_up_neither_the_run_nor_the_others(monkeypatch):
    hangs, good = Hangs(), InMemorySpanExporter()
    telemetry.configure(exporters=[hangs, good])
    graph = star(*(ProcessingNode(f"n{i}", echo) for i in range(50)))
    run = GraphExecutor(graph, State([1]), backend="inline")
    started = time.monotonic()
    run.run()
    assert time.monotonic() - started < 10
    assert hangs.called.wait(10)
    monkeypatch.setattr("graphorch_ray.telemetry.outlet.HANG_SECONDS", 0.0)

    def run_thrice():
        for _ in range(3):
            GraphExecutor(chain(ProcessingNode("a", echo)), State(), backend="inline").run()

    with pytest.warns(GraphWarning, match="Hangs does not answer or is too slow") as caught:
        run_thrice()
    assert len(caught) == 1
    assert not telemetry.flush(0.5)
    names = [span.name for span in good.get_finished_spans()]
    assert (names.count("run star"), names.count("run chain")) == (1, 3)
    hangs.release.set()
    telemetry.shutdown()


@pytest.mark.parametrize(
    ("exporter", "text"), [(Throws(), "RuntimeError: no disk"), (Fails(), "failed to export")]
)
def test_an_exporter_that_fails_is_reported_once(exporter, text):
    telemetry.configure(exporters=[exporter])

    def run_thrice():
        for _ in range(3):
            GraphExecutor(chain(ProcessingNode("a", echo)), State(), backend="inline").run()
            assert telemetry.flush(10)

    with pytest.warns(GraphWarning, match=text) as caught:
        run_thrice()
    telemetry.shutdown()
    assert len(caught) == 1


def test_a_full_queue_drops_and_reports_instead_of_growing(monkeypatch):
    from graphorch_ray.telemetry import outlet

    monkeypatch.setattr(outlet, "QUEUED", 10)
    release = threading.Event()
    taken = []

    def deliver(items):
        release.wait(30)
        taken.extend(items)

    box = outlet.Outlet("The exporter X", deliver)

    def fill():
        for number in range(1000):
            box.put(number)

    with pytest.warns(GraphWarning, match="The exporter X does not answer or is too slow"):
        fill()
    release.set()
    assert box.close(10)
    assert len(taken) <= 10 + outlet.BATCH


def test_a_users_own_processor_that_hangs_does_not_hold_up_the_run(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        """
import threading, time
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from graphorch_ray import GraphBuilder, GraphExecutor, State

class Slow(SpanExporter):
    def export(self, spans):
        time.sleep(0.5)
        print(*(span.name for span in spans), flush=True)

provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(Slow()))
trace.set_tracer_provider(provider)
builder = GraphBuilder()
builder.add_concrete_edge('start', 'end')
started = time.monotonic()
GraphExecutor(builder.build_graph(), State(), backend='inline').run()
print("took", time.monotonic() - started, flush=True)
"""
    )
    done = subprocess.run(
        [sys.executable, str(script)], timeout=60, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    (took,) = [float(line.split()[1]) for line in lines if line.startswith("took")]
    assert took < 0.5
    assert "run graph" in lines, "what waits at the end of the process is still exported"


# --- the file -------------------------------------------------------------------------------


def test_the_file_has_one_object_a_line_in_the_form_that_is_documented(tmp_path):
    path = tmp_path / "new" / "trace.jsonl"
    telemetry.configure(file=path, resource={"deployment": "test"})
    GraphExecutor(star(ProcessingNode("a", echo)), State([1]), backend="inline").run()
    telemetry.shutdown()
    head, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert head["format"] == "graphorch-trace/1"
    assert head["resource"]["deployment"] == "test"
    assert head["resource"]["service.name"] == "graphorch_ray"
    assert len(lines) == 1 + 4 + 4 + 4
    keys = "traceId spanId parentSpanId name kind startTimeUnixNano endTimeUnixNano attributes "
    keys += "events links status scope"
    for line in lines:
        assert list(line) == keys.split()
        assert len(line["traceId"]) == 32
        assert len(line["spanId"]) == 16
    assert lines[-1]["name"] == "run star"
    assert lines[-1]["parentSpanId"] is None
    (join,) = [line for line in lines if line["name"] == "node join"]
    (attempt,) = [line for line in lines if line["name"] == "attempt a"]
    assert join["links"][0]["spanId"] == attempt["spanId"]


def test_a_file_is_appended_to(tmp_path):
    path = tmp_path / "trace.jsonl"
    for _ in range(2):
        telemetry.configure(file=path)
        GraphExecutor(chain(ProcessingNode("a", echo)), State([1]), backend="inline").run()
        telemetry.shutdown()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["name"] for line in lines if line.get("name", "").startswith("run")] == [
        "run chain",
        "run chain",
    ]


def test_the_console_prints_the_same_lines(capsys):
    telemetry.configure(console=True)
    GraphExecutor(chain(ProcessingNode("a", echo)), State([1]), backend="inline").run()
    telemetry.shutdown()
    names = [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]
    assert names[-1] == "run chain"


# --- wrong input ----------------------------------------------------------------------------


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match=r"'http/protobuf', 'grpc', not 'carrier pigeon'"):
        telemetry.configure(otlp=True, protocol="carrier pigeon")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ImportError, match=r"pip install 'graphorch-ray\[otlp\]'"):
        telemetry.configure(otlp="http://127.0.0.1:1")


def test_a_file_that_cannot_be_written_is_an_error_at_once(tmp_path):
    with pytest.raises(OSError, match="directory"):
        telemetry.configure(file=tmp_path)
