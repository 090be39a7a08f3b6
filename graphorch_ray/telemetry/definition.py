"""The graph as text, so that a trace can be read without the program that made it."""

from __future__ import annotations

import json

from ..model.edges import ConcreteEdge, ConditionalEdge
from ..model.graph import Graph

DEFINITION_BYTES = 64 * 1024
"""Longest text; a larger graph is left out of its trace."""

_EDGE_BYTES = len('{"source":"s","sink":"s","conditional":true,"router":"r"},')
_NODE_BYTES = len('{"id":"i","type":"t"},')


def graph_definition(graph: Graph) -> str | None:
    """The graph's nodes, edges and fallbacks as JSON; None where that would be too long."""
    least = sum(
        _NODE_BYTES + _EDGE_BYTES * len(graph.edges_from(node_id)) for node_id in graph.nodes
    )
    if least > DEFINITION_BYTES + _EDGE_BYTES:
        return None
    edges = []
    for node_id in graph.nodes:
        for edge in graph.edges_from(node_id):
            if isinstance(edge, ConcreteEdge):
                edges.append(_edge(node_id, edge.sink.node_id, None))
            elif isinstance(edge, ConditionalEdge):
                name = router_name(edge)
                edges.extend(_edge(node_id, sink.node_id, name) for sink in edge.sinks)
    fallbacks = [
        {"node": node_id, "fallback": node.fallback_node_id}
        for node_id, node in graph.nodes.items()
        if node.fallback_node_id is not None
    ]
    text = json.dumps(
        {
            "nodes": [{"id": i, "type": node.node_type} for i, node in graph.nodes.items()],
            "edges": edges,
            "fallbacks": fallbacks,
            "start": graph.start_node.node_id,
            "end": graph.end_node.node_id,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )
    return text if len(text.encode()) <= DEFINITION_BYTES else None


def router_name(edge: ConditionalEdge) -> str:
    """The name of an edge's router."""
    router = edge.routing_function
    return getattr(router, "__name__", None) or type(router).__name__


def _edge(source: str, sink: str, router: str | None) -> dict[str, object]:
    return {
        "source": source,
        "sink": sink,
        "conditional": router is not None,
        "router": router,
    }
