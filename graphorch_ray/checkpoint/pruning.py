"""Which checkpoints of a line are kept, and what nothing refers to any more. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from .blobs import blob_name
from .manifest import Manifest

__all__ = ["Holdings", "retained"]


class Entry(NamedTuple):
    """What pruning has to know of a manifest: its blobs are names of files."""

    superstep: int
    complete: bool
    blobs: frozenset[str]


def retained(entries: dict[int, Entry], keep_last: int) -> set[int]:
    """Return the numbers of the manifests to keep, pins aside.

    These are the newest complete manifest of each of the newest `keep_last` supersteps, and after
    the last complete one the newest `keep_last` others: parts of a superstep, copies by new owners.
    """
    kept: set[int] = set()
    supersteps: set[int] = set()
    trailing = 0
    for seq in sorted(entries, reverse=True):
        entry = entries[seq]
        if not entry.complete:
            if not supersteps and trailing < keep_last:
                trailing += 1
                kept.add(seq)
        elif entry.superstep not in supersteps:
            if len(supersteps) == keep_last:
                break
            supersteps.add(entry.superstep)
            kept.add(seq)
    return kept


class Holdings:
    """The manifests of a line that its owner knows of, and how often each blob is named."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.fences: set[int] = set()
        self._named: Counter[str] = Counter()
        self._always: frozenset[str] = frozenset()
        self._last = 0

    def keep_always(self, blobs: Iterable[str]) -> None:
        """Add blobs that no manifest need name, such as those of the line's header."""
        self._always |= frozenset(blobs)

    def add(self, manifest: Manifest) -> None:
        """Add a manifest that is in the store."""
        self.fences.update(manifest.fences)
        self._last = max(self._last, manifest.seq)
        if manifest.seq not in self.entries:
            blobs = frozenset(blob_name(blob) for blob in manifest.blobs())
            self.entries[manifest.seq] = Entry(manifest.superstep, manifest.complete, blobs)
            self._named.update(blobs)

    def drop(self, seqs: Iterable[int]) -> set[str]:
        """Forget manifests; return the blobs that only they named."""
        free: set[str] = set()
        for seq in seqs:
            entry = self.entries.pop(seq, None)
            if entry is not None:
                self._named.subtract(entry.blobs)
                free.update(name for name in entry.blobs if not self.names(name))
        self._named += Counter()  # without what is at zero
        return free

    def names(self, blob: str) -> bool:
        """Whether something that is kept names a blob."""
        return self._named[blob] > 0 or blob in self._always

    def named_before(self, blob: str) -> bool:
        """Whether something other than the newest manifest names a blob."""
        newest = self.entries.get(self._last)
        here = newest is not None and blob in newest.blobs
        return self._named[blob] > here or blob in self._always
