"""The handle of a hosted run: asks its driver, and is patient where that is being replaced."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import replace
from typing import Any, Literal, TypeVar

from ..checking import check_choice, check_seconds
from ..errors import RunCancelledError, RunLostError, RunNotFoundError
from ..state import State
from ..telemetry import Event
from .assignment import read_newest
from .cluster import About, ActorFacts, Notes, check_versions, facts_of
from .ending import Ending
from .event_log import START, Cursor
from .status import RunState, RunStatus

T = TypeVar("T")

ASK_SECONDS = 2.0
"""How long a driver lets somebody wait before it says that there is no news."""

RETRY_SECONDS = 0.2
"""How long to wait before a driver that cannot be reached is asked again."""

STATUS_SECONDS = 10.0
"""How long a driver has to say how its run is, before it counts as one that is being replaced."""


class GivenUp(Exception):
    """Whoever waited does so no longer."""


class DriverGone(Exception):
    """The driver is dead, and Ray does not replace it."""

    def __init__(self, facts: ActorFacts) -> None:
        self.facts = facts
        super().__init__(facts.reason)


class RunHandle:
    """A run that a driver in the cluster works on, whatever becomes of this process.

    Made by `GraphExecutor.submit`, or found by `graphorch_ray.get_run`. It may be used by any
    number of processes and threads at once. `await handle` is `handle.result()` for coroutines,
    and `async for event in handle.events()` works as well.

    Attributes:
        name: the run's name in the cluster.

    Example:
        ```python
        handle = executor.submit(name="nightly")
        print(handle.status().state)
        final = handle.result(timeout=3600)
        ```
    """

    def __init__(self, name: str, actor: Any, actor_id: str, about: About | None = None) -> None:
        self.name = name
        self._actor = actor
        self._actor_id = actor_id
        self._known = about
        self._agrees = False
        """The driver is known to be of this process's version."""
        self._last: RunStatus | None = None
        """What was said of it once it was over."""

    def __repr__(self) -> str:
        return f"<RunHandle {self.name!r}>"

    # --- asking -------------------------------------------------------------------------------

    def status(self) -> RunStatus:
        """Where the run is now.

        Raises:
            RunNotFoundError: it is over, and its result is not kept any longer.
        """
        facts = facts_of(self._actor_id)
        told: RunStatus | None = None
        if facts.state == "alive":
            try:
                told = self._ask("status", deadline=time.monotonic() + STATUS_SECONDS)
            except TimeoutError:
                facts = replace(facts, state="pending")
            except DriverGone as gone:
                facts = gone.facts
        if told is not None:
            told = replace(told, restarts=facts.restarts)
            if told.is_over:
                self._last = told
            return told
        return self._without_driver(facts)

    def wait(self, timeout: float | None = None) -> RunStatus:
        """Wait until the run is over.

        Args:
            timeout: seconds to wait at most; None waits as long as it takes.

        Returns:
            How it ended; or, where the time was up first, where it is now.
        """
        check_seconds("timeout", timeout)
        return self._wait(_deadline(timeout), threading.Event())

    def result(self, timeout: float | None = None) -> State | None:
        """Wait for the run's end, and give what `execute()` would.

        Args:
            timeout: seconds to wait at most; None waits as long as it takes.

        Returns:
            What `end` produced last, or None where it was never reached.

        Raises:
            GraphExecutionError: and all else that `execute()` raises, as it raises it.
            TimeoutError: the time was up first; the run goes on.
            RunCancelledError: it was cancelled.
            RunLostError: its driver died and was not replaced; says what is left of the run.
            RunNotFoundError: it is over, and its result is not kept any longer.
        """
        check_seconds("timeout", timeout)
        return self._result(_deadline(timeout), threading.Event())

    def __await__(self) -> Generator[Any, None, State | None]:
        return _in_thread(lambda given_up: self._result(None, given_up)).__await__()

    def events(self, *, since: Literal["start", "now"] = "start") -> RunEvents:
        """The events of the run, as they happen, until it is over.

        A driver keeps the latest 10,000; an `EventsDropped` stands for what came before. Where a
        driver was replaced, its successor's events follow.

        Args:
            since: ``"start"`` begins with the oldest that are kept, ``"now"`` with what comes.

        Returns:
            An iterator, and an asynchronous one.

        Example:
            ```python
            for event in handle.events():
                print(event.name, event.attributes())
            ```
        """
        check_choice("since", since, ("start", "now"))
        cursor = START
        if since == "now":
            try:
                cursor = self._ask("now")
            except DriverGone as gone:
                raise self._error_after(gone.facts) from None
        return RunEvents(self, cursor)

    # --- telling ------------------------------------------------------------------------------

    def pause(self) -> None:
        """Hold the run at its next barrier, with all that runs brought to its end first.

        Its state is ``"paused"`` once it is held. A run that is over stays as it is.
        """
        self._want("pause", "paused")

    def resume(self) -> None:
        """Let a run that was paused go on."""
        self._want("resume", None)

    def cancel(self) -> RunStatus:
        """Stop the run, and wait until nothing of it runs; what is committed stays in its place.

        Returns:
            How it ended: it may have finished just before.
        """
        import ray

        facts = facts_of(self._actor_id)
        if facts.state == "pending" and self._actor is not None:
            # There is no driver to ask, and perhaps no machine for one.
            known = self._without_driver(facts)
            ray.kill(self._actor, no_restart=True)
            Notes(self._actor_id).remove()
            self._last = replace(known, state="cancelled", ended=time.time())
            return self._last
        try:
            self._ask("cancel")
        except DriverGone as gone:
            raise self._error_after(gone.facts) from None
        return self.status()

    # --- how ----------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        *arguments: Any,
        deadline: float | None = None,
        given_up: threading.Event | None = None,
    ) -> Any:
        """Call the driver; where it dies and is replaced meanwhile, call its successor.

        Raises:
            DriverGone: it has no successor.
            TimeoutError: the deadline, a moment of `time.monotonic()`, has passed.
            GivenUp: the event was set.
            ClusterConnectionError: the driver is of another version than this process.
        """
        import ray
        from ray.exceptions import GetTimeoutError, RayActorError

        call: Any = None
        while True:
            if given_up is not None and given_up.is_set():
                raise GivenUp
            left = ASK_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"Run '{self.name}' did not answer in time.")
            if self._actor is None:
                raise DriverGone(facts_of(self._actor_id))
            try:
                if call is None:
                    self._check_versions()
                    call = getattr(self._actor, method).remote(*arguments)
                return ray.get(call, timeout=min(left, ASK_SECONDS))
            except GetTimeoutError:
                continue
            except RayActorError:
                call, self._agrees = None, False
                facts = facts_of(self._actor_id)
                if facts.state == "dead":
                    raise DriverGone(facts) from None
                time.sleep(min(left, RETRY_SECONDS))

    def _check_versions(self) -> None:
        """Ask nothing of a driver that would not understand it."""
        self._agrees = self._agrees or check_versions(self.name, self._actor_id)

    def _want(self, method: str, wanted: str | None) -> None:
        """Ask the driver for something, and note it for one that is still to start."""
        self._check_versions()
        notes = Notes(self._actor_id)
        if wanted is None:
            notes.remove("wanted")
        else:
            notes.put("wanted", wanted)
        try:
            self._ask(method, deadline=time.monotonic() + STATUS_SECONDS)
        except TimeoutError:
            pass
        except DriverGone as gone:
            error = self._error_after(gone.facts)
            notes.remove("wanted")
            raise error from None

    def _end(self, deadline: float | None, given_up: threading.Event) -> Ending:
        """Wait for the end of the run; errors are those of `_ask`."""
        while True:
            left = ASK_SECONDS if deadline is None else deadline - time.monotonic()
            ending: Ending | None = self._ask(
                "end", max(0.0, min(left, ASK_SECONDS)), deadline=deadline, given_up=given_up
            )
            if ending is not None:
                return ending

    def _wait(self, deadline: float | None, given_up: threading.Event) -> RunStatus:
        with contextlib.suppress(TimeoutError, DriverGone):
            self._end(deadline, given_up)
        return self.status()

    def _result(self, deadline: float | None, given_up: threading.Event) -> State | None:
        try:
            ending = self._end(deadline, given_up)
            if ending.state == "finished":
                payload = self._ask("final", deadline=deadline, given_up=given_up)
                return None if payload is None else payload.load()
        except TimeoutError:
            raise TimeoutError(f"Run '{self.name}' is not over yet.") from None
        except DriverGone as gone:
            return self._result_without_driver(gone.facts)
        if ending.state == "cancelled":
            raise RunCancelledError(self.name)
        raise ending.exception()

    # --- when there is no driver any more -----------------------------------------------------

    def _about(self) -> About | None:
        """What the run is, as far as it is known here or noted in the cluster."""
        self._check_versions()
        noted: About | None = Notes(self._actor_id).get("about")
        self._known = noted or self._known
        return self._known

    def _is_lost(self, facts: ActorFacts) -> bool:
        """Whether a dead driver was lost; one that left by itself has removed its notes."""
        return not facts.killed or Notes(self._actor_id).get("about") is not None

    def _without_driver(self, facts: ActorFacts) -> RunStatus:
        """What can be said of a run whose driver waits to be (re)placed, or is dead."""
        about = self._about()
        known = RunStatus(
            name=self.name,
            state="pending",
            run_id=about and about.run_id,
            graph=about and about.graph,
            started=about and about.started,
            restarts=facts.restarts,
            checkpoint_path=about and about.path,
        )
        if facts.state != "dead":
            return known
        if self._last is not None:
            return self._last
        if self._is_lost(facts):
            error = str(self._lost(facts))
            return replace(known, state="lost", ended=facts.ended, error=error)
        raise RunNotFoundError(self.name, self._expired())

    def _unread(self, error: str) -> RunStatus:
        """What Ray knows of a run whose driver cannot be asked, and why it cannot."""
        facts = facts_of(self._actor_id)
        state: RunState = "pending" if facts.state == "pending" else "running"
        return RunStatus(
            name=self.name,
            state=state,
            restarts=facts.restarts,
            where=facts.where,
            host=facts.host,
            error=error,
        )

    def _error_after(self, facts: ActorFacts) -> Exception:
        return (
            self._lost(facts)
            if self._is_lost(facts)
            else RunNotFoundError(self.name, self._expired())
        )

    def _result_without_driver(self, facts: ActorFacts) -> State | None:
        """The final state from the run's checkpoints, where it finished."""
        about = self._about()
        if about is not None and about.path is not None:
            data = read_newest(about)
            if data is not None and data.status == "finished":
                return data.final_state
        if self._last is not None and self._last.state == "cancelled":
            raise RunCancelledError(self.name)
        raise self._error_after(facts)

    def _lost(self, facts: ActorFacts) -> RunLostError:
        about = self._about()
        if about is None:
            what = "it did not start"
        elif about.path is None:
            what = (
                "its graph and states were nowhere else and are lost with it. With a "
                "checkpoint_path, a driver is replaced and the run goes on"
            )
        else:
            what = (
                f"it was to be replaced {about.max_restarts} times at most (max_restarts). What "
                f"is committed stands in '{about.path}': go on with "
                f"GraphExecutor.resume({about.path!r}, line={about.line!r})"
            )
        return RunLostError(self.name, facts.reason, what)

    def _expired(self) -> str:
        about = self._about()
        kept = "" if about is None else f" for the {about.keep:g} s that were asked for"
        return f"it is over, and its result was kept{kept}"


class RunEvents:
    """Iterates over the events of a hosted run; `for` and `async for` both work."""

    def __init__(self, handle: RunHandle, cursor: Cursor) -> None:
        self._handle = handle
        self._cursor = cursor
        self._over = False

    def __iter__(self) -> Iterator[Event]:
        never = threading.Event()
        while not self._over:
            yield from self._next(never)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while not self._over:
            for event in await _in_thread(self._next):
                yield event

    def _next(self, given_up: threading.Event) -> list[Event]:
        """Wait for some more; there may be none."""
        handle = self._handle
        try:
            self._cursor, events, self._over = handle._ask(
                "events", self._cursor, ASK_SECONDS, given_up=given_up
            )
        except DriverGone as gone:
            raise handle._error_after(gone.facts) from None
        found: list[Event] = events
        return found


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


async def _in_thread(call: Callable[[threading.Event], T]) -> T:
    """Wait in a thread, which is told where nobody waits for it any longer."""
    given_up = threading.Event()
    try:
        return await asyncio.to_thread(call, given_up)
    finally:
        given_up.set()
