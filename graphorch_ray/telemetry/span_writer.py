"""From what is known of a span to the SDK's read-only kind, on its way to the exporters.

The run's thread only notes what it knows; an `Unbuilt` span becomes one of the SDK's where it is
exported, in the exporter's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from ..model.trail import SpanRecord
from .event import PREFIX, Event
from .settings import Settings, short

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

SCOPE = InstrumentationScope("graphorch_ray")
_INPUT = {f"{PREFIX}link": "input"}
_UNSET = Status()
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)

Note = Event | tuple[str, int, Mapping[str, Any]]
"""An event on a span, or its name, Unix nanoseconds and facts."""


def nanoseconds(seconds: float) -> int:
    """Unix nanoseconds of Unix seconds."""
    return int(seconds * 1e9)


class GraphSpan(ReadableSpan):
    """A span that has been through the redact hook."""


class Unbuilt(Protocol):
    """A span that has ended and need not be one of the SDK's yet."""

    @property
    def sampled(self) -> bool:
        """Whether it is to be exported."""

    def built(self) -> ReadableSpan:
        """The SDK's kind of it; the same one each time."""


class Built:
    """A span that code in the driver made with the SDK."""

    __slots__ = ("_span",)
    sampled = True

    def __init__(self, span: ReadableSpan) -> None:
        self._span = span

    def built(self) -> ReadableSpan:
        """The span."""
        return self._span


Sink = Callable[[Unbuilt], object]
"""Where ended spans go."""


class Traced:
    """What all spans of a run have in common.

    Attributes:
        trace_id, flags, state: as in their contexts.
        common: attributes of each of them.
        resource: what they describe.
        settings: what may leave.
    """

    __slots__ = ("_newest", "common", "flags", "resource", "settings", "state", "trace_id")

    def __init__(
        self,
        context: SpanContext,
        common: Mapping[str, Any],
        resource: Resource,
        settings: Settings,
    ) -> None:
        self.trace_id = context.trace_id
        self.flags = context.trace_flags
        self.state = context.trace_state
        self.common = common
        self.resource = resource
        self.settings = settings
        self._newest = context

    def context(self, span_id: int) -> SpanContext:
        """The context of one of them."""
        return SpanContext(self.trace_id, span_id, False, self.flags, self.state)

    def parent(self, span_id: int) -> SpanContext:
        """The same for a parent: many in a row have the same."""
        newest = self._newest
        if newest.span_id != span_id:
            newest = self._newest = self.context(span_id)
        return newest


class OpenSpan:
    """A span of the library. While it is open its facts are gathered; ended, it is written once.

    Args:
        traced: the run's.
        name: of the span.
        span_id: its own.
        parent: the id of the span above, in the same trace; or the caller's span; or None.
        start: Unix seconds.
        attributes: those known by now; more may be added.
    """

    __slots__ = (
        "_built",
        "attributes",
        "end",
        "error",
        "last",
        "links",
        "name",
        "notes",
        "parent",
        "span_id",
        "start",
        "traced",
    )

    def __init__(
        self,
        traced: Traced,
        name: str,
        span_id: int,
        parent: int | SpanContext | None,
        start: float,
        attributes: dict[str, Any],
    ) -> None:
        self.traced = traced
        self.name = name
        self.span_id = span_id
        self.parent = parent
        self.start = self.last = start
        self.end = 0.0
        self.error: str | None = None
        self.attributes = attributes
        self.notes: list[Note] | None = None  # most spans have none
        self.links: Sequence[int | Link] = ()
        self._built: GraphSpan | None = None

    def note(self, event: Event) -> None:
        """Write an event onto the span."""
        if self.notes is None:
            self.notes = []
        self.notes.append(event)

    def at(self, seconds: float) -> int:
        """When something happened on it; what led to it counts as its start."""
        return nanoseconds(max(seconds, self.start))

    @property
    def sampled(self) -> bool:
        """Whether the sampler wants it exported."""
        return bool(self.traced.flags & TraceFlags.SAMPLED)

    def built(self) -> GraphSpan:
        """The SDK's kind of it."""
        if self._built is None:
            self._built = self._build()
        return self._built

    def _build(self) -> GraphSpan:
        traced, parent = self.traced, self.parent
        settings = traced.settings
        status = _UNSET
        if self.error is not None:
            text = settings.text("exception.message", short(self.error))
            status = Status(StatusCode.ERROR, text or None)
        attributes = {**traced.common, **self.all_attributes()}
        return GraphSpan(
            name=self.name,
            context=traced.context(self.span_id),
            parent=traced.parent(parent) if isinstance(parent, int) else parent,
            resource=traced.resource,
            attributes=settings.clean(attributes),
            events=tuple(map(self._event, self.all_notes())),
            links=[
                Link(traced.context(link), _INPUT) if isinstance(link, int) else link
                for link in self.links
            ]
            if self.links
            else (),
            kind=SpanKind.INTERNAL,
            status=status,
            start_time=nanoseconds(self.start),
            end_time=nanoseconds(max(self.end, self.start)),
            instrumentation_scope=SCOPE,
        )

    def _event(self, note: Note) -> SpanEvent:
        if isinstance(note, Event):
            note = note.name, self.at(note.time), note.attributes()
        name, at, facts = note
        return SpanEvent(name, self.traced.settings.clean(facts), at)

    def all_attributes(self) -> Mapping[str, Any]:
        """What is known of it, but for what all spans of the run have."""
        return self.attributes

    def all_notes(self) -> Sequence[Note]:
        """The events on it."""
        return self.notes or ()


class NodeSpan:
    """A span that node code made in a worker, and that came home.

    Args:
        record: the span.
        traced: the run's; the span may belong to another trace.
    """

    __slots__ = ("_built", "_record", "_traced")
    sampled = True  # what is not sampled stays in the worker

    def __init__(self, record: SpanRecord, traced: Traced) -> None:
        self._record = record
        self._traced = traced
        self._built: GraphSpan | None = None

    def built(self) -> GraphSpan:
        """The SDK's kind of it."""
        if self._built is None:
            self._built = self._build()
        return self._built

    def _build(self) -> GraphSpan:
        record, settings = self._record, self._traced.settings
        clean, parent = settings.clean, record.parent_id
        code, text = record.status
        if text is not None:
            text = settings.text("exception.message", text)
        return GraphSpan(
            name=record.name,
            context=SpanContext(record.trace_id, record.span_id, False, _SAMPLED),
            parent=SpanContext(record.trace_id, parent, True, _SAMPLED) if parent else None,
            resource=self._traced.resource,
            attributes=clean(record.attributes),
            events=[SpanEvent(name, clean(facts), at) for name, at, facts in record.events],
            links=[
                Link(SpanContext(trace_id, span_id, True, _SAMPLED), clean(facts))
                for trace_id, span_id, facts in record.links
            ],
            kind=SpanKind(record.kind),
            status=Status(StatusCode(code), text),
            start_time=record.start,
            end_time=record.end,
            instrumentation_scope=InstrumentationScope(*record.scope),
        )


def cleaned(span: ReadableSpan, settings: Settings) -> ReadableSpan:
    """A span that code in the driver made, as it may leave."""
    if settings.redact is None or isinstance(span, GraphSpan):
        return span
    clean, status = settings.clean, span.status
    return GraphSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=clean(span.attributes or {}),
        events=[
            SpanEvent(event.name, clean(event.attributes or {}), event.timestamp)
            for event in span.events
        ],
        links=[Link(link.context, clean(link.attributes or {})) for link in span.links],
        kind=span.kind,
        status=Status(
            status.status_code,
            settings.text("exception.message", status.description) if status.description else None,
        ),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
