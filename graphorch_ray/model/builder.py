"""Builds a graph step by step, checking each step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import (
    DuplicateNodeError,
    EdgeExistsError,
    GraphConfigurationError,
    GraphWarning,
    NodeNotFoundError,
    RoutingFunctionNotDecoratedError,
)
from ..policies import RetryPolicy
from .builtins import pass_through
from .checks import check_graph
from .edges import ConcreteEdge, ConditionalEdge, Edge
from .graph import Graph
from .nodes import Node, ProcessingNode

__all__ = ["GraphBuilder"]

START = "start"
END = "end"


class GraphBuilder:
    """Collects nodes and edges, and makes a :class:`~graphorch_ray.model.Graph` of them.

    The nodes ``"start"`` and ``"end"`` are there from the beginning: every run begins at
    the one, and its result is what the other produced last. A call that fails changes
    nothing.

    Args:
        name: The name of the graph, for people, spans and reports.

    Attributes:
        graph: The graph as far as it is collected.

    Example:
        >>> from graphorch_ray.model import node_action
        >>> @node_action
        ... def greet(state):
        ...     return type(state)([*state.messages, "hello"])
        >>> builder = GraphBuilder(name="greeting")
        >>> builder.add_node(ProcessingNode("greet", greet))
        >>> builder.add_concrete_edge("start", "greet")
        >>> builder.add_concrete_edge("greet", "end")
        >>> builder.build_graph()
        Graph('greeting', 3 nodes, 2 edges)
    """

    def __init__(self, name: str | None = "graph") -> None:
        """Begin with ``start`` and ``end`` and nothing between them."""
        if name is not None and not isinstance(name, str):
            raise TypeError(f"a graph's name must be a string, not {name!r}")
        start, end = ProcessingNode(START, pass_through), ProcessingNode(END, pass_through)
        self.graph = Graph(start, end, name)
        self.graph.nodes.update({START: start, END: end})
        self._joined: dict[str, dict[str, type[Edge]]] = {}  # source id -> sink id -> kind of edge

    def add_node(self, node: Node) -> None:
        """Add a node of any kind.

        Raises:
            TypeError: It is not a node.
            DuplicateNodeError: The graph has a node with its id.
        """
        given: object = node
        if not isinstance(given, Node):
            hint = "; wrap it in a ProcessingNode first" if callable(given) else ""
            raise TypeError(f"add_node takes a node, not {given!r} ({type(given).__name__}){hint}")
        if node.node_id in self.graph.nodes:
            raise DuplicateNodeError(node.node_id)
        self._draft().nodes[node.node_id] = node

    def add_aggregator(self, aggregator: Node) -> None:
        """Add an aggregator; the same as :meth:`add_node`.

        Raises:
            TypeError: It is not a node.
            DuplicateNodeError: The graph has a node with its id.
        """
        self.add_node(aggregator)

    def set_fallback_node(self, node_id: str, fallback_node_id: str) -> None:
        """Name the node that stands in when ``node_id`` has failed for good.

        Raises:
            NodeNotFoundError: The graph lacks one of the two.
        """
        self._node(node_id)
        self._node(fallback_node_id)
        self._draft().nodes[node_id].set_fallback(fallback_node_id)

    def set_node_retry_policy(self, node_id: str, retry_policy: RetryPolicy | None) -> None:
        """Give a node a policy of its own; ``None``: it follows the executor's again.

        Raises:
            TypeError: It is not a :class:`~graphorch_ray.policies.RetryPolicy`.
            NodeNotFoundError: The graph has no such node.
        """
        if retry_policy is not None and not isinstance(retry_policy, RetryPolicy):
            raise TypeError(
                f"node '{node_id}': retry_policy must be a RetryPolicy or None, "
                f"not {retry_policy!r} ({type(retry_policy).__name__})"
            )
        self._node(node_id)
        self._draft().nodes[node_id].set_retry_policy(retry_policy)

    def add_concrete_edge(self, source_id: str, sink_id: str) -> None:
        """Add an edge that always fires.

        Raises:
            NodeNotFoundError: The graph lacks one of the two.
            GraphConfigurationError: It leaves ``end`` or leads into ``start``.
            EdgeExistsError: There is an edge, of either kind, between the two.
        """
        self._node(source_id)
        if source_id == END:
            raise GraphConfigurationError("End cannot be the source of a concrete edge")
        self._node(sink_id)
        if sink_id == START:
            raise GraphConfigurationError("Start cannot be a sink of concrete edge")
        if sink_id in self._joined.get(source_id, {}):
            raise EdgeExistsError(source_id, sink_id)
        graph = self._draft()
        edge = ConcreteEdge(graph.nodes[source_id], graph.nodes[sink_id])
        graph.concrete_edges.append(edge)
        self._register(edge, [edge.sink])

    def add_conditional_edge(
        self, source_id: str, sink_ids: Iterable[str], router: Callable[..., Any]
    ) -> None:
        """Add an edge that fires to the one of ``sink_ids`` that its router names.

        Raises:
            TypeError: ``sink_ids`` is a single string, or no list of ids.
            NodeNotFoundError: The graph lacks one of the nodes.
            GraphConfigurationError: It leaves ``end``, or may lead into ``start``.
            EdgeExistsError: There is an edge, of either kind, to one of the sinks.
            RoutingFunctionNotDecoratedError: The router lacks ``@routing_function``.
        """
        if isinstance(sink_ids, str):
            raise TypeError(
                f"sink_ids must be a list of node ids, not the string {sink_ids!r}; "
                f"write [{sink_ids!r}]"
            )
        if not isinstance(sink_ids, Iterable):
            raise TypeError(f"sink_ids must be a list of node ids, not {sink_ids!r}")
        sinks = list(sink_ids)
        self._node(source_id)
        if source_id == END:
            raise GraphConfigurationError("End cannot be the source of a conditional edge")
        for sink_id in sinks:
            self._node(sink_id)
            if sink_id == START:
                raise GraphConfigurationError("Start cannot be a sink of conditional edge")
        for kind in (ConcreteEdge, ConditionalEdge):
            for sink_id in sinks:
                if self._joined.get(source_id, {}).get(sink_id) is kind:
                    raise EdgeExistsError(source_id, sink_id)
        if not getattr(router, "is_routing_function", False):
            raise RoutingFunctionNotDecoratedError(router)
        graph = self._draft()
        edge = ConditionalEdge(
            graph.nodes[source_id], [graph.nodes[sink_id] for sink_id in sinks], router
        )
        graph.conditional_edges.append(edge)
        self._register(edge, edge.sinks)

    def build_graph(self) -> Graph:
        """Check the whole and return it, closed to changes.

        Later calls on the builder do not change the graph returned: they go on with a
        copy of it, nodes included.

        Raises:
            GraphConfigurationError: The graph could not run; the message says why.
            NodeNotFoundError: A fallback is no node of the graph.

        Warns:
            GraphWarning: Something is legal but surely a mistake: a node that nothing
                reaches, a loop with no exit, a node that leads nowhere, a fallback that
                is also on the normal path, a node that changes a variable of the driver.
        """
        if not self.graph.is_built:
            texts = check_graph(self.graph)
            for text in texts:
                warnings.warn(text, GraphWarning, stacklevel=2)
            self.graph._close(texts)
        return self.graph

    def _node(self, node_id: str) -> Node:
        given: object = node_id
        if not isinstance(given, str):
            hint = f"; its id is {given.node_id!r}" if isinstance(given, Node) else ""
            raise TypeError(f"a node is named by its id, a string, not {given!r}{hint}")
        node = self.graph.nodes.get(node_id)
        if node is None:
            raise NodeNotFoundError(node_id)
        return node

    def _draft(self) -> Graph:
        """Return the open graph, a copy of the last one where that was built."""
        if self.graph.is_built:
            self.graph = self.graph._opened_copy()
        return self.graph

    def _register(self, edge: Edge, sinks: Iterable[Node]) -> None:
        edge.source.outgoing_edges.append(edge)
        joined = self._joined.setdefault(edge.source.node_id, {})
        for sink in sinks:
            sink.incoming_edges.append(edge)
            joined[sink.node_id] = type(edge)
