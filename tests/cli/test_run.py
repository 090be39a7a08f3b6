"""`run` and `resume`: what goes in, what comes out, and with which exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graphorch_ray import GraphExecutor, State

from .conftest import Cli

ROOT = Path(__file__).parents[2]


def test_standard_output_carries_the_result_alone(cli: Cli) -> None:
    done = cli("run", "flow:graph", "--input", "-", stdin='["Ada"]')
    assert (done.code, json.loads(done.out)) == (0, {"messages": ["Hello, Ada"]})
    assert "a node at work" in done.err
    assert "greeting: finished, 3 supersteps" in done.err


def test_json_gives_facts_and_state_in_one_document(cli: Cli) -> None:
    found = cli("run", "flow:graph", "--input", "-", "--json", stdin='["Ada"]').data
    assert found["state"] == {"messages": ["Hello, Ada"]}
    assert found["status"] == "finished"
    assert found["backend"] == "inline"
    assert found["executions"] == 3


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ('["a", "b"]', ["a", "b"]),
        ('{"messages": ["a"]}', ["a"]),
        ('{"name": "a"}', [{"name": "a"}]),
        ("7", [7]),
        ('{"n": 1}\n{"n": 2}\n', [{"n": 1}, {"n": 2}]),
        ('\n"a"\n\n"b"', ["a", "b"]),
    ],
)
def test_input_is_json_or_json_lines(cli: Cli, text: str, messages: list[object]) -> None:
    done = cli("run", "flow:builder", "--input", "-", stdin=text)
    assert json.loads(done.out)["messages"] == messages


def test_without_input_there_are_no_messages(cli: Cli) -> None:
    assert json.loads(cli("run", "flow:builder").out) == {"messages": []}


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet", ".arrow"])
def test_what_output_writes_input_reads(cli: Cli, suffix: str) -> None:
    rows = [{"n": 1, "name": "a"}, {"n": 2, "name": "b"}]
    first = cli("run", "flow:builder", "--input", "-", "--output", f"x{suffix}", stdin=str_of(rows))
    assert (first.code, first.out) == (0, f"wrote x{suffix}\n")
    again = cli("run", "flow:builder", "--input", f"x{suffix}")
    assert json.loads(again.out)["messages"] == rows


def str_of(value: object) -> str:
    return json.dumps(value)


def test_a_table_may_be_one_message(cli: Cli, folder: Path) -> None:
    table = pa.table({"n": [1, 2, 3]})
    pq.write_table(table, folder / "x.parquet")
    options = ("--input", "x.parquet", "--rows", "table", "--output", "y.parquet")
    assert cli("run", "flow:builder", *options).code == 0
    assert pq.read_table(folder / "y.parquet") == table


def test_input_may_be_a_url(cli: Cli) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/cli/in.json", b'["Ada"]')
    done = cli("run", "flow:graph", "--input", "memory://cli/in.json", "--output", "o.jsonl")
    assert (done.code, Path("o.jsonl").read_text()) == (0, '"Hello, Ada"\n')


def test_a_state_of_a_class_of_its_own(cli: Cli) -> None:
    text = '{"messages": [1, 2], "total": 0}'
    done = cli("run", "flow:adding", "--state", "flow:Tally", "--input", "-", stdin=text)
    assert json.loads(done.out) == {"messages": [1, 2], "total": 3}


@pytest.mark.parametrize(
    ("arguments", "stdin", "text"),
    [
        (["--input", "nowhere.json"], "", "Cannot read --input 'nowhere.json': No such file"),
        (["--input", "-"], '["a"', "standard input is no JSON: "),
        (["--input", "-"], '{"a": 1}\n{"b":\n', "standard input, line 2, is no JSON"),
        (["--input", "-"], b"\xff\xfe", "neither JSON, JSON lines, Parquet nor Arrow"),
        (["--input", "-"], b"PAR1PAR1", "standard input is damaged"),
        (["--input", "-"], '{"messages": 1}', "'messages' of --input must be a list"),
        (["--input", "-"], '{"messages": [], "n": 1}', "has ['n'], which State does not have"),
        (["--state", "flow:greet"], "", "'flow:greet' is no subclass of State"),
        (["--output", "o.txt"], "", "--output 'o.txt' must end in one of .json"),
        (["--output", "no/o.json"], "", "there is no folder 'no'"),
        (["--report", "no/r.html"], "", "--report 'no/r.html': there is no folder 'no'"),
        (["--superstep-timeout", "soon"], "", "'soon' is no number of seconds"),
        (["--superstep-timeout", "0"], "", "superstep_timeout must be seconds greater than 0"),
        (["--max-workers", "0"], "", "--max-workers"),
        (["--backend", "spark"], "", "'spark' is not one of 'ray', 'inline'"),
        (["--what"], "", "No such option"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    cli: Cli, arguments: list[str], stdin: str | bytes, text: str
) -> None:
    done = cli("run", "flow:builder", *arguments, stdin=stdin)
    assert text in done.error
    assert (done.code, done.out) == (2, "")


def test_a_failing_node_is_one_line_and_exit_code_1(cli: Cli) -> None:
    done = cli("run", "flow:unsteady")
    assert done.error == "Execution failed at node 'needs_file': there is no file […]"
    assert (done.code, done.out) == (1, "")
    assert "Traceback" not in done.err


def test_verbose_shows_the_traceback(cli: Cli) -> None:
    done = cli("run", "flow:unsteady", "--verbose")
    assert "in needs_file" in done.err
    assert done.code == 1


def test_an_error_as_json_names_the_node_and_how_to_go_on(cli: Cli) -> None:
    done = cli("run", "flow:unsteady", "--json", "--checkpoint", "kept")
    found = done.data
    assert found["exit_code"] == done.code == 1
    assert found["error"]["node_id"] == "needs_file"
    assert found["error"]["message"].endswith("as was to be expected")
    assert found["error"]["run"]["resume"] == "graphorch-ray resume kept --graph flow:unsteady"


def test_a_retry_policy_for_all_nodes(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphorch_ray.testing import FakeClock

    monkeypatch.setattr("graphorch_ray.executor.SystemClock", FakeClock)
    run = cli("run", "flow:unsteady", "--retries", "1", "--json").data["error"]["run"]
    assert run["retries"] == 1


def test_too_few_supersteps_is_a_failure_of_the_run(cli: Cli) -> None:
    done = cli("run", "flow:graph", "--max-supersteps", "1")
    assert (done.code, done.error) == (1, "Execution failed at node 'N/A': Max supersteps reached")


def test_a_run_goes_on_from_its_checkpoint(cli: Cli, folder: Path) -> None:
    run = ("run", "flow:unsteady", "--input", "-", "--checkpoint", "kept")
    failed = cli(*run, stdin='["Ada"]')
    assert failed.err.splitlines()[-1].endswith("graphorch-ray resume kept --graph flow:unsteady")
    (folder / "there").touch()
    resumed = cli("resume", "kept", "--graph", "flow:unsteady", "--json").data
    assert resumed["state"] == {"messages": ["Hello, Ada"]}
    assert resumed["executions"] == 2  # greet did not run again
    again = cli("resume", "kept", "--json").data  # the kept graph; it has finished
    assert (again["state"], again["executions"]) == (resumed["state"], 0)
    earlier = cli("resume", "kept", "--superstep", "2", "--json").data
    assert (earlier["state"], earlier["executions"]) == (resumed["state"], 2)
    assert earlier["branch"] != resumed["branch"]


def test_a_job_that_is_started_again_goes_on(cli: Cli, folder: Path) -> None:
    run = ("run", "flow:unsteady", "--checkpoint", "kept", "--resume", "--json")
    assert cli(*run).code == 1
    (folder / "there").touch()
    again = cli(*run)
    assert "going on with run" in again.err
    assert (again.code, again.data["executions"]) == (0, 2)
    assert cli(*run).data["executions"] == 0
    assert cli("run", "flow:unsteady", "--resume").code == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["resume", "nothing"], "nothing"),
        (["resume", "kept", "--superstep", "77"], "77"),
        (
            ["resume", "kept", "--graph", "flow:graph"],
            "gone. Give the same graph, or --allow-graph-change",
        ),
        (["checkpoints", "nothing"], "There are no checkpoints in 'nothing'"),
        (["run", "flow:graph", "--checkpoint", "flow.py/kept"], "a part of the path is a file"),
    ],
)
def test_trouble_with_checkpoints_is_exit_code_4(cli: Cli, arguments: list[str], text: str) -> None:
    cli("run", "flow:unsteady", "--checkpoint", "kept")
    done = cli(*arguments)
    assert text in done.error
    assert done.code == 4


def test_no_space_on_the_store_is_one_clear_sentence(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from graphorch_ray.checkpoint import files

    full: list[str] = []

    def no_space(path: str, parts: object) -> None:
        full.append(path)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_write", no_space)
    done = cli("run", "flow:graph", "--checkpoint", "kept")
    assert full
    assert "the disk is full" in done.error
    assert done.code == 4


def test_report_and_trace_are_written(cli: Cli, folder: Path) -> None:
    assert cli("run", "flow:graph", "--report", "r.html", "--trace", "t.jsonl").code == 0
    assert "greeting" in (folder / "r.html").read_text("utf-8")
    made = cli("report", "t.jsonl")
    assert (made.code, made.out) == (0, "wrote t.html\n")
    assert "<html" in (folder / "t.html").read_text("utf-8")


def test_a_report_is_written_of_a_run_that_failed(cli: Cli, folder: Path) -> None:
    assert cli("run", "flow:unsteady", "--report", "r.html").code == 1
    assert "needs_file" in (folder / "r.html").read_text("utf-8")


def test_a_result_that_is_no_table_is_kept_as_json(cli: Cli, folder: Path) -> None:
    done = cli("run", "flow:graph", "--input", "-", "--output", "o.parquet", stdin='["Ada"]')
    assert "The result is in 'o.parquet.json'" in done.error
    assert done.code == 2
    assert json.loads((folder / "o.parquet.json").read_text()) == {"messages": ["Hello, Ada"]}


def test_progress_is_shown_when_asked_for(cli: Cli) -> None:
    assert "greeting: finished in" in cli("run", "flow:graph", "--progress").err


def test_values_of_other_libraries_become_json() -> None:
    import datetime
    import enum

    import numpy as np
    import pandas as pd
    import polars as pl
    import pydantic

    from graphorch_ray.cli.states import as_data

    class Colour(enum.Enum):
        RED = "red"

    class Model(pydantic.BaseModel):
        n: int = 1

    values = [
        *(np.arange(2), np.float64(0.5), pd.DataFrame({"a": [1]}), pl.DataFrame({"a": [1]})),
        *(pa.table({"a": [1]}), Model(), Colour.RED, datetime.date(2026, 1, 2), b"ab", {2, 1}),
        *((1, 2), float("nan"), Path("x")),
    ]
    assert json.loads(json.dumps([as_data(value) for value in values])) == [
        *([0, 1], 0.5, [{"a": 1}], [{"a": 1}]),
        *([{"a": 1}], {"n": 1}, "red", "2026-01-02", "YWI=", [1, 2]),
        *([1, 2], "nan", "x"),
    ]


WAITS = """
import time
from graphorch_ray import GraphBuilder, ProcessingNode, State, node_action

@node_action
async def wait(state):
    import asyncio
    open("waiting", "w").close()
    try:
        await asyncio.sleep(60)
    finally:
        open("cleaned", "w").close()
    return state

builder = GraphBuilder("waiting")
builder.add_node(ProcessingNode("wait", wait))
builder.add_concrete_edge("start", "wait")
builder.add_concrete_edge("wait", "end")
graph = builder.build_graph()
"""


@pytest.mark.parametrize(
    ("sent", "code", "text"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_stops_the_run_cleanly(
    folder: Path, sent: signal.Signals, code: int, text: str
) -> None:
    (folder / "waits.py").write_text(WAITS)
    process = subprocess.Popen(
        [sys.executable, "-m", "graphorch_ray", "run", "waits.py:graph", "--checkpoint", "kept"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while not (folder / "waiting").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"error: {text}" in err
    assert "graphorch-ray resume kept --graph waits.py:graph" in err
    assert (folder / "cleaned").exists()


@pytest.mark.parametrize("resumed", [False, True])
def test_what_sync_nodes_run_in_reaches_the_run(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    pools = []
    real = GraphExecutor.run

    def run(self: GraphExecutor, *arguments: Any, **options: Any) -> State | None:
        pools.append(self.pool)
        return real(self, *arguments, **options)

    monkeypatch.setattr(GraphExecutor, "run", run)
    cli("run", "flow:graph", "--checkpoint", "kept", "--pool", "actors")
    if resumed:
        cli("resume", "kept", "--graph", "flow:graph", "--pool", "tasks")
    assert pools == ["actors", "tasks"][: 1 + resumed]
    assert cli("run", "flow:graph", "--pool", "swimming").code == 2
