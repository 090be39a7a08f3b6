"""How much memory of its own this process takes while something runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psutil

from .measuring import Measured

DRIVER = "driver MB"


def private_bytes() -> int:
    """Memory that no other process shares: on Linux, without the pages of an object store."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:
        pass
    return int(psutil.Process().memory_full_info().uss)


def with_driver_memory(run: Callable[[], Any]) -> Callable[[], Measured]:
    """Also measure by how many MB this process grows at most; looks each 5 ms."""

    def measured() -> Measured:
        before = most = private_bytes()
        done = threading.Event()

        def look() -> None:
            nonlocal most
            while not done.wait(0.005):
                most = max(most, private_bytes())

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            answer = run()
        finally:
            done.set()
            watcher.join()
        most = max(most, private_bytes())
        return Measured(answer, {DRIVER: (most - before) / 1e6})

    return measured
