"""Whole programs: chains, fan-out, aggregators, loops, what arrives where and in which order."""

from __future__ import annotations

import asyncio
import random

import pytest

from graphorch_ray import (
    AggregatorNode,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    GraphOrchestratorException,
    GraphWarning,
    InvalidAggregatorActionError,
    InvalidNodeActionOutput,
    InvalidToolMethodOutput,
    ProcessingNode,
    RetryPolicy,
    State,
    ToolNode,
    aggregator_action,
    node_action,
    routing_function,
    selectRandomState,
    tool_method,
)

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore::graphorch_ray.GraphWarning"),
]


@node_action
def increment(state):
    state.messages.append(state.messages[-1] + 1)
    return state


@node_action
def modulo_ten(state):
    state.messages.append(state.messages[-1] % 2)
    return state


@node_action
def double(state):
    state.messages.append(state.messages[-1] * 2)
    return state


@routing_function
def until_ten(state):
    return "end" if state.messages[-1] % 10 == 0 else "node1"


@aggregator_action
def concatenate(states):
    return State([m for s in states for m in s.messages])


@aggregator_action
def total(states):
    result = list(states[0].messages)
    for state in states[1:]:
        result.append(state.messages[-1])
    result.append(sum(result[-len(states) :]))
    return State(result)


def chain(*nodes):
    builder = GraphBuilder()
    before = "start"
    for node in nodes:
        builder.add_node(node)
        builder.add_concrete_edge(before, node.node_id)
        before = node.node_id
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()


def fan(*nodes, into):
    """start -> each of `nodes` -> `into` -> end"""
    builder = GraphBuilder()
    builder.add_aggregator(into)
    for node in nodes:
        builder.add_node(node)
        builder.add_concrete_edge("start", node.node_id)
        builder.add_concrete_edge(node.node_id, into.node_id)
    builder.add_concrete_edge(into.node_id, "end")
    return builder.build_graph()


def labelled(label, wait=0.0):
    @tool_method
    async def act(state):
        """Adds its label."""
        await asyncio.sleep(wait)
        return State([*state.messages, label])

    return ToolNode(label, None, act)


async def test_linear():
    graph = chain(ProcessingNode("node1", increment))
    assert await GraphExecutor(graph, State([1])).execute() == State([1, 2])


async def test_two_nodes():
    graph = chain(ProcessingNode("node1", increment), ProcessingNode("node2", modulo_ten))
    assert await GraphExecutor(graph, State(messages=[11])).execute() == State([11, 12, 0])


async def test_empty_graph():
    builder = GraphBuilder()
    builder.add_concrete_edge("start", "end")
    graph = builder.build_graph()
    initial = State([{"a": 1}])
    final = await GraphExecutor(graph, initial).execute(max_supersteps=2)
    assert final == initial
    assert final is not initial
    assert final.messages[0] is not initial.messages[0]


async def test_empty_messages_stay_empty():
    @node_action
    def keep(state):
        return state

    assert await GraphExecutor(chain(ProcessingNode("n", keep)), State()).execute() == State([])


async def test_single_node_loop():
    builder = GraphBuilder()
    builder.add_node(ProcessingNode("node1", increment))
    builder.add_concrete_edge("start", "node1")
    builder.add_conditional_edge("node1", ["node1", "end"], until_ten)
    final = await GraphExecutor(builder.build_graph(), State([1])).execute()
    assert final.messages == list(range(1, 11))


async def test_fan_out_and_aggregator_through_add_node():
    builder = GraphBuilder()
    builder.add_node(ProcessingNode("node1", increment))
    builder.add_node(ProcessingNode("node2", double))
    builder.add_node(AggregatorNode("agg", total))
    builder.add_concrete_edge("start", "node2")
    builder.add_concrete_edge("start", "node1")
    builder.add_concrete_edge("node1", "agg")
    builder.add_concrete_edge("node2", "agg")
    builder.add_concrete_edge("agg", "end")
    final = await GraphExecutor(builder.build_graph(), State([3])).execute()
    assert final == State([3, 6, 4, 10])  # node2 was launched first


async def test_aggregator_in_a_conditional_loop():
    @routing_function
    def rounds(state):
        return "fan" if len(state.messages) < 9 else "end"

    builder = GraphBuilder()
    for node_id in ("fan", "left", "right"):
        builder.add_node(ProcessingNode(node_id, increment))
    builder.add_aggregator(AggregatorNode("agg", total))
    builder.add_concrete_edge("start", "fan")
    builder.add_concrete_edge("fan", "left")
    builder.add_concrete_edge("fan", "right")
    builder.add_concrete_edge("left", "agg")
    builder.add_concrete_edge("right", "agg")
    builder.add_conditional_edge("agg", ["fan", "end"], rounds)
    final = await GraphExecutor(builder.build_graph(), State([0])).execute()
    assert final.messages == [0, 1, 2, 2, 4, 5, 6, 6, 12]


async def test_aggregator_order_is_launch_order_not_completion_order():
    waits = {"a": 0.15, "b": 0.1, "c": 0.0, "d": 0.05}
    nodes = [labelled(label, wait) for label, wait in waits.items()]
    graph = fan(*nodes, into=AggregatorNode("agg", concatenate))
    final = await GraphExecutor(graph, State(), max_workers=8).execute()
    assert final.messages == ["a", "b", "c", "d"]


async def test_order_follows_first_arrival_two_supersteps_deep():
    builder = GraphBuilder()
    builder.add_aggregator(AggregatorNode("agg", concatenate))
    for label in "pqxyz":
        builder.add_node(labelled(label))
    for source, sink in [
        ("start", "q"),
        ("start", "p"),
        ("p", "x"),
        ("q", "z"),
        ("q", "y"),
        ("x", "agg"),
        ("y", "agg"),
        ("z", "agg"),
        ("agg", "end"),
    ]:
        builder.add_concrete_edge(source, sink)
    final = await GraphExecutor(builder.build_graph(), State()).execute()
    assert final.messages == ["q", "z", "q", "y", "p", "x"]


async def test_unequal_branches_run_the_aggregator_twice():
    @aggregator_action
    def count(states):
        return State([*(m for s in states for m in s.messages), len(states)])

    builder = GraphBuilder()
    for label in ("short", "long1", "long2"):
        builder.add_node(labelled(label))
    builder.add_aggregator(AggregatorNode("agg", count))
    builder.add_concrete_edge("start", "short")
    builder.add_concrete_edge("start", "long1")
    builder.add_concrete_edge("short", "agg")
    builder.add_concrete_edge("long1", "long2")
    builder.add_concrete_edge("long2", "agg")
    builder.add_concrete_edge("agg", "end")
    executor = GraphExecutor(builder.build_graph(), State())
    assert await executor.execute() == State(["long1", "long2", 1])  # the last to reach end
    assert executor.superstep == 5


async def test_aggregator_with_a_single_input():
    graph = fan(labelled("ok"), into=AggregatorNode("agg", concatenate))
    assert (await GraphExecutor(graph, State()).execute()).messages == ["ok"]


async def test_aggregator_may_change_and_return_what_it_got():
    @aggregator_action
    def change(states):
        states[0].messages.append("MODIFIED")
        return states[0]

    graph = fan(labelled("a"), labelled("b"), into=AggregatorNode("agg", change))
    assert (await GraphExecutor(graph, State()).execute()).messages == ["a", "MODIFIED"]


async def test_the_states_of_an_aggregator_share_nothing():
    @node_action
    def same(state):
        return state

    @aggregator_action
    def change_first(states):
        states[0].messages[0]["seen"] = True
        return State([s.messages[0].get("seen") for s in states])

    graph = fan(
        ProcessingNode("a", same),
        ProcessingNode("b", same),
        into=AggregatorNode("agg", change_first),
    )
    assert await GraphExecutor(graph, State([{}])).execute() == State([True, None])


async def test_parallel_nodes_get_private_copies():
    @node_action
    def mutate(state):
        state.messages[0]["hits"] += 1
        state.messages.append("mutated")
        return state

    nodes = [ProcessingNode(f"n{i}", mutate) for i in range(4)]
    graph = fan(*nodes, into=AggregatorNode("agg", concatenate))
    final = await GraphExecutor(graph, State([{"hits": 0}])).execute()
    assert final.messages == [{"hits": 1}, "mutated"] * 4


async def test_initial_state_is_untouched():
    @node_action
    def mutate(state):
        state.messages[0]["nested"]["deep"].append(1)
        state.messages.append("more")
        return state

    initial = State([{"base": True, "nested": {"deep": []}}])
    final = await GraphExecutor(chain(ProcessingNode("n", mutate)), initial).execute()
    final.messages[0]["base"] = False
    assert initial == State([{"base": True, "nested": {"deep": []}}])


async def test_initial_state_counts_as_it_is_when_execute_is_called():
    initial = State([1])
    executor = GraphExecutor(chain(ProcessingNode("n", increment)), initial)
    initial.messages.append(5)
    assert await executor.execute() == State([1, 5, 6])


async def test_two_branches_into_end_keep_one_state():
    @node_action
    def mutate(state):
        state.messages.append("MUTATED")
        return state

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("n1", mutate))
    builder.add_node(labelled("n2"))
    for node_id in ("n1", "n2"):
        builder.add_concrete_edge("start", node_id)
        builder.add_concrete_edge(node_id, "end")
    final = await GraphExecutor(builder.build_graph(), State()).execute()
    assert final.messages == ["MUTATED"]


async def test_dropped_states_are_warned_of_once():  # *Changed*, E3
    builder = GraphBuilder()
    for label in ("a", "b", "sink"):
        builder.add_node(labelled(label))
    for source, sink in [("start", "b"), ("start", "a"), ("a", "sink"), ("b", "sink")]:
        builder.add_concrete_edge(source, sink)
    builder.add_concrete_edge("sink", "end")
    graph = builder.build_graph()
    executor = GraphExecutor(graph, State())
    with pytest.warns(GraphWarning, match="sink") as caught:
        final = await executor.execute()
    assert final == State(["b", "sink"])
    assert len(caught) == 1
    with pytest.raises(GraphExecutionError, match="sink"):
        await GraphExecutor(graph, State(), on_multiple_states="error").execute()
    both = await GraphExecutor(graph, State(), on_multiple_states="each").execute()
    assert both.messages in (["a", "sink"], ["b", "sink"])


async def test_end_reached_twice_keeps_the_later_result():
    builder = GraphBuilder()
    for label in ("a", "b"):
        builder.add_node(labelled(label))
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "end")
    builder.add_concrete_edge("a", "b")
    builder.add_concrete_edge("b", "end")
    final = await GraphExecutor(builder.build_graph(), State()).execute()
    assert final.messages == ["a", "b"]


async def test_end_never_reached_gives_none():
    @routing_function
    def away(state):
        return "sink"

    builder = GraphBuilder()
    builder.add_node(labelled("a"))
    builder.add_node(labelled("sink"))
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["sink", "end"], away)
    executor = GraphExecutor(builder.build_graph(), State())
    assert await executor.execute() is None
    assert executor.final_state is None


async def test_twenty_parallel_tools():
    @tool_method
    async def heavy(state):
        """Heavy."""
        await asyncio.sleep(0.02)
        return State(["heavy"])

    @aggregator_action
    def combine(states):
        return State([*(m for s in states for m in s.messages), "combined"])

    nodes = [ToolNode(f"tool{i}", "d", heavy) for i in range(20)]
    final = await GraphExecutor(fan(*nodes, into=AggregatorNode("agg", combine)), State()).execute()
    assert final.messages == ["heavy"] * 20 + ["combined"]


async def test_tools_in_a_row_and_mixed_kinds():
    @tool_method
    def step(state):
        """Steps."""
        return State([*state.messages, "step"])

    @node_action
    async def p1(state):
        return State([*state.messages, "p1"])

    graph = chain(
        ToolNode("t1", "first", step), ProcessingNode("p", p1), ToolNode("t2", None, step)
    )
    assert (await GraphExecutor(graph, State()).execute()).messages == ["step", "p1", "step"]


async def test_built_in_aggregator():
    random.seed(1)
    graph = fan(labelled("a"), labelled("b"), into=AggregatorNode("agg", selectRandomState))
    final = await GraphExecutor(graph, State()).execute()
    assert final.messages in (["a"], ["b"])


async def test_an_unconnected_node_never_runs(journal):
    @node_action
    def never(state):
        journal.write("ran")
        return state

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("lonely", never))
    builder.add_node(labelled("a"))
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "end")
    builder.add_concrete_edge("lonely", "end")
    assert await GraphExecutor(builder.build_graph(), State()).execute() == State(["a"])
    assert journal.lines() == []


# --- errors ------------------------------------------------------------------------------------


async def test_an_error_names_the_node_and_keeps_the_cause():
    @node_action
    def fails(state):
        raise ValueError("Deliberate failure")

    executor = GraphExecutor(chain(ProcessingNode("bad", fails)), State([1]))
    with pytest.raises(GraphExecutionError) as caught:
        await executor.execute()
    error = caught.value
    assert str(error) == "Execution failed at node 'bad': Deliberate failure"
    assert (error.node_id, error.message) == ("bad", "Deliberate failure")
    assert isinstance(error, GraphOrchestratorException)
    assert isinstance(error.__cause__, ValueError)
    assert executor.superstep == 1
    assert list(executor.active_states) == ["bad"]
    assert executor.active_states["bad"] == [State([1])]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_wrong_outputs_become_execution_errors(asynchronous):
    def wrong(_):
        return 123

    async def wrong_too(_):
        return 123

    func = wrong_too if asynchronous else wrong
    cases = [
        (chain(ProcessingNode("bad", node_action(func))), InvalidNodeActionOutput),
        (chain(ToolNode("bad", "d", tool_method(func))), InvalidToolMethodOutput),
        (
            fan(labelled("a"), into=AggregatorNode("bad", aggregator_action(func))),
            InvalidAggregatorActionError,
        ),
    ]
    for graph, kind in cases:
        with pytest.raises(GraphExecutionError) as caught:
            await GraphExecutor(graph, State()).execute()
        assert caught.value.node_id == "bad"
        assert type(caught.value.__cause__) is kind
        assert str(caught.value.__cause__) == caught.value.message


async def test_aggregator_that_raises():
    @aggregator_action
    def picky(states):
        if len(states) < 2:
            raise ValueError(f"only {len(states)}")
        return states[0]

    graph = fan(labelled("a"), into=AggregatorNode("agg", picky))
    with pytest.raises(GraphExecutionError, match="at node 'agg': only 1"):
        await GraphExecutor(graph, State()).execute()


async def test_the_first_of_several_failures_is_named_and_the_others_noted():
    @node_action
    async def fails(state):
        raise RuntimeError("both")

    graph = fan(
        ProcessingNode("first", fails),
        ProcessingNode("second", fails),
        into=AggregatorNode("agg", concatenate),
    )
    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(graph, State()).execute()
    assert caught.value.node_id in ("first", "second")
    assert caught.value.message == "both"


# --- limits ------------------------------------------------------------------------------------


async def test_endless_loop():
    @routing_function
    def again(state):
        return "node1"

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("node1", increment))
    builder.add_concrete_edge("start", "node1")
    builder.add_conditional_edge("node1", ["node1", "end"], again)
    executor = GraphExecutor(builder.build_graph(), State([0]))
    with pytest.raises(GraphExecutionError) as caught:
        await executor.execute(max_supersteps=3)
    assert str(caught.value) == "Execution failed at node 'N/A': Max supersteps reached"
    assert (caught.value.node_id, caught.value.message) == ("N/A", "Max supersteps reached")
    assert executor.superstep == 3
    assert executor.active_states["node1"] == [State([0, 1, 2])]


async def test_a_loop_that_also_reaches_end():
    @routing_function
    def again(state):
        return "b"

    builder = GraphBuilder()
    builder.add_node(labelled("a"))
    builder.add_node(labelled("b"))
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["b"], again)
    builder.add_concrete_edge("b", "a")
    builder.add_concrete_edge("b", "end")
    with pytest.raises(GraphExecutionError, match="Max supersteps reached"):
        await GraphExecutor(builder.build_graph(), State()).execute(3)


async def test_finishing_exactly_at_the_limit_succeeds():  # *Changed*, E13
    graph = chain(ProcessingNode("n", increment))
    assert await GraphExecutor(graph, State([1])).execute(max_supersteps=3) == State([1, 2])
    with pytest.raises(GraphExecutionError, match="Max supersteps reached"):
        await GraphExecutor(graph, State([1])).execute(max_supersteps=2)


async def test_more_supersteps_may_be_granted_after_the_limit():
    executor = GraphExecutor(chain(ProcessingNode("n", increment)), State([1]))
    with pytest.raises(GraphExecutionError, match="Max supersteps reached"):
        await executor.execute(1)
    assert await executor.execute(10) == State([1, 2])


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_concurrency_limit(journal, asynchronous):
    import time

    @node_action
    def busy(state):
        began = time.time()
        time.sleep(0.1)
        journal.write(f"{began} {time.time()}")
        return State(["done"])

    @node_action
    async def busy_async(state):
        began = time.time()
        await asyncio.sleep(0.1)
        journal.write(f"{began} {time.time()}")
        return State(["done"])

    func = busy_async if asynchronous else busy
    nodes = [ProcessingNode(f"n{i}", func) for i in range(5)]
    graph = fan(*nodes, into=AggregatorNode("agg", concatenate))
    final = await GraphExecutor(graph, State(), max_workers=2).execute()
    assert final.messages == ["done"] * 5
    spans = [tuple(map(float, line.split())) for line in journal.lines()]
    assert len(spans) == 5
    assert max(sum(b <= at < e for b, e in spans) for at, _ in spans) <= 2


def test_a_script_with_asyncio_run():
    graph = chain(ProcessingNode("n", increment))

    async def main():
        return await GraphExecutor(graph, State([1]), 2, RetryPolicy(1, 0, 0)).execute(50, 30)

    assert asyncio.run(main()) == State([1, 2])
    assert asyncio.run(main()) == State([1, 2])
    assert GraphExecutor(graph, State([5])).run() == State([5, 6])
