"""Checkpoints on a real Ray cluster: machines removed, workers and drivers killed, disks apart."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.chaos.test_kill_sweep import EXPECTED

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]

OTHER_DISK = """
import os, sys
disk = os.environ.get("OTHER_DISK")
if disk and any("default_worker" in part for part in sys.orig_argv):
    from graphorch_ray.checkpoint.files import LocalFiles
    begin = LocalFiles.__init__
    def elsewhere(self, root):
        begin(self, disk + root)
    LocalFiles.__init__ = elsewhere
"""
"""Run by each Python of a raylet: what its workers take for a local path lies on another disk."""

SCRIPT = """
import contextlib, logging, os, signal, subprocess, sys, time
import numpy as np
import psutil
import ray
from pathlib import Path
from ray.cluster_utils import Cluster
from graphorch_ray import (
    CheckpointData, GraphBuilder, GraphExecutor, HumanInTheLoopNode, ProcessingNode, State,
    current_execution, node_action, pass_through,
)

folder, modules, root = sys.argv[1:]
cluster = Cluster(
    initialize_head=True, head_node_args={"num_cpus": 2, "temp_dir": folder + "/ray"}
)
far = cluster.add_node(num_cpus=2, resources={"far": 2})
apart = cluster.add_node(
    num_cpus=1,
    resources={"apart": 1},
    env_vars={"OTHER_DISK": folder + "/disk", "PYTHONPATH": modules + os.pathsep + root},
)
cluster.wait_for_nodes()
ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)

def chain(*nodes):
    builder, before = GraphBuilder("chain"), "start"
    for node in nodes:
        builder.add_node(node)
        builder.add_concrete_edge(before, node.node_id)
        before = node.node_id
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()

def run(graph, name, **options):
    executor = GraphExecutor(
        graph, State([1.0]), checkpoint_path=f"{folder}/{name}", checkpoint_every=1, **options
    )
    return executor, executor.run(superstep_timeout=100)

# --- a driver is killed, and another one goes on --------------------------------------------------

def driver(failpoint):
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos.sweep", "ray", f"{folder}/killed", f"{folder}/ledger",
         "superstep", "async", "0.02"],
        env={**os.environ, "RAY_ADDRESS": cluster.address, "GRAPHORCH_FAILPOINT": failpoint},
        capture_output=True, text=True, timeout=100, cwd=root,
    )

print("KILLED", driver("manifest.after:5").returncode)
print("STOOD AT", CheckpointData.load(f"{folder}/killed").superstep)
again = driver("")
print("RESUMED", again.stdout.strip().splitlines()[-1:] or again.stderr[-2000:])

# --- a disk of its own ----------------------------------------------------------------------------

@node_action(resources={"apart": 1}, num_cpus=0)
def make_apart(state):
    from graphorch_ray.checkpoint.files import LocalFiles
    return State([np.full(10**6, state.messages[0]), LocalFiles("/x").root])

@node_action(resources={"apart": 1}, num_cpus=0)
def use_apart(state):
    return State([float(state.messages[0].sum()), state.messages[1]])

graph = chain(
    ProcessingNode("make", make_apart),
    ProcessingNode("hold", pass_through),
    ProcessingNode("use", use_apart),
)
executor, final = run(graph, "apart")
print("APART", final.messages[0], final.messages[1] == folder + "/disk/x")
print("WRITTEN THERE", sum(p.is_file() for p in Path(folder, "disk").rglob("*")))
again = GraphExecutor.resume(f"{folder}/apart", graph, superstep=3)
print("AGAIN", again.run().messages[0])

# --- workers are killed while checkpoints are written ---------------------------------------------

@node_action(resources={"far": 1}, num_cpus=0)
def grow(state):
    rounds = current_execution().superstep
    if rounds in (2, 3, 4) and not os.path.exists(f"{folder}/killed-{rounds}"):
        Path(f"{folder}/killed-{rounds}").touch()
        for process in psutil.Process().parent().children():
            with contextlib.suppress(psutil.Error):  # it may have ended by itself
                name = " ".join(process.cmdline())
                # Agents are no workers: a machine ends with its agent.
                if process.pid != os.getpid() and "ray::" in name and "Agent" not in name:
                    process.kill()
        os.kill(os.getpid(), signal.SIGKILL)
    return State([state.messages[0] + np.ones(3 * 10**6)])

graph = chain(*(ProcessingNode(f"grow{i}", grow) for i in range(5)))
executor, final = run(graph, "workers", infrastructure_retries=9)
print("WORKERS", float(final.messages[0].mean()), executor.summary.workers_lost >= 3)
print("KEPT", float(CheckpointData.load(f"{folder}/workers").final_state.messages[0].mean()))

# --- a machine that has the only copy of a state is removed ---------------------------------------

@node_action(resources={"far": 1}, num_cpus=0)
def make(state):
    Path(f"{folder}/made").open("a").write("made ")
    return State([np.full(10**6, 2.0)])

async def machine_breaks(state):
    cluster.remove_node(far, allow_graceful=False)
    return state

builder = GraphBuilder("machine")
builder.add_node(ProcessingNode("make", make))
builder.add_node(ProcessingNode("gate", pass_through))
builder.add_node(ProcessingNode("hold", pass_through))
builder.add_node(HumanInTheLoopNode("machine_breaks", machine_breaks))
builder.add_node(ProcessingNode("use", node_action(lambda s: State([float(s.messages[0].sum())]))))
for source, sink in [
    ("start", "make"), ("start", "gate"), ("make", "hold"), ("gate", "machine_breaks"),
    ("hold", "use"), ("use", "end"),
]:
    builder.add_concrete_edge(source, sink)
executor, final = run(builder.build_graph(), "machine", checkpoint_durability="sync")
print("MACHINE", final.messages, executor.summary.states_remade, Path(f"{folder}/made").read_text())
ray.shutdown()
cluster.shutdown()
"""


def test_checkpoints_on_a_cluster_that_breaks() -> None:
    """One cluster of three machines, for all that can happen to it.

    A killed driver is followed by another. A machine that does not see the driver's disk is
    noticed, and its values go through the driver. Workers die while they write. A machine that held
    the only copy of a state is removed: the state comes back from its checkpoint, and nothing runs
    again.
    """
    folder = tempfile.mkdtemp(prefix="gor", dir="/tmp")  # Ray's socket paths must be short
    try:
        modules = Path(folder, "modules")
        modules.mkdir()
        (modules / "sitecustomize.py").write_text(OTHER_DISK)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, folder, str(modules), str(ROOT)],
            env={**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=380,
            check=False,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    said = [line for line in done.stdout.splitlines() if line.split(" ")[0].isupper()]
    assert said == [
        "KILLED -9",
        "STOOD AT 4",
        f"RESUMED [{EXPECTED!r}]",
        "APART 1000000.0 True",
        "WRITTEN THERE 0",
        "AGAIN 1000000.0",
        "WORKERS 6.0 True",
        "KEPT 6.0",
        "MACHINE [2000000.0] 0 made ",
    ]
