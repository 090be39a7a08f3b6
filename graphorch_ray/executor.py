"""`GraphExecutor`: runs a graph, superstep by superstep.

Holds what a run is made of, from one call to the next; `run` has the loop that drives it.
"""

from __future__ import annotations

import asyncio
import operator
import os
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from .checkpoint import CheckpointData
from .clock import Clock, SystemClock
from .engine import Phase, SuperstepMachine
from .errors import CheckpointError, GraphExecutionError, GraphWarning
from .model.graph import Graph
from .policies import RetryPolicy
from .run import Run
from .runtime import Backend, Pool, make_pool
from .state import State
from .telemetry import (
    Event,
    EventHub,
    Observer,
    RunSummary,
    StreamReader,
    configured_listeners,
    message_count,
)
from .telemetry import events as ev
from .telemetry.observers import BUFFERED_EVENTS

OnMultipleStates = Literal["first", "each", "error"]


class GraphExecutor:
    """Runs a graph on Ray, or in this process.

    Args:
        graph: what to run.
        initial_state: the state that `start` gets. It is copied, never changed.
        max_workers: node executions at once, at most.
        retry_policy: for nodes without one of their own. Default: no retry.
        checkpoint_path: file for checkpoints, a local path or any fsspec URL.
        checkpoint_every: write one whenever this many supersteps have passed. Where a path is
            given, the start, the end and a failure are recorded in any case.
        allow_fallback_from_checkpoint: at the first superstep time-out, go on from the newest
            checkpoint instead of failing.
        backend: ``"ray"`` or ``"inline"``. Default: ``GRAPHORCH_BACKEND``, else ``"ray"``.
        on_multiple_states: what to do where several states arrive at a node that takes one:
            ``"first"`` uses the first and warns, ``"each"`` runs the node once for each,
            ``"error"`` fails the run.
        infrastructure_retries: re-runs of one node execution for what is not its fault (a lost
            worker, machine or object). 3 rides out a lost machine, and stops what kills its
            worker every time.
        clock: for tests; see `graphorch_ray.testing.FakeClock`.

    Attributes:
        graph, initial_state, max_workers, retry_policy, checkpoint_path, checkpoint_every: as
            given.
        superstep: the superstep that comes next.
        active_states: by node id, the states that wait there; each is fetched when it is read.
        final_state: what `end` produced last, or None.
        summary: facts about the run so far.
        run_id: identifies the run; the same after a resume.

    Raises:
        TypeError, ValueError: an argument is wrong; names it and what is legal.
        GraphExecutionError: `allow_fallback_from_checkpoint` without a path.

    Example:
        ```python
        executor = GraphExecutor(graph, State(messages=[1]), max_workers=8)
        final = executor.run()
        ```
    """

    def __init__(
        self,
        graph: Graph,
        initial_state: State,
        max_workers: int = 4,
        retry_policy: RetryPolicy | None = None,
        checkpoint_path: str | None = None,
        checkpoint_every: int | None = None,
        allow_fallback_from_checkpoint: bool = False,
        *,
        backend: Backend | None = None,
        on_multiple_states: OnMultipleStates = "first",
        infrastructure_retries: int = 3,
        clock: Clock | None = None,
    ) -> None:
        _check("graph", graph, Graph, "a Graph, as GraphBuilder.build_graph() returns it")
        _check("initial_state", initial_state, State, "a State, for example State(messages=[1])")
        _check_count("max_workers", max_workers, 1)
        _check_count("infrastructure_retries", infrastructure_retries, 0)
        if checkpoint_every is not None:
            _check_count("checkpoint_every", checkpoint_every, 0)
        if retry_policy is not None:
            _check("retry_policy", retry_policy, RetryPolicy, "a RetryPolicy or None")
        _check_choice("on_multiple_states", on_multiple_states, get_args(OnMultipleStates))
        backend = backend or os.environ.get("GRAPHORCH_BACKEND", "").strip() or "ray"  # type: ignore[assignment]
        _check_choice("backend (or GRAPHORCH_BACKEND)", backend, get_args(Backend))
        self.graph = graph
        self.initial_state = initial_state
        self.max_workers = max_workers
        self.retry_policy = retry_policy or RetryPolicy(max_retries=0, delay=0)
        self.checkpoint_path = checkpoint_path if checkpoint_path is None else str(checkpoint_path)
        self.checkpoint_every = checkpoint_every or None
        self.allow_fallback_from_checkpoint = allow_fallback_from_checkpoint
        self.backend: Backend = backend  # type: ignore[assignment]
        self.on_multiple_states: OnMultipleStates = on_multiple_states
        self.infrastructure_retries = infrastructure_retries
        self.run_id = uuid.uuid4().hex
        self.final_state: State | None = None
        self._clock = clock or SystemClock()
        self._machine: SuperstepMachine | None = None
        self._waiting: list[tuple[str, list[State], tuple[str, ...]]] = [
            (graph.start_node.node_id, [initial_state], ())
        ]
        self._superstep = 0
        self._finished = False
        self._running = False
        self._warned: set[str] = set()
        self._hub = self._new_hub()
        if allow_fallback_from_checkpoint and checkpoint_path is None:
            reason = "Fallback from checkpoint is enabled, but no checkpoint_path is provided."
            self._hub.refused(reason)
            raise GraphExecutionError("GraphExecutor", reason)

    def _new_hub(self) -> EventHub:
        hub = EventHub(
            self.graph, self.run_id, self.backend, self.retry_policy, configured_listeners
        )
        hub.say(
            ev.ExecutorInit,
            max_workers=self.max_workers,
            checkpoint_enabled=self.checkpoint_path is not None,
            checkpoint_every=self.checkpoint_every,
            allow_fallback_from_checkpoint=self.allow_fallback_from_checkpoint,
            retry_policy=self.retry_policy,
        )
        return hub

    # --- reading ------------------------------------------------------------------------------

    @property
    def superstep(self) -> int:
        """The superstep that comes next, counted from 0 over resumes too."""
        return self._machine.superstep if self._machine is not None else self._superstep

    @property
    def active_states(self) -> Mapping[str, list[State]]:
        """By node id, the states that wait for the next superstep; fetched when read."""
        if self._machine is None:
            return ActiveStates({node_id: states for node_id, states, _ in self._waiting}, None)
        active = {a.node_id: list(a.states) for a in self._machine.frontier}
        return ActiveStates(active, make_pool(self.backend))

    @property
    def summary(self) -> RunSummary:
        """Facts about the run so far; may be read while it runs."""
        return self._hub.summary()

    # --- running ------------------------------------------------------------------------------

    def run(
        self,
        max_supersteps: int = 100,
        superstep_timeout: float | None = 300.0,
        *,
        progress: bool = False,
    ) -> State | None:
        """`execute()` for callers with no event loop; same arguments, result and errors.

        Raises:
            RuntimeError: an event loop is running in this thread.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self.execute(max_supersteps, superstep_timeout, progress=progress))
        raise RuntimeError(
            "executor.run() was called where an event loop is running (a notebook, an async "
            "function). Write `await executor.execute()` there."
        )

    async def execute(
        self,
        max_supersteps: int = 100,
        superstep_timeout: float | None = 300.0,
        *,
        progress: bool = False,
    ) -> State | None:
        """Run the graph until nothing is active.

        After a failure it may be called again, and repeats the failed superstep from the same
        inputs. After success it returns the final state again and runs nothing.

        Args:
            max_supersteps: supersteps at most, counted from superstep 0.
            superstep_timeout: seconds for a whole superstep, or None for no limit.
            progress: show how the run goes on, in a terminal, a notebook, or as plain lines.

        Returns:
            What `end` produced last, or None where it was never reached.

        Raises:
            GraphExecutionError: a node failed for good, time ran out, or supersteps did.
            ResourceRequestError, SerializationError, ClusterConnectionError: before any work.
        """
        _check_count("max_supersteps", max_supersteps, 0)
        if superstep_timeout is not None and not superstep_timeout > 0:
            raise ValueError(
                f"superstep_timeout must be seconds greater than 0, or None, "
                f"not {superstep_timeout!r}"
            )
        if self._running:
            raise RuntimeError("This executor is running already; make one executor for each run.")
        if self._finished:
            return self.final_state
        self._running = True
        shown = self._hub.show_progress() if progress else None
        try:
            return await Run(self, max_supersteps, superstep_timeout).go()
        finally:
            self._running = False
            if shown is not None:
                self._hub.remove(shown)
                shown.close()

    # --- watching -----------------------------------------------------------------------------

    def add_observer(self, function: Callable[[Event], Any]) -> Observer:
        """Have a function told every event of this executor's runs, from now on.

        It is called in a thread of its own, one event after another; `remove()` on what is
        returned ends that. The run never waits for it, and does not mind if it fails: up to
        10,000 events wait for it, further ones are dropped and counted in an `EventsDropped`.

        Raises:
            TypeError: it is no function, or a coroutine function.

        Example:
            ```python
            executor.add_observer(lambda event: print(event.name))
            ```
        """
        return self._hub.add_observer(function)

    async def stream(
        self,
        max_supersteps: int = 100,
        superstep_timeout: float | None = 300.0,
        *,
        buffer: int = BUFFERED_EVENTS,
    ) -> AsyncIterator[Event]:
        """Run the graph, giving each event as it happens.

        The run does not wait for whoever reads: `buffer` events wait at most, further ones are
        dropped and an `EventsDropped` stands in their place. The last event always comes;
        what `execute()` would raise is raised after it. To stop reading is to cancel the run.

        Example:
            ```python
            async for event in executor.stream():
                print(event.name)
            print(executor.final_state)
            ```
        """
        _check_count("buffer", buffer, 1)
        reader = StreamReader(buffer)
        self._hub.add(reader)
        run = asyncio.ensure_future(self.execute(max_supersteps, superstep_timeout))
        run.add_done_callback(lambda _: reader.wake())
        try:
            while not run.done():
                for event in await reader.next_events():
                    yield event
            for event in reader.take():
                yield event
            run.result()
        finally:
            self._hub.remove(reader)
            run.cancel()
            await asyncio.wait((run,))

    # --- checkpoints --------------------------------------------------------------------------

    def to_checkpoint(self) -> CheckpointData:
        """Everything the run needs to go on from here, elsewhere or later."""
        active = self.active_states
        sources = {a.node_id: a.sources for a in self._machine.frontier} if self._machine else {}
        if self._finished:
            status = "finished"
        else:
            status = (
                "failed" if self._machine and self._machine.phase is Phase.FAILED else "running"
            )
        self._hub.say(
            ev.CheckpointCreated,
            active_node_ids=tuple(active),
            final_state_message_count=message_count(self.final_state),
            max_workers=self.max_workers,
            superstep=self.superstep,
            retry_policy=self.retry_policy,
        )
        return CheckpointData(
            self.graph,
            self.initial_state,
            {node_id: active[node_id] for node_id in active},
            self.superstep,
            self.final_state,
            self.retry_policy,
            self.max_workers,
            run_id=self.run_id,
            status=status,
            checkpoint_every=self.checkpoint_every,
            allow_fallback_from_checkpoint=self.allow_fallback_from_checkpoint,
            on_multiple_states=self.on_multiple_states,
            infrastructure_retries=self.infrastructure_retries,
            active_sources=sources or {node_id: s for node_id, _, s in self._waiting},
        )

    @classmethod
    def from_checkpoint(
        cls,
        chkpt: CheckpointData,
        checkpoint_path: str | None = None,
        checkpoint_every: int | None = None,
        *,
        graph: Graph | None = None,
        backend: Backend | None = None,
        clock: Clock | None = None,
    ) -> GraphExecutor:
        """An executor that goes on where a checkpoint was taken.

        It keeps the run's id, its interval (unless another is given) and its options.

        Args:
            chkpt: what `CheckpointData.load()` or `to_checkpoint()` gave.
            checkpoint_path: where to write further checkpoints; None writes none.
            checkpoint_every: interval in supersteps; None keeps the checkpoint's.
            graph: the graph to run, instead of the one in the checkpoint.
            backend: as for the constructor.
            clock: as for the constructor.
        """
        _check(
            "chkpt",
            chkpt,
            CheckpointData,
            "a CheckpointData; load a file with CheckpointData.load(path)",
        )
        fallback = chkpt.allow_fallback_from_checkpoint
        if fallback and checkpoint_path is None:
            warnings.warn(
                "The checkpoint's run had allow_fallback_from_checkpoint=True. It is off now, for "
                "no checkpoint_path was given to from_checkpoint().",
                GraphWarning,
                stacklevel=2,
            )
            fallback = False
        every = chkpt.checkpoint_every if checkpoint_every is None else checkpoint_every
        executor = cls(
            graph or chkpt.graph,
            chkpt.initial_state,
            chkpt.max_workers,
            chkpt.retry_policy,
            checkpoint_path,
            every,
            fallback,
            backend=backend,
            on_multiple_states=chkpt.on_multiple_states,  # type: ignore[arg-type]
            infrastructure_retries=chkpt.infrastructure_retries,
            clock=clock,
        )
        executor._go_back_to(chkpt)
        return executor

    def _go_back_to(self, chkpt: CheckpointData) -> None:
        unknown = [node_id for node_id in chkpt.active_states if node_id not in self.graph.nodes]
        if unknown:
            raise CheckpointError(
                f"The checkpoint has states waiting at {unknown}, which the graph does not have."
            )
        self.run_id = chkpt.run_id or self.run_id
        self._hub = self._new_hub()
        self._superstep = chkpt.superstep
        self.final_state = chkpt.final_state
        self._finished = chkpt.status == "finished"
        self._waiting = [
            (node_id, states, tuple(chkpt.active_sources.get(node_id, ())))
            for node_id, states in chkpt.active_states.items()
            if states
        ]
        self._machine = None
        self._hub.say(
            ev.CheckpointRestored,
            active_node_ids=tuple(chkpt.active_states),
            final_state_message_count=message_count(chkpt.final_state),
            max_workers=self.max_workers,
            superstep=chkpt.superstep,
            path=self.checkpoint_path,
            interval=self.checkpoint_every,
        )


class ActiveStates(Mapping[str, list[State]]):
    """By node id, the states that wait there. A state is fetched each time it is read.

    Like the dict of lists that it stands for, it answers an unknown id with an empty list.
    """

    def __init__(self, active: Mapping[str, list[Any]], pool: Pool | None) -> None:
        self._active = active
        self._pool = pool

    def __getitem__(self, node_id: str) -> list[State]:
        states = self._active.get(node_id, [])
        return states if self._pool is None else [self._pool.get(state) for state in states]

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._active

    def __iter__(self) -> Iterator[str]:
        return iter(self._active)

    def __len__(self) -> int:
        return len(self._active)

    def __repr__(self) -> str:
        counts = ", ".join(f"{node_id!r}: {len(s)}" for node_id, s in self._active.items())
        return f"ActiveStates({{{counts}}})"


def _check(name: str, value: object, kind: type, legal: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {legal}, not {type(value).__name__}: {value!r}")


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}: {value!r}")
    if operator.index(value) < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {allowed}, not {value!r}")
