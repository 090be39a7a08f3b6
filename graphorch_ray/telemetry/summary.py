"""Facts about a run, gathered while it goes on: `executor.summary`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ..model.attempt import AttemptFacts, Failure

Status = Literal["new", "running", "finished", "failed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSummary:
    """What one node did in a run.

    Attributes:
        executions: how often it was launched in a superstep (attempts and re-runs not counted).
        attempts: attempts that ended, the fallback's not included.
        failures: attempts that failed by what the node did.
        retries: further attempts that were scheduled.
        timeouts: attempts that exceeded the node's own time-out.
        fallbacks: executions that a fallback took over.
        stood_in: executions that it did as the fallback of another node.
        infrastructure_failures: attempts lost with a worker, a machine or an object.
        states_dropped: states that arrived beside the first and were not used.
        seconds: time its attempts ran, all together.
        longest: the longest attempt, in seconds.
    """

    executions: int = 0
    attempts: int = 0
    failures: int = 0
    retries: int = 0
    timeouts: int = 0
    fallbacks: int = 0
    stood_in: int = 0
    infrastructure_failures: int = 0
    states_dropped: int = 0
    seconds: float = 0.0
    longest: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run did so far.

    Attributes:
        run_id: the run; the same after a resume.
        graph_name: the graph's name.
        backend: ``"ray"`` or ``"inline"``.
        status: ``"new"``, ``"running"``, ``"finished"``, ``"failed"`` or ``"cancelled"``.
        supersteps: supersteps that this executor completed.
        seconds: wall time spent in `execute()`.
        superstep_seconds: wall time of each of them, in order.
        nodes: per node; only nodes that did something.
        workers_lost: worker processes that ended by themselves.
        uncharged_reruns: attempts run again because of another attempt in the same process.
        states_remade: states lost with their machine, and made by running their node once more.
        processes: worker processes that ran an attempt.

    Example:
        ```python
        executor.run()
        executor.summary.nodes["fetch"].attempts
        ```
    """

    run_id: str
    graph_name: str
    backend: str
    status: Status = "new"
    supersteps: int = 0
    seconds: float = 0.0
    superstep_seconds: tuple[float, ...] = ()
    nodes: Mapping[str, NodeSummary] = field(default_factory=dict)
    workers_lost: int = 0
    uncharged_reruns: int = 0
    states_remade: int = 0
    processes: int = 0

    @property
    def infrastructure_failures(self) -> int:
        """Attempts lost with a worker, a machine or an object, over all nodes."""
        return sum(node.infrastructure_failures for node in self.nodes.values())

    def __str__(self) -> str:
        lines = [
            f"Run {self.run_id} of {self.graph_name!r} on {self.backend}: {self.status}, "
            f"{self.supersteps} supersteps in {self.seconds:.2f} s"
        ]
        for node_id, node in self.nodes.items():
            line = f"  {node_id}: {node.executions} executions, {node.attempts} attempts"
            for name in ("retries", "fallbacks", "timeouts", "infrastructure_failures"):
                if count := getattr(node, name):
                    line += f", {count} {name.replace('_', ' ')}"
            lines.append(f"{line}, {node.seconds:.2f} s")
        return "\n".join(lines)


class SummaryRecorder:
    """Counts what the executor tells it."""

    def __init__(self, run_id: str, graph_name: str, backend: str) -> None:
        self._run = RunSummary(run_id=run_id, graph_name=graph_name, backend=backend)
        self._nodes: dict[str, dict[str, float]] = {}
        self._supersteps: list[float] = []
        self._started = 0.0
        self._superstep_started = 0.0
        self._spent = 0.0

    def run_started(self) -> None:
        """`execute()` was called."""
        self._started = time.perf_counter()
        self._run = replace(self._run, status="running")

    def run_ended(
        self,
        status: Status,
        *,
        workers_lost: int,
        uncharged_reruns: int,
        states_remade: int,
        processes: int,
    ) -> None:
        """`execute()` is about to return or raise."""
        self._spent += time.perf_counter() - self._started
        self._run = replace(
            self._run,
            status=status,
            workers_lost=self._run.workers_lost + workers_lost,
            uncharged_reruns=self._run.uncharged_reruns + uncharged_reruns,
            states_remade=self._run.states_remade + states_remade,
            processes=self._run.processes + processes,
        )

    def superstep_started(self) -> None:
        """Launches follow."""
        self._superstep_started = time.perf_counter()

    def superstep_ended(self) -> None:
        """The barrier has passed."""
        self._supersteps.append(time.perf_counter() - self._superstep_started)

    def launched(self, node_id: str, owner_id: str) -> None:
        """A first attempt was launched, of a node or of a fallback for `owner_id`."""
        if node_id == owner_id:
            self._add(node_id, "executions")
        else:
            self._add(owner_id, "fallbacks")
            self._add(node_id, "stood_in")

    def succeeded(self, node_id: str, facts: AttemptFacts) -> None:
        """An attempt gave a state."""
        self._attempt(node_id, facts)

    def failed(
        self, node_id: str, failure: Failure, facts: AttemptFacts, *, infrastructure: bool
    ) -> None:
        """An attempt failed."""
        self._attempt(node_id, facts)
        if infrastructure:
            self._add(node_id, "infrastructure_failures")
            return
        self._add(node_id, "failures")
        if failure.reason == "timeout":
            self._add(node_id, "timeouts")

    def retried(self, node_id: str) -> None:
        """Another attempt was scheduled."""
        self._add(node_id, "retries")

    def dropped(self, node_id: str, count: int) -> None:
        """States arrived that were not used."""
        self._add(node_id, "states_dropped", count)

    def _attempt(self, node_id: str, facts: AttemptFacts) -> None:
        node = self._nodes.setdefault(node_id, {})
        node["attempts"] = node.get("attempts", 0) + 1
        if facts.started is not None and facts.ended is not None:
            taken = max(0.0, facts.ended - facts.started)
            node["seconds"] = node.get("seconds", 0.0) + taken
            node["longest"] = max(node.get("longest", 0.0), taken)

    def _add(self, node_id: str, name: str, amount: float = 1) -> None:
        node = self._nodes.setdefault(node_id, {})
        node[name] = node.get(name, 0) + amount

    def summary(self) -> RunSummary:
        """What is known now."""
        running = self._run.status == "running"
        now = time.perf_counter() - self._started if running else 0.0
        return replace(
            self._run,
            supersteps=len(self._supersteps),
            seconds=self._spent + now,
            superstep_seconds=tuple(self._supersteps),
            nodes={
                node_id: NodeSummary(**counts)  # type: ignore[arg-type]
                for node_id, counts in self._nodes.items()
            },
        )
