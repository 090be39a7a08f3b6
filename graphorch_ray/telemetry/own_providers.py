"""The library's own providers: what `configure` sets up where the program has set up nothing.

A global provider can be set once in a process, but `configure` may be called again. So what is
registered with OpenTelemetry are switches, and what they lead to is exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from .outlet import Outlet
from .report_once import Once
from .settings import settings
from .span_writer import Built, Unbuilt, cleaned


class SpanSwitch(SpanProcessor):
    """Puts ended spans into the outlets of the exporters in force. Never blocks."""

    def __init__(self) -> None:
        self.outlets: tuple[Outlet, ...] = ()

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        """Nothing to do yet."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue the span, if it was sampled."""
        if span.context is not None and span.context.trace_flags.sampled:
            span = cleaned(span, settings())
            self.put(Built(span))

    def put(self, span: Unbuilt) -> None:
        """Queue a span of the library."""
        if span.sampled:
            for outlet in self.outlets:
                outlet.put(span)

    def shutdown(self) -> None:
        """Nothing: `configure` closes the outlets."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until the exporters took what was queued; false where time ran out."""
        return all([o.flush(timeout_millis / 1000) for o in self.outlets])  # noqa: C419 - all


class OwnTracerProvider(TracerProvider):
    """A tracer provider whose exporters can be exchanged."""

    def __init__(self, resource: Resource, switch: SpanSwitch) -> None:
        super().__init__(resource=resource, shutdown_on_exit=False)
        self._switch = switch
        self.put = switch.put
        self.add_span_processor(switch)

    @property
    def wants_spans(self) -> bool:
        """Whether spans lead anywhere."""
        return bool(self._switch.outlets)

    def describe(self, resource: Resource) -> None:
        """Make what follows come from another resource."""
        self._resource = resource


class MetricSwitch(MetricExporter):
    """Hands metrics to the exporters in force. One that fails is reported once."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: tuple[Any, ...] = ()
        self._failed = Once()

    def export(
        self, metrics_data: Any, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Export, and keep what goes wrong from the SDK, which would report it each time."""
        for target in self.targets:
            _guarded(self._failed, "metric", target, metrics_data, timeout_millis=timeout_millis)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing waits here."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing: `configure` ends the exporters."""


class OwnMeterProvider(MeterProvider):
    """A meter provider whose exporters can be exchanged."""

    def __init__(self, resource: Resource, switch: MetricSwitch) -> None:
        reader = PeriodicExportingMetricReader(switch)
        super().__init__([reader], resource, shutdown_on_exit=False)
        self._switch = switch

    @property
    def wants_metrics(self) -> bool:
        """Whether metrics lead anywhere."""
        return bool(self._switch.targets)


class LogSwitch:
    """The same for log records."""

    def __init__(self) -> None:
        self.targets: tuple[Any, ...] = ()
        self._failed = Once()

    def export(self, batch: Sequence[Any]) -> Any:
        """Export."""
        for target in self.targets:
            _guarded(self._failed, "log", target, batch)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True

    def shutdown(self) -> None:
        """Nothing: `configure` ends the exporters."""


def _guarded(once: Once, what: str, target: Any, data: Any, **options: Any) -> None:
    try:
        failed = getattr(target.export(data, **options), "name", "") == "FAILURE"
        error = "it says that it failed"
    except Exception as raised:
        failed, error = True, f"{type(raised).__name__}: {raised}"
    if failed:
        once.say(
            f"The {what} exporter {type(target).__name__} failed: {error}. Further failures are "
            "not reported; the run is not touched by them."
        )


class Own:
    """The switches of this process, and the providers that were registered with them."""

    def __init__(self) -> None:
        self.spans = SpanSwitch()
        self.metrics = MetricSwitch()
        self.logs = LogSwitch()
        self.tracer_provider: OwnTracerProvider | None = None
        self.meter_provider: MeterProvider | None = None
        self.logger_provider: LoggerProvider | None = None
        self._joined: list[TracerProvider] = []

    def provide_traces(self, resource: Resource) -> None:
        """Have the global tracer provider lead here; a program's own is joined, not replaced."""
        provider = trace.get_tracer_provider()
        if isinstance(provider, OwnTracerProvider):
            provider.describe(resource)
        elif not isinstance(provider, TracerProvider):
            self.tracer_provider = OwnTracerProvider(resource, self.spans)
            trace.set_tracer_provider(self.tracer_provider)
        elif provider not in self._joined:
            provider.add_span_processor(self.spans)
            self._joined.append(provider)

    def provide_metrics(self, resource: Resource) -> bool:
        """Set the global meter provider; false where the program has one already."""
        if self.meter_provider is None:
            if isinstance(metrics.get_meter_provider(), MeterProvider):
                return False
            self.meter_provider = OwnMeterProvider(resource, self.metrics)
            metrics.set_meter_provider(self.meter_provider)
        return True

    def provide_logs(self, resource: Resource) -> None:
        """Have the global logger provider lead here; a program's own stays as it is."""
        if self.logger_provider is None and not isinstance(
            _logs.get_logger_provider(), LoggerProvider
        ):
            exporter: Any = self.logs
            self.logger_provider = LoggerProvider(resource, shutdown_on_exit=False)
            self.logger_provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
            _logs.set_logger_provider(self.logger_provider)


own = Own()
