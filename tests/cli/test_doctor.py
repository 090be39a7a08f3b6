"""`doctor`: one line for each thing, and what to do about it."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..s3_server import BUCKET, S3Server
from .conftest import Cli


def findings(cli: Cli, *arguments: object) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in cli("doctor", "--json", *arguments).data:
        found.setdefault(finding["check"], []).append(finding)
    return found


@pytest.fixture
def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def web_server() -> Iterator[str]:
    """A web server that is no job server."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_sound_machine_has_no_fault(cli: Cli) -> None:
    done = cli("doctor")
    assert done.code == 0
    assert done.err == "graphorch-ray: no fault found\n"
    lines = done.out.splitlines()
    assert all(line.split()[0] in ("ok", "note", "warning", "->") for line in lines), done.out
    assert "to join a cluster: RAY_ADDRESS=host:6379, or --address" in done.out


def test_a_place_that_can_be_written_is_ok_and_left_as_it_was(cli: Cli, folder: Path) -> None:
    stores = findings(cli, "--checkpoint", "kept")["store"]
    assert [finding["level"] for finding in stores] == ["ok", "ok"]
    assert not [path for path in (folder / "kept").rglob("*") if path.is_file()]


def test_a_place_that_cannot_be_written_is_a_fault(cli: Cli) -> None:
    done = cli("doctor", "--checkpoint", "flow.py/kept")
    assert done.code == 1
    assert "fault    store" in done.out
    assert "a part of the path is a file" in done.out


@pytest.mark.parametrize("conditional", [True, False])
def test_s3_with_and_without_conditional_writes(
    cli: Cli, s3: S3Server, monkeypatch: pytest.MonkeyPatch, conditional: bool
) -> None:
    from graphorch_ray.checkpoint import remote

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.options["endpoint_url"])
    monkeypatch.setattr(remote, "_atomic", {})
    s3.ignores_conditions = not conditional
    last = findings(cli, "--checkpoint", f"s3://{BUCKET}/doctor")["store"][-1]
    assert last["level"] == ("ok" if conditional else "warning")
    assert s3.counted()["PUT"] > 2


def test_a_bucket_that_is_not_there_is_a_fault(
    cli: Cli, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.options["endpoint_url"])
    (finding,) = findings(cli, "--checkpoint", "s3://no-such-bucket/x")["store"]
    assert finding["level"] == "fault"


def test_a_receiver_of_traces(cli: Cli, web_server: str, free_port: int) -> None:
    assert findings(cli, "--otlp", web_server)["otlp"][0]["level"] == "ok"
    (finding,) = findings(cli, "--otlp", f"http://127.0.0.1:{free_port}")["otlp"]
    assert finding["level"] == "fault"
    assert finding["todo"].startswith("check the address")


def test_addresses_where_there_is_no_cluster(cli: Cli, web_server: str, free_port: int) -> None:
    for address in ("auto", f"127.0.0.1:{free_port}", "nonsense"):
        (finding,) = findings(cli, "--address", address)["address"]
        assert finding["level"] == "fault"
    for url in (f"127.0.0.1:{free_port}", web_server, "auto", "ray://127.0.0.1:10001"):
        (finding,) = findings(cli, "--jobs", url)["job server"]
        assert finding["level"] == "fault"


def test_a_cluster_tells_its_versions_and_machines(cli: Cli, ray_session: str) -> None:
    import ray

    found = findings(cli, "--address", ray_session)
    assert ray.__version__ in found["address"][0]["found"]
    assert "CPU 2" in found["machine"][0]["found"]
    assert "joining" not in found


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ray_version": "2.61.0"}, "pip install ray==2.61.0"),
        ({"python_version": "3.12.1"}, "it runs Python 3.12.1 and this process Python"),
        ({"is_here": False}, "this machine is no part of that cluster"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_told_before_it_is_tried(
    cli: Cli, ray_session: str, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], text: str
) -> None:
    import dataclasses

    from graphorch_ray.runtime.on_ray import ray_connect
    from graphorch_ray.runtime.on_ray.ray_cluster import describe

    def changed(address: str, timeout: float) -> Any:
        found = describe(address, timeout)
        if "is_here" in change:
            machines = tuple(dataclasses.replace(m, **change) for m in found.machines)
            return dataclasses.replace(found, machines=machines)
        return dataclasses.replace(found, **change)

    monkeypatch.setattr(ray_connect, "describe", changed)
    done = cli("doctor", "--address", ray_session)
    assert done.code == 1
    assert text in done.out
