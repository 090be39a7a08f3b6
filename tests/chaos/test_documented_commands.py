"""Every command of README and docs that needs a cluster, run on a head with a token."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documented import ON_A_CLUSTER, ROOT, consoles, shape
from tests.heads import Head
from tests.s3_server import AWS, BUCKET, S3Server

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]

FLOW = """
from pathlib import Path

from graphorch_ray import GraphBuilder, ProcessingNode, State, node_action


@node_action
def greet(state):
    return State([f"Hello, {name}" for name in state.messages])


@node_action
async def wait(state):
    import asyncio

    while state.messages and not Path(state.messages[0]).exists():
        await asyncio.sleep(0.05)
    return state


def chain(name, *functions):
    builder, before = GraphBuilder(name), "start"
    for function in functions:
        builder.add_node(ProcessingNode(function.__name__, function))
        builder.add_concrete_edge(before, function.__name__)
        before = function.__name__
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()


graph = chain("greeting", greet)
waiting = chain("waiting", wait, greet)
"""


class Shell:
    """Types commands in a directory, at a cluster.

    Attributes:
        typed: the commands as the documents have them.
        filled: what stands for their placeholders.
    """

    def __init__(self, head: Head, folder: Path, s3: S3Server) -> None:
        self.typed: set[str] = set()
        self._folder = folder
        self._env = {
            **head.env,
            "PYTHONPATH": str(ROOT),
            "RAY_ADDRESS": head.address,
            **AWS,
            "AWS_ENDPOINT_URL_S3": s3.options["endpoint_url"],
        }
        self.filled = {
            **dict.fromkeys(("http://HOST:8265", "http://head:8265"), head.url),
            **dict.fromkeys(("HOST:6379", "HOST:PORT"), head.address),
            "s3://bucket/": f"s3://{BUCKET}/",
        }

    def __call__(
        self, line: str, *, together: bool = False, **filled: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line, and see that it ends well; its outputs together, as in a terminal."""
        if line in ON_A_CLUSTER:
            self.typed.add(line)
        program, *arguments = shlex.split(self.fill(line, **filled))
        assert program == "graphorch-ray"
        done = subprocess.run(
            [sys.executable, "-m", "graphorch_ray", *arguments],
            cwd=self._folder,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if together else subprocess.PIPE,
            text=True,
            timeout=100,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done

    def fill(self, text: str, **filled: str) -> str:
        for placeholder, value in {**self.filled, **filled}.items():
            text = text.replace(placeholder, value)
        return text


@pytest.fixture
def head() -> Iterator[Head]:
    """One for each test: what a hosted run was, its cluster knows for a while."""
    with Head() as head:
        yield head


@pytest.fixture
def shell(head: Head, tmp_path: Path, s3: S3Server) -> Shell:
    (tmp_path / "flow.py").write_text(FLOW)
    (tmp_path / "state.json").write_text('["Ada"]')
    (tmp_path / "names.json").write_text('["Ada", "Bob"]')
    return Shell(head, tmp_path, s3)


def test_every_command_that_needs_a_cluster_runs(shell: Shell, tmp_path: Path) -> None:
    assert json.loads(shell("graphorch-ray run flow.py:graph").stdout)["messages"] == []
    assert "no fault found" in shell("graphorch-ray doctor").stderr
    doctor = (
        "graphorch-ray doctor --address HOST:6379 --jobs http://HOST:8265 "
        "--checkpoint s3://bucket/try"
    )
    told = shell(doctor).stdout
    assert re.search(r"ok +store +writes can be made create-only", told), told

    # Jobs.
    submit = "graphorch-ray submit --address http://head:8265 --working-dir . -- run flow.py:graph "
    sent = shell(submit + "--input state.json")
    assert json.loads(sent.stdout)["messages"] == ["Hello, Ada"]
    found = re.search(r"submitted job (\S+)", sent.stderr)
    assert found is not None, sent.stderr
    url = shell.filled["http://HOST:8265"]
    again = shell("graphorch-ray attach JOB --address URL", JOB=found[1], URL=url)
    assert again.stdout == sent.stdout
    shell.typed.add(  # with the program that stands beside it: tests/chaos/test_jobs.py
        "graphorch-ray submit --address http://10.0.0.1:8265 --working-dir . -- run flow.py:graph "
        "--input names.json --output out.json --report run.html"
    )

    # Hosted runs: one is held and let go, the other cancelled.
    names, greeting = ("held", "gone"), f"Hello, {tmp_path}/go-held"
    for name in names:
        (tmp_path / f"{name}.json").write_text(json.dumps([str(tmp_path / f"go-{name}")]))
        options = f"--input {name}.json --checkpoint runs/{name} --hosted {name}"
        assert shell(f"graphorch-ray run flow.py:waiting {options}").stdout == f"{name}\n"
    for line in ("graphorch-ray runs", "graphorch-ray runs list"):
        assert all(name in shell(line).stdout for name in names)
    shell("graphorch-ray runs pause NAME", NAME="held")
    (tmp_path / "go-held").touch()
    shell("graphorch-ray runs resume NAME", NAME="held")
    final = shell("graphorch-ray runs result NAME", NAME="held").stdout
    assert json.loads(final)["messages"] == [greeting]
    assert "finished" in shell("graphorch-ray runs show NAME", NAME="held").stdout
    shell("graphorch-ray runs cancel NAME", NAME="gone")
    assert "gone" in shell("graphorch-ray runs --address HOST:PORT show NAME", NAME="gone").stdout

    again = shell("graphorch-ray resume URL", URL="runs/held")
    assert json.loads(again.stdout)["messages"] == [greeting]
    assert ON_A_CLUSTER - shell.typed == set()


@pytest.mark.parametrize("page", ["cluster.md", "hosted-runs.md"])
def test_every_command_prints_what_the_page_says(shell: Shell, page: str) -> None:
    (block,) = consoles(ROOT / "docs" / page)
    for line, said in block:
        printed = shell(line, together=True).stdout
        assert re.fullmatch(shape(shell.fill(said)), printed.strip()), f"{line}\n{printed}"
