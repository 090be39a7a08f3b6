"""What a loaded checkpoint says of its states before anybody reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from ..state import State
from .manifest import Active, Done
from .vault import Kept, StateVault

T = TypeVar("T")


class Origin(NamedTuple):
    """Where a checkpoint was loaded from: the store's URL, the line, its number there."""

    url: str
    line: str
    seq: int


class Later(Generic[T]):
    """A value that is read when it is asked for, once."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read: Callable[[], T] | None = read
        self._value: Any = None

    @property
    def touched(self) -> bool:
        """Whether somebody has it, and may have changed it."""
        return self._read is None

    def get(self) -> T:
        """The value."""
        if self._read is not None:
            self._value = self._read()
            self._read = None
        value: T = self._value
        return value


@dataclass(frozen=True, slots=True)
class KeptStates:
    """What a loaded checkpoint says of its states without reading them.

    Attributes:
        vault: what reads them.
        states: where each lies, by number.
        active: the active nodes, with the numbers of their states.
        final: the number of what `end` produced last, or None.
        done: executions of the superstep that need not run again.
    """

    vault: StateVault
    states: tuple[Kept, ...]
    active: tuple[Active, ...]
    final: int | None
    done: tuple[Done, ...]

    def size(self, number: int) -> int:
        """How many messages a state has."""
        size: int = self.states[number].stored.size
        return size

    def read(self, number: int) -> State:
        """A state."""
        state: State = self.vault.load(self.states[number])
        return state
