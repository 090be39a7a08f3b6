"""M2: the decorators; E11: routers, as far as the decorator goes."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle

import cloudpickle
import pytest

from graphorch_ray.errors import (
    InvalidAggregatorActionError,
    InvalidNodeActionOutput,
    InvalidRoutingFunctionOutput,
    InvalidToolMethodOutput,
)
from graphorch_ray.model import (
    ConditionalEdge,
    ProcessingNode,
    aggregator_action,
    node_action,
    options_of,
    pass_through,
    passThrough,
    routing_function,
    select_random_state,
    selectRandomState,
    tool_method,
)
from graphorch_ray.model.actions import is_async_callable
from graphorch_ray.policies import NodeOptions
from graphorch_ray.state import State

KINDS = [
    (node_action, InvalidNodeActionOutput, "Node action must return a state, but got int: 123"),
    (tool_method, InvalidToolMethodOutput, "Tool method must return a state, but got int: 123"),
    (
        aggregator_action,
        InvalidAggregatorActionError,
        "Aggregator action must return a state, but got int",
    ),
    (
        routing_function,
        InvalidRoutingFunctionOutput,
        "Routing function must return a string, but got int: 123",
    ),
]
STATE_KINDS = [node_action, tool_method, aggregator_action]


@node_action
def at_module_level(state):
    "Its docstring."
    return state


@pytest.mark.parametrize(("decorator", "error", "text"), KINDS)
def test_M2_a_wrong_return_type_is_refused_naming_what_came_back(decorator, error, text):
    @decorator
    def wrong(_):
        return 123

    with pytest.raises(error) as caught:
        wrong(State())
    assert str(caught.value) == text


@pytest.mark.parametrize(("decorator", "error", "text"), KINDS)
async def test_M2_a_wrong_return_type_of_an_async_function_is_refused_too(decorator, error, text):
    @decorator
    async def wrong(_):
        return 123

    with pytest.raises(error) as caught:
        await wrong(State())
    assert str(caught.value) == text


def test_M2_a_sync_function_that_returns_a_coroutine_is_refused_without_another_warning():
    async def later(state):
        return state

    @node_action
    def wrong(state):
        return later(state)

    with pytest.raises(InvalidNodeActionOutput, match="got coroutine"):
        wrong(State())


@pytest.mark.parametrize("decorator", STATE_KINDS)
def test_M2_a_decorated_sync_function_stays_sync_and_returns_the_same_object(decorator):
    state = State([1])

    @decorator
    def same(_):
        return state

    assert not inspect.iscoroutinefunction(same)
    assert same(None) is state


@pytest.mark.parametrize("decorator", STATE_KINDS)
async def test_M2_a_decorated_async_function_stays_async(decorator):
    state = State([1])

    @decorator
    async def same(_):
        return state

    assert inspect.iscoroutinefunction(same)
    assert await same(None) is state


def test_M2_markers_are_those_of_the_original():
    def function(state):
        return state

    assert node_action(function).is_node_action is True
    tool = tool_method(function)
    assert tool.is_node_action is True
    assert tool.is_tool_method is True
    assert aggregator_action(function).is_aggregator_action is True
    assert not hasattr(aggregator_action(function), "is_node_action")
    assert routing_function(function).is_routing_function is True
    assert not hasattr(function, "is_node_action")


def test_M2_name_docstring_and_wrapped_function_are_carried_over():
    assert at_module_level.__name__ == "at_module_level"
    assert at_module_level.__doc__ == "Its docstring."
    assert callable(at_module_level.__wrapped__)


@pytest.mark.parametrize("decorator", STATE_KINDS)
def test_M2_options_are_kept_with_the_function(decorator):
    @decorator(
        num_cpus=2,
        num_gpus=1,
        memory=2**20,
        resources={"disk": 1},
        timeout=30,
        mutable=True,
        batch=False,
    )
    def function(state):
        return state

    assert options_of(function) == NodeOptions(
        num_cpus=2,
        num_gpus=1,
        memory=2**20,
        resources={"disk": 1},
        timeout=30,
        mutable=True,
        batch=False,
    )


@pytest.mark.parametrize("decorator", STATE_KINDS)
def test_M2_bare_and_empty_parentheses_mean_the_default_options(decorator):
    def function(state):
        return state

    assert options_of(decorator(function)) == NodeOptions()
    assert options_of(decorator()(function)) == NodeOptions()
    assert options_of(function) == NodeOptions()


def test_M2_options_of_stacked_decorators_add_up():
    @node_action(timeout=3)
    @node_action(num_cpus=2, timeout=1)
    def function(state):
        return state

    assert options_of(function) == NodeOptions(num_cpus=2, timeout=3)


def test_M2_an_unknown_option_is_refused_by_name():
    with pytest.raises(TypeError, match="@node_action got an unknown option 'gpus'"):
        node_action(gpus=1)


def test_M2_replicas_are_not_for_functions():
    with pytest.raises(TypeError, match="'replicas': that option is for AINode"):
        node_action(replicas=2)


def test_M2_a_wrong_option_value_is_refused_where_it_is_written():
    with pytest.raises(ValueError, match=r"timeout must be a number of seconds > 0.*not -1"):
        node_action(timeout=-1)


@pytest.mark.parametrize("decorator", [*STATE_KINDS, routing_function])
def test_M2_a_generator_function_is_refused_at_decoration_by_name(decorator):
    def makes_many(state):
        yield state

    async def makes_many_later(state):
        yield state

    with pytest.raises(TypeError, match="'makes_many' is a generator function"):
        decorator(makes_many)
    with pytest.raises(TypeError, match="'makes_many_later' is a generator function"):
        decorator(makes_many_later)
    with pytest.raises(TypeError, match="is a generator function"):
        decorator(functools.partial(makes_many))


@pytest.mark.parametrize("decorator", [*STATE_KINDS, routing_function])
def test_M2_what_cannot_be_called_is_refused(decorator):
    with pytest.raises(TypeError, match=r"is for functions, not 3 \(int\)"):
        decorator(3)


class Adder:
    def __init__(self, step):
        self.step = step

    def __call__(self, state):
        return State([message + self.step for message in state.messages])

    @node_action
    def method(self, state):
        return State([message - self.step for message in state.messages])


class AsyncAdder(Adder):
    async def __call__(self, state):
        return Adder.__call__(self, state)


def add(step, state):
    return State([message + step for message in state.messages])


async def add_later(step, state):
    return add(step, state)


async def test_M2_callable_objects_methods_and_partials_may_be_decorated():
    start = State([1])
    assert node_action(Adder(2))(start) == State([3])
    assert node_action(functools.partial(add, 5))(start) == State([6])
    assert Adder(1).method(start) == State([0])
    assert await node_action(AsyncAdder(2))(start) == State([3])
    assert await node_action(functools.partial(add_later, 5))(start) == State([6])
    assert node_action(Adder(2)).__name__ == "Adder"
    assert node_action(functools.partial(add, 5)).__name__ == "partial(add)"


async def test_M2_a_bound_method_decorated_in_its_class_works_in_a_node():
    node = ProcessingNode("minus", Adder(2).method)
    assert await node.execute(State([5])) == State([3])


def test_M2_async_is_seen_behind_partials_and_objects():
    assert is_async_callable(add_later)
    assert is_async_callable(functools.partial(functools.partial(add_later), 1))
    assert is_async_callable(AsyncAdder(1))
    assert not is_async_callable(Adder(1))
    assert not is_async_callable(AsyncAdder)


def test_M2_decorated_functions_can_be_pickled():
    assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level

    @node_action(timeout=2)
    def local(state):
        return State([*state.messages, 1])

    again = cloudpickle.loads(cloudpickle.dumps(local))
    assert again(State()) == State([1])
    assert options_of(again).timeout == 2
    with pytest.raises(InvalidNodeActionOutput):
        cloudpickle.loads(cloudpickle.dumps(node_action(lambda state: 1)))(State())


def test_M2_pass_through_returns_its_input_under_both_names():
    state = State([1])
    assert passThrough is pass_through
    assert passThrough(state) is state
    assert passThrough.is_node_action


def test_M2_select_random_state_returns_one_of_its_inputs_under_both_names():
    states = [State([number]) for number in range(3)]
    assert selectRandomState is select_random_state
    chosen = selectRandomState(states)
    assert any(chosen is state for state in states)
    assert selectRandomState.is_aggregator_action
    with pytest.raises(IndexError):
        selectRandomState([])


def test_E11_a_router_runs_in_the_driver_unless_it_asks_for_the_worker():
    @routing_function
    def here(state):
        return "end"

    @routing_function(placement="worker")
    def there(state):
        return "end"

    node = ProcessingNode("n", passThrough)
    assert ConditionalEdge(node, [node], here).router_placement == "driver"
    assert ConditionalEdge(node, [node], there).router_placement == "worker"
    assert routing_function()(lambda state: "end")(State()) == "end"


def test_E11_a_router_can_be_placed_nowhere_else():
    with pytest.raises(ValueError, match="must be 'driver' or 'worker', not 'gpu'"):
        routing_function(placement="gpu")


def test_E11_routers_take_sync_and_async_functions():
    @routing_function
    async def later(state):
        return "end"

    assert inspect.iscoroutinefunction(later)
    assert asyncio.run(later(State())) == "end"
