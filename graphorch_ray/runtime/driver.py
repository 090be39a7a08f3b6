"""What runs in the driver's own process, on either backend."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..model.attempt import (
    AttemptEvent,
    AttemptFacts,
    AttemptFailed,
    AttemptSucceeded,
    Launch,
)
from .attempt import Result, Work, run_on_loop
from .context import ExecutionInfo
from .failures import capture
from .gather import Gatherer
from .payload import Payload
from .pool import RunContext, router_of
from .routers import Routers
from .stored import StoredPayload
from .threaded import ThreadedAttempt
from .threads import DaemonThreads

if TYPE_CHECKING:
    from ..model.nodes import Node


Finished = Callable[[Launch, AttemptEvent, "Payload | None"], None]
"""Told a launch, the event that answers it, and the payload that is its state."""


Inputs = Callable[[], Awaitable[Sequence["Payload | StoredPayload"]]]
"""Fetches the inputs of an attempt."""


class DriverSide:
    """Runs attempts and routers on the driver's event loop and in its threads.

    Sync code runs in daemon threads. A thread cannot be killed: where time is up or a run ends,
    its result is given up with a warning that names the node.

    Args:
        context: the run.
        local: every state stays in this process.

    Attributes:
        routers: what asks routers here.
    """

    def __init__(self, context: RunContext, *, local: bool) -> None:
        self.context = context
        self._local = local
        self._threads = DaemonThreads("graphorch-node")
        self._running: dict[asyncio.Task[None] | ThreadedAttempt, Launch] = {}
        self._deadline: float | None = None
        self.routers = Routers(context, self._threads)

    @property
    def busy(self) -> bool:
        """True while an attempt or a router runs here."""
        return bool(self._running) or self.routers.busy

    def begin_superstep(self, deadline: float | None) -> None:
        """Remember the deadline that `current_execution()` tells."""
        self._deadline = deadline

    def node(self, launch: Launch) -> Node:
        """The node whose code a launch runs."""
        return self.context.graph.nodes[launch.node_id]

    def info(self, launch: Launch) -> ExecutionInfo:
        """What `current_execution()` is to answer in this attempt."""
        key = launch.key
        return ExecutionInfo(
            run_id=self.context.run_id,
            graph_name=self.context.graph.name or "",
            branch=self.context.branch(),
            superstep=key.superstep,
            index=key.execution,
            node_id=launch.owner_id,
            running_node_id=launch.node_id,
            role=key.role,
            attempt=key.attempt,
            rerun=key.rerun,
            deadline=self._deadline,
        )

    def pass_through(self, launch: Launch, *, nbytes: int, size: int) -> AttemptEvent:
        """Answer for a node that hands its state on unchanged: nothing has to run."""
        facts = AttemptFacts(
            worker_pid=os.getpid(),
            input_bytes=nbytes,
            output_bytes=nbytes,
            input_size=size,
            output_size=size,
        )
        return AttemptSucceeded(launch.key, launch.states[0], {}, facts)

    def start(
        self,
        launch: Launch,
        inputs: Inputs,
        finished: Finished,
    ) -> None:
        """Run an attempt here, once its inputs are. `finished` is told as by `begin`."""
        self._add_task(launch, self._fetch(launch, inputs, finished))

    def begin(
        self, launch: Launch, payloads: Sequence[Payload | StoredPayload], finished: Finished
    ) -> None:
        """Run an attempt here. `finished` is told the event, its state still without a handle."""
        work = self._work(launch, payloads)
        if work.is_async:
            self._add_task(launch, self._answer(launch, work, finished))
            return

        def told(result: Result) -> None:
            self._running.pop(attempt, None)
            if result.awaitable is None:
                self._tell(launch, work, result, finished)
            else:
                going_on = replace(work, is_async=True, begun=result)
                self._add_task(launch, self._answer(launch, going_on, finished, attempt.gatherer))

        attempt = ThreadedAttempt(work, self._threads, told)
        self._running[attempt] = launch

    def wait_for(self, launch: Launch, seconds: float) -> bool:
        """Block the event loop until an attempt in a thread is answered, if that is soon."""
        for attempt, running in self._running.items():
            if running is launch and isinstance(attempt, ThreadedAttempt):
                return attempt.wait(seconds)
        return False

    def _add_task(self, launch: Launch, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._running[task] = launch
        task.add_done_callback(lambda done: self._running.pop(done, None))

    async def _fetch(self, launch: Launch, inputs: Inputs, finished: Finished) -> None:
        try:
            payloads = await inputs()
        except Exception as error:  # a state that is lost with its machine
            self._forget()
            failure = capture(error, "object_lost")
            finished(launch, AttemptFailed(launch.key, failure, infrastructure=True), None)
            return
        self._forget()
        self.begin(launch, payloads, finished)

    def _work(self, launch: Launch, payloads: Sequence[Payload | StoredPayload]) -> Work:
        node = self.node(launch)
        return Work(
            node.call,
            payloads,
            launch.as_list,
            node.options.mutable,
            node.is_async,
            self.info(launch),
            node.options.timeout,
            {
                edge: router_of(self.context.graph, launch.owner_id, edge)
                for edge in launch.worker_edges
            },
            local=self._local,
            trace=launch.trace,
        )

    async def _answer(
        self, launch: Launch, work: Work, finished: Finished, gatherer: Gatherer | None = None
    ) -> None:
        """Run on the event loop what is to be awaited."""
        with gatherer or Gatherer(work.trace) as entered:
            result = await run_on_loop(work, self._threads, gatherer=entered)
        self._forget()
        self._tell(launch, work, result, finished)

    def _tell(self, launch: Launch, work: Work, result: Result, finished: Finished) -> None:
        if result.abandoned:
            self._warn_abandoned(launch, f"its time-out of {work.timeout} s")
        finished(launch, self.event(launch, result, work.inputs), result.payload)

    def _forget(self) -> None:
        """This attempt is as good as answered: from here on there is nothing to stop."""
        task = asyncio.current_task()
        assert task is not None
        self._running.pop(task, None)

    def event(
        self, launch: Launch, result: Result, inputs: Sequence[Payload | StoredPayload]
    ) -> AttemptEvent:
        """The event for a result; its state is the payload itself."""
        output = result.payload
        facts = AttemptFacts(
            started=result.started,
            ended=result.ended,
            worker_pid=os.getpid(),
            input_bytes=sum(payload.nbytes for payload in inputs),
            output_bytes=output.nbytes if output is not None else 0,
            input_size=len(inputs) if launch.as_list else inputs[0].size,
            output_size=output.size if output is not None else 0,
            trail=result.trail,
        )
        if result.failure is not None:
            lost = result.failure.reason == "object_lost"
            return AttemptFailed(launch.key, result.failure, infrastructure=lost, facts=facts)
        return AttemptSucceeded(launch.key, output, result.routes, facts)

    async def stop(self) -> None:
        """Cancel what runs here. Coroutines get their clean-up time; threads are given up."""
        running = dict(self._running)
        for attempt in running:
            attempt.cancel()
        tasks = [attempt for attempt in running if isinstance(attempt, asyncio.Task)]
        await asyncio.gather(self.routers.stop(), *([asyncio.wait(tasks)] if tasks else []))
        for attempt in running:
            self._running.pop(attempt, None)
        for attempt, launch in running.items():
            if isinstance(attempt, ThreadedAttempt) and not attempt.routing:
                self._warn_abandoned(launch, "the end of its superstep")

    def close(self) -> None:
        """Give the threads back."""
        self._threads.close()

    def _warn_abandoned(self, launch: Launch, when: str) -> None:
        self.context.warn(
            f"Node {launch.node_id!r} was still running in a thread of this process at {when}. "
            "A thread cannot be stopped: it goes on until its function returns, and its result "
            "is ignored. The Ray backend stops such work."
        )
