"""Who listens to a run because telemetry is set up that way."""

from __future__ import annotations

from .broadcast import Broadcast, Listener
from .hub import EventHub
from .providers import span_sink, tracer_provider


def configured_listeners(hub: Broadcast) -> list[Listener]:
    """The listeners that the configuration asks for, when a run starts; mostly none."""
    assert isinstance(hub, EventHub)
    found: list[Listener] = []
    provider = tracer_provider()
    if provider is not None:
        from .settings import settings
        from .spans import SpanMaker

        hub.tracer = SpanMaker(hub.graph, provider, span_sink(provider), settings(), hub.links)
        hub.links = []
        found.append(hub.tracer)
    return found
