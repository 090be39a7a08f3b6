"""More ways in which programs use the library."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import pickle
import threading

import pytest

from graphorch_ray import (
    AggregatorNode,
    CheckpointData,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    HumanInTheLoopNode,
    ProcessingNode,
    RetryPolicy,
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
def increment(state):
    return State([*state.messages, len(state.messages)])


@routing_function
def until_four(state):
    return "end" if len(state.messages) >= 4 else "n"


@aggregator_action
def merge(states):
    return State([m for s in states for m in s.messages])


def chain(*nodes):
    builder = GraphBuilder("chain")
    before = "start"
    for node in nodes:
        builder.add_node(node)
        builder.add_concrete_edge(before, node.node_id)
        before = node.node_id
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()


def loop():
    builder = GraphBuilder("loop")
    builder.add_node(ProcessingNode("n", increment))
    builder.add_node(AggregatorNode("agg", merge))
    builder.set_node_retry_policy("n", RetryPolicy(1, 0, 0))
    builder.add_concrete_edge("start", "n")
    builder.add_conditional_edge("n", ["n", "end"], until_four)
    return builder.build_graph()


def test_state_as_a_dataclass():
    state = State([1, {"a": 2}])
    assert dataclasses.asdict(state) == {"messages": [1, {"a": 2}]}
    assert dataclasses.replace(state, messages=[3]) == State([3])
    assert copy.deepcopy(state) == state
    assert copy.copy(state).messages is state.messages
    assert pickle.loads(pickle.dumps(state)) == state
    match state:
        case State([1, {"a": found}]):
            assert found == 2
        case _:
            pytest.fail("no match")
    assert [f.name for f in dataclasses.fields(State)] == ["messages"]
    assert dataclasses.replace(RetryPolicy(), max_retries=1) == RetryPolicy(1)


@pytest.mark.parametrize("twice", [copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
async def test_copied_and_pickled_graphs(twice):
    graph = loop()
    again = twice(graph)
    assert again is not graph
    assert again.name == "loop"
    assert list(again.nodes) == list(graph.nodes)
    assert again.nodes["n"] is not graph.nodes["n"]
    assert again.nodes["n"].retry_policy == RetryPolicy(1, 0, 0)
    assert again.nodes["n"].outgoing_edges == again.conditional_edges
    assert again.conditional_edges[0].sinks[0] is again.nodes["n"]
    assert await GraphExecutor(again, State()).execute() == State([0, 1, 2, 3])
    assert await GraphExecutor(graph, State()).execute() == State([0, 1, 2, 3])


async def test_relative_checkpoint_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    executor = GraphExecutor(loop(), State(), checkpoint_path="case_1.pkl", checkpoint_every=1)
    assert await executor.execute() == State([0, 1, 2, 3])
    assert (tmp_path / "case_1.pkl").exists()
    CheckpointData.load("case_1.pkl").save("case_2.pkl")
    assert CheckpointData.load("case_2.pkl").final_state == State([0, 1, 2, 3])


async def test_options_set_on_the_executor_later(tmp_path, journal):
    @node_action
    def once(state):
        if journal.write("once") == 1:
            raise OSError("once")
        return state

    executor = GraphExecutor(chain(ProcessingNode("n", once)), State([1]))
    executor.retry_policy = RetryPolicy(1, 0, 0)
    executor.max_workers = 1
    executor.checkpoint_path = str(tmp_path / "late.pkl")
    executor.checkpoint_every = 1
    assert await executor.execute() == State([1])
    assert CheckpointData.load(str(tmp_path / "late.pkl")).max_workers == 1


async def test_the_fallback_option_set_after_a_restore(tmp_path, journal):
    @node_action
    async def slow_once(state):
        if journal.write("visit") == 1:
            await asyncio.sleep(10)
        return State([*state.messages, "done"])

    path = str(tmp_path / "run.pkl")
    fresh = GraphExecutor(chain(ProcessingNode("slow", slow_once)), State(), checkpoint_path=path)
    fresh.to_checkpoint().save(path)
    executor = GraphExecutor.from_checkpoint(CheckpointData.load(path), path, 1)
    executor.allow_fallback_from_checkpoint = True
    assert await executor.execute(superstep_timeout=1.0) == State(["done"])


async def test_active_states_answer_like_the_original_dict():
    executor = GraphExecutor(loop(), State(["x"]))
    assert executor.active_states["nope"] == []
    assert dict(executor.active_states) == {"start": [State(["x"])]}
    assert "start" in executor.active_states
    assert list(executor.active_states.items()) == [("start", [State(["x"])])]
    assert bool(executor.active_states)
    await executor.execute()
    assert not executor.active_states


async def test_subclasses_of_executor_and_builder():
    class Builder(GraphBuilder):
        def add(self, node_id, action):
            self.add_node(ProcessingNode(node_id, action))
            return self

    class Executor(GraphExecutor):
        async def execute(self, *args, **kwargs):
            final = await super().execute(*args, **kwargs)
            return State(["wrapped", *final.messages])

    builder = Builder("mine").add("a", increment).add("b", increment)
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "b")
    builder.add_concrete_edge("b", "end")
    executor = Executor(builder.build_graph(), State())
    assert await executor.execute() == State(["wrapped", 0, 1])
    restored = Executor.from_checkpoint(Executor(builder.build_graph(), State()).to_checkpoint())
    assert type(restored) is Executor
    assert await restored.execute() == State(["wrapped", 0, 1])


def test_executors_in_threads():
    graph, finals = loop(), {}

    def work(name):
        finals[name] = asyncio.run(GraphExecutor(graph, State([name])).execute())

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert finals == {name: State([name, 1, 2, 3]) for name in "ab"}


def test_an_executor_made_outside_and_run_in_two_loops():
    executor = GraphExecutor(loop(), State())
    with pytest.raises(GraphExecutionError):
        asyncio.run(executor.execute(max_supersteps=2))
    assert asyncio.run(executor.execute()) == State([0, 1, 2, 3])


async def test_wait_for_and_task_groups(journal):
    @node_action
    async def slow(state):
        journal.write("entered")
        await asyncio.sleep(5 if state.messages == ["slow"] else 0)
        return state

    graph = chain(ProcessingNode("n", slow))
    executor = GraphExecutor(graph, State(["slow"]))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(executor.execute(), 0.3)
    assert executor.superstep in (0, 1)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(GraphExecutor(graph, State([n])).execute()) for n in range(3)]
    assert [task.result() for task in tasks] == [State([n]) for n in range(3)]


async def test_input_of_a_human_at_the_terminal(monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: f"answer to {prompt}")

    def ask(state):
        return State([*state.messages, input("go on?")])

    final = await GraphExecutor(chain(HumanInTheLoopNode("h", ask)), State()).execute()
    assert final == State(["answer to go on?"])


async def test_a_node_that_cancels_itself():
    @node_action
    async def gives_up(state):
        asyncio.current_task().cancel()
        await asyncio.sleep(1)
        return state

    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(chain(ProcessingNode("n", gives_up)), State()).execute()
    assert caught.value.node_id == "n"


async def test_a_node_that_starts_tasks_and_threads_of_its_own():
    from concurrent.futures import ThreadPoolExecutor

    @node_action
    def threads(state):
        with ThreadPoolExecutor(2) as pool:
            return State(list(pool.map(lambda m: m * 2, state.messages)))

    @node_action
    async def tasks(state):
        made = [asyncio.create_task(asyncio.sleep(0, m + 1)) for m in state.messages]
        return State([await task for task in made])

    graph = chain(ProcessingNode("t", threads), ProcessingNode("a", tasks))
    assert await GraphExecutor(graph, State([1, 2])).execute() == State([3, 5])


async def test_a_cpu_bound_sync_node_beside_async_ones():
    @node_action
    def count(state):
        return State([sum(range(200_000))])

    @node_action
    async def nap(state):
        await asyncio.sleep(0.01)
        return State(["nap"])

    builder = GraphBuilder()
    builder.add_aggregator(AggregatorNode("agg", merge))
    for number in range(6):
        builder.add_node(ProcessingNode(f"n{number}", nap if number % 2 else count))
        builder.add_concrete_edge("start", f"n{number}")
        builder.add_concrete_edge(f"n{number}", "agg")
    builder.add_concrete_edge("agg", "end")
    final = await GraphExecutor(builder.build_graph(), State(), max_workers=6).execute()
    assert final.messages == [19999900000, "nap"] * 3


async def test_a_map_reduce_program():
    text = "the quick brown fox jumps over the lazy dog the end"

    @node_action
    def split(state):
        words = state.messages[0].split()
        return State([words[0::2], words[1::2]])

    def mapper(shard):
        @node_action
        def count(state):
            counts = {}
            for word in state.messages[shard]:
                counts[word] = counts.get(word, 0) + 1
            return State([counts])

        return count

    @aggregator_action
    def reduce(states):
        counts = {}
        for state in states:
            for word, number in state.messages[0].items():
                counts[word] = counts.get(word, 0) + number
        return State([counts])

    builder = GraphBuilder("words")
    builder.add_node(ProcessingNode("split", split))
    builder.add_aggregator(AggregatorNode("reduce", reduce))
    builder.add_concrete_edge("start", "split")
    for shard in range(2):
        builder.add_node(ProcessingNode(f"map{shard}", mapper(shard)))
        builder.add_concrete_edge("split", f"map{shard}")
        builder.add_concrete_edge(f"map{shard}", "reduce")
    builder.add_concrete_edge("reduce", "end")
    final = await GraphExecutor(builder.build_graph(), State([text])).execute()
    assert final.messages[0]["the"] == 3
    assert sum(final.messages[0].values()) == 11


async def test_a_run_leaves_the_programs_classes_alone():
    log = []

    class Basket(State):
        kinds = []  # noqa: RUF012

        def add(self, message):
            self.messages.append(message)
            return self

        def note(self, text):
            log.append(text)

    kinds, add = Basket.kinds, Basket.add

    @node_action
    def act(state):
        return state.add("node")

    final = await GraphExecutor(
        chain(ProcessingNode("a", act), ProcessingNode("b", act)), Basket([])
    ).execute()
    assert type(final) is Basket
    assert final.messages == ["node", "node"]
    assert Basket.kinds is kinds
    assert Basket.add is add
    Basket([]).note("driver")
    assert log == ["driver"]
