"""Jobs on a real head with token authentication, sent by client processes of their own."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..heads import Head

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SLOW = 120.0  # seconds for what takes ten on an idle machine

STEPS = """
import time
from pathlib import Path

import graphorch_ray
from graphorch_ray import State, node_action

from .words import GREETING


@node_action
def greet(state):
    print("a node at work")
    here = str(Path(graphorch_ray.__file__).parent)
    return State([f"{GREETING}, {name}" for name in state.messages] + [here])


@node_action
def fail(state):
    raise ValueError("no luck")


@node_action
async def wait_for_it(state):
    import asyncio

    file = Path(state.messages[0])
    file.with_suffix(".waiting").touch()
    try:
        while not file.exists():
            await asyncio.sleep(0.05)
    finally:
        file.with_suffix(".over").touch()
    return State([*state.messages, "it came"])
"""

FLOW = """
from graphorch_ray import GraphBuilder, ProcessingNode

from . import steps


def chain(*names):
    builder, before = GraphBuilder(names[-1]), "start"
    for name in names:
        builder.add_node(ProcessingNode(name, getattr(steps, name)))
        builder.add_concrete_edge(before, name)
        before = name
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()


greeting = chain("greet")
failing = chain("greet", "fail")
waiting = chain("wait_for_it")
"""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with Head() as head:
        yield head


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's directory, with a package."""
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "words.py").write_text("GREETING = 'Hello'\n")
    (package / "steps.py").write_text(STEPS)
    (package / "flow.py").write_text(FLOW)
    (tmp_path / "in.json").write_text('["Ada"]')
    return tmp_path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "graphorch_ray", *(str(argument) for argument in arguments)]


def environment(head: Head, **more: str) -> dict[str, str]:
    return {**head.env, "PYTHONPATH": str(ROOT), **more}


def client(
    head: Head, folder: Path, *arguments: object, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a fresh process."""
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(head, **more),
        capture_output=True,
        text=True,
        timeout=SLOW,
        stdin=subprocess.DEVNULL,
    )


def submit(head: Head, *arguments: object) -> tuple[object, ...]:
    return ("submit", "--address", head.url, "--working-dir", ".", "--", *arguments)


def await_file(path: Path) -> None:
    end = time.monotonic() + SLOW
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.05)


def test_a_run_goes_to_the_cluster_and_its_files_come_back(head: Head, project: Path) -> None:
    run = ("run", "mine.flow:greeting", "--input", "in.json", "--report", "r.html")
    done = client(head, project, *submit(head, *run, "--output", "o.json"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wrote o.json\n"
    greeting, where = json.loads((project / "o.json").read_text())["messages"]
    assert greeting == "Hello, Ada"
    assert "/runtime_resources/py_modules_files/" in where  # the library came along
    assert "greet" in (project / "r.html").read_text("utf-8")
    for text in ("joined the Ray cluster at", "a node at work", "greet: finished, 3 supersteps"):
        assert text in done.stderr


def test_a_failing_job_gives_the_nodes_error_and_its_exit_code(head: Head, project: Path) -> None:
    done = client(head, project, *submit(head, "run", "mine.flow:failing", "--input", "in.json"))
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert errors == ["graphorch-ray: error: Execution failed at node 'fail': no luck"]
    assert "Traceback" not in done.stderr
    assert "ray." not in done.stdout + done.stderr.replace("ray.html", "")


def test_a_client_that_was_killed_is_followed_by_another(head: Head, project: Path) -> None:
    there = project / "there"
    (project / "wait.json").write_text(json.dumps([str(there)]))
    run = ("run", "mine.flow:waiting", "--input", "wait.json", "--json", "--output", "o.json")
    first = subprocess.Popen(
        command(*submit(head, *run)),
        cwd=project,
        env=environment(head),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert first.stderr is not None
    found = re.search(r"submitted job (\S+)", first.stderr.readline())
    assert found is not None
    await_file(there.with_suffix(".waiting"))
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    there.touch()
    done = client(head, project, "attach", found[1], "--address", head.url, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == "o.json"
    assert json.loads((project / "o.json").read_text())["messages"][1] == "it came"


@pytest.mark.parametrize("answer", ["n", "y"])
def test_ctrl_c_asks_once_whether_to_stop_the_job(head: Head, project: Path, answer: str) -> None:
    there = project / "there"
    (project / "wait.json").write_text(json.dumps([str(there)]))
    ours, theirs = pty.openpty()
    asking = subprocess.Popen(
        command(*submit(head, "run", "mine.flow:waiting", "--input", "wait.json")),
        cwd=project,
        env=environment(head),
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.DEVNULL,
    )
    os.close(theirs)
    said = _read_until(ours, "submitted job ")
    await_file(there.with_suffix(".waiting"))
    asking.send_signal(signal.SIGINT)
    said += _read_until(ours, "[y/N] ")
    os.write(ours, f"{answer}\n".encode())
    said += _read_until(ours, None)
    assert asking.wait(SLOW) == 130
    os.close(ours)
    found = re.search(r"submitted job (\S+)", said)
    assert found is not None
    assert said.count("[y/N]") == 1
    if answer == "y":
        assert f"stopping job {found[1]}" in said
        done = client(head, project, "attach", found[1], "--address", head.url)
        assert (done.returncode, done.stdout) == (143, "")
        assert "error: terminated" in done.stderr  # the run was told, and ended by itself
        return
    assert "goes on without this client" in said
    assert not there.with_suffix(".over").exists()
    there.touch()
    done = client(head, project, "attach", found[1], "--address", head.url)
    assert done.returncode == 0, done.stderr


def _read_until(file: int, text: str | None) -> str:
    read = ""
    while text is None or text not in read:
        try:
            chunk = os.read(file, 4096).decode()
        except OSError:  # the other end is closed
            return read
        if not chunk:
            return read
        read += chunk
    return read


def test_what_the_page_says_of_jobs_is_true(head: Head, tmp_path: Path) -> None:
    """docs/command-line.md: its `submit`, and its program, with this head's address."""
    page = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.M | re.S)
    (tmp_path / "flow.py").write_text(next(code for kind, code in blocks if kind == "python"))
    (tmp_path / "names.json").write_text('["Ada", "Bob"]')
    (line,) = (code for kind, code in blocks if kind == "sh" and " submit " in code)
    here = line.replace("\\\n", " ").replace("http://10.0.0.1:8265", head.url)
    program, *arguments = shlex.split(here)
    assert program == "graphorch-ray"
    done = client(head, tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (0, "wrote out.json\n"), done.stderr
    said = json.loads((tmp_path / "out.json").read_text())["messages"]
    assert said == ["HELLO, ADA!", "HELLO, BOB!"]
    assert (tmp_path / "run.html").exists()

    (code,) = (code for kind, code in blocks if kind == "py")
    ran = subprocess.run(
        [sys.executable, "-c", code.replace("http://10.0.0.1:8265", head.url)],
        cwd=tmp_path,
        env=environment(head),
        capture_output=True,
        text=True,
        timeout=SLOW,
    )
    assert ran.stdout == f"{said}\n", ran.stderr


def test_from_python(head: Head, project: Path) -> None:
    program = f"""
import json
from graphorch_ray import GraphExecutionError, jobs

job = jobs.submit(
    ["run", "mine.flow:greeting", "--input", "in.json"], address={head.url!r}, working_dir="."
)
print(job.result()["state"]["messages"][0])
print(job.status(), job.exit_code(), "a node at work" in job.logs())
same = jobs.attach(job.job_id, address={head.url!r})
print("".join(same.follow()) == job.logs())
failing = jobs.submit(["run", "mine.flow:failing"], address={head.url!r}, working_dir=".")
try:
    failing.result()
except GraphExecutionError as error:
    print(error.node_id, error.message)
try:
    jobs.submit(["run", "f:g"], address={head.url!r}, job_id=job.job_id)
except Exception as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project,
        env=environment(head),
        capture_output=True,
        text=True,
        timeout=SLOW,
    )
    lines = done.stdout.splitlines()
    assert lines[:4] == ["Hello, Ada", "SUCCEEDED 0 True", "True", "fail no luck"], done.stderr
    assert "refused: there is a job of that name already" in lines[4]


@pytest.mark.parametrize(
    ("token", "text"),
    [("w" * 64, "the cluster does not accept this token. Set RAY_AUTH_MODE=token")],
)
def test_a_wrong_token_is_one_sentence_at_once(
    head: Head, project: Path, token: str, text: str
) -> None:
    began = time.monotonic()
    done = client(head, project, *submit(head, "run", "mine.flow:greeting"), RAY_AUTH_TOKEN=token)
    assert done.returncode == 3
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - began < 10
    # Joining the cluster needs the token, too.
    run = ("run", "mine.flow:greeting", "--address", head.address)
    done = client(head, project, *run, RAY_AUTH_TOKEN=token)
    assert done.returncode == 3
    assert "the cluster's token (RAY_AUTH_MODE, RAY_AUTH_TOKEN)" in done.stderr


def test_what_the_cluster_lacks_is_one_sentence(head: Head, project: Path) -> None:
    """A module, an interpreter, another version of the library: told by the job, not by Ray."""
    address = ("--address", head.url)
    jobs: dict[str, tuple[Any, ...]] = {
        "No module 'mine.flow' in": (*address, "--", "run", "mine.flow:greeting"),
        "imports 'words_from_elsewhere', which is not installed here": (
            *(*address, "--working-dir", "."),
            *("--", "run", "needs.py:graph"),
        ),
        "not found": (*address, "--python", "/no/python", "--", "run", "mine.flow:greeting"),
    }
    (project / "needs.py").write_text("import words_from_elsewhere\n")
    started = {
        text: subprocess.Popen(
            command("submit", *arguments),
            cwd=project,
            env=environment(head),
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        for text, arguments in jobs.items()
    }
    for text, process in started.items():
        _, said = process.communicate(timeout=SLOW)
        assert process.returncode not in (0, 1), said
        assert text in said
        assert "Traceback" not in said


def test_another_version_on_the_cluster_is_refused_where_it_is_not_shipped(
    head: Head, project: Path
) -> None:
    program = f"""
import graphorch_ray
from graphorch_ray import jobs

graphorch_ray.__version__ = "9.9.9"
job = jobs.submit(["run", "mine.flow:greeting"], address={head.url!r}, installed=True)
print(job.wait(), job.exit_code())
print(job.logs())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project,
        env=environment(head),
        capture_output=True,
        text=True,
        timeout=SLOW,
    )
    assert done.stdout.startswith("FAILED 3\n"), done.stderr
    assert "and this client 9.9.9: install the same there" in done.stdout
