"""Nodes and edges made by hand, and `node.execute` with no executor."""

from __future__ import annotations

import pytest

from graphorch_ray import (
    AggregatorActionNotDecorated,
    AggregatorNode,
    AIActionBase,
    AINode,
    ConcreteEdge,
    ConditionalEdge,
    Edge,
    EmptyToolNodeDescriptionError,
    HumanInTheLoopNode,
    InvalidAIActionOutput,
    InvalidNodeActionOutput,
    Node,
    NodeActionNotDecoratedError,
    ProcessingNode,
    RetryPolicy,
    RoutingFunctionNotDecoratedError,
    State,
    ToolMethodNotDecorated,
    ToolNode,
    ToolSetNode,
    aggregator_action,
    node_action,
    routing_function,
    selectRandomState,
    tool_method,
)


@node_action
def keep(state):
    return state


@routing_function
def to_end(state):
    return "end"


@tool_method
def documented(state):
    """Does something."""
    state.messages.append("tool")
    return state


@tool_method
async def undocumented(state):
    state.messages.append("tool")
    return state


def plain(state):
    return state


def test_a_fresh_node():
    node = ProcessingNode("valid", keep)
    assert node.node_id == "valid"
    assert node.incoming_edges == []
    assert node.outgoing_edges == []
    assert node.fallback_node_id is None
    assert node.retry_policy is None
    assert node.func is keep
    assert isinstance(node, Node)
    assert node != ProcessingNode("valid", keep)


def test_keyword_construction():
    assert ProcessingNode(node_id="a", func=keep).func is keep
    node = AggregatorNode(node_id="b", aggregator_action=selectRandomState)
    assert node.aggregator_action is selectRandomState
    assert not hasattr(node, "func")
    tool = ToolNode(node_id="c", description="d", tool_method=documented)
    assert (tool.description, tool.func) == ("d", documented)
    human = HumanInTheLoopNode(node_id="d", interaction_handler=keep, metadata={"who": "me"})
    assert (human.metadata, human.func) == ({"who": "me"}, keep)
    ai = AINode(
        node_id="e",
        description="model",
        model_action=keep,
        response_format="json",
        response_parser=plain,
    )
    assert (ai.description, ai.response_format) == ("model", "json")
    assert ai.response_parser is plain
    assert ai.func is keep
    assert AINode("f", "x", keep).response_format is None
    toolset = ToolSetNode(node_id="g", base_url="http://example.com/api//", tool_name="ping")
    assert (toolset.base_url, toolset.tool_name) == ("http://example.com/api", "ping")


def test_subclass_relations():
    for cls in (ToolNode, AINode, HumanInTheLoopNode, ToolSetNode):
        assert issubclass(cls, ProcessingNode)
    assert issubclass(AggregatorNode, Node)
    assert not issubclass(AggregatorNode, ProcessingNode)
    with pytest.raises(TypeError):
        Node("abstract")


def test_set_fallback_and_retry_policy():
    node, policy = ProcessingNode("a", keep), RetryPolicy(1, 0, 0)
    node.set_fallback("b")
    node.set_retry_policy(policy)
    assert node.fallback_node_id == "b"
    assert node.retry_policy is policy


@pytest.mark.parametrize("func", [plain, lambda s: s, selectRandomState, to_end])
def test_undecorated_action(func):
    with pytest.raises(NodeActionNotDecoratedError) as caught:
        ProcessingNode("n", func)
    assert f"'{func.__name__}' passed to ProcessingNode" in str(caught.value)


def test_undecorated_others():
    with pytest.raises(AggregatorActionNotDecorated):
        AggregatorNode("n", keep)
    with pytest.raises(NodeActionNotDecoratedError):
        AINode("n", "d", plain)
    with pytest.raises(ToolMethodNotDecorated):
        ToolNode("n", "d", plain)
    with pytest.raises(ToolMethodNotDecorated):
        ToolNode("n", "d", keep)


def test_tool_descriptions():
    assert ToolNode("n", None, documented).description is None
    assert ToolNode("n", "d", undocumented).description == "d"
    for empty in ("", None):
        with pytest.raises(EmptyToolNodeDescriptionError):
            ToolNode("n", empty, undocumented)


def test_tool_checks_run_in_the_original_order():
    def manual(state):
        return state

    manual.is_tool_method = True  # but not is_node_action
    with pytest.raises(EmptyToolNodeDescriptionError):
        ToolNode("n", "", manual)
    with pytest.raises(NodeActionNotDecoratedError):
        ToolNode("n", "d", manual)


async def test_a_function_marked_by_hand():
    def manual(state):
        return State([*state.messages, "manual"])

    manual.is_node_action = True
    assert await ProcessingNode("n", manual).execute(State()) == State(["manual"])


async def test_tool_method_in_a_processing_node():
    node = ProcessingNode("n", documented)
    assert await node.execute(State([1])) == State([1, "tool"])


async def test_direct_execute_of_processing_and_tool_nodes():
    @node_action
    def sync_action(state):
        state.messages.append("sync")
        return state

    @node_action
    async def async_action(state):
        state.messages.append("async")
        return state

    assert (await ProcessingNode("n", sync_action).execute(State())).messages == ["sync"]
    assert (await ProcessingNode("n", async_action).execute(State())).messages == ["async"]
    assert (await ToolNode("n", "d", undocumented).execute(State())).messages == ["tool"]


async def test_direct_execute_does_not_copy():
    state = State([1])
    assert await ProcessingNode("n", documented).execute(state) is state
    assert state.messages == [1, "tool"]


async def test_direct_execute_of_aggregators():
    @aggregator_action
    def merge(states):
        return State([m for s in states for m in s.messages])

    @aggregator_action
    async def merge_async(states):
        return State(["agg"])

    two = [State([1]), State([2])]
    assert await AggregatorNode("n", merge).execute(two) == State([1, 2])
    assert await AggregatorNode("n", merge_async).execute(two) == State(["agg"])


async def test_direct_execute_neither_retries_nor_wraps():
    calls = []

    @node_action
    def fails(state):
        calls.append(1)
        raise ConnectionError("down")

    node = ProcessingNode("n", fails)
    node.set_retry_policy(RetryPolicy(3, 0, 0))
    node.set_fallback("other")
    with pytest.raises(ConnectionError, match="down"):
        await node.execute(State())
    assert calls == [1]


async def test_direct_execute_of_human_nodes():
    @node_action
    def decorated(state):
        return State([*state.messages, "sync"])

    def undecorated(state):
        return State([*state.messages, "plain"])

    async def undecorated_async(state):
        return State([*state.messages, "async"])

    assert (await HumanInTheLoopNode("h", decorated).execute(State())).messages == ["sync"]
    assert (await HumanInTheLoopNode("h", undecorated).execute(State())).messages == ["plain"]
    node = HumanInTheLoopNode("h", undecorated_async)
    assert node.func.is_node_action
    assert node.metadata == {}
    assert (await node.execute(State())).messages == ["async"]


async def test_human_handlers_that_fail_or_return_nonsense():
    def nope(state):
        raise Exception("Nope")

    def text(state):
        return "not a state"

    with pytest.raises(Exception, match="Nope"):
        await HumanInTheLoopNode("h", nope).execute(State())
    with pytest.raises(InvalidNodeActionOutput, match="not a state"):
        await HumanInTheLoopNode("h", text).execute(State())


class Shout(AIActionBase):
    def build_model(self):
        self.model = lambda text: text.upper()
        self._model_built = True
        self.config["built"] = self.config.get("built", 0) + 1

    async def process_state(self, state):
        return State([self.model(m) for m in state.messages])


class SyncShout(Shout):
    def process_state(self, state):
        return State([self.model(m) for m in state.messages])


@pytest.mark.parametrize("cls", [Shout, SyncShout])
async def test_direct_execute_of_ai_nodes(cls):
    config = {}
    action = cls(config)
    assert action.config is config
    assert action.model is None
    assert action._model_built is False
    assert action.is_node_action is True
    assert action.__name__ == cls.__name__
    node = AINode("ai", "shouts", action)
    assert node.func is action
    assert await node.execute(State(["a"])) == State(["A"])
    assert await node.execute(State(["b"])) == State(["B"])
    assert await action(State(["c"])) == State(["C"])
    assert config["built"] == 1


async def test_ai_actions_that_are_wrong():
    class Wrong(AIActionBase):
        def build_model(self):
            self._model_built = True

        async def process_state(self, state):
            return 5

    class WrongSync(Wrong):
        def process_state(self, state):
            return {"a": 1}

    class NoBuild(AIActionBase):
        async def process_state(self, state):
            return state

    with pytest.raises(InvalidAIActionOutput, match="int"):
        await Wrong({})(State())
    with pytest.raises(InvalidAIActionOutput, match="int"):
        await AINode("n", "d", Wrong({})).execute(State())
    with pytest.raises(InvalidAIActionOutput, match="dict"):
        await AINode("n", "d", WrongSync({})).execute(State())
    with pytest.raises(TypeError):
        NoBuild({})
    with pytest.raises(TypeError):
        Wrong()


async def test_ai_node_with_a_decorated_function():
    @node_action
    def act(state):
        return State(["ai"])

    assert await AINode("n", "d", act).execute(State()) == State(["ai"])


def test_concrete_edge():
    a, b = ProcessingNode("a", keep), ProcessingNode("b", keep)
    edge = ConcreteEdge(a, b)
    assert isinstance(edge, Edge)
    assert edge.source is a
    assert edge.sink is b
    assert a.outgoing_edges == []  # registering is the builder's business
    assert ConcreteEdge(source=a, sink=b) != edge


def test_conditional_edge():
    a, b, c = (ProcessingNode(n, keep) for n in "abc")
    edge = ConditionalEdge(a, [b, c], to_end)
    assert edge.source is a
    assert edge.sinks == [b, c]
    assert edge.routing_function is to_end
    assert not hasattr(edge, "router")
    assert ConditionalEdge(source=a, sinks=[b], router=to_end).sinks == [b]
    with pytest.raises(RoutingFunctionNotDecoratedError):
        ConditionalEdge(a, [b, c], plain)
    with pytest.raises(RoutingFunctionNotDecoratedError, match="'keep'"):
        ConditionalEdge(a, [b, c], keep)
