"""The trace file: one JSON object per line; see docs/observability.md for its form."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

FORMAT = "graphorch-trace/1"


class JsonLinesExporter(SpanExporter):
    """Appends spans to a file, each on a line of its own.

    Args:
        path: the file; it and its folder are made where they are missing.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        folder = os.path.dirname(self.path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        self._file = open(self.path, "ab")  # noqa: SIM115 - closed by shutdown()
        self._lock = threading.Lock()
        self._resource: Resource | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write the spans; what is written is in the file, not in a buffer."""
        lines: list[str] = []
        with self._lock:
            for span in spans:
                if span.resource is not self._resource and span.resource != self._resource:
                    self._resource = span.resource
                    lines.append(_line(_header(span.resource)))
                lines.append(_line(span_object(span)))
            # One write: another process that appends to the same file cannot get in between.
            self._file.write("".join(lines).encode())
            self._file.flush()
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing waits here."""
        return True

    def shutdown(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def _line(value: Mapping[str, Any]) -> str:
    return _encode(value) + "\n"


def span_line(span: ReadableSpan) -> str:
    """A span as its line, for printing."""
    return _line(span_object(span))


def _header(resource: Resource) -> dict[str, Any]:
    return {"format": FORMAT, "resource": dict(resource.attributes)}


def span_object(span: ReadableSpan) -> dict[str, Any]:
    """A span as the object that its line holds."""
    context, parent = span.context, span.parent
    assert context is not None
    return {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "parentSpanId": None if parent is None else f"{parent.span_id:016x}",
        "name": span.name,
        "kind": span.kind.name,
        "startTimeUnixNano": span.start_time,
        "endTimeUnixNano": span.end_time,
        "attributes": dict(span.attributes or {}),
        "events": [
            {
                "timeUnixNano": event.timestamp,
                "name": event.name,
                "attributes": dict(event.attributes or {}),
            }
            for event in span.events
        ],
        "links": [
            {
                "traceId": f"{link.context.trace_id:032x}",
                "spanId": f"{link.context.span_id:016x}",
                "attributes": dict(link.attributes or {}),
            }
            for link in span.links
        ],
        "status": {
            "code": span.status.status_code.name,
            "message": span.status.description or "",
        },
        "scope": span.instrumentation_scope.name if span.instrumentation_scope else "",
    }
