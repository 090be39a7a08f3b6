"""The asyncio shell around the engine: one call of `execute()`, from its start to its end.

The engine says what happens next, a pool does it, and the loop here carries events to the one and
commands to the other. Whatever happens, it leaves nothing running.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from .clock import Timer
from .engine import (
    Activation,
    AskRouter,
    CancelRest,
    Command,
    DeadlineExpired,
    EngineOptions,
    Event,
    FallbackInvoked,
    Phase,
    RestoreCheckpoint,
    RetryDue,
    RouterAnswered,
    RunFailed,
    RunFinished,
    ScheduleRetry,
    StatesDropped,
    SuperstepEnded,
    SuperstepMachine,
    SuperstepStarted,
)
from .errors import (
    CheckpointConflictError,
    CheckpointError,
    GraphExecutionError,
    GraphWarning,
    RemoteError,
    SerializationError,
)
from .failpoints import reach
from .model.attempt import AttemptFailed, AttemptKey, AttemptSucceeded, Failure, Launch
from .restoring import restored
from .runtime import Pool, RunContext, make_pool
from .state import State
from .telemetry import events as ev

if TYPE_CHECKING:
    from .executor import GraphExecutor


YIELD_SECONDS = 0.005
"""How long the loop goes on without letting others of the event loop run."""


class Run:
    """One call of `execute()`."""

    def __init__(
        self,
        executor: GraphExecutor,
        max_supersteps: int,
        superstep_timeout: float | None,
        pool: Pool | None = None,
    ) -> None:
        self._executor = executor
        self._hub = executor._hub
        self._keeper = executor._keeper
        self._timeout = superstep_timeout
        self._clock = executor._clock
        self._pool: Pool = pool or make_pool(executor.backend)
        self._events: list[Event] = []
        self._warned: GraphWarning | None = None
        self._mailbox = asyncio.Event()
        self._timers: dict[Any, Timer] = {}
        self._asked = 0  # routers that have not answered
        self._nodes: dict[AttemptKey, str] = {}  # attempts out, and whose code each runs
        self._yielded = time.monotonic()
        self._options = EngineOptions(
            retry_policy=executor.retry_policy,
            on_multiple_states=executor.on_multiple_states,
            max_supersteps=max_supersteps,
            superstep_timeout=superstep_timeout,
            infrastructure_budget=executor.infrastructure_retries,
            restore_on_timeout=executor.allow_fallback_from_checkpoint,
            jitter_seed=executor.run_id,
        )

    async def go(self) -> State | None:
        """Run to the end; leave nothing running, whatever happens."""
        executor = self._executor
        self._hub.run_started(self._options.max_supersteps, self._timeout, executor.max_workers)
        status: Literal["finished", "failed", "cancelled"] = "failed"
        raised: BaseException | None = None
        try:
            await self._pool.start(
                RunContext(
                    graph=executor.graph,
                    run_id=executor.run_id,
                    branch=lambda: executor.branch,
                    max_workers=executor.max_workers,
                    deliver=self._deliver,
                    warn=self._warn,
                    superstep_timeout=self._timeout if self._clock.real else None,
                    pool=executor.pool,
                    sharing=executor._sharing,
                )
            )
            unrecorded = await self._open_keeper()
            machine = self._machine()
            if self._keeper is not None and unrecorded:
                await self._keeper.record("start", "running", machine)
            final = await self._drive(machine)
            status = "finished"
            return final
        except BaseException as error:
            raised = error
            if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
                status = "cancelled"
            raise
        finally:
            await self._close(cancelled=status == "cancelled")
            facts = self._pool.facts
            await self._hub.run_ended(
                status,
                raised,
                executor._final_count(),
                workers_lost=facts.workers_lost,
                uncharged_reruns=facts.uncharged_reruns,
                states_remade=facts.states_remade,
                processes=len(facts.processes),
            )
            raised = None  # it holds this frame, which would hold it

    async def _open_keeper(self) -> bool:
        """Have a line for checkpoints; says whether it is still to be told where the run stands."""
        if self._keeper is None:
            return False
        try:
            return await self._keeper.open(self._pool, self._mailbox.set, self._warn)
        except CheckpointError as error:
            if isinstance(error, CheckpointConflictError) or not self._keeper.is_bonus:
                raise
            self._warn(f"{error} The run goes on without (on_checkpoint_error='warn').")
            self._keeper = None
            self._options = replace(self._options, restore_on_timeout=False)
            return False

    async def record_start(self) -> str:
        """Have the store hold where the run stands, and run nothing: another process goes on.

        Returns:
            The line of checkpoints that is the run's.

        Raises:
            SerializationError: the graph cannot be pickled.
        """
        keeper = self._keeper
        assert keeper is not None
        try:
            if await keeper.open(self._pool, self._mailbox.set, self._warn, own_line=True):
                await keeper.record("start", "running", self._machine())
            if keeper.graph_error is not None:
                raise SerializationError("the graph, which has to be loaded", keeper.graph_error)
            return keeper.line_name
        finally:
            await keeper.close(None)
            self._executor._machine = None

    def _machine(self) -> SuperstepMachine:
        """The machine of the run, standing where this call is to begin."""
        executor = self._executor
        machine = executor._machine
        if machine is None:
            machine = SuperstepMachine(executor.graph, self._options)
            if executor._kept is not None:
                frontier, final, done = restored(self._pool, executor._kept)
                machine.restore(executor._superstep, frontier, final, done)
            else:
                given = executor.final_state
                machine.restore(
                    executor._superstep,
                    self._put(executor._waiting),
                    None if given is None else self._pool.put(given),
                )
            executor._machine = machine
        else:
            machine.options = self._options
            machine.restart()
        return machine

    def _put(
        self, waiting: Sequence[tuple[str, Sequence[State], tuple[str, ...]]]
    ) -> list[Activation]:
        return [
            Activation(node_id, tuple(map(self._pool.put, states)), sources)
            for node_id, states, sources in waiting
        ]

    # --- the loop -----------------------------------------------------------------------------

    async def _drive(self, machine: SuperstepMachine) -> State | None:
        commands = machine.proceed()
        while True:
            launches: list[Launch] = []
            for command in commands:
                if isinstance(command, Launch):
                    launches.append(command)
                elif isinstance(command, SuperstepEnded):
                    reach("barrier.before")
                    await self._superstep_ended(command)
                    reach("barrier.after")
                    at_barrier = self._executor._at_barrier
                    if command.frontier and at_barrier is not None and self._may_rest(machine):
                        await at_barrier()
                elif isinstance(command, RestoreCheckpoint):
                    await self._restore(machine, command.node_id)
                elif isinstance(command, RunFinished):
                    return await self._finish()
                elif isinstance(command, RunFailed):
                    await self._fail(command)
                elif isinstance(command, CancelRest):
                    await self._stop()
                else:
                    self._obey(command)
            if launches:
                self._launch(launches)
            if machine.phase is Phase.READY:
                commands = machine.proceed()
                continue
            events = await self._next_events(machine)
            reach("outcome.before")
            commands = machine.handle(events)
            reach("outcome.after")
            if self._keeper is not None and any(isinstance(e, AttemptSucceeded) for e in events):
                self._keeper.progressed(machine)

    def _obey(self, command: Command) -> None:
        """Carry out a command that needs no waiting."""
        match command:
            case SuperstepStarted():
                self._superstep_started(command)
            case AskRouter():
                self._ask(command)
            case ScheduleRetry():
                self._hub.retried(
                    command.key,
                    command.node_id,
                    command.delay,
                    command.max_retries,
                    command.failure,
                )
                self._after(command.delay, command.key, RetryDue(command.key))
            case StatesDropped():
                self._dropped(command)
            case FallbackInvoked():
                self._hub.fallback_invoked(
                    command.superstep,
                    command.index,
                    command.node_id,
                    command.fallback_id,
                    command.failure,
                )

    def _warn(self, text: str) -> None:
        """Warn the user. Where warnings are errors, it ends the run, wherever it came up."""
        try:
            warnings.warn(text, GraphWarning, stacklevel=2)
        except GraphWarning as error:
            self._warned = error
            self._mailbox.set()

    def _may_rest(self, machine: SuperstepMachine) -> bool:
        """Whether the run can be left where it stands: it has the states that it would go on from.

        Workers that run ahead leave some behind.
        """
        active = machine.frontier
        return len(active) != 1 or all(map(self._pool.has, active[0].states))

    async def _next_events(self, machine: SuperstepMachine) -> list[Event]:
        if not self._events:
            if not self._nodes and not self._asked:
                self._clock.idle()
            if not self._events and await self._pool.wait(self._mailbox):
                self._yielded = time.monotonic()
        late = time.monotonic() - self._yielded > YIELD_SECONDS  # answers were there at once
        if late and self._may_rest(machine):
            await asyncio.sleep(0)
            self._yielded = time.monotonic()
        self._mailbox.clear()
        if self._warned is not None:
            raise self._warned
        if self._keeper is not None:
            self._keeper.check()
        events, self._events = self._events, []
        for event in events:
            if isinstance(event, AttemptSucceeded | AttemptFailed):
                self._note(event)
        return events

    def _deliver(self, events: Sequence[Event]) -> None:
        self._events.extend(events)
        self._mailbox.set()

    def _note(self, event: AttemptSucceeded | AttemptFailed) -> None:
        node_id = self._nodes.pop(event.key, None)
        if node_id is not None:
            self._hub.attempt_ended(node_id, event)

    def _launch(self, launches: Sequence[Launch]) -> None:
        for launch in launches:
            self._nodes[launch.key] = launch.node_id
        reach("dispatch.before")
        self._pool.launch(self._hub.launched(launches))
        reach("dispatch.after")

    def _after(self, delay: float, name: Any, event: Event) -> None:
        """Deliver an event after some seconds."""

        def fire() -> None:
            self._timers.pop(name, None)
            self._deliver((event,))

        self._timers[name] = self._clock.call_later(delay, fire)

    # --- supersteps ---------------------------------------------------------------------------

    def _superstep_started(self, command: SuperstepStarted) -> None:
        self._hub.superstep_started(
            command.superstep, command.epoch, (active.node_id for active in command.active)
        )
        deadline = None
        if self._timeout is not None:
            if self._clock.real:
                deadline = self._clock.time() + self._timeout
            self._after(
                self._timeout, "deadline", DeadlineExpired(command.epoch, command.superstep)
            )
        self._pool.begin_superstep(deadline, self._may_run_ahead(command))

    def _may_run_ahead(self, command: SuperstepStarted) -> int:
        """How many supersteps may run on their own after this one, if it has one execution.

        None across a barrier at which a checkpoint is due.
        """
        active = command.active[0]
        is_one = len(active.states) == 1 or self._executor.graph.nodes[active.node_id].is_aggregator
        if len(command.active) > 1 or not is_one:
            return 0
        ahead = self._options.max_supersteps - command.superstep - 1
        if self._keeper is not None:
            between = self._keeper.barriers_between(command.superstep)
            ahead = ahead if between is None else min(ahead, between)
        return ahead

    async def _superstep_ended(self, command: SuperstepEnded) -> None:
        self._call_off_timers()
        self._hub.superstep_ended(
            command.superstep, (a.node_id for a in command.frontier), command.transitions
        )
        every = self._executor.checkpoint_every
        keeper, machine = self._keeper, self._executor._machine
        if keeper is None or machine is None or not command.frontier:
            return
        if every and command.superstep % every == 0:
            self._hub.say(
                ev.AutoCheckpoint,
                superstep=command.superstep,
                path=self._executor.checkpoint_path or "",
                active_nodes=tuple(a.node_id for a in command.frontier),
            )
            await keeper.at_barrier(machine)

    def _ask(self, command: AskRouter) -> None:
        def told(answer: str | Failure) -> None:
            self._asked -= 1
            self._deliver(
                (
                    RouterAnswered(
                        command.epoch, command.superstep, command.index, command.edge, answer
                    ),
                )
            )

        self._asked += 1
        self._pool.ask(command.node_id, command.edge, command.state, told)

    def _dropped(self, command: StatesDropped) -> None:
        self._hub.dropped(command.node_id, command.arrived, command.sources)
        if command.node_id in self._executor._warned:
            return
        self._executor._warned.add(command.node_id)
        sources = ", ".join(repr(source) for source in command.sources)
        self._warn(
            f"{command.arrived} states arrived at once at node {command.node_id!r} (from "
            f"{sources}), which takes one: the first is used, the others are dropped. Merge them "
            "with an AggregatorNode, or choose on_multiple_states='each' or 'error'."
        )

    # --- the end ------------------------------------------------------------------------------

    async def _finish(self) -> State | None:
        executor = self._executor
        await self._fetch_final()
        if self._keeper is not None and executor._machine is not None:
            await self._keeper.record("end", "finished", executor._machine)
        executor._finished = True
        return executor.final_state

    async def _fail(self, command: RunFailed) -> None:
        await self._stop()
        error = GraphExecutionError(
            command.node_id,
            command.message,
            run_id=self._executor.run_id,
            superstep=command.superstep,
            attempt=command.attempt,
        )
        failure = command.failure
        if failure is not None and failure.traceback:
            error.add_note(f"In node {command.node_id!r}:\n{failure.traceback.rstrip()}")
        for node_id, message in command.others:
            error.add_note(f"Node {node_id!r} failed too: {message}")
        self._hub.run_failing(
            command.node_id,
            self._executor._final_count(),
            timed_out=command.limit == "time",
            timeout=self._timeout,
            out_of_supersteps=command.limit == "supersteps",
        )
        try:
            await self._fetch_final()
            if self._keeper is not None and self._executor._machine is not None:
                await self._keeper.record("failure", "failed", self._executor._machine)
        except Exception as unsaved:  # the run's own error is the one to be raised
            error.add_note(f"The failure could not be recorded: {unsaved}")
        raise error from _cause(failure)

    async def _restore(self, machine: SuperstepMachine, node_id: str) -> None:
        """Go back to the newest checkpoint."""
        assert self._keeper is not None
        superstep, kept = await self._keeper.newest()
        frontier, final, done = restored(self._pool, kept)
        path = self._executor.checkpoint_path or ""
        self._hub.say(
            ev.CheckpointLoaded,
            superstep=superstep,
            path=path,
            active_nodes=tuple(active.node_id for active in kept.active),
            bytes=sum(item.stored.nbytes for item in kept.states),
        )
        self._hub.falls_back_to_checkpoint(node_id, self._timeout, path, superstep)
        machine.restore(superstep, frontier, final, done)

    async def _fetch_final(self) -> None:
        machine = self._executor._machine
        if machine is not None and machine.final_state is not None:
            self._executor._final = await self._pool.fetch(machine.final_state)

    async def _stop(self) -> None:
        self._call_off_timers()
        await self._pool.stop()
        self._asked = 0
        self._nodes.clear()
        self._events.clear()

    def _call_off_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    async def _close(self, *, cancelled: bool) -> None:
        """Stop everything, whoever cancels us meanwhile."""

        async def close() -> None:
            await self._stop()
            if self._keeper is not None:
                await self._keeper.close(self._executor._machine if cancelled else None)
            await self._pool.close()

        closing = asyncio.ensure_future(close())
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError:
                continue
        closing.result()


def _cause(failure: Failure | None) -> BaseException | None:
    """The original exception, or what stands for it."""
    if failure is None or failure.reason == "route":
        return None
    if failure.exception is not None:
        return failure.exception
    return RemoteError(failure.type_name, failure.message, failure.traceback)
