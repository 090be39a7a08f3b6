"""What tracing costs: `python -m benchmarks.telemetry [--json FILE]`.

Driver time for each span (processor time of the driver's thread that runs the graph, and of the
whole process, exporters included), and wall time of 1,000 nodes of 10 ms on Ray, traced or not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ray
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from benchmarks.work import star
from graphorch_ray import GraphExecutor, State, node_action, telemetry
from graphorch_ray.telemetry import progress

WIDTH = 1000
NODE_SECONDS = 0.01
ROUNDS = 5


class Discards(SpanExporter):
    """An exporter that only counts."""

    spans = 0

    def export(self, spans):
        Discards.spans += len(spans)
        return SpanExportResult.SUCCESS


@node_action
async def nothing(state: State) -> State:
    return state


@node_action
async def waits(state: State) -> State:
    await asyncio.sleep(NODE_SECONDS)
    return state


@node_action
def sleeps(state: State) -> State:
    time.sleep(NODE_SECONDS)
    return state


def best(run: Callable[[], tuple[float, ...]], rounds: int) -> tuple[float, ...]:
    """The median of each figure over some rounds, after one to warm up."""
    run()
    figures = zip(*(run() for _ in range(rounds)), strict=True)
    return tuple(statistics.median(column) for column in figures)


def timed(graph, workers: int, backend: str, **options) -> tuple[float, float, float]:
    """Wall seconds, processor seconds of this thread, and of this process."""
    executor = GraphExecutor(graph, State([1]), max_workers=workers, backend=backend)
    wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
    executor.run(**options)
    telemetry.flush(60)
    return (
        time.perf_counter() - wall,
        time.thread_time() - thread,
        time.process_time() - process,
    )


def driver_time(rounds: int) -> dict[str, float]:
    """Microseconds of driver time for each span."""
    graph = star(nothing, WIDTH)
    telemetry.shutdown()
    _, thread, process = best(lambda: timed(graph, WIDTH, "inline"), rounds)
    found: dict[str, float] = {}
    spans = 1.0
    with tempfile.TemporaryDirectory() as folder:
        for name, options in (
            ("nowhere", {"exporters": [Discards()]}),
            ("file", {"file": Path(folder) / "trace.jsonl"}),
        ):
            telemetry.configure(**options)
            Discards.spans = 0
            _, traced, traced_process = best(lambda: timed(graph, WIDTH, "inline"), rounds)
            spans = Discards.spans / (rounds + 1) or spans  # the file gets as many
            found[f"{name}: µs of the run's thread per span"] = (traced - thread) / spans * 1e6
            found[f"{name}: µs of the process per span"] = (traced_process - process) / spans * 1e6
            telemetry.shutdown()
    return found


def wall_time(rounds: int) -> dict[str, float]:
    """Seconds for a superstep of 1,000 nodes of 10 ms on Ray, and what tracing adds."""
    found = {}
    for name, action, workers in (("async", waits, WIDTH), ("sync", sleeps, os.cpu_count() or 1)):
        superstep = partial(timed, star(action, WIDTH), workers, "ray")
        telemetry.shutdown()
        plain, *_ = best(superstep, rounds)
        telemetry.configure(exporters=[Discards()])
        traced, *_ = best(superstep, rounds)
        telemetry.shutdown()
        found[f"{name}: s without tracing"] = plain
        found[f"{name}: s with tracing"] = traced
        found[f"{name}: % more"] = (traced / plain - 1) * 100
    return found


class Nowhere:
    """A display that renders and shows nothing."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def draw(self, counts: progress.Counts) -> None:
        started = time.thread_time()
        progress.status_line(counts)
        progress.bar_line(counts)
        self.seconds += time.thread_time() - started

    close = draw


def progress_share(rounds: int) -> dict[str, float]:
    """Percent of driver time that the live display takes, 1,000 nodes wide."""
    graph = star(nothing, WIDTH)
    counted = 0.0
    handle = progress.Progress.on_event

    def measured(self, event):
        nonlocal counted
        started = time.perf_counter()
        handle(self, event)
        counted += time.perf_counter() - started

    display = Nowhere()
    progress._suitable = lambda: display
    progress.Progress.on_event = measured
    total = sum(timed(graph, WIDTH, "ray", progress=True)[2] for _ in range(rounds))
    progress.Progress.on_event = handle
    return {"progress: % of driver time": (counted + display.seconds) / total * 100}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    figures = driver_time(arguments.rounds)
    ray.init(address="local", logging_level=logging.ERROR, log_to_driver=False)
    figures |= wall_time(arguments.rounds)
    figures |= progress_share(arguments.rounds)
    ray.shutdown()
    for name, value in figures.items():
        print(f"{name:45} {value:10.2f}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
