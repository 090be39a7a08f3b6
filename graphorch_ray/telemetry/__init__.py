"""What you see of a run: its summary, events, spans, metrics, logs and progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .event import Event
from .events import EventsDropped
from .hub import EventHub, message_count
from .listeners import configured_listeners
from .observers import Observer
from .summary import NodeSummary, RunSummary, SummaryRecorder

if TYPE_CHECKING:
    from .setup import configure, flush, shutdown

__all__ = [
    "Event",
    "EventHub",
    "EventsDropped",
    "NodeSummary",
    "Observer",
    "RunSummary",
    "SummaryRecorder",
    "configure",
    "configured_listeners",
    "flush",
    "message_count",
    "shutdown",
]


def __getattr__(name: str) -> Any:
    """Import the set-up, and OpenTelemetry's SDK with it, when it is first used."""
    if name in ("configure", "flush", "shutdown"):
        from . import setup

        return getattr(setup, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
