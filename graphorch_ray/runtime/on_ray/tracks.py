"""Where a node's state goes next: the track that a worker may follow without asking the driver.

A node belongs on it if it is alone in its superstep as soon as the one before it was: it is the
sink of an only edge, or of an only router that runs beside its node.
"""

from __future__ import annotations

from collections.abc import Callable

from ...model.edges import ConcreteEdge, ConditionalEdge
from ...model.graph import Graph
from ...model.nodes import Node
from .jobs import JobWriter
from .wire import Step

STEPS_SHIPPED = 256
"""Nodes on one track, at most."""


class Tracks:
    """Finds the tracks of one graph.

    Args:
        graph: the graph.
        writer: knows how its nodes are run.
    """

    def __init__(self, graph: Graph, writer: JobWriter) -> None:
        self._graph = graph
        self._writer = writer
        self._steps: dict[str, Step] = {}

    def of(self, node: Node, may_follow: Callable[[Node], bool]) -> dict[str, Step] | None:
        """The nodes that may come after this one, and it itself; None where it leads to none.

        Args:
            node: where the track begins.
            may_follow: whether a node could run where this one runs, and is not long.
        """
        found: dict[str, Step] = {}
        waiting = [node.node_id]
        for node_id in waiting:
            if node_id in found or len(found) == STEPS_SHIPPED:
                continue
            if node_id != node.node_id and not may_follow(self._graph.nodes[node_id]):
                continue
            found[node_id] = self._step(node_id)
            waiting += self._sinks(node_id)
        leads_on = any(sink in found for sink in self._sinks(node.node_id))
        return found if leads_on else None

    def _sinks(self, node_id: str) -> list[str]:
        """Where the node's state may go, if it goes to one node and the driver is not asked."""
        edges = self._graph.edges_from(node_id)
        if len(edges) != 1 or node_id == self._graph.end_node.node_id:
            return []
        (edge,) = edges
        if isinstance(edge, ConcreteEdge):
            return [edge.sink.node_id]
        if isinstance(edge, ConditionalEdge) and edge.router_placement == "worker":
            return [sink.node_id for sink in edge.sinks]
        return []

    def _step(self, node_id: str) -> Step:
        step = self._steps.get(node_id)
        if step is None:
            kind = self._writer.kind(self._graph.nodes[node_id], node_id)
            step = self._steps[node_id] = Step(kind, tuple(self._sinks(node_id)))
        return step
