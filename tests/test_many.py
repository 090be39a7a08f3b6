"""`run_many`: some runs at a time, isolated, lazy, in constant memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
from pathlib import Path

import psutil
import pytest

from graphorch_ray import (
    GraphExecutionError,
    ProcessingNode,
    RetryPolicy,
    State,
    node_action,
    run_many,
)
from graphorch_ray.checkpoint import list_checkpoints
from tests.runtime.nodes import chain, star


@node_action
def double(state: State) -> State:
    if state.messages[0] == "bad":
        raise ValueError("no number")
    return State([2 * state.messages[0]])


def doubling(**options):
    return chain(ProcessingNode("double", double, **options))


pytestmark = pytest.mark.filterwarnings("ignore:.*changes the variable")


def test_each_state_has_its_run_and_each_result_its_index(backend):
    states = [State([number]) for number in range(12)]
    results = list(run_many(doubling(), states, backend=backend))
    assert sorted((r.index, r.final_state.messages[0]) for r in results) == [
        (number, 2 * number) for number in range(12)
    ]
    assert all(r.error is None and r.summary.status == "finished" for r in results)


async def test_it_is_an_asynchronous_iterator_too():
    states = (State([number]) for number in range(5))
    found = [result async for result in run_many(doubling(), states, backend="inline")]
    assert {r.final_state.messages[0] for r in found} == {0, 2, 4, 6, 8}


async def test_states_may_come_asynchronously():
    async def states():
        for number in range(3):
            await asyncio.sleep(0)
            yield State([number])

    found = [result async for result in run_many(doubling(), states(), backend="inline")]
    assert len(found) == 3


def test_a_run_that_fails_is_a_result_and_ends_no_other():
    states = [State([1]), State(["bad"]), State([3])]
    policy = RetryPolicy(max_retries=1, delay=0)
    results = {
        r.index: r for r in run_many(doubling(), states, backend="inline", retry_policy=policy)
    }
    assert [results[index].final_state for index in (0, 2)] == [State([2]), State([6])]
    assert isinstance(results[1].error, GraphExecutionError)
    assert isinstance(results[1].error.__cause__, ValueError)
    assert results[1].summary.nodes["double"].failures == 2


def test_what_is_no_state_is_that_runs_error():
    results = list(run_many(doubling(), [State([1]), 7], backend="inline"))
    assert [type(r.error) for r in sorted(results, key=lambda r: r.index)] == [
        type(None),
        TypeError,
    ]


def test_no_more_runs_than_asked_for_and_no_more_executions_than_workers():
    lock, at_work, most, of_run = threading.Lock(), [0], [0], {}

    @node_action
    def count(state):
        index = state.messages[0]
        with lock:
            at_work[0] += 1
            of_run[index] = of_run.get(index, 0) + 1
            most[0] = max(most[0], at_work[0])
            runs.append(sum(1 for n in of_run.values() if n))
            shares.append(of_run[index])
        barrier.wait(0.05)
        with lock:
            at_work[0] -= 1
            of_run[index] -= 1
        return state

    barrier, runs, shares = threading.Event(), [], []
    graph = star(*[ProcessingNode(f"n{i}", count) for i in range(4)])
    states = (State([index]) for index in range(9))
    options = {"max_concurrent_runs": 3, "max_workers": 7, "backend": "inline"}
    assert len(list(run_many(graph, states, **options))) == 9
    assert most[0] <= 7
    assert max(runs) == 3
    assert max(shares) == 3, "7 workers for 3 runs: one of them has 3"


def test_few_states_share_all_workers_among_them():
    seen = threading.Barrier(4)

    @node_action
    def meet(state):
        seen.wait(20)
        return state

    graph = star(*[ProcessingNode(f"n{i}", meet) for i in range(4)])
    (result,) = run_many(graph, [State([])], max_concurrent_runs=4, backend="inline")
    assert result.error is None, "all four ran at once"


def test_states_are_taken_as_runs_begin():
    taken = []

    def states():
        for number in range(100):
            taken.append(number)
            yield State([number])

    results = iter(run_many(doubling(), states(), max_concurrent_runs=2, backend="inline"))
    next(results)
    assert len(taken) <= 4
    results.close()
    assert len(taken) <= 4


def test_to_stop_reading_is_to_cancel_what_runs():
    cancelled = []

    @node_action
    async def wait(state):
        try:
            await asyncio.sleep(0 if state.messages[0] == 0 else 600)
        except asyncio.CancelledError:
            cancelled.append(state.messages[0])
            raise
        return state

    graph = chain(ProcessingNode("wait", wait))
    for result in run_many(graph, [State([n]) for n in range(3)], backend="inline"):
        assert result.index == 0
        break
    gc.collect()
    assert sorted(cancelled) == [1, 2]
    assert not [t for t in threading.enumerate() if t.name == "graphorch-many"]


async def test_a_broken_iterable_ends_the_runs_and_is_told():
    def states():
        yield State([1])
        raise OSError("the list of states broke off")

    results = run_many(doubling(), states(), max_concurrent_runs=1, backend="inline")
    async with contextlib.aclosing(aiter(results)) as reading:
        assert (await anext(reading)).index == 0
        with pytest.raises(OSError, match="broke off"):
            await anext(reading)


def test_each_run_has_checkpoints_of_its_own_and_goes_on_from_them(tmp_path):
    calls = tmp_path / "calls"
    allowed = tmp_path / "allowed"

    @node_action
    def once(state):
        with calls.open("a") as file:
            file.write(f"{state.messages[0]}\n")
        return state

    @node_action
    def gate(state):
        if state.messages[0] == 1 and not allowed.exists():
            raise ValueError("not yet")
        return state

    graph = chain(ProcessingNode("once", once), ProcessingNode("gate", gate))
    path = str(tmp_path / "batch")
    options = {"checkpoint_path": path, "checkpoint_every": 1, "backend": "inline"}
    states = [State([number]) for number in range(3)]
    first = {r.index: r for r in run_many(graph, states, **options)}
    assert isinstance(first[1].error, GraphExecutionError)
    assert first[2].checkpoint_path == f"{path}/2"
    assert list_checkpoints(f"{path}/2")[-1].status == "finished"
    assert sorted(os.listdir(path)) == ["0", "1", "2"]
    allowed.touch()
    again = {r.index: r for r in run_many(graph, states, resume=True, **options)}
    assert [again[index].final_state for index in range(3)] == states
    assert sorted(calls.read_text().split()) == ["0", "1", "2"], "what is committed runs once"


def held_while(runs: int, backend: str) -> tuple[int, int]:
    """What the driver holds at most while many runs pass: objects of Python's, and bytes."""
    every = max(1, runs // 10)
    objects = nbytes = 0
    states = (State([number]) for number in range(runs))
    for done, result in enumerate(run_many(doubling(), states, backend=backend)):
        assert result.error is None
        if done % every == 0:
            gc.collect()
            objects = max(objects, len(gc.get_objects()))
            nbytes = max(nbytes, psutil.Process().memory_info().rss)
    return objects, nbytes


@pytest.mark.chaos
def test_a_thousand_runs_take_no_more_memory_than_ten():
    held_while(20, "inline")  # what is imported and cached once
    few, many = held_while(10, "inline"), held_while(1000, "inline")
    assert many[0] < few[0] + 1000, "not one object for each run"
    assert many[1] < few[1] + 20_000_000


@pytest.mark.chaos
def test_on_ray_many_runs_take_no_more_memory_and_leave_nothing(ray_session):
    from ray._private.state import actors

    held_while(10, "ray")
    few, many = held_while(10, "ray"), held_while(100, "ray")
    assert many[0] < few[0] + 500
    assert many[1] < few[1] + 30_000_000
    assert not [a for a in actors().values() if a["State"] != "DEAD"]
    assert not [t for t in threading.enumerate() if t.name.startswith("graphorch-many")]


def test_workers_of_all_runs_together_share_the_cores(ray_session, tmp_path):
    """Four sync nodes that wait for each other, on two cores, one in each of four runs."""

    @node_action
    def meet(state):
        folder = Path(state.messages[0])
        (folder / str(state.messages[1])).touch()
        for _ in range(2000):
            if len(list(folder.iterdir())) == 4:
                return state
            threading.Event().wait(0.01)
        raise TimeoutError("they did not run at once")

    folder = tmp_path / "met"
    folder.mkdir()
    states = [State([str(folder), number]) for number in range(4)]
    results = run_many(chain(ProcessingNode("meet", meet)), states, backend="ray")
    assert [r.error for r in results] == [None] * 4


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"max_concurrent_runs": 0}, ValueError, "max_concurrent_runs must be at least 1"),
        ({"max_concurrent_runs": 9, "max_workers": 8}, ValueError, "as many workers as runs"),
        ({"states": 7}, TypeError, "states must be an iterable of State, not int"),
        ({"resume": True}, ValueError, "needs a checkpoint_path"),
        ({"checkpoint_path": "x.ckpt"}, ValueError, "'x.ckpt' names a file"),
        ({"keep_lots": 3}, TypeError, "keep_lots"),
        ({"graph": 7}, TypeError, "graph must be a Graph"),
    ],
)
def test_wrong_arguments_are_named_at_the_call(arguments, error, said):
    given = {"graph": doubling(), "states": [], "backend": "inline", **arguments}
    with pytest.raises(error, match=said):
        run_many(**given)


def test_no_states_are_no_results():
    assert list(run_many(doubling(), [], backend="inline")) == []
