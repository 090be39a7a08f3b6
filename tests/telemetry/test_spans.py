"""The tree of spans of a run, its links, and what happens where nothing is configured."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from graphorch_ray import (
    CheckpointData,
    GraphExecutionError,
    GraphExecutor,
    GraphWarning,
    ProcessingNode,
    RetryPolicy,
    State,
    telemetry,
)
from graphorch_ray.telemetry.span_writer import Ended
from graphorch_ray.telemetry.spans import SpanMaker
from tests.runtime.nodes import chain, echo, fail, fallback, star
from tests.telemetry.conftest import events


def executor(graph, **options):
    return GraphExecutor(graph, State([1]), backend="inline", **options)


def test_the_run_span_has_the_settings_of_the_run_not_those_of_the_beginning(spans):
    run = executor(chain(ProcessingNode("a", echo)), max_workers=7)
    run.max_workers = 3
    run.run()
    span = spans.one("run")
    assert span.attributes["graphorch.max_workers"] == 3
    assert events(span, "executor_init")[0]["max_workers"] == 7


def test_a_run_is_one_tree_run_superstep_execution_attempt(spans):
    executor(chain(ProcessingNode("a", echo))).run()
    run = spans.one("run")
    assert run.parent is None
    assert {span.context.trace_id for span in spans.all()} == {run.context.trace_id}
    parent = {"superstep": "run", "execution": "superstep", "attempt": "execution"}
    by_id = {span.context.span_id: span for span in spans.all()}
    for span in spans.all():
        kind = span.attributes["graphorch.span"]
        if kind != "run":
            above = by_id[span.parent.span_id]
            assert above.attributes["graphorch.span"] == parent[kind]
            assert above.start_time <= span.start_time <= span.end_time <= above.end_time
    assert [len(spans.of(kind)) for kind in ("superstep", "execution", "attempt")] == [3, 3, 3]


def test_the_callers_current_span_is_the_parent(spans):
    with trace.get_tracer("test").start_as_current_span("caller") as caller:
        executor(chain(ProcessingNode("a", echo))).run()
    assert spans.one("run").parent.span_id == caller.get_span_context().span_id


def test_an_aggregator_links_to_the_attempts_that_fed_it(spans):
    executor(star(ProcessingNode("a", echo), ProcessingNode("b", echo))).run()
    fed = [link.context.span_id for link in spans.one("execution", node_id="join").links]
    feeders = [spans.one("attempt", node_id=node_id).context.span_id for node_id in "ab"]
    assert fed == feeders


def test_a_retried_node_links_on_from_the_attempt_that_gave_its_result(spans):
    graph = star(ProcessingNode("a", fail), fallbacks={"a": ProcessingNode("f", fallback)})
    executor(graph, retry_policy=RetryPolicy(1, 0)).run()
    assert len(spans.of("attempt", owner_id="a")) == 3
    (link,) = spans.one("execution", node_id="join").links
    assert link.context.span_id == spans.one("attempt", role="fallback").context.span_id


def test_a_failed_attempt_has_the_exception_and_an_error_status(spans):
    with pytest.raises(GraphExecutionError):
        executor(chain(ProcessingNode("a", fail))).run()
    attempt = spans.one("attempt", node_id="a")
    assert attempt.status.status_code is StatusCode.ERROR
    (raised,) = events(attempt, "exception")
    assert raised["exception.type"] == "ValueError"
    assert raised["exception.message"] == "no luck"
    assert "raise ValueError" in raised["exception.stacktrace"]
    for kind in ("execution", "superstep", "run"):
        assert spans.of(kind)[-1].status.status_code is StatusCode.ERROR


def test_a_run_that_goes_on_links_to_the_one_before(spans):
    run = executor(chain(ProcessingNode("a", fail)))
    for _ in range(2):
        with pytest.raises(GraphExecutionError):
            run.run()
    first, second = spans.of("run")
    assert [link.context for link in first.links] == []
    assert [link.context.span_id for link in second.links] == [first.context.span_id]


def test_a_carrier_links_a_run_in_another_process_to_this_one(spans):
    first = executor(chain(ProcessingNode("a", echo)))
    first.run()
    carrier = first._hub.capture()
    assert all(isinstance(value, str) for value in carrier.values())
    second = executor(chain(ProcessingNode("a", echo)))
    second._hub.link_from(carrier)
    second.run()
    one, two = spans.of("run")
    assert two.context.trace_id != one.context.trace_id
    (link,) = two.links
    assert (link.context.trace_id, link.context.span_id) == (
        one.context.trace_id,
        one.context.span_id,
    )


def test_with_nothing_configured_no_span_is_made(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a span was made")

    for kind in (ReadableSpan, Ended):
        monkeypatch.setattr(kind, "__init__", refuse)
    telemetry.shutdown()
    run = executor(chain(ProcessingNode("a", echo)))
    assert run.run() == State([1])
    assert run._hub.capture() == {}


def test_with_nothing_configured_the_sdk_is_not_even_imported():
    code = """
import sys
from graphorch_ray import GraphBuilder, GraphExecutor, State
builder = GraphBuilder()
builder.add_concrete_edge("start", "end")
assert GraphExecutor(builder.build_graph(), State(), backend="inline").run() == State()
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_run_resumed_from_a_checkpoint_links_to_the_one_that_wrote_it(spans, backend, tmp_path):
    path = str(tmp_path / "c")
    first = GraphExecutor(
        chain(ProcessingNode("a", fail)), State([1]), checkpoint_path=path, backend=backend
    )
    with pytest.raises(GraphExecutionError):
        first.run()
    second = GraphExecutor.from_checkpoint(CheckpointData.load(path), backend=backend)
    with pytest.raises(GraphExecutionError):
        second.run()
    one, two = spans.of("run")
    assert [link.context.span_id for link in two.links] == [one.context.span_id]
    (loaded,) = events(two, "checkpoint_load")
    assert loaded["path"].endswith("c")
    assert loaded["bytes"] > 0


def test_a_run_resumed_from_a_checkpoint_links_to_the_trace_it_continues(spans, tmp_path):
    graph = chain(ProcessingNode("a", echo), ProcessingNode("b", echo))
    path = str(tmp_path / "runs")
    with pytest.raises(GraphExecutionError, match="Max supersteps"):
        GraphExecutor(
            graph, State([1]), checkpoint_path=path, checkpoint_every=1, backend="inline"
        ).run(max_supersteps=2)
    GraphExecutor.resume(path, graph, backend="inline").run()
    first, second = spans.of("run")
    assert [link.context.span_id for link in second.links] == [first.context.span_id]
    assert second.context.trace_id != first.context.trace_id


def test_a_report_can_be_had_with_nothing_configured(tmp_path):
    executor = GraphExecutor(chain(ProcessingNode("a", echo)), State([1]), backend="inline")
    executor.report(tmp_path / "run.html")
    executor.run()
    page = (tmp_path / "run.html").read_text()
    executor.report(tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == page
    unrecorded = GraphExecutor(chain(ProcessingNode("a", echo)), State([1]), backend="inline")
    unrecorded.run()
    with pytest.raises(RuntimeError, match="before executor"):
        unrecorded.report(tmp_path / "no.html")


@pytest.mark.parametrize("told", ["launched", "succeeded", "edges_taken"])
def test_spans_that_cannot_be_made_are_reported_once_and_cost_the_run_nothing(
    spans, monkeypatch, told
):
    def breaks(self, *facts):
        raise RuntimeError("broken")

    monkeypatch.setattr(SpanMaker, told, breaks)
    executor = GraphExecutor(chain(ProcessingNode("a", echo)), State([1]), backend="inline")
    with pytest.warns(GraphWarning, match="SpanMaker failed at .* RuntimeError: broken") as caught:
        executor.run()
    assert len(caught) == 1
    assert executor.summary.status == "finished"
