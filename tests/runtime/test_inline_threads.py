"""Sync nodes of the inline backend, which run in threads: awaitables, time-outs and the end."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import weakref

import pytest

from graphorch_ray import (
    AggregatorNode,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    GraphWarning,
    ProcessingNode,
    RetryPolicy,
    State,
    aggregator_action,
    current_execution,
    node_action,
    routing_function,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(changes the variable|arrived at once):graphorch_ray.GraphWarning"
)


def by_hand(function):
    """Marked as the decorators mark it, so that nothing looks at what it gives before the node."""
    function.is_node_action = True
    return function


def one(action, router=None, **options):
    """A graph of one node."""
    builder = GraphBuilder("one")
    builder.add_node(ProcessingNode("work", action, **options))
    builder.add_concrete_edge("start", "work")
    if router is None:
        builder.add_concrete_edge("work", "end")
    else:
        builder.add_conditional_edge("work", ["work", "end"], router)
    return builder.build_graph()


async def run(graph, **options):
    executor = GraphExecutor(graph, State([1]), backend="inline", **options)
    return (await executor.execute()).messages


async def test_what_a_sync_function_gives_to_be_awaited_is_awaited_on_the_callers_loop():
    loop, seen = asyncio.get_running_loop(), []

    async def later(state):
        await asyncio.sleep(0)
        seen.append((asyncio.get_running_loop(), current_execution().node_id))
        return State([*state.messages, "awaited"])

    @by_hand
    def work(state):
        seen.append(threading.current_thread() is threading.main_thread())
        return later(state)

    assert await run(one(work)) == [1, "awaited"]
    assert seen == [False, (loop, "work")]


async def test_such_an_awaitable_has_the_nodes_timeout_and_its_clean_up():
    cleaned = []

    async def hang(state):
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(current_execution().attempt)

    @by_hand
    def work(state):
        return hang(state)

    policy = RetryPolicy(max_retries=1, delay=0.0)
    with pytest.raises(GraphExecutionError, match=r"0\.05"):
        await run(one(work, timeout=0.05), retry_policy=policy)
    assert cleaned == [0, 1]


async def test_a_thread_that_is_late_is_given_up_and_its_result_ignored():
    may_end, ended = threading.Event(), threading.Event()

    @node_action
    def work(state):
        if current_execution().attempt == 0:
            may_end.wait(30)
            ended.set()
            return State(["late"])
        return State(["in time"])

    policy = RetryPolicy(max_retries=1, delay=0.0)
    with pytest.warns(GraphWarning, match="still running in a thread"):
        assert await run(one(work, timeout=0.05), retry_policy=policy) == ["in time"]
    may_end.set()
    assert ended.wait(30)


@pytest.mark.parametrize("placement", ["worker", "driver"])
async def test_an_async_router_is_awaited_on_the_callers_loop(placement):
    loop, loops = asyncio.get_running_loop(), []

    @routing_function(placement=placement)
    async def router(state):
        loops.append(asyncio.get_running_loop())
        return "end" if state.messages[0] > 2 else "work"

    @node_action
    def work(state):
        return State([state.messages[0] + 1])

    assert await run(one(work, router)) == [3]
    assert loops == [loop, loop]


async def test_E9_a_router_that_hangs_on_the_loop_is_cancelled_with_its_superstep():
    cancelled = []

    @routing_function(placement="worker")
    async def router(state):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    @node_action
    def work(state):
        return state

    executor = GraphExecutor(one(work, router), State([1]), backend="inline")
    with pytest.raises(GraphExecutionError, match="timed out"):
        await executor.execute(superstep_timeout=0.1)
    await asyncio.sleep(0)
    assert cancelled == [True]


async def test_a_short_node_is_not_overtaken_and_a_long_one_is():
    started, may_end = [], threading.Event()

    @node_action
    def first(state):
        started.append("first")
        may_end.wait(30)
        return state

    @node_action
    def second(state):
        started.append("second")
        may_end.set()
        return state

    builder = GraphBuilder("two")
    for name, action in (("a", first), ("b", second)):
        builder.add_node(ProcessingNode(name, action))
        builder.add_concrete_edge("start", name)
    builder.add_concrete_edge("a", "end")
    builder.add_concrete_edge("b", "end")
    assert await run(builder.build_graph(), on_multiple_states="first") == [1]
    assert started == ["first", "second"]


def test_a_run_never_asks_for_the_text_of_its_state():
    """CPython's `asyncio.run` writes out what the main task gave: seconds for a large state."""
    asked = []

    class Large(State):
        def __repr__(self):
            asked.append(1)
            return "Large()"

    @node_action
    def work(state):
        return state

    state = GraphExecutor(one(work), Large([1]), backend="inline").run()
    assert type(state) is Large
    assert not asked


request_id = contextvars.ContextVar("request_id")


@pytest.mark.parametrize("quick", [True, False])
async def test_every_node_sees_the_callers_context(quick):
    """Also those that were queued, and what they give to be awaited."""

    async def later(state):
        return State([*state.messages, request_id.get()])

    @by_hand
    def first(state):
        if not quick:
            time.sleep(0.002)
        return later(state)

    @node_action
    async def second(state):
        return State([*state.messages, request_id.get()])

    @node_action
    def third(state):
        return State([*state.messages, request_id.get()])

    @aggregator_action
    def join(states):
        return State([message for state in states for message in state.messages[1:]])

    builder = GraphBuilder("fan")
    builder.add_aggregator(AggregatorNode("join", join))
    for number in range(3):
        for name, action in (("first", first), ("second", second), ("third", third)):
            builder.add_node(ProcessingNode(f"{name}{number}", action))
            builder.add_concrete_edge("start", f"{name}{number}")
            builder.add_concrete_edge(f"{name}{number}", "join")
    builder.add_concrete_edge("join", "end")
    graph = builder.build_graph()
    token = request_id.set("x")
    try:
        assert await run(graph, max_workers=2) == ["x"] * 9
    finally:
        request_id.reset(token)


async def test_what_is_given_up_asks_no_router_any_more():
    may_end, asked = threading.Event(), []

    @routing_function(placement="worker")
    def router(state):
        asked.append(state.messages)
        return "end"

    @node_action
    def work(state):
        if current_execution().attempt == 0:
            may_end.wait(30)
            return State(["late"])
        return State(["in time"])

    policy = RetryPolicy(max_retries=1, delay=0.0)
    with pytest.warns(GraphWarning, match="still running in a thread"):
        assert await run(one(work, router, timeout=0.05), retry_policy=policy) == ["in time"]
    threads = [thread for thread in threading.enumerate() if thread.name == "graphorch-node"]
    may_end.set()
    for thread in threads:
        await asyncio.to_thread(thread.join, 30)
    assert asked == [["in time"]]


@pytest.mark.parametrize("placement", ["worker", "driver"])
@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError])
async def test_what_an_async_router_raises_is_its_failure(placement, error):
    @routing_function(placement=placement)
    async def router(state):
        raise error("by the router itself")

    @node_action
    def work(state):
        return state

    with pytest.raises(GraphExecutionError, match="by the router itself"):
        await run(one(work, router))


async def test_a_system_without_a_thread_to_give_fails_the_attempt(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    @node_action
    def work(state):
        return state

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(GraphExecutionError, match="can't start new thread"):
        await run(one(work, timeout=5))


async def test_a_state_is_let_go_of_when_its_attempt_is_answered():
    """At once, not when the garbage collector comes to it."""
    there = []

    class Large:
        pass

    @node_action
    def work(state):
        gone = [reference() is None for reference in there]
        large = Large()
        there.append(weakref.ref(large))
        return State([state.messages[0] + 1, large, gone])

    gc.collect()
    gc.disable()
    try:
        messages = await run(one(work, until_four))
    finally:
        gc.enable()
    assert messages[0] == 4
    assert messages[2][0]


@routing_function(placement="worker")
def until_four(state):
    return "end" if state.messages[0] == 4 else "work"
