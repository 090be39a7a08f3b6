"""Hosted runs: a driver in the cluster that outlives its client, and the handle of it.

`submit` hands a run over, `actor` drives it, `handle` asks how it is, `finding` finds it again.
"""

from __future__ import annotations

from .finding import get_run, list_runs
from .handle import RunHandle
from .status import RunState, RunStatus

__all__ = ["RunHandle", "RunState", "RunStatus", "get_run", "list_runs"]
