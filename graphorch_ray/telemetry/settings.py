"""What may leave the process by telemetry, and in which length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .report_once import Once

MESSAGE_CHARS = 4_096
"""Longest text of an error in a span; what is above is cut off."""

TRACEBACK_CHARS = 32_768
"""Longest traceback in a span; its end is kept."""

STATE_CHARS = 1_024
"""Longest text of a state in a span, where states are asked for."""

Redact = Callable[[str, Any], Any]
"""Takes an attribute's name and value, gives the value to show, or None to leave it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How `configure` was called.

    Attributes:
        redact: asked about every attribute, error text and log text; None lets all pass.
        state_chars: characters of each state's text that go into its attempt's span; 0: none.
        log_level: records of node code from this level up are forwarded; None: none.
    """

    redact: Redact | None = None
    state_chars: int = 0
    log_level: int | None = None
    broken: Once = field(default_factory=Once, repr=False)

    def clean(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """The attributes as they may leave."""
        if self.redact is None:
            return attributes
        cleaned = {name: self.text(name, value) for name, value in attributes.items()}
        return {name: value for name, value in cleaned.items() if value is not None}

    def text(self, name: str, value: Any) -> Any:
        """One value as it may leave; nothing does where the hook itself fails."""
        if self.redact is None:
            return value
        try:
            return self.redact(name, value)
        except Exception as error:
            self.broken.say(
                f"The redact function failed at attribute {name!r}: {type(error).__name__}. What "
                "it fails at is left out."
            )
            return None


_current = Settings()


def settings() -> Settings:
    """The settings in force."""
    return _current


def put_settings(new: Settings) -> None:
    """Replace them."""
    global _current
    _current = new


def short(text: str, limit: int = MESSAGE_CHARS) -> str:
    """The beginning of a text."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def short_end(text: str, limit: int = TRACEBACK_CHARS) -> str:
    """The end of a text."""
    return text if len(text) <= limit else f"…{text[1 - limit :]}"
