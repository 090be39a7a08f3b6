"""Time as the executor sees it, so that tests can put a clock of their own in its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Something that can be called off."""

    def cancel(self) -> None:
        """Call it off; harmless when it is over."""


class Clock(Protocol):
    """What the executor asks of time: waits of retries, deadlines of supersteps.

    Attributes:
        real: whether it is the time that workers see, too.
    """

    real: bool

    def time(self) -> float:
        """Unix time, in seconds."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back on the running event loop after some seconds."""

    def idle(self) -> None:
        """Nothing runs, everything waits: a fake clock may move on."""


class SystemClock:
    """The machine's own time."""

    real = True

    def time(self) -> float:
        """Unix time, in seconds."""
        return time.time()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back on the running event loop after some seconds."""
        return asyncio.get_running_loop().call_later(seconds, callback)

    def idle(self) -> None:
        """Real time moves by itself."""
