"""The states of a run on Ray: putting, fetching, keeping in the vault, and bringing back.

A state that is lost with its machine comes back from the vault, where it was saved; else by
running what made it once more, on inputs that come back the same way. A `Recipe` is what that
takes. It pins no large state: of its inputs it keeps small ones, and the recipes of the others.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from ...errors import GraphOrchestratorException, StateLostError
from ...model.attempt import AttemptEvent, AttemptFailed, AttemptSucceeded, Launch
from ...state import State
from ..payload import Payload, dump
from ..pool import PoolFacts
from ..stored import SMALL_SAVE_BYTES, Stored, StoredPayload, Vault
from .handles import StateHandle
from .ray_errors import is_lost

RECIPES_KEPT = 10_000
"""Node executions that can be run once more for a state that was lost: the latest ones."""

RECIPE_BYTES_KEPT = 64 * 2**20
"""Bytes of small inputs that their recipes may hold together."""

STATES_PER_SAVE = 16
"""Large states that one task writes to the vault."""

LOST_LIMIT = 3
"""How often one fetch or save begins anew because a state was lost."""

Make = Callable[[Launch], Awaitable[StateHandle]]
"""Runs the code of a launch outside of the superstep, and gives the state."""


class Source(NamedTuple):
    """An input of a recipe: the handle itself where it is small, else how to find or make it."""

    handle: StateHandle | None
    alive: weakref.ref[StateHandle] | None
    like: StateHandle | None

    @classmethod
    def of(cls, handle: StateHandle, root: StateHandle | None) -> Source:
        """Point at an input; the run's initial state is what everything else comes from."""
        if handle.payload is not None or handle is root:
            return cls(handle, None, None)
        like = StateHandle(None, None, handle.nbytes, handle.size)
        like.kept, like.recipe = handle.kept, handle.recipe
        return cls(None, weakref.ref(handle), like)

    def find(self) -> StateHandle:
        """The input's handle, or one that can be made whole."""
        found = self.handle or (self.alive() if self.alive is not None else None) or self.like
        assert found is not None
        return found


class Recipe:
    """What made a state: the launch without its states, and where those come from."""

    __slots__ = ("inputs", "launch", "nbytes")

    def __init__(self, launch: Launch, root: StateHandle | None) -> None:
        self.launch = launch._replace(states=(), worker_edges=())
        self.inputs: tuple[Source, ...] | None = tuple(
            Source.of(handle, root) for handle in launch.states
        )
        self.nbytes = sum(h.nbytes for h in launch.states if h.payload is not None)


class _Tasks(NamedTuple):
    save: Any
    load: Any
    touch: Any


@cache
def _tasks() -> _Tasks:
    import ray

    light = ray.remote(num_cpus=0, max_retries=3)
    load = ray.remote(num_cpus=0, max_retries=3, num_returns=2)(_load_state)
    return _Tasks(light(_save_states), load, light(_touch))


def _touch(payload: Payload) -> None:
    """Take a state, and do nothing with it."""


def _save_states(
    vault: Vault, sizes: Sequence[int], anew: bool, *payloads: Payload
) -> list[Stored] | None:
    """Keep states, from the machine that holds them; None where the vault is not seen there."""
    if not vault.visible():
        return None
    return [
        vault.save(payload.load(), size, anew=anew)
        for payload, size in zip(payloads, sizes, strict=True)
    ]


def _load_state(kept: StoredPayload) -> tuple[str | None, Payload | None]:
    """Give what is wrong (None: nothing) and the state."""
    try:
        if not kept.vault.visible():
            return "its vault is not seen there", None
        return None, dump(kept.load(), "a state from a checkpoint")
    except GraphOrchestratorException as error:
        return str(error), None


def tell_made(made: asyncio.Future[StateHandle], event: AttemptEvent) -> None:
    """Answer who waits for a state that was to be made anew."""
    if isinstance(event, AttemptSucceeded):
        made.set_result(event.state)
    elif isinstance(event, AttemptFailed):
        text = f"What made a lost state failed when it was run again: {event.failure.message}"
        made.set_exception(StateLostError(text))


def _is_kept(handle: StateHandle, vault: Vault) -> bool:
    return handle.kept is not None and handle.kept.vault.name == vault.name


def _note_kept(vault: Vault, handles: Sequence[StateHandle], kept: Sequence[Stored]) -> None:
    for handle, stored in zip(handles, kept, strict=True):
        handle.kept = StoredPayload(vault, stored, handle.nbytes, handle.size)


class States:
    """The states of one run in the driver's hands.

    Args:
        make: runs the code of a launch again.
        facts: what is counted.

    Attributes:
        alone: Ray runs on this one machine, so that its workers see the driver's files.
        blocking: the driver is a Ray task, and may only wait in Ray itself.
        vault: where states are kept, if anywhere.
    """

    def __init__(self, make: Make, facts: PoolFacts) -> None:
        self.alone = False
        self.blocking = False
        self.vault: Vault | None = None
        self._make = make
        self._facts = facts
        self._root: StateHandle | None = None
        self._recipes: deque[Recipe] = deque()
        self._recipe_bytes = 0
        self._mending: dict[StateHandle, asyncio.Task[None]] = {}

    # --- in and out ---------------------------------------------------------------------------

    def put(self, state: State) -> StateHandle:
        """Take a private copy of a state."""
        handle = StateHandle.of(dump(state, "the initial state"))
        if self._root is None:
            self._root = handle
        return handle

    def restore(self, state: StoredPayload) -> StateHandle:
        """A handle for a state in a vault."""
        handle = StateHandle(None, None, state.nbytes, state.size)
        handle.kept = state
        return handle

    async def payload(self, handle: StateHandle) -> Payload | StoredPayload:
        """The state taken apart, here; brought back where it was lost."""
        for tries_left in reversed(range(LOST_LIMIT + 1)):
            if handle.payload is not None:
                return handle.payload
            if handle.kept is not None and handle.ref is None:
                return handle.kept
            try:
                await self.bring((handle,))
                payload: Payload = await self._got(handle.ref)
            except Exception as error:
                if not tries_left or not is_lost(error):
                    raise
                handle.suspect = True
            else:
                return payload
        raise AssertionError("the last try returns or raises")

    async def fetch(self, handle: StateHandle) -> Any:
        """A private copy of the state."""
        payload = await self.payload(handle)
        if isinstance(payload, StoredPayload):
            return await asyncio.to_thread(payload.load)  # reads files
        return payload.load()

    async def _got(self, ref: Any) -> Any:
        """Await an object in the way that is right where the driver runs."""
        if self.blocking:
            import ray

            return ray.get(ref)
        return await asyncio.wrap_future(ref.future())

    # --- keeping ------------------------------------------------------------------------------

    async def save(self, handles: Sequence[StateHandle], *, anew: bool = False) -> list[Stored]:
        """Keep states in the vault: small ones from here, large ones from where they are."""
        vault = self.vault
        assert vault is not None
        fresh = [h for h in dict.fromkeys(handles) if anew or not _is_kept(h, vault)]
        here = [h for h in fresh if h.ref is None]
        there = [h for h in fresh if h.ref is not None]
        groups = [there[i : i + STATES_PER_SAVE] for i in range(0, len(there), STATES_PER_SAVE)]
        await asyncio.gather(
            self._save_here(vault, here, anew),
            *(self._save_there(vault, group, anew) for group in groups),
        )
        return [handle.kept.stored for handle in handles if handle.kept is not None]

    async def _save_here(self, vault: Vault, handles: Sequence[StateHandle], anew: bool) -> None:
        """Write them from this process."""
        payloads = [await self.payload(handle) for handle in handles]

        def write() -> list[Stored]:
            return [
                vault.save(payload.load(), handle.size, anew=anew)
                for payload, handle in zip(payloads, handles, strict=True)
            ]

        if not handles:
            return
        small = sum(handle.nbytes for handle in handles) <= SMALL_SAVE_BYTES
        _note_kept(vault, handles, write() if small else await asyncio.to_thread(write))

    async def _save_there(self, vault: Vault, handles: Sequence[StateHandle], anew: bool) -> None:
        """Have them written by the machines that hold them, if those see the vault."""
        kept: list[Stored] | None = None
        for tries_left in reversed(range(LOST_LIMIT + 1)):
            await self.bring(handles)
            sizes = [handle.size for handle in handles]
            refs = [handle.ref for handle in handles]
            if not vault.shared or None in refs:  # some came back as small, or from a vault
                break
            try:
                kept = await self._got(_tasks().save.remote(vault, sizes, anew, *refs))
                break
            except Exception as error:
                if not tries_left or not is_lost(error):
                    raise
                self.doubt(handles)
        if kept is None:
            await self._save_here(vault, handles, anew)
        else:
            _note_kept(vault, handles, kept)

    # --- bringing back ------------------------------------------------------------------------

    def made(self, handle: StateHandle, launch: Launch) -> None:
        """Remember how a state that could be lost was made."""
        if handle.payload is not None:
            return
        recipe = handle.recipe = Recipe(launch, self._root)
        self._recipes.append(recipe)
        self._recipe_bytes += recipe.nbytes
        while len(self._recipes) > RECIPES_KEPT or self._recipe_bytes > RECIPE_BYTES_KEPT:
            oldest = self._recipes.popleft()
            self._recipe_bytes -= oldest.nbytes
            oldest.inputs = None

    def at_hand(self, handles: Iterable[StateHandle]) -> bool:
        """Whether an attempt on these states could start, as far as is known."""
        return all(
            h.payload is not None
            or (h.ref is not None and not h.suspect)
            or (h.ref is None and not h.suspect and self._is_direct(h.kept))
            for h in handles
        )

    def _is_direct(self, kept: StoredPayload | None) -> bool:
        """Whether workers read a state from its vault themselves: here, it is mapped for all."""
        return self.alone and kept is not None and kept.vault.mapped

    def doubt(self, handles: Iterable[StateHandle]) -> None:
        """One of these is gone. Which one, is looked into when they are needed next."""
        for handle in handles:
            handle.suspect = handle.payload is None

    async def bring(self, handles: Iterable[StateHandle]) -> None:
        """Have these states where attempts can take them.

        Raises:
            StateLostError: one is gone for good.
        """
        wanted = [h for h in dict.fromkeys(handles) if not self.at_hand((h,))]
        for handle in wanted:
            if handle not in self._mending:
                task = asyncio.ensure_future(self._mend(handle))
                self._mending[handle] = task
                task.add_done_callback(partial(self._mended, handle))
        await asyncio.gather(*(asyncio.shield(self._mending[handle]) for handle in wanted))

    def _mended(self, handle: StateHandle, _: asyncio.Task[None]) -> None:
        self._mending.pop(handle, None)

    async def _mend(self, handle: StateHandle) -> None:
        if handle.ref is not None and handle.suspect:
            if not await self._is_gone(handle.ref):
                handle.suspect = False
                return
            handle.ref = None
        reason = "It was in no checkpoint"
        if handle.kept is not None:
            wrong = await self._take_from_vault(handle, handle.kept)
            if wrong is None:
                return
            handle.kept = None
            reason = f"Its checkpoint could not be read ({wrong})"
        recipe = handle.recipe
        if recipe is None or recipe.inputs is None:
            raise StateLostError(
                f"A state is gone with the machine that held it. {reason}, and what made it "
                f"{'is too long ago' if recipe else 'is not known'} to be run again. Write "
                "checkpoints (checkpoint_path=..., checkpoint_every=1), and resume from there."
            )
        inputs = [source.find() for source in recipe.inputs]
        await self.bring(inputs)
        made = await self._make(recipe.launch._replace(states=tuple(inputs)))
        handle.payload, handle.ref, handle.suspect = made.payload, made.ref, False
        self._facts.states_remade += 1

    async def _is_gone(self, ref: Any) -> bool:
        """Whether an object is lost: a task that wants it, and runs where it is, finds out.

        Ray's own account of where objects are lists a machine even for one that is lost.
        """
        try:
            await self._got(_tasks().touch.remote(ref))
        except Exception as error:
            if not is_lost(error):
                raise
            return True
        return False

    async def _take_from_vault(self, handle: StateHandle, kept: StoredPayload) -> str | None:
        """Load a state into Ray, on any machine that sees the vault, else from here.

        Gives what is wrong, or None.
        """
        if kept.vault.shared:
            wrong, ref = _tasks().load.remote(kept)
            try:
                if await self._got(wrong) is None:
                    handle.ref, handle.suspect = ref, False
                    return None
            except Exception as error:
                if not is_lost(error):
                    raise
        try:
            state = await asyncio.to_thread(kept.load)
        except GraphOrchestratorException as error:
            return str(error)
        own = StateHandle.of(dump(state, "a state from a checkpoint"))
        handle.payload, handle.ref, handle.suspect = own.payload, own.ref, False
        return None

    def stop(self) -> None:
        """Bring nothing back any more."""
        for task in self._mending.values():
            task.cancel()

    def clear(self) -> None:
        """Let go of what the run held."""
        self.stop()
        self._recipes.clear()
        self._root = None
