"""The OTLP exporters, which come with the extra ``otlp``."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any, Literal, get_args

Protocol = Literal["http/protobuf", "grpc"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)

Signal = Literal["traces", "metrics", "logs"]

_CLASSES: dict[tuple[str, str], tuple[str, str]] = {
    ("traces", "http/protobuf"): ("http.trace_exporter", "OTLPSpanExporter"),
    ("metrics", "http/protobuf"): ("http.metric_exporter", "OTLPMetricExporter"),
    ("logs", "http/protobuf"): ("http._log_exporter", "OTLPLogExporter"),
    ("traces", "grpc"): ("grpc.trace_exporter", "OTLPSpanExporter"),
    ("metrics", "grpc"): ("grpc.metric_exporter", "OTLPMetricExporter"),
    ("logs", "grpc"): ("grpc._log_exporter", "OTLPLogExporter"),
}


def otlp_exporter(
    signal: Signal,
    where: bool | str,
    protocol: Protocol | None,
    headers: Mapping[str, str] | None,
) -> Any:
    """Make an exporter.

    Args:
        signal: what it exports.
        where: the base URL; True leaves that to the environment.
        protocol: None leaves that to the environment, too.
        headers: sent with every request.

    Raises:
        ImportError: the extra is not installed.
        ValueError: the environment names a protocol that is not supported.
    """
    chosen = protocol or _protocol(signal)
    if (signal, chosen) not in _CLASSES:
        raise ValueError(f"the OTLP protocol {chosen!r} is not one of {', '.join(PROTOCOLS)}")
    module, name = _CLASSES[signal, chosen]
    try:
        found = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{module}")
    except ImportError as error:
        raise ImportError(
            "sending by OTLP needs an exporter that is not installed: "
            f"pip install 'graphorch-ray[otlp]' ({error})"
        ) from error
    # The exporters tell their log of every failure. Those who listen to logs get that; nobody
    # else does, for a failure is reported once, as a warning.
    logging.getLogger("opentelemetry.exporter.otlp").addHandler(logging.NullHandler())
    options: dict[str, Any] = {}
    if isinstance(where, str):
        base = where.rstrip("/")
        options["endpoint"] = base if chosen == "grpc" else f"{base}/v1/{signal}"
        if chosen == "grpc":
            options["insecure"] = not base.startswith("https://")
    if headers:
        lower = {key.lower(): value for key, value in headers.items()}
        options["headers"] = tuple(lower.items()) if chosen == "grpc" else dict(headers)
    return getattr(found, name)(**options)


def _protocol(signal: Signal) -> str:
    names = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    return next((os.environ[name] for name in names if os.environ.get(name)), "http/protobuf")
