"""A state that lies in the run's vault, as an attempt takes it for an input."""

from __future__ import annotations

from typing import Any, Protocol

from ..errors import StateLostError

Stored = Any
"""Where a state is kept outside of this process and of Ray, as its vault tells it. Small, and can
be pickled."""


SMALL_SAVE_BYTES = 1024
"""States up to this size, together, are kept in the thread that asks: a vault keeps them beside
its own records, and a thread's round trip would cost more than that."""


class Vault(Protocol):
    """Keeps states outside of this process and of Ray. Travels to workers.

    Attributes:
        name: tells it from others: what is kept in one need not be kept there again.
        mapped: reading a state costs next to nothing where the vault is visible: large values are
            memory-mapped, not copied.
        shared: other processes may see it at all.
    """

    name: str
    mapped: bool
    shared: bool

    def visible(self) -> bool:
        """Whether this process sees the very vault that the driver sees."""

    def save(self, state: Any, size: int, *, anew: bool = False) -> Stored:
        """Keep a state of `size` messages; `anew` even where it seems to be there. Blocks."""

    def load(self, stored: Stored, *, mutable: bool = False) -> Any:
        """A private copy of a state. Blocks."""


class InputLost(StateLostError):
    """An input of an attempt cannot be read where the attempt runs: no fault of the node."""


class StoredPayload:
    """A state in the vault. Stands where a `Payload` may stand, and is read by whoever loads it.

    Attributes:
        stored: where it is.
        nbytes: its size.
        size: number of messages.
    """

    __slots__ = ("nbytes", "size", "stored", "vault")

    def __init__(self, vault: Vault, stored: Stored, nbytes: int, size: int) -> None:
        self.vault = vault
        self.stored = stored
        self.nbytes = nbytes
        self.size = size

    def load(self, *, mutable: bool = False) -> Any:
        """A private copy of the state.

        Raises:
            InputLost: the vault cannot give it here.
        """
        try:
            return self.vault.load(self.stored, mutable=mutable)
        except Exception as error:
            raise InputLost(f"A state cannot be read from its checkpoint: {error}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredPayload, (self.vault, self.stored, self.nbytes, self.size)
