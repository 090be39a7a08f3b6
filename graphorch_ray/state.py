"""The value that travels along the edges of a graph."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(eq=False, repr=False)
class State:
    """What a node receives and returns: a list of messages of any kind.

    Subclass it, as a dataclass, to carry more than messages; the further fields
    travel and are checkpointed like ``messages``. Two states are equal when their
    messages are equal, or, in a subclass decorated with ``@dataclass``, when all
    fields are.

    Attributes:
        messages: Anything that can be pickled; an empty list by default. The list
            given is kept, not copied.

    Example:
        >>> state = State(messages=["hello"])
        >>> state.messages.append("world")
        >>> state
        State(['hello', 'world'])
    """

    messages: list[Any] = field(default_factory=list)

    __hash__ = None  # type: ignore[assignment]  # mutable, so never a dictionary key

    def __eq__(self, other: object) -> bool:
        """Compare by messages, whatever the class of the other state."""
        if not isinstance(other, State):
            return NotImplemented
        return bool(self.messages == other.messages)

    def __repr__(self) -> str:
        """Show the messages, and the further fields of an undecorated-repr subclass by name."""
        more = [f"{item.name}={getattr(self, item.name)!r}" for item in fields(self)[1:]]
        return f"{type(self).__name__}({', '.join([repr(self.messages), *more])})"
