"""What telemetry says of a graph's nodes, whatever they do: looked up once for each."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..model.edges import ConditionalEdge
from ..model.graph import Graph
from ..policies import RetryPolicy
from .definition import router_name


class NodeFacts(NamedTuple):
    """What every event of an attempt says about its node."""

    node_type: str
    policy: RetryPolicy
    is_aggregator: bool


class NodeTable:
    """The nodes of a graph, for the run's thread and for exporters'.

    Args:
        graph: the graph.
        policy: for nodes without one of their own.
    """

    def __init__(self, graph: Graph, policy: RetryPolicy) -> None:
        self._graph = graph
        self._policy = policy
        self._facts: dict[str, NodeFacts] = {}
        self._codes: dict[str, Mapping[str, Any]] = {}
        self._places: dict[Any, Mapping[str, Any]] = {}

    def of(self, node_id: str) -> NodeFacts:
        """Its type and its rules."""
        found = self._facts.get(node_id)
        if found is None:
            node = self._graph.nodes[node_id]
            found = NodeFacts(node.node_type, node.retry_policy or self._policy, node.is_aggregator)
            self._facts[node_id] = found
        return found

    def code_of(self, node_id: str) -> Mapping[str, Any]:
        """Where its code stands, by OpenTelemetry's names; nodes with the same code share it."""
        found = self._codes.get(node_id)
        if found is None:
            place = _place(self._graph.nodes[node_id].callables())
            found = self._codes[node_id] = self._places.setdefault(place, place.attributes())
        return found

    def router(self, source: str, sink: str) -> str:
        """The name of the router that leads from one node to another."""
        for edge in self._graph.edges_from(source):
            if isinstance(edge, ConditionalEdge) and any(s.node_id == sink for s in edge.sinks):
                return router_name(edge)
        return "?"


class _Place(NamedTuple):
    function: str
    file: str
    line: int

    def attributes(self) -> Mapping[str, Any]:
        if not self.file:
            return {}
        return {
            "code.function.name": self.function,
            "code.file.path": self.file,
            "code.line.number": self.line,
        }


def _place(functions: Iterable[Any]) -> _Place:
    """Where the first of these functions stands that has Python code."""
    for function in functions:
        inner = inspect.unwrap(function) if callable(function) else function
        code = getattr(inner, "__code__", None)
        if code is not None:
            name = f"{inner.__module__}.{inner.__qualname__}"
            return _Place(name, code.co_filename, code.co_firstlineno)
    return _Place("", "", 0)
