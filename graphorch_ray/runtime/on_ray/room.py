"""Which states go by way of the driver: all that are small, and of the larger ones a few.

An object in Ray's store costs one to two milliseconds more than bytes that travel with a message.
In a superstep of few executions that is most of what it takes; in one of many, the driver has
neither the memory nor the time for their states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ...model.attempt import Launch
from ..payload import INLINE_BYTES

MOST_BYTES = 512 * 1024
"""Size of a state that comes to the driver, at most."""

BYTES_PER_SUPERSTEP = 8 * 2**20
"""What the states of one superstep that are larger than `INLINE_BYTES` may have together."""

SHARED_BY = 4
"""Attempts that are sent the same such state; if there are more, it is put into the store."""


class Room:
    """The room for states of one superstep."""

    def __init__(self) -> None:
        self._launched = 0

    def take(self, launches: Sequence[Launch]) -> None:
        """Attempts are launched; put into the store, once, what many of them are sent."""
        self._launched += len(launches)
        if len(launches) <= SHARED_BY:
            return
        uses = Counter(
            handle
            for launch in launches
            for handle in launch.states
            if handle.nbytes > INLINE_BYTES
        )
        for handle, count in uses.items():
            if count > SHARED_BY:
                handle.share()

    @property
    def each(self) -> int:
        """Bytes that a state may have to come to the driver with the message about it."""
        share = BYTES_PER_SUPERSTEP // max(1, self._launched)
        return max(INLINE_BYTES, min(share, MOST_BYTES))
