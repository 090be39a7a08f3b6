"""What telemetry says of a graph's nodes, whatever they do: looked up once for each."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from types import FunctionType
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
        self._places: dict[FunctionType, Mapping[str, Any]] = {}

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
            found = self._codes[node_id] = self._place(self._graph.nodes[node_id].callables())
        return found

    def _place(self, functions: Iterable[Any]) -> Mapping[str, Any]:
        for function in functions:
            known = isinstance(function, FunctionType) and self._places.get(function)
            place = known or _place_of(function)
            if place:
                if isinstance(function, FunctionType):
                    self._places[function] = place
                return place
        return {}

    def router(self, source: str, sink: str) -> str:
        """The name of the router that leads from one node to another."""
        for edge in self._graph.edges_from(source):
            if isinstance(edge, ConditionalEdge) and any(s.node_id == sink for s in edge.sinks):
                return router_name(edge)
        return "?"


def _place_of(function: Any) -> Mapping[str, Any]:
    """Where a function stands; nothing for what has no Python code."""
    try:
        inner = inspect.unwrap(function) if callable(function) else function
    except ValueError:  # it says that it wraps itself
        return {}
    code = getattr(inner, "__code__", None)
    if code is None:
        return {}
    return {
        "code.function.name": f"{inner.__module__}.{inner.__qualname__}",
        "code.file.path": code.co_filename,
        "code.line.number": code.co_firstlineno,
    }
