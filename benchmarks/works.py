"""All works by their keys."""

from __future__ import annotations

from collections.abc import Callable

from . import checkpoints
from .measuring import Work

WORKS: dict[str, Callable[[bool], Work]] = {**checkpoints.WORKS}
"""Each makes its work; its argument asks for small sizes."""
