"""A few states of middling size go by way of the driver; what many have or are sent does not."""

from __future__ import annotations

import numpy as np
import pytest

import graphorch_ray
from graphorch_ray import (
    AggregatorNode,
    GraphBuilder,
    GraphExecutor,
    ProcessingNode,
    State,
    aggregator_action,
    current_execution,
    node_action,
)
from graphorch_ray.model.attempt import AttemptKey, Launch
from graphorch_ray.runtime.on_ray.handles import StateHandle
from graphorch_ray.runtime.on_ray.room import BYTES_PER_SUPERSTEP, MOST_BYTES, SHARED_BY, Room
from graphorch_ray.runtime.payload import INLINE_BYTES, dump

MIDDLING = 100_000


def launches_of(count, handle_of):
    return [
        Launch(AttemptKey(0, 0, i, "node", 0, 0), "n", "n", (handle_of(i),), False, ())
        for i in range(count)
    ]


def held(nbytes):
    payload = dump(State([bytes(nbytes)]), "a state")
    return StateHandle(payload, None, payload.nbytes, 1)


@pytest.mark.parametrize(
    ("count", "each"),
    [
        (1, MOST_BYTES),
        (16, MOST_BYTES),
        (64, BYTES_PER_SUPERSTEP // 64),
        (10_000, INLINE_BYTES),
    ],
)
def test_the_room_for_a_state_depends_on_how_many_there_are(count, each):
    room = Room()
    small = held(10)
    room.take(launches_of(count, lambda _: small))
    assert room.each == each
    assert small.payload is not None


def test_what_many_are_sent_is_stored_once(ray_session):
    room = Room()
    one_for_all, own = held(MIDDLING), [held(MIDDLING) for _ in range(20)]
    room.take(launches_of(20, lambda _: one_for_all))
    room.take(launches_of(20, lambda i: own[i]))
    few = held(MIDDLING)
    room.take(launches_of(SHARED_BY, lambda _: few))
    assert (one_for_all.payload, one_for_all.ref is None) == (None, False)
    assert one_for_all.fetch().load() == State([bytes(MIDDLING)])
    assert all(handle.payload is not None and handle.ref is None for handle in [*own, few])


@pytest.mark.parametrize("nbytes", [1_000, MIDDLING, 2 * MOST_BYTES])
def test_E2_states_of_any_size_reach_all_and_come_from_all(ray_session, nbytes):
    """Also where a batch of nodes fills one array of their process, one after another."""

    @node_action
    def make(state):
        return State([np.full(nbytes // 8, 7.0)])

    @node_action
    def fill(state):
        array = getattr(graphorch_ray, "_tests_array", None)
        if array is None or len(array) != len(state.messages[0]):
            array = graphorch_ray._tests_array = np.zeros(len(state.messages[0]))
        array[:] = state.messages[0] * int(current_execution().node_id[1:])
        return State([array])

    @aggregator_action
    def ends(states):
        return State([(float(s.messages[0][0]), float(s.messages[0][-1])) for s in states])

    builder = GraphBuilder("middling")
    builder.add_node(ProcessingNode("make", make))
    builder.add_aggregator(AggregatorNode("join", ends))
    builder.add_concrete_edge("start", "make")
    for number in range(1, 21):
        builder.add_node(ProcessingNode(f"n{number}", fill))
        builder.add_concrete_edge("make", f"n{number}")
        builder.add_concrete_edge(f"n{number}", "join")
    builder.add_concrete_edge("join", "end")
    executor = GraphExecutor(builder.build_graph(), State([]), backend="ray")
    assert executor.run().messages == [(7.0 * n, 7.0 * n) for n in range(1, 21)]
