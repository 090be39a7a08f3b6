"""Named places at which a test can stop the program, as a crash would.

Recovery is tested by dying at every step that matters. The library calls `reach` there; it does
nothing, unless a hook is installed or the environment variable `GRAPHORCH_FAILPOINT` names the
place: ``manifest.before:3`` kills the process with SIGKILL when it comes there for the third time.

Example:
    ```python
    seen = []
    with hook(seen.append):
        reach("manifest.before")
    assert seen == ["manifest.before"]
    ```
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["VARIABLE", "hook", "reach"]

VARIABLE = "GRAPHORCH_FAILPOINT"
"""The environment variable that is read when this module is imported."""

_hook: Callable[[str], object] | None = None


def reach(name: str) -> None:
    """Say that the program has come to a place, named `what.before` or `what.after`.

    What the installed hook raises is raised here.
    """
    if _hook is not None:
        _hook(name)


@contextmanager
def hook(call: Callable[[str], object]) -> Iterator[None]:
    """Have every place that is reached reported, in all threads, until the block is left."""
    global _hook
    before, _hook = _hook, call
    try:
        yield
    finally:
        _hook = before


def killer(setting: str) -> Callable[[str], None]:
    """Return a hook that kills this process, from a setting like ``manifest.before:3``.

    Raises:
        ValueError: the setting is not ``name`` or ``name:count`` with a count of 1 or more.
    """
    name, _, count = setting.partition(":")
    if not name or (count and not count.isdecimal()) or count == "0":
        raise ValueError(
            f"{VARIABLE} must be 'name' or 'name:count' with a count of 1 or more, not {setting!r}"
        )
    left = int(count or 1)
    lock = threading.Lock()

    def kill(reached: str) -> None:
        nonlocal left
        if reached == name:
            with lock:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

    return kill


if os.environ.get(VARIABLE):
    _hook = killer(os.environ[VARIABLE])
