"""From a document to the value. Nothing in a document is believed before it is checked."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import msgpack

from ...errors import CheckpointError
from . import arrays, objects, tables
from .classes import find
from .kinds import PICKLED, REFERENCE, VERSION, Buffer, Damaged, Kind, Mark, expect
from .plain import PLAIN

MAX_DEPTH = 100
"""Levels of values that must be complete before what holds them is made. A writer stays below."""

_ATOMS = frozenset({type(None), bool, int, float, str, bytes})

KINDS: dict[int, Kind] = {
    kind.code: kind
    for kind in (
        *PLAIN.values(),
        objects.ENUM,
        objects.NAMED,
        objects.DATACLASS,
        objects.PYDANTIC,
        arrays.ARRAY,
        arrays.SCALAR,
        tables.ARROW,
        tables.PANDAS,
        tables.POLARS,
    )
}
"""All kinds by their codes."""

_MARKS = {code: Mark(code) for code in (REFERENCE.code, PICKLED.code, objects.UNSET.code, *KINDS)}


class Document(NamedTuple):
    """A document taken apart; `root` and `table` are made of nodes."""

    root: Any
    table: list[Any]
    pickled: list[Any] | None
    sizes: list[int]


def parse(document: Buffer) -> Document:
    """Take a document apart.

    Raises:
        Damaged: it is not whole, or not a document.
    """
    view = memoryview(document).cast("B")
    expect(view.nbytes > len(VERSION), "it is empty")
    if view[: len(VERSION)] != VERSION:
        raise Damaged(
            f"it has the format {view[0]}, which this version of graphorch_ray cannot read"
        )
    content = view[len(VERSION) :]
    try:
        # First without making anything: a length that is too large must not be believed.
        scan = msgpack.Unpacker(max_buffer_size=content.nbytes)
        scan.feed(content)
        count = 0
        while scan.tell() < content.nbytes:
            scan.skip()
            count += 1
        expect(count in (1, 4), f"it has {count} parts")
        unpacker = msgpack.Unpacker(
            max_buffer_size=content.nbytes, ext_hook=_mark, unicode_errors="surrogatepass"
        )
        unpacker.feed(content)
        root, *more = (unpacker.unpack() for _ in range(count))
    except Damaged:
        raise
    except Exception as error:
        raise Damaged(f"it is no msgpack: {type(error).__name__}: {error}") from error
    table, pickled, sizes = more or ([], None, [])
    expect(type(table) is list and type(sizes) is list, "its table is not a table")
    expect(all(type(size) is int and size >= 0 for size in sizes), "its sizes are no sizes")
    if pickled is not None:
        expect(type(pickled) is list and len(pickled) == 2, "its pickle is no pickle")
        expect(type(pickled[1]) is list, "its pickle has no buffers")
    return Document(root, table, pickled, sizes)


def _mark(code: int, data: bytes) -> Mark:
    expect(not data and code in _MARKS, "it has values that this version does not know")
    return _MARKS[code]


class _Task(NamedTuple):
    """A container that has been made and is to be filled."""

    kind: Kind | None
    value: Any
    args: list[Any]
    path: tuple[Any, ...]


class Decoder:
    """Decodes one document, once. The parameters are those of `encoding.decode`."""

    def __init__(
        self,
        document: Document,
        piece: Callable[[int], Buffer],
        *,
        trusted: bool,
        mutable: bool,
        classes: Mapping[str, type] | None,
    ) -> None:
        self.document = document
        self.piece = piece
        self.trusted = trusted
        self.mutable = mutable
        self.classes = classes
        self.path: tuple[Any, ...] = ()
        """Where the decoder is: the path of what holds it, then the label."""
        self.made: dict[int, Any] = {}  # objects of the table
        self.opened: set[int] = set()  # those that are being made
        self.taken: set[int] = set()  # pieces
        self.tasks: list[_Task] = []
        self.waiting: dict[int, _Task] = {}  # by id of the value, tasks that a key may need sooner
        self.hashing = False
        self.depth = 0
        self.unpickled: list[Any] | None = None

    def decode(self) -> Any:
        """Return the value."""
        value = self.value(self.document.root, "")
        while self.tasks:
            task = self.tasks.pop()
            if task.kind is None:
                self.fill_plain(task)
            elif self.waiting.pop(id(task.value), None) is not None:
                self.fill(task)
        return value

    def value(self, raw: Any, label: object) -> Any:
        """Return the value of a node; its containers may be filled later."""
        cls = type(raw)
        if cls in _ATOMS:
            return raw
        if cls is list and raw and type(raw[0]) is Mark:
            return self.node(raw, label, None)
        expect(cls is list or cls is dict, "it is no value")
        self.tasks.append(_Task(None, raw, [], (self.path, label)))
        return raw

    def key(self, raw: Any, label: object) -> Any:
        """Return the value of a node, complete as far as its hash may go into it."""
        before, self.hashing = self.hashing, True
        try:
            return self.value(raw, label)
        finally:
            self.hashing = before

    def node(self, raw: list[Any], label: object, place: int | None) -> Any:
        """Return the value of a node that is at a place of the table, or at none."""
        code, *args = raw
        if code == REFERENCE.code:
            return self.reference(args, label)
        outer = self.path
        self.path = (outer, label)  # left as it is by an error, to tell where that was
        self.depth += 1
        expect(self.depth <= MAX_DEPTH, f"it is nested more than {MAX_DEPTH} deep")
        if code == PICKLED.code:
            value = self.from_pickle(args)
        else:
            expect(code in KINDS, "it stands where no value can")
            kind = KINDS[code]
            value = kind.read(args, self)
            if kind.hollow:
                task = _Task(kind, value, args, self.path)
                self.tasks.append(task)
                self.waiting[id(value)] = task
        if place is not None:
            self.made[place] = value
        self.complete(value)
        self.depth -= 1
        self.path = outer
        return value

    def complete(self, value: Any) -> None:
        """Fill a value now if it is about to be hashed by what is in it."""
        if self.hashing and _hashes_content(type(value)):
            task = self.waiting.pop(id(value), None)
            if task is not None:
                self.fill(task)

    def reference(self, args: list[Any], label: object) -> Any:
        """Return an object of the table."""
        (place,) = args
        table = self.document.table
        expect(type(place) is int and 0 <= place < len(table), "it refers to nothing")
        if place in self.made:
            self.complete(self.made[place])
            return self.made[place]
        expect(place not in self.opened, "it is part of itself")
        self.opened.add(place)
        raw = table[place]
        if type(raw) is list and raw and type(raw[0]) is Mark:
            value = self.node(raw, label, place)
        else:
            value = self.value(raw, label)
        self.made[place] = value
        return value

    def fill(self, task: _Task) -> None:
        """Put into a container what it holds."""
        outer, self.path = self.path, task.path
        self.depth += 1
        expect(self.depth <= MAX_DEPTH, f"it is nested more than {MAX_DEPTH} deep")
        if task.kind is not None:
            task.kind.fill(task.value, task.args, self)
        self.depth -= 1
        self.path = outer

    def fill_plain(self, task: _Task) -> None:
        """Put values in place of the nodes in a list, or in a dict whose keys are texts."""
        self.path = task.path
        held = task.value
        if type(held) is list:
            if not _ATOMS.issuperset(map(type, held)):
                for at, raw in enumerate(held):
                    if type(raw) not in _ATOMS:
                        held[at] = self.value(raw, at)
        elif not _ATOMS.issuperset(map(type, held.values())):
            for key, raw in held.items():
                if type(raw) not in _ATOMS:
                    held[key] = self.value(raw, (key,))

    def data(self, raw: Any) -> memoryview:
        """Return bytes of the document, or of a piece."""
        if type(raw) is bytes:
            return memoryview(raw)
        sizes = self.document.sizes
        expect(type(raw) is int and 0 <= raw < len(sizes), "it has no data")
        # Else a short document could ask for endless copies of one piece.
        expect(raw not in self.taken, f"piece {raw} is in it twice")
        self.taken.add(raw)
        data = memoryview(self.piece(raw)).cast("B")
        expect(data.nbytes == sizes[raw], f"piece {raw} is {data.nbytes} bytes, not {sizes[raw]}")
        return data

    def find(self, name: Any) -> type:
        """Return a class by its name."""
        return find(name, trusted=self.trusted, classes=self.classes)

    def from_pickle(self, args: list[Any]) -> Any:
        """Return a value out of the pickle, which is loaded with the first of them."""
        (number,) = args
        if not self.trusted:
            raise CheckpointError(
                "it is pickled, and a pickle can run any code while it loads, so it is loaded "
                "only from a place that is trusted: a local file of your own that nobody else can "
                "write; a checkpoint with a valid signature (set GRAPHORCH_CHECKPOINT_KEY when "
                "writing and when reading); or load with allow_pickle=True, if you trust whoever "
                "can write there"
            )
        if self.unpickled is None:
            if self.document.pickled is None:
                raise Damaged("its pickle is missing")
            content, buffers = self.document.pickled
            held = [self.data(buffer) for buffer in buffers]
            made = pickle.loads(
                self.data(content),
                buffers=[bytearray(b) if self.mutable else b.toreadonly() for b in held],
            )
            expect(type(made) is list, "its pickle is of something else")
            self.unpickled = made
        expect(type(number) is int and 0 <= number < len(self.unpickled), "it is not in the pickle")
        return self.unpickled[number]

    def fail(self, what: str, error: Exception) -> NoReturn:
        """Raise the error that names the value at which another one came up."""
        path = _written(self.path)
        if isinstance(error, CheckpointError) and not isinstance(error, Damaged):
            raise CheckpointError(f"{what}{path} cannot be loaded: {error}.") from error
        detail = str(error) if isinstance(error, Damaged) else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{what}{path} is damaged: {detail}.") from error


def _hashes_content(cls: Any) -> bool:
    return cls.__hash__ is not None and cls.__hash__ is not object.__hash__


def _written(path: tuple[Any, ...]) -> str:
    labels: list[str] = []
    while path:
        path, label = path
        if isinstance(label, int):
            label = f"[{label}]"
        elif isinstance(label, tuple):
            label = f"[{label[0]!r}]"
        labels.append(str(label))
    return "".join(reversed(labels))
