"""What the machine is, and how busy, for whoever reads the numbers."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "graphorch-ray",
    "ray",
    "graph-orchestrator",
    "langgraph",
    "langgraph-checkpoint-sqlite",
    "dask",
    "prefect",
    "prefect-ray",
    "apache-hamilton",
    "apache-burr",
    "numpy",
)


def describe() -> dict[str, object]:
    """Cores, memory, load and versions."""
    import psutil

    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "load_at_begin": load(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def load() -> float:
    """Processes that ran or waited for a core, on average over the last minute."""
    return round(os.getloadavg()[0], 2)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
