"""Metrics by outcome, and log records of runs and of nodes."""

from __future__ import annotations

import logging

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from graphorch_ray import GraphExecutionError, GraphExecutor, ProcessingNode, RetryPolicy, State
from graphorch_ray.telemetry import listeners
from tests.runtime.nodes import chain, echo, fail, fallback, killed_once, star
from tests.telemetry.nodes import async_node, retried, warns


@pytest.fixture
def metrics(monkeypatch):
    """Reads what this test counted, as {name: {labels: value}}."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(listeners, "meter_provider", lambda: provider)

    def read():
        data = reader.get_metrics_data()
        found = {}
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = found.setdefault(metric.name.removeprefix("graphorch."), {})
                    for point in metric.data.data_points:
                        labels = frozenset(
                            (name.removeprefix("graphorch."), value)
                            for name, value in point.attributes.items()
                        )
                        points[labels] = getattr(point, "value", None) or point
        return found

    yield read
    provider.shutdown()


def total(points, **labels):
    wanted = set(labels.items())
    return sum(
        value if isinstance(value, int) else 0 for key, value in points.items() if wanted <= key
    )


def count(points, **labels):
    wanted = set(labels.items())
    return sum(point.count for key, point in points.items() if wanted <= key)


def test_metrics_of_a_run_with_a_retry_and_a_fallback(metrics, backend, tmp_path):
    graph = star(
        ProcessingNode("a", retried),
        ProcessingNode("b", fail),
        fallbacks={"b": ProcessingNode("f", fallback)},
    )
    GraphExecutor(
        graph,
        State([str(tmp_path / "once")]),
        backend=backend,
        retry_policy=RetryPolicy(1, 0),
        checkpoint_path=str(tmp_path / "c"),
        checkpoint_every=1,
    ).run()
    found = metrics()
    assert total(found["runs"], status="finished", backend=backend, graph="star") == 1
    assert total(found["supersteps"]) == 4
    assert total(found["executions"], outcome="ok") == 5
    assert total(found["attempts"]) == 8
    assert total(found["attempts"], node_id="a", outcome="failed") == 1
    assert total(found["attempts"], node_id="f", outcome="ok") == 1
    assert total(found["retries"]) == 2
    assert total(found["fallbacks"], outcome="ok") == 1
    assert total(found["checkpoints"]) >= 4
    for name in ("checkpoint.duration", "checkpoint.size"):
        assert count(found[name]) == total(found["checkpoints"])
    assert count(found["checkpoint.lag"]) >= 1
    assert count(found["superstep.duration"]) == 4
    assert count(found["attempt.duration"]) >= 6
    assert count(found["attempt.queue_wait"]) >= 6
    assert count(found["run.duration"]) == 1
    assert count(found["superstep.duration"]) == 4
    assert count(found["attempt.duration"]) == 6  # start and end run no code
    assert count(found["attempt.queue_wait"]) == 6
    assert total(found["slots.in_use"]) == 0


def test_metrics_of_failures_and_timeouts(metrics):
    slow = ProcessingNode("slow", async_node)
    run = GraphExecutor(star(slow, ProcessingNode("b", fail)), State([1]), backend="inline")
    with pytest.raises(GraphExecutionError):
        run.run()
    found = metrics()
    assert total(found["runs"], status="failed") == 1
    assert total(found["executions"], outcome="failed") == 1
    assert total(found["slots.in_use"]) == 0


def test_a_lost_worker_is_counted_with_its_reason(metrics, ray_session, tmp_path):
    GraphExecutor(
        chain(ProcessingNode("a", killed_once)), State([str(tmp_path / "once")]), backend="ray"
    ).run()
    found = metrics()
    assert total(found["infrastructure_failures"], node_id="a", reason="worker_crashed") == 1
    assert total(found["attempts"], outcome="infrastructure") == 1
    assert total(found["executions"], node_id="a", outcome="ok") == 1


def test_a_wide_graph_has_no_label_for_its_nodes(metrics):
    nodes = [ProcessingNode(f"n{i}", echo) for i in range(120)]
    GraphExecutor(star(*nodes), State([1]), backend="inline").run()
    found = metrics()
    assert total(found["attempts"]) == 123
    assert len(found["attempts"]) <= 3


def test_the_library_logs_a_run_where_the_program_wants_it(spans, caplog):
    caplog.set_level(logging.INFO, "graphorch_ray")
    with pytest.raises(GraphExecutionError):
        GraphExecutor(chain(ProcessingNode("a", fail)), State([1]), backend="inline").run()
    run = spans.one("run")
    names = [record.graphorch_event for record in caplog.records if hasattr(record, "otelTraceID")]
    assert names[0] == "execution_start"
    assert names[-1] == "execution_failed"
    last = caplog.records[-1]
    assert last.levelno == logging.ERROR
    assert last.otelTraceID == f"{run.context.trace_id:032x}"
    assert last.otelSpanID == f"{run.context.span_id:016x}"
    assert "node_id='a'" in last.getMessage()


def test_the_library_is_quiet_by_default(caplog):
    with pytest.raises(GraphExecutionError):
        GraphExecutor(chain(ProcessingNode("a", fail)), State([1]), backend="inline").run()
    assert [r for r in caplog.records if r.name.startswith("graphorch_ray")] == []


def test_log_records_of_node_code_say_which_attempt_they_are_from(spans, caplog):
    executor = GraphExecutor(chain(ProcessingNode("a", warns)), State([1]), backend="inline")
    executor.run()
    (record,) = [record for record in caplog.records if record.name == "my.node"]
    assert record.graphorch_run_id == executor.run_id
    assert (record.graphorch_node_id, record.graphorch_attempt) == ("a", 0)
    assert record.graphorch_superstep == 1
    attempt = spans.one("attempt", node_id="a")
    assert record.otelSpanID == f"{attempt.context.span_id:016x}"
    logging.getLogger("elsewhere").warning("outside")
    assert not hasattr(caplog.records[-1], "graphorch_run_id")


def test_the_log_of_a_node_in_a_worker_still_goes_to_the_terminal(ray_session, tmp_path):
    from graphorch_ray import node_action, telemetry

    telemetry.configure(logs=True)
    path = str(tmp_path / "err")

    @node_action
    def speaks(state):
        import sys

        with open(path, "w") as file:
            before, sys.stderr = sys.stderr, file
            logging.getLogger("my.node").warning("to the terminal")
            sys.stderr = before
        return state

    GraphExecutor(chain(ProcessingNode("a", speaks)), State([1]), backend="ray").run()
    telemetry.shutdown()
    assert "to the terminal" in (tmp_path / "err").read_text()
