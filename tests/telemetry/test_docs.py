"""docs/observability.md leaves nothing out that a run can tell."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from graphorch_ray import (
    GraphExecutionError,
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
)
from graphorch_ray.telemetry import events as ev
from graphorch_ray.telemetry.event import AttemptEvent, Event
from graphorch_ray.telemetry.metrics import _COUNTERS, _SECONDS
from tests.runtime.nodes import chain, echo, fail, fallback, star

PAGE = (Path(__file__).parents[2] / "docs" / "observability.md").read_text("utf-8")
NAMED = {name.removeprefix("graphorch.") for name in re.findall(r"`([\w.]+)`", PAGE)}

KINDS = [
    kind
    for kind in vars(ev).values()
    if isinstance(kind, type) and issubclass(kind, Event) and kind.__module__ == ev.__name__
]


def is_named(name: str) -> bool:
    """By itself, or by its last part after another one: `exception.type`, `.message`."""
    return name in NAMED or f".{name.rpartition('.')[2]}" in NAMED


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_and_its_attributes_are_explained(kind: type[Event]) -> None:
    if isinstance(kind.name, str) and kind.name:
        assert is_named(kind.name)
    found = {item.name for item in fields(kind)} - kind.not_attributes
    assert [name for name in found - {"retry_policy"} if not is_named(name)] == []


def test_every_attribute_of_a_span_is_explained(spans, backend) -> None:
    graph = star(
        ProcessingNode("a", echo),
        ProcessingNode("b", fail),
        fallbacks={"b": ProcessingNode("f", fallback)},
    )
    GraphExecutor(graph, State([1]), backend=backend, retry_policy=RetryPolicy(1, 0)).run()
    with pytest.raises(GraphExecutionError):
        GraphExecutor(chain(ProcessingNode("a", fail)), State([1]), backend=backend).run()
    names = set()
    for span in spans.all():
        names |= set(span.attributes)
        names |= {name for event in span.events for name in (event.name, *event.attributes)}
    assert len(names) > 50
    assert [n for n in sorted(names) if not is_named(n.removeprefix("graphorch."))] == []


def test_every_metric_is_explained() -> None:
    metrics = {*_COUNTERS, *_SECONDS, "checkpoint.size", "slots.in_use"}
    assert [name for name in metrics if not is_named(name)] == []


def test_what_is_explained_for_an_attempt_is_there() -> None:
    table = PAGE[PAGE.index("| attempt | |") : PAGE.index("A link has")]
    own = {item.name for item in fields(ev.AttemptStarted)} - AttemptEvent.not_attributes
    assert own <= set(re.findall(r"`([\w.]+)`", table))
