"""OpenTelemetry's tracers and meters on their way to a worker.

A program keeps them in a global variable, and a function of its main module takes its globals
along. They cannot be pickled; but all that they are is a name, and each process has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_NAMES = frozenset({"ProxyTracer", "Tracer", "NoOpTracer", "_ProxyMeter", "Meter", "NoOpMeter"})


def reduced(obj: Any) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """How to make the tracer or meter anew where it is loaded; None for anything else."""
    if type(obj).__name__ not in _NAMES or not type(obj).__module__.startswith("opentelemetry."):
        return None
    from opentelemetry import metrics, trace

    if isinstance(obj, trace.Tracer):
        scope = getattr(obj, "_instrumentation_scope", None)
        if scope is not None:
            return _tracer, (scope.name, scope.version)
        name = getattr(obj, "_instrumenting_module_name", "")
        return _tracer, (name, getattr(obj, "_instrumenting_library_version", None))
    if isinstance(obj, metrics.Meter):
        return _meter, (obj.name, obj.version)
    return None


def _tracer(name: str, version: str | None) -> Any:
    from opentelemetry import trace

    return trace.get_tracer(name, version)


def _meter(name: str, version: str | None) -> Any:
    from opentelemetry import metrics

    return metrics.get_meter(name, version or "")
