"""What node code left behind beside its state: spans, log records, and notes of the library.

Plain tuples, so that they pickle fast and need no OpenTelemetry where nothing is traced.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple


class TraceContext(NamedTuple):
    """What an attempt is told, so that what it does becomes part of the run's trace.

    Attributes:
        trace_id, span_id: of the attempt's span; 0 where there is none.
        flags: W3C trace flags; 1 means sampled.
        state: W3C trace state, as it stands in the header.
        state_chars: how much of the states' text to bring home; 0 brings none.
        log_level: log records from this level up are brought home; None brings none.
    """

    trace_id: int
    span_id: int
    flags: int = 1
    state: str = ""
    state_chars: int = 0
    log_level: int | None = None

    def next(self, steps: int = 1) -> TraceContext:
        """The span of an attempt that runs as one of the next on the same worker."""
        if not self.span_id:
            return self
        return self._replace(span_id=(self.span_id + steps) % 2**64 or 1)


class SpanRecord(NamedTuple):
    """A span that node code made and ended. Times are Unix nanoseconds, ids are numbers.

    `events` are (name, time, attributes), `links` (trace id, span id, attributes), `status`
    is (code, description), `scope` (name, version) of the instrumenting library.
    """

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    kind: int
    start: int
    end: int
    attributes: Mapping[str, Any]
    events: tuple[tuple[str, int, Mapping[str, Any]], ...]
    links: tuple[tuple[int, int, Mapping[str, Any]], ...]
    status: tuple[int, str | None]
    scope: tuple[str, str | None]


class LogLine(NamedTuple):
    """A log record of node code. `created` is Unix seconds, `level` that of `logging`."""

    created: float
    level: int
    level_name: str
    logger: str
    message: str
    attributes: Mapping[str, Any]
    trace_id: int
    span_id: int


class Note(NamedTuple):
    """Something the library did inside an attempt; `time` is Unix seconds."""

    name: str
    time: float
    attributes: Mapping[str, Any]


class Trail(NamedTuple):
    """All of it, of one attempt. `attributes` and `events` go onto the attempt's own span."""

    notes: tuple[Note, ...] = ()
    spans: tuple[SpanRecord, ...] = ()
    logs: tuple[LogLine, ...] = ()
    attributes: Mapping[str, Any] = {}
    events: tuple[tuple[str, int, Mapping[str, Any]], ...] = ()


notes: ContextVar[list[Note] | None] = ContextVar("graphorch_ray_notes", default=None)
"""Where `note` writes: the list of the attempt that this code belongs to."""


def note(name: str, **attributes: Any) -> None:
    """Write down something that the attempt in whose context this is called has done."""
    found = notes.get()
    if found is not None:
        found.append(Note(name, time.time(), attributes))
