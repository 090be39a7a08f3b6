"""What Ray's errors mean for an attempt: whose fault it was, and what broke."""

from __future__ import annotations

from ray import exceptions

from ..model.attempt import Failure
from .failures import capture


def is_configuration(error: BaseException | None) -> bool:
    """True for what would happen again: a broken environment, a request no machine meets."""
    return isinstance(
        error,
        exceptions.RuntimeEnvSetupError
        | exceptions.TaskUnschedulableError
        | exceptions.ActorUnschedulableError
        | exceptions.RayTaskError,
    )


def infrastructure_failure(error: BaseException | None) -> Failure:
    """Name the kind of infrastructure failure that Ray reports."""
    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (exceptions.OutOfMemoryError, "out_of_memory"),
        (exceptions.NodeDiedError, "node_died"),
        (exceptions.ObjectLostError, "object_lost"),
        (exceptions.WorkerCrashedError, "worker_crashed"),
        (exceptions.RayActorError, "worker_crashed"),
        (exceptions.TaskCancelledError, "cancelled"),
    )
    if error is None:
        error = RuntimeError("its process ended without an answer")
    reason = next((name for kind, name in kinds if isinstance(error, kind)), "ray_error")
    failure = capture(error, reason)
    return Failure(failure.type_name, failure.mro_names, failure.message, "", None, reason)
