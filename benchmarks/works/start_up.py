"""W11: what there is to wait for before the first result, and for the import."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from benchmarks.measuring import Goal, Work

HELLO = """
from graphorch_ray import GraphBuilder, GraphExecutor, ProcessingNode, State, node_action

@node_action
def hello(state):
    return State(["hello"])

builder = GraphBuilder("hello")
builder.add_node(ProcessingNode("hello", hello))
builder.add_concrete_edge("start", "hello")
builder.add_concrete_edge("hello", "end")
print(GraphExecutor(builder.build_graph(), State([])).run().messages[0])
"""

TASK = """
import logging
import ray

@ray.remote
def hello():
    return "hello"

ray.init(
    address="local",
    include_dashboard=False,
    logging_level=logging.ERROR,
    _node_ip_address="127.0.0.1",
)
print(ray.get(hello.remote()))
"""


def program(text: str) -> Callable[[], str]:
    """Run a program in a Python of its own; gives the last line that it prints."""

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, env=os.environ
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-500:])
        return done.stdout.strip().splitlines()[-1]

    return run


def first_result(quick: bool) -> Work:
    """W11: the first result of a program on a machine with no Ray running."""
    return Work(
        "W11",
        "the first result of hello graph, no Ray running",
        {
            "graphorch_ray": program(HELLO),
            "ray.init and a task": program(TASK),
        },
        [Goal("graphorch_ray", 0.5, "ray.init and a task", difference=True)],
        needs_ray=False,
        rounds=2 if quick else None,
        note="Whole processes, from start to exit; Ray's own end is part of both.",
    )


def imports(quick: bool) -> Work:
    """W11, the other half: the import alone."""
    return Work(
        "W11b",
        "the import",
        {
            "import graphorch_ray": program("import graphorch_ray; print('done')"),
            "import ray": program("import ray; print('done')"),
        },
        [Goal("import graphorch_ray", 1.1, "import ray")],
        needs_ray=False,
        rounds=2 if quick else None,
    )


WORKS: dict[str, Callable[[bool], Work]] = {"W11": first_result, "W11b": imports}
