"""The checkpoints of a run: when one is due, what goes into it, and who may write it.

A `Keeper` belongs to an executor and stands between its runs and the store. Writing overlaps the
next superstep and is at most one checkpoint behind; states are saved by the pool, by the machines
that hold them, and the manifest follows last.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .checkpoint.data import find, from_manifest
from .checkpoint.files import local_path
from .checkpoint.kept import KeptStates
from .checkpoint.manifest import Active, Blob, Done, Header, Manifest
from .checkpoint.place import PatientFiles
from .checkpoint.places import open_store
from .checkpoint.settings import CheckpointSettings
from .checkpoint.vault import Kept, vault_of
from .engine import Activation, Finished, Phase, SuperstepMachine
from .errors import CheckpointConflictError, CheckpointError
from .restoring import data_of, move_to, say_created
from .runtime import Pool
from .telemetry import events as ev

if TYPE_CHECKING:
    from .executor import GraphExecutor

QUICK_SECONDS = 0.004
"""A disk of this machine's own that commits this fast is written to without a thread.

The way to a thread and back takes as long as such a commit does, and slow disks are not waited
for on the event loop: each commit says how the next one is made."""

CLOSE_SECONDS = 10.0
"""How long a run that was cancelled waits for its last checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a checkpoint is to hold. Handles are the pool's."""

    kind: str
    status: str
    superstep: int
    frontier: tuple[Activation, ...]
    final: Any
    done: tuple[Finished, ...] = ()

    def handles(self) -> list[Any]:
        """Every state in it, each once."""
        found = [state for active in self.frontier for state in active.states]
        found += [result.output for result in self.done]
        if self.final is not None:
            found.append(self.final)
        return list(dict.fromkeys(found))


class Keeper:
    """Writes the checkpoints of one executor, and reads them where its run goes back to one.

    Args:
        executor: whose run it keeps.
        path: where.
        settings: how.

    Attributes:
        path: where, as it was given.
        fault: why the run may not go on, once writing failed for good.
    """

    def __init__(self, executor: GraphExecutor, path: str, settings: CheckpointSettings) -> None:
        self.path = path
        self.fault: CheckpointError | None = None
        self._executor = executor
        self._durability = settings.get("checkpoint_durability", "async")
        self._granularity = settings.get("checkpoint_granularity", "superstep")
        self._on_error = settings.get("on_checkpoint_error", "raise")
        self._store = open_store(
            path,
            storage_options=settings.get("storage_options"),
            key=settings.get("checkpoint_key"),
            allow_pickle=settings.get("allow_pickle", False),
            compression=settings.get("checkpoint_compression"),
            keep_last=settings.get("keep_last", 3),
        )
        self._line: Any = None
        self._files: PatientFiles
        self._options: dict[str, Any] = {}
        self._pool: Pool
        self._wake: Callable[[], None]
        self._warn: Callable[[str], None]
        self._writing: asyncio.Task[None] | None = None
        self._progressed: SuperstepMachine | None = None
        self._newest: Manifest | None = None
        self._took = float("inf")  # seconds of the last commit
        self._warned = False
        self._unfinished: str | None = None
        self._unrecorded = False

    # --- a run begins -------------------------------------------------------------------------

    async def open(
        self,
        pool: Pool,
        wake: Callable[[], None],
        warn: Callable[[str], None],
        *,
        own_line: bool = False,
    ) -> bool:
        """Take a line to write to, and give the pool its vault.

        Args:
            pool: the pool of the run.
            wake: called when `fault` is set.
            warn: where a sentence goes that the user should read.
            own_line: begin a line with a header of this executor's own in any case.

        Returns:
            Whether nothing in the line tells where this run stands, so that it is to be recorded.

        Raises:
            CheckpointError: the place cannot be written to.
            CheckpointConflictError: another driver has taken the run further meanwhile.
        """
        self._pool, self._wake, self._warn = pool, wake, warn
        self.fault = None
        if self._line is None:
            self._options = data_of(self._executor).options()
            self._unrecorded = await asyncio.to_thread(self._take_line, own_line)
            if self._unfinished is not None:
                warn(self._unfinished)
        self._files = self._store.place.files()
        pool.vault = vault_of(self._store, self._line)
        return self._unrecorded

    @property
    def is_bonus(self) -> bool:
        """Whether the run may go on without what could not be written."""
        return self._on_error == "warn"

    @property
    def line_name(self) -> str:
        """The line that is written to, once it is open."""
        name: str = self._line.name
        return name

    @property
    def graph_error(self) -> str | None:
        """Why the line does not hold the graph, once it is open; None where it does."""
        header: Header = self._line.header
        return None if header.graph is not None else str(header.extra.get("graph_error"))

    def _take_line(self, own_line: bool) -> bool:
        origin, kept = self._executor._origin, self._executor._origin_kept
        if origin is None or kept is None or not _same_place(origin.url, self._store.url):
            self._tell_of_unfinished()
            self._begin_line(None)
            return True
        line = self._store.line(origin.line)
        wanted = partial(_tells_of, superstep=self._executor.superstep, kept=kept)
        newest = line.newest()
        if newest is not None and wanted(newest):
            newest = line.claim(wanted)
            if newest.writer == line.writer:
                return self._go_on_in(line, newest, own_line, moved=not wanted(newest))
        if self._executor._wants_newest and newest is not None:
            raise self._overtaken(line, newest)
        if not self._store.keeps_history:
            raise CheckpointConflictError(
                f"'{self._store.url}' does not hold the checkpoint any more that this run was to "
                "go on from: another driver has written a newer one, and a single file keeps no "
                "other. Resume from there, or give checkpoint_path=... another path."
            )
        self._executor.branch += f"/{uuid.uuid4().hex[:8]}"
        self._branch_off(line, origin.seq)
        return True

    def _go_on_in(self, line: Any, claimed: Manifest, own_line: bool, *, moved: bool) -> bool:
        """Write to a line that is this run's from now on.

        Where its owner before has `moved` on while it was claimed, that one stops, so this run goes
        on from there: one of them has to.
        """
        executor = self._executor
        if moved:
            if executor._kept is None or claimed.status == "finished":
                raise self._overtaken(line, claimed)
            move_to(executor, from_manifest(self._store, line, claimed))
        self._newest = claimed
        same = line.header.fingerprint in ("", executor.graph.fingerprint)
        if own_line or not same:
            self._branch_off(line, claimed.seq)  # a line's header tells of its graph
            return True
        self._line = line
        return executor._kept is None  # somebody has read the states, to change them?

    def _overtaken(self, line: Any, newest: Manifest) -> CheckpointConflictError:
        return CheckpointConflictError(
            f"Another driver has taken the run further in '{self._store.url}' (line {line.name}, "
            f"superstep {newest.superstep}). Resume from there."
        )

    def _begin_line(self, parent: tuple[str, int] | None) -> None:
        data = data_of(self._executor)
        self._line = self._store.create_line(lambda blobs: data.header(blobs, parent))

    def _branch_off(self, line: Any, seq: int) -> None:
        """Begin a line of its own from a checkpoint, which is kept from now on."""
        if self._store.keeps_history:
            line.pin(f"fork-{uuid.uuid4().hex[:8]}", seq)
        self._begin_line((line.name, seq))

    def _tell_of_unfinished(self) -> None:
        """Note where the place holds a run that was not finished."""
        try:
            line, newest = find(self._store)
        except FileNotFoundError:
            return
        if newest.status == "finished" or line.header.run_id == self._executor.run_id:
            return
        url = self._store.url
        self._unfinished = (
            f"'{url}' holds run {line.header.run_id or '?'}, which is not finished "
            f"({newest.status} at superstep {newest.superstep}). "
        ) + (
            "This is a new run, beside it. To go on with the other: "
            f"GraphExecutor.resume({url!r}, line={line.name!r})."
            if self._store.keeps_history
            else "This is a new run, which takes its place. Give a directory as the path to keep "
            f"both; to go on with a run: GraphExecutor.resume({url!r})."
        )

    # --- writing ------------------------------------------------------------------------------

    async def record(self, kind: str, status: str, machine: SuperstepMachine) -> None:
        """Write a checkpoint of where the machine stands, and wait until it is durable."""
        await self.flush()
        await self._write(self._snapshot(kind, status, machine))
        self.check()
        self._unrecorded = False

    def barriers_between(self, superstep: int) -> int | None:
        """Barriers after a superstep before the next one at which this has something to write.

        None where it writes at none.
        """
        every = self._executor.checkpoint_every
        if self._durability == "exit":
            return None
        if self._granularity == "node":
            return 0
        return every - 1 - superstep % every if every else None

    async def at_barrier(self, machine: SuperstepMachine) -> None:
        """A superstep is over, and a checkpoint of it is due."""
        if self._durability == "exit":
            return
        await self.flush()
        snapshot = self._snapshot("superstep", "running", machine)
        if self._durability == "sync":
            await self._write(snapshot)
            self.check()
        else:
            self._writing = asyncio.ensure_future(self._write_on(snapshot))

    def progressed(self, machine: SuperstepMachine) -> None:
        """An execution is done; keep that, if each node's is to be kept."""
        if self._granularity != "node" or self._durability == "exit":
            return
        if machine.phase is not Phase.RUNNING:
            return
        self._progressed = machine
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_progress())

    async def _write_on(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, and then what nodes have given meanwhile."""
        await self._write(snapshot)
        await self._write_progress()

    async def _write_progress(self) -> None:
        """Write what nodes have given, as long as they give more."""
        while (machine := self._progressed) is not None and self.fault is None:
            self._progressed = None
            await self._write(self._snapshot("partial", "running", machine))

    def _snapshot(self, kind: str, status: str, machine: SuperstepMachine) -> Snapshot:
        say_created(self._executor, machine)
        return Snapshot(
            kind=kind,
            status=status,
            superstep=machine.superstep,
            frontier=machine.frontier,
            final=machine.final_state,
            done=tuple(machine.finished) if kind == "partial" else (),
        )

    async def flush(self) -> None:
        """Wait for the checkpoint that is being written.

        Raises:
            CheckpointError: it could not be written.
        """
        self._progressed = None
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing
        self.check()

    def check(self) -> None:
        """Raise what ended the writing, if anything did."""
        if self.fault is not None:
            raise self.fault

    async def close(self, unfinished: SuperstepMachine | None) -> None:
        """Let the last write end, for some seconds at most. Raises nothing.

        Args:
            unfinished: the machine of a run that was cancelled; where it stands is recorded.
        """
        self._progressed = None
        writing, self._writing = self._writing, None
        if self.fault is not None or self._line is None:
            unfinished = None

        async def end() -> None:
            if writing is not None:
                await writing
            if unfinished is not None and self._is_behind(unfinished):
                await self._write(self._snapshot("superstep", "running", unfinished))
            if self._line is not None:
                with contextlib.suppress(CheckpointError):  # what it leaves does no harm
                    await asyncio.to_thread(self._line.release)

        ending = asyncio.ensure_future(end())
        await asyncio.wait((ending,), timeout=CLOSE_SECONDS)
        ending.cancel()

    def _is_behind(self, machine: SuperstepMachine) -> bool:
        return self._newest is None or self._newest.superstep < machine.superstep

    async def _write(self, snapshot: Snapshot) -> None:
        """Write a checkpoint. What goes wrong becomes `fault`."""
        started = time.perf_counter()
        try:
            handles = snapshot.handles()
            kept = await self._pool.save(handles)
            manifest = self._manifest(snapshot, dict(zip(handles, kept, strict=True)))
            reused = [blob for item in kept for blob in item.reused]
            if self._took < QUICK_SECONDS and self._files.own_disk:
                missing = self._commit(manifest, reused)
            else:
                missing = await asyncio.to_thread(self._commit, manifest, reused)
            if missing:  # pruned by the owner before us, while it was on its way out
                await self._pool.save(handles, anew=True)
        except CheckpointConflictError as error:
            self._fail(error)
        except Exception as error:
            self._fail(self._unwritten(snapshot, error))
        else:
            executor = self._executor
            executor._hub.say(
                ev.CheckpointSaved,
                superstep=snapshot.superstep,
                path=self._store.url,
                active_nodes=tuple(active.node_id for active in snapshot.frontier),
                bytes=sum(stored.nbytes for stored in manifest.states),
                seconds=time.perf_counter() - started,
                lag=executor._hub.since_barrier(),
            )

    def _manifest(self, snapshot: Snapshot, kept: dict[Any, Kept]) -> Manifest:
        numbers = {handle: number for number, handle in enumerate(kept)}
        return Manifest(
            kind=snapshot.kind,
            status=snapshot.status,
            superstep=snapshot.superstep,
            states=tuple(item.stored for item in kept.values()),
            active=tuple(
                Active(a.node_id, a.sources, tuple(numbers[state] for state in a.states))
                for a in snapshot.frontier
            ),
            final=None if snapshot.final is None else numbers[snapshot.final],
            done=tuple(
                Done(
                    result.execution,
                    result.role,
                    numbers[result.output],
                    {k: v for k, v in result.routes.items() if isinstance(v, str)},
                )
                for result in snapshot.done
            ),
            options=self._options,
            trace=self._executor._hub.capture(),
        )

    def _commit(self, manifest: Manifest, reused: Sequence[Blob]) -> list[Blob]:
        started, self._took = time.perf_counter(), float("inf")
        self._newest = self._line.commit(manifest)
        missing: list[Blob] = self._line.missing(reused)
        if not missing:
            self._line.prune(lazily=manifest.kind == "superstep")
        self._took = time.perf_counter() - started
        return missing

    def _unwritten(self, snapshot: Snapshot, error: Exception) -> CheckpointError:
        last = (
            "There is none before it"
            if self._newest is None
            else f"The last good one is of superstep {self._newest.superstep}: go on from it "
            f"with GraphExecutor.resume({self._store.url!r})"
        )
        told = CheckpointError(
            f"The checkpoint of superstep {snapshot.superstep} could not be written to "
            f"'{self._store.url}': {error} {last}."
        )
        told.__cause__ = error
        return told

    def _fail(self, error: CheckpointError) -> None:
        """Note a failure: it ends the run, or is told once where checkpoints are a bonus."""
        if self.is_bonus and not isinstance(error, CheckpointConflictError):
            if not self._warned:
                self._warned = True
                self._warn(f"{error} The run goes on (on_checkpoint_error='warn').")
            return
        self.fault = error
        self._wake()

    # --- going back ---------------------------------------------------------------------------

    async def newest(self) -> tuple[int, KeptStates]:
        """Where the newest checkpoint of this run stands."""
        await self.flush()
        manifest, known = await asyncio.to_thread(self._line.newest), self._newest
        if manifest is not None and known is not None:
            taken = replace(manifest, epoch=known.epoch, writer=known.writer, kind=known.kind)
            if taken == known:
                manifest = known  # as it was written here, whoever can write to the place
        if manifest is None or manifest.writer != self._line.writer:
            raise CheckpointError(
                f"The checkpoint in '{self._store.url}' to go back to is another run's by now, or "
                "gone. Give each run a path of its own."
            )
        data = from_manifest(self._store, self._line, manifest)
        assert data.kept is not None
        return data.superstep, data.kept


def _same_place(one: str, other: str) -> bool:
    return (local_path(one) or one) == (local_path(other) or other)


def _tells_of(manifest: Manifest, superstep: int, kept: KeptStates) -> bool:
    """Whether a manifest tells of the very point at which a checkpoint was taken."""
    stored = tuple(item.stored for item in kept.states)
    return (superstep, stored, kept.active, kept.final, kept.done) == (
        manifest.superstep,
        manifest.states,
        manifest.active,
        manifest.final,
        manifest.done,
    )
