"""Exceptions that travel: from whatever node code raised to a `Failure` that always arrives."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from ..model.attempt import Failure
from .payload import dump_code, load_code

_PACKAGE = str(Path(__file__).parent.parent)


def capture(error: BaseException, reason: str = "error") -> Failure:
    """Describe an exception, keeping the exception itself (for use in the same process)."""
    error.__traceback__ = _user_part(error.__traceback__)
    _explain(error)
    return Failure(
        type(error).__name__,
        tuple(f"{c.__module__}.{c.__qualname__}" for c in type(error).__mro__),
        _text(error),
        _format(error),
        error,
        reason,
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # a __str__ of the user's that fails must not hide the failure
        return f"<{type(error).__name__} whose text cannot be shown: {type(broken).__name__}>"


def _format(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:
        return f"{type(error).__name__}: {_text(error)}\n"


def _user_part(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame outside this package on; all of it if there is none."""
    first = trace
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        first = first.tb_next
    return first if first is not None else trace


def _explain(error: BaseException) -> None:
    """Say what to do where node code wrote into a shared buffer."""
    text = _text(error)
    if isinstance(error, ValueError | TypeError | BufferError) and (
        "read-only" in text or "readonly" in text or "not writ" in text
    ):
        error.add_note(
            "Large buffers of a state are shared between nodes and read-only. Work on a copy "
            "(for example array.copy()), or declare the node with mutable=True to get its own."
        )


def pack(failure: Failure) -> tuple[Failure, bytes | None]:
    """Split a failure into a part that always travels and the exception, if it can."""
    error = failure.exception
    bare = Failure(
        failure.type_name,
        failure.mro_names,
        failure.message,
        failure.traceback,
        None,
        failure.reason,
    )
    return bare, None if error is None else _dump(error)


def unpack(failure: Failure, packed: bytes | None) -> Failure:
    """The counterpart of `pack`, where the exception may still turn out not to load."""
    if packed is None:
        return failure
    try:
        error = pickle.loads(packed)
    except Exception:
        return failure
    if not isinstance(error, BaseException):
        return failure
    return Failure(
        failure.type_name,
        failure.mro_names,
        failure.message,
        failure.traceback,
        error,
        failure.reason,
    )


def _dump(error: BaseException) -> bytes | None:
    """Pickle an exception in the first way that also loads, or None."""
    state = dict(getattr(error, "__dict__", {}))
    notes = {key: state[key] for key in ("__notes__",) if key in state}
    for attempt in (error, (type(error), error.args, state), (type(error), error.args, notes)):
        try:
            value = attempt if isinstance(attempt, BaseException) else _Rebuilt(*attempt)
            packed, refs = dump_code(value)
            loaded = load_code(packed, refs)
            if refs:
                return None
            if type(loaded).__name__ == type(error).__name__ and _text(loaded) == _text(error):
                return packed
        except Exception:
            continue
    return None


class _Rebuilt:
    """Pickles as an exception made without calling its ``__init__``."""

    def __init__(self, cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]):
        self._parts = (cls, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._parts


def _rebuild(
    cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error
