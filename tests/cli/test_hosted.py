"""`runs`, and `run --hosted`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from uuid import uuid4

import pytest

from .conftest import Cli

WAITS = """
import asyncio
from pathlib import Path

from graphorch_ray import GraphBuilder, ProcessingNode, State, node_action


@node_action
async def wait(state):
    while not Path(state.messages[0]).exists():
        await asyncio.sleep(0.02)
    return state


@node_action
def after(state):
    return State([len(state.messages)])


builder = GraphBuilder("waiting")
builder.add_node(ProcessingNode("wait", wait))
builder.add_node(ProcessingNode("after", after))
builder.add_concrete_edge("start", "wait")
builder.add_concrete_edge("wait", "after")
builder.add_concrete_edge("after", "end")
graph = builder.build_graph()
"""


@pytest.fixture
def cluster(ray_session: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_session)
    monkeypatch.setenv("GRAPHORCH_BACKEND", "ray")
    (folder / "waits.py").write_text(WAITS)
    (folder / "in.json").write_text(json.dumps([str(folder / "go")]))


def host(cli: Cli) -> str:
    name = f"cli-{uuid4().hex[:8]}"
    options = ("--input", "in.json", "--checkpoint", f"kept/{name}")
    done = cli("run", "waits.py:graph", *options, "--hosted", name)
    assert (done.code, done.out) == (0, f"{name}\n"), done.err
    return name


def await_state(cli: Cli, name: str, state: str) -> None:
    end = time.monotonic() + 60
    while (found := cli("runs", "show", name, "--json").data["state"]) != state:
        assert time.monotonic() < end, found
        time.sleep(0.1)


@pytest.mark.usefixtures("cluster")
def test_a_hosted_run_is_listed_held_and_let_go_on(cli: Cli, folder: Path) -> None:
    name = host(cli)
    await_state(cli, name, "running")
    head, *rows = cli("runs").out.splitlines()
    assert head.split() == ["NAME", "STATE", "SUPERSTEP", "STARTED", "RESTARTS", "ACTIVE"]
    assert [row.split()[1] for row in rows if row.startswith(name)] == ["running"]
    assert name in [run["name"] for run in cli("runs", "list", "--json").data]
    assert f"{name}: running\n" in cli("runs", "show", name).out
    again = cli("run", "waits.py:graph", "--hosted", name)
    assert (again.code, "already" in again.error) == (2, True)

    assert cli("runs", "pause", name).code == 0
    (folder / "go").touch()
    await_state(cli, name, "paused")
    late = cli("runs", "result", name, "--timeout", "0.1")
    assert (late.code, late.out) == (1, "")
    assert cli("runs", "resume", name).code == 0
    done = cli("runs", "result", name, "--output", "o.json")
    assert (done.code, done.out) == (0, "wrote o.json\n")
    assert json.loads((folder / "o.json").read_text()) == {"messages": [1]}
    assert cli("runs", "result", name, "--json").data["state"] == {"messages": [1]}


@pytest.mark.usefixtures("cluster")
def test_a_hosted_run_is_cancelled(cli: Cli) -> None:
    name = host(cli)
    await_state(cli, name, "running")
    assert cli("runs", "cancel", name).out.startswith(f"{name}: cancelled\n")
    done = cli("runs", "result", name)
    assert (done.code, done.error) == (1, f"Run '{name}' was cancelled.")


@pytest.mark.usefixtures("cluster")
def test_a_run_that_there_is_not(cli: Cli) -> None:
    done = cli("runs", "show", "nothing")
    assert (done.code, done.error.startswith("There is no run named 'nothing'")) == (2, True)
