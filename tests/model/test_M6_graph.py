"""M6: a built graph does not change, travels, and draws itself. Fingerprints: test_fingerprint."""

from __future__ import annotations

import copy
import pickle

import cloudpickle
import pytest

from graphorch_ray.model import (
    AggregatorNode,
    AINode,
    ConcreteEdge,
    Graph,
    GraphBuilder,
    HumanInTheLoopNode,
    ProcessingNode,
    ToolNode,
    node_action,
    passThrough,
    routing_function,
    selectRandomState,
    tool_method,
)
from graphorch_ray.policies import RetryPolicy


@node_action
def step(state):
    return state


@tool_method
def tool(state):
    """A tool."""
    return state


@routing_function
def to_end(state):
    return "end"


def small_builder():
    builder = GraphBuilder("small")
    for node_id in ("a", "b"):
        builder.add_node(ProcessingNode(node_id, step))
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["b", "end"], to_end)
    builder.add_concrete_edge("b", "end")
    return builder


def shape(graph):
    return (
        list(graph.nodes),
        {n: [repr(edge) for edge in graph.edges_from(n)] for n in graph.nodes},
        {n: [repr(edge) for edge in node.outgoing_edges] for n, node in graph.nodes.items()},
        {n: [repr(edge) for edge in node.incoming_edges] for n, node in graph.nodes.items()},
        {n: (node.fallback_node_id, node.retry_policy) for n, node in graph.nodes.items()},
        [repr(edge) for edge in graph.concrete_edges],
        [repr(edge) for edge in graph.conditional_edges],
        graph.name,
    )


def test_M6_a_later_builder_call_cannot_change_a_built_graph():
    builder = small_builder()
    graph = builder.build_graph()
    before, nodes = shape(graph), dict(graph.nodes)
    builder.add_node(ProcessingNode("c", step))
    builder.add_concrete_edge("a", "c")
    builder.add_conditional_edge("c", ["end"], to_end)
    builder.set_fallback_node("a", "b")
    builder.set_node_retry_policy("a", RetryPolicy(7))
    with pytest.warns(UserWarning, match="'b' is the fallback of 'a'"):
        later = builder.build_graph()
    assert shape(graph) == before
    assert all(graph.nodes[node_id] is node for node_id, node in nodes.items())
    assert list(later.nodes) == ["start", "end", "a", "b", "c"]
    assert later.nodes["a"].fallback_node_id == "b"
    assert [edge.sink.node_id for edge in later.concrete_edges] == ["a", "end", "c"]
    assert all(edge.source is later.nodes[edge.source.node_id] for edge in later.concrete_edges)
    assert later.start_node is later.nodes["start"]


def test_M6_building_twice_without_a_change_gives_the_same_graph():
    builder = small_builder()
    assert builder.build_graph() is builder.build_graph() is builder.graph


def test_M6_the_users_nodes_are_the_graphs_nodes():
    builder, node = GraphBuilder(), ProcessingNode("a", step)
    builder.add_node(node)
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "end")
    graph = builder.build_graph()
    assert graph.nodes["a"] is node
    assert graph.concrete_edges[1] in node.outgoing_edges
    assert graph.concrete_edges[0] in node.incoming_edges


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: graph.nodes.clear(),
        lambda graph: graph.nodes.update(x=1),
        lambda graph: graph.nodes.__setitem__("x", 1),
        lambda graph: graph.nodes.pop("a"),
        lambda graph: graph.concrete_edges.append(1),
        lambda graph: graph.conditional_edges.clear(),
        lambda graph: graph.concrete_edges.__delitem__(0),
    ],
)
def test_M6_the_collections_of_a_built_graph_refuse_to_change(change):
    graph = small_builder().build_graph()
    before = shape(graph)
    with pytest.raises(TypeError, match="a built graph cannot be changed; change the builder"):
        change(graph)
    assert shape(graph) == before


def test_M6_the_attributes_of_a_built_graph_cannot_be_set():
    graph = small_builder().build_graph()
    with pytest.raises(AttributeError, match="attempt to set 'nodes'"):
        graph.nodes = {}
    with pytest.raises(AttributeError, match="attempt to delete 'name'"):
        del graph.name


def test_M6_the_collections_of_a_built_graph_are_ordinary_otherwise():
    graph = small_builder().build_graph()
    assert isinstance(graph.nodes, dict)
    assert isinstance(graph.concrete_edges, list)
    assert graph.conditional_edges[:0] == []
    assert type(copy.copy(graph.nodes)) is dict
    assert type(pickle.loads(pickle.dumps(graph.concrete_edges))) is list


def test_M6_edges_leave_a_node_in_creation_order_over_both_kinds():
    builder = GraphBuilder()
    for node_id in "abcd":
        builder.add_node(ProcessingNode(node_id, step))
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["d"], to_end)
    builder.add_concrete_edge("a", "c")
    builder.add_conditional_edge("a", ["end"], to_end)
    builder.add_concrete_edge("a", "b")
    with pytest.warns(UserWarning, match="leads nowhere"):
        graph = builder.build_graph()
    assert [repr(edge) for edge in graph.edges_from("a")] == [
        "ConditionalEdge('a' -> ['d'] by to_end)",
        "ConcreteEdge('a' -> 'c')",
        "ConditionalEdge('a' -> ['end'] by to_end)",
        "ConcreteEdge('a' -> 'b')",
    ]
    assert graph.edges_from("end") == ()
    with pytest.raises(KeyError):
        graph.edges_from("ghost")


def test_M6_a_node_in_two_graphs_leads_only_where_each_graph_says():
    node = ProcessingNode("a", step)
    graphs = []
    for _ in range(2):
        builder = GraphBuilder()
        builder.add_node(node)
        builder.add_concrete_edge("start", "a")
        builder.add_concrete_edge("a", "end")
        graphs.append(builder.build_graph())
    for graph in graphs:
        (edge,) = graph.edges_from("a")
        assert edge.sink is graph.end_node


@pytest.mark.parametrize(
    "travel",
    [
        lambda graph: pickle.loads(pickle.dumps(graph)),
        lambda graph: cloudpickle.loads(cloudpickle.dumps(graph)),
        copy.deepcopy,
    ],
)
def test_M6_a_graph_travels_with_its_wiring_and_fingerprint(travel):
    builder = small_builder()
    builder.add_node(ProcessingNode("f", step))
    builder.set_fallback_node("a", "f")
    builder.set_node_retry_policy("a", RetryPolicy(2))
    graph = builder.build_graph()
    other = travel(graph)
    assert shape(other) == shape(graph)
    assert other.fingerprint == graph.fingerprint
    assert other.node_fingerprints == graph.node_fingerprints
    assert other.is_built
    assert other.edges_from("a")[0].source is other.nodes["a"]
    assert other.nodes["a"] is not graph.nodes["a"]
    assert other.end_node is other.nodes["end"]


def test_M6_a_chain_of_five_thousand_nodes_is_built_and_pickled_without_recursion():
    builder, before = GraphBuilder(), "start"
    for number in range(5000):
        builder.add_node(ProcessingNode(f"n{number}", step))
        builder.add_concrete_edge(before, f"n{number}")
        before = f"n{number}"
    builder.add_concrete_edge(before, "end")
    graph = pickle.loads(pickle.dumps(builder.build_graph()))
    assert len(graph.nodes) == 5002
    assert graph.edges_from("n4999")[0].sink is graph.end_node


def test_M6_a_graph_filled_by_hand_stays_open():
    start, end = ProcessingNode("start", passThrough), ProcessingNode("end", passThrough)
    graph = Graph(start, end, name="mine")
    assert (graph.nodes, graph.concrete_edges, graph.conditional_edges) == ({}, [], [])
    assert (graph.start_node, graph.end_node, graph.name) == (start, end, "mine")
    edge = ConcreteEdge(start, end)
    graph.nodes.update(start=start, end=end)
    graph.concrete_edges.append(edge)
    start.outgoing_edges.append(edge)
    assert graph.edges_from("start") == (edge,)
    assert not graph.is_built
    assert [repr(e) for e in pickle.loads(pickle.dumps(graph)).edges_from("start")] == [repr(edge)]
    assert graph.fingerprint == pickle.loads(pickle.dumps(graph)).fingerprint


def test_M6_start_and_end_must_be_nodes():
    with pytest.raises(TypeError, match="start_node and end_node must be of type Node"):
        Graph("start", "end")


def test_M6_the_name_is_really_there():
    assert GraphBuilder(name="demo").graph.name == "demo"
    assert GraphBuilder().graph.name == "graph"
    assert GraphBuilder(None).graph.name == "graph"


def test_M6_to_mermaid_draws_every_kind_of_node_and_edge():
    builder = GraphBuilder()
    builder.add_node(ProcessingNode('say "hi"', step))
    builder.add_node(AggregatorNode("join", selectRandomState))
    builder.add_node(ToolNode("tool", "d", tool))
    builder.add_node(AINode("model", "d", step))
    builder.add_node(HumanInTheLoopNode("person", step))
    builder.add_concrete_edge("start", 'say "hi"')
    builder.add_concrete_edge('say "hi"', "join")
    builder.add_conditional_edge("join", ["tool", "model"], to_end)
    builder.add_concrete_edge("tool", "end")
    builder.add_concrete_edge("model", "end")
    builder.set_fallback_node("tool", "person")
    assert builder.build_graph().to_mermaid().splitlines() == [
        "flowchart TD",
        '    n0(["start"])',
        '    n1(["end"])',
        '    n2["say #34;hi#34;"]',
        '    n3[/"join"\\]',
        '    n4[["tool"]]',
        '    n5{{"model"}}',
        '    n6[/"person"/]',
        "    n0 --> n2",
        "    n2 --> n3",
        '    n3 -.->|"to_end"| n4',
        '    n3 -.->|"to_end"| n5',
        "    n4 --> n1",
        "    n5 --> n1",
        '    n4 ==>|"fallback"| n6',
    ]
