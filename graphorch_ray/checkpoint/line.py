"""One line of a store: its manifests, who may write them, and what is kept of them."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import socket
import time
import urllib.parse
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import failpoints
from ..errors import CheckpointConflictError, CheckpointError, GraphWarning
from .blobs import Blobs, blob_name
from .files import walk_down
from .manifest import Blob, DamagedError, Header, Manifest, NewerVersionError, SignatureError
from .pruning import Holdings, retained

if TYPE_CHECKING:
    from .store import Store

__all__ = ["Line", "said", "writer_id"]

_GROUP = 1000  # manifests to a directory: listing one costs one request
_MOST_RACES = 100
_MOST_LISTINGS = 5
_LONGEST_PIN = 200
_LOT = 16  # manifests without blobs that are pruned together


def writer_id() -> str:
    """Return a name for an owner of a line that no other has: user, host, process, random."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} pid {os.getpid()} ({secrets.token_hex(4)})"


class Line:
    """A sequence of checkpoints with one owner.

    Made by `Store.create_line`, which makes this process its owner, or by `Store.line`; then
    `claim` makes this process its owner. Reading needs no owner. Not safe for use by two threads
    at once.

    Attributes:
        name: its number in the store, as six digits.
        header: what it says of itself.
        blobs: where its large values are.
        writer: who this process is to other owners.
        epoch: this owner's epoch; 0 before `claim`.
    """

    def __init__(self, store: Store, name: str, header: Header, *, created: bool) -> None:
        self._store = store
        self._files = store.place.files()
        self._folder = f"lines/{name}"
        self.name = name
        self.header = header
        self.blobs = Blobs(store.place, name, header.nonce, store.compression)
        self.writer = header.writer if created else writer_id()
        self.epoch = 1 if created else 0
        self._next = 1
        self._taken = 0  # the highest number known to be taken, whatever a listing says
        self._fences: tuple[int, ...] = ()
        self._lost: CheckpointConflictError | None = None
        self._holdings = Holdings()
        self._holdings.keep_always(blob_name(blob) for blob in header.blobs())
        self._surveyed = created
        self._may_prune = False
        self._orphans: dict[str, float] = {}

    # --- reading ------------------------------------------------------------------------------

    def newest(self, *, before: int | None = None) -> Manifest | None:
        """Return the newest valid manifest, or None where there is none.

        What is torn, damaged or forged is passed over with a warning that names the file.

        Args:
            before: only those with a lower number.

        Raises:
            CheckpointError: the newest was written by a newer version of this library.
        """
        return self._newest(before)[0]

    def at(self, superstep: int) -> Manifest:
        """Return the newest complete manifest that stands before a superstep.

        Raises:
            CheckpointError: there is none; the message lists those that there are.
        """
        there = set()
        for _, manifest in self._descend():
            if manifest is not None and manifest.complete:
                if manifest.superstep == superstep:
                    return manifest
                there.add(manifest.superstep)
        listed = ", ".join(map(str, sorted(there))) or "none"
        raise CheckpointError(
            f"Line {self.name} of '{self._store.url}' has no checkpoint of superstep {superstep}; "
            f"it has those of: {listed}. Older ones are pruned, unless keep_last or a savepoint "
            "keeps them."
        )

    def manifests(self) -> list[tuple[int, Manifest | None]]:
        """Return every number that is taken, oldest first, with None where it cannot be read."""
        return list(self._descend())[::-1]

    def pins(self) -> dict[str, int]:
        """Return the pinned manifests' numbers by the names of their pins."""
        found = {}
        for file in self._files.names(f"{self._folder}/pins"):
            name, _, seq = file.rpartition("@")
            if seq.isdecimal():
                found[urllib.parse.unquote(name)] = int(seq)
        return found

    # --- owning -------------------------------------------------------------------------------

    def claim(self, wanted: Callable[[Manifest], bool] | None = None) -> Manifest:
        """Become the owner: the one before finds its next number taken, and stops.

        Args:
            wanted: whether to go on from a manifest, where it is the newest; None: always.

        Returns:
            A copy of the newest valid manifest, with the next epoch and this process as writer; or
            the newest itself where that is not wanted. Then nothing is claimed and nobody stopped.

        Raises:
            CheckpointError: there is nothing to go on from, or it could not be written.
            CheckpointConflictError: another process is claiming it at the same time, and wins.
        """
        failpoints.reach("claim.before")
        late: Manifest | None = None
        tried: set[int] = set()
        for _ in range(_MOST_RACES):
            newest, unreadable = self._newest(None)
            newest = late or newest
            if newest is None:
                raise CheckpointError(
                    f"Line {self.name} of '{self._store.url}' has no readable checkpoint to go on "
                    "from."
                )
            if wanted is not None and not (late or tried or wanted(newest)):
                return newest
            seq = max(newest.seq, self._taken, *unreadable, *tried, 0) + 1
            claimed = replace(
                newest,
                seq=seq,
                epoch=newest.epoch + 1,
                writer=self.writer,
                kind="claim",
                created=self._store.clock(),
                fences=(*newest.fences, *sorted({*unreadable, *tried, seq})),
            )
            try:
                self._create(claimed)
            except FileExistsError:
                self._taken = seq
                self._yield_to_claim(seq, newest.epoch)
                continue
            self._taken = seq
            tried.add(seq)
            if self._outrun(seq):
                continue
            # Where files do not appear whole, one that was half written may be whole now.
            late = None if self._files.atomic else self._first_whole(unreadable)
            if late is not None:
                continue
            self.epoch, self._next, self._fences = claimed.epoch, seq + 1, claimed.fences
            self._lost = None
            self._holdings.add(newest)
            self._holdings.add(claimed)
            failpoints.reach("claim.after")
            return claimed
        raise CheckpointConflictError(
            f"Line {self.name} of '{self._store.url}' cannot be claimed: its owner commits faster "
            "than this process reads."
        )

    def commit(self, manifest: Manifest) -> Manifest:
        """Write the next manifest, create-only. When it returns the checkpoint is durable.

        Args:
            manifest: line, seq, epoch, writer, created and fences are filled in.

        Returns:
            The manifest as it was written.

        Raises:
            CheckpointConflictError: another process has claimed the line. Nothing was changed,
                and nothing more will be.
            CheckpointError: it could not be written; the one before is still the newest.
        """
        if self._lost is not None:
            raise CheckpointConflictError(*self._lost.args)
        if not self.epoch:
            raise CheckpointError(f"Line {self.name} must be claimed before it is written to.")
        failpoints.reach("manifest.before")
        while True:
            made = replace(
                manifest,
                line=self.name,
                seq=self._next,
                epoch=self.epoch,
                writer=self.writer,
                created=self._store.clock(),
                fences=self._fences,
                trusted=True,
            )
            try:
                self._create(made)
                break
            except FileExistsError:
                self._step_over(made)
        self._next += 1
        if not self._files.atomic:
            self._check_alone(made)
        self._holdings.add(made)
        self._may_prune = True
        failpoints.reach("manifest.after")
        return made

    def missing(self, blobs: Iterable[Blob]) -> list[Blob]:
        """Return those of some reused blobs that are not in the store any more.

        To be asked of blobs that `Blobs.put` found there already, after the manifest that names
        them is written: a prune may have come between. Those that an earlier manifest also names
        are not looked for. Put the missing ones again with `force`.
        """
        return [
            blob
            for blob in dict.fromkeys(blobs)
            if not self._holdings.named_before(blob_name(blob))
            and self._files.size(blob_name(blob)) != blob.stored
        ]

    # --- keeping ------------------------------------------------------------------------------

    def pin(self, name: str, seq: int) -> None:
        """Keep a manifest, and what it names, until the pin is taken out.

        Raises:
            CheckpointError: the name is in use for another manifest, cannot be a file's name, or
                there is no such manifest.
        """
        quoted = urllib.parse.quote(name, safe="").replace(".", "%2E")
        if not quoted or len(quoted) > _LONGEST_PIN:
            raise CheckpointError(
                f"The name of a savepoint must have 1 to {_LONGEST_PIN} bytes, not {name!r}"
            )
        there = self.pins().get(name)
        if there is not None and there != seq:
            raise CheckpointError(
                f"Line {self.name} of '{self._store.url}' has a savepoint {name!r} already "
                f"(manifest {there}); choose another name."
            )
        if self._files.size(self._path(seq)) is None:
            raise CheckpointError(
                f"Line {self.name} of '{self._store.url}' has no manifest {seq} to pin."
            )
        if there is None:
            with contextlib.suppress(FileExistsError):  # the same call in two places
                self._files.create(f"{self._folder}/pins/{quoted}@{seq}", name.encode())

    def unpin(self, name: str) -> None:
        """Take out a pin; harmless where there is none."""
        quoted = urllib.parse.quote(name, safe="").replace(".", "%2E")
        self._files.delete(
            f"{self._folder}/pins/{file}"
            for file in self._files.names(f"{self._folder}/pins")
            if file.rpartition("@")[0] == quoted
        )

    def release(self) -> None:
        """Do nothing: an owner at rest stands in nobody's way."""

    def prune(self, keep: Iterable[Blob] = (), *, lazily: bool = False) -> None:
        """Delete what `keep_last` does not keep. Does nothing except after an own commit.

        Kept are the newest complete manifest of each of the newest `keep_last` supersteps, the
        newest `keep_last` after these, what is pinned, and all that these name. The blobs of a
        deleted manifest go with it. Blobs that no manifest names go when this owner has known of
        them for the grace period. Nothing of other lines is touched.

        Args:
            keep: blobs that the next manifest will name.
            lazily: leave manifests without blobs until there are `_LOT` of them to delete.
        """
        if self._store.keep_last is None or not self._may_prune:
            return
        if lazily and self._surveyed and self._may_wait(self._store.keep_last):
            return
        self._may_prune = False
        failpoints.reach("prune.before")
        holdings = self._holdings
        old = set() if self._surveyed else self._survey(self._store.keep_last)
        going = (old | set(holdings.entries)) - retained(holdings.entries, self._store.keep_last)
        if going:
            going -= set(self.pins().values())
        names = [self._path(seq) for seq in sorted(going - holdings.fences)]
        free = {name for name in holdings.drop(going) if name.startswith(f"{self._folder}/b/")}
        free -= {blob_name(blob) for blob in keep}
        self._files.delete(names)
        now = self._store.clock()
        for name, since in list(self._orphans.items()):
            if holdings.names(name):
                del self._orphans[name]
            elif now - since >= self._store.grace:
                del self._orphans[name]
                free.add(name)
        self._files.delete(sorted(free))
        failpoints.reach("prune.after")

    def _may_wait(self, keep_last: int) -> bool:
        """Whether there is little to gain by pruning now."""
        entries = self._holdings.entries
        if self._orphans or len(entries) >= keep_last + _LOT:
            return False
        return not any(entry.blobs for entry in entries.values())

    # --- inside -------------------------------------------------------------------------------

    def _path(self, seq: int) -> str:
        return f"{self._folder}/m/{seq // _GROUP:06d}/{seq:09d}"

    def _create(self, manifest: Manifest) -> None:
        data = manifest.to_bytes(self._store.key, self.header.nonce)
        self._files.create(self._path(manifest.seq), data)

    def load(self, seq: int) -> Manifest:
        """Return a manifest by its number.

        Raises:
            FileNotFoundError: it is not there.
            CheckpointError: it is damaged, or was written by a newer version.
        """
        data, own = self._files.read(self._path(seq))
        manifest = Manifest.from_bytes(data, self._store.key, self.header.nonce, own=own)
        if (manifest.line, manifest.seq) != (self.name, seq):
            raise DamagedError(f"it is a copy of manifest {manifest.seq} of line {manifest.line}")
        return manifest

    def _read(self, seq: int) -> Manifest | None:
        """Return a manifest, or None with a warning where it cannot be used.

        Raises:
            FileNotFoundError: it is not there.
            CheckpointError: it was written by a newer version, or reading failed: that it is
                damaged is not known then, and an older one must not be taken for the newest.
        """
        where = self._files.where(self._path(seq))
        try:
            return self.load(seq)
        except NewerVersionError as error:
            raise CheckpointError(f"Cannot read '{where}': {error}") from error
        except DamagedError as error:
            warnings.warn(f"'{where}' is passed over: {error}.", GraphWarning, stacklevel=2)
            return None

    def _numbers(self) -> Iterator[int]:
        """Yield the numbers that are taken, highest first."""
        last = None
        for name in walk_down(self._files, f"{self._folder}/m"):
            number = name.rpartition("/")[2]
            if number.isdecimal():
                if last is None:
                    yield from range(self._taken, int(number), -1)
                last = int(number)
                yield last
        if last is None:
            yield from range(self._taken, 0, -1)

    def _descend(self) -> Iterator[tuple[int, Manifest | None]]:
        """Yield numbers and manifests, highest first, without what is pruned meanwhile."""
        for seq in self._numbers():
            with contextlib.suppress(FileNotFoundError):
                yield seq, self._read(seq)

    def _newest(self, before: int | None) -> tuple[Manifest | None, set[int]]:
        """Return the newest valid manifest, and the higher numbers that hold none."""
        for listing in range(_MOST_LISTINGS):
            unreadable: set[int] = set()
            for seq in self._numbers():
                if before is not None and seq >= before:
                    continue
                try:
                    manifest = self._read(seq)
                except FileNotFoundError:
                    if listing + 1 < _MOST_LISTINGS:
                        break  # pruned meanwhile, so there are newer ones now
                    continue
                if manifest is not None:
                    return manifest, unreadable
                unreadable.add(seq)
            else:
                break
        return None, unreadable

    def _outrun(self, seq: int) -> bool:
        """Say whether a claim came too late, and claims nothing.

        The owner may have gone on since the line was listed, so far that it has pruned the number
        that was free then.

        Raises:
            CheckpointConflictError: a newer owner has gone on from this very claim.
        """
        if next(self._numbers(), seq) > seq:
            newest, _ = self._newest(None)
            if newest is not None and seq in newest.fences:
                self._refuse(newest)
            return True
        return False

    def _first_whole(self, seqs: set[int]) -> Manifest | None:
        for seq in sorted(seqs, reverse=True):
            with contextlib.suppress(FileNotFoundError):
                manifest = self._read(seq)
                if manifest is not None:
                    return manifest
        return None

    def _yield_to_claim(self, seq: int, epoch: int) -> None:
        """The number is taken: give way where a new owner has it, not where the old one went on.

        Raises:
            CheckpointConflictError: a new owner has it.
        """
        with contextlib.suppress(FileNotFoundError):
            other = self._read(seq)
            if other is not None and other.epoch > epoch:
                self._refuse(other)

    def _refuse(self, other: Manifest) -> None:
        raise CheckpointConflictError(
            f"Another process has taken over line {self.name} of '{self._store.url}' at the same "
            f"time: {said(other)}. If that one is not running any more, try again."
        )

    def _step_over(self, ours: Manifest) -> None:
        """The next number is taken: step over what is torn or our own, and yield to others.

        Raises:
            CheckpointConflictError: it is another owner's.
        """
        path = self._path(ours.seq)
        try:
            other = self.load(ours.seq)
        except (FileNotFoundError, NewerVersionError, SignatureError) as error:
            self._lose(ours, f"'{self._files.where(path)}' is not this process's: {error}")
        except DamagedError as error:
            warnings.warn(
                f"'{self._files.where(path)}' is passed over: {error}.", GraphWarning, stacklevel=3
            )
            self._fences += (ours.seq,)
        else:
            if other.writer != self.writer:
                self._lose(ours, said(other))
            self._holdings.add(other)  # an earlier commit, whose answer was lost
        self._next += 1

    def _check_alone(self, ours: Manifest) -> None:
        """Where files do not appear whole, a new owner may not have seen ours in time."""
        for seq, other in self._descend():
            if seq > ours.seq:
                self._lose(ours, said(other) if other else f"manifest {seq} is there already")
            return

    def _lose(self, ours: Manifest, other: str) -> None:
        self._may_prune = False
        self._lost = CheckpointConflictError(
            f"Another process has taken over line {self.name} of '{self._store.url}': {other}. "
            f"This one ({said(ours)}) stops here; what it did since its last checkpoint is not "
            "recorded."
        )
        raise self._lost

    def _survey(self, keep_last: int) -> set[int]:
        """Learn, once, what an earlier owner has left; return all numbers that are taken.

        Only manifests that will be kept are read.
        """
        numbers = list(self._numbers())
        pinned = set(self.pins().values())
        for seq in numbers:
            enough = len({e.superstep for e in self._holdings.entries.values() if e.complete})
            if seq not in self._holdings.entries and (seq in pinned or enough < keep_last):
                with contextlib.suppress(FileNotFoundError):
                    manifest = self._read(seq)
                    if manifest is not None:
                        self._holdings.add(manifest)
        now = self._store.clock()
        folder = f"{self._folder}/b"
        files = [*self._files.names(folder), *self._files.leftovers(folder)]
        self._orphans = {f"{folder}/{name}": now for name in files}
        self._surveyed = True
        return set(numbers)


def said(manifest: Manifest) -> str:
    """Say who wrote a manifest, and when."""
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(manifest.created))
    return f"epoch {manifest.epoch}, {manifest.writer}, {when}"
