"""A real OTLP receiver, over HTTP or gRPC, built on the published protobufs."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PROTOCOLS = ("http/protobuf", "grpc")
KINDS: dict[str, tuple[Any, Any]] = {
    "traces": (ExportTraceServiceRequest, ExportTraceServiceResponse),
    "metrics": (ExportMetricsServiceRequest, ExportMetricsServiceResponse),
    "logs": (ExportLogsServiceRequest, ExportLogsServiceResponse),
}


class Receiver:
    """What an OTLP backend gets.

    Attributes:
        protocol: how it is to be sent.
        url: where to.
    """

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.url = ""
        self.requests: dict[str, list[Any]] = {kind: [] for kind in KINDS}
        self.headers: list[dict[str, str]] = []

    @property
    def where(self) -> dict[str, Any]:
        """Options for `configure`."""
        return {"otlp": self.url, "protocol": self.protocol}

    def take(self, kind: str, body: bytes, headers: Any) -> bytes:
        """Take a request, and answer it."""
        request, response = KINDS[kind]
        self.requests[kind].append(request.FromString(body))
        self.headers.append({key.lower(): value for key, value in headers})
        answer: bytes = response().SerializeToString()
        return answer

    @property
    def spans(self) -> list[Any]:
        """All spans that came."""
        return [
            span
            for request in self.requests["traces"]
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def one_whole_trace(self) -> list[Any]:
        """The spans, which must be one trace with one root, none doubled, none without parent."""
        spans = self.spans
        by_id = {span.span_id: span for span in spans}
        assert len(by_id) == len(spans), "a span was doubled"
        assert len({span.trace_id for span in spans}) == 1
        roots = [span.name for span in spans if not span.parent_span_id]
        assert len(roots) == 1, roots
        assert roots[0].startswith("run ")
        assert all(not span.parent_span_id or span.parent_span_id in by_id for span in spans)
        return spans


@contextmanager
def receiving(protocol: str) -> Iterator[Receiver]:
    """A receiver that listens on loopback."""
    got = Receiver(protocol)
    with (_grpc if protocol == "grpc" else _http)(got):
        yield got


@contextmanager
def _grpc(got: Receiver) -> Iterator[None]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    for kind in KINDS:
        name = "trace" if kind == "traces" else kind
        service = f"opentelemetry.proto.collector.{name}.v1.{name.capitalize()}Service"

        def export(body: bytes, context: Any, kind: str = kind) -> bytes:
            return got.take(kind, body, context.invocation_metadata())

        handler = grpc.unary_unary_rpc_method_handler(export)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
        )
    got.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield
    finally:
        server.stop(0)


@contextmanager
def _http(got: Receiver) -> Iterator[None]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            answer = got.take(self.path.removeprefix("/v1/"), body, self.headers.items())
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        got.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield
        finally:
            server.shutdown()
