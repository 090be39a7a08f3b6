"""Setting up telemetry: `configure`, or the standard ``OTEL_*`` variables."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TextIO, cast

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)

from .jsonlines import JsonLinesExporter, span_line
from .otlp import PROTOCOLS, Protocol, otlp_exporter
from .outlet import Outlet
from .own_providers import OwnTracerProvider, own
from .providers import flush_relays
from .report_once import Once
from .settings import STATE_CHARS, Redact, Settings, put_settings
from .span_writer import Lot, Unbuilt

EXIT_SECONDS = 5.0
"""How long the end of the process waits for exporters, all together."""

_env_done = False
_at_exit = False
_exporters: list[Any] = []
_unusable = Once()


def configure(
    *,
    file: str | os.PathLike[str] | None = None,
    otlp: bool | str = False,
    console: bool | TextIO = False,
    exporters: Sequence[SpanExporter] = (),
    protocol: Protocol | None = None,
    headers: Mapping[str, str] | None = None,
    metrics: bool = True,
    logs: bool | int = False,
    service_name: str | None = None,
    resource: Mapping[str, Any] | None = None,
    redact: Redact | None = None,
    record_states: bool | int = False,
) -> None:
    """Choose where traces, metrics and logs of all later runs in this process go.

    Called again, it replaces what it set up before; with no destination it switches telemetry
    off. Where the program has set up an OpenTelemetry SDK of its own, that is used as it is and
    the destinations given here are added to its traces.

    Args:
        file: append spans to this file, one JSON object per line.
        otlp: send by OTLP, to this base URL (``"http://localhost:4318"``), or with True to where
            the ``OTEL_EXPORTER_OTLP_*`` variables say. Needs the extra ``otlp``.
        console: print spans as JSON lines, to standard output or to the stream given.
        exporters: further OpenTelemetry span exporters.
        protocol: of OTLP, ``"http/protobuf"`` or ``"grpc"``. Default: what
            ``OTEL_EXPORTER_OTLP_PROTOCOL`` says, else HTTP.
        headers: sent with every OTLP request, for example an API key.
        metrics: send metrics too, where `otlp` is given.
        logs: forward log records of node code too, True from INFO up, or from a level of
            `logging` up. They go where `otlp` says, or to the program's own logger provider.
        service_name: the resource's ``service.name``. Default: ``OTEL_SERVICE_NAME``, else
            ``"graphorch_ray"``.
        resource: further attributes of the resource.
        redact: asked about every attribute, error text and log text: takes its name and value,
            gives the value to show, or None to leave it out. Called in exporters' threads, too.
        record_states: put the text of the states that go into and come out of an attempt onto
            its span: True for 1,024 characters of each, or a number of characters.

    Raises:
        ImportError: `otlp` is asked for and the extra is not installed; says how to get it.
        ValueError: `protocol` is unknown.
        OSError: `file` cannot be written.

    Example:
        ```python
        from graphorch_ray import telemetry

        telemetry.configure(file="trace.jsonl")
        ```
    """
    global _env_done
    if protocol is not None and protocol not in PROTOCOLS:
        allowed = ", ".join(map(repr, PROTOCOLS))
        raise ValueError(f"protocol must be one of {allowed}, not {protocol!r}")
    _env_done = True
    described = _resource(service_name, resource)
    spans: list[SpanExporter] = list(exporters)
    if otlp:
        spans.append(otlp_exporter("traces", otlp, protocol, headers))
    if file is not None:
        spans.append(JsonLinesExporter(file))
    if console:
        out = sys.stdout if console is True else console
        spans.append(ConsoleSpanExporter(out=cast(TextIO, out), formatter=span_line))
    others: dict[str, Any] = {}
    if otlp and metrics:
        others["metrics"] = otlp_exporter("metrics", otlp, protocol, headers)
    if otlp and logs is not False:
        others["logs"] = otlp_exporter("logs", otlp, protocol, headers)
    level = logging.INFO if logs is True else (None if logs is False else int(logs))
    chars = STATE_CHARS if record_states is True else int(record_states)
    settings = Settings(redact=redact, state_chars=chars, log_level=level)
    _install(described, spans, others, settings)


def _install(
    resource: Resource,
    spans: Sequence[SpanExporter],
    others: Mapping[str, Any],
    settings: Settings,
) -> None:
    global _at_exit
    _retire(EXIT_SECONDS)
    put_settings(settings)
    if spans:
        own.provide_traces(resource)
    own.spans.outlets = tuple(_outlet(exporter) for exporter in spans)
    if "metrics" in others and own.provide_metrics(resource):
        own.metrics.targets = (others["metrics"],)
    if "logs" in others:
        own.provide_logs(resource)
        own.logs.targets = (others["logs"],)
    _exporters.extend([*spans, *others.values()])
    if not _at_exit:
        _at_exit = True
        atexit.register(shutdown)


def flush(timeout: float = EXIT_SECONDS) -> bool:
    """Wait until everything recorded so far has left; false where `timeout` seconds went by.

    What ends with the process leaves by itself; this is for looking at it before.
    """
    done = flush_relays(timeout)
    done &= own.spans.force_flush(int(timeout * 1000))
    providers = [p for p in (own.meter_provider, own.logger_provider) if p is not None]
    for provider in providers:
        done &= _in_time(provider.force_flush, timeout)
    return done


def shutdown(timeout: float = EXIT_SECONDS) -> None:
    """Send what waits, within `timeout` seconds, and switch off what `configure` set up."""
    _retire(timeout)
    put_settings(Settings())


def _retire(timeout: float) -> None:
    """End the exporters in force."""
    if not _exporters:
        return
    flush_relays(timeout)
    outlets, own.spans.outlets = own.spans.outlets, ()
    for outlet in outlets:
        outlet.close(timeout)
    for provider, targets in (
        (own.meter_provider, own.metrics.targets),
        (own.logger_provider, own.logs.targets),
    ):
        if provider is not None and targets:
            _in_time(provider.force_flush, timeout)
    own.metrics.targets = own.logs.targets = ()
    retired = list(_exporters)
    _exporters.clear()
    for exporter in retired:
        _in_time(exporter.shutdown, 1.0)


def _in_time(call: Callable[[], object], timeout: float) -> bool:
    """Call something that may hang, and wait for it for some seconds."""
    thread = threading.Thread(target=_quietly, args=(call,), daemon=True)
    thread.start()
    thread.join(timeout)
    return not thread.is_alive()


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception as error:
        _unusable.say(f"Telemetry could not be ended in order: {type(error).__name__}: {error}")


def _outlet(exporter: SpanExporter) -> Outlet:
    def deliver(spans: Sequence[Unbuilt]) -> bool:
        return exporter.export(Lot(spans)) is SpanExportResult.SUCCESS

    return Outlet(f"The span exporter {type(exporter).__name__}", deliver)


def _resource(service_name: str | None, attributes: Mapping[str, Any] | None) -> Resource:
    described: dict[str, Any] = {"host.name": socket.gethostname(), "process.pid": os.getpid()}
    name = service_name or os.environ.get("OTEL_SERVICE_NAME")
    if name is None and "service.name" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        name = "graphorch_ray"
    if name is not None:
        described["service.name"] = name
    return Resource.create({**described, **(attributes or {})})


# --- the environment ------------------------------------------------------------------------


def configure_from_environment() -> None:
    """Set up, once, what ``OTEL_*`` variables ask for, unless the program has done it."""
    global _env_done
    if _env_done:
        return
    _env_done = True
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider) and not isinstance(provider, OwnTracerProvider):
        return
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    wanted = {signal: _asked_for(signal) for signal in ("traces", "metrics", "logs")}
    spans: list[SpanExporter] = []
    others: dict[str, Any] = {}
    try:
        if "otlp" in wanted["traces"]:
            spans.append(otlp_exporter("traces", True, None, None))
        if "console" in wanted["traces"]:
            spans.append(ConsoleSpanExporter(formatter=span_line))
        for signal in ("metrics", "logs"):
            if "otlp" in wanted[signal]:
                others[signal] = otlp_exporter(cast(Literal["metrics"], signal), True, None, None)
    except (ImportError, ValueError) as error:
        _unusable.say(f"What the OTEL_* variables ask for cannot be set up: {error}")
    if spans or others:
        level = logging.INFO if "logs" in others else None
        _install(_resource(None, None), spans, others, Settings(log_level=level))


def _asked_for(signal: str) -> set[str]:
    """The exporters that the environment names for a signal."""
    named = os.environ.get(f"OTEL_{signal.upper()}_EXPORTER")
    if named is not None:
        return {name.strip().lower() for name in named.split(",")} - {"none", ""}
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return {"otlp"} if any(os.environ.get(name) for name in endpoints) else set()
