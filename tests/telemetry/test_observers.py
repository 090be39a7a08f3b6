"""Events reach observers and streams, and no observer can hurt a run."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time

import pytest

from graphorch_ray import (
    GraphExecutionError,
    GraphExecutor,
    GraphWarning,
    ProcessingNode,
    State,
    node_action,
)
from graphorch_ray.telemetry.events import (
    EventsDropped,
    RunFailed,
    RunFinished,
    RunStarted,
)
from graphorch_ray.telemetry.observers import EventBuffer
from tests.runtime.nodes import chain, echo, fail, star

pytestmark = pytest.mark.filterwarnings("ignore:Node 'a' changes the variable")


def executor(graph, **options):
    return GraphExecutor(graph, State([1]), backend="inline", **options)


def test_an_observer_sees_a_run_from_start_to_end():
    seen = []
    run = executor(chain(ProcessingNode("a", echo)))
    run.add_observer(seen.append)
    run.run()
    assert isinstance(seen[0], RunStarted)
    assert isinstance(seen[-1], RunFinished)
    names = [event.name for event in seen]
    assert names.count("superstep_started") == names.count("superstep_complete") == 3
    assert {event.run_id for event in seen} == {run.run_id}


def test_events_are_frozen():
    seen = []
    run = executor(chain(ProcessingNode("a", echo)))
    run.add_observer(seen.append)
    run.run()
    for event in seen:
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.time = 0.0


def test_a_removed_observer_is_told_nothing_more():
    seen = []
    run = executor(chain(ProcessingNode("a", echo)))
    run.add_observer(seen.append).remove()
    run.run()
    assert seen == []


def test_a_coroutine_function_is_no_observer():
    async def observe(event):
        pass

    with pytest.raises(TypeError, match=r"executor\.stream"):
        executor(chain()).add_observer(observe)


def test_a_failing_observer_is_reported_once_and_the_run_goes_on():
    def broken(event):
        raise RuntimeError("no")

    seen = []
    run = executor(chain(ProcessingNode("a", echo)))
    run.add_observer(broken)
    run.add_observer(seen.append)
    with pytest.warns(GraphWarning, match="broken failed at 'execution_start'") as caught:
        assert run.run() == State([1])
    assert len(caught) == 1
    assert isinstance(seen[-1], RunFinished)


def test_an_observer_that_hangs_does_not_hold_up_the_run():
    release = threading.Event()
    run = executor(chain(ProcessingNode("a", echo)))
    observer = run.add_observer(lambda event: release.wait(60))
    started = time.monotonic()
    assert run.run() == State([1])
    assert time.monotonic() - started < 5
    assert not observer.wait(0)
    release.set()
    assert observer.wait(10)


def test_an_observer_hears_of_a_second_run_too():
    @node_action
    def second_time(state):
        if not tried:
            tried.append(1)
            raise ValueError("first")
        return state

    tried, seen = [], []
    run = executor(chain(ProcessingNode("a", second_time)))
    run.add_observer(seen.append)
    with pytest.raises(GraphExecutionError):
        run.run()
    run.run()
    ends = [event for event in seen if isinstance(event, RunFailed | RunFinished)]
    assert [type(end) for end in ends] == [RunFailed, RunFinished]


async def test_a_stream_gives_the_events_and_then_the_error():
    run = executor(chain(ProcessingNode("a", fail)))
    seen = []

    async def read():
        async for event in run.stream():
            seen.append(event)

    with pytest.raises(GraphExecutionError, match="no luck"):
        await read()
    assert isinstance(seen[0], RunStarted)
    assert isinstance(seen[-1], RunFailed)
    assert seen[-1].node_id == "a"


async def test_to_stop_reading_a_stream_cancels_the_run():
    stopped = []

    @node_action
    async def wait(state):
        try:
            await asyncio.sleep(600)
        finally:
            stopped.append(True)
        return state

    run = executor(chain(ProcessingNode("a", wait)))
    events = run.stream()
    async for event in events:
        if event.name == "node_execution_attempt" and event.node_id == "a":
            await asyncio.sleep(0.05)
            break
    await events.aclose()
    assert stopped
    assert run.summary.status == "cancelled"


async def test_a_slow_reader_gets_a_gap_that_is_counted_and_the_end():
    run = executor(star(*(ProcessingNode(f"n{i}", echo) for i in range(50))))
    seen = []
    async for event in run.stream(buffer=5):
        seen.append(event)
        await asyncio.sleep(0.02)
    dropped = [event for event in seen if isinstance(event, EventsDropped)]
    assert dropped
    assert isinstance(seen[-1], RunFinished)


def test_a_buffer_never_grows_and_says_what_is_missing():
    buffer = EventBuffer(3, lambda: None)
    for number in range(10):
        buffer.put(EventsDropped(time=0.0, run_id="r", count=number))
    taken = buffer.take()
    assert [event.count for event in taken] == [0, 1, 2, 7]
    buffer.put(EventsDropped(time=0.0, run_id="r", count=99))
    assert [event.count for event in buffer.take()] == [99]


def test_without_a_listener_no_event_is_made(monkeypatch):
    from graphorch_ray.telemetry import events, hub

    class Refuses:
        def __getattr__(self, name):
            raise AssertionError(f"{name} was made")

    run = executor(chain(ProcessingNode("a", echo)))
    assert events is hub.ev
    monkeypatch.setattr(hub, "ev", Refuses())
    assert run.run() == State([1])
