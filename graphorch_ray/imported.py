"""Modules that are used only where the program has imported them already."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType


def imported(name: str) -> ModuleType | None:
    """A module that this process has imported; None where it has not.

    `sys.modules` also holds those that another thread is only half through with: these are waited
    for.
    """
    return import_module(name) if name in sys.modules else None
