"""The four decorators and the two built-in actions, called directly."""

from __future__ import annotations

import asyncio
import functools
import inspect
import random

import pytest

from graphorch_ray import (
    AggregatorNode,
    InvalidAggregatorActionError,
    InvalidNodeActionOutput,
    InvalidRoutingFunctionOutput,
    InvalidToolMethodOutput,
    ProcessingNode,
    State,
    aggregator_action,
    node_action,
    passThrough,
    routing_function,
    selectRandomState,
    tool_method,
)


def test_markers_name_and_doc():
    @node_action
    def act(state):
        """Acts."""
        return state

    @tool_method
    def use(state):
        return state

    @aggregator_action
    def join(states):
        return states[0]

    @routing_function
    def route(state):
        return "end"

    assert act.is_node_action is True
    assert (act.__name__, act.__doc__) == ("act", "Acts.")
    assert inspect.isfunction(act.__wrapped__)
    assert use.is_node_action is True
    assert use.is_tool_method is True
    assert join.is_aggregator_action is True
    assert route.is_routing_function is True
    assert not hasattr(act, "is_tool_method")


async def test_async_functions_are_awaited_directly():
    @node_action
    async def act(state):
        await asyncio.sleep(0)
        return State([*state.messages, "a"])

    @tool_method
    async def use(state):
        return state

    @aggregator_action
    async def join(states):
        return State([len(states)])

    @routing_function
    async def route(state):
        return "end"

    state = State([1])
    assert await act(state) == State([1, "a"])
    assert await use(state) is state
    assert await join([state, state]) == State([2])
    assert await route(state) == "end"


def test_a_decorated_sync_function_stays_sync():  # *Changed*, M2
    @node_action
    def act(state):
        state.messages.append("a")
        return state

    @routing_function
    def route(state):
        return "end"

    state = State([1])
    assert act(state) is state
    assert state.messages == [1, "a"]
    assert route(state) == "end"


@pytest.mark.parametrize(
    ("decorator", "error"),
    [
        (node_action, InvalidNodeActionOutput),
        (tool_method, InvalidToolMethodOutput),
        (aggregator_action, InvalidAggregatorActionError),
        (routing_function, InvalidRoutingFunctionOutput),
    ],
)
async def test_wrong_results_are_named(decorator, error):
    def wrong(_):
        return 123

    async def wrong_too(_):
        return 123

    with pytest.raises(error, match="int"):
        decorator(wrong)([State()])
    with pytest.raises(error, match="int"):
        await decorator(wrong_too)([State()])


def test_node_action_returning_none():
    @node_action
    def forgets(state):
        state.messages.append(1)

    with pytest.raises(InvalidNodeActionOutput) as caught:
        forgets(State())
    assert str(caught.value) == "Node action must return a state, but got NoneType: None"


def test_what_the_function_raises_comes_out():
    @node_action
    def act(state):
        raise KeyError("k")

    with pytest.raises(KeyError):
        act(State())


def test_lambdas_partials_methods_and_callable_objects():
    class Adder:
        def __init__(self, amount):
            self.amount = amount

        def add(self, state):
            return State([m + self.amount for m in state.messages])

        def __call__(self, state):
            return self.add(state)

    def scale(factor, state):
        return State([m * factor for m in state.messages])

    assert node_action(lambda s: State([*s.messages, 1]))(State()) == State([1])
    assert node_action(functools.partial(scale, 3))(State([2])) == State([6])
    assert node_action(Adder(5).add)(State([2])) == State([7])
    assert node_action(Adder(6))(State([2])) == State([8])
    ProcessingNode("partial", node_action(functools.partial(scale, 3)))


@pytest.mark.parametrize("decorator", [node_action, tool_method, aggregator_action])
def test_generators_are_refused(decorator):
    def generator(state):
        yield state

    async def async_generator(state):
        yield state

    with pytest.raises(TypeError, match="generator"):
        decorator(generator)
    with pytest.raises(TypeError, match="generator"):
        decorator(async_generator)


def test_pass_through_is_the_identity():
    state = State(["x"])
    assert passThrough(state) is state
    assert passThrough.is_node_action is True
    assert ProcessingNode("p", passThrough).func is passThrough


def test_select_random_state():
    states = [State([n]) for n in range(5)]
    random.seed(7)
    expected = random.choice(states)
    random.seed(7)
    assert selectRandomState(states) is expected
    assert AggregatorNode("r", selectRandomState).aggregator_action is selectRandomState
    with pytest.raises(IndexError):
        selectRandomState([])
