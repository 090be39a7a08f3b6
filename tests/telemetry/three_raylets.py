"""A run over three raylets in which much goes wrong, traced by OTLP.

Started as a program: ``python -m tests.telemetry.three_raylets FOLDER [PROTOCOL URL]...``. For each
receiver the run is done once; it prints a JSON line that says what the run did.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import sys
from typing import Any, cast

import ray
from opentelemetry import trace
from ray.cluster_utils import Cluster

from graphorch_ray import (
    GraphExecutor,
    Node,
    ProcessingNode,
    RetryPolicy,
    State,
    node_action,
    telemetry,
)
from tests.runtime.nodes import killed_once, once, star

RAYLETS = ("head", "left", "right")
ASYNC_NODES = 6
"""On each raylet."""

OWN_SPANS = 2
"""Of each attempt at a node of these that gave an answer: `MAKE_SPANS`."""

MAKE_SPANS = ("sound", "retried", "async", "in")
"""How the names of nodes begin that make spans of their own."""

TRACER = trace.get_tracer("users.own")


def own_spans() -> None:
    """Two spans, one beneath the other."""
    with TRACER.start_as_current_span("outer"), TRACER.start_as_current_span("inner"):
        pass


def nodes_on(raylet: str) -> list[Node]:
    """Sound ones, and those that go wrong on this raylet."""
    here: dict[str, Any] = {"resources": {raylet: 0.001}, "num_cpus": 0}

    @node_action(**here)
    def sound(state: State) -> State:
        own_spans()
        return state

    @node_action(**here)
    def retried(state: State) -> State:
        own_spans()
        if once(f"{state.messages[0]}.{raylet}.retried"):
            raise ValueError("again")
        return state

    @node_action(**here)
    def falls(state: State) -> State:
        raise ValueError("for good")

    @node_action(**here)
    def killed(state: State) -> State:
        return cast(State, killed_once(State([f"{state.messages[0]}.{raylet}.killed"])))

    @node_action(**here)
    async def late(state: State) -> State:
        if once(f"{state.messages[0]}.{raylet}.late"):
            await asyncio.sleep(600)
        return state

    @node_action(**here)
    async def waits(state: State) -> State:
        own_spans()
        await asyncio.sleep(0.01)
        return state

    faults: dict[str, list[Node]] = {
        "head": [ProcessingNode("killed", killed)],
        "left": [ProcessingNode("retried", retried), ProcessingNode("late", late, timeout=3.0)],
        "right": [ProcessingNode("falls", falls)],
    }
    return [
        *faults[raylet],
        ProcessingNode(f"sound.{raylet}", sound),
        *(ProcessingNode(f"async{i}.{raylet}", waits) for i in range(ASYNC_NODES)),
    ]


def run_once(once_path: str) -> dict[str, Any]:
    """Run the graph, and say what the run did."""

    @node_action
    def stands_in(state: State) -> State:
        own_spans()
        return state

    graph = star(
        *(node for raylet in RAYLETS for node in nodes_on(raylet)),
        fallbacks={"falls": ProcessingNode("in", stands_in)},
    )
    executor = GraphExecutor(
        graph, State([once_path]), max_workers=8, backend="ray", retry_policy=RetryPolicy(3, 0.01)
    )
    executor.run(superstep_timeout=200)
    summary = executor.summary
    nodes = {name: dataclasses.asdict(node) for name, node in summary.nodes.items()}
    return {"supersteps": summary.supersteps, "nodes": nodes}


def main() -> None:
    """Start three raylets, and run."""
    folder, *receivers = sys.argv[1:]
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "resources": {"head": 1}, "temp_dir": f"{folder}/ray"},
    )
    for raylet in RAYLETS[1:]:
        cluster.add_node(num_cpus=1, resources={raylet: 1})
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    for protocol, url in zip(receivers[::2], receivers[1::2], strict=True):
        telemetry.configure(otlp=url, protocol=cast(Any, protocol))
        done = run_once(f"{folder}/{protocol.replace('/', '-')}")
        done["flushed"] = telemetry.flush(30)
        telemetry.shutdown()
        print(json.dumps(done), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    from tests.telemetry import three_raylets  # by name, so that workers import it

    three_raylets.main()
