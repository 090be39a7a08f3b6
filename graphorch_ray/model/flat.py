"""A graph with its wiring as numbers: what is pickled, and what a builder copies from.

Nodes and edges point at each other, so pickling them as they are would recurse once per
node of a chain, and fail on a long one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .base import Node
from .edges import ConcreteEdge, ConditionalEdge, Edge

__all__ = ["FlatGraph", "flatten", "leaving", "sinks_of"]


class FlatEdge(NamedTuple):
    """An edge with numbers in the place of its nodes."""

    kind: type[Edge]
    attributes: dict[str, Any]
    source: int
    sinks: tuple[int, ...]
    conditional: bool

    def restored(self, nodes: list[Node]) -> Edge:
        """Make the edge again between these nodes."""
        edge = self.kind.__new__(self.kind)
        edge.__dict__.update(self.attributes)
        edge.source = nodes[self.source]
        sinks = [nodes[sink] for sink in self.sinks]
        if self.conditional:
            edge.__dict__["sinks"] = sinks
        else:
            edge.__dict__["sink"] = sinks[0]
        return edge


class FlatGraph(NamedTuple):
    """Nodes without edges, and everything else by number."""

    nodes: list[Node]
    edges: list[FlatEdge]
    start: int
    end: int
    ids: dict[str, int]
    concrete: list[int]
    conditional: list[int]
    outgoing: list[list[int]]
    incoming: list[list[int]]

    def wired(self, copied: Callable[[Node], Node] | None = None) -> dict[str, Any]:
        """Return the attributes of an open graph; ``copied`` makes the nodes to use."""
        nodes = self.nodes if copied is None else [copied(node) for node in self.nodes]
        edges = [edge.restored(nodes) for edge in self.edges]
        for node, out, into in zip(nodes, self.outgoing, self.incoming, strict=True):
            node.outgoing_edges = [edges[number] for number in out]
            node.incoming_edges = [edges[number] for number in into]
        return {
            "start_node": nodes[self.start],
            "end_node": nodes[self.end],
            "nodes": {node_id: nodes[number] for node_id, number in self.ids.items()},
            "concrete_edges": [edges[number] for number in self.concrete],
            "conditional_edges": [edges[number] for number in self.conditional],
        }


def flatten(
    start: Node,
    end: Node,
    nodes: dict[str, Node],
    concrete: Iterable[ConcreteEdge],
    conditional: Iterable[ConditionalEdge],
) -> FlatGraph:
    """Return the wiring among these nodes and edges as numbers."""
    edges: list[Edge] = [*concrete, *conditional]
    edge_numbers = {id(edge): number for number, edge in enumerate(edges)}
    members = [*nodes.values(), start, end]
    members += [node for edge in edges for node in (edge.source, *sinks_of(edge))]
    unique = list({id(node): node for node in members}.values())
    numbers = {id(node): number for number, node in enumerate(unique)}

    def wiring(registered: list[Edge]) -> list[int]:
        return [edge_numbers[id(edge)] for edge in registered if id(edge) in edge_numbers]

    flat_edges = [
        FlatEdge(
            type(edge),
            {k: v for k, v in edge.__dict__.items() if k not in ("source", "sink", "sinks")},
            numbers[id(edge.source)],
            tuple(numbers[id(sink)] for sink in sinks_of(edge)),
            hasattr(edge, "sinks"),
        )
        for edge in edges
    ]
    first_conditional = sum(1 for edge in flat_edges if not edge.conditional)
    return FlatGraph(
        nodes=unique,
        edges=flat_edges,
        start=numbers[id(start)],
        end=numbers[id(end)],
        ids={node_id: numbers[id(node)] for node_id, node in nodes.items()},
        concrete=list(range(first_conditional)),
        conditional=list(range(first_conditional, len(edges))),
        outgoing=[wiring(node.outgoing_edges) for node in unique],
        incoming=[wiring(node.incoming_edges) for node in unique],
    )


def sinks_of(edge: Edge) -> list[Node]:
    """Return where an edge may lead, whichever kind it is."""
    sinks: list[Node] | None = getattr(edge, "sinks", None)
    return [edge.sink] if sinks is None else sinks  # type: ignore[attr-defined]


def leaving(node: Node, edges: Iterable[Edge], *, only: bool) -> tuple[Edge, ...]:
    """Return the edges that leave a node, in the order in which the node knows them.

    Args:
        node: The node.
        edges: The graph's edges from this node, in any order; those that the node does
            not know come last.
        only: Leave out what the node knows but the graph does not: it belongs to
            another graph that shares the node.
    """
    own = {id(edge): edge for edge in edges}
    known = [edge for edge in node.outgoing_edges if not only or id(edge) in own]
    seen = {id(edge) for edge in known}
    return (*known, *(edge for key, edge in own.items() if key not in seen))
