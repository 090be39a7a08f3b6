"""Spans of a run, made by the driver from its events: run, superstep, execution, attempt.

A span is made once, when it has ended, as the SDK's read-only kind; while it is open it is a
small record here. That costs a fraction of a live SDK span, and an attempt that was killed
still has one.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..model.attempt import AttemptFacts, AttemptKey
from ..model.graph import Graph
from ..model.trail import TraceContext
from . import events as ev
from .definition import graph_definition
from .event import PREFIX, AttemptEvent, Event
from .settings import Settings, short, short_end
from .span_writer import OpenSpan, SpanWriter

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class SpanMaker:
    """Listens to one run and makes its spans.

    Args:
        graph: the run's graph.
        provider: whose sampler, ids, resource and processors are used.
        sink: where finished spans go.
        settings: what may leave.
        links: traces that the run continues, as `carrier` gave them.
    """

    def __init__(
        self,
        graph: Graph,
        provider: TracerProvider,
        sink: Callable[[ReadableSpan], None],
        settings: Settings,
        links: Iterable[Mapping[str, str]] = (),
    ) -> None:
        self._graph = graph
        self._provider = provider
        self._settings = settings
        self._writer = SpanWriter(provider, sink, settings)
        self._carriers = list(links)
        self._run: OpenSpan | None = None
        self._superstep: OpenSpan | None = None
        self._executions: dict[int, OpenSpan] = {}
        self._attempts: dict[AttemptKey, OpenSpan] = {}
        self._common: dict[str, Any] = {}
        self._codes: dict[str, dict[str, Any]] = {}
        self._results: dict[int, SpanContext] = {}
        self._arriving: dict[str, list[tuple[int, SpanContext]]] = {}
        self._arrived: dict[str, list[SpanContext]] = {}
        self._taken: dict[str, int] = {}
        self._run_context: SpanContext | None = None
        self._before: list[Event] = []
        self._on: dict[type[Event], Callable[[Any], None]] = {
            ev.RunStarted: self._run_started,
            ev.RunFinished: self._run_finished,
            ev.RunFailed: self._run_failed,
            ev.SuperstepStarted: self._superstep_started,
            ev.SuperstepCompleted: self._superstep_completed,
            ev.SuperstepTimedOut: self._superstep_timed_out,
            ev.NoFallback: self._in_superstep,
            ev.StatesDropped: self._in_superstep,
            ev.EdgeTaken: self._edge_taken,
            ev.AttemptStarted: self._attempt_started,
            ev.AttemptFailed: self._attempt_failed,
            ev.AttemptCancelled: self._attempt_cancelled,
            ev.NodeCompleted: self._node_completed,
            ev.CodeStarted: self._in_attempt,
            ev.CodeEnded: self._in_attempt,
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
        self._on.get(type(event), self._in_run)(event)

    def context_of(self, key: AttemptKey) -> TraceContext | None:
        """What an attempt is to be told of its span."""
        attempt = self._attempts.get(key)
        if attempt is None:
            return None
        context = attempt.context
        return TraceContext(
            context.trace_id,
            context.span_id,
            int(context.trace_flags),
            context.trace_state.to_header() if context.trace_state else "",
            self._settings.state_chars,
            self._settings.log_level,
        )

    def carrier(self) -> dict[str, str]:
        """The run's span in the W3C form, as a small dict of strings."""
        carrier: dict[str, str] = {}
        if self._run_context is not None:
            span = NonRecordingSpan(self._run_context)
            TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(span))
        return carrier

    # --- the run ------------------------------------------------------------------------------

    def _run_started(self, event: ev.RunStarted) -> None:
        self._common = {f"{PREFIX}run_id": event.run_id, f"{PREFIX}graph": event.graph}
        attributes = {
            **event.attributes(),
            "host.name": event.host,
            "process.pid": os.getpid(),
        }
        definition = graph_definition(self._graph)
        if definition is not None:
            attributes[f"{PREFIX}graph.definition"] = definition
        self._run = self._root(f"run {event.graph}", event.time, "run", attributes)
        self._run_context = self._run.context
        self._writer.note(self._run, event)

    def _root(self, name: str, start: float, kind: str, attributes: dict[str, Any]) -> OpenSpan:
        """A span beneath the caller's current one, if the sampler wants it."""
        around = otel_context.get_current()
        parent: SpanContext | None = trace.get_current_span(around).get_span_context()
        if parent is None or not parent.is_valid:
            parent = None
        ids = self._provider.id_generator
        trace_id = parent.trace_id if parent is not None else ids.generate_trace_id()
        links = [link for link in map(_link, self._carriers) if link is not None]
        attributes = {f"{PREFIX}span": kind, **self._common, **attributes}
        sampled = self._provider.sampler.should_sample(
            around, trace_id, name, SpanKind.INTERNAL, attributes, links
        )
        self._writer.recording = sampled.decision is not Decision.DROP
        kept = sampled.decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags.SAMPLED if kept else TraceFlags.DEFAULT
        context = SpanContext(
            trace_id, ids.generate_span_id(), False, TraceFlags(flags), sampled.trace_state
        )
        root = OpenSpan(name, context, parent, start, attributes)
        root.attributes.update(sampled.attributes or {})
        root.links.extend(links)
        return root

    def _run_finished(self, event: ev.RunFinished) -> None:
        run = self._run
        if run is not None:
            self._writer.note(run, event)
            run.attributes.update(event.attributes())
            run.attributes[f"{PREFIX}status"] = "finished"
            self._close_superstep()
            self._writer.end(run, event.time)
            self._run = None

    def _run_failed(self, event: ev.RunFailed) -> None:
        run = self._run
        if run is not None:
            self._close_superstep(failed=event.status == "failed")
            self._writer.note(run, event)
            run.attributes.update(event.attributes())
            run.attributes[f"{PREFIX}error"] = short(event.error)
            run.attributes["error.type"] = event.error_type
            self._writer.end(run, event.time, error=event.error)
            self._run = None

    def _in_run(self, event: Event) -> None:
        if self._run is not None:
            if isinstance(event, ev.ExecutorInit):
                self._run.attributes.update(event.attributes())
            self._writer.note(self._run, event)
        else:
            self._before.append(event)

    def _refused(self, event: ev.ExecutorInitFailed) -> None:
        """No run will come: what led here gets a span of its own."""
        self._common = {f"{PREFIX}run_id": event.run_id, f"{PREFIX}graph": self._graph.name}
        began = min([event.time, *(before.time for before in self._before)])
        span = self._root(f"executor {self._graph.name}", began, "executor", {})
        for told in (*self._before, event):
            self._writer.note(span, told)
        self._writer.end(span, event.time, error=event.reason)

    # --- supersteps ---------------------------------------------------------------------------

    def _superstep_started(self, event: ev.SuperstepStarted) -> None:
        self._close_superstep()
        self._superstep = self._child(self._run, "superstep", "superstep", event)
        self._taken = {}

    def _in_superstep(self, event: Event) -> None:
        if self._superstep is not None:
            self._superstep.last = event.time
            self._writer.note(self._superstep, event)

    def _edge_taken(self, event: ev.EdgeTaken) -> None:
        self._in_superstep(event)
        for execution in event.executions:
            result = self._results.get(execution)
            if result is not None:
                self._arriving.setdefault(event.sink_node, []).append((execution, result))

    def _superstep_completed(self, event: ev.SuperstepCompleted) -> None:
        superstep = self._superstep
        if superstep is not None:
            superstep.attributes[f"{PREFIX}next_active_nodes"] = event.next_active_nodes
            superstep.attributes[f"{PREFIX}advanced_superstep"] = event.superstep
            superstep.last = event.time
        self._close_superstep()
        self._arrived = {
            sink: [context for _, context in sorted(states, key=lambda state: state[0])]
            for sink, states in self._arriving.items()
        }
        self._arriving = {}

    def _superstep_timed_out(self, event: ev.SuperstepTimedOut) -> None:
        self._in_superstep(event)

    def _back_to_checkpoint(self, event: ev.FallbackToCheckpoint) -> None:
        self._close_superstep(failed=True)
        self._arrived = {}
        self._in_run(event)

    def _close_superstep(self, *, failed: bool = False) -> None:
        superstep = self._superstep
        if superstep is None:
            return
        for execution in self._executions.values():
            open_ended = f"{PREFIX}outcome" not in execution.attributes
            if open_ended:
                execution.attributes[f"{PREFIX}outcome"] = "cancelled"
            broken = execution.attributes[f"{PREFIX}outcome"] == "failed"
            superstep.last = max(superstep.last, execution.last)
            error = execution.attributes.get(f"{PREFIX}error", "") if broken else None
            self._writer.end(execution, execution.last, error=error)
        self._writer.end(superstep, superstep.last, error="" if failed else None)
        self._executions, self._attempts, self._results = {}, {}, {}
        self._superstep = None

    # --- executions and attempts --------------------------------------------------------------

    def _attempt_started(self, event: ev.AttemptStarted) -> None:
        execution = self._executions.get(event.execution)
        if execution is None:
            execution = self._new_execution(event)
        execution.attributes[f"{PREFIX}attempts"] += 1
        execution.attributes.pop(f"{PREFIX}outcome", None)
        execution.last = event.time
        attempt = self._child(execution, f"attempt {event.node_id}", "attempt", event)
        attempt.attributes.update(self._code(event.node_id))
        self._attempts[event.key] = attempt

    def _new_execution(self, event: ev.AttemptStarted) -> OpenSpan:
        owner = event.owner_id
        execution = self._child(self._superstep, f"node {owner}", "execution", None, event.time)
        execution.attributes.update(
            {
                f"{PREFIX}superstep": event.superstep,
                f"{PREFIX}execution": event.execution,
                f"{PREFIX}node_id": owner,
                f"{PREFIX}node_type": event.node_type,
                f"{PREFIX}attempts": 0,
            }
        )
        arrived = self._arrived.get(owner, [])
        if not self._graph.nodes[owner].is_aggregator:
            place = self._taken.get(owner, 0)
            self._taken[owner] = place + 1
            arrived = arrived[place : place + 1]
        execution.links = [Link(fed, {f"{PREFIX}link": "input"}) for fed in arrived]
        self._executions[event.execution] = execution
        return execution

    def _in_execution(
        self, event: ev.RetryScheduled | ev.FallbackInvoked | ev.FallbackSucceeded
    ) -> None:
        execution = self._executions.get(event.execution)
        if execution is not None:
            execution.last = max(execution.last, event.time)
            self._writer.note(execution, event)

    def _fallback_invoked(self, event: ev.FallbackInvoked) -> None:
        execution = self._executions.get(event.execution)
        if execution is not None:
            execution.attributes[f"{PREFIX}fallback_node"] = event.fallback_node
        self._in_execution(event)

    def _in_attempt(self, event: AttemptEvent) -> None:
        attempt = self._attempts.get(event.key)
        if attempt is not None:
            self._writer.note(attempt, event, event.own_attributes())

    def _node_completed(self, event: ev.NodeCompleted) -> None:
        attempt = self._finish_attempt(event, "ok", event.facts)
        execution = self._executions.get(event.execution)
        if attempt is not None and execution is not None:
            self._writer.end(attempt, event.time)
            self._results[event.execution] = attempt.context
            execution.attributes[f"{PREFIX}outcome"] = "ok"
            execution.attributes[f"{PREFIX}input_size"] = event.input_size
            execution.attributes[f"{PREFIX}output_size"] = event.output_size
            execution.last = event.time

    def _attempt_failed(self, event: ev.AttemptFailed) -> None:
        if event.infrastructure:
            outcome = "infrastructure"
        else:
            outcome = "timeout" if event.reason == "timeout" else "failed"
        attempt = self._finish_attempt(event, outcome, event.facts)
        execution = self._executions.get(event.execution)
        if attempt is None or execution is None:
            return
        attempt.attributes[f"{PREFIX}reason"] = event.reason
        attempt.attributes[f"{PREFIX}error"] = short(event.error)
        attempt.attributes["error.type"] = event.error_type
        self._writer.note(attempt, event, {})
        raised = {
            "exception.type": event.error_type,
            "exception.message": short(event.error),
            "exception.stacktrace": short_end(event.traceback),
        }
        self._writer.note(attempt, event, raised, name="exception")
        self._writer.end(attempt, event.time, error=event.error)
        execution.attributes[f"{PREFIX}outcome"] = "failed"
        execution.attributes[f"{PREFIX}error"] = short(event.error)
        execution.last = event.time

    def _attempt_cancelled(self, event: ev.AttemptCancelled) -> None:
        attempt = self._attempts.pop(event.key, None)
        execution = self._executions.get(event.execution)
        if attempt is not None and execution is not None:
            attempt.attributes[f"{PREFIX}outcome"] = "cancelled"
            attempt.attributes[f"{PREFIX}reason"] = event.reason
            self._writer.end(attempt, event.time, error=event.reason)
            execution.last = event.time

    def _finish_attempt(
        self, event: ev.NodeCompleted | ev.AttemptFailed, outcome: str, facts: AttemptFacts
    ) -> OpenSpan | None:
        attempt = self._attempts.pop(event.key, None)
        if attempt is None:
            return None
        found: dict[str, Any] = {
            "outcome": outcome,
            "placement": facts.placement,
            "worker_pid": facts.worker_pid,
            "ray_node": facts.ray_node,
            "task_id": facts.task_id,
            "batch_size": facts.batch_size,
            "input_bytes": facts.input_bytes,
            "output_bytes": facts.output_bytes,
            "input_size": facts.input_size,
            "output_size": facts.output_size,
        }
        if facts.started is not None:
            found["queue_wait"] = max(0.0, facts.started - attempt.start)
            if facts.ended is not None:
                found["run_time"] = max(0.0, facts.ended - facts.started)
        attempt.attributes.update(
            {PREFIX + name: value for name, value in found.items() if value is not None}
        )
        if facts.worker_pid is not None:
            attempt.attributes["process.pid"] = facts.worker_pid
        if facts.trail is not None:
            attempt.attributes.update(facts.trail.attributes)
            for name, at, attributes in facts.trail.events:
                attempt.events.append(SpanEvent(name, self._settings.clean(attributes), at))
            for record in facts.trail.spans:
                self._writer.from_node(record)
        return attempt

    def _code(self, node_id: str) -> dict[str, Any]:
        """Where the code of a node is, by OpenTelemetry's names."""
        code = self._codes.get(node_id)
        if code is None:
            code = self._codes[node_id] = _code_attributes(self._graph.nodes[node_id].callables())
        return code

    # --- making spans -------------------------------------------------------------------------

    def _child(
        self,
        parent: OpenSpan | None,
        name: str,
        kind: str,
        event: Event | None,
        start: float | None = None,
    ) -> OpenSpan:
        assert parent is not None, "events come in order"
        context = SpanContext(
            parent.context.trace_id,
            self._provider.id_generator.generate_span_id(),
            False,
            parent.context.trace_flags,
            parent.context.trace_state,
        )
        attributes = {f"{PREFIX}span": kind, **self._common}
        if event is not None:
            attributes.update(event.attributes())
            start = event.time
        assert start is not None
        return OpenSpan(name, context, parent.context, start, attributes)


def _link(carrier: Mapping[str, str]) -> Link | None:
    """A link to the span in a carrier; None where it holds none."""
    found = TraceContextTextMapPropagator().extract(dict(carrier), otel_context.Context())
    context = trace.get_current_span(found).get_span_context()
    return Link(context, {f"{PREFIX}link": "continues"}) if context.is_valid else None


def _code_attributes(functions: Iterable[Any]) -> dict[str, Any]:
    for function in functions:
        inner = inspect.unwrap(function) if callable(function) else function
        code = getattr(inner, "__code__", None)
        if code is not None:
            return {
                "code.function.name": f"{inner.__module__}.{inner.__qualname__}",
                "code.file.path": code.co_filename,
                "code.line.number": code.co_firstlineno,
            }
    return {}
