"""Conditional edges."""

from __future__ import annotations

import asyncio
import functools
import random
from enum import Enum, StrEnum

import pytest

from graphorch_ray import (
    ConcreteEdge,
    ConditionalEdge,
    Graph,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    InvalidRoutingFunctionOutput,
    ProcessingNode,
    State,
    node_action,
    passThrough,
    routing_function,
)

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore::graphorch_ray.GraphWarning"),
]


def labelled(label):
    @node_action
    def act(state):
        return State([*state.messages, label])

    return ProcessingNode(label, act)


def branching(router, *branches, source="decide"):
    """start -> decide -> one of the branches -> end"""
    builder = GraphBuilder()
    builder.add_node(labelled(source))
    builder.add_concrete_edge("start", source)
    for branch in branches:
        builder.add_node(labelled(branch))
        builder.add_concrete_edge(branch, "end")
    builder.add_conditional_edge(source, list(branches), router)
    return builder.build_graph()


@pytest.mark.parametrize("answer", ["left", "right"])
async def test_sync_router(answer):
    @routing_function
    def route(state):
        return answer

    graph = branching(route, "left", "right")
    assert await GraphExecutor(graph, State()).execute() == State(["decide", answer])


async def test_async_router():
    @routing_function
    async def route(state):
        await asyncio.sleep(0.01)
        return "right" if state.messages == ["decide"] else "left"

    graph = branching(route, "left", "right")
    assert await GraphExecutor(graph, State()).execute() == State(["decide", "right"])


async def test_random_async_router_over_three_sinks():
    @routing_function
    async def route(state):
        return random.choice(["a", "b", "c"])

    final = await GraphExecutor(branching(route, "a", "b", "c"), State()).execute()
    assert final.messages in (["decide", "a"], ["decide", "b"], ["decide", "c"])


@pytest.mark.parametrize("answer", ["ghost", "", "start", "end", "decide", "Left", "it's"])
async def test_an_answer_outside_the_sinks(answer):
    @routing_function
    def route(state):
        return answer

    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(branching(route, "left", "right"), State()).execute()
    assert caught.value.node_id == "decide"
    assert caught.value.message == f"Invalid routing output: '{answer}'"


async def test_an_async_answer_outside_the_sinks():
    @routing_function
    async def route(state):
        return "nonexistent"

    with pytest.raises(GraphExecutionError, match="nonexistent"):
        await GraphExecutor(branching(route, "left"), State()).execute()


@pytest.mark.parametrize("answer", [123, None, ["left"], True])
async def test_an_answer_that_is_no_string(answer):  # *Changed*, E11
    @routing_function
    def route(state):
        return answer

    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(branching(route, "left"), State()).execute()
    assert caught.value.node_id == "decide"
    assert isinstance(caught.value.__cause__, InvalidRoutingFunctionOutput)


async def test_a_router_that_raises_is_not_retried():  # *Changed*, E11
    from graphorch_ray import RetryPolicy

    calls = []  # routers run in the driver, so this shows on Ray too

    @routing_function
    def route(state):
        calls.append(1)
        raise LookupError("no way")

    executor = GraphExecutor(
        branching(route, "left"), State(), retry_policy=RetryPolicy(3, 0.0, 1.0)
    )
    with pytest.raises(GraphExecutionError, match=r"at node 'decide'.*no way") as caught:
        await executor.execute()
    assert isinstance(caught.value.__cause__, LookupError)
    assert calls == [1]


async def test_a_closure_in_a_router_counts_in_the_driver():
    visits = {"n": 0}

    @routing_function
    def route(state):
        visits["n"] += 1
        return "again" if visits["n"] < 4 else "end"

    builder = GraphBuilder()
    builder.add_node(labelled("again"))
    builder.add_concrete_edge("start", "again")
    builder.add_conditional_edge("again", ["again", "end"], route)
    final = await GraphExecutor(builder.build_graph(), State()).execute()
    assert final.messages == ["again"] * 4
    assert visits["n"] == 4


async def test_enum_members_as_answers():
    class Route(str, Enum):  # noqa: UP042
        LEFT = "left"

    class NewRoute(StrEnum):
        RIGHT = "right"

    class Text(str):
        __slots__ = ()

        def __str__(self):
            return "something else"

    for answer in (Route.LEFT, NewRoute.RIGHT, Text("left")):

        @routing_function
        def route(state, answer=answer):
            return answer

        final = await GraphExecutor(branching(route, "left", "right"), State()).execute()
        assert final.messages[-1] == answer


async def test_what_a_router_does_to_its_state_stays_there():
    @routing_function
    def route(state):
        state.messages.append("router was here")
        return "left"

    graph = branching(route, "left", "right")
    assert await GraphExecutor(graph, State()).execute() == State(["decide", "left"])


async def test_several_conditional_edges_from_one_node():
    @routing_function
    def first(state):
        return "a"

    @routing_function
    async def second(state):
        return "d"

    builder = GraphBuilder()
    for label in ("decide", "a", "b", "c", "d", "e"):
        builder.add_node(labelled(label))
    builder.add_concrete_edge("start", "decide")
    builder.add_conditional_edge("decide", ["c", "d"], second)
    builder.add_concrete_edge("decide", "e")
    builder.add_conditional_edge("decide", ["a", "b"], first)
    for label in "abcde":
        builder.add_concrete_edge(label, "end")
    executor = GraphExecutor(builder.build_graph(), State())
    with pytest.warns(match="end"):
        final = await executor.execute()
    assert final == State(["decide", "d"])  # the edge made first


async def test_duplicate_sinks_and_a_tuple_of_sinks():
    @routing_function
    def route(state):
        return "left"

    builder = GraphBuilder()
    for label in ("decide", "left"):
        builder.add_node(labelled(label))
    builder.add_concrete_edge("start", "decide")
    builder.add_conditional_edge("decide", ("left", "left", "end"), route)
    builder.add_concrete_edge("left", "end")
    final = await GraphExecutor(builder.build_graph(), State()).execute()
    assert final.messages == ["decide", "left"]


async def test_manual_loop_over_two_nodes():
    @node_action
    def grow(state):
        return State([state.messages[0] + 1, *state.messages[1:]])

    @routing_function
    def until_five(state):
        return "end" if state.messages[0] >= 5 else "check"

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("grow", grow))
    builder.add_node(labelled("check"))
    builder.add_concrete_edge("start", "grow")
    builder.add_conditional_edge("grow", ["check", "end"], until_five)
    builder.add_concrete_edge("check", "grow")
    final = await GraphExecutor(builder.build_graph(), State([2])).execute()
    assert final == State([5, "check", "check"])


@pytest.mark.parametrize("through_builder", [False, True])
async def test_a_graph_wired_by_hand(through_builder):
    @routing_function
    def route(state):
        return "b"

    start, end = ProcessingNode("start", passThrough), ProcessingNode("end", passThrough)
    a, b, c = labelled("a"), labelled("b"), labelled("c")
    if through_builder:
        graph = GraphBuilder().graph
        start, end = graph.start_node, graph.end_node
    else:
        graph = Graph(start, end, "hand-made")
    for node in (start, end, a, b, c):
        graph.nodes[node.node_id] = node
    for source, sink in ((start, a), (b, end), (c, end)):
        edge = ConcreteEdge(source, sink)
        graph.concrete_edges.append(edge)
        source.outgoing_edges.append(edge)
        sink.incoming_edges.append(edge)
    choice = ConditionalEdge(a, [b, c], route)
    graph.conditional_edges.append(choice)
    a.outgoing_edges.append(choice)
    for sink in choice.sinks:
        sink.incoming_edges.append(choice)
    assert await GraphExecutor(graph, State()).execute() == State(["a", "b"])


async def test_a_builder_graph_that_was_never_built():
    builder = GraphBuilder()
    builder.add_node(labelled("a"))
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "end")
    assert await GraphExecutor(builder.graph, State()).execute() == State(["a"])


async def test_one_router_on_several_edges():
    @routing_function
    def by_length(state):
        return "end" if len(state.messages) >= 3 else "b" if len(state.messages) == 1 else "a"

    builder = GraphBuilder()
    builder.add_node(labelled("a"))
    builder.add_node(labelled("b"))
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["b", "end"], by_length)
    builder.add_conditional_edge("b", ["a", "end"], by_length)
    assert await GraphExecutor(builder.build_graph(), State()).execute() == State(["a", "b", "a"])


async def test_router_on_the_worker():  # ours, E11
    @routing_function(placement="worker")
    def route(state):
        return "right" if len(state.messages) == 1 else "left"

    graph = branching(route, "left", "right")
    assert await GraphExecutor(graph, State()).execute() == State(["decide", "right"])


@pytest.mark.parametrize("answer", ["right", 5, None])
async def test_a_router_marked_by_hand(answer):
    def route(state):
        return answer

    route.is_routing_function = True
    executor = GraphExecutor(branching(route, "left", "right"), State())
    if answer == "right":
        assert await executor.execute() == State(["decide", "right"])
        return
    with pytest.raises(GraphExecutionError) as caught:
        await executor.execute()
    assert caught.value.message == f"Invalid routing output: '{answer}'"


async def test_routers_of_every_kind():
    class Judge:
        def __init__(self, verdict):
            self.verdict = verdict

        def decide(self, state):
            return self.verdict

        async def __call__(self, state):
            await asyncio.sleep(0)
            return self.verdict

    routers = [
        lambda state: "left",
        functools.partial(lambda verdict, state: verdict, "left"),
        Judge("left").decide,
        Judge("left"),
    ]
    for router in routers:
        graph = branching(routing_function(router), "left", "right")
        assert await GraphExecutor(graph, State()).execute() == State(["decide", "left"])
