"""Prefect with its Ray runner, on the Ray of this process and a server of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

_running = ExitStack()
_started = False


def _start() -> None:
    """Start a Prefect server on loopback, with a database that goes away with it."""
    global _started
    if not _started:
        from prefect.testing.utilities import prefect_test_harness

        logging.getLogger("prefect").setLevel(logging.ERROR)
        _running.enter_context(prefect_test_harness(server_startup_timeout=120))
        _started = True


def _flow(body: Callable[[Any], Any], function: Callable[[Any], Any]) -> Callable[[], Any]:
    from prefect import flow, task
    from prefect_ray import RayTaskRunner

    call: Any = task(function)

    @flow(task_runner=RayTaskRunner(address="auto"), log_prints=False)
    def whole() -> Any:
        return body(call)

    def run() -> Any:
        _start()
        return whole()

    return run


def fan_out(function: Callable[[Any], int], inputs: Sequence[Any]) -> Callable[[], int]:
    return _flow(lambda call: sum(call.map(list(inputs)).result()), function)


def chain(function: Callable[[Any], Any], value: Any, length: int) -> Callable[[], Any]:
    """Each task gets the future before; only the last one is fetched."""

    def body(call: Any) -> Any:
        future = call.submit(value)
        for _ in range(length - 1):
            future = call.submit(future)
        return future.result()

    return _flow(body, function)


def close() -> None:
    """End the server."""
    global _started
    _running.close()
    _started = False
