"""How a hosted run ended, in a form that survives its driver and travels to whoever asks."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..errors import RemoteError
from ..model.attempt import Failure
from ..runtime.failures import capture, pack, unpack

Packed = tuple[Failure, bytes | None]


class Ending(NamedTuple):
    """How a run ended.

    Attributes:
        state: how.
        at: when, in Unix seconds.
        error: what `execute()` raised, packed, or None.
        cause: what that was raised from, packed, or None.
    """

    state: Literal["finished", "failed", "cancelled"]
    at: float
    error: Packed | None = None
    cause: Packed | None = None

    @property
    def text(self) -> str | None:
        """Why it failed, in a line or two."""
        return None if self.error is None else self.error[0].message

    def exception(self) -> BaseException:
        """What `execute()` raised, with the exception that it was raised from."""
        assert self.error is not None
        error = _unpacked(self.error)
        error.__cause__ = None if self.cause is None else _unpacked(self.cause)
        return error


def failed(error: Exception, at: float) -> Ending:
    """The ending of a run whose `execute()` raised."""
    cause = error.__cause__
    return Ending(
        "failed", at, pack(capture(error)), None if cause is None else pack(capture(cause))
    )


def _unpacked(packed: Packed) -> BaseException:
    """The exception itself, or what stands for it where it cannot be had here."""
    failure = unpack(*packed)
    if failure.exception is not None:
        return failure.exception
    return RemoteError(failure.type_name, failure.message, failure.traceback)
