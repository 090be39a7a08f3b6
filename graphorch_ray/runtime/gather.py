"""What node code leaves behind beside its state, gathered while it runs.

Notes of the library are always gathered. Spans and log records are, where the run is traced:
then the answer to an attempt brings them home to the driver, whose exporters they leave by.
"""

from __future__ import annotations

import logging
import reprlib
import traceback
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from typing import Any

from ..imported import imported
from ..model.trail import LogLine, Note, TraceContext, Trail, notes
from .context import current

LOGS_PER_ATTEMPT = 1_000
"""Log records that one attempt brings home, at most; the first ones."""

LOG_CHARS = 8_192
"""Longest text of one of them."""


class Gatherer:
    """Gathers what is done in its context, between its start and its end.

    Args:
        trace: the span that the attempt runs in, and what to bring home; None for notes alone.
    """

    def __init__(self, trace: TraceContext | None) -> None:
        self.trace = trace
        self.notes: list[Note] = []
        self.spans: list[Any] = []
        self.logs: list[LogLine] = []
        self.attributes: dict[str, Any] = {}
        self.events: list[tuple[str, int, Mapping[str, Any]]] = []
        self._noted: Token[list[Note] | None] | None = None
        self._gathered: Token[Gatherer | None] | None = None
        self._entered: Any = None

    def __enter__(self) -> Gatherer:
        _add_to_log_records()
        self._noted = notes.set(self.notes)
        if self.trace is not None:
            self._gathered = gathering.set(self)
            if self.trace.log_level is not None:
                _forward_logs()
            if self.trace.trace_id:
                from .tracing import enter  # imports OpenTelemetry

                self._entered = enter(self, self.trace)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._entered is not None:
            from .tracing import leave

            leave(self, self._entered)
        if self._gathered is not None:
            gathering.reset(self._gathered)
        if self._noted is not None:
            notes.reset(self._noted)

    def give_up(self) -> None:
        """Its attempt is answered while the code goes on: gather no more of its spans."""
        if self._entered is not None:
            from .tracing import forget

            forget(self)

    def wants(self, level: int) -> bool:
        """Whether a log record of this level is to be gathered."""
        least = self.trace.log_level if self.trace is not None else None
        return least is not None and level >= least and len(self.logs) < LOGS_PER_ATTEMPT

    def trail(self) -> Trail | None:
        """All that was gathered; None where it is nothing."""
        if not (self.notes or self.spans or self.logs or self.attributes or self.events):
            return None
        return Trail(
            tuple(self.notes),
            tuple(self.spans),
            tuple(self.logs),
            self.attributes,
            tuple(self.events),
        )


gathering: ContextVar[Gatherer | None] = ContextVar("graphorch_ray_gathering", default=None)
"""The gatherer of the attempt that this code belongs to."""


def import_tracing() -> None:
    """Import OpenTelemetry before it is needed."""
    from . import tracing  # noqa: F401


def show_state(name: str, states: Any) -> None:
    """Write the text of a state (or of a list of them) onto the attempt's span, if asked to."""
    found = gathering.get()
    if found is None or found.trace is None or not found.trace.state_chars:
        return
    limit = found.trace.state_chars
    show = reprlib.Repr()
    show.maxstring = show.maxother = limit
    show.maxlist = show.maxtuple = show.maxdict = 100
    text = ", ".join(
        f"{type(state).__name__}({show.repr(getattr(state, 'messages', state))})"
        for state in (states if isinstance(states, list) else [states])
    )
    found.attributes[f"graphorch.{name}"] = text if len(text) <= limit else f"{text[:limit]}…"


# --- logging --------------------------------------------------------------------------------

_in_worker = False
_factory_added = False


def settle_in() -> None:
    """This process is a worker of the library's: nobody else has a say in its logging."""
    global _in_worker
    _in_worker = True


def _add_to_log_records() -> None:
    """Have log records of node code say which run, node and attempt they are from."""
    global _factory_added
    if _factory_added:
        return
    _factory_added = True
    before = logging.getLogRecordFactory()

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        info = current.get()
        if info is not None:
            record.graphorch_run_id = info.run_id
            record.graphorch_superstep = info.superstep
            record.graphorch_node_id = info.running_node_id
            record.graphorch_attempt = info.attempt
            trace_id, span_id = _current_ids()
            record.otelTraceID = f"{trace_id:032x}"
            record.otelSpanID = f"{span_id:016x}"
        return record

    logging.setLogRecordFactory(make)


def _current_ids() -> tuple[int, int]:
    """The span that is current here; zeros where there is none."""
    trace = imported("opentelemetry.trace")
    if trace is None:
        return 0, 0
    context = trace.get_current_span().get_span_context()
    return context.trace_id, context.span_id


class _Forwarder(logging.Handler):
    """Gives records of node code to the gatherer in whose context they are made."""

    def emit(self, record: logging.LogRecord) -> None:
        found = gathering.get()
        if found is not None and found.wants(record.levelno):
            found.logs.append(_log_line(record))
        last = logging.lastResort
        if last is not None and logging.root.handlers == [self] and record.levelno >= last.level:
            last.handle(record)  # where nobody handles records, warnings go to the terminal


def _forward_logs() -> None:
    root = logging.getLogger()
    if any(isinstance(handler, _Forwarder) for handler in root.handlers):
        return
    if _in_worker and not root.handlers and root.level == logging.WARNING:
        root.setLevel(logging.NOTSET)  # what is brought home decides, not what is printed
    root.addHandler(_Forwarder())


def _log_line(record: logging.LogRecord) -> LogLine:
    info = current.get()
    attributes: dict[str, Any] = {
        "code.file.path": record.pathname,
        "code.line.number": record.lineno,
        "code.function.name": record.funcName,
    }
    if info is not None:
        attributes["graphorch.run_id"] = info.run_id
        attributes["graphorch.node_id"] = info.running_node_id
        attributes["graphorch.superstep"] = info.superstep
        attributes["graphorch.retry_count"] = info.attempt
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        attributes["exception.type"] = type(error).__qualname__
        attributes["exception.message"] = str(error)[:LOG_CHARS]
        lines: Sequence[str] = traceback.format_exception(error)
        attributes["exception.stacktrace"] = "".join(lines)[-LOG_CHARS:]
    return LogLine(
        record.created,
        record.levelno,
        record.levelname,
        record.name,
        record.getMessage()[:LOG_CHARS],
        attributes,
        *_current_ids(),
    )
