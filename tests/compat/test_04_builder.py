"""GraphBuilder and Graph."""

from __future__ import annotations

import pytest

from graphorch_ray import (
    AggregatorNode,
    ConcreteEdge,
    ConditionalEdge,
    DuplicateNodeError,
    EdgeExistsError,
    Graph,
    GraphBuilder,
    GraphConfigurationError,
    NodeNotFoundError,
    ProcessingNode,
    RetryPolicy,
    RoutingFunctionNotDecoratedError,
    State,
    node_action,
    passThrough,
    routing_function,
    selectRandomState,
)

pytestmark = pytest.mark.filterwarnings("ignore::graphorch_ray.GraphWarning")


@node_action
def keep(state):
    return state


@routing_function
def to_end(state):
    return "end"


def node(node_id):
    return ProcessingNode(node_id, keep)


def builder_with(*ids):
    builder = GraphBuilder()
    for node_id in ids:
        builder.add_node(node(node_id))
    return builder


def test_a_new_builder():
    builder = GraphBuilder()
    assert list(builder.graph.nodes) == ["start", "end"]
    start = builder.graph.nodes["start"]
    assert isinstance(start, ProcessingNode)
    assert start.func is passThrough
    assert builder.graph.start_node is start
    assert builder.graph.end_node.node_id == "end"


def test_names():
    for made in (GraphBuilder("g"), GraphBuilder(name="g")):
        made.add_concrete_edge("start", "end")
        assert made.build_graph().name == "g"  # *Changed*, M7: really there
    plain = GraphBuilder()
    plain.add_concrete_edge("start", "end")
    assert plain.build_graph().name == "graph"


def test_every_mutator_returns_none():
    builder = GraphBuilder()
    assert builder.add_node(node("a")) is None
    assert builder.add_node(node("b")) is None
    assert builder.add_aggregator(AggregatorNode("agg", selectRandomState)) is None
    assert builder.set_fallback_node("a", "b") is None
    assert builder.set_node_retry_policy("a", RetryPolicy(1, 0, 0)) is None
    assert builder.add_concrete_edge("start", "a") is None
    assert builder.add_conditional_edge("a", ["end"], to_end) is None


def test_the_built_graph_reads_as_the_original():
    builder = GraphBuilder("reads")
    a, b, agg = node("a"), node("b"), AggregatorNode("agg", selectRandomState)
    builder.add_node(a)
    builder.add_node(b)
    builder.add_aggregator(agg)
    builder.set_fallback_node("a", "b")
    policy = RetryPolicy(2, 0.5, 1.0)
    builder.set_node_retry_policy("a", policy)
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "agg")
    builder.add_conditional_edge("agg", ["a", "end"], to_end)
    graph = builder.build_graph()
    assert isinstance(graph, Graph)
    assert list(graph.nodes) == ["start", "end", "a", "b", "agg"]
    assert graph.nodes["a"] is a
    assert graph.nodes["agg"] is agg
    assert (a.fallback_node_id, a.retry_policy) == ("b", policy)
    assert [(e.source.node_id, e.sink.node_id) for e in graph.concrete_edges] == [
        ("start", "a"),
        ("a", "agg"),
    ]
    (edge,) = graph.conditional_edges
    assert isinstance(edge, ConditionalEdge)
    assert edge.source is agg
    assert [sink.node_id for sink in edge.sinks] == ["a", "end"]
    assert edge.routing_function is to_end
    assert agg.outgoing_edges == [edge]
    assert a.incoming_edges == [graph.concrete_edges[0], edge]
    assert graph.end_node.incoming_edges == [edge]
    assert isinstance(graph.start_node.outgoing_edges[0], ConcreteEdge)


@pytest.mark.parametrize("taken", ["a", "start", "end"])
def test_duplicate_ids(taken):
    builder = builder_with("a")
    with pytest.raises(DuplicateNodeError) as caught:
        builder.add_node(node(taken))
    assert caught.value.node_id == taken
    with pytest.raises(DuplicateNodeError):
        builder.add_aggregator(AggregatorNode(taken, selectRandomState))


def test_add_aggregator_takes_any_node_and_add_node_an_aggregator():
    builder = GraphBuilder()
    builder.add_aggregator(node("p"))
    builder.add_node(AggregatorNode("agg", selectRandomState))
    assert {"p", "agg"} <= set(builder.graph.nodes)


def test_unknown_nodes_of_a_concrete_edge():
    builder = builder_with("a")
    with pytest.raises(NodeNotFoundError) as caught:
        builder.add_concrete_edge("ghost", "nobody")
    assert caught.value.node_id == "ghost"
    with pytest.raises(NodeNotFoundError) as caught:
        builder.add_concrete_edge("a", "ghost")
    assert caught.value.node_id == "ghost"


def test_unknown_nodes_of_a_conditional_edge():
    builder = builder_with("node1")
    with pytest.raises(NodeNotFoundError) as caught:
        builder.add_conditional_edge("node1", ["node2", "end", "start"], to_end)
    assert caught.value.node_id == "node2"  # before the later "start"
    with pytest.raises(GraphConfigurationError):
        builder.add_conditional_edge("node1", ["start", "node2"], to_end)
    with pytest.raises(NodeNotFoundError):
        builder.add_conditional_edge("ghost", ["end"], to_end)


def test_second_edges():
    builder = builder_with("a", "b", "c")
    builder.add_concrete_edge("a", "b")
    with pytest.raises(EdgeExistsError) as caught:
        builder.add_concrete_edge("a", "b")
    assert (caught.value.source_id, caught.value.sink_id) == ("a", "b")
    with pytest.raises(EdgeExistsError) as caught:
        builder.add_conditional_edge("a", ["c", "b"], to_end)
    assert caught.value.sink_id == "b"
    builder.add_conditional_edge("b", ["c", "end"], to_end)
    with pytest.raises(EdgeExistsError):
        builder.add_concrete_edge("b", "end")
    with pytest.raises(EdgeExistsError) as caught:
        builder.add_conditional_edge("b", ["b", "end"], to_end)
    assert caught.value.sink_id == "end"
    builder.add_concrete_edge("b", "a")  # the other way round is another edge


@pytest.mark.parametrize("source", ["a", "start"])
def test_edges_into_start(source):
    builder = builder_with("a")
    with pytest.raises(GraphConfigurationError) as caught:
        builder.add_concrete_edge(source, "start")
    text = "Graph configuration error: Start cannot be a sink of concrete edge"
    assert str(caught.value) == text
    with pytest.raises(GraphConfigurationError) as caught:
        builder.add_conditional_edge(source, ["a", "start"], to_end)
    assert "Start cannot be a sink of conditional edge" in str(caught.value)


def test_edges_out_of_end():
    builder = builder_with("a")
    with pytest.raises(GraphConfigurationError) as caught:
        builder.add_concrete_edge("end", "a")
    assert "End cannot be the source of a concrete edge" in str(caught.value)
    with pytest.raises(GraphConfigurationError) as caught:
        builder.add_conditional_edge("end", ["a"], to_end)
    assert "End cannot be the source of a conditional edge" in str(caught.value)
    with pytest.raises(GraphConfigurationError):
        builder.add_concrete_edge("end", "ghost")  # checked before the sink


def test_undecorated_router():
    def router(state):
        return "end"

    builder = builder_with("a")
    with pytest.raises(RoutingFunctionNotDecoratedError):
        builder.add_conditional_edge("a", ["end"], router)
    assert builder.graph.conditional_edges == []
    assert builder.graph.nodes["a"].outgoing_edges == []


def test_build_without_an_edge_from_start():
    builder = builder_with("a")
    builder.add_concrete_edge("a", "end")
    with pytest.raises(GraphConfigurationError) as caught:
        builder.build_graph()
    assert "Start node must have at least one outgoing concrete edge" in str(caught.value)


def test_build_with_a_conditional_edge_from_start():
    builder = builder_with("a")
    builder.add_aggregator(AggregatorNode("agg", selectRandomState))
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("start", ["agg"], to_end)
    builder.add_concrete_edge("a", "agg")
    builder.add_concrete_edge("agg", "end")
    with pytest.raises(GraphConfigurationError) as caught:
        builder.build_graph()
    assert "Start node cannot have a conditional edge" in str(caught.value)


def test_build_without_an_edge_into_end():
    builder = builder_with("a")
    builder.add_concrete_edge("start", "a")
    with pytest.raises(GraphConfigurationError) as caught:
        builder.build_graph()
    assert "End node must have at least one incoming edge" in str(caught.value)
    builder.add_concrete_edge("a", "end")  # a refused build may be mended
    builder.build_graph()


def test_self_loops_and_several_conditional_edges():
    builder = builder_with("a", "b", "c")
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["a", "end"], to_end)
    builder.add_conditional_edge("a", ["b", "c"], to_end)
    builder.add_concrete_edge("b", "b")
    graph = builder.build_graph()
    assert len(graph.conditional_edges) == 2
    assert [type(e) for e in graph.nodes["a"].outgoing_edges] == [ConditionalEdge] * 2


def test_fallbacks_and_policies_of_unknown_nodes():
    builder = builder_with("a")
    with pytest.raises(NodeNotFoundError) as caught:
        builder.set_fallback_node("ghost", "phantom")
    assert caught.value.node_id == "ghost"
    with pytest.raises(NodeNotFoundError) as caught:
        builder.set_fallback_node("a", "phantom")
    assert caught.value.node_id == "phantom"
    with pytest.raises(NodeNotFoundError):
        builder.set_node_retry_policy("ghost", RetryPolicy())


def test_setting_again_overwrites():
    builder = builder_with("a", "b", "c")
    builder.set_fallback_node("a", "b")
    builder.set_fallback_node("a", "c")
    builder.set_node_retry_policy("a", RetryPolicy(1))
    builder.set_node_retry_policy("a", RetryPolicy(2))
    assert builder.graph.nodes["a"].fallback_node_id == "c"
    assert builder.graph.nodes["a"].retry_policy.max_retries == 2


def test_own_fallback_and_mixed_kinds_are_refused():  # ours, M5
    builder = builder_with("a")
    builder.add_node(AggregatorNode("agg", selectRandomState))
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "end")
    builder.set_fallback_node("a", "a")
    with pytest.raises(GraphConfigurationError):
        builder.build_graph()
    builder.set_fallback_node("a", "agg")
    with pytest.raises(GraphConfigurationError):
        builder.build_graph()


def test_building_twice():
    builder = builder_with("a")
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "end")
    first, second = builder.build_graph(), builder.build_graph()
    assert first is second
    builder.add_node(node("late"))
    builder.add_concrete_edge("a", "late")
    assert "late" not in first.nodes  # M6
    assert len(first.nodes["a"].outgoing_edges) == 1
    assert "late" in builder.build_graph().nodes


def test_graph_by_hand():
    start, end = node("s"), node("e")
    graph = Graph(start, end)
    assert graph.nodes == {}
    assert graph.concrete_edges == []
    assert graph.conditional_edges == []
    assert graph.start_node is start
    assert graph.end_node is end
    assert Graph(start_node=start, end_node=end, name="x").name == "x"
    for bad in ((start, "e"), (State(), end)):
        with pytest.raises(TypeError) as caught:
            Graph(*bad)
        assert str(caught.value) == "start_node and end_node must be of type Node"
