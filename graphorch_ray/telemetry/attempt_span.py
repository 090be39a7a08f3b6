"""The span of one attempt: its facts are kept as they come, and named where it is exported."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..model.attempt import AttemptFacts
from . import events as ev
from .event import PREFIX, AttemptEvent
from .settings import short, short_end
from .span_writer import Note, OpenSpan, Traced

_SPAN = f"{PREFIX}span"
_INPUT_SIZE = f"{PREFIX}input_size"
_OUTPUT_SIZE = f"{PREFIX}output_size"

_NOTHING: dict[str, Any] = {}

Ended = ev.NodeCompleted | ev.AttemptFailed | ev.AttemptCancelled


class OpenAttempt(OpenSpan):
    """An attempt that has not ended, or has and is to be written.

    Args:
        traced: the run's.
        span_id: its own.
        parent: the execution's span.
        started: how it began.
        code: where the node's code is, by OpenTelemetry's names.
    """

    __slots__ = ("code", "ended", "started")

    def __init__(
        self,
        traced: Traced,
        span_id: int,
        parent: int,
        started: ev.AttemptStarted,
        code: Mapping[str, Any],
    ) -> None:
        super().__init__(
            traced, f"attempt {started.node_id}", span_id, parent, started.time, _NOTHING
        )
        self.started = started
        self.ended: Ended | None = None
        self.code = code

    def all_attributes(self) -> Mapping[str, Any]:
        """What began it, how it ended, and what its code said of itself."""
        found: dict[str, Any] = {_SPAN: "attempt", **self.started.attributes(), **self.code}
        ended = self.ended
        if isinstance(ended, ev.AttemptCancelled):
            found[f"{PREFIX}outcome"] = "cancelled"
            found[f"{PREFIX}reason"] = ended.reason
        elif ended is not None:
            found[f"{PREFIX}outcome"] = outcome_of(ended)
            self._add_facts(found, ended.facts)
            if isinstance(ended, ev.AttemptFailed):
                found[f"{PREFIX}reason"] = ended.reason
                found[f"{PREFIX}error"] = short(ended.error)
                found["error.type"] = ended.error_type
        return found

    def _add_facts(self, found: dict[str, Any], facts: AttemptFacts) -> None:
        found[f"{PREFIX}placement"] = facts.placement
        found[f"{PREFIX}batch_size"] = facts.batch_size
        if facts.ran_ahead:
            found[f"{PREFIX}ran_ahead"] = True
        found[f"{PREFIX}input_bytes"] = facts.input_bytes
        found[f"{PREFIX}output_bytes"] = facts.output_bytes
        found[_INPUT_SIZE] = facts.input_size
        found[_OUTPUT_SIZE] = facts.output_size
        if facts.worker_pid is not None:
            found[f"{PREFIX}worker_pid"] = found["process.pid"] = facts.worker_pid
        if facts.ray_node is not None:
            found[f"{PREFIX}ray_node"] = facts.ray_node
        if facts.task_id is not None:
            found[f"{PREFIX}task_id"] = facts.task_id
        if facts.started is not None:
            found[f"{PREFIX}queue_wait"] = max(0.0, facts.started - self.start)
            if facts.ended is not None:
                found[f"{PREFIX}run_time"] = max(0.0, facts.ended - facts.started)
        if facts.trail is not None:
            found.update(facts.trail.attributes)

    def all_notes(self) -> Sequence[Note]:
        """When its code began and returned, what happened in between, and how it failed."""
        ended = self.ended
        if ended is None or isinstance(ended, ev.AttemptCancelled):
            return super().all_notes()
        facts = ended.facts
        found: list[Note] = []
        if facts.started is not None:
            began = {_INPUT_SIZE: facts.input_size}
            found.append((ev.CodeStarted.name, self.at(facts.started), began))
        found += [
            (event.name, self.at(event.time), event.own_attributes())
            for event in super().all_notes()
            if isinstance(event, AttemptEvent)
        ]
        if isinstance(ended, ev.NodeCompleted) and facts.ended is not None:
            returned = {_OUTPUT_SIZE: facts.output_size}
            found.append((ev.CodeEnded.name, self.at(facts.ended), returned))
        if facts.trail is not None:
            found += facts.trail.events
        if isinstance(ended, ev.AttemptFailed):
            raised = {
                "exception.type": ended.error_type,
                "exception.message": short(ended.error),
                "exception.stacktrace": short_end(ended.traceback),
            }
            at = self.at(ended.time)
            found += [(ended.name, at, {}), ("exception", at, raised)]
        return found


def outcome_of(ended: ev.NodeCompleted | ev.AttemptFailed) -> str:
    """How an attempt ended, in the word of its span."""
    if isinstance(ended, ev.NodeCompleted):
        return "ok"
    if ended.infrastructure:
        return "infrastructure"
    return "timeout" if ended.reason == "timeout" else "failed"


def code_attributes(functions: Iterable[Any]) -> dict[str, Any]:
    """Where the first of these functions stands, by OpenTelemetry's names."""
    for function in functions:
        inner = inspect.unwrap(function) if callable(function) else function
        code = getattr(inner, "__code__", None)
        if code is not None:
            return {
                "code.function.name": f"{inner.__module__}.{inner.__qualname__}",
                "code.file.path": code.co_filename,
                "code.line.number": code.co_firstlineno,
            }
    return {}
