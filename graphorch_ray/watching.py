"""What can be seen of an executor's runs: events, the summary, the report."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from .checking import check_count
from .model.graph import Graph
from .state import State
from .telemetry import Event, EventHub, Observer, RunSummary
from .telemetry.observers import BUFFERED_EVENTS, follow

if TYPE_CHECKING:
    from .telemetry.report.record import RunRecord


class Watched:
    """The side of `GraphExecutor` that tells what it does."""

    graph: Graph
    _hub: EventHub
    _running: bool
    _record: RunRecord | None = None

    @abstractmethod
    async def execute(
        self, max_supersteps: int = 100, superstep_timeout: float | None = 300.0
    ) -> State | None:
        """Run the graph."""

    @property
    def summary(self) -> RunSummary:
        """Facts about the run so far; may be read while it runs."""
        return self._hub.summary()

    def add_observer(self, function: Callable[[Event], Any]) -> Observer:
        """Have a function told every event of this executor's runs, from now on.

        It is called in a thread of its own, one event after another; `remove()` on what is
        returned ends that. The run never waits for it, and does not mind if it fails: up to
        10,000 events wait for it, further ones are dropped and counted in an `EventsDropped`.

        Raises:
            TypeError: it is no function, or a coroutine function.

        Example:
            ```python
            executor.add_observer(lambda event: print(event.name))
            ```
        """
        return self._hub.add_observer(function)

    def stream(
        self,
        max_supersteps: int = 100,
        superstep_timeout: float | None = 300.0,
        *,
        buffer: int = BUFFERED_EVENTS,
    ) -> AsyncIterator[Event]:
        """Run the graph, giving each event as it happens.

        The run does not wait for whoever reads: `buffer` events wait at most, further ones are
        dropped and an `EventsDropped` stands in their place. The last event always comes;
        what `execute()` would raise is raised after it. To stop reading is to cancel the run.

        Example:
            ```python
            async for event in executor.stream():
                print(event.name)
            print(executor.final_state)
            ```
        """
        check_count("buffer", buffer, 1)
        return follow(self._hub, lambda: self.execute(max_supersteps, superstep_timeout), buffer)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write the report of a run: one HTML file that works offline.

        Asked for before a run, it is written when the run ends, however it ends. Asked for again
        afterwards, it is written at once. Recording costs some time for each attempt, so nothing
        is recorded before the first call.

        Args:
            path: the file; one that is there is replaced.

        Raises:
            RuntimeError: the run that it is to tell of was not recorded.

        Example:
            ```python
            executor.report("run.html")
            executor.run()
            ```
        """
        if self._record is None:
            if self.summary.status != "new":
                raise RuntimeError(
                    "This run was not recorded. Call executor.report(path) before "
                    "executor.run(), or set up telemetry.configure(file='trace.jsonl') and use "
                    "telemetry.report.write_report('trace.jsonl', path)."
                )
            from .telemetry.report.record import RunRecord  # brings the OpenTelemetry SDK

            self._record = RunRecord(self._hub, self.graph)
        if self._record.has_run and not self._running:
            self._record.write(path)
        else:
            self._record.want(path)
