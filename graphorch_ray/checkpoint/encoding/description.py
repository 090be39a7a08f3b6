"""What a document holds, told without loading it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .decoder import KINDS, Document
from .kinds import PICKLED, REFERENCE, Kind, Mark, Outline, expect, numbered

MAX_CHILDREN = 100
"""How many parts of one value are described; the others are only counted."""

MAX_LEVELS = 40


@dataclass(frozen=True, slots=True)
class Description:
    """What a value is.

    Attributes:
        type: name of its type; ``module:qualname`` for classes outside Python's own.
        length: number of items or rows, or None.
        nbytes: bytes of texts and buffers in it and all below it, those of pieces included.
            Numbers and structure are not counted.
        pieces: the numbers of its pieces and those of all below it.
        pickled: where below it, or at it (``""``), something is pickled.
        children: its parts by label, at most 100, and no deeper than 40 levels.
    """

    type: str
    length: int | None = None
    nbytes: int = 0
    pieces: tuple[int, ...] = ()
    pickled: tuple[str, ...] = ()
    children: tuple[tuple[str, Description], ...] = field(default=(), repr=False)


def outline(document: Document) -> Description:
    """Describe a document."""
    return Describer(document).describe(document.root, 0)


class Describer:
    """Describes the nodes of a document, each object where it comes first."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.seen: set[int] = set()
        self.pickle_told = False

    def describe(self, raw: Any, level: int) -> Description:
        """Describe a node and all below it."""
        shown, own_pickle = self.show(raw)
        sizes = self.document.sizes
        nbytes = 0
        pieces: list[int] = []
        for data in shown.data:
            if type(data) is int and 0 <= data < len(sizes):
                nbytes += sizes[data]
                pieces.append(data)
            elif isinstance(data, (bytes, str)):
                nbytes += len(data)
        pickled = [""] if own_pickle else []
        children: list[tuple[str, Description]] = []
        for label, part in shown.children if level < MAX_LEVELS else ():
            child = self.describe(part, level + 1)
            nbytes += child.nbytes
            pieces += child.pieces
            pickled += [label + place for place in child.pickled]
            if len(children) < MAX_CHILDREN:
                children.append((label, child))
        return Description(
            shown.type, shown.length, nbytes, tuple(pieces), tuple(pickled), tuple(children)
        )

    def show(self, raw: Any) -> tuple[Outline, bool]:
        """Return the outline of a node, and whether it is pickled."""
        cls = type(raw)
        if cls is dict:
            items = ((f"[{key!r}]", item) for key, item in raw.items())
            return Outline("dict", len(raw), items), False
        if cls is not list:
            expect(cls is not Mark, "it stands where no value can")
            text = raw if isinstance(raw, (str, bytes)) else None
            length = None if text is None else len(text)
            name = "None" if raw is None else cls.__name__
            return Outline(name, length, data=() if text is None else (text,)), False
        if not raw or type(raw[0]) is not Mark:
            return Outline("list", len(raw), numbered(raw)), False
        code, *args = raw
        if code == REFERENCE.code:
            return self._show_shared(*args)
        if code == PICKLED.code:
            return Outline("pickled", data=self._pickle_data()), True
        expect(code in KINDS, "it stands where no value can")
        kind: Kind = KINDS[code]
        return kind.outline(args), False

    def _show_shared(self, place: int) -> tuple[Outline, bool]:
        table = self.document.table
        expect(type(place) is int and 0 <= place < len(table), "it refers to nothing")
        if place in self.seen:
            return Outline("shared"), False
        self.seen.add(place)
        return self.show(table[place])

    def _pickle_data(self) -> Iterable[Any]:
        """Return the buffers of the pickle, which count for the first value that is in it."""
        if self.pickle_told or self.document.pickled is None:
            return ()
        self.pickle_told = True
        content, buffers = self.document.pickled
        return (content, *buffers)
