"""Traces are valid for random graphs: every span ends, parents enclose, counts agree."""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from graphorch_ray import (
    AggregatorNode,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    node_action,
    telemetry,
)
from graphorch_ray.telemetry.events import AttemptStarted, RunFailed, RunFinished
from tests.runtime.nodes import gather

kinds_of_node = st.sampled_from(["ok", "flaky", "async", "falls back", "fails"])
layers = st.lists(st.lists(kinds_of_node, min_size=1, max_size=4), min_size=1, max_size=3)


def graph_of(kinds, tries):
    """Layers of nodes side by side, each layer joined before the next."""

    def action(kind, name):
        def run(state):
            tries[name] += 1
            if kind == "flaky" and tries[name] == 1:
                raise ValueError("flaky")
            if kind in ("fails", "falls back"):
                raise ValueError(kind)
            return state

        async def arun(state):
            return run(state)

        return node_action(arun if kind == "async" else run)

    builder = GraphBuilder("random")
    before = "start"
    for depth, layer in enumerate(kinds):
        join = f"join{depth}"
        builder.add_aggregator(AggregatorNode(join, gather))
        for place, kind in enumerate(layer):
            name = f"n{depth}.{place}"
            builder.add_node(ProcessingNode(name, action(kind, name)))
            builder.add_concrete_edge(before, name)
            builder.add_concrete_edge(name, join)
            if kind == "falls back":
                builder.add_node(ProcessingNode(f"f{name}", action("ok", f"f{name}")))
                builder.set_fallback_node(name, f"f{name}")
        before = join
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()


@pytest.mark.filterwarnings("ignore::graphorch_ray.errors.GraphWarning")
@given(kinds=layers, retries=st.integers(0, 2))
def test_every_trace_is_valid(kinds, retries):
    exporter = InMemorySpanExporter()
    telemetry.configure(exporters=[exporter])
    run = GraphExecutor(
        graph_of(kinds, Counter()),
        State([1]),
        backend="inline",
        retry_policy=RetryPolicy(retries, 0),
    )
    seen = []
    run.add_observer(seen.append)
    with contextlib.suppress(GraphExecutionError):
        run.run()
    assert telemetry.flush(10)
    spans = exporter.get_finished_spans()
    telemetry.shutdown()

    by_id = {span.context.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    roots = [span for span in spans if span.parent is None]
    assert [span.name for span in roots] == ["run random"]
    for span in spans:
        assert span.end_time is not None
        assert span.start_time <= span.end_time
        if span.parent is not None:
            parent = by_id[span.parent.span_id]
            assert parent.start_time <= span.start_time
            assert span.end_time <= parent.end_time
        for event in span.events:
            assert span.start_time <= event.timestamp <= span.end_time
    kind = Counter(span.attributes["graphorch.span"] for span in spans)
    summary = run.summary
    cancelled = [s for s in spans if s.attributes.get("graphorch.outcome") == "cancelled"]
    lost = sum(1 for span in cancelled if span.attributes["graphorch.span"] == "attempt")
    assert kind["attempt"] - lost == sum(node.attempts for node in summary.nodes.values())
    assert kind["attempt"] == sum(isinstance(event, AttemptStarted) for event in seen)
    assert kind["execution"] == sum(node.executions for node in summary.nodes.values())
    failed = summary.status == "failed"
    assert kind["superstep"] == summary.supersteps + failed
    assert isinstance(seen[-1], RunFailed if failed else RunFinished)
    for span in spans:
        if span.attributes["graphorch.span"] == "execution":
            below = [s for s in spans if s.parent and s.parent.span_id == span.context.span_id]
            assert span.attributes["graphorch.attempts"] == len(below)
