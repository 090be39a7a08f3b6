"""M5: the builder and its errors."""

from __future__ import annotations

import pytest

from graphorch_ray.errors import (
    DuplicateNodeError,
    EdgeExistsError,
    GraphConfigurationError,
    GraphOrchestratorException,
    NodeNotFoundError,
    RoutingFunctionNotDecoratedError,
)
from graphorch_ray.model import (
    AggregatorNode,
    ConcreteEdge,
    ConditionalEdge,
    GraphBuilder,
    ProcessingNode,
    node_action,
    passThrough,
    routing_function,
    selectRandomState,
)
from graphorch_ray.policies import RetryPolicy


@node_action
def step(state):
    return state


@routing_function
def to_end(state):
    return "end"


def plain(state):
    return "end"


def builder_with(*node_ids):
    builder = GraphBuilder()
    for node_id in node_ids:
        builder.add_node(ProcessingNode(node_id, step))
    return builder


def configuration_error(message):
    return pytest.raises(GraphConfigurationError, match=f"^Graph configuration error: {message}$")


# --- nodes --------------------------------------------------------------------------------------


def test_M5_start_and_end_are_there_from_the_beginning():
    builder = GraphBuilder()
    assert list(builder.graph.nodes) == ["start", "end"]
    assert builder.graph.start_node.func is passThrough
    assert builder.graph.nodes["end"] is builder.graph.end_node


def test_M5_every_call_but_build_returns_none():
    builder = GraphBuilder()
    assert builder.add_node(ProcessingNode("a", step)) is None
    assert builder.add_aggregator(AggregatorNode("g", selectRandomState)) is None
    assert builder.add_concrete_edge("start", "a") is None
    assert builder.add_conditional_edge("a", ["end"], to_end) is None
    assert builder.set_fallback_node("a", "end") is None
    assert builder.set_node_retry_policy("a", RetryPolicy()) is None


@pytest.mark.parametrize("node_id", ["a", "start", "end"])
def test_M5_a_second_node_with_the_same_id_is_refused(node_id):
    builder = builder_with("a")
    with pytest.raises(DuplicateNodeError) as caught:
        builder.add_node(ProcessingNode(node_id, step))
    assert caught.value.node_id == node_id
    assert str(caught.value) == f"Node with id '{node_id}' already exists."
    with pytest.raises(DuplicateNodeError):
        builder.add_aggregator(AggregatorNode(node_id, selectRandomState))


def test_M5_what_is_not_a_node_is_refused():
    with pytest.raises(TypeError, match=r"add_node takes a node, not 'a' \(str\)$"):
        GraphBuilder().add_node("a")
    with pytest.raises(TypeError, match="wrap it in a ProcessingNode first"):
        GraphBuilder().add_node(step)
    with pytest.raises(TypeError, match="takes a node"):
        GraphBuilder().add_aggregator(None)


def test_M5_add_aggregator_does_what_add_node_does():
    builder = GraphBuilder()
    aggregator, node = AggregatorNode("g", selectRandomState), ProcessingNode("p", step)
    builder.add_aggregator(aggregator)
    builder.add_aggregator(node)
    assert builder.graph.nodes["g"] is aggregator
    assert builder.graph.nodes["p"] is node


def test_M5_a_graphs_name_is_a_string():
    with pytest.raises(TypeError, match="name must be a string, not 3"):
        GraphBuilder(name=3)


# --- edges --------------------------------------------------------------------------------------


def test_M5_edges_are_registered_with_both_ends():
    builder = builder_with("a", "b")
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["b", "end"], to_end)
    builder.add_concrete_edge("b", "end")
    graph = builder.graph
    concrete, conditional = graph.concrete_edges, graph.conditional_edges
    assert [type(edge) for edge in concrete] == [ConcreteEdge, ConcreteEdge]
    assert [type(edge) for edge in conditional] == [ConditionalEdge]
    assert graph.nodes["a"].incoming_edges == [concrete[0]]
    assert graph.nodes["a"].outgoing_edges == [conditional[0]]
    assert graph.nodes["b"].incoming_edges == [conditional[0]]
    assert graph.nodes["end"].incoming_edges == [conditional[0], concrete[1]]


@pytest.mark.parametrize(
    ("source", "sink", "unknown"), [("x", "a", "x"), ("a", "x", "x"), ("x", "y", "x")]
)
def test_M5_a_concrete_edge_between_unknown_nodes_is_refused(source, sink, unknown):
    with pytest.raises(NodeNotFoundError) as caught:
        builder_with("a").add_concrete_edge(source, sink)
    assert caught.value.node_id == unknown
    assert str(caught.value) == f"Node '{unknown}' not found in the graph."


def test_M5_a_conditional_edge_to_an_unknown_node_is_refused_in_list_order():
    builder = builder_with("a")
    with pytest.raises(NodeNotFoundError, match="'x'"):
        builder.add_conditional_edge("a", ["x", "end", "start"], to_end)
    with pytest.raises(NodeNotFoundError, match="'x'"):
        builder.add_conditional_edge("x", ["a"], to_end)


@pytest.mark.parametrize("first", ["concrete", "conditional"])
@pytest.mark.parametrize("second", ["concrete", "conditional"])
def test_M5_second_edge_between_the_same_nodes_is_refused(first, second):
    builder = builder_with("a", "b")

    def add(kind):
        if kind == "concrete":
            builder.add_concrete_edge("a", "b")
        else:
            builder.add_conditional_edge("a", ["end", "b"], to_end)

    add(first)
    with pytest.raises(EdgeExistsError) as caught:
        add(second)
    shared = "end" if (first, second) == ("conditional", "conditional") else "b"
    assert (caught.value.source_id, caught.value.sink_id) == ("a", shared)
    assert str(caught.value) == f"Edge from 'a' to '{shared}' already exists."


def test_M5_a_shared_concrete_sink_is_named_before_a_shared_conditional_one():
    builder = builder_with("a", "b", "c")
    builder.add_conditional_edge("a", ["b"], to_end)
    builder.add_concrete_edge("a", "c")
    with pytest.raises(EdgeExistsError, match="'a' to 'c'"):
        builder.add_conditional_edge("a", ["b", "c"], to_end)


def test_M5_several_edges_with_different_sinks_may_leave_a_node():
    builder = builder_with("a", "b", "c")
    builder.add_concrete_edge("a", "b")
    builder.add_conditional_edge("a", ["c"], to_end)
    builder.add_conditional_edge("a", ["end"], to_end)
    assert len(builder.graph.nodes["a"].outgoing_edges) == 3


def test_M5_a_node_may_lead_to_itself():
    builder = builder_with("a", "b")
    builder.add_conditional_edge("a", ["a", "end"], to_end)
    builder.add_concrete_edge("b", "b")


def test_M5_an_edge_into_start_is_refused():
    builder = builder_with("a")
    with configuration_error("Start cannot be a sink of concrete edge"):
        builder.add_concrete_edge("a", "start")
    with configuration_error("Start cannot be a sink of conditional edge"):
        builder.add_conditional_edge("a", ["end", "start"], to_end)


def test_M5_an_edge_out_of_end_is_refused():
    builder = builder_with("a")
    with configuration_error("End cannot be the source of a concrete edge"):
        builder.add_concrete_edge("end", "unknown")
    with configuration_error("End cannot be the source of a conditional edge"):
        builder.add_conditional_edge("end", ["unknown"], to_end)


def test_M5_an_undecorated_router_is_refused():
    with pytest.raises(RoutingFunctionNotDecoratedError) as caught:
        builder_with("a").add_conditional_edge("a", ["end"], plain)
    assert str(caught.value) == (
        "The function 'plain' passed to ConditionalEdge must be decorated with @routing_function."
    )


def test_M5_sink_ids_are_a_list_and_no_single_string():
    builder = builder_with("a")
    with pytest.raises(TypeError, match=r"not the string 'end'; write \['end'\]"):
        builder.add_conditional_edge("a", "end", to_end)
    with pytest.raises(TypeError, match="sink_ids must be a list of node ids, not 3"):
        builder.add_conditional_edge("a", 3, to_end)


def test_M5_nodes_are_named_by_id():
    builder = builder_with("a")
    node = builder.graph.nodes["a"]
    with pytest.raises(TypeError, match=r"named by its id, a string.*its id is 'a'"):
        builder.add_concrete_edge("start", node)
    with pytest.raises(TypeError, match="named by its id"):
        builder.add_concrete_edge(None, "a")


def test_M5_a_failed_call_changes_nothing():
    builder = builder_with("a", "b")
    builder.add_concrete_edge("a", "b")
    for attempt in (
        lambda: builder.add_concrete_edge("a", "x"),
        lambda: builder.add_conditional_edge("a", ["end", "b"], to_end),
        lambda: builder.add_conditional_edge("a", ["end"], plain),
    ):
        with pytest.raises(GraphOrchestratorException):
            attempt()
    assert len(builder.graph.concrete_edges) == 1
    assert builder.graph.conditional_edges == []
    assert builder.graph.nodes["end"].incoming_edges == []
    builder.add_conditional_edge("a", ["end"], to_end)


# --- fallbacks and policies ---------------------------------------------------------------------


def test_M5_a_fallback_and_a_policy_are_set_on_the_node():
    builder, policy = builder_with("a", "b"), RetryPolicy(1, 0, 0)
    builder.set_fallback_node("a", "b")
    builder.set_node_retry_policy("a", policy)
    assert builder.graph.nodes["a"].fallback_node_id == "b"
    assert builder.graph.nodes["a"].retry_policy is policy


def test_M5_fallbacks_and_policies_of_unknown_nodes_are_refused():
    builder = builder_with("a")
    with pytest.raises(NodeNotFoundError, match="'x'"):
        builder.set_fallback_node("x", "y")
    with pytest.raises(NodeNotFoundError, match="'y'"):
        builder.set_fallback_node("a", "y")
    with pytest.raises(NodeNotFoundError, match="'x'"):
        builder.set_node_retry_policy("x", RetryPolicy())


def test_M5_what_is_no_policy_is_refused():
    with pytest.raises(TypeError, match="node 'a': retry_policy must be a RetryPolicy"):
        builder_with("a").set_node_retry_policy("a", 3)


# --- build_graph --------------------------------------------------------------------------------


def test_M5_a_graph_with_no_concrete_edge_from_start_is_refused():
    builder = builder_with("a")
    builder.add_concrete_edge("a", "end")
    with configuration_error("Start node must have at least one outgoing concrete edge"):
        builder.build_graph()


def test_M5_a_conditional_edge_from_start_is_refused_at_build():
    builder = builder_with("a")
    builder.add_conditional_edge("start", ["a"], to_end)
    with configuration_error("Start node cannot have a conditional edge"):
        builder.build_graph()


def test_M5_a_graph_with_nothing_into_end_is_refused():
    builder = builder_with("a")
    builder.add_concrete_edge("start", "a")
    with configuration_error("End node must have at least one incoming edge"):
        builder.build_graph()


def line():
    builder = builder_with("a", "b")
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "end")
    return builder


def test_M5_a_node_that_is_its_own_fallback_is_refused_at_build():
    builder = line()
    builder.set_fallback_node("a", "a")
    with configuration_error("Node 'a' is its own fallback; name another node"):
        builder.build_graph()


def test_M5_a_fallback_must_be_an_aggregator_exactly_where_the_node_is():
    builder = line()
    builder.add_aggregator(AggregatorNode("g", selectRandomState))
    builder.set_fallback_node("a", "g")
    with pytest.raises(GraphConfigurationError, match="'g' of node 'a' takes a list of states"):
        builder.build_graph()
    builder.set_fallback_node("a", "b")
    builder.set_fallback_node("g", "b")
    with pytest.raises(GraphConfigurationError, match="'b' of node 'g' takes one state"):
        builder.build_graph()


def test_M5_an_unknown_fallback_set_on_the_node_is_refused_at_build():
    builder = line()
    builder.graph.nodes["a"].set_fallback("ghost")
    with pytest.raises(NodeNotFoundError, match="'ghost'"):
        builder.build_graph()


def test_M5_a_builder_can_go_on_after_a_refused_build():
    builder = builder_with("a")
    builder.add_concrete_edge("start", "a")
    with pytest.raises(GraphConfigurationError):
        builder.build_graph()
    builder.add_concrete_edge("a", "end")
    assert list(builder.build_graph().nodes) == ["start", "end", "a"]
