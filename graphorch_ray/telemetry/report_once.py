"""Telling the user, once, that something about telemetry does not work; the run goes on."""

from __future__ import annotations

import logging
import threading
import warnings

from ..errors import GraphWarning

LOGGER = logging.getLogger("graphorch_ray.telemetry")


class Once:
    """Says a thing at most once, from any thread, and never raises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.said = False

    def say(self, text: str) -> None:
        """Warn with `text`, unless it has been done."""
        with self._lock:
            if self.said:
                return
            self.said = True
        try:
            warnings.warn(text, GraphWarning, stacklevel=3)
        except GraphWarning:  # warnings are errors here, but telemetry ends no run
            LOGGER.error(text)
