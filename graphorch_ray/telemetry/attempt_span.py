"""Spans of executions and attempts: what is known is kept as it comes, and named on export.

There may be 50,000 of each in a superstep, so an open one is one small object, and all that can
wait for the exporter's thread does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.trace import Link, SpanContext

from ..model.attempt import AttemptFacts, AttemptKey
from . import events as ev
from .edges_taken import EdgesTaken
from .event import PREFIX, AttemptEvent
from .settings import short, short_end
from .span_writer import GRAPH, RUN_ID, Ended, Happened, OpenSpan, Traced

_SPAN = f"{PREFIX}span"
_SUPERSTEP = f"{PREFIX}superstep"
_EXECUTION = f"{PREFIX}execution"
_NODE_ID = f"{PREFIX}node_id"
_NODE_TYPE = f"{PREFIX}node_type"
_OUTCOME = f"{PREFIX}outcome"
_REASON = f"{PREFIX}reason"
_ERROR = f"{PREFIX}error"
_INPUT_SIZE = f"{PREFIX}input_size"
_OUTPUT_SIZE = f"{PREFIX}output_size"
_CODE_STARTED = ev.CodeStarted.name
_CODE_ENDED = ev.CodeEnded.name
_INPUT = {f"{PREFIX}link": "input"}


class Arrivals:
    """Which attempts fed the executions of a superstep.

    Args:
        edges: those taken at the barrier before it.
        results: span ids of the attempts that succeeded there, by execution.
        traced: the run's.
    """

    __slots__ = ("_by_sink", "_edges", "_results", "_traced")

    def __init__(self, edges: EdgesTaken, results: Mapping[int, int], traced: Traced) -> None:
        self._edges = edges
        self._results = results
        self._traced = traced
        self._by_sink: Mapping[str, Sequence[Link]] | None = None

    def at(self, node_id: str) -> Sequence[Link]:
        """Links to those that fed this node, in launch order."""
        if self._by_sink is None:
            context = self._traced.context
            links = {
                execution: Link(context(span_id), _INPUT)
                for execution, span_id in self._results.items()
            }
            self._by_sink = self._edges.arrived(links)
        return self._by_sink.get(node_id, ())


class OpenExecution(Ended):
    """An execution that has not ended, or has and is to be written.

    Args:
        traced: the run's.
        span_id: its own.
        superstep: the span above.
        first: its first attempt.
        owner_id: whose place in the graph it is.
        start: Unix seconds.
        arrivals: what fed the superstep, if that is known.
        place: how many executions of the same node came before it in the superstep.

    Attributes:
        attempts: attempt spans beneath it.
        outcome: of its newest attempt; None while that is open.
        failure: the error of its last attempt that failed.
        answer: facts of the attempt that succeeded.
        fallback: who stepped in.
    """

    __slots__ = (
        "answer",
        "arrivals",
        "attempts",
        "failure",
        "fallback",
        "first",
        "outcome",
        "owner_id",
        "place",
        "superstep",
    )

    def __init__(
        self,
        traced: Traced,
        span_id: int,
        superstep: OpenSpan,
        first: AttemptKey,
        owner_id: str,
        start: float,
        arrivals: Arrivals | None,
        place: int,
    ) -> None:
        super().__init__(traced, span_id, start)
        self.superstep = superstep
        self.first = first
        self.owner_id = owner_id
        self.arrivals = arrivals
        self.place = place
        self.attempts = 0
        self.outcome: str | None = None
        self.failure: str | None = None
        self.answer: AttemptFacts | None = None
        self.fallback: str | None = None

    def name_of(self) -> str:
        """Its name."""
        return f"node {self.owner_id}"

    def parent_of(self) -> SpanContext:
        """The superstep's span."""
        return self.superstep.context()

    def attributes_of(self) -> Mapping[str, Any]:
        """All that is known of it."""
        traced, key, answer = self.traced, self.first, self.answer
        found: dict[str, Any] = {
            RUN_ID: traced.run_id,
            GRAPH: traced.graph,
            _SPAN: "execution",
            _SUPERSTEP: key.superstep,
            _EXECUTION: key.execution,
            _NODE_ID: self.owner_id,
            _NODE_TYPE: traced.nodes.of(self.owner_id).node_type,
            "graphorch.attempts": self.attempts,
            _OUTCOME: self.outcome or "cancelled",
        }
        if answer is not None:
            found[_INPUT_SIZE] = answer.input_size
            found[_OUTPUT_SIZE] = answer.output_size
        if self.failure is not None:
            found[_ERROR] = short(self.failure)
        if self.fallback is not None:
            found["graphorch.fallback_node"] = self.fallback
        return found

    def links_of(self) -> Sequence[Link]:
        """The attempts whose states it got: an aggregator those of all, others that of one."""
        if self.arrivals is None:
            return ()
        fed = self.arrivals.at(self.owner_id)
        if self.traced.nodes.of(self.owner_id).is_aggregator:
            return fed
        return fed[self.place : self.place + 1]


class OpenAttempt(Ended):
    """An attempt that has not ended, or has and is to be written.

    Args:
        execution: the span above.
        span_id: its own.
        key: which attempt it is.
        node_id: whose code runs.
        start: Unix seconds.

    Attributes:
        facts: where and when it ran, once it has its answer.
        failed: how it failed, or why it was given up.
    """

    __slots__ = ("execution", "facts", "failed", "key", "node_id")

    def __init__(
        self, execution: OpenExecution, span_id: int, key: AttemptKey, node_id: str, start: float
    ) -> None:
        super().__init__(execution.traced, span_id, start)
        self.execution = execution
        self.key = key
        self.node_id = node_id
        self.facts: AttemptFacts | None = None
        self.failed: ev.AttemptFailed | ev.AttemptCancelled | None = None

    def name_of(self) -> str:
        """Its name."""
        return f"attempt {self.node_id}"

    def parent_of(self) -> SpanContext:
        """The execution's span."""
        return self.execution.context()

    def attributes_of(self) -> Mapping[str, Any]:
        """What began it, how it ended, and what its code said of itself."""
        traced, node_id, failed, facts = self.traced, self.node_id, self.failed, self.facts
        _, superstep, execution, role, attempt, rerun = self.key
        node = traced.nodes.of(node_id)
        found: dict[str, Any] = {
            RUN_ID: traced.run_id,
            GRAPH: traced.graph,
            _SPAN: "attempt",
            _NODE_ID: node_id,
            "graphorch.owner_id": self.execution.owner_id,
            _NODE_TYPE: node.node_type,
            "graphorch.max_retries": node.policy.max_retries,
            "graphorch.retry_delay": node.policy.delay_before(attempt),
            _SUPERSTEP: superstep,
            _EXECUTION: execution,
            "graphorch.role": role,
            "graphorch.retry_count": attempt,
            "graphorch.rerun": rerun,
            **traced.nodes.code_of(node_id),
            _OUTCOME: "ok" if failed is None else outcome_of(failed),
        }
        if facts is not None:
            self._add_facts(found, facts)
        if failed is not None:
            found[_REASON] = failed.reason
            if isinstance(failed, ev.AttemptFailed):
                found[_ERROR] = short(failed.error)
                found["error.type"] = failed.error_type
        return found

    def _add_facts(self, found: dict[str, Any], facts: AttemptFacts) -> None:
        found["graphorch.placement"] = facts.placement
        found["graphorch.batch_size"] = facts.batch_size
        found["graphorch.input_bytes"] = facts.input_bytes
        found["graphorch.output_bytes"] = facts.output_bytes
        found[_INPUT_SIZE] = facts.input_size
        found[_OUTPUT_SIZE] = facts.output_size
        if facts.ran_ahead:
            found["graphorch.ran_ahead"] = True
        if facts.worker_pid is not None:
            found["graphorch.worker_pid"] = found["process.pid"] = facts.worker_pid
        if facts.ray_node is not None:
            found["graphorch.ray_node"] = facts.ray_node
        if facts.task_id is not None:
            found["graphorch.task_id"] = facts.task_id
        started, ended = facts.started, facts.ended
        if started is not None:
            found["graphorch.queue_wait"] = max(0.0, started - self.start)
            if ended is not None:
                found["graphorch.run_time"] = max(0.0, ended - started)
        if facts.trail is not None:
            found.update(facts.trail.attributes)

    def events_of(self) -> Iterable[Happened]:
        """When its code began and returned, what happened in between, and how it failed."""
        facts, failed = self.facts, self.failed
        found: list[Happened] = []
        if facts is not None and facts.started is not None:
            began = {_INPUT_SIZE: facts.input_size}
            found.append((_CODE_STARTED, self.at(facts.started), began))
        for note in self.notes or ():
            if isinstance(note, AttemptEvent):
                found.append((note.name, self.at(note.time), note.own_attributes()))
        if facts is not None:
            if failed is None and facts.ended is not None:
                returned = {_OUTPUT_SIZE: facts.output_size}
                found.append((_CODE_ENDED, self.at(facts.ended), returned))
            if facts.trail is not None:
                found += facts.trail.events
        if isinstance(failed, ev.AttemptFailed):
            raised = {
                "exception.type": failed.error_type,
                "exception.message": short(failed.error),
                "exception.stacktrace": short_end(failed.traceback),
            }
            at = self.at(failed.time)
            found += [(failed.name, at, {}), ("exception", at, raised)]
        return found


def outcome_of(failed: ev.AttemptFailed | ev.AttemptCancelled) -> str:
    """How an attempt ended, in the word of its span."""
    if isinstance(failed, ev.AttemptCancelled):
        return "cancelled"
    if failed.infrastructure:
        return "infrastructure"
    return "timeout" if failed.reason == "timeout" else "failed"
