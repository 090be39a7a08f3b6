"""The states that wait for the next superstep, as a mapping that reads one when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..state import State


class ActiveStates(Mapping[str, list[State]]):
    """By node id, the states that wait there. A state is fetched each time it is read.

    Like the dict of lists that it stands for, it answers an unknown id with an empty list.
    """

    def __init__(self, active: Mapping[str, list[Any]], read: Callable[[Any], State]) -> None:
        self._active = active
        self._read = read

    def __getitem__(self, node_id: str) -> list[State]:
        return [self._read(state) for state in self._active.get(node_id, [])]

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._active

    def __iter__(self) -> Iterator[str]:
        return iter(self._active)

    def __len__(self) -> int:
        return len(self._active)

    def __repr__(self) -> str:
        counts = ", ".join(f"{node_id!r}: {len(s)}" for node_id, s in self._active.items())
        return f"ActiveStates({{{counts}}})"
