"""Puts the report together as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from importlib import resources
from string import Template
from typing import Any

from ...model import Graph
from ...model.drawing.style import STYLE
from ...model.drawing.text import escaped
from .facts import (
    CriticalStep,
    NodeFacts,
    critical_steps,
    error_groups,
    node_facts,
    span_facts,
)
from .picture import picture_of
from .tables import (
    checkpoint_table,
    error_list,
    node_table,
    settings_list,
    span_table,
    superstep_table,
)
from .timeline import timeline_data
from .trace import Run
from .units import count, duration

__all__ = ["render"]

SCRIPTS = ("rows.js", "timeline.js", "tables.js", "spans.js", "report.js")
_STATUS = {
    "finished": "Finished",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "unfinished": "No end recorded",
}


def render(run: Run, graph: Graph | None = None) -> str:
    """Return the report of a run as HTML.

    Everything is inside. A content security policy admits the page's own scripts and styles
    by their digests and nothing else, so that text from a trace can never run.
    """
    nodes = node_facts(run)
    critical = critical_steps(run)
    errors = error_groups(run)
    spans = span_facts(run)
    trouble = _section("errors", "Errors", error_list(errors), count(len(errors), "kind"))
    style = _file("report.css")
    scripts = [_file(name) for name in SCRIPTS]
    return Template(_file("report.html")).substitute(
        policy=_policy([style, STYLE], scripts),
        style=style,
        title=escaped(f"Run of {run.graph_name or 'a graph'}"),
        name=escaped(run.graph_name or "Unnamed graph"),
        status=escaped(run.status),
        status_text=_STATUS.get(run.status, escaped(run.status)),
        about=_about(run),
        alert=_alert(run),
        tiles=_tiles(run, nodes),
        errors_first=trouble if run.status == "failed" else "",
        errors_later="" if run.status == "failed" else trouble,
        picture=picture_of(run, nodes, graph),
        critical=_critical_words(run, critical),
        node_count=count(len(nodes), "node"),
        nodes=node_table(nodes),
        supersteps=superstep_table(critical),
        superstep_count=count(len(critical), "superstep"),
        spans=_section(
            "spans",
            "Spans of node code",
            span_table(spans) if spans else "",
            count(sum(len(facts.times) for facts in spans), "span"),
        ),
        checkpoints=_section(
            "checkpoints",
            "Checkpoints",
            checkpoint_table(run.checkpoints) if run.checkpoints else "",
            count(len(run.checkpoints), "entry", "entries"),
        ),
        settings=settings_list(run),
        data=_data(timeline_data(run, critical)),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


# --- pieces -------------------------------------------------------------------------------------


def _file(name: str) -> str:
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _policy(styles: Iterable[str], scripts: Iterable[str]) -> str:
    def digests(texts: Iterable[str]) -> str:
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in texts
        )

    return (
        f"default-src 'none'; style-src {digests(styles)}; script-src {digests(scripts)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(value: dict[str, Any]) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _about(run: Run) -> str:
    facts = run.facts
    words = [
        f"Run <code>{escaped(run.run_id or 'without an id')}</code>",
        f'<time datetime="{run.began.isoformat()}">{run.began:%Y-%m-%d %H:%M:%S} UTC</time>',
    ]
    if facts.get("backend"):
        words.append(f"on {escaped(str(facts['backend']))}")
    if facts.get("user") or facts.get("host.name"):
        who = "@".join(str(facts[key]) for key in ("user", "host.name") if facts.get(key))
        words.append(escaped(who))
    if run.others:
        words.append(f"the trace holds {count(run.others, 'more run')}")
    return " · ".join(words)


def _alert(run: Run) -> str:
    if run.status == "failed":
        return f'<p class="alert"><b>The run failed.</b> {escaped(run.error)}</p>'
    if run.status == "unfinished":
        return (
            '<p class="alert"><b>The trace ends before the run did.</b> '
            "The driver still runs, or it was killed.</p>"
        )
    return ""


def _tiles(run: Run, nodes: dict[str, NodeFacts]) -> str:
    attempts = list(run.attempts)
    busy = sum(a.ended - a.started for a in attempts if a.started is not None)
    slots = run.facts.get("max_workers")
    tiles = [
        ("Time", duration(run.seconds)),
        ("Supersteps", f"{len(run.supersteps):,}"),
        ("Executions", f"{sum(1 for _ in run.executions):,}"),
        ("Attempts", f"{len(attempts):,}"),
    ]
    for label, number in (
        ("Retries", sum(node.retries for node in nodes.values())),
        ("Fallbacks", sum(node.stood_in for node in nodes.values())),
        ("Failed", sum(node.outcomes["failed"] for node in nodes.values())),
        ("Timed out", sum(node.outcomes["timeout"] for node in nodes.values())),
        ("Lost with workers", sum(node.outcomes["infrastructure"] for node in nodes.values())),
        ("States dropped", sum(superstep.dropped for superstep in run.supersteps)),
    ):
        if number:
            tiles.append((label, f"{number:,}"))
    if isinstance(slots, int) and slots > 0 and run.seconds > 0:
        tiles.append(("Slots in use", f"{min(1.0, busy / run.seconds / slots):.0%} of {slots}"))
    return "\n".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in tiles)


def _critical_words(run: Run, steps: list[CriticalStep]) -> str:
    total = run.seconds
    parts = [
        (name, sum(getattr(step, field) for step in steps))
        for name, field in (
            ("running", "ran"),
            ("queued", "queued"),
            ("waiting to retry", "paused"),
            ("besides, in supersteps", "outside"),
        )
    ]
    before = steps[0].superstep.start if steps else 0.0
    between = total - before - sum(step.superstep.end - step.superstep.start for step in steps)
    parts.append(("before the first superstep", before))
    parts.append(("between supersteps", max(0.0, between)))
    if total <= 0:
        return "<p>Nothing was recorded.</p>"
    shown = [(name, spent) for name, spent in parts if spent > 0.0005 * total]
    items = "".join(
        f"<li><b>{duration(spent)}</b> {name} <small>({spent / total:.0%})</small></li>"
        for name, spent in shown
    )
    return (
        "<p>Each superstep ends when its slowest execution has ended. Those, one after the other, "
        f'are the critical path; of {duration(total)} it spent</p><ul class="parts">{items}</ul>'
    )


def _section(name: str, title: str, body: str, words: str) -> str:
    if not body:
        return ""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{title} <small>{words}</small></h2>\n{body}\n</section>'
    )
