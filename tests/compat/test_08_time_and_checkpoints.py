"""Superstep time-outs, checkpoints and resuming."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

import pytest

from graphorch_ray import (
    AggregatorNode,
    CheckpointData,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
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
    state.messages.append(state.messages[-1] + 1)
    return state


@node_action
async def increment_async(state):
    await asyncio.sleep(0)
    state.messages.append(state.messages[-1] + 1)
    return state


@routing_function
def until_six(state):
    return "end" if state.messages[-1] >= 6 else "n"


def chain(**actions):
    builder = GraphBuilder()
    before = "start"
    for node_id, action in actions.items():
        builder.add_node(ProcessingNode(node_id, action))
        builder.add_concrete_edge(before, node_id)
        before = node_id
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()


def loop():
    builder = GraphBuilder("loop")
    builder.add_node(ProcessingNode("n", increment))
    builder.add_concrete_edge("start", "n")
    builder.add_conditional_edge("n", ["n", "end"], until_six)
    return builder.build_graph()


def sleeper(journal, seconds, *, asynchronous, only_first=False):
    """Notes `entered`, sleeps (perhaps only at the first visit), notes `done`."""

    def wait(state):
        return seconds if journal.write("entered") == 1 or not only_first else 0

    @node_action
    def sleep(state):
        time.sleep(wait(state))
        journal.write("done")
        return State([*state.messages, "slept"])

    @node_action
    async def sleep_async(state):
        await asyncio.sleep(wait(state))
        journal.write("done")
        return State([*state.messages, "slept"])

    return sleep_async if asynchronous else sleep


# --- time-outs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_superstep_timeout(journal, asynchronous):
    graph = chain(slow=sleeper(journal, 2.0, asynchronous=asynchronous))
    began = time.monotonic()
    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(graph, State()).execute(superstep_timeout=0.5)
    assert time.monotonic() - began < 1.9
    assert caught.value.node_id == "slow"
    assert caught.value.message == "Execution timed out after 0.5s."
    assert "timed out" in str(caught.value).lower()


async def test_the_limit_is_printed_as_it_was_given(journal):
    graph = chain(slow=sleeper(journal, 3.0, asynchronous=True))
    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(graph, State()).execute(10, 1)
    assert caught.value.message == "Execution timed out after 1s."


async def test_a_superstep_timeout_never_invokes_the_fallback(journal):
    @node_action
    def spare(state):
        journal.write("spare")
        return state

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("slow", sleeper(journal, 3.0, asynchronous=True)))
    builder.add_node(ProcessingNode("spare", spare))
    builder.set_fallback_node("slow", "spare")
    builder.set_node_retry_policy("slow", RetryPolicy(3, 0, 0))
    builder.add_concrete_edge("start", "slow")
    builder.add_concrete_edge("slow", "end")
    with pytest.raises(GraphExecutionError, match="timed out"):
        await GraphExecutor(builder.build_graph(), State()).execute(superstep_timeout=0.4)
    assert journal.lines() in (["entered"], [])


async def test_retries_and_their_waits_count(journal):
    @node_action
    async def fails(state):
        journal.write("try")
        raise OSError("again")

    executor = GraphExecutor(chain(n=fails), State(), retry_policy=RetryPolicy(9, 5.0, 1.0))
    with pytest.raises(GraphExecutionError, match=r"timed out after 0\.5s"):
        await executor.execute(superstep_timeout=0.5)
    assert journal.count("try") == 1


async def test_no_timeout_at_all():
    graph = chain(n=increment, m=increment_async)
    final = await GraphExecutor(graph, State([1])).execute(superstep_timeout=None)
    assert final == State([1, 2, 3])


async def test_each_superstep_has_the_whole_time():
    @node_action
    async def nap(state):
        await asyncio.sleep(0.6)
        return state

    graph = chain(a=nap, b=nap, c=nap, d=nap, e=nap)
    assert await GraphExecutor(graph, State([1])).execute(superstep_timeout=2.5) == State([1])


# --- checkpoints -------------------------------------------------------------------------------


def test_fallback_option_without_a_path():
    with pytest.raises(GraphExecutionError) as caught:
        GraphExecutor(loop(), State([0]), allow_fallback_from_checkpoint=True)
    assert caught.value.node_id == "GraphExecutor"
    assert caught.value.message == (
        "Fallback from checkpoint is enabled, but no checkpoint_path is provided."
    )


def test_executor_attributes(tmp_path):
    graph, initial, policy = loop(), State([0]), RetryPolicy(1, 0.5, 1.0)
    path = str(tmp_path / "c.pkl")
    executor = GraphExecutor(graph, initial, 3, policy, path, 2, True)
    assert executor.graph is graph
    assert executor.initial_state is initial
    assert executor.max_workers == 3
    assert executor.retry_policy is policy
    assert executor.checkpoint_path == path
    assert executor.checkpoint_every == 2
    assert executor.allow_fallback_from_checkpoint is True
    assert executor.superstep == 0
    assert executor.final_state is None
    assert list(executor.active_states) == ["start"]
    assert executor.active_states["start"] == [State([0])]
    plain = GraphExecutor(graph=graph, initial_state=initial)
    assert (plain.max_workers, plain.checkpoint_path, plain.checkpoint_every) == (4, None, None)
    assert plain.retry_policy == RetryPolicy(max_retries=0, delay=0)


async def test_automatic_checkpoints_replace_one_another(tmp_path):
    path = tmp_path / "run.pkl"
    executor = GraphExecutor(loop(), State([0]), checkpoint_path=str(path), checkpoint_every=1)
    with pytest.raises(GraphExecutionError):
        await executor.execute(max_supersteps=4)
    saved = CheckpointData.load(str(path))
    assert isinstance(saved, CheckpointData)
    assert saved.superstep == 4
    assert saved.active_states["n"] == [State([0, 1, 2, 3])]
    assert saved.initial_state == State([0])
    assert saved.final_state is None
    assert saved.max_workers == 4
    assert saved.retry_policy == RetryPolicy(0, 0)
    assert list(saved.graph.nodes) == ["start", "end", "n"]
    assert [p.name for p in tmp_path.iterdir()] == ["run.pkl"]


async def test_resume_after_max_supersteps(tmp_path):
    path = tmp_path / "run.pkl"
    first = GraphExecutor(loop(), State([0]), 2, None, path, 2)
    with pytest.raises(GraphExecutionError):
        await first.execute(max_supersteps=4)
    executor = GraphExecutor.from_checkpoint(CheckpointData.load(path))
    assert executor.superstep == 4
    assert executor.max_workers == 2
    assert executor.initial_state == State([0])
    assert executor.active_states["n"] == [State([0, 1, 2, 3])]
    with pytest.raises(GraphExecutionError, match="Max supersteps"):
        await executor.execute(max_supersteps=5)  # counted over resumes
    assert await executor.execute() == State([0, 1, 2, 3, 4, 5, 6])


async def test_resume_after_a_failure_runs_nothing_twice(tmp_path, journal):
    repaired = tmp_path / "repaired"

    @node_action
    def first(state):
        journal.write("first")
        return State([*state.messages, "first"])

    @node_action
    def second(state):
        journal.write("second")
        if not repaired.exists():
            raise RuntimeError("disk full")
        return State([*state.messages, "second"])

    path = str(tmp_path / "run.pkl")
    executor = GraphExecutor(
        chain(a=first, b=second), State(), checkpoint_path=path, checkpoint_every=1
    )
    with pytest.raises(GraphExecutionError, match="disk full"):
        await executor.execute()
    repaired.touch()
    resumed = GraphExecutor.from_checkpoint(CheckpointData.load(path), path, 1)
    assert resumed.checkpoint_path == path
    assert await resumed.execute() == State(["first", "second"])
    assert journal.lines() == ["first", "second", "second"]
    # *Changed*, E14: a finished run is known to be finished and gives its final state.
    again = GraphExecutor.from_checkpoint(CheckpointData.load(path))
    assert await again.execute() == State(["first", "second"])
    assert len(journal.lines()) == 3


async def test_several_states_wait_for_an_aggregator(tmp_path):
    @aggregator_action
    def merge(states):
        return State([m for s in states for m in s.messages])

    builder = GraphBuilder()
    builder.add_aggregator(AggregatorNode("agg", merge))
    for node_id, action in (("a", increment), ("b", increment_async)):
        builder.add_node(ProcessingNode(node_id, action))
        builder.add_concrete_edge("start", node_id)
        builder.add_concrete_edge(node_id, "agg")
    builder.add_concrete_edge("agg", "end")
    path = str(tmp_path / "run.pkl")
    executor = GraphExecutor(
        builder.build_graph(), State([1]), checkpoint_path=path, checkpoint_every=1
    )
    with pytest.raises(GraphExecutionError):
        await executor.execute(max_supersteps=2)
    saved = CheckpointData.load(path)
    assert saved.active_states == {"agg": [State([1, 2]), State([1, 2])]}
    assert await GraphExecutor.from_checkpoint(saved).execute() == State([1, 2, 1, 2])


async def test_a_checkpoint_made_by_hand(tmp_path):
    active = defaultdict(list)
    active["n"].append(State([3, 4]))
    made = CheckpointData(loop(), State([0]), active, 7, None, RetryPolicy(0, 0), 2)
    made.save(str(tmp_path / "made.pkl"))
    loaded = CheckpointData.load(str(tmp_path / "made.pkl"))
    assert loaded is not made
    executor = GraphExecutor.from_checkpoint(
        chkpt=loaded, checkpoint_path=None, checkpoint_every=None
    )
    assert executor.superstep == 7
    assert await executor.execute() == State([3, 4, 5, 6])
    assert executor.superstep == 10


async def test_to_checkpoint_before_and_after(tmp_path):
    executor = GraphExecutor(loop(), State([4]), 3)
    before = executor.to_checkpoint()
    assert (before.superstep, before.max_workers) == (0, 3)
    assert before.active_states == {"start": [State([4])]}
    assert before.final_state is None
    assert await executor.execute() == State([4, 5, 6])
    after = executor.to_checkpoint()
    assert after.active_states == {}
    assert after.superstep == executor.superstep == 4
    assert after.final_state == State([4, 5, 6])
    assert await GraphExecutor.from_checkpoint(before).execute() == State([4, 5, 6])


async def test_a_path_without_an_interval(tmp_path):
    path = tmp_path / "run.pkl"
    executor = GraphExecutor(loop(), State([4]), checkpoint_path=str(path))
    assert await executor.execute() == State([4, 5, 6])
    assert CheckpointData.load(str(path)).final_state == State([4, 5, 6])  # *Changed*, E14


def test_load_of_what_is_not_there_or_not_a_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError):
        CheckpointData.load(str(tmp_path / "missing.pkl"))
    bad = tmp_path / "bad.pkl"
    bad.write_bytes(b"this is no pickle")
    with pytest.raises(Exception, match=r"bad\.pkl"):
        CheckpointData.load(str(bad))
    with pytest.raises((AttributeError, TypeError)):
        GraphExecutor.from_checkpoint(str(bad))


async def test_checkpoint_of_local_functions_and_rich_messages(tmp_path):
    factor = 10

    @node_action
    def scale(state):
        return State([{"value": m["value"] * factor, "kind": m["kind"]} for m in state.messages])

    path = str(tmp_path / "run.pkl")
    executor = GraphExecutor(
        chain(a=scale, b=scale),
        State([{"value": 2, "kind": complex(1, 2)}]),
        checkpoint_path=path,
        checkpoint_every=1,
    )
    with pytest.raises(GraphExecutionError):
        await executor.execute(max_supersteps=2)
    resumed = GraphExecutor.from_checkpoint(CheckpointData.load(path))
    assert (await resumed.execute()).messages == [{"value": 200, "kind": complex(1, 2)}]


async def test_fallback_from_the_checkpoint(tmp_path, journal):
    @node_action
    def after(state):
        journal.write("after")
        return State([*state.messages, "after"])

    graph = chain(node1=sleeper(journal, 10.0, asynchronous=True, only_first=True), node2=after)
    executor = GraphExecutor(
        graph,
        State(),
        checkpoint_path=str(tmp_path / "run.pkl"),
        checkpoint_every=1,
        allow_fallback_from_checkpoint=True,
    )
    assert await executor.execute(superstep_timeout=1.0) == State(["slept", "after"])
    assert journal.lines() == ["entered", "entered", "done", "after"]


async def test_the_checkpoint_fallback_is_taken_once(tmp_path, journal):
    executor = GraphExecutor(
        chain(node1=sleeper(journal, 10.0, asynchronous=True)),
        State(),
        checkpoint_path=str(tmp_path / "run.pkl"),
        checkpoint_every=1,
        allow_fallback_from_checkpoint=True,
    )
    with pytest.raises(GraphExecutionError, match="timed out"):
        await executor.execute(superstep_timeout=0.5)
    assert journal.count("entered") == 2


async def test_the_checkpoint_fallback_needs_no_interval(tmp_path, journal):  # *Changed*, E10
    executor = GraphExecutor(
        chain(node1=sleeper(journal, 10.0, asynchronous=True, only_first=True)),
        State(),
        checkpoint_path=str(tmp_path / "run.pkl"),
        allow_fallback_from_checkpoint=True,
    )
    assert await executor.execute(superstep_timeout=0.8) == State(["slept"])


async def test_without_the_option_a_timeout_is_an_error(tmp_path, journal):
    executor = GraphExecutor(
        chain(node1=sleeper(journal, 10.0, asynchronous=True, only_first=True)),
        State(),
        checkpoint_path=str(tmp_path / "run.pkl"),
        checkpoint_every=1,
    )
    with pytest.raises(GraphExecutionError, match="timed out"):
        await executor.execute(superstep_timeout=0.5)
    resumed = GraphExecutor.from_checkpoint(CheckpointData.load(str(tmp_path / "run.pkl")))
    assert await resumed.execute() == State(["slept"])


async def test_the_callers_own_timeout(journal):
    executor = GraphExecutor(
        chain(node1=sleeper(journal, 5.0, asynchronous=True, only_first=True)), State()
    )
    task = asyncio.create_task(executor.execute())
    await asyncio.to_thread(journal.wait_for, "entered")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await executor.execute() == State(["slept"])
