"""What goes to the cluster, and what is said where it cannot."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphorch_ray import ClusterConnectionError, JobFailedError, __version__
from graphorch_ray.jobs import boot, connecting, packing, submitting

CLIENT = {"python": "3.11.7", "graphorch_ray": __version__, "oldest_ray": "2.60"}


# --- reaching the server --------------------------------------------------------------------------


@pytest.fixture
def answers() -> Iterator[dict[str, Any]]:
    """A server on loopback that answers as it is told to."""
    told: dict[str, Any] = {"status": 200, "body": b"{}"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(told["status"])
            self.end_headers()
            self.wfile.write(told["body"])

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told["url"] = f"http://127.0.0.1:{server.server_port}"
    yield told
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (401, b"", "the cluster wants a token. Set RAY_AUTH_MODE=token"),
        (403, b"", "the cluster does not accept this token"),
        (404, b"", "is no Ray job server"),
        (200, b"<html>", "is no Ray job server"),
        (200, b"[]", "is no Ray job server"),
        (200, b"{}", "is no Ray job server"),
    ],
)
def test_an_answer_that_is_not_a_job_servers_is_told(
    answers: dict[str, Any], status: int, body: bytes, text: str
) -> None:
    answers.update(status=status, body=body)
    with pytest.raises(ClusterConnectionError, match=text):
        connecting.check_server(answers["url"])


def test_a_job_server_tells_its_version(answers: dict[str, Any]) -> None:
    answers["body"] = b'{"ray_version": "2.60.0"}'
    assert connecting.check_server(answers["url"])["ray_version"] == "2.60.0"


def test_a_server_that_does_not_answer_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(ClusterConnectionError, match="no job server answers there"):
            connecting.check_server(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (None, "http://127.0.0.1:8265"),
        ("head:8265", "http://head:8265"),
        ("https://head/", "https://head"),
    ],
)
def test_where_the_job_server_is(
    monkeypatch: pytest.MonkeyPatch, given: str | None, url: str
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert connecting.job_server(given) == url


def test_the_variable_names_the_job_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:1")
    assert connecting.job_server(None) == "http://head:1"


@pytest.mark.parametrize("given", ["auto", "ray://head:10001"])
def test_addresses_of_another_kind_are_refused(given: str) -> None:
    with pytest.raises(ClusterConnectionError, match=r"http://10\.0\.0\.1:8265"):
        connecting.job_server(given)


# --- the head's answers to a job ------------------------------------------------------------------


class Refusing:
    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)

    def get_address(self) -> str:
        return "http://head:8265"

    def submit_job(self, **job: Any) -> None:
        error = self.errors.pop(0)
        if error is not None:
            raise error


def test_a_head_that_has_only_just_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting.time, "sleep", lambda seconds: None)
    no_agent = RuntimeError("No available agent to submit job")
    client: Any = Refusing(no_agent, ConnectionError("aborted"), None)
    submitting._submitted(client, submission_id="x")
    assert client.errors == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("Job with submission_id x already exists", "there is a job of that name already"),
        ("No available agent to submit job", "its dashboard agent does not run"),
        ("Traceback\n  ...\nValueError: odd", "refused: ValueError: odd"),
    ],
)
def test_a_refusal_is_one_sentence(monkeypatch: pytest.MonkeyPatch, error: str, text: str) -> None:
    monkeypatch.setattr(submitting, "AGENT_SECONDS", 0.0)
    client: Any = Refusing(RuntimeError(error))
    with pytest.raises(JobFailedError, match=text):
        submitting._submitted(client, submission_id="x")


# --- what travels ---------------------------------------------------------------------------------


def test_files_of_the_client_become_files_of_the_job(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    source.write_bytes(b"PAR1")
    report = str(tmp_path / "r.html")
    order = packing.order_of(
        ["run", "f:g", "--input", str(source), "--report", report, "--output", "s3://b/o.json"],
        None,
    )
    assert order.reads == {"input.parquet": b"PAR1"}
    assert order.options == {"report": "report.html", "source": "input.parquet"}
    assert order.writes == {"report": report}


def test_the_job_gets_the_library_and_its_orders(tmp_path: Path) -> None:
    order = packing.Order(arguments=("run", "f:g"), reads={"input.json": b"[]"})
    start, library = packing.pack(order, "nightly", tmp_path, working_dir=None, shipped=True)
    assert Path(start, "input.json").read_bytes() == b"[]"
    job = json.loads(Path(start, "job.json").read_text())
    assert (job["job_id"], job["arguments"]) == ("nightly", ["run", "f:g"])
    assert Path(library, "py.typed").is_file()
    assert not list(Path(library).rglob("*.pyc"))
    (only,) = packing.pack(order, "x", make(tmp_path / "b"), working_dir=None, shipped=False)
    assert only.endswith(packing.MODULE)


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_the_users_runtime_environment_is_kept(tmp_path: Path) -> None:
    base = {"pip": ["scipy"], "py_modules": ["s3://b/m.zip"], "env_vars": {"A": "1", "B": "1"}}
    made = packing.runtime_env(base, tmp_path, ["ours"], {"B": "2"})
    assert made == {
        "pip": ["scipy"],
        "py_modules": ["s3://b/m.zip", "ours"],
        "env_vars": {"A": "1", "B": "2"},
        "working_dir": str(tmp_path),
    }
    assert base["py_modules"] == ["s3://b/m.zip"]


@pytest.mark.parametrize("there", [True, False])
def test_the_clients_interpreter_is_used_where_the_cluster_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    for folder, name, words in (("bin", "python3", "theirs"), ("my env", "py", "mine")):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / name
        file.write_text(f"#!/bin/sh\necho {words} $*\n")
        file.chmod(0o755 if there or name == "python3" else 0o644)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my env" / "py"))
    done = subprocess.run(
        packing.entrypoint(None),
        shell=True,
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    who = "mine" if there else "theirs"
    assert done.stdout == f"{who} -m graphorch_ray_job\n"


# --- what the cluster lacks -----------------------------------------------------------------------


def test_a_cluster_with_all_that_is_needed_has_no_problem() -> None:
    assert boot.problem(CLIENT, shipped=False) is None
    same = {**CLIENT, "python": ".".join(map(str, sys.version_info[:3]))}
    assert boot.warning(same) is None


def test_skew_between_client_and_cluster_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    other = {**CLIENT, "graphorch_ray": "9.9.9"}
    told = boot.problem(other, shipped=False)
    assert told is not None
    assert f"has graphorch_ray {__version__} and this client 9.9.9" in told
    assert boot.problem(other, shipped=True) is None
    assert "your code must suit both" in str(boot.warning({**CLIENT, "python": "3.99.1"}))
    with monkeypatch.context() as patch:
        patch.setattr(ray, "__version__", "2.9.3")
        assert "The cluster's Ray is 2.9.3; graphorch_ray needs 2.60" in str(
            boot.problem(CLIENT, shipped=True)
        )
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert "is too old: graphorch_ray needs 3.11" in str(boot.problem(CLIENT, shipped=True))


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("ray", "has no Ray"),
        ("graphorch_ray", "has no graphorch_ray: install it there, or submit without --installed"),
    ],
)
def test_a_package_that_the_cluster_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, missing: str, text: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    told = str(boot.problem(CLIENT, shipped=False))
    assert text in told


def test_old_pythons_can_read_the_first_module() -> None:
    import ast

    ast.parse(Path(boot.__file__).read_text("utf-8"), feature_version=(3, 7))
