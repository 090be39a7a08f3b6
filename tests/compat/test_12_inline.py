"""Programs that look into the driver's variables: on `inline` they behave as in one process."""

from __future__ import annotations

import asyncio
import time

import pytest

from graphorch_ray import (
    AggregatorNode,
    AIActionBase,
    AINode,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    GraphWarning,
    Node,
    ProcessingNode,
    RetryPolicy,
    State,
    ToolNode,
    aggregator_action,
    node_action,
    tool_method,
)

pytestmark = [
    pytest.mark.usefixtures("inline"),
    pytest.mark.filterwarnings("ignore::graphorch_ray.GraphWarning"),
]

CALLS = 0


def chain(*nodes):
    builder = GraphBuilder()
    before = "start"
    for node in nodes:
        builder.add_node(node)
        builder.add_concrete_edge(before, node.node_id)
        before = node.node_id
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()


@aggregator_action
def collect(states):
    return State([m for s in states for m in s.messages])


async def test_retry_counted_in_a_closure():
    attempts = {"count": 0}

    @node_action
    def flaky(state):
        attempts["count"] += 1
        if attempts["count"] < 3:
            raise Exception("Temporary failure")
        state.messages.append(attempts["count"])
        return state

    executor = GraphExecutor(
        chain(ProcessingNode("n", flaky)), State(), retry_policy=RetryPolicy(5, 0.01, 1)
    )
    assert 3 in (await executor.execute()).messages
    assert attempts["count"] == 3


async def test_nonlocal_and_global_counters():
    global CALLS
    CALLS = 0
    local = 0

    @node_action
    async def act(state):
        nonlocal local
        global CALLS
        local += 1
        CALLS += 1
        return state

    await GraphExecutor(
        chain(ProcessingNode("a", act), ProcessingNode("b", act)), State()
    ).execute()
    assert (local, CALLS) == (2, 2)


def test_the_build_warns_of_changed_driver_variables():
    seen = []

    @node_action
    def act(state):
        seen.append(1)
        return state

    with pytest.warns(GraphWarning, match="'n'.*'seen'"):
        chain(ProcessingNode("n", act))


async def test_sync_nodes_of_a_superstep_run_in_launch_order():
    order = []

    def make(n):
        @node_action
        def act(state):
            order.append(n)
            return State([n])

        return ProcessingNode(f"n{n}", act)

    for _ in range(10):
        order.clear()
        builder = GraphBuilder()
        builder.add_aggregator(AggregatorNode("agg", collect))
        for n in range(12):
            builder.add_node(make(n))
            builder.add_concrete_edge("start", f"n{n}")
            builder.add_concrete_edge(f"n{n}", "agg")
        builder.add_concrete_edge("agg", "end")
        await GraphExecutor(builder.build_graph(), State()).execute()
        assert order == list(range(12))


async def test_maximum_concurrency_counted_in_a_closure():
    now, most = 0, 0

    @tool_method
    async def tool(state):
        """Counts."""
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return State(["done"])

    builder = GraphBuilder()
    builder.add_aggregator(AggregatorNode("agg", collect))
    for n in range(5):
        builder.add_node(ToolNode(f"t{n}", "d", tool))
        builder.add_concrete_edge("start", f"t{n}")
        builder.add_concrete_edge(f"t{n}", "agg")
    builder.add_concrete_edge("agg", "end")
    final = await GraphExecutor(builder.build_graph(), State(), max_workers=2).execute()
    assert final.messages == ["done"] * 5
    assert most == 2


async def test_a_returned_state_that_is_changed_later():
    kept = []

    @aggregator_action
    def keep(states):
        kept.append(State(["agg"]))
        return kept[0]

    @node_action
    def act(state):
        return state

    graph = chain(ProcessingNode("a", act), AggregatorNode("agg", keep))
    final = await GraphExecutor(graph, State()).execute()
    kept[0].messages.append("later")
    assert final == State(["agg"])


async def test_attributes_of_nodes_and_actions():
    class Counting(Node):
        calls = 0

        async def execute(self, state):
            self.calls += 1
            return State([*state.messages, self.calls])

    class Model(AIActionBase):
        def build_model(self):
            self.model = []
            self._model_built = True

        def process_state(self, state):
            self.model.append(len(state.messages))
            return state

    node, action = Counting("c"), Model({})
    graph = chain(node, AINode("ai", "d", action))
    assert await GraphExecutor(graph, State()).execute() == State([1])
    assert await GraphExecutor(graph, State()).execute() == State([2])
    assert node.calls == 2
    assert action._model_built is True
    assert action.model == [1, 1]


async def test_objects_of_the_driver_are_used_as_they_are():
    class Client:
        def __init__(self):
            self.sent = []
            self.lock = asyncio.Lock()

        async def send(self, text):
            async with self.lock:
                self.sent.append(text)

    client, queue = Client(), asyncio.Queue()

    @node_action
    async def act(state):
        await client.send("hello")
        await queue.put(1)
        return state

    await GraphExecutor(chain(ProcessingNode("n", act)), State()).execute()
    assert client.sent == ["hello"]
    assert queue.qsize() == 1


async def test_a_node_waits_for_an_event_of_the_driver():
    event = asyncio.Event()

    @node_action
    async def waits(state):
        await event.wait()
        return State(["released"])

    task = asyncio.create_task(GraphExecutor(chain(ProcessingNode("n", waits)), State()).execute())
    await asyncio.sleep(0.05)
    assert not task.done()
    event.set()
    assert await task == State(["released"])


async def test_the_loop_stays_free_while_sync_nodes_block():  # ours: they run in threads
    ticks = []

    @node_action
    def blocks(state):
        time.sleep(0.2)
        return state

    async def ticker():
        while True:
            ticks.append(1)
            await asyncio.sleep(0.01)

    beside = asyncio.create_task(ticker())
    await GraphExecutor(chain(ProcessingNode("n", blocks)), State()).execute()
    beside.cancel()
    assert len(ticks) > 3


async def test_a_mocked_action():
    from unittest.mock import AsyncMock, Mock

    mock = Mock(return_value=State(["mocked"]), __name__="mock")
    mock.is_node_action = True
    async_mock = AsyncMock(return_value=State(["async"]), __name__="mock")
    async_mock.is_node_action = True
    graph = chain(ProcessingNode("a", mock), ProcessingNode("b", async_mock))
    assert await GraphExecutor(graph, State(["in"])).execute() == State(["async"])
    mock.assert_called_once_with(State(["in"]))
    async_mock.assert_awaited_once_with(State(["mocked"]))


async def test_monkeypatched_module_functions(monkeypatch):
    monkeypatch.setitem(globals(), "helper", lambda: "patched")

    @node_action
    def act(state):
        return State([helper()])  # noqa: F821

    assert await GraphExecutor(chain(ProcessingNode("n", act)), State()).execute() == State(
        ["patched"]
    )


async def test_what_cannot_be_copied_is_named():
    import threading

    @node_action
    def locked(state):
        return State(["fine", {"lock": threading.Lock()}])

    with pytest.raises(GraphExecutionError, match="lock"):
        await GraphExecutor(chain(ProcessingNode("n", locked)), State()).execute()


async def test_seeded_random_numbers_in_parallel_nodes():
    import random

    @node_action
    def draw(state):
        return State([random.random()])

    builder = GraphBuilder()
    builder.add_aggregator(AggregatorNode("agg", collect))
    for n in range(5):
        builder.add_node(ProcessingNode(f"n{n}", draw))
        builder.add_concrete_edge("start", f"n{n}")
        builder.add_concrete_edge(f"n{n}", "agg")
    builder.add_concrete_edge("agg", "end")
    graph = builder.build_graph()
    random.seed(1)
    expected = [random.random() for _ in range(5)]
    for _ in range(20):
        random.seed(1)
        assert (await GraphExecutor(graph, State()).execute()).messages == expected


async def test_methods_of_a_local_state_class():
    log = []

    class Noting(State):
        total = 0

        def note(self, text):
            log.append(text)
            Noting.total += 1
            return Noting([*self.messages, text])

    @node_action
    def sync_note(state):
        return state.note("sync")

    @node_action
    async def async_note(state):
        return state.note("async")

    graph = chain(ProcessingNode("a", sync_note), ProcessingNode("b", async_note))
    final = await GraphExecutor(graph, Noting(["in"])).execute()
    final.note("driver")
    assert log == ["sync", "async", "driver"]
    assert Noting.total == 3


async def test_a_callback_inside_a_message():
    log = []

    def callback(text):
        log.append(text)

    @node_action
    def act(state):
        state.messages[0]["on_done"]("done")
        return state

    initial = State([{"on_done": callback}])
    final = await GraphExecutor(chain(ProcessingNode("n", act)), initial).execute()
    assert log == ["done"]
    assert final.messages[0]["on_done"] is callback
