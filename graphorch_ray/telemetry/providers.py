"""Which OpenTelemetry SDK, if any, takes what a run has to say.

Nothing of OpenTelemetry is imported where neither the program nor the environment asks for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..imported import imported

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    from .outlet import Outlet
    from .span_writer import Sink

_relays: WeakKeyDictionary[Any, Outlet] = WeakKeyDictionary()


def tracer_provider() -> TracerProvider | None:
    """The SDK's tracer provider that is set up in this process; None where there is none."""
    _use_environment()
    api = imported("opentelemetry.trace")
    if api is None:
        return None
    provider = api.get_tracer_provider()
    in_place = getattr(provider, "in_place", None)
    if in_place is not None:  # a worker's, which nobody has used yet
        provider = in_place()
    sdk = imported("opentelemetry.sdk.trace")
    if sdk is None or not isinstance(provider, sdk.TracerProvider):
        return None
    return provider if getattr(provider, "wants_spans", True) else None


def meter_provider() -> MeterProvider | None:
    """The SDK's meter provider that is set up in this process; None where there is none."""
    if imported("opentelemetry.sdk.metrics") is None:
        return None
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider

    provider = metrics.get_meter_provider()
    if not isinstance(provider, MeterProvider):
        return None
    return provider if getattr(provider, "wants_metrics", True) else None


def span_sink(provider: TracerProvider) -> Sink:
    """Where ended spans go, so that the provider's exporters get them.

    OpenTelemetry has no public way to hand over a span that somebody else measured; the
    processors of a provider take one. The library's own provider queues it for the exporters;
    others are called in a thread.
    """
    put: Sink | None = getattr(provider, "put", None)
    if put is not None:
        return put
    processor = provider._active_span_processor
    relay = _relays.get(provider)
    if relay is None:
        from .outlet import Outlet

        def deliver(spans: Any) -> None:
            for span in spans:
                processor.on_end(span.built())

        relay = _relays[provider] = Outlet("The span processor of the tracer provider", deliver)
        import atexit

        atexit.register(relay.close, 5.0)
    return relay.put


def flush_relays(timeout: float) -> bool:
    """Hand everything that was made so far to the providers; false where time ran out."""
    return all([relay.flush(timeout) for relay in list(_relays.values())])  # noqa: C419 - all


def _use_environment() -> None:
    """Set up what the standard variables ask for, once, unless the program has done so."""
    if any(name.startswith("OTEL_") for name in os.environ):
        from .setup import configure_from_environment

        configure_from_environment()
