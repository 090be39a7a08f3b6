"""What is read from a trace, and what is computed from it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphorch_ray.telemetry.report import TraceError
from graphorch_ray.telemetry.report.facts import (
    critical_steps,
    edges_taken,
    error_groups,
    fallbacks_taken,
    node_facts,
    quantile,
    span_facts,
)
from graphorch_ray.telemetry.report.timeline import timeline_data
from graphorch_ray.telemetry.report.trace import Run, read_run, read_spans
from graphorch_ray.telemetry.report.units import duration, size

from .traces import (
    HEADER,
    Plan,
    Simulation,
    failed_run,
    save,
    small_run,
    wide_run,
    with_own_spans,
)


def small() -> Run:
    return read_run(small_run())


def test_a_file_and_its_spans_give_the_same_run(tmp_path: Path) -> None:
    spans = small_run()
    path = save(spans, tmp_path / "trace.jsonl")
    assert read_run(read_spans(path)) == read_run(read_spans(str(path))) == read_run(spans)


def test_the_run_is_read_whole() -> None:
    run = small()
    assert (run.graph_name, run.run_id, run.status, run.error) == (
        "research",
        "run-1",
        "finished",
        "",
    )
    assert [superstep.number for superstep in run.supersteps] == list(range(17))
    assert sum(1 for _ in run.executions) == 20
    assert sum(1 for _ in run.attempts) == 24
    assert run.facts["max_workers"] == 2
    assert [point.superstep for point in run.checkpoints] == [3, 8, 13]
    assert run.checkpoints[0].size == 48_000
    assert all(
        0 <= a.queued <= (a.started or a.ended) <= a.ended <= run.seconds for a in run.attempts
    )


def test_a_cut_off_last_line_is_skipped(tmp_path: Path) -> None:
    path = save(small_run(), tmp_path / "trace.jsonl")
    whole = read_run(read_spans(path))
    with path.open("a") as file:
        file.write('{"traceId": "5b')
    assert read_run(read_spans(path)) == whole


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(f"{json.dumps(HEADER)}\nnot json\n{json.dumps(small_run()[0])}\n")
    with pytest.raises(TraceError, match=r"trace.jsonl, line 2: this is not JSON: 'not json"):
        read_spans(path)
    path.write_text("[1]\n")
    with pytest.raises(TraceError, match="line 1: a JSON object is expected"):
        read_spans(path)


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"format": "graphorch-trace/9"}\n')
    with pytest.raises(TraceError, match=r"'graphorch-trace/9' is not known.*'graphorch-trace/1'"):
        read_spans(path)


def test_a_trace_without_a_run_is_refused() -> None:
    with pytest.raises(TraceError, match="holds no run: no span has"):
        read_run([])
    with pytest.raises(TraceError, match="no run with the id 'ghost'"):
        read_run(small_run(), "ghost")
    with pytest.raises(TraceError, match="has no end time"):
        read_run([{**span, "endTimeUnixNano": None} for span in small_run()])


def test_of_several_runs_the_newest_is_taken_unless_one_is_named() -> None:
    old = Simulation(graph="old", run_id="one")
    old.superstep([Plan("start")])
    new = Simulation(graph="new", run_id="two", start=60.0)
    new.superstep([Plan("start")])
    spans = [*new.finish(), *old.finish()]
    assert read_run(spans).graph_name == "new"
    assert read_run(spans).others == 1
    assert read_run(spans, "one").graph_name == "old"


def test_a_run_whose_driver_was_killed_is_read_as_far_as_it_went() -> None:
    spans = [span for span in small_run() if span["attributes"]["graphorch.span"] != "run"]
    run = read_run(spans)
    assert run.status == "unfinished"
    assert run.graph_name == "research"
    assert len(run.supersteps) == 17
    assert run.facts == {}


def test_spans_that_node_code_made_are_read_with_their_attempt() -> None:
    run = read_run(with_own_spans(failed_run(), pairs=2))
    for attempt in run.attempts:
        assert [(span.name, span.depth) for span in attempt.spans] == [
            *(("GET /pages", 0), ("connect", 1)),
            *(("GET /pages", 0), ("connect", 1)),
        ]
        assert all(
            attempt.queued <= span.start <= span.ended <= attempt.ended for span in attempt.spans
        )
        assert {span.failed for span in attempt.spans} == {False, attempt.outcome == "failed"}
    assert [dataclasses.replace(a, spans=()) for a in run.attempts] == list(
        read_run(failed_run()).attempts
    )


def test_spans_of_others_and_a_circle_of_spans_are_left_out() -> None:
    spans = small_run()
    attempt = next(s for s in spans if s["attributes"]["graphorch.span"] == "attempt")
    stray = {**attempt, "spanId": "f" * 16, "parentSpanId": "a" * 16, "attributes": {}}
    circle = {**attempt, "parentSpanId": attempt["spanId"], "attributes": {}}
    assert read_run([*spans, stray, circle]) == read_run(spans)


def test_spans_of_node_code_are_counted_by_name() -> None:
    (get, connect) = span_facts(read_run(with_own_spans(failed_run())))
    assert {get.name, connect.name} == {"GET /pages", "connect"}
    get, connect = sorted((get, connect), key=lambda facts: facts.name)
    assert len(get.times) == len(connect.times) == 11
    assert (get.failed, connect.failed) == (3, 0)
    assert list(get.nodes)[:2] == ["start", "fetch"]


def test_missing_attributes_leave_gaps_not_errors() -> None:
    spans = [
        {
            **span,
            "attributes": {
                key: value
                for key, value in span["attributes"].items()
                if key in ("graphorch.span", "graphorch.node_id")
            },
            "events": [],
        }
        for span in small_run()
    ]
    run = read_run(spans)
    assert run.run_id == ""
    assert all(attempt.started is None for attempt in run.attempts)
    facts = node_facts(run)
    assert facts["plan"].run_times == []
    assert quantile([], 50) is None
    assert timeline_data(run, critical_steps(run))["attempts"]["started"] == [-1] * 24


def test_a_worker_clock_that_is_off_moves_nothing_out_of_its_attempt() -> None:
    spans = small_run()
    for span in spans:
        for event in span["events"]:
            if event["name"] == "execute_start":
                event["timeUnixNano"] -= 10**12
    for attempt in read_run(spans).attempts:
        assert attempt.started is None or attempt.queued <= attempt.started <= attempt.ended


# --- facts --------------------------------------------------------------------------------------


def test_nodes_are_counted() -> None:
    facts = node_facts(small())
    search, write, plain = facts["search"], facts["write"], facts["plain_write"]
    assert (search.executions, search.attempts, search.retries, search.failures) == (3, 4, 1, 1)
    assert (write.executions, write.attempts, write.stood_in) == (3, 4, 0)
    assert (write.outcomes["timeout"], write.outcomes["failed"]) == (1, 1)
    assert (plain.executions, plain.stood_in, plain.attempts) == (0, 1, 1)
    read = facts["read"]
    assert (read.outcomes["infrastructure"], read.retries) == (1, 0)
    assert read.input_bytes == 4 * 4096
    assert read.output_bytes == 3 * 1024


def test_edges_and_fallbacks_are_counted() -> None:
    run = small()
    taken = edges_taken(run)
    assert taken["plan", "search", ""] == 3
    assert taken["critic", "plan", "good_enough"] == 2
    assert taken["critic", "end", "good_enough"] == 1
    assert fallbacks_taken(run) == {("write", "plain_write"): 1}


def test_what_failed_the_run_comes_first_and_the_same_errors_come_together() -> None:
    groups = error_groups(read_run(failed_run()))
    assert [(group.fatal, len(group.attempts)) for group in groups] == [(True, 3)]
    assert groups[0].error_type == "ValueError"
    assert groups[0].error == "a page was empty"
    assert "return page[0]" in groups[0].traceback
    groups = error_groups(read_run(wide_run(200)))
    assert [(group.fatal, len(group.attempts)) for group in groups] == [(False, 3)]


def test_the_critical_path_is_what_each_superstep_waited_for() -> None:
    run = small()
    steps = critical_steps(run)
    for step in steps:
        assert step.execution is not None
        assert step.execution.end == max(e.end for e in step.superstep.executions)
        parts = step.ran + step.queued + step.paused + step.outside
        assert parts == pytest.approx(step.superstep.end - step.superstep.start)
    retried = steps[7]
    assert retried.execution is not None
    assert retried.execution.node_id == "search"
    assert retried.paused == pytest.approx(0.05)


def test_a_failed_superstep_waited_for_what_failed_not_for_what_was_cancelled() -> None:
    spans = failed_run()
    (parse,) = [span for span in spans if span["name"] == "node parse"]
    (page,) = [span for span in spans if span["name"] == "node page_5"]
    page["attributes"]["graphorch.outcome"] = "cancelled"
    page["endTimeUnixNano"] = parse["endTimeUnixNano"] + 1
    last = critical_steps(read_run(spans))[-1].execution
    assert last is not None
    assert last.node_id == "parse"


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 99))
def test_a_quantile_lies_among_its_values(values: list[float], percent: int) -> None:
    found = quantile(values, percent)
    assert found is not None
    assert min(values) * 0.999 <= found <= max(values) * 1.001


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *((None, "\u2013"), (0, "0 s"), (4e-7, "0.4 µs"), (0.00034, "340 µs"), (0.0125, "12.5 ms")),
        *((1.0, "1 s"), (59.94, "59.9 s"), (125, "2 min 05 s"), (3725, "1 h 02 min")),
    ],
)
def test_durations_have_the_unit_that_fits(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"), [(None, "\u2013"), (0, "0 B"), (1536, "1.5 KiB"), (3 * 2**40, "3 TiB")]
)
def test_sizes_have_the_unit_that_fits(number: int | None, said: str) -> None:
    assert size(number) == said


def test_the_script_gets_every_attempt_in_columns() -> None:
    run = small()
    data: dict[str, Any] = timeline_data(run, critical_steps(run))
    columns = data["attempts"]
    assert {len(column) for column in columns.values()} == {24}
    named = [data["nodes"][number] for number in columns["node"]]
    assert named == [attempt.node_id for attempt in run.attempts]
    assert data["workers"][0] == "driver"
    assert sum(columns["critical"]) == 20  # of the supersteps' last executions all attempts
