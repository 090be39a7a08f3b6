"""A state that lies in the run's vault, as an attempt takes it for an input."""

from __future__ import annotations

from typing import Any

from ..errors import StateLostError
from .pool import Stored, Vault


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
