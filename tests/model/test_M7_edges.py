"""M7: edges by hand, and what can be read of them."""

from __future__ import annotations

import pytest

from graphorch_ray.errors import RoutingFunctionNotDecoratedError
from graphorch_ray.model import (
    ConcreteEdge,
    ConditionalEdge,
    Edge,
    ProcessingNode,
    passThrough,
    routing_function,
)


@routing_function
def router(state):
    return "b"


A, B, C = (ProcessingNode(node_id, passThrough) for node_id in "abc")


def test_M7_a_concrete_edge_knows_its_ends():
    edge = ConcreteEdge(A, B)
    assert (edge.source, edge.sink) == (A, B)
    assert isinstance(edge, Edge)


def test_M7_a_conditional_edge_knows_its_source_sinks_and_router():
    edge = ConditionalEdge(A, [B, C], router)
    assert (edge.source, edge.sinks, edge.routing_function) == (A, [B, C], router)
    assert not hasattr(edge, "router")
    assert isinstance(edge, Edge)


def test_M7_edges_take_their_arguments_by_name():
    assert ConcreteEdge(source=A, sink=B).sink is B
    assert ConditionalEdge(source=A, sinks=[B], router=router).sinks == [B]


def test_M7_an_edge_made_by_hand_registers_nowhere():
    ConcreteEdge(A, B)
    assert (A.outgoing_edges, B.incoming_edges) == ([], [])


def test_M7_edges_are_equal_only_to_themselves():
    assert ConcreteEdge(A, B) != ConcreteEdge(A, B)


def test_M7_an_undecorated_router_is_refused():
    with pytest.raises(RoutingFunctionNotDecoratedError, match=r"'<lambda>' passed to Condit"):
        ConditionalEdge(A, [B], lambda state: "b")


def test_M7_the_ends_of_an_edge_are_nodes():
    with pytest.raises(TypeError, match=r"ConcreteEdge's sink must be a node, not 'b' \(str\)"):
        ConcreteEdge(A, "b")
    with pytest.raises(TypeError, match="source must be a node"):
        ConditionalEdge("a", [B], router)
    with pytest.raises(TypeError, match="each of ConditionalEdge's sinks must be a node"):
        ConditionalEdge(A, ["b"], router)
