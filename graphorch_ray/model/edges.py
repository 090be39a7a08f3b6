"""Edges: where the result of a node goes next."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..errors import RoutingFunctionNotDecoratedError
from .actions import RouterPlacement, describe_callable, router_placement_of

if TYPE_CHECKING:
    from .base import Node

__all__ = ["ConcreteEdge", "ConditionalEdge", "Edge"]


class Edge(ABC):
    """Base of both kinds of edge; edges are compared by identity.

    Attributes:
        source: The node whose result travels along the edge.
    """

    source: Node


class ConcreteEdge(Edge):
    """An edge that always fires.

    Attributes:
        source: The node it leaves.
        sink: The node it leads to.

    Example:
        >>> from graphorch_ray.model import ProcessingNode, pass_through
        >>> edge = ConcreteEdge(
        ...     ProcessingNode("a", pass_through), ProcessingNode("b", pass_through)
        ... )
        >>> edge.source.node_id, edge.sink.node_id
        ('a', 'b')
    """

    def __init__(self, source: Node, sink: Node) -> None:
        """Join two nodes; a builder does this, and registers the edge with both."""
        _check_node("ConcreteEdge's source", source)
        _check_node("ConcreteEdge's sink", sink)
        self.source = source
        self.sink = sink

    def __repr__(self) -> str:
        """Show both ends."""
        return f"ConcreteEdge({self.source.node_id!r} -> {self.sink.node_id!r})"


class ConditionalEdge(Edge):
    """An edge that fires to the one sink its router names.

    Attributes:
        source: The node it leaves.
        sinks: The nodes it may lead to.
        routing_function: The decorated router.

    Raises:
        RoutingFunctionNotDecoratedError: The router lacks ``@routing_function``.
        TypeError: An end of the edge is not a node.
    """

    def __init__(self, source: Node, sinks: Iterable[Node], router: Callable[..., Any]) -> None:
        """Join a node to its possible sinks."""
        if not getattr(router, "is_routing_function", False):
            raise RoutingFunctionNotDecoratedError(router)
        _check_node("ConditionalEdge's source", source)
        self.source = source
        self.sinks: list[Node] = list(sinks)
        for sink in self.sinks:
            _check_node("each of ConditionalEdge's sinks", sink)
        self.routing_function: Callable[..., Any] = router

    @property
    def router_placement(self) -> RouterPlacement:
        """``"driver"``, or ``"worker"`` where the router asked to run beside the node."""
        return router_placement_of(self.routing_function)

    def __repr__(self) -> str:
        """Show the source, the possible sinks and the router."""
        sinks = ", ".join(repr(sink.node_id) for sink in self.sinks)
        router = describe_callable(self.routing_function)
        return f"ConditionalEdge({self.source.node_id!r} -> [{sinks}] by {router})"


def _check_node(what: str, value: object) -> None:
    # By attribute, so that any node-like object of a user's own passes.
    if not hasattr(value, "node_id"):
        raise TypeError(f"{what} must be a node, not {value!r} ({type(value).__name__})")
