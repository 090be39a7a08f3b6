"""What the nodes do, as plain functions that every contender wraps in its own way."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np


def same(value: Any) -> Any:
    """Do nothing."""
    return value


def one_more(value: int) -> int:
    """Count."""
    return value + 1


def burn(seconds: float) -> int:
    """Use a core for some seconds of this thread's time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return 1


async def wait(seconds: float) -> int:
    """Wait and use no core."""
    await asyncio.sleep(seconds)
    return 1


def next_array(before: Any) -> Any:
    """An array of 100 MB, filled with one more than the last one had."""
    return array_of(100, before if isinstance(before, int) else int(before[0]))


def next_small_array(before: Any) -> Any:
    """The same with 10 MB."""
    return array_of(10, before if isinstance(before, int) else int(before[0]))


def array_of(megabytes: int, value: int) -> Any:
    """An array of some size, filled with one more than a value."""
    return np.full(megabytes * 125_000, value + 1, np.int64)


def every_thousandth(array: Any) -> int:
    """The sum of some of an array's items."""
    return int(array[::1000].sum())


async def same_async(value: Any) -> Any:
    """Do nothing, as a coroutine."""
    return value
