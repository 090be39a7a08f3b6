"""What telemetry costs: `python -m benchmarks.telemetry [--json FILE]`.

Processor time of the driver for each span (of the thread that runs the graph, and of the whole
process, exporters included) beside that of a bare span of OpenTelemetry's SDK; wall time of 1,000
nodes of 10 ms on Ray, traced or not; and the share of the live display. What is compared takes
turns within a round, and medians over the rounds are given.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from rich.console import Console

from benchmarks.contenders.graphorch import star_of
from benchmarks.local_ray import local_ray, prepare_environment
from graphorch_ray import Graph, GraphExecutor, State, node_action, telemetry
from graphorch_ray.telemetry import progress
from graphorch_ray.telemetry.counts import Counts
from graphorch_ray.telemetry.progress import TerminalDisplay

WIDTH = 1000
NODE_SECONDS = 0.01
ROUNDS = 7
BARE_SPANS = 2_000

RUNS_IN_A_ROW = 4
"""Runs that are timed together, so that full garbage collections, of which there is about one a
run, traced or not, fall on all that is compared alike."""

Figures = dict[str, float]


class Discards(SpanExporter):
    """An exporter that only counts: spans, their attributes and their events."""

    spans = attributes = events = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Count."""
        Discards.spans += len(spans)
        for span in spans:
            Discards.attributes += len(span.attributes or ())
            Discards.events += len(span.events)
        return SpanExportResult.SUCCESS


@node_action
async def nothing(state: State) -> State:
    """Do nothing."""
    return state


@node_action
async def waits(state: State) -> State:
    """Wait for 10 ms."""
    await asyncio.sleep(NODE_SECONDS)
    return state


@node_action
def sleeps(state: State) -> State:
    """Take 10 ms of a worker's time."""
    time.sleep(NODE_SECONDS)
    return state


def timed(work: Callable[[], object]) -> Figures:
    """Seconds that some work takes: on the wall, of this thread, of this process."""
    gc.collect()
    before = time.perf_counter(), time.thread_time(), time.process_time()
    work()
    after = time.perf_counter(), time.thread_time(), time.process_time()
    wall, thread, process = (b - a for a, b in zip(before, after, strict=True))
    return {"wall": wall, "thread": thread, "process": process}


def run_of(graph: Graph, workers: int, backend: str, **options: Any) -> Callable[[], None]:
    """A run, until its telemetry is away."""

    def work() -> None:
        executor = GraphExecutor(graph, State([1]), max_workers=workers, backend=backend)
        executor.run(**options)
        telemetry.flush(60)

    return work


def in_a_row(run: Callable[[], None]) -> Callable[[], None]:
    """Several runs, one after another."""

    def work() -> None:
        for _ in range(RUNS_IN_A_ROW):
            run()

    return work


def bare_spans(attributes: int) -> Callable[[], None]:
    """Spans of the SDK itself, each started and ended, with so many attributes."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("bare")
    facts = {f"graphorch.attribute_{number}": f"value {number}" for number in range(attributes)}

    def work() -> None:
        for _ in range(BARE_SPANS):
            tracer.start_span("bare", attributes=facts).end()

    return work


def medians(rounds: int, figures: Callable[[], Figures]) -> Figures:
    """The median of each figure over some rounds, after one to warm up."""
    figures()
    found = [figures() for _ in range(rounds)]
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def driver_time(rounds: int, backend: str, workers: int) -> Figures:
    """Microseconds of driver time for each span."""
    run = run_of(star_of(nothing, WIDTH), workers, backend)
    Discards.spans = Discards.attributes = Discards.events = 0
    telemetry.configure(exporters=[Discards()])
    run()  # tells how many spans there are
    telemetry.shutdown()
    spans, events = Discards.spans, Discards.events / Discards.spans
    attributes = round(Discards.attributes / spans)
    bare = bare_spans(attributes)
    spans *= RUNS_IN_A_ROW
    run = in_a_row(run)
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, dict[str, Any]] = {
            "discarded": {"exporters": [Discards()]},
            "to a file": {"file": Path(folder) / "trace.jsonl"},
        }

        def once() -> Figures:
            found = {"bare": timed(bare)["process"] / BARE_SPANS * 1e6}
            off = timed(run)
            for way, options in ways.items():
                telemetry.configure(**options)
                on = timed(run)
                telemetry.shutdown()
                for what in ("thread", "process"):
                    cost = (on[what] - off[what]) / spans * 1e6
                    found[f"{way}: µs of the {what} per span"] = cost
                    found[f"{way}: … of the {what}, in bare spans"] = cost / found["bare"]
            return found

        figures = medians(rounds, once)
    named = {
        "µs of a bare SDK span": figures.pop("bare"),
        "attributes of a span": attributes,
        "events of a span": events,
    }
    return {f"{backend}: {name}": value for name, value in (named | figures).items()}


def wall_time(rounds: int) -> Figures:
    """Seconds for a superstep of 1,000 nodes of 10 ms on Ray, and what tracing adds."""
    found: Figures = {}
    for name, action, workers in (("async", waits, WIDTH), ("sync", sleeps, os.cpu_count() or 1)):
        run = run_of(star_of(action, WIDTH), workers, "ray")

        def once(run: Callable[[], None] = run) -> Figures:
            plain = timed(run)["wall"]
            telemetry.configure(exporters=[Discards()])
            traced = timed(run)["wall"]
            telemetry.shutdown()
            return {
                "s without tracing": plain,
                "s with tracing": traced,
                "% more": (traced / plain - 1) * 100,
            }

        found |= {f"{name}: {what}": value for what, value in medians(rounds, once).items()}
    return found


class Clocked:
    """A terminal's display, drawn for nobody, that counts the processor time it takes."""

    def __init__(self, nowhere: TextIO) -> None:
        self._display = TerminalDisplay(Console(file=nowhere, force_terminal=True, width=120))
        self.seconds = 0.0

    def draw(self, counts: Counts) -> None:
        """Draw."""
        began = time.thread_time()
        self._display.draw(counts)
        self.seconds += time.thread_time() - began

    def close(self, counts: Counts) -> None:
        """Show the end."""
        began = time.thread_time()
        self._display.close(counts)
        self.seconds += time.thread_time() - began


def progress_share(rounds: int) -> Figures:
    """Percent of driver time that the live display takes, 1,000 nodes wide.

    It is all in the display's own thread: the run's keeps the counts, displayed or not.
    """
    graph = star_of(waits, WIDTH)
    with open(os.devnull, "w") as nowhere:

        def once() -> Figures:
            display = Clocked(nowhere)
            progress._suitable = lambda: display
            took = timed(run_of(graph, WIDTH, "ray", progress=True))["process"]
            return {"progress: % of driver time": display.seconds / took * 100}

        suitable = progress._suitable
        try:
            return medians(rounds, once)
        finally:
            progress._suitable = suitable


def main() -> None:
    """Measure, print, and write down where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--inline", action="store_true", help="only what needs no Ray")
    arguments = parser.parse_args()
    prepare_environment()
    figures = driver_time(arguments.rounds, "inline", WIDTH)
    if not arguments.inline:
        with local_ray():
            figures |= driver_time(arguments.rounds, "ray", WIDTH)
            figures |= wall_time(arguments.rounds)
            figures |= progress_share(arguments.rounds)
    for name, value in figures.items():
        print(f"{name:50} {value:10.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
