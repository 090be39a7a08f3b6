"""A driver that runs inside Ray itself, on a single CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
import asyncio, logging, sys, tempfile, time
import ray
from graphorch_ray import GraphExecutor, HumanInTheLoopNode, ProcessingNode, State
from tests.runtime.nodes import alabel, chain, label, star

ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level=logging.ERROR,
         _node_ip_address="127.0.0.1", _temp_dir=sys.argv[1], object_store_memory=200_000_000)

def graph():
    return star(*[ProcessingNode(f"n{i}", alabel if i % 2 else label) for i in range(6)])

EXPECTED = [["x", f"n{i}"] for i in range(6)]

@ray.remote(num_cpus=1)
def in_a_task():
    return GraphExecutor(graph(), State(["x"])).run(superstep_timeout=60).messages

@ray.remote(num_cpus=1)
def awaited_in_a_task():
    async def both():
        ticks = []
        async def tick():
            while True:
                ticks.append(1)
                await asyncio.sleep(0.01)
        other = asyncio.ensure_future(tick())
        state = await GraphExecutor(graph(), State(["x"])).execute(superstep_timeout=60)
        other.cancel()
        return state.messages, len(ticks)
    return asyncio.run(both())

@ray.remote(num_cpus=1)
class Sync:
    def go(self):
        return GraphExecutor(graph(), State(["x"])).run(superstep_timeout=60).messages

@ray.remote(num_cpus=1)
class Async:
    async def go(self):
        state = await GraphExecutor(graph(), State(["x"])).execute(superstep_timeout=60)
        return state.messages

@ray.remote(num_cpus=1)
def other():
    return "the CPU was free"

@ray.remote(num_cpus=1)
def human_in_a_task():
    async def approve(state):
        ref = other.remote()
        while not ray.wait([ref], timeout=0)[0]:
            await asyncio.sleep(0.01)
        return State([ray.get(ref)])
    graph = chain(HumanInTheLoopNode("approve", approve))
    return GraphExecutor(graph, State(["x"])).run(superstep_timeout=60).messages

assert ray.get(in_a_task.remote(), timeout=90) == EXPECTED
print("task")
assert ray.get(human_in_a_task.remote(), timeout=90) == ["the CPU was free"]
print("human")
messages, ticks = ray.get(awaited_in_a_task.remote(), timeout=90)
assert messages == EXPECTED and ticks > 1
print("awaited")
for kind in (Sync, Async):
    actor = kind.remote()
    assert ray.get(actor.go.remote(), timeout=90) == EXPECTED
    ray.kill(actor)
    print(kind.__ray_metadata__.class_name)
ray.shutdown()
"""


@pytest.mark.chaos
def test_inside_a_task_or_actor_with_the_only_cpu_no_cpu_is_held_while_waiting(tmp_path):
    import shutil
    import tempfile

    temp_dir = tempfile.mkdtemp(prefix="gor", dir="/tmp")
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT), temp_dir],
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            timeout=110,
        )
    finally:
        shutil.rmtree(temp_dir, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["task", "human", "awaited", "Sync", "Async"]
