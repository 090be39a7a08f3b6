"""States in a store: encoded, their large values as blobs, brought back where they are wanted."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import cloudpickle

from .blobs import ReadsBlobs
from .encoding import decode, encode
from .manifest import Blob, Stored

INLINE_DOCUMENT_BYTES = 16 * 1024
"""A document up to this size lies in the manifest; a larger one is a blob."""


class Kept(NamedTuple):
    """Where a state lies.

    Attributes:
        stored: its document and pieces.
        trusted: pickles in it may be loaded.
        reused: blobs that were there before, and could be pruned before a manifest names them.
    """

    stored: Stored
    trusted: bool
    reused: tuple[Blob, ...] = ()


class StateVault:
    """Keeps the states of one run in the blobs of its line. Travels to workers.

    Args:
        name: the store's URL: what is kept under one name need not be kept again.
        blobs: where values go.
        mapped: values are memory-mapped where the store is seen.
        shared: other processes may see the store.
    """

    def __init__(self, name: str, blobs: Any, *, mapped: bool, shared: bool) -> None:
        self.name = name
        self.mapped = mapped
        self.shared = shared
        self._blobs = blobs
        self._packed: bytes | None = None  # on a worker: the classes of the driver's program
        self._classes: dict[str, type] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        packed = self._packed if self._packed is not None else _pack_program_classes()
        return _arrive, (self.name, self._blobs, self.mapped, self.shared, packed)

    def visible(self) -> bool:
        """Whether this process sees the very store that the driver sees."""
        seen: bool = self._blobs.visible()
        return seen

    def save(self, state: Any, size: int, *, anew: bool = False) -> Kept:
        """Keep a state of `size` messages.

        Args:
            state: any value that `encode` takes.
            size: its messages, for lists of checkpoints.
            anew: write its values even where they seem to be there.

        Raises:
            CheckpointError: it cannot be encoded or written.
        """
        return save(self._blobs, state, size, anew=anew)

    def load(self, kept: Kept, *, mutable: bool = False) -> Any:
        """A private copy of a state; its large buffers are shared and read-only.

        Raises:
            CheckpointError: it is missing, damaged, or may not be loaded.
        """
        if self._classes is None and self._packed is not None:
            self._classes = cloudpickle.loads(self._packed)
        return load(
            self._blobs,
            kept.stored,
            trusted=kept.trusted,
            mutable=mutable,
            classes=self._classes,
        )


def _arrive(name: str, blobs: Any, mapped: bool, shared: bool, packed: bytes) -> StateVault:
    vault = StateVault(name, blobs, mapped=mapped, shared=shared)
    vault._packed = packed
    return vault


@cache
def _pack_program_classes() -> bytes:
    """The classes of the program itself, which a worker cannot import: states may be of them."""
    found: dict[str, type] = {}
    for name, value in list(vars(sys.modules["__main__"]).items()):
        if isinstance(value, type) and value.__module__ == "__main__":
            try:
                cloudpickle.dumps(value)
            except Exception:
                continue  # no state that can travel is of it
            found[f"__main__:{name}"] = value
    packed: bytes = cloudpickle.dumps(found)
    return packed


def vault_of(store: Any, line: Any) -> StateVault:
    """The vault for the states of a line."""
    return StateVault(store.url, line.blobs, mapped=store.local, shared=store.shared)


def save(blobs: Any, value: Any, size: int = 0, *, what: str = "state", anew: bool = False) -> Kept:
    """Encode a value and put what is large of it into blobs."""
    encoded = encode(value, what=what)
    reused: list[Blob] = []

    def put(parts: Any) -> Blob:
        blob, there = blobs.put(parts, force=anew)
        if there:
            reused.append(blob)
        found: Blob = blob
        return found

    pieces = tuple(put(parts) for parts in encoded.pieces)
    document: bytes | Blob = encoded.document
    if len(encoded.document) > INLINE_DOCUMENT_BYTES:
        document = put((encoded.document,))
    nbytes = len(encoded.document) + sum(piece.nbytes for piece in pieces)
    return Kept(Stored(document, pieces, nbytes, size), True, tuple(reused))


def load(
    blobs: ReadsBlobs,
    stored: Stored,
    *,
    trusted: bool,
    mutable: bool = False,
    what: str = "state",
    classes: Mapping[str, type] | None = None,
) -> Any:
    """Read a value that `save` wrote."""
    document = stored.document
    return decode(
        document if isinstance(document, bytes) else blobs.get(document),
        lambda number: blobs.get(stored.pieces[number]),
        trusted=trusted,
        mutable=mutable,
        what=what,
        classes=classes,
    )
