"""`backend="ray"`: node executions as Ray tasks and actor calls, capped by slots and resources."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Container, Coroutine, Iterable, Sequence
from typing import Any

from ...errors import NodeTimeoutError, ResourceRequestError, StateLostError
from ...model.attempt import (
    AttemptEvent,
    AttemptFailed,
    AttemptSucceeded,
    Failure,
    Launch,
)
from ...model.nodes import Node
from ...state import State
from ..driver import DriverSide, Inputs
from ..failures import capture, unpack
from ..payload import Payload
from ..pool import PoolFacts, RunContext
from ..routers import Told
from ..stored import Stored, StoredPayload, Vault
from . import capacity
from .batches import Timings
from .capacity import Capacity, ClusterWatch
from .connections import Exchange
from .facts import facts_of
from .handles import CodeShelf, StateHandle
from .jobs import JobWriter
from .lane_table import LaneTable
from .lanes import KILL_SECONDS, Lane, Pending
from .modules import ship_unreachable_modules
from .ray_connect import ensure_ray, held_by_this_process, say
from .ray_errors import infrastructure_failure, is_configuration
from .room import Room
from .states import States, tell_made
from .stream import Inbox, wait_in_ray
from .stretch import Stretches
from .task_lane import TaskLane
from .tracks import Tracks
from .wire import Done, Failed, Job, Report, Track

OWN_TASK_CLEANUP_SECONDS = 0.95
"""How long after a superstep's time-out a coroutine in a task of its own has to stop."""


class RayPool:
    """Runs nodes on Ray. Starts or joins one where this process has none."""

    def __init__(self) -> None:
        self.facts = PoolFacts()
        self.tasks = 0
        self.fresh_tasks = 0
        """Tasks that began a moment ago, and may soon be over."""
        self.riders = 0
        """Attempts that wait inside a batch for those before them: they hold no slot."""
        self.timings = Timings()
        self._tokens = itertools.count()
        self._lanes = LaneTable(self)
        self._active: dict[int, Pending] = {}
        self._outbox: list[AttemptEvent] = []
        self._changed = asyncio.Event()
        self._deadline: float | None = None
        self._room = Room()
        self._stopping = False
        self._shelf = CodeShelf()
        self._bringing: set[asyncio.Task[None]] = set()
        self._states = States(self._make, self.facts)
        self.stretches = Stretches(self)
        self._watch = ClusterWatch(self._looked)

    async def start(self, context: RunContext) -> None:
        """Connect, look at the cluster, and refuse what could never run."""
        self.context = context
        self.inbox = Inbox()
        self.exchange = Exchange()
        self._loop = asyncio.get_running_loop()
        self._driver = DriverSide(context, local=False)
        done = ensure_ray()
        if done is not None:
            say(done)
        self.blocking, held = held_by_this_process()
        self.capacity = Capacity(context, held)
        self._states.alone = self.capacity.alone
        self._watch.begin(self.capacity)
        self._states.blocking = self.blocking
        ship_unreachable_modules()
        self._shelf.graph = context.graph
        self._writer = JobWriter(context, self._shelf)
        for node in context.graph.nodes.values():  # what cannot travel is known before work starts
            if node.placement != "driver":
                self._writer.kind(node, node.node_id)
        self.stretches.prepare(Tracks(context.graph, self._writer))

    def begin_superstep(self, deadline: float | None, ahead: int) -> None:
        """Remember the deadline that `current_execution()` tells, and what may run ahead."""
        self._deadline = deadline
        self._room = Room()
        self.stretches.begin_superstep(ahead)
        self._driver.begin_superstep(deadline)
        self._stopping = False
        self._watch.look_soon()

    # --- launching ----------------------------------------------------------------------------

    def launch(self, launches: Sequence[Launch]) -> None:
        """Queue attempts in their lanes, and start what may start."""
        self._room.take(launches)
        if self.stretches.take(launches):
            self.pump()
            return
        self._lanes.expect(map(self._driver.node, launches))
        for launch in launches:
            node = self._driver.node(launch)
            if self._lanes.has(node):
                self._start(launch)
            elif node.is_passthrough:
                state = launch.states[0]
                self._outbox.append(
                    self._driver.pass_through(launch, nbytes=state.nbytes, size=state.size)
                )
            elif not node.holds_slot:
                self._driver.start(launch, self._fetcher(launch), self._finished)
            else:
                self._start(launch)
        self.pump()

    def _start(self, launch: Launch) -> None:
        """Queue an attempt, once its states are where it can take them."""
        if self._states.at_hand(launch.states):
            self._queue(launch)
        else:
            self._soon(self._bring(launch))

    def _queue(self, launch: Launch) -> Pending:
        lane = self._lanes.of(self._driver.node(launch))
        pending = self.pending(launch, lane)
        lane.queue.append(pending)
        if self.capacity.awaits_machine:
            self.later(capacity.MACHINE_WAIT_SECONDS, lambda: self._give_up_machine(pending))
        return pending

    def pending(self, launch: Launch, lane: Lane) -> Pending:
        """What stands for a launch until it is answered."""
        return Pending(next(self._tokens), launch, self._driver.node(launch), lane)

    def lane_of(self, node: Node) -> Lane:
        """The lane that a node's attempts go through."""
        return self._lanes.of(node)

    def _give_up_machine(self, pending: Pending) -> None:
        """Fail an attempt that still waits for a machine which nobody has added."""
        running = pending.token in self._active
        if self._stopping or not (running or pending in pending.lane.queue):
            return
        try:
            self.capacity.check_now(pending.node)
        except ResourceRequestError as error:
            if running:
                pending.doom = capture(error)
                pending.lane.give_up(pending)
            else:
                pending.lane.queue.remove(pending)
                self._outbox.append(AttemptFailed(pending.launch.key, capture(error)))
                self.pump()

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._bringing.add(task)
        task.add_done_callback(self._bringing.discard)

    async def _bring(self, launch: Launch) -> None:
        """Queue an attempt once its states are where it can take them."""
        try:
            await self._states.bring(launch.states)
        except Exception as error:
            failure = capture(error, "object_lost")
            self.context.deliver([AttemptFailed(launch.key, failure, infrastructure=True)])
        else:
            self._queue(launch)
            self.pump()

    async def _make(self, launch: Launch) -> StateHandle:
        """Run the code of a launch once more, for a state that was lost."""
        if self._stopping:
            raise StateLostError("A state that was lost is wanted after its run has stopped.")
        pending = self._queue(launch)
        pending.made = self._loop.create_future()
        self.pump()
        return await pending.made

    def pump(self) -> None:
        """Start what slots and resources allow, oldest first, then report what has happened."""
        used: dict[int, Lane] = {}
        while self.vacant > 0 and not self._stopping:
            lane = self._lanes.next(idle=not self._active)
            if lane is None:
                break
            batch = lane.take()
            self.carry(batch)
            try:
                lane.start(batch)
            except Exception as error:
                self._not_started(batch, capture(error))
                continue
            used[id(lane)] = lane
        for lane in used.values():
            try:
                lane.flush()
            except Exception as error:
                self._unsent(lane, capture(error))
        if self._lanes.waiting:
            self._watch.look_soon()
        if self._outbox:
            events, self._outbox = self._outbox, []
            self.context.deliver(events)

    @property
    def vacant(self) -> int:
        """Attempts more that may be out."""
        return self.context.max_workers - len(self._active) + self.riders

    def _looked(self, news: bool) -> None:
        """Go on with the machines that there are now."""
        if news:
            self._states.alone = self.capacity.alone
            self._lanes.share_anew()
        self.pump()

    def carry(self, batch: Iterable[Pending]) -> None:
        """These are out from now on."""
        self._active.update((pending.token, pending) for pending in batch)

    def _unsent(self, lane: Lane, failure: Failure) -> None:
        """What a lane had gathered could not be sent."""
        for pending in lane.unsent():
            self.fail(pending, failure)

    def _not_started(self, batch: Sequence[Pending], failure: Failure) -> None:
        """A batch could not be sent: each goes alone, so that only what cannot be sent fails."""
        if len(batch) == 1:
            self.fail(batch[0], failure)
            return
        for pending in batch:
            pending.quarantined = True
        self.put_back(batch)

    def job_of(
        self,
        pendings: Sequence[Pending],
        track: Track | None = None,
        *,
        announce: bool = False,
        known: Container[str] = (),
    ) -> tuple[Job, list[Any]]:
        """What a call is to carry for these attempts: the job, and references to large states.

        Code under `known` keys stays behind.
        """
        left = None if self._deadline is None else self._deadline - time.time()
        room = self._room.each
        return self._writer.job(
            pendings, left, track, announce=announce, known=known, inline_bytes=room
        )

    # --- what lanes report --------------------------------------------------------------------

    def answer(
        self, pending: Pending, message: Done | Failed, report: Report, refs: Sequence[Any]
    ) -> None:
        """An attempt's own answer arrived."""
        self.facts.processes.add(report.where.pid)
        facts = facts_of(pending, message, report.where)
        key = pending.launch.key
        if isinstance(message, Done):
            ref = refs[0] if refs else None
            handle = StateHandle(message.payload, ref, message.nbytes, message.size)
            self._states.made(handle, pending.launch)
            routes = {
                edge: route if isinstance(route, str) else unpack(*route)
                for edge, route in message.routes.items()
            }
            self._settle(pending, AttemptSucceeded(key, handle, routes, facts))
        else:
            failure = unpack(message.failure, message.error)
            if failure.reason == "deadline" and not self._stopping:
                return  # the superstep's own time-out follows, and names the node that counts
            lost = failure.reason == "object_lost"
            if lost:
                self._states.doubt(pending.launch.states)
            self._settle(pending, AttemptFailed(key, failure, infrastructure=lost, facts=facts))

    def fail(self, pending: Pending, failure: Failure) -> None:
        """An attempt failed by the driver's judgement."""
        facts = facts_of(pending)
        self._settle(pending, AttemptFailed(pending.launch.key, failure, facts=facts))

    def broken(self, pending: Pending, error: BaseException | None) -> None:
        """What an attempt ran on is gone: because it was killed for good reason, or by itself."""
        if pending.doom is not None:
            self.fail(pending, pending.doom)
        elif is_configuration(error):
            assert error is not None
            self.fail(pending, capture(error))
        else:
            self.facts.workers_lost += isinstance(pending.lane, TaskLane)
            failure = infrastructure_failure(error)
            if failure.reason == "object_lost":
                self._states.doubt(pending.launch.states)
            event = AttemptFailed(
                pending.launch.key, failure, infrastructure=True, facts=facts_of(pending)
            )
            self._settle(pending, event)
        self.pump()

    def again(self, pendings: Sequence[Pending], *, suspect: bool = False) -> None:
        """Run attempts anew that are not to blame, or (suspects) each alone in a process."""
        self.facts.uncharged_reruns += len(pendings)
        for pending in pendings:
            pending.quarantined = suspect
            if pending.node.placement == "async" and (
                suspect or self._lanes.has_own_task(pending.node)
            ):
                pending.lane = self._lanes.tasks_of(pending.node)
        self.put_back(pendings)
        self.pump()

    def put_back(self, pendings: Sequence[Pending]) -> None:
        """Queue attempts again that were to run, ahead of all others."""
        for pending in reversed(pendings):
            pending.disarm()
            if self._active.pop(pending.token, None) is not None and not self._stopping:
                pending.lane.queue.appendleft(pending.anew(next(self._tokens)))

    def blocks_loop(self, node: Node) -> None:
        """A node was seen blocking an event loop: it gets tasks of its own from now on."""
        if node.placement == "async" and not self._lanes.has_own_task(node):
            self._lanes.give_own_task(node)
            self.context.warn(
                f"Async node {node.node_id!r} blocks its event loop, which it shares with other "
                "nodes. It runs in a process of its own from now on. Await something that waits "
                "asynchronously, or make the function sync."
            )

    def timed_out(self, pending: Pending) -> Failure:
        """The failure of an attempt that took longer than its node's time-out."""
        timeout = pending.node.options.timeout
        assert timeout is not None
        return capture(NodeTimeoutError(pending.launch.node_id, timeout), "timeout")

    def later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back after some seconds."""
        return self._loop.call_later(seconds, callback)

    def wake(self) -> None:
        """Something changed that `stop()` may wait for."""
        self._changed.set()

    def _settle(self, pending: Pending, event: AttemptEvent) -> None:
        """Free the attempt's slot and note its answer; `pump` sends it."""
        pending.disarm()
        if self._active.pop(pending.token, None) is not None and not self._stopping:
            if pending.made is None:
                self._outbox.append(event)
            elif not pending.made.done():
                tell_made(pending.made, event)
        self._changed.set()

    def start_here(self, pending: Pending) -> None:
        """Run an attempt in the driver, in a slot."""

        def finished(launch: Launch, event: AttemptEvent, payload: Payload | None) -> None:
            self._settle(pending, _with_handle(event, payload))
            self.pump()

        self._driver.start(pending.launch, self._fetcher(pending.launch), finished)

    def _fetcher(self, launch: Launch) -> Inputs:
        """What fetches the inputs of an attempt into the driver."""

        async def fetch() -> list[Payload | StoredPayload]:
            return [await self._states.payload(handle) for handle in launch.states]

        return fetch

    def _finished(self, launch: Launch, event: AttemptEvent, payload: Payload | None) -> None:
        """An attempt in the driver that holds no slot is done."""
        self.context.deliver([_with_handle(event, payload)])

    # --- routers, waiting, states -------------------------------------------------------------

    def ask(self, owner_id: str, edge: int, state: StateHandle, told: Told) -> None:
        """Ask a router in the driver."""
        routers = self._driver.routers
        if state.payload is not None:
            routers.ask(owner_id, edge, state.payload, told)
        else:
            routers.ask_about(owner_id, edge, self._states.payload(state), told)

    async def wait(self, mailbox: asyncio.Event) -> bool:
        """Wait; inside a Ray task, in the way that gives the task's CPU back meanwhile."""
        if self.blocking:
            await wait_in_ray(mailbox, self._awaited, lambda: self._driver.busy)
        else:
            await mailbox.wait()
        return True

    def _awaited(self) -> list[Any]:
        """References to what comes next."""
        answers = (answer for lane in self._lanes for answer in lane.answers())
        return [answer.waiting_for for answer in answers if answer.waiting_for is not None]

    def put(self, state: State) -> StateHandle:
        """Take a private copy of a state."""
        return self._states.put(state)

    def get(self, handle: StateHandle) -> Any:
        """A private copy of the state behind a handle."""
        return handle.fetch().load()

    async def fetch(self, handle: StateHandle) -> Any:
        """`get`, without blocking the event loop for a large state."""
        return await self._states.fetch(handle)

    def has(self, handle: StateHandle) -> bool:
        """Whether the state can be had: a stretch leaves some behind."""
        return handle.is_known

    @property
    def vault(self) -> Vault | None:
        """Where `save` keeps states."""
        return self._states.vault

    @vault.setter
    def vault(self, vault: Vault | None) -> None:
        self._states.vault = vault

    async def save(self, handles: Sequence[StateHandle], *, anew: bool = False) -> list[Stored]:
        """Keep states in the vault, where they are not kept already (or `anew`)."""
        return await self._states.save(handles, anew=anew)

    def restore(self, state: StoredPayload) -> StateHandle:
        """A handle for a state in a vault; it is read where and when it is needed."""
        return self._states.restore(state)

    # --- stopping -----------------------------------------------------------------------------

    async def stop(self) -> None:
        """Kill tasks, give coroutines their clean-up time, kill the workers they ran in."""
        self._stopping = True
        for task in self._bringing:
            task.cancel()
        for lane in self._lanes:
            lane.queue.clear()
        for pending in self._active.values():
            pending.disarm()
        calls = [call for lane in self._lanes if isinstance(lane, TaskLane) for call in lane.calls]
        late = self._deadline is not None and time.time() >= self._deadline - 0.05
        for call in calls:
            call.abandon()
            if late and call.is_async:  # it has seen the deadline and is stopping
                self.later(OWN_TASK_CLEANUP_SECONDS, call.kill)
            else:
                call.kill()
        await asyncio.gather(self._driver.stop(), self._stop_workers(), self._tasks_gone())
        self._active.clear()
        self._outbox.clear()

    async def _stop_workers(self) -> None:
        """End the workers that run something, their coroutines first where they listen."""
        asked = time.monotonic()
        busy = [worker for worker in self._lanes.workers if worker.active]
        for worker in busy:
            if not worker.blocked:
                worker.cancel_all()
        while any(worker.may_still_clean_up(time.monotonic() - asked) for worker in busy):
            await self._change(0.05)
        for worker in busy:
            worker.kill()
            worker.lane.gone(worker)

    async def _tasks_gone(self) -> None:
        end = time.monotonic() + KILL_SECONDS
        while time.monotonic() < end:
            if not any(isinstance(lane, TaskLane) and lane.calls for lane in self._lanes):
                return
            await self._change(0.1)

    async def _change(self, seconds: float) -> None:
        """Wait until something is reported, for some seconds at most."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    async def close(self) -> None:
        """Stop, and end every worker. Nothing that the run held is held any longer."""
        await self.stop()
        self._watch.close()
        self._lanes.close()
        await self.exchange.close()
        self._states.clear()
        self._shelf.clear()
        self._driver.close()


def _with_handle(event: AttemptEvent, payload: Payload | None) -> AttemptEvent:
    """The event of an attempt in the driver, its state behind a handle like any other."""
    if isinstance(event, AttemptSucceeded) and payload is not None:
        return AttemptSucceeded(event.key, StateHandle.of(payload), event.routes, event.facts)
    return event
