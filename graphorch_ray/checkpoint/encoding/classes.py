"""Classes by name: how a document names one, and how it is found again without running code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

from ...errors import CheckpointError

_PICKLING = frozenset(
    {
        *("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"),
        *("__getnewargs__", "__getnewargs_ex__"),
    }
)
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, not built in


def name_of(cls: type) -> str:
    """Return ``module:qualname``, the name under which documents know a class."""
    return f"{cls.__module__}:{cls.__qualname__}"


def is_found_by_name(cls: type) -> bool:
    """Say whether a class can be named, so that a reader finds this very class.

    A class of the driver's ``__main__`` that has travelled to a worker counts: the worker's own
    ``__main__`` does not have it, the program that will read the checkpoint does.
    """
    if "<" in cls.__qualname__:
        return False
    found = _look_up(cls.__module__, cls.__qualname__)
    return found is cls or (found is None and cls.__module__ == "__main__")


def is_built_in(cls: type) -> bool:
    """Say whether a class is written in C and comes with Python or a library."""
    return not cls.__flags__ & _HEAP_TYPE


def is_laid_out_like_object(cls: type) -> bool:
    """Say whether instances hold nothing but attributes (no subclass of dict, Exception, …)."""
    return all(base is object or not is_built_in(base) for base in cls.__mro__)


def has_own_pickling(cls: type, *, but: frozenset[object] = frozenset()) -> bool:
    """Say whether a class makes its pickles itself, in any of the ways that Python knows.

    Args:
        cls: the class.
        but: methods that are known and do not count.
    """
    for base in cls.__mro__[:-1]:
        for name in _PICKLING & base.__dict__.keys():
            if base.__dict__[name] not in but:
                return True
    return False


def find(name: object, *, trusted: bool, classes: Mapping[str, type] | None = None) -> type:
    """Return the class with this name.

    Args:
        name: ``module:qualname``.
        trusted: whether its module may be imported; else it must have been already.
        classes: classes by name that come before all others.

    Raises:
        CheckpointError: there is no such class here; the text says what to do.
    """
    if not isinstance(name, str) or name.count(":") != 1:
        raise CheckpointError(f"{name!r} is not the name of a class")
    if classes is not None and (given := classes.get(name)) is not None:
        return given
    module, _, qualname = name.partition(":")
    if trusted and module not in sys.modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise CheckpointError(
                f"its class '{qualname}' is in the module '{module}', which cannot be imported "
                f"here: {type(error).__name__}: {error}"
            ) from error
    if module not in sys.modules:
        raise CheckpointError(
            f"its class '{qualname}' is in the module '{module}', which this program has not "
            f"imported. Import it before you load, or load with allow_pickle=True, which "
            "imports what a checkpoint names"
        )
    found = _look_up(module, qualname)
    if found is None:
        raise CheckpointError(
            f"the module '{module}' has no class '{qualname}' here. "
            + (
                "Define it in this program or notebook before you load"
                if module == "__main__"
                else "Was it renamed or moved? Put it under its old name too"
            )
        )
    return found


def _look_up(module: str, qualname: str) -> type | None:
    # Through the dictionaries: a module's or metaclass's `__getattr__` would be code that runs.
    holder: Any = sys.modules.get(module)
    for part in qualname.split("."):
        try:
            holder = vars(holder).get(part)
        except TypeError:
            return None
    return holder if isinstance(holder, type) else None
