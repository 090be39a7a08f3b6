"""What a kind of value is to the encoding: how to write one, and how to read it back.

A document is msgpack. What msgpack cannot say itself is a *node*: a list that begins with a mark
(an extension type whose code is the kind's) and goes on with the kind's arguments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple, Protocol

from msgpack import ExtType

from ...errors import CheckpointError

Buffer = bytes | bytearray | memoryview
"""One-dimensional, contiguous, of bytes."""

PIECE_BYTES = 65536
"""From this size on, in bytes, a buffer is a piece of its own and not part of the document."""


MAX_EQUAL_HASHES = 1000
"""How many keys of one dict or set may have the same hash, where the document is not trusted."""

VERSION = b"\x01"
"""What every document begins with."""

REFERENCE = ExtType(0, b"")
"""Marks a node that is an object of the table, by number."""

PICKLED = ExtType(1, b"")
"""Marks a node that is a value of the pickle, by number."""


class Mark(int):
    """The head of a node, as a reader sees it; its value is the kind's code."""


class Writer(Protocol):
    """What a kind may ask of the encoder."""

    def value(self, value: Any) -> Any:
        """Return what stands for a value in the document."""

    def data(self, parts: Iterable[Buffer]) -> bytes | int:
        """Return bytes as they are when small, else the number of the piece they become."""


class Reader(Protocol):
    """What a kind may ask of the decoder."""

    trusted: bool
    mutable: bool

    def value(self, raw: Any, label: object) -> Any:
        """Return the value of a part; containers in it may still be empty."""

    def key(self, raw: Any, label: object) -> Any:
        """Return the value of a part, complete, for it is about to be hashed."""

    def data(self, raw: Any) -> memoryview:
        """Return the bytes that a writer's `data` gave away."""

    def find(self, name: Any) -> type:
        """Return a class by its name."""


class Outline(NamedTuple):
    """What a node shows of itself without being read.

    Attributes:
        type: name of the type.
        length: number of items, rows or bytes, where it has one.
        children: what it holds, by label.
        data: its buffers: bytes, or the numbers of pieces.
    """

    type: str
    length: int | None = None
    children: Iterable[tuple[str, Any]] = ()
    data: Iterable[Any] = ()


class Damaged(CheckpointError):
    """Something in a document is not as any writer would have written it."""


class Kind:
    """One kind of value. Stateless; each has one instance, known by its code for ever.

    Attributes:
        code: what marks its nodes: 0 to 127, never changed and never used again.
        name: what errors call it.
        tracked: whether one object of this kind in two places is one object after loading.
        hollow: whether `read` makes an empty object which `fill` completes, so that it may be
            part of a cycle.
        changeable: whether what happens to one holder of the object is seen by the others.
    """

    code: ClassVar[int]
    name: ClassVar[str]
    tracked: ClassVar[bool] = True
    hollow: ClassVar[bool] = False
    changeable: ClassVar[bool] = False
    mark: ClassVar[ExtType]

    def __init_subclass__(cls) -> None:
        if (code := cls.__dict__.get("code")) is not None:
            cls.mark = ExtType(code, b"")
        if "hollow" in cls.__dict__:
            cls.changeable = cls.hollow

    def holds(self, value: Any) -> Iterable[Any]:
        """Return the values that this one holds."""
        return ()

    def labelled(self, value: Any) -> Iterator[tuple[str, Any]]:
        """Yield what `holds` does, with how each is reached: ``".name"``, ``"[3]"``."""
        return ((f"[{index}]", item) for index, item in enumerate(self.holds(value)))

    def write(self, value: Any, writer: Writer) -> list[Any]:
        """Return the node of a value, mark included."""
        raise NotImplementedError

    def read(self, args: list[Any], reader: Reader) -> Any:
        """Make the value of a node from its arguments (the node without its mark)."""
        raise NotImplementedError

    def fill(self, value: Any, args: list[Any], reader: Reader) -> None:
        """Complete what `read` made. Only for a kind that is ``hollow``."""
        raise NotImplementedError

    def outline(self, args: list[Any]) -> Outline:
        """Tell what a node is, without reading it."""
        return Outline(self.name)


def numbered(items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Label items by their position."""
    return ((f"[{index}]", item) for index, item in enumerate(items))


def expect(condition: object, problem: str) -> None:
    """Raise `Damaged` with the problem unless the condition holds."""
    if not condition:
        raise Damaged(problem)


def check_hashes(keys: Iterable[Any], *, trusted: bool) -> None:
    """Refuse keys that were made to collide: they would take quadratic time to look up."""
    if trusted:
        return
    hashes = Counter(map(hash, keys))
    if hashes and max(hashes.values()) > MAX_EQUAL_HASHES:
        raise CheckpointError(
            f"more than {MAX_EQUAL_HASHES:,} keys of it have one and the same hash, which would "
            "take very long to load. If you trust where it comes from, load with allow_pickle=True"
        )
