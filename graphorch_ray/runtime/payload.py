"""States on the move: one pickling for both backends, with large buffers out of band.

A `Payload` is a state taken apart: a block of bytes, the large buffers (array data, Arrow
columns) beside it, and the Ray object references and actor handles found inside. Putting it
together again gives fresh containers over shared, read-only buffers, so that every receiver has
a private copy of everything it could change and pays nothing for what it can only read.
"""

from __future__ import annotations

import contextlib
import copyreg
import dataclasses
import io
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import cloudpickle
from cloudpickle.cloudpickle import _class_setstate

from ..errors import SerializationError
from ..state import State
from . import instruments
from .stored import StoredPayload

SHARED_BUFFER_BYTES = 64 * 1024
"""A buffer of at least this many bytes is shared read-only; a smaller one is copied."""

INLINE_BYTES = 32 * 1024
"""A payload up to this size travels with the message about it, however many there are. A larger one
is an object of its own in Ray's store, if there are many."""


class Payload:
    """A state taken apart. Immutable; `load()` may be called any number of times.

    Attributes:
        data: the pickle.
        buffers: large buffers, in the order the pickle asks for them; read-only.
        refs: Ray references and actor handles inside the state, in order.
        size: number of messages (states in the list, for what is not a state).
        kept: the state in a vault, if it is there. Does not travel.
    """

    __slots__ = ("buffers", "data", "kept", "refs", "size")

    def __init__(
        self, data: Any, buffers: Sequence[Any] = (), refs: Sequence[Any] = (), size: int = 0
    ) -> None:
        self.data = data
        self.buffers = buffers
        self.refs = refs
        self.size = size
        self.kept: StoredPayload | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of pickle and buffers together."""
        return _length(self.data) + sum(map(_length, self.buffers))

    def fits(self, limit: int = INLINE_BYTES) -> bool:
        """Whether the payload is small enough to travel with a message."""
        return not self.refs and self.nbytes <= limit

    def load(self, *, mutable: bool = False) -> Any:
        """Put the state together: a private copy, over shared read-only buffers.

        Args:
            mutable: copy the large buffers too, so that they may be written to.
        """
        if not self.buffers and not self.refs:
            return pickle.loads(self.data)
        buffers: list[Any]
        if mutable:
            buffers = [bytearray(buffer) for buffer in self.buffers]
        else:
            buffers = [memoryview(buffer).toreadonly() for buffer in self.buffers]
        with _found.holding(self.refs):
            return pickle.loads(self.data, buffers=buffers)

    def compact(self) -> Payload:
        """The same payload owning its memory, for one that is kept in this process."""
        buffers = tuple([_owned(buffer) for buffer in self.buffers])
        return Payload(bytes(self.data), buffers, self.refs, self.size)

    def __reduce__(self) -> tuple[Any, ...]:
        # Out of band where the pickler can (Ray's can), so that no byte is copied twice.
        buffers = tuple([pickle.PickleBuffer(buffer) for buffer in self.buffers])
        data: Any = self.data
        if _length(data) >= SHARED_BUFFER_BYTES:
            data = pickle.PickleBuffer(data)
        return Payload, (data, buffers, tuple(self.refs), self.size)


def dump(state: Any, what: str, *, local: bool = False) -> Payload:
    """Take a state apart. The result may share memory with it: `compact()` what you keep.

    Args:
        state: the state.
        what: how an error names it, for example ``"the state returned by node 'a'"``.
        local: it will be put together in this process only: functions, classes and modules in it
            stay what they are, as they do in `copy.deepcopy`.

    Raises:
        SerializationError: something in it cannot be pickled; the error says what and where.
    """
    buffers: list[Any] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < SHARED_BUFFER_BYTES:
            return True
        buffers.append(raw)
        return False

    try:
        data, refs = _pickle(state, keep_in_band, local=local)
    except Exception as error:
        raise SerializationError(what, _blame(state, error)) from error
    messages = getattr(state, "messages", state)
    return Payload(data, buffers, refs, len(messages) if hasattr(messages, "__len__") else 0)


def dump_code(code: Any) -> tuple[bytes, tuple[Any, ...]]:
    """Pickle a function and what it refers to; also gives the Ray references inside."""
    data, refs = _pickle(code)
    return data, tuple(refs)


def load_code(data: bytes, refs: Sequence[Any]) -> Any:
    """The counterpart of `dump_code`."""
    with _found.holding(refs):
        return pickle.loads(data)


def _pickle(
    value: Any, buffer_callback: Any = None, *, local: bool = False
) -> tuple[bytes, list[Any]]:
    with io.BytesIO() as out:
        pickler = _Pickler(
            out, local=local, protocol=pickle.HIGHEST_PROTOCOL, buffer_callback=buffer_callback
        )
        pickler.dump(value)
        return out.getvalue(), pickler.refs


def _length(buffer: Any) -> int:
    return len(buffer) if isinstance(buffer, bytes) else memoryview(buffer).nbytes


def _owned(buffer: Any) -> Any:
    """A buffer nobody else can write to: itself where it is one already, else a copy."""
    view = memoryview(buffer)
    return buffer if isinstance(view.obj, bytes) else bytes(view)


# --- Ray references inside a state ------------------------------------------------------------


class _Found(threading.local):
    """The references of the payload that this thread is loading."""

    refs: Sequence[Any] = ()

    @contextlib.contextmanager
    def holding(self, refs: Sequence[Any]) -> Iterator[None]:
        before, self.refs = self.refs, refs
        try:
            yield
        finally:
            self.refs = before


_found = _Found()


def _reference(index: int) -> Any:
    return _found.refs[index]


def _ray_types() -> tuple[type, ...]:
    """What travels beside the pickle; empty as long as nobody has imported Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not hasattr(ray, "actor"):
        return ()
    return (ray.ObjectRef, ray.actor.ActorHandle)


_LOCAL_TYPES = (types.FunctionType, type, types.ModuleType, weakref.ref)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, with three differences.

    Ray references are put aside instead of being pinned for ever; where the result stays in the
    process, so is all that `copy.deepcopy` would not copy. And a class that travels by value
    leaves the class of that name alone where it is defined already, its class variables included.
    And a tracer or meter of OpenTelemetry travels by its name.
    """

    def __init__(self, file: io.BytesIO, *, local: bool, **options: Any) -> None:
        super().__init__(file, **options)
        self.refs: list[Any] = []
        self._aside = _ray_types() + (_LOCAL_TYPES if local else ())

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _plain and kind not in copyreg.dispatch_table:
            return obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        if obj is State:
            return NotImplemented  # by its name
        if self._aside and isinstance(obj, self._aside) and obj is not _reference:
            self.refs.append(obj)
            return _reference, (len(self.refs) - 1,)
        if (instrument := instruments.reduced(obj)) is not None:
            return instrument
        reduced = super().reducer_override(obj)
        if reduced is NotImplemented:
            _note_plain(obj)
        if isinstance(reduced, tuple) and reduced[-1] is _class_setstate:
            _defined.add(obj)
            return (*reduced[:-1], _define)
        return reduced


PLAIN_KEPT = 1000
"""Classes that are remembered in `_plain`; they are not freed meanwhile."""

_plain: set[type] = set()
"""Classes whose instances are pickled as the class says, without a look at each of them."""


def _note_plain(obj: Any) -> None:
    """Remember the class of an object in which nothing was to be seen to, if it is the class's."""
    kind = type(obj)
    never = (*_LOCAL_TYPES, *_ray_types())
    if obj.__class__ is not kind or issubclass(kind, never) or kind in _Pickler.dispatch_table:
        return
    if len(_plain) >= PLAIN_KEPT:
        _plain.clear()
    _plain.add(kind)


_defined: weakref.WeakSet[type] = weakref.WeakSet()


def _define(cls: type, state: Any) -> type:
    """Fill in a class that arrived by value, unless it is this process's own or was here before."""
    if cls not in _defined:
        _class_setstate(cls, state)
        _defined.add(cls)
    return cls


# --- saying what could not be pickled ---------------------------------------------------------


def picklable(value: Any) -> BaseException | None:
    """None where the value can be pickled, else the error it gives."""
    try:
        _pickle(value)
    except Exception as error:
        return error
    return None


def _blame(state: Any, error: BaseException) -> str:
    """Where in the state the trouble is: its innermost part that fails by itself."""
    found = _innermost(state, "state", depth=4)
    if found is None:
        return f"{type(error).__name__}: {error}"
    path, value, cause = found
    return f"{path}, a {type(value).__module__}.{type(value).__qualname__}: {cause}"


def _innermost(value: Any, path: str, depth: int) -> tuple[str, Any, BaseException] | None:
    cause = picklable(value)
    if cause is None:
        return None
    if depth:
        for name, part in _parts(value):
            found = _innermost(part, path + name, depth - 1)
            if found is not None:
                return found
    return path, value, cause


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield f".{field.name}", getattr(value, field.name, None)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield f"[{key!r}]", part
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield f"[{index}]", part
