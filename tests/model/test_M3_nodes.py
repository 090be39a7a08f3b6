"""M3: the kinds of node."""

from __future__ import annotations

import copy
import pickle
import sys

import cloudpickle
import httpx
import pytest

from graphorch_ray.errors import (
    AggregatorActionNotDecorated,
    EmptyToolNodeDescriptionError,
    InvalidAggregatorActionError,
    InvalidAIActionOutput,
    InvalidNodeActionOutput,
    InvalidToolMethodOutput,
    NodeActionNotDecoratedError,
    ToolMethodNotDecorated,
)
from graphorch_ray.model import (
    AggregatorNode,
    AINode,
    ConcreteEdge,
    HumanInTheLoopNode,
    Node,
    ProcessingNode,
    ToolNode,
    ToolSetNode,
    aggregator_action,
    node_action,
    passThrough,
    selectRandomState,
    tool_method,
)
from graphorch_ray.policies import NodeOptions, RetryPolicy
from graphorch_ray.state import State


@node_action
def sync_step(state):
    return State([*state.messages, "sync"])


@node_action
async def async_step(state):
    return State([*state.messages, "async"])


@tool_method
def tool(state):
    """A tool."""
    return State([*state.messages, "tool"])


@aggregator_action
def join(states):
    return State([message for state in states for message in state.messages])


@aggregator_action
async def join_later(states):
    return State([message for state in states for message in state.messages])


def undecorated(state):
    return state


# --- each kind runs alone -----------------------------------------------------------------------


async def test_M3_processing_nodes_execute_alone_sync_and_async():
    assert await ProcessingNode("a", sync_step).execute(State([1])) == State([1, "sync"])
    assert await ProcessingNode("a", async_step).execute(State([1])) == State([1, "async"])


async def test_M3_aggregators_execute_alone_sync_and_async():
    states = [State([1]), State([2])]
    assert await AggregatorNode("a", join).execute(states) == State([1, 2])
    assert await AggregatorNode("a", join_later).execute(states) == State([1, 2])


async def test_M3_tool_nodes_execute_alone():
    assert await ToolNode("t", "what it does", tool).execute(State()) == State(["tool"])


async def test_M3_an_ai_node_also_takes_a_decorated_function():
    assert await AINode("m", "model", sync_step).execute(State()) == State(["sync"])
    assert await AINode("m", "model", async_step).execute(State()) == State(["async"])


async def test_M3_a_human_node_decorates_its_handler_where_needed():
    async def ask(state):
        return State([*state.messages, "asked"])

    def ask_at_once(state):
        return State([*state.messages, "asked"])

    assert await HumanInTheLoopNode("h", ask).execute(State()) == State(["asked"])
    assert await HumanInTheLoopNode("h", ask_at_once).execute(State()) == State(["asked"])
    assert HumanInTheLoopNode("h", sync_step).func is sync_step


async def test_M3_what_a_node_raises_comes_out_as_it_is_and_is_not_retried():
    calls = []

    @node_action
    def fails(state):
        calls.append(1)
        raise RuntimeError("Nope")

    node = ProcessingNode("f", fails)
    node.set_retry_policy(RetryPolicy(5, 0, 0))
    with pytest.raises(RuntimeError, match="Nope"):
        await node.execute(State())
    assert calls == [1]


async def test_M3_a_human_handler_must_return_a_state():
    with pytest.raises(InvalidNodeActionOutput, match="got str: not a state"):
        await HumanInTheLoopNode("h", lambda state: "not a state").execute(State())


# --- construction -------------------------------------------------------------------------------


def test_M3_undecorated_functions_are_refused_with_the_originals_texts():
    with pytest.raises(NodeActionNotDecoratedError) as caught:
        ProcessingNode("a", undecorated)
    assert str(caught.value) == (
        "The function 'undecorated' passed to ProcessingNode must be decorated with @node_action."
    )
    with pytest.raises(AggregatorActionNotDecorated) as caught:
        AggregatorNode("a", undecorated)
    assert str(caught.value) == (
        "The function 'undecorated' passed to Aggregator must be decorated with @aggregator_action"
    )
    with pytest.raises(ToolMethodNotDecorated) as caught:
        ToolNode("a", "described", undecorated)
    assert str(caught.value) == (
        "The function 'undecorated' passed to ToolNode has to be decorated with @tool_method"
    )
    with pytest.raises(NodeActionNotDecoratedError):
        AINode("a", "described", undecorated)


def test_M3_an_aggregator_action_is_no_node_action_and_the_reverse():
    with pytest.raises(NodeActionNotDecoratedError):
        ProcessingNode("a", selectRandomState)
    with pytest.raises(AggregatorActionNotDecorated):
        AggregatorNode("a", passThrough)


def test_M3_a_tool_method_is_a_node_action():
    assert ProcessingNode("a", tool).func is tool


def test_M3_a_docstring_may_stand_in_for_the_description():
    assert ToolNode("t", None, tool).description is None
    assert ToolNode("t", "", tool).description == ""


@pytest.mark.parametrize("docstring", [None, "", "   \n "])
def test_M3_a_tool_without_description_and_docstring_is_refused(docstring):
    def nameless(state):
        return state

    nameless.__doc__ = docstring
    nameless.is_tool_method = True  # marked by hand, and no node action
    with pytest.raises(EmptyToolNodeDescriptionError) as caught:
        ToolNode("t", "", nameless)
    assert str(caught.value) == (
        "The tool function 'nameless' has no description or docstring provided"
    )


def test_M3_attributes_are_those_of_the_original():
    assert ProcessingNode("a", sync_step).func is sync_step
    aggregator = AggregatorNode("a", join)
    assert aggregator.aggregator_action is join
    assert not hasattr(aggregator, "func")
    assert ToolNode("a", "d", tool).func is tool
    parser = str
    ai = AINode("a", "d", sync_step, "json", parser)
    assert (ai.func, ai.description, ai.response_format, ai.response_parser) == (
        sync_step,
        "d",
        "json",
        parser,
    )
    assert HumanInTheLoopNode("a", sync_step).metadata == {}
    assert HumanInTheLoopNode("a", sync_step, {"to": "me"}).metadata == {"to": "me"}
    assert isinstance(ToolNode("a", "d", tool), ProcessingNode)
    assert not isinstance(aggregator, ProcessingNode)


def test_M3_a_new_node_has_no_edges_no_fallback_and_no_policy():
    node = ProcessingNode("a", sync_step)
    assert (node.incoming_edges, node.outgoing_edges) == ([], [])
    assert node.fallback_node_id is None
    assert node.retry_policy is None


def test_M3_fallback_and_policy_are_set_on_the_node():
    node, policy = ProcessingNode("a", sync_step), RetryPolicy(1, 0, 0)
    node.set_fallback("b")
    node.set_retry_policy(policy)
    assert node.fallback_node_id == "b"
    assert node.retry_policy is policy
    node.set_fallback(None)
    node.set_retry_policy(None)
    assert (node.fallback_node_id, node.retry_policy) == (None, None)


def test_M3_a_fallback_is_an_id_and_a_policy_a_policy():
    node = ProcessingNode("a", sync_step)
    with pytest.raises(TypeError, match="given by its node id"):
        node.set_fallback(node)
    with pytest.raises(TypeError, match=r"node 'a': retry_policy must be a RetryPolicy.*3 \(int\)"):
        node.set_retry_policy(3)


@pytest.mark.parametrize("node_id", [3, None, b"a"])
def test_M3_an_id_is_a_string(node_id):
    with pytest.raises(TypeError, match="a node's id must be a string, not"):
        ProcessingNode(node_id, sync_step)


def test_M3_an_id_is_not_empty():
    with pytest.raises(ValueError, match="must not be empty"):
        ProcessingNode("", sync_step)


# --- options ------------------------------------------------------------------------------------


def test_M3_a_nodes_options_override_those_of_its_function():
    @node_action(num_cpus=1, timeout=5)
    def function(state):
        return state

    assert ProcessingNode("a", function).options == NodeOptions(num_cpus=1, timeout=5)
    assert ProcessingNode("a", function, num_cpus=2).options == NodeOptions(num_cpus=2, timeout=5)
    assert ProcessingNode("a", function, timeout=None).options.timeout is None


def test_M3_every_kind_takes_options():
    nodes = [
        AggregatorNode("a", join, timeout=7),
        ToolNode("a", "d", tool, timeout=7),
        AINode("a", "d", sync_step, timeout=7, replicas=3),
        HumanInTheLoopNode("a", sync_step, timeout=7),
        ToolSetNode("a", "http://localhost", "t", timeout=7),
    ]
    assert [node.options.timeout for node in nodes] == [7] * len(nodes)
    assert nodes[2].options.replicas == 3


def test_M3_an_unknown_option_names_the_node():
    with pytest.raises(TypeError, match=r"ProcessingNode\('a'\) got an unknown option 'cpus'"):
        ProcessingNode("a", sync_step, cpus=1)


def test_M3_replicas_are_for_models():
    with pytest.raises(ValueError, match="'replicas': that option is for AINode"):
        ProcessingNode("a", sync_step, replicas=2)


# --- the interface of pools ---------------------------------------------------------------------


class Custom(Node):
    async def execute(self, state):
        return State([*state.messages, self.node_id])


class Louder(ProcessingNode):
    async def execute(self, state):
        result = await super().execute(state)
        return State([*result.messages, "!"])


class Broken(Node):
    async def execute(self, state):
        return 3


def test_M3_placement_follows_the_node():
    assert ProcessingNode("a", passThrough).placement == "driver"
    assert HumanInTheLoopNode("a", sync_step).placement == "driver"
    assert ProcessingNode("a", sync_step).placement == "task"
    assert AggregatorNode("a", join).placement == "task"
    assert ToolNode("a", "d", tool).placement == "task"
    assert ProcessingNode("a", async_step).placement == "async"
    assert AggregatorNode("a", join_later).placement == "async"
    assert ToolSetNode("a", "http://localhost", "t").placement == "driver"
    assert ToolSetNode("a", "http://localhost", "t").holds_slot
    assert not HumanInTheLoopNode("a", sync_step).holds_slot
    assert AINode("a", "d", sync_step).placement == "model"
    assert Custom("a").placement == "task"
    assert Louder("a", async_step).placement == "task"


def test_M3_an_async_node_that_asks_for_resources_is_a_task():
    assert ProcessingNode("a", async_step, num_cpus=1).placement == "task"
    assert ProcessingNode("a", async_step, timeout=1, batch=False).placement == "async"


def test_M3_is_async_says_whether_call_gives_an_awaitable():
    assert not ProcessingNode("a", sync_step).is_async
    assert ProcessingNode("a", async_step).is_async
    assert ToolSetNode("a", "http://localhost", "t").is_async
    assert Custom("a").is_async
    assert Louder("a", sync_step).is_async


def test_M3_type_and_aggregation_are_told():
    assert ProcessingNode("a", sync_step).node_type == "ProcessingNode"
    assert Custom("a").node_type == "Custom"
    assert AggregatorNode("a", join).is_aggregator
    assert not ProcessingNode("a", sync_step).is_aggregator
    assert ProcessingNode("a", passThrough).is_passthrough
    assert not ProcessingNode("a", sync_step).is_passthrough


async def test_M3_call_returns_a_state_or_an_awaitable_of_one():
    assert ProcessingNode("a", sync_step).call(State()) == State(["sync"])
    assert await ProcessingNode("a", async_step).call(State()) == State(["async"])
    assert AggregatorNode("a", join).call([State([1])]) == State([1])
    assert AINode("a", "d", sync_step).call(State()) == State(["sync"])
    assert await Custom("mine").call(State()) == State(["mine"])
    assert await Louder("a", sync_step).call(State()) == State(["sync", "!"])
    assert await Louder("a", sync_step).execute(State()) == State(["sync", "!"])


async def test_M3_call_checks_the_output_of_functions_marked_by_hand():
    def function(state):
        return 3

    function.is_node_action = function.is_tool_method = function.is_aggregator_action = True
    for node, error in [
        (ProcessingNode("a", function), InvalidNodeActionOutput),
        (ToolNode("a", "d", function), InvalidToolMethodOutput),
        (AggregatorNode("a", function), InvalidAggregatorActionError),
        (AINode("a", "d", function), InvalidAIActionOutput),
    ]:
        with pytest.raises(error):
            node.call(State())
        with pytest.raises(error):
            await node.execute(State())
    with pytest.raises(InvalidNodeActionOutput):
        await Broken("a").call(State())


def test_M3_callables_are_the_users_code_in_the_node():
    assert ProcessingNode("a", sync_step).callables() == (sync_step,)
    assert AggregatorNode("a", join).callables() == (join,)
    assert Louder("a", sync_step).callables() == (sync_step, Louder)
    assert Custom("a").callables() == (Custom,)
    assert ToolSetNode("a", "http://localhost", "t").callables() == ()


def test_M3_a_detached_node_has_everything_but_edges():
    node = ProcessingNode("a", sync_step, num_cpus=2)
    node.set_fallback("b")
    edge = ConcreteEdge(node, node)
    node.outgoing_edges.append(edge)
    alone = node.detached()
    assert alone is not node
    assert (alone.incoming_edges, alone.outgoing_edges) == ([], [])
    assert (alone.node_id, alone.func, alone.options, alone.fallback_node_id) == (
        "a",
        sync_step,
        node.options,
        "b",
    )
    assert node.outgoing_edges == [edge]
    assert cloudpickle.loads(cloudpickle.dumps(alone)).call(State()) == State(["sync"])


class Slotted(ProcessingNode):
    __slots__ = ("extra",)


def test_M3_nodes_are_pickled_and_copied_without_edges():
    node = Slotted("a", sync_step)
    node.extra = 3
    node.outgoing_edges.append(ConcreteEdge(node, node))
    for other in (pickle.loads(pickle.dumps(node)), copy.deepcopy(node), node.detached()):
        assert (other.extra, other.outgoing_edges) == (3, [])
    assert len(node.outgoing_edges) == 1


def test_M3_a_node_without_execute_is_no_node():
    with pytest.raises(TypeError, match="abstract"):
        Node("a")


# --- the tool server ----------------------------------------------------------------------------


class Response:
    status_code = 200

    def __init__(self, body):
        self.body = body

    def raise_for_status(self):
        return None

    def json(self):
        return self.body


def client_of(posts, answer):
    class Client:
        def __init__(self, *args, **kwargs):
            pass

        async def __aenter__(self):
            return self

        async def __aexit__(self, *args):
            return None

        async def post(self, url, json, timeout):
            posts.append((url, json, timeout))
            result = answer(json)
            if isinstance(result, Exception):
                raise result
            return result

    return Client


def pong(payload):
    return Response({"messages": [*payload["messages"], "pong"]})


async def test_M3_a_toolset_node_posts_the_messages_and_reads_them_back(monkeypatch):
    posts = []
    monkeypatch.setattr(ToolSetNode.httpx, "AsyncClient", client_of(posts, pong))
    node = ToolSetNode(node_id="t", base_url="http://example.com/api//", tool_name="ping")
    assert node.base_url == "http://example.com/api"
    assert node.tool_name == "ping"
    assert await node.execute(State(["hello"])) == State(["hello", "pong"])
    assert posts == [("http://example.com/api/tools/ping", {"messages": ["hello"]}, 10.0)]


async def test_M3_a_toolset_node_reads_no_messages_as_none(monkeypatch):
    monkeypatch.setattr(httpx, "AsyncClient", client_of([], lambda payload: Response({})))
    assert await ToolSetNode("t", "http://example.com", "x").execute(State([1])) == State([])


@pytest.mark.parametrize("error", [httpx.ConnectError("no"), RuntimeError("permanent failure")])
async def test_M3_what_the_tool_call_raises_comes_out(monkeypatch, error):
    monkeypatch.setattr(httpx, "AsyncClient", client_of([], lambda payload: error))
    with pytest.raises(type(error), match=str(error)):
        await ToolSetNode("t", "http://example.com", "x").execute(State())


async def test_M3_a_toolset_node_checks_the_status(monkeypatch):
    answer = httpx.Response(500, request=httpx.Request("POST", "http://example.com"))
    monkeypatch.setattr(httpx, "AsyncClient", client_of([], lambda payload: answer))
    with pytest.raises(httpx.HTTPStatusError):
        await ToolSetNode("t", "http://example.com", "x").execute(State())


async def test_M3_the_client_can_be_replaced_at_the_class_and_at_the_module(monkeypatch):
    class Fake:
        AsyncClient = client_of([], pong)

    module = sys.modules[ToolSetNode.__module__]
    assert module.httpx is httpx
    monkeypatch.setattr(ToolSetNode, "httpx", Fake)
    assert await ToolSetNode("t", "http://x", "y").execute(State()) == State(["pong"])


def test_M3_a_toolset_node_can_be_pickled():
    node = pickle.loads(pickle.dumps(ToolSetNode("t", "http://example.com/", "x")))
    assert (node.base_url, node.tool_name, node.func.url) == (
        "http://example.com",
        "x",
        "http://example.com/tools/x",
    )


def test_M3_a_toolset_address_is_a_string():
    with pytest.raises(TypeError, match="ToolSetNode's base_url must be a string, not None"):
        ToolSetNode("t", None, "x")
