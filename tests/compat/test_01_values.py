"""State, RetryPolicy, CheckpointData and the exceptions, as values."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field

import pytest

from graphorch_ray import (
    AggregatorActionNotDecorated,
    CheckpointData,
    DuplicateNodeError,
    EdgeExistsError,
    EmptyToolNodeDescriptionError,
    GraphConfigurationError,
    GraphExecutionError,
    GraphOrchestratorException,
    InvalidAggregatorActionError,
    InvalidAIActionOutput,
    InvalidNodeActionOutput,
    InvalidRoutingFunctionOutput,
    InvalidToolMethodOutput,
    NodeActionNotDecoratedError,
    NodeNotFoundError,
    RetryPolicy,
    RoutingFunctionNotDecoratedError,
    State,
    ToolMethodNotDecorated,
)


def plain(state):
    return state


class Nameless:
    def __call__(self, state):
        return state

    def __repr__(self):
        return "<nameless>"


def test_state_constructors():
    assert State().messages == []
    assert State() == State([]) == State(messages=[])
    assert State(["a", 1]).messages == ["a", 1]
    assert State().messages is not State().messages


def test_state_keeps_the_list_it_is_given():
    messages = [1]
    state = State(messages)
    messages.append(2)
    assert state.messages is messages
    assert state == State([1, 2])


def test_state_repr_and_str_have_no_field_name():
    assert repr(State(["a", 1])) == "State(['a', 1])"
    assert str(State(messages=[])) == "State([])"


def test_state_equality():
    @dataclass(eq=False)
    class Richer(State):
        user: str = ""

    assert State([1]) != State([2])
    assert State([1]) != [1]
    assert State([1]).__eq__([1]) is NotImplemented
    assert State([1]) == Richer([1], user="x")


def test_state_is_unhashable_and_mutable():
    state = State([1])
    state.messages = [3]
    state.messages.append(4)
    assert state == State([3, 4])
    with pytest.raises(TypeError):
        hash(state)


def test_state_subclass_with_more_fields():
    @dataclass
    class Rich(State):
        user: str = "nobody"
        tags: list = field(default_factory=list)

    state = Rich([1], "me", ["x"])
    assert (state.messages, state.user, state.tags) == ([1], "me", ["x"])
    assert isinstance(state, State)


def test_retry_policy_defaults_and_positions():
    assert RetryPolicy() == RetryPolicy(3, 1.0, 2.0)
    policy = RetryPolicy(5, 0.1, 1)
    assert (policy.max_retries, policy.delay, policy.backoff) == (5, 0.1, 1)
    assert RetryPolicy(max_retries=1) != RetryPolicy(max_retries=2)


def test_retry_policy_text():
    text = "RetryPolicy(max_retries=3, delay=1.00s, backoff=2.00x)"
    assert str(RetryPolicy()) == repr(RetryPolicy()) == text
    assert str(RetryPolicy(0, 0, 0)) == "RetryPolicy(max_retries=0, delay=0.00s, backoff=0.00x)"


@pytest.mark.parametrize("bad", [(-1,), (1, -0.1), (1, 1.0, -2.0)])
def test_retry_policy_refuses_negative_values(bad):
    with pytest.raises(ValueError, match="-"):
        RetryPolicy(*bad)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DuplicateNodeError("a"), "Node with id 'a' already exists."),
        (EdgeExistsError("a", "b"), "Edge from 'a' to 'b' already exists."),
        (NodeNotFoundError("a"), "Node 'a' not found in the graph."),
        (GraphConfigurationError("bad"), "Graph configuration error: bad"),
        (GraphExecutionError("a", "boom"), "Execution failed at node 'a': boom"),
        (
            InvalidRoutingFunctionOutput(3),
            "Routing function must return a string, but got int: 3",
        ),
        (InvalidNodeActionOutput("x"), "Node action must return a state, but got str: x"),
        (
            InvalidToolMethodOutput(None),
            "Tool method must return a state, but got NoneType: None",
        ),
        (InvalidAggregatorActionError([1]), "Aggregator action must return a state, but got list"),
        (InvalidAIActionOutput({}), "AI action must return a state, but got dict"),
        (
            NodeActionNotDecoratedError(plain),
            "The function 'plain' passed to ProcessingNode must be decorated with @node_action.",
        ),
        (
            RoutingFunctionNotDecoratedError(plain),
            "The function 'plain' passed to ConditionalEdge must be decorated with "
            "@routing_function.",
        ),
        (
            AggregatorActionNotDecorated(plain),
            "The function 'plain' passed to Aggregator must be decorated with @aggregator_action",
        ),
        (
            EmptyToolNodeDescriptionError(plain),
            "The tool function 'plain' has no description or docstring provided",
        ),
        (
            ToolMethodNotDecorated(Nameless()),
            "The function '<nameless>' passed to ToolNode has to be decorated with @tool_method",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_exception_texts(error, text):
    assert str(error) == text
    assert error.args == (text,)
    assert isinstance(error, GraphOrchestratorException)
    assert type(error).__bases__ == (GraphOrchestratorException,)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == text
    assert again.__dict__ == error.__dict__


def test_exception_attributes():
    assert DuplicateNodeError(node_id="a").node_id == "a"
    assert NodeNotFoundError(node_id="b").node_id == "b"
    edge = EdgeExistsError(source_id="a", sink_id="b")
    assert (edge.source_id, edge.sink_id) == ("a", "b")
    failed = GraphExecutionError(node_id="n", message="m")
    assert (failed.node_id, failed.message) == ("n", "m")
    with pytest.raises(GraphOrchestratorException, match="Execution failed at node 'n': m"):
        raise failed


def test_checkpoint_data_holds_what_it_is_given():
    graph, first, last, policy = object(), State([0]), State([9]), RetryPolicy(1, 0, 0)
    active = {"a": [State([1])]}
    data = CheckpointData(graph, first, active, 2, last, policy, 7)
    assert data.graph is graph
    assert data.initial_state is first
    assert data.active_states == active
    assert data.superstep == 2
    assert data.final_state is last
    assert data.retry_policy is policy
    assert data.max_workers == 7
    with pytest.raises(TypeError):
        CheckpointData(graph, first)
