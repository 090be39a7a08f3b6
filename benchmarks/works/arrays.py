"""Works with large arrays: handed on from node to node, and to many at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import functions
from benchmarks.contenders import use
from benchmarks.measuring import Goal, Work
from benchmarks.memory import DRIVER, with_driver_memory

OURS = "graphorch_ray"


def handed_on(quick: bool) -> Work:
    """W7: an array through nodes that each make a new one."""
    megabytes, count = (10, 4) if quick else (100, 10)
    make = functions.next_small_array if quick else functions.next_array

    def ends_of(run: Callable[[], Any]) -> Callable[[], object]:
        def once() -> list[int]:
            array = run()
            return [int(array[0]), int(array[-1]), len(array)]

        return with_driver_memory(once)

    def chain(module: str, primitive: str = "chain") -> Callable[[], object]:
        return ends_of(use(module, primitive, make, 0, count))

    return Work(
        "W7",
        f"an array of {megabytes} MB through {count} nodes, each makes a new one",
        {
            OURS: chain("graphorch"),
            "raw Ray, references": chain("raw_ray", "chain_of_references"),
            "raw Ray, each awaited": chain("raw_ray"),
            "Dask": chain("dask"),
            "Hamilton on Ray": chain("hamilton"),
            "Prefect on Ray": chain("prefect"),
            "LangGraph": chain("langgraph"),
            "a plain loop": chain("plain"),
        },
        [Goal(OURS, 1.1, "raw Ray, references"), Goal(OURS, 50, measure=DRIVER)],
        note="LangGraph and the loop keep arrays in one process. Driver MB: by how much its own "
        "memory grew at most, that of the object store not counted.",
    )


def shared(quick: bool) -> Work:
    """W8: one array to many nodes."""
    megabytes, count = (10, 8) if quick else (100, 32)
    array = functions.array_of(megabytes, 0)
    share: tuple[Any, ...] = ("share", functions.every_thousandth, array, count)
    return Work(
        "W8",
        f"one array of {megabytes} MB to {count} nodes, and a join of numbers",
        {
            OURS: with_driver_memory(use("graphorch", *share, max_workers=2)),
            "raw Ray, one put": with_driver_memory(use("raw_ray", *share)),
            "Dask, one scatter": with_driver_memory(use("dask", *share)),
        },
        [Goal(OURS, 1.1, "raw Ray, one put")],
    )


WORKS: dict[str, Callable[[bool], Work]] = {"W7": handed_on, "W8": shared}
