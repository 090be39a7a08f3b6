"""Spans of a run, made by the driver from its events: run, superstep, execution, attempt.

While a span is open it is a small record here; ended, it leaves as that record, and becomes the
SDK's read-only kind where it is exported. That costs the run's thread a fraction of a live SDK
span, and an attempt that was killed still has one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..model.attempt import AttemptFacts, AttemptKey, Launch
from ..model.graph import Graph
from ..model.trail import TraceContext
from . import events as ev
from .attempt_span import Arrivals, OpenAttempt, OpenExecution
from .broadcast import TOLD_DIRECTLY, Ignored
from .definition import graph_definition
from .edges_taken import EdgesTaken
from .event import PREFIX, AttemptEvent, Event
from .nodes import NodeTable
from .settings import Settings, short
from .span_writer import Ended, NodeSpan, OpenSpan, Sink, Traced

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class RootSpan(OpenSpan):
    """A span with none of the library's above. With a `graph`, that is told as text, too."""

    __slots__ = ("graph",)

    def __init__(
        self,
        traced: Traced,
        name: str,
        span_id: int,
        parent: SpanContext | None,
        start: float,
        attributes: dict[str, Any],
        graph: Graph | None,
    ) -> None:
        super().__init__(traced, name, span_id, parent, start, attributes)
        self.graph = graph

    def attributes_of(self) -> Mapping[str, Any]:
        """All that is known of it."""
        found = super().attributes_of()
        definition = graph_definition(self.graph) if self.graph is not None else None
        return found if definition is None else {**found, f"{PREFIX}graph.definition": definition}


class SpanMaker:
    """Listens to one run and makes its spans.

    Args:
        graph: the run's graph.
        provider: whose sampler, ids, resource and processors are used.
        sink: where ended spans go.
        settings: what may leave.
        nodes: the graph's.
        links: traces that the run continues, as `carrier` gave them.
    """

    ignores: ClassVar[Ignored] = TOLD_DIRECTLY

    def __init__(
        self,
        graph: Graph,
        provider: TracerProvider,
        sink: Sink,
        settings: Settings,
        nodes: NodeTable,
        links: Iterable[Mapping[str, str]] = (),
    ) -> None:
        self._graph = graph
        self._provider = provider
        self._new_id = provider.id_generator.generate_span_id
        self._settings = settings
        self._nodes = nodes
        self._sink = sink
        self._carriers = list(links)
        self._recording = False
        self._run_context: SpanContext | None = None
        self._told: tuple[int, str] = (0, "")
        self._run: OpenSpan | None = None
        self._superstep: OpenSpan | None = None
        self._executions: dict[int, OpenExecution] = {}
        self._attempts: dict[AttemptKey, OpenAttempt] = {}
        self._results: dict[int, int] = {}
        self._taken: EdgesTaken | None = None
        self._arrivals: Arrivals | None = None
        self._places: dict[str, int] = {}
        self._before: list[Event] = []
        self._on: dict[type[Event], Callable[[Any], None]] = {
            ev.RunStarted: self._run_started,
            ev.RunFinished: self._run_finished,
            ev.RunFailed: self._run_failed,
            ev.SuperstepStarted: self._superstep_started,
            ev.SuperstepCompleted: self._superstep_completed,
            ev.SuperstepTimedOut: self._in_superstep,
            ev.NoFallback: self._in_superstep,
            ev.StatesDropped: self._in_superstep,
            ev.AttemptFailed: self._attempt_failed,
            ev.AttemptCancelled: self._attempt_cancelled,
            ev.ModelBuilt: self._in_attempt,
            ev.ToolRequested: self._in_attempt,
            ev.ToolAnswered: self._in_attempt,
            ev.RetryScheduled: self._in_execution,
            ev.FallbackInvoked: self._fallback_invoked,
            ev.FallbackSucceeded: self._in_execution,
            ev.FallbackFailed: self._in_execution,
            ev.FallbackToCheckpoint: self._back_to_checkpoint,
            ev.ExecutorInitFailed: self._refused,
        }

    # --- what others ask ----------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """Take note of an event."""
        kind = type(event)
        if kind not in self.ignores:
            self._on.get(kind, self._in_run)(event)

    def carrier(self) -> dict[str, str]:
        """The run's span in the W3C form, as a small dict of strings."""
        carrier: dict[str, str] = {}
        if self._run_context is not None:
            span = NonRecordingSpan(self._run_context)
            TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(span))
        return carrier

    # --- the run ------------------------------------------------------------------------------

    def _run_started(self, event: ev.RunStarted) -> None:
        attributes = {
            **event.attributes(),
            "host.name": event.host,
            "process.pid": os.getpid(),
        }
        self._run = self._root(f"run {event.graph}", event, "run", attributes, graph=self._graph)
        self._run.note(event)

    def _root(
        self,
        name: str,
        event: Event,
        kind: str,
        attributes: dict[str, Any],
        start: float = inf,
        graph: Graph | None = None,
    ) -> OpenSpan:
        """A span beneath the caller's current one, if the sampler wants it."""
        around = otel_context.get_current()
        parent: SpanContext | None = trace.get_current_span(around).get_span_context()
        if parent is None or not parent.is_valid:
            parent = None
        ids = self._provider.id_generator
        trace_id = parent.trace_id if parent is not None else ids.generate_trace_id()
        links = [link for link in map(_link, self._carriers) if link is not None]
        attributes = {
            f"{PREFIX}span": kind,
            f"{PREFIX}run_id": event.run_id,
            f"{PREFIX}graph": self._graph.name,
            **attributes,
        }
        sampled = self._provider.sampler.should_sample(
            around, trace_id, name, SpanKind.INTERNAL, attributes, links
        )
        self._recording = sampled.decision is not Decision.DROP
        kept = sampled.decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags(TraceFlags.SAMPLED if kept else TraceFlags.DEFAULT)
        context = SpanContext(trace_id, ids.generate_span_id(), False, flags, sampled.trace_state)
        self._run_context = context
        self._told = int(flags), context.trace_state.to_header() if context.trace_state else ""
        traced = Traced(
            context,
            event.run_id,
            self._graph.name,
            self._nodes,
            self._provider.resource,
            self._settings,
        )
        attributes.update(sampled.attributes or {})
        began = min(start, event.time)
        root = RootSpan(traced, name, context.span_id, parent, began, attributes, graph)
        root.links = links
        return root

    def _run_finished(self, event: ev.RunFinished) -> None:
        run = self._run
        if run is not None:
            run.note(event)
            run.attributes.update(event.attributes())
            run.attributes[f"{PREFIX}status"] = "finished"
            self._close_superstep()
            self._end(run, event.time)
            self._run = None

    def _run_failed(self, event: ev.RunFailed) -> None:
        run = self._run
        if run is not None:
            self._close_superstep(failed=event.status == "failed")
            run.note(event)
            run.attributes.update(event.attributes())
            run.attributes[f"{PREFIX}error"] = short(event.error)
            run.attributes["error.type"] = event.error_type
            self._end(run, event.time, event.error)
            self._run = None

    def _in_run(self, event: Event) -> None:
        if self._run is not None:
            if isinstance(event, ev.ExecutorInit):  # what the run itself said is newer
                self._run.attributes = {**event.attributes(), **self._run.attributes}
            self._run.note(event)
        else:
            self._before.append(event)

    def _refused(self, event: ev.ExecutorInitFailed) -> None:
        """No run will come: what led here gets a span of its own."""
        began = min([inf, *(before.time for before in self._before)])
        span = self._root(f"executor {self._graph.name}", event, "executor", {}, began)
        for told in (*self._before, event):
            span.note(told)
        self._end(span, event.time, event.reason)

    # --- supersteps ---------------------------------------------------------------------------

    def _superstep_started(self, event: ev.SuperstepStarted) -> None:
        self._close_superstep()
        assert self._run is not None, "events come in order"
        facts = {f"{PREFIX}span": "superstep", **event.attributes()}
        run = self._run
        self._superstep = OpenSpan(
            run.traced, "superstep", self._new_id(), run.context(), event.time, facts
        )
        self._places = {}

    def _in_superstep(self, event: Event) -> None:
        if self._superstep is not None:
            self._superstep.last = event.time
            self._superstep.note(event)

    def edges_taken(self, taken: EdgesTaken) -> None:
        """A barrier passed, and results went along these edges."""
        if self._superstep is not None:
            self._superstep.last = taken.time
            self._superstep.note(taken)
            self._taken = taken

    def _superstep_completed(self, event: ev.SuperstepCompleted) -> None:
        superstep = self._superstep
        if superstep is not None:
            superstep.attributes[f"{PREFIX}next_active_nodes"] = event.next_active_nodes
            superstep.attributes[f"{PREFIX}advanced_superstep"] = event.superstep
            superstep.last = event.time
        taken, self._taken = self._taken, None
        self._arrivals = None
        if taken is not None and superstep is not None:
            self._arrivals = Arrivals(taken, self._results, superstep.traced)
        self._close_superstep()

    def _back_to_checkpoint(self, event: ev.FallbackToCheckpoint) -> None:
        self._close_superstep(failed=True)
        self._arrivals = None
        self._in_run(event)

    def _close_superstep(self, *, failed: bool = False) -> None:
        superstep = self._superstep
        if superstep is None:
            return
        for execution in self._executions.values():
            error = execution.failure or "" if execution.outcome == "failed" else None
            superstep.last = max(superstep.last, execution.last)
            self._end(execution, execution.last, error)
        self._end(superstep, superstep.last, "" if failed else None)
        self._executions, self._attempts, self._results = {}, {}, {}
        self._superstep = None

    # --- executions and attempts --------------------------------------------------------------

    def launched(self, launches: Sequence[Launch], time: float) -> list[Launch]:
        """Attempts are handed out at `time`, in Unix seconds; gives each with its span's ids."""
        superstep, new_id = self._superstep, self._new_id
        assert superstep is not None, "events come in order"
        executions, attempts = self._executions, self._attempts
        trace_id, (flags, state) = superstep.traced.trace_id, self._told
        chars, level = self._settings.state_chars, self._settings.log_level
        traced: list[Launch] = []
        for launch in launches:
            key, node_id, owner_id, states, as_list, edges, _ = launch
            execution = executions.get(key.execution)
            if execution is None:
                execution = self._new_execution(superstep, key, owner_id, time)
            execution.attempts += 1
            execution.outcome = None
            execution.last = time
            span_id = new_id()
            attempts[key] = OpenAttempt(execution, span_id, key, node_id, time)
            context = TraceContext(trace_id, span_id, flags, state, chars, level)
            traced.append(Launch(key, node_id, owner_id, states, as_list, edges, context))
        return traced

    def _new_execution(
        self, superstep: OpenSpan, key: AttemptKey, owner_id: str, time: float
    ) -> OpenExecution:
        place = self._places.get(owner_id, 0)
        self._places[owner_id] = place + 1
        execution = self._executions[key.execution] = OpenExecution(
            superstep.traced, self._new_id(), superstep, key, owner_id, time, self._arrivals, place
        )
        return execution

    def succeeded(self, key: AttemptKey, facts: AttemptFacts, time: float) -> None:
        """An attempt gave a state, and the driver had it at `time`, in Unix seconds."""
        attempt = self._attempts.pop(key, None)
        if attempt is not None:
            self._end_attempt(attempt, facts, time, None)
            self._results[key.execution] = attempt.span_id
            execution = attempt.execution
            execution.outcome, execution.answer, execution.last = "ok", attempt.facts, time

    def _in_execution(
        self, event: ev.RetryScheduled | ev.FallbackInvoked | ev.FallbackSucceeded
    ) -> None:
        execution = self._executions.get(event.execution)
        if execution is not None:
            execution.last = max(execution.last, event.time)
            execution.note(event)

    def _fallback_invoked(self, event: ev.FallbackInvoked) -> None:
        execution = self._executions.get(event.execution)
        if execution is not None:
            execution.fallback = event.fallback_node
        self._in_execution(event)

    def _in_attempt(self, event: AttemptEvent) -> None:
        attempt = self._attempts.get(event.key)
        if attempt is not None:
            attempt.note(event)

    def _attempt_failed(self, event: ev.AttemptFailed) -> None:
        attempt = self._attempts.pop(event.key, None)
        if attempt is not None:
            attempt.failed = event
            self._end_attempt(attempt, event.facts, event.time, event.error)
            execution = attempt.execution
            execution.outcome, execution.failure, execution.last = "failed", event.error, event.time

    def _attempt_cancelled(self, event: ev.AttemptCancelled) -> None:
        attempt = self._attempts.pop(event.key, None)
        if attempt is not None:
            attempt.failed = event
            attempt.execution.last = event.time
            self._end(attempt, event.time, event.reason)

    def _end_attempt(
        self, attempt: OpenAttempt, facts: AttemptFacts, time: float, error: str | None
    ) -> None:
        """End an attempt that gave an answer, and the spans that came home with it."""
        trail = facts.trail
        if trail is not None:
            if self._recording:
                for record in trail.spans:
                    self._sink(NodeSpan(record, attempt.traced))
            # Spans and logs go their own ways, and are not held by what waits to be exported.
            facts = facts._replace(trail=trail._replace(notes=(), spans=(), logs=()))
        attempt.facts = facts
        if facts.ran_ahead:
            self._began_earlier(attempt, facts)
        self._end(attempt, time, error)

    def _began_earlier(self, attempt: OpenAttempt, facts: AttemptFacts) -> None:
        """Its worker ran it before the driver came to it: its spans are as old as its code is."""
        if facts.span_id is not None:
            attempt.span_id = facts.span_id
        if facts.started is not None:
            for span in (attempt, attempt.execution, self._superstep):
                if span is not None:
                    span.start = min(span.start, facts.started)

    def _end(self, span: Ended, end: float, error: str | None = None) -> None:
        """Let a span go, as one that failed where `error` is given; times are Unix seconds."""
        if self._recording:
            span.end, span.error = end, error
            self._sink(span)


def _link(carrier: Mapping[str, str]) -> Link | None:
    """A link to the span in a carrier; None where it holds none."""
    found = TraceContextTextMapPropagator().extract(dict(carrier), otel_context.Context())
    context = trace.get_current_span(found).get_span_context()
    return Link(context, {f"{PREFIX}link": "continues"}) if context.is_valid else None
