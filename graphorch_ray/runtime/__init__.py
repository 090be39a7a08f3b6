"""Where it happens: the pools that carry out launches, and the code that runs beside a node."""

from __future__ import annotations

from typing import Literal

from .active import ActiveStates
from .context import ExecutionInfo, current_execution
from .inline import InlinePool
from .loops import run_to_end
from .pool import Pool, PoolFacts, PoolKind, RunContext
from .stored import StoredPayload

Backend = Literal["ray", "inline"]


def make_pool(backend: Backend) -> Pool:
    """A pool for one run. Ray is imported only where it is asked for."""
    if backend == "inline":
        return InlinePool()
    from .on_ray.ray_pool import RayPool

    return RayPool()


__all__ = [
    "ActiveStates",
    "Backend",
    "ExecutionInfo",
    "InlinePool",
    "Pool",
    "PoolFacts",
    "PoolKind",
    "RunContext",
    "StoredPayload",
    "current_execution",
    "make_pool",
    "run_to_end",
]
