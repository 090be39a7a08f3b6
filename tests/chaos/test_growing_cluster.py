"""Real clusters that grow: a machine added by hand, and machines added by Ray's autoscaler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.heads import Head

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]

NODES = """
import logging, sys, time, warnings
from pathlib import Path
import ray
from graphorch_ray import (
    AggregatorNode, GraphBuilder, GraphExecutionError, GraphExecutor, ProcessingNode, State,
    aggregator_action, node_action,
)

folder = Path(sys.argv[1])

@aggregator_action
def join(states):
    return State(sorted(state.messages[0] for state in states))

def star(*nodes):
    builder = GraphBuilder("star")
    builder.add_aggregator(AggregatorNode("join", join))
    for node in nodes:
        builder.add_node(node)
        builder.add_concrete_edge("start", node.node_id)
        builder.add_concrete_edge(node.node_id, "join")
    builder.add_concrete_edge("join", "end")
    return builder.build_graph()

def meet(count, name, **options):
    # A node that ends when so many run at once; it says on which machine.
    place = folder / name
    place.mkdir()

    @node_action(batch=False, **options)
    def meeting(state):
        (place / str(time.time_ns())).touch()
        while len(list(place.iterdir())) < count:
            time.sleep(0.02)
        return State([ray.get_runtime_context().get_node_id()])

    return star(*(ProcessingNode(f"{name}{i}", meeting) for i in range(count)))

def until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)

def machines():
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]
"""

ADDED = """
import threading
from ray.cluster_utils import Cluster

cluster = Cluster(
    initialize_head=True, head_node_args={"num_cpus": 2, "temp_dir": str(folder / "ray")}
)
ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)

finals = []
executor = GraphExecutor(meet(4, "wide", num_cpus=1), State(), 8)
running = threading.Thread(target=lambda: finals.append(executor.run(superstep_timeout=120)))
running.start()
until(lambda: len(list((folder / "wide").iterdir())) == 2, "the head is full")
time.sleep(1.5)
print("BEFORE", len(list((folder / "wide").iterdir())), len(machines()))
cluster.add_node(num_cpus=2)  # Ray wants this in the main thread
running.join()
on = finals[0].messages
print("AFTER", len(on), len(set(on)), [on.count(machine) for machine in sorted(set(on))])
"""

AUTOSCALED = """
from ray.autoscaler.v2.sdk import get_cluster_status

ray.init(logging_level=logging.ERROR, log_to_driver=False)
address = ray.get_runtime_context().gcs_address

def demanded():
    demands = get_cluster_status(address).resource_demands
    return sum(
        bundles.count
        for demand in demands.ray_task_actor_demand
        for bundles in demand.bundles_by_count
    )

warnings.simplefilter("ignore")
print("BEFORE", len(machines()), demanded())
final = GraphExecutor(meet(4, "wide"), State(), 4).run(superstep_timeout=120)
print("GREW", len(set(final.messages)), sorted(map(final.messages.count, set(final.messages))))

# More than the cluster may ever have is wanted, and the run ends by its time: nothing is left.
try:
    GraphExecutor(meet(5, "never", num_cpus=1), State(), 5).run(superstep_timeout=8)
except GraphExecutionError as error:
    print("FAILED", "timed out" in str(error))
print("ASKED", len(list((folder / "never").iterdir())))
until(lambda: demanded() == 0, "nothing is asked for any longer")
until(lambda: len(machines()) == 1, "the machines are given back", 100)
print("GAVE BACK", len(machines()), demanded())
"""


def said(script: str, folder: str, env: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NODES + script, folder],
        env={**env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return [line for line in done.stdout.splitlines() if line.split(" ")[0].isupper()]


def test_E4_a_machine_added_while_a_superstep_runs_widens_it() -> None:
    folder = tempfile.mkdtemp(prefix="gor", dir="/tmp")  # Ray's socket paths must be short
    try:
        lines = said(ADDED, folder, {**os.environ, "RAY_AUTH_MODE": "disabled"})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert lines == ["BEFORE 2 1", "AFTER 4 2 [2, 2]"]


def test_E4_an_autoscaler_adds_what_a_superstep_waits_for_and_takes_it_back() -> None:
    """Ray's own autoscaler, whose machines are processes here."""
    folder = tempfile.mkdtemp(prefix="gor", dir="/tmp")
    head_id = "f" * 51 + "00000"
    head = Head(
        cpus=0,
        arguments=(f"--autoscaling-config={folder}/autoscaling.json",),
        environment={
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": head_id,
            "RAY_NODE_TYPE_NAME": "ray.head.default",
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": head_id,
        },
    )
    config = {
        "cluster_name": "grows",
        "max_workers": 2,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": head.address,
            "head_node_id": head_id,
            "launch_multiple": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
            "pair": {
                "resources": {"CPU": 2, "object_store_memory": 100_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 2,
            },
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 10,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "cluster_synced_files": [],
        "rsync_exclude": [],
        "rsync_filter": [],
        **{
            f"{step}_commands": []
            for step in (
                *("initialization", "setup", "head_setup", "worker_setup"),
                *("head_start_ray", "worker_start_ray"),
            )
        },
    }
    Path(folder, "autoscaling.json").write_text(json.dumps(config))
    try:
        with head:
            lines = said(AUTOSCALED, folder, {**head.env, "RAY_ADDRESS": head.address})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert lines == [
        "BEFORE 1 0",
        "GREW 2 [2, 2]",
        "FAILED True",
        "ASKED 4",
        "GAVE BACK 1 0",
    ]
