"""Keeping the spans of an executor's runs for its report, with no exporter set up."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import GraphWarning
from ...model import Graph
from ...model.attempt import AttemptFacts, AttemptKey, Launch
from ..broadcast import TOLD_DIRECTLY, Ignored
from ..edges_taken import EdgesTaken
from ..event import Event
from ..events import RunStarted
from ..hub import EventHub
from ..settings import settings

if TYPE_CHECKING:
    from ..spans import SpanMaker


class RunRecord:
    """Listens to an executor's runs, and writes the report of the last one.

    Args:
        hub: what tells of the runs.
        graph: the graph that they run.
    """

    ignores: ClassVar[Ignored] = TOLD_DIRECTLY

    def __init__(self, hub: EventHub, graph: Graph) -> None:
        self._graph = graph
        self._wanted: dict[Path, None] = {}
        self._spans: list[Any] = []
        self._maker: SpanMaker | None = None
        self._nodes = hub.nodes
        hub.add(self)

    def on_event(self, event: Event) -> None:
        """Keep what an event adds to the spans of its run."""
        if isinstance(event, RunStarted):
            self._begin()
        if self._maker is not None:
            self._maker.on_event(event)

    def _begin(self) -> None:
        from opentelemetry.sdk.trace import TracerProvider

        from ..spans import SpanMaker

        self._spans = []
        provider = TracerProvider(shutdown_on_exit=False)
        self._maker = SpanMaker(self._graph, provider, self._spans.append, settings(), self._nodes)

    def launched(self, launches: Sequence[Launch], time: float) -> Sequence[Launch]:
        """Attempts are handed out."""
        return launches if self._maker is None else self._maker.launched(launches, time)

    def succeeded(self, key: AttemptKey, facts: AttemptFacts, time: float) -> None:
        """An attempt gave a state."""
        if self._maker is not None:
            self._maker.succeeded(key, facts, time)

    def edges_taken(self, taken: EdgesTaken) -> None:
        """A barrier passed."""
        if self._maker is not None:
            self._maker.edges_taken(taken)

    def want(self, path: str | os.PathLike[str]) -> None:
        """Have the report written when the run ends."""
        self._wanted[Path(path)] = None

    @property
    def has_run(self) -> bool:
        """Whether there is a run to tell of."""
        return bool(self._spans)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the report of the last run."""
        from ..jsonlines import span_object
        from . import write_report

        return write_report([span_object(span.built()) for span in self._spans], path, self._graph)

    async def run_ended(self) -> None:
        """Write the reports that are wanted; what goes wrong is a warning, not the run's fault."""
        wanted, self._wanted = self._wanted, {}
        for path in wanted:
            try:
                await asyncio.to_thread(self.write, path)
            except Exception as error:
                warnings.warn(
                    f"The report '{path}' could not be written: {error}", GraphWarning, stacklevel=2
                )
