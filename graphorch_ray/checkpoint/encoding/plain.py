"""Kinds of value that come with Python: containers, numbers, bytes, dates, paths."""

from __future__ import annotations

import datetime as dt
import pathlib
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import chain
from typing import Any

from .kinds import Kind, Outline, Reader, Writer, check_hashes, expect, numbered

FACTORIES = {
    kind.__name__: kind
    for kind in (bool, bytes, deque, dict, float, frozenset, int, list, set, str, tuple)
}
"""What a defaultdict may make by default and still be plain data, by name."""


class _LongInt(Kind):
    """An integer that 64 bits do not hold."""

    code, name, tracked = 3, "int", False

    def write(self, value: int, writer: Writer) -> list[Any]:
        size = value.bit_length() // 8 + 1
        return [self.mark, value.to_bytes(size, "little", signed=True)]

    def read(self, args: list[Any], reader: Reader) -> int:
        (data,) = args
        expect(isinstance(data, bytes), "it has no bytes")
        return int.from_bytes(data, "little", signed=True)


class _Complex(Kind):
    code, name, tracked = 4, "complex", False

    def write(self, value: complex, writer: Writer) -> list[Any]:
        return [self.mark, value.real, value.imag]

    def read(self, args: list[Any], reader: Reader) -> complex:
        real, imag = args
        expect(type(real) is float and type(imag) is float, "its parts are not numbers")
        return complex(real, imag)


class _Data(Kind):
    def outline(self, args: list[Any]) -> Outline:
        return Outline(self.name, data=args[-1:])


class _LongStr(_Data):
    """A text that is large enough to be a piece."""

    code, name = 5, "str"

    def write(self, value: str, writer: Writer) -> list[Any]:
        return [self.mark, writer.data([value.encode("utf-8", "surrogatepass")])]

    def read(self, args: list[Any], reader: Reader) -> str:
        (data,) = args
        return str(reader.data(data), "utf-8", "surrogatepass")


class _LongBytes(_Data):
    """Bytes that are enough to be a piece."""

    code, name = 6, "bytes"

    def write(self, value: bytes, writer: Writer) -> list[Any]:
        return [self.mark, writer.data([value])]

    def read(self, args: list[Any], reader: Reader) -> bytes:
        (data,) = args
        return bytes(reader.data(data))


class _ByteArray(_Data):
    code, name, changeable = 7, "bytearray", True

    def write(self, value: bytearray, writer: Writer) -> list[Any]:
        return [self.mark, writer.data([value])]

    def read(self, args: list[Any], reader: Reader) -> bytearray:
        (data,) = args
        return bytearray(reader.data(data))


class _MemoryView(_Data):
    code, name, changeable = 8, "memoryview", True

    def write(self, value: memoryview, writer: Writer) -> list[Any]:
        _cast(memoryview(bytes(value.itemsize)), value.format)  # raises for what `read` cannot make
        data = value.cast("B") if value.c_contiguous and value.nbytes else value.tobytes()
        return [self.mark, value.format, list(value.shape or ()), writer.data([data])]

    def read(self, args: list[Any], reader: Reader) -> Any:
        layout, shape, data = args
        view = reader.data(data)
        view = memoryview(bytearray(view)) if reader.mutable else view.toreadonly()
        expect(isinstance(layout, str) and isinstance(shape, list), "it has no shape")
        if not view.nbytes:
            return _cast(view, layout)
        return _cast(view, layout, shape)


def _cast(view: Any, layout: str, *shape: list[int]) -> Any:
    return view.cast(layout, *shape)


class _Tuple(Kind):
    code, name = 9, "tuple"

    def holds(self, value: tuple[Any, ...]) -> Iterable[Any]:
        return value

    def write(self, value: tuple[Any, ...], writer: Writer) -> list[Any]:
        return [self.mark, *map(writer.value, value)]

    def read(self, args: list[Any], reader: Reader) -> tuple[Any, ...]:
        return tuple([reader.value(item, at) for at, item in enumerate(args)])

    def outline(self, args: list[Any]) -> Outline:
        return Outline(self.name, len(args), numbered(args))


class _Dict(Kind):
    """A dict that msgpack cannot hold: some key is not a str."""

    code, name, hollow = 10, "dict", True
    make: type = dict

    def holds(self, value: dict[Any, Any]) -> Iterable[Any]:
        return [*value, *value.values()]

    def labelled(self, value: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
        for key, item in value.items():
            yield f"'s key {key!r}", key
            yield f"[{key!r}]", item

    def pairs(self, value: dict[Any, Any], writer: Writer) -> list[Any]:
        return [*map(writer.value, chain.from_iterable(value.items()))]

    def write(self, value: dict[Any, Any], writer: Writer) -> list[Any]:
        return [self.mark, *self.pairs(value, writer)]

    def read(self, args: list[Any], reader: Reader) -> Any:
        return self.make()

    def fill(self, value: dict[Any, Any], args: list[Any], reader: Reader) -> None:
        expect(len(args) % 2 == 0, "a key has no value")
        keys = [reader.key(key, f"'s key {at}") for at, key in enumerate(args[::2])]
        check_hashes(keys, trusted=reader.trusted)
        # Not dict.update: it would go through the methods of a Counter.
        for key, item in zip(keys, args[1::2], strict=True):
            value[key] = reader.value(item, (key,))

    def outline(self, args: list[Any]) -> Outline:
        keys = [repr(key) if isinstance(key, (str, int, float)) else "…" for key in args[::2]]
        items = ((f"[{key}]", item) for key, item in zip(keys, args[1::2], strict=False))
        return Outline(self.name, len(keys), items)


class _Ordered(_Dict):
    code, name, make = 11, "OrderedDict", OrderedDict


class _Default(_Dict):
    code, name = 12, "defaultdict"

    def write(self, value: Any, writer: Writer) -> list[Any]:
        factory = value.default_factory
        name = None if factory is None else getattr(factory, "__name__", "?")
        return [self.mark, name, *self.pairs(value, writer)]

    def read(self, args: list[Any], reader: Reader) -> defaultdict[Any, Any]:
        name = args[0]
        expect(name is None or name in FACTORIES, "its factory is not known")
        return defaultdict(None if name is None else FACTORIES[name])

    def fill(self, value: dict[Any, Any], args: list[Any], reader: Reader) -> None:
        super().fill(value, args[1:], reader)

    def outline(self, args: list[Any]) -> Outline:
        return super().outline(args[1:])


class _Count(_Dict):
    code, name, make = 13, "Counter", Counter


def _in_order(items: Iterable[Any]) -> Iterable[Any]:
    """Sort what can be: then equal sets make equal documents, in every process."""
    items = list(items)
    kinds = set(map(type, items))
    return sorted(items) if len(kinds) == 1 and kinds <= {str, int, bytes} else items


class _Set(Kind):
    code, name, hollow = 14, "set", True

    def holds(self, value: set[Any]) -> Iterable[Any]:
        return value

    def labelled(self, value: set[Any]) -> Iterator[tuple[str, Any]]:
        return (("'s item", item) for item in value)

    def write(self, value: set[Any], writer: Writer) -> list[Any]:
        return [self.mark, *map(writer.value, _in_order(value))]

    def read(self, args: list[Any], reader: Reader) -> set[Any]:
        return set()

    def fill(self, value: set[Any], args: list[Any], reader: Reader) -> None:
        value.update(_keys(args, reader))

    def outline(self, args: list[Any]) -> Outline:
        return Outline(self.name, len(args), numbered(args))


class _FrozenSet(_Set):
    code, name, hollow = 15, "frozenset", False

    def read(self, args: list[Any], reader: Reader) -> Any:
        return frozenset(_keys(args, reader))


def _keys(args: list[Any], reader: Reader) -> list[Any]:
    keys = [reader.key(item, "'s item") for item in args]
    check_hashes(keys, trusted=reader.trusted)
    return keys


class _Deque(Kind):
    code, name, hollow = 16, "deque", True

    def holds(self, value: deque[Any]) -> Iterable[Any]:
        return value

    def write(self, value: deque[Any], writer: Writer) -> list[Any]:
        return [self.mark, value.maxlen, *map(writer.value, value)]

    def read(self, args: list[Any], reader: Reader) -> deque[Any]:
        return deque(maxlen=args[0])

    def fill(self, value: deque[Any], args: list[Any], reader: Reader) -> None:
        value.extend([reader.value(item, at) for at, item in enumerate(args[1:])])

    def outline(self, args: list[Any]) -> Outline:
        return Outline(self.name, len(args) - 1, numbered(args[1:]))


class _Range(Kind):
    code, name, tracked = 17, "range", False
    make: type = range

    def holds(self, value: Any) -> Iterable[Any]:
        return (value.start, value.stop, value.step)

    def write(self, value: Any, writer: Writer) -> list[Any]:
        return [self.mark, *map(writer.value, self.holds(value))]

    def read(self, args: list[Any], reader: Reader) -> Any:
        start, stop, step = (reader.value(arg, "'s part") for arg in args)
        return self.make(start, stop, step)

    def outline(self, args: list[Any]) -> Outline:
        return Outline(self.name, children=numbered(args))


class _Slice(_Range):
    code, name, tracked, make = 18, "slice", True, slice


CONSTANTS = {"Ellipsis": ..., "NotImplemented": NotImplemented}


class _Constant(Kind):
    code, name, tracked = 19, "constant", False

    def write(self, value: Any, writer: Writer) -> list[Any]:
        return [self.mark, repr(value)]

    def read(self, args: list[Any], reader: Reader) -> Any:
        (name,) = args
        return CONSTANTS[name]


class _Timed(Kind):
    tracked = False

    def holds(self, value: Any) -> Iterable[Any]:
        return () if value.tzinfo is None else (value.tzinfo,)

    def labelled(self, value: Any) -> Iterator[tuple[str, Any]]:
        return ((".tzinfo", zone) for zone in self.holds(value))

    def write(self, value: Any, writer: Writer) -> list[Any]:
        text = value.replace(tzinfo=None).isoformat()
        zone = None if value.tzinfo is None else writer.value(value.tzinfo)
        return [self.mark, text, value.fold, zone]

    def outline(self, args: list[Any]) -> Outline:
        return Outline(self.name, children=[(".tzinfo", args[2])] if args[2:] else ())


class _DateTime(_Timed):
    code, name = 20, "datetime"

    def read(self, args: list[Any], reader: Reader) -> dt.datetime:
        text, fold, zone = args
        return dt.datetime.fromisoformat(text).replace(
            fold=fold, tzinfo=reader.value(zone, ".tzinfo")
        )


class _Time(_Timed):
    code, name = 22, "time"

    def read(self, args: list[Any], reader: Reader) -> dt.time:
        text, fold, zone = args
        return dt.time.fromisoformat(text).replace(fold=fold, tzinfo=reader.value(zone, ".tzinfo"))


class _Date(Kind):
    code, name, tracked = 21, "date", False

    def write(self, value: dt.date, writer: Writer) -> list[Any]:
        return [self.mark, value.isoformat()]

    def read(self, args: list[Any], reader: Reader) -> dt.date:
        (text,) = args
        return dt.date.fromisoformat(text)


class _TimeDelta(Kind):
    code, name, tracked = 23, "timedelta", False

    def write(self, value: dt.timedelta, writer: Writer) -> list[Any]:
        return [self.mark, value.days, value.seconds, value.microseconds]

    def read(self, args: list[Any], reader: Reader) -> dt.timedelta:
        days, seconds, microseconds = args
        return dt.timedelta(days, seconds, microseconds)


class _TimeZone(Kind):
    """A fixed offset, with or without a name."""

    code, name, tracked = 24, "timezone", False

    def write(self, value: dt.timezone, writer: Writer) -> list[Any]:
        if value is dt.UTC:
            return [self.mark]
        offset, *name = value.__getinitargs__()  # type: ignore[attr-defined]
        return [self.mark, offset.days, offset.seconds, offset.microseconds, *name]

    def read(self, args: list[Any], reader: Reader) -> dt.timezone:
        if not args:
            return dt.UTC
        days, seconds, microseconds, *name = args
        return dt.timezone(dt.timedelta(days, seconds, microseconds), *name)


class _Zone(Kind):
    """A time zone by its name in the IANA data."""

    code, name, tracked = 25, "ZoneInfo", False

    def write(self, value: zoneinfo.ZoneInfo, writer: Writer) -> list[Any]:
        return [self.mark, value.key]

    def read(self, args: list[Any], reader: Reader) -> zoneinfo.ZoneInfo:
        (key,) = args
        return zoneinfo.ZoneInfo(key)


class _Text(Kind):
    """What its own text says exactly."""

    tracked = False
    make: type

    def write(self, value: Any, writer: Writer) -> list[Any]:
        return [self.mark, str(value)]

    def read(self, args: list[Any], reader: Reader) -> Any:
        (text,) = args
        expect(isinstance(text, str), "it has no text")
        return self.make(text)


class _DecimalNumber(_Text):
    code, name, make = 26, "Decimal", Decimal


class _Uuid(Kind):
    code, name, tracked = 27, "UUID", False

    def write(self, value: uuid.UUID, writer: Writer) -> list[Any]:
        return [self.mark, value.bytes, value.is_safe.value]

    def read(self, args: list[Any], reader: Reader) -> uuid.UUID:
        data, is_safe = args
        return uuid.UUID(bytes=data, is_safe=uuid.SafeUUID(is_safe))


PATHS = {
    kind.__name__: kind
    for kind in (
        pathlib.PurePosixPath,
        pathlib.PureWindowsPath,
        pathlib.PosixPath,
        pathlib.WindowsPath,
    )
}


class _Path(Kind):
    code, name, tracked = 28, "path", False

    def write(self, value: pathlib.PurePath, writer: Writer) -> list[Any]:
        return [self.mark, type(value).__name__, str(value)]

    def read(self, args: list[Any], reader: Reader) -> pathlib.PurePath:
        kind, text = args
        expect(isinstance(text, str), "it has no text")
        return PATHS[kind](text)


PLAIN: dict[type, Kind] = {
    int: _LongInt(),
    complex: _Complex(),
    str: _LongStr(),
    bytes: _LongBytes(),
    bytearray: _ByteArray(),
    memoryview: _MemoryView(),
    tuple: _Tuple(),
    dict: _Dict(),
    OrderedDict: _Ordered(),
    defaultdict: _Default(),
    Counter: _Count(),
    set: _Set(),
    frozenset: _FrozenSet(),
    deque: _Deque(),
    range: _Range(),
    slice: _Slice(),
    type(...): _Constant(),
    type(NotImplemented): _Constant(),
    dt.datetime: _DateTime(),
    dt.date: _Date(),
    dt.time: _Time(),
    dt.timedelta: _TimeDelta(),
    dt.timezone: _TimeZone(),
    zoneinfo.ZoneInfo: _Zone(),
    Decimal: _DecimalNumber(),
    uuid.UUID: _Uuid(),
    **dict.fromkeys(PATHS.values(), _Path()),
}
"""The kind of each type, for types that are matched exactly."""
