"""Kinds of value whose class somebody wrote: dataclasses, named tuples, enums, pydantic models.

They are made without running their constructors. A class is checked to be what the document says
it is, and to have the fields that the document has.
"""

from __future__ import annotations

import copyreg
import dataclasses
import enum
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from msgpack import ExtType

from ...errors import CheckpointError
from .classes import (
    has_own_pickling,
    is_built_in,
    is_found_by_name,
    is_laid_out_like_object,
    name_of,
)
from .kinds import Kind, Mark, Outline, Reader, Writer, expect

_OF_SLOTTED_DATACLASSES = frozenset(
    {
        getattr(dataclasses, "_dataclass_getstate", None),
        getattr(dataclasses, "_dataclass_setstate", None),
    }
)


def _changed(cls: type, problem: str) -> CheckpointError:
    return CheckpointError(
        f"the class '{name_of(cls)}' {problem}. Load it with the class as it was when the "
        "checkpoint was written, or give what is new a default"
    )


_UNSET = object()
UNSET = ExtType(2, b"")
"""Stands where a field of an object has no value."""


def _is_unset(raw: Any) -> bool:
    return type(raw) is list and len(raw) == 1 and type(raw[0]) is Mark and raw[0] == UNSET.code


class _EnumMember(Kind):
    code, name, tracked = 32, "Enum member", False

    def write(self, value: enum.Enum, writer: Writer) -> list[Any]:
        cls = type(value)
        if value.name in cls.__members__:
            return [self.mark, name_of(cls), value.name]
        return [self.mark, name_of(cls), None, writer.value(value.value)]

    def read(self, args: list[Any], reader: Reader) -> Any:
        name, member, *bits = args
        cls = reader.find(name)
        if not (isinstance(cls, enum.EnumMeta) and is_enum(cls)):
            raise CheckpointError(f"the class '{name}' is not an Enum here, but was one")
        if bits:
            expect(issubclass(cls, enum.Flag), "it is no Flag")
            number = reader.value(bits[0], ".value")
            expect(type(number) is int, "it has no number")
            return cls(number)
        expect(isinstance(member, str), "it has no name")
        if member not in cls.__members__:
            raise CheckpointError(
                f"the Enum '{name}' has no member {member!r} here; it has "
                f"{', '.join(cls.__members__)}. Give it that member again, if need be as an "
                "alias of another"
            )
        return cls.__members__[member]

    def outline(self, args: list[Any]) -> Outline:
        return Outline(str(args[0]))


def is_enum(cls: type) -> bool:
    """Say whether all members, and all sums of a Flag's members, come back by name or number."""
    if not issubclass(cls, enum.Enum) or type(cls) is not enum.EnumMeta:
        return False
    own = cls._missing_.__func__  # type: ignore[attr-defined]
    return own in (enum.Enum._missing_.__func__, enum.Flag._missing_.__func__)  # type: ignore[attr-defined]


class _Named(Kind):
    """A tuple with names for its items."""

    code, name = 34, "namedtuple"

    def holds(self, value: Any) -> Iterable[Any]:
        return tuple(value)

    def labelled(self, value: Any) -> Iterator[tuple[str, Any]]:
        return ((f".{name}", item) for name, item in zip(value._fields, value, strict=True))

    def write(self, value: Any, writer: Writer) -> list[Any]:
        items = dict(zip(value._fields, map(writer.value, value), strict=True))
        return [self.mark, name_of(type(value)), items]

    def read(self, args: list[Any], reader: Reader) -> Any:
        name, items = args
        expect(isinstance(items, dict), "it has no fields")
        cls: Any = reader.find(name)
        if not is_namedtuple(cls):
            raise CheckpointError(f"the class '{name}' is not a namedtuple here, but was one")
        defaults = cls._field_defaults
        _compare(cls, items, cls._fields, defaults)
        return tuple.__new__(
            cls,
            [
                reader.value(items[field], f".{field}") if field in items else defaults[field]
                for field in cls._fields
            ],
        )

    def outline(self, args: list[Any]) -> Outline:
        return _object(args)


def is_namedtuple(cls: type) -> bool:
    """Say whether instances of a class are tuples with names and nothing more."""
    if not issubclass(cls, tuple) or not isinstance(getattr(cls, "_fields", None), tuple):
        return False
    return (
        not has_own_pickling(cls, but=frozenset(_namedtuple_methods(cls)))
        and isinstance(getattr(cls, "_field_defaults", None), dict)
        and all(base in (object, tuple) or not is_built_in(base) for base in cls.__mro__)
    )


def kind_of_class(cls: type) -> Kind | None:
    """Return the kind of all instances of a class, None where the class does not tell."""
    if not is_found_by_name(cls):
        return None
    if cls not in _kinds:
        _kinds[cls] = _kind_of_class(cls)
    return _kinds[cls]


_kinds: WeakKeyDictionary[type, Kind | None] = WeakKeyDictionary()


def _kind_of_class(cls: type) -> Kind | None:
    if is_enum(cls):
        return ENUM
    if is_dataclass(cls):
        return DATACLASS
    if is_pydantic(cls):
        return PYDANTIC
    return NAMED if is_namedtuple(cls) else None


def _namedtuple_methods(cls: type) -> Iterator[object]:
    for base in cls.__mro__:
        if base is tuple or base.__bases__ == (tuple,):
            yield base.__dict__.get("__getnewargs__")


def _compare(
    cls: type, given: Iterable[str], fields: Iterable[str], defaults: Mapping[str, Any]
) -> None:
    """Raise unless a class has the fields that are given, and defaults for those that are not."""
    fields = list(fields)
    if gone := [name for name in given if name not in fields]:
        raise _changed(cls, f"has no field {_listed(gone)} here, but the checkpoint has")
    if new := [name for name in fields if name not in given and name not in defaults]:
        raise _changed(
            cls, f"has a field {_listed(new)} without a default that is not in the checkpoint"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _object(args: list[Any]) -> Outline:
    """Outline something that has a class and fields."""
    held = [part for part in args[1:] if isinstance(part, dict)]
    items = [pair for part in held for pair in part.items() if not _is_unset(pair[1])]
    children = [(f".{name}", item) for name, item in items]
    return Outline(str(args[0]), children=children)


class _Layout(NamedTuple):
    fields: tuple[str, ...]
    slots: frozenset[str]


_layouts: WeakKeyDictionary[type, _Layout] = WeakKeyDictionary()


def _layout(cls: Any) -> _Layout:
    layout = _layouts.get(cls)
    if layout is None:
        slots = frozenset(copyreg._slotnames(cls))  # type: ignore[attr-defined]
        layout = _Layout(tuple(field.name for field in dataclasses.fields(cls)), slots)
        _layouts[cls] = layout
    return layout


def is_dataclass(cls: type) -> bool:
    """Say whether instances of a class are its fields and further attributes, and nothing more."""
    if not dataclasses.is_dataclass(cls) or not is_laid_out_like_object(cls):
        return False
    if _has_own_new(cls) or has_own_pickling(cls, but=_OF_SLOTTED_DATACLASSES):
        return False
    fields, slots = _layout(cls)
    return slots <= set(fields)


class _Dataclass(Kind):
    code, name, hollow = 35, "dataclass", True

    def _parts(self, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the fields, and the attributes that are none."""
        names, slots = _layout(type(value))
        own = getattr(value, "__dict__", {})
        if slots:
            own = own | {slot: getattr(value, slot) for slot in slots if hasattr(value, slot)}
        fields = {name: own.get(name, _UNSET) for name in names}
        if len(own) == len(names) and own.keys() == fields.keys():
            return fields, {}
        return fields, {name: item for name, item in own.items() if name not in fields}

    def holds(self, value: Any) -> Iterable[Any]:
        fields, more = self._parts(value)
        return [item for item in (*fields.values(), *more.values()) if item is not _UNSET]

    def labelled(self, value: Any) -> Iterator[tuple[str, Any]]:
        for part in self._parts(value):
            yield from ((f".{name}", item) for name, item in part.items() if item is not _UNSET)

    def write(self, value: Any, writer: Writer) -> list[Any]:
        fields, more = self._parts(value)
        node = [self.mark, name_of(type(value)), _written(fields, writer)]
        if more:
            if set(map(type, more)) != {str}:
                raise CheckpointError("it has an attribute whose name is no str")
            node.append(_written(more, writer))
        return node

    def read(self, args: list[Any], reader: Reader) -> Any:
        name, fields, *more = args
        expect(isinstance(fields, dict) and all(isinstance(m, dict) for m in more), "no fields")
        cls = reader.find(name)
        if not is_dataclass(cls):
            raise CheckpointError(
                f"the class '{name}' is not a dataclass here that can be made from its fields, "
                "but was one when the checkpoint was written"
            )
        return object.__new__(cls)

    def fill(self, value: Any, args: list[Any], reader: Reader) -> None:
        cls = type(value)
        _, fields, *more = args
        declared = {field.name: field for field in dataclasses.fields(cls)}
        missing = dataclasses.MISSING
        defaults = {
            name: field
            for name, field in declared.items()
            if field.default is not missing or field.default_factory is not missing
        }
        _compare(cls, fields, declared, defaults)
        slots = _layout(cls).slots
        own = getattr(value, "__dict__", None)
        for name, field in declared.items():
            if name in fields:
                if _is_unset(fields[name]):
                    continue
                item = reader.value(fields[name], f".{name}")
            elif field.default is not missing:
                item = field.default
            else:
                item = _made_by(field.default_factory, cls, name, trusted=reader.trusted)
            _put(value, own, slots, name, item)
        for name, item in (more[0] if more else {}).items():
            _put(value, own, slots, name, reader.value(item, f".{name}"))

    def outline(self, args: list[Any]) -> Outline:
        return _object(args)


def _has_own_new(cls: Any) -> bool:
    return cls.__new__ is not object.__new__


def _written(items: Mapping[str, Any], writer: Writer) -> dict[str, Any]:
    return {name: [UNSET] if item is _UNSET else writer.value(item) for name, item in items.items()}


def _put(
    value: Any, own: dict[str, Any] | None, slots: frozenset[str], name: str, item: Any
) -> None:
    if name in slots:
        object.__setattr__(value, name, item)
    elif own is not None:
        own[name] = item
    else:
        raise _changed(type(value), f"has no room for {name!r} here")


def _made_by(factory: Any, cls: type, field: str, *, trusted: bool) -> Any:
    if trusted or (isinstance(factory, type) and is_built_in(factory)):
        return factory()
    raise CheckpointError(
        f"the field '{field}' of '{name_of(cls)}' is not in the checkpoint, and its default comes "
        "from a function, which is called only if you load with allow_pickle=True"
    )


class _Pydantic(Kind):
    """A pydantic model, as pydantic's own pickling would keep it."""

    code, name, hollow = 36, "pydantic model", True

    def _parts(self, value: Any) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]:
        hidden = value.__pydantic_private__ or {}
        missing = sys.modules["pydantic_core"].PydanticUndefined
        private = {name: item for name, item in hidden.items() if item is not missing}
        return dict(value.__dict__), value.__pydantic_extra__, private

    def holds(self, value: Any) -> Iterable[Any]:
        return [item for part in self._parts(value) for item in (part or {}).values()]

    def labelled(self, value: Any) -> Iterator[tuple[str, Any]]:
        for part in self._parts(value):
            yield from ((f".{name}", item) for name, item in (part or {}).items())

    def write(self, value: Any, writer: Writer) -> list[Any]:
        fields, extra, private = self._parts(value)
        more = None if extra is None else _written(extra, writer)
        given = sorted(value.__pydantic_fields_set__)
        parts = [_written(fields, writer), more, _written(private, writer), given]
        return [self.mark, name_of(type(value)), *parts]

    def read(self, args: list[Any], reader: Reader) -> Any:
        name, fields, extra, private, given = args
        expect(isinstance(fields, dict) and isinstance(private, dict), "it has no fields")
        expect(extra is None or isinstance(extra, dict), "it has no fields")
        expect(isinstance(given, list) and set(map(type, given)) <= {str}, "it has no fields")
        cls = reader.find(name)
        if not is_pydantic(cls):
            raise CheckpointError(
                f"the class '{name}' is not a pydantic model here, but was one when the "
                "checkpoint was written"
            )
        return object.__new__(cls)

    def fill(self, value: Any, args: list[Any], reader: Reader) -> None:
        cls: Any = type(value)
        _, fields, extra, private, given = args
        declared = cls.model_fields
        cached = [name for name in fields if name not in declared and name in cls.__dict__]
        defaults = {name: None for name, field in declared.items() if not field.is_required()}
        _compare(cls, [name for name in fields if name not in cached], declared, defaults)
        content = {name: reader.value(item, f".{name}") for name, item in fields.items()}
        for name, field in declared.items():
            if name not in content:
                content[name] = (
                    field.get_default()
                    if field.default_factory is None
                    else _made_by(field.default_factory, cls, name, trusted=reader.trusted)
                )
        hidden = None
        if cls.__private_attributes__:
            hidden = {name: reader.value(item, f".{name}") for name, item in private.items()}
        more = extra and {name: reader.value(item, f".{name}") for name, item in extra.items()}
        object.__setattr__(value, "__dict__", content)
        object.__setattr__(value, "__pydantic_extra__", more)
        object.__setattr__(value, "__pydantic_fields_set__", set(given))
        object.__setattr__(value, "__pydantic_private__", hidden)

    def outline(self, args: list[Any]) -> Outline:
        return _object(args)


def is_pydantic(cls: type) -> bool:
    """Say whether a class is a pydantic model that leaves pickling to pydantic."""
    # Another thread may be importing it: then no class can be of it yet.
    base: Any = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    if base is None or not issubclass(cls, base):
        return False
    known = frozenset({base.__getstate__, base.__setstate__})
    return (
        cls is not base
        and is_laid_out_like_object(cls)
        and not _has_own_new(cls)
        and not has_own_pickling(cls, but=known)
    )


ENUM, NAMED, DATACLASS, PYDANTIC = _EnumMember(), _Named(), _Dataclass(), _Pydantic()
