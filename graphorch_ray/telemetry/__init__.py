"""What you see of a run: its summary, events, spans, metrics, logs and progress."""

from .event import Event
from .events import EventsDropped
from .hub import EventHub, message_count
from .observers import Observer, StreamReader
from .summary import NodeSummary, RunSummary, SummaryRecorder

__all__ = [
    "Event",
    "EventHub",
    "EventsDropped",
    "NodeSummary",
    "Observer",
    "RunSummary",
    "StreamReader",
    "SummaryRecorder",
    "message_count",
]
