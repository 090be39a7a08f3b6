"""The graph as the machine needs it: ids and policies only, fixed when a run begins."""

from __future__ import annotations

from typing import NamedTuple

from ..model.edges import ConcreteEdge, ConditionalEdge
from ..model.graph import Graph
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


def plan_of(graph: Graph) -> dict[str, NodePlan]:
    """Read each node of the graph once."""
    plans: dict[str, NodePlan] = {}
    for node_id, node in graph.nodes.items():
        edges: list[EdgePlan] = []
        on_worker: list[int] = []
        for position, edge in enumerate(graph.edges_from(node_id)):
            if isinstance(edge, ConditionalEdge):
                edges.append(EdgePlan(tuple(sink.node_id for sink in edge.sinks), True))
                if edge.router_placement == "worker":
                    on_worker.append(position)
            elif isinstance(edge, ConcreteEdge):
                edges.append(EdgePlan((edge.sink.node_id,), False))
        plans[node_id] = NodePlan(
            node_id,
            node.is_aggregator,
            node.retry_policy,
            node.fallback_node_id,
            tuple(edges),
            tuple(on_worker),
        )
    return plans
