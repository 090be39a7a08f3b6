"""A program written for GraphOrchestrator: only its import lines were changed.

    python examples/coming_from_graphorchestrator.py

docs/coming-from-graphorchestrator.md lists what behaves differently, and why.
"""

import asyncio
import random

# Before:
#
#     from graphorchestrator.core.exceptions import GraphExecutionError
#     from graphorchestrator.core.retry import RetryPolicy
#     from graphorchestrator.core.state import State
#     from graphorchestrator.decorators.actions import (
#         aggregator_action, node_action, routing_function, tool_method,
#     )
#     from graphorchestrator.graph.builder import GraphBuilder
#     from graphorchestrator.graph.executor import GraphExecutor
#     from graphorchestrator.nodes.nodes import AggregatorNode, ProcessingNode, ToolNode
#
# After:
from graphorch_ray import (
    AggregatorNode,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    ToolNode,
    aggregator_action,
    node_action,
    routing_function,
    tool_method,
)


@node_action
def load_readings(state):
    generator = random.Random(state.messages[0])
    return State(messages=[round(generator.gauss(20, 3), 1) for _ in range(12)])


@tool_method
async def mean(state):
    """Mean of the readings."""
    await asyncio.sleep(0.01)
    return State(messages=[("mean", sum(state.messages) / len(state.messages))])


@tool_method
def spread(state):
    """Largest reading less the smallest."""
    return State(messages=[("spread", max(state.messages) - min(state.messages))])


@node_action
async def call_sensor(state):
    raise ConnectionError("the sensor sleeps")


@node_action
def last_known(state):
    return State(messages=[("sensor", "asleep")])


@aggregator_action
def combine(states):
    return State(messages=[message for state in states for message in state.messages])


@routing_function
def is_calm(state):
    return "calm" if dict(state.messages)["spread"] < 15 else "storm"


@node_action
def calm(state):
    return State(messages=["calm", *state.messages])


@node_action
def storm(state):
    return State(messages=["storm", *state.messages])


def build():
    builder = GraphBuilder(name="weather")
    builder.add_node(ProcessingNode("load", load_readings))
    builder.add_node(ToolNode("mean", "Mean of the readings", mean))
    builder.add_node(ToolNode("spread", None, spread))
    builder.add_node(ProcessingNode("sensor", call_sensor))
    builder.add_node(ProcessingNode("last_known", last_known))
    builder.add_aggregator(AggregatorNode("combine", combine))
    builder.add_node(ProcessingNode("calm", calm))
    builder.add_node(ProcessingNode("storm", storm))
    builder.add_concrete_edge("start", "load")
    for node_id in ("mean", "spread", "sensor"):
        builder.add_concrete_edge("load", node_id)
        builder.add_concrete_edge(node_id, "combine")
    builder.set_fallback_node("sensor", "last_known")
    builder.set_node_retry_policy("sensor", RetryPolicy(max_retries=1, delay=0.01))
    builder.add_conditional_edge("combine", ["calm", "storm"], is_calm)
    builder.add_concrete_edge("calm", "end")
    builder.add_concrete_edge("storm", "end")
    return builder.build_graph()


async def forecast(seed):
    executor = GraphExecutor(build(), State(messages=[seed]), max_workers=8)
    try:
        return await executor.execute(max_supersteps=20, superstep_timeout=60)
    except GraphExecutionError as error:
        print("no forecast:", error)
        raise


def main(seed=7):
    result = asyncio.run(forecast(seed))
    print(result.messages[0])
    for name, value in result.messages[1:]:
        print(f"  {name}: {value if isinstance(value, str) else round(value, 2)}")


if __name__ == "__main__":
    main()
