"""Handing a run over to a driver in the cluster."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
import warnings
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..checking import check, check_count, check_seconds
from ..checkpoint.files import local_path
from ..checkpoint.store import signing_key
from ..clock import SystemClock
from ..errors import CheckpointError, GraphWarning, RunExistsError
from ..policies import NodeOptions
from ..run import Run
from ..runtime import make_pool
from ..runtime.on_ray.modules import import_path, ship_unreachable_modules
from ..runtime.on_ray.resources import (
    check_possible,
    machines,
    machines_to_come,
    ray_options,
    request_of,
)
from ..runtime.payload import Payload
from .actor import hosted_run
from .assignment import Assignment, pack_policy, pack_run
from .cluster import (
    NAMESPACE,
    About,
    connect,
    ends_with_this_process,
    is_accepted,
    machine_count,
)
from .handle import DriverGone, RunHandle

if TYPE_CHECKING:
    from ..executor import GraphExecutor

T = TypeVar("T")

ACTOR_OPTIONS = frozenset(
    {
        *("label_selector", "memory", "num_cpus", "num_gpus", "resources", "runtime_env"),
        "scheduling_strategy",
    }
)
"""What may be said of where a driver is to be."""

ASKERS = 1_000
"""Calls of handles that a driver answers at once; most of them wait for news."""

ACCEPT_SECONDS = 0.005
"""How often Ray is asked whether it has what it needs to start a driver."""

TAKE_SECONDS = 60.0
"""How long a driver without a store has to start, before the client is told not to leave."""


def submit(
    executor: GraphExecutor,
    max_supersteps: int,
    superstep_timeout: float | None,
    *,
    name: str | None,
    max_restarts: int | None,
    keep_result: float,
    actor_options: Mapping[str, Any] | None,
) -> RunHandle:
    """Host a run; see `GraphExecutor.submit`."""
    check_count("max_supersteps", max_supersteps, 0)
    check_seconds("superstep_timeout", superstep_timeout)
    restarts = _restarts(executor, max_restarts)
    if not keep_result >= 0:
        raise ValueError(f"keep_result must be seconds of 0 or more, not {keep_result!r}")
    options = _checked(actor_options or {})
    _check_free(executor)
    name = _name(executor, name)
    _check_place(executor.checkpoint_path)
    connect()
    _check_not_taken(name)
    _check_possible(name, options)
    _warn_of_place(executor.checkpoint_path)
    ship_unreachable_modules()
    executor._running = True  # from here on it is another process's
    try:
        return _host(
            executor, max_supersteps, superstep_timeout, name, restarts, keep_result, options
        )
    except BaseException:
        executor._running = False
        raise


def _host(
    executor: GraphExecutor,
    max_supersteps: int,
    superstep_timeout: float | None,
    name: str,
    max_restarts: int,
    keep_result: float,
    options: NodeOptions,
) -> RunHandle:
    from ray.exceptions import ActorAlreadyExistsError

    line: str | None = None
    run: Payload | None = None
    if executor.checkpoint_path is not None:
        line = _store(executor)
    else:
        run = pack_run(executor)
    about = About(
        name=name,
        run_id=executor.run_id,
        graph=executor.graph.name,
        path=_absolute(executor.checkpoint_path),
        line=line,
        settings=dict(executor._settings),
        started=None,
        keep=keep_result,
        max_restarts=max_restarts,
    )
    assignment = Assignment(
        about=about,
        backend=executor.backend,
        pool=executor.pool,
        max_supersteps=max_supersteps,
        superstep_timeout=superstep_timeout,
        import_path=import_path(),
        environment={k: v for k, v in os.environ.items() if k.startswith("OTEL_")},
        trace=_current_trace(),
        retry_policy=pack_policy(executor.retry_policy),
    )
    fixed = {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "max_restarts": max_restarts,
        "max_task_retries": 0,
        "max_concurrency": ASKERS,
    }
    try:
        actor = hosted_run().options(**ray_options(options, 0), **fixed).remote(assignment, run)
    except ActorAlreadyExistsError:
        raise RunExistsError(name) from None
    handle = RunHandle(name, actor, actor._actor_id.hex(), about)
    _wait_until_taken(handle, has_all=run is not None)
    return handle


def _store(executor: GraphExecutor) -> str:
    """Put graph and state where the driver, and each that replaces it, takes them from.

    What is written is signed, with a key of the run's own where there is none: a graph is a
    pickle, and a driver on another machine must know whose it is.
    """
    settings = executor._settings
    key = signing_key(settings.get("checkpoint_key")) or secrets.token_bytes(32)
    executor._settings = {**settings, "checkpoint_key": key}
    executor._keeper = None
    executor._open_place()
    return _on_a_loop(Run(executor, 0, None, make_pool("inline")).record_start())


def _on_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, whether or not an event loop runs in this thread."""
    outcome: list[T] = []
    errors: list[BaseException] = []

    def go() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=go, name="graphorch-submit")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


def _wait_until_taken(handle: RunHandle, *, has_all: bool) -> None:
    """Wait until the client is needed no longer.

    Args:
        handle: of the run.
        has_all: the graph and its states go to the driver itself, which has to be there for that;
            otherwise it is enough that Ray knows what to start.

    Raises:
        RunLostError: the driver could not be started.
    """
    deadline = time.monotonic() + TAKE_SECONDS
    try:
        while not is_accepted(handle._actor_id) and time.monotonic() < deadline:
            time.sleep(ACCEPT_SECONDS)
        if has_all:
            handle._ask("now", deadline=deadline)
    except DriverGone as gone:
        raise handle._error_after(gone.facts) from None
    except TimeoutError:
        warnings.warn(
            f"The driver of run '{handle.name}' has not started yet, after {TAKE_SECONDS:g} s. "
            "Its graph and state are in this process only: keep it until the run has started, or "
            "give a checkpoint_path.",
            GraphWarning,
            stacklevel=5,
        )


# --- checks -----------------------------------------------------------------------------------


def _check_free(executor: GraphExecutor) -> None:
    if executor._running:
        raise RuntimeError("This executor is running already; make one executor for each run.")
    if not isinstance(executor._clock, SystemClock):
        raise ValueError("A hosted run goes by the cluster's time: leave clock= out.")
    if executor._record is not None or executor._hub.has_listeners:
        raise RuntimeError(
            "Observers and reports of an executor are of this process, and a hosted run is not: "
            "read handle.events() instead of add_observer(), and set OTEL_* variables, or "
            "telemetry in the cluster, for traces."
        )


def _restarts(executor: GraphExecutor, given: int | None) -> int:
    stored = executor.checkpoint_path is not None
    if given is None:
        return 3 if stored else 0
    check_count("max_restarts", given, 0)
    if given and not stored:
        raise ValueError(
            f"max_restarts={given} needs a checkpoint_path: without one, a driver that is lost "
            "takes the run's graph and states with it, and nothing can replace it."
        )
    return given


def _name(executor: GraphExecutor, given: str | None) -> str:
    if given is None:
        return f"{executor.graph.name}-{executor.run_id[:8]}"
    check("name", given, str, "text, for example 'nightly'")
    if not given.strip() or not given.isprintable():
        raise ValueError(f"name must be printable text, for example 'nightly', not {given!r}")
    return given


class _Driver(NamedTuple):
    """A driver, as something that asks for a place."""

    node_id: str
    options: NodeOptions
    placement: str = "actor"


def _checked(options: Mapping[str, Any]) -> NodeOptions:
    """What the driver's actor asks for."""
    for name in options:
        if name not in ACTOR_OPTIONS:
            allowed = ", ".join(sorted(ACTOR_OPTIONS))
            raise ValueError(f"actor_options has no {name!r}; there are: {allowed}")
    return NodeOptions(**options)


def _check_possible(name: str, options: NodeOptions) -> None:
    """Refuse a driver that no machine could take: Ray would let it wait without a word."""
    driver = _Driver(f"(the driver of run '{name}')", options)
    present = machines()
    to_come = machines_to_come(present, [request_of(options, 0)])
    if check_possible([driver], present, 0, to_come):
        warnings.warn(
            f"No machine of the cluster can take the driver of run '{name}' yet. The run is "
            "pending until the autoscaler adds one.",
            GraphWarning,
            stacklevel=4,
        )


def _check_not_taken(name: str) -> None:
    import ray

    try:
        ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return
    raise RunExistsError(name)


def _check_place(path: str | None) -> None:
    if path is not None and path.startswith("memory:"):
        raise CheckpointError(
            f"'{path}' is this process's own memory, which a driver in the cluster does not see. "
            "Give a checkpoint_path that all machines of the cluster see alike, such as "
            "s3://bucket/runs or a shared file system."
        )


def _warn_of_place(path: str | None) -> None:
    if ends_with_this_process():
        warnings.warn(
            "The Ray that the run is hosted on was started by this process and ends with it, and "
            "the run with that. Set RAY_ADDRESS to a cluster that stays.",
            GraphWarning,
            stacklevel=4,
        )
    elif path is not None and local_path(path) is not None and machine_count() > 1:
        warnings.warn(
            f"'{path}' is a path on this machine, and the cluster has others: unless they share "
            "that file system, a driver there does not find its run. Give a checkpoint_path that "
            "all machines see alike, such as s3://bucket/runs.",
            GraphWarning,
            stacklevel=4,
        )


def _absolute(path: str | None) -> str | None:
    """A path that means the same in another working directory."""
    return path if path is None else local_path(path) or path


def _current_trace() -> dict[str, str]:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier
