"""What a node may ask for: cores, GPUs, memory, custom resources, a time limit, retries.

    python examples/resources.py

Options go on the decorator, or on the node, whose own take precedence. They mean what they mean
to Ray, and none of them needs to be given. A request that no machine of the cluster could ever
meet is an error before any work starts, and says what there is: the last part shows it.
"""

from __future__ import annotations

import time

from graphorch_ray import (
    AggregatorNode,
    GraphBuilder,
    GraphExecutor,
    ProcessingNode,
    ResourceRequestError,
    RetryPolicy,
    State,
    aggregator_action,
    current_execution,
    node_action,
)


@node_action(num_cpus=1, memory=200 * 2**20)  # a whole core, 200 MiB kept free for it
def crunch(state: State) -> State:
    return State([f"sum of squares: {sum(n * n for n in range(state.messages[0])):,}"])


@node_action(num_cpus=0)  # waits more than it works: takes no core from the others
def look_up(state: State) -> State:
    time.sleep(0.1)
    return State(["looked up"])


@node_action(timeout=0.5)  # seconds for one attempt; on Ray the process is killed at that point
def sometimes_stuck(state: State) -> State:
    attempt = current_execution().attempt
    if attempt == 0:
        time.sleep(5)
    return State([f"stuck at first, done at attempt {attempt}"])


@node_action(num_gpus=1, resources={"fast_disk": 1})
def train(state: State) -> State:
    return State(["trained"])


@aggregator_action
def collect(states: list[State]) -> State:
    return State([message for state in states for message in state.messages])


def main(numbers: int = 1_000_000) -> None:
    builder = GraphBuilder("resources")
    builder.add_aggregator(AggregatorNode("collect", collect))
    for name, action in (("crunch", crunch), ("look_up", look_up), ("stuck", sometimes_stuck)):
        builder.add_node(ProcessingNode(name, action))
        builder.add_concrete_edge("start", name)
        builder.add_concrete_edge(name, "collect")
    builder.set_node_retry_policy("stuck", RetryPolicy(max_retries=1, delay=0.05))
    builder.add_concrete_edge("collect", "end")
    executor = GraphExecutor(builder.build_graph(), State([numbers]))
    result = executor.run()
    assert result is not None
    print(*result.messages, sep="\n")
    stuck = executor.summary.nodes["stuck"]
    print(f"stuck: {stuck.attempts} attempts, {stuck.timeouts} of them over its time limit")

    builder = GraphBuilder("gpu")
    builder.add_node(ProcessingNode("train", train))
    builder.add_concrete_edge("start", "train")
    builder.add_concrete_edge("train", "end")
    executor = GraphExecutor(builder.build_graph(), State())
    try:
        result = executor.run()
    except ResourceRequestError as error:
        print(f"refused before any work: {error}")
    else:
        assert result is not None
        where = (
            "" if executor.backend == "ray" else " (in this process: requests count on Ray only)"
        )
        print(f"train: {result.messages[0]}{where}")


if __name__ == "__main__":
    main()
