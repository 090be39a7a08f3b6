"""What a graph is: actions, nodes, edges, :class:`Graph` and :class:`GraphBuilder`.

Nothing here needs Ray, an event loop or an executor.
"""

from __future__ import annotations

from .actions import (
    aggregator_action,
    node_action,
    options_of,
    routing_function,
    tool_method,
)
from .ai import AIActionBase
from .builder import GraphBuilder
from .builtins import pass_through, passThrough, select_random_state, selectRandomState
from .edges import ConcreteEdge, ConditionalEdge, Edge
from .graph import Graph
from .nodes import (
    AggregatorNode,
    AINode,
    HumanInTheLoopNode,
    Node,
    ProcessingNode,
    ToolNode,
    ToolSetNode,
)

__all__ = [
    "AIActionBase",
    "AINode",
    "AggregatorNode",
    "ConcreteEdge",
    "ConditionalEdge",
    "Edge",
    "Graph",
    "GraphBuilder",
    "HumanInTheLoopNode",
    "Node",
    "ProcessingNode",
    "ToolNode",
    "ToolSetNode",
    "aggregator_action",
    "node_action",
    "options_of",
    "passThrough",
    "pass_through",
    "routing_function",
    "selectRandomState",
    "select_random_state",
    "tool_method",
]
