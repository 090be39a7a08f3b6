"""The edges that a superstep's results went along, told together and parted where it matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from . import events as ev
from .event import PREFIX
from .nodes import NodeTable

T = TypeVar("T")

Transition = tuple[int, str, str, bool]
"""An execution's result went along an edge: (execution, source, sink, conditional)."""

Edge = tuple[str, str, bool]
"""Source, sink, whether a router leads along it."""

_SUPERSTEP = f"{PREFIX}superstep"
_SOURCE = f"{PREFIX}source_node"
_SINK = f"{PREFIX}sink_node"
_ROUTER = f"{PREFIX}router_func"
_COUNT = f"{PREFIX}count"


class EdgesTaken:
    """All edges taken at one barrier.

    Args:
        time: of the barrier, in Unix seconds.
        superstep: the one that has ended.
        transitions: what went where.
        nodes: the graph's.
    """

    __slots__ = ("_nodes", "_transitions", "superstep", "time")

    def __init__(
        self, time: float, superstep: int, transitions: Sequence[Transition], nodes: NodeTable
    ) -> None:
        self.time = time
        self.superstep = superstep
        self._transitions = transitions
        self._nodes = nodes

    def events(self, run_id: str) -> Iterator[ev.EdgeTaken]:
        """An event for each edge."""
        taken: dict[Edge, list[int]] = {}
        for execution, source, sink, conditional in self._transitions:
            taken.setdefault((source, sink, conditional), []).append(execution)
        for (source, sink, conditional), executions in taken.items():
            yield ev.EdgeTaken(
                time=self.time,
                run_id=run_id,
                superstep=self.superstep,
                source_node=source,
                sink_node=sink,
                router_func=self._nodes.router(source, sink) if conditional else None,
                count=len(executions),
                executions=tuple(executions),
            )

    def notes(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The same as names and facts, for a span."""
        counts: dict[Edge, int] = {}
        for _, source, sink, conditional in self._transitions:
            edge = source, sink, conditional
            counts[edge] = counts.get(edge, 0) + 1
        for (source, sink, conditional), count in counts.items():
            facts = {_SUPERSTEP: self.superstep, _SOURCE: source, _SINK: sink, _COUNT: count}
            router = self._nodes.router(source, sink) if conditional else None
            if router is not None:
                facts[_ROUTER] = router
            yield ev.edge_event_name(router), facts

    def arrived(self, results: Mapping[int, T]) -> dict[str, list[T]]:
        """By sink, the `results` of the executions that led there, in launch order."""
        found: dict[str, list[T]] = {}
        for execution, _, sink, _ in self._transitions:
            result = results.get(execution)
            if result is not None:
                found.setdefault(sink, []).append(result)
        return found
