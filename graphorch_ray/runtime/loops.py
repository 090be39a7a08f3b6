"""Running a coroutine to its end, from code that has no event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_to_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, for results that may be large.

    After a run in the main thread, CPython asks which Ctrl-C handler is set, and on the way writes
    out the finished task, with the `repr` of all that it gave: seconds for a state of some
    megabytes. So the task gives nothing here.
    """
    given: list[T] = []

    async def keep() -> None:
        given.append(await coroutine)

    asyncio.run(keep())
    return given.pop()
