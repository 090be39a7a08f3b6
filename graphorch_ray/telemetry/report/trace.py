"""Reads a trace: spans as dicts, or lines of JSON, become the run that they tell of.

The form of the file is that of ``docs/observability.md``. Times here are seconds from the
beginning of the run.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..event import PREFIX
from ..jsonlines import FORMAT

__all__ = [
    "Attempt",
    "Checkpoint",
    "Execution",
    "OwnSpan",
    "Run",
    "Superstep",
    "TraceError",
    "read_run",
    "read_spans",
]

Span = Mapping[str, Any]
_OWN = ""  # the kind of a span that is none of the library's
_CHECKPOINTS = {
    "checkpoint_save": "saved",
    "checkpoint_load": "loaded",
    "fallback_to_checkpoint": "gone back to",
}


class TraceError(ValueError):
    """What was given as a trace is none, or holds no run; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSpan:
    """A span that a node's own code made, or a library that it uses.

    Attributes:
        depth: 0 beneath the attempt, 1 beneath such a span, and so on.
        failed: Its status is an error.
        error: What it says of that; may be empty.
    """

    name: str
    depth: int
    start: float
    ended: float
    failed: bool
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of a node's code to run.

    Attributes:
        queued: When it was launched.
        started: When its code began; ``None`` where nobody knows.
        ended: When it ended, or was given up.
        worker: The process it ran in, in words; "driver" for the driver.
        queue_wait: Seconds between the two, as measured.
        error: Text of what went wrong, with its type; empty where nothing did.
        spans: What its code made, each before those beneath it, in order of time.
    """

    node_id: str
    owner_id: str
    role: str
    outcome: str
    superstep: int
    execution: int
    retry: int
    rerun: int
    queued: float
    started: float | None
    ended: float
    worker: str
    queue_wait: float | None
    input_bytes: int | None
    output_bytes: int | None
    batch_size: int | None
    error_type: str = ""
    error: str = ""
    traceback: str = ""
    spans: tuple[OwnSpan, ...] = ()


@dataclass(slots=True, kw_only=True)
class Execution:
    """One node in one superstep, with all its attempts in order of time."""

    node_id: str
    node_type: str
    index: int
    start: float
    end: float
    outcome: str
    fallback: str
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Superstep:
    """A superstep and its executions in launch order; ``taken`` counts the edges that fired."""

    number: int
    start: float
    end: float
    passed: bool
    executions: list[Execution] = field(default_factory=list)
    taken: dict[tuple[str, str, str], int] = field(default_factory=dict)
    dropped: int = 0
    timeouts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was saved, loaded or gone back to."""

    at: float
    what: str
    superstep: int | None
    size: int | None
    seconds: float | None
    path: str


@dataclass(slots=True, kw_only=True)
class Run:
    """A run as its trace tells it.

    Attributes:
        began: Wall-clock time of second 0.
        seconds: How long it took, or as far as the trace goes.
        status: ``"finished"``, ``"failed"``, ``"cancelled"``, or ``"unfinished"`` where the
            trace has no end of it.
        facts: What else its span carries, by attribute name without prefix.
        others: How many more runs the trace holds.
    """

    run_id: str
    graph_name: str
    began: datetime
    seconds: float
    status: str
    error: str
    facts: dict[str, Any]
    definition: dict[str, Any] | None
    supersteps: list[Superstep]
    checkpoints: list[Checkpoint]
    others: int

    @property
    def executions(self) -> Iterator[Execution]:
        """All executions, superstep by superstep."""
        return (execution for superstep in self.supersteps for execution in superstep.executions)

    @property
    def attempts(self) -> Iterator[Attempt]:
        """All attempts, execution by execution."""
        return (attempt for execution in self.executions for attempt in execution.attempts)


# --- reading ------------------------------------------------------------------------------------


def read_spans(trace: str | os.PathLike[str] | Iterable[Span]) -> list[Span]:
    """Return the spans of a trace file, or those given.

    A last line that is cut off is skipped.

    Raises:
        OSError: The file cannot be read.
        TraceError: A line is no JSON object, or the file has another form.
    """
    if not isinstance(trace, str | os.PathLike):
        return [span for span in trace if "format" not in span]
    path = Path(trace)
    spans: list[Span] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            whole = line.endswith("\n")
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError:
                if not whole:
                    break
                raise TraceError(
                    f"{path}, line {number}: this is not JSON: {line[:60]!r}"
                ) from None
            if not isinstance(value, dict):
                raise TraceError(
                    f"{path}, line {number}: a JSON object is expected, not {line[:60]!r}"
                )
            if "format" not in value:
                spans.append(value)
            elif value["format"] != FORMAT:
                raise TraceError(
                    f"{path}, line {number}: the form {value['format']!r} is not known; "
                    f"this version reads {FORMAT!r}"
                )
    return spans


def read_run(spans: Iterable[Span], run_id: str | None = None) -> Run:
    """Return the newest run among the spans, or the newest with that id.

    Raises:
        TraceError: There is none.
    """
    by_kind: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        kind = _attributes(span).get("span")
        if not isinstance(kind, str):
            by_kind[_OWN].append(span)
        elif run_id is None or _attributes(span).get("run_id") == run_id:
            by_kind[kind].append(span)
    runs = {_key(span): span for span in by_kind["run"]}
    orphans: dict[str, list[Span]] = defaultdict(list)  # their run has not ended, or never will
    children: dict[str, list[Span]] = defaultdict(list)
    for superstep in by_kind["superstep"]:
        parent = f"{superstep.get('traceId')}/{superstep.get('parentSpanId')}"
        (children if parent in runs else orphans)[parent].append(superstep)
    starts = {key: _nanoseconds(span, "start") for key, span in runs.items()}
    starts |= {key: min(_nanoseconds(s, "start") for s in spans) for key, spans in orphans.items()}
    if not starts:
        wanted = f" with the id {run_id!r}" if run_id is not None else ""
        raise TraceError(
            f"the trace holds no run{wanted}: no span has graphorch.span = 'run' or 'superstep'"
        )
    chosen = max(starts, key=lambda key: starts[key])
    supersteps = sorted(
        children.get(chosen) or orphans.get(chosen) or [], key=lambda s: _nanoseconds(s, "start")
    )
    return _Reader(starts[chosen], by_kind).run(runs.get(chosen), supersteps, len(starts) - 1)


class _Reader:
    """Turns the spans of one run into what they say."""

    def __init__(self, zero: int, by_kind: Mapping[str, list[Span]]) -> None:
        self.zero = zero
        self.inside: dict[str, list[Span]] = defaultdict(list)
        for span in (*by_kind["execution"], *by_kind["attempt"], *by_kind[_OWN]):
            self.inside[f"{span.get('traceId')}/{span.get('parentSpanId')}"].append(span)

    def run(self, span: Span | None, supersteps: list[Span], others: int) -> Run:
        read = [self.superstep(superstep) for superstep in supersteps]
        facts = _attributes(span if span is not None else supersteps[0])
        events = [self.event(event) for event in (span or {}).get("events", ())]
        ends = [superstep.end for superstep in read]
        if span is not None:
            ends.append(self.seconds(_nanoseconds(span, "end")))
        status = str(facts.get("status", "unfinished")) if span is not None else "unfinished"
        return Run(
            run_id=str(facts.get("run_id", "")),
            graph_name=str(facts.get("graph", "")),
            began=datetime.fromtimestamp(self.zero / 1e9, tz=UTC),
            seconds=max(ends, default=0.0),
            status=status,
            error=_message(span) or str(facts.get("error", "")) if status == "failed" else "",
            facts=facts if span is not None else {},
            definition=_definition(facts.get("graph.definition")),
            supersteps=read,
            checkpoints=[
                Checkpoint(
                    at=at,
                    what=_CHECKPOINTS[name],
                    superstep=_whole(told.get("superstep")),
                    size=_whole(told.get("bytes")),
                    seconds=_number(told.get("seconds")),
                    path=str(told.get("path", told.get("checkpoint", ""))),
                )
                for at, name, told in events
                if name in _CHECKPOINTS
            ],
            others=others,
        )

    def superstep(self, span: Span) -> Superstep:
        told = _attributes(span)
        superstep = Superstep(
            number=_whole(told.get("superstep")) or 0,
            start=self.seconds(_nanoseconds(span, "start")),
            end=self.seconds(_nanoseconds(span, "end")),
            passed="advanced_superstep" in told,
            executions=[self.execution(child) for child in self.inside[_key(span)]],
        )
        superstep.executions.sort(key=lambda execution: execution.index)
        for _, name, about in map(self.event, span.get("events", ())):
            if name in ("concrete_edge_transition", "conditional_edge_transition"):
                router = str(about.get("router_func") or "") if name.startswith("cond") else ""
                edge = str(about.get("source_node")), str(about.get("sink_node")), router
                count = _whole(about.get("count"))
                superstep.taken[edge] = superstep.taken.get(edge, 0) + (
                    1 if count is None else count
                )
            elif name == "states_dropped":
                superstep.dropped += max(0, (_whole(about.get("arrived")) or 1) - 1)
            elif name == "timeout":
                superstep.timeouts.append(str(about.get("node_id", "")))
        return superstep

    def execution(self, span: Span) -> Execution:
        told = _attributes(span)
        attempts = [self.attempt(child) for child in self.inside[_key(span)]]
        attempts.sort(key=lambda attempt: (attempt.queued, attempt.ended))
        return Execution(
            node_id=str(told.get("node_id", "")),
            node_type=str(told.get("node_type", "")),
            index=_whole(told.get("execution")) or 0,
            start=self.seconds(_nanoseconds(span, "start")),
            end=self.seconds(_nanoseconds(span, "end")),
            outcome=str(told.get("outcome", "")),
            fallback=str(told.get("fallback_node", "")),
            attempts=attempts,
        )

    def attempt(self, span: Span) -> Attempt:
        told = _attributes(span)
        queued = self.seconds(_nanoseconds(span, "start"))
        ended = max(queued, self.seconds(_nanoseconds(span, "end")))
        events = {name: (at, about) for at, name, about in map(self.event, span.get("events", ()))}
        wait = _number(told.get("queue_wait"))
        started = events["execute_start"][0] if "execute_start" in events else None
        if started is None and wait is not None:
            started = queued + wait
        if started is not None:  # another machine's clock may be off
            started = min(max(started, queued), ended)
        raised = events.get("exception", (0.0, {}))[1]
        return Attempt(
            node_id=str(told.get("node_id", "")),
            owner_id=str(told.get("owner_id", told.get("node_id", ""))),
            role=str(told.get("role", "node")),
            outcome=str(told.get("outcome", "")),
            superstep=_whole(told.get("superstep")) or 0,
            execution=_whole(told.get("execution")) or 0,
            retry=_whole(told.get("retry_count")) or 0,
            rerun=_whole(told.get("rerun")) or 0,
            queued=queued,
            started=started,
            ended=ended,
            worker=_worker(told),
            queue_wait=wait if wait is not None or started is None else started - queued,
            input_bytes=_whole(told.get("input_bytes")),
            output_bytes=_whole(told.get("output_bytes")),
            batch_size=_whole(told.get("batch_size")),
            error_type=str(raised.get("exception.type", told.get("error.type", ""))),
            error=str(told.get("error", raised.get("exception.message", _message(span)))),
            traceback=str(raised.get("exception.stacktrace", "")),
            spans=tuple(self.spans_in(span)),
        )

    def spans_in(self, attempt: Span) -> Iterator[OwnSpan]:
        """Yield the spans beneath an attempt, each before its children."""
        seen = {_key(attempt)}
        waiting = [(child, 0) for child in self.children(attempt)]
        while waiting:
            span, depth = waiting.pop()
            if _key(span) in seen:
                continue
            seen.add(_key(span))
            status = span.get("status") or {}
            yield OwnSpan(
                name=str(span.get("name", "")),
                depth=depth,
                start=self.seconds(_nanoseconds(span, "start")),
                ended=self.seconds(_nanoseconds(span, "end")),
                failed=status.get("code") == "ERROR",
                error=_message(span),
            )
            waiting += [(child, depth + 1) for child in self.children(span)]

    def children(self, span: Span) -> list[Span]:
        """The spans beneath one, the last to start first."""
        return sorted(
            self.inside.get(_key(span), ()), key=lambda s: _nanoseconds(s, "start"), reverse=True
        )

    def event(self, event: Span) -> tuple[float, str, dict[str, Any]]:
        at = event.get("timeUnixNano", self.zero)
        return self.seconds(at), str(event.get("name", "")), _attributes(event)

    def seconds(self, nanoseconds: int) -> float:
        return (nanoseconds - self.zero) / 1e9


# --- values that may be missing -----------------------------------------------------------------


def _attributes(span: Span) -> dict[str, Any]:
    """Return the attributes by name, without the prefix of the library's own."""
    told = span.get("attributes") or {}
    return {name.removeprefix(PREFIX): value for name, value in told.items()}


def _key(span: Span) -> str:
    return f"{span.get('traceId')}/{span.get('spanId')}"


def _nanoseconds(span: Span, end: str) -> int:
    value = span.get(f"{end}TimeUnixNano")
    if not isinstance(value, int):
        raise TraceError(f"span {span.get('spanId')} ({span.get('name')!r}) has no {end} time")
    return value


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _message(span: Span | None) -> str:
    return str(((span or {}).get("status") or {}).get("message") or "")


def _worker(told: Mapping[str, Any]) -> str:
    if told.get("placement") == "driver":
        return "driver"
    pid = told.get("worker_pid")
    if pid is None:
        return "no worker"
    node = str(told.get("ray_node") or "")
    return f"{node[:8]} · {pid}" if node else f"pid {pid}"


def _definition(text: object) -> dict[str, Any] | None:
    if not isinstance(text, str):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
