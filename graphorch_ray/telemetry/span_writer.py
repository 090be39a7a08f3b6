"""From what is known of a span to the SDK's read-only kind, on its way to the exporters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from ..model.trail import SpanRecord
from .event import Event
from .settings import Settings, short

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SCOPE = "graphorch_ray"
_UNSET = Status()


def nanoseconds(seconds: float) -> int:
    """Unix nanoseconds of Unix seconds."""
    return int(seconds * 1e9)


class OpenSpan:
    """A span that has not ended yet."""

    __slots__ = ("attributes", "context", "events", "last", "links", "name", "parent", "start")

    def __init__(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        start: float,
        attributes: dict[str, Any],
    ) -> None:
        self.name = name
        self.context = context
        self.parent = parent
        self.start = start
        self.last = start
        self.attributes = attributes
        self.events: list[SpanEvent] = []
        self.links: list[Link] = []


class SpanWriter:
    """Finishes spans and hands them over.

    Args:
        provider: whose resource they get.
        sink: where finished spans go.
        settings: what may leave.

    Attributes:
        recording: whether the sampler wants this run at all.
    """

    def __init__(
        self, provider: TracerProvider, sink: Callable[[ReadableSpan], None], settings: Settings
    ) -> None:
        self.recording = False
        self._provider = provider
        self._sink = sink
        self._settings = settings
        self._scope = InstrumentationScope(SCOPE)

    def note(
        self,
        span: OpenSpan,
        event: Event,
        attributes: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        """Write an event onto a span."""
        if self.recording:
            facts = event.attributes() if attributes is None else attributes
            at = nanoseconds(event.time)
            span.events.append(SpanEvent(name or event.name, self._settings.clean(facts), at))

    def end(self, span: OpenSpan, end: float, *, error: str | None = None) -> None:
        """Finish a span, as one that failed where `error` is given; times are Unix seconds."""
        if not self.recording:
            return
        status = _UNSET
        if error is not None:
            text = self._settings.text("exception.message", short(error))
            status = Status(StatusCode.ERROR, text or None)
        self._sink(
            ReadableSpan(
                name=span.name,
                context=span.context,
                parent=span.parent,
                resource=self._provider.resource,
                attributes=self._settings.clean(span.attributes),
                events=span.events,
                links=span.links,
                kind=SpanKind.INTERNAL,
                status=status,
                start_time=nanoseconds(span.start),
                end_time=nanoseconds(max(end, span.start)),
                instrumentation_scope=self._scope,
            )
        )

    def from_node(self, record: SpanRecord) -> None:
        """Hand on a span that node code made in a worker."""
        if not self.recording:
            return
        flags = TraceFlags(TraceFlags.SAMPLED)
        clean = self._settings.clean
        parent = record.parent_id
        self._sink(
            ReadableSpan(
                name=record.name,
                context=SpanContext(record.trace_id, record.span_id, False, flags),
                parent=SpanContext(record.trace_id, parent, True, flags) if parent else None,
                resource=self._provider.resource,
                attributes=clean(record.attributes),
                events=[SpanEvent(name, clean(facts), at) for name, at, facts in record.events],
                links=[
                    Link(SpanContext(trace_id, span_id, True, flags), clean(facts))
                    for trace_id, span_id, facts in record.links
                ],
                kind=SpanKind(record.kind),
                status=Status(StatusCode(record.status[0]), record.status[1]),
                start_time=record.start,
                end_time=record.end,
                instrumentation_scope=InstrumentationScope(*record.scope),
            )
        )
