"""The head is lost in the middle of a run, with all that it knew; the run goes on on another."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from ..heads import Head
from ..s3_server import AWS, BUCKET, S3Server
from .test_jobs import SLOW, await_file, command, environment

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

FLOW = """
import os
import time
from pathlib import Path

from graphorch_ray import GraphBuilder, ProcessingNode, State, current_execution, node_action

FOLDER = Path(os.environ["LEDGER"])


@node_action
def step(state):
    number = current_execution().superstep
    with (FOLDER / "ledger").open("a") as ledger:
        ledger.write(f"{number} ")
    if number == 3 and not (FOLDER / "second").exists():
        (FOLDER / "in the middle").touch()
        time.sleep(600)
    return State([*state.messages, number])


builder, before = GraphBuilder("steps"), "start"
for n in range(5):
    builder.add_node(ProcessingNode(f"step{n}", step))
    builder.add_concrete_edge(before, f"step{n}")
    before = f"step{n}"
builder.add_concrete_edge(before, "end")
graph = builder.build_graph()
"""


def test_a_run_is_resumed_from_s3_after_its_head_was_lost(tmp_path: Path, s3: S3Server) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "steps.py").write_text(FLOW)
    url = f"s3://{BUCKET}/lost-head"
    known = {
        **AWS,
        "AWS_ENDPOINT_URL_S3": s3.options["endpoint_url"],
        "LEDGER": str(tmp_path),
    }
    first = Head()

    def submit(head: Head, *arguments: str) -> list[str]:
        passed = [option for name in known for option in ("--env", name)]
        own = ("submit", "--address", head.url, "--working-dir", ".", *passed)
        return command(*own, "--", *arguments)

    with first:
        client = subprocess.Popen(
            submit(first, "run", "steps.py:graph", "--checkpoint", url, "--progress"),
            cwd=project,
            env=environment(first, **known),
            stderr=subprocess.PIPE,
            text=True,
        )
        await_file(tmp_path / "in the middle")
    # The head is gone, and its client notices within a time that is set.
    _, said = client.communicate(timeout=SLOW)
    assert client.returncode == 3, said
    assert "the job server has not answered for 30 s" in said
    assert (tmp_path / "ledger").read_text() == "1 2 3 "

    (tmp_path / "second").touch()
    second = Head(port=first.port, dashboard_port=first.dashboard_port, agent_port=first.agent_port)
    with second:
        done = subprocess.run(
            submit(second, "resume", url, "--graph", "steps.py:graph", "--json"),
            cwd=project,
            env=environment(second, **known),
            capture_output=True,
            text=True,
            timeout=SLOW,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"]["messages"] == [1, 2, 3, 4, 5]
    # What was committed did not run again; what was lost with the head did.
    assert re.fullmatch(r"1 2 3 3 4 5 ", (tmp_path / "ledger").read_text())
