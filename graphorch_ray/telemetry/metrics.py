"""Metrics of runs, by OpenTelemetry's metrics API; docs/observability.md lists them.

Label sets are bounded: the graph's name, and words from short lists. A node's id is among them
only for graphs of up to `NODES_LABELLED` nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from opentelemetry.metrics import MeterProvider

from ..model.graph import Graph
from . import events as ev
from .broadcast import Ignored
from .event import PREFIX, AttemptEvent, Event

NODES_LABELLED = 100
"""Graphs with more nodes than this have no label for the node."""

SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0)
BYTES = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10)

_COUNTERS = {
    "runs": "Runs that ended",
    "supersteps": "Supersteps that passed their barrier",
    "executions": "Node executions that ended",
    "attempts": "Attempts at node executions that ended",
    "retries": "Further attempts that were scheduled",
    "fallbacks": "Fallbacks that took over",
    "timeouts": "Attempts and supersteps that exceeded their time",
    "infrastructure_failures": "Attempts lost with a worker, a machine or an object",
    "states_dropped": "States that arrived beside the first and were not used",
    "checkpoints": "Checkpoints written",
}
_SECONDS = {
    "run.duration": "Wall time of a run",
    "superstep.duration": "Wall time of a superstep",
    "attempt.duration": "Time that node code ran in one attempt",
    "attempt.queue_wait": "Time from an attempt's launch to the start of its code",
    "checkpoint.duration": "Time to write a checkpoint",
    "checkpoint.lag": "Time from a barrier to its durable checkpoint",
}


class Instruments:
    """The library's instruments of one meter provider."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("graphorch_ray")
        self.counters = {
            name: meter.create_counter(f"{PREFIX}{name}", "1", text)
            for name, text in _COUNTERS.items()
        }
        self.seconds = {
            name: meter.create_histogram(
                f"{PREFIX}{name}", "s", text, explicit_bucket_boundaries_advisory=SECONDS
            )
            for name, text in _SECONDS.items()
        }
        self.bytes = meter.create_histogram(
            f"{PREFIX}checkpoint.size",
            "By",
            "Bytes written for a checkpoint",
            explicit_bucket_boundaries_advisory=BYTES,
        )
        self.slots = meter.create_up_down_counter(
            f"{PREFIX}slots.in_use", "1", "Attempts handed out, at most the executor's max_workers"
        )


_made: WeakKeyDictionary[MeterProvider, Instruments] = WeakKeyDictionary()


def instruments_of(provider: MeterProvider) -> Instruments:
    """The instruments of a provider, made once: the SDK objects to a second time."""
    found = _made.get(provider)
    if found is None:
        found = _made[provider] = Instruments(provider)
    return found


class MetricCounter:
    """Listens to one run and counts."""

    ignores: ClassVar[Ignored] = frozenset({ev.CodeStarted, ev.CodeEnded, ev.EdgeTaken})

    def __init__(self, graph: Graph, provider: MeterProvider) -> None:
        self._graph = graph
        self._instruments = instruments_of(provider)
        self._run: dict[str, str] = {f"{PREFIX}graph": graph.name}
        self._by_node = len(graph.nodes) <= NODES_LABELLED
        self._run_started = self._superstep_started = 0.0
        self._max_workers = 1
        self._began: dict[Any, float] = {}
        self._in_use = 0
        self._open: dict[int, tuple[AttemptEvent, str]] = {}
        self._on: dict[type[Event], Callable[[Any], None]] = {
            ev.RunStarted: self._started,
            ev.RunFinished: lambda event: self._ended(event, "finished"),
            ev.RunFailed: lambda event: self._ended(event, event.status),
            ev.SuperstepStarted: self._superstep,
            ev.SuperstepCompleted: self._superstep_completed,
            ev.SuperstepTimedOut: lambda event: self._count("timeouts", scope="superstep"),
            ev.FallbackToCheckpoint: lambda event: self._close_executions(),
            ev.StatesDropped: lambda event: self._count("states_dropped", event.arrived - 1),
            ev.AttemptStarted: self._attempt_started,
            ev.NodeCompleted: self._completed,
            ev.AttemptFailed: self._failed,
            ev.AttemptCancelled: self._cancelled,
            ev.RetryScheduled: self._retried,
            ev.FallbackSucceeded: lambda event: self._count("fallbacks", outcome="ok"),
            ev.FallbackFailed: lambda event: self._count("fallbacks", outcome="failed"),
            ev.CheckpointSaved: self._checkpoint,
        }

    def on_event(self, event: Event) -> None:
        """Count an event."""
        handler = self._on.get(type(event))
        if handler is not None:
            handler(event)

    def _labels(self, **more: str) -> dict[str, str]:
        return {**self._run, **{PREFIX + name: value for name, value in more.items()}}

    def _of(self, event: AttemptEvent, **more: str) -> dict[str, str]:
        if self._by_node:
            more["node_id"] = event.node_id
        return self._labels(node_type=event.node_type, **more)

    def _count(self, name: str, amount: int = 1, **labels: str) -> None:
        self._instruments.counters[name].add(amount, self._labels(**labels))

    def _took(self, name: str, seconds: float, labels: dict[str, str]) -> None:
        self._instruments.seconds[name].record(max(0.0, seconds), labels)

    # --- runs and supersteps ------------------------------------------------------------------

    def _started(self, event: ev.RunStarted) -> None:
        self._run[f"{PREFIX}backend"] = event.backend
        self._run_started = event.time
        self._max_workers = event.max_workers

    def _ended(self, event: Event, status: str) -> None:
        self._close_executions()
        self._use(0)
        self._count("runs", status=status)
        self._took("run.duration", event.time - self._run_started, self._labels(status=status))

    def _superstep(self, event: ev.SuperstepStarted) -> None:
        self._superstep_started = event.time

    def _superstep_completed(self, event: ev.SuperstepCompleted) -> None:
        self._count("supersteps")
        self._took("superstep.duration", event.time - self._superstep_started, self._run)
        self._close_executions()

    def _close_executions(self) -> None:
        for event, outcome in self._open.values():
            self._instruments.counters["executions"].add(1, self._of(event, outcome=outcome))
        self._open.clear()

    # --- attempts -----------------------------------------------------------------------------

    def _use(self, attempts: int) -> None:
        in_use = min(attempts, self._max_workers)
        if in_use != self._in_use:
            self._instruments.slots.add(in_use - self._in_use, self._run)
            self._in_use = in_use

    def _attempt_started(self, event: ev.AttemptStarted) -> None:
        self._began[event.key] = event.time
        self._open[event.execution] = (event, "cancelled")
        self._use(len(self._began))

    def _completed(self, event: ev.NodeCompleted) -> None:
        self._attempt_ended(event, "ok")
        self._open[event.execution] = (event, "ok")

    def _failed(self, event: ev.AttemptFailed) -> None:
        outcome = "failed"
        if event.infrastructure:
            outcome = "infrastructure"
            self._instruments.counters["infrastructure_failures"].add(
                1, self._of(event, reason=event.reason)
            )
        elif event.reason == "timeout":
            outcome = "timeout"
            self._count("timeouts", scope="attempt")
        self._attempt_ended(event, outcome)
        self._open[event.execution] = (event, "failed")

    def _retried(self, event: ev.RetryScheduled) -> None:
        self._instruments.counters["retries"].add(1, self._of(event))
        self._open[event.execution] = (event, "cancelled")

    def _cancelled(self, event: ev.AttemptCancelled) -> None:
        self._began.pop(event.key, None)
        self._use(len(self._began))
        self._instruments.counters["attempts"].add(1, self._of(event, outcome="cancelled"))

    def _attempt_ended(self, event: ev.NodeCompleted | ev.AttemptFailed, outcome: str) -> None:
        began = self._began.pop(event.key, None)
        self._use(len(self._began))
        labels = self._of(event, outcome=outcome)
        self._instruments.counters["attempts"].add(1, labels)
        facts = event.facts
        if facts.started is not None:
            if facts.ended is not None:
                self._took("attempt.duration", facts.ended - facts.started, labels)
            if began is not None:
                self._took("attempt.queue_wait", facts.started - began, self._of(event))

    def _checkpoint(self, event: ev.CheckpointSaved) -> None:
        self._count("checkpoints")
        if event.bytes is not None:
            self._instruments.bytes.record(event.bytes, self._run)
        if event.seconds is not None:
            self._took("checkpoint.duration", event.seconds, self._run)
        if event.lag is not None:
            self._took("checkpoint.lag", event.lag, self._run)
