"""`GraphExecutor`: runs a graph, superstep by superstep.

Holds what a run is made of, from one call to the next; `run` has the loop that drives it.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Unpack, get_args

from .checking import check, check_choice, check_count, check_seconds
from .checkpoint import CheckpointData
from .checkpoint.kept import KeptStates, Later, Origin
from .checkpoint.settings import CheckpointSettings, check_settings
from .checkpointing import Keeper
from .clock import Clock, SystemClock
from .engine import Phase, SuperstepMachine
from .errors import GraphExecutionError
from .model.graph import Graph
from .policies import OnMultipleStates, RetryPolicy
from .restoring import data_of, executor_from, say_created
from .run import Run
from .runtime import ActiveStates, Backend, PoolKind, make_pool, run_to_end
from .state import State
from .telemetry import EventHub, configured_listeners, message_count
from .telemetry import events as ev
from .watching import Watched

if TYPE_CHECKING:
    from .runs import RunHandle


class GraphExecutor(Watched):
    """Runs a graph on Ray, or in this process.

    Args:
        graph: what to run.
        initial_state: the state that `start` gets. It is copied, never changed.
        max_workers: node executions at once, at most.
        retry_policy: for nodes without one of their own. Default: no retry.
        checkpoint_path: where checkpoints are kept, a local path or any fsspec URL: a directory
            of them, or one file if it ends in ``.ckpt`` or ``.pkl``.
        checkpoint_every: write one whenever this many supersteps have passed. Where a path is
            given, the start, the end and a failure are recorded in any case.
        allow_fallback_from_checkpoint: at the first superstep time-out, go on from the newest
            checkpoint instead of failing.
        backend: ``"ray"`` or ``"inline"``. Default: ``GRAPHORCH_BACKEND``, else ``"ray"``.
        on_multiple_states: what to do where several states arrive at a node that takes one:
            ``"first"`` uses the first and warns, ``"each"`` runs the node once for each,
            ``"error"`` fails the run.
        pool: what sync nodes run in on Ray: ``"auto"`` (default), Ray tasks, or warm workers where
            short nodes follow each other closely; ``"tasks"``, tasks alone; ``"actors"``, actors
            that are kept for the whole run.
        infrastructure_retries: re-runs of one node execution for what is not its fault (a lost
            worker, machine or object). 3 rides out a lost machine, and stops what kills its
            worker every time.
        clock: for tests; see `graphorch_ray.testing.FakeClock`.
        settings: how checkpoints are kept; see `CheckpointSettings`.

    Attributes:
        graph, initial_state, max_workers, retry_policy, checkpoint_path, checkpoint_every: as
            given.
        superstep: the superstep that comes next.
        active_states: by node id, the states that wait there; each is fetched when it is read.
        final_state: what `end` produced last, or None.
        summary: facts about the run so far.
        run_id: identifies the run; the same after a resume.
        branch: the branch of the run; a fork from an older checkpoint gets its own.

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
        pool: PoolKind = "auto",
        infrastructure_retries: int = 3,
        clock: Clock | None = None,
        **settings: Unpack[CheckpointSettings],
    ) -> None:
        check("graph", graph, Graph, "a Graph, as GraphBuilder.build_graph() returns it")
        if not isinstance(initial_state, Later):
            check("initial_state", initial_state, State, "a State, for example State(messages=[1])")
        check_count("max_workers", max_workers, 1)
        check_count("infrastructure_retries", infrastructure_retries, 0)
        if checkpoint_every is not None:
            check_count("checkpoint_every", checkpoint_every, 0)
        if retry_policy is not None:
            check("retry_policy", retry_policy, RetryPolicy, "a RetryPolicy or None")
        check_choice("on_multiple_states", on_multiple_states, get_args(OnMultipleStates))
        check_choice("pool", pool, get_args(PoolKind))
        backend = backend or os.environ.get("GRAPHORCH_BACKEND", "").strip() or "ray"  # type: ignore[assignment]
        check_choice("backend (or GRAPHORCH_BACKEND)", backend, get_args(Backend))
        check_settings(settings)
        self._settings = settings
        self.graph = graph
        self._initial: State | Later[State] = initial_state
        self.max_workers = max_workers
        self.retry_policy = retry_policy or RetryPolicy(max_retries=0, delay=0)
        self.checkpoint_path = checkpoint_path if checkpoint_path is None else str(checkpoint_path)
        self.checkpoint_every = checkpoint_every or None
        self.allow_fallback_from_checkpoint = allow_fallback_from_checkpoint
        self.backend: Backend = backend  # type: ignore[assignment]
        self.on_multiple_states: OnMultipleStates = on_multiple_states
        self.pool: PoolKind = pool
        self.infrastructure_retries = infrastructure_retries
        self.run_id = uuid.uuid4().hex
        self.branch = "main"
        self._final: State | Later[State] | None = None
        self._clock = clock or SystemClock()
        self._machine: SuperstepMachine | None = None
        self._waiting: list[tuple[str, list[State], tuple[str, ...]]] = [
            (graph.start_node.node_id, [initial_state], ())
        ]
        self._kept: KeptStates | None = None  # stands for `_waiting` where states are not read yet
        self._origin: Origin | None = None
        self._origin_kept: KeptStates | None = None
        self._wants_newest = False  # what it goes on from must be the newest when it begins
        self._superstep = 0
        self._finished = False
        self._running = False
        self._sharing = 1
        self._at_barrier: Callable[[], Awaitable[None]] | None = None
        self._warned: set[str] = set()
        self._hub = self._new_hub()
        if allow_fallback_from_checkpoint and checkpoint_path is None:
            reason = "Fallback from checkpoint is enabled, but no checkpoint_path is provided."
            self._hub.refused(reason)
            raise GraphExecutionError("GraphExecutor", reason)
        self._keeper: Keeper | None = None
        self._open_place()

    def _open_place(self) -> None:
        """Have a keeper for where checkpoints are to go by now."""
        path = self.checkpoint_path
        if path is None:
            self._keeper = None
        elif self._keeper is None or self._keeper.path != path:
            self._keeper = Keeper(self, path, self._settings)

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
        if self._machine is not None:
            active = {a.node_id: list(a.states) for a in self._machine.frontier}
            return ActiveStates(active, make_pool(self.backend).get)
        if self._kept is not None:
            numbers = {a.node_id: list(a.states) for a in self._kept.active}
            return ActiveStates(numbers, self._kept.read)
        return ActiveStates({node_id: states for node_id, states, _ in self._waiting}, _itself)

    @property
    def initial_state(self) -> State:
        """The state the run began with."""
        return self._initial.get() if isinstance(self._initial, Later) else self._initial

    @property
    def final_state(self) -> State | None:
        """What `end` produced last, or None."""
        return self._final.get() if isinstance(self._final, Later) else self._final

    def _final_count(self) -> int | None:
        """Messages in the final state, known without reading it."""
        if isinstance(self._final, Later) and self._kept is not None:
            return None if self._kept.final is None else self._kept.size(self._kept.final)
        return message_count(self.final_state)

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
            return run_to_end(self.execute(max_supersteps, superstep_timeout, progress=progress))
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
        check_count("max_supersteps", max_supersteps, 0)
        check_seconds("superstep_timeout", superstep_timeout)
        if self._running:
            raise RuntimeError("This executor is running already; make one executor for each run.")
        if self._finished:
            return self.final_state
        self._open_place()
        self._running = True
        shown = self._hub.show_progress() if progress else None
        try:
            return await Run(self, max_supersteps, superstep_timeout).go()
        finally:
            self._running = False
            if shown is not None:
                shown.close()
            if self._record is not None:
                await self._record.run_ended()

    def submit(
        self,
        max_supersteps: int = 100,
        superstep_timeout: float | None = 300.0,
        *,
        name: str | None = None,
        max_restarts: int | None = None,
        keep_result: float = 600.0,
        actor_options: Mapping[str, Any] | None = None,
    ) -> RunHandle:
        """Have the cluster run the graph, whatever becomes of this process.

        A driver on one of Ray's machines takes the run over, with this executor's options. With
        a `checkpoint_path`, one that dies is replaced, and goes on from the newest checkpoint.

        Args:
            max_supersteps, superstep_timeout: as for `execute()`.
            name: what `get_run` finds it by. Default: the graph's name and part of the run's id.
            max_restarts: how often the driver is replaced. Default: 3; without a path 0.
            keep_result: seconds for which status and result stay in the cluster after the end.
            actor_options: where the driver is to be, as Ray's options of an actor: `resources`,
                `label_selector`, `scheduling_strategy`, `num_cpus` (default 0), and the like.

        Raises:
            RunExistsError: the name is taken.
            CheckpointError: the path cannot be written to, or no other process could see it.
            ResourceRequestError, SerializationError, ClusterConnectionError: before any work.

        Example:
            ```python
            handle = executor.submit(name="nightly")
            final = handle.result()
            ```
        """
        from .runs.submit import submit

        return submit(
            self,
            max_supersteps,
            superstep_timeout,
            name=name,
            max_restarts=max_restarts,
            keep_result=keep_result,
            actor_options=actor_options,
        )

    # --- checkpoints --------------------------------------------------------------------------

    def to_checkpoint(self) -> CheckpointData:
        """Everything the run needs to go on from here, elsewhere or later."""
        active = self.active_states
        if self._finished:
            status = "finished"
        else:
            status = (
                "failed" if self._machine and self._machine.phase is Phase.FAILED else "running"
            )
        say_created(self, self._machine)
        return data_of(
            self,
            status,
            {node_id: active[node_id] for node_id in active},
            {a.node_id: a.sources for a in self._machine.frontier} if self._machine else None,
        )

    @classmethod
    def from_checkpoint(
        cls,
        chkpt: CheckpointData,
        checkpoint_path: str | None = None,
        checkpoint_every: int | None = None,
        *,
        graph: Graph | None = None,
        allow_graph_change: bool = False,
        backend: Backend | None = None,
        clock: Clock | None = None,
        **settings: Unpack[CheckpointSettings],
    ) -> GraphExecutor:
        """An executor that goes on where a checkpoint was taken.

        It keeps the run's id, its interval (unless another is given) and its options. Further
        checkpoints in the place that it was loaded from continue its line; from an older
        checkpoint than the newest of its line, they begin a line of their own.

        Args:
            chkpt: what `CheckpointData.load()` or `to_checkpoint()` gave.
            checkpoint_path: where to write further checkpoints; None writes none.
            checkpoint_every: interval in supersteps; None keeps the checkpoint's.
            graph: the graph to run, instead of the one in the checkpoint.
            allow_graph_change: go on with a graph that is not the checkpoint's.
            backend, clock, settings: as for the constructor.

        Raises:
            CheckpointError: the graph is another one than the checkpoint's (the message lists
                what changed), or states wait at nodes that it does not have.
        """
        given = checkpoint_path, checkpoint_every, graph, allow_graph_change, backend, clock
        return executor_from(cls, chkpt, *given, settings)

    @classmethod
    def resume(
        cls,
        url: str,
        graph: Graph | None = None,
        *,
        superstep: int | None = None,
        savepoint: str | None = None,
        line: str | None = None,
        allow_graph_change: bool = False,
        backend: Backend | None = None,
        clock: Clock | None = None,
        **settings: Unpack[CheckpointSettings],
    ) -> GraphExecutor:
        """An executor that goes on from the newest checkpoint in a place, and writes more there.

        Args:
            url: where the checkpoints are: a local path or any fsspec URL.
            graph: the run's graph. Default: the one in the checkpoint, which is a pickle, and is
                loaded only from a place that is trusted.
            superstep, savepoint: go back to an older checkpoint; what follows is a new branch,
                and what was there stays.
            line: the run or branch to go on with, such as ``"000001"``; default: the newest that
                has what is asked for.
            allow_graph_change: go on with a graph that is not the checkpoint's.
            backend, clock, settings: as for the constructor.

        Raises:
            FileNotFoundError: there is no checkpoint.
            CheckpointError: it cannot be read, or the graph is another one.

        Example:
            ```python
            final = GraphExecutor.resume("s3://bucket/runs/7", graph).run()
            ```
        """
        chkpt = CheckpointData.load(
            url,
            superstep=superstep,
            savepoint=savepoint,
            line=line,
            key=settings.get("checkpoint_key"),
            allow_pickle=settings.get("allow_pickle", False),
            storage_options=settings.get("storage_options"),
        )
        executor = cls.from_checkpoint(
            chkpt,
            url,
            graph=graph,
            allow_graph_change=allow_graph_change,
            backend=backend,
            clock=clock,
            **settings,
        )
        executor._wants_newest = superstep is None and savepoint is None
        return executor


def _itself(state: State) -> State:
    return state
