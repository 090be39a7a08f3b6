"""Reports of runs that really ran, from the file that they wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphorch_ray import (
    AggregatorNode,
    Graph,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    aggregator_action,
    node_action,
    routing_function,
    telemetry,
)
from graphorch_ray.telemetry.report import write_report
from graphorch_ray.telemetry.report.facts import edges_taken, fallbacks_taken, node_facts
from graphorch_ray.telemetry.report.trace import Run, read_run, read_spans


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "trace.jsonl"
    telemetry.configure(file=path)
    yield path
    telemetry.shutdown()


@node_action
async def step(state: State) -> State:
    await asyncio.sleep(0)
    return State([*state.messages, "step"])


@node_action
def plain(state: State) -> State:
    return State([*state.messages, "plain"])


@node_action
def broken(state: State) -> State:
    raise ValueError("a page was <empty>")


@aggregator_action
def merge(states: list[State]) -> State:
    return State([message for state in states for message in state.messages])


@routing_function
def enough(state: State) -> str:
    return "end" if len(state.messages) > 5 else "step"


def looping() -> Graph:
    builder = GraphBuilder("looping")
    builder.add_node(ProcessingNode("step", step))
    builder.add_node(ProcessingNode("broken", broken))
    builder.add_node(ProcessingNode("plain", plain))
    builder.add_aggregator(AggregatorNode("merge", merge))
    for source, sink in (("start", "step"), ("start", "broken"), ("step", "merge")):
        builder.add_concrete_edge(source, sink)
    builder.add_concrete_edge("broken", "merge")
    builder.add_conditional_edge("merge", ["step", "end"], enough)
    builder.set_fallback_node("broken", "plain")
    builder.set_node_retry_policy("broken", RetryPolicy(1, 0.0))
    return builder.build_graph()


def run_of(path: Path) -> Run:
    telemetry.flush()
    return read_run(read_spans(path))


def test_the_report_agrees_with_the_summary(trace: Path, tmp_path: Path) -> None:
    executor = GraphExecutor(looping(), State(), backend="inline")
    executor.run()
    run, summary = run_of(trace), executor.summary
    assert (run.run_id, run.graph_name, run.status) == (summary.run_id, "looping", "finished")
    assert len(run.supersteps) == summary.supersteps
    facts = node_facts(run)
    assert {name: node.attempts for name, node in facts.items()} == {
        name: node.attempts for name, node in summary.nodes.items()
    }
    assert facts["broken"].failures == summary.nodes["broken"].failures == 2
    assert facts["broken"].retries == summary.nodes["broken"].retries == 1
    assert fallbacks_taken(run) == {("broken", "plain"): 1}
    taken = edges_taken(run)
    assert taken["merge", "end", "enough"] == 1
    assert taken["merge", "step", "enough"] == taken["step", "merge", ""] - 1 > 0
    text = write_report(trace, tmp_path / "run.html").read_text(encoding="utf-8")
    assert 'data-node="merge / enough"' in text
    assert "a page was &lt;empty&gt;" in text


def test_a_failed_run_has_its_error_and_traceback(trace: Path, tmp_path: Path) -> None:
    builder = GraphBuilder("failing")
    builder.add_node(ProcessingNode("broken", broken))
    builder.add_concrete_edge("start", "broken")
    builder.add_concrete_edge("broken", "end")
    executor = GraphExecutor(builder.build_graph(), State(), backend="inline")
    with pytest.raises(GraphExecutionError, match="broken"):
        executor.run()
    run = run_of(trace)
    assert run.status == "failed"
    assert "a page was <empty>" in run.error
    text = write_report(trace, tmp_path / "run.html").read_text(encoding="utf-8")
    assert 'class="error fatal"' in text
    assert "raise ValueError(" in text


def test_checkpoints_are_listed(trace: Path, tmp_path: Path) -> None:
    executor = GraphExecutor(
        looping(),
        State(),
        backend="inline",
        checkpoint_path=str(tmp_path / "kept"),
        checkpoint_every=1,
    )
    executor.run()
    run = run_of(trace)
    assert len(run.checkpoints) >= len(run.supersteps)
    assert {point.what for point in run.checkpoints} == {"saved"}
