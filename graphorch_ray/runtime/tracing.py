"""Spans that node code makes, gathered in the process where it runs.

In a worker with no OpenTelemetry SDK of its own, a tracer provider is put in place whose spans
go to the attempt in whose context they began. Where the program has set up an SDK in the
worker, or the node runs in the driver, that SDK takes them, and nothing is gathered here.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, TraceState

from ..model.trail import SpanRecord, TraceContext
from .gather import gathering

if TYPE_CHECKING:
    from .gather import Gatherer

SPANS_PER_ATTEMPT = 10_000
"""Spans that one attempt brings home, at most; the first ones to end. The rest is counted."""

_active: set[Gatherer] = set()


def enter(gatherer: Gatherer, given: TraceContext) -> object:
    """Make the attempt's span the current one, and gather what ends beneath it.

    Returns:
        What `leave` takes.
    """
    _provide()
    span: Span
    if given.flags & TraceFlags.SAMPLED:
        span = AttemptSpan(given, gatherer)
    else:
        span = NonRecordingSpan(_context_of(given))
    _active.add(gatherer)
    return otel_context.attach(trace.set_span_in_context(span))


def leave(gatherer: Gatherer, entered: Any) -> None:
    """End that."""
    forget(gatherer)
    otel_context.detach(entered)


def forget(gatherer: Gatherer) -> None:
    """Gather no more of the spans that end beneath it."""
    _active.discard(gatherer)


def _context_of(given: TraceContext) -> SpanContext:
    return SpanContext(
        given.trace_id,
        given.span_id,
        True,
        TraceFlags(given.flags),
        TraceState.from_header([given.state]) if given.state else None,
    )


class AttemptSpan(Span):
    """The attempt's span as node code sees it: the current one.

    The driver has the span itself. What is set here goes onto it there: attributes, events and
    exceptions. Name, status and end are the library's.
    """

    def __init__(self, given: TraceContext, gatherer: Gatherer) -> None:
        self._given = given
        self._gatherer = gatherer

    def get_span_context(self) -> SpanContext:
        """Ids of the attempt's span."""
        return _context_of(self._given)

    def is_recording(self) -> bool:
        """True: what is set here is kept."""
        return True

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute of the attempt's span."""
        self._gatherer.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several."""
        self._gatherer.attributes.update(attributes)

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None
    ) -> None:
        """Add an event; `timestamp` is Unix nanoseconds."""
        at = time.time_ns() if timestamp is None else timestamp
        self._gatherer.events.append((name, at, dict(attributes or {})))

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an event for an exception that the node handles itself."""
        found = {
            "exception.type": type(exception).__qualname__,
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**found, **(attributes or {})}, timestamp)

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        """Ignored: an attempt's links are the library's."""

    def update_name(self, name: str) -> None:
        """Ignored: the name is the library's."""

    def set_status(self, status: Any, description: str | None = None) -> None:
        """Ignored: whether the attempt failed is known at its end."""

    def end(self, end_time: int | None = None) -> None:
        """Ignored: the attempt ends when its code does."""


class Gathering(SpanProcessor):
    """Gives each span that ends to the attempt in whose context it began."""

    def __init__(self) -> None:
        self._began: dict[int, Gatherer] = {}

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Remember whose it is."""
        found = _whose()
        if found is not None:
            self._began[span.context.span_id] = found

    def on_end(self, span: ReadableSpan) -> None:
        """Gather it, unless its attempt has been answered already."""
        if span.context is None:
            return
        found = self._began.pop(span.context.span_id, None) or _whose()
        if found is None or found not in _active:
            return
        if len(found.spans) < SPANS_PER_ATTEMPT:
            found.spans.append(record_of(span))
        else:
            dropped = found.attributes.get("graphorch.spans_dropped", 0)
            found.attributes["graphorch.spans_dropped"] = dropped + 1


class GatheringProvider(TracerProvider):
    """The tracer provider of a worker that has none of its own."""

    def __init__(self) -> None:
        super().__init__(shutdown_on_exit=False)
        self.add_span_processor(Gathering())

    def put(self, span: Any) -> None:
        """Gather a span of a run inside of this attempt."""
        self._active_span_processor.on_end(span.built())

    @property
    def wants_spans(self) -> bool:
        """Whether this code is a traced attempt's: a run inside of it is part of the trace."""
        return _whose() is not None


def _whose() -> Gatherer | None:
    """The attempt that this code belongs to.

    A thread that was started without a copy of the context knows none; where only one attempt
    runs, it is that one's.
    """
    found = gathering.get()
    if found is None and len(_active) == 1:
        (found,) = _active
    return found


def _provide() -> None:
    """Take the place of the provider that is missing, until the program sets one up.

    `trace.set_tracer_provider` works once in a process, and that once is the program's, which
    may come later: in a model's `build_model`, or at the first call of a node.
    """
    provider = trace.get_tracer_provider()
    if type(provider) is not GatheringProvider and not isinstance(provider, TracerProvider):
        trace._TRACER_PROVIDER = GatheringProvider()


def record_of(span: ReadableSpan) -> SpanRecord:
    """A span in the form in which it travels."""
    context, scope = span.context, span.instrumentation_scope
    assert context is not None
    return SpanRecord(
        span.name,
        context.trace_id,
        context.span_id,
        span.parent.span_id if span.parent is not None else None,
        span.kind.value,
        span.start_time or 0,
        span.end_time or 0,
        dict(span.attributes or {}),
        tuple((e.name, e.timestamp, dict(e.attributes or {})) for e in span.events),
        tuple(
            (link.context.trace_id, link.context.span_id, dict(link.attributes or {}))
            for link in span.links
        ),
        (span.status.status_code.value, span.status.description),
        (scope.name, scope.version) if scope is not None else ("", None),
    )
