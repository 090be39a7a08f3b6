"""Who listens to a run because telemetry is set up that way."""

from __future__ import annotations

from ..model.trail import TraceContext
from .broadcast import Broadcast, Listener
from .hub import EventHub
from .logs import EventLog, NodeLogForwarder, logs_wanted
from .providers import meter_provider, span_sink, tracer_provider
from .settings import settings


def configured_listeners(hub: Broadcast) -> list[Listener]:
    """The listeners that the configuration asks for, when a run starts; mostly none."""
    assert isinstance(hub, EventHub)
    found: list[Listener] = []
    traces, metrics, chosen = tracer_provider(), meter_provider(), settings()
    if traces is not None:
        from .spans import SpanMaker

        hub.tracer = SpanMaker(hub.graph, traces, span_sink(traces), chosen, hub.nodes, hub.links)
        hub.links = []
        found.append(hub.tracer)
    if metrics is not None:
        from .metrics import MetricCounter

        found.append(MetricCounter(hub.graph, metrics))
    hub.untraced = None
    if chosen.log_level is not None:
        found.append(NodeLogForwarder(chosen))
        hub.untraced = TraceContext(0, 0, 0, log_level=chosen.log_level)
    if logs_wanted():
        found.append(EventLog(chosen, hub.capture))
    return found
