"""`backend="inline"`: everything in the caller's process, for tests, debuggers and notebooks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..model.attempt import AttemptEvent, Launch
from ..state import State
from .driver import DriverSide
from .payload import Payload, dump
from .pool import PoolFacts, RunContext
from .routers import Told
from .stored import SMALL_SAVE_BYTES, Stored, StoredPayload, Vault

Handle = Payload | StoredPayload

QUICK_SECONDS = 0.0005
"""A sync node that took less the last time is waited for without the event loop, that long."""

STAGGER_SECONDS = 0.02
"""How long a sync node has the process to itself before the next one starts beside it."""


class InlinePool:
    """Runs nodes on the event loop (async) and in threads (sync) of this process.

    Short sync functions run one after another, in launch order, so that closures over variables
    of the program see what they would see in one thread; a function that blocks is overtaken.

    The rules are those of the Ray backend: private copies, read-only large buffers, the same
    errors. What it cannot do is stop blocking code, or use more than one core for Python code.
    """

    def __init__(self) -> None:
        self.facts = PoolFacts()
        self.vault: Vault | None = None
        self._queue: deque[Launch] = deque()
        self._quick: dict[str, bool] = {}  # nodes whose last execution was over at once
        self._used = 0
        self._first: Launch | None = None  # the sync node that the next one waits a moment for
        self._first_began = 0.0
        self._stagger: asyncio.TimerHandle | None = None

    async def start(self, context: RunContext) -> None:
        """Get ready; there is nothing to connect to."""
        self._driver = DriverSide(context, local=True)
        self._context = context

    def begin_superstep(self, deadline: float | None, ahead: int) -> None:
        """Remember the deadline (Unix time in seconds, or None)."""
        self._driver.begin_superstep(deadline)

    def launch(self, launches: Sequence[Launch]) -> None:
        """Start what has a slot, queue the rest."""
        passed: list[AttemptEvent] = []
        for launch in launches:
            node = self._driver.node(launch)
            if node.is_passthrough:
                state = launch.states[0]
                passed.append(
                    self._driver.pass_through(launch, nbytes=state.nbytes, size=state.size)
                )
            elif node.holds_slot:
                self._queue.append(launch)
            else:
                self._driver.begin(launch, launch.states, self._finished)
        if passed:
            self._context.deliver(passed)
        self._pump()

    def _pump(self) -> None:
        while self._queue and self._used < self._context.max_workers:
            launch = self._queue[0]
            if not self._driver.node(launch).is_async:
                if self._first is not None:
                    self._wait_for(self._first)
                    return
                self._first = launch
                self._first_began = asyncio.get_running_loop().time()
            self._queue.popleft()
            self._used += 1
            self._driver.begin(launch, launch.states, self._ended)

    def _wait_for(self, first: Launch) -> None:
        if self._stagger is None:
            loop, due = asyncio.get_running_loop(), self._first_began + STAGGER_SECONDS
            self._stagger = loop.call_at(due, self._overtake, first)

    def _overtake(self, launch: Launch) -> None:
        """Let the next sync node start beside or after this one."""
        if self._first is launch:
            self._first = None
            if self._stagger is not None:
                self._stagger.cancel()
                self._stagger = None
            self._pump()

    def _ended(self, launch: Launch, event: AttemptEvent, payload: Payload | None) -> None:
        self._used -= 1
        started, ended = event.facts.started, event.facts.ended
        if started is not None and ended is not None:
            self._quick[launch.node_id] = ended - started < QUICK_SECONDS
        self._finished(launch, event, payload)
        self._overtake(launch)
        self._pump()

    def _finished(self, launch: Launch, event: AttemptEvent, payload: Payload | None) -> None:
        self._context.deliver([event])

    def ask(self, owner_id: str, edge: int, state: Handle, told: Told) -> None:
        """Ask a router."""
        self._driver.routers.ask(owner_id, edge, state, told)

    async def wait(self, mailbox: asyncio.Event) -> bool:
        """Wait on the event loop; but for what is surely over at once, in this thread."""
        launch = self._first
        if launch is not None and self._used == 1 and self._quick.get(launch.node_id):
            self._quick[launch.node_id] = False  # until it has shown that it still is
            if self._driver.wait_for(launch, QUICK_SECONDS):
                return False
        await mailbox.wait()
        return True

    async def stop(self) -> None:
        """Cancel coroutines, give up threads."""
        self._queue.clear()
        self._first = None
        if self._stagger is not None:
            self._stagger.cancel()
            self._stagger = None
        await self._driver.stop()
        self._used = 0

    async def close(self) -> None:
        """Stop, and give back the threads."""
        await self.stop()
        self._driver.close()

    def put(self, state: State) -> Payload:
        """Take a private copy of a state."""
        return dump(state, "the initial state", local=True).compact()

    def get(self, handle: Handle) -> Any:
        """A private copy of the state."""
        return handle.load()

    async def fetch(self, handle: Handle) -> Any:
        """A private copy of the state."""
        return handle.load()

    def has(self, handle: Handle) -> bool:
        """Always: states are here."""
        return True

    async def save(self, handles: Sequence[Handle], *, anew: bool = False) -> list[Stored]:
        """Keep states in the vault, where they are not kept already."""
        vault = self.vault
        assert vault is not None

        def write() -> list[Stored]:
            return [self._keep(vault, handle, anew) for handle in handles]

        small = sum(handle.nbytes for handle in handles) <= SMALL_SAVE_BYTES
        return write() if small else await asyncio.to_thread(write)

    def _keep(self, vault: Vault, handle: Handle, anew: bool) -> Stored:
        kept = handle if isinstance(handle, StoredPayload) else handle.kept
        if kept is None or kept.vault.name != vault.name or anew:
            stored = vault.save(handle.load(), handle.size, anew=anew)
            kept = StoredPayload(vault, stored, handle.nbytes, handle.size)
            if isinstance(handle, Payload):
                handle.kept = kept
        return kept.stored

    def restore(self, state: StoredPayload) -> StoredPayload:
        """A handle for a state in a vault."""
        return state
