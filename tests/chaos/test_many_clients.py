"""Fifty runs at once, from five processes, on one cluster whose workers are killed at random.

It lasts forty seconds; GRAPHORCH_CHAOS_SECONDS asks for another length.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("GRAPHORCH_CHAOS_SECONDS", "40"))

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(SECONDS + 240)]

ROOT = Path(__file__).parents[2]

CLUSTER = """
import contextlib, json, os, random, subprocess, sys, time
import logging
import psutil
import ray

folder, seconds = sys.argv[1], float(sys.argv[2])
ray.init(
    address="local", num_cpus=4, include_dashboard=False, _node_ip_address="127.0.0.1",
    _temp_dir=folder + "/ray", object_store_memory=500_000_000, logging_level=logging.ERROR,
    log_to_driver=False,
    # Each client has workers of its own: keep them, or Ray ends and starts processes all the time.
    _system_config={"num_workers_soft_limit": 20, "idle_worker_killing_time_threshold_ms": 10**6},
)
address = ray.get_runtime_context().gcs_address
raylet = next(p for p in psutil.Process().children(recursive=True) if p.name() == "raylet")

def workers():
    found = {}
    for process in raylet.children():
        with contextlib.suppress(psutil.Error):
            name = " ".join(process.cmdline()[:1])
            if name.startswith("ray::") and "Agent" not in name:
                found[process] = name
    return found

clients = [
    subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", open(folder + "/client.py").read(), folder,
         str(number), str(seconds)],
        env={**os.environ, "RAY_ADDRESS": address}, stdout=subprocess.DEVNULL,
    )
    for number in range(5)
]
chance, kills, end = random.Random(7), 0, time.monotonic() + seconds
drivers = 0
while time.monotonic() < end:
    time.sleep(chance.uniform(2, 4))
    there = workers()
    hosts = [process for process, name in there.items() if "HostedRun" in name]
    nodes = [process for process in there if process not in hosts]
    busy = [process for process in nodes if there[process] != "ray::IDLE"]
    victims = hosts if hosts and chance.random() < 0.15 else busy or nodes
    if victims:
        victim = chance.choice(victims)
        with contextlib.suppress(psutil.Error):
            victim.kill()
            kills += victim not in hosts
            drivers += victim in hosts
told = []
for number, client in enumerate(clients):
    client.wait(timeout=200)
    told.append(json.load(open(f"{folder}/told.{number}")))

from ray._private.state import actors

def left():
    free, total = ray.available_resources(), ray.cluster_resources()
    return {
        "actors": [a["ActorClassName"] for a in actors().values() if a["State"] != "DEAD"],
        "workers": [name for name in workers().values() if name != "ray::IDLE"],
        "bytes": total["object_store_memory"] - free.get("object_store_memory", 0),
        "cpus": total["CPU"] - free.get("CPU", 0),
    }

def is_nothing(found):
    return not any(found.values())

end = time.monotonic() + 30
while not is_nothing(left()) and time.monotonic() < end:
    time.sleep(0.5)
from ray.experimental.internal_kv import _internal_kv_list
notes = len(_internal_kv_list("", namespace=b"graphorch_ray"))
print(json.dumps({
    "clients": told, "kills": kills, "drivers": drivers, "left": left(), "notes": notes,
}))
ray.shutdown()
"""

CLIENT = """
import json, random, sys, threading, time
import numpy as np
import psutil
from graphorch_ray import (
    AggregatorNode, GraphBuilder, GraphExecutor, ProcessingNode, State, aggregator_action,
    node_action, routing_function, run_many,
)

folder, client, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
end = time.monotonic() + seconds

@node_action(num_cpus=1)
def wait(state):
    time.sleep(0.1)
    return State([*state.messages[:1], state.messages[0] + 1])

@node_action(num_cpus=0.5)
async def wait_async(state):
    import asyncio
    await asyncio.sleep(0.1)
    return State([state.messages[0], state.messages[0] * 2])

@node_action(num_cpus=1)
def large(state):
    return State([state.messages[0], float(np.full(30_000, state.messages[0]).sum())])

@aggregator_action
def add_up(states):
    return State([states[0].messages[0] + 1, sum(state.messages[1] for state in states)])

@routing_function
def again(state):
    return "end" if state.messages[0] % 3 == 0 else "fan"

def value(start):
    # What a run that begins with `start` comes to.
    while True:
        added = (start + 1) + start * 2 + float(start * 30_000)
        start += 1
        if start % 3 == 0:
            return [start, added]

builder = GraphBuilder("round")
from graphorch_ray import pass_through
builder.add_node(ProcessingNode("fan", pass_through))
builder.add_aggregator(AggregatorNode("add_up", add_up))
builder.add_concrete_edge("start", "fan")
for node in (
    ProcessingNode("wait", wait), ProcessingNode("async", wait_async),
    ProcessingNode("large", large),
):
    builder.add_node(node)
    builder.add_concrete_edge("fan", node.node_id)
    builder.add_concrete_edge(node.node_id, "add_up")
builder.add_conditional_edge("add_up", ["fan", "end"], again)
graph = builder.build_graph()

options = {"infrastructure_retries": 30}
hosted, wrong = [0], []

def host():
    # One hosted run after another, beside the others.
    while time.monotonic() < end:
        number = client * 1000 + hosted[0]
        path = f"{folder}/runs/{number}"
        executor = GraphExecutor(
            graph, State([number]), checkpoint_path=path, checkpoint_every=1, **options
        )
        handle = executor.submit(100, None, name=f"run {number}", max_restarts=30, keep_result=1)
        try:
            right = handle.result().messages == value(number)
        except Exception as error:
            right, number = False, f"{number}: {error}"
        if not right:
            wrong.append(number)
        hosted[0] += 1

beside = threading.Thread(target=host)
beside.start()
given, lost, held = [], 0, []

def states():
    while time.monotonic() < end:
        given.append(random.Random(len(given)).randrange(1000))
        yield State([given[-1]])

me, done = psutil.Process(), 0
for result in run_many(graph, states(), max_concurrent_runs=10, superstep_timeout=None, **options):
    done += 1
    if result.error is not None or result.final_state.messages != value(given[result.index]):
        wrong.append([given[result.index], str(result.error)])
    lost += result.summary.infrastructure_failures
    held.append(me.memory_info().rss)
beside.join()
third = max(1, len(held) // 3)
with open(f"{folder}/told.{client}", "w") as file:
    told = {"done": done, "hosted": hosted[0], "wrong": wrong, "lost": lost}
    json.dump({**told, "grown": max(held[-third:]) - max(held[:third])}, file)
"""


def test_fifty_runs_at_once_from_five_processes_are_right_and_leave_nothing() -> None:
    folder = tempfile.mkdtemp(prefix="gor", dir="/tmp")  # Ray's socket paths must be short
    try:
        Path(folder, "client.py").write_text(CLIENT)
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CLUSTER, folder, str(SECONDS)],
            env={
                **os.environ,
                "RAY_AUTH_MODE": "disabled",
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
            timeout=SECONDS + 230,
            check=False,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    (line,) = (line for line in ran.stdout.splitlines() if line.startswith('{"clients"'))
    told = json.loads(line)
    print(json.dumps(told))
    clients = told["clients"]
    assert [client.get("wrong") for client in clients] == [[]] * 5, told
    # Ray serves the tasks of one client for long before it turns to another's.
    assert all(client["done"] >= 10 and client["hosted"] >= 1 for client in clients), told
    assert told["kills"] >= 5, "workers were killed"
    assert sum(client["lost"] for client in clients) >= 3, "and runs noticed"
    assert max(client["grown"] for client in clients) < 40_000_000, "memory is flat"
    assert (told["left"], told["notes"]) == (
        {"actors": [], "workers": [], "bytes": 0, "cpus": 0},
        0,
    )
