"""No framework at all: a loop, an event loop, a pool of processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

_pool: ProcessPoolExecutor | None = None


def fan_out(function: Callable[[Any], int], inputs: Sequence[Any]) -> Callable[[], int]:
    return lambda: sum(function(value) for value in inputs)


def fan_out_async(function: Callable[[Any], Any], inputs: Sequence[Any]) -> Callable[[], int]:
    async def gathered() -> int:
        return sum(await asyncio.gather(*[function(value) for value in inputs]))

    return lambda: asyncio.run(gathered())


def fan_out_pool(
    function: Callable[[Any], int], inputs: Sequence[Any], chunksize: int = 1
) -> Callable[[], int]:
    """On a `ProcessPoolExecutor` that is there already, with a process for each core."""

    def run() -> int:
        return sum(pool().map(function, inputs, chunksize=chunksize))

    return run


def chain(function: Callable[[Any], Any], value: Any, length: int) -> Callable[[], Any]:
    def run() -> Any:
        result = value
        for _ in range(length):
            result = function(result)
        return result

    return run


def loop(function: Callable[[Any], Any], value: Any, times: int) -> Callable[[], Any]:
    def run() -> Any:
        result = value
        while result < times:
            result = function(result)
        return result

    return run


def pool() -> ProcessPoolExecutor:
    """The pool. Its processes are spawned: this one has threads, and must not be forked."""
    global _pool
    if _pool is None:
        _pool = ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"))
    return _pool


def close() -> None:
    """End the pool."""
    global _pool
    if _pool is not None:
        _pool.shutdown()
        _pool = None
