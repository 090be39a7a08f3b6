"""A directory with a graph in it, and a way to call the command there, in this process."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from graphorch_ray.cli.app import call

FLOW = """
from dataclasses import dataclass
from pathlib import Path

from graphorch_ray import Graph, GraphBuilder, ProcessingNode, State, node_action


@dataclass
class Tally(State):
    total: int = 0


@node_action
def greet(state):
    print("a node at work")
    return type(state)([f"Hello, {name}" for name in state.messages])


@node_action
def add_up(state):
    return Tally(state.messages, total=sum(state.messages))


@node_action
def needs_file(state):
    if not Path("there").exists():
        raise ValueError("there is no file\\nas was to be expected")
    return state


@node_action
def same(state):
    return state


def chain(name, *functions):
    builder, before = GraphBuilder(name), "start"
    for function in functions:
        node_id = function.__name__
        builder.add_node(ProcessingNode(node_id, function))
        builder.add_concrete_edge(before, node_id)
        before = node_id
    builder.add_concrete_edge(before, "end")
    return builder


graph = chain("greeting", greet).build_graph()
builder = chain("same", same)
adding = chain("adding", add_up).build_graph()
unsteady = chain("unsteady", greet, needs_file).build_graph()
number = 3


def make_graph(name="made") -> Graph:
    return chain(name, same).build_graph()


def wrong_graph():
    return 7
"""


@dataclass
class Called:
    """What a call of the command came to."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The error, which is one line."""
        lines = [line for line in self.err.splitlines() if " error: " in line]
        assert len(lines) == 1, self.err
        return lines[0].partition("error: ")[2]


Cli = Callable[..., Called]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with `flow.py`; what is imported from it is forgotten afterwards."""
    (tmp_path / "flow.py").write_text(FLOW, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAPHORCH_BACKEND", "inline")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def cli(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Call the command, with these arguments and this standard input."""

    def run(*arguments: object, stdin: str | bytes = "") -> Called:
        content = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        capsys.readouterr()
        code = call([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Called(int(code), captured.out, captured.err)

    return run
