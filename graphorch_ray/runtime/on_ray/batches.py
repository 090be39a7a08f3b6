"""Which executions travel together: short ones, by what the run has measured so far.

A task costs Ray milliseconds, so many short executions share one. A batch is sized to a span of
work, shrinks as the queue does so that no slot idles at the end, and is given up half-way where
its work turns out longer than was thought: `SLICE_SECONDS` after its start a worker begins
nothing more, and hands back what it has not begun.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ...model.nodes import Node
from ..payload import INLINE_BYTES

if TYPE_CHECKING:
    from .lanes import Pending

BATCH_SECONDS = 0.03
"""Work that a batch is sized to."""

LEAST_SECONDS = 0.01
"""Work that a batch has at least, where there is that much: a task costs some of that."""

SLICE_SECONDS = 0.1
"""How long after its start a batch begins another execution."""

ITEM_SECONDS = 0.00005
"""What an execution costs its worker beside the node's code."""

BATCH_BYTES = 32 * 2**20
"""Large states that one batch brings to its worker, together."""

SHORT_SECONDS = BATCH_SECONDS / 2
"""A function that takes less on average is a short one: it pays to have it share a task."""

LONG_ONES = 0.5
"""Executions longer than a whole batch should be, expected in one batch at most."""

MEMORY = 50
"""Executions after which an old measurement counts for little."""


class Timing:
    """How long the executions of one function took; newer ones count more.

    Attributes:
        count: executions measured.
        seconds: the mean, each counted as `BATCH_SECONDS` at most.
        long_share: the part of them that took longer than that.
    """

    __slots__ = ("count", "long_share", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.long_share = 0.0

    def note(self, seconds: float) -> None:
        """Take in one execution."""
        self.count += 1
        weight = 1 / min(self.count, MEMORY)
        self.seconds += (min(max(seconds, 0.0), BATCH_SECONDS) - self.seconds) * weight
        self.long_share += ((seconds > BATCH_SECONDS) - self.long_share) * weight


class Timings:
    """The timings of a run, by function; several nodes may share one."""

    def __init__(self) -> None:
        self._by_function: dict[int, Timing] = {}
        self._by_node: dict[str, Timing] = {}

    def of(self, node: Node) -> Timing:
        """The timing of a node's function."""
        found = self._by_node.get(node.node_id)
        if found is None:
            found = self._by_function.setdefault(id(node.callables()[0]), Timing())
            self._by_node[node.node_id] = found
        return found

    def may_be_short(self, node: Node) -> bool:
        """Whether a node's function is short, or not known to be anything else."""
        return self.of(node).seconds < SHORT_SECONDS

    def is_unknown(self, node: Node) -> bool:
        """Whether nothing was measured yet of a node that could be a short one."""
        return not node.is_async and self.of(node).count == 0

    def is_short(self, node: Node) -> bool:
        """Whether a node's function is known, and short."""
        return self.of(node).count > 0 and self.may_be_short(node)

    def take(self, queue: deque[Pending], slots: int) -> list[Pending]:
        """Take what travels together next from a queue, the oldest first.

        Args:
            queue: attempts that one kind of task can run; not empty.
            slots: tasks that may run at once.
        """
        share = len(queue) / (2 * slots)
        batch = [queue.popleft()]
        if not self._is_short(batch[0]):
            return batch
        first = self.of(batch[0].node)
        work, long_ones = first.seconds + ITEM_SECONDS, first.long_share
        seen: set[int] = set()
        nbytes = _large_bytes(batch[0], seen)
        while queue and self._is_short(queue[0]):
            if len(batch) >= share and work >= LEAST_SECONDS:
                break
            timing = self.of(queue[0].node)
            work += timing.seconds + ITEM_SECONDS
            long_ones += timing.long_share
            more = _large_bytes(queue[0], seen)
            nbytes += more
            too_large = more > 0 and nbytes > BATCH_BYTES  # what is there already costs nothing
            if work > BATCH_SECONDS or long_ones > LONG_ONES or too_large:
                break
            batch.append(queue.popleft())
        return batch

    def _is_short(self, pending: Pending) -> bool:
        node = pending.node
        return (
            node.options.batch
            and not pending.quarantined
            and not node.is_async
            and self.of(node).count > 0
        )


def _large_bytes(pending: Pending, seen: set[int]) -> int:
    """Bytes of the large states of an attempt that were not `seen` yet."""
    nbytes = 0
    for handle in pending.launch.states:
        if handle.nbytes > INLINE_BYTES and id(handle) not in seen:
            seen.add(id(handle))
            nbytes += handle.nbytes
    return nbytes
