"""How a run stands just now: plain numbers that are always kept, for whoever looks."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..model.attempt import AttemptKey, Launch


class Counts:
    """Written by the run's thread; may be read from any other.

    Attributes:
        graph: the graph's name.
        superstep: the one that runs, counted from 0.
        max_workers: attempts that may run at once.
        total: executions launched in this superstep.
        done: those of them that have their result.
        out: attempts that wait for a slot or run, and whose place in the graph each has.
        retrying: executions that wait for their next attempt.
        executions, failures, retries, fallbacks: of the whole run.
        ended: how it ended; None while it runs.
    """

    def __init__(self) -> None:
        self.begin("", 1)

    def begin(self, graph: str, max_workers: int) -> None:
        """A run starts."""
        self.graph = graph
        self.max_workers = max_workers
        self.started = time.monotonic()
        self.superstep = 0
        self.total = self.done = 0
        self.out: dict[AttemptKey, str] = {}
        self.retrying: set[int] = set()
        self.executions = self.failures = self.retries = self.fallbacks = 0
        self.ended: str | None = None

    def end(self, status: str, superstep: int) -> None:
        """It has ended."""
        self.out.clear()
        self.superstep = superstep
        self.ended = status

    def superstep_started(self, superstep: int) -> None:
        """Launches follow."""
        self.superstep = superstep
        self.total = self.done = 0
        self.out.clear()
        self.retrying.clear()

    def launched(self, launches: Sequence[Launch]) -> None:
        """Attempts are handed out."""
        self.out.update([(launch.key, launch.owner_id) for launch in launches])
        first = 0
        for launch in launches:
            _, _, execution, role, attempt, rerun = launch.key
            if role == "node" and attempt == rerun == 0:
                first += 1
            else:
                self.retrying.discard(execution)
        self.total += first
        self.executions += first

    def ended_attempt(self, key: AttemptKey, *, failed: bool) -> None:
        """One has its answer."""
        self.out.pop(key, None)
        if failed:
            self.failures += 1
        else:
            self.done += 1

    def retried(self, execution: int) -> None:
        """One will be tried again."""
        self.retrying.add(execution)
        self.retries += 1

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.started

    @property
    def running(self) -> int:
        """Attempts that hold a slot, as far as the driver can know."""
        return min(len(self.out), self.max_workers)

    @property
    def waiting(self) -> int:
        """Attempts that wait for one."""
        return max(0, len(self.out) - self.max_workers)

    @property
    def mark(self) -> tuple[object, ...]:
        """Another one whenever something to show has changed."""
        return self.superstep, self.total, self.done, len(self.out), self.failures, self.retries
