"""The driver of a hosted run: an actor that starts its run by itself, and again when replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from ..runtime.payload import Payload, dump
from ..state import State
from ..telemetry import Event
from .assignment import Assignment, executor_of
from .cluster import Notes, versions
from .ending import Ending, failed
from .event_log import Cursor, EventLog
from .status import RunState, RunStatus

if TYPE_CHECKING:
    from ..executor import GraphExecutor


class HostedRun:
    """Drives one run to its end, tells how it goes, and leaves once its result was kept.

    Made by Ray, in an event loop, with the same arguments each time. Methods are called by
    `RunHandle`s.

    Args:
        assignment: what to run.
        run: the run itself, where there is no store to take it from.
    """

    def __init__(self, assignment: Assignment, run: Payload | None) -> None:
        import ray

        # What the run fetches on its loop is there already, and Ray warns of it all the same.
        os.environ.setdefault("RAY_WARN_BLOCKING_GET_INSIDE_ASYNC", "0")
        context = ray.get_runtime_context()
        self._notes = Notes(str(context.get_actor_id()))
        self._notes.put("versions", versions())
        self._where = context.get_node_id()
        self._host = ray.util.get_node_ip_address()
        self._assignment = assignment
        self._run = run
        self._final: Payload | None = None
        self._ending: Ending | None = self._notes.get("ending")
        self._over = asyncio.Event()
        self._log = EventLog(assignment.about.run_id)
        self._driving: asyncio.Task[State | None] | None = None
        self._at_barrier = False
        self._cancelled = self._notes.get("wanted") == "cancelled"
        self._may_go_on = asyncio.Event()
        if self._notes.get("wanted") != "paused":
            self._may_go_on.set()
        about = self._notes.get("about")
        if about is None:
            about = assignment.about._replace(started=time.time())
            self._notes.put("about", about)
        self._about = about
        self._life = asyncio.get_running_loop().create_task(self._live())

    # --- the run ------------------------------------------------------------------------------

    async def _live(self) -> None:
        known = ending = self._ending  # of a driver that was replaced when the run was over
        if ending is None or ending.state == "finished":
            ending = await self._drive()  # a run that has finished gives its result again
            if known is not None:
                ending = ending._replace(at=known.at)
            with contextlib.suppress(Exception):  # it is only for a driver that comes after
                self._notes.put("ending", ending)
        self._ending, self._run = ending, None
        self._log.end()
        self._over.set()
        await asyncio.sleep(ending.at + self._about.keep - time.time())
        self._leave()

    async def _drive(self) -> Ending:
        """Run to the end, whatever that is."""
        try:
            if self._cancelled:
                return Ending("cancelled", time.time())
            executor = await asyncio.to_thread(executor_of, self._assignment, self._run)
            self._run = None
            self._watch(executor)
            self._driving = asyncio.ensure_future(self._execute(executor))
            if self._cancelled:
                self._driving.cancel()
            final = await self._driving
            if final is not None:
                self._final = dump(final, "the final state").compact()
        except asyncio.CancelledError:
            return Ending("cancelled", time.time())
        except Exception as error:
            return failed(error, time.time())
        finally:
            self._driving = None
        return Ending("finished", time.time())

    def _watch(self, executor: GraphExecutor) -> None:
        self._log.superstep = executor.superstep
        self._log.active_nodes = tuple(executor.active_states)
        executor._hub.add(self._log)
        executor._at_barrier = self._pass_barrier

    async def _execute(self, executor: GraphExecutor) -> State | None:
        """Run, beneath the span that the client was in."""
        from opentelemetry import context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        for name, value in self._assignment.environment.items():
            os.environ.setdefault(name, value)
        context.attach(TraceContextTextMapPropagator().extract(self._assignment.trace))
        return await executor.execute(
            self._assignment.max_supersteps, self._assignment.superstep_timeout
        )

    async def _pass_barrier(self) -> None:
        """Hold the run between two supersteps for as long as it is paused."""
        self._at_barrier = True
        try:
            await self._may_go_on.wait()
        finally:
            self._at_barrier = False

    def _leave(self) -> None:
        """End this process for good, and leave nothing of the run in Ray."""
        import ray

        with contextlib.suppress(Exception):
            self._notes.remove()
        ray.kill(ray.get_runtime_context().current_actor)

    # --- what handles ask ---------------------------------------------------------------------

    async def status(self) -> RunStatus:
        """Where the run is now; `restarts` is Ray's to tell."""
        about, ending = self._about, self._ending
        return RunStatus(
            name=about.name,
            state=self._state(),
            run_id=about.run_id,
            graph=about.graph,
            superstep=self._log.superstep,
            active_nodes=() if ending and ending.state == "finished" else self._log.active_nodes,
            started=about.started,
            ended=None if ending is None else ending.at,
            where=self._where,
            host=self._host,
            checkpoint_path=about.path,
            error=None if ending is None else ending.text,
        )

    def _state(self) -> RunState:
        if self._over.is_set():
            assert self._ending is not None
            return self._ending.state
        if self._driving is None:
            return "pending"
        return "paused" if self._at_barrier and not self._may_go_on.is_set() else "running"

    async def end(self, seconds: float) -> Ending | None:
        """How the run ended; None where some seconds pass without that."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
        return self._ending if self._over.is_set() else None

    async def final(self) -> Payload | None:
        """The final state of a run that has finished."""
        return self._final

    async def events(self, cursor: Cursor, seconds: float) -> tuple[Cursor, list[Event], bool]:
        """As `EventLog.read`."""
        return await self._log.read(cursor, seconds)

    async def now(self) -> Cursor:
        """As `EventLog.now`."""
        return self._log.now()

    async def pause(self) -> None:
        """Hold the run at its next barrier."""
        if not self._over.is_set():
            self._notes.put("wanted", "paused")
            self._may_go_on.clear()

    async def resume(self) -> None:
        """Let the run go on."""
        self._notes.remove("wanted")
        self._may_go_on.set()

    async def cancel(self) -> None:
        """Stop the run, leaving nothing of it running."""
        if not self._over.is_set():
            self._cancelled = True
            self._notes.put("wanted", "cancelled")
            if self._driving is not None:
                self._driving.cancel()
        await self._over.wait()


def hosted_run() -> Any:
    """The actor class, as Ray knows it."""
    import ray

    return ray.remote(HostedRun)
