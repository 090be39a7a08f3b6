"""The report's tables, as HTML that needs no script to be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ...model.drawing.text import escaped
from .facts import CriticalStep, ErrorGroup, NodeFacts, SpanFacts, quantile
from .trace import Checkpoint, Run
from .units import NOTHING, count, duration, size

__all__ = [
    "checkpoint_table",
    "error_list",
    "node_table",
    "settings_list",
    "span_table",
    "superstep_table",
]

ERRORS_SHOWN = 12  # kinds of error; the others are there to be opened
SPANS_SHOWN = 200  # names of spans that nodes made; a name with an id in it makes many
NODES_NAMED = 6  # nodes and supersteps of an error that are named one by one
_OUTCOME_WORDS = {
    "failed": "failed",
    "timeout": "timed out",
    "infrastructure": "lost with its worker",
    "cancelled": "cancelled",
}


class Cell(NamedTuple):
    """What a cell shows, and the number it is sorted by (-1: not known)."""

    text: str
    value: float


def _time(seconds: float | None) -> Cell:
    return Cell(duration(seconds), -1 if seconds is None else seconds)


def _bytes(number: int | None) -> Cell:
    return Cell(size(number), -1 if number is None else number)


def _count(number: int) -> Cell:
    return Cell(f"{number:,}" if number else "0", number)


# --- nodes --------------------------------------------------------------------------------------


def node_table(nodes: Mapping[str, NodeFacts]) -> str:
    """Return a row for each node that did something."""
    headings = [
        ("Node", "text", "The node's id"),
        ("Kind", "text", "Its class"),
        ("Calls", "number", "Executions: launches in supersteps, and those as a fallback"),
        ("Attempts", "number", "Attempts of its code"),
        ("Retries", "number", "Attempts after a failure of the node"),
        ("Failed", "number", "Attempts that failed, timed out or were lost"),
        ("p50", "number", "Half of its attempts ran no longer than this"),
        ("p95", "number", "95 of 100 attempts ran no longer than this"),
        ("Total", "number", "Time of all its attempts together"),
        (
            "Wait p95",
            "number",
            "95 of 100 attempts waited no longer than this for a slot or worker",
        ),
        ("In", "number", "Bytes of its input states, all attempts together"),
        ("Out", "number", "Bytes of its results, all together"),
    ]
    rows = []
    for node in nodes.values():
        cells = [
            _count(node.executions + node.stood_in),
            _count(node.attempts),
            _count(node.retries),
            _count(node.failures),
            _time(quantile(node.run_times, 50)),
            _time(quantile(node.run_times, 95)),
            _time(sum(node.run_times) if node.run_times else None),
            _time(quantile(node.waits, 95)),
            _bytes(node.input_bytes),
            _bytes(node.output_bytes),
        ]
        failed = ' class="bad"' if node.failures else ""
        rows.append(
            f'<tr data-node="{escaped(node.node_id)}"{failed}>'
            f'<th scope="row"><button type="button" class="pick" '
            f'data-node="{escaped(node.node_id)}">{escaped(node.node_id)}</button></th>'
            f"<td>{escaped(node.node_type or NOTHING)}</td>{_cells(cells)}</tr>"
        )
    return _table("nodes", "What each node did", headings, rows, sortable=True)


# --- spans of node code -------------------------------------------------------------------------


def span_table(spans: Sequence[SpanFacts]) -> str:
    """Return a row for each name of the spans that code in nodes made."""
    headings = [
        ("Span", "text", "Its name"),
        ("In nodes", "text", "Whose code made it"),
        ("Count", "number", "How many there are"),
        ("Failed", "number", "How many have the status of an error"),
        ("p50", "number", "Half of them took no longer than this"),
        ("p95", "number", "95 of 100 took no longer than this"),
        ("Total", "number", "Time of all of them together; one inside another counts twice"),
    ]
    rows = []
    for facts in spans[:SPANS_SHOWN]:
        cells = [
            _count(len(facts.times)),
            _count(facts.failed),
            _time(quantile(facts.times, 50)),
            _time(quantile(facts.times, 95)),
            _time(sum(facts.times)),
        ]
        failed = ' class="bad"' if facts.failed else ""
        rows.append(
            f'<tr{failed}><th scope="row" class="wide">{escaped(facts.name)}</th>'
            f'<td class="wide">{escaped(_some(list(facts.nodes), "node"))}</td>{_cells(cells)}</tr>'
        )
    table = _table("spans", "Spans that nodes' own code made", headings, rows, sortable=True)
    if rest := spans[SPANS_SHOWN:]:
        table += f"<p>{count(len(rest), 'more name')} with less time are not shown.</p>"
    return table


# --- supersteps ---------------------------------------------------------------------------------


def superstep_table(steps: Sequence[CriticalStep]) -> str:
    """Return a row for each superstep, with the execution that it waited for."""
    headings = [
        ("Superstep", "number", "Its number"),
        ("Executions", "number", "Nodes that ran in it"),
        ("Time", "number", "From its launch to its barrier"),
        ("Waited longest for", "text", "The execution that ended last: the critical path"),
        ("It ran", "number", "Time its attempts ran"),
        ("It queued", "number", "Time its attempts waited for a slot or worker"),
        ("Retry waits", "number", "Time between its attempts"),
        ("Besides", "number", "Time of the superstep before and after it: routers, checkpoint"),
    ]
    rows = []
    for step in steps:
        superstep = step.superstep
        name = step.execution.node_id if step.execution is not None else ""
        tries = len(step.execution.attempts) if step.execution is not None else 0
        label = escaped(name) + (
            f" <small>({count(tries, 'attempt')})</small>" if tries > 1 else ""
        )
        cells = [
            _count(len(superstep.executions)),
            _time(superstep.end - superstep.start),
        ]
        after = [_time(step.ran), _time(step.queued), _time(step.paused), _time(step.outside)]
        mark = "" if superstep.passed else ' class="bad"'
        rows.append(
            f'<tr{mark}><th scope="row" class="number" data-value="{superstep.number}">'
            f"{superstep.number}{'' if superstep.passed else ' <small>not passed</small>'}</th>"
            f"{_cells(cells)}<td>{label or NOTHING}</td>{_cells(after)}</tr>"
        )
    return _table(
        "supersteps", "Where the time of each superstep went", headings, rows, sortable=True
    )


# --- errors, checkpoints, settings --------------------------------------------------------------


def error_list(groups: Sequence[ErrorGroup]) -> str:
    """Return what failed, the same errors together, with tracebacks to open."""
    shown = [_error(group) for group in groups[:ERRORS_SHOWN]]
    if rest := groups[ERRORS_SHOWN:]:
        kinds = count(len(rest), "more kind")
        shown += [f"<details><summary>{kinds} of error</summary>", *map(_error, rest), "</details>"]
    return "\n".join(shown)


def _error(group: ErrorGroup) -> str:
    nodes = list(dict.fromkeys(attempt.node_id for attempt in group.attempts))
    where = _some(nodes, "node")
    supersteps = sorted({attempt.superstep for attempt in group.attempts})
    when = ", ".join(map(str, supersteps[:NODES_NAMED]))
    if len(supersteps) > NODES_NAMED:
        when += f" and {len(supersteps) - NODES_NAMED} more"
    how = escaped(_OUTCOME_WORDS.get(group.outcome, group.outcome))
    kind = escaped(group.error_type or "Error")
    lines = [
        f'<article class="error{" fatal" if group.fatal else ""}">',
        f"<h3>{escaped(where)} <span>{how}</span></h3>",
        f'<p class="message"><b>{kind}</b> {_lines(group.error)}</p>',
        f"<p>{count(len(group.attempts), 'attempt')}, in superstep {when}.</p>",
    ]
    if group.traceback.strip():
        lines.append(
            f"<details{' open' if group.fatal else ''}>"
            f"<summary>Traceback, {escaped(group.attempts[0].node_id)}</summary>"
            f'<pre tabindex="0">{_lines(group.traceback.rstrip())}</pre></details>'
        )
    return "\n".join([*lines, "</article>"])


def _some(names: Sequence[str], what: str) -> str:
    """Name the first ones, and count the others."""
    named = ", ".join(names[:NODES_NAMED])
    if len(names) > NODES_NAMED:
        named += f" and {count(len(names) - NODES_NAMED, f'more {what}')}"
    return named


def _lines(text: str) -> str:
    return "\n".join(map(escaped, text.splitlines()))


def checkpoint_table(checkpoints: Iterable[Checkpoint]) -> str:
    """Return a row for each checkpoint that was written or read."""
    headings = [
        ("At", "number", "Seconds into the run"),
        ("What", "text", "Whether it was saved, loaded, or gone back to"),
        ("Superstep", "number", "The superstep it continues with"),
        ("Size", "number", "Bytes written or read"),
        ("Took", "number", "Time that took"),
        ("Where", "text", "Path"),
    ]
    rows = [
        f"<tr>{_cells([_time(point.at)])}<td>{point.what}</td>"
        f"{_cells([Cell(NOTHING, -1) if point.superstep is None else _count(point.superstep)])}"
        f"{_cells([_bytes(point.size), _time(point.seconds)])}<td>{escaped(point.path)}</td></tr>"
        for point in checkpoints
    ]
    return _table("checkpoints", "Checkpoints", headings, rows, sortable=len(rows) > 1)


def settings_list(run: Run) -> str:
    """Return what else the trace says of the run, as a list of names and values."""
    shown = {
        name: value
        for name, value in run.facts.items()
        if name
        not in ("span", "graph.definition", "run_id", "graph", "status", "error", "error.type")
    }
    return "\n".join(
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(str(value))}</dd></div>"
        for name, value in shown.items()
    )


# --- pieces -------------------------------------------------------------------------------------


def _cells(cells: Iterable[Cell]) -> str:
    return "".join(
        f'<td class="number" data-value="{cell.value:.12g}">{escaped(cell.text)}</td>'
        for cell in cells
    )


def _table(
    name: str,
    caption: str,
    headings: Sequence[tuple[str, str, str]],
    rows: Sequence[str],
    *,
    sortable: bool,
) -> str:
    heads = "".join(_head(*heading, sortable=sortable) for heading in headings)
    return (
        f'<div class="scroll" role="region" aria-label="{escaped(caption)}" tabindex="0">'
        f'<table id="{name}-table"><caption class="hidden">{escaped(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _head(text: str, kind: str, title: str, *, sortable: bool) -> str:
    number = ' class="number"' if kind == "number" else ""
    if not sortable:
        return f'<th scope="col"{number} title="{escaped(title)}">{escaped(text)}</th>'
    return (
        f'<th scope="col"{number} aria-sort="none">'
        f'<button type="button" class="sort" data-kind="{kind}" title="{escaped(title)}">'
        f'{escaped(text)}<span aria-hidden="true"></span></button></th>'
    )
