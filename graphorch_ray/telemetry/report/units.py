"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["NOTHING", "count", "duration", "size", "times"]

NOTHING = "\u2013"  # a dash, where a number is not known


def duration(seconds: float | None) -> str:
    """Return a time in the unit that fits: ``"340 µs"``, ``"12.5 ms"``, ``"2 min 05 s"``."""
    if seconds is None:
        return NOTHING
    if seconds >= 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"
    if seconds >= 60:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02} s"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale or (unit == "µs" and seconds > 0):
            return f"{_short(seconds / scale)} {unit}"
    return "0 s"


def size(bytes_: int | None) -> str:
    """Return a size in bytes in the unit that fits: ``"1.5 MiB"``."""
    if bytes_ is None:
        return NOTHING
    value = float(bytes_)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{_short(value)} {unit}"
        value /= 1024
    return f"{_short(value)} TiB"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``"1 node"``, ``"1,200 nodes"``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def times(number: int) -> str:
    """Return how often, with a multiplication sign after the number."""
    return f"{number:,}\u00a0\u00d7"


def _short(value: float) -> str:
    """Return three digits that matter."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
