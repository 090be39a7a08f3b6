"""What differs between two checkpoints, told without making any of their values but arrays.

Values are compared as they lie in the store: numbers, texts and containers part by part, arrays
item by item, all else by its bytes. No class is looked up and no pickle is loaded, so a checkpoint
need not be trusted to be compared. A pickle that differs is told by its digest.
"""

from __future__ import annotations

import hashlib
import math
import reprlib
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from ..checkpoint import CheckpointDescription, Description
from ..checkpoint.encoding.arrays import ARRAY
from ..checkpoint.encoding.decoder import Document, parse
from ..checkpoint.encoding.description import MAX_LEVELS, Describer
from ..checkpoint.encoding.kinds import Mark, Outline, Reader
from ..checkpoint.manifest import Blob, Manifest, Stored
from ..errors import CheckpointError

SHOWN_CHARS = 60
"""Longest text of a value."""

Change = tuple[str, Any, Any]
"""A place, and what it was before and after; None where there was nothing."""


class Opened(NamedTuple):
    """A checkpoint that is to be compared.

    Attributes:
        told: its description.
        manifest: what it holds.
        blobs: where its large values are.
    """

    told: CheckpointDescription
    manifest: Manifest
    blobs: Any


def differences(before: Opened, after: Opened) -> Iterator[Change]:
    """What differs: the run, its options, the active nodes, and the values of states."""
    for name in ("graph_name", "run_id", "branch", "superstep", "status"):
        old, new = getattr(before.told, name), getattr(after.told, name)
        if old != new:
            yield name, old, new
    for name in ("options", "versions"):
        olds, news = getattr(before.told, name), getattr(after.told, name)
        for key in _labels(olds, news):
            if olds.get(key) != news.get(key):
                yield f"{name}.{key}", olds.get(key), news.get(key)
    olds, news = _states(before), _states(after)
    for place in _labels(olds, news):
        old_state, new_state = olds.get(place), news.get(place)
        if old_state is None or new_state is None:
            yield place, old_state and old_state.text(), new_state and new_state.text()
        elif old_state.stored != new_state.stored:
            yield from _Comparison(old_state, new_state).of_states(place)


def _labels(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [*before, *(label for label in after if label not in before)]


def _states(opened: Opened) -> dict[str, _State]:
    states = [_State(stored, opened.blobs) for stored in opened.manifest.states]
    named = {
        f"active[{active.node_id!r}][{position}]": states[number]
        for active in opened.manifest.active
        for position, number in enumerate(active.states)
    }
    final = opened.manifest.final
    return named if final is None else {**named, "final": states[final]}


class _State:
    """A stored state, of which no more is read than is needed; arrays can be read from it."""

    mutable = False

    def __init__(self, stored: Stored, blobs: Any) -> None:
        self.stored = stored
        self._blobs = blobs
        self._document: Document | None = None

    def text(self) -> str:
        """What it is, in a few words."""
        described = Describer(self.document).describe(self.document.root, 0)
        parts = dict(described.children).get(".messages") or described
        kinds = [child.type.rpartition(":")[2] for _, child in parts.children]
        return f"{self.stored.size} messages, {size(self.stored.nbytes)}" + (
            f" ({few(kinds)})" if kinds else ""
        )

    @property
    def document(self) -> Document:
        """Its document, taken apart."""
        if self._document is None:
            found = self.stored.document
            content = self._blobs.get(found) if isinstance(found, Blob) else found
            self._document = parse(content)
        return self._document

    def digest(self, data: Any) -> str:
        """The digest of some data: bytes, or the number of a piece."""
        if isinstance(data, int):
            return self._piece(data).digest
        content = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        return hashlib.sha256(content).hexdigest()

    def _piece(self, number: int) -> Blob:
        if not 0 <= number < len(self.stored.pieces):
            raise CheckpointError(f"A state is damaged: it has no piece {number}.")
        return self.stored.pieces[number]

    def data(self, raw: Any) -> memoryview:
        """The bytes of some data."""
        content = self._blobs.get(self._piece(raw)) if isinstance(raw, int) else raw
        return memoryview(content).cast("B")


class _Comparison:
    """Walks through two documents side by side."""

    def __init__(self, before: _State, after: _State) -> None:
        self._before, self._after = before, after
        self._show_before = Describer(before.document)
        self._show_after = Describer(after.document)

    def of_states(self, place: str) -> Iterator[Change]:
        """What differs between the two states."""
        yield from self._parts(place, self._before.document.root, self._after.document.root, 0)

    def _parts(self, place: str, before: Any, after: Any, level: int) -> Iterator[Change]:
        old, old_pickled = self._show_before.show(before)
        new, new_pickled = self._show_after.show(after)
        if old_pickled and new_pickled:
            yield from self._pickles(place, old, new)
            return
        olds, news = dict(old.children), dict(new.children)
        if _head(before) == _head(after) == ARRAY.code and old.type == new.type:
            yield from self._arrays(place, before, after, old.type)
        elif old.type != new.type or not (olds or news):
            if not self._same_leaf(before, after, old, new):
                yield place, self._text(self._before, before), self._text(self._after, after)
        elif level >= MAX_LEVELS:
            if before != after:
                yield place, old.type, f"changed, more than {MAX_LEVELS} levels deep"
        else:
            if old.length != new.length:
                yield f"{place}.length", old.length, new.length
            for label in _labels(olds, news):
                if label in olds and label in news:
                    yield from self._parts(place + label, olds[label], news[label], level + 1)
                elif label in olds:
                    yield place + label, self._text(self._before, olds[label]), None
                else:
                    yield place + label, None, self._text(self._after, news[label])

    def _same_leaf(self, before: Any, after: Any, old: Outline, new: Outline) -> bool:
        if old.type != new.type:
            return False
        old_data, new_data = list(old.data), list(new.data)
        if any(isinstance(data, int) for data in (*old_data, *new_data)):
            digests = [self._before.digest(data) for data in old_data]
            return digests == [self._after.digest(data) for data in new_data]
        return bool(before == after) or _both_nan(before, after)

    def _pickles(self, place: str, old: Outline, new: Outline) -> Iterator[Change]:
        """All that is pickled in a state is one pickle, which is told where it comes first."""
        before = [self._before.digest(data) for data in old.data]
        after = [self._after.digest(data) for data in new.data]
        if before != after:
            yield place, _pickled(before), _pickled(after)

    def _arrays(self, place: str, before: Any, after: Any, kind: str) -> Iterator[Change]:
        import numpy as np

        same_form = before[1:-1] == after[1:-1]
        if same_form and self._before.digest(before[-1]) == self._after.digest(after[-1]):
            return
        old = ARRAY.read(before[1:], cast(Reader, self._before))
        new = ARRAY.read(after[1:], cast(Reader, self._after))
        if old.dtype != new.dtype:
            yield place, f"{kind} of {old.dtype}", f"{kind} of {new.dtype}"
            return
        raw_old, raw_new = (
            np.ascontiguousarray(array).reshape(-1).view(f"V{array.itemsize}")
            for array in (old, new)
        )
        changed = np.flatnonzero(raw_old != raw_new)
        if len(changed):
            at = tuple(int(i) for i in np.unravel_index(changed[0], old.shape))
            yield (
                place,
                kind,
                f"changed in {len(changed):,} of {math.prod(old.shape):,} items, the first at "
                f"{list(at)}: {old[at]} -> {new[at]}",
            )

    def _text(self, state: _State, raw: Any) -> str:
        if raw is None or isinstance(raw, bool | int | float | str | bytes):
            return _short(raw)
        described = Describer(state.document).describe(raw, 0)
        plain = isinstance(raw, list) and len(raw) == 2 and isinstance(raw[1], str | int | float)
        if plain and isinstance(raw[0], Mark) and not described.children and not described.pieces:
            return f"{described.type} {_short(raw[1])}"
        return part(described)


def _head(raw: Any) -> int | None:
    """The code of a node, or None for plain data."""
    return int(raw[0]) if isinstance(raw, list) and raw and isinstance(raw[0], Mark) else None


def _both_nan(before: Any, after: Any) -> bool:
    return all(isinstance(value, float) and math.isnan(value) for value in (before, after))


def _pickled(digests: list[str]) -> str:
    whole = (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )
    return f"pickled, SHA-256 {whole[:16]}…"


def _short(value: Any) -> str:
    show = reprlib.Repr()
    show.maxstring = show.maxother = show.maxlong = SHOWN_CHARS
    return show.repr(value)


# --- in words -------------------------------------------------------------------------------------


def part(found: Description) -> str:
    """A part of a state by type, length and size."""
    length = "" if found.length is None else f"[{found.length}]"
    return f"{found.type}{length}, {size(found.nbytes)}"


def few(names: list[str], most: int = 4) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def size(nbytes: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            break
        nbytes /= 1024
    return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
