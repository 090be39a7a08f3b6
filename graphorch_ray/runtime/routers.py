"""Routers that are asked in the driver: coroutines on its event loop, functions in its threads."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from ..model.attempt import Failure
from .attempt import CLEANUP_SECONDS, ask_on_loop, said, waited_for
from .failures import capture
from .payload import Payload
from .pool import RunContext, router_of
from .stored import StoredPayload
from .threads import DaemonThreads

Told = Callable[[str | Failure], None]
"""Told what a router answered, or how it failed."""


class Routers:
    """Asks the routers of one run.

    Args:
        context: the run.
        threads: where functions run.
    """

    def __init__(self, context: RunContext, threads: DaemonThreads) -> None:
        self._context = context
        self._threads = threads
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._in_threads = 0
        self._stops = 0

    @property
    def busy(self) -> bool:
        """Whether one has not answered."""
        return bool(self._tasks or self._in_threads)

    def ask(self, owner_id: str, edge: int, payload: Payload | StoredPayload, told: Told) -> None:
        """Ask the router of a node's outgoing edge number `edge` about a private copy."""
        router = router_of(self._context.graph, owner_id, edge)
        if inspect.iscoroutinefunction(router):
            self._await(owner_id, ask_on_loop(router, payload, self._threads), told)
            return
        stops = self._stops
        self._in_threads += 1

        def settle(answer: Any, error: BaseException | None) -> None:
            if stops != self._stops:
                return
            self._in_threads -= 1
            if error is not None:
                told(capture(error))
            elif inspect.isawaitable(answer):
                self._await(owner_id, waited_for(answer), told)
            else:
                told(said(answer))

        self._threads.submit(settle, lambda: router(payload.load()))

    def ask_about(
        self,
        owner_id: str,
        edge: int,
        fetched: Awaitable[Payload | StoredPayload],
        told: Told,
    ) -> None:
        """The same, about a state that is on its way."""

        async def answer() -> str | Failure:
            try:
                payload = await fetched
            except Exception as error:
                return Failure(type(error).__name__, (), str(error), exception=error)
            router = router_of(self._context.graph, owner_id, edge)
            return await ask_on_loop(router, payload, self._threads)

        self._await(owner_id, answer(), told)

    def _await(self, owner_id: str, answer: Awaitable[str | Failure], told: Told) -> None:
        stops = self._stops

        async def tell() -> None:
            said = await answer
            if stops == self._stops:
                told(said)

        task = asyncio.get_running_loop().create_task(tell())
        self._tasks[task] = owner_id
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def stop(self) -> None:
        """Cancel the routers, and give up those that do not stop, as node code is given up."""
        self._stops += 1
        self._in_threads = 0
        tasks, self._tasks = self._tasks, {}
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=CLEANUP_SECONDS)
            for task in stuck:
                self._context.warn(
                    f"A router of node {tasks[task]!r} does not stop when it is cancelled. It is "
                    "left to itself, and its answer is ignored."
                )
