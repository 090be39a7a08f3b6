"""Tells the kinds of node apart for those who draw them."""

from __future__ import annotations

from typing import Literal

from .base import Node
from .graph import Graph
from .nodes import AINode, HumanInTheLoopNode, ToolNode, ToolSetNode

__all__ = ["NodeKind", "kind_of"]

NodeKind = Literal["end point", "step", "aggregator", "tool", "model", "human"]


def kind_of(graph: Graph, node: Node) -> NodeKind:
    """Return what sort of node it is: its graph's start or end, or by its class."""
    if node is graph.start_node or node is graph.end_node:
        return "end point"
    if node.is_aggregator:
        return "aggregator"
    if isinstance(node, ToolNode | ToolSetNode):
        return "tool"
    if isinstance(node, AINode):
        return "model"
    if isinstance(node, HumanInTheLoopNode):
        return "human"
    return "step"
