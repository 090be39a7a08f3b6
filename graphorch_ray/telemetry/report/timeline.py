"""The attempts as columns of numbers, for the script that draws them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .facts import CriticalStep
from .trace import Attempt, Run

__all__ = ["timeline_data"]

SPANS_PER_ATTEMPT = 30
"""Spans of its own code that one attempt shows, at most; the first ones."""

ERROR_CHARS = 300
OUTCOMES = ("ok", "failed", "timeout", "infrastructure", "cancelled")


class _Names:
    """Gives each name a number, in the order in which they come."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.numbers = {name: number for number, name in enumerate(names)}

    def __call__(self, name: str) -> int:
        return self.numbers.setdefault(name, len(self.numbers))

    def __iter__(self) -> Any:
        return iter(self.numbers)


def timeline_data(run: Run, critical: list[CriticalStep]) -> dict[str, Any]:
    """Return what the page's script draws; times are whole microseconds of the run.

    An attempt whose beginning nobody knows has -1 there.
    """
    on_path = {id(step.execution) for step in critical if step.execution is not None}
    nodes, workers, errors = _Names(), _Names(["driver"]), _Names([""])
    outcomes = _Names(OUTCOMES)
    names = _Names()
    rows: list[tuple[int, ...]] = []
    spans: list[tuple[int, ...]] = []
    hidden: dict[int, int] = {}
    for number, superstep in enumerate(run.supersteps):
        for execution in superstep.executions:
            is_critical = id(execution) in on_path
            for attempt in execution.attempts:
                for span in attempt.spans[:SPANS_PER_ATTEMPT]:
                    spans.append(
                        (
                            len(rows),
                            names(span.name),
                            span.depth,
                            _micro(span.start),
                            _micro(span.ended),
                            int(span.failed),
                            errors(span.error[:ERROR_CHARS]),
                        )
                    )
                if len(attempt.spans) > SPANS_PER_ATTEMPT:
                    hidden[len(rows)] = len(attempt.spans) - SPANS_PER_ATTEMPT
                rows.append(
                    (
                        nodes(attempt.node_id),
                        nodes(attempt.owner_id),
                        workers(attempt.worker),
                        outcomes(attempt.outcome or "cancelled"),
                        number,
                        execution.index,
                        _micro(attempt.queued),
                        -1 if attempt.started is None else _micro(attempt.started),
                        _micro(attempt.ended),
                        attempt.retry,
                        attempt.rerun,
                        int(is_critical),
                        attempt.batch_size or 1,
                        -1 if attempt.input_bytes is None else attempt.input_bytes,
                        -1 if attempt.output_bytes is None else attempt.output_bytes,
                        errors(_error(attempt)),
                    )
                )
    columns = (
        *("node", "owner", "worker", "outcome", "superstep", "execution"),
        *("queued", "started", "ended", "retry", "rerun", "critical", "batch"),
        *("input", "output", "error"),
    )
    return {
        "seconds": run.seconds,
        "slots": run.facts.get("max_workers"),
        "nodes": list(nodes),
        "workers": list(workers),
        "outcomes": list(outcomes),
        "errors": list(errors),
        "supersteps": [[s.number, _micro(s.start), _micro(s.end)] for s in run.supersteps],
        "attempts": _columns(columns, rows),
        "spans": _columns(("attempt", "name", "depth", "start", "ended", "failed", "error"), spans),
        "spanNames": list(names),
        "spansHidden": hidden,
    }


def _columns(names: Sequence[str], rows: Sequence[tuple[int, ...]]) -> dict[str, list[int]]:
    if not rows:
        return {name: [] for name in names}
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)


def _error(attempt: Attempt) -> str:
    if not attempt.error and not attempt.error_type:
        return ""
    return f"{attempt.error_type}: {attempt.error}".removeprefix(": ")[:ERROR_CHARS]
