"""Supersteps of one short node each run ahead on one worker; nothing but the speed shows it."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphorch_ray import (
    AggregatorNode,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    current_execution,
    node_action,
    routing_function,
)
from graphorch_ray.runtime.on_ray import batches
from graphorch_ray.runtime.on_ray.items import REST_STEPS
from graphorch_ray.telemetry.events import NodeCompleted

from .nodes import fallback, gather, once

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(autouse=True)
def short_is_short_on_a_busy_machine(request, monkeypatch):
    """The functions here are short, however long others keep the cores from them."""
    if request.function is not test_what_was_long_once_is_not_run_ahead:
        monkeypatch.setattr(batches, "SHORT_SECONDS", 2 * batches.BATCH_SECONDS)


def line_of(nodes, fallbacks=None):
    """A graph of nodes one after another."""
    builder = GraphBuilder("line")
    before = "start"
    for node in nodes:
        add = builder.add_aggregator if isinstance(node, AggregatorNode) else builder.add_node
        add(node)
        builder.add_concrete_edge(before, node.node_id)
        before = node.node_id
    builder.add_concrete_edge(before, "end")
    for node_id, other in (fallbacks or {}).items():
        builder.add_node(other)
        builder.set_fallback_node(node_id, other.node_id)
    return builder.build_graph()


def loop_of(action, router, **options):
    """A node that is repeated as long as a router says so."""
    builder = GraphBuilder("loop")
    builder.add_node(ProcessingNode("work", action, **options))
    builder.add_concrete_edge("start", "work")
    builder.add_conditional_edge("work", ["work", "end"], router)
    return builder.build_graph()


def until(count, placement="worker"):
    @routing_function(placement=placement)
    def again(state):
        return "end" if state.messages[0] >= count else "work"

    return again


@node_action
def one_more(state):
    return State([state.messages[0] + 1])


@node_action
def trace(state):
    info = current_execution()
    key = info.idempotency_key.removeprefix(info.run_id)
    told = (os.getpid(), info.superstep, info.node_id, key, info.attempt)
    return State([*state.messages, told])


class Run:
    """An executor, its result, and which of its executions ran ahead."""

    def __init__(self, graph, state, backend="ray", *, steps=10_000, timeout=300, **options):
        self.executor = GraphExecutor(graph, state, backend=backend, **options)
        self.ahead: list[str] = []
        self.executor.add_observer(self._seen)
        self.error: GraphExecutionError | None = None
        self.messages = None
        try:
            result = self.executor.run(max_supersteps=steps, superstep_timeout=timeout)
            self.messages = result.messages
        except GraphExecutionError as error:
            self.error = error

    def _seen(self, event):
        if isinstance(event, NodeCompleted) and event.facts.ran_ahead:
            self.ahead.append(event.node_id)

    @property
    def told(self):
        """What must not depend on how it ran."""
        summary = self.executor.summary
        attempts = {node_id: node.attempts for node_id, node in summary.nodes.items()}
        return self.messages, str(self.error), summary.supersteps, attempts


def test_a_chain_runs_on_one_worker_and_is_told_superstep_by_superstep():
    nodes = [ProcessingNode(f"n{i}", trace) for i in range(60)]
    run = Run(line_of(nodes), State([]))
    assert [told[1:3] for told in run.messages] == [(i + 1, f"n{i}") for i in range(60)]
    assert len(run.ahead) > 30  # a busy machine may make one look long, which ends a stretch
    processes = {told[2]: told[0] for told in run.messages}
    assert all(processes[f"n{int(name[1:]) - 1}"] == processes[name] for name in run.ahead)
    inline = Run(line_of(nodes), State([]), "inline")
    assert [told[1:] for told in run.messages] == [told[1:] for told in inline.messages]
    assert run.told[2:] == inline.told[2:]


@pytest.mark.parametrize("placement", ["worker", "driver"])
def test_a_loop_runs_ahead_where_its_router_runs_beside_the_node(placement):
    count = 700 if placement == "worker" else 20
    run = Run(loop_of(one_more, until(count, placement)), State([0]))
    assert run.messages == [count]
    assert run.executor.summary.nodes["work"].attempts == count
    assert len(run.ahead) > 400 if placement == "worker" else not run.ahead


def test_E7_a_loop_stops_where_max_supersteps_says_and_nothing_runs_beyond(tmp_path):
    ledger = str(tmp_path / "ledger")

    @node_action
    def note(state):
        with open(ledger, "a") as file:
            file.write("x")
        return State([state.messages[0] + 1])

    graph = loop_of(note, until(1_000))
    run = Run(graph, State([0]), steps=50)
    assert run.told == Run(graph, State([0]), "inline", steps=50).told
    assert run.ahead
    with open(ledger) as file:
        assert len(file.read()) == 2 * 49  # superstep 0 is start's


def test_E5_a_failure_in_a_stretch_has_its_retries_and_its_fallback(tmp_path):
    @node_action
    def fails_once(state):
        if once(str(tmp_path / current_execution().run_id)):
            raise ValueError("not yet")
        return State([*state.messages, "at last"])

    @node_action
    def fails(state):
        raise ValueError("never")

    nodes = [ProcessingNode(f"n{i}", trace) for i in range(12)]
    nodes[3] = ProcessingNode("n3", fails_once)
    nodes[3].set_retry_policy(RetryPolicy(2, 0))
    nodes[7] = ProcessingNode("n7", fails)
    graph = line_of(nodes, {"n7": ProcessingNode("instead", fallback)})
    run = Run(graph, State([]))
    assert [told[1:3] for told in run.messages[1:]] == [(i + 1, f"n{i}") for i in range(8, 12)]
    assert run.messages[0] == "fallback"
    assert run.told[2:] == Run(graph, State([]), "inline").told[2:]
    assert run.executor.summary.nodes["n3"].attempts == 2
    assert {f"n{i}" for i in range(1, 7)} & set(run.ahead)
    assert {"n9", "n10", "n11"} & set(run.ahead)


def test_E9_a_superstep_that_hangs_in_a_stretch_is_the_one_that_times_out():
    @node_action
    def hangs(state):
        time.sleep(600)
        return state

    nodes = [ProcessingNode(f"n{i}", one_more) for i in range(10)]
    nodes[6] = ProcessingNode("n6", hangs)
    run = Run(line_of(nodes), State([0]), timeout=1.5)
    assert {"n1", "n2", "n3", "n4", "n5"} & set(run.ahead)
    assert run.error is not None
    assert (run.error.node_id, run.error.superstep) == ("n6", 7)
    assert "timed out after 1.5s" in str(run.error)


def test_E9_a_nodes_own_timeout_counts_in_a_stretch():
    @node_action
    def hangs(state):
        time.sleep(600)
        return state

    nodes = [ProcessingNode(f"n{i}", one_more, timeout=30) for i in range(10)]
    nodes[6] = ProcessingNode("n6", hangs, timeout=0.5)
    run = Run(line_of(nodes, {"n6": ProcessingNode("instead", one_more)}), State([0]))
    assert run.messages == [10]
    assert run.executor.summary.nodes["n6"].timeouts == 1
    assert run.executor.summary.uncharged_reruns == 0


def test_E6_a_crash_in_a_stretch_costs_a_run_of_what_was_not_reported(tmp_path):
    @node_action
    def dies(state):
        if current_execution().superstep == 30 and once(str(tmp_path / "died")):
            time.sleep(0.1)  # what was before it has been reported by now
            os.kill(os.getpid(), signal.SIGKILL)
        return State([state.messages[0] + 1])

    run = Run(loop_of(dies, until(60)), State([0]))
    assert (tmp_path / "died").exists()
    summary = run.executor.summary
    assert run.messages == [60]
    assert (summary.workers_lost, summary.infrastructure_failures) == (1, 0)
    assert summary.uncharged_reruns == 1


def test_E6_what_kills_its_worker_each_time_is_charged_and_named():
    @node_action
    def dies(state):
        os.kill(os.getpid(), signal.SIGKILL)

    nodes = [ProcessingNode(f"n{i}", one_more) for i in range(6)]
    nodes[4] = ProcessingNode("n4", dies)
    run = Run(line_of(nodes), State([0]), infrastructure_retries=1)
    assert run.error is not None
    assert run.error.node_id == "n4"
    assert run.executor.summary.nodes["n4"].infrastructure_failures == 2
    assert all(run.executor.summary.nodes[f"n{i}"].attempts >= 1 for i in range(4))


@node_action
def one_more_large(state):
    """A state that is an object of its own on its way to the driver."""
    return State([state.messages[0] + 1, bytes(2 * 2**20)])


def noting(ledger):
    """A node that writes down its turns, and gives large states."""

    @node_action
    def noted(state):
        with ledger.open("a") as file:
            file.write(f"{current_execution().node_id} {state.messages[0]}\n")
        return State([state.messages[0] + 1, bytes(100_000)])

    return noted


def test_of_large_states_the_driver_is_given_those_that_it_may_rest_at():
    run = Run(loop_of(one_more_large, until(200)), State([0, b""]))
    summary = run.executor.summary
    assert run.messages == [200, bytes(2 * 2**20)]
    assert len(run.ahead) > 50
    assert (summary.nodes["work"].attempts, summary.states_remade) == (200, 0)


def test_where_a_run_may_rest_its_states_can_be_read():
    """A hosted run may be held there, and asked."""

    @node_action
    def one_more(state):
        return State([state.messages[0] + 1, bytes(20_000)])

    executor = GraphExecutor(loop_of(one_more, until(400)), State([0, b""]), backend="ray")
    rests = []

    async def rest():
        ((state,),) = executor.active_states.values()
        rests.append((executor.superstep, state.messages[0]))

    executor._at_barrier = rest
    assert executor.run(max_supersteps=1000).messages[0] == 400
    assert all(superstep == turn + 1 for superstep, turn in rests)
    assert 400 // REST_STEPS <= len(rests) < 400  # the others were passed over


def test_a_run_that_is_cancelled_over_large_states_goes_on_from_where_it_stands(tmp_path):
    ledger = tmp_path / "ledger"
    graph = loop_of(noting(ledger), until(3_000))
    executor = GraphExecutor(
        graph,
        State([0, b""]),
        backend="ray",
        checkpoint_path=str(tmp_path / "run"),
        checkpoint_durability="exit",
    )

    async def cancel():
        task = asyncio.ensure_future(executor.execute(max_supersteps=10_000))
        while executor.superstep < 300:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    stood = executor.superstep - 1
    ((state,),) = executor.active_states.values()
    assert state.messages[0] == stood
    assert executor.summary.states_remade == 0
    resumed = GraphExecutor.resume(str(tmp_path / "run"), graph=graph, backend="ray")
    assert resumed.superstep == executor.superstep
    assert resumed.run(max_supersteps=10_000).messages[0] == 3_000
    turns = [int(line.split()[1]) for line in ledger.read_text().splitlines()]
    first = len(turns) - (3_000 - stood)  # the worker may have been ahead
    assert turns[:first] == list(range(first))
    assert turns[first:] == list(range(stood, 3_000))
    assert first >= stood


@pytest.mark.parametrize("what", ["node", "router"])
def test_E5_a_failure_over_large_states_has_the_state_before_it(tmp_path, what):
    """The last state before a failure is one that the driver needs."""
    once_failed = tmp_path / "failed"

    @node_action
    def act(state):
        if what == "node" and state.messages[0] == 77 and not once_failed.exists():
            once_failed.touch()
            raise ValueError("once")
        return State([state.messages[0] + 1, bytes(100_000)])

    @routing_function(placement="worker")
    def again(state):
        if what == "router" and state.messages[0] == 78 and not once_failed.exists():
            once_failed.touch()
            raise ValueError("once")
        return "end" if state.messages[0] >= 150 else "work"

    executor = GraphExecutor(
        loop_of(act, again), State([0, b""]), backend="ray", retry_policy=RetryPolicy(1, delay=0)
    )
    if what == "router":
        with pytest.raises(GraphExecutionError, match="once"):
            executor.run(max_supersteps=1000)
        assert executor.superstep == 78
        ((state,),) = executor.active_states.values()
        assert state.messages[0] == 77
    assert executor.run(max_supersteps=1000).messages[0] == 150
    assert once_failed.exists()
    assert executor.summary.states_remade == 0


def test_E3_a_wrong_answer_ends_a_stretch_and_nothing_runs_beyond(tmp_path):
    ledger = tmp_path / "ledger"
    noted = noting(ledger)

    @routing_function(placement="worker")
    def wrong_in_the_end(state):
        return "a" if state.messages[0] < 100 else "b"  # a node, and no sink of this edge

    builder = GraphBuilder("wrong")
    builder.add_node(ProcessingNode("a", noted))
    builder.add_node(ProcessingNode("b", noted))
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "b")
    builder.add_conditional_edge("b", ["a", "end"], wrong_in_the_end)
    executor = GraphExecutor(
        builder.build_graph(),
        State([0, b""]),
        backend="ray",
        checkpoint_path=str(tmp_path / "run"),
        checkpoint_durability="exit",
    )
    with pytest.raises(GraphExecutionError, match="Invalid routing output: 'b'"):
        executor.run(max_supersteps=1000)
    assert ledger.read_text().splitlines()[-1] == "b 99"
    ((state,),) = executor.active_states.values()
    assert (executor.superstep, state.messages[0]) == (100, 99)
    assert executor.summary.states_remade == 0


def test_a_stretch_goes_on_until_what_it_gives_the_driver_is_many_bytes():
    """The driver, which frees it, may be behind."""

    @node_action
    def grow(state):
        time.sleep(0.01)  # each is reported by itself or with another
        return State([state.messages[0] + 1, bytes(8 * 2**20)])

    nodes = [ProcessingNode(f"n{i}", one_more) for i in range(4)]
    nodes += [ProcessingNode(f"large{i}", grow) for i in range(12)]
    run = Run(line_of([*nodes, ProcessingNode("last", one_more)]), State([0]))
    assert run.messages == [17]
    assert any(f"large{i}" not in run.ahead for i in range(1, 12))


@pytest.mark.parametrize("length", [20_000, 200_000])
def test_nodes_on_a_track_may_use_an_array_of_their_own_again(length):
    """What one gave is out of its reach before the next runs, and before it is sent."""

    @node_action
    def fill(state):
        turn = state.messages[0]
        buffer = _buffer(length)
        before = float(state.messages[1][0]) if turn else 0.0
        buffer[:] = turn + 1
        return State([turn + 1, buffer, [*state.messages[2], before]])

    run = Run(loop_of(fill, until(12)), State([0, None, []]))
    turn, array, seen = run.messages
    assert run.ahead
    assert (turn, float(array[0]), float(array[-1])) == (12, 12.0, 12.0)
    assert seen == [float(n) for n in range(12)]


def _buffer(length):
    """One array in each process, large enough to travel beside the pickle."""
    import numpy as np

    import graphorch_ray

    if len(getattr(graphorch_ray, "_tests_buffer", ())) != length:
        graphorch_ray._tests_buffer = np.zeros(length)
    return graphorch_ray._tests_buffer


def test_a_stretch_ends_where_several_nodes_are_active_and_begins_again_behind_them():
    builder = GraphBuilder("diamond")
    for name in ("a", "b", "left", "right", "c", "d"):
        builder.add_node(ProcessingNode(name, trace))
    builder.add_aggregator(AggregatorNode("join", gather))
    for edge in ("start a", "a b", "b left", "b right", "left join", "right join", "join c"):
        builder.add_concrete_edge(*edge.split())
    builder.add_concrete_edge("c", "d")
    builder.add_concrete_edge("d", "end")
    run = Run(builder.build_graph(), State([]))
    assert run.ahead
    assert not {"left", "right", "join"} & set(run.ahead)


def test_what_was_long_once_is_not_run_ahead():
    @node_action
    def slow_at_first(state):
        time.sleep(0.5 if state.messages[0] < 2 else 0)
        return State([state.messages[0] + 1])

    run = Run(loop_of(slow_at_first, until(4)), State([0]))
    assert run.messages == [4]
    assert not run.ahead


def test_batch_False_is_not_run_ahead():
    run = Run(loop_of(one_more, until(5), batch=False), State([0]))
    assert (run.messages, run.ahead) == ([5], [])


@pytest.mark.parametrize(("every", "ahead"), [(1, 0), (4, 2 + 4 * 3)])
def test_a_checkpoint_ends_a_stretch(tmp_path, every, ahead):
    run = Run(
        loop_of(one_more, until(20)),
        State([0]),
        checkpoint_path=str(tmp_path / "run"),
        checkpoint_every=every,
        checkpoint_durability="sync",
    )
    assert run.messages == [20]
    assert len(run.ahead) <= ahead
    assert bool(run.ahead) == bool(ahead)


def test_a_run_that_is_cancelled_in_a_stretch_leaves_nothing_running(tmp_path):
    beat = tmp_path / "beat"

    @node_action
    def beats(state):
        beat.write_text(str(time.time()))
        time.sleep(0.001)
        return state

    @routing_function(placement="worker")
    def forever(state):
        return "work"

    executor = GraphExecutor(loop_of(beats, forever), State([0]), backend="ray")
    seen = []

    def stop(event):
        if isinstance(event, NodeCompleted) and event.facts.ran_ahead:
            seen.append(event)

    executor.add_observer(stop)

    async def cancel():
        task = asyncio.ensure_future(executor.execute(max_supersteps=1_000_000))
        while not seen:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    end = time.monotonic() + 5
    while (last := beat.read_text()) != (time.sleep(0.2) or beat.read_text()):
        assert time.monotonic() < end, f"it goes on at {last}"


steps = st.lists(
    st.fixed_dictionaries(
        {
            "failures": st.integers(0, 2),
            "kind": st.sampled_from(["concrete", "worker", "driver"]),
            "nbytes": st.sampled_from([0, 0, 0, 50_000]),
            "fallback": st.booleans(),
        }
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_E17_any_line_gives_the_same_as_in_one_process(drawn):
    @node_action
    def act(state):
        position = int(current_execution().node_id[1:])
        if current_execution().attempt < drawn[position]["failures"]:
            raise ValueError(f"{position} not yet")
        return State([position, *state.messages[1:2], b"x" * drawn[position]["nbytes"]])

    def router_to(sink, placement):
        @routing_function(placement=placement)
        def go(state):
            return sink

        return go

    def graph():
        builder = GraphBuilder("any")
        before, kind = "start", "concrete"
        for position, step in enumerate(drawn):
            name = f"n{position}"
            builder.add_node(ProcessingNode(name, act))
            _join(builder, before, name, kind, router_to)
            if step["fallback"]:
                builder.add_node(ProcessingNode(f"f{position}", fallback))
                builder.set_fallback_node(name, f"f{position}")
            before, kind = name, step["kind"]
        _join(builder, before, "end", kind, router_to)
        return builder.build_graph()

    told = [
        Run(graph(), State([0]), backend, retry_policy=RetryPolicy(1, 0)).told
        for backend in ("ray", "inline")
    ]
    assert told[0] == told[1]


def _join(builder, source, sink, kind, router_to):
    if kind == "concrete":
        builder.add_concrete_edge(source, sink)
    else:
        builder.add_conditional_edge(source, [sink], router_to(sink, kind))
