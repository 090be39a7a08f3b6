"""From a value to a document.

A value is looked at twice. The survey goes through it level by level and finds what is held in
two places, what only a pickle can hold, and what msgpack cannot say. Then it is written: by
msgpack's own code alone where the survey found nothing special, else by way of a tree of nodes.
"""

from __future__ import annotations

import pickle
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import msgpack

from ...errors import CheckpointError
from . import arrays, objects, tables
from .kinds import PICKLED, PIECE_BYTES, REFERENCE, VERSION, Buffer, Kind
from .pickles import HoldsReference, HoldsShared, dumps, is_reference
from .plain import FACTORIES, PLAIN

MAX_INLINE = 64
"""Levels from the root beyond which every object stands in the table, not in what holds it."""

MAX_TUPLES = 64
"""Levels of tuples in tuples; they must be made inside out, so a reader calls itself for each."""

_ATOMS = frozenset({type(None), bool, int, float, str, bytes})
_UNSAFE = frozenset({dict, bytearray, memoryview, msgpack.ExtType, msgpack.Timestamp})
"""Types that msgpack would write by itself, as something else."""

_LOOSE = frozenset({OrderedDict, defaultdict, Counter, deque, zoneinfo.ZoneInfo})
_TEXTS = frozenset({str, bytes})
_STR = frozenset({str})


class Encoded(NamedTuple):
    """A value as bytes.

    Attributes:
        document: msgpack; all small values are in it.
        pieces: the large buffers, each at least 64 KiB, as parts to be written one after another.
            They are views over the value itself, which must not change before they are written.
        pickled: what had to be pickled, like ``"state.messages[3].model (a foo.Bar)"``.
    """

    document: bytes
    pieces: tuple[tuple[Buffer, ...], ...]
    pickled: tuple[str, ...]


class _Simple(Kind):
    """A kind that the survey knows and that is no node of its own."""

    hollow = True


class _List(_Simple):
    def holds(self, value: list[Any]) -> Iterable[Any]:
        return value


class _StrDict(_Simple):
    def holds(self, value: dict[str, Any]) -> Iterable[Any]:
        return value.values()

    def labelled(self, value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        return ((f"[{key!r}]", item) for key, item in value.items())


_LIST, _STR_DICT = _List(), _StrDict()


class Encoder:
    """Encodes one value, once.

    Args:
        value: the value.
        what: what errors call it.
    """

    def __init__(self, value: Any, what: str) -> None:
        self.root = value
        self.what = what
        self.value: Callable[[Any], Any] = self.node
        self.pieces: list[tuple[Buffer, ...]] = []
        self.kept: dict[int, Any] = {}  # by id, all objects that are tracked; also keeps them alive
        self.kinds: dict[int, Kind] = {}  # by id, of those that are no list and no plain dict
        self.classes: dict[type, Kind | None] = {}
        self.shared: dict[
            int, int | None
        ] = {}  # by id, their place in the table once they have one
        self.pickles: dict[int, int] = {}  # by id, their place in the pickle
        self.table: list[Any] = []
        self.plain = True  # msgpack's own code can write it

    def encode(self) -> Encoded:
        """Return the value as bytes.

        Raises:
            CheckpointError: something in it cannot be put into a checkpoint.
        """
        self.survey()
        pickled: list[Any] | None = None
        if self.pickles:
            pickled = self.pickle()
        if self.shared:
            self.plain = False
            self.check_tuples()
        document = b""
        if self.plain:
            self.value = _same
            document = self.pack(self.root, None)
            if len(document) >= PIECE_BYTES and self.has_large_atoms():
                self.pieces.clear()
                self.value = self.node
                self.plain = False
        if not self.plain:
            root = self.node(self.root)
            for at, value in enumerate(self.table):  # grows: what one holds may be new to it
                self.table[at] = self.made(value)
            document = self.pack(root, pickled)
        where = self.where(self.pickles)
        places = (f"{where[key]} (a {_type_name(self.kept[key])})" for key in self.pickles)
        return Encoded(document, tuple(self.pieces), tuple(places))

    # --- the survey -----------------------------------------------------------------------------

    def survey(self) -> None:
        """Go through the value level by level; nothing here calls itself."""
        kept, shared = self.kept, self.shared
        level = [self.root]
        depth = 0
        while level:
            following: list[Any] = []
            for value in level:
                cls = type(value)
                if cls in _ATOMS:
                    continue
                key = id(value)
                if key in kept:
                    if key not in self.pickles:
                        shared[key] = None
                    continue
                if cls is list:
                    held: Iterable[Any] = value
                elif cls is dict and _STR.issuperset(map(type, value)):
                    held = value.values()
                else:
                    kind = self.kind_of(value)
                    if kind is None:
                        kept[key] = value
                        self.pickles[key] = len(self.pickles)
                        self.plain = False
                        continue
                    held = kind.holds(value)
                    if not kind.tracked or (cls is tuple and not value):
                        following += held
                        continue
                    self.kinds[key] = kind
                    if cls in _UNSAFE:
                        self.plain = False
                kept[key] = value
                if depth >= MAX_INLINE:
                    shared[key] = None
                if not _ATOMS.issuperset(map(type, held)):
                    following += held
            level = following
            depth += 1

    def kind_of(self, value: Any) -> Kind | None:
        """Return the kind of a value that is neither list nor atom; None if it must be pickled."""
        cls = type(value)
        if (kind := PLAIN.get(cls)) is not None:
            return kind if cls not in _LOOSE or _is_plain(value) else None
        if cls not in self.classes:
            self.classes[cls] = objects.kind_of_class(cls)
        if (kind := self.classes[cls]) is not None:
            return kind if kind is not objects.NAMED or not getattr(value, "__dict__", 0) else None
        if is_reference(value):
            raise self.reference(value, cls.__name__)
        if arrays.is_array(value):
            return arrays.ARRAY
        if arrays.is_scalar(value):
            return arrays.SCALAR
        return tables.kind_of(value)

    def where(self, ids: Collection[int]) -> dict[int, str]:
        """Return how objects are reached from the root, in Python's own notation."""
        found: dict[int, str] = {}
        if not ids:
            return found
        seen: set[int] = set()
        todo = deque([(self.root, self.what)])
        while todo:
            value, path = todo.popleft()
            key = id(value)
            if key in seen:
                continue
            if key in ids:
                found[key] = path
            if type(value) in _ATOMS or key not in self.kept or key in self.pickles:
                continue
            seen.add(key)
            kind = self.kinds.get(key) or (_LIST if type(value) is list else _STR_DICT)
            todo += [(item, path + label) for label, item in kind.labelled(value)]
        return found

    def reference(self, value: Any, name: str) -> CheckpointError:
        """Return the error for a value that is, or holds, a Ray reference."""
        where = self.where({id(value)}).get(id(value), self.what)
        verb = "is" if is_reference(value) else "holds"
        return CheckpointError(
            f"The checkpoint cannot be written: {where} {verb} a {name}, which means nothing once "
            "this Ray has ended. Put the value itself into the state, or run without checkpoints."
        )

    def check_tuples(self) -> None:
        """Raise if tuples are nested deeper than a reader will follow."""
        heights: dict[int, int] = {}

        def height(value: Any, depth: int) -> int:
            key = id(value)
            kind = self.kinds.get(key)
            if kind is None or kind.hollow:
                return 0
            if key not in heights and depth < MAX_TUPLES:
                heights[key] = 1 + max((height(v, depth + 1) for v in kind.holds(value)), default=0)
            if depth + heights.get(key, 1) > MAX_TUPLES:
                raise CheckpointError(
                    f"{self.what} cannot be put into a checkpoint: tuples in it are nested more "
                    f"than {MAX_TUPLES} deep. Use lists there."
                )
            return heights[key]

        for key in self.kinds:
            height(self.kept[key], 0)

    # --- writing --------------------------------------------------------------------------------

    def node(self, value: Any) -> Any:
        """Return what stands for a value: itself, or a node."""
        cls = type(value)
        key = id(value)
        if cls in _ATOMS:
            if cls not in _TEXTS or len(value) < PIECE_BYTES:
                return value
            self.shared.setdefault(key)
        elif key in self.pickles:
            return [PICKLED, self.pickles[key]]
        if key in self.shared:
            place = self.shared[key]
            if place is None:
                place = self.shared[key] = len(self.table)
                self.table.append(value)
            return [REFERENCE, place]
        return self.made(value)

    def made(self, value: Any) -> Any:
        """Return the node of a value that msgpack cannot say."""
        cls = type(value)
        kind = self.kinds.get(id(value))
        if kind is None:
            if cls is list:
                return [*map(self.value, value)]
            if cls is dict:
                return {key: self.value(item) for key, item in value.items()}
            kind = PLAIN[cls] if cls in _ATOMS else self.kind_of(value)
        if kind is None:
            raise CheckpointError(f"{self.what} was changed while it was put into a checkpoint.")
        return kind.write(value, self)

    def data(self, parts: Iterable[Buffer]) -> bytes | int:
        """Return bytes as they are when small, else the number of the piece they become."""
        given = tuple(parts)
        if sum(map(len, given)) < PIECE_BYTES:
            return b"".join(given)
        self.pieces.append(given)
        return len(self.pieces) - 1

    def pack(self, root: Any, pickled: list[Any] | None) -> bytes:
        """Return the document: the root and, where there are any, all that it refers to."""
        made = len(self.pieces)
        try:
            return self.packed(root, pickled)
        except UnicodeEncodeError:  # lone surrogates; for all other texts this way is slower
            del self.pieces[made:]
            return self.packed(root, pickled, unicode_errors="surrogatepass")

    def packed(self, root: Any, pickled: list[Any] | None, **options: str) -> bytes:
        """Return the document, or raise UnicodeEncodeError."""
        pack: Callable[[Any], bytes] = partial(
            msgpack.packb, default=self.made, strict_types=True, **options
        )
        content = pack(root)
        if not (self.table or pickled or self.pieces):
            return VERSION + content
        table = pack(self.table)
        sizes = [sum(map(len, parts)) for parts in self.pieces]  # known only now
        return b"".join((VERSION, content, table, pack(pickled), pack(sizes)))

    def has_large_atoms(self) -> bool:
        """Say whether some text or bytes should have been a piece."""
        if type(self.root) in _TEXTS:
            return True
        for key, value in self.kept.items():
            kind = self.kinds.get(key)
            held = kind.holds(value) if kind else value if type(value) is list else value.values()
            if any(type(item) in _TEXTS and len(item) >= PIECE_BYTES for item in held):
                return True
        return False

    def pickle(self) -> list[Any]:
        """Pickle, in one go, all that must be."""
        outside = {
            key
            for key in self.kept
            if key not in self.pickles and (key not in self.kinds or self.kinds[key].changeable)
        }
        buffers: list[pickle.PickleBuffer] = []
        try:
            try:
                content = dumps(
                    [self.kept[key] for key in self.pickles], outside=outside, buffers=buffers
                )
            except HoldsShared:
                # Only one pickle keeps one object one; it needs to be trusted in either case.
                self.pickles = {id(self.root): 0}
                self.shared.clear()
                buffers.clear()
                content = dumps([self.root], buffers=buffers)
        except Exception as error:
            raise self.not_pickled(error) from error
        return [self.data([content]), [self.data([buffer.raw()]) for buffer in buffers]]

    def not_pickled(self, error: Exception) -> CheckpointError:
        """Return the error for what made pickling fail, naming the part."""
        culprit, found = self.root, error
        for key in self.pickles:
            try:
                dumps(self.kept[key])
            except Exception as its_own:
                culprit, found = self.kept[key], its_own
                break
        if isinstance(found, HoldsReference):
            return self.reference(culprit, str(found))
        where = self.where({id(culprit)}).get(id(culprit), self.what)
        return CheckpointError(
            f"The checkpoint cannot be written: {where} (a {_type_name(culprit)}) cannot be "
            f"pickled: {type(found).__name__}: {found}"
        )


def _same(value: Any) -> Any:
    return value


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_plain(value: Any) -> bool:
    """Say whether a value of a type that may hold more than its kind writes does not."""
    if isinstance(value, zoneinfo.ZoneInfo):
        return value.key is not None
    factory = getattr(value, "default_factory", None)
    known = factory is None or FACTORIES.get(getattr(factory, "__name__", "")) is factory
    return known and not getattr(value, "__dict__", None)
