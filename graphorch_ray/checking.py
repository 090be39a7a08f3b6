"""Checks of arguments: an error names the argument, what was given, and what is legal."""

from __future__ import annotations

import operator
from collections.abc import Sequence


def check(name: str, value: object, kind: type, legal: str) -> None:
    """Raise TypeError unless `value` is a `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {legal}, not {type(value).__name__}: {value!r}")


def check_count(name: str, value: object, least: int) -> None:
    """Raise TypeError or ValueError unless `value` is a whole number of `least` or more."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}: {value!r}")
    if operator.index(value) < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {allowed}, not {value!r}")


def check_seconds(name: str, value: float | None) -> None:
    """Raise ValueError unless `value` is None or greater than 0."""
    if value is not None and not value > 0:
        raise ValueError(f"{name} must be seconds greater than 0, or None, not {value!r}")
