"""Dask distributed: a local cluster with a process for each core, and futures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client

_client: Client | None = None


def client() -> Client:
    """The client of a local cluster that is there already; it serves no dashboard."""
    global _client
    if _client is None:
        _client = Client(
            n_workers=os.cpu_count(),
            threads_per_worker=1,
            dashboard_address=None,
            set_as_default=False,
            silence_logs="ERROR",
        )
    return _client


def fan_out(function: Callable[[Any], int], inputs: Sequence[Any]) -> Callable[[], int]:
    def run() -> int:
        futures = client().map(function, inputs, pure=False)
        return int(client().submit(sum, futures, pure=False).result())

    return run


def fan_out_async(function: Callable[[Any], Any], inputs: Sequence[Any]) -> Callable[[], int]:
    return fan_out(function, inputs)  # a worker awaits coroutine functions itself


def share(function: Callable[[Any], int], value: Any, count: int) -> Callable[[], int]:
    """With one `scatter` for all tasks."""

    def run() -> int:
        shared = client().scatter(value, broadcast=True, hash=False)
        futures = [client().submit(function, shared, pure=False) for _ in range(count)]
        return int(client().submit(sum, futures, pure=False).result())

    return run


def chain(function: Callable[[Any], Any], value: Any, length: int) -> Callable[[], Any]:
    """Each task gets the future before; only the last one is fetched."""

    def run() -> Any:
        future = client().submit(function, value, pure=False)
        for _ in range(length - 1):
            future = client().submit(function, future, pure=False)
        return future.result()

    return run


def loop(function: Callable[[Any], Any], value: Any, times: int) -> Callable[[], Any]:
    """Each result is looked at before the next task is submitted."""

    def run() -> Any:
        result = value
        while result < times:
            result = client().submit(function, result, pure=False).result()
        return result

    return run


def close() -> None:
    """End the cluster."""
    global _client
    if _client is not None:
        _client.shutdown()
        _client.close()
        _client = None
