"""Code in checkpoints: whose pickles are loaded, and classes of the program itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from graphorch_ray import CheckpointData, CheckpointError, GraphExecutionError, GraphExecutor, State
from graphorch_ray.checkpoint.store import KEY_VARIABLE
from tests.checkpoint.runs import Ledger, chain_of, steps
from tests.s3_server import BUCKET, S3Server


def function_in_state(state: State) -> State:
    return State([*state.messages, lambda x: x + 1])


def call_it(state: State) -> State:
    return State([state.messages[-1](41)])


GRAPH = chain_of(("make", function_in_state), ("call", call_it))


def half_way(place: str, **options: Any) -> None:
    executor = GraphExecutor(
        GRAPH,
        State(["in"]),
        checkpoint_path=place,
        checkpoint_every=1,
        backend="inline",
        **options,
    )
    with pytest.raises(GraphExecutionError, match="supersteps"):
        executor.run(max_supersteps=2)


@pytest.fixture
def foreign(s3: S3Server, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """A place that anybody may have written to."""
    return f"s3://{BUCKET}/{tmp_path.name}", {"storage_options": s3.options}


def test_pickles_of_an_untrusted_place_are_refused_with_the_three_ways_out(
    foreign: tuple[str, dict[str, Any]],
) -> None:
    place, options = foreign
    half_way(place, **options)
    with pytest.raises(CheckpointError) as told:
        GraphExecutor.resume(place, GRAPH, backend="inline", **options).run()
    text = str(told.value)
    for said in ("state.messages[1]", "file of your own", KEY_VARIABLE, "allow_pickle=True"):
        assert said in text, text
    # The graph is a pickle, too.
    with pytest.raises(CheckpointError, match="graph") as told:
        GraphExecutor.resume(place, backend="inline", **options)
    assert "graph=" in "".join(told.value.__notes__)
    again = GraphExecutor.resume(place, backend="inline", allow_pickle=True, **options)
    assert again.run() == State([42])


def test_signed_pickles_load_wherever_they_lie(
    foreign: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, options = foreign
    half_way(place, checkpoint_key="secret", **options)
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    assert GraphExecutor.resume(place, backend="inline", **options).run() == State([42])
    monkeypatch.setenv(KEY_VARIABLE, "guess")
    with pytest.warns(Warning, match="signature"), pytest.raises(CheckpointError, match="key"):
        CheckpointData.load(place, **options)


def test_plain_data_of_an_untrusted_place_loads(
    foreign: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    place, options = foreign
    graph = steps(Ledger(tmp_path / "ledger"))
    executor = GraphExecutor(
        graph, State(["in"]), checkpoint_path=place, checkpoint_every=1, backend="inline", **options
    )
    with pytest.raises(GraphExecutionError, match="supersteps"):
        executor.run(max_supersteps=3)
    again = GraphExecutor.resume(place, graph, backend="inline", **options)
    assert again.run() == State(["in", "n1", "n2", "n3", "n4"])


def test_a_graph_that_cannot_be_pickled_is_asked_for(tmp_path: Path) -> None:
    lock = threading.Lock()

    def locked(state: State) -> State:
        with lock:
            return State([*state.messages, "locked"])

    def never(state: State) -> State:
        return State([*state.messages, "end"])

    graph = chain_of(("locked", locked), ("never", never))
    place = str(tmp_path / "runs")
    executor = GraphExecutor(
        graph, State(["in"]), checkpoint_path=place, checkpoint_every=1, backend="inline"
    )
    with pytest.raises(GraphExecutionError, match="supersteps"):
        executor.run(max_supersteps=2)
    with pytest.raises(CheckpointError, match="holds no graph") as told:
        GraphExecutor.resume(place, backend="inline")
    assert "graph=" in str(told.value)
    again = GraphExecutor.resume(place, graph, backend="inline")
    assert again.run() == State(["in", "locked", "end"])


PROGRAM = '''
import sys
from dataclasses import dataclass
from graphorch_ray import GraphBuilder, GraphExecutionError, GraphExecutor, ProcessingNode, State
from graphorch_ray import node_action

@dataclass
class Money:
    cents: int

class Account(State):
    """A state of the program's own."""
    def total(self):
        return sum(money.cents for money in self.messages)

@node_action
def deposit(state):
    return Account([*state.messages, Money(state.total()), b"x" * 100_000])

@node_action
def count(state):
    return Account([money for money in state.messages if isinstance(money, Money)])

builder = GraphBuilder("bank")
builder.add_node(ProcessingNode("deposit", deposit))
builder.add_node(ProcessingNode("count", count))
builder.add_concrete_edge("start", "deposit")
builder.add_concrete_edge("deposit", "count")
builder.add_concrete_edge("count", "end")
graph = builder.build_graph()

path, what = sys.argv[1:]
if what == "begin":
    executor = GraphExecutor(
        graph, Account([Money(5)]), checkpoint_path=path, checkpoint_every=1
    )
    try:
        executor.run(max_supersteps=2)
    except GraphExecutionError as error:
        print("STOPPED", error.superstep)
else:
    executor = GraphExecutor.resume(path, graph)
    final = executor.run()
    print("FINAL", type(final) is Account, type(final.messages[0]) is Money, final.total())
'''


def test_a_state_class_of_the_program_itself_goes_on_in_another_process(
    ray_session: str, tmp_path: Path
) -> None:
    """Workers get the classes of `__main__` with the vault, in the first process and the second."""
    (tmp_path / "bank.py").write_text(PROGRAM)
    environment = {
        **os.environ,
        "RAY_ADDRESS": ray_session,
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    said = []
    for what in ("begin", "resume"):
        done = subprocess.run(
            [sys.executable, str(tmp_path / "bank.py"), str(tmp_path / "runs"), what],
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        said.append(done.stdout.strip().splitlines()[-1])
    assert said == ["STOPPED 2", "FINAL True True 10"]
