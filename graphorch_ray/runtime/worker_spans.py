"""A tracer provider of OpenTelemetry's SDK whose spans go home with their attempts' answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from ..model.trail import SpanRecord
from .tracing import is_open, whose

if TYPE_CHECKING:
    from .gather import Gatherer

SPANS_PER_ATTEMPT = 10_000
"""Spans that one attempt brings home, at most; the first ones to end. The rest is counted."""


class Gathering(SpanProcessor):
    """Gives each span that ends to the attempt in whose context it began."""

    def __init__(self) -> None:
        self._began: dict[int, Gatherer] = {}

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Remember whose it is."""
        found = whose()
        if found is not None:
            self._began[span.context.span_id] = found

    def on_end(self, span: ReadableSpan) -> None:
        """Gather it, unless its attempt has been answered already."""
        if span.context is None:
            return
        found = self._began.pop(span.context.span_id, None) or whose()
        if found is None or not is_open(found):
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
        return whose() is not None


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
