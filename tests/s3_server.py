"""A real S3 protocol on loopback, one server for the whole session.

Moto keeps its buckets per process, not per server: a second one would meet the first one's.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import fsspec
import pytest

AWS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUCKET = "checkpoints"


@dataclass
class S3Server:
    """A server of the S3 protocol on loopback.

    Attributes:
        options: what s3fs needs to find it.
        requests: how many there were of each kind.
    """

    options: dict[str, Any]
    requests: Counter[str] = field(default_factory=Counter)
    ignores_conditions: bool = False

    def counted(self) -> dict[str, int]:
        """Return what was asked since the last call."""
        found = dict(self.requests)
        self.requests.clear()
        return found


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in AWS.items():
            patch.setenv(name, value)
        server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        found = S3Server({"endpoint_url": f"http://{host}:{port}"})
        app = server._server.app  # type: ignore[union-attr]

        def counting(environ: dict[str, Any], start: Any) -> Any:
            found.requests[_kind(environ)] += 1
            if found.ignores_conditions:
                environ.pop("HTTP_IF_NONE_MATCH", None)
            return app(environ, start)

        server._server.app = counting  # type: ignore[union-attr]
        fs = fsspec.filesystem("s3", **found.options, skip_instance_cache=True)
        fs.mkdir(BUCKET)
        yield found
        server.stop()


def _kind(environ: dict[str, Any]) -> str:
    """Name a request as S3's price list does."""
    method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
    if method == "GET" and "list-type=2" in query:
        return "LIST"
    if method == "POST" and "delete" in query:
        return "DELETE"
    return str(method)


@pytest.fixture
def s3(s3_server: S3Server) -> S3Server:
    """The server, with a count that begins at nothing."""
    s3_server.requests.clear()
    s3_server.ignores_conditions = False
    return s3_server
