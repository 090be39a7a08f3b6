"""Pickling for checkpoints: what nothing else can hold, and never a reference into Ray."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Set
from typing import Any

import cloudpickle


class HoldsReference(Exception):
    """What was to be pickled holds a Ray reference; the text names its kind."""


class HoldsShared(Exception):
    """What was to be pickled holds an object that is also held from outside it."""


def is_reference(value: object) -> bool:
    """Say whether a value is a Ray object reference or actor handle. Does not import Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not hasattr(ray, "actor"):  # another thread may be importing it
        return False
    return isinstance(value, (ray.ObjectRef, ray.actor.ActorHandle))


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        if is_reference(obj):
            raise HoldsReference(type(obj).__name__)
        return super().reducer_override(obj)


class _ApartPickler(_Pickler):
    """Stops at an object that is known outside."""

    outside: Set[int]

    def persistent_id(self, obj: Any) -> None:
        if id(obj) in self.outside:
            raise HoldsShared


def dumps(
    value: Any,
    *,
    outside: Set[int] = frozenset(),
    buffers: list[pickle.PickleBuffer] | None = None,
) -> bytes:
    """Pickle a value with cloudpickle.

    Args:
        value: what to pickle.
        outside: ids of objects that must not be found in it.
        buffers: takes the large buffers of it, which are then not in the pickle itself.

    Raises:
        HoldsReference: an `ObjectRef` or actor handle is in it.
        HoldsShared: something of ``outside`` is in it.
    """
    kind = _ApartPickler if outside else _Pickler
    callback = None if buffers is None else buffers.append
    with io.BytesIO() as out:
        pickler = kind(out, protocol=5, buffer_callback=callback)
        if outside:
            pickler.outside = outside
        pickler.dump(value)
        return out.getvalue()
