"""Works of nodes side by side: computing, doing nothing, waiting, and of all lengths."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from benchmarks import functions
from benchmarks.contenders import use
from benchmarks.measuring import SECONDS, Goal, Measured, Work

OURS = "graphorch_ray"
CORES = os.cpu_count() or 1


def computing(quick: bool) -> Work:
    """W1: as many cores as there are."""
    inputs = [0.02 if quick else 0.5] * 8
    fan_out: tuple[Any, ...] = ("fan_out", functions.burn, inputs)
    return Work(
        "W1",
        f"8 CPU-bound nodes of {inputs[0]} s on {CORES} cores",
        {
            OURS: use("graphorch", *fan_out, max_workers=CORES),
            "one process": use("plain", *fan_out),
            "ProcessPoolExecutor": use("plain", "fan_out_pool", *fan_out[1:]),
            "raw Ray": use("raw_ray", *fan_out),
            "Dask": use("dask", *fan_out),
            "Hamilton on Ray": use("hamilton", *fan_out),
            "Prefect on Ray": use("prefect", *fan_out),
            "LangGraph": use("langgraph", "fan_out_send", *fan_out[1:]),
            "GraphOrchestrator": use("graphorchestrator", *fan_out),
        },
        [
            Goal(OURS, 1 / 1.9, "one process"),
            Goal(OURS, 1 / 0.97, "ProcessPoolExecutor"),
        ],
        note="LangGraph and GraphOrchestrator run Python in one process.",
    )


def no_ops(quick: bool) -> Work:
    """W2: what a node costs."""
    count = 50 if quick else 1000
    fan_out: tuple[Any, ...] = ("fan_out", functions.same, [1] * count)
    return Work(
        "W2",
        f"{count:,} nodes that do nothing and a join, warm",
        {
            OURS: use("graphorch", *fan_out, max_workers=CORES),
            "graphorch_ray, inline": use("graphorch", *fan_out, backend="inline"),
            "LangGraph": use("langgraph", *fan_out),
            "LangGraph, Send": use("langgraph", "fan_out_send", *fan_out[1:]),
            "LangGraph, async": use("langgraph", "fan_out_async", functions.same_async, fan_out[2]),
            "raw Ray": use("raw_ray", *fan_out),
            "Dask": use("dask", *fan_out),
            "Hamilton on Ray": use("hamilton", *fan_out),
            "Prefect on Ray": use("prefect", *fan_out),
            "GraphOrchestrator": use("graphorchestrator", *fan_out),
            "ProcessPoolExecutor": use("plain", "fan_out_pool", *fan_out[1:], chunksize=20),
            "a plain loop": use("plain", *fan_out),
        },
        [
            Goal(OURS, 0.2, "LangGraph, Send"),
            Goal(OURS, 0.2, "LangGraph"),
            Goal(OURS, 0.1, "raw Ray"),
        ],
        note="LangGraph has the same graph, one node each; with Send, one node is sent 1,000 "
        "inputs, as its guide to map-reduce does it.",
    )


def many_no_ops(quick: bool) -> Work:
    """W3: whether the cost of a node grows with their number."""
    few, many = (20, 200) if quick else (1000, 10_000)

    def mean(run: Callable[[], Any], count: int) -> Callable[[], float]:
        return lambda: run() / count

    def at(count: int, module: str, primitive: str = "fan_out", **options: Any) -> Any:
        return mean(use(module, primitive, functions.same, [1] * count, **options), count)

    return Work(
        "W3",
        f"{many:,} nodes that do nothing and a join, warm",
        {
            OURS: at(many, "graphorch", max_workers=CORES),
            f"graphorch_ray, {few:,} nodes": at(few, "graphorch", max_workers=CORES),
            "LangGraph, Send": at(many, "langgraph", "fan_out_send"),
            "raw Ray": at(many, "raw_ray"),
            "Dask": at(many, "dask"),
        },
        [Goal(OURS, 11.0, f"graphorch_ray, {few:,} nodes")],
    )


def waiting(quick: bool, count: int, key: str) -> Work:
    """W6 and W6 with more: nodes that only wait."""
    count = 20 if quick else count
    fan_out: tuple[Any, ...] = ("fan_out_async", functions.wait, [0.1 if quick else 1.0] * count)
    contenders: dict[str, Callable[[], object]] = {
        OURS: use("graphorch", *fan_out, max_workers=count),
        "asyncio.gather": use("plain", *fan_out),
        "LangGraph, async": use("langgraph", *fan_out),
        "raw Ray, an async actor": use("raw_ray", *fan_out),
    }
    limit = 1.3 if key == "W6" else 2.5
    return Work(
        key,
        f"{count:,} async nodes that wait {fan_out[2][0]:g} s",
        contenders,
        [Goal(OURS, limit), Goal(OURS, 4, measure="processes")],
    )


def uneven(quick: bool) -> Work:
    """W9: short and long ones in any order."""
    seconds = lengths(20 if quick else 500)
    fan_out: tuple[Any, ...] = ("fan_out", functions.burn, seconds)
    ideal = sum(seconds) / CORES
    return Work(
        "W9",
        f"{len(seconds)} CPU-bound nodes of one function, {min(seconds) * 1000:.0f} ms to "
        f"{max(seconds):.1f} s, {sum(seconds):.0f} s in all, on {CORES} cores",
        {
            OURS: use("graphorch", *fan_out, max_workers=CORES),
            "the ideal": lambda: Measured(len(seconds), {SECONDS: ideal}),
            "ProcessPoolExecutor": use("plain", "fan_out_pool", *fan_out[1:]),
            "raw Ray": use("raw_ray", *fan_out),
            "Dask": use("dask", *fan_out),
        },
        [Goal(OURS, 1 / 0.93, "the ideal"), Goal(OURS, 1.0, "raw Ray"), Goal(OURS, 1.0, "Dask")],
        note="The ideal is not run: it is all seconds of work, divided by the cores.",
    )


def lengths(count: int) -> list[float]:
    """Log-normal seconds, from 1 ms to 2 s, the same ones each time."""
    source = random.Random(9)
    return [min(2.0, max(0.001, source.lognormvariate(-3.5, 1.3))) for _ in range(count)]


WORKS: dict[str, Callable[[bool], Work]] = {
    "W1": computing,
    "W2": no_ops,
    "W3": many_no_ops,
    "W6": lambda quick: waiting(quick, 1000, "W6"),
    "W6b": lambda quick: waiting(quick, 10_000, "W6b"),
    "W9": uneven,
}
