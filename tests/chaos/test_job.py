"""A program that runs a graph, submitted as a Ray job."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).parents[2]

SUBMIT = """
import logging, sys, time
import ray
from ray.job_submission import JobSubmissionClient, JobStatus

temp_dir, port, program = sys.argv[1:]
context = ray.init(
    address="local", num_cpus=2, include_dashboard=True, dashboard_host="127.0.0.1",
    dashboard_port=int(port), logging_level=logging.ERROR, _node_ip_address="127.0.0.1",
    _temp_dir=temp_dir,
)
client = JobSubmissionClient(f"http://{context.dashboard_url}")
end = time.monotonic() + 60
while True:
    try:
        job = client.submit_job(entrypoint=f"{sys.executable} {program}")
        break
    except RuntimeError as error:  # the agent that starts jobs comes up after the head
        if "No available agent" not in str(error) or time.monotonic() > end:
            raise
        time.sleep(0.5)
ended = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)
while (status := client.get_job_status(job)) not in ended:
    time.sleep(0.2)
print(status.value)
print(client.get_job_logs(job))
ray.shutdown()
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.timeout(200)
def test_a_graph_runs_in_a_ray_job_on_the_cluster_of_the_job():
    temp_dir = tempfile.mkdtemp(prefix="gor", dir="/tmp")
    program = ROOT / "examples" / "hello_graph.py"
    try:
        done = subprocess.run(
            [sys.executable, "-c", SUBMIT, temp_dir, str(free_port()), str(program)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=180,
        )
    finally:
        shutil.rmtree(temp_dir, ignore_errors=True)
    assert done.stdout.startswith("SUCCEEDED"), done.stdout + done.stderr[-2000:]
    assert "joined the Ray cluster at 127.0.0.1" in done.stdout
    assert "HELLO, WORLD!" in done.stdout
