"""A handle follows a job through lost connections, and tells its end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphorch_ray import ClusterConnectionError, GraphExecutionError, JobFailedError
from graphorch_ray.jobs import handle as module
from graphorch_ray.jobs.handle import JobHandle


class FakeServer:
    """A job server's client: each call of `tail_job_logs` plays the next of its connections."""

    def __init__(self, log: str, connections: list[list[str]], document: Any = None) -> None:
        self.log = log
        self.connections = list(connections)
        self.document = document
        self.status = "SUCCEEDED"
        self.exit_code: int | None = 0
        self.message = ""
        self.tails = 0
        self.not_yet = 0

    def get_address(self) -> str:
        return "http://head:8265"

    def get_job_info(self, job_id: str) -> Any:
        return SimpleNamespace(
            status=SimpleNamespace(value="RUNNING" if self.connections else self.status),
            driver_exit_code=self.exit_code,
            driver_node_id="node",
            message=self.message,
        )

    def get_job_logs(self, job_id: str) -> str:
        return self.log

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        self.tails += 1
        for chunk in self.connections.pop(0) if self.connections else ():
            if chunk == "broken":
                raise RuntimeError("WebSocket connection closed unexpectedly")
            yield chunk

    def _do_request(self, method: str, endpoint: str, params: Any) -> Any:
        if self.not_yet:
            self.not_yet -= 1
            return SimpleNamespace(status_code=500, text="Agent doesn't exist", content=b"")
        if self.document is None:
            return SimpleNamespace(status_code=500, text="A file is not found at: x", content=b"")
        text = json.dumps(self.document)
        return SimpleNamespace(status_code=200, text=text, content=text.encode())


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)


def handle(server: FakeServer) -> JobHandle:
    return JobHandle(server, "nightly", {})  # type: ignore[arg-type]


def cut(text: str, places: list[int]) -> list[str]:
    ends = [*sorted(min(place, len(text)) for place in places), len(text)]
    return [
        text[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True) if begin != end
    ]


@given(
    log=st.text("ab\n", max_size=40),
    lengths=st.lists(st.integers(0, 40), max_size=4),
    places=st.lists(st.integers(0, 40), max_size=4),
    breaks=st.booleans(),
)
def test_whatever_breaks_the_log_is_told_once_and_whole(
    log: str, lengths: list[int], places: list[int], breaks: bool
) -> None:
    """Each connection tells the log from its beginning, as far as it comes."""
    connections = [cut(log[:length], places) + ["broken"] * breaks for length in lengths]
    server = FakeServer(log, connections)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "POLL_SECONDS", 0.0)
        told = "".join(handle(server).follow())
    assert told == log
    assert server.tails >= len(lengths)


def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOST_SECONDS", 0.0)
    server = FakeServer("", [["broken"]] * 100_000)
    with pytest.raises(ClusterConnectionError, match=r"attach\('nightly', address='http://head"):
        list(handle(server).follow())


def test_a_result_is_what_the_command_printed() -> None:
    assert handle(FakeServer("", [], {"state": 1})).result() == {"state": 1}


def test_a_cluster_that_is_slow_to_hand_out_a_file_is_asked_again() -> None:
    server = FakeServer("", [], {"state": 1})
    server.not_yet = 3
    assert handle(server).result() == {"state": 1}
    assert server.not_yet == 0


def test_a_cluster_that_does_not_hand_it_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FETCH_SECONDS", 0.0)
    server = FakeServer("", [], {"state": 1})
    server.not_yet = 10**6
    with pytest.raises(ClusterConnectionError, match=r"result\.json of job 'nightly'"):
        handle(server).result()


def test_the_nodes_error_is_raised_as_it_would_be_here() -> None:
    error = {
        "type": "GraphExecutionError",
        "message": "Execution failed at node 'a': no luck",
        "node_id": "a",
        "run_id": "7",
        "superstep": 3,
    }
    with pytest.raises(GraphExecutionError, match="no luck") as raised:
        handle(FakeServer("", [], {"error": error})).result()
    assert (raised.value.node_id, raised.value.superstep) == ("a", 3)
    assert raised.value.message == "no luck"


def test_a_job_that_was_killed_has_no_result() -> None:
    server = FakeServer("", [])
    server.status, server.exit_code, server.message = "FAILED", None, "the node died"
    with pytest.raises(JobFailedError, match="Job 'nightly' failed: the node died"):
        handle(server).result()


def test_waiting_has_a_limit() -> None:
    with pytest.raises(TimeoutError, match="still RUNNING after 0 s"):
        handle(FakeServer("", [[]])).wait(0)
