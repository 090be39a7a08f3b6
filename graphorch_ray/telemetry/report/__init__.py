"""The run report: what a trace tells, as one HTML file that works offline.

Example:
    ```python
    from graphorch_ray.telemetry.report import write_report

    write_report("trace.jsonl", "run.html")
    ```
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...model import Graph
from .page import render
from .trace import TraceError, read_run, read_spans

__all__ = ["TraceError", "write_report"]


def write_report(
    trace: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    path: str | os.PathLike[str],
    graph: Graph | None = None,
    *,
    run_id: str | None = None,
) -> Path:
    """Write the report of a run and return where it is.

    Args:
        trace: A file of spans, one JSON object per line, or the spans as dicts of the same form.
        path: The HTML file to write; one that is there is replaced.
        graph: The graph that ran, where it is at hand. Without it the report draws the graph
            that the trace holds, or, where that was too large for the trace, what ran of it.
        run_id: Which run; without it the newest in the trace.

    Raises:
        TraceError: The trace is none, or has no such run.
        OSError: A file cannot be read or written.
    """
    page = render(read_run(read_spans(trace), run_id), graph)
    target = Path(path)
    target.write_text(page, encoding="utf-8")
    return target
