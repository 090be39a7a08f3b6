"""The graph as the machine needs it: ids and policies only, fixed when a run begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from ..model.edges import ConcreteEdge, ConditionalEdge, Edge
from ..model.graph import Graph
from ..model.nodes import Node
from ..policies import RetryPolicy


class EdgePlan(NamedTuple):
    """An outgoing edge. A concrete edge has one sink."""

    sinks: tuple[str, ...]
    conditional: bool


class NodePlan(NamedTuple):
    """A node with its outgoing edges in creation order.

    `worker_edges` are the positions of the edges whose router runs beside the node.
    """

    node_id: str
    is_aggregator: bool
    retry_policy: RetryPolicy | None
    fallback: str | None
    edges: tuple[EdgePlan, ...]
    worker_edges: tuple[int, ...]


_known: WeakKeyDictionary[Graph, dict[str, tuple[tuple[Edge, ...], NodePlan]]]
_known = WeakKeyDictionary()
"""What was read of graphs that are still there; edges of a node that was built are one tuple."""


def plan_of(graph: Graph) -> dict[str, NodePlan]:
    """Read each node of the graph once, and again where it has changed since the last run."""
    known = _known.setdefault(graph, {})
    plans: dict[str, NodePlan] = {}
    for node_id, node in graph.nodes.items():
        edges = graph.edges_from(node_id)
        read, plan = known.get(node_id, (None, None))
        if (
            plan is None
            or read is not edges
            or plan.retry_policy is not node.retry_policy
            or plan.fallback != node.fallback_node_id
        ):
            plan = _plan_of(node, edges)
            known[node_id] = edges, plan
        plans[node_id] = plan
    return plans


def _plan_of(node: Node, edges: Sequence[Edge]) -> NodePlan:
    planned: list[EdgePlan] = []
    on_worker: list[int] = []
    for position, edge in enumerate(edges):
        if isinstance(edge, ConditionalEdge):
            planned.append(EdgePlan(tuple(sink.node_id for sink in edge.sinks), True))
            if edge.router_placement == "worker":
                on_worker.append(position)
        elif isinstance(edge, ConcreteEdge):
            planned.append(EdgePlan((edge.sink.node_id,), False))
    return NodePlan(
        node.node_id,
        node.is_aggregator,
        node.retry_policy,
        node.fallback_node_id,
        tuple(planned),
        tuple(on_worker),
    )
