"""`draw` and `report`."""

from __future__ import annotations

from pathlib import Path

import click

from .session import CommandError, Session, common
from .states import check_folder
from .targets import load_graph

DRAWN = (".svg", ".html", ".mmd", ".md")


@click.command()
@click.argument("graph", metavar="MODULE:GRAPH")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help=f"Where to; {', '.join(DRAWN)}. Default: Mermaid, printed.",
)
@common
def draw(session: Session, graph: str, output: str | None) -> None:
    """Draw a graph, as Mermaid or SVG."""
    if output is not None:
        if Path(output).suffix not in DRAWN:
            raise CommandError(f"--output '{output}' must end in one of {', '.join(DRAWN)}")
        check_folder("--output", output)
    found = load_graph(graph)
    facts = {
        "graph": found.name,
        "nodes": len(found.nodes),
        "edges": len(found.concrete_edges) + len(found.conditional_edges),
        "fingerprint": found.fingerprint,
    }
    if output is None:
        session.show(found.to_mermaid(), {**facts, "mermaid": found.to_mermaid()})
        return
    found.draw(output)
    session.show(f"wrote {output}", {**facts, "output": output})


@click.command()
@click.argument("trace", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "-o", "--output", metavar="FILE", help="The HTML file. Default: the trace's name with .html."
)
@click.option("--run-id", metavar="ID", help="Which run. Default: the newest in the trace.")
@click.option("--graph", metavar="MODULE:GRAPH", help="The graph, where the trace has none.")
@common
def report(
    session: Session, trace: str, output: str | None, run_id: str | None, graph: str | None
) -> None:
    """Make the report of a run from its trace (`run --trace`, or `telemetry.configure(file=…)`)."""
    from ..telemetry.report import TraceError, write_report

    target = output or str(Path(trace).with_suffix(".html"))
    check_folder("--output", target)
    found = None if graph is None else load_graph(graph)
    try:
        write_report(trace, target, found, run_id=run_id)
    except (TraceError, OSError) as error:
        raise CommandError(str(error)) from error
    session.show(f"wrote {target}", {"output": target, "trace": trace, "run_id": run_id})
