"""From what is known of a span to the SDK's read-only kind, on its way to the exporters.

The run's thread only notes what it knows; an `Unbuilt` span becomes one of the SDK's where it is
exported, in the exporter's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, overload

from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from ..model.trail import SpanRecord
from .edges_taken import EdgesTaken
from .event import PREFIX, Event
from .nodes import NodeTable
from .settings import Settings, short

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

SCOPE = InstrumentationScope("graphorch_ray")
RUN_ID = f"{PREFIX}run_id"
GRAPH = f"{PREFIX}graph"
_UNSET = Status()
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)

Note = Event | EdgesTaken
"""What is written onto a span while it is open."""

Happened = tuple[str, int, Mapping[str, Any]]
"""An event on a span: its name, Unix nanoseconds and facts."""


class GraphSpan(ReadableSpan):
    """A span that has been through the redact hook."""


class Unbuilt(Protocol):
    """A span that has ended and need not be one of the SDK's yet."""

    @property
    def sampled(self) -> bool:
        """Whether it is to be exported."""

    def built(self) -> ReadableSpan:
        """The SDK's kind of it."""


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


class Lot(Sequence[ReadableSpan]):
    """Spans for one call of an exporter, each built when it is looked at, and not kept.

    A span of the SDK's is a dozen objects. A list of 512 of them would live just long enough for
    the garbage collector to walk all of it more than once, at the cost of building it again.
    """

    def __init__(self, spans: Sequence[Unbuilt]) -> None:
        self._spans = spans

    def __len__(self) -> int:
        return len(self._spans)

    def __iter__(self) -> Iterator[ReadableSpan]:
        for span in self._spans:
            yield span.built()

    @overload
    def __getitem__(self, index: int) -> ReadableSpan: ...

    @overload
    def __getitem__(self, index: slice) -> Lot: ...

    def __getitem__(self, index: int | slice) -> ReadableSpan | Lot:
        if isinstance(index, slice):
            return Lot(self._spans[index])
        return self._spans[index].built()


class Traced:
    """What all spans of a run have in common.

    Attributes:
        trace_id, flags, state: as in their contexts.
        sampled: whether the sampler wants them exported.
        run_id, graph: attributes of each of them.
        common: these two, by their names in a trace.
        nodes: the graph's.
        resource: what they describe.
        settings: what may leave.
    """

    __slots__ = (
        "common",
        "flags",
        "graph",
        "nodes",
        "resource",
        "run_id",
        "sampled",
        "settings",
        "state",
        "trace_id",
    )

    def __init__(
        self,
        context: SpanContext,
        run_id: str,
        graph: str,
        nodes: NodeTable,
        resource: Resource,
        settings: Settings,
    ) -> None:
        self.trace_id = context.trace_id
        self.flags = context.trace_flags
        self.state = context.trace_state
        self.sampled = bool(context.trace_flags & TraceFlags.SAMPLED)
        self.run_id = run_id
        self.graph = graph
        self.common = {RUN_ID: run_id, GRAPH: graph}
        self.nodes = nodes
        self.resource = resource
        self.settings = settings

    def context(self, span_id: int) -> SpanContext:
        """The context of one of them."""
        return SpanContext(self.trace_id, span_id, False, self.flags, self.state)


class Ended:
    """A span of the library that has ended, or will. What it says is put together in `built`.

    Args:
        traced: the run's.
        span_id: its own.
        start: Unix seconds.

    Attributes:
        end: Unix seconds.
        last: when something happened on it; where no end is known, it ended then.
        error: the text of what failed it; None where nothing did.
        notes: what happened on it; most spans have nothing.
    """

    __slots__ = (
        "_context",
        "end",
        "error",
        "last",
        "notes",
        "span_id",
        "start",
        "traced",
    )

    def __init__(self, traced: Traced, span_id: int, start: float) -> None:
        self.traced = traced
        self.span_id = span_id
        self.start = self.last = start
        self.end = 0.0
        self.error: str | None = None
        self.notes: list[Note] | None = None
        self._context: SpanContext | None = None

    def note(self, event: Event | EdgesTaken) -> None:
        """Write an event, or many, onto the span."""
        if self.notes is None:
            self.notes = []
        self.notes.append(event)

    def at(self, seconds: float) -> int:
        """When something happened on it, in Unix nanoseconds; not before its start."""
        return int((seconds if seconds > self.start else self.start) * 1e9)

    @property
    def sampled(self) -> bool:
        """Whether the sampler wants it exported."""
        return self.traced.sampled

    def context(self) -> SpanContext:
        """Its ids; the same object each time, for it is the parent of others."""
        if self._context is None:
            self._context = self.traced.context(self.span_id)
        return self._context

    def built(self) -> GraphSpan:
        """The SDK's kind of it."""
        traced, status = self.traced, _UNSET
        settings = traced.settings
        if self.error is not None:
            text = settings.text("exception.message", short(self.error))
            status = Status(StatusCode.ERROR, text or None)
        attributes, events = self.attributes_of(), self.events_of()
        if settings.redact is not None:
            attributes = settings.clean(attributes)
            events = ((name, at, settings.clean(facts)) for name, at, facts in events)
        return GraphSpan(
            self.name_of(),
            self.context(),
            self.parent_of(),
            traced.resource,
            attributes,
            [SpanEvent(name, facts, at) for name, at, facts in events],
            self.links_of(),
            SpanKind.INTERNAL,
            None,
            status,
            int(self.start * 1e9),
            self.at(self.end),
            SCOPE,
        )

    # --- what kinds of span differ in ---------------------------------------------------------

    def name_of(self) -> str:
        """Its name."""
        raise NotImplementedError

    def parent_of(self) -> SpanContext | None:
        """The span above."""
        raise NotImplementedError

    def attributes_of(self) -> Mapping[str, Any]:
        """All that is known of it."""
        raise NotImplementedError

    def events_of(self) -> Iterable[Happened]:
        """What happened on it."""
        for note in self.notes or ():
            if isinstance(note, EdgesTaken):
                at = self.at(note.time)
                for name, facts in note.notes():
                    yield name, at, facts
            else:
                yield note.name, self.at(note.time), note.attributes()

    def links_of(self) -> Sequence[Link]:
        """What led to it."""
        return ()


class OpenSpan(Ended):
    """The span of a run or of a superstep. While it is open its facts are gathered.

    Args:
        traced: the run's.
        name: of the span.
        span_id: its own.
        parent: the span above; None where there is none.
        start: Unix seconds.
        attributes: those known by now; more may be added.
    """

    __slots__ = ("attributes", "links", "name", "parent")

    def __init__(
        self,
        traced: Traced,
        name: str,
        span_id: int,
        parent: SpanContext | None,
        start: float,
        attributes: dict[str, Any],
    ) -> None:
        super().__init__(traced, span_id, start)
        self.name = name
        self.parent = parent
        self.attributes = attributes
        self.links: Sequence[Link] = ()

    def name_of(self) -> str:
        """Its name."""
        return self.name

    def parent_of(self) -> SpanContext | None:
        """The span above."""
        return self.parent

    def attributes_of(self) -> Mapping[str, Any]:
        """All that is known of it."""
        return {**self.traced.common, **self.attributes}

    def links_of(self) -> Sequence[Link]:
        """The traces that it continues."""
        return self.links


class NodeSpan:
    """A span that node code made in a worker, and that came home.

    Args:
        record: the span.
        traced: the run's; the span may belong to another trace.
    """

    __slots__ = ("_record", "_traced")
    sampled = True  # what is not sampled stays in the worker

    def __init__(self, record: SpanRecord, traced: Traced) -> None:
        self._record = record
        self._traced = traced

    def built(self) -> GraphSpan:
        """The SDK's kind of it."""
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
