"""Spans that node code makes, gathered in the process where it runs.

In a worker with no OpenTelemetry SDK of its own, a tracer provider is put in place whose spans
go to the attempt in whose context they began. Where the program has set up an SDK in the
worker, or the node runs in the driver, that SDK takes them, and nothing is gathered here.

Importing the SDK takes as long as many a node, so it waits until code asks for a tracer.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, TraceState

from ..imported import imported
from ..model.trail import TraceContext
from .gather import gathering

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from .gather import Gatherer

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


def whose() -> Gatherer | None:
    """The attempt that this code belongs to.

    A thread that was started without a copy of the context knows none; where only one attempt
    runs, it is that one's.
    """
    found = gathering.get()
    if found is None and len(_active) == 1:
        (found,) = _active
    return found


def is_open(gatherer: Gatherer) -> bool:
    """Whether its attempt is still to be answered."""
    return gatherer in _active


def _provide() -> None:
    """Take the place of the provider that is missing, until the program sets one up.

    `trace.set_tracer_provider` works once in a process, and that once is the program's, which
    may come later: in a model's `build_model`, or at the first call of a node.
    """
    provider = trace.get_tracer_provider()
    sdk = imported("opentelemetry.sdk.trace")
    if sdk is not None:
        if not isinstance(provider, sdk.TracerProvider):
            sdk_provider()
    elif type(provider) is not LateProvider:
        trace._TRACER_PROVIDER = LateProvider()


def sdk_provider() -> TracerProvider:
    """Put the SDK's kind of provider in place, that gathers."""
    from .worker_spans import GatheringProvider

    provider = trace._TRACER_PROVIDER = GatheringProvider()
    return provider


class LateProvider(trace.TracerProvider):
    """The tracer provider of a worker that has none of its own, until somebody uses it."""

    def get_tracer(self, *args: Any, **options: Any) -> trace.Tracer:
        """A tracer of the SDK."""
        return self.in_place().get_tracer(*args, **options)

    def in_place(self) -> TracerProvider:
        """The SDK's provider, which takes its place."""
        placed: Any = trace.get_tracer_provider()
        return sdk_provider() if placed is self else placed

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.in_place(), name)
