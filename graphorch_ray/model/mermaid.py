"""Draws a graph as a Mermaid flowchart."""

from __future__ import annotations

from .actions import describe_callable
from .edges import ConditionalEdge
from .flat import sinks_of
from .graph import Graph
from .kinds import NodeKind, kind_of

__all__ = ["to_mermaid"]

_BRACKETS: dict[NodeKind, tuple[str, str]] = {
    "end point": ("([", "])"),
    "aggregator": ("[/", "\\]"),
    "tool": ("[[", "]]"),
    "model": ("{{", "}}"),
    "human": ("[/", "/]"),
    "step": ("[", "]"),
}


def to_mermaid(graph: Graph) -> str:
    """Return the flowchart: arrows for concrete edges, labelled dashes for conditional ones.

    Shapes tell the kinds of node apart: rounded for ``start`` and ``end``, a trapezium for an
    aggregator, a double-edged box for tools, a hexagon for models, slanted for people. A
    thick line leads to a fallback.
    """
    names = {node_id: f"n{number}" for number, node_id in enumerate(graph.nodes)}
    lines = ["flowchart TD"]
    for node_id, node in graph.nodes.items():
        before, after = _BRACKETS[kind_of(graph, node)]
        lines.append(f"    {names[node_id]}{before}{_quoted(node_id)}{after}")
    for node_id in graph.nodes:
        for edge in graph.edges_from(node_id):
            label = ""
            arrow = "-->"
            if isinstance(edge, ConditionalEdge):
                arrow = "-.->"
                label = f"|{_quoted(describe_callable(edge.routing_function))}|"
            for sink in sinks_of(edge):
                lines.append(f"    {names[node_id]} {arrow}{label} {names[sink.node_id]}")
    for node_id, node in graph.nodes.items():
        if node.fallback_node_id in names:
            lines.append(
                f'    {names[node_id]} ==>|"fallback"| {names[node.fallback_node_id or ""]}'
            )
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Quote a label; Mermaid writes special characters as ``#code;``."""
    escaped = "".join(
        f"#{ord(char)};" if char in '"#<>&\\`' or ord(char) < 32 else char for char in text
    )
    return f'"{escaped}"'
