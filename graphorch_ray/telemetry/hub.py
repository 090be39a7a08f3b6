"""The one place where a run says what happens; from here it goes to whoever listens.

The summary and the counts that the live display shows are always kept. Events are made only while
somebody listens: an observer, a stream, spans, metrics or logs.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ..model.attempt import (
    AttemptFacts,
    AttemptFailed,
    AttemptKey,
    AttemptSucceeded,
    Failure,
    Launch,
)
from ..model.graph import Graph
from ..policies import RetryPolicy
from ..state import State
from . import events as ev
from .broadcast import Broadcast, Opened
from .counts import Counts
from .edges_taken import EdgesTaken, Transition
from .event import Event
from .nodes import NodeTable
from .summary import RunSummary, Status, SummaryRecorder

if TYPE_CHECKING:
    from .progress import Progress


_INSIDE: frozenset[type[Event]] = frozenset((ev.CodeStarted, ev.CodeEnded))


class EventHub(Broadcast):
    """Counts and tells what an executor does.

    Args:
        graph: the executor's.
        run_id: the run.
        backend: ``"ray"`` or ``"inline"``.
        policy: for nodes without one of their own.
        opened: called when a run starts; None where nothing is configured.

    Attributes:
        counts: how the run stands just now.
        nodes: the graph's, as telemetry tells of them.
    """

    def __init__(
        self,
        graph: Graph,
        run_id: str,
        backend: str,
        policy: RetryPolicy,
        opened: Opened | None = None,
    ) -> None:
        self.graph = graph
        super().__init__(run_id, opened)
        self.counts = Counts()
        self._recorder = SummaryRecorder(run_id, graph.name, backend)
        self._backend = backend
        self.nodes = NodeTable(graph, policy)
        self._out: dict[AttemptKey, tuple[str, str]] = {}
        self._failing_fallbacks: dict[int, ev.FallbackInvoked] = {}
        self._superstep = 0
        self._barrier: float | None = None

    def summary(self) -> RunSummary:
        """Facts about the run so far."""
        return self._recorder.summary()

    def show_progress(self) -> Progress:
        """Display the next run, until what is returned is closed."""
        from .progress import Progress

        return Progress(self.counts)

    # --- the run ------------------------------------------------------------------------------

    def run_started(
        self, max_supersteps: int, superstep_timeout: float | None, max_workers: int
    ) -> None:
        """`execute()` was called."""
        self._recorder.run_started()
        self.counts.begin(self.graph.name, max_workers)
        if not self._open():
            return
        self.tell(
            ev.RunStarted(
                **self._now(),
                graph=self.graph.name,
                backend=self._backend,
                max_supersteps=max_supersteps,
                timeout_per_superstep=superstep_timeout,
                max_workers=max_workers,
                user=_user(),
                host=socket.gethostname(),
            )
        )
        self._tell_what_came_before()

    async def run_ended(
        self,
        status: Status,
        error: BaseException | None,
        message_count: int | None,
        *,
        workers_lost: int,
        uncharged_reruns: int,
        states_remade: int,
        processes: int,
    ) -> None:
        """`execute()` is about to return or raise."""
        self._running = False
        self.counts.end(status, self._superstep)
        self._recorder.run_ended(
            status,
            workers_lost=workers_lost,
            uncharged_reruns=uncharged_reruns,
            states_remade=states_remade,
            processes=processes,
        )
        if not self._listeners:
            return
        self._cancel_rest("the run was cancelled" if status == "cancelled" else "the run ended")
        now, superstep = self._now(), self._superstep
        if error is None:
            if message_count is not None:
                self.tell(ev.FinalState(**now, superstep=superstep, message_count=message_count))
            self.tell(ev.RunFinished(**now, superstep=superstep, message_count=message_count))
        else:
            self.tell(
                ev.RunFailed(
                    **now,
                    superstep=superstep,
                    status=status,
                    error=str(error),
                    error_type=type(error).__name__,
                    node_id=getattr(error, "node_id", None),
                )
            )
        await self._close(patient=status != "cancelled")

    def run_failing(
        self,
        node_id: str,
        message_count: int | None,
        *,
        timed_out: bool,
        timeout: float | None,
        out_of_supersteps: bool,
    ) -> None:
        """The machine gave the run up."""
        if not self._listeners:
            return
        now, superstep = self._now(), self._superstep
        for failed in self._failing_fallbacks.values():
            self.tell(failed)
        self._failing_fallbacks.clear()
        self._cancel_rest("the superstep timed out" if timed_out else "another node failed")
        if timed_out:
            facts = {**now, "node_id": node_id, "superstep": superstep, "timeout": timeout}
            self.tell(ev.SuperstepTimedOut(**facts))
            self.tell(ev.NoFallback(**facts))
        elif out_of_supersteps:
            self.tell(
                ev.MaxSuperstepsExceeded(**now, superstep=superstep, message_count=message_count)
            )

    # --- supersteps ---------------------------------------------------------------------------

    def superstep_started(self, superstep: int, epoch: int, active_nodes: Iterable[str]) -> None:
        """Launches follow."""
        self._recorder.superstep_started()
        self.counts.superstep_started(superstep)
        self._superstep = superstep
        if self._listeners:
            self.tell(
                ev.SuperstepStarted(
                    **self._now(),
                    superstep=superstep,
                    active_nodes=tuple(active_nodes),
                    epoch=epoch,
                )
            )

    def superstep_ended(
        self,
        superstep: int,
        next_active_nodes: Iterable[str],
        transitions: Sequence[Transition],
    ) -> None:
        """The barrier has passed. A transition is (execution, source, sink, conditional)."""
        self._recorder.superstep_ended()
        if self._listeners:
            self._barrier = time.time()
            self._edges_taken(EdgesTaken(self._barrier, superstep - 1, transitions, self.nodes))
            self.tell(
                ev.SuperstepCompleted(
                    **self._now(), superstep=superstep, next_active_nodes=tuple(next_active_nodes)
                )
            )
        self._superstep = superstep

    def _edges_taken(self, taken: EdgesTaken) -> None:
        self._tell_directly("edges", lambda spans: spans.edges_taken(taken))
        if self._heard(ev.EdgeTaken):
            for event in taken.events(self.run_id):
                self.tell(event)

    def dropped(self, node_id: str, arrived: int, sources: Sequence[str]) -> None:
        """States arrived of which the first is used."""
        self._recorder.dropped(node_id, arrived - 1)
        if self._listeners:
            self.tell(
                ev.StatesDropped(
                    **self._now(),
                    node_id=node_id,
                    superstep=self._superstep,
                    arrived=arrived,
                    sources=tuple(sources),
                )
            )

    # --- attempts -----------------------------------------------------------------------------

    def launched(self, launches: Sequence[Launch]) -> Sequence[Launch]:
        """Attempts are about to start; gives them as they are to be started."""
        for launch in launches:
            if launch.key.attempt == 0 and launch.key.rerun == 0:
                self._recorder.launched(launch.node_id, launch.owner_id)
        self.counts.launched(launches)
        if not self._listeners:
            return launches
        now = time.time()
        for launch in launches:
            self._out[launch.key] = launch.node_id, launch.owner_id
            if self._failing_fallbacks:
                self._failing_fallbacks.pop(launch.key.execution, None)
        if self._heard(ev.AttemptStarted):
            self._tell_of(launches, now)
        traced: Sequence[Launch] | None = self._tell_directly(
            ev.AttemptStarted.name, lambda spans: spans.launched(launches, now)
        )
        if traced is not None:
            return traced
        if self.untraced is None:
            return launches
        return [launch._replace(trace=self.untraced) for launch in launches]

    def _tell_of(self, launches: Sequence[Launch], now: float) -> None:
        for launch in launches:
            key, policy = launch.key, self.nodes.of(launch.node_id).policy
            self.tell(
                ev.AttemptStarted(
                    **self._attempt(key, launch.node_id, launch.owner_id, now),
                    max_retries=policy.max_retries,
                    retry_delay=policy.delay_before(key.attempt),
                )
            )

    def _attempt(self, key: AttemptKey, node_id: str, owner_id: str, now: float) -> dict[str, Any]:
        """What all events of an attempt have."""
        return {
            "time": now,
            "run_id": self.run_id,
            "key": key,
            "node_id": node_id,
            "owner_id": owner_id,
            "node_type": self.nodes.of(node_id).node_type,
        }

    def attempt_ended(self, node_id: str, event: AttemptSucceeded | AttemptFailed) -> None:
        """An attempt that was launched gave a state, or failed."""
        self.counts.ended_attempt(event.key, failed=isinstance(event, AttemptFailed))
        if isinstance(event, AttemptSucceeded):
            self._recorder.succeeded(node_id, event.facts)
        else:
            self._recorder.failed(
                node_id, event.failure, event.facts, infrastructure=event.infrastructure
            )
        if not self._listeners:
            return
        out = self._out.pop(event.key, None)
        if out is None:
            return
        now = time.time()
        if event.facts.trail is not None or not self._unheard.issuperset(_INSIDE):
            self._tell_what_it_did(self._attempt(event.key, *out, now), event)
        if isinstance(event, AttemptFailed):
            self._failed(self._attempt(event.key, *out, now), event)
        else:
            self._completed(event.key, *out, event.facts, now)

    def _tell_what_it_did(
        self, about: dict[str, Any], event: AttemptSucceeded | AttemptFailed
    ) -> None:
        """The events inside an attempt, each with its own time."""
        facts = event.facts
        if facts.started is not None:
            about["time"] = facts.started
            self.tell(ev.CodeStarted(**about, input_size=facts.input_size))
        for note in facts.trail.notes if facts.trail is not None else ():
            about["time"] = note.time
            self.tell(_NOTES[note.name](**about, **note.attributes))
        if facts.ended is not None and isinstance(event, AttemptSucceeded):
            about["time"] = facts.ended
            self.tell(ev.CodeEnded(**about, output_size=facts.output_size))

    def _completed(
        self, key: AttemptKey, node_id: str, owner_id: str, facts: AttemptFacts, now: float
    ) -> None:
        if key.role == "fallback":
            self.tell(
                ev.FallbackSucceeded(
                    time=now,
                    run_id=self.run_id,
                    source_node=owner_id,
                    fallback_node=node_id,
                    reason="",
                    superstep=key.superstep,
                    execution=key.execution,
                )
            )
        self._tell_directly(ev.NodeCompleted.name, lambda spans: spans.succeeded(key, facts, now))
        if self._heard(ev.NodeCompleted):
            self.tell(
                ev.NodeCompleted(
                    **self._attempt(key, node_id, owner_id, now),
                    input_size=facts.input_size,
                    output_size=facts.output_size,
                    facts=facts,
                )
            )

    def _failed(self, about: dict[str, Any], event: AttemptFailed) -> None:
        failure, key = event.failure, event.key
        policy = self.nodes.of(about["node_id"]).policy
        self.tell(
            ev.AttemptFailed(
                **about,
                max_retries=policy.max_retries,
                retry_delay=policy.delay_before(key.attempt),
                error=failure.message,
                error_type=_class_name(failure),
                reason=failure.reason,
                infrastructure=event.infrastructure,
                traceback=failure.traceback,
                facts=event.facts,
            )
        )
        if key.role == "fallback":  # it has failed for good unless it is launched again
            self._failing_fallbacks[key.execution] = ev.FallbackFailed(
                **self._now(),
                source_node=about["owner_id"],
                fallback_node=about["node_id"],
                reason=failure.message,
                superstep=key.superstep,
                execution=key.execution,
            )

    def retried(
        self, key: AttemptKey, node_id: str, delay: float, max_retries: int, failure: Failure
    ) -> None:
        """The attempt `key` was scheduled, after the one before it failed."""
        self._recorder.retried(node_id)
        self.counts.retried(key.execution)
        self._failing_fallbacks.pop(key.execution, None)
        if self._listeners:
            self.tell(
                ev.RetryScheduled(
                    **self._now(),
                    key=key._replace(attempt=key.attempt - 1),
                    node_id=node_id,
                    owner_id=node_id,
                    node_type=self.nodes.of(node_id).node_type,
                    max_retries=max_retries,
                    retry_delay=delay,
                    error=failure.message,
                )
            )

    def fallback_invoked(
        self, superstep: int, execution: int, node_id: str, fallback_id: str, failure: Failure
    ) -> None:
        """A node failed for good; its fallback's launch follows."""
        self.counts.fallbacks += 1
        if self._listeners:
            self.tell(
                ev.FallbackInvoked(
                    **self._now(),
                    source_node=node_id,
                    fallback_node=fallback_id,
                    reason=failure.message,
                    superstep=superstep,
                    execution=execution,
                )
            )

    def _cancel_rest(self, reason: str) -> None:
        out, self._out = self._out, {}
        now = time.time()
        for key, nodes in out.items():
            self.tell(ev.AttemptCancelled(**self._attempt(key, *nodes, now), reason=reason))

    # --- checkpoints --------------------------------------------------------------------------

    def falls_back_to_checkpoint(
        self, node_id: str, timeout: float | None, checkpoint: str, superstep: int
    ) -> None:
        """A superstep timed out, and `superstep` of a checkpoint comes next."""
        if self._listeners:
            now, late = self._now(), self._superstep
            self._cancel_rest("the superstep timed out")
            self.tell(ev.SuperstepTimedOut(**now, node_id=node_id, superstep=late, timeout=timeout))
            self.tell(ev.FallbackToCheckpoint(**now, checkpoint=checkpoint, superstep=superstep))

    def since_barrier(self) -> float | None:
        """Seconds since the newest barrier, for the lag of a checkpoint; None before the first."""
        return None if self._barrier is None else max(0.0, time.time() - self._barrier)


_NOTES: dict[str, Callable[..., Event]] = {
    kind.name: kind for kind in (ev.ModelBuilt, ev.ToolRequested, ev.ToolAnswered)
}


def _class_name(failure: Failure) -> str:
    """The class of what was raised, with its module unless that is Python's own."""
    name = failure.mro_names[0] if failure.mro_names else failure.type_name
    return name.removeprefix("builtins.")


def message_count(state: State | None) -> int | None:
    """How many messages a state has; None where there is no state."""
    return None if state is None else len(state.messages)


@cache
def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return ""
