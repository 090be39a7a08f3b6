"""Retries and fallbacks."""

from __future__ import annotations

import asyncio
import sys

import pytest

from graphorch_ray import (
    AggregatorNode,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    ToolNode,
    aggregator_action,
    node_action,
    routing_function,
    tool_method,
)

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore::graphorch_ray.GraphWarning"),
]

FAST = RetryPolicy(5, 0.01, 1.0)


def flaky(journal, failures, name="flaky"):
    """Fails so often, then succeeds."""

    @node_action
    def act(state):
        state.messages.append("touched")
        attempt = journal.write(name)
        if attempt <= failures:
            raise ConnectionError(f"attempt {attempt}")
        state.messages.append(attempt)
        return state

    return act


def noting(journal, name, *, fail=None):
    @node_action
    def act(state):
        journal.write(name)
        if fail is not None:
            raise fail
        return State([*state.messages, name])

    return act


def program(nodes, edges, fallbacks=()):
    builder = GraphBuilder()
    for node_id, node in nodes.items():
        builder.add_node(node if not callable(node) else ProcessingNode(node_id, node))
    for node_id, fallback_id in fallbacks:
        builder.set_fallback_node(node_id, fallback_id)
    for source, sink in edges:
        builder.add_concrete_edge(source, sink)
    return builder.build_graph()


def single(action, node_id="n"):
    return program({node_id: action}, [("start", node_id), (node_id, "end")])


# --- retries -----------------------------------------------------------------------------------


async def test_fails_twice_then_succeeds(journal):
    executor = GraphExecutor(
        single(flaky(journal, 2)), State(), retry_policy=RetryPolicy(5, 0.01, 1)
    )
    final = await executor.execute()
    assert final.messages == ["touched", 3]  # *Changed*, E2: each attempt from a fresh copy
    assert journal.count("flaky") == 3


async def test_no_retry_by_default(journal):
    with pytest.raises(GraphExecutionError, match="attempt 1"):
        await GraphExecutor(single(flaky(journal, 1)), State()).execute()
    assert journal.count("flaky") == 1
    assert GraphExecutor(single(flaky(journal, 1)), State()).retry_policy == RetryPolicy(0, 0, 2.0)


async def test_node_policy_beats_the_executors(journal):
    builder = GraphBuilder()
    builder.add_node(ProcessingNode("n", flaky(journal, 99)))
    builder.set_node_retry_policy("n", RetryPolicy(2, 0.01, 1.0))
    builder.add_concrete_edge("start", "n")
    builder.add_concrete_edge("n", "end")
    graph = builder.build_graph()
    with pytest.raises(GraphExecutionError, match="attempt 3"):
        await GraphExecutor(graph, State(), retry_policy=FAST).execute()
    assert journal.count("flaky") == 3


async def test_node_policy_with_the_default_executor(journal):
    builder = GraphBuilder()
    builder.add_node(ProcessingNode("flaky", flaky(journal, 2)))
    builder.set_node_retry_policy("flaky", FAST)
    builder.add_concrete_edge("start", "flaky")
    builder.add_concrete_edge("flaky", "end")
    assert (await GraphExecutor(builder.build_graph(), State()).execute()).messages[-1] == 3


async def test_policy_set_on_the_node_object(journal):
    node = ProcessingNode("n", flaky(journal, 1))
    node.set_retry_policy(RetryPolicy(1, 0, 0))
    graph = program({"n": node}, [("start", "n"), ("n", "end")])
    assert (await GraphExecutor(graph, State()).execute()).messages[-1] == 2


async def test_policy_of_zeros(journal):
    with pytest.raises(GraphExecutionError):
        await GraphExecutor(single(flaky(journal, 9)), State(), 4, RetryPolicy(0, 0, 0)).execute()
    assert journal.count("flaky") == 1
    with pytest.raises(GraphExecutionError):
        await GraphExecutor(single(flaky(journal, 9)), State(), 4, RetryPolicy(2, 0, 0)).execute()
    assert journal.count("flaky") == 4


async def test_tools_aggregators_and_async_nodes_are_retried(journal):
    @tool_method
    async def tool(state):
        """A tool."""
        await asyncio.sleep(0)
        if journal.write("tool") < 2:
            raise OSError("tool")
        return State(["recovered"])

    @aggregator_action
    def merge(states):
        if journal.write("merge") < 3:
            raise OSError("merge")
        return State([*states[0].messages, len(states)])

    graph = program(
        {"t": ToolNode("t", None, tool), "agg": AggregatorNode("agg", merge)},
        [("start", "t"), ("t", "agg"), ("agg", "end")],
    )
    final = await GraphExecutor(graph, State(), retry_policy=FAST).execute()
    assert final == State(["recovered", 1])
    assert (journal.count("tool"), journal.count("merge")) == (2, 3)


async def test_wrong_output_is_retried_too(journal):
    @node_action
    def sometimes(state):
        return state if journal.write("try") > 1 else None

    assert await GraphExecutor(single(sometimes), State([1]), 4, FAST).execute() == State([1])


async def test_a_waiting_retry_holds_no_slot(journal):  # *Changed*, E5
    @node_action
    def first(state):
        if journal.write("first") == 1:
            raise OSError("once")
        return state

    @aggregator_action
    def pick(states):
        return states[0]

    graph = program(
        {"a": first, "b": noting(journal, "second"), "agg": AggregatorNode("agg", pick)},
        [("start", "a"), ("start", "b"), ("a", "agg"), ("b", "agg"), ("agg", "end")],
    )
    await GraphExecutor(graph, State(), 1, RetryPolicy(1, 0.3, 1)).execute()
    assert journal.lines() == ["first", "second", "first"]


# --- what nodes may raise ----------------------------------------------------------------------


class TwoArguments(Exception):
    def __init__(self, code, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class KeywordOnly(Exception):
    def __init__(self, *, reason):
        super().__init__()
        self.reason = reason

    def __str__(self):
        return f"because {self.reason}"


async def test_exceptions_with_odd_constructors():
    class Local(Exception):
        def __init__(self, a, b, c=3):
            self.parts = (a, b, c)
            super().__init__("-".join(map(str, self.parts)))

    @node_action
    def two(state):
        raise TwoArguments(418, "teapot")

    @node_action
    def keyword(state):
        raise KeywordOnly(reason="of you")

    @node_action
    def local(state):
        raise Local(1, 2)

    cases = [
        (two, TwoArguments, "418: teapot"),
        (keyword, KeywordOnly, "because of you"),
        (local, Local, "1-2-3"),
    ]
    for action, kind, text in cases:
        with pytest.raises(GraphExecutionError) as caught:
            await GraphExecutor(single(action), State()).execute()
        assert caught.value.message == text
        assert isinstance(caught.value.__cause__, kind)
        assert str(caught.value.__cause__) == text
    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(single(two), State()).execute()
    assert caught.value.__cause__.code == 418
    assert caught.value.__cause__.detail == "teapot"


async def test_an_exception_that_holds_what_cannot_be_pickled():
    import threading

    @node_action
    def holds(state):
        error = RuntimeError("locked")
        error.lock = threading.Lock()
        raise error

    with pytest.raises(GraphExecutionError, match="locked") as caught:
        await GraphExecutor(single(holds), State()).execute()
    assert isinstance(caught.value.__cause__, RuntimeError)


async def test_an_exception_raised_from_another():
    @node_action
    def chained(state):
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("outer") from error

    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(single(chained), State()).execute()
    assert caught.value.message == "outer"
    assert isinstance(caught.value.__cause__, ValueError)
    notes = "\n".join(caught.value.__notes__)
    assert "KeyError: 'missing'" in notes
    assert "in chained" in notes


async def test_exception_groups_and_empty_texts():
    @node_action
    def grouped(state):
        raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])

    @node_action
    async def silent(state):
        raise RuntimeError

    with pytest.raises(GraphExecutionError, match="several") as caught:
        await GraphExecutor(single(grouped), State()).execute()
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(single(silent), State()).execute()
    assert str(caught.value) == "Execution failed at node 'n': "


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_system_exit_and_keyboard_interrupt_are_node_failures(asynchronous):  # E6
    def leave(state):
        if state.messages == ["exit"]:
            sys.exit("bye")
        raise KeyboardInterrupt("stop")

    async def leave_async(state):
        return leave(state)

    graph = single(node_action(leave_async if asynchronous else leave))
    with pytest.raises(GraphExecutionError, match="bye") as caught:
        await GraphExecutor(graph, State(["exit"])).execute()
    assert isinstance(caught.value.__cause__, SystemExit)
    with pytest.raises(GraphExecutionError, match="stop"):
        await GraphExecutor(graph, State(["other"])).execute()


async def test_a_node_that_raises_cancelled_error():
    @node_action
    async def cancels(state):
        raise asyncio.CancelledError("by itself")

    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(single(cancels), State()).execute()
    assert caught.value.node_id == "n"


async def test_stop_iteration_and_assertion():
    @node_action
    def stops(state):
        next(iter(()))

    @node_action
    def asserts(state):
        assert not state.messages, "not empty"
        return state

    with pytest.raises(GraphExecutionError):
        await GraphExecutor(single(stops), State()).execute()
    with pytest.raises(GraphExecutionError, match="not empty") as caught:
        await GraphExecutor(single(asserts), State([1])).execute()
    assert isinstance(caught.value.__cause__, AssertionError)


async def test_an_execution_error_raised_by_a_node():
    @node_action
    def raises(state):
        raise GraphExecutionError("inner", "deep")

    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(single(raises), State()).execute()
    assert caught.value.node_id == "n"
    assert caught.value.message == "Execution failed at node 'inner': deep"


# --- fallbacks ---------------------------------------------------------------------------------


async def test_fallback_takes_over_after_the_last_retry(journal):
    graph = program(
        {
            "main": noting(journal, "main", fail=RuntimeError("x")),
            "spare": noting(journal, "spare"),
        },
        [("start", "main"), ("main", "end")],
        [("main", "spare")],
    )
    final = await GraphExecutor(graph, State(["in"]), retry_policy=RetryPolicy(3, 0, 0)).execute()
    assert final == State(["in", "spare"])
    assert journal.lines() == ["main"] * 4 + ["spare"]


async def test_no_fallback():
    @node_action
    def fails(state):
        raise RuntimeError("Intentional")

    with pytest.raises(GraphExecutionError, match="Intentional"):
        await GraphExecutor(single(fails), State()).execute()


async def test_fallback_fails_too(journal):
    graph = program(
        {
            "main": noting(journal, "main", fail=RuntimeError("Main failed")),
            "spare": noting(journal, "spare", fail=RuntimeError("Fallback also failed")),
        },
        [("start", "main"), ("main", "end")],
        [("main", "spare")],
    )
    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(graph, State()).execute()
    assert caught.value.node_id == "spare"
    assert caught.value.message == "Fallback node failed: Fallback also failed"


async def test_fallback_gets_the_original_input(journal):  # *Changed*, E2
    @node_action
    def spoils(state):
        state.messages.clear()
        state.messages.append("spoilt")
        raise OSError("spoilt")

    graph = program(
        {"main": spoils, "spare": noting(journal, "spare")},
        [("start", "main"), ("main", "end")],
        [("main", "spare")],
    )
    assert await GraphExecutor(graph, State(["in"])).execute() == State(["in", "spare"])


async def test_the_failed_nodes_edges_are_followed(journal):
    @routing_function
    def route(state):
        return "sink" if "spare" in state.messages else "end"

    builder = GraphBuilder()
    for node_id in ("main", "spare", "sink", "wrong"):
        fail = RuntimeError("x") if node_id == "main" else None
        builder.add_node(ProcessingNode(node_id, noting(journal, node_id, fail=fail)))
    builder.set_fallback_node("main", "spare")
    builder.add_concrete_edge("start", "main")
    builder.add_conditional_edge("main", ["sink", "end"], route)
    builder.add_concrete_edge("spare", "wrong")  # the fallback's own edge is not followed
    builder.add_concrete_edge("wrong", "end")
    builder.add_concrete_edge("sink", "end")
    final = await GraphExecutor(builder.build_graph(), State()).execute()
    assert final == State(["spare", "sink"])
    assert journal.lines() == ["main", "spare", "sink"]


async def test_fallbacks_do_not_chain(journal):
    fail = RuntimeError("x")
    graph = program(
        {
            "a": noting(journal, "a", fail=fail),
            "b": noting(journal, "b", fail=fail),
            "c": noting(journal, "c"),
        },
        [("start", "a"), ("a", "end")],
        [("a", "b"), ("b", "c")],
    )
    with pytest.raises(GraphExecutionError, match="at node 'b': Fallback node failed: x"):
        await GraphExecutor(graph, State()).execute()
    assert journal.lines() == ["a", "b"]


async def test_fallback_has_its_own_policy(journal):
    builder = GraphBuilder()
    builder.add_node(ProcessingNode("main", noting(journal, "main", fail=OSError("x"))))
    builder.add_node(ProcessingNode("spare", flaky(journal, 2, "spare")))
    builder.set_fallback_node("main", "spare")
    builder.set_node_retry_policy("spare", RetryPolicy(2, 0.0, 1.0))
    builder.add_concrete_edge("start", "main")
    builder.add_concrete_edge("main", "end")
    final = await GraphExecutor(builder.build_graph(), State()).execute()
    assert final == State(["touched", 3])
    assert journal.lines() == ["main", "spare", "spare", "spare"]


async def test_cycle_with_fallback(journal):
    @node_action
    def node1(state):
        if journal.write("node1") == 2:
            raise RuntimeError("second visit")
        return State([*state.messages, "node1"])

    @routing_function
    def route(state):
        return "end" if "fallback" in state.messages else "node1"

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("node1", node1))
    builder.add_node(ProcessingNode("node2", noting(journal, "node2")))
    builder.add_node(ProcessingNode("fallback", noting(journal, "fallback")))
    builder.set_fallback_node("node1", "fallback")
    builder.add_concrete_edge("start", "node1")
    builder.add_concrete_edge("node1", "node2")
    builder.add_conditional_edge("node2", ["node1", "end"], route)
    executor = GraphExecutor(builder.build_graph(), State(), retry_policy=RetryPolicy(0, 0, 0))
    final = await executor.execute()
    assert final.messages == ["node1", "node2", "fallback", "node2"]
    assert [journal.count(n) for n in ("node1", "node2", "fallback")] == [2, 2, 1]


async def test_one_fallback_for_two_nodes_and_an_aggregators_fallback(journal):
    @aggregator_action
    def fails(states):
        raise ValueError("merge")

    @aggregator_action
    def merge(states):
        return State([m for s in states for m in s.messages])

    fail = OSError("x")
    graph = program(
        {
            "a": noting(journal, "a", fail=fail),
            "b": noting(journal, "b", fail=fail),
            "spare": noting(journal, "spare"),
            "agg": AggregatorNode("agg", fails),
            "agg2": AggregatorNode("agg2", merge),
        },
        [("start", "a"), ("start", "b"), ("a", "agg"), ("b", "agg"), ("agg", "end")],
        [("a", "spare"), ("b", "spare"), ("agg", "agg2")],
    )
    final = await GraphExecutor(graph, State(["in"])).execute()
    assert final.messages == ["in", "spare", "in", "spare"]


async def test_fallback_for_a_wrong_output(journal):
    @node_action
    def wrong(state):
        return "text"

    graph = program(
        {"main": wrong, "spare": noting(journal, "spare")},
        [("start", "main"), ("main", "end")],
        [("main", "spare")],
    )
    assert await GraphExecutor(graph, State()).execute() == State(["spare"])


async def test_fallback_for_a_timeout_error_that_node_code_raises(journal):  # *Changed*, E9
    @node_action
    def times_out(state):
        raise TimeoutError("of its own")

    graph = program(
        {"main": times_out, "spare": noting(journal, "spare")},
        [("start", "main"), ("main", "end")],
        [("main", "spare")],
    )
    assert await GraphExecutor(graph, State()).execute() == State(["spare"])
    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(single(times_out), State()).execute()
    assert caught.value.message == "of its own"
