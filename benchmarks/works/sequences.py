"""Works of nodes one after another: a chain, and a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import functions
from benchmarks.contenders import use
from benchmarks.measuring import Goal, Work

OURS = "graphorch_ray"


def chain(quick: bool) -> Work:
    """W4: what a superstep costs."""
    count = 50 if quick else 1000
    chain: tuple[Any, ...] = ("chain", functions.one_more, 0, count)
    return Work(
        "W4",
        f"a chain of {count:,} nodes that do nothing",
        {
            OURS: use("graphorch", *chain),
            "graphorch_ray, inline": use("graphorch", *chain, backend="inline"),
            "LangGraph": use("langgraph", *chain),
            "LangGraph, async": use("langgraph", "chain_async", *chain[1:]),
            "raw Ray, each awaited": use("raw_ray", *chain),
            "raw Ray, references": use("raw_ray", "chain_of_references", *chain[1:]),
            "Dask": use("dask", *chain),
            "Hamilton on Ray": use("hamilton", *chain),
            "Prefect on Ray": use("prefect", *chain),
            "Burr": use("burr", *chain),
            "GraphOrchestrator": use("graphorchestrator", *chain),
            "a plain loop": use("plain", *chain),
        },
        [Goal(OURS, 0.5, "LangGraph"), Goal(OURS, 0.1, "raw Ray, each awaited")],
        note="LangGraph, Burr, GraphOrchestrator and inline run in one process.",
    )


def loop(quick: bool) -> Work:
    """W5: what a turn of a loop costs."""
    count = 50 if quick else 1000
    loop: tuple[Any, ...] = ("loop", functions.one_more, 0, count)
    worker, driver = f"{OURS}, router on the worker", f"{OURS}, router in the driver"
    return Work(
        "W5",
        f"a loop of {count:,} supersteps through a conditional edge",
        {
            worker: use("graphorch", *loop, placement="worker"),
            driver: use("graphorch", *loop, placement="driver"),
            f"{OURS}, inline": use("graphorch", *loop, placement="driver", backend="inline"),
            "LangGraph": use("langgraph", *loop),
            "LangGraph, async": use("langgraph", "loop_async", *loop[1:]),
            "raw Ray, an actor": use("raw_ray", *loop),
            "Dask": use("dask", *loop),
            "Burr": use("burr", *loop),
            "GraphOrchestrator": use("graphorchestrator", *loop),
            "a plain loop": use("plain", *loop),
        },
        [Goal(worker, 0.6, "LangGraph"), Goal(driver, 1.6, "raw Ray, an actor")],
        note="LangGraph, Burr, GraphOrchestrator and inline run in one process.",
    )


WORKS: dict[str, Callable[[bool], Work]] = {"W4": chain, "W5": loop}
