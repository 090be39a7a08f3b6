"""graphorch_ray: LangGraph's benchmark shapes, routers on the worker."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from benchmarks import agents
from graphorch_ray import (
    AggregatorNode,
    GraphBuilder,
    ProcessingNode,
    State,
    aggregator_action,
    current_execution,
    node_action,
    routing_function,
)

from .graphorch import run


def branches(count: int, **options: Any) -> Callable[[], list[str]]:
    @node_action
    def edit(state: State) -> State:
        number = int(current_execution().node_id.removeprefix("edit"))
        return State([agents.edit(f"subject {number}"), number])

    @node_action
    def generate(state: State) -> State:
        return State([agents.generate(state.messages[0]), state.messages[1]])

    @node_action
    def bump(state: State) -> State:
        return State([agents.bump(state.messages[0]), state.messages[1]])

    @routing_function(placement="worker")
    def again(state: State) -> str:
        text, number = state.messages
        return "join" if agents.bumped_enough(text) else f"bump{number}"

    @aggregator_action
    def join(states: list[State]) -> State:
        return State([state.messages[0] for state in states])

    builder = GraphBuilder("branches")
    builder.add_aggregator(AggregatorNode("join", join))
    for number in range(count):
        names = [f"{step}{number}" for step in ("edit", "generate", "bump")]
        for name, action in zip(names, (edit, generate, bump), strict=True):
            builder.add_node(ProcessingNode(name, action))
        builder.add_concrete_edge("start", names[0])
        builder.add_concrete_edge(names[0], names[1])
        builder.add_concrete_edge(names[1], names[2])
        builder.add_conditional_edge(names[2], [names[2], "join"], again)
    builder.add_concrete_edge("join", "end")
    graph = builder.build_graph()
    return lambda: run(graph, State([""]), **options).messages


def agent(calls: int, **options: Any) -> Callable[[], list[agents.Fields]]:
    @node_action
    def model(state: State) -> State:
        return State([*state.messages, agents.fake_model(state.messages, calls)])

    @node_action
    def tool(state: State) -> State:
        return State([*state.messages, agents.fake_tool(state.messages)])

    @routing_function(placement="worker")
    def wanted(state: State) -> str:
        return "tool" if state.messages[-1]["call"] else "end"

    builder = GraphBuilder("agent")
    builder.add_node(ProcessingNode("model", model))
    builder.add_node(ProcessingNode("tool", tool))
    builder.add_concrete_edge("start", "model")
    builder.add_conditional_edge("model", ["tool", "end"], wanted)
    builder.add_concrete_edge("tool", "model")
    graph = builder.build_graph()
    question = {"role": "user", "content": "hi", "call": None}
    return lambda: run(graph, State([question]), **options).messages


def wide(width: int, messages: int, **options: Any) -> Callable[[], Any]:
    def step(name: str) -> Any:
        @node_action
        def call(state: State) -> State:
            fields = state.messages[0]
            return State([agents.reduced(fields, agents.update_of(name, fields))])

        return ProcessingNode(name, call)

    def side(name: str) -> Any:
        @node_action
        def call(state: State) -> State:
            return State([state.messages[0], agents.update_of(name, state.messages[0])])

        return ProcessingNode(name, call)

    @aggregator_action
    def five(states: list[State]) -> State:
        fields = states[0].messages[0]
        for state in states:
            fields = agents.reduced(fields, state.messages[1])
        return State([agents.reduced(fields, agents.update_of("five", fields))])

    @routing_function(placement="worker")
    def enough(state: State) -> str:
        return "end" if len(state.messages[0]["messages"]) > messages else "one"

    builder = GraphBuilder("wide")
    for node in (step("one"), step("two"), side("three"), side("four"), step("six")):
        builder.add_node(node)
    builder.add_aggregator(AggregatorNode("five", five))
    edges = "start one two three five six", "two four five"
    for path in edges:
        names = path.split()
        for source, sink in itertools.pairwise(names):
            builder.add_concrete_edge(source, sink)
    builder.add_conditional_edge("six", ["one", "end"], enough)
    graph = builder.build_graph()
    given = agents.first_fields(width)
    return lambda: run(graph, State([given]), **options).messages[0]
