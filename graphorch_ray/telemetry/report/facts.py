"""What can be computed from a run: per node, per error, and what the time went to."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from .trace import Attempt, Execution, Run, Superstep

__all__ = [
    "CriticalStep",
    "ErrorGroup",
    "NodeFacts",
    "SpanFacts",
    "critical_steps",
    "edges_taken",
    "error_groups",
    "fallbacks_taken",
    "node_facts",
    "quantile",
    "span_facts",
]


@dataclass(slots=True, kw_only=True)
class NodeFacts:
    """What one node did; times in seconds, one number for each attempt that has it."""

    node_id: str
    node_type: str = ""
    executions: int = 0
    attempts: int = 0
    retries: int = 0
    stood_in: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    run_times: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    input_bytes: int | None = None
    output_bytes: int | None = None

    @property
    def failures(self) -> int:
        """Attempts that failed, by whatever."""
        return sum(self.outcomes[name] for name in ("failed", "timeout", "infrastructure"))


@dataclass(slots=True, kw_only=True)
class ErrorGroup:
    """Attempts that failed with the same error; ``fatal`` where an execution failed by it."""

    outcome: str
    error_type: str
    error: str
    fatal: bool = False
    traceback: str = ""
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class SpanFacts:
    """The spans of one name that code in nodes made: their seconds, and in which nodes."""

    name: str
    failed: int = 0
    times: list[float] = field(default_factory=list)
    nodes: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalStep:
    """The execution that a superstep waited for longest, and what its time went to.

    Attributes:
        superstep: Which one.
        execution: The last to end in it; ``None`` in a superstep without executions.
        queued: Seconds its attempts waited for a worker.
        ran: Seconds they ran.
        paused: Seconds between attempts: the waits before retries.
        outside: Seconds of the superstep before its launch and after its end.
    """

    superstep: Superstep
    execution: Execution | None
    queued: float
    ran: float
    paused: float
    outside: float


def node_facts(run: Run) -> dict[str, NodeFacts]:
    """Return facts about every node that did something, in order of first launch."""
    nodes: dict[str, NodeFacts] = {}
    for execution in run.executions:
        owner = nodes.setdefault(execution.node_id, NodeFacts(node_id=execution.node_id))
        owner.node_type = execution.node_type
        owner.executions += 1
        owner.lost += execution.outcome == "failed"
        for attempt in execution.attempts:
            node = nodes.setdefault(attempt.node_id, NodeFacts(node_id=attempt.node_id))
            _count(node, attempt)
        if any(attempt.role == "fallback" for attempt in execution.attempts):
            nodes[execution.attempts[-1].node_id].stood_in += 1
    return nodes


def _count(node: NodeFacts, attempt: Attempt) -> None:
    node.attempts += 1
    node.retries += attempt.retry > 0 and attempt.rerun == 0
    node.outcomes[attempt.outcome] += 1
    if attempt.started is not None:
        node.run_times.append(attempt.ended - attempt.started)
    if attempt.queue_wait is not None:
        node.waits.append(attempt.queue_wait)
    if attempt.input_bytes is not None:
        node.input_bytes = (node.input_bytes or 0) + attempt.input_bytes
    if attempt.output_bytes is not None:
        node.output_bytes = (node.output_bytes or 0) + attempt.output_bytes


def span_facts(run: Run) -> list[SpanFacts]:
    """Return facts about the spans that code in nodes made, by name, most time first."""
    found: dict[str, SpanFacts] = {}
    for attempt in run.attempts:
        for span in attempt.spans:
            facts = found.setdefault(span.name, SpanFacts(name=span.name))
            facts.failed += span.failed
            facts.times.append(span.ended - span.start)
            facts.nodes[attempt.node_id] = None
    return sorted(found.values(), key=lambda facts: -sum(facts.times))


def quantile(values: Sequence[float], percent: int) -> float | None:
    """Return the value below which so many percent of the values lie."""
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def edges_taken(run: Run) -> Counter[tuple[str, str, str]]:
    """Return how many states went along each edge: source, sink, router or nothing."""
    taken: Counter[tuple[str, str, str]] = Counter()
    for superstep in run.supersteps:
        taken.update(superstep.taken)
    return taken


def fallbacks_taken(run: Run) -> Counter[tuple[str, str]]:
    """Return how often each node's fallback stepped in."""
    return Counter(
        (execution.node_id, fallback)
        for execution in run.executions
        for fallback in {a.node_id for a in execution.attempts if a.role == "fallback"}
    )


def error_groups(run: Run) -> list[ErrorGroup]:
    """Return what went wrong: first what failed an execution for good, then by count."""
    groups: dict[tuple[str, ...], ErrorGroup] = {}
    for execution in run.executions:
        for attempt in execution.attempts:
            if attempt.outcome not in ("failed", "timeout", "infrastructure"):
                continue
            group = groups.setdefault(
                (attempt.outcome, attempt.error_type, attempt.error),
                ErrorGroup(
                    outcome=attempt.outcome, error_type=attempt.error_type, error=attempt.error
                ),
            )
            group.attempts.append(attempt)
            group.traceback = group.traceback or attempt.traceback
            if execution.outcome == "failed" and attempt is execution.attempts[-1]:
                group.fatal = True
    return sorted(groups.values(), key=lambda group: (not group.fatal, -len(group.attempts)))


def critical_steps(run: Run) -> list[CriticalStep]:
    """Return for each superstep the execution that it waited for: the critical path."""
    return [_critical(superstep) for superstep in run.supersteps]


def _critical(superstep: Superstep) -> CriticalStep:
    # What is cancelled ends when another one has failed: that is what all waited for.
    last = max(superstep.executions, key=lambda e: (e.outcome != "cancelled", e.end), default=None)
    attempts = last.attempts if last is not None else []
    length = last.end - last.start if last is not None else 0.0
    queued = sum((a.ended if a.started is None else a.started) - a.queued for a in attempts)
    ran = sum(a.ended - a.started for a in attempts if a.started is not None)
    return CriticalStep(
        superstep=superstep,
        execution=last,
        queued=queued,
        ran=ran,
        paused=max(0.0, length - queued - ran),
        outside=max(0.0, superstep.end - superstep.start - length),
    )
