"""What both backends promise: one suite that both pass."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import threading
import time
from enum import Enum
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from graphorch_ray import (
    AggregatorNode,
    CheckpointData,
    CheckpointError,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    GraphWarning,
    HumanInTheLoopNode,
    NodeTimeoutError,
    ProcessingNode,
    RetryPolicy,
    State,
    aggregator_action,
    current_execution,
    node_action,
    routing_function,
)
from graphorch_ray.testing import FakeClock

from .nodes import alabel, chain, echo, fail, fallback, gather, label, once, star


def run(graph, state=None, *, backend, superstep_timeout=60.0, **options):
    return GraphExecutor(graph, state or State([]), backend=backend, **options).run(
        superstep_timeout=superstep_timeout
    )


def test_E1_a_graph_runs_to_its_end(backend):
    graph = chain(ProcessingNode("a", label), ProcessingNode("b", alabel))
    assert run(graph, State([0]), backend=backend) == State([0, "a", "b"])


def test_E2_an_aggregator_gets_launch_order_not_completion_order(backend):
    @node_action
    def slow_first(state):
        time.sleep(0.3 if current_execution().node_id == "n0" else 0)
        return State([current_execution().node_id])

    graph = star(*[ProcessingNode(f"n{i}", slow_first) for i in range(4)])
    assert run(graph, backend=backend).messages == [["n0"], ["n1"], ["n2"], ["n3"]]


def test_E2_each_node_has_a_private_copy(backend):
    @node_action
    def spoil(state):
        state.messages[0]["seen"].append(current_execution().node_id)
        return state

    initial = State([{"seen": []}])
    graph = star(ProcessingNode("a", spoil), ProcessingNode("b", spoil))
    result = run(graph, initial, backend=backend)
    assert result.messages == [[{"seen": ["a"]}], [{"seen": ["b"]}]]
    assert initial == State([{"seen": []}])


def test_E2_each_attempt_starts_from_a_fresh_copy(backend, tmp_path):
    @node_action
    def spoil_then_fail(state):
        state.messages.append("spoilt")
        if once(state.messages[0]):
            raise ValueError("first time")
        return state

    graph = chain(ProcessingNode("a", spoil_then_fail))
    path = str(tmp_path / "once")
    result = run(graph, State([path]), backend=backend, retry_policy=RetryPolicy(1, 0))
    assert result == State([path, "spoilt"])


@pytest.mark.parametrize("kind", ["numpy", "arrow"])
def test_E2_large_buffers_are_shared_read_only(backend, kind):
    @node_action
    def look(state):
        value = state.messages[0]
        if isinstance(value, pa.Table):
            return State([value["x"].chunk(0).buffers()[1].is_mutable])
        return State([value.flags.writeable])

    array = np.zeros(100_000)
    value = array if kind == "numpy" else pa.table({"x": array})
    assert run(chain(ProcessingNode("a", look)), State([value]), backend=backend) == State([False])


def test_E2_writing_into_one_says_what_to_do(backend):
    @node_action
    def write(state):
        state.messages[0][0] = 1
        return state

    with pytest.raises(GraphExecutionError, match="read-only") as caught:
        run(chain(ProcessingNode("a", write)), State([np.zeros(100_000)]), backend=backend)
    assert any("mutable=True" in note for note in caught.value.__cause__.__notes__)


def test_E2_mutable_gives_a_node_buffers_of_its_own(backend):
    @node_action(mutable=True)
    def write(state):
        state.messages[0][0] = 1
        return State([float(state.messages[0].sum())])

    initial = State([np.zeros(100_000)])
    assert run(chain(ProcessingNode("a", write)), initial, backend=backend) == State([1.0])
    assert initial.messages[0].sum() == 0


def test_E3_dropped_states_are_warned_of_once_and_counted(backend):
    builder = GraphBuilder()
    for node_id in "ab":
        builder.add_node(ProcessingNode(node_id, label))
        builder.add_concrete_edge("start", node_id)
        builder.add_concrete_edge(node_id, "end")
    executor = GraphExecutor(builder.build_graph(), State([]), backend=backend)
    with pytest.warns(
        GraphWarning, match=r"2 states arrived at once at node 'end' \(from 'a', 'b'"
    ):
        assert executor.run() == State(["a"])
    assert executor.summary.nodes["end"].states_dropped == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_E4_at_most_max_workers_run_and_as_many_are_reached(backend, asynchronous, tmp_path):
    def running(path):
        return len(list(Path(path).glob("n*")))

    def reached(path):
        """Whether three have been seen at once; a slow machine gets time to start them."""
        if running(path) >= 3:
            (Path(path) / "reached").touch()
        return (Path(path) / "reached").exists()

    def begin(state):
        path = state.messages[0]
        (Path(path) / current_execution().node_id).touch()
        return path, time.monotonic() + 20

    def finish(path):
        seen = running(path)
        (Path(path) / current_execution().node_id).unlink()
        return State([seen, reached(path)])

    @node_action
    def sync(state):
        path, end = begin(state)
        while not reached(path) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)
        return finish(path)

    @node_action
    async def coroutine(state):
        path, end = begin(state)
        while not reached(path) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        return finish(path)

    action = coroutine if asynchronous else sync
    graph = star(*[ProcessingNode(f"n{i}", action) for i in range(9)])
    result = run(graph, State([str(tmp_path)]), backend=backend, max_workers=3)
    assert max(seen for seen, _ in result.messages) <= 3
    assert all(reached for _, reached in result.messages)


def test_E5_a_waiting_retry_holds_no_slot(backend, tmp_path):
    @node_action
    def flaky(state):
        if once(state.messages[0]):
            raise ValueError("first time")
        return State(["second time"])

    clock = FakeClock()
    graph = star(
        ProcessingNode("flaky", flaky),
        ProcessingNode("other", label),
        policies={"flaky": RetryPolicy(1, 200.0)},
    )
    executor = GraphExecutor(
        graph, State([str(tmp_path / "once")]), max_workers=1, backend=backend, clock=clock
    )
    result = executor.run()
    assert result.messages[0] == ["second time"]
    assert clock.slept == [200.0]
    assert executor.summary.nodes["flaky"].retries == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_E6_what_node_code_raises_is_a_node_failure(backend, error, asynchronous):
    @node_action
    def sync(state):
        raise error

    @node_action
    async def coroutine(state):
        raise error

    graph = chain(ProcessingNode("a", coroutine if asynchronous else sync))
    executor = GraphExecutor(graph, State([]), backend=backend)
    with pytest.raises(GraphExecutionError, match="node 'a'") as caught:
        executor.run()
    assert type(caught.value.__cause__) is type(error)
    assert executor.summary.infrastructure_failures == 0


def test_E7_a_fallback_runs_on_the_same_input(backend):
    @node_action
    def rescue(state):
        return State([*state.messages, "rescued"])

    graph = star(ProcessingNode("a", fail), fallbacks={"a": ProcessingNode("f", rescue)})
    executor = GraphExecutor(graph, State([7]), backend=backend)
    assert executor.run() == State([[7, "rescued"]])
    assert executor.summary.nodes["a"].fallbacks == 1


def test_E7_a_failing_fallback_is_named(backend):
    graph = star(ProcessingNode("a", fail), fallbacks={"a": ProcessingNode("f", fail)})
    with pytest.raises(GraphExecutionError, match="node 'f': Fallback node failed: no luck"):
        run(graph, backend=backend)


def test_E8_the_error_carries_cause_and_traceback(backend):
    with pytest.raises(GraphExecutionError) as caught:
        run(chain(ProcessingNode("a", fail)), backend=backend)
    error = caught.value
    assert str(error) == "Execution failed at node 'a': no luck"
    assert isinstance(error.__cause__, ValueError)
    assert 'raise ValueError("no luck")' in error.__notes__[0]
    assert (error.node_id, error.message, error.superstep, error.attempt) == ("a", "no luck", 1, 0)


class TwoArguments(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code


class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("kind", "arguments", "text"),
    [(TwoArguments, (7, "odd"), "7: odd"), (Unpicklable, ("locked",), "locked")],
)
def test_E8_odd_exceptions_arrive_with_type_and_text(backend, kind, arguments, text):
    @node_action
    def raise_it(state):
        raise kind(*arguments)

    with pytest.raises(GraphExecutionError, match=text) as caught:
        run(chain(ProcessingNode("a", raise_it)), backend=backend)
    assert type(caught.value.__cause__) is kind
    assert "raise kind(*arguments)" in caught.value.__notes__[0]


def test_E9_a_nodes_timeout_is_a_failure_with_retry_and_fallback(backend):
    @node_action(timeout=0.3)
    async def slow(state):
        await asyncio.sleep(30)
        return state

    graph = star(
        ProcessingNode("slow", slow),
        ProcessingNode("quick", label),
        fallbacks={"slow": ProcessingNode("f", fallback)},
        policies={"slow": RetryPolicy(1, 0)},
    )
    executor = GraphExecutor(graph, State([]), backend=backend)
    assert executor.run(superstep_timeout=30) == State([["fallback"], ["quick"]])
    node = executor.summary.nodes["slow"]
    assert (node.attempts, node.timeouts, node.retries) == (2, 2, 1)


def test_E9_a_nodes_timeout_without_fallback_names_node_and_limit(backend):
    @node_action
    async def slow(state):
        await asyncio.sleep(30)
        return state

    with pytest.raises(GraphExecutionError, match=r"'slow' exceeded its timeout of 0.2s") as caught:
        run(chain(ProcessingNode("slow", slow, timeout=0.2)), backend=backend)
    assert isinstance(caught.value.__cause__, NodeTimeoutError)


def test_E9_a_timeout_error_raised_by_a_node_is_its_failure(backend):
    @node_action
    def impatient(state):
        raise TimeoutError("upstream took too long")

    graph = star(ProcessingNode("a", impatient), fallbacks={"a": ProcessingNode("f", fallback)})
    assert run(graph, backend=backend) == State([["fallback"]])


@pytest.mark.parametrize("limit", ["superstep", "node"])
def test_E9_an_async_node_has_time_for_its_finally(backend, limit, tmp_path):
    @node_action
    async def careful(state):
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.3)
            Path(state.messages[0]).write_text("cleaned up")
        return state

    path = tmp_path / "cleaned"
    node = ProcessingNode("a", careful, timeout=0.3 if limit == "node" else None)
    with pytest.raises(GraphExecutionError, match="time"):
        run(
            chain(node),
            State([str(path)]),
            backend=backend,
            superstep_timeout=0.5 if limit == "superstep" else 30,
        )
    assert path.read_text() == "cleaned up"


def test_E10_after_a_timeout_the_run_goes_on_from_its_checkpoint(backend, tmp_path):
    @node_action
    async def slow_once(state):
        if once(state.messages[0]):
            await asyncio.sleep(30)
        return State(["second try"])

    executor = GraphExecutor(
        chain(ProcessingNode("a", label), ProcessingNode("b", slow_once)),
        State([str(tmp_path / "once")]),
        checkpoint_path=str(tmp_path / "run.ckpt"),
        allow_fallback_from_checkpoint=True,
        backend=backend,
    )
    assert executor.run(superstep_timeout=0.7) == State(["second try"])
    # The only checkpoint was that of superstep 0, so `a` ran twice.
    assert executor.summary.nodes["a"].executions == 2


@pytest.mark.parametrize("placement", ["driver", "worker"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_E11_routers_run_where_they_are_placed(backend, placement, asynchronous):
    @routing_function(placement=placement)
    def sync(state):
        state.messages.append("a router's own copy")
        return "left" if state.messages[0] else "right"

    @routing_function(placement=placement)
    async def coroutine(state):
        state.messages.append("a router's own copy")
        return "left" if state.messages[0] else "right"

    builder = GraphBuilder()
    for node_id in ("a", "left", "right"):
        builder.add_node(ProcessingNode(node_id, label))
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["left", "right"], coroutine if asynchronous else sync)
    builder.add_concrete_edge("left", "end")
    builder.add_concrete_edge("right", "end")
    assert run(builder.build_graph(), State([0]), backend=backend) == State([0, "a", "right"])


@pytest.mark.parametrize("placement", ["driver", "worker"])
def test_E11_an_exception_in_a_router_is_a_failure_of_the_source(backend, placement):
    @routing_function(placement=placement)
    def lost(state):
        raise KeyError("which way?")

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("a", label))
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["end"], lost)
    with pytest.raises(GraphExecutionError, match=r"node 'a': .*which way") as caught:
        run(builder.build_graph(), backend=backend)
    assert type(caught.value.__cause__) is KeyError


def test_E9_a_router_that_does_not_stop_is_given_up(backend):
    @routing_function
    async def deaf(state):
        while not over:
            with contextlib.suppress(BaseException):
                await asyncio.sleep(0.05)
        return "end"

    over = []
    builder = GraphBuilder()
    builder.add_node(ProcessingNode("a", label))
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["end"], deaf)

    async def both():
        executor = GraphExecutor(builder.build_graph(), State([]), backend=backend)
        try:
            with (
                pytest.warns(GraphWarning, match="router of node 'a' does not stop"),
                pytest.raises(GraphExecutionError, match=r"'a': Execution timed out after 0.5s"),
            ):
                await executor.execute(superstep_timeout=0.5)
        finally:
            over.append(True)
            await asyncio.sleep(0.1)

    asyncio.run(both())


def test_E11_stop_iteration_is_an_exception_like_any_other(backend):
    @node_action
    def stop(state):
        raise StopIteration("no more")

    with pytest.raises(GraphExecutionError, match="node 'a': no more") as caught:
        run(chain(ProcessingNode("a", stop)), backend=backend)
    assert type(caught.value.__cause__) is StopIteration


def test_E10_another_runs_checkpoint_is_not_gone_back_to(backend, tmp_path):
    @node_action
    async def overwrite(state):
        shutil.copy(tmp_path / "other.ckpt", tmp_path / "run.ckpt")
        await asyncio.sleep(30)
        return state

    graph = chain(ProcessingNode("a", label))
    run(graph, backend=backend, checkpoint_path=str(tmp_path / "other.ckpt"))
    executor = GraphExecutor(
        chain(ProcessingNode("b", overwrite)),
        State([]),
        checkpoint_path=str(tmp_path / "run.ckpt"),
        allow_fallback_from_checkpoint=True,
        backend=backend,
    )
    with pytest.raises(CheckpointError, match="another run's"):
        executor.run(superstep_timeout=0.7)


def test_E12_without_reaching_end_the_result_is_none(backend):
    @routing_function
    def never(state):
        return "b"

    builder = GraphBuilder()
    for node_id in "ab":
        builder.add_node(ProcessingNode(node_id, label))
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["b", "end"], never)
    with pytest.warns(GraphWarning):
        graph = builder.build_graph()
    assert run(graph, backend=backend) is None


def test_E13_max_supersteps_reached_with_work_left_fails_and_exactly_there_succeeds(backend):
    graph = chain(ProcessingNode("a", label))
    with pytest.raises(GraphExecutionError, match="node 'N/A': Max supersteps reached"):
        GraphExecutor(graph, State([]), backend=backend).run(max_supersteps=2)
    assert GraphExecutor(graph, State([]), backend=backend).run(max_supersteps=3) == State(["a"])


def test_E14_a_finished_run_is_known_to_be_finished(backend, tmp_path):
    path = str(tmp_path / "run.ckpt")
    graph = chain(ProcessingNode("a", label))
    run(graph, backend=backend, checkpoint_path=path)
    resumed = GraphExecutor.from_checkpoint(CheckpointData.load(path), backend=backend)
    assert resumed.run() == State(["a"])
    assert resumed.summary.supersteps == 0


def test_E14_a_checkpoint_in_the_middle_resumes_in_the_middle(backend, tmp_path):
    @node_action
    def fail_once(state):
        if once(str(tmp_path / "once")):
            raise ValueError("first time")
        return State([*state.messages, "c"])

    path = str(tmp_path / "run.ckpt")
    graph = chain(
        ProcessingNode("a", label), ProcessingNode("b", label), ProcessingNode("c", fail_once)
    )
    with pytest.raises(GraphExecutionError):
        run(graph, backend=backend, checkpoint_path=path, checkpoint_every=2)
    chkpt = CheckpointData.load(path)
    assert (chkpt.superstep, chkpt.status, list(chkpt.active_states)) == (3, "failed", ["c"])
    resumed = GraphExecutor.from_checkpoint(chkpt, graph=graph, backend=backend)
    assert resumed.run_id == chkpt.run_id
    assert resumed.checkpoint_every == 2
    assert resumed.run() == State(["a", "b", "c"])
    assert "a" not in resumed.summary.nodes


def test_E14_resuming_with_mended_code_runs_the_mended_code(backend, tmp_path):
    def graph(text):
        @node_action
        def act(state):
            if text == "broken":
                raise ValueError(text)
            return State([text])

        return chain(ProcessingNode("a", act))

    path = str(tmp_path / "run.ckpt")
    with pytest.raises(GraphExecutionError, match="broken"):
        run(graph("broken"), backend=backend, checkpoint_path=path)
    chkpt = CheckpointData.load(path)
    with pytest.raises(CheckpointError, match="code or options of node 'a' changed"):
        GraphExecutor.from_checkpoint(chkpt, graph=graph("mended"), backend=backend)
    mended = GraphExecutor.from_checkpoint(
        chkpt, graph=graph("mended"), allow_graph_change=True, backend=backend
    )
    assert mended.run() == State(["mended"])


def test_E15_after_a_failure_the_superstep_is_repeated(backend, tmp_path):
    @node_action
    def fail_once(state):
        if once(str(tmp_path / "once")):
            raise ValueError("first time")
        return State([*state.messages, "b"])

    executor = GraphExecutor(
        chain(ProcessingNode("a", label), ProcessingNode("b", fail_once)),
        State([]),
        backend=backend,
    )
    with pytest.raises(GraphExecutionError):
        executor.run()
    assert executor.superstep == 2
    assert executor.active_states["b"] == [State(["a"])]
    assert executor.run() == State(["a", "b"])
    assert executor.run() == State(["a", "b"])
    assert executor.final_state == State(["a", "b"])
    assert executor.summary.nodes["a"].executions == 1


async def test_E16_two_executors_do_not_mix(backend):
    graph = star(*[ProcessingNode(f"n{i}", alabel) for i in range(6)])
    executors = [GraphExecutor(graph, State([i]), backend=backend) for i in range(3)]
    results = await asyncio.gather(*[executor.execute() for executor in executors])
    for i, result in enumerate(results):
        assert result.messages == [[i, f"n{j}"] for j in range(6)]
    assert len({executor.run_id for executor in executors}) == 3


@pytest.mark.parametrize("max_workers", [1, 7])
def test_E17_the_worker_count_does_not_change_the_result(backend, max_workers):
    graph = star(*[ProcessingNode(f"n{i}", alabel if i % 2 else label) for i in range(12)])
    result = run(graph, State([1]), backend=backend, max_workers=max_workers)
    assert result.messages == [[1, f"n{i}"] for i in range(12)]


def test_human_nodes_hold_no_slot(backend):
    asked = threading.Event()

    @node_action
    async def first(state):
        return State(["done meanwhile"])

    def answer(state):
        assert asked.wait(20)
        return State(["approved"])

    @routing_function
    def tell(state):
        asked.set()
        return "join"

    builder = GraphBuilder()
    builder.add_node(HumanInTheLoopNode("human", answer))
    builder.add_node(ProcessingNode("node", label))
    builder.add_aggregator(AggregatorNode("join", gather))
    for node_id in ("human", "node"):
        builder.add_concrete_edge("start", node_id)
        builder.add_concrete_edge(node_id, "join")
    builder.add_concrete_edge("join", "end")
    asked_by = threading.Timer(0.5, asked.set)
    asked_by.start()
    result = run(builder.build_graph(), backend=backend, max_workers=1)
    assert result == State([["approved"], ["node"]])


async def test_cancelling_the_awaiting_task_stops_the_run(backend, tmp_path):
    @node_action
    async def slow(state):
        Path(state.messages[0], "began").touch()
        try:
            await asyncio.sleep(30)
        finally:
            Path(state.messages[0], "stopped").touch()
        return state

    nodes = [ProcessingNode(f"n{i}", slow) for i in range(6)]  # enough for a shared worker
    executor = GraphExecutor(star(*nodes), State([str(tmp_path)]), max_workers=8, backend=backend)
    task = asyncio.ensure_future(executor.execute())
    while not (tmp_path / "began").exists():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "stopped").exists()
    assert executor.summary.status == "cancelled"


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Rich(State):
    note: str = ""
    colour: Colour = Colour.RED


def test_M1_a_subclass_of_state_travels_with_its_fields(backend):
    @node_action
    def change(state):
        state.note += "!"
        return state

    result = run(chain(ProcessingNode("a", change)), Rich([1], "hello"), backend=backend)
    assert (type(result), result.note, result.colour) == (Rich, "hello!", Colour.RED)


def test_current_execution_tells_run_superstep_node_and_attempt(backend, tmp_path):
    @node_action
    def tell(state):
        info = current_execution()
        if once(state.messages[0]):
            raise ValueError(info.idempotency_key)
        left = info.remaining()
        return State([info.run_id, info.superstep, info.attempt, info.idempotency_key, left])

    executor = GraphExecutor(
        chain(ProcessingNode("a", tell, timeout=30)),
        State([str(tmp_path / "once")]),
        retry_policy=RetryPolicy(1, 0),
        backend=backend,
    )
    run_id, superstep, attempt, key, left = executor.run().messages
    assert (run_id, superstep, attempt) == (executor.run_id, 1, 1)
    assert key == f"{run_id}/main/1/0/node"
    assert 20 < left <= 30
    with pytest.raises(RuntimeError, match="outside a node"):
        current_execution()


def test_a_node_that_returns_no_state_fails_with_what_it_returned(backend):
    @node_action
    def wrong(state):
        return 123

    with pytest.raises(GraphExecutionError, match="must return a state, but got int: 123"):
        run(chain(ProcessingNode("a", wrong)), backend=backend)


def test_a_state_that_cannot_be_pickled_names_the_message(backend):
    with pytest.raises(Exception, match=r"initial state.*messages\[1\].*lock"):
        run(chain(ProcessingNode("a", echo)), State([1, threading.Lock()]), backend=backend)

    @node_action
    def lock(state):
        return State([{"deep": [threading.Lock()]}])

    with pytest.raises(GraphExecutionError, match=r"node 'a'.*messages\[0\]\['deep'\]\[0\].*lock"):
        run(chain(ProcessingNode("a", lock)), backend=backend)


def test_aggregators_see_a_list_and_may_change_it(backend):
    @aggregator_action
    def concat(states):
        states[0].messages.extend(m for state in states[1:] for m in state.messages)
        return states[0]

    graph = star(ProcessingNode("a", label), ProcessingNode("b", alabel), join=concat)
    assert run(graph, backend=backend) == State(["a", "b"])


@pytest.fixture(autouse=True)
def _quiet_about_closures():
    """These tests use closures on purpose; what is warned of is tested elsewhere."""
    with contextlib.ExitStack() as stack:
        import warnings

        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "States sent", GraphWarning)
        yield
