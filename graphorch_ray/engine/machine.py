"""The superstep machine: every rule of a run, as a pure function of what happened.

Events go in (an attempt ended, a wait is over, a router answered, the deadline passed), commands
come out (launch, wait, ask a router, fail). The machine never looks at a clock, starts no task
and never opens a state, so each rule can be tested in microseconds and any order of events can
be replayed. `handle` takes all that is known at one moment: where several things went wrong at
once, launch order, not arrival order, decides which is named.

What decides order (rule E2): executions have an index, their place in launch order. Results are
kept by index, and the next frontier is made by walking the indexes, never by completion order.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from ..errors import WorkerLostError
from ..model.attempt import (
    NOT_LOADED,
    AttemptFailed,
    AttemptKey,
    AttemptSucceeded,
    Failure,
    Launch,
    StateHandle,
)
from ..model.graph import Graph
from ..policies import RetryPolicy
from .commands import (
    Activation,
    AskRouter,
    CancelRest,
    Command,
    DeadlineExpired,
    Event,
    FallbackInvoked,
    Finished,
    RestoreCheckpoint,
    RetryDue,
    RouterAnswered,
    RunFailed,
    RunFinished,
    ScheduleRetry,
    StatesDropped,
    SuperstepEnded,
    SuperstepStarted,
    Transition,
)
from .execution import Execution
from .topology import NodePlan, plan_of

NO_RETRY = RetryPolicy(max_retries=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What the rules depend on besides the graph.

    Attributes:
        retry_policy: for nodes without one of their own; None means no retry.
        on_multiple_states: what to do where several states arrive at a node that takes one.
        max_supersteps: counted from superstep 0.
        superstep_timeout: seconds, for the text of the error only; the clock is elsewhere.
        infrastructure_budget: re-runs of one execution for failures that are not the node's.
        restore_on_timeout: ask for the newest checkpoint at the first superstep time-out.
        jitter_seed: makes jittered delays differ between runs, and repeat within one.
    """

    retry_policy: RetryPolicy | None = None
    on_multiple_states: Literal["first", "each", "error"] = "first"
    max_supersteps: int = 100
    superstep_timeout: float | None = None
    infrastructure_budget: int = 3
    restore_on_timeout: bool = False
    jitter_seed: str = ""


class Phase(Enum):
    """Where the machine stands."""

    READY = "ready"
    """A frontier is set; `proceed()` starts its superstep."""
    RUNNING = "running"
    """Attempts are out."""
    ROUTING = "routing"
    """The barrier has passed; routers are out."""
    FAILED = "failed"
    """`restart()` repeats the superstep from the same inputs."""
    FINISHED = "finished"


class SuperstepMachine:
    """Runs the supersteps of one graph.

    Call `proceed()` to start (and after each `SuperstepEnded`), `handle()` with what happened.

    Example:
        ```python
        machine = SuperstepMachine(graph, EngineOptions())
        machine.begin(initial_state)
        commands = machine.proceed()
        ```
    """

    def __init__(self, graph: Graph, options: EngineOptions) -> None:
        self._plans = plan_of(graph)
        self._start_id = graph.start_node.node_id
        self._end_id = graph.end_node.node_id
        self.options = options
        self.epoch = 0
        self.superstep = 0
        self.phase = Phase.READY
        self.frontier: tuple[Activation, ...] = ()
        self.final_state: StateHandle | None = None
        self._restored = False
        self._kept: dict[int, Finished] = {}
        self._executions: list[Execution] = []
        self._unfinished = 0
        self._answers: dict[tuple[int, int], str | Failure] = {}
        self._unanswered: set[tuple[int, int]] = set()

    # --- setting where the run stands ---------------------------------------------------------

    def begin(self, initial_state: StateHandle) -> None:
        """Make `start` active on the initial state (E1)."""
        self.restore(0, (Activation(self._start_id, (initial_state,), ()),), None)
        self.epoch = 0

    def restore(
        self,
        superstep: int,
        frontier: Iterable[Activation],
        final_state: StateHandle | None,
        finished: Iterable[Finished] = (),
    ) -> None:
        """Stand at the beginning of `superstep`, whatever happened before.

        Args:
            superstep: the superstep that comes next.
            frontier: what is active in it.
            final_state: what `end` produced last, or None.
            finished: its executions that are done already, and need not run again.
        """
        self.epoch += 1
        self.superstep = superstep
        self.frontier = tuple(frontier)
        self.final_state = final_state
        self.phase = Phase.READY
        self._clear()
        self._kept = {result.execution: result for result in finished}

    def restart(self) -> None:
        """After a failure: stand again at the beginning of the same superstep (E15)."""
        self._restored = False
        self.restore(self.superstep, self.frontier, self.final_state)

    def _clear(self) -> None:
        self._executions = []
        self._unfinished = 0
        self._answers = {}
        self._unanswered = set()
        self._kept = {}

    @property
    def finished(self) -> list[Finished]:
        """The executions of the current superstep that are done, in launch order."""
        return [
            Finished(e.index, e.role, e.output, e.routes)
            for e in self._executions
            if e.routes is not None
        ]

    # --- a superstep begins -------------------------------------------------------------------

    def proceed(self) -> list[Command]:
        """Start the next superstep, or end the run where nothing is active."""
        if self.phase is not Phase.READY:
            raise RuntimeError(f"proceed() in phase {self.phase.value}")
        if not self.frontier:
            self.phase = Phase.FINISHED
            return [RunFinished(self.superstep, self.final_state)]
        if self.superstep >= self.options.max_supersteps:
            self.phase = Phase.FAILED
            return [RunFailed("N/A", "Max supersteps reached", self.superstep, limit="supersteps")]
        self.phase = Phase.RUNNING
        commands: list[Command] = [SuperstepStarted(self.epoch, self.superstep, self.frontier)]
        for activation in self.frontier:
            plan = self._plans[activation.node_id]
            if plan.is_aggregator or len(activation.states) == 1:
                self._add(plan, activation.states)
                continue
            policy = self.options.on_multiple_states
            if policy == "error":
                self._clear()
                self.phase = Phase.FAILED
                return [RunFailed(plan.node_id, _too_many(activation), self.superstep)]
            if policy == "each":
                for state in activation.states:
                    self._add(plan, (state,))
            else:
                arrived = len(activation.states)
                commands.append(
                    StatesDropped(self.superstep, plan.node_id, arrived, activation.sources)
                )
                self._add(plan, activation.states[:1])
        for execution in self._executions:
            if (kept := self._kept.get(execution.index)) is not None:
                execution.role, execution.output, execution.routes = kept[1:]
            else:
                commands.append(self._launch(execution))
                self._unfinished += 1
        return commands if self._unfinished else self._advance(commands)

    def _add(self, plan: NodePlan, states: tuple[StateHandle, ...]) -> None:
        self._executions.append(Execution(len(self._executions), plan, states))

    def _key(self, execution: Execution) -> AttemptKey:
        return AttemptKey(
            self.epoch,
            self.superstep,
            execution.index,
            execution.role,
            execution.attempt,
            execution.rerun,
        )

    def _launch(self, execution: Execution) -> Launch:
        plan = execution.plan
        return Launch(
            self._key(execution),
            self._runner(execution).node_id,
            plan.node_id,
            execution.states,
            plan.is_aggregator,
            plan.worker_edges,
        )

    def _runner(self, execution: Execution) -> NodePlan:
        """Whose code runs: the node's, or its fallback's."""
        plan = execution.plan
        if execution.role == "fallback" and plan.fallback is not None:
            return self._plans[plan.fallback]
        return plan

    # --- something happened -------------------------------------------------------------------

    def handle(self, events: Iterable[Event]) -> list[Command]:
        """Take everything that is known to have happened, and say what to do."""
        commands: list[Command] = []
        expired = False
        for event in events:
            match event:
                case AttemptSucceeded():
                    self._succeeded(event)
                case AttemptFailed():
                    self._failed(event, commands)
                case RetryDue():
                    self._retry_due(event, commands)
                case RouterAnswered():
                    self._answered(event)
                case DeadlineExpired():
                    expired |= (event.epoch, event.superstep) == (self.epoch, self.superstep)
        if self.phase not in (Phase.RUNNING, Phase.ROUTING):
            return []
        if failed := self._failures():
            return self._fail(failed)
        commands = self._advance(commands)
        if expired and self.phase in (Phase.RUNNING, Phase.ROUTING):
            return self._time_out()
        return commands

    def _current(self, key: AttemptKey) -> Execution | None:
        """The execution that waits for an answer under exactly this key, if there is one."""
        if key.superstep != self.superstep or key.epoch != self.epoch:
            return None
        if self.phase is not Phase.RUNNING or key.execution >= len(self._executions):
            return None
        execution = self._executions[key.execution]
        if execution.done or execution.failure is not None or self._key(execution) != key:
            return None
        return execution

    def _succeeded(self, event: AttemptSucceeded) -> None:
        execution = self._current(event.key)
        if execution is None or execution.waiting:
            return
        execution.output = event.state
        execution.routes = event.routes
        self._unfinished -= 1

    def _failed(self, event: AttemptFailed, commands: list[Command]) -> None:
        execution = self._current(event.key)
        if execution is None or execution.waiting:
            return
        failure = event.failure
        runner = self._runner(execution)
        if event.infrastructure:
            if execution.rerun < self.options.infrastructure_budget:
                execution.rerun += 1
                commands.append(self._launch(execution))
                return
            failure = _lost(runner.node_id, execution.rerun + 1, failure)
        else:
            policy = runner.retry_policy or self.options.retry_policy or NO_RETRY
            if (
                failure.reason != NOT_LOADED
                and execution.attempt < policy.max_retries
                and policy.retries(failure.exception, failure.mro_names)
            ):
                delay = self._delay(policy, execution)
                execution.attempt += 1
                execution.waiting = True
                commands.append(
                    ScheduleRetry(
                        self._key(execution), runner.node_id, delay, policy.max_retries, failure
                    )
                )
                return
        plan = execution.plan
        if execution.role == "node" and plan.fallback is not None:
            execution.role = "fallback"
            execution.attempt = execution.rerun = 0
            commands.append(
                FallbackInvoked(
                    self.superstep, execution.index, plan.node_id, plan.fallback, failure
                )
            )
            commands.append(self._launch(execution))
            return
        execution.failure = failure

    def _delay(self, policy: RetryPolicy, execution: Execution) -> float:
        """The wait before the next attempt; jitter shortens it, by chance but repeatably."""
        delay = policy.delay_before(execution.attempt)
        if policy.jitter:
            seed = f"{self.options.jitter_seed}/{self._key(execution)}".encode()
            delay *= 1.0 - policy.jitter * (zlib.crc32(seed) / 0xFFFFFFFF)
        return delay

    def _retry_due(self, event: RetryDue, commands: list[Command]) -> None:
        execution = self._current(event.key)
        if execution is not None and execution.waiting:
            execution.waiting = False
            commands.append(self._launch(execution))

    # --- the barrier and after ----------------------------------------------------------------

    def _advance(self, commands: list[Command]) -> list[Command]:
        """Pass the barrier where every execution is done, and end where every router answered."""
        if self.phase is Phase.RUNNING and not self._unfinished:
            routed = self._route()
            if any(isinstance(command, RunFailed) for command in routed):
                return routed  # a router beside its node had failed
            commands = [*commands, *routed]
        if self.phase is Phase.ROUTING and not self._unanswered:
            commands = [*commands, *self._end_superstep()]
        return commands

    def _route(self) -> list[Command]:
        """Every execution is done: note what routers said already, ask the others."""
        self.phase = Phase.ROUTING
        commands: list[Command] = []
        for execution in self._executions:
            routes = execution.routes or {}
            for position, edge in enumerate(execution.plan.edges):
                if not edge.conditional:
                    continue
                at = (execution.index, position)
                if position in routes:
                    self._note_answer(at, routes[position])
                    continue
                self._unanswered.add(at)
                commands.append(
                    AskRouter(
                        self.epoch,
                        self.superstep,
                        execution.index,
                        execution.plan.node_id,
                        position,
                        execution.output,
                    )
                )
        if failed := self._failures():
            return self._fail(failed)
        return commands

    def _answered(self, event: RouterAnswered) -> None:
        at = (event.index, event.edge)
        if (event.epoch, event.superstep) == (self.epoch, self.superstep):
            if at not in self._unanswered:
                return
            self._unanswered.discard(at)
            self._note_answer(at, event.answer)

    def _note_answer(self, at: tuple[int, int], answer: str | Failure) -> None:
        execution = self._executions[at[0]]
        edge = execution.plan.edges[at[1]]
        if not isinstance(answer, Failure) and answer not in edge.sinks:
            answer = Failure(
                "GraphExecutionError", (), f"Invalid routing output: '{answer}'", reason="route"
            )
        self._answers[at] = answer
        if isinstance(answer, Failure) and execution.failure is None:
            execution.failure = answer

    def _end_superstep(self) -> list[Command]:
        arrivals: dict[str, tuple[list[StateHandle], list[str]]] = {}
        transitions: list[Transition] = []
        for execution in self._executions:
            plan = execution.plan
            if plan.node_id == self._end_id:
                self.final_state = execution.output
            for position, edge in enumerate(plan.edges):
                answer = self._answers[execution.index, position] if edge.conditional else None
                sink = answer if isinstance(answer, str) else edge.sinks[0]
                transitions.append(
                    Transition(execution.index, plan.node_id, sink, edge.conditional)
                )
                states, sources = arrivals.setdefault(sink, ([], []))
                states.append(execution.output)
                sources.append(plan.node_id)
        self.frontier = tuple(
            Activation(node_id, tuple(states), tuple(sources))
            for node_id, (states, sources) in arrivals.items()
        )
        self.superstep += 1
        self.phase = Phase.READY
        self._clear()
        return [SuperstepEnded(self.superstep, self.frontier, tuple(transitions))]

    # --- what goes wrong ----------------------------------------------------------------------

    def _failures(self) -> list[Execution]:
        return [e for e in self._executions if e.failure is not None]

    def _fail(self, failed: list[Execution]) -> list[Command]:
        """End the run on the first failure in launch order, naming the others (E8)."""
        self.phase = Phase.FAILED
        named = [self._name_failure(execution) for execution in failed]
        first = failed[0]
        node_id, message = named[0]
        command = RunFailed(
            node_id,
            message,
            self.superstep,
            first.attempt,
            first.failure,
            tuple(named[1:]),
        )
        self._clear()
        return [CancelRest(), command]

    def _name_failure(self, execution: Execution) -> tuple[str, str]:
        failure = execution.failure
        assert failure is not None
        if execution.role == "fallback" and not execution.done:
            runner = self._runner(execution)
            return runner.node_id, f"Fallback node failed: {failure.message}"
        return execution.plan.node_id, failure.message

    def _time_out(self) -> list[Command]:
        """The superstep's time is up: name the first unfinished node in launch order (E9, E10)."""
        if self.phase is Phase.RUNNING:
            late = next(e for e in self._executions if not e.done)
        else:
            late = self._executions[min(self._unanswered)[0]]
        node_id = late.plan.node_id
        message = f"Execution timed out after {self.options.superstep_timeout}s."
        self.phase = Phase.FAILED
        self._clear()
        if self.options.restore_on_timeout and not self._restored:
            self._restored = True
            return [CancelRest(), RestoreCheckpoint(node_id, self.superstep, message)]
        failed = RunFailed(node_id, message, self.superstep, late.attempt, limit="time")
        return [CancelRest(), failed]


def _too_many(activation: Activation) -> str:
    sources = ", ".join(repr(source) for source in activation.sources)
    return (
        f"{len(activation.states)} states arrived at once, from {sources}, and the node takes one. "
        "Merge them with an AggregatorNode, or choose on_multiple_states='each' or 'first'."
    )


def _lost(node_id: str, runs: int, failure: Failure) -> Failure:
    """The failure that stands once the infrastructure budget is spent."""
    error = WorkerLostError(node_id, f"{failure.reason}: {failure.message}", runs)
    return Failure(
        type(error).__name__,
        tuple(f"{c.__module__}.{c.__qualname__}" for c in type(error).__mro__),
        str(error),
        failure.traceback,
        error,
        failure.reason,
    )
