"""References on their way to a worker that is inside a call already, and so cannot be passed them.

Whoever lends must hold the reference until the worker has answered. Like `stream`, this reaches
below Ray's public interface, and was checked against Ray 2.60: what Ray offers for references in
other pickles keeps their objects for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Lent(NamedTuple):
    """The id of an object, the address of its owner, and what the owner says of it."""

    object_id: bytes
    owner: bytes
    status: bytes


def lend(ref: Any) -> Lent:
    """A reference as plain data."""
    _, owner, status = _core().serialize_object_ref(ref)
    return Lent(ref.binary(), owner, status)


def fetched(lent: Sequence[Lent]) -> list[Any]:
    """The objects behind references that were lent, mapped where they are on this machine.

    Raises:
        ray.exceptions.RayError: one is gone.
    """
    import ray

    refs: list[Any] = []
    make: Any = ray.ObjectRef  # its types take the owner's address for text
    nobody = make.nil()
    for object_id, owner, status in lent:
        refs.append(make(object_id, owner))
        _core().deserialize_and_register_object_ref(object_id, nobody, owner, status)
    return ray.get(refs) if refs else []


def _core() -> Any:
    from ray._private import worker

    process: Any = worker.global_worker
    return process.core_worker
