"""The log of a hosted run: bounded, read from any place, by any number of readers."""

from __future__ import annotations

import asyncio

import pytest

from graphorch_ray.runs.event_log import EVENTS_AT_ONCE, START, EventLog
from graphorch_ray.telemetry import EventsDropped
from graphorch_ray.telemetry.events import SuperstepCompleted, SuperstepStarted


def started(superstep: int) -> SuperstepStarted:
    return SuperstepStarted(
        time=float(superstep), run_id="r", superstep=superstep, active_nodes=("n",), epoch=1
    )


def filled(count: int, limit: int = 100) -> EventLog:
    log = EventLog("r", limit)
    for superstep in range(count):
        log.on_event(started(superstep))
    return log


async def test_a_reader_gets_everything_in_order_and_then_the_end():
    log = filled(3)
    cursor, events, over = await log.read(START, 0)
    assert ([e.superstep for e in events], over) == ([0, 1, 2], False)
    log.on_event(started(3))
    log.end()
    cursor, events, over = await log.read(cursor, 0)
    assert ([e.superstep for e in events], over) == ([3], True)
    assert (await log.read(cursor, 60))[1:] == ([], True)


async def test_what_is_kept_no_longer_leaves_a_gap_that_is_told():
    log = filled(25, limit=10)
    cursor, events, _ = await log.read(START, 0)
    assert isinstance(events[0], EventsDropped)
    assert events[0].count == 15
    assert [e.superstep for e in events[1:]] == list(range(15, 25))
    for superstep in range(25, 28):
        log.on_event(started(superstep))
    _, events, _ = await log.read(cursor, 0)
    assert [e.superstep for e in events] == [25, 26, 27]


async def test_a_long_log_is_read_in_parts():
    count = 2 * EVENTS_AT_ONCE + 5
    log, cursor, read = filled(count, limit=count), START, []
    log.end()
    over = False
    while not over:
        cursor, events, over = await log.read(cursor, 0)
        assert len(events) <= EVENTS_AT_ONCE
        read += [e.superstep for e in events]
    assert read == list(range(count))


async def test_readers_are_woken_by_news_and_by_the_end():
    log = filled(1)
    cursor = log.now()
    waiting = [asyncio.ensure_future(log.read(cursor, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    log.on_event(started(1))
    assert [[e.superstep for e in (await one)[1]] for one in waiting] == [[1]] * 3
    last = asyncio.ensure_future(log.read(log.now(), 60))
    await asyncio.sleep(0)
    log.end()
    assert (await last)[1:] == ([], True)


async def test_a_reader_of_a_driver_that_was_replaced_begins_with_its_successors_first_event():
    cursor, _, _ = await filled(5).read(START, 0)
    _, events, _ = await filled(3).read(cursor, 0)
    assert [e.superstep for e in events] == [0, 1, 2]


async def test_it_knows_which_nodes_are_active():
    log = filled(2)
    assert (log.superstep, log.active_nodes) == (1, ("n",))
    log.on_event(SuperstepCompleted(time=2.0, run_id="r", superstep=2, next_active_nodes=("m",)))
    assert (log.superstep, log.active_nodes) == (2, ("m",))


@pytest.mark.parametrize("position", [0, 7])
async def test_nothing_new_is_nothing_after_the_time(position):
    log = filled(position)
    assert (await log.read(log.now(), 0.01))[1:] == ([], False)
