"""Text in a picture: how wide it is, what of it is shown, how it is written in XML."""

from __future__ import annotations

import unicodedata
from html import escape

__all__ = ["escaped", "shortened", "text_width"]

# Widths in em of a common sans-serif face, rounded up: a box may be too wide, not too narrow.
_NARROW = frozenset("ijlI.,:;'`|!()[]{} ")
_WIDE = frozenset("mwMW@%…—")


def text_width(text: str, size: float) -> float:
    """Return about how wide a line of text is, in the unit of ``size`` (the font size)."""
    return size * sum(map(_em, text))


def _em(char: str) -> float:
    if unicodedata.combining(char):
        return 0.0
    if unicodedata.east_asian_width(char) in "WF":
        return 1.05
    if char in _NARROW:
        return 0.36
    if char in _WIDE:
        return 0.96
    return 0.72 if char.isupper() else 0.6


def shortened(text: str, limit: int) -> str:
    """Return at most ``limit`` characters: the beginning and the end of a longer text."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 3
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"


def escaped(text: str) -> str:
    """Return the text as XML text or attribute value, whatever characters are in it.

    Control characters, which XML cannot hold, become their pictures; what turns the
    direction of writing around becomes a question mark of its own, U+FFFD.
    """
    return escape("".join(map(_visible, text)))


def _visible(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    unwritable = 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or code & 0xFFFE == 0xFFFE
    turning = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    return "\ufffd" if unwritable or turning else char
