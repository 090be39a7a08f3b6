"""What Ray's errors mean for an attempt: whose fault it was, and what broke."""

from __future__ import annotations

from ray import exceptions

from ...model.attempt import Failure
from ..failures import capture


def is_dead_actor(error: BaseException) -> bool:
    """True for the error of a call to an actor that is gone."""
    return isinstance(error, exceptions.RayActorError)


_LOST = ("ObjectLostError", "ObjectReconstructionFailed", "OwnerDiedError", "NodeDiedError")


def _is_lost(error: exceptions.RayTaskError) -> bool:
    """Whether a call failed because its arguments are gone; Ray may tell that in words only.

    What node code raised never comes as a `RayTaskError`, so its words cannot be mistaken.
    """
    return any(name in f"{type(error.cause).__name__} {error}" for name in _LOST)


def _cannot_import(error: exceptions.RayTaskError) -> bool:
    """Whether a worker could not load what it was to call; only Ray's words tell."""
    text = str(error)
    return "failed to import on the worker" in text or "actor class failed to import" in text


def is_lost(error: BaseException) -> bool:
    """True where a call or a fetch failed because an object is gone with its machine."""
    if isinstance(error, exceptions.RayTaskError):
        return _is_lost(error)
    return isinstance(error, exceptions.ObjectLostError | exceptions.NodeDiedError)


def is_configuration(error: BaseException | None) -> bool:
    """True for what would happen again: a broken environment, a request no machine meets."""
    if isinstance(error, exceptions.RayTaskError) and _is_lost(error):
        return False
    if isinstance(error, exceptions.ActorDiedError) and "creation task" in str(error):
        return True
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
    if isinstance(error, exceptions.RayTaskError) and _is_lost(error):
        reason = "object_lost"
    failure = capture(error, reason)
    message = failure.message
    if reason == "object_lost":
        message = "a state that it needs is gone with the machine that held it"
    elif isinstance(error, exceptions.RayTaskError) and _cannot_import(error):
        last = message.strip().splitlines()[-1]
        message = (
            f"the worker at {error.ip} has no graphorch_ray, or another one than this process "
            f"({last}). Install the same version on all machines of the cluster, or send the run "
            "as a job, which brings its own: `graphorch-ray submit`"
        )
    return Failure(failure.type_name, failure.mro_names, message, "", None, reason)
