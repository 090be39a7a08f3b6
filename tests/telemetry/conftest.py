"""Spans of the runs of a test, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from graphorch_ray import telemetry


class Spans:
    """What was exported, and questions about it."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def all(self) -> list[ReadableSpan]:
        assert telemetry.flush(10)
        return list(self.exporter.get_finished_spans())

    def of(self, kind: str, **attributes: Any) -> list[ReadableSpan]:
        """The library's spans of a kind with these attributes, by their bare names."""
        wanted = {f"graphorch.{name}": value for name, value in attributes.items()}
        return [
            span
            for span in self.all()
            if (span.attributes or {}).get("graphorch.span") == kind
            and all((span.attributes or {}).get(k) == v for k, v in wanted.items())
        ]

    def one(self, kind: str, **attributes: Any) -> ReadableSpan:
        (span,) = self.of(kind, **attributes)
        return span


def bare(attributes: Any) -> dict[str, Any]:
    """Attributes without the prefix."""
    return {name.removeprefix("graphorch."): value for name, value in dict(attributes).items()}


def events(span: ReadableSpan, name: str) -> list[dict[str, Any]]:
    return [bare(event.attributes) for event in span.events if event.name == name]


@pytest.fixture
def spans() -> Iterator[Spans]:
    """Record the spans of this test."""
    found = Spans()
    telemetry.configure(exporters=[found.exporter])
    yield found
    telemetry.shutdown()
