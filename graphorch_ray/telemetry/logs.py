"""Log records: the run's own, by Python's `logging`, and those of node code, as OTel logs."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from . import events as ev
from .broadcast import Ignored
from .event import Event, without_prefix
from .settings import Settings

LOGGER = logging.getLogger("graphorch_ray")
LOGGER.addHandler(logging.NullHandler())

_LEVELS: dict[type[Event], int] = {
    ev.RunStarted: logging.INFO,
    ev.RunFinished: logging.INFO,
    ev.RunFailed: logging.ERROR,
    ev.ExecutorInitFailed: logging.ERROR,
    ev.MaxSuperstepsExceeded: logging.ERROR,
    ev.SuperstepCompleted: logging.INFO,
    ev.SuperstepTimedOut: logging.WARNING,
    ev.NoFallback: logging.WARNING,
    ev.StatesDropped: logging.WARNING,
    ev.AttemptFailed: logging.WARNING,
    ev.RetryScheduled: logging.INFO,
    ev.FallbackInvoked: logging.WARNING,
    ev.FallbackFailed: logging.ERROR,
    ev.FallbackToCheckpoint: logging.WARNING,
    ev.CheckpointRestored: logging.INFO,
    ev.CheckpointSaved: logging.INFO,
    ev.CheckpointLoaded: logging.INFO,
}
"""All others are for DEBUG."""


def logs_wanted() -> bool:
    """Whether the program asks for the library's log.

    Quiet by default: Python lets warnings through unasked, and what a run has to warn of is
    raised or warned of anyway.
    """
    return (LOGGER.level != logging.NOTSET or LOGGER.isEnabledFor(logging.INFO)) and any(
        not isinstance(handler, logging.NullHandler) for handler in _handlers()
    )


def _handlers() -> list[logging.Handler]:
    found: list[logging.Handler] = []
    logger: logging.Logger | None = LOGGER
    while logger is not None:
        found += logger.handlers
        logger = logger.parent if logger.propagate else None
    return found


class EventLog:
    """Writes the events of one run to the logger ``graphorch_ray``.

    Args:
        settings: what may leave.
        trace: gives trace and span id of the run; None where it has no span.
    """

    def __init__(self, settings: Settings, carrier: Any) -> None:
        self._settings = settings
        self._carrier = carrier

    def on_event(self, event: Event) -> None:
        """Write a record."""
        level = _LEVELS.get(type(event), logging.DEBUG)
        if not LOGGER.isEnabledFor(level):
            return
        attributes = self._settings.clean(event.attributes())
        facts = " ".join(f"{k}={v!r}" for k, v in without_prefix(attributes).items())
        extra: dict[str, Any] = {"graphorch_run_id": event.run_id, "graphorch_event": event.name}
        parent = self._carrier().get("traceparent", "")
        extra["otelTraceID"], extra["otelSpanID"] = (parent.split("-") + ["0"] * 3)[1:3]
        LOGGER.log(level, "%s %s", event.name, facts, extra=extra)


class NodeLogForwarder:
    """Hands the log records that attempts brought home to OpenTelemetry's logger provider."""

    ignores: ClassVar[Ignored] = frozenset({ev.CodeStarted, ev.CodeEnded, ev.EdgeTaken})

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def on_event(self, event: Event) -> None:
        """Hand on what came with an attempt's answer."""
        if not isinstance(event, ev.NodeCompleted | ev.AttemptFailed):
            return
        trail = event.facts.trail
        if trail is None or not trail.logs:
            return
        from opentelemetry._logs import LogRecord, SeverityNumber, get_logger
        from opentelemetry.trace import TraceFlags

        for line in trail.logs:
            get_logger(line.logger).emit(
                LogRecord(
                    timestamp=int(line.created * 1e9),
                    observed_timestamp=int(event.time * 1e9),
                    trace_id=line.trace_id,
                    span_id=line.span_id,
                    trace_flags=TraceFlags(1 if line.trace_id else 0),
                    severity_text=line.level_name,
                    severity_number=SeverityNumber(_severity(line.level)),
                    body=self._settings.text("body", line.message),
                    attributes=dict(self._settings.clean(line.attributes)),
                )
            )


def _severity(level: int) -> int:
    """OpenTelemetry's number for a level of `logging`: 5 DEBUG, 9 INFO, 13, 17, 21 FATAL."""
    return 1 if level < logging.DEBUG else min(level // 10, 5) * 4 + 1
