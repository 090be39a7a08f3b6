"""Nothing of a state leaves by telemetry unless it is asked for; a hook has the last word."""

from __future__ import annotations

import logging

import pytest

from graphorch_ray import (
    GraphExecutionError,
    GraphExecutor,
    GraphWarning,
    ProcessingNode,
    State,
    telemetry,
)
from graphorch_ray.telemetry.jsonlines import span_line
from tests.runtime.nodes import chain, echo
from tests.telemetry.nodes import tells_secret

SECRET = "s3cret-t0ken"


def run(graph, backend, state):
    GraphExecutor(graph, state, backend=backend).run()


def text(spans):
    return "".join(map(span_line, spans.all()))


def test_no_state_is_in_a_span_event_or_log_by_default(spans, backend, caplog):
    caplog.set_level(logging.DEBUG, "graphorch_ray")
    seen = []
    executor = GraphExecutor(
        chain(ProcessingNode("a", echo)), State([SECRET, {"key": SECRET}]), backend=backend
    )
    executor.add_observer(seen.append)
    executor.run()
    assert SECRET not in text(spans)
    assert SECRET not in repr(seen)
    assert SECRET not in caplog.text
    assert caplog.records


def test_states_are_recorded_when_asked_for_and_cut_to_size(spans, backend):
    telemetry.configure(exporters=[fresh(spans)], record_states=40)
    run(chain(ProcessingNode("a", echo)), backend, State([SECRET, "x" * 10_000]))
    attempt = spans.one("attempt", node_id="a")
    for name in ("graphorch.input", "graphorch.output"):
        value = attempt.attributes[name]
        assert value.startswith(f"State(['{SECRET}'")
        assert len(value) == 41


def test_the_redact_hook_sees_everything_that_leaves(spans, backend):
    def redact(name, value):
        if isinstance(value, str) and SECRET in value:
            return None if name == "user.token" else value.replace(SECRET, "***")
        return value

    telemetry.configure(exporters=[fresh(spans)], record_states=True, redact=redact)
    with pytest.raises(GraphExecutionError):
        run(chain(ProcessingNode("a", tells_secret)), backend, State([SECRET]))
    written = text(spans)
    assert SECRET not in written
    assert "could not log in with ***" in written
    (own,) = [span for span in spans.all() if span.name == "own"]
    assert dict(own.attributes) == {"user.header": "Bearer ***"}


def test_where_the_redact_hook_fails_nothing_leaves(spans):
    def redact(name, value):
        if name == "exception.message":
            raise RuntimeError("bug")
        return value if name.startswith("graphorch.") and name != "graphorch.error" else None

    telemetry.configure(exporters=[fresh(spans)], redact=redact)

    def run_and_export():
        with pytest.raises(GraphExecutionError):
            run(chain(ProcessingNode("a", tells_secret)), "inline", State([SECRET]))
        assert telemetry.flush(10)

    with pytest.warns(GraphWarning, match="redact function failed at attribute"):
        run_and_export()
    attempt = spans.one("attempt", node_id="a")
    assert "exception.message" not in str([event.attributes for event in attempt.events])


def fresh(spans):
    """An exporter that has not been shut down by an earlier `configure`."""
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans.exporter = InMemorySpanExporter()
    return spans.exporter
