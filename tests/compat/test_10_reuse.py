"""Graphs and executors used more than once, or at the same time."""

from __future__ import annotations

import asyncio

import pytest

from graphorch_ray import (
    AggregatorNode,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    Node,
    ProcessingNode,
    State,
    aggregator_action,
    node_action,
    routing_function,
)

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore::graphorch_ray.GraphWarning"),
]


@node_action
async def tag(state):
    await asyncio.sleep(0.02)
    return State([*state.messages, f"{state.messages[0]}!"])


@node_action
def tag_sync(state):
    return State([*state.messages, f"{state.messages[0]}?"])


@aggregator_action
def merge(states):
    return State([states[0].messages[0], *(m for s in states for m in s.messages[1:])])


def diamond():
    builder = GraphBuilder()
    builder.add_node(ProcessingNode("a", tag))
    builder.add_node(ProcessingNode("b", tag_sync))
    builder.add_aggregator(AggregatorNode("agg", merge))
    for node_id in "ab":
        builder.add_concrete_edge("start", node_id)
        builder.add_concrete_edge(node_id, "agg")
    builder.add_concrete_edge("agg", "end")
    return builder.build_graph()


async def test_two_executors_at_the_same_time():  # E16
    graph = diamond()
    executors = [GraphExecutor(graph, State([name])) for name in ("x", "y", "z")]
    finals = await asyncio.gather(*(e.execute() for e in executors))
    assert finals == [State([n, f"{n}!", f"{n}?"]) for n in ("x", "y", "z")]
    assert len({e.run_id for e in executors}) == 3


async def test_one_fails_while_the_other_goes_on():  # E16
    @node_action
    async def picky(state):
        if state.messages == ["bad"]:
            raise ValueError("bad state")
        await asyncio.sleep(0.2)
        return state

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("n", picky))
    builder.add_concrete_edge("start", "n")
    builder.add_concrete_edge("n", "end")
    graph = builder.build_graph()
    bad, good = await asyncio.gather(
        GraphExecutor(graph, State(["bad"])).execute(),
        GraphExecutor(graph, State(["good"])).execute(),
        return_exceptions=True,
    )
    assert isinstance(bad, GraphExecutionError)
    assert good == State(["good"])


async def test_one_graph_many_runs_one_after_another():
    graph = diamond()
    for name in ("p", "q", "r"):
        assert await GraphExecutor(graph, State([name])).execute() == State(
            [name, f"{name}!", f"{name}?"]
        )


async def test_execute_again_after_success():  # *Changed*, E15
    executor = GraphExecutor(diamond(), State(["x"]))
    first = await executor.execute()
    assert executor.superstep == 4
    assert await executor.execute() == first == executor.final_state
    assert executor.superstep == 4
    assert dict(executor.active_states) == {}


async def test_execute_again_after_failure(tmp_path, journal):  # E15
    ready = tmp_path / "ready"

    @node_action
    def before(state):
        journal.write("before")
        return State([*state.messages, "before"])

    @node_action
    def fails(state):
        state.messages.append("tried")
        journal.write("fails")
        if not ready.exists():
            raise RuntimeError("not yet")
        return state

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("before", before))
    builder.add_node(ProcessingNode("fails", fails))
    builder.add_concrete_edge("start", "before")
    builder.add_concrete_edge("before", "fails")
    builder.add_concrete_edge("fails", "end")
    executor = GraphExecutor(builder.build_graph(), State())
    for _ in range(2):
        with pytest.raises(GraphExecutionError, match="not yet"):
            await executor.execute()
        assert executor.superstep == 2
        assert executor.active_states["fails"] == [State(["before"])]
    ready.touch()
    assert await executor.execute() == State(["before", "tried"])
    assert journal.lines() == ["before", "fails", "fails", "fails"]


async def test_a_failed_router_is_asked_again():
    answers = iter(["ghost", "end"])

    @routing_function
    def route(state):
        return next(answers)

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("n", tag_sync))
    builder.add_concrete_edge("start", "n")
    builder.add_conditional_edge("n", ["n", "end"], route)
    executor = GraphExecutor(builder.build_graph(), State(["x"]))
    with pytest.raises(GraphExecutionError, match="ghost"):
        await executor.execute()
    assert await executor.execute() == State(["x", "x?"])


async def test_the_same_nodes_in_two_graphs():
    first, second = ProcessingNode("one", tag), ProcessingNode("two", tag_sync)
    graphs = []
    for order in ((first, second), (second, first)):
        builder = GraphBuilder()
        before = "start"
        for node in order:
            builder.add_node(node)
            builder.add_concrete_edge(before, node.node_id)
            before = node.node_id
        builder.add_concrete_edge(before, "end")
        graphs.append(builder.build_graph())
    finals = [await GraphExecutor(graph, State(["x"])).execute() for graph in graphs]
    assert finals == [State(["x", "x!", "x?"]), State(["x", "x?", "x!"])]


async def test_a_graph_built_again_after_more_nodes():
    builder = GraphBuilder()
    builder.add_node(ProcessingNode("a", tag))
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "end")
    old = builder.build_graph()
    builder.add_node(ProcessingNode("b", tag_sync))
    builder.add_concrete_edge("a", "b")
    builder.add_concrete_edge("b", "end")
    new = builder.build_graph()
    assert await GraphExecutor(old, State(["x"])).execute() == State(["x", "x!"])
    assert await GraphExecutor(new, State(["x"])).execute() == State(["x", "x!", "x?"])


async def test_a_policy_set_after_the_build(journal):
    from graphorch_ray import RetryPolicy

    @node_action
    def once(state):
        if journal.write("try") == 1:
            raise OSError("once")
        return state

    node = ProcessingNode("n", once)
    builder = GraphBuilder()
    builder.add_node(node)
    builder.add_concrete_edge("start", "n")
    builder.add_concrete_edge("n", "end")
    graph = builder.build_graph()
    graph.nodes["n"].set_retry_policy(RetryPolicy(1, 0, 0))
    assert await GraphExecutor(graph, State([1])).execute() == State([1])


# --- graphs inside nodes -----------------------------------------------------------------------


def inner_graph():
    builder = GraphBuilder("inner")
    builder.add_node(ProcessingNode("n", tag_sync))
    builder.add_concrete_edge("start", "n")
    builder.add_concrete_edge("n", "end")
    return builder.build_graph()


async def test_an_async_node_that_runs_a_graph():
    inner = inner_graph()

    @node_action
    async def outer(state):
        return await GraphExecutor(inner, state).execute()

    builder = GraphBuilder("outer")
    builder.add_node(ProcessingNode("outer", outer))
    builder.add_concrete_edge("start", "outer")
    builder.add_concrete_edge("outer", "end")
    final = await GraphExecutor(builder.build_graph(), State(["x"])).execute(superstep_timeout=20)
    assert final == State(["x", "x?"])


async def test_a_sync_node_that_runs_a_graph():
    inner = inner_graph()

    @node_action
    def outer(state):
        return asyncio.run(GraphExecutor(inner, state).execute())

    builder = GraphBuilder("outer")
    builder.add_node(ProcessingNode("outer", outer))
    builder.add_concrete_edge("start", "outer")
    builder.add_concrete_edge("outer", "end")
    final = await GraphExecutor(builder.build_graph(), State(["x"])).execute(superstep_timeout=20)
    assert final == State(["x", "x?"])


# --- nodes with an execute of their own --------------------------------------------------------


class Shouting(ProcessingNode):
    async def execute(self, state):
        result = await super().execute(state)
        return State([*result.messages, "SHOUTED"])


class Own(Node):
    def __init__(self, node_id, amount):
        super().__init__(node_id)
        self.amount = amount

    async def execute(self, state):
        await asyncio.sleep(0)
        return State([*state.messages, self.amount])


class OwnSync(Own):
    def execute(self, state):
        return State([*state.messages, self.amount, "sync"])


class Sorting(AggregatorNode):
    async def execute(self, states):
        return await super().execute(sorted(states, key=lambda s: -len(s.messages)))


async def test_nodes_that_override_execute():
    class Local(OwnSync):
        amount = 0

    builder = GraphBuilder()
    nodes = [Shouting("a", tag_sync), Own("b", 5), OwnSync("c", 6), Local("d", 7)]
    before = "start"
    for node in nodes:
        builder.add_node(node)
        builder.add_concrete_edge(before, node.node_id)
        before = node.node_id
    builder.add_concrete_edge(before, "end")
    final = await GraphExecutor(builder.build_graph(), State(["x"])).execute()
    assert final.messages == ["x", "x?", "SHOUTED", 5, 6, "sync", 7, "sync"]


async def test_an_aggregator_that_overrides_execute():
    builder = GraphBuilder()
    builder.add_node(ProcessingNode("a", tag_sync))
    builder.add_node(Shouting("b", tag_sync))
    builder.add_aggregator(Sorting("agg", merge))
    for node_id in "ab":
        builder.add_concrete_edge("start", node_id)
        builder.add_concrete_edge(node_id, "agg")
    builder.add_concrete_edge("agg", "end")
    final = await GraphExecutor(builder.build_graph(), State(["x"])).execute()
    assert final.messages == ["x", "x?", "SHOUTED", "x?"]
